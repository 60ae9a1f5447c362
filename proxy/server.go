package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"
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
}

// Server accepts the clients' connections and hands their requests to a Proxy.
type Server struct {
	proxy *Proxy
	http  *http.Server
	tls   bool
}

// NewServer returns a server for p. Nothing is listened on before Serve.
func NewServer(p *Proxy, o ServerOptions) *Server {
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
	if o.TLS != nil {
		protocols.SetHTTP2(true)
	} else {
		protocols.SetUnencryptedHTTP2(true)
	}
	s := &Server{proxy: p, tls: o.TLS != nil}
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
	return s
}

// Serve accepts connections on ln until Drain or Close, and returns nil then. It may be called for several listeners.
func (s *Server) Serve(ln net.Listener) error {
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

// drainPoll is how often Drain looks whether the last tunnel has ended.
const drainPoll = 20 * time.Millisecond

// Drain stops accepting, lets what is in flight finish (tunnels included), and returns when all has, or when ctx ends.
// What then still runs is cut; cut is how much that was.
func (s *Server) Drain(ctx context.Context) (cut int) {
	_ = s.http.Shutdown(ctx)
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
	s.proxy.tunnels.cut()
	return s.http.Close()
}
