package proxy_test

import (
	"context"
	"errors"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/execgate/execgate/proxy"
)

// emptyMessage is a gRPC frame with an empty message.
var emptyMessage = []byte{0, 0, 0, 0, 0}

// answer says on the wire what an upstream answers with.
type answer func(c *h2Client, id uint32)

func TestAnswersKeepTheirShapeOnTheWire(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		path   string
		answer answer
		want   []event
	}{
		{
			name: "trailers-only",
			answer: func(c *h2Client, id uint32) {
				c.respond(id, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "5", "grpc-message", "a%20b",
					"grpc-status-details-bin", "CAU", "x-custom", "1")
			},
			want: []event{{kind: "headers", end: true, fields: map[string]string{
				":status": "200", "content-type": "application/grpc", "grpc-status": "5", "grpc-message": "a%20b",
				"grpc-status-details-bin": "CAU", "x-custom": "1",
			}}},
		},
		{
			name: "headers, then trailers, no message",
			answer: func(c *h2Client, id uint32) {
				c.respond(id, false, ":status", "200", "content-type", "application/grpc", "x-both", "header")
				c.respond(id, true, "grpc-status", "7", "x-both", "trailer", "x-many", "1", "x-many", "2")
			},
			want: []event{
				{kind: "headers", fields: map[string]string{":status": "200", "content-type": "application/grpc", "x-both": "header"}},
				{kind: "headers", end: true, fields: map[string]string{"grpc-status": "7", "x-both": "trailer", "x-many": "1|2"}},
			},
		},
		{
			name: "announced trailers",
			answer: func(c *h2Client, id uint32) {
				c.respond(id, false, ":status", "200", "content-type", "application/grpc", "trailer", "Grpc-Status", "trailer", "X-A, X-Never")
				_ = c.framer.WriteData(id, false, emptyMessage)
				c.respond(id, true, "grpc-status", "0", "x-a", "1", "x-unannounced", "2")
			},
			want: []event{
				{kind: "headers", fields: map[string]string{
					":status": "200", "content-type": "application/grpc", "trailer": "Grpc-Status, X-A, X-Never",
				}},
				{kind: "data", data: string(emptyMessage)},
				{kind: "headers", end: true, fields: map[string]string{"grpc-status": "0", "x-a": "1", "x-unannounced": "2"}},
			},
		},
		{
			name: "reset after headers, without a status",
			path: outputMethod,
			answer: func(c *h2Client, id uint32) {
				c.respond(id, false, ":status", "200", "content-type", "application/grpc")
				_ = c.framer.WriteRSTStream(id, http2.ErrCodeCancel)
			},
			want: []event{
				{kind: "headers", fields: map[string]string{":status": "200", "content-type": "application/grpc"}},
				{kind: "headers", end: true, fields: map[string]string{
					"grpc-status": "1", "grpc-message": "upstream reset the stream: CANCEL",
				}},
			},
		},
		{
			name: "reset at once",
			answer: func(c *h2Client, id uint32) {
				_ = c.framer.WriteRSTStream(id, http2.ErrCodeEnhanceYourCalm)
			},
			want: []event{{kind: "headers", end: true, fields: map[string]string{
				":status": "200", "content-type": "application/grpc", "grpc-status": "8",
				"grpc-message": "upstream reset the stream: ENHANCE_YOUR_CALM",
			}}},
		},
		{
			name: "an HTTP error without grpc",
			answer: func(c *h2Client, id uint32) {
				c.respond(id, false, ":status", "418", "content-type", "text/html", "content-length", "3", "date", "yesterday")
				_ = c.framer.WriteData(id, true, []byte("tea"))
			},
			want: []event{
				{kind: "headers", fields: map[string]string{":status": "418", "content-type": "text/html", "content-length": "3", "date": "yesterday"}},
				{kind: "data", end: true, data: "tea"},
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			up := startH2Server(t, func(c *h2Client, id uint32, _ map[string]string) { test.answer(c, id) })
			g := startGateway(t, up.url, nil)
			c := newH2Client(t, dialTCP(t, g.addr, nil))
			path := test.path
			if path == "" {
				path = unaryMethod
			}
			got := c.read(c.grpc(path, emptyMessage))
			for _, e := range got { // In one field or in several: it is the same list (RFC 9110 5.3).
				if list, ok := e.fields["trailer"]; ok {
					e.fields["trailer"] = strings.ReplaceAll(list, "|", ", ")
				}
			}
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
		})
	}
}

