package schema_test

import (
	"strings"
	"testing"

	"github.com/execgate/execgate/schema"
)

// routesOf makes a schema with one method per rule: "Name: METHOD /template".
func routesOf(tb testing.TB, rules string, options ...schema.Option) *schema.Schema {
	tb.Helper()
	var b strings.Builder
	b.WriteString("message M { string a = 1; string b = 2; M m = 3; int32 n = 4; repeated string many = 5; map<string,string> labels = 6; }\nservice S {\n")
	for _, line := range strings.Split(strings.TrimSpace(rules), "\n") {
		name, rule, _ := strings.Cut(strings.TrimSpace(line), ": ")
		method, template, _ := strings.Cut(rule, " ")
		pattern := strings.ToLower(method) + `: "` + template + `"`
		switch method {
		case "GET", "PUT", "POST", "DELETE", "PATCH":
		default:
			pattern = `custom: {kind: "` + method + `" path: "` + template + `"}`
		}
		b.WriteString("rpc " + name + "(M) returns (M) { option (google.api.http) = {" + pattern + "}; }\n")
	}
	b.WriteString("}\n")
	return inline(tb, b.String(), options...)
}

func TestRoute(t *testing.T) {
	t.Parallel()
	s := routesOf(t, `
		List: GET /v1/users
		Create: POST /v1/users
		Human: POST /v1/users/human
		Get: GET /v1/users/{a}
		Me: GET /v1/users/me
		Put: PUT /v1/users/human/{a}
		Lock: POST /v1/users/{a}/lock
		Verb: POST /v1/users/{a}:lock
		VerbOnList: POST /v1/users:search
		VerbOnAll: POST /v1/users/human:import
		Nested: GET /v1/{a=orgs/*/projects/*}
		NestedFixed: GET /v1/orgs/{a}/projects/all
		Deep: GET /v1/files/{a=**}
		DeepVerb: GET /v1/files/{a=**}:raw
		DeepFixed: GET /v1/files/readme
		DeepPrefix: GET /v1/{a=trees/**}
		DeepTail: GET /v1/deep/**/tail
		DeepTails: GET /v1/deep/{a=**}/tail/{b}
		Star: GET /v1/star/*
		Two: GET /v1/{a}/x/{b}
		Root: GET /
		Custom: HEAD /v1/users/{a}
		Any: * /v1/any/{a}
		AnyGet: GET /v1/any/{a}
		Escaped: GET /v1/caf%C3%A9/{a}
		Colon: GET /v1/a:b/{a}
		Sub: GET /v1/sub/{m.a}/{m.m.b}
		Json: GET /v1/list/{many}
	`)
	for _, c := range []struct{ method, path, want string }{
		{"GET", "/v1/users", "List"},
		{"POST", "/v1/users", "Create"},
		{"PUT", "/v1/users", ""},
		{"get", "/v1/users", ""},
		{"GET", "/v1/users/5", "Get"},
		{"GET", "/v1/users/me", "Me"},
		{"GET", "/v1/users/m", "Get"},
		{"GET", "/v1/users/", "Get"},  // servers take the empty segment too
		{"GET", "/v1/users//", "Get"}, // some servers clean first
		{"GET", "//v1//users/5", "Get"},
		{"GET", "/v1/x/../users/./5", "Get"},
		{"GET", "/v1/x/%2E%2E/users/5", "Get"},
		{"GET", "/v1/users/..", "Get"}, // as it was sent
		{"GET", "/v1/users/5/", ""},
		{"GET", "/v1/users/5/6", ""},
		{"GET", "/v1//5", ""},
		{"GET", "v1/users/5", ""},
		{"GET", "", ""},
		{"GET", "/", "Root"},
		{"GET", "//", "Root"},
		{"GET", "/v1", ""},
		{"POST", "/v1/users/human", "Human"},
		{"PUT", "/v1/users/human/5", "Put"},
		{"POST", "/v1/users/5/lock", "Lock"},
		{"POST", "/v1/users/human/lock", "Lock"}, // back out of the fixed segment
		{"POST", "/v1/users/5:lock", "Verb"},
		{"POST", "/v1/users/5:6:lock", "Verb"},
		{"POST", "/v1/users/5:other", ""},
		{"GET", "/v1/users/5:lock", "Get"}, // the colon is a part of the value
		{"POST", "/v1/users:search", "VerbOnList"},
		{"POST", "/v1/users:", ""},
		{"POST", "/v1/users/:lock", ""},
		{"POST", "/v1/users/human:import", "VerbOnAll"},
		{"POST", "/v1/users/human:lock", "Verb"},
		{"GET", "/v1/orgs/1/projects/2", "Nested"},
		{"GET", "/v1/orgs/1/projects/all", "NestedFixed"},
		{"GET", "/v1/orgs/1/projects", ""},
		{"GET", "/v1/files/a/b/c", "Deep"},
		{"GET", "/v1/files/a", "Deep"},
		{"GET", "/v1/files/", "Deep"},
		{"GET", "/v1/files", "Deep"},
		{"GET", "/v1/files/a/b:raw", "DeepVerb"},
		{"GET", "/v1/files/a:raw/b", "Deep"},
		{"GET", "/v1/files/readme", "DeepFixed"},
		{"GET", "/v1/trees/a/b", "DeepPrefix"},
		{"GET", "/v1/deep/a/b/tail", "DeepTail"},
		{"GET", "/v1/deep/tail", "DeepTail"},
		{"GET", "/v1/deep/tail/tail", "DeepTails"},
		{"GET", "/v1/deep/a/tail/b", "DeepTails"},
		{"GET", "/v1/deep/a/b", ""},
		{"GET", "/v1/star/5", "Star"},
		{"GET", "/v1/anything/x/5", "Two"},
		{"GET", "/v1/users/x/5", "Two"},
		{"HEAD", "/v1/users/5", "Custom"},
		{"LIST", "/v1/any/5", "Any"},
		{"GET", "/v1/any/5", "AnyGet"},
		{"GET", "/v1/caf%C3%A9/5", "Escaped"},
		{"GET", "/v1/caf%c3%a9/5", "Escaped"},
		{"GET", "/v1/café/5", "Escaped"},
		{"GET", "/v1/cafe/5", ""},
		{"GET", "/v1/%75sers/5", "Get"},
		{"GET", "/v1/users/a%2Fb", "Get"},
		{"GET", "/v1%2Fusers", "List"}, // some servers decode first
		{"POST", "/v1/users%2Fhuman", "Human"},
		{"POST", "/v1/users/5%3Alock", "Verb"},
		{"GET", "/v1/users/%", ""},
		{"GET", "/v1/users/%zz", ""},
		{"GET", "/v1/a:b/5", "Colon"},
		{"GET", "/v1/sub/1/2", "Sub"},
		{"GET", "/v1/list/1,2", "Json"},
		{"GET", "/oauth/v2/authorize", ""},
	} {
		m, ok := s.Route(c.method, c.path)
		got := ""
		if ok {
			got = strings.TrimPrefix(m.Method().FullMethod, "/t.S/")
		}
		if got != c.want {
			t.Errorf("%s %s: %q, want %q", c.method, c.path, got, c.want)
		}
	}
	if len(s.Problems()) > 0 {
		t.Errorf("problems: %q", s.Problems())
	}
}

