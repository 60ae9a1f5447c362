package schema_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/execgate/execgate/schema"
)

// call is an HTTP call in one line: "METHOD path?query body".
type call struct{ method, path, query, body string }

func parseCall(s string) call {
	method, rest, _ := strings.Cut(s, " ")
	target, body, _ := strings.Cut(rest, " ")
	path, query, _ := strings.Cut(target, "?")
	return call{method, path, query, body}
}

func (c call) String() string {
	s := c.method + " " + c.path
	if c.query != "" {
		s += "?" + c.query
	}
	if c.body != "" {
		s += " " + c.body
	}
	return s
}

func decodeCall(tb testing.TB, s *schema.Schema, c call) (*schema.RESTRequest, error) {
	tb.Helper()
	m, ok := s.Route(c.method, c.path)
	if !ok {
		tb.Fatalf("no route for %s %s", c.method, c.path)
	}
	return m.DecodeRequest(c.query, []byte(c.body))
}

func encodeCall(tb testing.TB, method string, r *schema.RESTRequest) string {
	tb.Helper()
	path, query, body, err := r.Encode()
	if err != nil {
		tb.Fatal(err)
	}
	return call{method, path, query, string(body)}.String()
}

func TestDecodeRequest(t *testing.T) {
	t.Parallel()
	s := kitchen(t)
	const get = "GET /kitchen/v1/things/"
	for _, c := range []struct{ name, call, want string }{
		{"path variable", get + "5", `{"id":"5"}`},
		{"empty path variable", get, `{}`},
		{"encoded path variable", get + "a%2Fb%20c%3F%25+d", `{"id":"a/b c?%+d"}`},
		{"several segments", "GET /kitchen/v1/rooms/a%2Fb/shelves/c%20d/things/e%2Ff", `{"id":"e/f","parentName":"rooms/a%2Fb/shelves/c d"}`},
		{"any number of segments", "GET /kitchen/v1/files/a/b%2Fc/d", `{"parentName":"a/b%2Fc/d"}`},
		{"no segment", "GET /kitchen/v1/files", `{}`},
		{"verb", "POST /kitchen/v1/things/5:cancel {}", `{"id":"5"}`},
		{"nested path variables", "HEAD /kitchen/v1/things/x/7", `{"filter":{"name":"x","size":"7"}}`},
		{"query", get + "5?parent_name=a+b%26", `{"id":"5","parentName":"a b&"}`},
		{"query in lowerCamel", get + "5?parentName=x&pageSize=10", `{"id":"5","parentName":"x","pageSize":"10"}`},
		{"nested query", get + "5?filter.name=n&filter.child.size=3&filter.note=", `{"id":"5","filter":{"name":"n","child":{"size":"3"},"note":""}}`},
		{"repeated query", get + "5?tags=a&tags=b&tags=a&filter.tags=x", `{"id":"5","filter":{"tags":["x"]},"tags":["a","b","a"]}`},
		{"enums by name and number", get + "5?colors=COLOR_RED&colors=2&colors=7", `{"id":"5","colors":["COLOR_RED","COLOR_BLUE",7]}`},
		{"booleans", get + "5?deep=1", `{"id":"5","deep":true}`},
		{"presence", get + "5?deep=false&page_size=0", `{"id":"5","deep":false}`},
		{"bytes", get + "5?token=_-8", `{"id":"5","token":"/+8="}`},
		{"bytes, standard", get + "5?token=%2F%2B8%3D", `{"id":"5","token":"/+8="}`},
		{"timestamp", get + "5?since=2026-01-02T03:04:05.5%2B01:00", `{"id":"5","since":"2026-01-02T02:04:05.500Z"}`},
		{"duration", get + "5?max_age=1.5s", `{"id":"5","maxAge":"1.500s"}`},
		{"duration as Go writes it", get + "5?max_age=1h", `{"id":"5","maxAge":"3600s"}`},
		{"field mask", get + "5?mask=a,b.c_d", `{"id":"5","mask":"a,b.cD"}`},
		{"field mask in lowerCamel", get + "5?mask=cD", `{"id":"5","mask":"cD"}`},
		{"wrapper", get + "5?label=", `{"id":"5","label":""}`},
		{"map", get + "5?labels[a]=1&labels[b]=2", `{"id":"5","labels":{"a":"1","b":"2"}}`},
		{"map, encoded brackets", get + "5?labels%5Ba.b%5D=1", `{"id":"5","labels":{"a.b":"1"}}`},
		{"oneof", get + "5?by_sub.name=x", `{"id":"5","bySub":{"name":"x"}}`},
		{"double", get + "5?ratio=1e3", `{"id":"5","ratio":1000}`},
		{"struct", get + "5?free=%7B%22a%22:1%7D", `{"id":"5","free":{"a":1}}`},
		{"unknown parameters", get + "5?utm_source=x&filter.nope=1&tags.x=1&id.x=2&labels.a=1", `{"id":"5"}`},
		{"the path wins over the query", get + "5?id=6", `{"id":"5"}`},
		{"empty pairs", get + "5?&&tags=a&", `{"id":"5","tags":["a"]}`},
		{"no value", get + "5?tags", `{"id":"5","tags":[""]}`},
		{"a body that the rule does not have", get + `5 {"id":"6","nope":}`, `{"id":"5"}`},
		{"whole body", `POST /kitchen/v1/things/search {"id":"5","page_size":"7","filter":{"name":"x"}}`, `{"id":"5","filter":{"name":"x"},"pageSize":"7"}`},
		{"the query does not count beside a whole body", `POST /kitchen/v1/things/search?id=9&page_size=x {"id":"5"}`, `{"id":"5"}`},
		{"the path wins over the body", `PUT /kitchen/v1/things/5 {"id":"6","pageSize":1}`, `{"id":"5","pageSize":"1"}`},
		{"unknown keys of the body", `POST /kitchen/v1/things/search {"nope":1,"id":"5","filter":{"nope":[{}]}}`, `{"id":"5","filter":{}}`},
		{"no body", `POST /kitchen/v1/things/search`, `{}`},
		{"what follows the body", `POST /kitchen/v1/things/search {"id":"5"} {"id":"6"} x`, `{"id":"5"}`},
		{"a field as the body", `PATCH /kitchen/v1/things/5?page_size=7 {"text":"x","nope":1}`, `{"id":"5","pageSize":"7","body":{"text":"x"}}`},
		{"a field as the body, null", `PATCH /kitchen/v1/things/5 null`, `{"id":"5"}`},
		{"a field as the body, empty", `PATCH /kitchen/v1/things/5`, `{"id":"5"}`},
		{"the body wins over the query", `PATCH /kitchen/v1/things/5?body.text=y {"text":"x"}`, `{"id":"5","body":{"text":"x"}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			in := parseCall(c.call)
			r, err := decodeCall(t, s, in)
			if err != nil {
				t.Fatal(errors.Unwrap(err))
			}
			if got := jsonOf(t, r); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if err := r.Replace([]byte(" " + jsonOf(t, r))); err != nil || r.Changed() {
				t.Errorf("an echo: changed %v, error %v", r.Changed(), err)
			}
			if got := encodeCall(t, in.method, r); got != in.String() {
				t.Errorf("unchanged, but sent as %s", got)
			}
		})
	}
}

func TestRequestsThatDoNotDecode(t *testing.T) {
	t.Parallel()
	s := kitchen(t)
	for _, c := range []string{
		"GET /kitchen/v1/things/5?page_size=x",
		"GET /kitchen/v1/things/5?page_size=1&page_size=2",
		"GET /kitchen/v1/things/5?page_size=1&pageSize=1",
		"GET /kitchen/v1/things/5?colors=COLOR_NONE",
		"GET /kitchen/v1/things/5?deep=yes",
		"GET /kitchen/v1/things/5?token=!",
		"GET /kitchen/v1/things/5?since=yesterday",
		"GET /kitchen/v1/things/5?max_age=long",
		"GET /kitchen/v1/things/5?filter=x",
		"GET /kitchen/v1/things/5?labels=x",
		"GET /kitchen/v1/things/5?tags[a]=x",
		"GET /kitchen/v1/things/5?by_name=x&by_sub.name=y",
		"GET /kitchen/v1/things/5?subs.name=y&subs=x",
		"GET /kitchen/v1/things/5?tags=%zz",
		"GET /kitchen/v1/things/5?tags=a;b",
		"GET /kitchen/v1/things/5?tags=%ff",
		"GET /kitchen/v1/things/%ff",
		"HEAD /kitchen/v1/things/x/seven",
		"POST /kitchen/v1/things/search {",
		"POST /kitchen/v1/things/search []",
		"POST /kitchen/v1/things/search null",
		`POST /kitchen/v1/things/search {"id":5}`,
		`POST /kitchen/v1/things/search {"id":"a","id":"b"}`,
		`PATCH /kitchen/v1/things/5 [1]`,
	} {
		r, err := decodeCall(t, s, parseCall(c))
		de := (*schema.DecodeError)(nil)
		if err == nil {
			t.Errorf("%s decodes: %s", c, jsonOf(t, r))
		} else if !errors.As(err, &de) || de.Type != "kitchen.v1.GetRequest" {
			t.Errorf("%s: %v", c, err)
		}
	}
}

func TestEncodeRequestChangesOnlyWhatChanged(t *testing.T) {
	t.Parallel()
	s := kitchen(t)
	for _, c := range []struct{ name, call, json, want string }{
		{"path variable", "GET /kitchen/v1/things/5?x=1", `{"id":"a/b c?"}`, "GET /kitchen/v1/things/a%2Fb%20c%3F?x=1"},
		{"one of two path variables", "GET /kitchen/v1/rooms/%61/shelves/b/things/c", `{"id":"d","parentName":"rooms/a/shelves/b"}`, "GET /kitchen/v1/rooms/%61/shelves/b/things/d"},
		{"several segments", "GET /kitchen/v1/rooms/a/shelves/b/things/%63", `{"id":"c","parentName":"rooms/x y/shelves/z"}`, "GET /kitchen/v1/rooms/x%20y/shelves/z/things/%63"},
		{"any number of segments", "GET /kitchen/v1/files/a", `{"parentName":"x/y/z w"}`, "GET /kitchen/v1/files/x/y/z%20w"},
		{"none of them", "GET /kitchen/v1/files/a?q=1", `{}`, "GET /kitchen/v1/files/?q=1"},
		{"verb", `POST /kitchen/v1/things/5:cancel {"id":"x"}`, `{"id":"6"}`, `POST /kitchen/v1/things/6:cancel {"id":"x"}`},
		{"nested path variables", "HEAD /kitchen/v1/things/x/7", `{"filter":{"name":"y","size":"7"}}`, "HEAD /kitchen/v1/things/y/7"},
		{"dots", "GET /kitchen/v1/things/5", `{"id":".."}`, "GET /kitchen/v1/things/%2E%2E"},

		{"query: changed in its place", "GET /kitchen/v1/things/5?a=1&page_size=7&b=%61", `{"id":"5","pageSize":"8"}`, "GET /kitchen/v1/things/5?a=1&page_size=8&b=%61"},
		{"query: style of names", "GET /kitchen/v1/things/5?page_size=7", `{"id":"5","pageSize":"7","parentName":"x y"}`, "GET /kitchen/v1/things/5?page_size=7&parent_name=x+y"},
		{"query: lowerCamel by default", "GET /kitchen/v1/things/5", `{"id":"5","parentName":"x"}`, "GET /kitchen/v1/things/5?parentName=x"},
		{"query: cleared", "GET /kitchen/v1/things/5?a=1&page_size=7&tags=x", `{"id":"5"}`, "GET /kitchen/v1/things/5?a=1"},
		{"query: list", "GET /kitchen/v1/things/5?tags=a&x=1&tags=b", `{"id":"5","tags":["a","c","d"]}`, "GET /kitchen/v1/things/5?tags=a&tags=c&tags=d&x=1"},
		{"query: unchanged spelling", "GET /kitchen/v1/things/5?since=2026-01-02T03:04:05%2B01:00&colors=1&token=_-8&deep=t&mask=aB", `{"id":"6","since":"2026-01-02T02:04:05Z","colors":["COLOR_RED"],"token":"/+8=","deep":true,"mask":"aB"}`, "GET /kitchen/v1/things/6?since=2026-01-02T03:04:05%2B01:00&colors=1&token=_-8&deep=t&mask=aB"},
		{"query: defaults stay", "GET /kitchen/v1/things/5?page_size=0&filter.name=", `{"id":"6","filter":{}}`, "GET /kitchen/v1/things/6?page_size=0&filter.name="},
		{"query: new values", "GET /kitchen/v1/things/5", `{"id":"5","since":"2026-01-02T03:04:05Z","maxAge":"1.5s","mask":"a,bC","label":"l","labels":{"b":"2","a":"1"},"token":"/+8=","deep":false,"colors":[2],"ratio":0.5,"free":{"a":1}}`, "GET /kitchen/v1/things/5?colors=COLOR_BLUE&deep=false&token=_-8%3D&since=2026-01-02T03%3A04%3A05Z&maxAge=1.500s&mask=a%2Cb_c&label=l&labels%5Ba%5D=1&labels%5Bb%5D=2&ratio=0.5&free=%7B%22a%22%3A1%7D"},
		{"query: oneof", "GET /kitchen/v1/things/5?by_name=x", `{"id":"5","bySub":{"name":"y"}}`, "GET /kitchen/v1/things/5?by_sub.name=y"},
		{"query: a message that is present and empty", "GET /kitchen/v1/things/5", `{"id":"5","filter":{}}`, "GET /kitchen/v1/things/5?filter.name="},
		{"query: nested", "GET /kitchen/v1/things/5?filter.child.name=a&filter.size=1", `{"id":"5","filter":{"size":"1","child":{"name":"b","tags":["t"]}}}`, "GET /kitchen/v1/things/5?filter.child.name=b&filter.size=1&filter.child.tags=t"},
		{"query beside a body", `PATCH /kitchen/v1/things/5?page_size=7 {"text":"x"}`, `{"id":"5","pageSize":"8","body":{"text":"x"}}`, `PATCH /kitchen/v1/things/5?page_size=8 {"text":"x"}`},

		{"body: keys that nobody knows", `POST /kitchen/v1/things/search {"nope":{"a":[1]},"id":"5","filter":{"x":1,"name":"n"}}`, `{"id":"6","filter":{"name":"m"}}`, `POST /kitchen/v1/things/search {"nope":{"a":[1]},"id":"6","filter":{"x":1,"name":"m"}}`},
		{"body: the path's field stays as it was", `PUT /kitchen/v1/things/5 {"id":"six","pageSize":1}`, `{"id":"5","pageSize":"2"}`, `PUT /kitchen/v1/things/5 {"id":"six","pageSize":2}`},
		{"body: the path's field is not added", `PUT /kitchen/v1/things/5 {"pageSize":1}`, `{"id":"6","pageSize":"1"}`, `PUT /kitchen/v1/things/6 {"pageSize":1}`},
		{"body: from nothing", `POST /kitchen/v1/things/search`, `{"id":"6"}`, `POST /kitchen/v1/things/search {"id":"6"}`},
		{"body: emptied", `POST /kitchen/v1/things/search {"id":"6"}`, `{}`, `POST /kitchen/v1/things/search {}`},
		{"a field as the body", `PATCH /kitchen/v1/things/5 {"nope":1,"text":"x"}`, `{"id":"5","body":{"text":"y"}}`, `PATCH /kitchen/v1/things/5 {"nope":1,"text":"y"}`},
		{"a field as the body, from nothing", `PATCH /kitchen/v1/things/5`, `{"id":"5","body":{"text":"y"}}`, `PATCH /kitchen/v1/things/5 {"text":"y"}`},
		{"a field as the body, cleared", `PATCH /kitchen/v1/things/5 {"text":"x"}`, `{"id":"5"}`, `PATCH /kitchen/v1/things/5`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			in := parseCall(c.call)
			r, err := decodeCall(t, s, in)
			if err != nil {
				t.Fatal(errors.Unwrap(err))
			}
			if err := r.Replace([]byte(c.json)); err != nil {
				t.Fatal(err)
			}
			got := encodeCall(t, in.method, r)
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			again, err := decodeCall(t, s, parseCall(got))
			if err != nil {
				t.Fatal(errors.Unwrap(err))
			}
			if a, b := jsonOf(t, again), jsonOf(t, r); a != b {
				t.Errorf("reads as %s, not %s", a, b)
			}
		})
	}
}

func TestWhatHasNoPlaceInTheCallIsRefused(t *testing.T) {
	t.Parallel()
	s := kitchen(t)
	for _, c := range []struct{ name, call, json string }{
		{"an empty path variable", "GET /kitchen/v1/things/5", `{}`},
		{"too few segments", "GET /kitchen/v1/rooms/a/shelves/b/things/c", `{"id":"c","parentName":"rooms/a"}`},
		{"another fixed segment", "GET /kitchen/v1/rooms/a/shelves/b/things/c", `{"id":"c","parentName":"rooms/a/racks/b"}`},
		{"an empty segment", "GET /kitchen/v1/rooms/a/shelves/b/things/c", `{"id":"c","parentName":"rooms//shelves/b"}`},
		{"a list of messages in the query", "GET /kitchen/v1/things/5", `{"id":"5","subs":[{"name":"x"}]}`},
		{"a map key with brackets", "GET /kitchen/v1/things/5", `{"id":"5","labels":{"a]":"x"}}`},
		{"an Any in the query", "GET /kitchen/v1/things/5", `{"id":"5","body":{"packed":{"@type":"x/kitchen.v1.Sub"}}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			in := parseCall(c.call)
			r, err := decodeCall(t, s, in)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Replace([]byte(c.json)); err == nil {
				t.Fatalf("taken, and sent as %s", encodeCall(t, in.method, r))
			}
			if r.Changed() || encodeCall(t, in.method, r) != in.String() {
				t.Error("changed by a refused replacement")
			}
		})
	}
	// A value must not turn one call into another.
	two := routesOf(t, "Get: GET /v1/users/{a}\nLock: GET /v1/users/{a}/lock\nMe: GET /v1/users/me\nRaw: GET /v1/users/{a}:raw")
	for _, value := range []string{"me", "5/lock", "5:raw"} {
		r, err := decodeCall(t, two, parseCall("GET /v1/users/5"))
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Replace([]byte(`{"a":"` + value + `"}`)); err == nil {
			t.Errorf("%s is taken, and sent as %s", value, encodeCall(t, "GET", r))
		}
	}
}

