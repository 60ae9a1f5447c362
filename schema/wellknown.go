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

const (
	anyName      protoreflect.FullName = "google.protobuf.Any"
	structName   protoreflect.FullName = "google.protobuf.Struct"
	listName     protoreflect.FullName = "google.protobuf.ListValue"
	valueName    protoreflect.FullName = "google.protobuf.Value"
	durationName protoreflect.FullName = "google.protobuf.Duration"
)
