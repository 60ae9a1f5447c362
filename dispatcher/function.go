package dispatcher

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// FunctionRun is one run of a function: the identity provider's payload, which
// every target sees, and what the targets answered so far, which the later ones
// see as "response". As a [Message] it is the answer: targets' answers are
// decoded over it.
type FunctionRun struct {
	input  []member // without "function" and "response"
	prior  []member // the "response" that the provider sent along
	keys   []string // of answers that count
	answer []member // what targets answered, in the order of keys
}

// member is a key of an object, and its value as compact JSON.
type member struct {
	key   string
	value json.RawMessage
}

// Keys of an answer. Keys that a function does not know are ignored, so that a
// target may echo what it was sent.
const (
	setUserMetadata = "set_user_metadata"
	appendClaims    = "append_claims"
	appendLogClaims = "append_log_claims"
	appendAttribute = "append_attribute"
)

// answerKeys returns the keys that count in an answer to the function. A
// function of the operator's own may use all of them.
func answerKeys(function string) []string {
	switch function {
	case "preuserinfo", "preaccesstoken":
		return []string{setUserMetadata, appendClaims, appendLogClaims}
	case "presamlresponse":
		return []string{setUserMetadata, appendAttribute}
	default:
		return []string{setUserMetadata, appendClaims, appendLogClaims, appendAttribute}
	}
}

// NewFunctionRun begins a run of the function with what the identity provider
// sent, which must be a JSON object. The input is not kept.
func NewFunctionRun(function string, input []byte) (*FunctionRun, error) {
	members, err := parseObject(input)
	if err != nil {
		return nil, err
	}
	r := &FunctionRun{keys: answerKeys(function)}
	for _, m := range members {
		switch m.key {
		case "function":
		case "response":
			// Earlier targets of the provider have answered. What is no object is
			// nothing that targets could read.
			r.prior, _ = parseObject(m.value)
		default:
			r.input = append(r.input, m)
		}
	}
	return r, nil
}

// JSON returns what the targets of this run answered: an object with those of
// the function's keys that some target set.
func (r *FunctionRun) JSON() ([]byte, error) { return object(r.answer), nil }

// Replace decodes a target's answer over those before it: a key that is present
// replaces the list of the same key, an absent one keeps it, unknown ones are
// ignored. After an error nothing has changed.
func (r *FunctionRun) Replace(answer []byte) error {
	next, err := r.over(answer)
	if err == nil {
		r.answer = next
	}
	return err
}

// Preview returns what JSON would return after Replace.
func (r *FunctionRun) Preview(answer []byte) ([]byte, error) {
	next, err := r.over(answer)
	if err != nil {
		return nil, err
	}
	return object(next), nil
}

// over returns the members of the answer decoded over those of the run.
func (r *FunctionRun) over(answer []byte) ([]member, error) {
	var a functionAnswer
	if err := json.Unmarshal(answer, &a); err != nil {
		return nil, err
	}
	given := map[string]list{
		setUserMetadata: a.SetUserMetadata,
		appendClaims:    a.AppendClaims,
		appendLogClaims: a.AppendLogClaims,
		appendAttribute: a.AppendAttribute,
	}
	next := slices.Clone(r.answer)
	for _, key := range r.keys {
		value := given[key]
		if value == nil {
			continue
		}
		normal, err := normalize(key, value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		next = set(next, key, normal)
	}
	return next, nil
}

// functionAnswer finds the keys as encoding/json matches them, whatever their
// case. The values are decoded later, those of keys that do not count not at all.
type functionAnswer struct {
	SetUserMetadata list `json:"set_user_metadata"`
	AppendClaims    list `json:"append_claims"`
	AppendLogClaims list `json:"append_log_claims"`
	AppendAttribute list `json:"append_attribute"`
}

// list is the JSON of a list; nil: the key is absent.
type list json.RawMessage

// UnmarshalJSON keeps the value; null is present too.
func (l *list) UnmarshalJSON(value []byte) error {
	*l = slices.Clone(value)
	return nil
}

type (
	metadatum struct {
		Key   string `json:"key"`
		Value []byte `json:"value"`
	}
	claim struct {
		Key   string          `json:"key"`
		Value json.RawMessage `json:"value"`
	}
	attribute struct {
		Name       string   `json:"name"`
		NameFormat string   `json:"name_format,omitempty"`
		Value      []string `json:"value"`
	}
)

// normalize returns the list of a key in the shape that the provider reads,
// without what it would ignore.
func normalize(key string, value []byte) (json.RawMessage, error) {
	switch key {
	case setUserMetadata:
		return relist[*metadatum](value)
	case appendClaims:
		return relist[*claim](value)
	case appendAttribute:
		return relist[*attribute](value)
	default:
		return relist[*string](value)
	}
}

// relist drops elements that are null, as they say nothing.
func relist[T comparable](value []byte) (json.RawMessage, error) {
	var items []T
	if err := json.Unmarshal(value, &items); err != nil {
		return nil, err
	}
	var none T
	items = slices.DeleteFunc(items, func(item T) bool { return item == none })
	if len(items) == 0 {
		return json.RawMessage("[]"), nil
	}
	return json.Marshal(items)
}

// writeEnvelope writes the payload for the next target.
func (r *FunctionRun) writeEnvelope(e *envelope, execution string) {
	e.text("function", execution)
	for _, m := range r.input {
		name, _ := json.Marshal(m.key) // a string always marshals
		e.b = append(append(append(e.b, ','), name...), ':')
		e.b = appendEscaped(e.b, m.value)
	}
	response := r.prior
	for _, m := range r.answer {
		response = set(slices.Clone(response), m.key, m.value)
	}
	if len(response) > 0 {
		e.raw("response", object(response))
	}
}

// set gives a member its value, at the end if it is new.
func set(members []member, key string, value json.RawMessage) []member {
	for i := range members {
		if members[i].key == key {
			members[i].value = value
			return members
		}
	}
	return append(members, member{key, value})
}

// object returns the members as compact JSON.
func object(members []member) []byte {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range members {
		if i > 0 {
			b.WriteByte(',')
		}
		name, _ := json.Marshal(m.key) // a string always marshals
		b.Write(name)
		b.WriteByte(':')
		b.Write(m.value)
	}
	b.WriteByte('}')
	return b.Bytes()
}

// errNotObject is all that is said of an input: it is payload.
var errNotObject = errors.New("not a JSON object")

// parseObject returns the members of an object in their order; of several with
// one key the last counts.
func parseObject(text []byte) ([]member, error) {
	if !json.Valid(text) {
		return nil, errNotObject
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if first, err := d.Token(); err != nil || first != json.Delim('{') {
		return nil, errNotObject
	}
	at := map[string]int{}
	var members []member
	for d.More() {
		name, err := d.Token()
		key, ok := name.(string)
		var value json.RawMessage
		if err != nil || !ok || d.Decode(&value) != nil {
			return nil, errNotObject
		}
		var compact bytes.Buffer
		if json.Compact(&compact, value) != nil {
			return nil, errNotObject
		}
		if i, twice := at[key]; twice {
			members[i].value = compact.Bytes()
			continue
		}
		at[key] = len(members)
		members = append(members, member{key, compact.Bytes()})
	}
	return members, nil
}
