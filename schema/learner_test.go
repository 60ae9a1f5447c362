package schema_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/reflection"
	v1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	v1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/execgate/execgate/schema"
)

// upstream is a grpc-go server that reflects a descriptor set.
type upstream struct {
	addr    string
	server  *grpc.Server
	streams atomic.Int64 // reflection streams that are open
	looks   atomic.Int64 // that were opened

	mu       sync.Mutex
	files    *protoregistry.Files
	services []string
}

type upstreamOptions struct {
	addr    string // empty: any free port
	alpha   bool   // v1alpha only
	none    bool   // no reflection at all
	options []grpc.ServerOption
}

// serve starts an upstream for the given set, or the standard one.
func serve(t *testing.T, o upstreamOptions, sets ...*descriptorpb.FileDescriptorSet) *upstream {
	t.Helper()
	u := &upstream{}
	set := parse(t)
	if len(sets) > 0 {
		set = sets[0]
	}
	u.reflect(t, set)
	if o.addr == "" {
		o.addr = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", o.addr)
	if err != nil {
		t.Fatal(err)
	}
	u.addr = listener.Addr().String()
	u.server = grpc.NewServer(append(o.options, grpc.StreamInterceptor(
		func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			u.looks.Add(1)
			u.streams.Add(1)
			defer u.streams.Add(-1)
			return handler(srv, stream)
		}))...)
	ro := reflection.ServerOptions{Services: u, DescriptorResolver: u, ExtensionResolver: u}
	switch {
	case o.none:
	case o.alpha:
		v1alpha.RegisterServerReflectionServer(u.server, reflection.NewServer(ro))
	default:
		v1.RegisterServerReflectionServer(u.server, reflection.NewServerV1(ro))
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = u.server.Serve(listener)
	}()
	t.Cleanup(func() {
		u.server.Stop()
		<-done
	})
	return u
}

// reflect changes what the server tells.
func (u *upstream) reflect(t *testing.T, set *descriptorpb.FileDescriptorSet) {
	t.Helper()
	files, err := protodesc.FileOptions{AllowUnresolvable: true}.NewFiles(set)
	if err != nil {
		t.Fatal(err)
	}
	var services []string
	files.RangeFiles(func(fd protoreflect.FileDescriptor) bool {
		for i := range fd.Services().Len() {
			services = append(services, string(fd.Services().Get(i).FullName()))
		}
		return true
	})
	u.mu.Lock()
	defer u.mu.Unlock()
	u.files, u.services = files, services
}

// list makes the server list services that it does not have.
func (u *upstream) list(services ...string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.services = append(u.services, services...)
}

func (u *upstream) GetServiceInfo() map[string]grpc.ServiceInfo {
	u.mu.Lock()
	defer u.mu.Unlock()
	info := map[string]grpc.ServiceInfo{}
	for _, name := range u.services {
		info[name] = grpc.ServiceInfo{}
	}
	return info
}

func (u *upstream) registry() *protoregistry.Files {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.files
}

func (u *upstream) FindFileByPath(path string) (protoreflect.FileDescriptor, error) {
	return u.registry().FindFileByPath(path)
}

func (u *upstream) FindDescriptorByName(name protoreflect.FullName) (protoreflect.Descriptor, error) {
	return u.registry().FindDescriptorByName(name)
}

func (u *upstream) FindExtensionByName(name protoreflect.FullName) (protoreflect.ExtensionType, error) {
	return dynamicpb.NewTypes(u.registry()).FindExtensionByName(name)
}

func (u *upstream) FindExtensionByNumber(m protoreflect.FullName, n protoreflect.FieldNumber) (protoreflect.ExtensionType, error) {
	return dynamicpb.NewTypes(u.registry()).FindExtensionByNumber(m, n)
}

func (u *upstream) RangeExtensionsByMessage(m protoreflect.FullName, f func(protoreflect.ExtensionType) bool) {
	u.registry().RangeFiles(func(fd protoreflect.FileDescriptor) bool {
		for i := range fd.Extensions().Len() {
			xd := fd.Extensions().Get(i)
			if xd.ContainingMessage().FullName() == m && !f(dynamicpb.NewExtensionType(xd)) {
				return false
			}
		}
		return true
	})
}

