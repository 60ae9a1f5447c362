package config

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/execgate/execgate/internal/strictyaml"
)

const envPrefix = "EXECGATE_"

// envOfClients are variables of the command line's admin API clients, not of
// the gateway's configuration.
var envOfClients = []string{"EXECGATE_ADMIN_URL", "EXECGATE_ADMIN_TOKEN"}

// envOfLinks matches what Kubernetes and Docker put into every container when
// a service is called execgate (EXECGATE_SERVICE_HOST, EXECGATE_PORT,
// EXECGATE_ADMIN_PORT_8081_TCP_ADDR). Nobody wrote them, so nobody can mend
// them.
var envOfLinks = regexp.MustCompile(
	`^EXECGATE_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// EnvName returns the variable that overrides the key at path.
func EnvName(path string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
}

// environment applies the EXECGATE_ variables of environ ("NAME=value") to
// config, in the order of their names.
func environment(environ []string, config *Config, faults *Faults, from origins) {
	fields := map[string]reflect.Value{}
	paths := map[string]string{}
	walk(reflect.ValueOf(config).Elem(), "", func(path string, v reflect.Value) {
		fields[EnvName(path)], paths[EnvName(path)] = v, path
	})
	environ = slices.Sorted(slices.Values(environ))
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, envPrefix) || slices.Contains(envOfClients, name) {
			continue
		}
		d := newDecoder("", name, faults, from)
		field, ok := fields[name]
		if !ok {
			if !envOfLinks.MatchString(name) {
				d.unknownVariable(name, fields)
			}
			continue
		}
		d.variable(value, field, paths[name])
	}
}

func (d *decoder) unknownVariable(name string, known map[string]reflect.Value) {
	names := make([]string, 0, len(known))
	for n := range known {
		names = append(names, n)
	}
	slices.Sort(names)
	hint := "unset it; the variable of a key is " + envPrefix + " and its path, upper case, dots as underscores"
	if i := slices.IndexFunc(names, func(n string) bool { return strings.HasPrefix(n, name+"_") }); i >= 0 {
		hint = fmt.Sprintf("it is a section; set its keys one by one, like %s", names[i])
	} else if near := strictyaml.Closest(name, names); near != "" {
		hint = fmt.Sprintf("did you mean %s?", near)
	}
	d.fault(0, "", "no key has this environment variable", hint)
}

// variable decodes the value of an environment variable. Strings and secrets
// are taken as they are; a list may be separated by commas, a list of structs
// and a map are YAML or JSON.
func (d *decoder) variable(value string, v reflect.Value, path string) {
	switch {
	case v.Kind() == reflect.String:
		d.mark(path, 0)
		v.SetString(value)
		return
	case v.Type() == secretType:
		d.mark(path, 0)
		v.Set(reflect.ValueOf(NewSecret(value)))
		return
	case v.Kind() == reflect.Slice && !isStructList(v.Type()) && !strings.HasPrefix(strings.TrimSpace(value), "[") &&
		!strings.HasPrefix(strings.TrimSpace(value), "- "):
		d.mark(path, 0)
		list := []string{}
		for part := range strings.SplitSeq(value, ",") {
			if part = strings.TrimSpace(part); part != "" {
				list = append(list, part)
			}
		}
		v.Set(reflect.ValueOf(list))
		return
	}
	if v.Type() == secretListType && !strings.HasPrefix(strings.TrimSpace(value), "[") {
		d.mark(path, 0)
		var list []Secret
		for part := range strings.SplitSeq(value, ",") {
			if part = strings.TrimSpace(part); part != "" {
				list = append(list, NewSecret(part))
			}
		}
		v.Set(reflect.ValueOf(list))
		return
	}
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(value), &doc); err != nil {
		// The parser's text is left out: it may quote the value.
		d.fault(0, path, "not YAML or JSON", "mend the syntax")
		return
	}
	if len(doc.Content) == 0 {
		if v.Kind() == reflect.Slice || v.Kind() == reflect.Map {
			d.mark(path, 0)
			v.SetZero()
			return
		}
		d.fault(0, path, "the variable is empty", "give it a value, or unset it")
		return
	}
	d.Value(doc.Content[0], 0, v, path)
}
