package h1

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"time"
)

// Director decides what becomes of each request. Decide is called on the goroutines of the connections: it must be
// quick, must not block, and must be safe for concurrent use.
type Director interface {
	// Decide is called when the head of a request is complete and valid. What it changes in h is what goes upstream. Nil:
	// the request goes to net/http, as it came.
	Decide(h *Head) Exchange
}

// Exchange is told what becomes of a relayed request. Its methods are called one after the other, Done last.
type Exchange interface {
	// Answered is called with the status of the final answer, before anything of it is sent. header makes its fields a map.
	// Returned is who is to see the answer's body pass, without its coding; nil: nobody.
	Answered(status int, header func() http.Header) Watcher
	// Failed is called when the exchange cannot be completed. err is a *ClientError if it was the client that went away or
	// broke the rules. Before Answered, w takes the answer that the client gets. After it, what is written to w is the rest
	// of the body, and Failed reports whether the answer is complete with it; otherwise it is cut. w.Header then has the
	// answer's Content-Length, if it has one.
	Failed(w http.ResponseWriter, err error) (complete bool)
	// Done is called when the exchange has ended, however it did.
	Done()
}

// Watcher sees the body of an answer pass.
type Watcher func(p []byte)

// ClientError says that it was the client that ended an exchange.
type ClientError struct {
	// Gone: nobody is there any more to be answered. Otherwise its request was malformed.
	Gone bool
	err  error
}

func (e *ClientError) Error() string { return "client: " + e.err.Error() }
func (e *ClientError) Unwrap() error { return e.err }

// UpstreamOptions say where relayed requests go.
type UpstreamOptions struct {
	// Address is host:port.
	Address string
	// TLS secures the connections, with ALPN http/1.1; it is cloned. Nil: none.
	TLS *tls.Config
	// Authority replaces Host. Empty: the client's goes upstream.
	Authority string
	// Dial opens a connection. Nil: a net.Dialer with keep-alive.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// DialTimeout bounds one attempt to connect, TLS handshake excluded, which may take twice as long. Zero: 5 s.
	DialTimeout time.Duration
	// MaxConns is how many connections are open at most; further requests wait for one. Zero: 8192.
	MaxConns int
	// MaxIdle is how many connections are kept for later requests. Zero: 1024.
	MaxIdle int
	// IdleTimeout is how long they are kept. Zero: 90 s.
	IdleTimeout time.Duration
	// QueueTimeout is how long a request waits for a connection at most. Zero: 10 s.
	QueueTimeout time.Duration
	// MaxHeaderBytes bounds the head of an answer. Zero: 1 MiB.
	MaxHeaderBytes int
}

// Options are what an Engine needs. Zero values mean the defaults that are named.
type Options struct {
	// Director decides. It must be set.
	Director Director
	Upstream UpstreamOptions
	// Other gets connections on which net/http is to serve, to be accepted by an http.Server whose ConnState tells
	// StateChanged. It must be set, and must not block for long.
	Other func(net.Conn)
	// ReadHeaderTimeout bounds how long the head of a request may take. Default 10 s.
	ReadHeaderTimeout time.Duration
	// IdleTimeout is how long a client's connection is kept between requests. Default 5 min.
	IdleTimeout time.Duration
	// MaxHeaderBytes bounds the head of a request: more is answered 431. Default 1 MiB.
	MaxHeaderBytes int
	// Refused is told the status of every answer to what is no request that can be served: 400, 408, 431, 501 or 505. It
	// must be quick and safe for concurrent use. Nil: nobody is told.
	Refused func(status int)
	// LoopFrom is how many connections must be busy before event loops serve those over which nothing odd comes, where the
	// system has what that takes; until then, and elsewhere, each has a goroutine of its own, which answers sooner when
	// there are few. Zero: 8 for each processor. Negative: no loops.
	LoopFrom int
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
	case o.Director == nil, o.Other == nil:
		return o, errors.New("h1 needs a Director and somebody for other requests")
	case o.Upstream.Address == "":
		return o, errors.New("h1 needs the upstream's address")
	}
	or(&o.ReadHeaderTimeout, 10*time.Second)
	or(&o.IdleTimeout, 5*time.Minute)
	or(&o.MaxHeaderBytes, 1<<20)
	if o.Refused == nil {
		o.Refused = func(int) {}
	}
	if o.LoopFrom == 0 {
		o.LoopFrom = 8 * runtime.GOMAXPROCS(0)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	u := &o.Upstream
	or(&u.DialTimeout, 5*time.Second)
	or(&u.MaxConns, 8192)
	or(&u.MaxIdle, 1024)
	or(&u.IdleTimeout, 90*time.Second)
	or(&u.QueueTimeout, 10*time.Second)
	or(&u.MaxHeaderBytes, 1<<20)
	if u.TLS != nil {
		u.TLS = u.TLS.Clone()
		if u.TLS.MinVersion < tls.VersionTLS12 {
			u.TLS.MinVersion = tls.VersionTLS12
		}
		if u.TLS.ServerName == "" && !u.TLS.InsecureSkipVerify {
			u.TLS.ServerName, _, _ = net.SplitHostPort(u.Address)
		}
	}
	if u.Dial == nil {
		dialer := &net.Dialer{KeepAlive: 30 * time.Second}
		u.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		}
	}
	return o, nil
}
