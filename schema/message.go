package schema

import (
	"bytes"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// How deep messages may be nested. What is deeper does not decode: it would be
// walked recursively, several times.
const (
	maxDepth = 1000
	// maxDepthAny is the limit for types that can hold an Any, and anyWeight is
	// how many levels an Any counts for. Every level of Any copies what lies below
	// it, so that deep nesting costs the square of its size.
	maxDepthAny = 100
	anyWeight   = 5
)

// MessageType is one message type of the upstream. It is immutable and safe
// for concurrent use.
type MessageType struct {
	types *types
	typ   protoreflect.MessageType
	// inspect says that a decoded message must be walked once, because its type
	// can hold an Any or a message whose type is missing.
	inspect bool
	// lossy says that two different messages of the type can have the same JSON.
	lossy bool
	// values says that the type can hold a field of google.protobuf.Value, which
	// protojson cannot spell out as unset.
	values bool
}

// Name returns the full name of the type: "pkg.Message".
func (t *MessageType) Name() string { return string(t.typ.Descriptor().FullName()) }

// Decode reads a message from its wire form. It keeps wire, and does not change
// it; the caller must not either.
//
// The error tells the type, never the content. Bytes that are not a message of
// the type, invalid UTF-8 in a field where the schema forbids it, nesting beyond
// any sane depth, and content of a type that the schema lacks do not decode.
func (t *MessageType) Decode(wire []byte) (*Message, error) {
	m := t.typ.New()
	o := proto.UnmarshalOptions{AllowPartial: true, Resolver: t.types, RecursionLimit: t.depth()}
	if err := o.Unmarshal(wire, m.Interface()); err != nil {
		return nil, t.undecodable(err)
	}
	if t.inspect {
		if err := t.types.inspect(m, t.depth()); err != nil {
			return nil, t.undecodable(err)
		}
	}
	return &Message{typ: t, wire: wire, fromWire: true, before: m, after: m}, nil
}

// DecodeJSON reads a message from a JSON body as the upstream would read it:
// unknown keys are ignored, and so is what follows the JSON object. It keeps
// body, and does not change it; the caller must not either.
func (t *MessageType) DecodeJSON(body []byte) (*Message, error) {
	m, err := t.decodeBody(body)
	if err != nil {
		return nil, t.undecodable(err)
	}
	return &Message{typ: t, body: body, before: m, after: m}, nil
}

func (t *MessageType) undecodable(err error) error {
	return &DecodeError{Type: t.Name(), err: err}
}

// Message is one message of the upstream: what came in, and what is to go out
// in its place. It is not safe for concurrent use.
type Message struct {
	typ      *MessageType
	wire     []byte // original wire form, when fromWire
	body     []byte // original JSON form, otherwise
	fromWire bool
	before   protoreflect.Message // as it came in; never changed
	after    protoreflect.Message // current content; the same value as before while unchanged
	json     []byte               // JSON of after, when asked for already
	// adapt adds to a replacement what its place cannot leave unsaid, and fits
	// refuses one that has no place. Nil if there is nothing of the kind.
	adapt, fits func(next protoreflect.Message) error
}

// Type returns the type of the message.
func (m *Message) Type() *MessageType { return m.typ }

// JSON returns the current content as compact protojson: lowerCamel names,
// unset fields omitted, enums as names, 64-bit integers as strings. HTML
// characters are not escaped. The bytes are shared and must not be changed.
//
// The error is a *DecodeError: content for which JSON has no form, such as an
// Any of unknown type or a Timestamp out of range.
func (m *Message) JSON() ([]byte, error) {
	if m.json == nil {
		b, err := m.typ.render(m.after)
		if err != nil {
			return nil, m.typ.undecodable(err)
		}
		m.json = b
	}
	return m.json, nil
}

// Replace makes json, a protojson form of the message's type, the whole content:
// fields that it does not name are cleared. Names may be lowerCamel or those of
// the schema; an unknown name is an error. On error, a *ReplaceError, the content
// stays as it was.
//
// Fields that the schema does not know survive: at the top level always, in a
// sub-message when it is there before and after, in map values by key, in list
// elements by position when the list keeps its length. A replacement that says
// what the message said already leaves it unchanged.
func (m *Message) Replace(json []byte) error {
	if m.json != nil && bytes.Equal(m.json, json) {
		return nil
	}
	next := m.typ.typ.New()
	if err := m.typ.parse(json, next, false); err != nil {
		return &ReplaceError{Type: m.typ.Name(), Reason: withoutValues(err), err: err}
	}
	m.typ.types.keepUnknown(m.after, next)
	if m.adapt != nil {
		if err := m.adapt(next); err != nil {
			return &ReplaceError{Type: m.typ.Name(), Reason: err.Error(), err: err}
		}
	}
	if proto.Equal(m.after.Interface(), next.Interface()) {
		return nil
	}
	if m.typ.lossy && m.saysTheSame(next) {
		return nil
	}
	if m.fits != nil {
		if err := m.fits(next); err != nil {
			return &ReplaceError{Type: m.typ.Name(), Reason: err.Error(), err: err}
		}
	}
	m.after, m.json = next, nil
	if proto.Equal(m.before.Interface(), next.Interface()) {
		m.after = m.before
	}
	return nil
}

// Preview returns what JSON would return after a Replace with the same argument,
// and fails as Replace would; the message stays as it is.
func (m *Message) Preview(json []byte) ([]byte, error) {
	next := *m // Replace changes no content in place
	if err := next.Replace(json); err != nil {
		return nil, err
	}
	return next.JSON()
}

// saysTheSame reports whether the JSON of the current content reads as next. JSON
// cannot tell every two messages apart, and a target only ever sees JSON.
func (m *Message) saysTheSame(next protoreflect.Message) bool {
	json, err := m.JSON()
	if err != nil {
		return false
	}
	echo := m.typ.typ.New()
	if m.typ.parse(json, echo, false) != nil {
		return false
	}
	m.typ.types.keepUnknown(m.after, echo)
	return proto.Equal(echo.Interface(), next.Interface())
}

// Changed reports whether the content differs from what was decoded.
func (m *Message) Changed() bool { return m.after != m.before }

// Reset makes the content again what was decoded.
func (m *Message) Reset() {
	if m.Changed() {
		m.after, m.json = m.before, nil
	}
}

// Wire returns the message in wire form: the very bytes that were decoded when
// it came in that form and is unchanged. They are shared and must not be changed.
func (m *Message) Wire() ([]byte, error) {
	if m.fromWire && !m.Changed() {
		return m.wire, nil
	}
	b, err := proto.MarshalOptions{AllowPartial: true, Deterministic: true}.Marshal(m.after.Interface())
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", m.typ.Name(), err)
	}
	return b, nil
}