func TestRequestHeadersAreThoseOfTheClient(t *testing.T) {
	t.Parallel()
	seen := make(chan map[string]string, 1)
	up := startH2Server(t, func(c *h2Client, id uint32, fields map[string]string) {
		seen <- fields
		c.respond(id, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "0")
	})
	g := startGateway(t, up.url, nil)
	c := newH2Client(t, dialTCP(t, g.addr, nil))
	c.read(c.grpc("/a%2Fb//c;d/e|f?x=1&y=%zz;&?", emptyMessage, "grpc-timeout", "7S", "x-bin", "AAE", "grpc-encoding", "snappy",
		"grpc-accept-encoding", "zstd,br", "x-forwarded-for", "6.6.6.6", "forwarded", "for=6.6.6.6", "x-forwarded-port", "1"))
	got := <-seen
	for name, want := range map[string]string{
		":method": "POST", ":path": "/a%2Fb//c;d/e|f?x=1&y=%zz;&?", ":authority": "test", "te": "trailers", "content-type": "application/grpc",
		"grpc-timeout": "7S", "x-bin": "AAE", "grpc-encoding": "snappy", "grpc-accept-encoding": "zstd,br",
		"x-forwarded-for": "127.0.0.1", "x-forwarded-host": "test", "x-forwarded-proto": "http",
	} {
		if got[name] != want {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
	for _, name := range []string{"user-agent", "forwarded", "x-forwarded-port", "accept-encoding", "content-length"} {
		if v, ok := got[name]; ok {
			t.Errorf("%s: %q was added or kept", name, v)
		}
	}
}

func TestUpstreamThatDiesMidStreamGivesAStatus(t *testing.T) {
	t.Parallel()
	var conns = make(chan net.Conn, 1)
	ln, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		conns <- conn
		serveH2(t, conn, func(c *h2Client, id uint32, _ map[string]string) {
			c.respond(id, false, ":status", "200", "content-type", "application/grpc")
			_ = c.framer.WriteData(id, false, emptyMessage)
		})
	}()
	g := startGateway(t, "http://"+ln.Addr().String(), nil)
	s, err := dialGRPC(t, g).StreamingOutputCall(testContext(t), &testpb.StreamingOutputCallRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); err != nil {
		t.Fatalf("first message: %v", err)
	}
	_ = (<-conns).Close()
	if _, err := s.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v", err)
	}
	if got := g.observed.next(t); got != (request{"grpc", outputMethod, "Unavailable"}) {
		t.Errorf("observed %v", got)
	}
}

func TestRequestLineCannotBeSmuggled(t *testing.T) {
	t.Parallel()
	up := startH2Server(t, func(c *h2Client, id uint32, _ map[string]string) {
		t.Error("the upstream was asked")
		c.respond(id, true, ":status", "200")
	})
	g := startGateway(t, up.url, nil)
	c := newH2Client(t, dialTCP(t, g.addr, nil))
	id := c.headers(true, ":method", "GET", ":scheme", "http", ":authority", "test", ":path", "/public HTTP/1.1")
	if got := c.read(id); got[0].fields[":status"] != "400" {
		t.Errorf("space in the path: %+v", got)
	}
	id = c.headers(true, ":method", "POST", ":scheme", "http", ":authority", "test", ":path", "/x",
		"content-type", "text/plain", "content-type", "application/grpc")
	if got := c.read(id); got[0].fields[":status"] != "400" {
		t.Errorf("two content types: %+v", got)
	}
}

func TestDrainLetsCallsFinishAndCountsWhatIsCut(t *testing.T) {
	t.Parallel()
	for _, useTLS := range []bool{false, true} {
		service := &echoService{began: make(chan context.Context, 2)}
		var so proxy.ServerOptions
		if useTLS {
			so.TLS = certificates().server
		}
		g := startGatewayServer(t, startGRPC(t, false, service), nil, so)
		c := dialGRPC(t, g)
		s, err := c.FullDuplexCall(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		<-service.began
		drained := make(chan int, 1)
		go func() { drained <- g.server.Drain(testContext(t)) }()
		waitRefused(t, g.addr)
		// New connections are refused; the call goes on.
		for range 3 {
			if err := s.Send(&testpb.StreamingOutputCallRequest{Payload: payload("still here")}); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Recv(); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("end of stream: %v", err)
		}
		if cut := <-drained; cut != 0 {
			t.Errorf("tls %v: %d calls were cut", useTLS, cut)
		}
	}

	service := &echoService{began: make(chan context.Context, 2)}
	g := startGateway(t, startGRPC(t, false, service), nil)
	s, err := dialGRPC(t, g).FullDuplexCall(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	<-service.began
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if cut := g.server.Drain(ctx); cut != 1 {
		t.Errorf("%d calls were cut, want 1", cut)
	}
	if _, err := s.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("a call that was cut: %v", err)
	}
}

// waitRefused waits until addr takes no more connections.
func waitRefused(t *testing.T, addr string) {
	t.Helper()
	ctx := testContext(t)
	for ctx.Err() == nil {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err != nil {
			if strings.Contains(err.Error(), "refused") {
				return
			}
			continue
		}
		_ = conn.Close()
	}
	t.Fatal("connections are still accepted")
}
