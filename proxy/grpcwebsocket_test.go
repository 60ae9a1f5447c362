package proxy_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"net/http"
	"strings"
	"testing"
	"time"

	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/proto"
	"nhooyr.io/websocket"

	"github.com/execgate/execgate/conditions"
	"github.com/execgate/execgate/proxy"
	"github.com/execgate/execgate/targetclient"
)

// callWebSocket makes one call over a WebSocket: headers, messages, end; and returns what comes back.
func callWebSocket(t *testing.T, g *gateway, method string, messages ...[]byte) webAnswer {
	t.Helper()
	ctx := testContext(t)
	conn, res, err := websocket.Dial(ctx, g.url()+method, &websocket.DialOptions{Subprotocols: []string{"grpc-websockets"}})
	if err != nil {
		t.Fatalf("dial: %v, %v", err, res)
	}
	defer func() { _ = conn.Close(websocket.StatusNormalClosure, "") }()
	send := func(b []byte) {
		if err := conn.Write(ctx, websocket.MessageBinary, b); err != nil {
			t.Fatal(err)
		}
	}
	send([]byte("content-type: application/grpc-web+proto\r\nx-grpc-web: 1\r\nx-echo-a: 1\r\n"))
	for _, m := range messages {
		send(append([]byte{0}, frameOf(m)...))
	}
	send([]byte{1})
	var all []byte
	for {
		_, b, err := conn.Read(ctx)
		if err != nil {
			break
		}
		all = append(all, b...)
	}
	a := webAnswer{trailer: map[string]string{}, header: http.Header{}}
	for len(all) >= 5 {
		n := int(binary.BigEndian.Uint32(all[1:]))
		frame := all[5 : 5+n]
		if all[0] == 0 {
			a.messages = append(a.messages, frame)
		} else {
			for line := range strings.SplitSeq(strings.TrimSpace(string(frame)), "\r\n") {
				name, value, _ := strings.Cut(line, ":")
				a.trailer[strings.ToLower(name)] = strings.TrimSpace(value)
			}
		}
		all = all[5+n:]
	}
	return a
}

func TestWebSocketCallsWhereEnabled(t *testing.T) {
	t.Parallel()
	rewrite := startTarget(t, "rewrite", targetclient.KindCall, true, func(envelope) (int, string) { return 200, `{"payload":{"body":"QQ=="}}` })
	veto := startTarget(t, "veto", targetclient.KindWebhook, true, func(envelope) (int, string) {
		return 200, `{"forwardedStatusCode":403,"forwardedErrorMessage":"no"}`
	})
	upstream := startGRPC(t, false, echo()) // Which knows nothing of gRPC-Web.
	for _, test := range []struct {
		name       string
		executions []conditions.Execution
		status     string
		body       string
	}{
		{"nothing matches", nil, "0", "hello"},
		{"rewritten", []conditions.Execution{on(t, "request", "rewrite")}, "0", "A"},
		{"vetoed", []conditions.Execution{on(t, "request", "veto")}, "7", ""},
		{"vetoed in the response phase", []conditions.Execution{on(t, "response", "veto")}, "7", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			g := startGateway(t, upstream, func(o *proxy.Options) {
				withExecutions(t, targetsOf(rewrite, veto), test.executions...)(o)
				o.GRPCWebSockets = true
			})
			a := callWebSocket(t, g, unaryMethod, marshal(t, &testpb.SimpleRequest{Payload: payload("hello")}))
			if a.trailer["grpc-status"] != test.status {
				t.Errorf("answer %+v", a)
			}
			if test.body != "" {
				var m testpb.SimpleResponse
				if len(a.messages) != 1 || proto.Unmarshal(a.messages[0], &m) != nil || !bytes.Equal(m.GetPayload().GetBody(), []byte(test.body)) {
					t.Errorf("messages %q", a.messages)
				}
				if a.trailer["x-echo-a"] != "1" || a.trailer["trailing-x-echo-a"] != "1" {
					t.Errorf("metadata %v", a.trailer)
				}
			}
			if got := g.observed.next(t); got.protocol != "grpc_web" || got.method != unaryMethod {
				t.Errorf("observed %v", got)
			}
		})
	}
}

func TestWebSocketCallsOfOtherSitesAreRefused(t *testing.T) {
	t.Parallel()
	g := startGateway(t, startGRPC(t, false, echo()), func(o *proxy.Options) { o.GRPCWebSockets = true })
	res := get(t, webClient(t), "GET", g.url()+unaryMethod, nil, "Connection", "Upgrade", "Upgrade", "websocket", "Origin", "https://evil.example.com",
		"Sec-Websocket-Protocol", "grpc-websockets", "Sec-Websocket-Version", "13", "Sec-Websocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")
	if res.StatusCode != http.StatusForbidden {
		t.Errorf("status %d", res.StatusCode)
	}
}

func TestWebSocketCallsAreCutByDrain(t *testing.T) {
	t.Parallel()
	service := &echoService{began: make(chan context.Context, 1)}
	g := startGateway(t, startGRPC(t, false, service), func(o *proxy.Options) { o.GRPCWebSockets = true })
	conn, _, err := websocket.Dial(testContext(t), g.url()+"/grpc.testing.TestService/FullDuplexCall", &websocket.DialOptions{Subprotocols: []string{"grpc-websockets"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(websocket.StatusGoingAway, "") }()
	if err := conn.Write(testContext(t), websocket.MessageBinary, []byte("content-type: application/grpc-web+proto\r\n")); err != nil {
		t.Fatal(err)
	}
	upstream := <-service.began
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if cut := g.server.Drain(ctx); cut != 1 {
		t.Errorf("%d cut", cut)
	}
	select {
	case <-upstream.Done():
	case <-time.After(testTimeout):
		t.Error("the upstream's call goes on")
	}
}
