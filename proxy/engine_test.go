package proxy_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/execgate/execgate/conditions"
	"github.com/execgate/execgate/dispatcher"
	"github.com/execgate/execgate/proxy"
	"github.com/execgate/execgate/schema"
	"github.com/execgate/execgate/targetclient"
)

// seenService notes the metadata of calls.
type seenService struct {
	testpb.UnimplementedTestServiceServer

	seen chan metadata.MD
}

func (s *seenService) EmptyCall(ctx context.Context, _ *testpb.Empty) (*testpb.Empty, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	s.seen <- md
	return &testpb.Empty{}, nil
}

// TestBothEnginesSendTheSameMetadata: what the upstream sees does not depend on the engine.
func TestBothEnginesSendTheSameMetadata(t *testing.T) {
	t.Parallel()
	claims := metadata.Pairs("x-forwarded-for", "6.6.6.6", "x-forwarded-for", "7.7.7.7", "x-forwarded-host", "claimed.example",
		"x-forwarded-port", "1", "forwarded", "for=6.6.6.6", "proxy-authorization", "secret", "x-kept", "a", "x-kept", "b")
	for _, trusted := range [][]string{nil, {"127.0.0.0/8"}} {
		for _, sent := range []metadata.MD{nil, claims} {
			for _, useTLS := range []bool{false, true} {
				t.Run(fmt.Sprintf("trusted %v, claims %v, tls %v", trusted, sent != nil, useTLS), func(t *testing.T) {
					t.Parallel()
					service := &seenService{seen: make(chan metadata.MD, 2)}
					up := startGRPC(t, useTLS, service)
					var got [2]metadata.MD
					for i := range got {
						so := proxy.ServerOptions{Relay: i == 1}
						if useTLS {
							so.TLS = certificates().server
						}
						g := startGatewayServer(t, up, func(o *proxy.Options) { o.TrustedProxies = trusted }, so)
						client := dialGRPC(t, g, grpc.WithAuthority("example.com"))
						for range 2 { // The second is the one that finds what the connection remembers.
							if _, err := client.EmptyCall(metadata.NewOutgoingContext(testContext(t), sent), &testpb.Empty{}); err != nil {
								t.Fatal(err)
							}
							got[i] = <-service.seen
						}
						if r := g.observed.next(t); r != (request{"grpc", "/grpc.testing.TestService/EmptyCall", "OK"}) {
							t.Errorf("recorded %v", r)
						}
					}
					if !maps.EqualFunc(got[0], got[1], slices.Equal) {
						t.Errorf("net/http: %v\nh2:       %v", got[0], got[1])
					}
				})
			}
		}
	}
}

// TestWhatAConnectionRemembersIsNotOlderThanTheConfiguration: a call goes by the snapshot and the schema of its time, although the
// connection had calls of the same method before.
func TestWhatAConnectionRemembersIsNotOlderThanTheConfiguration(t *testing.T) {
	t.Parallel()
	veto := startTarget(t, "veto", targetclient.KindCall, true, func(envelope) (int, string) { return 403, "" })
	var snapshot atomic.Pointer[dispatcher.Snapshot]
	var known atomic.Pointer[schema.Schema]
	empty, vetoes := snapshotOf(t, nil), snapshotOf(t, targetsOf(veto), on(t, "request/grpc.testing.TestService/EmptyCall", "veto"))
	snapshot.Store(empty)
	known.Store(testSchema())
	service := &seenService{seen: make(chan metadata.MD, 64)}
	g := startGatewayServer(t, startGRPC(t, false, service), func(o *proxy.Options) {
		o.Snapshot, o.Schema = snapshot.Load, known.Load
	}, proxy.ServerOptions{Relay: true})
	client := dialGRPC(t, g)
	call := func(want codes.Code) {
		t.Helper()
		if _, err := client.EmptyCall(testContext(t), &testpb.Empty{}); status.Code(err) != want {
			t.Fatalf("the call ended with %v, not %v", err, want)
		}
	}
	for range 3 {
		call(codes.OK)
		call(codes.OK)
		snapshot.Store(vetoes)
		call(codes.FailedPrecondition)
		known.Store(nil)
		call(codes.Unavailable)
		snapshot.Store(empty)
		call(codes.OK)
		known.Store(testSchema())
		snapshot.Store(vetoes)
		call(codes.FailedPrecondition)
		snapshot.Store(snapshotOf(t, nil))
		call(codes.OK)
	}
}

