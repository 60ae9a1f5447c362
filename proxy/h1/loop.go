package h1

import (
	"net"
	"time"
)

// parted is what a loop says of a connection that it gives back: x is nil if no exchange is under way.
type parted struct {
	x     *exchange
	sent  int   // bytes of x.out that are sent
	err   error // that ended the exchange, on the client's side
	ended bool  // nothing more is to be done with the connection
}

// maxBounces is how often a connection may come back from a loop, which serves only what is simple, before it is left to
// its goroutine for good.
const maxBounces = 4

// worthwhile is how many exchanges a loop must have relayed for a connection for the way to have been worth it.
const worthwhile = 8

// activeFor is how long a connection counts as busy after an exchange.
const activeFor = 4 * watchAfter

// busy reports whether something went on lately.
func (c *conn) busy(now int64) bool {
	p, since := phaseOf(c.phase.Load())
	return p != phaseNew && p != phaseClosed && (p != phaseIdle || time.Duration(now-since) < activeFor)
}

// mayLoop reports whether a loop is to serve the connection, on which nothing goes on, from now on.
func (c *conn) mayLoop() bool {
	from := c.e.o.LoopFrom
	return from > 0 && c.e.active.Load() >= int64(from-1) && c.plain != nil && c.loan == nil && c.e.o.Upstream.TLS == nil && c.bounced < maxBounces && !c.e.draining.Load()
}

// loop has a loop serve the connection until something comes that is not simple. x is the exchange that is to go on, if
// there is one. going is false if the connection has ended.
func (c *conn) loop() (x *exchange, p parted, going bool) {
	l := c.e.loops.get()
	if l == nil || !l.serve(c) {
		return nil, p, true
	}
	p = <-c.back
	if phase, _ := phaseOf(c.phase.Load()); p.ended || p.x == nil && phase == phaseClosed {
		return nil, p, false
	}
	if err := c.restore(); err != nil && p.err == nil {
		p.err = err
	}
	if x := p.x; x != nil && x.u != nil {
		if err := x.u.restore(); err != nil && p.err == nil {
			p.err = err
		}
	}
	return p.x, p, p.x != nil || p.err == nil
}

// resume goes on with an exchange that a loop gave back.
func (x *exchange) resume(p parted) (keep bool) {
	c := x.c
	defer x.told.Done()
	err := p.err
	if !c.enter(phaseBusy, phaseWaiting) {
		err = net.ErrClosed
	}
	switch {
	case err != nil:
		err = &ClientError{Gone: true, err: err}
	case x.begun:
		if failed := c.write(x.out[p.sent:]); failed != nil {
			err = &ClientError{Gone: true, err: failed}
		}
	case x.u != nil && len(x.u.in.bytes()) > 0:
		c.up.Store(x.u)
		err = x.deliver()
	default:
		err = x.run(p.sent)
	}
	return x.settle(err)
}