// h2c is how an upstream without TLS is reached.
func h2c(addr string) *schema.Reflection {
	return &schema.Reflection{
		Target:      "passthrough:///" + addr,
		DialOptions: []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())},
	}
}

// lines collects log lines.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), s)
}

// run starts a Learner, stops it at the end of the test, and gives what it learns.
func run(t *testing.T, o schema.LearnerOptions) (*schema.Learner, <-chan *schema.Schema) {
	t.Helper()
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	l, err := schema.NewLearner(o)
	if err != nil {
		t.Fatal(err)
	}
	changes := make(chan *schema.Schema, 16)
	l.OnChange(func(s *schema.Schema) { changes <- s })
	start(t, l)
	return l, changes
}

func start(t *testing.T, l *schema.Learner) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := l.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	t.Cleanup(stop)
	return stop
}

// next returns the next schema.
func next(t *testing.T, changes <-chan *schema.Schema) *schema.Schema {
	t.Helper()
	select {
	case s := <-changes:
		return s
	case <-time.After(10 * time.Second):
		t.Fatal("nothing was learned")
		return nil
	}
}

// eventually waits for something that no channel tells.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never: %s", what)
		}
	}
}

func TestLearnsByReflection(t *testing.T) {
	t.Parallel()
	cert, pool := certificate(t)
	for name, c := range map[string]struct {
		o    upstreamOptions
		dial grpc.DialOption
	}{
		"v1":           {upstreamOptions{}, nil},
		"v1alpha only": {upstreamOptions{alpha: true}, nil},
		"TLS": {
			upstreamOptions{options: []grpc.ServerOption{grpc.Creds(credentials.NewServerTLSFromCert(&cert))}},
			grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(pool, "upstream.test")),
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := serve(t, c.o)
			r := h2c(u.addr)
			if c.dial != nil {
				r.DialOptions = []grpc.DialOption{c.dial}
			}
			l, changes := run(t, schema.LearnerOptions{Reflection: r})
			s := next(t, changes)
			if l.Current() != s || l.Err() != nil {
				t.Errorf("current %p, error %v", l.Current(), l.Err())
			}
			select {
			case <-l.Ready():
			default:
				t.Error("not ready")
			}
			if !slices.Equal(s.Methods(), kitchen(t).Methods()) || len(s.Problems()) > 0 {
				t.Errorf("methods %q, problems %q", s.Methods(), s.Problems())
			}
			if _, ok := s.Route("GET", "/kitchen/v1/things/5"); !ok {
				t.Error("no routes")
			}
			eventually(t, "the stream is closed", func() bool { return u.streams.Load() == 0 })
		})
	}
}

func TestLearnsExtensionsThatNoServiceLeadsTo(t *testing.T) {
	t.Parallel()
	set := withFile(t, `syntax="proto2"; package far.v1; import "legacy.proto"; import "google/protobuf/duration.proto"; extend legacy.v1.Old { optional google.protobuf.Duration away = 150; }`)
	u := serve(t, upstreamOptions{}, set)
	_, changes := run(t, schema.LearnerOptions{Reflection: h2c(u.addr)})
	old := messageType(t, next(t, changes), "legacy.v1.Old")
	fromJSON(t, old, `{"[far.v1.away]":"1s"}`)
}

func TestTakesWhatResolves(t *testing.T) {
	t.Parallel()
	set := parse(t)
	set.File = slices.DeleteFunc(set.File, func(f *descriptorpb.FileDescriptorProto) bool {
		return strings.HasPrefix(f.GetName(), "google/api/") || strings.HasPrefix(f.GetName(), "protoc-gen-openapiv2/")
	})
	u := serve(t, upstreamOptions{}, set)
	u.list("ghost.v1.Ghost", "ghost.v1.Other")
	_, changes := run(t, schema.LearnerOptions{Reflection: h2c(u.addr)})
	s := next(t, changes)
	if s.Method("/kitchen.v1.Kitchen/Get") == nil || slices.Contains(s.Services(), "ghost.v1.Ghost") {
		t.Errorf("services %q", s.Services())
	}
	if len(s.Problems()) != 2 || !strings.Contains(s.Problems()[0], "ghost.v1.Ghost") {
		t.Errorf("problems %q", s.Problems())
	}
	if _, ok := s.Route("GET", "/kitchen/v1/things/5"); !ok {
		t.Error("no routes without the file of the option")
	}
}

