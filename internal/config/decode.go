package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

var (
	secretType   = reflect.TypeFor[Secret]()
	durationType = reflect.TypeFor[time.Duration]()
	tokensType   = reflect.TypeFor[[]Token]()
)

// decoder walks YAML nodes beside the typed configuration. It goes on after a
// fault, so that all of them are found in one pass.
type decoder struct {
	file    string // "" while an environment variable is decoded
	env     string
	faults  *Faults
	origins origins
}

func (d *decoder) fault(line int, path, text, hint string) {
	if d.env != "" {
		line = 0
	}
	*d.faults = append(*d.faults, Fault{File: d.file, Env: d.env, Line: line, Path: path, Text: text, Hint: hint})
}

// mark notes that path was set here.
func (d *decoder) mark(path string, line int) {
	d.origins[path] = origin{file: d.file, env: d.env, line: line}
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// document decodes the one YAML document of a file into config.
func (d *decoder) document(text []byte, config *Config) {
	in := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	if err := in.Decode(&doc); errors.Is(err, io.EOF) {
		return // an empty file: all defaults
	} else if err != nil {
		d.syntax(err)
		return
	}
	var second yaml.Node
	if err := in.Decode(&second); err == nil {
		d.fault(second.Line, "", "a second document starts here", "keep the configuration in one document")
	} else if !errors.Is(err, io.EOF) {
		d.syntax(err)
	}
	if len(doc.Content) == 1 {
		d.value(doc.Content[0], doc.Content[0].Line, reflect.ValueOf(config).Elem(), "")
	}
}

// syntax reports what the YAML parser could not read.
func (d *decoder) syntax(err error) {
	text := err.Error()
	line := 0
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[1]) // no line in the message: 0
		text = strings.TrimPrefix(text, m[0])
	}
	d.fault(line, "", "not YAML: "+text, "mend the syntax; indent with spaces")
}

// value decodes node into v, a field of the configuration. Its key stands on
// line.
func (d *decoder) value(node *yaml.Node, line int, v reflect.Value, path string) {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	if node.Kind == yaml.ScalarNode && node.Tag == "!!null" {
		return // "key:" with nothing behind it leaves the default
	}
	d.mark(path, line)
	switch {
	case v.Type() == secretType:
		if text, ok := d.scalar(node, path, "a string"); ok {
			v.Set(reflect.ValueOf(NewSecret(text)))
		}
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

// scalar returns the text of a scalar node.
func (d *decoder) scalar(node *yaml.Node, path, want string) (string, bool) {
	if node.Kind != yaml.ScalarNode {
		d.fault(node.Line, path, fmt.Sprintf("expected %s, found %s", want, kindName(node)), "write "+want)
		return "", false
	}
	return node.Value, true
}

// plain decodes a string, number or boolean.
func (d *decoder) plain(node *yaml.Node, v reflect.Value, path string) {
	switch v.Kind() {
	case reflect.String:
		if text, ok := d.scalar(node, path, "a string"); ok {
			v.SetString(text)
		}
	case reflect.Bool:
		if node.Kind == yaml.ScalarNode && node.Tag == "!!bool" {
			v.SetBool(strings.EqualFold(node.Value, "true"))
			return
		}
		d.fault(node.Line, path, fmt.Sprintf("expected true or false, found %s", kindName(node)), "write true or false")
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
		d.fault(node.Line, path, fmt.Sprintf("expected a whole number, found %s", kindName(node)), hint)
	case reflect.Float64:
		var f float64
		if node.Kind == yaml.ScalarNode && (node.Tag == "!!int" || node.Tag == "!!float") && node.Decode(&f) == nil && !math.IsNaN(f) {
			v.SetFloat(f)
			return
		}
		d.fault(node.Line, path, fmt.Sprintf("expected a number, found %s", kindName(node)), "write a number like 0.5")
	default:
		panic("config: no decoder for " + v.Type().String())
	}
}

func (d *decoder) duration(node *yaml.Node, v reflect.Value, path string) {
	const hint = "write a number with its unit, like 500ms, 30s or 2m"
	text, ok := d.scalar(node, path, "a duration")
	if !ok {
		return
	}
	length, err := time.ParseDuration(text)
	if err != nil {
		d.fault(node.Line, path, fmt.Sprintf("%q is not a duration", text), hint)
		return
	}
	v.SetInt(int64(length))
}

// mapping decodes the keys of a section, or of an element of a list.
func (d *decoder) mapping(node *yaml.Node, v reflect.Value, path string) {
	if node.Kind != yaml.MappingNode {
		d.fault(node.Line, path, fmt.Sprintf("expected keys and values, found %s", kindName(node)),
			"write one of: "+strings.Join(keysOf(v.Type()), ", "))
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		if d.badKey(key, path, seen) {
			continue
		}
		field, ok := fieldByKey(v, key.Value)
		if !ok {
			d.unknown(key, v.Type(), path)
			continue
		}
		d.value(value, key.Line, field, join(path, key.Value))
	}
}

// badKey reports a key that is no name, is merged in, or stands here twice.
func (d *decoder) badKey(key *yaml.Node, path string, seen map[string]int) bool {
	switch {
	case key.Tag == "!!merge":
		d.fault(key.Line, path, "merge keys (<<) are not read", "write the keys out")
	case key.Kind != yaml.ScalarNode:
		d.fault(key.Line, path, fmt.Sprintf("expected a key, found %s", kindName(key)), "write a name")
	case seen[key.Value] > 0:
		d.fault(key.Line, join(path, key.Value), fmt.Sprintf("given twice, first on line %d", seen[key.Value]), "keep one")
	default:
		seen[key.Value] = key.Line
		return false
	}
	return true
}

func (d *decoder) unknown(key *yaml.Node, section reflect.Type, path string) {
	keys := keysOf(section)
	hint := "known here: " + strings.Join(keys, ", ")
	if near := closest(key.Value, keys); near != "" {
		hint = fmt.Sprintf("did you mean %s?", near)
	} else if far := elsewhere(key.Value, allPaths()); far != "" {
		hint = fmt.Sprintf("did you mean %s?", far)
	}
	d.fault(key.Line, join(path, key.Value), "unknown key", hint)
}

func (d *decoder) sequence(node *yaml.Node, v reflect.Value, path string) {
	if node.Kind != yaml.SequenceNode {
		d.fault(node.Line, path, fmt.Sprintf("expected a list, found %s", kindName(node)), "write [a, b] or one \"- a\" on each line")
		return
	}
	list := reflect.MakeSlice(v.Type(), len(node.Content), len(node.Content))
	for i, element := range node.Content {
		d.value(element, element.Line, list.Index(i), fmt.Sprintf("%s[%d]", path, i))
	}
	v.Set(list)
}

// names decodes a map from names to strings or numbers.
func (d *decoder) names(node *yaml.Node, v reflect.Value, path string) {
	if node.Kind != yaml.MappingNode {
		d.fault(node.Line, path, fmt.Sprintf("expected keys and values, found %s", kindName(node)), "write {name: value}")
		return
	}
	m := reflect.MakeMap(v.Type())
	seen := map[string]int{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		if d.badKey(key, path, seen) {
			continue
		}
		element := reflect.New(v.Type().Elem()).Elem()
		d.value(value, key.Line, element, fmt.Sprintf("%s[%s]", path, key.Value))
		m.SetMapIndex(reflect.ValueOf(key.Value), element)
	}
	v.Set(m)
}

// kindName says what a node is, in words, without its value: that may be a
// secret in the wrong place.
func kindName(node *yaml.Node) string {
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

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
