package proxy_test

import (
	"context"
	"sync/atomic"
	"testing"

	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/execgate/execgate/dispatcher"
	"github.com/execgate/execgate/proxy"
)

// noTargets is a Dispatcher whose targets change nothing and take no time.
type noTargets struct{}

func (noTargets) Dispatch(context.Context, *dispatcher.Invocation) (dispatcher.Outcome, error) {
	return dispatcher.Outcome{}, nil
}

// BenchmarkMatched makes unary calls through a gateway: what a match costs on both engines, the targets left out. Client
// and server are grpc-go's, in this process.
func BenchmarkMatched(b *testing.B) {
	for _, phase := range []string{"none", "request", "response"} {
		for _, relay := range []bool{true, false} {
			name := phase + "/nethttp"
			if relay {
				name = phase + "/h2"
			}
			b.Run(name, func(b *testing.B) {
				target := startTarget(b, "target", 0, false, nil)
				var change func(*proxy.Options)
				if phase != "none" {
					change = withExecutions(b, targetsOf(target), on(b, phase+unaryMethod, "target"))
				}
				g := startGatewayServer(b, startGRPC(b, false, &echoService{}), func(o *proxy.Options) {
					if change != nil {
						change(o)
					}
					o.Dispatcher = noTargets{}
				}, proxy.ServerOptions{Relay: relay})
				clients := make([]testpb.TestServiceClient, 4)
				for i := range clients {
					clients[i] = dialGRPC(b, g)
				}
				request := &testpb.SimpleRequest{Payload: payload("some two hundred bytes")}
				var next atomic.Int64
				b.SetParallelism(32)
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					c := clients[next.Add(1)%4]
					for pb.Next() {
						if _, err := c.UnaryCall(b.Context(), request); err != nil {
							b.Error(err)
							return
						}
					}
				})
			})
		}
	}
}
