package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// unknown holds the fields of a stored record that this version does not know.
type unknown map[string]json.RawMessage

// decode fills the fields of record, a pointer to a struct, and returns the others. Errors repeat no value: it may be a
// secret.
func decode(value []byte, record any) (unknown, error) {
	strict := json.NewDecoder(bytes.NewReader(value))
	strict.DisallowUnknownFields()
	if strict.Decode(record) == nil && strict.InputOffset() == int64(len(value)) && value[0] == '{' {
		return nil, nil // the common case, in one pass
	}
	reflect.ValueOf(record).Elem().SetZero()
	if err := json.Unmarshal(value, record); err != nil {
		var typeErr *json.UnmarshalTypeError
		if errors.As(err, &typeErr) {
			return nil, fmt.Errorf("field %q is not a %s", typeErr.Field, typeErr.Type)
		}
		return nil, errors.New("not a valid record")
	}
	var fields unknown
	if err := json.Unmarshal(value, &fields); err != nil || fields == nil {
		return nil, errors.New("not a valid record")
	}
	t := reflect.TypeOf(record).Elem()
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		for field := range fields {
			if name != "" && strings.EqualFold(field, name) { // as encoding/json matches
				delete(fields, field)
			}
		}
	}
	if len(fields) == 0 {
		return nil, nil
	}
	return fields, nil
}

// encode is the JSON of record with the unknown fields behind its own, sorted.
func encode(record any, extra unknown) ([]byte, error) {
	b, err := json.Marshal(record)
	if err != nil || len(extra) == 0 {
		return b, err
	}
	b = b[:len(b)-1]
	for _, name := range slices.Sorted(maps.Keys(extra)) {
		key, err := json.Marshal(name)
		if err != nil {
			return nil, err
		}
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(append(append(b, key...), ':'), extra[name]...)
	}
	return append(b, '}'), nil
}

// fieldName turns a name as JSON spells it (maxConcurrency, breaker.openFor) into that of the proto, which is the stored
// one's without its unit.
func fieldName(name string) string {
	var b strings.Builder
	for _, r := range name {
		if 'A' <= r && r <= 'Z' {
			b.WriteByte('_')
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// reset runs the functions of the named fields on p.
func reset[P any](p *P, fields map[string]func(*P), names []string) error {
	for _, name := range names {
		clear, ok := fields[fieldName(name)]
		if !ok {
			return fmt.Errorf("%q is not a field of the policy; known are %s", name, strings.Join(slices.Sorted(maps.Keys(fields)), ", "))
		}
		clear(p)
	}
	return nil
}

// or returns the value that is set, or else the default.
func or[T any](set *T, byDefault T) T {
	if set != nil {
		return *set
	}
	return byDefault
}

// override makes changes the value of field, if it says anything.
func override[T any](field **T, change *T) {
	if change != nil {
		*field = change
	}
}
