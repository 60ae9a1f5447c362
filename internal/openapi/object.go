package openapi

import (
	"bytes"
	"encoding/json"
	"slices"
)

// member is one field of a JSON object.
type member struct {
	name  string
	value any
}

// object is a JSON object that keeps the order of its fields.
type object []member

// set adds a field or replaces it.
func (o *object) set(name string, value any) {
	for i := range *o {
		if (*o)[i].name == name {
			(*o)[i].value = value
			return
		}
	}
	*o = append(*o, member{name, value})
}

// with adds a field unless its value is empty text.
func (o object) with(name, text string) object {
	if text == "" {
		return o
	}
	return append(o, member{name, text})
}

// sort orders the fields by name.
func (o object) sort() object {
	slices.SortFunc(o, func(a, b member) int { return bytes.Compare([]byte(a.name), []byte(b.name)) })
	return o
}

// MarshalJSON implements json.Marshaler.
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(m.name)
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		if err := e.Encode(m.value); err != nil {
			return nil, err
		}
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

func ref(name string) object { return object{{"$ref", name}} }