func TestResponses(t *testing.T) {
	t.Parallel()
	s := kitchen(t)
	const get, search = "GET /kitchen/v1/things/5", "POST /kitchen/v1/things/search"
	for _, c := range []struct{ name, call, body, json, replace, want string }{
		{"whole", get, `{"text":"x","i64":"5"}`, `{"text":"x","i64":"5"}`, `{"text":"y","i64":"5"}`, `{"text":"y","i64":"5"}`},
		{"a field", search, `[{"name":"a","x":1}, {"name":"b"}]`, `{"items":[{"name":"a"},{"name":"b"}]}`, `{"items":[{"name":"c"},{"name":"b"}]}`, `[{"name":"c","x":1},{"name":"b"}]`},
		{"a field, longer", search, `[{"name":"a","x":1}]`, `{"items":[{"name":"a"}]}`, `{"items":[{"name":"a"},{}]}`, `[{"name":"a"},{}]`},
		{"a field, cleared", search, `[{"name":"a"}]`, `{"items":[{"name":"a"}]}`, `{}`, `[]`},
		{"a field, from nothing", search, `[]`, `{}`, `{"items":[{"name":"a"}]}`, `[{"name":"a"}]`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			in := parseCall(c.call)
			m, ok := s.Route(in.method, in.path)
			if !ok {
				t.Fatal("no route")
			}
			r, err := m.DecodeResponse([]byte(c.body))
			if err != nil {
				t.Fatal(errors.Unwrap(err))
			}
			if got := jsonOf(t, r); got != c.json {
				t.Errorf("reads as %s", got)
			}
			if got, err := r.Encode(); err != nil || string(got) != c.body {
				t.Errorf("unchanged, but sent as %s, error %v", got, err)
			}
			if err := r.Replace([]byte(c.replace)); err != nil {
				t.Fatal(err)
			}
			if got, err := r.Encode(); err != nil || string(got) != c.want {
				t.Errorf("got %s, want %s, error %v", got, c.want, err)
			}
		})
	}
	m, _ := s.Route("POST", "/kitchen/v1/things/search")
	r, err := m.DecodeResponse([]byte(`[]`))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Replace([]byte(`{"nextPage":"x"}`)); err == nil || r.Changed() {
		t.Error("a field that is not in the body is taken")
	}
	for _, body := range []string{``, `{}`, `{"items":[]}`, `[1]`} {
		if _, err := m.DecodeResponse([]byte(body)); err == nil {
			t.Errorf("%q decodes", body)
		}
	}
}

