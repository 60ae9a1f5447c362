package proxy_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/execgate/execgate/conditions"
	demopb "github.com/execgate/execgate/gen/execgate/demo/v1"
	userpb "github.com/execgate/execgate/gen/zitadel/user/v2"
	"github.com/execgate/execgate/internal/testkit/demoapi"
	"github.com/execgate/execgate/proxy"
	"github.com/execgate/execgate/schema"
	"github.com/execgate/execgate/targetclient"
)

const (
	routeService = "/execgate.demo.v1.RouteService/"
	addUser      = "/zitadel.user.v2.UserService/AddHumanUser"
	deleteUser   = "/zitadel.user.v2.UserService/DeleteUser"
	adminHealthz = "/zitadel.admin.v1.AdminService/Healthz"
)

// jsonObject is a message as targets see it.
type jsonObject = map[string]any

// rewriting starts a target that changes the message of its phase.
func rewriting(t *testing.T, id string, change func(jsonObject)) *scriptedTarget {
	t.Helper()
	return startTarget(t, id, targetclient.KindCall, true, func(e envelope) (int, string) {
		text := e.Request
		if len(e.Response) > 0 {
			text = e.Response
		}
		m := jsonObject{}
		if err := json.Unmarshal(text, &m); err != nil {
			return 500, ""
		}
		change(m)
		b, _ := json.Marshal(m)
		return 200, string(b)
	})
}

// heard is what an upstream got, byte for byte.
type heard struct {
	method, target, body string
	header               http.Header
}

// listener is an upstream that notes what comes, and answers as told.
type listener struct {
	mu   sync.Mutex
	last []heard
}

func (l *listener) take() []heard {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.last
	l.last = nil
	return all
}

// startListener starts one. answer writes the answer; nil is an empty JSON object.
func startListener(t *testing.T, answer http.HandlerFunc) (string, *listener) {
	t.Helper()
	l := &listener{}
	return startWeb(t, false, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		l.mu.Lock()
		l.last = append(l.last, heard{r.Method, r.RequestURI, string(body), r.Header.Clone()})
		l.mu.Unlock()
		if answer != nil {
			answer(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "{}")
	})), l
}

// call sends a request to the gateway as curl would.
func call(t *testing.T, g *gateway, method, path, body string, header ...string) (*http.Response, string) {
	t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	res := get(t, webClient(t), method, g.url()+path, r, header...)
	return res, readAll(t, res.Body)
}

