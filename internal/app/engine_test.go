package app_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"

	demopb "github.com/execgate/execgate/gen/execgate/demo/v1"
	"github.com/execgate/execgate/internal/testkit"
)

// TestBothEnginesServeTheProxyPort: calls that match nothing, calls that match, and HTTP/1.1 on one port.
func TestBothEnginesServeTheProxyPort(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{"h2", "nethttp"} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			testEngine(t, engine)
		})
	}
}

func testEngine(t *testing.T, engine string) {
	t.Helper()
	api, addr := upstream(t, "127.0.0.1:0")
	c := configuration(t, addr)
	c.Proxy.Engine = engine
	g := start(t, c).learned()
	target := testkit.NewTarget(t, testkit.TargetOptions{})
	target.Answer(testkit.Answer{Body: veto})
	g.onRequest(addHumanUser, g.createTarget(interrupting(webhook("guard", target.URL))))
	if code := g.add("ada"); code != codes.PermissionDenied {
		t.Errorf("matched: %v", code)
	}
	if n := api.Count(addHumanUser); n != 0 {
		t.Errorf("the upstream was called %d times", n)
	}
	text := strings.Repeat("x", 100<<10)
	res, err := g.streams.Echo(t.Context(), &demopb.EchoRequest{Text: text})
	if err != nil || res.GetEcho().GetText() != text {
		t.Errorf("relayed: %v", err)
	}
	until(t, "both calls are counted", func() bool {
		return g.metric(`execgate_requests_total{code="OK",method="/execgate.demo.v1.StreamService/Echo",protocol="grpc"}`) == "1" &&
			g.metric(`execgate_requests_total{code="PermissionDenied",method="`+addHumanUser+`",protocol="grpc"}`) == "1"
	})
	web, err := http.Get("http://" + g.Addresses().Proxy.String() + "/nothing/here")
	if err != nil {
		t.Fatal(err)
	}
	_ = web.Body.Close()
	if web.ProtoMajor != 1 {
		t.Errorf("HTTP/1.1 was answered with %s", web.Proto)
	}
	if err := g.Stop(t.Context()); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// TestLimitsAreCounted: what the engine limits is in the metrics of the gateway.
func TestLimitsAreCounted(t *testing.T) {
	t.Parallel()
	_, addr := upstream(t, "127.0.0.1:0")
	g := start(t, configuration(t, addr))
	conn, err := net.Dial("tcp", g.Addresses().Proxy.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(conn, conn)
	for range 1000 {
		if framer.WriteSettings() != nil {
			break
		}
	}
	_, _ = io.Copy(io.Discard, conn) // until the gateway ends it
	until(t, "the flood is counted", func() bool { return g.metric(`execgate_h2_limited_total{reason="settings_flood"}`) == "1" })
}

// TestRefusedRequestsAreCounted: so is what is no request in HTTP/1.1.
func TestRefusedRequestsAreCounted(t *testing.T) {
	t.Parallel()
	_, addr := upstream(t, "127.0.0.1:0")
	g := start(t, configuration(t, addr))
	for request, status := range map[string]string{
		"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n":                                    "400",
		"GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 2<<20) + "\r\n\r\n":      "431",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n": "501",
	} {
		conn, err := net.Dial("tcp", g.Addresses().Proxy.String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		go func() { _, _ = io.WriteString(conn, request) }() // The answer may come before all is sent.
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%.40q: %v", request, err)
		}
		_ = response.Body.Close()
		if got := strconv.Itoa(response.StatusCode); got != status {
			t.Errorf("%.40q was answered %s, want %s", request, got, status)
		}
		until(t, "the request is counted", func() bool { return g.metric(`execgate_h1_refused_total{code="`+status+`"}`) == "1" })
	}
}
