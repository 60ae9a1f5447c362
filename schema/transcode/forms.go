package transcode

import "google.golang.org/protobuf/reflect/protoreflect"

// form is how JSON writes a message type.
type form uint8

const (
	formObject form = iota
	formAny
	formTimestamp
	formDuration
	formWrapper
	formStruct
	formList
	formValue
	formMask
	formEmpty // an object, but one that is no object of fields in an Any
)

const (
	anyName    protoreflect.FullName = "google.protobuf.Any"
	structName protoreflect.FullName = "google.protobuf.Struct"
	listName   protoreflect.FullName = "google.protobuf.ListValue"
	valueName  protoreflect.FullName = "google.protobuf.Value"
	maskName   protoreflect.FullName = "google.protobuf.FieldMask"
)

type knownType struct {
	form   form
	fields map[protoreflect.FieldNumber]protoreflect.Kind
}

func wrapper(kind protoreflect.Kind) knownType {
	return knownType{formWrapper, map[protoreflect.FieldNumber]protoreflect.Kind{1: kind}}
}

// knownTypes are the types that JSON gives a form of their own, with the fields
// by number that the form relies on.
var knownTypes = map[protoreflect.FullName]knownType{
	anyName: {formAny, map[protoreflect.FieldNumber]protoreflect.Kind{1: protoreflect.StringKind, 2: protoreflect.BytesKind}},
	"google.protobuf.Timestamp": {
		formTimestamp, map[protoreflect.FieldNumber]protoreflect.Kind{1: protoreflect.Int64Kind, 2: protoreflect.Int32Kind},
	},
	"google.protobuf.Duration": {
		formDuration, map[protoreflect.FieldNumber]protoreflect.Kind{1: protoreflect.Int64Kind, 2: protoreflect.Int32Kind},
	},
	"google.protobuf.BoolValue":   wrapper(protoreflect.BoolKind),
	"google.protobuf.Int32Value":  wrapper(protoreflect.Int32Kind),
	"google.protobuf.Int64Value":  wrapper(protoreflect.Int64Kind),
	"google.protobuf.UInt32Value": wrapper(protoreflect.Uint32Kind),
	"google.protobuf.UInt64Value": wrapper(protoreflect.Uint64Kind),
	"google.protobuf.FloatValue":  wrapper(protoreflect.FloatKind),
	"google.protobuf.DoubleValue": wrapper(protoreflect.DoubleKind),
	"google.protobuf.StringValue": wrapper(protoreflect.StringKind),
	"google.protobuf.BytesValue":  wrapper(protoreflect.BytesKind),
	maskName:                      {formMask, map[protoreflect.FieldNumber]protoreflect.Kind{1: protoreflect.StringKind}},
	structName:                    {formStruct, map[protoreflect.FieldNumber]protoreflect.Kind{1: protoreflect.MessageKind}},
	listName:                      {formList, map[protoreflect.FieldNumber]protoreflect.Kind{1: protoreflect.MessageKind}},
	valueName: {formValue, map[protoreflect.FieldNumber]protoreflect.Kind{
		1: protoreflect.EnumKind, 2: protoreflect.DoubleKind, 3: protoreflect.StringKind,
		4: protoreflect.BoolKind, 5: protoreflect.MessageKind, 6: protoreflect.MessageKind,
	}},
	"google.protobuf.Empty": {formEmpty, nil},
}

// IsMissing reports whether md only stands for a type whose declaration is
// missing, or carries the name of a well-known type without being it.
func IsMissing(md protoreflect.MessageDescriptor) bool {
	if md.IsPlaceholder() {
		return true
	}
	name := md.FullName()
	for number, kind := range knownTypes[name].fields {
		fd := md.Fields().ByNumber(number)
		repeated := name == listName || name == structName || name == maskName
		if fd == nil || fd.Kind() != kind || (fd.Cardinality() == protoreflect.Repeated) != repeated {
			return true
		}
		if fd.IsMap() != (name == structName) {
			return true
		}
		if !holds(fd) {
			return true
		}
	}
	return false
}

// holds reports whether the messages that a well-known type is made of are the
// well-known ones too.
func holds(fd protoreflect.FieldDescriptor) bool {
	is := func(md protoreflect.MessageDescriptor, name protoreflect.FullName) bool {
		return md != nil && md.FullName() == name && !md.IsPlaceholder()
	}
	switch {
	case fd.IsMap():
		return fd.MapKey().Kind() == protoreflect.StringKind && is(fd.MapValue().Message(), valueName)
	case fd.Message() == nil:
		return true
	case fd.ContainingMessage().FullName() == listName:
		return is(fd.Message(), valueName)
	case fd.Number() == 5:
		return is(fd.Message(), structName)
	default:
		return is(fd.Message(), listName)
	}
}

// HasOwnForm reports whether JSON gives md a form other than an object of its
// fields.
func HasOwnForm(md protoreflect.MessageDescriptor) bool {
	known, ok := knownTypes[md.FullName()]
	return ok && known.form != formEmpty
}

func formOf(md protoreflect.MessageDescriptor) form { return knownTypes[md.FullName()].form }