// TestRESTRequestsAreRewrittenByTheirRule goes to the real thing: grpc-gateway with every form of rule.
func TestRESTRequestsAreRewrittenByTheirRule(t *testing.T) {
	t.Parallel()
	upstream, api := startDemo(t)
	const base = "/demo/v1"
	for _, test := range []struct {
		name, method, path, body, contentType string
		rpc                                   string
		sees                                  string // the target, of the request
		change                                func(jsonObject)
		reaches                               string // the upstream
	}{
		{
			"several path segments", "GET", "/shelves/a%20b/books/c?number=5&tags=x&tags=y", "", "", "GetBook",
			`{"name":"shelves/a b/books/c","number":"5","tags":["x","y"]}`,
			func(m jsonObject) { m["name"], m["number"] = "shelves/d/books/e f", "6" },
			`{"name":"shelves/d/books/e f","number":"6","tags":["x","y"]}`,
		},
		{
			"a nested path variable, a second binding", "GET", "/books/7?book.title=old&colour=1", "", "", "GetBook",
			`{"book":{"id":"7","title":"old"},"colour":"COLOUR_RED"}`,
			func(m jsonObject) {
				m["book"] = jsonObject{"id": "8+ä", "title": "new & better", "authors": []string{"a", "b"}}
				m["colour"] = "COLOUR_GREEN"
			},
			`{"book":{"id":"8+ä","title":"new & better","authors":["a","b"]},"colour":"COLOUR_GREEN"}`,
		},
		{
			"a query that was empty", "GET", "/shelves/s/books", "", "", "ListBooks", `{"shelf":"s"}`,
			func(m jsonObject) { m["tags"], m["flag"] = []string{"ä"}, false },
			`{"shelf":"s","tags":["ä"],"flag":false}`,
		},
		{
			"a fixed path before a wildcard", "GET", "/books/newest", "", "", "NewestBook", `{}`,
			func(m jsonObject) { m["shelf"] = "s" }, `{"shelf":"s"}`,
		},
		{
			"a deep wildcard", "GET", "/files/a/b%20c", "", "", "GetFile", `{"name":"a/b c"}`,
			func(m jsonObject) { m["name"] = "x/y/z" }, `{"name":"x/y/z"}`,
		},
		{
			"a field as the body, the rest in path and query", "PATCH", "/books/7?flag=true", `{"title":"old"}`, "application/json", "UpdateBook",
			`{"book":{"title":"old","id":"7"},"flag":true}`,
			func(m jsonObject) {
				m["book"] = jsonObject{"id": "8", "title": "new"}
				m["flag"] = false
			},
			`{"book":{"title":"new","id":"8"},"flag":false}`,
		},
		{
			"everything in the body but the path, curl -d", "PUT", "/books/7", `{"book":{"title":"old"},"shelf":"s"}`, "application/x-www-form-urlencoded",
			"UpdateBook", `{"book":{"title":"old","id":"7"},"shelf":"s"}`,
			func(m jsonObject) { m["book"], m["shelf"] = jsonObject{"id": "8"}, "t" },
			`{"book":{"id":"8"},"shelf":"t"}`,
		},
		{
			"a verb, and a body that was empty", "POST", "/books/b:archive", "", "", "ArchiveBook", `{"name":"b"}`,
			func(m jsonObject) { m["name"], m["tags"] = "c", []string{"t"} },
			`{"name":"c","tags":["t"]}`,
		},
		{
			"a form whose fields are the query", "POST", "/shelves/a/books/b", "shelf=s&tags=a&tags=b", "application/x-www-form-urlencoded", "GetBook",
			`{"name":"shelves/a/books/b","shelf":"s","tags":["a","b"]}`,
			func(m jsonObject) { m["shelf"] = "t" }, `{"name":"shelves/a/books/b","shelf":"t","tags":["a","b"]}`,
		},
		{
			"a form beside a query", "POST", "/shelves/s/books?colour=2", `{"title":"old"}`, "application/x-www-form-urlencoded", "CreateBook",
			`{"shelf":"s","book":{"title":"old"},"colour":"COLOUR_GREEN"}`,
			func(m jsonObject) { m["book"] = jsonObject{"title": "new"} },
			`{"shelf":"s","book":{"title":"new"},"colour":"COLOUR_GREEN"}`,
		},
	} {
		for _, matched := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, matched %v", test.name, matched), func(t *testing.T) {
				// Not parallel: the API keeps the last request of each method.
				target := rewriting(t, "target", test.change)
				var executions []conditions.Execution
				want := test.sees
				if matched {
					executions, want = append(executions, on(t, "request"+routeService+test.rpc, "target")), test.reaches
				}
				g := demoGateway(t, upstream, targetsOf(target), executions...)
				var header []string
				if test.contentType != "" {
					header = []string{"Content-Type", test.contentType}
				}
				res, body := call(t, g, test.method, base+test.path, test.body, header...)
				if res.StatusCode != 200 {
					t.Fatalf("%d %s", res.StatusCode, body)
				}
				got, _ := api.Last(routeService + test.rpc)
				var wantMessage, seen demopb.BookRequest
				if err := protojson.Unmarshal([]byte(want), &wantMessage); err != nil {
					t.Fatal(err)
				}
				if !proto.Equal(got.Message, &wantMessage) || got.Protocol != demoapi.ProtocolREST {
					t.Errorf("upstream got %v by %s", got.Message, got.Protocol)
				}
				if rec := g.observed.next(t); rec != (request{"rest", routeService + test.rpc, "OK"}) {
					t.Errorf("recorded %v", rec)
				}
				if !matched {
					return
				}
				calls := target.received()
				if len(calls) != 1 {
					t.Fatalf("%d calls", len(calls))
				}
				if err := protojson.Unmarshal([]byte(test.sees), &wantMessage); err != nil {
					t.Fatal(err)
				}
				if err := protojson.Unmarshal(calls[0].Request, &seen); err != nil || !proto.Equal(&seen, &wantMessage) {
					t.Errorf("target saw %s", calls[0].Request)
				}
				if calls[0].FullMethod != routeService+test.rpc || calls[0].InstanceID != "instance-1" {
					t.Errorf("envelope %+v", calls[0])
				}
			})
		}
	}
}