func TestAPathThatServersReadDifferentlyIsAmbiguous(t *testing.T) {
	t.Parallel()
	s := routesOf(t, `
		Get: GET /v1/users/{a}
		Human: GET /v1/users/human/{a}
		Lock: GET /v1/users/{a}/lock
		Verb: GET /v1/users/{a}:raw
		Odd: GET /v1/odd/{a}/tail
		Tail: GET /v1/odd/tail
	`)
	for path, want := range map[string]bool{
		"/v1/users/5": false, "/v1/users/a%20b": false, "/v1/users/a%2Fb": false, "/v1/users/a%252Flock": false,
		"/v1/users/human%2F5": true, "/v1/users/x/../human/5": false, "/v1/users/..//users/human/5": false, "/v1/users/.../lock": false, "/v1/users/5%2Flock": true, "/v1/users/5%3Araw": true,
		"/v1/odd//tail": true, "/v1%2Fodd//tail": true, "/v1%2Fodd/tail": false,
	} {
		if m, ok := s.Route("GET", path); !ok || m.Ambiguous != want {
			t.Errorf("%s: found %v, ambiguous %v", path, ok, m.Ambiguous)
		}
	}
}

func TestBasePaths(t *testing.T) {
	t.Parallel()
	const rules = `
		Get: GET /users/{a}
		Nested: GET /{a=orgs/*}/x
		Root: GET /
		Deep: GET /files/{a=**}
		Verb: GET /users/{a}:raw
	`
	for name, c := range map[string]struct {
		base string
		hits map[string]string
		miss []string
	}{
		"a prefix":       {"/admin/v1", map[string]string{"/admin/v1/users/5": "Get", "/admin/v1/orgs/1/x": "Nested", "/admin/v1/": "Root", "/admin/v1/files/a/b": "Deep", "/admin/v1/users/5:raw": "Verb"}, []string{"/users/5", "/admin/users/5", "/admin/v1"}},
		"a slash behind": {"/admin/v1/", map[string]string{"/admin/v1/users/5": "Get"}, nil},
		"no slash":       {"admin", map[string]string{"/admin/users/5": "Get"}, nil},
		"the root":       {"/", map[string]string{"/users/5": "Get", "/": "Root"}, nil},
		"empty":          {"", map[string]string{"/users/5": "Get"}, nil},
	} {
		s := routesOf(t, rules, schema.WithBasePaths(map[string]string{"t.S": c.base, "other.S": "/no"}))
		for path, want := range c.hits {
			if m, ok := s.Route("GET", path); !ok || m.Method().FullMethod != "/t.S/"+want {
				t.Errorf("%s: %s is not %s", name, path, want)
			}
		}
		for _, path := range c.miss {
			if m, ok := s.Route("GET", path); ok {
				t.Errorf("%s: %s is %s", name, path, m.Method().FullMethod)
			}
		}
	}
	set, err := standardSet()
	if err != nil {
		t.Fatal(err)
	}
	s, err := schema.FromDescriptorSet(set, schema.WithBasePaths(map[string]string{"kitchen.v1.Kitchen": ""}))
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Route("GET", "/v1/things/5"); !ok {
		t.Error("the override does not win over the file's base_path")
	}
	if _, ok := s.Route("GET", "/kitchen/v1/things/5"); ok {
		t.Error("the file's base_path is still there")
	}
}

