package transcode_test

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/execgate/execgate/schema/transcode"
)

// reference does what the package does with protobuf's own packages: dynamic
// messages and protojson. It is the oracle of the tests.
type reference struct {
	files   *protoregistry.Files
	dynamic *dynamicpb.Types
}

func newReference(files *protoregistry.Files) *reference {
	return &reference{files, dynamicpb.NewTypes(files)}
}

func (r *reference) FindMessageByName(name protoreflect.FullName) (protoreflect.MessageType, error) {
	return r.dynamic.FindMessageByName(name)
}

func (r *reference) FindMessageByURL(url string) (protoreflect.MessageType, error) {
	// Something else of the name is no message.
	mt, err := r.dynamic.FindMessageByName(protoreflect.FullName(url[strings.LastIndexByte(url, '/')+1:]))
	if err != nil {
		return nil, protoregistry.NotFound
	}
	return mt, nil
}

func (r *reference) FindExtensionByName(name protoreflect.FullName) (protoreflect.ExtensionType, error) {
	return r.dynamic.FindExtensionByName(name)
}

func (r *reference) FindExtensionByNumber(m protoreflect.FullName, n protoreflect.FieldNumber) (protoreflect.ExtensionType, error) {
	return r.dynamic.FindExtensionByNumber(m, n)
}

func (r *reference) new(name string) protoreflect.Message {
	mt, err := r.FindMessageByName(protoreflect.FullName(name))
	if err != nil {
		panic(err)
	}
	return mt.New()
}

// errPanic is for a map entry whose key comes twice, the second time in another
// form than a key has: protobuf panics.
var errPanic = errors.New("panic")

func (r *reference) readWire(name string, b []byte, depth int) (m protoreflect.Message, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errPanic
		}
	}()
	m = r.new(name)
	o := proto.UnmarshalOptions{AllowPartial: true, Resolver: r, RecursionLimit: depth}
	if err := o.Unmarshal(b, m.Interface()); err != nil {
		return nil, err
	}
	return m, r.inspect(m, depth)
}

func (r *reference) readJSON(name string, b []byte, depth int, lenient bool) (m protoreflect.Message, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	m = r.new(name)
	o := protojson.UnmarshalOptions{AllowPartial: true, DiscardUnknown: lenient, Resolver: r, RecursionLimit: depth}
	if err := o.Unmarshal(b, m.Interface()); err != nil {
		return nil, err
	}
	return m, r.inspect(m, depth)
}

func (r *reference) json(m protoreflect.Message, s transcode.Style) ([]byte, error) {
	o := protojson.MarshalOptions{
		AllowPartial: true, Resolver: r, UseProtoNames: s.ProtoNames, UseEnumNumbers: s.EnumNumbers,
		EmitUnpopulated: s.Nulls, EmitDefaultValues: s.Defaults,
	}
	b, err := o.Marshal(m.Interface())
	return compact(b), err
}

func (r *reference) wire(m protoreflect.Message) []byte {
	b, err := proto.MarshalOptions{AllowPartial: true, Deterministic: true}.Marshal(m.Interface())
	if err != nil {
		panic(err)
	}
	return b
}

// compact removes the blanks that protojson puts between tokens.
func compact(b []byte) []byte {
	out, inString := b[:0], false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case inString && c == '\\':
			out = append(out, c)
			i++
		case c == '"':
			inString = !inString
		case c == ' ' && !inString:
			continue
		}
		out = append(out, b[i])
	}
	return out
}

func (r *reference) inspect(m protoreflect.Message, depth int) error {
	if depth <= 0 {
		return errors.New("too deep")
	}
	md := m.Descriptor()
	if transcode.IsMissing(md) {
		return errors.New("missing")
	}
	if md.FullName() == "google.protobuf.Any" {
		inner, err := r.unpack(m)
		if err != nil || inner == nil {
			return err
		}
		return r.inspect(inner, depth-5)
	}
	var err error
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap():
			if fd.MapValue().Message() == nil {
				return true
			}
			v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
				err = r.inspect(v.Message(), depth-1)
				return err == nil
			})
		case fd.Message() == nil:
		case fd.IsList():
			for i := range v.List().Len() {
				if err = r.inspect(v.List().Get(i).Message(), depth-1); err != nil {
					return false
				}
			}
		default:
			err = r.inspect(v.Message(), depth-1)
		}
		return err == nil
	})
	return err
}

func (r *reference) unpack(m protoreflect.Message) (protoreflect.Message, error) {
	fields := m.Descriptor().Fields()
	name, content := m.Get(fields.ByNumber(1)).String(), m.Get(fields.ByNumber(2)).Bytes()
	if name == "" && len(content) == 0 {
		return nil, nil
	}
	mt, err := r.FindMessageByURL(name)
	if err != nil {
		return nil, err
	}
	inner := mt.New()
	o := proto.UnmarshalOptions{AllowPartial: true, Resolver: r, RecursionLimit: 100}
	return inner, o.Unmarshal(content, inner.Interface())
}

func (r *reference) keepUnknown(before, after protoreflect.Message) {
	if unknown := before.GetUnknown(); len(unknown) > 0 {
		after.SetUnknown(unknown)
	}
	if before.Descriptor().FullName() == "google.protobuf.Any" {
		r.keepUnknownInAny(before, after)
		return
	}
	before.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd.Message() == nil || !after.Has(fd) {
			return true
		}
		switch {
		case fd.IsMap():
			if fd.MapValue().Message() == nil {
				return true
			}
			kept := after.Mutable(fd).Map()
			v.Map().Range(func(key protoreflect.MapKey, v protoreflect.Value) bool {
				if kept.Has(key) {
					r.keepUnknown(v.Message(), kept.Get(key).Message())
				}
				return true
			})
		case fd.IsList():
			from, to := v.List(), after.Mutable(fd).List()
			if from.Len() == to.Len() {
				for i := range from.Len() {
					r.keepUnknown(from.Get(i).Message(), to.Get(i).Message())
				}
			}
		default:
			r.keepUnknown(v.Message(), after.Mutable(fd).Message())
		}
		return true
	})
}

func (r *reference) keepUnknownInAny(before, after protoreflect.Message) {
	from, err := r.unpack(before)
	if err != nil || from == nil {
		return
	}
	to, err := r.unpack(after)
	if err != nil || to == nil || to.Descriptor() != from.Descriptor() {
		return
	}
	r.keepUnknown(from, to)
	value := after.Descriptor().Fields().ByNumber(2)
	if proto.Equal(from.Interface(), to.Interface()) {
		after.Set(value, before.Get(value))
		return
	}
	after.Set(value, protoreflect.ValueOfBytes(r.wire(to)))
}
