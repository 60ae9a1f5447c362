package schema

import (
	"bytes"
	"sync"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/execgate/execgate/schema/transcode"
)

// How deep messages may be nested. What is deeper does not decode: it would be
// walked recursively, several times.
const (
	maxDepth = 1000
	// maxDepthAny is the limit for types that can hold an Any, which counts for
	// several levels.
	maxDepthAny = 100
)

// MessageType is one message type of the upstream. It is immutable and safe
// for concurrent use.
type MessageType struct {
	types *types
	desc  protoreflect.MessageDescriptor
	table *transcode.Type
	// inspect says that a decoded message must be walked once, because its type
	// can hold an Any or a message whose type is missing.
	inspect bool
}

// Name returns the full name of the type: "pkg.Message".
func (t *MessageType) Name() string { return string(t.desc.FullName()) }

// Decode reads a message from its wire form. It keeps wire, and does not change
// it; the caller must not either.
//
// The error tells the type, never the content. Bytes that are not a message of
// the type, invalid UTF-8 in a field where the schema forbids it, nesting beyond
// any sane depth, and content of a type that the schema lacks do not decode.
func (t *MessageType) Decode(wire []byte) (*Message, error) {
	tree, err := t.table.ReadWire(wire, t.depth(), t.inspect)
	if err != nil {
		return nil, t.undecodable(err)
	}
	return &Message{typ: t, wire: wire, fromWire: true, before: tree, after: tree}, nil
}

// DecodeJSON reads a message from a JSON body as the upstream would read it:
// unknown keys are ignored, and so is what follows the JSON object. It keeps
// body, and does not change it; the caller must not either.
func (t *MessageType) DecodeJSON(body []byte) (*Message, error) {
	m := &Message{typ: t, body: body}
	tree, err := t.table.ReadJSON(body, t.bodyOptions(&m.seen))
	if err != nil {
		return nil, t.undecodable(err)
	}
	m.before, m.after = tree, tree
	return m, nil
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
	seen     transcode.Observed // how the author of body writes
	before   *transcode.Tree    // as it came in; never changed
	after    *transcode.Tree    // current content; the same value as before while unchanged
	json     []byte             // JSON of after, when asked for already
	// adapt adds to a replacement what its place cannot leave unsaid, and fits
	// refuses one that has no place. Nil if there is nothing of the kind.
	adapt, fits func(next *transcode.Tree) error
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
		b, err := render(m.after, max(len(m.wire), len(m.body)))
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
// stays as it was. It keeps json, which must not be changed afterwards.
//
// Fields that the schema does not know survive: at the top level always, in a
// sub-message when it is there before and after, in map values by key, in list
// elements by position when the list keeps its length. A replacement that says
// what the message said already leaves it unchanged.
func (m *Message) Replace(json []byte) error {
	if m.json != nil && bytes.Equal(m.json, json) {
		return nil
	}
	next, err := m.typ.parse(json)
	if err != nil {
		return &ReplaceError{Type: m.typ.Name(), Reason: err.Error(), err: err}
	}
	transcode.KeepUnknown(m.after, next)
	if m.adapt != nil {
		if err := m.adapt(next); err != nil {
			return &ReplaceError{Type: m.typ.Name(), Reason: err.Error(), err: err}
		}
	}
	if transcode.Equal(m.after, next) {
		return nil
	}
	if m.after.Lossy() && m.saysTheSame(next) {
		return nil
	}
	if m.fits != nil {
		if err := m.fits(next); err != nil {
			return &ReplaceError{Type: m.typ.Name(), Reason: err.Error(), err: err}
		}
	}
	changed := m.Changed()
	m.after, m.json = next, nil
	if changed && transcode.Equal(m.before, next) {
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
func (m *Message) saysTheSame(next *transcode.Tree) bool {
	json, err := m.JSON()
	if err != nil {
		return false
	}
	echo, err := m.typ.parse(json)
	if err != nil {
		return false
	}
	transcode.KeepUnknown(m.after, echo)
	return transcode.Equal(echo, next)
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
	return m.after.AppendWire([]byte{}), nil
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
	return m.patch(m.after, nil)
}

// patch returns body as the form of after.
func (m *Message) patch(after *transcode.Tree, bound map[string]bool) ([]byte, error) {
	body := m.body
	if firstByte(body) == 0 {
		body = []byte("{}")
	}
	b, err := transcode.Patch(make([]byte, 0, len(body)+len(body)/8), body, m.before, after, m.seen.Style(), bound)
	if err != nil {
		return nil, m.typ.undecodable(err)
	}
	return b, nil
}

// patchField is patch for a body that holds nothing but field fd of the message.
// An empty result means that the field is unset.
func (m *Message) patchField(fd protoreflect.FieldDescriptor, after *transcode.Tree) ([]byte, error) {
	b, err := transcode.PatchField(nil, m.body, fd, m.before, after, m.seen.Style())
	if err != nil {
		return nil, m.typ.undecodable(err)
	}
	return b, nil
}

// depth returns how deep a message of this type may be nested.
func (t *MessageType) depth() int {
	if t.inspect {
		return maxDepthAny
	}
	return maxDepth
}

// jsonDepth is the same for JSON, which counts some levels that the wire form does
// not have.
func (t *MessageType) jsonDepth() int { return t.depth() + 16 }

// parse reads JSON strictly.
func (t *MessageType) parse(json []byte) (*transcode.Tree, error) {
	return t.table.ReadJSON(json, transcode.JSONOptions{Depth: t.jsonDepth(), Inspect: t.inspect})
}

// bodyOptions are for JSON that is read as the upstream would: without the keys
// that it does not know, and up to the end of the first value.
func (t *MessageType) bodyOptions(seen *transcode.Observed) transcode.JSONOptions {
	return transcode.JSONOptions{Depth: t.jsonDepth(), Inspect: t.inspect, Lenient: true, Observed: seen}
}

var scratch = sync.Pool{New: func() any { return new([]byte) }}

// maxScratch bounds what stays in the pool.
const maxScratch = 256 << 10

// render returns the JSON of a tree, which was made of n bytes.
func render(tree *transcode.Tree, n int) ([]byte, error) {
	if n > maxScratch {
		return tree.AppendJSON(make([]byte, 0, n+n/2), transcode.Style{})
	}
	pooled := scratch.Get().(*[]byte)
	b, err := tree.AppendJSON((*pooled)[:0], transcode.Style{})
	if cap(b) > 4*maxScratch {
		return b, err
	}
	*pooled = b
	json := bytes.Clone(b)
	scratch.Put(pooled)
	return json, err
}
