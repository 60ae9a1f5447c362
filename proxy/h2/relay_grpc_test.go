package h2_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/execgate/execgate/proxy/h2"
)

func grpcError(st *testpb.EchoStatus) error {
	detail, err := anypb.New(&testpb.Payload{Body: []byte("detail")})
	if err != nil {
		return err
	}
	return status.ErrorProto(&spb.Status{Code: st.GetCode(), Message: st.GetMessage(), Details: []*anypb.Any{detail}})
}

// eachTransport runs a test with every combination of h2c and TLS, and with the call relayed or handled.
func eachTransport(t *testing.T, test func(t *testing.T, f *front)) {
	t.Helper()
	for _, c := range []struct {
		name       string
		front, ups bool
	}{{"h2c to h2c", false, false}, {"TLS to TLS", true, true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server, client := testTLS(t)
			var options []grpc.ServerOption
			if c.ups {
				options = append(options, grpc.Creds(credentials.NewTLS(server)))
			}
			f := newFront(t, startGRPC(t, &service{}, options...), func(o *h2.Options) {
				if c.front {
					o.TLS = server
				}
				if c.ups {
					o.Upstream.TLS = client
				}
			})
			if c.front {
				f.tls = client
			}
			test(t, f)
		})
	}
}

func payload(n int) *testpb.Payload {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7)
	}
	return &testpb.Payload{Body: b}
}

func TestUnaryCallsArriveAsTheyWereSent(t *testing.T) {
	t.Parallel()
	eachTransport(t, func(t *testing.T, f *front) {
		client := f.client(t)
		for _, n := range []int{0, 1, 200, 16 << 10, 1 << 20, 20 << 20} {
			in := payload(n)
			out, err := client.UnaryCall(testContext(t), &testpb.SimpleRequest{Payload: in})
			if err != nil {
				t.Fatalf("%d bytes: %v", n, err)
			}
			if !bytes.Equal(out.GetPayload().GetBody(), in.GetBody()) {
				t.Errorf("%d bytes did not come back", n)
			}
		}
		f.waitFor(t, "the calls' ends", func() bool { return len(f.done) == 6 })
		for _, c := range f.done {
			if c.Status != http.StatusOK || c.GRPCStatus != "0" || c.Canceled || c.Local || c.Duration <= 0 {
				t.Errorf("call ended as %+v", c)
			}
		}
	})
}

func TestMetadataAndStatusDetailsPass(t *testing.T) {
	t.Parallel()
	eachTransport(t, func(t *testing.T, f *front) {
		client := f.client(t)
		ctx := metadata.AppendToOutgoingContext(testContext(t),
			"x-echo-plain", "one", "x-echo-plain", "two", "x-echo-data-bin", "\x00\xff", "x-echo-long", strings.Repeat("x", 40<<10))
		var header, trailer metadata.MD
		_, err := client.UnaryCall(ctx, &testpb.SimpleRequest{
			ResponseStatus: &testpb.EchoStatus{Code: int32(codes.Aborted), Message: "möglich"},
		}, grpc.Header(&header), grpc.Trailer(&trailer), grpc.MaxCallRecvMsgSize(1<<20))
		st := status.Convert(err)
		if st.Code() != codes.Aborted || st.Message() != "möglich" || len(st.Details()) != 1 {
			t.Errorf("status is %v", err)
		}
		for _, md := range []struct {
			md     metadata.MD
			prefix string
		}{{header, ""}, {trailer, "trailing-"}} {
			if got := md.md[md.prefix+"x-echo-plain"]; !slices.Equal(got, []string{"one", "two"}) {
				t.Errorf("%q: %v", md.prefix, got)
			}
			if got := md.md[md.prefix+"x-echo-data-bin"]; !slices.Equal(got, []string{"\x00\xff"}) {
				t.Errorf("%q: %q", md.prefix, got)
			}
			if got := md.md[md.prefix+"x-echo-long"]; len(got) != 1 || len(got[0]) != 40<<10 {
				t.Errorf("%q: the long value is lost", md.prefix)
			}
		}
		f.waitFor(t, "the call's end", func() bool { return len(f.done) == 1 && f.done[0].GRPCStatus == "10" })
	})
}

func TestStreamsOfAllKinds(t *testing.T) {
	t.Parallel()
	eachTransport(t, func(t *testing.T, f *front) {
		client := f.client(t)
		ctx := testContext(t)

		t.Run("server", func(t *testing.T) {
			in := &testpb.StreamingOutputCallRequest{}
			for i := range 300 {
				in.ResponseParameters = append(in.ResponseParameters, &testpb.ResponseParameters{Size: int32(i * 100)})
			}
			stream, err := client.StreamingOutputCall(ctx, in)
			if err != nil {
				t.Fatal(err)
			}
			for i := range 300 {
				out, err := stream.Recv()
				if err != nil || len(out.GetPayload().GetBody()) != i*100 {
					t.Fatalf("message %d: %v", i, err)
				}
			}
			if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
				t.Errorf("ended with %v", err)
			}
		})
		t.Run("client", func(t *testing.T) {
			stream, err := client.StreamingInputCall(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for range 300 {
				if err := stream.Send(&testpb.StreamingInputCallRequest{Payload: payload(10000)}); err != nil {
					t.Fatal(err)
				}
			}
			out, err := stream.CloseAndRecv()
			if err != nil || out.GetAggregatedPayloadSize() != 3_000_000 {
				t.Errorf("%v, %v", out, err)
			}
		})
		t.Run("both ways", func(t *testing.T) {
			stream, err := client.FullDuplexCall(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for i := range 200 {
				if err := stream.Send(&testpb.StreamingOutputCallRequest{Payload: payload(i)}); err != nil {
					t.Fatal(err)
				}
				out, err := stream.Recv()
				if err != nil || len(out.GetPayload().GetBody()) != i {
					t.Fatalf("message %d: %v", i, err)
				}
			}
			_ = stream.CloseSend()
			if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
				t.Errorf("ended with %v", err)
			}
		})
	})
}

