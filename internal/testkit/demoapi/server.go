package demoapi

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/improbable-eng/grpc-web/go/grpcweb"
	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // calls may come compressed
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/test/bufconn"

	demopb "github.com/execgate/execgate/gen/execgate/demo/v1"
	adminpb "github.com/execgate/execgate/gen/zitadel/admin/v1"
	sessionpb "github.com/execgate/execgate/gen/zitadel/session/v2"
	userpb "github.com/execgate/execgate/gen/zitadel/user/v2"
)

// Defaults of Options.
const (
	DefaultMaxMessageBytes = 512 << 20
	DefaultTick            = time.Second
	// DefaultUserID is who a caller is taken for when no tokens are configured.
	DefaultUserID = "100000000000000001"
	// DefaultOrgID owns what is created without naming an organization.
	DefaultOrgID = "100000000000000002"
)

// Reflection says which versions of server reflection are offered.
type Reflection uint8

// The zero value offers both, as most servers do.
const (
	ReflectionBoth Reflection = iota
	ReflectionV1
	ReflectionV1Alpha
	ReflectionNone
)

// Options of a Server. The zero value is an open API on plain TCP.
type Options struct {
	// Tokens maps the bearer tokens that are accepted to the ids of the users
	// who hold them. Empty: nobody is asked for a token.
	Tokens map[string]string
	// Hosts lists the tenants, by host name without port. A call to another
	// host is answered with NOT_FOUND. Empty: every host is the tenant.
	Hosts []string
	// TLS turns the port into TLS, with HTTP/2 and HTTP/1.1 by ALPN.
	TLS *tls.Config
	// AllowOrigin says which browser origins may call. Nil: all of them.
	AllowOrigin func(origin string) bool
	// Reflection limits what server reflection is offered.
	Reflection Reflection
	// MaxMessageBytes limits a single message; 0 is DefaultMaxMessageBytes.
	MaxMessageBytes int
	// Tick is the pace of the server-sent events; 0 is DefaultTick.
	Tick time.Duration
	// Now is the clock of everything that is written; nil is time.Now.
	Now func() time.Time
	// OnRequest is called with every call before it is served, and with every
	// message of a stream. It runs on the call's goroutine, may be called
	// concurrently, and must not change what it is given.
	OnRequest func(Request)
	// Logger gets the server's own faults; nil discards them.
	Logger *slog.Logger
}

// Server is a running demo identity API. Its methods are safe for concurrent
// use; the data lives as long as the Server, also across Stop and Start.
type Server struct {
	opts     Options
	state    *state
	requests requests

	mu      sync.Mutex // guards what follows
	http    *http.Server
	grpc    *grpc.Server
	loop    *grpc.ClientConn
	stopped chan struct{} // closed by Stop, for responses that never end
	serving sync.WaitGroup
}

// New returns a server that has yet to be started.
func New(o Options) *Server {
	if o.MaxMessageBytes == 0 {
		o.MaxMessageBytes = DefaultMaxMessageBytes
	}
	if o.Tick == 0 {
		o.Tick = DefaultTick
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.AllowOrigin == nil {
		o.AllowOrigin = func(string) bool { return true }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Server{opts: o, state: newState(o.Now)}
}

// Start listens on addr and serves until Stop. It returns the address it
// listens on. ctx limits the start, not the service.
func (s *Server) Start(ctx context.Context, addr string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.http != nil {
		return "", errors.New("demo API is already started")
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return "", fmt.Errorf("listen for the demo API: %w", err)
	}
	grpcServer := s.newGRPC()
	// The REST door speaks gRPC to the server behind it, through memory.
	pipe := bufconn.Listen(1 << 20)
	loop, err := dialLoop(pipe, s.opts.MaxMessageBytes)
	if err != nil {
		_ = ln.Close()
		return "", err
	}
	stopped := make(chan struct{})
	handler, err := s.newHandler(grpcServer, loop, stopped)
	if err != nil {
		_, _ = ln.Close(), loop.Close()
		return "", err
	}
	s.http = s.newHTTP(handler)
	s.grpc, s.loop, s.stopped = grpcServer, loop, stopped

	s.serving.Go(func() { _ = grpcServer.Serve(pipe) })
	httpServer := s.http
	s.serving.Go(func() {
		serve := func() error { return httpServer.Serve(ln) }
		if httpServer.TLSConfig != nil {
			serve = func() error { return httpServer.ServeTLS(ln, "", "") }
		}
		if err := serve(); !errors.Is(err, http.ErrServerClosed) {
			s.opts.Logger.Error("demo API stopped serving", "error", err)
		}
	})
	return ln.Addr().String(), nil
}

// Stop ends the service: calls in flight are waited for until ctx ends, then
// cut. Stopping twice, or before starting, does nothing.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.http == nil {
		return nil
	}
	close(s.stopped)
	err := s.http.Shutdown(ctx)
	if err != nil {
		_ = s.http.Close()
	}
	_ = s.loop.Close()
	s.grpc.Stop()
	s.serving.Wait()
	s.http, s.grpc, s.loop = nil, nil, nil
	if err != nil {
		return fmt.Errorf("stop the demo API: %w", err)
	}
	return nil
}

