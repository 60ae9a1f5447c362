package config

import (
	"reflect"
	"sync"

	"github.com/execgate/execgate/internal/strictyaml"
)

// isSection says whether t holds keys of its own and no value.
func isSection(t reflect.Type) bool { return t.Kind() == reflect.Struct && t != secretType }

// isStructList says whether t is a list of keys and values.
func isStructList(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct
}

// walk calls visit for every key below v that holds a value, sections left out.
// A list of structs is one key.
func walk(v reflect.Value, path string, visit func(path string, v reflect.Value)) {
	for i := range v.NumField() {
		name, ok := v.Type().Field(i).Tag.Lookup("key")
		if !ok {
			continue
		}
		if at := strictyaml.Join(path, name); isSection(v.Field(i).Type()) {
			walk(v.Field(i), at, visit)
		} else {
			visit(at, v.Field(i))
		}
	}
}

// allPaths lists every key, "proxy.listen", in the order of the structs.
var allPaths = sync.OnceValue(func() []string {
	var paths []string
	walk(reflect.ValueOf(&Config{}).Elem(), "", func(path string, _ reflect.Value) { paths = append(paths, path) })
	return paths
})
