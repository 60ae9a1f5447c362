package proxy_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/execgate/execgate/dispatcher"
	"github.com/execgate/execgate/proxy"
	"github.com/execgate/execgate/schema"
	"github.com/execgate/execgate/targetclient"
)

func TestRESTVetoes(t *testing.T) {
	t.Parallel()
	const failed = `{"code":9,"message":"Execution failed (EXEC-dra6yamk98)","details":[` +
		`{"@type":"type.googleapis.com/zitadel.v1.ErrorDetail","id":"EXEC-dra6yamk98","message":"Execution failed"}]}`
	forwarded := func(code int) string {
		return fmt.Sprintf(`{"code":%d,"message":"no <b> (EXEC-reUaUZCzCp)","details":[`+
			`{"@type":"type.googleapis.com/zitadel.v1.ErrorDetail","id":"EXEC-reUaUZCzCp","message":"no <b>"}]}`, code)
	}
	for _, test := range []struct {
		name, answer string
		targetStatus int
		status       int
		code         codes.Code
		want         string
	}{
		{"a target that fails", "", 500, 400, codes.FailedPrecondition, failed},
		{"400", `{"forwardedStatusCode":400,"forwardedErrorMessage":"no <b>"}`, 200, 400, codes.InvalidArgument, forwarded(3)},
		{"401", `{"forwardedStatusCode":401,"forwardedErrorMessage":"no <b>"}`, 200, 401, codes.Unauthenticated, forwarded(16)},
		{"403", `{"forwardedStatusCode":403,"forwardedErrorMessage":"no <b>"}`, 200, 403, codes.PermissionDenied, forwarded(7)},
		{"404", `{"forwardedStatusCode":404,"forwardedErrorMessage":"no <b>"}`, 200, 404, codes.NotFound, forwarded(5)},
		{"409", `{"forwardedStatusCode":409,"forwardedErrorMessage":"no <b>"}`, 200, 409, codes.AlreadyExists, forwarded(6)},
		{"429", `{"forwardedStatusCode":429,"forwardedErrorMessage":"no <b>"}`, 200, 429, codes.ResourceExhausted, forwarded(8)},
		{"418", `{"forwardedStatusCode":418,"forwardedErrorMessage":"no <b>"}`, 200, 500, codes.Unknown, forwarded(2)},
		{"a message without status", `{"forwardedErrorMessage":"wait"}`, 200, 400, codes.FailedPrecondition,
			`{"code":9,"message":"wait (EXEC-bmhNhpcqpF)","details":[{"@type":"type.googleapis.com/zitadel.v1.ErrorDetail","id":"EXEC-bmhNhpcqpF","message":"wait"}]}`},
		{"an answer that is no message", `{"nonsense":1}`, 200, 400, codes.FailedPrecondition,
			`{"code":9,"message":"Response is not valid JSON (ACTION-4m9s2)","details":[{"@type":"type.googleapis.com/zitadel.v1.ErrorDetail","id":"ACTION-4m9s2","message":"Response is not valid JSON"}]}`},
	} {
		for _, phase := range []string{"request", "response"} {
			t.Run(test.name+" "+phase, func(t *testing.T) {
				t.Parallel()
				upstream, l := startListener(t, nil)
				target := startTarget(t, "target", targetclient.KindCall, true, func(envelope) (int, string) { return test.targetStatus, test.answer })
				g := demoGateway(t, upstream, targetsOf(target), on(t, phase+deleteUser, "target"))
				res, body := call(t, g, "DELETE", "/v2/users/5", "", "Origin", "https://app.example.com")
				if res.StatusCode != test.status || !sameJSON(t, body, test.want) || res.Header.Get("Content-Type") != "application/json" {
					t.Errorf("%d %s %v", res.StatusCode, body, res.Header)
				}
				if called := len(l.take()) == 1; called != (phase == "response") {
					t.Errorf("upstream called: %v", called)
				}
				if got := g.observed.next(t); got != (request{"rest", deleteUser, test.code.String()}) {
					t.Errorf("recorded %v", got)
				}
				h := res.Header
				if h.Get("Access-Control-Allow-Origin") != "https://app.example.com" || h.Get("Access-Control-Allow-Credentials") != "true" ||
					h.Get("Access-Control-Expose-Headers") == "" {
					t.Errorf("headers %v", h)
				}
			})
		}
	}
}

