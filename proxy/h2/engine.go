package h2

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Engine serves clients' HTTP/2 connections and relays their calls over a few connections to the upstream. It is safe
// for concurrent use.
type Engine struct {
	o      Options
	scheme string
	epoch  time.Time
	// What every relayed request has.
	schemeField, authorityField Field

	pool  *pool
	calls atomic.Int64 // streams that are relayed or handled

	workers workers
	tick    time.Duration // how often the janitor looks

	mu       sync.Mutex
	conns    map[*conn]struct{}
	fresh    map[net.Conn]struct{} // nobody knows yet what they speak
	started  bool
	draining bool
	closed   bool
	ctx      context.Context //nolint:containedctx // Ends handshakes when the engine is closed.
	cancel   context.CancelFunc
	quit     chan struct{}
	idle     chan struct{} // closed, and made anew, whenever a connection has ended
	wg       sync.WaitGroup
}

// New returns an Engine. It opens no connection and starts nothing before it is given a client's. The error names the
// option that cannot be used.
func New(o Options) (*Engine, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	e := &Engine{
		o:      o,
		scheme: "http",
		epoch:  time.Now(),
		conns:  make(map[*conn]struct{}),
		fresh:  make(map[net.Conn]struct{}),
		quit:   make(chan struct{}),
		idle:   make(chan struct{}),
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	if o.Upstream.TLS != nil {
		e.scheme = "https"
	}
	e.schemeField, e.authorityField = NewField(":scheme", e.scheme), NewField(":authority", o.Upstream.Authority)
	e.tick = e.shortest()
	e.pool = newPool(e)
	return e, nil
}

// clock is a monotonic time in nanoseconds, never 0.
func (e *Engine) clock() int64 { return int64(time.Since(e.epoch)) + 1 }

// InFlight is the number of requests that are relayed or handled.
func (e *Engine) InFlight() int { return int(e.calls.Load()) }

// ServeConn serves a client's connection until it ends; it takes nc over. With TLS, nc is a *tls.Conn whose handshake
// is done and has chosen h2. read is what was read from nc already, if anything.
func (e *Engine) ServeConn(nc net.Conn, read []byte) {
	c := newConn(e, nc, clientSide)
	c.localAddr = nc.LocalAddr()
	if a := nc.RemoteAddr(); a != nil {
		c.remoteAddr = a.String()
	}
	if t, ok := nc.(*tls.Conn); ok {
		state := t.ConnectionState()
		c.tlsState = &state
	}
	for len(read) > 0 {
		n := copy(c.in.room(), read)
		c.in.filled(n)
		read = read[n:]
	}
	if !e.track(c) {
		_ = nc.Close()
		return
	}
	c.greet()
	c.run()
	e.untrack(c)
}

// track takes a connection into account. It reports whether the engine still serves.
func (e *Engine) track(c *conn) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed || e.draining && c.side == clientSide {
		if c.side == clientSide {
			return false
		}
	}
	e.conns[c] = struct{}{}
	e.wg.Add(1)
	if !e.started && !e.closed {
		e.started = true
		e.wg.Add(1)
		go e.watch()
	}
	e.o.Observer.Connections(c.side == upstreamSide, 1)
	return true
}

func (e *Engine) untrack(c *conn) {
	e.mu.Lock()
	delete(e.conns, c)
	close(e.idle)
	e.idle = make(chan struct{})
	e.mu.Unlock()
	e.o.Observer.Connections(c.side == upstreamSide, -1)
	e.wg.Done()
}

// Shutdown ends the clients' connections when their calls have ended: each is told that no further call is taken, first
// without an end, then, a round trip later, with the last one that was. It returns when all have ended, or with the
// error of ctx; then Close cuts the rest. New connections are not taken.
func (e *Engine) Shutdown(ctx context.Context) error {
	e.mu.Lock()
	e.draining = true
	clients := e.clients()
	e.mu.Unlock()
	var w waker
	for _, c := range clients {
		c.beginDrain(&w)
	}
	w.flush()
	for {
		e.mu.Lock()
		left, changed := len(e.clients()), e.idle
		e.mu.Unlock()
		if left == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// clients are the clients' connections. e.mu is held.
func (e *Engine) clients() []*conn {
	list := make([]*conn, 0, len(e.conns))
	for c := range e.conns {
		if c.side == clientSide {
			list = append(list, c)
		}
	}
	return list
}

// Close cuts every connection and waits until all goroutines have ended, handlers excepted: their requests' contexts
// are cancelled.
func (e *Engine) Close() {
	e.mu.Lock()
	if !e.closed {
		e.closed = true
		close(e.quit)
		e.workers.stop()
	}
	all := make([]*conn, 0, len(e.conns))
	for c := range e.conns {
		all = append(all, c)
	}
	for nc := range e.fresh {
		_ = nc.SetDeadline(time.Unix(1, 0))
	}
	e.mu.Unlock()
	var w waker
	for _, c := range all {
		c.kill(&w)
	}
	w.flush()
	e.cancel()
	e.pool.close()
	e.pool.wg.Wait()
	e.wg.Wait()
}
