package proxy_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/execgate/execgate/conditions"
	demopb "github.com/execgate/execgate/gen/execgate/demo/v1"
	"github.com/execgate/execgate/gen/execgate/demo/v1/demopbconnect"
	"github.com/execgate/execgate/internal/testkit/demoapi"
	"github.com/execgate/execgate/proxy"
	"github.com/execgate/execgate/schema"
	"github.com/execgate/execgate/targetclient"
)

const (
	demoService = "/execgate.demo.v1.StreamService/"
	echoMethod  = demoService + "Echo"
	peekMethod  = demoService + "Peek"
	countMethod = demoService + "Count"
)

var demoSchema = sync.OnceValue(func() *schema.Schema {
	s, err := schema.FromDescriptorSet(demoapi.DescriptorSet())
	if err != nil {
		panic(err)
	}
	return s
})

// startDemo starts the demo identity API, which serves every protocol on one port.
func startDemo(t *testing.T) (url string, api *demoapi.Server) {
	t.Helper()
	api = demoapi.New(demoapi.Options{})
	addr, err := api.Start(testContext(t), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = api.Stop(ctx)
	})
	return "http://" + addr, api
}

// demoGateway is a gateway in front of the demo API.
func demoGateway(t *testing.T, upstream string, targets []*targetclient.Target, executions ...conditions.Execution) *gateway {
	t.Helper()
	return startGateway(t, upstream, func(o *proxy.Options) {
		withExecutions(t, targets, executions...)(o)
		o.Schema = func() *schema.Schema { return demoSchema() }
	})
}

// h2cClient is an HTTP client that speaks HTTP/2 without TLS.
func h2cClient(t *testing.T) *http.Client {
	t.Helper()
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// addTexts makes targets that leave a mark on the request and on the response of Echo and Peek.
func addTexts(t *testing.T) []*scriptedTarget {
	t.Helper()
	in := startTarget(t, "in", targetclient.KindCall, true, func(e envelope) (int, string) {
		var m demopb.EchoRequest
		if err := protojson.Unmarshal(e.Request, &m); err != nil {
			return 500, ""
		}
		m.Text += "+in"
		b, _ := protojson.Marshal(&m)
		return 200, string(b)
	})
	out := startTarget(t, "out", targetclient.KindCall, true, func(e envelope) (int, string) {
		var m demopb.EchoResponse
		if err := protojson.Unmarshal(e.Response, &m); err != nil || !strings.Contains(string(e.Request), "+in") {
			return 500, ""
		}
		m.Echo.Text += "+out"
		b, _ := protojson.Marshal(&m)
		return 200, string(b)
	})
	return []*scriptedTarget{in, out}
}

func TestConnectCalls(t *testing.T) {
	t.Parallel()
	upstream, _ := startDemo(t)
	marks := addTexts(t)
	for _, matched := range []bool{false, true} {
		var executions []conditions.Execution
		want := "hello"
		if matched {
			executions, want = []conditions.Execution{on(t, "request", "in"), on(t, "response", "out")}, "hello+in+out"
		}
		g := demoGateway(t, upstream, targetsOf(marks...), executions...)
		for name, o := range map[string][]connect.ClientOption{
			"proto":         nil,
			"json":          {connect.WithProtoJSON()},
			"proto, gzip":   {connect.WithSendGzip()},
			"json, gzip":    {connect.WithProtoJSON(), connect.WithSendGzip()},
			"get":           {connect.WithHTTPGet()},
			"get json":      {connect.WithHTTPGet(), connect.WithProtoJSON()},
			"get json gzip": {connect.WithHTTPGet(), connect.WithProtoJSON(), connect.WithSendGzip()},
		} {
			for _, http2 := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, matched %v, http2 %v", name, matched, http2), func(t *testing.T) {
					t.Parallel()
					c := webClient(t)
					if http2 {
						c = h2cClient(t)
					}
					client := demopbconnect.NewStreamServiceClient(c, g.url(), o...)
					in := &demopb.EchoRequest{Text: "hello", Words: []string{"a", "b"}, Number: 1 << 60, Data: []byte{0, 255}}
					res, err := client.Echo(testContext(t), in)
					if strings.HasPrefix(name, "get") {
						res, err = client.Peek(testContext(t), in)
					}
					if err != nil {
						t.Fatal(err)
					}
					if e := res.GetEcho(); e.GetText() != want || e.GetNumber() != 1<<60 || !bytes.Equal(e.GetData(), in.Data) || len(e.GetWords()) != 2 {
						t.Errorf("got %v", e)
					}
					if res.GetProtocol() != "connect" || res.GetHost() != g.addr {
						t.Errorf("upstream saw %q, %q", res.GetProtocol(), res.GetHost())
					}
				})
			}
		}
	}
	for _, target := range marks {
		for _, e := range target.received() {
			if e.FullMethod != echoMethod && e.FullMethod != peekMethod {
				t.Errorf("envelope %+v", e)
			}
		}
	}
}