func TestRESTMessagesThatCannotBeEvaluated(t *testing.T) {
	t.Parallel()
	big := `{"username":"` + strings.Repeat("x", 2000) + `"}`
	for _, test := range []struct {
		name, contentType, encoding, body, reason string
		code                                      codes.Code
		status                                    int
		only                                      string // the phase
	}{
		{"not JSON", "application/json", "", "nonsense", "undecodable", codes.InvalidArgument, 400, ""},
		{"wrong type", "application/json", "", `{"username":1,"userId":1}`, "undecodable", codes.InvalidArgument, 400, ""},
		{"not gzip", "application/json", "gzip", "abc", "undecodable", codes.InvalidArgument, 400, ""},
		{"zstd", "application/json", "zstd", "abc", "encoding", codes.Unimplemented, 501, ""},
		{"two encodings", "application/json", "gzip, zstd", "abc", "encoding", codes.Unimplemented, 501, ""},
		{"too large", "application/json", "", big, "too_large", codes.ResourceExhausted, 429, ""},
		{"too large once decompressed", "application/json", "gzip", string(encoded(t, "gzip", big)), "too_large", codes.ResourceExhausted, 429, ""},
		{"not JSON by its type", "application/octet-stream", "", "{}", "undecodable", codes.Internal, 500, "response"},
		{"a web page", "text/html", "", "<html>", "undecodable", codes.Internal, 500, "response"},
	} {
		for _, interrupt := range []bool{false, true} {
			for _, phase := range []string{"request", "response"} {
				if test.only != "" && test.only != phase {
					continue
				}
				t.Run(fmt.Sprintf("%s, interrupt %v, %s phase", test.name, interrupt, phase), func(t *testing.T) {
					t.Parallel()
					target := startTarget(t, "target", targetclient.KindCall, interrupt, nil)
					upstream, l := startListener(t, func(w http.ResponseWriter, _ *http.Request) {
						w.Header().Set("Content-Type", test.contentType)
						if phase == "request" {
							_, _ = io.WriteString(w, "{}")
							return
						}
						if test.encoding != "" {
							w.Header().Set("Content-Encoding", test.encoding)
						}
						_, _ = io.WriteString(w, test.body)
					})
					g := startGateway(t, upstream, func(o *proxy.Options) {
						withExecutions(t, targetsOf(target), on(t, phase, "target"))(o)
						o.Schema = func() *schema.Schema { return demoSchema() }
						o.MaxMessageBytes = 1000
						o.Logger = nil
					})
					sent, header := test.body, []string{"Content-Type", test.contentType}
					if phase == "response" {
						sent = "{}"
					} else if test.encoding != "" {
						header = append(header, "Content-Encoding", test.encoding)
					}
					res, body := call(t, g, "POST", "/v2/users/human", sent, header...)
					code, status := test.code, test.status
					if phase == "response" && code == codes.InvalidArgument {
						code, status = codes.Internal, 500
					}
					var e struct {
						Code    codes.Code `json:"code"`
						Message string     `json:"message"`
					}
					switch {
					case interrupt:
						if err := json.Unmarshal([]byte(body), &e); err != nil || e.Code != code || res.StatusCode != status {
							t.Errorf("%d %s", res.StatusCode, body)
						}
						name := map[string]string{"request": "zitadel.user.v2.AddHumanUserRequest", "response": "zitadel.user.v2.AddHumanUserResponse"}[phase]
						if test.reason != "encoding" && !strings.Contains(e.Message, name) {
							t.Errorf("message %q", e.Message)
						}
						if (res.Header.Get("Accept-Encoding") != "") != (test.reason == "encoding") {
							t.Errorf("headers %v", res.Header)
						}
					case phase == "request" && (res.StatusCode != 200 || body != "{}"), phase == "response" && body != test.body:
						t.Errorf("%d %q", res.StatusCode, body)
					}
					heard := l.take()
					if called := len(heard) == 1; called != (!interrupt || phase == "response") || called && heard[0].body != sent {
						t.Errorf("upstream got %v", heard)
					}
					g.observed.next(t)
					if got := g.observed.unevaluated; !slices.Equal(got, []string{phase + " " + test.reason}) {
						t.Errorf("unevaluated %v", got)
					}
				})
			}
		}
	}
}