// TestTheEngineHandsOverWhatMatches: a target sees the call, and no spelling of its path goes around it.
func TestTheEngineHandsOverWhatMatches(t *testing.T) {
	t.Parallel()
	veto := startTarget(t, "veto", targetclient.KindCall, true, func(envelope) (int, string) { return 403, "" })
	for _, id := range []string{"request", "request/grpc.testing.TestService", "request/grpc.testing.TestService/EmptyCall"} {
		service := &seenService{seen: make(chan metadata.MD, 16)}
		g := startGatewayServer(t, startGRPC(t, false, service), withExecutions(t, targetsOf(veto), on(t, id, "veto")), proxy.ServerOptions{Relay: true})
		conn := dialConn(t, g)
		for _, path := range []string{"/grpc.testing.TestService/EmptyCall", "/grpc.testing.TestService/Empty%43all"} {
			if err := conn.Invoke(testContext(t), path, &testpb.Empty{}, &testpb.Empty{}); err == nil {
				t.Errorf("%s: %s passed", id, path)
			}
		}
		if len(service.seen) != 0 {
			t.Errorf("%s: the upstream was called", id)
		}
	}
}

// TestDrainCountsRelayedCallsThatItCuts: a relayed call counts as in flight, and when time is up it is cut.
func TestDrainCountsRelayedCallsThatItCuts(t *testing.T) {
	t.Parallel()
	service := &echoService{began: make(chan context.Context, 1)}
	g := startGatewayServer(t, startGRPC(t, false, service), nil, proxy.ServerOptions{Relay: true})
	client := dialGRPC(t, g)
	stream, err := client.FullDuplexCall(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	<-service.began
	if n := g.proxy.InFlight(); n != 1 {
		t.Errorf("%d in flight", n)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if cut := g.server.Drain(ended); cut != 1 {
		t.Errorf("%d were cut", cut)
	}
	if _, err := stream.Recv(); err == nil {
		t.Error("the call goes on")
	}
}

func dialConn(t *testing.T, g *gateway) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(g.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// TestGRPCAnswersToOriginsThatAreNotAllowed: D-64 holds on what could be relayed, and on what was given back.
func TestGRPCAnswersToOriginsThatAreNotAllowed(t *testing.T) {
	t.Parallel()
	up := startH2Server(t, func(c *h2Client, id uint32, fields map[string]string) {
		c.respond(id, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "0",
			"access-control-allow-origin", "*", "access-control-expose-headers", "x")
	})
	target := startTarget(t, "told", targetclient.KindWebhook, true, nil)
	for _, ids := range [][]conditions.Execution{nil, {on(t, "request"+unaryMethod, "told")}} {
		matches := withExecutions(t, targetsOf(target), ids...)
		g := startGateway(t, up.url, func(o *proxy.Options) {
			matches(o)
			o.CORS.AllowedOrigins = []string{"https://app.example.com"}
		})
		c := newH2Client(t, dialTCP(t, g.addr, nil))
		for origin, want := range map[string]string{"https://app.example.com": "*", "https://bad.example.com": ""} {
			got := c.read(c.grpc(unaryMethod, emptyMessage, "origin", origin))
			if len(got) != 1 || got[0].fields["grpc-status"] != "0" || got[0].fields["access-control-allow-origin"] != want {
				t.Errorf("%d executions, %s: %+v", len(ids), origin, got)
			}
		}
	}
}

// TestResetsAfterTheDeadline: a server that keeps the caller's deadline resets the stream when it has passed.
func TestResetsAfterTheDeadline(t *testing.T) {
	t.Parallel()
	up := startH2Server(t, func(c *h2Client, id uint32, fields map[string]string) {
		_ = c.framer.WriteRSTStream(id, http2.ErrCodeCancel)
	})
	g := startGateway(t, up.url, nil)
	c := newH2Client(t, dialTCP(t, g.addr, nil))
	for timeout, want := range map[string]string{"1n": "4", "1H": "1", "nonsense": "1"} {
		got := c.read(c.grpc(unaryMethod, emptyMessage, "grpc-timeout", timeout))
		if len(got) != 1 || got[0].fields["grpc-status"] != want {
			t.Errorf("%s: %+v", timeout, got)
		}
	}
}