func FuzzRESTRoundTrip(f *testing.F) {
	s := kitchen(f)
	for _, seed := range []struct{ call, json string }{
		{"GET /kitchen/v1/things/5?tags=a&filter.name=x&labels[a]=1", `{"id":"6","tags":["b"],"filter":{"child":{}}}`},
		{"GET /kitchen/v1/rooms/a%2Fb/shelves/c/things/e?since=2026-01-02T03:04:05Z", `{"id":"a/b","parentName":"rooms/%2F/shelves/x"}`},
		{"GET /kitchen/v1/files/a/b?mask=aB&colors=1&page_size=0", `{"parentName":"x/y","deep":true,"token":"AA==","maxAge":"1.5s","label":""}`},
		{`POST /kitchen/v1/things/search {"id":"5","nope":[1,{"a":"\u00e9"}],"page_size":7,"filter":{"x":1}}`, `{"id":"6","filter":{"name":"y"}}`},
		{`PATCH /kitchen/v1/things/5?tags=x {"text":"x","i64":5,"favourite_color":1,"sub_list":[{"x":1}]}`, `{"id":"5","body":{"i64":"6","favouriteColor":"COLOR_BLUE","subList":[{"name":"y"}]}}`},
		{`PUT /kitchen/v1/things/5 {"body":{"packed":{"@type":"x/kitchen.v1.Sub","name":"n","z":1},"freeForm":{"a":{"b":1}}}}`, `{"id":"7","body":{"packed":{"@type":"x/kitchen.v1.Sub","name":"m"},"freeForm":{"a":{"b":2}}}}`},
		{`POST /kitchen/v1/everything/x {"subMap":{"k":{"name":"a"}},"numberMap":{"01":"x"},"anyValue":[1,{"a":null}]}`, `{"text":"y","subMap":{"k":{"name":"b"},"l":{}},"anyValue":[1,{"a":2}]}`},
		{"HEAD /kitchen/v1/things/x/7", `{"filter":{"name":"y:z","size":"-1"}}`},
	} {
		c := parseCall(seed.call)
		f.Add(c.method, c.path, c.query, []byte(c.body), []byte(seed.json))
	}
	f.Fuzz(func(t *testing.T, method, path, query string, body, json []byte) {
		m, ok := s.Route(method, path)
		if !ok {
			return
		}
		r, err := m.DecodeRequest(query, bytes.Clone(body))
		if err != nil {
			return
		}
		before, err := r.JSON()
		if err != nil {
			return
		}
		// Unchanged: the very call.
		if err := r.Replace(append([]byte(" "), before...)); err != nil {
			t.Fatalf("own JSON refused: %v\n%s", err, before)
		}
		p, q, b, err := r.Encode()
		if err != nil || p != path || q != query || !bytes.Equal(b, body) || r.Changed() {
			t.Fatalf("an echo changes the call: %v %q %q %q", err, p, q, b)
		}
		// Changed: a call that reads as the change.
		if r.Replace(json) != nil {
			return
		}
		after, err := r.JSON()
		if err != nil {
			t.Fatal(err)
		}
		if p, q, b, err = r.Encode(); err != nil {
			t.Fatal(err)
		}
		again, ok := s.Route(method, p)
		if !ok || again.Method() != m.Method() || again.Pattern() != m.Pattern() {
			t.Fatalf("%q leads elsewhere", p)
		}
		r2, err := again.DecodeRequest(q, b)
		if err != nil {
			t.Fatalf("the changed call does not decode: %v: %q %q %q", errors.Unwrap(err), p, q, b)
		}
		got, err := r2.JSON()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, after) {
			t.Fatalf("the changed call reads as\n%s\nnot\n%s\nin %q %q %s", got, after, p, q, b)
		}
	})
}

