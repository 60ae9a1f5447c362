package proxy_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/improbable-eng/grpc-web/go/grpcweb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/execgate/execgate/conditions"
	"github.com/execgate/execgate/proxy"
	"github.com/execgate/execgate/targetclient"
)

// startWebUpstream is an upstream as identity servers are built: gRPC, and gRPC-Web by grpcweb, on one port.
func startWebUpstream(t *testing.T, service testpb.TestServiceServer) string {
	t.Helper()
	s := grpc.NewServer()
	testpb.RegisterTestServiceServer(s, service)
	t.Cleanup(s.Stop)
	web := grpcweb.WrapServer(s, grpcweb.WithOriginFunc(func(origin string) bool { return origin == "https://good.example.com" }),
		grpcweb.WithCorsForRegisteredEndpointsOnly(false))
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return "http://" + serveHTTP(t, &http.Server{Protocols: &protocols, ReadHeaderTimeout: testTimeout, Handler: http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			if r.ProtoMajor == 2 && r.Header.Get("Content-Type") == "application/grpc+proto" {
				s.ServeHTTP(w, r)
				return
			}
			web.ServeHTTP(w, r)
		})})
}

// webAnswer is what a gRPC-Web client makes of an answer.
type webAnswer struct {
	status   int
	header   http.Header
	messages [][]byte
	trailer  map[string]string
}

// code is the status of the call, from wherever it came.
func (a webAnswer) code() string {
	if s := a.trailer["grpc-status"]; s != "" {
		return s
	}
	return a.header.Get("Grpc-Status")
}

// callWeb makes a gRPC-Web call, binary or text.
func callWeb(t *testing.T, c *http.Client, url string, text bool, body []byte, header ...string) webAnswer {
	t.Helper()
	contentType := "application/grpc-web+proto"
	if text {
		contentType = "application/grpc-web-text+proto"
		body = []byte(base64.StdEncoding.EncodeToString(body))
	}
	res := get(t, c, "POST", url, bytes.NewReader(body), append([]string{"Content-Type", contentType, "X-Grpc-Web", "1"}, header...)...)
	a := webAnswer{status: res.StatusCode, header: res.Header, trailer: map[string]string{}}
	b := []byte(readAll(t, res.Body))
	if got := res.Header.Get("Content-Type"); !strings.HasPrefix(got, contentType) {
		t.Errorf("answer to %s is %s", contentType, got)
	}
	if text {
		b = decodeWebText(t, b)
	}
	for len(b) >= 5 {
		n := int(binary.BigEndian.Uint32(b[1:]))
		if len(b) < 5+n {
			t.Fatalf("answer ends within a frame: %x", b)
		}
		frame := b[5 : 5+n]
		if b[0]&0x80 == 0 {
			a.messages = append(a.messages, frame)
		} else {
			for line := range strings.SplitSeq(strings.TrimSpace(string(frame)), "\r\n") {
				name, value, _ := strings.Cut(line, ":")
				a.trailer[strings.ToLower(name)] = strings.TrimSpace(value)
			}
		}
		b = b[5+n:]
	}
	if len(b) != 0 {
		t.Errorf("%d bytes too many", len(b))
	}
	return a
}

func decodeWebText(t *testing.T, b []byte) []byte {
	t.Helper()
	var out []byte
	for ; len(b) > 0; b = b[4:] {
		var part [3]byte
		if len(b) < 4 {
			t.Fatalf("text of odd length")
		}
		n, err := base64.StdEncoding.Decode(part[:], b[:4])
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, part[:n]...)
	}
	return out
}