func TestMalformedRulesAreProblemsAndNoMore(t *testing.T) {
	t.Parallel()
	for _, template := range []string{
		"v1/a", "/v1//a", "/v1/", "/v1/{a", "/v1/a}", "/v1/{}", "/v1/{a=}", "/v1/{a={b}}", "/v1/{nope}", "/v1/{a.b}",
		"/v1/{m}", "/v1/{labels}", "/v1/{a}/{a}", "/v1/**/**", "/v1/x*", "/v1/*x", "/v1/{a}x", "/v1/a:", "/v1/a:{b}", "/v1/%zz", "/v1/{a=**}/{b=**}",
	} {
		s := routesOf(t, "Good: GET /good\nBad: GET "+template)
		if len(s.Problems()) != 1 || !strings.Contains(s.Problems()[0], "/t.S/Bad") {
			t.Errorf("%s: problems %q", template, s.Problems())
		}
		if _, ok := s.Route("GET", "/good"); !ok {
			t.Errorf("%s spoils the other rule", template)
		}
	}
	s := routesOf(t, "First: GET /v1/{a}\nSecond: GET /v1/{b}")
	if m, ok := s.Route("GET", "/v1/x"); !ok || m.Method().FullMethod != "/t.S/Second" || len(s.Problems()) != 1 {
		t.Errorf("of two rules of one shape the later counts, and it is told: %q", s.Problems())
	}
}

func TestAdditionalBindings(t *testing.T) {
	t.Parallel()
	s := kitchen(t)
	for _, path := range []string{"/kitchen/v1/things/1", "/kitchen/v1/rooms/1/shelves/2/things/3", "/kitchen/v1/files/a/b"} {
		if m, ok := s.Route("GET", path); !ok || m.Method().FullMethod != "/kitchen.v1.Kitchen/Get" {
			t.Errorf("%s is not Get", path)
		}
	}
}