func TestAServiceThatFailsToResolveOnceIsNotForgotten(t *testing.T) {
	t.Parallel()
	u := serve(t, upstreamOptions{})
	l, changes := run(t, schema.LearnerOptions{Reflection: h2c(u.addr), RefreshInterval: 20 * time.Millisecond})
	first := next(t, changes)
	partial := parse(t)
	partial.File = slices.DeleteFunc(partial.File, func(f *descriptorpb.FileDescriptorProto) bool { return f.GetName() == "legacy.proto" })
	u.reflect(t, partial)
	u.list("legacy.v1.LegacyService")
	eventually(t, "an error", func() bool { return l.Err() != nil })
	if l.Current() != first {
		t.Error("the schema was replaced by half of it")
	}
	// It is gone for good once it is not listed any more.
	u.reflect(t, partial)
	if s := next(t, changes); s.Method("/legacy.v1.LegacyService/Call") != nil {
		t.Error("a service that is gone is still known")
	}
}

func TestNoReflectionIsSaidInWords(t *testing.T) {
	t.Parallel()
	u := serve(t, upstreamOptions{none: true})
	var log lines
	l, _ := run(t, schema.LearnerOptions{Reflection: h2c(u.addr), Logger: slog.New(slog.NewTextHandler(&log, nil))})
	eventually(t, "an error", func() bool { return l.Err() != nil })
	if !strings.Contains(l.Err().Error(), "no server reflection") || l.Current() != nil {
		t.Errorf("error %v", l.Err())
	}
}

