package jsondiff_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/execgate/execgate/internal/jsondiff"
)

func TestDiff(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ before, after, want string }{
		"the same":                      {`{"a":[1,{"b":null}]}`, ` {"a": [1, {"b": null}]} `, ""},
		"order of keys":                 {`{"a":1,"b":2}`, `{"b":2,"a":1}`, ""},
		"a value":                       {`{"a":{"b":"x"}}`, `{"a":{"b":"y"}}`, `a.b replace "x" "y"`},
		"a key more and less":           {`{"a":1}`, `{"b":{"c":2}}`, `a remove 1  ; b add  {"c":2}`},
		"another type":                  {`{"a":{"b":1}}`, `{"a":[1]}`, `a replace {"b":1} [1]`},
		"a scalar for an object":        {`{"a":"x"}`, `{"a":{}}`, `a replace "x" {}`},
		"null is a value":               {`{"a":null}`, `{}`, `a remove null `},
		"lists by position":             {`{"l":[1,2,3]}`, `{"l":[1,3]}`, `l[1] replace 2 3 ; l[2] remove 3 `},
		"a longer list":                 {`{"l":[{"k":1}]}`, `{"l":[{"k":2},{}]}`, `l[0].k replace 1 2 ; l[1] add  {}`},
		"keys that are no plain words":  {`{"m":{"a.b":1,"":1}}`, `{"m":{"a.b":2}}`, `m[""] remove 1  ; m["a.b"] replace 1 2`},
		"the document itself":           {`1`, `"1"`, ` replace 1 "1"`},
		"large numbers are not rounded": {`{"n":9007199254740993}`, `{"n":9007199254740992}`, `n replace 9007199254740993 9007199254740992`},
		"no HTML escapes":               {`{"a":"<"}`, `{"a":"&"}`, `a replace "<" "&"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			changes, more, err := jsondiff.Diff([]byte(c.before), []byte(c.after), 0)
			if err != nil || more {
				t.Fatal(err, more)
			}
			var got []string
			for _, c := range changes {
				got = append(got, fmt.Sprintf("%s %s %s %s", c.Path, c.Op, c.Before, c.After))
			}
			if s := strings.Join(got, " ; "); s != c.want {
				t.Errorf("got  %s\nwant %s", s, c.want)
			}
		})
	}
}

func TestDiffIsBounded(t *testing.T) {
	t.Parallel()
	changes, more, err := jsondiff.Diff([]byte(`{"a":1,"b":1,"c":1}`), []byte(`{}`), 2)
	if err != nil || !more || len(changes) != 2 {
		t.Errorf("%v %v %v", changes, more, err)
	}
	if changes, more, _ := jsondiff.Diff([]byte(`{"a":1,"b":1}`), []byte(`{}`), 2); more || len(changes) != 2 {
		t.Errorf("exactly as many as allowed: %v %v", changes, more)
	}
}

func TestDiffOfWhatIsNoJSON(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{``, `{`, `{} {}`, `secret`} {
		_, _, err := jsondiff.Diff([]byte(`{}`), []byte(bad), 0)
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
