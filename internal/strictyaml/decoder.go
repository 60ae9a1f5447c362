package strictyaml

import (
	"fmt"
	"math"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

var durationType = reflect.TypeFor[time.Duration]()

// Decoder walks YAML nodes beside the structs that they are decoded into. It
// goes on after a fault, so that all of them are found in one pass. The zero
// value, with Faults set, is usable.
//
// It decodes strings, booleans, int and int64, float64, durations, structs
// (by `key` tags), slices, maps from strings, and pointers to these, which tell
// an absent key from an empty value. "key:" with nothing behind it is as if the
// key were absent.
type Decoder struct {
	// File and Env name what is decoded in the faults.
	File, Env string
	// Faults collects what is wrong.
	Faults *Faults
	// Mark is told of every value that is set, with the line of its key. May be
	// nil.
	Mark func(path string, line int)
	// Custom decodes the types that it knows by itself, and returns false for
	// others. May be nil.
	Custom func(node *yaml.Node, line int, v reflect.Value, path string) bool
	// Elsewhere suggests another path for a key that is unknown in its section,
	// or "". May be nil.
	Elsewhere func(key string) string
}

// Fault notes what is wrong with path.
func (d *Decoder) Fault(line int, path, text, hint string) {
	if d.Env != "" {
		line = 0
	}
	*d.Faults = append(*d.Faults, Fault{File: d.File, Env: d.Env, Line: line, Path: path, Text: text, Hint: hint})
}

func (d *Decoder) mark(path string, line int) {
	if d.Mark != nil {
		d.Mark(path, line)
	}
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// Syntax reports what the YAML parser could not read.
func (d *Decoder) Syntax(err error) {
	text := err.Error()
	line := 0
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[1]) // no line in the message: 0
		text = strings.TrimPrefix(text, m[0])
	}
	d.Fault(line, "", "not YAML: "+text, "mend the syntax; indent with spaces")
}

// Value decodes node into v, which stands at path. Its key stands on line.
func (d *Decoder) Value(node *yaml.Node, line int, v reflect.Value, path string) {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	if node.Kind == yaml.ScalarNode && node.Tag == "!!null" {
		return // "key:" with nothing behind it leaves the default
	}
	d.mark(path, line)
	switch {
	case d.Custom != nil && d.Custom(node, line, v, path):
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.Value(node, line, v.Elem(), path)
	case v.Type() == durationType:
		d.duration(node, v, path)
	case v.Kind() == reflect.Struct:
		d.mapping(node, v, path)
	case v.Kind() == reflect.Slice:
		d.sequence(node, v, path)
	case v.Kind() == reflect.Map:
		d.names(node, v, path)
	default:
		d.plain(node, v, path)
	}
}

// Scalar returns the text of a scalar node; anything else is a fault that says
// what was wanted.
func (d *Decoder) Scalar(node *yaml.Node, path, want string) (string, bool) {
	if node.Kind != yaml.ScalarNode {
		d.Fault(node.Line, path, fmt.Sprintf("expected %s, found %s", want, KindName(node)), "write "+want)
		return "", false
	}
	return node.Value, true
}

// plain decodes a string, number or boolean.
func (d *Decoder) plain(node *yaml.Node, v reflect.Value, path string) {
	switch v.Kind() {
	case reflect.String:
		if text, ok := d.Scalar(node, path, "a string"); ok {
			v.SetString(text)
		}
	case reflect.Bool:
		if node.Kind == yaml.ScalarNode && node.Tag == "!!bool" {
			v.SetBool(strings.EqualFold(node.Value, "true"))
			return
		}
		d.Fault(node.Line, path, fmt.Sprintf("expected true or false, found %s", KindName(node)), "write true or false")
	case reflect.Int, reflect.Int64:
		var n int64
		if node.Kind == yaml.ScalarNode && node.Tag == "!!int" && node.Decode(&n) == nil && !v.OverflowInt(n) {
			v.SetInt(n)
			return
		}
		hint := "write a whole number without a unit"
		if strings.HasSuffix(path, "_bytes") {
			hint = "write the number of bytes without a unit, 20971520 for 20 MiB"
		}
		d.Fault(node.Line, path, fmt.Sprintf("expected a whole number, found %s", KindName(node)), hint)
	case reflect.Float64:
		var f float64
		if node.Kind == yaml.ScalarNode && (node.Tag == "!!int" || node.Tag == "!!float") && node.Decode(&f) == nil && !math.IsNaN(f) {
			v.SetFloat(f)
			return
		}
		d.Fault(node.Line, path, fmt.Sprintf("expected a number, found %s", KindName(node)), "write a number like 0.5")
	default:
		panic("strictyaml: no decoder for " + v.Type().String())
	}
}

