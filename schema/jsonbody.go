package schema

import (
	"strconv"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// patcher writes a JSON body anew so that only what differs between two messages
// differs between the two bodies. It walks three things side by side: the
// original text, the text of the new message as protojson writes it, and the two
// messages, which say what changed.
type patcher struct {
	types *types
	// bound holds the fields, as dotted paths of schema names, that are not the
	// body's to say: what stands in the body of them stays.
	bound map[string]bool
	o     protojson.MarshalOptions
	// nulls says that unset messages are spelled out.
	nulls bool
}

// patch returns body, the JSON form of before, as the form of after.
func (t *MessageType) patch(body []byte, before, after protoreflect.Message, bound map[string]bool) ([]byte, error) {
	var style jsonStyle
	style.observe(t.types, body, before)
	p, rendered, err := t.newPatcher(style, after, bound)
	if err != nil {
		return nil, err
	}
	return p.message(body, rendered, before, after, ""), nil
}

// patchField is patch for a body that holds nothing but field fd of the message.
// An empty result means that the field is unset.
func (t *MessageType) patchField(body []byte, fd protoreflect.FieldDescriptor, before, after protoreflect.Message) ([]byte, error) {
	var style jsonStyle
	wrapped := []byte("{}")
	if value := firstValue(body); len(value) > 0 {
		wrapped = appendObject(nil, []jsonMember{{raw: quoteJSON(fd.JSONName()), value: value}})
		if before.Has(fd) {
			style.observeField(t.types, fd, value, before.Get(fd))
		}
	}
	p, rendered, err := t.newPatcher(style, after, nil)
	if err != nil {
		return nil, err
	}
	b := p.message(wrapped, rendered, before, after, "")
	members, err := splitObject(b)
	if err != nil {
		return nil, err
	}
	for _, m := range members {
		if t.types.fieldByKey(t.typ.Descriptor(), m.key) == fd {
			return m.value, nil
		}
	}
	return nil, nil
}

func firstValue(b []byte) []byte {
	i := skipBlanks(b, 0)
	return b[i:valueEnd(b, i)]
}

func (t *MessageType) newPatcher(style jsonStyle, after protoreflect.Message, bound map[string]bool) (*patcher, []byte, error) {
	p := &patcher{types: t.types, bound: bound, o: style.options()}
	p.nulls = p.o.EmitUnpopulated
	if p.nulls && t.values {
		p.o.EmitUnpopulated, p.o.EmitDefaultValues = false, true
	}
	rendered, err := t.renderStyled(after, p.o)
	if err != nil {
		return nil, nil, t.undecodable(err)
	}
	return p, rendered, nil
}

// message patches text, the form of before, with rendered, the form of after.
func (p *patcher) message(text, rendered []byte, before, after protoreflect.Message, path string) []byte {
	md := after.Descriptor()
	switch {
	case proto.Equal(before.Interface(), after.Interface()):
		return firstValue(text)
	case md.FullName() == anyName:
		return p.any(text, rendered, before, after)
	case md.FullName() == structName:
		fd := md.Fields().ByNumber(1)
		return p.mapField(text, rendered, fd, before.Get(fd).Map(), after.Get(fd).Map(), path)
	case md.FullName() == valueName:
		return p.value(text, rendered, before, after, path)
	case hasOwnForm(md):
		return restyle(text, rendered)
	}
	return p.object(text, rendered, before, after, path)
}

// object patches an object of fields. Keys that are no field stay.
func (p *patcher) object(text, rendered []byte, before, after protoreflect.Message, path string) []byte {
	old, err := splitObject(text)
	if err != nil {
		return rendered
	}
	fresh, err := splitObject(rendered)
	if err != nil {
		return rendered
	}
	md := after.Descriptor()
	byNumber := make(map[protoreflect.FieldNumber]jsonMember, len(fresh))
	for _, m := range fresh {
		if fd := p.types.fieldByKey(md, m.key); fd != nil {
			byNumber[fd.Number()] = m
		}
	}
	out := make([]jsonMember, 0, len(old)+len(fresh))
	written := make(map[protoreflect.FieldNumber]bool, len(old))
	for _, m := range old {
		fd := p.types.fieldByKey(md, m.key)
		if fd == nil {
			out = append(out, m)
			continue
		}
		written[fd.Number()] = true
		name := path + string(fd.Name())
		next, present := byNumber[fd.Number()]
		switch {
		case p.bound[name], sameField(fd, before, after):
			out = append(out, m)
		case isUnsetValue(fd, after):
			// It has no form: null is a value.
		case present:
			m.value = p.field(m.value, next.value, fd, before, after, name+".")
			out = append(out, m)
		case p.nulls && fd.Message() != nil && fd.ContainingOneof() == nil:
			m.value = []byte("null")
			out = append(out, m)
		}
	}
	for _, m := range fresh {
		fd := p.types.fieldByKey(md, m.key)
		if fd == nil || written[fd.Number()] || p.bound[path+string(fd.Name())] ||
			!after.Has(fd) || sameField(fd, before, after) {
			continue
		}
		out = append(out, m)
	}
	return appendObject(nil, out)
}

// isUnsetValue reports whether fd is a google.protobuf.Value that m does not have.
func isUnsetValue(fd protoreflect.FieldDescriptor, m protoreflect.Message) bool {
	return fd.Message() != nil && !fd.IsList() && fd.Message().FullName() == valueName && !m.Has(fd)
}

// sameField reports whether a field is the same in both messages.
func sameField(fd protoreflect.FieldDescriptor, before, after protoreflect.Message) bool {
	if before.Has(fd) != after.Has(fd) {
		return false
	}
	return !after.Has(fd) || before.Get(fd).Equal(after.Get(fd))
}

func (p *patcher) field(text, rendered []byte, fd protoreflect.FieldDescriptor, before, after protoreflect.Message, path string) []byte {
	if isNull(text) && fd.Message() != nil && fd.Message().FullName() != valueName || !before.Has(fd) || !after.Has(fd) {
		return restyle(text, rendered)
	}
	b, a := before.Get(fd), after.Get(fd)
	switch {
	case fd.IsMap():
		return p.mapField(text, rendered, fd, b.Map(), a.Map(), path)
	case fd.IsList():
		return p.list(text, rendered, fd, b.List(), a.List(), path)
	default:
		return p.single(text, rendered, fd, b, a, path)
	}
}

// single patches one value of fd, which may be an element of a list or map.
func (p *patcher) single(text, rendered []byte, fd protoreflect.FieldDescriptor, before, after protoreflect.Value, path string) []byte {
	switch {
	case fd.Message() != nil:
		return p.message(text, rendered, before.Message(), after.Message(), path)
	case before.Equal(after):
		return text
	case fd.Enum() != nil:
		return restyleEnum(text, rendered, fd, after.Enum())
	default:
		return restyle(text, rendered)
	}
}

// list patches an array by position, as long as its length is the same.
func (p *patcher) list(text, rendered []byte, fd protoreflect.FieldDescriptor, before, after protoreflect.List, path string) []byte {
	if before.Len() != after.Len() {
		return rendered
	}
	old, err := splitArray(text)
	if err != nil || len(old) != before.Len() {
		return rendered
	}
	fresh, err := splitArray(rendered)
	if err != nil || len(fresh) != after.Len() {
		return rendered
	}
	out := []byte{'['}
	for i := range old {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, p.single(old[i], fresh[i], fd, before.Get(i), after.Get(i), path)...)
	}
	return append(out, ']')
}