func marshal(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// eachWeb runs a test for binary and text, over HTTP/1.1 and HTTP/2.
func eachWeb(t *testing.T, service testpb.TestServiceServer, change func(*proxy.Options), test func(t *testing.T, g *gateway, c *http.Client, text bool)) {
	t.Helper()
	for _, text := range []bool{false, true} {
		for _, useTLS := range []bool{false, true} {
			t.Run(fmt.Sprintf("text %v, http2 %v", text, useTLS), func(t *testing.T) {
				t.Parallel()
				var so proxy.ServerOptions
				if useTLS {
					so.TLS = certificates().server
				}
				test(t, startGatewayServer(t, startWebUpstream(t, service), change, so), webClient(t), text)
			})
		}
	}
}

func TestWebCallsPass(t *testing.T) {
	t.Parallel()
	eachWeb(t, echo(), nil, func(t *testing.T, g *gateway, c *http.Client, text bool) {
		in := marshal(t, &testpb.SimpleRequest{Payload: payload("hello")})
		a := callWeb(t, c, g.url()+unaryMethod, text, frameOf(in), "X-Echo-A", "1")
		var out testpb.SimpleResponse
		if len(a.messages) != 1 || proto.Unmarshal(a.messages[0], &out) != nil || string(out.GetPayload().GetBody()) != "hello" {
			t.Errorf("messages %q", a.messages)
		}
		if a.code() != "0" || a.header.Get("X-Echo-A") != "1" || a.trailer["trailing-x-echo-a"] != "1" {
			t.Errorf("answer %+v", a)
		}
		if got := g.observed.next(t); got != (request{"grpc_web", unaryMethod, "OK"}) {
			t.Errorf("observed %v", got)
		}
		in = marshal(t, &testpb.SimpleRequest{ResponseStatus: &testpb.EchoStatus{Code: int32(codes.NotFound), Message: "nobody"}})
		if a = callWeb(t, c, g.url()+unaryMethod, text, frameOf(in)); a.code() != "5" {
			t.Errorf("answer %+v", a)
		}
		if got := g.observed.next(t); got != (request{"grpc_web", unaryMethod, "NotFound"}) {
			t.Errorf("observed %v", got)
		}
	})
}

func TestWebCallsAreRewritten(t *testing.T) {
	t.Parallel()
	request := func(e envelope) (int, string) {
		if got := e.Headers["Content-Type"]; len(got) != 1 || !strings.HasPrefix(got[0], "application/grpc-web") {
			return 200, `{"forwardedStatusCode":400,"forwardedErrorMessage":"content type"}`
		}
		return 200, `{"payload":{"body":"` + base64.StdEncoding.EncodeToString([]byte("rewritten")) + `"}}`
	}
	response := func(e envelope) (int, string) {
		var m testpb.SimpleResponse
		if err := protojson.Unmarshal(e.Response, &m); err != nil {
			return 500, ""
		}
		m.Username += " and me"
		b, _ := protojson.Marshal(&m)
		return 200, string(b)
	}
	in := startTarget(t, "in", targetclient.KindCall, true, request)
	out := startTarget(t, "out", targetclient.KindCall, true, response)
	eachWeb(t, echo(), withExecutions(t, targetsOf(in, out), on(t, "request", "in"), on(t, "response", "out")),
		func(t *testing.T, g *gateway, c *http.Client, text bool) {
			a := callWeb(t, c, g.url()+unaryMethod, text, frameOf(marshal(t, &testpb.SimpleRequest{})), "X-Echo-A", "1")
			var m testpb.SimpleResponse
			if len(a.messages) != 1 || proto.Unmarshal(a.messages[0], &m) != nil || string(m.GetPayload().GetBody()) != "rewritten" || m.GetUsername() != "user and me" {
				t.Errorf("answer %+v, %v", a, &m)
			}
			if a.code() != "0" || a.header.Get("X-Echo-A") != "1" || a.trailer["trailing-x-echo-a"] != "1" {
				t.Errorf("answer %+v", a)
			}
			if got := g.observed.next(t); got.protocol != "grpc_web" || got.code != "OK" {
				t.Errorf("observed %v", got)
			}
			// The upstream's own error passes, status and details in the trailer frame.
			a = callWeb(t, c, g.url()+unaryMethod, text, frameOf(marshal(t, &testpb.SimpleRequest{})), "X-Status", "5")
			if a.code() != "0" {
				t.Errorf("answer %+v", a)
			}
		})
}

func TestWebErrorsOfTheUpstreamReachTheClient(t *testing.T) {
	t.Parallel()
	quiet := startTarget(t, "quiet", targetclient.KindWebhook, true, nil)
	eachWeb(t, echo(), withExecutions(t, targetsOf(quiet), on(t, "request", "quiet"), on(t, "response", "quiet")),
		func(t *testing.T, g *gateway, c *http.Client, text bool) {
			in := marshal(t, &testpb.SimpleRequest{ResponseStatus: &testpb.EchoStatus{Code: int32(codes.NotFound), Message: "nobody"}})
			a := callWeb(t, c, g.url()+unaryMethod, text, frameOf(in), "X-Echo-A", "1")
			if a.trailer["grpc-status"] != "5" || a.trailer["grpc-message"] != "nobody" || a.trailer["grpc-status-details-bin"] == "" {
				t.Errorf("answer %+v", a)
			}
			// A server stream runs its request phase and then streams.
			a = callWeb(t, c, g.url()+outputMethod, text, frameOf(marshal(t, &testpb.StreamingOutputCallRequest{
				ResponseParameters: []*testpb.ResponseParameters{{Size: 1}, {Size: 70_000}},
				ResponseStatus:     &testpb.EchoStatus{Code: int32(codes.DataLoss), Message: "end"},
			})))
			if len(a.messages) != 2 || a.trailer["grpc-status"] != "15" {
				t.Errorf("stream: %d messages, %v", len(a.messages), a.trailer)
			}
		})
}

func TestWebVetoesAreTrailerFrames(t *testing.T) {
	t.Parallel()
	veto := startTarget(t, "veto", targetclient.KindWebhook, true, func(envelope) (int, string) {
		return 200, `{"forwardedStatusCode":403,"forwardedErrorMessage":"nö"}`
	})
	for _, phase := range []string{"request", "response"} {
		eachWeb(t, echo(), withExecutions(t, targetsOf(veto), on(t, phase, "veto")), func(t *testing.T, g *gateway, c *http.Client, text bool) {
			a := callWeb(t, c, g.url()+unaryMethod, text, frameOf(nil), "Origin", "https://any.example.com")
			if a.status != 200 || a.trailer["grpc-status"] != "7" || a.trailer["grpc-message"] != "n%C3%B6 (EXEC-reUaUZCzCp)" || a.trailer["grpc-status-details-bin"] == "" {
				t.Errorf("answer %+v", a)
			}
			if a.header.Get("Access-Control-Allow-Origin") != "https://any.example.com" || a.header.Get("Access-Control-Expose-Headers") == "" {
				t.Errorf("headers %v", a.header)
			}
			if got := g.observed.next(t); got != (request{"grpc_web", unaryMethod, "PermissionDenied"}) {
				t.Errorf("observed %v", got)
			}
		})
	}
}

func TestWebMessagesThatCannotBeEvaluated(t *testing.T) {
	t.Parallel()
	strict := startTarget(t, "strict", targetclient.KindWebhook, true, nil)
	lenient := startTarget(t, "lenient", targetclient.KindWebhook, false, nil)
	two := append(frameOf(nil), frameOf(nil)...)
	eachWeb(t, echo(), withExecutions(t, targetsOf(strict), on(t, "request", "strict")), func(t *testing.T, g *gateway, c *http.Client, text bool) {
		for _, body := range [][]byte{frameOf([]byte{0xff}), nil, two, []byte("\x00\x00\x00\x00\x09a")} {
			if a := callWeb(t, c, g.url()+unaryMethod, text, body); a.code() != "3" {
				t.Errorf("%x: %+v", body, a)
			}
		}
	})
	// Untouched: the upstream sees the very bytes, and answers gRPC-Web itself.
	eachWeb(t, echo(), withExecutions(t, targetsOf(lenient), on(t, "request", "lenient")), func(t *testing.T, g *gateway, c *http.Client, text bool) {
		if a := callWeb(t, c, g.url()+unaryMethod, text, frameOf([]byte{0xff})); a.code() != "13" {
			t.Errorf("answer %+v", a)
		}
		g.observed.next(t)
		if got := g.observed.unevaluated; !slices.Equal(got, []string{"request undecodable"}) {
			t.Errorf("unevaluated %v", got)
		}
	})
}

func TestWebUpstreamDown(t *testing.T) {
	t.Parallel()
	quiet := startTarget(t, "quiet", targetclient.KindWebhook, true, nil)
	for _, executions := range [][]conditions.Execution{nil, {on(t, "request", "quiet")}} {
		g := startGateway(t, "http://"+closedPort(t), withExecutions(t, targetsOf(quiet), executions...))
		for _, text := range []bool{false, true} {
			if a := callWeb(t, webClient(t), g.url()+unaryMethod, text, frameOf(nil)); a.code() != "14" {
				t.Errorf("answer %+v", a)
			}
		}
	}
}

// TestOriginsAreTheUpstreamsToAllow: a matched call becomes gRPC, for which the upstream has no CORS; the gateway asks.
func TestOriginsAreTheUpstreamsToAllow(t *testing.T) {
	t.Parallel()
	quiet := startTarget(t, "quiet", targetclient.KindWebhook, true, nil)
	eachWeb(t, echo(), withExecutions(t, targetsOf(quiet), on(t, "request", "quiet")), func(t *testing.T, g *gateway, c *http.Client, text bool) {
		for origin, allowed := range map[string]string{"https://good.example.com": "https://good.example.com", "https://bad.example.com": "", "": ""} {
			var header []string
			if origin != "" {
				header = []string{"Origin", origin}
			}
			a := callWeb(t, c, g.url()+unaryMethod, text, frameOf(nil), header...)
			if a.code() != "0" || a.header.Get("Access-Control-Allow-Origin") != allowed {
				t.Errorf("%s: %+v", origin, a)
			}
		}
		res := get(t, c, "OPTIONS", g.url()+unaryMethod, nil, "Origin", "https://good.example.com",
			"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "x-grpc-web")
		if got := res.Header.Get("Access-Control-Allow-Origin"); got != "https://good.example.com" {
			t.Errorf("preflight %v", res.Header)
		}
	})
}

func TestPreflightsOfTheGateway(t *testing.T) {
	t.Parallel()
	veto := startTarget(t, "veto", targetclient.KindWebhook, true, func(envelope) (int, string) { return 500, "" })
	g := startGateway(t, "http://"+closedPort(t), func(o *proxy.Options) {
		withExecutions(t, targetsOf(veto), on(t, "request", "veto"))(o)
		o.CORS.AllowedOrigins = []string{"https://app.example.com"}
	})
	for origin, allowed := range map[string]string{"https://app.example.com": "https://app.example.com", "https://bad.example.com": ""} {
		res := get(t, webClient(t), "OPTIONS", g.url()+unaryMethod, nil, "Origin", origin,
			"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "x-grpc-web, authorization")
		h := res.Header
		if res.StatusCode != 204 || h.Get("Access-Control-Allow-Origin") != allowed {
			t.Errorf("%s: %d %v", origin, res.StatusCode, h)
		}
		if allowed != "" && (h.Get("Access-Control-Allow-Methods") != "POST" || h.Get("Access-Control-Allow-Headers") != "x-grpc-web, authorization" ||
			h.Get("Access-Control-Allow-Credentials") != "true") {
			t.Errorf("%s: %v", origin, h)
		}
		a := callWeb(t, webClient(t), g.url()+unaryMethod, false, frameOf(nil), "Origin", origin)
		if a.code() != "9" || a.header.Get("Access-Control-Allow-Origin") != allowed {
			t.Errorf("%s: %+v", origin, a)
		}
	}
}

// TestAnswersToOriginsThatAreNotAllowed: D-64, whatever the upstream says.
func TestAnswersToOriginsThatAreNotAllowed(t *testing.T) {
	t.Parallel()
	upstream := startWeb(t, false, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", r.Header.Get("Origin"))
		h.Set("Access-Control-Allow-Credentials", "true")
		h.Set("Access-Control-Expose-Headers", "X-Kept")
		h.Set("X-Kept", "yes")
	}))
	g := startGateway(t, upstream, func(o *proxy.Options) { o.CORS.AllowedOrigins = []string{"https://app.example.com"} })
	for origin, want := range map[string]string{"https://app.example.com": "https://app.example.com", "https://bad.example.com": ""} {
		h := get(t, webClient(t), "GET", g.url()+"/page", nil, "Origin", origin).Header
		if h.Get("Access-Control-Allow-Origin") != want || h.Get("X-Kept") != "yes" {
			t.Errorf("%s: %v", origin, h)
		}
		for name := range h {
			if want == "" && strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("%s: %s is left", origin, name)
			}
		}
		if want == "" && h.Get("Vary") != "Origin" { // or a cache hands the answer to an origin that is allowed
			t.Errorf("%s: Vary is %q", origin, h.Values("Vary"))
		}
	}
}

