package dispatcher

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"

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

// envelope returns the payload that a target gets of the current content:
// compact JSON, HTML characters escaped. It is a new slice each time.
func (inv *Invocation) envelope() ([]byte, error) {
	if inv.Plan.Phase == conditions.Function {
		return inv.Function.envelope(inv.Plan.Execution), nil
	}
	var request, response []byte
	var err error
	if inv.Request != nil {
		if request, err = inv.Request.JSON(); err != nil {
			return nil, &MessageError{Phase: conditions.Request, Err: err}
		}
	}
	if inv.Plan.Phase == conditions.Response && inv.Response != nil {
		if response, err = inv.Response.JSON(); err != nil {
			return nil, &MessageError{Phase: conditions.Response, Err: err}
		}
	}

	var e envelope
	e.Grow(len(request) + len(response) + 512)
	e.text("fullMethod", inv.FullMethod)
	e.text("instanceID", inv.InstanceID)
	e.text("orgID", inv.OrgID)
	e.text("projectID", inv.ProjectID)
	e.text("userID", inv.UserID)
	e.message("request", request)
	e.message("response", response)
	e.headers("headers", inv.Headers)
	return e.end(), nil
}

// envelope is a JSON object in the making. Message JSON is copied in as it is,
// never parsed.
type envelope struct{ bytes.Buffer }

// key begins the next member.
func (e *envelope) key(name string) {
	if e.Len() == 0 {
		e.WriteString(`{"`)
	} else {
		e.WriteString(`,"`)
	}
	e.WriteString(name)
	e.WriteString(`":`)
}

func (e *envelope) text(key, value string) {
	if value == "" {
		return
	}
	e.key(key)
	e.value(value)
}

func (e *envelope) message(key string, messageJSON []byte) {
	if len(messageJSON) == 0 {
		return
	}
	e.key(key)
	json.HTMLEscape(&e.Buffer, messageJSON)
}

func (e *envelope) headers(key string, headers map[string][]string) {
	if len(headers) == 0 {
		return
	}
	e.key(key)
	separator := byte('{')
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		e.WriteByte(separator)
		separator = ','
		e.value(name)
		e.WriteString(":[")
		for i, value := range headers[name] {
			if i > 0 {
				e.WriteByte(',')
			}
			e.value(value)
		}
		e.WriteByte(']')
	}
	e.WriteByte('}')
}

func (e *envelope) end() []byte {
	if e.Len() == 0 {
		e.WriteByte('{')
	}
	e.WriteByte('}')
	return e.Bytes()
}

// value writes a JSON string.
func (e *envelope) value(s string) {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, _ := json.Marshal(s) // a string always marshals
			e.Write(quoted)
			return
		}
	}
	e.WriteByte('"')
	e.WriteString(s)
	e.WriteByte('"')
}
