package h1

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// conn is a client's connection. Its goroutine reads a request, serves it, and reads the next.
type conn struct {
	e *Engine
	*socket

	in         input
	remoteAddr string
	tlsState   *tls.ConnectionState
	memo       any
	loan       *loan // what net/http has of it; nil before the first request that goes there

	// phase is what the connection is at, and since when: see setPhase.
	phase atomic.Int64
	// up is the upstream's connection of the exchange, so that it can be cut.
	up atomic.Pointer[upConn]

	side side

	// back is how a loop gives the connection back; nil if no loop has ever had it.
	back    chan parted
	bounced int // how often it came back before it was worth the way
}

// Phases of a connection. The times are the engine's.
const (
	phaseBusy    = iota // its goroutine is at work
	phaseNew            // nothing has come yet
	phaseIdle           // between requests
	phaseHead           // the head of a request comes in
	phaseLate           // it took too long
	phaseWaiting        // the upstream is at work, and nobody looks whether the client is still there
	phaseWatched        // somebody does
	phaseClosed         // it was ended from outside
	phaseBits    = 3
)

func (c *conn) setPhase(p int64) { c.phase.Store(p | c.e.now.Load()<<phaseBits) }

func phaseOf(v int64) (phase, since int64) { return v & (1<<phaseBits - 1), v >> phaseBits }

// leave ends a phase. It reports false if somebody else did.
func (c *conn) leave(from int64) bool {
	old := c.phase.Load()
	p, _ := phaseOf(old)
	return p == from && c.phase.CompareAndSwap(old, phaseBusy)
}

// enter goes from one phase to another. It reports false if somebody else ended the first.
func (c *conn) enter(from, to int64) bool {
	old := c.phase.Load()
	p, _ := phaseOf(old)
	return p == from && c.phase.CompareAndSwap(old, to|c.e.now.Load()<<phaseBits)
}

// run serves the connection.
func (c *conn) run() {
	for c.next() {
		c.setPhase(phaseIdle)
		if c.e.draining.Load() {
			break
		}
	}
	if c.loan != nil && !c.loan.end() {
		return // It is a tunnel now.
	}
	_ = c.Close()
	if c.loan == nil { // net/http may be about to find out.
		c.in.free()
	}
}

// survive keeps a fault in one connection from ending all. What was read may be in the value.
func (c *conn) survive() {
	if fault := recover(); fault != nil {
		c.e.o.Logger.Error("a connection panicked", "type", fmt.Sprintf("%T", fault), "stack", string(debug.Stack()))
		c.kill()
	}
}

// next serves one request. It reports whether another may follow.
func (c *conn) next() bool {
	waiting, _ := phaseOf(c.phase.Load())
	if len(c.in.bytes()) == 0 {
		c.in.rest()
		if waiting == phaseIdle && c.mayLoop() {
			if x, p, going := c.loop(); !going {
				return false
			} else if x != nil {
				keep := x.resume(p)
				x.release()
				return keep
			}
		}
	}
	if len(c.in.bytes()) == 0 && c.fill(&c.in) != nil {
		return false
	}
	if !c.leave(waiting) {
		return false
	}
	end, err := c.readHead()
	if err != nil {
		return c.refuse(err)
	}
	x := exchanges.Get().(*exchange) //nolint:forcetypeassert // The pool makes nothing else.
	x.c, x.head.conn = c, c
	if err := x.head.parse(c.in.bytes()[:end]); err != nil {
		x.release()
		return c.refuse(err)
	}
	if !x.head.odd && c.e.pool.speaks() {
		if x.told = c.e.o.Director.Decide(&x.head); x.told != nil {
			c.in.r += end
			keep := x.relay()
			x.release() // Not if it panicked: its side may still be at work.
			return keep
		}
	}
	length := x.head.length
	x.release()
	return c.lend(end, length)
}

// readHead reads until the head of a request is whole, and returns its length.
func (c *conn) readHead() (end int, err error) {
	limit := c.e.o.MaxHeaderBytes
	for from := 0; ; {
		for skipped := 0; from == 0 && skipped < 2; skipped++ { // RFC 9112 2.2: empty lines before a request are ignored.
			if b := c.in.bytes(); len(b) < 2 || b[0] != '\r' || b[1] != '\n' {
				break
			}
			c.in.r += 2
		}
		if end, from, err = headEnd(c.in.bytes(), from); err != nil {
			return 0, err
		}
		switch have := len(c.in.bytes()); {
		case end > limit, end == 0 && have >= limit:
			return 0, errTooLarge
		case end > 0:
			if !c.headInTime() {
				return 0, errTimeout
			}
			return end, nil
		}
		if len(c.in.room()) == 0 && !c.in.grow(limit+1) {
			return 0, errTooLarge
		}
		if p, _ := phaseOf(c.phase.Load()); p == phaseBusy {
			c.setPhase(phaseHead)
		}
		err := c.fill(&c.in)
		if err != nil {
			if p, _ := phaseOf(c.phase.Load()); p == phaseLate {
				return 0, errTimeout
			}
			return 0, err
		}
	}
}

