package proxy

import (
	"context"
	"net/http"
	"net/url"
	"testing"

	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/execgate/execgate/conditions"
	"github.com/execgate/execgate/dispatcher"
	"github.com/execgate/execgate/schema"
	"github.com/execgate/execgate/targetclient"
)

// unusedDispatcher is for proxies whose calls match nothing.
type unusedDispatcher struct{}

func (unusedDispatcher) Dispatch(context.Context, *dispatcher.Invocation) (dispatcher.Outcome, error) {
	panic("dispatched")
}

type noResponse struct{ http.ResponseWriter }

// decideProxy has a schema, and executions for other methods.
func decideProxy(tb testing.TB) *Proxy {
	tb.Helper()
	set := &descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{
		protodesc.ToFileDescriptorProto(testpb.File_grpc_testing_empty_proto),
		protodesc.ToFileDescriptorProto(testpb.File_grpc_testing_messages_proto),
		protodesc.ToFileDescriptorProto(testpb.File_grpc_testing_test_proto),
	}}
	b, err := proto.Marshal(set)
	if err != nil {
		tb.Fatal(err)
	}
	known, err := schema.FromDescriptorSet(b)
	if err != nil {
		tb.Fatal(err)
	}
	c, err := conditions.Parse("request/grpc.testing.TestService/EmptyCall")
	if err != nil {
		tb.Fatal(err)
	}
	snapshot, _ := dispatcher.NewSnapshot(1, []conditions.Execution{{Condition: c, Targets: []string{"t"}}},
		[]*targetclient.Target{{ID: "t", Kind: targetclient.KindWebhook, InterruptOnError: true}}, dispatcher.SnapshotOptions{})
	p, err := New(Options{
		Upstream: UpstreamOptions{URL: "http://127.0.0.1:1"}, Dispatcher: unusedDispatcher{},
		Schema: func() *schema.Schema { return known }, Snapshot: func() *dispatcher.Snapshot { return snapshot },
	})
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func decideRequest() *http.Request {
	return &http.Request{
		Method: http.MethodPost, ProtoMajor: 2, RequestURI: "/grpc.testing.TestService/UnaryCall",
		URL:    &url.URL{Path: "/grpc.testing.TestService/UnaryCall"},
		Header: http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "User-Agent": {"grpc-go/1"}},
	}
}

// decideOnce is all that the gateway adds to an unmatched call before and after its bytes stream through.
func decideOnce(p *Proxy, r *http.Request) (passes bool) {
	op := newOperation(noResponse{}, r)
	refusal := p.decide(op)
	passes = refusal == nil && op.request == nil && op.response == nil && op.method != nil
	op.code = "OK"
	p.inFlight.Add(1)
	p.finish(op, 0)
	return passes
}

func TestDecisionAllocatesNothing(t *testing.T) {
	p, r := decideProxy(t), decideRequest()
	if !decideOnce(p, r) {
		t.Fatal("the call does not pass through")
	}
	// A collection may empty the pool of operations: an average below one is none.
	if n := testing.AllocsPerRun(1000, func() { decideOnce(p, r) }); n >= 1 {
		t.Errorf("%v allocations per call", n)
	}
}

func BenchmarkDecideUnmatched(b *testing.B) {
	p, r := decideProxy(b), decideRequest()
	b.ReportAllocs()
	for b.Loop() {
		if !decideOnce(p, r) {
			b.Fatal("the call does not pass through")
		}
	}
}