func TestRESTRewritesChangeNothingElse(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, method, path, body string
		change                   func(jsonObject)
		wantMethod, wantTarget   string
		wantBody                 string
	}{
		{
			"path", "GET", "/demo/v1/books/7?x=1&book.title=T%20T&number=05&&unknown=%41", "", func(m jsonObject) { m["book"].(jsonObject)["id"] = "a b" },
			"GET", "/demo/v1/books/a%20b?x=1&book.title=T%20T&number=05&&unknown=%41", "",
		},
		{
			"query", "GET", "/demo/v1/books/%37?x=1&book.title=T%20T&tags=a&number=5", "", func(m jsonObject) { m["number"] = "6" },
			"GET", "/demo/v1/books/%37?x=1&book.title=T%20T&tags=a&number=6", "",
		},
		{
			"body", "PUT", "/demo/v1/books/%37?x=1", `{ "book" : {"title":"old", "more":[1, 2]}, "number":7, "unknown" : null, "shelf":"" }`,
			func(m jsonObject) { m["book"].(jsonObject)["title"] = "new" },
			"PUT", "/demo/v1/books/%37?x=1", `{"book":{"title":"new","more":[1, 2]},"number":7,"unknown":null,"shelf":""}`,
		},
		{
			"body field", "PATCH", "/demo/v1/books/7?x=1&flag=true", `{"title":"old","unknown":1}`, func(m jsonObject) { m["flag"] = false },
			"PATCH", "/demo/v1/books/7?x=1&flag=false", `{"title":"old","unknown":1}`,
		},
		{
			"nothing", "PATCH", "/demo/v1//../v1/books/7?flag=1&&", " {\"title\":\n\"old\"}\n", func(jsonObject) {},
			"PATCH", "/demo/v1//../v1/books/7?flag=1&&", " {\"title\":\n\"old\"}\n",
		},
		{
			"a body that the rule does not have", "GET", "/demo/v1/books/7", "some bytes", func(m jsonObject) { m["shelf"] = "s" },
			"GET", "/demo/v1/books/7?shelf=s", "some bytes",
		},
		{
			"a form for a GET", "POST", "/demo/v1/books/newest?a=1", "shelf=s&b=2", func(m jsonObject) { m["shelf"] = "t" },
			"GET", "/demo/v1/books/newest?shelf=t&b=2&a=1", "",
		},
		{
			"a form for a GET, unchanged", "POST", "/demo/v1/books/newest?a=1", "shelf=%73&b=2", func(jsonObject) {},
			"POST", "/demo/v1/books/newest?a=1", "shelf=%73&b=2",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			upstream, l := startListener(t, nil)
			target := rewriting(t, "target", test.change)
			g := demoGateway(t, upstream, targetsOf(target), on(t, "request/execgate.demo.v1.RouteService", "target"))
			header := []string{"Content-Type", "application/json", "X-Custom", "kept", "Content-Md5", "digest"}
			if strings.Contains(test.name, "form") {
				header[1] = "application/x-www-form-urlencoded"
			}
			if res, body := call(t, g, test.method, test.path, test.body, header...); res.StatusCode != 200 {
				t.Fatalf("%d %s", res.StatusCode, body)
			}
			got := l.take()
			if len(got) != 1 || len(target.received()) != 1 {
				t.Fatalf("upstream %d calls, target %d", len(got), len(target.received()))
			}
			if got[0].method != test.wantMethod || got[0].target != test.wantTarget || got[0].body != test.wantBody {
				t.Errorf("upstream got %s %s %q", got[0].method, got[0].target, got[0].body)
			}
			if got[0].header.Get("X-Custom") != "kept" {
				t.Errorf("headers %v", got[0].header)
			}
			if changed := got[0].body != test.body; changed == (got[0].header.Get("Content-Md5") != "") {
				t.Errorf("body changed %v, headers %v", changed, got[0].header)
			}
		})
	}
}

