package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/execgate/execgate/proxy/h1"
	"github.com/execgate/execgate/proxy/h2"
)

// ServerOptions are the limits of the listener side. Zero values mean the defaults that are named.
type ServerOptions struct {
	// TLS, when set, makes the server speak TLS with ALPN h2 and http/1.1. Nil: HTTP/1.1 and h2c on the same port.
	TLS *tls.Config
	// ReadHeaderTimeout bounds how long the headers of an HTTP/1.1 request, or the preface of an HTTP/2 connection, may
	// take, so that slow ones do not pile up. Default 10 s.
	ReadHeaderTimeout time.Duration
	// IdleTimeout is how long a connection without a request is kept. Default 5 min.
	IdleTimeout time.Duration
	// MaxHeaderBytes bounds the headers of one request. Default 1 MiB.
	MaxHeaderBytes int
	// MaxConcurrentStreams bounds the calls on one HTTP/2 connection. Default 1000.
	MaxConcurrentStreams int
	// Logger gets what the HTTP server has to say of broken connections, at debug level. Nil: nobody does.
	Logger *slog.Logger
	// Relay makes the engines of packages h2 and h1 serve the connections: what matches nothing is relayed frame by frame,
	// or byte by byte. Otherwise net/http serves everything.
	Relay bool
	// RelayObserver is told what the engine does; nil: nobody is.
	RelayObserver h2.Observer
	// Refused is told the status of every answer of the relay's to what is no HTTP/1.1 request that can be served; nil:
	// nobody is.
	Refused func(status int)
}

// Server accepts the clients' connections and hands their requests to a Proxy.
type Server struct {
	proxy *Proxy
	http  *http.Server
	tls   bool

	engine  *h2.Engine // nil: net/http serves everything
	engine1 *h1.Engine // takes what does not speak HTTP/2
	others  *h2.HTTP1Listener
	serving sync.Once // of others, by http

	mu        sync.Mutex
	closed    bool
	listeners map[net.Listener]struct{} // the engine's
}

// NewServer returns a server for p. Nothing is listened on before Serve. There is an error only with Relay.
func NewServer(p *Proxy, o ServerOptions) (*Server, error) {
	if o.ReadHeaderTimeout <= 0 {
		o.ReadHeaderTimeout = 10 * time.Second
	}
	if o.IdleTimeout <= 0 {
		o.IdleTimeout = 5 * time.Minute
	}
	if o.MaxHeaderBytes <= 0 {
		o.MaxHeaderBytes = 1 << 20
	}
	if o.MaxConcurrentStreams <= 0 {
		o.MaxConcurrentStreams = 1000
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	switch {
	case o.Relay: // HTTP/2 never gets here.
	case o.TLS != nil:
		protocols.SetHTTP2(true)
	default:
		protocols.SetUnencryptedHTTP2(true)
	}
	s := &Server{proxy: p, tls: o.TLS != nil, listeners: make(map[net.Listener]struct{})}
	s.http = &http.Server{
		Handler:           p,
		Protocols:         &protocols,
		ReadHeaderTimeout: o.ReadHeaderTimeout,
		IdleTimeout:       o.IdleTimeout,
		MaxHeaderBytes:    o.MaxHeaderBytes,
		// "OPTIONS *" is the upstream's to answer.
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: o.MaxConcurrentStreams,
			SendPingTimeout:      time.Minute, // A client that vanished must not hold its calls open.
			PingTimeout:          20 * time.Second,
			WriteByteTimeout:     time.Minute,
		},
	}
	if o.TLS != nil {
		s.http.TLSConfig = o.TLS.Clone()
	}
	if o.Relay {
		var err error
		if s.engine, err = newEngine(p, o); err != nil {
			return nil, err
		}
		p.upstream.relay = s.engine
		s.others = h2.NewHTTP1Listener(&net.TCPAddr{})
		if s.engine1, err = newEngine1(p, o, s.others.Hand); err != nil {
			return nil, err
		}
		s.http.ConnState = h1.StateChanged
	}
	return s, nil
}

// Serve accepts connections on ln until Drain or Close, and returns nil then. It may be called for several listeners.
func (s *Server) Serve(ln net.Listener) error {
	if s.engine != nil {
		return s.serveEngine(ln)
	}
	var err error
	if s.tls {
		err = s.http.ServeTLS(ln, "", "") // The certificates are in the TLS configuration.
	} else {
		err = s.http.Serve(ln)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// serveEngine gives the connections to the engines.
func (s *Server) serveEngine(ln net.Listener) error {
	defer func() { _ = ln.Close() }()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.listeners[ln] = struct{}{}
	s.mu.Unlock()
	s.serving.Do(func() { go func() { _ = s.http.Serve(s.others) }() }) // TLS has been done.
	err := s.engine.Serve(ln, func(nc net.Conn) { go s.engine1.ServeConn(nc) })
	s.mu.Lock()
	delete(s.listeners, ln)
	s.mu.Unlock()
	return err
}

// stopListening closes the engine's listeners.
func (s *Server) stopListening() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for ln := range s.listeners {
		_ = ln.Close()
	}
}

// drainPoll is how often Drain looks whether the last tunnel has ended.
const drainPoll = 20 * time.Millisecond

// Drain stops accepting, lets what is in flight finish (tunnels included), and returns when all has, or when ctx ends.
// What then still runs is cut; cut is how much that was.
func (s *Server) Drain(ctx context.Context) (cut int) {
	s.stopListening()
	var all sync.WaitGroup
	if s.engine != nil {
		all.Go(func() { _ = s.engine.Shutdown(ctx) })
		all.Go(func() { _ = s.engine1.Shutdown(ctx) })
	}
	all.Go(func() { _ = s.http.Shutdown(ctx) })
	all.Wait()
	for s.proxy.InFlight() > 0 && ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-time.After(drainPoll):
		}
	}
	cut = s.proxy.InFlight()
	_ = s.Close()
	return cut
}

// Close cuts everything at once.
func (s *Server) Close() error {
	s.stopListening()
	s.proxy.tunnels.cut()
	err := s.http.Close()
	if s.engine != nil {
		s.engine1.Close()
		s.engine.Close()
	}
	return err
}
