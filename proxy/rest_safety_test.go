package proxy_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/execgate/execgate/conditions"
	"github.com/execgate/execgate/targetclient"
)

// TestNoSpellingOfARequestGetsPastAVeto sends what a lenient server could take for a call of a method that something
// vetoes. The upstream takes everything; it must get none of it.
func TestNoSpellingOfARequestGetsPastAVeto(t *testing.T) {
	t.Parallel()
	const (
		form     = "application/x-www-form-urlencoded"
		jsonType = "application/json"
	)
	for _, test := range []struct {
		name, execution    string
		method, path, body string
		header             []string
	}{
		{"as it should be", "request" + deleteUser, "DELETE", "/v2/users/5", "", nil},
		{"percent-encoded letters", "request" + deleteUser, "DELETE", "/v2/%75sers/5", "", nil},
		{"an encoded slash", "request" + deleteUser, "DELETE", "/v2%2Fusers/5", "", nil},
		{"a step back", "request" + deleteUser, "DELETE", "/x/../v2/users/5", "", nil},
		{"an encoded step back", "request" + deleteUser, "DELETE", "/v2/x/%2e%2e/users/5", "", nil},
		{"doubled slashes", "request" + deleteUser, "DELETE", "//v2//users//5", "", nil},
		{"a step back within another call", "request" + routeService + "NewestBook", "GET", "/demo/v1/books/x%2F..%2Fnewest", "", nil},
		{"the same, the other call", "request" + routeService + "GetBook", "GET", "/demo/v1/books/x%2F..%2Fnewest", "", nil},
		{"within a deep wildcard", "request" + routeService + "NewestBook", "GET", "/demo/v1/files//../books/newest", "", nil},
		{"an empty segment behind an encoded slash", "request" + routeService + "ListBooks", "GET", "/demo/v1%2Fshelves//books", "", nil},
		{"an override", "request" + deleteUser, "POST", "/v2/users/5", "", []string{"X-HTTP-Method-Override", "DELETE", "Content-Type", form}},
		{"a lower-case override", "request" + deleteUser, "POST", "/v2/users/5", "a=b", []string{"X-HTTP-Method-Override", "delete", "Content-Type", form}},
		{"an override of JSON", "request" + deleteUser, "POST", "/v2/users/5", "{}", []string{"X-HTTP-Method-Override", "DELETE", "Content-Type", jsonType}},
		{"an override of one call by another", "request/zitadel.session.v2.SessionService/SetSession", "POST", "/v2/sessions/search", "",
			[]string{"X-HTTP-Method-Override", "PATCH", "Content-Type", form}},
		{"the same, the other call", "request/zitadel.session.v2.SessionService/ListSessions", "POST", "/v2/sessions/search", "",
			[]string{"X-HTTP-Method-Override", "PATCH", "Content-Type", form}},
		{"a form for a GET", "request/zitadel.session.v2.SessionService/GetSession", "POST", "/v2/sessions/5", "sessionToken=x", []string{"Content-Type", form + "; charset=utf-8"}},
		{"a Connect header", "request" + addUser, "POST", "/v2/users/human", "{}", []string{"Connect-Protocol-Version", "1", "Content-Type", jsonType}},
		{"a Connect stream", "request" + addUser, "POST", "/v2/users/human", "{}", []string{"Content-Type", "application/connect+json"}},
		{"a type of gRPC-Web", "request" + addUser, "POST", "/v2/users/human", "{}", []string{"Content-Type", "application/grpc-web+proto"}},
		{"a type of gRPC-Web that is none", "request" + addUser, "POST", "/v2/users/human", "{}", []string{"Content-Type", "application/grpc-webby"}},
		{"the type of gRPC on another method", "request" + deleteUser, "DELETE", "/v2/users/5", "", []string{"Content-Type", "application/grpc"}},
		{"an upgrade", "request" + routeService + "NewestBook", "GET", "/demo/v1/books/newest", "",
			[]string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-Websocket-Version", "13", "Sec-Websocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}},
		{"an upgrade of a stream", "request" + countMethod, "GET", "/demo/v1/count/3", "", []string{"Connection", "Upgrade", "Upgrade", "websocket"}},
		{"a form behind the JSON", "request" + routeService + "CreateBook", "POST", "/demo/v1/shelves/s/books", `{"title":"t"}` + strings.Repeat(" ", 1000) + "&number=5",
			[]string{"Content-Type", form}},
		{"a compressed form", "request" + routeService + "GetBook", "POST", "/demo/v1/shelves/a/books/c", "number=5", []string{"Content-Type", form, "Content-Encoding", "gzip"}},
		{"a query that is none", "request" + routeService + "NewestBook", "GET", "/demo/v1/books/newest?number=5;number=6", "", nil},
		{"a coding that is not kept", "request" + addUser, "POST", "/v2/users/human", "{}", []string{"Content-Encoding", "gzip"}},
		{"two codings", "request" + addUser, "POST", "/v2/users/human", "{}", []string{"Content-Encoding", "gzip", "Content-Encoding", "br"}},
		{"all methods", "request", "DELETE", "/v2/users/5", "", nil},
		{"a response", "response" + deleteUser, "POST", "/v2/users/5", "", []string{"X-HTTP-Method-Override", "DELETE", "Content-Type", jsonType}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			upstream, l := startListener(t, nil)
			veto := startTarget(t, "veto", targetclient.KindWebhook, true, func(envelope) (int, string) { return 500, "" })
			g := demoGateway(t, upstream, targetsOf(veto), on(t, test.execution, "veto"))
			res, body := call(t, g, test.method, test.path, test.body, test.header...)
			if heard := l.take(); len(heard) != 0 {
				t.Errorf("upstream got %+v, answer %d %s", heard, res.StatusCode, body)
			}
		})
	}
}

