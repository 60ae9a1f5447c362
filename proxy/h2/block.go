package h2

import (
	"encoding/binary"

	"golang.org/x/net/http2"
)

// headerBlock is a header block whose pieces have not all come.
type headerBlock struct {
	id     uint32 // 0: none
	end    bool   // END_STREAM was set
	self   bool   // the stream depends on itself
	pieces int
	buf    []byte
}

// maxPieces bounds the frames of one header block: with frames of 16 KiB that is more than any list that is allowed.
const maxPieces = 128

func (c *conn) onHeaders(h frameHeader, p []byte) error {
	if h.stream == 0 {
		return protocolError("HEADERS without stream")
	}
	p, ok := unpad(h, p)
	if !ok {
		return protocolError("padding is longer than the frame")
	}
	self := false
	if h.has(http2.FlagHeadersPriority) {
		if len(p) < 5 {
			return frameSizeError("HEADERS")
		}
		self = binary.BigEndian.Uint32(p)&streamIDMask == h.stream
		p = p[5:]
	}
	end := h.has(http2.FlagHeadersEndStream)
	if h.has(http2.FlagHeadersEndHeaders) {
		return c.onBlock(h.stream, end, self, p)
	}
	c.block = headerBlock{id: h.stream, end: end, self: self, buf: append(c.block.buf[:0], p...)}
	return nil
}

func (c *conn) onContinuation(h frameHeader, p []byte) error {
	b := &c.block
	if b.id == 0 {
		return protocolError("CONTINUATION without HEADERS")
	}
	if len(p) == 0 && !h.has(http2.FlagContinuationEndHeaders) && !c.guard.empty.take(c.now) {
		return calm(ReasonContinuationFlood)
	}
	if b.pieces++; b.pieces > maxPieces || len(b.buf)+len(p) > c.headers.limit {
		return calm(ReasonContinuationFlood)
	}
	b.buf = append(b.buf, p...)
	if !h.has(http2.FlagContinuationEndHeaders) {
		return nil
	}
	id := b.id
	b.id = 0
	err := c.onBlock(id, b.end, b.self, b.buf)
	b.buf = nil // Blocks in pieces are rare; the memory is not kept.
	return err
}

// onBlock acts on a whole header block.
func (c *conn) onBlock(id uint32, end, self bool, block []byte) error {
	// Whatever becomes of it, the tables must stay in step.
	if err := c.headers.decode(block); err != nil {
		return &connError{code: http2.ErrCodeCompression, text: err.Error()}
	}
	if c.side == upstreamSide {
		return c.onResponseBlock(id, end)
	}
	if id&1 == 0 {
		return protocolError("HEADERS on an even stream")
	}
	if id > c.lastID { // Only this goroutine changes lastID.
		return c.onRequest(id, end, self)
	}
	c.mu.Lock()
	s := c.streams.get(id)
	if s != nil {
		return c.onTrailers(s, end, self) // Unlocks.
	}
	known, reset := c.wasClosed(id)
	c.unlock(&c.wakes)
	switch {
	case reset:
		return nil
	case known:
		return &connError{code: http2.ErrCodeStreamClosed, text: "HEADERS on a closed stream"}
	default:
		return protocolError("stream ids must increase")
	}
}

// onTrailers acts on a block that ends a request. The lock is held, and is released.
func (c *conn) onTrailers(s *stream, end, self bool) error {
	code := http2.ErrCodeNo
	switch {
	case s.remoteClosed:
		code = http2.ErrCodeStreamClosed
	case !end || self || s.length > 0:
		code = http2.ErrCodeProtocol
	case c.headers.over:
		code = http2.ErrCodeEnhanceYourCalm
	default:
		if _, err := readTrailers(c.headers.fields); err != nil {
			code = http2.ErrCodeProtocol
		}
	}
	if code != http2.ErrCodeNo {
		c.unlock(&c.wakes)
		return c.streamError(s.id, code)
	}
	s.remoteClosed = true
	relayed := s.handled == nil // From unlock on, the handler may give it back.
	if !relayed {
		s.handled.trailersCame(c.headers.fields)
	}
	if s.localClosed {
		c.remove(s)
	}
	c.unlock(&c.wakes)
	if relayed {
		d := s.peer.lock()
		if !s.peer.gone.Load() {
			d.sendTrailers(s.peer, c.headers.fields)
		}
		d.unlock(&c.wakes)
	}
	return nil
}