func TestManyClientsAtOnce(t *testing.T) {
	t.Parallel()
	eachTransport(t, func(t *testing.T, f *front) {
		ctx := testContext(t)
		var wg sync.WaitGroup
		for c := range 4 {
			client := f.client(t)
			for s := range 16 {
				wg.Go(func() {
					for i := range 40 {
						in := payload((c*s*i*37)%20000 + 1)
						out, err := client.UnaryCall(ctx, &testpb.SimpleRequest{Payload: in})
						if err != nil || !bytes.Equal(out.GetPayload().GetBody(), in.GetBody()) {
							t.Errorf("call failed: %v", err)
							return
						}
					}
				})
			}
		}
		wg.Wait()
		f.waitFor(t, "the calls' ends", func() bool { return len(f.done) == 4*16*40 })
	})
}

func TestCancellationReachesTheUpstream(t *testing.T) {
	t.Parallel()
	s := &service{began: make(chan context.Context, 1), hold: make(chan struct{})}
	f := newFront(t, startGRPC(t, s), nil)
	ctx, cancel := context.WithCancel(testContext(t))
	failed := make(chan error, 1)
	client := f.client(t)
	go func() {
		_, err := client.UnaryCall(ctx, &testpb.SimpleRequest{})
		failed <- err
	}()
	upstream := <-s.began
	cancel()
	if err := <-failed; status.Code(err) != codes.Canceled {
		t.Errorf("the client got %v", err)
	}
	select {
	case <-upstream.Done():
	case <-testContext(t).Done():
		t.Fatal("the upstream was not told")
	}
	f.waitFor(t, "the call's end", func() bool { return len(f.done) == 1 && f.done[0].Canceled })
}

func TestUpstreamAway(t *testing.T) {
	t.Parallel()
	ln := listen(t)
	address := ln.Addr().String()
	_ = ln.Close()
	f := newFront(t, address, nil)
	_, err := f.client(t).UnaryCall(testContext(t), &testpb.SimpleRequest{})
	if st := status.Convert(err); st.Code() != codes.Unavailable || st.Message() != "upstream is not available" {
		t.Errorf("got %v", err)
	}
	res, err := f.web(t).Post(f.url("/x"), "text/plain", strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if res.StatusCode != http.StatusBadGateway || !strings.Contains(string(body), "upstream is not available") {
		t.Errorf("got %d %q", res.StatusCode, body)
	}
	f.waitFor(t, "the calls' ends", func() bool { return len(f.done) == 2 && f.done[0].Local && f.done[1].Local })
}

func TestMaxConcurrentStreamsOfTheUpstream(t *testing.T) {
	t.Parallel()
	s := &service{began: make(chan context.Context, 100), hold: make(chan struct{})}
	f := newFront(t, startGRPC(t, s, grpc.MaxConcurrentStreams(4)), func(o *h2.Options) {
		o.Upstream.MaxConns = 3
		o.Upstream.Conns = 1
		o.Upstream.MaxQueued = 5
	})
	client := f.client(t)
	results := make(chan error, 100)
	ctx := testContext(t)
	call := func() {
		_, err := client.UnaryCall(ctx, &testpb.SimpleRequest{Payload: payload(1000)})
		results <- err
	}
	for range 12 { // Three connections of four streams.
		go call()
		<-s.began
	}
	for range 5 {
		go call()
	}
	// Five wait; more are refused. Which ones is a matter of order, so calls are added until one is.
	go call()
	if err := <-results; status.Code(err) != codes.Unavailable {
		t.Fatalf("the queue has no bound: %v", err)
	}
	close(s.hold)
	for range 17 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	f.waitFor(t, "the limit", func() bool { return f.limited[h2.ReasonQueueFull] == 1 })
}

func TestRefusedStreamsAndGoAwayAreRetried(t *testing.T) {
	t.Parallel()
	// Graceful stops under load, as of a rolling restart: no call may be lost.
	s := &service{}
	var current atomic.Pointer[net.Listener]
	start := func() *grpc.Server {
		ln := listen(t)
		current.Store(&ln)
		return serveGRPC(t, ln, s)
	}
	server := start()
	f := newFront(t, "upstream.test:1", func(o *h2.Options) {
		o.Upstream.Dial = func(ctx context.Context, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", (*current.Load()).Addr().String())
		}
	})
	ctx := testContext(t)
	client := f.client(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := client.UnaryCall(ctx, &testpb.SimpleRequest{Payload: payload(300)}); err != nil {
					t.Errorf("lost a call: %v", err)
					return
				}
			}
		})
	}
	for i := range 5 {
		f.waitFor(t, "calls", func() bool { return len(f.done) > 300*(i+1) })
		old := server
		server = start()
		go old.GracefulStop()
	}
	close(stop)
	wg.Wait()
}

func TestFourHundredThirtyOne(t *testing.T) {
	t.Parallel()
	f := newFront(t, startWeb(t, nil, http.NotFoundHandler()), func(o *h2.Options) { o.MaxHeaderBytes = 8 << 10 })
	r, _ := http.NewRequestWithContext(testContext(t), http.MethodGet, f.url("/"), nil)
	for i := range 100 {
		r.Header.Set(fmt.Sprint("x-", i), strings.Repeat("v", 100))
	}
	res, err := f.web(t).Do(r)
	// net/http's client looks at the limit that it was told, too.
	if err == nil {
		_ = res.Body.Close()
		if res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("got %d", res.StatusCode)
		}
	}
}
