package proxy_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"flag"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/execgate/execgate/conditions"
	"github.com/execgate/execgate/dispatcher"
	"github.com/execgate/execgate/proxy"
	"github.com/execgate/execgate/queue"
	"github.com/execgate/execgate/schema"
	"github.com/execgate/execgate/targetclient"
)

const (
	unaryMethod  = "/grpc.testing.TestService/UnaryCall"
	outputMethod = "/grpc.testing.TestService/StreamingOutputCall"
)

// engine is what serves HTTP/2 in all of these tests: they run on both, one engine after the other.
var engine = flag.String("engine", "both", "the engine of the gateways: h2, nethttp or both")

func TestMain(m *testing.M) {
	flag.Parse()
	engines := []string{*engine}
	if *engine == "both" {
		engines = []string{"h2", "nethttp"}
		for _, once := range []string{"test.fuzz", "test.bench", "test.list"} {
			if f := flag.Lookup(once); f != nil && f.Value.String() != "" {
				engines = engines[:1]
			}
		}
	}
	for _, *engine = range engines {
		if code := m.Run(); code != 0 {
			os.Exit(code)
		}
	}
}

// testTimeout is how long a test waits for what must happen.
const testTimeout = 20 * time.Second

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

// testSchema is that of the upstream of these tests.
var testSchema = sync.OnceValue(func() *schema.Schema {
	var set descriptorpb.FileDescriptorSet
	seen := map[string]bool{}
	var add func(f protoreflect.FileDescriptor)
	add = func(f protoreflect.FileDescriptor) {
		if seen[f.Path()] {
			return
		}
		seen[f.Path()] = true
		for i := range f.Imports().Len() {
			add(f.Imports().Get(i).FileDescriptor)
		}
		set.File = append(set.File, protodesc.ToFileDescriptorProto(f))
	}
	add(testpb.File_grpc_testing_test_proto)
	b, err := proto.Marshal(&set)
	if err != nil {
		panic(err)
	}
	s, err := schema.FromDescriptorSet(b)
	if err != nil {
		panic(err)
	}
	return s
})

// snapshotOf builds a snapshot of executions and targets.
func snapshotOf(t testing.TB, targets []*targetclient.Target, executions ...conditions.Execution) *dispatcher.Snapshot {
	t.Helper()
	s, problems := dispatcher.NewSnapshot(1, executions, targets, dispatcher.SnapshotOptions{})
	if len(problems) > 0 {
		t.Fatalf("snapshot: %v", problems)
	}
	return s
}

// on is an execution with targets.
func on(t testing.TB, id string, targets ...string) conditions.Execution {
	t.Helper()
	c, err := conditions.Parse(id)
	if err != nil {
		t.Fatal(err)
	}
	return conditions.Execution{Condition: c, Targets: targets}
}

// observed collects what the proxy tells its Observer.
type observed struct {
	mu          sync.Mutex
	requests    []request
	unevaluated []string
	overheads   []time.Duration
	done        chan struct{} // gets one value per request
}

type request struct{ protocol, method, code string }

func newObserved() *observed { return &observed{done: make(chan struct{}, 1<<16)} }

func (o *observed) RequestDone(protocol, method, code string, _ time.Duration) {
	o.mu.Lock()
	o.requests = append(o.requests, request{protocol, method, code})
	o.mu.Unlock()
	o.done <- struct{}{}
}

func (o *observed) Overhead(d time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.overheads = append(o.overheads, d)
}

func (o *observed) Unevaluated(phase, reason string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.unevaluated = append(o.unevaluated, phase+" "+reason)
}

