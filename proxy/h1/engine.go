package h1

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Engine serves clients' HTTP/1.1 connections and relays their requests. It is safe for concurrent use.
type Engine struct {
	o        Options
	epoch    time.Time
	now      atomic.Int64 // nanoseconds since epoch, as of the last tick; never 0
	pool     *pool
	loops    loops
	active   atomic.Int64 // connections on which something went on lately
	draining atomic.Bool

	mu      sync.Mutex
	conns   map[*conn]struct{}
	started bool
	closed  bool
	ctx     context.Context //nolint:containedctx // The parent of the dials'.
	cancel  context.CancelFunc
	quit    chan struct{}
	idle    chan struct{} // closed, and made anew, whenever a connection has ended
	wg      sync.WaitGroup
}

// New returns an Engine. It opens no connection and starts nothing before it is given a client's. The error names the
// option that cannot be used.
func New(o Options) (*Engine, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	e := &Engine{
		o: o, epoch: time.Now(), conns: make(map[*conn]struct{}), quit: make(chan struct{}), idle: make(chan struct{}),
	}
	e.now.Store(1)
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.pool = &pool{e: e}
	e.loops.e = e
	return e, nil
}

// Unreader is a connection of which something was read before it was handed on.
type Unreader interface {
	// Unread returns the connection itself, and what was read from it.
	Unread() (nc net.Conn, read []byte)
}

// ServeConn serves a client's connection until it ends, or is switched to another protocol; it takes nc over. With TLS,
// nc is a *tls.Conn whose handshake is done. If nc is an Unreader, the connection below it is served.
func (e *Engine) ServeConn(nc net.Conn) {
	var read []byte
	if u, ok := nc.(Unreader); ok {
		nc, read = u.Unread()
	}
	c := &conn{e: e, socket: newSocket(nc)}
	c.setPhase(phaseNew)
	if a := nc.RemoteAddr(); a != nil {
		c.remoteAddr = a.String()
	}
	if t, ok := nc.(*tls.Conn); ok {
		state := t.ConnectionState()
		c.tlsState = &state
	}
	for len(read) > 0 {
		if len(c.in.room()) == 0 {
			c.in.grow(len(read) + inputSize)
		}
		n := copy(c.in.room(), read)
		c.in.w += n
		read = read[n:]
	}
	if !e.track(c) {
		_ = nc.Close()
		return
	}
	defer e.untrack(c)
	defer c.survive()
	c.run()
}

func (e *Engine) track(c *conn) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed || e.draining.Load() {
		return false
	}
	e.conns[c] = struct{}{}
	e.wg.Add(1)
	if !e.started {
		e.started = true
		e.wg.Add(1)
		go e.look()
	}
	return true
}

func (e *Engine) untrack(c *conn) {
	e.mu.Lock()
	delete(e.conns, c)
	close(e.idle)
	e.idle = make(chan struct{})
	e.mu.Unlock()
	e.wg.Done()
}

// Shutdown ends the clients' connections when their exchanges have ended; those that are idle at once. It returns when
// all have, or with the error of ctx; then Close cuts the rest. New connections are not taken. What net/http serves for
// this engine is its own to end.
func (e *Engine) Shutdown(ctx context.Context) error {
	e.draining.Store(true)
	for {
		e.mu.Lock()
		for c := range e.conns {
			c.closeIdle()
		}
		left, changed := len(e.conns), e.idle
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

// Close cuts every connection and waits until all goroutines have ended, those of net/http excepted, which must have
// been closed before.
func (e *Engine) Close() {
	e.draining.Store(true)
	e.mu.Lock()
	if !e.closed {
		e.closed = true
		close(e.quit)
	}
	for c := range e.conns {
		c.kill()
	}
	e.mu.Unlock()
	e.cancel()
	e.pool.close()
	e.loops.close()
	e.wg.Wait()
}

// watchAfter is how long an exchange goes on before somebody looks whether the client is still there.
const watchAfter = 30 * time.Millisecond

// manyConns is from how many connections on they are looked after less often, so that it costs the same.
const manyConns = 2000

// look keeps the time, and looks after all connections every so often: a deadline on each socket would cost a timer per
// read.
func (e *Engine) look() {
	defer e.wg.Done()
	tick := min(e.o.ReadHeaderTimeout/4, e.o.IdleTimeout/4, e.o.Upstream.IdleTimeout/4, watchAfter)
	ticker := time.NewTicker(max(tick, 2*time.Millisecond))
	defer ticker.Stop()
	var watch []*conn
	for n := 0; ; n++ {
		select {
		case <-e.quit:
			return
		case <-ticker.C:
		}
		now := int64(time.Since(e.epoch)) + 1
		e.now.Store(now)
		e.mu.Lock()
		if n%(1+len(e.conns)/manyConns) != 0 {
			e.mu.Unlock()
			continue
		}
		active := int64(0)
		for c := range e.conns {
			if c.busy(now) {
				active++
			}
			if c.look(now) {
				watch = append(watch, c)
			}
		}
		e.mu.Unlock()
		e.active.Store(active)
		for i, c := range watch {
			c.startWatch()
			watch[i] = nil
		}
		watch = watch[:0]
		e.pool.expire(now)
		e.loops.expire(now)
	}
}
