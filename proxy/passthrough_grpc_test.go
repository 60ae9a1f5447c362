package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/execgate/execgate/proxy"
)

// echoService is an upstream that shows what it got: metadata in headers and trailers, payloads in payloads.
type echoService struct {
	testpb.UnimplementedTestServiceServer

	began chan context.Context // gets the context of each call, if not nil
}

// mirror sends the interesting incoming metadata back as headers and trailers.
func (e *echoService) mirror(ctx context.Context) (header, trailer metadata.MD) {
	in, _ := metadata.FromIncomingContext(ctx)
	header, trailer = metadata.MD{}, metadata.MD{}
	for name, values := range in {
		if strings.HasPrefix(name, "x-echo-") {
			header[name] = values
			trailer["trailing-"+name] = values
		}
	}
	for _, name := range []string{":authority", "user-agent", "te", "content-type", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded"} {
		for _, v := range in[name] {
			header.Append("seen-"+strings.TrimPrefix(name, ":"), v)
		}
	}
	if deadline, ok := ctx.Deadline(); ok {
		header.Set("seen-deadline", time.Until(deadline).String())
	}
	return header, trailer
}

func (e *echoService) UnaryCall(ctx context.Context, in *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	if e.began != nil {
		e.began <- ctx
	}
	header, trailer := e.mirror(ctx)
	if err := grpc.SetHeader(ctx, header); err != nil {
		return nil, err
	}
	if err := grpc.SetTrailer(ctx, trailer); err != nil {
		return nil, err
	}
	if s := in.GetResponseStatus(); s.GetCode() != 0 {
		st, err := status.New(codes.Code(s.GetCode()), s.GetMessage()).WithDetails(&testpb.Payload{Body: []byte("detail")})
		if err != nil {
			return nil, err
		}
		return nil, st.Err()
	}
	if in.GetExpectCompressed().GetValue() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return &testpb.SimpleResponse{Payload: in.GetPayload(), Username: "user"}, nil
}

func (e *echoService) StreamingInputCall(s grpc.ClientStreamingServer[testpb.StreamingInputCallRequest, testpb.StreamingInputCallResponse]) error {
	var n int32
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return s.SendAndClose(&testpb.StreamingInputCallResponse{AggregatedPayloadSize: n})
		}
		if err != nil {
			return err
		}
		n += int32(len(m.GetPayload().GetBody()))
	}
}

func (e *echoService) StreamingOutputCall(in *testpb.StreamingOutputCallRequest, s grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error {
	if e.began != nil {
		e.began <- s.Context()
	}
	header, trailer := e.mirror(s.Context())
	if err := s.SendHeader(header); err != nil {
		return err
	}
	s.SetTrailer(trailer)
	for _, p := range in.GetResponseParameters() {
		if p.GetIntervalUs() < 0 { // Never ends by itself.
			<-s.Context().Done()
			return s.Context().Err()
		}
		body := bytes.Repeat([]byte("o"), int(p.GetSize()))
		copy(body, in.GetPayload().GetBody())
		if err := s.Send(&testpb.StreamingOutputCallResponse{Payload: &testpb.Payload{Body: body}}); err != nil {
			return err
		}
	}
	if st := in.GetResponseStatus(); st.GetCode() != 0 {
		return status.Error(codes.Code(st.GetCode()), st.GetMessage())
	}
	return nil
}

func (e *echoService) FullDuplexCall(s grpc.BidiStreamingServer[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse]) error {
	if e.began != nil {
		e.began <- s.Context()
	}
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if st := m.GetResponseStatus(); st.GetCode() != 0 {
			return status.Error(codes.Code(st.GetCode()), st.GetMessage())
		}
		if err := s.Send(&testpb.StreamingOutputCallResponse{Payload: m.GetPayload()}); err != nil {
			return err
		}
	}
}