func (s *Server) newHTTP(h http.Handler) *http.Server {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 30 * time.Second,
		ErrorLog:          slog.NewLogLogger(s.opts.Logger.Handler(), slog.LevelWarn),
		Protocols:         new(http.Protocols),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          1000,
			MaxReceiveBufferPerConnection: 16 << 20,
			MaxReceiveBufferPerStream:     4 << 20,
		},
	}
	srv.Protocols.SetHTTP1(true)
	if s.opts.TLS == nil {
		srv.Protocols.SetUnencryptedHTTP2(true)
		return srv
	}
	srv.Protocols.SetHTTP2(true)
	srv.TLSConfig = s.opts.TLS.Clone()
	return srv
}

func (s *Server) newGRPC() *grpc.Server {
	srv := grpc.NewServer(
		grpc.MaxRecvMsgSize(s.opts.MaxMessageBytes),
		grpc.MaxSendMsgSize(s.opts.MaxMessageBytes),
		grpc.ChainUnaryInterceptor(s.interceptUnary),
		grpc.ChainStreamInterceptor(s.interceptStream),
	)
	userpb.RegisterUserServiceServer(srv, &users{state: s.state})
	sessionpb.RegisterSessionServiceServer(srv, &sessions{state: s.state})
	adminpb.RegisterAdminServiceServer(srv, &admin{state: s.state})
	demopb.RegisterStreamServiceServer(srv, &grpcStreams{})
	demopb.RegisterRouteServiceServer(srv, &routes{})
	healthServer := health.NewServer()
	healthpb.RegisterHealthServer(srv, healthServer)
	switch s.opts.Reflection {
	case ReflectionBoth:
		reflection.Register(srv)
	case ReflectionV1:
		reflectionv1.RegisterServerReflectionServer(srv,
			reflection.NewServerV1(reflection.ServerOptions{Services: srv}))
	case ReflectionV1Alpha:
		reflectionv1alpha.RegisterServerReflectionServer(srv,
			reflection.NewServer(reflection.ServerOptions{Services: srv}))
	case ReflectionNone:
	}
	return srv
}

// newHandler is the one port: it decides on the headers which door a request
// takes.
func (s *Server) newHandler(grpcServer *grpc.Server, loop *grpc.ClientConn, stopped <-chan struct{}) (http.Handler, error) {
	rest, err := newREST(loop)
	if err != nil {
		return nil, err
	}
	connectMux, connectPaths := s.newConnect()
	web := grpcweb.WrapServer(grpcServer, grpcweb.WithOriginFunc(s.opts.AllowOrigin))
	plain := s.newWeb(stopped)

	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d := door{host: r.Host}
		var h http.Handler
		contentType := r.Header.Get("Content-Type")
		switch {
		case web.IsGrpcWebRequest(r), web.IsAcceptableGrpcCorsRequest(r):
			d.protocol, h = ProtocolGRPCWeb, web
		case strings.HasPrefix(contentType, "application/grpc"):
			d.protocol, h = ProtocolGRPC, grpcServer
		case hasAnyPrefix(r.URL.Path, connectPaths):
			d.protocol, h = ProtocolConnect, s.cors(connectMux)
		case hasAnyPrefix(r.URL.Path, restPrefixes):
			d.protocol, h = ProtocolREST, s.cors(rest)
		default:
			d.protocol, h = ProtocolHTTP, s.cors(plain)
		}
		h.ServeHTTP(w, r.WithContext(withDoor(r.Context(), d)))
	}), nil
}

func hasAnyPrefix(path string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(path, p) {
			return true
		}
	}
	return false
}
