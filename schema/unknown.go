package schema

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// keepUnknown carries the fields that the schema does not know from before over
// to after, its replacement: at the top level always, in a singular sub-message
// when it is present in both, in map values by key, in list elements by position
// when the list has kept its length. The content of an Any counts as a
// sub-message as long as its type stays.
func (t *types) keepUnknown(before, after protoreflect.Message) {
	if unknown := before.GetUnknown(); len(unknown) > 0 {
		after.SetUnknown(unknown)
	}
	if before.Descriptor().FullName() == anyName {
		t.keepUnknownInAny(before, after)
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
					t.keepUnknown(v.Message(), kept.Get(key).Message())
				}
				return true
			})
		case fd.IsList():
			from, to := v.List(), after.Mutable(fd).List()
			if from.Len() == to.Len() {
				for i := range from.Len() {
					t.keepUnknown(from.Get(i).Message(), to.Get(i).Message())
				}
			}
		default:
			t.keepUnknown(v.Message(), after.Mutable(fd).Message())
		}
		return true
	})
}

// keepUnknownInAny does the same for what two Anys hold. Content that stayed the
// same keeps its very bytes.
func (t *types) keepUnknownInAny(before, after protoreflect.Message) {
	from, err := t.unpack(before)
	if err != nil || from == nil {
		return
	}
	to, err := t.unpack(after)
	if err != nil || to == nil || to.Descriptor() != from.Descriptor() {
		return
	}
	t.keepUnknown(from, to)
	value := after.Descriptor().Fields().ByNumber(2)
	if proto.Equal(from.Interface(), to.Interface()) {
		after.Set(value, before.Get(value))
		return
	}
	b, err := proto.MarshalOptions{AllowPartial: true, Deterministic: true}.Marshal(to.Interface())
	if err == nil {
		after.Set(value, protoreflect.ValueOfBytes(b))
	}
}
