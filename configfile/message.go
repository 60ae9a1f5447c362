package configfile

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/execgate/execgate/internal/strictyaml"
)

// Policies are decoded and printed by the descriptors of their messages, so that a field that is added to a message is
// in the file format as well: durations are texts (30s), enums the lower-cased rest of their names (shadow), and a
// message that only wraps one list or map, to tell an empty one from none, is that list or map.

const durationName = "google.protobuf.Duration"

// custom decodes the types that strictyaml does not know.
func custom(d *strictyaml.Decoder, node *yaml.Node, _ int, v reflect.Value, path string) bool {
	if !v.CanInterface() {
		return false
	}
	switch v.Interface().(type) {
	case *rawCondition:
		c := new(rawCondition)
		c.value, c.ok = condition(d, node, path)
		v.Set(reflect.ValueOf(c))
		return true
	case proto.Message:
		m := reflect.New(v.Type().Elem())
		decodeMessage(d, node, m.Interface().(proto.Message).ProtoReflect(), path)
		v.Set(m)
		return true
	}
	return false
}

// wrapped returns the one list or map of a message that is nothing else, or nil.
func wrapped(m protoreflect.MessageDescriptor) protoreflect.FieldDescriptor {
	if m.Fields().Len() != 1 {
		return nil
	}
	if f := m.Fields().Get(0); f.IsList() || f.IsMap() {
		return f
	}
	return nil
}

func decodeMessage(d *strictyaml.Decoder, node *yaml.Node, m protoreflect.Message, path string) {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	if f := wrapped(m.Descriptor()); f != nil {
		decodeField(d, node, m, f, path)
		return
	}
	var keys []string
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		keys = append(keys, string(fields.Get(i).Name()))
	}
	d.Pairs(node, path, "write one of: "+strings.Join(keys, ", "), func(key, value *yaml.Node) {
		at := strictyaml.Join(path, key.Value)
		f := fields.ByName(protoreflect.Name(key.Value))
		if f == nil {
			hint := "known here: " + strings.Join(keys, ", ")
			if near := strictyaml.Closest(key.Value, keys); near != "" {
				hint = fmt.Sprintf("did you mean %s?", near)
			}
			d.Fault(key.Line, strictyaml.Join(path, short(key.Value)), "unknown key", hint)
			return
		}
		if value.Kind == yaml.ScalarNode && value.Tag == "!!null" {
			return
		}
		if d.Mark != nil {
			d.Mark(at, key.Line)
		}
		decodeField(d, value, m, f, at)
	})
}

func decodeField(d *strictyaml.Decoder, node *yaml.Node, m protoreflect.Message, f protoreflect.FieldDescriptor, path string) {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	switch {
	case f.IsList():
		if node.Kind != yaml.SequenceNode {
			d.Fault(node.Line, path, fmt.Sprintf("expected a list, found %s", strictyaml.KindName(node)), `write [a, b] or one "- a" on each line`)
			return
		}
		list := m.Mutable(f).List()
		for i, element := range node.Content {
			at := fmt.Sprintf("%s[%d]", path, i)
			if f.Message() != nil && f.Message().FullName() != durationName {
				decodeMessage(d, element, list.AppendMutable().Message(), at)
			} else if v, ok := decodeScalar(d, element, f, at); ok {
				list.Append(v)
			}
		}
	case f.IsMap():
		entries := m.Mutable(f).Map()
		d.Pairs(node, path, "write {name: value}", func(key, value *yaml.Node) {
			at := fmt.Sprintf("%s[%s]", path, short(key.Value))
			k := protoreflect.ValueOfString(key.Value).MapKey()
			if f.MapValue().Message() != nil {
				decodeMessage(d, value, entries.Mutable(k).Message(), at)
			} else if v, ok := decodeScalar(d, value, f.MapValue(), at); ok {
				entries.Set(k, v)
			}
		})
	case f.Message() != nil && f.Message().FullName() != durationName:
		decodeMessage(d, node, m.Mutable(f).Message(), path)
	default:
		if v, ok := decodeScalar(d, node, f, path); ok {
			m.Set(f, v)
		}
	}
}

// decodeScalar decodes what is one word in a file.
func decodeScalar(d *strictyaml.Decoder, node *yaml.Node, f protoreflect.FieldDescriptor, path string) (protoreflect.Value, bool) {
	fail := func(want, hint string) (protoreflect.Value, bool) {
		d.Fault(node.Line, path, fmt.Sprintf("expected %s, found %s", want, strictyaml.KindName(node)), hint)
		return protoreflect.Value{}, false
	}
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	scalar := node.Kind == yaml.ScalarNode
	switch f.Kind() {
	case protoreflect.StringKind:
		text, ok := d.Scalar(node, path, "a string")
		return protoreflect.ValueOfString(text), ok
	case protoreflect.BoolKind:
		if scalar && node.Tag == "!!bool" {
			return protoreflect.ValueOfBool(strings.EqualFold(node.Value, "true")), true
		}
		return fail("true or false", "write true or false")
	case protoreflect.Uint32Kind, protoreflect.Int32Kind, protoreflect.Uint64Kind, protoreflect.Int64Kind:
		var n int64
		if scalar && node.Tag == "!!int" && node.Decode(&n) == nil {
			if v, ok := intValue(f.Kind(), n); ok {
				return v, true
			}
		}
		return fail("a whole number that is not negative", "write 0 or more, without a unit")
	case protoreflect.DoubleKind:
		var x float64
		if scalar && (node.Tag == "!!int" || node.Tag == "!!float") && node.Decode(&x) == nil && !math.IsNaN(x) {
			return protoreflect.ValueOfFloat64(x), true
		}
		return fail("a number", "write a number like 0.5")
	case protoreflect.EnumKind:
		words := enumWords(f.Enum())
		if scalar {
			for number, word := range words {
				if word == node.Value {
					return protoreflect.ValueOfEnum(number), true
				}
			}
		}
		var known []string
		for i := range f.Enum().Values().Len() {
			if word, ok := words[f.Enum().Values().Get(i).Number()]; ok {
				known = append(known, word)
			}
		}
		return fail("one of "+strings.Join(known, ", "), "write "+strings.Join(known, " or "))
	case protoreflect.MessageKind: // a duration
		if scalar {
			if length, err := time.ParseDuration(node.Value); err == nil {
				return protoreflect.ValueOfMessage(durationpb.New(length).ProtoReflect()), true
			}
		}
		return fail("a duration", "write a number with its unit, like 500ms, 30s or 2m")
	}
	return fail("something that this version does not know", "leave it out")
}

