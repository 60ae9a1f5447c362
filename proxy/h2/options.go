package h2

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"time"

	"golang.org/x/net/http2"
)

// Director decides what becomes of each request. Its methods are called on the goroutines that read connections: they
// must be quick, must not block, and must be safe for concurrent use.
type Director interface {
	// Decide is called once per request, when its headers are complete and valid. h, and what it returns, is valid until
	// Decide returns (strings may be kept). What Decide changes in h is what goes upstream if the request is relayed.
	Decide(h *Head) Action
	// Done is called once per relayed request, when its stream to the client has ended. c is valid until Done returns.
	Done(c *Call)
}

// Action is what becomes of a request.
type Action struct {
	// Handler, when set, gets the request, as it came, on a goroutine of its own. Nil: it is relayed.
	Handler http.Handler
	// Relayable says that the Handler may give the call back; see Relayer.
	Relayable bool
	// Tag comes back in Call.Tag.
	Tag any
}

// Call is a relayed request that has ended.
type Call struct {
	// Tag is that of the Action.
	Tag any
	// Status is the final HTTP status that was sent to the client; 0 if there was none.
	Status int
	// GRPCStatus is the value of grpc-status, from the trailers or the headers; "" if there was none.
	GRPCStatus string
	// Start is when the request's headers were read, Duration what it took from then on.
	Start    time.Time
	Duration time.Duration
	// Canceled says that the client gave up: it reset the stream, or its connection ended.
	Canceled bool
	// Local says that the answer, or its end, was made by the gateway: the upstream could not be had, or failed.
	Local bool
}

// Observer is told what the engine does, for metrics. Its methods must be quick and safe for concurrent use.
type Observer interface {
	// Limited is called when a limit was hit: once per connection that was ended for it, or per stream that was refused.
	Limited(r Reason)
	// Connections is called with +1 or -1 when a connection was opened or closed; upstream tells the sides apart.
	Connections(upstream bool, delta int)
}

type noObserver struct{}

func (noObserver) Limited(Reason)        {}
func (noObserver) Connections(bool, int) {}

// UpstreamOptions say where relayed requests go.
type UpstreamOptions struct {
	// Address is host:port.
	Address string
	// TLS secures the connections, with ALPN h2; it is cloned. Nil: h2c.
	TLS *tls.Config
	// Authority replaces :authority. Empty: the client's goes upstream.
	Authority string
	// Dial opens a connection. Nil: a net.Dialer with keep-alive.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// DialTimeout bounds one attempt to connect, TLS handshake included. Zero: 5 s.
	DialTimeout time.Duration
	// Conns is how many connections calls are spread over before MAX_CONCURRENT_STREAMS asks for more. Zero: GOMAXPROCS,
	// but no more than 4.
	Conns int
	// MaxConns is how many connections are opened at most. Zero: 64.
	MaxConns int
	// MaxQueued is how many calls may wait for a connection or a free stream; more are answered UNAVAILABLE. Zero: 1024.
	MaxQueued int
	// QueueTimeout is how long a call waits at most. Zero: 10 s.
	QueueTimeout time.Duration
	// MaxHeaderBytes bounds the header list of one response. Zero: 1 MiB.
	MaxHeaderBytes int
	// PingAfter is how long a connection with open streams may be silent, after something was sent on it, before a PING
	// asks whether it is still alive. Only what was written since the last answer counts, so a stream that is silent on
	// both sides costs no PING: servers count those as abuse. Zero: 30 s.
	PingAfter time.Duration
	// PingTimeout is how long the answer may take before the connection is given up. Zero: 15 s.
	PingTimeout time.Duration
	// MinBackoff and MaxBackoff bound how long no connection beside those that there are is tried after connecting failed.
	// Where there is none, each call tries, one at a time for all that wait. Zero: 50 ms and 2 s.
	MinBackoff, MaxBackoff time.Duration
	// IdleTimeout is how long a connection without a stream is kept. Zero: 5 min.
	IdleTimeout time.Duration
}