// TestRESTAnswersThatAreNoSuccessPass, and those without a message.
func TestRESTAnswersThatAreNoSuccessPass(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		status int
		body   string
		code   string
	}{
		{204, "", "OK"},
		{200, "", "OK"},
		{304, "", "OK"},
		{302, `{"userId":"x"}`, "OK"},
		{400, `{"code":9,"message":"m","details":[]}`, "FailedPrecondition"},
		{404, "not found", "NotFound"},
		{405, `{"code":12}`, "Unimplemented"},
		{409, "{}", "AlreadyExists"},
		{499, "", "Canceled"},
		{500, `{"code":99}`, "Unknown"},
		{502, "<html>", "Unavailable"},
		{504, "", "DeadlineExceeded"},
	} {
		t.Run(fmt.Sprintf("%d %s", test.status, test.body), func(t *testing.T) {
			t.Parallel()
			upstream, _ := startListener(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				w.Header().Set("Etag", `"1"`)
				w.WriteHeader(test.status)
				_, _ = io.WriteString(w, test.body)
			})
			target := startTarget(t, "target", targetclient.KindCall, true, func(envelope) (int, string) { return 500, "" })
			g := demoGateway(t, upstream, targetsOf(target), on(t, "response", "target"))
			res, body := call(t, g, "DELETE", "/v2/users/5", "", "If-None-Match", `"1"`)
			if res.StatusCode != test.status || body != test.body || res.Header.Get("Etag") != `"1"` || len(target.received()) != 0 {
				t.Errorf("%d %q %v", res.StatusCode, body, res.Header)
			}
			if got := g.observed.next(t); got != (request{"rest", deleteUser, test.code}) {
				t.Errorf("recorded %v", got)
			}
		})
	}
}

func TestRESTErrorsOfTheGatewayItself(t *testing.T) {
	t.Parallel()
	t.Run("upstream down", func(t *testing.T) {
		t.Parallel()
		target := startTarget(t, "target", targetclient.KindWebhook, true, nil)
		for _, matched := range []string{"request" + addUser, "request" + deleteUser} {
			g := demoGateway(t, "http://"+closedPort(t), targetsOf(target), on(t, matched, "target"))
			res, body := call(t, g, "DELETE", "/v2/users/5", "")
			if res.StatusCode != 503 || body != `{"code":14,"message":"upstream is not available"}` {
				t.Errorf("%d %s", res.StatusCode, body)
			}
			if got := g.observed.next(t); got != (request{"rest", deleteUser, "Unavailable"}) {
				t.Errorf("recorded %v", got)
			}
			if res, body = call(t, g, "GET", "/ui/login", ""); res.StatusCode != 502 || !strings.HasPrefix(res.Header.Get("Content-Type"), "text/plain") {
				t.Errorf("not a route: %d %s", res.StatusCode, body)
			}
		}
	})
	t.Run("no configuration", func(t *testing.T) {
		t.Parallel()
		upstream, _ := startListener(t, nil)
		g := startGateway(t, upstream, func(o *proxy.Options) {
			o.Schema = func() *schema.Schema { return demoSchema() }
			o.Snapshot = func() *dispatcher.Snapshot { return nil }
		})
		if res, body := call(t, g, "DELETE", "/v2/users/5", ""); res.StatusCode != 503 || !sameJSON(t, body, `{"code":14,"message":"configuration of the gateway is not loaded"}`) {
			t.Errorf("%d %s", res.StatusCode, body)
		}
	})
	t.Run("origins", func(t *testing.T) {
		t.Parallel()
		g := startGateway(t, "http://"+closedPort(t), func(o *proxy.Options) {
			o.Schema = func() *schema.Schema { return demoSchema() }
			o.CORS.AllowedOrigins = []string{"https://good.example.com"}
		})
		for origin, want := range map[string]string{"https://good.example.com": "https://good.example.com", "https://bad.example.com": ""} {
			res, _ := call(t, g, "DELETE", "/v2/users/5", "", "Origin", origin)
			if res.StatusCode != 503 || res.Header.Get("Access-Control-Allow-Origin") != want {
				t.Errorf("%s: %d %v", origin, res.StatusCode, res.Header)
			}
			res, _ = call(t, g, "OPTIONS", "/v2/users/5", "", "Origin", origin, "Access-Control-Request-Method", "DELETE")
			if res.StatusCode != 204 || res.Header.Get("Access-Control-Allow-Origin") != want {
				t.Errorf("preflight of %s: %d %v", origin, res.StatusCode, res.Header)
			}
		}
	})
	t.Run("a rewrite that leads to another method", func(t *testing.T) {
		t.Parallel()
		upstream, l := startListener(t, nil)
		target := rewriting(t, "target", func(m jsonObject) { m["book"] = jsonObject{"id": "newest"} })
		g := demoGateway(t, upstream, targetsOf(target), on(t, "request"+routeService+"GetBook", "target"))
		res, body := call(t, g, "GET", "/demo/v1/books/5", "")
		if res.StatusCode != 400 || !strings.Contains(body, "ACTION-4m9s2") || len(l.take()) != 0 {
			t.Errorf("%d %s", res.StatusCode, body)
		}
	})
}

