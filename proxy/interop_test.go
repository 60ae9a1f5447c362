package proxy_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/execgate/execgate/conditions"
	"github.com/execgate/execgate/proxy"
	"github.com/execgate/execgate/targetclient"
)

// interopCases are the test cases of grpc-go's interoperability client that need nothing but a server. A case that fails
// ends the process, with a line that says why: so they were written.
var interopCases = []struct {
	name string
	run  func(context.Context, *grpc.ClientConn, testpb.TestServiceClient)
}{
	{"empty_unary", func(ctx context.Context, _ *grpc.ClientConn, c testpb.TestServiceClient) {
		interop.DoEmptyUnaryCall(ctx, c)
	}},
	{"large_unary", func(ctx context.Context, _ *grpc.ClientConn, c testpb.TestServiceClient) {
		interop.DoLargeUnaryCall(ctx, c)
	}},
	{"client_streaming", func(ctx context.Context, _ *grpc.ClientConn, c testpb.TestServiceClient) {
		interop.DoClientStreaming(ctx, c)
	}},
	{"server_streaming", func(ctx context.Context, _ *grpc.ClientConn, c testpb.TestServiceClient) {
		interop.DoServerStreaming(ctx, c)
	}},
	{"ping_pong", func(ctx context.Context, _ *grpc.ClientConn, c testpb.TestServiceClient) { interop.DoPingPong(ctx, c) }},
	{"empty_stream", func(ctx context.Context, _ *grpc.ClientConn, c testpb.TestServiceClient) {
		interop.DoEmptyStream(ctx, c)
	}},
	{"timeout_on_sleeping_server", func(ctx context.Context, _ *grpc.ClientConn, c testpb.TestServiceClient) {
		interop.DoTimeoutOnSleepingServer(ctx, c)
	}},
	{"cancel_after_begin", func(ctx context.Context, _ *grpc.ClientConn, c testpb.TestServiceClient) {
		interop.DoCancelAfterBegin(ctx, c)
	}},
	{"cancel_after_first_response", func(ctx context.Context, _ *grpc.ClientConn, c testpb.TestServiceClient) {
		interop.DoCancelAfterFirstResponse(ctx, c)
	}},
	{"status_code_and_message", func(ctx context.Context, _ *grpc.ClientConn, c testpb.TestServiceClient) {
		interop.DoStatusCodeAndMessage(ctx, c)
	}},
	{"special_status_message", func(ctx context.Context, _ *grpc.ClientConn, c testpb.TestServiceClient) {
		interop.DoSpecialStatusMessage(ctx, c)
	}},
	{"custom_metadata", func(ctx context.Context, _ *grpc.ClientConn, c testpb.TestServiceClient) {
		interop.DoCustomMetadata(ctx, c)
	}},
	{"unimplemented_method", func(ctx context.Context, cc *grpc.ClientConn, _ testpb.TestServiceClient) {
		interop.DoUnimplementedMethod(ctx, cc)
	}},
	{"unimplemented_service", func(ctx context.Context, cc *grpc.ClientConn, _ testpb.TestServiceClient) {
		interop.DoUnimplementedService(ctx, testpb.NewUnimplementedServiceClient(cc))
	}},
}

// TestInterop passes grpc-go's own cases directly, through the gateway, and through it with a target that echoes every
// message in both phases.
func TestInterop(t *testing.T) {
	t.Parallel()
	echo := startTarget(t, "echo", targetclient.KindCall, false, func(e envelope) (int, string) {
		if e.Response != nil {
			return 200, string(e.Response)
		}
		return 200, string(e.Request)
	})
	all := []conditions.Execution{on(t, "request", "echo"), on(t, "response", "echo")}
	for _, useTLS := range []bool{false, true} {
		upstream := startGRPC(t, useTLS, interop.NewTestServer())
		var so proxy.ServerOptions
		if useTLS {
			so.TLS = certificates().server
		}
		relay := so
		relay.Relay = true
		for _, through := range []struct {
			name string
			addr string
		}{
			{"direct", upstream[strings.LastIndex(upstream, "/")+1:]},
			{"through", startGatewayServer(t, upstream, nil, so).addr},
			{"relayed", startGatewayServer(t, upstream, nil, relay).addr},
			{"relayed with echo", startGatewayServer(t, upstream, withExecutions(t, targetsOf(echo), all...), relay).addr},
			{"through with echo", startGatewayServer(t, upstream, withExecutions(t, targetsOf(echo), all...), so).addr},
		} {
			name := through.name + ", h2c"
			creds := insecure.NewCredentials()
			if useTLS {
				name = through.name + ", tls"
				creds = credentials.NewTLS(certificates().client())
			}
			for _, test := range interopCases {
				t.Run(test.name+" "+name, func(t *testing.T) {
					t.Parallel()
					conn, err := grpc.NewClient(through.addr, grpc.WithTransportCredentials(creds))
					if err != nil {
						t.Fatal(err)
					}
					defer func() { _ = conn.Close() }()
					ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
					defer cancel()
					test.run(ctx, conn, testpb.NewTestServiceClient(conn))
				})
			}
		}
	}
	t.Cleanup(func() {
		// Unary cases in both phases, the server stream in the request phase.
		if n := len(echo.received()); n == 0 {
			t.Error("the echo was never asked")
		}
	})
}