// onData acts on DATA, of either side.
func (c *conn) onData(h frameHeader, p []byte) error {
	if h.stream == 0 {
		return protocolError("DATA without stream")
	}
	data, ok := unpad(h, p)
	if !ok {
		return protocolError("padding is longer than the frame")
	}
	end := h.has(http2.FlagDataEndStream)
	if len(data) == 0 && !end && !c.guard.empty.take(c.now) {
		return calm(ReasonEmptyFrames)
	}
	total := int64(len(p)) // RFC 9113 6.1: padding counts.
	c.mu.Lock()
	if c.recvWindow -= total; c.recvWindow < 0 {
		c.unlock(&c.wakes)
		return &connError{code: http2.ErrCodeFlowControl, text: "DATA beyond the connection's window"}
	}
	c.unacked += total
	c.replenish()
	s := c.streams.get(h.stream)
	if s == nil {
		idle := c.idle(h.stream)
		_, reset := c.wasClosed(h.stream)
		if end && c.restCame(h.stream) {
			c.writePing(false, lingerPing)
		}
		c.unlock(&c.wakes)
		switch {
		case idle:
			return protocolError("DATA on an idle stream")
		case reset || c.side == upstreamSide:
			return nil
		default:
			return c.streamError(h.stream, http2.ErrCodeStreamClosed)
		}
	}
	if code := c.checkData(s, len(data), total, end); code != http2.ErrCodeNo {
		c.unlock(&c.wakes)
		return c.streamError(h.stream, code)
	}
	if s.lazy > 0 {
		c.giveCredit(s, s.lazy, true)
		s.lazy = 0
	}
	if padding := int(total) - len(data); padding > 0 {
		c.giveCredit(s, padding, false)
	}
	relayed := s.handled == nil // From unlock on, the handler may give it back.
	if !relayed {
		c.buffered += len(data)
		s.handled.dataCame(data, end)
	}
	if relayed && !end && len(data) > 0 && len(data) == len(p) && s.length < 0 {
		if r := c.takeRun(s, h.length); r.frames > 1 {
			if r.end && s.localClosed {
				c.remove(s)
			}
			c.unlock(&c.wakes)
			c.forwardRun(s, r)
			return nil
		}
		if m := c.takeMixed(s, c.in.last(len(p))); m != nil {
			c.unlock(&c.wakes)
			c.forwardMixed(m)
			return nil
		}
	}
	if end && s.localClosed {
		c.remove(s)
	}
	c.unlock(&c.wakes)
	if relayed {
		c.forward(s, c.in.last(len(p)), data, end)
	}
	return nil
}

// run is DATA of one stream, in several frames that came at once: small messages of a stream mostly do. It is forwarded
// in one piece, heads and all.
type run struct {
	raw    span
	frames int
	size   int // of the payloads
	end    bool
}

// takeRun takes what follows a frame of s with n bytes that was just accounted for, as long as nothing about it needs a
// closer look. The lock is held.
func (c *conn) takeRun(s *stream, n int) run {
	r := run{raw: c.in.last(n), frames: 1, size: n}
	for !r.end {
		h, ok := c.in.peek()
		if !ok || h.kind != http2.FrameData || h.stream != s.id || h.has(http2.FlagDataPadded) || h.length > maxFrameSize ||
			h.length == 0 && !h.has(http2.FlagDataEndStream) || int64(h.length) > min(s.recvWindow, c.recvWindow) {
			break
		}
		c.in.r += frameHeaderLen + h.length
		s.recvWindow -= int64(h.length)
		c.recvWindow -= int64(h.length)
		c.unacked += int64(h.length)
		r.frames++
		r.size += h.length
		r.end = h.has(http2.FlagDataEndStream)
	}
	s.remoteClosed = r.end
	r.raw.to = c.in.r
	return r
}

// forwardRun is forward for a run.
func (c *conn) forwardRun(s *stream, r run) {
	t := s.peer
	if t.gone.Load() {
		return
	}
	d := t.lock()
	if t.gone.Load() {
		d.unlock(&c.wakes)
		return
	}
	n := d.sendRun(t, r)
	d.unlock(&c.wakes)
	c.forwarded(s, n, r.size-n, r.end)
}

// checkData accounts for DATA on s and returns what is wrong with it. The lock is held.
func (c *conn) checkData(s *stream, n int, total int64, end bool) http2.ErrCode {
	switch {
	case s.remoteClosed:
		return http2.ErrCodeStreamClosed
	case !s.remoteHead:
		return http2.ErrCodeProtocol
	}
	if s.recvWindow -= total; s.recvWindow < 0 {
		return http2.ErrCodeFlowControl
	}
	if s.length >= 0 {
		if s.length -= int64(n); s.length < 0 || end && s.length > 0 {
			return http2.ErrCodeProtocol // RFC 9113 8.1.1
		}
	}
	s.remoteClosed = end
	return http2.ErrCodeNo
}

// forward sends data, that came on s in the frame that raw is, to the other half of its call.
func (c *conn) forward(s *stream, raw span, data []byte, end bool) {
	t := s.peer
	if t.gone.Load() {
		return
	}
	d := t.lock()
	if t.gone.Load() {
		d.unlock(&c.wakes)
		return
	}
	var n int
	if len(data) == raw.to-raw.from-frameHeaderLen {
		n = d.sendFrame(t, raw, end)
	} else { // It was padded.
		n = d.sendData(t, data, end)
	}
	d.unlock(&c.wakes)
	c.forwarded(s, n, len(data)-n, end)
}

// forwarded accounts for what went on, n bytes, and for what waits.
func (c *conn) forwarded(s *stream, n, waits int, end bool) {
	s.lazy += n
	if waits > 0 || s.lazy >= lazyCredit && !end {
		c.mu.Lock()
		c.buffered += waits
		if s.lazy > 0 {
			c.giveCredit(s, s.lazy, waits == 0)
			s.lazy = 0
		}
		c.unlock(&c.wakes)
	}
}
