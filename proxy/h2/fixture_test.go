package h2_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"

	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/proxy/h2"
)

func TestMain(m *testing.M) { testkit.Main(m, goleak.IgnoreCurrent()) }

// testTimeout is how long a test waits for what must happen.
const testTimeout = 20 * time.Second

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

// director relays everything unless told otherwise, and remembers what ended and what was limited.
type director struct {
	decide func(h *h2.Head) h2.Action

	mu      sync.Mutex
	done    []h2.Call
	limited map[h2.Reason]int
	changed chan struct{}
}

func newDirector() *director {
	return &director{limited: map[h2.Reason]int{}, changed: make(chan struct{}, 1)}
}

func (d *director) Decide(h *h2.Head) h2.Action {
	if d.decide != nil {
		return d.decide(h)
	}
	return h2.Action{}
}

func (d *director) Done(c *h2.Call) {
	d.mu.Lock()
	d.done = append(d.done, *c)
	d.mu.Unlock()
	d.note()
}

func (d *director) Limited(r h2.Reason) {
	d.mu.Lock()
	d.limited[r]++
	d.mu.Unlock()
	d.note()
}

func (d *director) Connections(bool, int) {}

func (d *director) note() {
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

// waitFor waits until cond, which is called with the lock held, is true.
func (d *director) waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(testTimeout)
	for {
		d.mu.Lock()
		ok := cond()
		d.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-d.changed:
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// front is an engine that listens.
type front struct {
	*director
	engine  *h2.Engine
	address string
	tls     *tls.Config // for clients; nil: h2c
}

// newFront starts an engine before an upstream. change may adapt the options.
func newFront(t *testing.T, upstream string, change func(o *h2.Options)) *front {
	t.Helper()
	d := newDirector()
	o := h2.Options{
		Director: d,
		Observer: d,
		Logger:   testkit.Logger(t),
		Upstream: h2.UpstreamOptions{Address: upstream},
	}
	if change != nil {
		change(&o)
	}
	e, err := h2.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ln := listen(t)
	f := &front{director: d, engine: e, address: ln.Addr().String()}
	served := make(chan error, 1)
	http1 := h2.NewHTTP1Listener(ln.Addr())
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "over "+r.Proto)
	})}
	served1 := make(chan struct{})
	go func() {
		defer close(served1)
		_ = server.Serve(http1)
	}()
	go func() { served <- e.Serve(ln, http1.Hand) }()
	t.Cleanup(func() {
		_ = ln.Close()
		_ = server.Close()
		<-served1
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		e.Close()
		if n := e.InFlight(); n != 0 {
			// Handlers may need a moment to see that their client is gone.
			for deadline := time.Now().Add(testTimeout); e.InFlight() != 0 && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
			if n := e.InFlight(); n != 0 {
				t.Errorf("%d calls are left", n)
			}
		}
	})
	return f
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	var lc net.ListenConfig
	ln, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// testTLS returns the configurations of a server and of its clients.
func testTLS(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	certs := testkit.NewCertificates(t, "127.0.0.1")
	return certs.Server, certs.Client
}

// dial returns a gRPC connection to f.
func (f *front) dial(t *testing.T, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	creds := insecure.NewCredentials()
	if f.tls != nil {
		creds = credentials.NewTLS(f.tls)
	}
	conn, err := grpc.NewClient("passthrough:///"+f.address, append([]grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20), grpc.MaxCallSendMsgSize(64<<20)),
	}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (f *front) client(t *testing.T, options ...grpc.DialOption) testpb.TestServiceClient {
	t.Helper()
	return testpb.NewTestServiceClient(f.dial(t, options...))
}

// web returns an HTTP/2 client.
func (f *front) web(t *testing.T) *http.Client {
	t.Helper()
	var p http.Protocols
	p.SetUnencryptedHTTP2(f.tls == nil)
	p.SetHTTP2(true)
	tr := &http.Transport{Protocols: &p, TLSClientConfig: f.tls.Clone(), DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func (f *front) url(path string) string {
	if f.tls != nil {
		return "https://" + f.address + path
	}
	return "http://" + f.address + path
}

// service is a gRPC upstream. Its unary method echoes the payload and the metadata x-echo-*.
type service struct {
	testpb.UnimplementedTestServiceServer
	began chan context.Context // gets the context of each unary call, if not nil
	hold  chan struct{}        // holds unary calls until it is closed, if not nil
}

func (s *service) UnaryCall(ctx context.Context, in *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	header, trailer := metadata.MD{}, metadata.MD{}
	for name, values := range md {
		if len(name) > 7 && name[:7] == "x-echo-" {
			header[name] = values
			trailer["trailing-"+name] = values
		}
	}
	header.Append("seen-authority", md[":authority"]...)
	_ = grpc.SetHeader(ctx, header)
	_ = grpc.SetTrailer(ctx, trailer)
	if s.began != nil {
		s.began <- ctx
	}
	if s.hold != nil {
		select {
		case <-s.hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if st := in.GetResponseStatus(); st != nil {
		return nil, grpcError(st)
	}
	return &testpb.SimpleResponse{Payload: in.GetPayload()}, nil
}

func (s *service) StreamingOutputCall(in *testpb.StreamingOutputCallRequest, stream testpb.TestService_StreamingOutputCallServer) error {
	for _, p := range in.GetResponseParameters() {
		if err := stream.Send(&testpb.StreamingOutputCallResponse{Payload: &testpb.Payload{Body: make([]byte, p.GetSize())}}); err != nil {
			return err
		}
	}
	return nil
}

func (s *service) StreamingInputCall(stream testpb.TestService_StreamingInputCallServer) error {
	var total int32
	for {
		in, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(&testpb.StreamingInputCallResponse{AggregatedPayloadSize: total})
		}
		if err != nil {
			return err
		}
		total += int32(len(in.GetPayload().GetBody()))
	}
}

func (s *service) FullDuplexCall(stream testpb.TestService_FullDuplexCallServer) error {
	for {
		in, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&testpb.StreamingOutputCallResponse{Payload: in.GetPayload()}); err != nil {
			return err
		}
	}
}

// startGRPC starts a gRPC upstream and returns its address.
func startGRPC(t *testing.T, s *service, options ...grpc.ServerOption) string {
	t.Helper()
	ln := listen(t)
	serveGRPC(t, ln, s, options...)
	return ln.Addr().String()
}

func serveGRPC(t *testing.T, ln net.Listener, s *service, options ...grpc.ServerOption) *grpc.Server {
	t.Helper()
	server := grpc.NewServer(append([]grpc.ServerOption{grpc.MaxRecvMsgSize(64 << 20)}, options...)...)
	testpb.RegisterTestServiceServer(server, s)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(ln)
	}()
	t.Cleanup(func() {
		server.Stop()
		<-served
	})
	return server
}

// startWeb starts an HTTP/2 upstream (h2c, or TLS if config is set) and returns its address.
func startWeb(t *testing.T, config *tls.Config, handler http.Handler) string {
	t.Helper()
	ln := listen(t)
	var p http.Protocols
	p.SetHTTP2(true)
	p.SetUnencryptedHTTP2(config == nil)
	server := &http.Server{Handler: handler, Protocols: &p}
	served := make(chan struct{})
	go func() {
		defer close(served)
		if config != nil {
			server.TLSConfig = config
			_ = server.ServeTLS(ln, "", "")
			return
		}
		_ = server.Serve(ln)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
	})
	return ln.Addr().String()
}

// dialThrough returns a gRPC connection to wherever address points at the time.
func dialThrough(t *testing.T, address *atomic.Pointer[string]) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///anywhere", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", *address.Load())
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}
