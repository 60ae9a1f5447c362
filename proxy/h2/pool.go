package h2

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

// pool is the connections to the upstream, and the calls that wait for one.
//
// The limbo stands for the connection of a call that has none: its windows are zero, so what the client sends waits in
// the stream's queue as it would for a slow upstream. Its lock guards the fields below it, and is taken before that of a
// connection.
type pool struct {
	eng   *Engine
	waits atomic.Int32            // waiting.n
	list  atomic.Pointer[[]*conn] // those that take calls; replaced, never changed
	wg    sync.WaitGroup

	limbo    *conn
	waiting  streamList
	dialing  int
	failures int
	retryAt  int64 // connecting is not tried before, after it failed
	closed   bool
	ctx      context.Context //nolint:containedctx // Ends dials when the pool is closed.
	cancel   context.CancelFunc
}

// crowded is how many calls a connection has before others are preferred, and more are opened. Few connections make
// large writes.
const crowded = 64

// dialFor is for how many waiting calls one more connection is opened at a time.
const dialFor = 100

func newPool(e *Engine) *pool {
	p := &pool{eng: e, limbo: newConn(e, nil, limboSide)}
	p.list.Store(new([]*conn))
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// route sends a call upstream, or lets it wait. It returns the connection that was found, to be preferred next time. On
// that, body, which is all of the request's body if there is something in it, was sent too, as far as admitted says; if
// there is no connection, nothing was done with it.
func (p *pool) route(k *call, prefer *conn, body span, w *waker) (found *conn, admitted int) {
	if p.waits.Load() == 0 {
		if prefer != nil && prefer.openStreams.Load() < crowded {
			if admitted, ok := prefer.openWith(k, body, w); ok {
				return prefer, admitted
			}
		}
		list := *p.list.Load()
		if best := leastBusy(list); best != nil {
			if admitted, ok := best.openWith(k, body, w); ok {
				if best.openStreams.Load() >= crowded && len(list) < p.eng.o.Upstream.Conns {
					p.spread(w)
				}
				return best, admitted
			}
		}
	}
	p.enqueue(k, w)
	return nil, 0
}

// admit is route for a call that another goroutine may end at any time.
func (p *pool) admit(k *call, w *waker) {
	settling := w.settling
	w.settling = true // Nothing that takes the limbo's lock may happen while it is held.
	p.limbo.mu.Lock()
	placed, busy := k.up.gone.Load(), false
	if !placed && p.waiting.n == 0 {
		list := *p.list.Load()
		if best := leastBusy(list); best != nil && best.open(k, w) {
			placed, busy = true, best.openStreams.Load() >= crowded && len(list) < p.eng.o.Upstream.Conns
		}
	}
	p.limbo.unlock(w)
	w.settling = settling
	w.settle(p.eng)
	switch {
	case !placed:
		p.enqueue(k, w)
	case busy:
		p.spread(w)
	}
}

func leastBusy(list []*conn) *conn {
	var best *conn
	for _, c := range list {
		if best == nil || c.openStreams.Load() < best.openStreams.Load() {
			best = c
		}
	}
	return best
}

// spread opens one more connection, if none is being opened.
func (p *pool) spread(w *waker) {
	p.limbo.mu.Lock()
	if p.dialing == 0 && p.eng.clock() >= p.retryAt && len(*p.list.Load()) < p.eng.o.Upstream.Conns {
		p.startDial()
	}
	p.limbo.unlock(w)
}

// enqueue lets a call wait until it can be placed.
func (p *pool) enqueue(k *call, w *waker) {
	t := &k.up
	p.limbo.mu.Lock()
	if t.gone.Load() {
		p.limbo.unlock(w)
		return
	}
	t.conn.Store(p.limbo)
	full := !p.closed && p.waiting.n >= p.eng.o.Upstream.MaxQueued
	if p.closed || full {
		p.forgetWaiting(t)
		p.limbo.unlock(w)
		f := failure{text: textUnavailable, reset: http2.ErrCodeInternal}
		if full {
			f.text, f.status = textBusy, 503
			p.eng.o.Observer.Limited(ReasonQueueFull)
		}
		p.eng.fail(k, f, w)
		return
	}
	k.waitFrom = time.Now()
	t.eventful = true
	t.inReady = true
	p.waiting.push(t)
	p.waits.Store(int32(p.waiting.n))
	p.limbo.unlock(w)
	p.place(w)
}

// place puts waiting calls on connections that have a stream free, and opens more connections if that is not enough.
func (p *pool) place(w *waker) {
	settling := w.settling
	w.settling = true // Nothing that takes the limbo's lock may happen while it is held.
	p.limbo.mu.Lock()
	list := *p.list.Load()
	for p.waiting.first != nil {
		t := p.waiting.first
		p.waiting.remove(t)
		t.inReady = false
		if !placeOn(list, t.call, w) {
			t.inReady = true
			p.waiting.unshift(t)
			break
		}
	}
	p.waits.Store(int32(p.waiting.n))
	if n := p.waiting.n; n > p.dialing*dialFor && !p.closed &&
		len(list)+p.dialing < p.eng.o.Upstream.MaxConns && p.mayDial(len(list)) {
		p.startDial()
	}
	p.limbo.unlock(w)
	w.settling = settling
	w.settle(p.eng)
}

// mayDial reports whether a connection may be tried for calls that wait. Where there is none at all, it is tried at once,
// one at a time for all of them: a call that comes after the upstream came back must not fail because an earlier one did.
func (p *pool) mayDial(conns int) bool {
	return conns+p.dialing == 0 || p.eng.clock() >= p.retryAt
}

// placeOn puts a call on one of the connections; on the one that refused it before only if there is no other.
func placeOn(list []*conn, k *call, w *waker) bool {
	if best := leastBusy(list); best != nil && best != k.refusedBy && best.open(k, w) {
		return true
	}
	for _, c := range list {
		if c != k.refusedBy && c.open(k, w) {
			return true
		}
	}
	return len(list) == 1 && list[0].open(k, w)
}

// drop takes a call that waits, or is about to, out. The limbo's lock is held.
func (p *pool) drop(t *stream) {
	if t.inReady {
		p.waiting.remove(t)
		t.inReady = false
		p.waits.Store(int32(p.waiting.n))
	}
	p.forgetWaiting(t)
}

func (p *pool) forgetWaiting(t *stream) {
	t.gone.Store(true)
	t.trailers = nil
	p.limbo.detach(t)
	t.call.forget()
}

// expire fails the calls that have waited for too long.
func (p *pool) expire(w *waker) {
	limit := time.Now().Add(-p.eng.o.Upstream.QueueTimeout)
	for {
		p.limbo.mu.Lock()
		t := p.waiting.first
		if t == nil || t.call.waitFrom.After(limit) {
			p.limbo.unlock(w)
			return
		}
		p.drop(t)
		p.limbo.unlock(w)
		p.eng.o.Observer.Limited(ReasonQueueTimeout)
		p.eng.fail(t.call, failure{text: textBusy, status: 503, reset: http2.ErrCodeInternal}, w)
	}
}

// startDial opens a connection in the background. The limbo's lock is held.
func (p *pool) startDial() {
	p.dialing++
	p.wg.Add(1)
	go func() {
		defer p.wg.Done()
		p.dial()
	}()
}

func (p *pool) dial() {
	var w waker
	nc, state, err := p.connect()
	p.limbo.mu.Lock()
	p.dialing--
	if err == nil && p.closed {
		_ = nc.Close()
		err = net.ErrClosed
	}
	if err != nil {
		p.dialFailed(err, &w) // Unlocks.
		w.flush()
		return
	}
	p.failures, p.retryAt = 0, 0
	c := newConn(p.eng, nc, upstreamSide)
	c.tlsState = state
	c.greet()
	p.replaceList(func(list []*conn) []*conn { return append(list, c) })
	p.limbo.unlock(&w)
	p.eng.track(c)
	p.place(&w)
	w.flush()
	c.run()
	p.eng.untrack(c)
}

// replaceList changes the list of connections. The limbo's lock is held.
func (p *pool) replaceList(change func([]*conn) []*conn) {
	list := change(append([]*conn(nil), *p.list.Load()...))
	p.list.Store(&list)
}

// dialFailed fails the calls that waited for the connection, unless there are others to wait for. The limbo's lock is
// held, and is released.
func (p *pool) dialFailed(err error, w *waker) {
	o := &p.eng.o.Upstream
	backoff := o.MaxBackoff
	if p.failures < 16 {
		backoff = min(backoff, o.MinBackoff<<p.failures)
	}
	p.failures++
	backoff -= time.Duration(rand.Int64N(int64(backoff)/4 + 1))
	p.retryAt = p.eng.clock() + int64(backoff)
	var lost []*call
	if len(*p.list.Load()) == 0 && p.dialing == 0 {
		for t := p.waiting.first; t != nil; t = p.waiting.first {
			p.drop(t)
			lost = append(lost, t.call)
		}
	}
	p.limbo.unlock(w)
	if !errors.Is(err, context.Canceled) {
		p.eng.o.Logger.Debug("cannot connect to the upstream", "error", err.Error())
	}
	for _, k := range lost {
		p.eng.fail(k, failure{text: textUnavailable, reset: http2.ErrCodeInternal}, w)
	}
}

var errNoHTTP2 = errors.New("the upstream does not speak HTTP/2")

func (p *pool) connect() (net.Conn, *tls.ConnectionState, error) {
	o := &p.eng.o.Upstream
	ctx, cancel := context.WithTimeout(p.ctx, o.DialTimeout)
	defer cancel()
	nc, err := o.Dial(ctx, o.Address)
	if err != nil || o.TLS == nil {
		return nc, nil, err
	}
	t := tls.Client(nc, o.TLS)
	if err := t.HandshakeContext(ctx); err != nil {
		_ = nc.Close()
		return nil, nil, err
	}
	state := t.ConnectionState()
	if state.NegotiatedProtocol != http2.NextProtoTLS {
		_ = nc.Close()
		return nil, nil, errNoHTTP2
	}
	return t, &state, nil
}

// leave takes a connection out of those that take calls.
func (p *pool) leave(c *conn, w *waker) {
	p.limbo.mu.Lock()
	p.replaceList(func(list []*conn) []*conn {
		for i, other := range list {
			if other == c {
				return append(list[:i], list[i+1:]...)
			}
		}
		return list
	})
	p.limbo.unlock(w)
}

// close ends the dials and makes every further call fail.
func (p *pool) close() {
	var w waker
	p.limbo.mu.Lock()
	p.closed = true
	var lost []*call
	for t := p.waiting.first; t != nil; t = p.waiting.first {
		p.drop(t)
		lost = append(lost, t.call)
	}
	p.limbo.unlock(&w)
	p.cancel()
	for _, k := range lost {
		p.eng.fail(k, failure{text: textUnavailable, reset: http2.ErrCodeInternal}, &w)
	}
	for _, c := range *p.list.Load() {
		c.kill(&w)
	}
	w.flush()
}
