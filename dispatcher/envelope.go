package dispatcher

import (
	"encoding/binary"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/execgate/execgate/conditions"
)

// Message is the request or the response message of a call.
type Message interface {
	// JSON returns the current content as compact protojson. The bytes are not
	// changed by either side.
	JSON() ([]byte, error)
	// Replace makes the given protojson the whole content. It is strict: when it
	// returns an error, the content is what it was before.
	Replace(json []byte) error
}

// Previewer is a Message that can say what Replace would make of it. Without
// it, a shadow plan cannot tell whether an answer fits the message.
type Previewer interface {
	// Preview returns what JSON would return after a Replace, and fails as
	// Replace would; the content stays as it is.
	Preview(json []byte) ([]byte, error)
}

// Invocation is one phase of one call, as targets get to see it. Only Plan and
// the messages are required; strings and headers that are empty are left out of
// the payload.
type Invocation struct {
	// Plan says what to do, and for which phase.
	Plan *Plan
	// FullMethod is "/pkg.Svc/M".
	FullMethod string

	InstanceID, OrgID, ProjectID, UserID string

	// Headers are those of the client that targets may see, with canonical
	// names.
	Headers map[string][]string

	// Request is the request message; in the response phase as it went upstream.
	Request Message
	// Response is the response message, in the response phase only.
	Response Message

	// Function is the run of a function. It takes the place of everything but
	// Plan.
	Function *FunctionRun

	// Now is when the dispatch begins, if the caller has just looked at the
	// clock. Zero: Dispatch does.
	Now time.Time
}

// subject is the message that the targets of this phase may replace.
func (inv *Invocation) subject() Message {
	switch inv.Plan.Phase {
	case conditions.Response:
		return inv.Response
	case conditions.Function:
		return inv.Function
	default:
		return inv.Request
	}
}

// appendEnvelope appends the payload that a target gets of the current content:
// compact JSON, HTML characters escaped. The JSON of the messages is copied in as
// it is, never parsed.
func (inv *Invocation) appendEnvelope(b []byte) ([]byte, error) {
	e := envelope{b: b, start: len(b)}
	if inv.Plan.Phase == conditions.Function {
		inv.Function.writeEnvelope(&e, inv.Plan.Execution)
		return e.end(), nil
	}
	e.text("fullMethod", inv.FullMethod)
	e.text("instanceID", inv.InstanceID)
	e.text("orgID", inv.OrgID)
	e.text("projectID", inv.ProjectID)
	e.text("userID", inv.UserID)
	if inv.Request != nil {
		if err := e.message("request", inv.Request); err != nil {
			return b, &MessageError{Phase: conditions.Request, Err: err}
		}
	}
	if inv.Plan.Phase == conditions.Response && inv.Response != nil {
		if err := e.message("response", inv.Response); err != nil {
			return b, &MessageError{Phase: conditions.Response, Err: err}
		}
	}
	e.headers("headers", inv.Headers)
	return e.end(), nil
}

// envelope is a JSON object in the making, behind what b held before.
type envelope struct {
	b     []byte
	start int
}

// key begins the next member. The name needs no escaping.
func (e *envelope) key(name string) {
	c := byte(',')
	if len(e.b) == e.start {
		c = '{'
	}
	e.b = append(e.b, c, '"')
	e.b = append(append(e.b, name...), `":`...)
}

func (e *envelope) text(key, value string) {
	if value == "" {
		return
	}
	e.key(key)
	e.b = appendString(e.b, value)
}

// message writes a message; nothing when it has no JSON at all.
func (e *envelope) message(key string, m Message) error {
	text, err := m.JSON()
	if err == nil {
		e.raw(key, text)
	}
	return err
}

// raw writes a value that is JSON already, if it is any.
func (e *envelope) raw(key string, value []byte) {
	if len(value) > 0 {
		e.key(key)
		e.b = appendEscaped(e.b, value)
	}
}

func (e *envelope) headers(key string, headers map[string][]string) {
	if len(headers) == 0 {
		return
	}
	e.key(key)
	separator := byte('{')
	var few [8]string
	names := few[:0]
	for name := range headers {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		e.b = appendString(append(e.b, separator), name)
		e.b = append(e.b, ':', '[')
		separator = ','
		for i, value := range headers[name] {
			if i > 0 {
				e.b = append(e.b, ',')
			}
			e.b = appendString(e.b, value)
		}
		e.b = append(e.b, ']')
	}
	e.b = append(e.b, '}')
}

func (e *envelope) end() []byte {
	if len(e.b) == e.start {
		e.b = append(e.b, '{')
	}
	return append(e.b, '}')
}

// plainByte says of which bytes a string can be written as it is.
var plainByte = func() (t [256]bool) {
	for c := ' '; c <= '~'; c++ {
		t[c] = c != '"' && c != '\\' && c != '<' && c != '>' && c != '&'
	}
	return t
}()

// appendString appends a JSON string.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if !plainByte[s[i]] {
			quoted, _ := json.Marshal(s) // a string always marshals
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// escapedByte are those at which JSON text may have to be escaped for HTML, as
// encoding/json does it: the last is where U+2028 and U+2029 begin.
var escapedByte = [256]bool{'<': true, '>': true, '&': true, 0xE2: true}

const (
	everyByte = 0x0101_0101_0101_0101
	everyHigh = 0x8080_8080_8080_8080
)

// anyZero is not 0 if a byte of v is.
func anyZero(v uint64) uint64 { return (v - everyByte) &^ v & everyHigh }

// anyEscaped reports whether one of eight bytes is an escapedByte. '<' and '>'
// differ in one bit.
func anyEscaped(v uint64) bool {
	return anyZero(v&^(everyByte*('<'^'>'))^everyByte*('<'&'>'))|anyZero(v^everyByte*'&')|anyZero(v^everyByte*0xE2) != 0
}

// appendEscaped appends JSON text as json.HTMLEscape writes it.
func appendEscaped(b, text []byte) []byte {
	const hex = "0123456789abcdef"
	done := 0
	for i := 0; i < len(text); i++ {
		for i+8 <= len(text) && !anyEscaped(binary.LittleEndian.Uint64(text[i:])) {
			i += 8
		}
		for end := min(i+8, len(text)); i < end && !escapedByte[text[i]]; {
			i++
		}
		if i == len(text) {
			break
		}
		switch c := text[i]; {
		case !escapedByte[c]:
			i-- // Of the next eight.
		case c != 0xE2:
			b = append(b, text[done:i]...)
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xF])
			done = i + 1
		case i+2 < len(text) && text[i+1] == 0x80 && text[i+2]&^1 == 0xA8:
			b = append(b, text[done:i]...)
			b = append(b, '\\', 'u', '2', '0', '2', hex[text[i+2]&0xF])
			done = i + 3
		}
	}
	return append(b, text[done:]...)
}

// payloads are the buffers in which payloads are built.
var payloads = sync.Pool{New: func() any { return new([]byte) }}

// maxPooledPayload keeps a rare large message from occupying memory for good.
const maxPooledPayload = 64 << 10