func (d *Decoder) duration(node *yaml.Node, v reflect.Value, path string) {
	const hint = "write a number with its unit, like 500ms, 30s or 2m"
	text, ok := d.Scalar(node, path, "a duration")
	if !ok {
		return
	}
	length, err := time.ParseDuration(text)
	if err != nil {
		d.Fault(node.Line, path, fmt.Sprintf("%q is not a duration", text), hint)
		return
	}
	v.SetInt(int64(length))
}

// mapping decodes the keys of a section, or of an element of a list.
func (d *Decoder) mapping(node *yaml.Node, v reflect.Value, path string) {
	d.Pairs(node, path, "write one of: "+strings.Join(KeysOf(v.Type()), ", "), func(key, value *yaml.Node) {
		if field, ok := FieldByKey(v, key.Value); ok {
			d.Value(value, key.Line, field, Join(path, key.Value))
		} else {
			d.unknown(key, v.Type(), path)
		}
	})
}

// Pairs visits the keys and values of a mapping. A node that is none is a fault with the hint, and so is a key that is no
// name, is merged in, or stands there twice.
func (d *Decoder) Pairs(node *yaml.Node, path, hint string, visit func(key, value *yaml.Node)) {
	if node.Kind != yaml.MappingNode {
		d.Fault(node.Line, path, fmt.Sprintf("expected keys and values, found %s", KindName(node)), hint)
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		if key := node.Content[i]; !d.badKey(key, path, seen) {
			visit(key, node.Content[i+1])
		}
	}
}

// badKey reports a key that is no name, is merged in, or stands here twice.
func (d *Decoder) badKey(key *yaml.Node, path string, seen map[string]int) bool {
	switch {
	case key.Tag == "!!merge":
		d.Fault(key.Line, path, "merge keys (<<) are not read", "write the keys out")
	case key.Kind != yaml.ScalarNode:
		d.Fault(key.Line, path, fmt.Sprintf("expected a key, found %s", KindName(key)), "write a name")
	case seen[key.Value] > 0:
		d.Fault(key.Line, Join(path, key.Value), fmt.Sprintf("given twice, first on line %d", seen[key.Value]), "keep one")
	default:
		seen[key.Value] = key.Line
		return false
	}
	return true
}

func (d *Decoder) unknown(key *yaml.Node, section reflect.Type, path string) {
	keys := KeysOf(section)
	hint := "known here: " + strings.Join(keys, ", ")
	if near := Closest(key.Value, keys); near != "" {
		hint = fmt.Sprintf("did you mean %s?", near)
	} else if d.Elsewhere != nil {
		if far := d.Elsewhere(key.Value); far != "" {
			hint = fmt.Sprintf("did you mean %s?", far)
		}
	}
	d.Fault(key.Line, Join(path, key.Value), "unknown key", hint)
}

func (d *Decoder) sequence(node *yaml.Node, v reflect.Value, path string) {
	if node.Kind != yaml.SequenceNode {
		d.Fault(node.Line, path, fmt.Sprintf("expected a list, found %s", KindName(node)), "write [a, b] or one \"- a\" on each line")
		return
	}
	list := reflect.MakeSlice(v.Type(), len(node.Content), len(node.Content))
	for i, element := range node.Content {
		d.Value(element, element.Line, list.Index(i), fmt.Sprintf("%s[%d]", path, i))
	}
	v.Set(list)
}

// names decodes a map from names to strings or numbers.
func (d *Decoder) names(node *yaml.Node, v reflect.Value, path string) {
	m := reflect.MakeMap(v.Type())
	d.Pairs(node, path, "write {name: value}", func(key, value *yaml.Node) {
		element := reflect.New(v.Type().Elem()).Elem()
		d.Value(value, key.Line, element, fmt.Sprintf("%s[%s]", path, key.Value))
		m.SetMapIndex(reflect.ValueOf(key.Value), element)
	})
	if node.Kind == yaml.MappingNode {
		v.Set(m)
	}
}

// KindName says what a node is, in words, without its value: that may be a
// secret in the wrong place.
func KindName(node *yaml.Node) string {
	switch node.Kind {
	case yaml.MappingNode:
		return "keys and values"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		switch node.Tag {
		case "!!null":
			return "nothing"
		case "!!bool":
			return "true or false"
		case "!!int":
			return "a whole number"
		case "!!float":
			return "a number"
		default:
			return "a string"
		}
	default:
		return "something else"
	}
}

// Join returns the path of a key below path.
func Join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// KeysOf lists the keys of a struct in its order.
func KeysOf(section reflect.Type) []string {
	var keys []string
	for i := range section.NumField() {
		if name, ok := section.Field(i).Tag.Lookup("key"); ok {
			keys = append(keys, name)
		}
	}
	return keys
}

// FieldByKey returns the field of the struct v that has the key.
func FieldByKey(v reflect.Value, key string) (reflect.Value, bool) {
	for i := range v.NumField() {
		if name, ok := v.Type().Field(i).Tag.Lookup("key"); ok && name == key {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}
