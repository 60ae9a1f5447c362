package h2

import (
	"net/http"

	"golang.org/x/net/http2"
)

// greet appends what the first bytes on a connection must be. Its reader will have them written.
func (c *conn) greet() {
	c.mu.Lock()
	if c.side == upstreamSide {
		c.out.append([]byte(http2.ClientPreface))
		c.outTotal += uint64(len(http2.ClientPreface))
		c.writeSettings(
			http2.Setting{ID: http2.SettingEnablePush, Val: 0},
			http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: uint32(c.headers.limit)},
		)
	} else {
		c.writeSettings(
			http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: uint32(c.eng.o.MaxConcurrentStreams)},
			http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: uint32(c.headers.limit)},
		)
	}
	c.recvWindow = connWindow
	c.writeWindowUpdate(0, connWindow-defaultWindow)
	c.unlock(&c.wakes)
}

// open puts a call on the connection, if that can take one.
func (c *conn) open(k *call, w *waker) bool {
	_, ok := c.openWith(k, span{}, w)
	return ok
}

// openWith is open for a call whose whole body, if there is something in it, is at hand. admitted is how much of that need
// not wait.
func (c *conn) openWith(k *call, body span, w *waker) (admitted int, ok bool) {
	c.mu.Lock()
	if c.dead || c.closing || c.goingAway || uint32(c.streams.len()) >= c.maxStreams || c.out.size+c.outBusy > gateLimit {
		c.unlock(w)
		return 0, false
	}
	t := &k.up
	t.id = c.nextID
	if c.nextID += 2; c.nextID > maxWindow-2 {
		c.goingAway = true // The ids are used up.
	}
	c.add(t)
	end := t.endQueued && t.queue.empty() && t.trailers == nil
	fields := *k.request
	for i := range fields {
		c.encode(&fields[i])
	}
	if k.noRetry {
		k.freeRequest() // It was sent for the second time.
	}
	c.writeBlock(t.id, end)
	k.sentAt = c.outTotal
	t.conn.Store(c)
	switch {
	case end:
		c.ended(t)
	case body.size() > 0:
		admitted = c.sendFrame(t, body, true)
	case !t.queue.empty():
		c.wait(t)
		c.pump()
	case t.endQueued:
		trailers := t.trailers
		t.trailers = nil
		c.sendLast(t, trailers)
	}
	c.unlock(w)
	return admitted, true
}

// lostCall is a call that the connection it was on will not complete.
type lostCall struct {
	k     *call
	again bool // it certainly did not reach the upstream, and can be sent again
}

// takeBack takes a call off the connection so that it can be sent again, if that is possible. The lock is held; when
// it was possible, s belongs to the limbo's from here on.
func (c *conn) takeBack(s *stream) bool {
	k := s.call
	if k.noRetry || s.remoteHead {
		return false
	}
	k.noRetry, k.refusedBy = true, c
	c.streams.remove(s.id)
	c.openStreams.Store(int32(c.streams.len()))
	c.freed, c.post = true, true
	if s.inReady {
		c.ready.remove(s)
		s.inReady = false
	}
	if s.grown > 0 {
		c.grownOf(s).Add(-s.grown)
		s.grown = 0
	}
	s.replayed = k.replay.size
	s.queue.prepend(&k.replay)
	if s.localClosed {
		s.localClosed, s.endQueued = false, true
	}
	s.unacked, s.lazy, s.sendWindow = 0, 0, 0
	if c.streams.len() == 0 && c.goingAway {
		c.closing = true
	}
	s.conn.Store(c.eng.pool.limbo)
	return true
}

// upstreamReset acts on RST_STREAM of the upstream. The lock is held, and is released.
func (c *conn) upstreamReset(s *stream, code http2.ErrCode) {
	k := s.call
	if code == http2.ErrCodeRefusedStream && c.takeBack(s) {
		c.unlock(&c.wakes)
		c.eng.pool.enqueue(k, &c.wakes)
		return
	}
	c.remove(s)
	c.unlock(&c.wakes)
	if code == http2.ErrCodeCancel && k.late() { // A server that keeps the deadline says it like this.
		c.eng.fail(k, failure{
			grpcStatus: grpcDeadlineExceeded, status: http.StatusGatewayTimeout, text: textDeadline, reset: code,
			cause: http2.StreamError{StreamID: s.id, Code: code},
		}, &c.wakes)
		return
	}
	c.eng.fail(k, failure{
		grpcStatus: resetStatus(code), text: "upstream reset the stream: " + code.String(), reset: resetCodeForClient(code),
		cause: http2.StreamError{StreamID: s.id, Code: code},
	}, &c.wakes)
}

// upstreamGoAway acts on GOAWAY of the upstream: no new calls, and those above last were not seen.
func (c *conn) upstreamGoAway(last uint32, code http2.ErrCode) {
	if code != http2.ErrCodeNo {
		c.eng.o.Logger.Debug("the upstream ends a connection", "code", code.String())
	}
	c.eng.pool.leave(c, &c.wakes)
	var lost []lostCall
	c.mu.Lock()
	c.goingAway = true
	for _, s := range c.streams.list() {
		if s.id > last {
			lost = append(lost, c.lose(s, true))
		}
	}
	if c.streams.len() == 0 {
		c.closing = true
	}
	c.unlock(&c.wakes)
	c.eng.lost(lost, &c.wakes)
}

// lose takes a stream off an upstream connection that will not complete it. The lock is held.
func (c *conn) lose(s *stream, unseen bool) lostCall {
	l := lostCall{k: s.call, again: unseen && c.takeBack(s)}
	if !l.again {
		c.remove(s)
	}
	return l
}

// abandon takes all streams off a connection that has ended. The lock is held.
func (c *conn) abandon() (lost []lostCall) {
	for _, s := range c.streams.list() {
		if c.side == upstreamSide {
			// What the socket was given, or is just being given, may have arrived.
			lost = append(lost, c.lose(s, s.call.sentAt > c.outWritten+uint64(c.outBusy)))
			continue
		}
		if s.call != nil {
			s.call.canceled = true
		}
		c.remove(s)
	}
	return lost
}

// lost sends calls again, or fails them. No lock is held.
func (e *Engine) lost(lost []lostCall, w *waker) {
	for _, l := range lost {
		if l.again {
			e.pool.enqueue(l.k, w)
		} else {
			e.fail(l.k, failure{text: textUnavailable, reset: http2.ErrCodeInternal}, w)
		}
	}
}