func TestHTTPBodyIsSentAsItIs(t *testing.T) {
	t.Parallel()
	s, err := schema.FromDescriptorSet(compile(t, map[string]string{
		"google/api/httpbody.proto": `syntax="proto3"; package google.api; import "google/protobuf/any.proto";
			message HttpBody { string content_type = 1; bytes data = 2; repeated google.protobuf.Any extensions = 3; }`,
		"t.proto": `syntax="proto3"; package t; import "google/api/httpbody.proto"; import "google/api/annotations.proto";
			message M { string id = 1; google.api.HttpBody file = 2; }
			service S {
				rpc Put(M) returns (M) { option (google.api.http) = {put: "/files/{id}" body: "file" response_body: "file"}; }
				rpc Echo(google.api.HttpBody) returns (google.api.HttpBody) { option (google.api.http) = {post: "/echo" body: "*"}; }
			}`,
	}))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ call, json, replace, want, refused string }{
		{"POST /echo <a>", `{"data":"PGE+"}`, `{"data":"PGI+"}`, "POST /echo <b>", `{"contentType":"text/html","data":"PGE+"}`},
		{"PUT /files/5 <a>", `{"id":"5","file":{"data":"PGE+"}}`, `{"id":"6","file":{"data":"PGI+"}}`, "PUT /files/6 <b>", `{"id":"5","file":{"contentType":"x"}}`},
	} {
		in := parseCall(c.call)
		r, err := decodeCall(t, s, in)
		if err != nil {
			t.Fatal(errors.Unwrap(err))
		}
		if got := jsonOf(t, r); got != c.json {
			t.Errorf("%s reads as %s", c.call, got)
		}
		if err := r.Replace([]byte(c.refused)); err == nil {
			t.Errorf("%s: %s is taken", c.call, c.refused)
		}
		if err := r.Replace([]byte(c.replace)); err != nil {
			t.Fatal(err)
		}
		if got := encodeCall(t, in.method, r); got != c.want {
			t.Errorf("%s: sent as %s", c.call, got)
		}
		m, _ := s.Route(in.method, in.path)
		resp, err := m.DecodeResponse([]byte("<a>"))
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Replace([]byte(strings.Replace(jsonOf(t, resp), "PGE+", "PGI+", 1))); err != nil {
			t.Fatal(err)
		}
		if got, err := resp.Encode(); err != nil || string(got) != "<b>" {
			t.Errorf("%s answers %s, error %v", c.call, got, err)
		}
	}
}
