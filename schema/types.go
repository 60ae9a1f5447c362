package schema

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
)

// types resolves the message and extension types of one schema, and of nothing
// else. It satisfies the resolver interfaces of proto and protojson.
type types struct {
	files    *protoregistry.Files
	dynamic  *dynamicpb.Types
	messages map[protoreflect.FullName]*MessageType
}

func (t *types) messageType(name string) *MessageType {
	return t.messages[protoreflect.FullName(name)]
}

// FindMessageByName implements protoregistry.MessageTypeResolver.
func (t *types) FindMessageByName(name protoreflect.FullName) (protoreflect.MessageType, error) {
	if m := t.messages[name]; m != nil {
		return m.typ, nil
	}
	return nil, protoregistry.NotFound
}

// FindMessageByURL implements protoregistry.MessageTypeResolver.
func (t *types) FindMessageByURL(url string) (protoreflect.MessageType, error) {
	return t.FindMessageByName(protoreflect.FullName(url[strings.LastIndexByte(url, '/')+1:]))
}

// FindExtensionByName implements protoregistry.ExtensionTypeResolver.
func (t *types) FindExtensionByName(name protoreflect.FullName) (protoreflect.ExtensionType, error) {
	return t.dynamic.FindExtensionByName(name)
}

// FindExtensionByNumber implements protoregistry.ExtensionTypeResolver.
func (t *types) FindExtensionByNumber(message protoreflect.FullName, number protoreflect.FieldNumber) (protoreflect.ExtensionType, error) {
	return t.dynamic.FindExtensionByNumber(message, number)
}

// newTypes collects the message types of files.
func newTypes(files *protoregistry.Files) *types {
	t := &types{files: files, dynamic: dynamicpb.NewTypes(files), messages: map[protoreflect.FullName]*MessageType{}}
	files.RangeFiles(func(fd protoreflect.FileDescriptor) bool {
		t.add(fd.Messages())
		return true
	})
	inspect, lossy, values := reachable{}, reachable{}, reachable{}
	for _, m := range t.messages {
		m.inspect = inspect.from(m.typ.Descriptor(), needsInspection)
		m.values = values.from(m.typ.Descriptor(), holdsValue)
		m.lossy = m.inspect || lossy.from(m.typ.Descriptor(), holdsNull)
	}
	// The first look-up builds an index, the others only read it.
	_, _ = t.dynamic.FindExtensionByNumber("", 1)
	return t
}

func (t *types) add(messages protoreflect.MessageDescriptors) {
	for i := range messages.Len() {
		md := messages.Get(i)
		t.messages[md.FullName()] = &MessageType{types: t, typ: dynamicpb.NewMessageType(md)}
		t.add(md.Messages())
	}
}

// needsInspection reports whether md is an Any, can hold an extension, or is a
// message whose type is missing.
func needsInspection(md protoreflect.MessageDescriptor) bool {
	return isMissing(md) || md.FullName() == anyName || md.ExtensionRanges().Len() > 0
}

// holdsNull reports whether md has a field of google.protobuf.NullValue, all of
// whose numbers JSON writes as null.
func holdsNull(md protoreflect.MessageDescriptor) bool {
	for i := range md.Fields().Len() {
		if e := md.Fields().Get(i).Enum(); e != nil && e.FullName() == "google.protobuf.NullValue" {
			return true
		}
	}
	return false
}

// holdsValue reports whether md has a single field of google.protobuf.Value.
func holdsValue(md protoreflect.MessageDescriptor) bool {
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		if !fd.IsList() && fd.Message() != nil && fd.Message().FullName() == valueName {
			return true
		}
	}
	return md.FullName() == anyName
}

// reachable remembers for message types whether they, or a type that they can
// hold at any depth, are of some kind.
type reachable map[protoreflect.FullName]bool

func (r reachable) from(md protoreflect.MessageDescriptor, is func(protoreflect.MessageDescriptor) bool) bool {
	seen := map[protoreflect.FullName]bool{}
	var visit func(protoreflect.MessageDescriptor) bool
	visit = func(md protoreflect.MessageDescriptor) bool {
		name := md.FullName()
		if answer, ok := r[name]; ok {
			return answer
		}
		if seen[name] {
			return false
		}
		seen[name] = true
		if is(md) {
			r[name] = true
			return true
		}
		fields := md.Fields()
		for i := range fields.Len() {
			if sub := fields.Get(i).Message(); sub != nil && visit(sub) {
				r[name] = true
				return true
			}
		}
		return false
	}
	if visit(md) {
		return true
	}
	// Everything reachable was visited.
	for name := range seen {
		r[name] = false
	}
	return false
}

var (
	errDepth      = errors.New("nested too deep")
	errIncomplete = errors.New("holds a message whose type is not in the schema")
)

// inspect walks m, at most depth levels deep, through the contents of every Any.
func (t *types) inspect(m protoreflect.Message, depth int) error {
	if depth <= 0 {
		return errDepth
	}
	md := m.Descriptor()
	if isMissing(md) {
		return fmt.Errorf("%w: %s", errIncomplete, md.FullName())
	}
	if md.FullName() == anyName {
		inner, err := t.unpack(m)
		if err != nil || inner == nil {
			return err
		}
		return t.inspect(inner, depth-anyWeight)
	}
	var err error
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap():
			if fd.MapValue().Message() == nil {
				return true
			}
			v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
				err = t.inspect(v.Message(), depth-1)
				return err == nil
			})
		case fd.Message() == nil:
		case fd.IsList():
			for i := range v.List().Len() {
				if err = t.inspect(v.List().Get(i).Message(), depth-1); err != nil {
					return false
				}
			}
		default:
			err = t.inspect(v.Message(), depth-1)
		}
		return err == nil
	})
	return err
}

// unpack decodes the content of an Any. An Any without a type is empty: nil.
func (t *types) unpack(m protoreflect.Message) (protoreflect.Message, error) {
	if isMissing(m.Descriptor()) {
		return nil, fmt.Errorf("%w: %s", errIncomplete, anyName)
	}
	fields := m.Descriptor().Fields()
	url, value := fields.ByNumber(1), fields.ByNumber(2)
	name, content := m.Get(url).String(), m.Get(value).Bytes()
	if name == "" && len(content) == 0 {
		return nil, nil
	}
	mt, err := t.FindMessageByURL(name)
	if err != nil {
		return nil, fmt.Errorf("%w: content of an Any", errIncomplete)
	}
	inner := mt.New()
	o := proto.UnmarshalOptions{AllowPartial: true, Resolver: t, RecursionLimit: maxDepthAny}
	if err := o.Unmarshal(content, inner.Interface()); err != nil {
		return nil, err
	}
	return inner, nil
}