// headInTime leaves phaseHead, if it was entered. It reports whether that was in time.
func (c *conn) headInTime() bool {
	p, _ := phaseOf(c.phase.Load())
	return p == phaseBusy || c.leave(phaseHead)
}

// refuse answers what is no request that can be served, and ends the connection.
func (c *conn) refuse(err error) bool {
	var r *refusal
	if !errors.As(err, &r) {
		return false
	}
	c.e.o.Refused(r.status)
	if r == errTimeout {
		_ = c.SetReadDeadline(time.Time{})
	}
	out := appendStatus(nil, r.status, http.StatusText(r.status))
	out = append(out, "Content-Type: text/plain; charset=utf-8\r\nConnection: close\r\nContent-Length: "...)
	out = strconv.AppendInt(out, int64(len(r.text)+1), 10)
	out = append(out, "\r\n\r\n"...)
	out = append(out, r.text...)
	out = append(out, '\n')
	_ = c.SetWriteDeadline(time.Now().Add(lingerTimeout))
	if err := c.write(out); err == nil {
		c.linger()
	}
	return false
}

// lingerTimeout is how long a client may go on sending a request that was answered already.
const lingerTimeout = 500 * time.Millisecond

// linger ends the connection so that the client can read the answer although it still sends (RFC 9112 9.6).
func (c *conn) linger() {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() != nil {
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(lingerTimeout))
	buf := streams.Get().(*[]byte) //nolint:forcetypeassert // The pool makes nothing else.
	defer streams.Put(buf)
	for total := 0; total < 16<<20; {
		n, err := c.Conn.Read(*buf)
		if err != nil {
			return
		}
		total += n
	}
}

// look ends the connection if it is idle or slow. It reports whether somebody should look if the client is still there.
func (c *conn) look(now int64) (watch bool) {
	old := c.phase.Load()
	p, since := phaseOf(old)
	took := time.Duration(now - since)
	switch {
	case p == phaseIdle && took > c.e.o.IdleTimeout, p == phaseNew && took > c.e.o.ReadHeaderTimeout:
		c.closeIdle()
	case p == phaseHead && took > c.e.o.ReadHeaderTimeout:
		if c.phase.CompareAndSwap(old, phaseLate) {
			_ = c.SetReadDeadline(longAgo)
		}
	case p == phaseWaiting:
		return took >= watchAfter
	}
	return false
}

// closeIdle ends the connection if nothing is going on.
func (c *conn) closeIdle() {
	old := c.phase.Load()
	if p, _ := phaseOf(old); (p == phaseIdle || p == phaseNew) && c.phase.CompareAndSwap(old, phaseClosed) {
		c.hangUp()
	}
}

// kill ends the connection and what goes on.
func (c *conn) kill() {
	c.phase.Store(phaseClosed)
	c.hangUp()
	if u := c.up.Load(); u != nil {
		u.abort()
	}
}

// side is the goroutine that reads from the client while the answer is on its way: what is left of the request's body,
// and then whether the client is still there.
type side struct {
	mu       sync.Mutex
	done     chan struct{} // nil: there is none
	pinned   *[]byte       // the buffer in which the request's head is
	stopping atomic.Bool
	failure  atomic.Pointer[ClientError]
}

// startWatch has somebody look whether the client of a long exchange is still there.
func (c *conn) startWatch() {
	s := &c.side
	s.mu.Lock()
	defer s.mu.Unlock()
	old := c.phase.Load()
	if p, _ := phaseOf(old); p == phaseWaiting && c.phase.CompareAndSwap(old, phaseWatched) {
		c.startSide(nil)
	}
}

// startSide starts the side; pump, if not nil, first sends the rest of the body. side.mu is held.
func (c *conn) startSide(pump func() error) {
	s := &c.side
	s.pinned = c.in.detach()
	done := make(chan struct{})
	s.done = done
	go func() {
		defer close(done)
		defer c.survive()
		if pump != nil {
			if err := pump(); err != nil {
				c.abandon(err)
				return
			}
		}
		c.watchClient()
	}()
}

// watchClient reads what comes from the client until there is an end, or no room.
func (c *conn) watchClient() {
	for len(c.in.room()) > 0 {
		if err := c.fill(&c.in); err != nil {
			c.abandon(err)
			return
		}
	}
}

// abandon ends an exchange because of the client.
func (c *conn) abandon(err error) {
	if c.side.stopping.Load() {
		return
	}
	var r *refusal
	c.side.failure.Store(&ClientError{Gone: !errors.As(err, &r), err: err})
	if u := c.up.Load(); u != nil {
		u.abort()
	}
}

// stopSide ends the side, if there is one, once the exchange is over. What it is still busy with may take until the
// deadline.
func (c *conn) stopSide(deadline time.Time) {
	s := &c.side
	s.mu.Lock()
	done := s.done
	s.done = nil
	s.mu.Unlock()
	if done == nil {
		return
	}
	s.stopping.Store(true)
	_ = c.SetReadDeadline(deadline)
	<-done
	_ = c.SetReadDeadline(time.Time{})
	s.stopping.Store(false)
	release(s.pinned)
	s.pinned = nil
}