func TestConnectLabels(t *testing.T) {
	t.Parallel()
	upstream, _ := startDemo(t)
	g := demoGateway(t, upstream, nil)
	client := demopbconnect.NewStreamServiceClient(webClient(t), g.url())
	if _, err := client.Echo(testContext(t), &demopb.EchoRequest{}); err != nil {
		t.Fatal(err)
	}
	if got := g.observed.next(t); got != (request{"connect", echoMethod, "OK"}) {
		t.Errorf("observed %v", got)
	}
	for code, name := range map[int32]string{3: "InvalidArgument", 9: "FailedPrecondition", 10: "Aborted", 6: "AlreadyExists", 15: "DataLoss"} {
		_, err := client.Fail(testContext(t), &demopb.FailRequest{Code: code, Message: "as told"})
		if int32(connect.CodeOf(err)) != code {
			t.Errorf("code %d: %v", code, err)
		}
		if got := g.observed.next(t); got != (request{"connect", demoService + "Fail", name}) {
			t.Errorf("observed %v", got)
		}
	}
	s, err := client.Count(testContext(t), &demopb.CountRequest{To: 3, Code: 5})
	if err != nil {
		t.Fatal(err)
	}
	for s.Receive() {
	}
	if connect.CodeOf(s.Err()) != connect.CodeNotFound {
		t.Errorf("stream ended with %v", s.Err())
	}
	if got := g.observed.next(t); got != (request{"connect", countMethod, "NotFound"}) {
		t.Errorf("observed %v", got)
	}
}

func TestConnectErrorsOfTheUpstreamPassByteForByte(t *testing.T) {
	t.Parallel()
	upstream, _ := startDemo(t)
	quiet := startTarget(t, "quiet", targetclient.KindWebhook, true, nil)
	g := demoGateway(t, upstream, targetsOf(quiet), on(t, "request", "quiet"), on(t, "response", "quiet"))
	body := `{"code":9,"message":"as told","details":[{"@type":"type.googleapis.com/execgate.demo.v1.EchoRequest","text":"x"}]}`
	call := func(base string) (int, string, http.Header) {
		res := get(t, webClient(t), "POST", base+demoService+"Fail", strings.NewReader(body), "Content-Type", "application/json")
		return res.StatusCode, readAll(t, res.Body), res.Header
	}
	status, text, _ := call(upstream)
	gotStatus, gotText, _ := call(g.url())
	if status != gotStatus || text != gotText || !strings.Contains(text, "failed_precondition") {
		t.Errorf("direct %d %s, through %d %s", status, text, gotStatus, gotText)
	}
	if got := g.observed.next(t); got != (request{"connect", demoService + "Fail", "FailedPrecondition"}) {
		t.Errorf("observed %v", got)
	}
}

func TestConnectVetoes(t *testing.T) {
	t.Parallel()
	upstream, api := startDemo(t)
	veto := startTarget(t, "veto", targetclient.KindWebhook, true, func(envelope) (int, string) {
		return 200, `{"forwardedStatusCode":409,"forwardedErrorMessage":"taken"}`
	})
	g := demoGateway(t, upstream, targetsOf(veto), on(t, "request", "veto"))
	detail := base64.RawStdEncoding.EncodeToString([]byte("\n\x0fEXEC-reUaUZCzCp\x12\x05taken"))
	const message = "taken (EXEC-reUaUZCzCp)"
	for _, contentType := range []string{"application/json", "application/proto", "Application/JSON; charset=utf-8"} {
		body := "{}"
		if contentType == "application/proto" {
			body = ""
		}
		res := get(t, webClient(t), "POST", g.url()+echoMethod, strings.NewReader(body), "Content-Type", contentType)
		want := `{"code":"already_exists","message":"` + message + `","details":[{"type":"zitadel.v1.ErrorDetail","value":"` + detail + `"}]}`
		if got := readAll(t, res.Body); res.StatusCode != 409 || got != want || res.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %s", contentType, res.StatusCode, got)
		}
		if got := g.observed.next(t); got != (request{"connect", echoMethod, "AlreadyExists"}) {
			t.Errorf("observed %v", got)
		}
	}
	// A server stream says it in its last frame.
	s, err := demopbconnect.NewStreamServiceClient(webClient(t), g.url()).Count(testContext(t), &demopb.CountRequest{To: 3})
	if err != nil {
		t.Fatal(err)
	}
	if s.Receive() {
		t.Error("a message came")
	}
	var e *connect.Error
	if !errors.As(s.Err(), &e) || e.Code() != connect.CodeAlreadyExists || e.Message() != message || len(e.Details()) != 1 {
		t.Errorf("stream: %v", s.Err())
	}
	if n := api.Count(echoMethod) + api.Count(countMethod); n != 0 {
		t.Errorf("the upstream was called %d times", n)
	}
}

