package openapi

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// schemas collects the messages and enums that something refers to.
type schemas struct {
	seen    map[protoreflect.FullName]bool
	pending []protoreflect.Descriptor
	all     object
}

// known are messages with a JSON form of their own.
var known = map[protoreflect.FullName]object{
	"google.protobuf.Timestamp": {{"type", "string"}, {"format", "date-time"}},
	"google.protobuf.Duration":  {{"type", "string"}, {"pattern", `^-?[0-9]+(\.[0-9]{1,9})?s$`}, {"examples", []string{"10s"}}},
	"google.protobuf.Struct":    {{"type", "object"}},
	"google.protobuf.ListValue": {{"type", "array"}, {"items", object{}}},
	"google.protobuf.Value":     {},
	"google.protobuf.Empty":     {{"type", "object"}},
}

// message returns a schema for a message, by reference.
func (s *schemas) message(m protoreflect.MessageDescriptor) object {
	if own, ok := known[m.FullName()]; ok {
		return append(object{}, own...)
	}
	return s.refer(m)
}

func (s *schemas) refer(d protoreflect.Descriptor) object {
	if !s.seen[d.FullName()] {
		s.seen[d.FullName()] = true
		s.pending = append(s.pending, d)
	}
	return ref("#/components/schemas/" + string(d.FullName()))
}

// field returns a schema for the value of a field.
func (s *schemas) field(f protoreflect.FieldDescriptor) object {
	switch {
	case f.IsMap():
		return object{{"type", "object"}, {"additionalProperties", s.single(f.MapValue())}}
	case f.IsList():
		return object{{"type", "array"}, {"items", s.single(f)}}
	}
	return s.single(f)
}

func (s *schemas) single(f protoreflect.FieldDescriptor) object {
	switch {
	case f.Message() != nil:
		return s.message(f.Message())
	case f.Enum() != nil:
		return s.refer(f.Enum())
	}
	return scalar(f)
}

// scalar returns the schema of a value that is neither message nor list.
func scalar(f protoreflect.FieldDescriptor) object {
	switch f.Kind() {
	case protoreflect.BoolKind:
		return object{{"type", "boolean"}}
	case protoreflect.StringKind:
		return object{{"type", "string"}}
	case protoreflect.BytesKind:
		return object{{"type", "string"}, {"contentEncoding", "base64"}}
	case protoreflect.FloatKind:
		return object{{"type", "number"}, {"format", "float"}}
	case protoreflect.DoubleKind:
		return object{{"type", "number"}, {"format", "double"}}
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return object{{"type", "integer"}, {"format", "int32"}}
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return object{{"type", "integer"}, {"format", "uint32"}, {"minimum", 0}}
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return object{{"type", "string"}, {"format", "int64"}}
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return object{{"type", "string"}, {"format", "uint64"}}
	}
	return object{{"type", "string"}}
}

// finish writes everything that was referred to, and the error.
func (s *schemas) finish() error {
	for len(s.pending) > 0 {
		d := s.pending[0]
		s.pending = s.pending[1:]
		switch d := d.(type) {
		case protoreflect.EnumDescriptor:
			var names []string
			for i := range d.Values().Len() {
				names = append(names, string(d.Values().Get(i).Name()))
			}
			text := comment(d)
			for i := range d.Values().Len() {
				if said := comment(d.Values().Get(i)); said != "" {
					text = strings.TrimSpace(text + "\n\n" + names[i] + ": " + said)
				}
			}
			s.all.set(string(d.FullName()), object{{"type", "string"}}.with("description", text).plus("enum", names))
		case protoreflect.MessageDescriptor:
			o, err := s.rest(d, nil)
			if err != nil {
				return err
			}
			s.all.set(string(d.FullName()), o)
		}
	}
	s.all.set("Error", object{
		{"type", "object"},
		{"description", "Why a call failed. The message of an error that has an id ends with it in brackets."},
		{"properties", object{
			{"code", object{{"type", "integer"}, {"format", "int32"}, {"description", "A code of gRPC."}}},
			{"message", object{{"type", "string"}}},
			{"details", object{{"type", "array"}, {"items", object{
				{"type", "object"},
				{"properties", object{
					{"@type", object{{"type", "string"}, {"examples", []string{"type.googleapis.com/zitadel.v1.ErrorDetail"}}}},
					{"id", object{{"type", "string"}, {"examples", []string{"QUERY-hj5oaniyrz"}}}},
					{"message", object{{"type", "string"}}},
				}},
				{"required", []string{"@type"}},
			}}}},
		}},
		{"required", []string{"code", "message"}},
	})
	return nil
}

func (o object) plus(name string, value any) object { return append(o, member{name, value}) }

// rest returns the schema of a message without some of its fields.
func (s *schemas) rest(m protoreflect.MessageDescriptor, without map[protoreflect.Name]bool) (object, error) {
	o := object{{"type", "object"}}.with("description", comment(m))
	properties := object{}
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		if without[f.Name()] {
			continue
		}
		if f.Kind() == protoreflect.GroupKind {
			return nil, fmt.Errorf("%s is a group", f.FullName())
		}
		schema := s.field(f)
		if text := comment(f); text != "" {
			schema.set("description", text)
		}
		properties.set(f.JSONName(), schema)
	}
	if len(properties) > 0 {
		o.set("properties", properties)
	}
	var pairs []object
	for i := range m.Oneofs().Len() {
		one := m.Oneofs().Get(i)
		if one.IsSynthetic() {
			continue
		}
		if one.Fields().Len() == m.Fields().Len() && len(without) == 0 {
			o.set("maxProperties", 1)
			break
		}
		for j := range one.Fields().Len() {
			for k := range j {
				pairs = append(pairs, object{{"not", object{
					{"required", []string{one.Fields().Get(k).JSONName(), one.Fields().Get(j).JSONName()}},
				}}})
			}
		}
	}
	if len(pairs) > 0 {
		o.set("allOf", pairs)
	}
	return o, nil
}

// query returns the parameters for the fields of a request that are neither in
// the path nor in the body.
func (s *schemas) query(m protoreflect.MessageDescriptor, taken map[protoreflect.Name]bool) []object {
	var out []object
	var walk func(m protoreflect.MessageDescriptor, prefix, text string, taken map[protoreflect.Name]bool, depth int)
	walk = func(m protoreflect.MessageDescriptor, prefix, text string, taken map[protoreflect.Name]bool, depth int) {
		for i := range m.Fields().Len() {
			f := m.Fields().Get(i)
			if taken[f.Name()] || f.IsMap() || depth > 4 {
				continue
			}
			said := strings.TrimSpace(text + " " + comment(f))
			inner := f.Message()
			if inner != nil && known[inner.FullName()] == nil {
				if !f.IsList() { // a list of messages cannot be said in a query
					walk(inner, prefix+f.JSONName()+".", said, nil, depth+1)
				}
				continue
			}
			out = append(out, object{{"name", prefix + f.JSONName()}, {"in", "query"}}.with("description", said).plus("schema", s.field(f)))
		}
	}
	walk(m, "", "", taken, 0)
	return out
}
