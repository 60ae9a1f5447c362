package config

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/execgate/execgate/internal/strictyaml"
)

// AllPaths lists every key.
func AllPaths() []string { return allPaths() }

// Flat shows a configuration as one "path = value" line for each key.
func Flat(c *Config) string {
	var b strings.Builder
	walk(reflect.ValueOf(c).Elem(), "", func(path string, v reflect.Value) {
		if v.Kind() == reflect.Slice && v.Len() == 0 || v.Kind() == reflect.Map && v.Len() == 0 {
			fmt.Fprintf(&b, "%s = none\n", path)
			return
		}
		if v.Kind() == reflect.Slice {
			for i := range v.Len() {
				fmt.Fprintf(&b, "%s[%d] = %+v\n", path, i, v.Index(i))
			}
			return
		}
		fmt.Fprintf(&b, "%s = %v\n", path, v)
	})
	return b.String()
}

// MissingKeys lists the keys that the file of c did not set.
func MissingKeys(c *Config) []string {
	var missing []string
	for _, path := range allPaths() {
		if !c.origins.has(path) {
			missing = append(missing, path)
		}
	}
	for _, key := range strictyaml.KeysOf(reflect.TypeFor[Token]()) {
		if path := "admin.tokens[0]." + key; !c.origins.has(path) {
			missing = append(missing, path)
		}
	}
	return missing
}