// mapField patches the object form of a map by key.
func (p *patcher) mapField(text, rendered []byte, fd protoreflect.FieldDescriptor, before, after protoreflect.Map, path string) []byte {
	old, err := splitObject(text)
	if err != nil {
		return rendered
	}
	fresh, err := splitObject(rendered)
	if err != nil {
		return rendered
	}
	byKey := make(map[any]jsonMember, len(fresh))
	for _, m := range fresh {
		if key, ok := parseMapKey(fd.MapKey(), m.key); ok {
			byKey[key.Interface()] = m
		}
	}
	out := make([]jsonMember, 0, len(fresh))
	for _, m := range old {
		key, ok := parseMapKey(fd.MapKey(), m.key)
		if !ok || !after.Has(key) {
			continue
		}
		next := byKey[key.Interface()]
		delete(byKey, key.Interface())
		if before.Has(key) {
			m.value = p.single(m.value, next.value, fd.MapValue(), before.Get(key), after.Get(key), path)
		} else {
			m.value = next.value
		}
		out = append(out, m)
	}
	for _, m := range fresh {
		if key, ok := parseMapKey(fd.MapKey(), m.key); ok {
			if _, left := byKey[key.Interface()]; left {
				out = append(out, m)
			}
		}
	}
	return appendObject(nil, out)
}

// parseMapKey reads the JSON form of a map key.
func parseMapKey(fd protoreflect.FieldDescriptor, s string) (protoreflect.MapKey, bool) {
	v, err := parseScalar(fd, s)
	if err != nil {
		return protoreflect.MapKey{}, false
	}
	return v.MapKey(), true
}

// value patches a google.protobuf.Value, objects and arrays member by member.
func (p *patcher) value(text, rendered []byte, before, after protoreflect.Message, path string) []byte {
	oneof := after.Descriptor().Oneofs().Get(0)
	fd := after.WhichOneof(oneof)
	if fd == nil || fd.Message() == nil || before.WhichOneof(oneof) != fd {
		return rendered
	}
	b, a := before.Get(fd).Message(), after.Get(fd).Message()
	if a.Descriptor().FullName() == structName {
		return p.message(text, rendered, b, a, path)
	}
	values := a.Descriptor().Fields().ByNumber(1)
	return p.list(text, rendered, values, b.Get(values).List(), a.Get(values).List(), path)
}

// any patches the object form of an Any whose type has stayed.
func (p *patcher) any(text, rendered []byte, before, after protoreflect.Message) []byte {
	url := after.Descriptor().Fields().ByNumber(1)
	if before.Get(url).String() != after.Get(url).String() {
		return rendered
	}
	from, err := p.types.unpack(before)
	if err != nil || from == nil || hasOwnForm(from.Descriptor()) {
		return rendered
	}
	to, err := p.types.unpack(after)
	if err != nil || to == nil {
		return rendered
	}
	// "@type" is no field, so it stays as an unknown key does.
	return p.object(text, rendered, from, to, "")
}

// restyle writes a scalar in the way of the one it replaces: a 64-bit integer
// without quotes where there were none.
func restyle(text, rendered []byte) []byte {
	if !isNumber(text) || !isString(rendered) {
		return rendered
	}
	digits := rendered[1 : len(rendered)-1]
	if _, err := strconv.ParseInt(string(digits), 10, 64); err == nil {
		return digits
	}
	if _, err := strconv.ParseUint(string(digits), 10, 64); err == nil {
		return digits
	}
	return rendered
}

// restyleEnum writes an enum by number where it was one, else by name.
func restyleEnum(text, rendered []byte, fd protoreflect.FieldDescriptor, n protoreflect.EnumNumber) []byte {
	v := fd.Enum().Values().ByNumber(n)
	switch {
	case isNumber(text):
		return strconv.AppendInt(nil, int64(n), 10)
	case isString(text) && v != nil:
		return quoteJSON(string(v.Name()))
	default:
		return rendered
	}
}
