package h2

import (
	"sync"

	"golang.org/x/net/http2"
)

// maxMixed is how many frames are taken together.
const maxMixed = 64

// mixed is DATA of several streams whose frames alternate and came at once: what an upstream that is fair to its streams
// sends. It is taken under one hold of the lock, and forwarded under one for each connection that it goes to.
type mixed struct {
	pieces [maxMixed]piece
	n      int
}

// piece is one frame of them.
type piece struct {
	from, to *stream
	raw      span
	n        int // of the payload
	end      bool
	done     bool // it went on, or is wanted no more
	lost     bool // it is wanted no more
	admitted int  // how much of it need not wait
}

var mixes = sync.Pool{New: func() any { return new(mixed) }}

func (m *mixed) add(s *stream, raw span, end bool) {
	m.pieces[m.n] = piece{from: s, to: s.peer, raw: raw, n: raw.to - raw.from - frameHeaderLen, end: end}
	m.n++
}

// takeMixed takes what follows raw, a frame that came on s and was just accounted for, as long as nothing about it needs a
// closer look. It returns nil if there is nothing like that. The lock is held.
func (c *conn) takeMixed(s *stream, raw span) *mixed {
	var m *mixed
	for m == nil || m.n < maxMixed {
		h, ok := c.in.peek()
		if !ok || h.kind != http2.FrameData || h.has(http2.FlagDataPadded) || h.length > maxFrameSize {
			break
		}
		end := h.has(http2.FlagDataEndStream)
		t := c.streams.get(h.stream)
		if t == nil || t.handled != nil || t.remoteClosed || !t.remoteHead || t.length >= 0 ||
			h.length == 0 && !end || end && t.localClosed || int64(h.length) > min(t.recvWindow, c.recvWindow) {
			break
		}
		if m == nil {
			m = mixes.Get().(*mixed) //nolint:forcetypeassert // The pool makes nothing else.
			m.add(s, raw, false)
		}
		c.in.r += frameHeaderLen + h.length
		t.recvWindow -= int64(h.length)
		c.recvWindow -= int64(h.length)
		c.unacked += int64(h.length)
		t.remoteClosed = end
		if t.lazy > 0 {
			c.giveCredit(t, t.lazy, true)
			t.lazy = 0
		}
		m.add(t, c.in.last(h.length), end)
	}
	return m
}

// forwardMixed is forward for all of m, which it gives back.
func (c *conn) forwardMixed(m *mixed) {
	pieces := m.pieces[:m.n]
	for i := range pieces {
		p := &pieces[i]
		switch {
		case p.done:
			continue
		case p.to.gone.Load():
			p.done, p.lost = true, true
			continue
		}
		// Nothing comes to d while its lock is held, so the pieces of each stream stay in order.
		d := p.to.lock()
		d.sendPieces(pieces[i:])
		d.unlock(&c.wakes)
	}
	c.forwardedMixed(pieces)
	clear(pieces)
	m.n = 0
	mixes.Put(m)
}

// sendPieces sends those of the pieces that go to streams on c. The lock is held.
func (c *conn) sendPieces(pieces []piece) {
	for i := range pieces {
		p := &pieces[i]
		if p.done || p.to.conn.Load() != c {
			continue
		}
		p.done = true
		if p.to.gone.Load() {
			p.lost = true
		} else {
			p.admitted = c.sendFrame(p.to, p.raw, p.end)
		}
		if c.side >= limboSide {
			return
		}
	}
}

// forwardedMixed is forwarded for all of the pieces.
func (c *conn) forwardedMixed(pieces []piece) {
	locked := false
	for i := range pieces {
		p := &pieces[i]
		if p.lost {
			continue
		}
		s, waits := p.from, p.n-p.admitted
		s.lazy += p.admitted
		if waits == 0 && (s.lazy < lazyCredit || p.end) {
			continue
		}
		if !locked {
			locked = true
			c.mu.Lock()
		}
		c.buffered += waits
		if s.lazy > 0 {
			c.giveCredit(s, s.lazy, waits == 0)
			s.lazy = 0
		}
	}
	if locked {
		c.unlock(&c.wakes)
	}
}