func TestWebSocketTransportIsNoWayAround(t *testing.T) {
	t.Parallel()
	strict := startTarget(t, "strict", targetclient.KindWebhook, true, nil)
	g := startGateway(t, startWebUpstream(t, echo()), withExecutions(t, targetsOf(strict), on(t, "request", "strict")))
	res := get(t, webClient(t), "GET", g.url()+unaryMethod, nil, "Connection", "Upgrade", "Upgrade", "websocket",
		"Sec-Websocket-Protocol", "grpc-websockets", "Sec-Websocket-Version", "13", "Sec-Websocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")
	if res.StatusCode != http.StatusForbidden {
		t.Errorf("status %d", res.StatusCode)
	}
}

func TestConnectClientSpeaksGRPCWebThroughTheGateway(t *testing.T) {
	t.Parallel()
	quiet := startTarget(t, "quiet", targetclient.KindWebhook, true, nil)
	for _, executions := range [][]conditions.Execution{nil, {on(t, "request", "quiet"), on(t, "response", "quiet")}} {
		g := startGateway(t, startWebUpstream(t, echo()), withExecutions(t, targetsOf(quiet), executions...))
		for _, o := range [][]connect.ClientOption{{connect.WithGRPCWeb()}, {connect.WithGRPCWeb(), connect.WithSendGzip()}} {
			c := connect.NewClient[testpb.SimpleRequest, testpb.SimpleResponse](webClient(t), g.url()+unaryMethod, o...)
			res, err := c.CallUnary(testContext(t), connect.NewRequest(&testpb.SimpleRequest{Payload: payload("hello")}))
			if err != nil || string(res.Msg.GetPayload().GetBody()) != "hello" {
				t.Errorf("%v, %v", res, err)
			}
			_, err = c.CallUnary(testContext(t), connect.NewRequest(&testpb.SimpleRequest{
				ResponseStatus: &testpb.EchoStatus{Code: int32(codes.NotFound), Message: "nobody"},
			}))
			if connect.CodeOf(err) != connect.CodeNotFound || !strings.Contains(err.Error(), "nobody") {
				t.Errorf("got %v", err)
			}
		}
	}
}