// Body returns the message as a JSON body. One that came in as JSON is returned
// byte for byte when unchanged; when changed, only what changed differs: unknown
// keys survive, defaults that were spelled out stay, names and enums keep their
// style, keys their order. The bytes are shared and must not be changed.
func (m *Message) Body() ([]byte, error) {
	switch {
	case m.fromWire:
		return m.JSON()
	case !m.Changed():
		return m.body, nil
	}
	return m.typ.patch(m.body, m.before, m.after, nil)
}

// depth returns how deep a message of this type may be nested.
func (t *MessageType) depth() int {
	if t.inspect {
		return maxDepthAny
	}
	return maxDepth
}

// parse reads json into m, which must be empty. Lenient means: as the upstream
// does, without the keys that it does not know.
func (t *MessageType) parse(json []byte, m protoreflect.Message, lenient bool) (err error) {
	defer recoverSchema(&err)
	o := protojson.UnmarshalOptions{
		AllowPartial: true, DiscardUnknown: lenient, Resolver: t.types,
		RecursionLimit: t.depth() + 16, // JSON counts some levels that the wire form does not have
	}
	if err := o.Unmarshal(json, m.Interface()); err != nil {
		return err
	}
	if t.inspect {
		return t.types.inspect(m, t.depth()+16)
	}
	return nil
}

// render writes m as compact protojson.
func (t *MessageType) render(m protoreflect.Message) (b []byte, err error) {
	return t.renderStyled(m, protojson.MarshalOptions{})
}

func (t *MessageType) renderStyled(m protoreflect.Message, o protojson.MarshalOptions) (b []byte, err error) {
	defer recoverSchema(&err)
	o.AllowPartial, o.Resolver = true, t.types
	b, err = o.Marshal(m.Interface())
	if err != nil {
		return nil, err
	}
	return compact(b), nil
}

// recoverSchema turns a panic of protojson into an error. The descriptors come
// from outside, and protojson takes the shape of some types for granted.
func recoverSchema(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("the schema contradicts itself: %v", r)
	}
}