// eachTransport runs a test over every combination of h2c and TLS on both sides, on both engines.
func eachTransport(t *testing.T, service func() testpb.TestServiceServer, test func(t *testing.T, g *gateway, c testpb.TestServiceClient)) {
	t.Helper()
	for i := range 8 {
		relay, front, back := i&4 != 0, i&2 != 0, i&1 != 0
		name := fmt.Sprintf("client %s upstream %s", map[bool]string{false: "h2c", true: "tls"}[front], map[bool]string{false: "h2c", true: "tls"}[back])
		if relay {
			name += " relayed"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			so := proxy.ServerOptions{Relay: relay}
			if front {
				so.TLS = certificates().server
			}
			g := startGatewayServer(t, startGRPC(t, back, service()), nil, so)
			test(t, g, dialGRPC(t, g))
		})
	}
}

func echo() testpb.TestServiceServer { return &echoService{} }

func payload(s string) *testpb.Payload { return &testpb.Payload{Body: []byte(s)} }

func TestUnaryPassesWithMetadataBothWays(t *testing.T) {
	t.Parallel()
	eachTransport(t, echo, func(t *testing.T, g *gateway, c testpb.TestServiceClient) {
		ctx := metadata.AppendToOutgoingContext(testContext(t),
			"x-echo-one", "a", "x-echo-one", "b", "x-echo-raw-bin", "\x00\xff\x01", "x-echo-raw-bin", "second", "x-echo-empty", "")
		var header, trailer metadata.MD
		res, err := c.UnaryCall(ctx, &testpb.SimpleRequest{Payload: payload("hello")}, grpc.Header(&header), grpc.Trailer(&trailer))
		if err != nil {
			t.Fatal(err)
		}
		if got := string(res.GetPayload().GetBody()); got != "hello" {
			t.Errorf("payload %q", got)
		}
		for name, want := range map[string][]string{
			"x-echo-one": {"a", "b"}, "x-echo-raw-bin": {"\x00\xff\x01", "second"}, "x-echo-empty": {""},
			"seen-authority": {g.addr}, "seen-x-forwarded-for": {"127.0.0.1"}, "seen-x-forwarded-host": {g.addr},
			"seen-content-type": {"application/grpc"},
		} {
			if got := header[name]; !slices.Equal(got, want) {
				t.Errorf("header %s: %q, want %q", name, got, want)
			}
		}
		if got := header.Get("seen-user-agent"); len(got) != 1 || !strings.HasPrefix(got[0], "grpc-go/") {
			t.Errorf("user agent %q", got)
		}
		if got := trailer["trailing-x-echo-raw-bin"]; !slices.Equal(got, []string{"\x00\xff\x01", "second"}) {
			t.Errorf("trailer %q", got)
		}
		if got := g.observed.next(t); got != (request{"grpc", unaryMethod, "OK"}) {
			t.Errorf("observed %v", got)
		}
	})
}

func TestErrorWithDetailsPasses(t *testing.T) {
	t.Parallel()
	eachTransport(t, echo, func(t *testing.T, g *gateway, c testpb.TestServiceClient) {
		var trailer metadata.MD
		_, err := c.UnaryCall(testContext(t), &testpb.SimpleRequest{
			ResponseStatus: &testpb.EchoStatus{Code: int32(codes.FailedPrecondition), Message: "no: 100% ünsafe\n"},
		}, grpc.Trailer(&trailer))
		st := status.Convert(err)
		if st.Code() != codes.FailedPrecondition || st.Message() != "no: 100% ünsafe\n" {
			t.Errorf("status %v", st)
		}
		if d := st.Details(); len(d) != 1 || !proto.Equal(d[0].(proto.Message), &testpb.Payload{Body: []byte("detail")}) {
			t.Errorf("details %v", d)
		}
		if got := g.observed.next(t); got != (request{"grpc", unaryMethod, "FailedPrecondition"}) {
			t.Errorf("observed %v", got)
		}
	})
}

