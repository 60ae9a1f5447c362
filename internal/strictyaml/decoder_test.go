package strictyaml_test

import (
	"reflect"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/execgate/execgate/internal/strictyaml"
)

type inner struct {
	Port  int64   `key:"port"`
	Ratio float64 `key:"ratio"`
}

type outer struct {
	Name    string            `key:"name"`
	Wait    *time.Duration    `key:"wait"`
	Inner   *inner            `key:"inner"`
	List    *[]inner          `key:"list"`
	Labels  map[string]string `key:"labels"`
	Enabled bool              `key:"enabled"`
}

// decode decodes text into an outer and returns the faults, one a line.
func decode(t *testing.T, text string) (outer, string, map[string]int) {
	t.Helper()
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	var v outer
	var faults strictyaml.Faults
	marks := map[string]int{}
	d := &strictyaml.Decoder{Faults: &faults, Mark: func(path string, line int) { marks[path] = line }}
	d.Value(doc.Content[0], doc.Content[0].Line, reflect.ValueOf(&v).Elem(), "")
	if err := faults.Err(); err != nil {
		return v, err.Error(), marks
	}
	return v, "", marks
}

func TestAbsentIsNotEmpty(t *testing.T) {
	t.Parallel()
	v, faults, marks := decode(t, "name: a\nwait:\nlist: []\nlabels: {x: y}\ninner:\n  port: 8\n")
	if faults != "" {
		t.Fatal(faults)
	}
	if v.Wait != nil || v.List == nil || len(*v.List) != 0 || v.Inner == nil || v.Inner.Port != 8 || v.Labels["x"] != "y" {
		t.Errorf("%+v", v)
	}
	if marks["inner.port"] != 6 || marks["wait"] != 0 || marks["list"] != 3 {
		t.Errorf("%v", marks)
	}
}

func TestEveryFaultNamesItsLine(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"naem: a\nname: [x]\nname: b":    "line 1: naem: unknown key; did you mean name?\nline 2: name: expected a string, found a list; write a string\nline 3: name: given twice, first on line 2; keep one",
		"inner: 3":                       "line 1: inner: expected keys and values, found a whole number; write one of: port, ratio",
		"list: [{port: x}, {ratio: .5}]": "line 1: list[0].port: expected a whole number, found a string; write a whole number without a unit",
		"wait: 5":                        `line 1: wait: "5" is not a duration; write a number with its unit, like 500ms, 30s or 2m`,
		"<<: {name: a}\nenabled: yes":    "line 1: merge keys (<<) are not read; write the keys out\nline 2: enabled: expected true or false, found a string; write true or false",
		"labels: [a]\n? [x]\n: y":        "line 1: labels: expected keys and values, found a list; write {name: value}\nline 2: expected a key, found a list; write a name",
	} {
		if _, got, _ := decode(t, text); got != want {
			t.Errorf("%q:\n%s\nwant\n%s", text, got, want)
		}
	}
}

func TestClosest(t *testing.T) {
	t.Parallel()
	known := []string{"timeout", "targets", "name"}
	for name, want := range map[string]string{"timeuot": "timeout", "Target": "targets", "nam": "name", "colour": "", "": ""} {
		if got := strictyaml.Closest(name, known); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}