// TestRESTErrorsOfTheUpstreamPassByteForByte, with a rule on the call and without.
func TestRESTErrorsOfTheUpstreamPassByteForByte(t *testing.T) {
	t.Parallel()
	upstream, _ := startDemo(t)
	target := startTarget(t, "target", targetclient.KindWebhook, true, nil)
	plain := demoGateway(t, upstream, nil)
	matched := demoGateway(t, upstream, targetsOf(target), on(t, "request", "target"), on(t, "response", "target"))
	for _, body := range []string{`{"code":5,"message":"ä"}`, `{"code":9}`, `{"code":16,"details":[{"@type":"type.googleapis.com/execgate.demo.v1.Nested","name":"n"}]}`} {
		var first string
		for i, url := range []string{upstream, plain.url(), matched.url()} {
			res := get(t, webClient(t), "POST", url+"/demo/v1/fail", strings.NewReader(body))
			got := fmt.Sprintf("%d %s %s", res.StatusCode, res.Header.Get("Content-Type"), readAll(t, res.Body))
			if i == 0 {
				first = got
			} else if normal(got) != normal(first) {
				t.Errorf("%q, directly %q", got, first)
			}
		}
	}
	want := request{"rest", demoService + "Fail", "Unauthenticated"}
	for range 3 {
		matched.observed.next(t)
	}
	if got := matched.observed.requests[2]; got != want {
		t.Errorf("recorded %v", got)
	}
}

// normal takes out the blanks that protojson strews in at random.
func normal(s string) string { return strings.ReplaceAll(s, " ", "") }

// TestMalformedBodiesAreTold: whoever sends chunks that are none reads so, whether the call matches or not.
func TestMalformedBodiesAreTold(t *testing.T) {
	t.Parallel()
	upstream, _ := startListener(t, nil)
	target := startTarget(t, "target", targetclient.KindWebhook, true, func(envelope) (int, string) { return 200, "" })
	for name, g := range map[string]*gateway{
		"matched":   demoGateway(t, upstream, targetsOf(target), on(t, "request"+addUser, "target")),
		"unmatched": demoGateway(t, upstream, targetsOf(target), on(t, "request"+deleteUser, "target")),
	} {
		conn := dialTCP(t, g.addr, nil)
		if _, err := io.WriteString(conn, "POST /v2/users/human HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"+
			"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\nzz\r\n"); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if body := readAll(t, res.Body); res.StatusCode != 400 || !strings.Contains(body, "body of the request is malformed") {
			t.Errorf("%s: %d %s", name, res.StatusCode, body)
		}
	}
}