func TestRESTResponsesChangeOnlyWhatTheTargetChanged(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, method, path, body string
		change                   func(jsonObject)
		want                     string
	}{
		{
			"the whole message", "GET", "/demo/v1/books/7", `{ "method":"x",  "request":{"name":"","number":5,"colour":1,"tags":[]}, "unknown":{"a" : 1} }`,
			func(m jsonObject) { m["request"].(jsonObject)["number"] = "6" },
			`{"method":"x","request":{"name":"","number":6,"colour":1,"tags":[]},"unknown":{"a" : 1}}`,
		},
		{
			"a field of it", "POST", "/demo/v1/shelves/s/books", `{"id":"7","title":"old","authors":[],"unknown":1}`,
			func(m jsonObject) { m["book"].(jsonObject)["title"] = "new" }, `{"id":"7","title":"new","authors":[],"unknown":1}`,
		},
		{"nothing", "GET", "/demo/v1/books/7", " {\"method\" : \"x\"}\n", func(jsonObject) {}, " {\"method\" : \"x\"}\n"},
		{"an empty message", "GET", "/demo/v1/books/7", "{}", func(m jsonObject) { m["method"] = "y" }, `{"method":"y"}`},
	} {
		for _, coding := range []string{"", "gzip", "deflate", "br"} {
			t.Run(test.name+" "+coding, func(t *testing.T) {
				t.Parallel()
				upstream, l := startListener(t, func(w http.ResponseWriter, _ *http.Request) {
					h := w.Header()
					h.Set("Content-Type", "application/json; charset=utf-8")
					h.Set("Etag", `"v1"`)
					h.Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
					h.Set("X-Custom", "kept")
					if coding != "" {
						h.Set("Content-Encoding", coding)
					}
					w.WriteHeader(http.StatusCreated)
					_, _ = w.Write(encoded(t, coding, test.body))
				})
				target := rewriting(t, "target", test.change)
				g := demoGateway(t, upstream, targetsOf(target), on(t, "response", "target"))
				res, body := call(t, g, test.method, test.path, "", "Accept-Encoding", "zstd;q=1, br, gzip, deflate", "Range", "bytes=0-3")
				if got := decoded(t, res.Header.Get("Content-Encoding"), body); got != test.want || res.Header.Get("Content-Encoding") != coding {
					t.Errorf("%q in %q", got, res.Header.Get("Content-Encoding"))
				}
				if res.StatusCode != 201 || res.Header.Get("X-Custom") != "kept" || res.ContentLength != int64(len(body)) ||
					res.Header.Get("Content-Type") != "application/json; charset=utf-8" {
					t.Errorf("%d %d %v", res.StatusCode, res.ContentLength, res.Header)
				}
				for _, name := range []string{"Etag", "Last-Modified"} {
					if kept := res.Header.Get(name) != ""; kept != (test.want == test.body) {
						t.Errorf("%s kept: %v", name, kept)
					}
				}
				heard := l.take()[0].header
				if heard.Get("Accept-Encoding") != "br, gzip, deflate" || heard.Get("Range") != "" {
					t.Errorf("upstream was asked for %v", heard)
				}
			})
		}
	}
}

func encoded(t *testing.T, coding, body string) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	switch coding {
	case "gzip":
		w = gzip.NewWriter(&b)
	case "deflate":
		w = zlib.NewWriter(&b)
	case "br":
		w = brotli.NewWriter(&b)
	default:
		return []byte(body)
	}
	if _, err := io.WriteString(w, body); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func decoded(t *testing.T, coding, body string) string {
	t.Helper()
	var r io.Reader
	var err error
	switch coding {
	case "gzip":
		r, err = gzip.NewReader(strings.NewReader(body))
	case "deflate":
		r, err = zlib.NewReader(strings.NewReader(body))
	case "br":
		r = brotli.NewReader(strings.NewReader(body))
	default:
		return body
	}
	if err != nil {
		t.Fatal(err)
	}
	return readAll(t, r)
}

