package h1

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// upConn is a connection to the upstream.
type upConn struct {
	*socket

	in     input
	used   bool    // an exchange has ended on it
	idleAt int64   // engine's clock
	client *member // in a loop, the client whose exchange goes on
}

// tlsConn is a connection over TLS that can be polled.
type tlsConn struct {
	*tls.Conn
	below *pollConn // nil: it cannot
}

// silent reports whether there is nothing to read: no answer that nobody asked for, and no end.
func (c *tlsConn) silent() bool {
	if c.below == nil {
		return true
	}
	c.below.polling = true
	defer func() { c.below.polling = false }()
	var one [1]byte
	n, err := c.Conn.Read(one[:])
	var nothing nothingYet
	return n == 0 && errors.As(err, &nothing)
}

var (
	errClosed  = errors.New("gateway is closed")
	errCrowded = errors.New("no connection to the upstream became free")
	errNoHTTP1 = errors.New("upstream does not speak HTTP/1.1")
)

// pool has the connections to the upstream.
type pool struct {
	e *Engine
	// proven is set once it is known whether the upstream speaks HTTP/1.1, noHTTP1 if it does not: it may say so over TLS.
	proven, noHTTP1 atomic.Bool

	mu     sync.Mutex
	idle   []*upConn // the one used last at the end
	open   int
	queue  []chan *upConn // who waits, the first first; nil is sent for a place
	closed bool

	waiting atomic.Bool // somebody is, or was, in the queue since a loop looked
}

// takeIdle returns a connection that was used before, nil if none is free.
func (p *pool) takeIdle() *upConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.idle)
	if n == 0 || p.closed {
		return nil
	}
	u := p.idle[n-1]
	p.idle[n-1] = nil
	p.idle = p.idle[:n-1]
	return u
}

// crowded reports whether somebody waits for a connection.
func (p *pool) crowded() bool {
	if !p.waiting.Load() {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting.Store(len(p.queue) > 0)
	return len(p.queue) > 0
}

// speaks reports whether the upstream speaks HTTP/1.1, as far as can be known. It connects to find out, once.
func (p *pool) speaks() bool {
	if p.proven.Load() {
		return !p.noHTTP1.Load()
	}
	if p.e.o.Upstream.TLS != nil {
		u, err := p.get(false)
		if err != nil {
			return !p.noHTTP1.Load() // Who relays will say what is wrong.
		}
		p.put(u)
	}
	p.proven.Store(true)
	return true
}

// get returns a connection: one that was used before unless fresh is set, or a new one.
func (p *pool) get(fresh bool) (*upConn, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, errClosed
	}
	if n := len(p.idle); n > 0 {
		if !fresh {
			u := p.idle[n-1]
			p.idle[n-1] = nil
			p.idle = p.idle[:n-1]
			p.mu.Unlock()
			return u, nil
		}
		if p.open >= p.e.o.Upstream.MaxConns {
			u := p.idle[0]
			p.idle = append(p.idle[:0], p.idle[1:]...)
			p.open--
			defer u.discard()
		}
	}
	if p.open < p.e.o.Upstream.MaxConns {
		p.open++
		p.mu.Unlock()
		return p.dial()
	}
	turn := make(chan *upConn, 1)
	p.queue = append(p.queue, turn)
	p.waiting.Store(true)
	p.mu.Unlock()
	p.e.loops.giveUp()
	return p.await(turn)
}

// await waits for a connection or a place.
func (p *pool) await(turn chan *upConn) (*upConn, error) {
	patience := time.NewTimer(p.e.o.Upstream.QueueTimeout)
	defer patience.Stop()
	select {
	case u := <-turn:
		if u == nil {
			return p.dial()
		}
		return u, nil
	case <-patience.C:
	case <-p.e.quit:
	}
	p.mu.Lock()
	for i, waiting := range p.queue {
		if waiting == turn {
			p.queue = append(p.queue[:i], p.queue[i+1:]...)
			p.mu.Unlock()
			return nil, errCrowded
		}
	}
	p.mu.Unlock()
	if u := <-turn; u != nil { // It came just now.
		return u, nil
	}
	return p.dial()
}

// dial opens a connection, for which there is a place.
func (p *pool) dial() (*upConn, error) {
	o := &p.e.o.Upstream
	ctx, cancel := context.WithTimeout(p.e.ctx, o.DialTimeout)
	nc, err := o.Dial(ctx, o.Address)
	cancel()
	if err == nil && o.TLS != nil {
		nc, err = p.handshake(nc)
	}
	if err != nil {
		p.gone()
		return nil, err
	}
	return &upConn{socket: newSocket(nc)}, nil
}

