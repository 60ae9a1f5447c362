package schema

import (
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// jsonStyle is how the author of a JSON body writes: what a rewrite adds should
// look the same.
type jsonStyle struct {
	names, protoNames     int  // keys where the two differ
	enumNames, enumDigits int  // enum values
	defaults              int  // members that spell out a default
	nulls                 int  // of them, messages spelled out as null
	gaps                  bool // some field that could be spelled out is not
}

func (s *jsonStyle) options() protojson.MarshalOptions {
	spelled := s.defaults > 0 && !s.gaps
	return protojson.MarshalOptions{
		UseProtoNames:     s.protoNames > s.names,
		UseEnumNumbers:    s.enumDigits > s.enumNames,
		EmitUnpopulated:   spelled && s.nulls > 0,
		EmitDefaultValues: spelled && s.nulls == 0,
	}
}

// observe reads the style off body, a form of m.
func (s *jsonStyle) observe(t *types, body []byte, m protoreflect.Message) {
	md := m.Descriptor()
	if hasOwnForm(md) {
		return
	}
	members, err := splitObject(body)
	if err != nil {
		return
	}
	written := make(map[protoreflect.FieldNumber]bool, len(members))
	for _, member := range members {
		fd := t.fieldByKey(md, member.key)
		if fd == nil {
			continue
		}
		written[fd.Number()] = true
		if fd.JSONName() != fd.TextName() && !fd.IsExtension() {
			if member.key == fd.JSONName() {
				s.names++
			} else {
				s.protoNames++
			}
		}
		if !m.Has(fd) {
			if fd.ContainingOneof() == nil {
				s.defaults++
				if isNull(member.value) && fd.Message() != nil {
					s.nulls++
				}
			}
			continue
		}
		s.observeField(t, fd, member.value, m.Get(fd))
	}
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		spellable := fd.ContainingOneof() == nil && (fd.IsList() || fd.IsMap() || !fd.HasPresence())
		if spellable && !written[fd.Number()] {
			s.gaps = true
		}
	}
}

func (s *jsonStyle) observeField(t *types, fd protoreflect.FieldDescriptor, value []byte, v protoreflect.Value) {
	switch {
	case fd.IsMap():
	case fd.IsList():
		elements, err := splitArray(value)
		if err != nil || len(elements) != v.List().Len() {
			return
		}
		for i, element := range elements {
			s.observeValue(t, fd, element, v.List().Get(i))
		}
	default:
		s.observeValue(t, fd, value, v)
	}
}

func (s *jsonStyle) observeValue(t *types, fd protoreflect.FieldDescriptor, value []byte, v protoreflect.Value) {
	switch {
	case fd.Message() != nil:
		s.observe(t, value, v.Message())
	case fd.Enum() == nil:
	case isNumber(value):
		s.enumDigits++
	case isString(value):
		s.enumNames++
	}
}

// fieldByKey returns the field that a JSON key means: its JSON name, its name in
// the schema, or an extension in brackets.
func (t *types) fieldByKey(md protoreflect.MessageDescriptor, key string) protoreflect.FieldDescriptor {
	if len(key) > 2 && key[0] == '[' && key[len(key)-1] == ']' {
		xt, err := t.FindExtensionByName(protoreflect.FullName(key[1 : len(key)-1]))
		if err != nil || xt.TypeDescriptor().ContainingMessage().FullName() != md.FullName() {
			return nil
		}
		return xt.TypeDescriptor()
	}
	if fd := md.Fields().ByJSONName(key); fd != nil {
		return fd
	}
	return md.Fields().ByTextName(key)
}
