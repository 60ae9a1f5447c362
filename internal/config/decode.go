package config

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/execgate/execgate/internal/strictyaml"
)

var secretType = reflect.TypeFor[Secret]()

// decoder decodes a file, or one environment variable, into the configuration.
type decoder struct {
	strictyaml.Decoder
	origins origins
}

// newDecoder returns one for a file or a variable.
func newDecoder(file, env string, faults *Faults, from origins) *decoder {
	d := &decoder{Decoder: strictyaml.Decoder{File: file, Env: env, Faults: faults}, origins: from}
	d.Mark, d.Custom, d.Elsewhere = d.mark, d.secret, elsewhere
	return d
}

func (d *decoder) fault(line int, path, text, hint string) { d.Fault(line, path, text, hint) }

// mark notes that path was set here.
func (d *decoder) mark(path string, line int) {
	d.origins[path] = origin{file: d.File, env: d.Env, line: line}
}

// secret decodes secrets.
func (d *decoder) secret(node *yaml.Node, _ int, v reflect.Value, path string) bool {
	if v.Type() != secretType {
		return d.hookToken(node, v, path)
	}
	if text, ok := d.Scalar(node, path, "a string"); ok {
		v.Set(reflect.ValueOf(NewSecret(text)))
	}
	return true
}

// document decodes the one YAML document of a file into config.
func (d *decoder) document(text []byte, config *Config) {
	in := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	if err := in.Decode(&doc); errors.Is(err, io.EOF) {
		return // an empty file: all defaults
	} else if err != nil {
		d.Syntax(err)
		return
	}
	var second yaml.Node
	if err := in.Decode(&second); err == nil {
		d.fault(second.Line, "", "a second document starts here", "keep the configuration in one document")
	} else if !errors.Is(err, io.EOF) {
		d.Syntax(err)
	}
	if len(doc.Content) == 1 {
		d.Value(doc.Content[0], doc.Content[0].Line, reflect.ValueOf(config).Elem(), "")
	}
}

// elsewhere returns the first path of all whose last segment is key, or "".
func elsewhere(key string) string {
	all := allPaths()
	i := slices.IndexFunc(all, func(path string) bool { return strings.HasSuffix(path, "."+key) })
	if i < 0 {
		return ""
	}
	return all[i]
}