func TestAllStreamingKindsPass(t *testing.T) {
	t.Parallel()
	eachTransport(t, echo, func(t *testing.T, _ *gateway, c testpb.TestServiceClient) {
		ctx := testContext(t)

		up, err := c.StreamingInputCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for range 50 {
			if err := up.Send(&testpb.StreamingInputCallRequest{Payload: &testpb.Payload{Body: make([]byte, 30_000)}}); err != nil {
				t.Fatal(err)
			}
		}
		sum, err := up.CloseAndRecv()
		if err != nil || sum.GetAggregatedPayloadSize() != 1_500_000 {
			t.Errorf("client streaming: %v, %v", sum, err)
		}

		down, err := c.StreamingOutputCall(metadata.AppendToOutgoingContext(ctx, "x-echo-a", "1"), &testpb.StreamingOutputCallRequest{
			ResponseParameters: []*testpb.ResponseParameters{{Size: 1}, {Size: 100_000}, {Size: 3}},
			ResponseStatus:     &testpb.EchoStatus{Code: int32(codes.DataLoss), Message: "at the end"},
		})
		if err != nil {
			t.Fatal(err)
		}
		var sizes []int
		for {
			m, err := down.Recv()
			if err != nil {
				if status.Code(err) != codes.DataLoss {
					t.Errorf("server streaming ended with %v", err)
				}
				break
			}
			sizes = append(sizes, len(m.GetPayload().GetBody()))
		}
		if !slices.Equal(sizes, []int{1, 100_000, 3}) {
			t.Errorf("sizes %v", sizes)
		}
		if got := down.Trailer().Get("trailing-x-echo-a"); !slices.Equal(got, []string{"1"}) {
			t.Errorf("trailer %v", down.Trailer())
		}

		both, err := c.FullDuplexCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 20 { // Each message must come back before the next is sent: nothing waits for more.
			text := fmt.Sprint("ping ", i)
			if err := both.Send(&testpb.StreamingOutputCallRequest{Payload: payload(text)}); err != nil {
				t.Fatal(err)
			}
			m, err := both.Recv()
			if err != nil || string(m.GetPayload().GetBody()) != text {
				t.Fatalf("bidi %d: %v, %v", i, m, err)
			}
		}
		if err := both.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if _, err := both.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("after half-close: %v", err)
		}
	})
}

func TestHeadersArriveBeforeTheFirstMessage(t *testing.T) {
	t.Parallel()
	eachTransport(t, echo, func(t *testing.T, _ *gateway, c testpb.TestServiceClient) {
		ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(testContext(t), "x-echo-h", "now"))
		defer cancel()
		s, err := c.StreamingOutputCall(ctx, &testpb.StreamingOutputCallRequest{
			ResponseParameters: []*testpb.ResponseParameters{{IntervalUs: -1}},
		})
		if err != nil {
			t.Fatal(err)
		}
		h, err := s.Header()
		if err != nil || !slices.Equal(h.Get("x-echo-h"), []string{"now"}) {
			t.Errorf("header %v, %v", h, err)
		}
	})
}