// next waits until one more request was recorded and returns the last.
func (o *observed) next(t *testing.T) request {
	t.Helper()
	select {
	case <-o.done:
	case <-time.After(testTimeout):
		t.Fatal("no request was recorded")
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.requests[len(o.requests)-1]
}

// testLogger writes to the test's log.
func testLogger(t testing.TB) *slog.Logger {
	t.Helper()
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// gateway is a Proxy on real sockets.
type gateway struct {
	addr     string
	proxy    *proxy.Proxy
	server   *proxy.Server
	observed *observed
	tls      bool
}

func (g *gateway) url() string {
	if g.tls {
		return "https://" + g.addr
	}
	return "http://" + g.addr
}

// startGateway starts a gateway in front of an upstream. change may adapt the options; by default nothing matches.
func startGateway(t *testing.T, upstreamURL string, change func(*proxy.Options)) *gateway {
	t.Helper()
	return startGatewayServer(t, upstreamURL, change, proxy.ServerOptions{})
}

func startGatewayServer(t testing.TB, upstreamURL string, change func(*proxy.Options), so proxy.ServerOptions) *gateway {
	t.Helper()
	obs := newObserved()
	empty := snapshotOf(t, nil)
	o := proxy.Options{
		Upstream:   proxy.UpstreamOptions{URL: upstreamURL, CAFile: certificates().caFile(t)},
		Schema:     testSchema,
		Snapshot:   func() *dispatcher.Snapshot { return empty },
		Dispatcher: newDispatcher(t, 0),
		InstanceID: "instance-1",
		Observer:   obs,
		Logger:     testLogger(t),
	}
	if change != nil {
		change(&o)
	}
	p, err := proxy.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if t, ok := t.(*testing.T); ok { // A benchmark chooses for itself.
		t.Logf("engine: %s", *engine)
		so.Relay = so.Relay || *engine == "h2"
	}
	s, err := proxy.NewServer(p, so)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	t.Cleanup(func() {
		_ = s.Close()
		p.Close()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return &gateway{addr: ln.Addr().String(), proxy: p, server: s, observed: obs, tls: so.TLS != nil}
}

// newDispatcher is the real thing: real calls to real targets.
func newDispatcher(t testing.TB, chain time.Duration) *dispatcher.Dispatcher {
	t.Helper()
	client, err := targetclient.New(targetclient.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	q := queue.NewMemory(queue.Options{Logger: testLogger(t)})
	return dispatcher.New(dispatcher.Options{Caller: client, Queue: q, ChainTimeout: chain, Logger: slog.New(slog.DiscardHandler)})
}

// certs are those of httptest, for 127.0.0.1 and example.com.
type certs struct {
	server *tls.Config
	pool   *x509.CertPool
	pem    []byte
}

var certificates = sync.OnceValue(func() *certs {
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	defer s.Close()
	c := &certs{
		server: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: s.TLS.Certificates},
		pool:   x509.NewCertPool(),
		pem:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}),
	}
	c.pool.AddCert(s.Certificate())
	return c
})

func (c *certs) caFile(t testing.TB) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(name, c.pem, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func (c *certs) client() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.pool}
}

// startGRPC starts a grpc-go server and returns its url.
func startGRPC(t testing.TB, useTLS bool, service testpb.TestServiceServer, o ...grpc.ServerOption) string {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	scheme := "http"
	if useTLS {
		scheme = "https"
		config := certificates().server.Clone()
		config.NextProtos = []string{"h2"}
		o = append(o, grpc.Creds(credentials.NewTLS(config)))
	}
	s := grpc.NewServer(o...)
	testpb.RegisterTestServiceServer(s, service)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(ln)
	}()
	t.Cleanup(func() { s.Stop(); <-served })
	return scheme + "://" + ln.Addr().String()
}

// dialGRPC connects a real grpc-go client to the gateway.
func dialGRPC(t testing.TB, g *gateway, o ...grpc.DialOption) testpb.TestServiceClient {
	t.Helper()
	return dialAddr(t, g.addr, g.tls, o...)
}

func dialAddr(t testing.TB, addr string, useTLS bool, o ...grpc.DialOption) testpb.TestServiceClient {
	t.Helper()
	creds := insecure.NewCredentials()
	if useTLS {
		creds = credentials.NewTLS(certificates().client())
	}
	conn, err := grpc.NewClient(addr, append([]grpc.DialOption{grpc.WithTransportCredentials(creds)}, o...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return testpb.NewTestServiceClient(conn)
}

// startWeb starts a plain HTTP server as the upstream.
func startWeb(t *testing.T, useTLS bool, h http.Handler) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = useTLS
	if useTLS {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s.URL
}

// webClient is a real net/http client of the gateway that changes nothing by itself.
func webClient(t *testing.T) *http.Client {
	t.Helper()
	tr := &http.Transport{TLSClientConfig: certificates().client(), DisableCompression: true, ForceAttemptHTTP2: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: testTimeout, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
}

// scriptedTarget is an HTTP target that answers as told and keeps what it got.
type scriptedTarget struct {
	*targetclient.Target
	mu    sync.Mutex
	calls []envelope
}

// envelope is what a target gets.
type envelope struct {
	FullMethod string              `json:"fullMethod"`
	InstanceID string              `json:"instanceID"`
	UserID     string              `json:"userID"`
	OrgID      string              `json:"orgID"`
	ProjectID  string              `json:"projectID"`
	Request    json.RawMessage     `json:"request"`
	Response   json.RawMessage     `json:"response"`
	Headers    map[string][]string `json:"headers"`
}

func (s *scriptedTarget) received() []envelope {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]envelope(nil), s.calls...)
}

// startTarget starts a target. answer gets the envelope and says status and body.
func startTarget(t testing.TB, id string, kind targetclient.Kind, interrupt bool, answer func(envelope) (int, string)) *scriptedTarget {
	t.Helper()
	s := &scriptedTarget{Target: &targetclient.Target{
		ID: id, Name: id, Kind: kind, Timeout: testTimeout, InterruptOnError: interrupt,
	}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		var e envelope
		if err := json.Unmarshal(body, &e); err != nil {
			t.Errorf("target %s: %v", id, err)
		}
		s.mu.Lock()
		s.calls = append(s.calls, e)
		s.mu.Unlock()
		status, text := http.StatusOK, ""
		if answer != nil {
			status, text = answer(e)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}))
	t.Cleanup(server.Close)
	s.URL = server.URL
	return s
}

func targetsOf(targets ...*scriptedTarget) []*targetclient.Target {
	var all []*targetclient.Target
	for _, s := range targets {
		all = append(all, s.Target)
	}
	return all
}

// serveHTTP runs s on a free port until the test ends.
func serveHTTP(t *testing.T, s *http.Server) (addr string) {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(ln)
	}()
	t.Cleanup(func() { _ = s.Close(); <-served })
	return ln.Addr().String()
}