func TestRESTRequestBodiesKeepTheirCoding(t *testing.T) {
	t.Parallel()
	for _, coding := range []string{"gzip", "deflate", "br"} {
		t.Run(coding, func(t *testing.T) {
			t.Parallel()
			upstream, l := startListener(t, nil)
			target := rewriting(t, "target", func(m jsonObject) {
				if m["username"] == "ada" {
					m["username"] = "bob"
				}
			})
			g := demoGateway(t, upstream, targetsOf(target), on(t, "request", "target"))
			for _, name := range []string{"ada", "eve"} {
				sent := encoded(t, coding, `{"username":"`+name+`"}`)
				res, body := call(t, g, "POST", "/v2/users/human", string(sent), "Content-Type", "application/json", "Content-Encoding", coding)
				got := l.take()
				if res.StatusCode != 200 || len(got) != 1 || got[0].header.Get("Content-Encoding") != coding {
					t.Fatalf("%d %s, upstream %v", res.StatusCode, body, got)
				}
				want := name
				if name == "ada" {
					want = "bob"
				} else if got[0].body != string(sent) {
					t.Error("an unchanged body is not what was sent")
				}
				if text := decoded(t, coding, got[0].body); text != `{"username":"`+want+`"}` {
					t.Errorf("upstream got %s", text)
				}
			}
		})
	}
}

// TestRESTOverHTTP2AndChunked: how the body is framed does not matter, in either direction.
func TestRESTOverHTTP2AndChunked(t *testing.T) {
	t.Parallel()
	upstream, api := startDemo(t)
	target := rewriting(t, "target", func(m jsonObject) { m["username"] = m["username"].(string) + ".seen" })
	out := rewriting(t, "out", func(m jsonObject) { m["userId"] = "changed" })
	g := demoGateway(t, upstream, targetsOf(target, out), on(t, "request"+addUser, "target"), on(t, "response"+addUser, "out"))
	for name, c := range map[string]*http.Client{"http1": webClient(t), "http2": h2cClient(t)} {
		// A reader that is no known one: the client does not state the length.
		body := io.MultiReader(strings.NewReader(`{"username":"`+name+`","profile":{"givenName":"A","familyName":"B"},`),
			strings.NewReader(`"email":{"email":"`+name+`@example.com","isVerified":true}}`))
		res := get(t, c, "POST", g.url()+"/v2/users/human", body)
		if text := readAll(t, res.Body); res.StatusCode != 200 || !strings.Contains(text, `"userId":"changed"`) || res.ContentLength != int64(len(text)) {
			t.Errorf("%s: %d %s, length %d", name, res.StatusCode, text, res.ContentLength)
		}
		if got, _ := api.Last(addUser); got.Message.(*userpb.AddHumanUserRequest).GetUsername() != name+".seen" {
			t.Errorf("%s: upstream got %v", name, got.Message)
		}
	}
	if sent := target.received()[0].Headers; sent["Host"][0] != g.addr || len(sent["Content-Type"]) != 0 {
		t.Errorf("envelope headers %v", sent)
	}
}

// TestRESTBodiesThatAreAnnounced: curl asks before it sends a body beyond a megabyte.
func TestRESTBodiesThatAreAnnounced(t *testing.T) {
	t.Parallel()
	upstream, l := startListener(t, nil)
	change := rewriting(t, "change", func(m jsonObject) {
		if m["text"] == "a" {
			m["text"] = "b"
		}
	})
	g := demoGateway(t, upstream, targetsOf(change), on(t, "request"+echoMethod, "change"))
	for sent, want := range map[string]string{`{"text":"a"}`: `{"text":"b"}`, `{"text" : "x"}`: `{"text" : "x"}`} {
		conn := dialTCP(t, g.addr, nil)
		if _, err := fmt.Fprintf(conn, "POST /demo/v1/echo HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n", len(sent)); err != nil {
			t.Fatal(err)
		}
		answer := bufio.NewReader(conn)
		if line, err := answer.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 100 ") {
			t.Fatalf("%q, %v", line, err)
		}
		if _, err := io.WriteString(conn, sent); err != nil {
			t.Fatal(err)
		}
		if rest := readAll(t, answer); !strings.Contains(rest, "HTTP/1.1 200 ") {
			t.Errorf("%s", rest)
		}
		if got := l.take(); len(got) != 1 || got[0].body != want {
			t.Errorf("upstream got %+v", got)
		}
	}
}