func intValue(kind protoreflect.Kind, n int64) (protoreflect.Value, bool) {
	switch {
	case kind == protoreflect.Uint32Kind && n >= 0 && n <= math.MaxUint32:
		return protoreflect.ValueOfUint32(uint32(n)), true
	case kind == protoreflect.Int32Kind && n >= math.MinInt32 && n <= math.MaxInt32:
		return protoreflect.ValueOfInt32(int32(n)), true
	case kind == protoreflect.Uint64Kind && n >= 0:
		return protoreflect.ValueOfUint64(uint64(n)), true
	case kind == protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(n), true
	}
	return protoreflect.Value{}, false
}

// enumWords are the words for the values of an enum, without the one that says nothing.
func enumWords(e protoreflect.EnumDescriptor) map[protoreflect.EnumNumber]string {
	words := make(map[protoreflect.EnumNumber]string)
	zero := string(e.Values().ByNumber(0).Name())
	prefix := strings.TrimSuffix(zero, "UNSPECIFIED")
	for i := range e.Values().Len() {
		v := e.Values().Get(i)
		if string(v.Name()) == zero && prefix != zero {
			continue
		}
		words[v.Number()] = strings.ToLower(strings.TrimPrefix(string(v.Name()), prefix))
	}
	return words
}

// message prints the fields of a message that are set. A message that says nothing is not printed.
func (w *writer) message(key string, m protoreflect.Message) {
	if f := wrapped(m.Descriptor()); f != nil {
		w.field(key, m, f)
		return
	}
	if w.sayNothing(m) {
		return
	}
	w.line(key + ":")
	w.depth++
	w.fields(m)
	w.depth--
}

func (w *writer) fields(m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		if f := fields.Get(i); m.Has(f) {
			w.field(string(f.Name()), m, f)
		}
	}
}

// sayNothing says whether printing the message would print nothing.
func (w *writer) sayNothing(m protoreflect.Message) bool {
	nothing := true
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if f.IsList() || f.IsMap() || f.Message() == nil || f.Message().FullName() == durationName {
			nothing = false
		} else if wrapped(f.Message()) != nil || !w.sayNothing(v.Message()) {
			nothing = false
		}
		return nothing
	})
	return nothing
}

func (w *writer) field(key string, m protoreflect.Message, f protoreflect.FieldDescriptor) {
	switch v := m.Get(f); {
	case f.IsList():
		if v.List().Len() == 0 {
			w.line(key + ": []")
			return
		}
		w.line(key + ":")
		w.depth++
		for i := range v.List().Len() {
			w.value("-", f, v.List().Get(i))
		}
		w.depth--
	case f.IsMap():
		entries := make(map[string]protoreflect.Value)
		v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
			entries[k.String()] = v
			return true
		})
		if len(entries) == 0 {
			w.line(key + ": {}")
			return
		}
		w.line(key + ":")
		w.depth++
		for _, k := range sortedKeys(entries) {
			w.value(text(k)+":", f.MapValue(), entries[k])
		}
		w.depth--
	case f.Message() != nil && f.Message().FullName() != durationName:
		w.message(key, v.Message())
	default:
		w.value(key+":", f, v)
	}
}

// value prints what stands behind a key or a dash.
func (w *writer) value(lead string, f protoreflect.FieldDescriptor, v protoreflect.Value) {
	if f.Message() == nil || f.Message().FullName() == durationName {
		w.line(lead + " " + scalarText(f, v))
		return
	}
	if w.sayNothing(v.Message()) {
		w.line(lead + " {}")
		return
	}
	w.line(lead)
	w.depth++
	w.fields(v.Message())
	w.depth--
}

func scalarText(f protoreflect.FieldDescriptor, v protoreflect.Value) string {
	switch f.Kind() {
	case protoreflect.StringKind:
		return text(v.String())
	case protoreflect.EnumKind:
		return text(enumWords(f.Enum())[v.Enum()])
	case protoreflect.DoubleKind:
		return strconv.FormatFloat(v.Float(), 'g', -1, 64)
	case protoreflect.MessageKind:
		if d, ok := v.Message().Interface().(*durationpb.Duration); ok {
			return d.AsDuration().String()
		}
	}
	return v.String()
}