// TestOddTargets sends what no HTTP library would.
func TestOddTargets(t *testing.T) {
	t.Parallel()
	upstream, l := startListener(t, nil)
	veto := startTarget(t, "veto", targetclient.KindWebhook, true, func(envelope) (int, string) { return 500, "" })
	g := demoGateway(t, upstream, targetsOf(veto), on(t, "request"+addUser, "veto"))
	for _, target := range []string{"/v2/users/human#x", "/v2/users/human#", "http://elsewhere.example.com/v2/users/human", "/v2/users/human?#/", "/v2/./users/human"} {
		conn := dialTCP(t, g.addr, nil)
		if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}", target); err != nil {
			t.Fatal(err)
		}
		if answer := readAll(t, conn); !strings.HasPrefix(answer, "HTTP/1.1 400 ") {
			t.Errorf("%s: %s", target, answer)
		}
		if heard := l.take(); len(heard) != 0 {
			t.Errorf("%s: upstream got %+v", target, heard)
		}
	}
}

func TestAmbiguousRESTCalls(t *testing.T) {
	t.Parallel()
	const path = "/demo/v1/books/x%2F..%2Fnewest"
	for name, interrupt := range map[string]bool{"something may veto": true, "nothing may": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			upstream, l := startListener(t, nil)
			target := startTarget(t, "target", targetclient.KindWebhook, interrupt, nil)
			g := demoGateway(t, upstream, targetsOf(target), on(t, "request"+routeService+"NewestBook", "target"))
			res, body := call(t, g, "GET", path, "")
			heard := l.take()
			switch {
			case interrupt && (res.StatusCode != 400 || body != `{"code":3,"message":"request can be read as a call of more than one method"}` || len(heard) != 0):
				t.Errorf("%d %s, upstream %v", res.StatusCode, body, heard)
			case !interrupt && (res.StatusCode != 200 || len(heard) != 1 || heard[0].target != path):
				t.Errorf("%d %s, upstream %v", res.StatusCode, body, heard)
			}
			want := request{"rest", routeService + "GetBook", "OK"}
			if interrupt {
				want.code = "InvalidArgument"
			}
			if got := g.observed.next(t); got != want {
				t.Errorf("recorded %v", got)
			}
		})
	}
	// What is vetoed elsewhere does not matter.
	upstream, l := startListener(t, nil)
	target := startTarget(t, "target", targetclient.KindWebhook, true, nil)
	g := demoGateway(t, upstream, targetsOf(target), on(t, "request"+deleteUser, "target"))
	if res, body := call(t, g, "GET", path, ""); res.StatusCode != 200 || len(l.take()) != 1 {
		t.Errorf("%d %s", res.StatusCode, body)
	}
}