func TestConnectStreams(t *testing.T) {
	t.Parallel()
	upstream, _ := startDemo(t)
	rewrite := startTarget(t, "rewrite", targetclient.KindCall, true, func(e envelope) (int, string) {
		if e.FullMethod != countMethod {
			return 200, `{"forwardedStatusCode":403}`
		}
		return 200, `{"to":2}`
	})
	never := startTarget(t, "never", targetclient.KindWebhook, true, func(envelope) (int, string) { return 500, "" })
	g := demoGateway(t, upstream, targetsOf(rewrite, never), on(t, "request", "rewrite"), on(t, "response", "never"))
	for _, o := range [][]connect.ClientOption{nil, {connect.WithProtoJSON()}, {connect.WithSendGzip()}} {
		client := demopbconnect.NewStreamServiceClient(h2cClient(t), g.url(), o...)
		s, err := client.Count(testContext(t), &demopb.CountRequest{To: 5})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for s.Receive() {
			n++
		}
		if s.Err() != nil || n != 2 {
			t.Errorf("%d messages, %v", n, s.Err())
		}
		chat, err := client.Chat(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			if err := chat.Send(&demopb.ChatRequest{Text: fmt.Sprint(i)}); err != nil {
				t.Fatal(err)
			}
			if m, err := chat.Receive(); err != nil || !strings.Contains(m.GetText(), fmt.Sprint(i)) {
				t.Fatalf("%v, %v", m, err)
			}
		}
		if err := chat.CloseRequest(); err != nil {
			t.Fatal(err)
		}
		if err := chat.CloseResponse(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestConnectJSONChangesOnlyWhatTheTargetChanged(t *testing.T) {
	t.Parallel()
	const original = `{ "unknown": [1], "text":"a",  "number": 7, "flag": false, "colour": 1 }`
	seen := make(chan string, 1)
	upstream := startWeb(t, false, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b := new(bytes.Buffer)
		_, _ = b.ReadFrom(r.Body)
		seen <- b.String()
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Etag", `"strong"`)
		w.Header().Set("X-Kept", "1")
		_, _ = w.Write([]byte(`{ "echo": {"text":"b", "words":[]}, "later": true }`))
	}))
	in := startTarget(t, "in", targetclient.KindCall, true, func(e envelope) (int, string) {
		return 200, strings.Replace(string(e.Request), `"a"`, `"A"`, 1)
	})
	out := startTarget(t, "out", targetclient.KindCall, true, func(e envelope) (int, string) {
		return 200, strings.Replace(string(e.Response), `"b"`, `"B"`, 1)
	})
	g := demoGateway(t, upstream, targetsOf(in, out), on(t, "request", "in"), on(t, "response", "out"))
	res := get(t, webClient(t), "POST", g.url()+echoMethod, strings.NewReader(original), "Content-Type", "application/json", "Content-Md5", "x")
	if got, want := <-seen, `{"unknown":[1],"text":"A","number":7,"flag":false,"colour":1}`; got != want {
		t.Errorf("upstream got %s, want %s", got, want)
	}
	if got, want := readAll(t, res.Body), `{"echo":{"text":"B","words":[]},"later":true}`; got != want {
		t.Errorf("client got %s, want %s", got, want)
	}
	if res.Header.Get("Etag") != "" || res.Header.Get("X-Kept") != "1" {
		t.Errorf("headers %v", res.Header)
	}
	// What is not changed keeps its very bytes, and its ETag.
	same := startTarget(t, "same", targetclient.KindWebhook, true, nil)
	g = demoGateway(t, upstream, targetsOf(same), on(t, "request", "same"), on(t, "response", "same"))
	res = get(t, webClient(t), "POST", g.url()+echoMethod, strings.NewReader(original), "Content-Type", "application/json")
	if got := <-seen; got != original {
		t.Errorf("upstream got %s", got)
	}
	if got := readAll(t, res.Body); got != `{ "echo": {"text":"b", "words":[]}, "later": true }` || res.Header.Get("Etag") != `"strong"` {
		t.Errorf("client got %s, %v", got, res.Header)
	}
}

func TestConnectGetIsRewrittenInPlace(t *testing.T) {
	t.Parallel()
	seen := make(chan string, 1)
	upstream := startWeb(t, false, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen <- r.RequestURI
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{}`))
	}))
	in := startTarget(t, "in", targetclient.KindCall, true, func(envelope) (int, string) { return 200, `{"text":"B &"}` })
	g := demoGateway(t, upstream, targetsOf(in), on(t, "request", "in"))
	for query, want := range map[string]string{
		"?connect=v1&encoding=json&message=%7B%22text%22%3A%22a%22%7D&x=%2f": "?connect=v1&encoding=json&message=" + url.QueryEscape(`{"text":"B &"}`) + "&x=%2f",
		"?message=eyJ0ZXh0IjoiYSJ9&base64=1&encoding=json":                   "?message=" + base64.RawURLEncoding.EncodeToString([]byte(`{"text":"B &"}`)) + "&base64=1&encoding=json",
		"?encoding=proto&base64=1&message=CgFh":                              "?encoding=proto&base64=1&message=" + base64.RawURLEncoding.EncodeToString([]byte("\n\x03B &")),
	} {
		get(t, webClient(t), "GET", g.url()+peekMethod+query, nil)
		if got := <-seen; got != peekMethod+want {
			t.Errorf("%s: upstream got %s, want %s", query, got, want)
		}
	}
	// A method with side effects cannot be called so; it passes to be refused.
	get(t, webClient(t), "GET", g.url()+echoMethod+"?encoding=json&message=%7B%7D", nil)
	if got := <-seen; !strings.HasPrefix(got, echoMethod) {
		t.Errorf("upstream got %s", got)
	}
	if n := len(in.received()); n != 3 {
		t.Errorf("%d calls", n)
	}
}

func TestConnectMessagesThatCannotBeEvaluated(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, contentType, encoding, body, reason, code string
		status                                          int
	}{
		{"not JSON", "application/json", "", "nonsense", "undecodable", "invalid_argument", 400},
		{"no message", "application/json", "", "", "undecodable", "invalid_argument", 400},
		{"wrong type", "application/json", "", `{"text":1,"echo":1}`, "undecodable", "invalid_argument", 400},
		{"not proto", "application/proto", "", "\xff", "undecodable", "invalid_argument", 400},
		{"not gzip", "application/proto", "gzip", "abc", "undecodable", "invalid_argument", 400},
		{"not brotli", "application/json", "br", "\xff\xff", "undecodable", "invalid_argument", 400},
		{"zstd", "application/json", "zstd", "abc", "encoding", "unimplemented", 501},
		{"too large", "application/json", "", `{"text":"` + strings.Repeat("x", 2000) + `"}`, "too_large", "resource_exhausted", 429},
		{"too large once decompressed", "application/json", "gzip", string(compressed(t, []byte(`{"text":"`+strings.Repeat("x", 2000)+`"}`))[5:]), "too_large", "resource_exhausted", 429},
		{"too large once unbrotlied", "application/json", "br", string(encoded(t, "br", `{"text":"`+strings.Repeat("x", 2000)+`"}`)), "too_large", "resource_exhausted", 429},
	} {
		for _, interrupt := range []bool{false, true} {
			for _, phase := range []string{"request", "response"} {
				t.Run(fmt.Sprintf("%s, interrupt %v, %s phase", test.name, interrupt, phase), func(t *testing.T) {
					t.Parallel()
					target := startTarget(t, "target", targetclient.KindCall, interrupt, nil)
					seen := make(chan string, 1)
					fine := "{}"
					if test.contentType == "application/proto" {
						fine = ""
					}
					upstream := startWeb(t, false, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						b := new(bytes.Buffer)
						_, _ = b.ReadFrom(r.Body)
						seen <- b.String()
						w.Header().Set("Content-Type", test.contentType)
						if phase == "request" {
							_, _ = w.Write([]byte(fine))
							return
						}
						if test.encoding != "" {
							w.Header().Set("Content-Encoding", test.encoding)
						}
						_, _ = w.Write([]byte(test.body))
					}))
					g := startGateway(t, upstream, func(o *proxy.Options) {
						withExecutions(t, targetsOf(target), on(t, phase, "target"))(o)
						o.Schema = func() *schema.Schema { return demoSchema() }
						o.MaxMessageBytes = 1000
						o.Logger = nil
					})
					sent, header := test.body, []string{"Content-Type", test.contentType}
					if phase == "response" {
						sent = fine
					} else if test.encoding != "" {
						header = append(header, "Content-Encoding", test.encoding)
					}
					res := get(t, webClient(t), "POST", g.url()+echoMethod, strings.NewReader(sent), header...)
					body := readAll(t, res.Body)
					wantCode, wantStatus := test.code, test.status
					if phase == "response" && wantCode == "invalid_argument" {
						wantCode, wantStatus = "internal", 500
					}
					if interrupt {
						var e struct {
							Code string `json:"code"`
						}
						if err := json.Unmarshal([]byte(body), &e); err != nil || e.Code != wantCode || res.StatusCode != wantStatus {
							t.Errorf("%d %s", res.StatusCode, body)
						}
						if (res.Header.Get("Accept-Encoding") != "") != (test.reason == "encoding") {
							t.Errorf("headers %v", res.Header)
						}
					} else {
						want := fine
						if phase == "response" {
							want = test.body
						}
						if res.StatusCode != 200 || body != want {
							t.Errorf("%d %q", res.StatusCode, body)
						}
					}
					if !interrupt || phase == "response" {
						if got := <-seen; got != sent {
							t.Errorf("upstream got %q", got)
						}
					} else if len(seen) != 0 {
						t.Error("the upstream was called")
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

func TestConnectDeadlines(t *testing.T) {
	t.Parallel()
	upstream, _ := startDemo(t)
	slow := startTarget(t, "slow", targetclient.KindWebhook, false, func(envelope) (int, string) {
		time.Sleep(30 * time.Millisecond) // Time that must be missing upstream.
		return 200, ""
	})
	g := demoGateway(t, upstream, targetsOf(slow), on(t, "request", "slow"))
	client := demopbconnect.NewStreamServiceClient(webClient(t), g.url())
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	res, err := client.Echo(ctx, &demopb.EchoRequest{})
	if left := res.GetTimeLeft().AsDuration(); err != nil || left <= 0 || left > 10*time.Second-30*time.Millisecond {
		t.Errorf("time left %v, %v", left, err)
	}
	answer := get(t, webClient(t), "POST", g.url()+echoMethod, strings.NewReader("{}"), "Content-Type", "application/json", "Connect-Timeout-Ms", "20")
	if got := readAll(t, answer.Body); answer.StatusCode != 504 || !strings.Contains(got, "deadline_exceeded") {
		t.Errorf("%d %s", answer.StatusCode, got)
	}
	answer = get(t, webClient(t), "POST", g.url()+demoService+"Wait", strings.NewReader("{}"), "Content-Type", "application/json", "Connect-Timeout-Ms", "150")
	if got := readAll(t, answer.Body); answer.StatusCode != 504 || !strings.Contains(got, "deadline_exceeded") {
		t.Errorf("%d %s", answer.StatusCode, got)
	}
}

func TestConnectUpstreamDown(t *testing.T) {
	t.Parallel()
	g := demoGateway(t, "http://"+closedPort(t), nil)
	res := get(t, webClient(t), "POST", g.url()+echoMethod, strings.NewReader("{}"), "Content-Type", "application/json")
	if got := readAll(t, res.Body); res.StatusCode != 503 || got != `{"code":"unavailable","message":"upstream is not available"}` {
		t.Errorf("%d %s", res.StatusCode, got)
	}
	s, err := demopbconnect.NewStreamServiceClient(webClient(t), g.url()).Count(testContext(t), &demopb.CountRequest{To: 3})
	if err != nil {
		t.Fatal(err)
	}
	if s.Receive() || connect.CodeOf(s.Err()) != connect.CodeUnavailable {
		t.Errorf("stream: %v", s.Err())
	}
}