func TestLearnsWhenTheUpstreamComesUpAndLogsItsAbsenceOnce(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	var log lines
	dials := atomic.Int64{}
	r := h2c(addr)
	r.DialOptions = append(r.DialOptions, grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
		dials.Add(1)
		return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	}))
	l, changes := run(t, schema.LearnerOptions{Reflection: r, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	eventually(t, "several attempts", func() bool { return dials.Load() >= 5 })
	if l.Current() != nil || l.Err() == nil {
		t.Fatalf("error %v", l.Err())
	}
	up := time.Now()
	serve(t, upstreamOptions{addr: addr})
	next(t, changes)
	if took := time.Since(up); took > 2*time.Second {
		t.Errorf("learned after %v", took)
	}
	if n := log.count("schema not learned"); n != 1 {
		t.Errorf("%d lines about one fault", n)
	}
}

func TestARefreshReplacesOnlyWhatIsNew(t *testing.T) {
	t.Parallel()
	u := serve(t, upstreamOptions{})
	l, changes := run(t, schema.LearnerOptions{Reflection: h2c(u.addr), RefreshInterval: -1, RefreshGap: time.Millisecond})
	first := next(t, changes)
	looks := u.looks.Load()
	l.Refresh()
	eventually(t, "another look", func() bool { return u.looks.Load() > looks && u.streams.Load() == 0 })
	if l.Current() != first {
		t.Error("an equal schema took its place")
	}
	u.reflect(t, withFile(t, "syntax=\"proto3\"; package extra.v1; message M {} service S { rpc New(M) returns (M); }"))
	l.Refresh()
	second := next(t, changes)
	if second.Method("/extra.v1.S/New") == nil || l.Current() != second {
		t.Error("the new method is not known")
	}
	if len(changes) > 0 {
		t.Error("a change too many")
	}
	// The upstream goes: what is known stays.
	u.server.Stop()
	l.Refresh()
	eventually(t, "an error", func() bool { return l.Err() != nil })
	if l.Current() != second {
		t.Error("a failed refresh changed the schema")
	}
}

func TestRefreshKeepsItsGap(t *testing.T) {
	t.Parallel()
	u := serve(t, upstreamOptions{})
	l, changes := run(t, schema.LearnerOptions{Reflection: h2c(u.addr), RefreshInterval: -1, RefreshGap: time.Hour})
	next(t, changes)
	for range 1000 {
		l.Refresh()
	}
	if n := u.looks.Load(); n != 1 {
		t.Errorf("%d looks", n)
	}
}

// withFile returns the standard set and one more file.
func withFile(t *testing.T, source string) *descriptorpb.FileDescriptorSet {
	t.Helper()
	set := parse(t)
	more := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(compile(t, map[string]string{"extra.proto": source}), more); err != nil {
		t.Fatal(err)
	}
	for _, f := range more.File {
		if !slices.ContainsFunc(set.File, func(g *descriptorpb.FileDescriptorProto) bool { return g.GetName() == f.GetName() }) {
			set.File = append(set.File, f)
		}
	}
	return set
}

func TestTheCacheOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "data", "schema.binpb")
	u := serve(t, upstreamOptions{})
	_, changes := run(t, schema.LearnerOptions{Reflection: h2c(u.addr), CachePath: path})
	learned := next(t, changes)
	eventually(t, "the cache is there", func() bool { _, err := os.Stat(path); return err == nil })
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, error %v", info.Mode(), err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
	u.server.Stop()

	again, err := schema.NewLearner(schema.LearnerOptions{
		Reflection: h2c(u.addr), CachePath: path, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Load(); err != nil {
		t.Fatal(err)
	}
	if !learned.Equal(again.Current()) {
		t.Error("another schema")
	}
}

func TestABadCacheIsNoObstacle(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "schema.binpb")
	if err := os.WriteFile(path, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	u := serve(t, upstreamOptions{})
	l, changes := run(t, schema.LearnerOptions{Reflection: h2c(u.addr), CachePath: path})
	if l.Load() == nil {
		t.Error("the bad cache is not told")
	}
	s := next(t, changes)
	eventually(t, "the cache is whole", func() bool {
		b, err := os.ReadFile(path)
		return err == nil && string(b) == string(s.DescriptorSet())
	})
}

func TestFollowsADescriptorSetFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "api.binpb")
	var log lines
	l, changes := run(t, schema.LearnerOptions{
		DescriptorSetPath: path, PollInterval: 5 * time.Millisecond, CachePath: filepath.Join(dir, "cache"),
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	eventually(t, "an error", func() bool { return l.Err() != nil })
	writeBytes := func(b []byte, at time.Time) {
		t.Helper()
		if err := os.WriteFile(path+".new", b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path+".new", at, at); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	write := func(set *descriptorpb.FileDescriptorSet, at time.Time) {
		t.Helper()
		b, err := proto.Marshal(set)
		if err != nil {
			t.Fatal(err)
		}
		writeBytes(b, at)
	}
	write(parse(t), time.Unix(1000, 0))
	first := next(t, changes)
	// Touched, but the same.
	write(parse(t), time.Unix(2000, 0))
	eventually(t, "no error", func() bool { return l.Err() == nil })
	// Broken: what is known stays.
	writeBytes([]byte("rubbish"), time.Unix(2500, 0))
	eventually(t, "an error", func() bool { return l.Err() != nil })
	if l.Current() != first {
		t.Error("a broken file changed the schema")
	}
	write(withFile(t, "syntax=\"proto3\"; package extra.v1; message M {} service S { rpc New(M) returns (M); }"), time.Unix(3000, 0))
	last := next(t, changes)
	if last.Method("/extra.v1.S/New") == nil {
		t.Error("the new method is not known")
	}
	eventually(t, "the cache is written", func() bool {
		b, err := os.ReadFile(filepath.Join(dir, "cache"))
		return err == nil && string(b) == string(last.DescriptorSet())
	})
	if n := log.count("schema not learned"); n != 2 {
		t.Errorf("%d lines about two faults", n)
	}

	// The next start finds the file gone, and takes the cache.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	again, err := schema.NewLearner(schema.LearnerOptions{
		DescriptorSetPath: path, CachePath: filepath.Join(dir, "cache"), Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	if again.Load() == nil {
		t.Error("the missing file is not told")
	}
	if again.Current().Method("/extra.v1.S/New") == nil {
		t.Error("the cache was not taken")
	}
}

func TestLearnerOptionsAreChecked(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]schema.LearnerOptions{
		"no source":   {},
		"two sources": {Reflection: h2c("x"), DescriptorSetPath: "y"},
		"no target":   {Reflection: &schema.Reflection{}},
	} {
		if _, err := schema.NewLearner(o); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	t.Parallel()
	// A server that accepts and says nothing.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	l, err := schema.NewLearner(schema.LearnerOptions{Reflection: h2c(listener.Addr().String()), Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	stop := start(t, l)
	begun := time.Now()
	stop()
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("Run took %v to end", took)
	}
}

// certificate returns a self-signed certificate for upstream.test.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "upstream.test"}, DNSNames: []string{"upstream.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}