// Options are what an Engine needs. Zero values mean the defaults that are named.
type Options struct {
	// Director decides. It must be set.
	Director Director
	Upstream UpstreamOptions
	// TLS, when set, makes Serve speak TLS with ALPN h2 and http/1.1. It is cloned. Nil: h2c and HTTP/1.1 on one port.
	TLS *tls.Config
	// MaxConcurrentStreams bounds the streams of one client connection. Default 1000.
	MaxConcurrentStreams int
	// MaxHeaderBytes bounds the header list of one request: more is answered 431. Default 1 MiB.
	MaxHeaderBytes int
	// ReadHeaderTimeout bounds how long a TLS handshake, the preface and first SETTINGS of a connection, or a header
	// block once begun, may take. Default 10 s.
	ReadHeaderTimeout time.Duration
	// IdleTimeout is how long a client's connection without a stream is kept. Default 5 min.
	IdleTimeout time.Duration
	// PingAfter is how long a client with open streams may be silent before a PING asks whether it is still there.
	// Default 1 min.
	PingAfter time.Duration
	// PingTimeout is how long its answer may take. Default 20 s.
	PingTimeout time.Duration
	// WriteTimeout is how long a write to a socket may make no progress. Default 1 min.
	WriteTimeout time.Duration
	// MaxBuffered is how many bytes of request bodies may wait in the gateway per client connection before the client
	// gets no more window for it, and how far all its streams together may grow their windows. Default 4 MiB.
	MaxBuffered int
	// Limits are the rates above which a client is taken for an attacker.
	Limits Limits
	// Observer is told what happens; nil: nobody is.
	Observer Observer
	// Logger gets what is odd about connections, at debug level; nil: nobody does.
	Logger *slog.Logger
}

func or[T int | time.Duration](v *T, otherwise T) {
	if *v <= 0 {
		*v = otherwise
	}
}

// withDefaults fills in what was left out. The error names what cannot be.
func (o Options) withDefaults() (Options, error) {
	switch {
	case o.Director == nil:
		return o, errors.New("h2 needs a Director")
	case o.Upstream.Address == "":
		return o, errors.New("h2 needs the upstream's address")
	}
	if _, _, err := net.SplitHostPort(o.Upstream.Address); err != nil {
		return o, errors.New("the upstream's address must be host:port")
	}
	or(&o.MaxConcurrentStreams, 1000)
	or(&o.MaxHeaderBytes, 1<<20)
	or(&o.ReadHeaderTimeout, 10*time.Second)
	or(&o.IdleTimeout, 5*time.Minute)
	or(&o.PingAfter, time.Minute)
	or(&o.PingTimeout, 20*time.Second)
	or(&o.WriteTimeout, time.Minute)
	or(&o.MaxBuffered, 4<<20)
	o.Limits = o.Limits.withDefaults(o.MaxConcurrentStreams)
	if o.Observer == nil {
		o.Observer = noObserver{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.TLS != nil {
		o.TLS = withProtocols(o.TLS, http2.NextProtoTLS, "http/1.1")
	}
	u := &o.Upstream
	or(&u.DialTimeout, 5*time.Second)
	or(&u.Conns, min(runtime.GOMAXPROCS(0), 4))
	or(&u.MaxConns, 64)
	u.MaxConns = max(u.MaxConns, u.Conns)
	or(&u.MaxQueued, 1024)
	or(&u.QueueTimeout, 10*time.Second)
	or(&u.MaxHeaderBytes, 1<<20)
	or(&u.PingAfter, 30*time.Second)
	or(&u.PingTimeout, 15*time.Second)
	or(&u.MinBackoff, 50*time.Millisecond)
	or(&u.MaxBackoff, 2*time.Second)
	or(&u.IdleTimeout, 5*time.Minute)
	if u.TLS != nil {
		u.TLS = withProtocols(u.TLS, http2.NextProtoTLS)
		if u.TLS.ServerName == "" && !u.TLS.InsecureSkipVerify {
			host, _, _ := net.SplitHostPort(u.Address)
			u.TLS.ServerName = host
		}
	}
	if u.Dial == nil {
		dialer := &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 4,
		}}
		u.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		}
	}
	return o, nil
}

func withProtocols(c *tls.Config, protocols ...string) *tls.Config {
	c = c.Clone()
	c.NextProtos = protocols
	if c.MinVersion < tls.VersionTLS12 {
		c.MinVersion = tls.VersionTLS12 // RFC 9113 9.2
	}
	return c
}
