package schema

import (
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/apipb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/sourcecontextpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/typepb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// wellKnownFiles are the files that belong to the language. They stand in where
// a descriptor set or a reflection server leaves them out.
var wellKnownFiles = []protoreflect.FileDescriptor{
	descriptorpb.File_google_protobuf_descriptor_proto,
	anypb.File_google_protobuf_any_proto,
	sourcecontextpb.File_google_protobuf_source_context_proto,
	typepb.File_google_protobuf_type_proto,
	apipb.File_google_protobuf_api_proto,
	durationpb.File_google_protobuf_duration_proto,
	emptypb.File_google_protobuf_empty_proto,
	fieldmaskpb.File_google_protobuf_field_mask_proto,
	structpb.File_google_protobuf_struct_proto,
	timestamppb.File_google_protobuf_timestamp_proto,
	wrapperspb.File_google_protobuf_wrappers_proto,
}

func wellKnownFile(path string) protoreflect.FileDescriptor {
	for _, fd := range wellKnownFiles {
		if fd.Path() == path {
			return fd
		}
	}
	return nil
}

// addWellKnown adds the well-known files that nothing imported, for the contents
// of Any. One that clashes with what the upstream declares stays out.
func (b *builder) addWellKnown() {
	for _, fd := range wellKnownFiles {
		if b.state[fd.Path()] == 0 {
			_ = b.files.RegisterFile(fd)
		}
	}
}

// wellKnownFields are the fields by number that protojson relies on in the types
// to which it gives a form of their own.
var wellKnownFields = map[protoreflect.FullName]map[protoreflect.FieldNumber]protoreflect.Kind{
	anyName:                       {1: protoreflect.StringKind, 2: protoreflect.BytesKind},
	"google.protobuf.Timestamp":   {1: protoreflect.Int64Kind, 2: protoreflect.Int32Kind},
	"google.protobuf.Duration":    {1: protoreflect.Int64Kind, 2: protoreflect.Int32Kind},
	"google.protobuf.BoolValue":   {1: protoreflect.BoolKind},
	"google.protobuf.Int32Value":  {1: protoreflect.Int32Kind},
	"google.protobuf.Int64Value":  {1: protoreflect.Int64Kind},
	"google.protobuf.UInt32Value": {1: protoreflect.Uint32Kind},
	"google.protobuf.UInt64Value": {1: protoreflect.Uint64Kind},
	"google.protobuf.FloatValue":  {1: protoreflect.FloatKind},
	"google.protobuf.DoubleValue": {1: protoreflect.DoubleKind},
	"google.protobuf.StringValue": {1: protoreflect.StringKind},
	"google.protobuf.BytesValue":  {1: protoreflect.BytesKind},
	"google.protobuf.FieldMask":   {1: protoreflect.StringKind},
	structName:                    {1: protoreflect.MessageKind},
	listName:                      {1: protoreflect.MessageKind},
	valueName: {
		1: protoreflect.EnumKind, 2: protoreflect.DoubleKind, 3: protoreflect.StringKind,
		4: protoreflect.BoolKind, 5: protoreflect.MessageKind, 6: protoreflect.MessageKind,
	},
	"google.protobuf.Empty": {},
}

const (
	anyName    protoreflect.FullName = "google.protobuf.Any"
	structName protoreflect.FullName = "google.protobuf.Struct"
	listName   protoreflect.FullName = "google.protobuf.ListValue"
	valueName  protoreflect.FullName = "google.protobuf.Value"
)

// isMissing reports whether md only stands for a type whose declaration is
// missing, or carries the name of a well-known type without being it.
func isMissing(md protoreflect.MessageDescriptor) bool {
	if md.IsPlaceholder() {
		return true
	}
	for number, kind := range wellKnownFields[md.FullName()] {
		fd := md.Fields().ByNumber(number)
		repeated := md.FullName() == listName || md.FullName() == structName || md.FullName() == "google.protobuf.FieldMask"
		if fd == nil || fd.Kind() != kind || (fd.Cardinality() == protoreflect.Repeated) != repeated {
			return true
		}
	}
	return false
}

// hasOwnForm reports whether protojson gives md a form other than an object of
// its fields.
func hasOwnForm(md protoreflect.MessageDescriptor) bool {
	_, ok := wellKnownFields[md.FullName()]
	return ok && md.FullName() != "google.protobuf.Empty"
}
