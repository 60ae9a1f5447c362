package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"
)

// TargetType is the type of a target's answer. Whether the call is asynchronous is [Target.Async].
type TargetType string

// The target types.
const (
	TargetWebhook         TargetType = "webhook"          // the answer's body is not used
	TargetRequestResponse TargetType = "request_response" // the answer's body becomes the message (v2: rest_call)
)

// Target is the stored form of a target. Records that a [State] hands out are shared: copy before changing one.
//
// The JSON names are a stable format. Fields that this version does not know are kept when a record is read, copied by
// value and written again.
type Target struct {
	ID               string        `json:"id"`
	Name             string        `json:"name"`
	Endpoint         string        `json:"endpoint"`
	Type             TargetType    `json:"type"`
	Async            bool          `json:"async,omitempty"`
	InterruptOnError bool          `json:"interrupt_on_error,omitempty"`
	Timeout          time.Duration `json:"timeout_ns"`
	// SigningKey is a secret.
	SigningKey string `json:"signing_key,omitempty"`
	// PayloadType is "" (JSON), "json", "jwt" or "jwe".
	PayloadType string      `json:"payload_type,omitempty"`
	PublicKeys  []PublicKey `json:"public_keys,omitempty"`
	// Sequence counts the effective changes, 1 after the creation.
	Sequence  uint64    `json:"sequence"`
	CreatedAt time.Time `json:"created_at"`
	ChangedAt time.Time `json:"changed_at"`

	extra extra
}

// PublicKey is a key that payloads for a target can be encrypted with.
type PublicKey struct {
	ID string `json:"id"`
	// PEM is the key as it was given.
	PEM    []byte `json:"pem"`
	Active bool   `json:"active,omitempty"`
	// ExpiresAt is zero when the key does not expire.
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	CreatedAt time.Time `json:"created_at"`
	ChangedAt time.Time `json:"changed_at"`
}

// Execution is the stored form of an execution; its id is derived from its condition. Sharing and unknown fields are
// as for [Target].
type Execution struct {
	ID       string   `json:"id"`
	Targets  []string `json:"targets,omitempty"`  // target ids, in order
	Includes []string `json:"includes,omitempty"` // execution ids, in order
	// Sequence counts the effective changes; it goes on counting when the execution is put again after a delete.
	Sequence  uint64    `json:"sequence"`
	CreatedAt time.Time `json:"created_at"`
	ChangedAt time.Time `json:"changed_at"`

	extra extra
}

// Tombstone is what is remembered of a deleted target or execution.
type Tombstone struct {
	ID string `json:"id"`
	// Sequence is that of the deletion; a new creation under the same id goes on from here.
	Sequence  uint64    `json:"sequence"`
	DeletedAt time.Time `json:"deleted_at"`

	extra extra
}

// MaxTombstones is how many deleted targets, and how many deleted executions, are remembered. When there are more,
// [Replica.Update] forgets the oldest until nine tenths are left.
const MaxTombstones = 10_000

// Item encodes the record.
func (t *Target) Item() (Item, error) { return encodeItem(KindTarget, t.ID, t, t.extra) }

// Item encodes the record.
func (e *Execution) Item() (Item, error) { return encodeItem(KindExecution, e.ID, e, e.extra) }

// TargetItem encodes the record as that of a deleted target.
func (t *Tombstone) TargetItem() (Item, error) {
	return encodeItem(KindTargetTombstone, t.ID, t, t.extra)
}

// ExecutionItem encodes the record as that of a deleted execution.
func (t *Tombstone) ExecutionItem() (Item, error) {
	return encodeItem(KindExecutionTombstone, t.ID, t, t.extra)
}

// DecodeTarget decodes the value of a [KindTarget] item.
func DecodeTarget(value []byte) (*Target, error) {
	t := new(Target)
	x, err := decode(value, t)
	if err != nil {
		return nil, err
	}
	t.extra = x
	if t.ID == "" || t.Name == "" || t.Endpoint == "" {
		return nil, errors.New("id, name or endpoint is missing")
	}
	if t.Type != TargetWebhook && t.Type != TargetRequestResponse {
		return nil, fmt.Errorf("type %q is not known", t.Type)
	}
	if t.Timeout <= 0 {
		return nil, errors.New("timeout is missing")
	}
	return t, nil
}

// DecodeExecution decodes the value of a [KindExecution] item.
func DecodeExecution(value []byte) (*Execution, error) {
	e := new(Execution)
	x, err := decode(value, e)
	if err != nil {
		return nil, err
	}
	e.extra = x
	if e.ID == "" {
		return nil, errors.New("id is missing")
	}
	return e, nil
}

// DecodeTombstone decodes the value of a tombstone item.
func DecodeTombstone(value []byte) (*Tombstone, error) {
	t := new(Tombstone)
	x, err := decode(value, t)
	if err != nil {
		return nil, err
	}
	t.extra = x
	if t.ID == "" {
		return nil, errors.New("id is missing")
	}
	return t, nil
}

// extra holds the top-level JSON fields of a record that this version does not know, as ready text `,"a":1,"b":2`, or
// nothing.
type extra string

func encodeItem(kind Kind, id string, record any, x extra) (Item, error) {
	b, err := json.Marshal(record)
	if err != nil {
		return Item{}, fmt.Errorf("encode %s %q: %w", kind, id, err)
	}
	if x != "" {
		b = append(append(b[:len(b)-1], x...), '}')
	}
	return Item{Kind: kind, ID: id, Value: b}, nil
}

// decode fills record from value and returns the unknown fields. The common case is one pass.
func decode(value []byte, record any) (extra, error) {
	dec := json.NewDecoder(bytes.NewReader(value))
	dec.DisallowUnknownFields()
	strictErr := dec.Decode(record)
	if strictErr == nil && dec.InputOffset() == int64(len(value)) {
		return "", nil
	}
	// Either a field is unknown or the value is broken; the second pass tells.
	reflect.ValueOf(record).Elem().SetZero()
	if err := json.Unmarshal(value, record); err != nil {
		return "", withoutValue(err)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(value, &fields); err != nil {
		return "", withoutValue(err)
	}
	for name := range knownFields(record) {
		for field := range fields {
			if strings.EqualFold(field, name) { // as encoding/json matches
				delete(fields, field)
			}
		}
	}
	var out strings.Builder
	for _, field := range slices.Sorted(maps.Keys(fields)) {
		name, err := json.Marshal(field)
		if err != nil {
			return "", err
		}
		out.WriteByte(',')
		out.Write(name)
		out.WriteByte(':')
		out.Write(fields[field])
	}
	return extra(out.String()), nil
}

// withoutValue keeps what a decoding error says of the place and the type, and drops the offending text: it may be a
// secret.
func withoutValue(err error) error {
	var typeErr *json.UnmarshalTypeError
	if errors.As(err, &typeErr) {
		return fmt.Errorf("field %q is not a %s", typeErr.Field, typeErr.Type)
	}
	var syntaxErr *json.SyntaxError
	if errors.As(err, &syntaxErr) {
		return fmt.Errorf("not JSON at offset %d", syntaxErr.Offset)
	}
	return errors.New("not a valid record")
}

func knownFields(record any) map[string]struct{} {
	names := make(map[string]struct{})
	t := reflect.TypeOf(record).Elem()
	for i := range t.NumField() {
		if tag, ok := t.Field(i).Tag.Lookup("json"); ok {
			name, _, _ := strings.Cut(tag, ",")
			names[name] = struct{}{}
		}
	}
	return names
}
