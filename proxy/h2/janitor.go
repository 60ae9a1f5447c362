package h2

import (
	"time"

	"golang.org/x/net/http2"
)

// drainPing is what Shutdown's PING carries, keepalivePing what asks whether a peer is there, lingerPing what wakes one.
const (
	drainPing     = 0x6578_6563_6472_6169
	keepalivePing = 0x6578_6563_7069_6e67
	lingerPing    = 0x6578_6563_6c69_6e67
)

// drainRoundTrip is how long Shutdown waits for a client to have seen the first GOAWAY.
const drainRoundTrip = time.Second

// watch looks after all connections, every so often: deadlines on the sockets would cost a timer per read.
func (e *Engine) watch() {
	defer e.wg.Done()
	ticker := time.NewTicker(e.tick)
	defer ticker.Stop()
	var w waker
	var conns []*conn
	for {
		select {
		case <-e.quit:
			return
		case <-ticker.C:
		}
		e.mu.Lock()
		conns = conns[:0]
		for c := range e.conns {
			conns = append(conns, c)
		}
		e.mu.Unlock()
		for i, c := range conns {
			c.look(e.clock(), &w)
			conns[i] = nil
		}
		if e.pool.waits.Load() > 0 {
			e.pool.expire(&w)
			e.pool.place(&w)
		}
		w.flush()
	}
}

// shortest is how often watch has to look, so that the shortest time is kept well enough.
func (e *Engine) shortest() time.Duration {
	tick := time.Second
	for _, d := range []time.Duration{
		e.o.ReadHeaderTimeout, e.o.IdleTimeout, e.o.PingAfter, e.o.PingTimeout, e.o.WriteTimeout,
		e.o.Upstream.PingAfter, e.o.Upstream.PingTimeout, e.o.Upstream.IdleTimeout, e.o.Upstream.QueueTimeout,
	} {
		tick = min(tick, d/4)
	}
	return max(tick, 5*time.Millisecond)
}

// distant is how far away a deadline is at least that has no timer yet: taking back a timer, which is what becomes of
// most, costs more than to look at all of them now and then.
func (e *Engine) distant() time.Duration { return max(4*e.tick, time.Second) }

// look ends the connection if it is idle, or if its peer keeps it waiting.
func (c *conn) look(now int64, w *waker) {
	if reason := c.overdue(now); reason != 0 {
		c.eng.o.Observer.Limited(reason)
		c.kill(w)
		return
	}
	o := &c.eng.o
	idleTimeout, pingAfter := o.IdleTimeout, o.PingAfter
	if c.side == upstreamSide {
		idleTimeout, pingAfter = o.Upstream.IdleTimeout, o.Upstream.PingAfter
	}
	leave := false
	c.usedCalls.Store(nil) // So that no more are kept than were needed just now.
	c.mu.Lock()
	c.endLingering(now)
	c.setTimers(now)
	read := c.lastRead.Load()
	if read > c.pingSent {
		c.pingSent = 0
	}
	switch {
	case c.dead || c.closing:
	case c.drainSince != 0 && !c.final && now-c.drainSince > int64(drainRoundTrip):
		c.sendFinalGoAway()
	case c.streams.len() == 0 && !c.goingAway && now-c.idleSince > int64(idleTimeout):
		if c.side == clientSide {
			c.sendFinalGoAway()
		} else {
			c.goingAway, c.closing, leave = true, true, true
		}
	case c.streams.len() > 0 && c.pingSent == 0 && now-read > int64(pingAfter) && (c.side == clientSide || c.sentSince):
		c.writePing(false, keepalivePing)
		c.pingSent, c.sentSince = now, false
	}
	c.unlock(w)
	if leave {
		c.eng.pool.leave(c, w)
	}
}

// setTimers gives the calls that handlers gave back timers for deadlines that are not distant any more. The lock is held.
func (c *conn) setTimers(now int64) {
	if c.side != clientSide {
		return
	}
	soon := now + int64(c.eng.distant())*3/4
	for _, s := range c.streams.slots {
		if s == nil || s.call == nil || s.call.keeper == nil {
			continue
		}
		if r := &s.call.keeper.relay; r.deadline != 0 && r.deadline < soon && r.timeout == nil {
			s.call.setTimer(time.Duration(r.deadline - now))
		}
	}
}

// overdue says which patience has ended, 0 if none has.
func (c *conn) overdue(now int64) Reason {
	o := &c.eng.o
	pingTimeout := o.PingTimeout
	if c.side == upstreamSide {
		pingTimeout = o.Upstream.PingTimeout
	}
	late := func(since int64, limit time.Duration) bool { return since != 0 && now-since > int64(limit) }
	c.mu.Lock()
	dead, ping := c.dead, c.pingSent
	c.mu.Unlock()
	switch {
	case dead:
		return 0
	case late(c.writeSince.Load(), o.WriteTimeout):
		return ReasonWriteTimeout
	case late(c.waitsSince.Load(), o.ReadHeaderTimeout):
		return ReasonHeaderTimeout
	case late(ping, pingTimeout) && c.lastRead.Load() < ping:
		return ReasonPingTimeout
	}
	return 0
}

// beginDrain starts to end a client's connection: streams that are on their way are still taken.
func (c *conn) beginDrain(w *waker) {
	c.mu.Lock()
	if c.drainSince == 0 && !c.final && !c.dead {
		c.drainSince = c.eng.clock()
		c.writeGoAway(maxWindow, http2.ErrCodeNo)
		c.writePing(false, drainPing)
	}
	c.unlock(w)
}

// sendFinalGoAway says which stream is the last one. The lock is held.
func (c *conn) sendFinalGoAway() {
	if c.final {
		return
	}
	c.writeGoAway(c.lastID, http2.ErrCodeNo)
	c.final, c.goingAway = true, true
	if c.streams.len() == 0 {
		c.closing = true
	}
}