func TestEarlyStatusEndsABidiStream(t *testing.T) {
	t.Parallel()
	eachTransport(t, echo, func(t *testing.T, _ *gateway, c testpb.TestServiceClient) {
		s, err := c.FullDuplexCall(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		// The client never half-closes; the upstream answers all the same.
		if err := s.Send(&testpb.StreamingOutputCallRequest{ResponseStatus: &testpb.EchoStatus{Code: int32(codes.Aborted), Message: "early"}}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); status.Code(err) != codes.Aborted {
			t.Errorf("got %v", err)
		}
	})
}

func TestClientCancellationReachesTheUpstream(t *testing.T) {
	t.Parallel()
	service := &echoService{began: make(chan context.Context, 1)}
	g := startGateway(t, startGRPC(t, false, service), nil)
	c := dialGRPC(t, g)
	ctx, cancel := context.WithCancel(testContext(t))
	failed := make(chan error, 1)
	go func() {
		_, err := c.UnaryCall(ctx, &testpb.SimpleRequest{ExpectCompressed: &testpb.BoolValue{Value: true}})
		failed <- err
	}()
	upstream := <-service.began
	cancel()
	select {
	case <-upstream.Done():
	case <-time.After(testTimeout):
		t.Fatal("the upstream's call goes on")
	}
	if err := <-failed; status.Code(err) != codes.Canceled {
		t.Errorf("client got %v", err)
	}
	if got := g.observed.next(t); got != (request{"grpc", unaryMethod, "Canceled"}) {
		t.Errorf("observed %v", got)
	}
}

func TestDeadlinePassesUntouched(t *testing.T) {
	t.Parallel()
	service := &echoService{began: make(chan context.Context, 1)}
	g := startGateway(t, startGRPC(t, false, service), nil)
	c := dialGRPC(t, g)
	ctx, cancel := context.WithTimeout(context.Background(), 17*time.Second)
	defer cancel()
	if _, err := c.UnaryCall(ctx, &testpb.SimpleRequest{}); err != nil {
		t.Fatal(err)
	}
	deadline, ok := (<-service.began).Deadline()
	if left := time.Until(deadline); !ok || left > 17*time.Second || left < 10*time.Second {
		t.Errorf("deadline in %v, %v", left, ok)
	}
}

func TestCompressedMessagesPassUntouched(t *testing.T) {
	t.Parallel()
	eachTransport(t, echo, func(t *testing.T, _ *gateway, c testpb.TestServiceClient) {
		body := strings.Repeat("compress me ", 10_000)
		res, err := c.UnaryCall(testContext(t), &testpb.SimpleRequest{Payload: payload(body)}, grpc.UseCompressor("gzip"))
		if err != nil || string(res.GetPayload().GetBody()) != body {
			t.Errorf("%d bytes, %v", len(res.GetPayload().GetBody()), err)
		}
	})
}

func TestAuthorityOfTheClientIsKept(t *testing.T) {
	t.Parallel()
	url := startGRPC(t, false, echo())
	for _, test := range []struct{ name, configured, want string }{
		{"by default", "", "tenant.example.com"},
		{"unless configured", "fixed.example.com:443", "fixed.example.com:443"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			g := startGateway(t, url, func(o *proxy.Options) { o.Upstream.Authority = test.configured })
			c := dialGRPC(t, g, grpc.WithAuthority("tenant.example.com"))
			var header metadata.MD
			if _, err := c.UnaryCall(testContext(t), &testpb.SimpleRequest{}, grpc.Header(&header)); err != nil {
				t.Fatal(err)
			}
			if got := header.Get("seen-authority"); !slices.Equal(got, []string{test.want}) {
				t.Errorf("authority %q", got)
			}
			if got := header.Get("seen-x-forwarded-host"); !slices.Equal(got, []string{"tenant.example.com"}) {
				t.Errorf("forwarded host %q", got)
			}
		})
	}
}

func TestUnreachableUpstreamIsUnavailable(t *testing.T) {
	t.Parallel()
	for _, scheme := range []string{"http", "https"} {
		g := startGateway(t, scheme+"://"+closedPort(t), nil)
		c := dialGRPC(t, g)
		var p peer.Peer
		_, err := c.UnaryCall(testContext(t), &testpb.SimpleRequest{}, grpc.Peer(&p))
		if st := status.Convert(err); st.Code() != codes.Unavailable || st.Message() != "upstream is not available" {
			t.Errorf("%s: %v", scheme, err)
		}
		if got := g.observed.next(t); got != (request{"grpc", unaryMethod, "Unavailable"}) {
			t.Errorf("observed %v", got)
		}
	}
}

func TestUnknownMethodsAreLabelledOther(t *testing.T) {
	t.Parallel()
	g := startGateway(t, startGRPC(t, false, echo()), nil)
	conn := rawConn(t, g)
	err := conn.Invoke(testContext(t), "/made.up.Service/Name", &testpb.Empty{}, &testpb.Empty{})
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("got %v", err)
	}
	if got := g.observed.next(t); got != (request{"grpc", "other", "Unimplemented"}) {
		t.Errorf("observed %v", got)
	}
}