func TestRESTBasePaths(t *testing.T) {
	t.Parallel()
	upstream, api := startDemo(t)
	target := startTarget(t, "target", targetclient.KindWebhook, true, nil)
	g := demoGateway(t, upstream, targetsOf(target), on(t, "request"+adminHealthz, "target"))
	if res, body := call(t, g, "GET", "/admin/v1/healthz", ""); res.StatusCode != 200 || api.Count(adminHealthz) != 1 || len(target.received()) != 1 {
		t.Errorf("%d %s, target %d", res.StatusCode, body, len(target.received()))
	}
	if res, _ := call(t, g, "GET", "/healthz", ""); res.StatusCode != 404 || len(target.received()) != 1 {
		t.Errorf("without the base path: %d, target %d", res.StatusCode, len(target.received()))
	}
	moved, err := schema.FromDescriptorSet(demoapi.DescriptorSet(), schema.WithBasePaths(map[string]string{"zitadel.admin.v1.AdminService": "/elsewhere"}))
	if err != nil {
		t.Fatal(err)
	}
	other, l := startListener(t, nil)
	g = startGateway(t, other, func(o *proxy.Options) {
		withExecutions(t, targetsOf(target), on(t, "request"+adminHealthz, "target"))(o)
		o.Schema = func() *schema.Schema { return moved }
	})
	call(t, g, "GET", "/admin/v1/healthz", "")
	if len(target.received()) != 1 {
		t.Error("the old base path still matches")
	}
	call(t, g, "GET", "/elsewhere/healthz", "")
	if len(target.received()) != 2 || len(l.take()) != 2 {
		t.Error("the new base path does not match")
	}
}

func TestRESTStreamsRunTheirRequestPhase(t *testing.T) {
	t.Parallel()
	upstream, _ := startDemo(t)
	in := rewriting(t, "in", func(m jsonObject) { m["to"] = 2 })
	out := rewriting(t, "out", func(jsonObject) {})
	g := demoGateway(t, upstream, targetsOf(in, out), on(t, "request", "in"), on(t, "response", "out"))
	_, body := call(t, g, "GET", "/demo/v1/count/5", "")
	if body != `{"result":{"number":1}}`+"\n"+`{"result":{"number":2}}`+"\n" {
		t.Errorf("got %q", body)
	}
	if len(in.received()) != 1 || len(out.received()) != 0 {
		t.Errorf("targets called %d, %d times", len(in.received()), len(out.received()))
	}
}

func TestRESTDeadlines(t *testing.T) {
	t.Parallel()
	upstream, _ := startDemo(t)
	slow := startTarget(t, "slow", targetclient.KindWebhook, false, func(envelope) (int, string) {
		time.Sleep(30 * time.Millisecond) // Time that must be missing upstream.
		return 200, ""
	})
	g := demoGateway(t, upstream, targetsOf(slow), on(t, "request", "slow"))
	_, body := call(t, g, "POST", "/demo/v1/echo", "{}", "Grpc-Timeout", "10S")
	var echo demopb.EchoResponse
	if err := protojson.Unmarshal([]byte(body), &echo); err != nil {
		t.Fatal(err)
	}
	if left := echo.GetTimeLeft().AsDuration(); left <= 0 || left > 10*time.Second-30*time.Millisecond {
		t.Errorf("time left %v", left)
	}
	res, body := call(t, g, "POST", "/demo/v1/echo", "{}", "Grpc-Timeout", "20m")
	if res.StatusCode != 504 || body != `{"code":4,"message":"the caller's deadline has passed"}` {
		t.Errorf("%d %s", res.StatusCode, body)
	}
}