func TestMethodOverrides(t *testing.T) {
	t.Parallel()
	const form = "application/x-www-form-urlencoded"
	upstream, api := startDemo(t)
	target := rewriting(t, "target", func(m jsonObject) { m["sessionToken"] = "rewritten" })
	quiet := startTarget(t, "quiet", targetclient.KindWebhook, false, nil)
	const setSession = "/zitadel.session.v2.SessionService/SetSession"
	const getSession = "/zitadel.session.v2.SessionService/GetSession"
	g := demoGateway(t, upstream, targetsOf(target, quiet),
		on(t, "request"+getSession, "target"), on(t, "request"+setSession, "quiet"))
	// The upstream's own reading: the form is the query of a GET.
	call(t, g, "POST", "/v2/sessions/5?x=y", "sessionToken=sent", "Content-Type", form, "X-HTTP-Method-Override", "GET")
	seen := target.received()
	if len(seen) != 1 || !sameJSON(t, string(seen[0].Request), `{"sessionId":"5","sessionToken":"sent"}`) {
		t.Fatalf("target saw %v", seen)
	}
	if got, ok := api.Last(getSession); !ok || !sameJSON(t, jsonOf(t, got.Message), `{"sessionId":"5","sessionToken":"rewritten"}`) {
		t.Errorf("upstream got %v", got.Message)
	}
	// It takes the form away, and has no body then.
	call(t, g, "POST", "/v2/sessions/6", `{"sessionToken":"x"}`, "Content-Type", form, "X-HTTP-Method-Override", "PATCH")
	seen = quiet.received()
	if len(seen) != 1 || !sameJSON(t, string(seen[0].Request), `{"sessionId":"6"}`) {
		t.Fatalf("target saw %v", seen)
	}
	if got, ok := api.Last(setSession); !ok || !sameJSON(t, jsonOf(t, got.Message), `{"sessionId":"6"}`) {
		t.Errorf("upstream got %v", got.Message)
	}
}

// TestUnmatchedRESTCallsPassAsTheyAre, whatever could be said about them.
func TestUnmatchedRESTCallsPassAsTheyAre(t *testing.T) {
	t.Parallel()
	upstream, l := startListener(t, nil)
	target := startTarget(t, "target", targetclient.KindWebhook, true, nil)
	g := demoGateway(t, upstream, targetsOf(target), on(t, "request"+addUser, "target"))
	for _, test := range []struct {
		method, path, body string
		header             []string
		want               request
	}{
		{"POST", "/v2/users/5", "a=b", []string{"X-HTTP-Method-Override", "DELETE", "Content-Type", "application/x-www-form-urlencoded"}, request{"rest", deleteUser, "OK"}},
		{"DELETE", "/v2//users/../users/5?x=%zz&;", "not json", []string{"Content-Encoding", "br"}, request{"rest", deleteUser, "OK"}},
		{"GET", "/demo/v1/books/x%2F..%2Fnewest?", "", []string{"Range", "bytes=0-1", "If-None-Match", `"x"`, "Accept-Encoding", "br"}, request{"rest", routeService + "GetBook", "OK"}},
		{"HEAD", "/demo/v1/books/5", "", nil, request{"http", "other", "200"}},
		{"PUT", "/v2/users/human", "x", nil, request{"http", "other", "200"}},
		{"POST", "/v2/users/5", "{}", []string{"X-HTTP-Method-Override", "DELETE", "Content-Type", "application/json"}, request{"http", "other", "200"}},
		{"GET", "/ui/login", "", nil, request{"http", "other", "200"}},
	} {
		res, body := call(t, g, test.method, test.path, test.body, test.header...)
		if res.StatusCode != 200 {
			t.Errorf("%s %s: %d %s", test.method, test.path, res.StatusCode, body)
		}
		got := l.take()
		if len(got) != 1 || got[0].method != test.method || got[0].target != test.path || got[0].body != test.body {
			t.Errorf("%s %s: upstream got %+v", test.method, test.path, got)
			continue
		}
		for i := 0; i < len(test.header); i += 2 {
			if got[0].header.Get(test.header[i]) != test.header[i+1] {
				t.Errorf("%s %s: header %s: %q", test.method, test.path, test.header[i], got[0].header.Get(test.header[i]))
			}
		}
		if rec := g.observed.next(t); rec != test.want {
			t.Errorf("%s %s: recorded %v", test.method, test.path, rec)
		}
	}
}

// TestAnUpgradeOfAUnaryRESTCallIsIgnored: its answer is one message, and the rule holds.
func TestAnUpgradeOfAUnaryRESTCallIsIgnored(t *testing.T) {
	t.Parallel()
	upstream, l := startListener(t, nil)
	target := rewriting(t, "target", func(m jsonObject) { m["shelf"] = "s" })
	target.InterruptOnError = false
	g := demoGateway(t, upstream, targetsOf(target), []conditions.Execution{on(t, "request"+routeService+"NewestBook", "target")}...)
	res, _ := call(t, g, http.MethodGet, "/demo/v1/books/newest", "", "Connection", "Upgrade", "Upgrade", "websocket")
	if got := l.take(); res.StatusCode != 200 || len(got) != 1 || got[0].target != "/demo/v1/books/newest?shelf=s" || got[0].header.Get("Upgrade") != "" {
		t.Errorf("%d, upstream got %+v", res.StatusCode, got)
	}
}

// sameJSON reports whether two texts say the same.
func sameJSON(t *testing.T, a, b string) bool {
	t.Helper()
	var x, y any
	if err := json.Unmarshal([]byte(a), &x); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(b), &y); err != nil {
		t.Fatal(err)
	}
	return reflect.DeepEqual(x, y)
}