func (p *pool) handshake(nc net.Conn) (net.Conn, error) {
	nc = newPollConn(nc)
	below, _ := nc.(*pollConn)
	t, err := p.tls(nc, "http/1.1")
	remote, refused := errors.AsType[*net.OpError](err)
	refused = refused && remote.Op == "remote error"
	// A server without ALPN speaks HTTP/1.1. One that speaks only HTTP/2 says so in an alert, or, if it is Go's, by
	// choosing nothing.
	silent := err == nil && t.ConnectionState().NegotiatedProtocol == "" && !p.proven.Load()
	if (refused || silent) && p.onlyHTTP2() {
		if t != nil {
			_ = t.Close()
		}
		p.noHTTP1.Store(true)
		p.proven.Store(true)
		return nil, errNoHTTP1
	}
	if err != nil {
		return nil, err
	}
	return &tlsConn{Conn: t, below: below}, nil
}

// tls does the handshake. On error nc is closed.
func (p *pool) tls(nc net.Conn, protocols ...string) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(p.e.ctx, 2*p.e.o.Upstream.DialTimeout)
	defer cancel()
	config := p.e.o.Upstream.TLS.Clone()
	config.NextProtos = protocols
	t := tls.Client(nc, config)
	if err := t.HandshakeContext(ctx); err != nil {
		_ = nc.Close()
		return nil, err
	}
	return t, nil
}

// onlyHTTP2 finds out whether the upstream, which did not take HTTP/1.1, takes HTTP/2.
func (p *pool) onlyHTTP2() bool {
	ctx, cancel := context.WithTimeout(p.e.ctx, p.e.o.Upstream.DialTimeout)
	defer cancel()
	nc, err := p.e.o.Upstream.Dial(ctx, p.e.o.Upstream.Address)
	if err != nil {
		return false
	}
	t, err := p.tls(nc, "h2", "http/1.1")
	if err != nil {
		return false
	}
	defer func() { _ = t.Close() }()
	return t.ConnectionState().NegotiatedProtocol == "h2"
}

// put takes a connection back that may be used again.
func (p *pool) put(u *upConn) {
	u.in.rest()
	u.idleAt = p.e.now.Load()
	p.mu.Lock()
	switch {
	case p.closed:
	case len(p.queue) > 0:
		turn := p.queue[0]
		p.queue = p.queue[1:]
		p.mu.Unlock()
		turn <- u
		return
	case len(p.idle) < p.e.o.Upstream.MaxIdle:
		p.idle = append(p.idle, u)
		p.mu.Unlock()
		return
	}
	p.mu.Unlock()
	p.drop(u)
}

// drop closes a connection that may not be used again.
func (p *pool) drop(u *upConn) {
	u.discard()
	p.gone()
}

// abort ends the connection at once, so that nothing that comes is taken for an answer.
func (u *upConn) abort() {
	if t, ok := u.Conn.(*tlsConn); ok && t.below != nil {
		_ = t.below.Close()
		return
	}
	u.hangUp()
}

// finish sends the rest of a request of which sent bytes are sent, and waits for an answer.
func (u *upConn) finish(p []byte, sent int) (int, error) {
	if sent < len(p) {
		n, err := u.Conn.Write(p[sent:])
		if sent += n; err != nil {
			return sent, err
		}
	}
	return sent, u.fill(&u.in)
}

func (u *upConn) discard() {
	_ = u.Close()
	u.in.free()
}

// gone makes the place of a connection free.
func (p *pool) gone() {
	p.mu.Lock()
	if len(p.queue) > 0 && !p.closed {
		turn := p.queue[0]
		p.queue = p.queue[1:]
		p.mu.Unlock()
		turn <- nil
		return
	}
	p.open--
	p.mu.Unlock()
}

// expire closes connections that were not used for long.
func (p *pool) expire(now int64) {
	limit := now - int64(p.e.o.Upstream.IdleTimeout)
	p.mu.Lock()
	n := 0
	for n < len(p.idle) && p.idle[n].idleAt < limit {
		n++
	}
	old := append([]*upConn(nil), p.idle[:n]...)
	if n > 0 {
		m := copy(p.idle, p.idle[n:])
		clear(p.idle[m:])
		p.idle = p.idle[:m]
	}
	p.mu.Unlock()
	for _, u := range old {
		p.drop(u)
	}
}

// close closes the idle connections, and every one that comes back.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	idle := p.idle
	p.idle = nil
	p.mu.Unlock()
	for _, u := range idle {
		p.drop(u)
	}
}
