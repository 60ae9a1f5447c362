package h2

import (
	"encoding/binary"

	"golang.org/x/net/http2"
)

// Everything here appends to the output of a connection whose lock is held.

func (c *conn) frame(n int, kind http2.FrameType, flags http2.Flags, id uint32) []byte {
	b := c.out.reserve(frameHeaderLen + n)
	putFrameHeader(b, n, kind, flags, id)
	c.outTotal += uint64(len(b))
	return b[frameHeaderLen:]
}

func (c *conn) writeReset(id uint32, code http2.ErrCode) {
	binary.BigEndian.PutUint32(c.frame(4, http2.FrameRSTStream, 0, id), uint32(code))
}

func (c *conn) writeWindowUpdate(id uint32, n int64) {
	binary.BigEndian.PutUint32(c.frame(4, http2.FrameWindowUpdate, 0, id), uint32(n))
}

func (c *conn) writePing(ack bool, data uint64) {
	var flags http2.Flags
	if ack {
		flags = http2.FlagPingAck
	}
	binary.BigEndian.PutUint64(c.frame(8, http2.FramePing, flags, 0), data)
}

func (c *conn) writeSettings(settings ...http2.Setting) {
	b := c.frame(6*len(settings), http2.FrameSettings, 0, 0)
	for i, s := range settings {
		binary.BigEndian.PutUint16(b[6*i:], uint16(s.ID))
		binary.BigEndian.PutUint32(b[6*i+2:], s.Val)
	}
}

func (c *conn) writeSettingsAck() { c.frame(0, http2.FrameSettings, http2.FlagSettingsAck, 0) }

func (c *conn) writeGoAway(last uint32, code http2.ErrCode) {
	b := c.frame(8, http2.FrameGoAway, 0, 0)
	binary.BigEndian.PutUint32(b, last)
	binary.BigEndian.PutUint32(b[4:], uint32(code))
}

// encode adds a field to the header block that writeBlock will write. Between the two nothing else may be encoded.
func (c *conn) encode(f *Field) {
	if c.encoder == nil {
		c.encoder = newHPACKEncoder()
		c.encoder.setMax(c.tableSize)
	}
	c.encoder.encode(f)
}

// writeBlock writes the encoded header block as HEADERS and as many CONTINUATIONs as it needs.
func (c *conn) writeBlock(id uint32, end bool) {
	block := c.encoder.out
	var flags http2.Flags
	if end {
		flags = http2.FlagHeadersEndStream
	}
	kind := http2.FrameHeaders
	for {
		n := min(len(block), c.peerFrame)
		if n == len(block) {
			flags |= http2.FlagHeadersEndHeaders
		}
		var head [frameHeaderLen]byte
		putFrameHeader(head[:], n, kind, flags, id)
		c.out.append(head[:])
		c.out.append(block[:n])
		c.outTotal += uint64(frameHeaderLen + n)
		block = block[n:]
		if len(block) == 0 {
			break
		}
		kind, flags = http2.FrameContinuation, 0
	}
	c.encoder.out = c.encoder.out[:0]
	if cap(c.encoder.out) > smallChunk {
		c.encoder.out = nil
	}
	c.sentSince = true
}

// sendFields sends a header block. Nothing of s may be waiting.
func (c *conn) sendFields(s *stream, fields []Field, end bool) {
	for i := range fields {
		c.encode(&fields[i])
	}
	c.writeBlock(s.id, end)
	if end {
		c.ended(s)
	}
}

// sendStatus sends the headers of a response.
func (c *conn) sendStatus(s *stream, status int, fields []Field, end bool) {
	if c.side == localSide {
		s.call.exchange.headCame(status, fields, end)
		return
	}
	c.encode(statusField(status))
	c.sendFields(s, fields, end)
}

// sendData sends p, and END_STREAM after it if end is set, as far as windows and room allow. What they do not allow
// waits. admitted is how much of p does not.
func (c *conn) sendData(s *stream, p []byte, end bool) (admitted int) {
	if c.side == localSide {
		s.call.exchange.dataCame(p, end)
		return 0
	}
	if s.queue.empty() && !s.endQueued {
		for len(p) > 0 && (c.ready.first == nil || c.side == limboSide) {
			n := c.allowed(s, len(p))
			if n <= 0 {
				break
			}
			last := end && n == len(p)
			c.writeData(s, p[:n], last)
			if s.call != nil && c.side == upstreamSide {
				s.call.keepForReplay(p[:n])
			}
			admitted += n
			p = p[n:]
			if last {
				c.ended(s)
				return admitted
			}
		}
		if len(p) == 0 && end && c.side != limboSide {
			c.writeData(s, nil, true)
			c.ended(s)
			return admitted
		}
	}
	if len(p) > 0 {
		s.queue.append(p)
	}
	if end {
		s.endQueued = true
	}
	c.wait(s)
	return admitted
}

// sendFrame is sendData for a whole frame as it came, which is not read any more. If all of it can go out at once it
// does so as it is, but for the stream's number.
func (c *conn) sendFrame(s *stream, raw span, end bool) (admitted int) {
	n := raw.to - raw.from - frameHeaderLen
	if n == 0 || !c.goesWhole(s, n, n) {
		return c.sendData(s, raw.payload(), end)
	}
	c.renumber(s, raw.bytes(), n, end)
	c.sendRaw(s, raw, 1, n, end)
	return n
}

// sendRun is sendFrame for a run.
func (c *conn) sendRun(s *stream, r run) (admitted int) {
	whole := c.goesWhole(s, 1, r.size)
	for rest := r.raw.bytes(); len(rest) > 0; {
		h := parseFrameHeader(rest)
		end := h.has(http2.FlagDataEndStream)
		if whole {
			c.renumber(s, rest, h.length, end)
		} else {
			admitted += c.sendData(s, rest[frameHeaderLen:frameHeaderLen+h.length], end)
		}
		rest = rest[frameHeaderLen+h.length:]
	}
	if !whole {
		return admitted
	}
	c.sendRaw(s, r.raw, r.frames, r.size, r.end)
	return r.size
}

// goesWhole reports whether size bytes of s may go out now, in frames that began with one of n bytes.
func (c *conn) goesWhole(s *stream, n, size int) bool {
	return c.side < limboSide && s.queue.empty() && !s.endQueued && c.ready.first == nil &&
		c.allowed(s, n) >= n && int64(size) <= min(s.sendWindow, c.sendWindow)
}

// renumber makes the frame at the front of raw one of s.
func (c *conn) renumber(s *stream, raw []byte, n int, end bool) {
	var flags http2.Flags
	if end {
		flags = http2.FlagDataEndStream
	}
	putFrameHeader(raw, n, http2.FrameData, flags, s.id)
	if c.side == upstreamSide && s.call != nil {
		s.call.keepForReplay(raw[frameHeaderLen : frameHeaderLen+n])
	}
}

// sendRaw sends frames of s that are ready, with size bytes of payload.
func (c *conn) sendRaw(s *stream, raw span, frames, size int, end bool) {
	if c.mayBorrow() {
		c.out.borrow(raw)
	} else {
		c.out.append(raw.bytes())
	}
	c.outTotal += uint64(raw.to - raw.from)
	s.sendWindow -= int64(size)
	c.sendWindow -= int64(size)
	c.dataSent += frames
	c.sentSince = true
	if end {
		c.ended(s)
	}
}

// sendTrailers sends trailers and END_STREAM, once what waits has gone. fields is copied if it must be kept.
func (c *conn) sendTrailers(s *stream, fields []Field) {
	if c.side == localSide {
		s.call.exchange.trailersCame(fields)
		return
	}
	if s.endQueued || s.localClosed {
		return
	}
	if s.queue.empty() && c.side != limboSide {
		c.sendLast(s, fields)
		return
	}
	s.trailers = append([]Field(nil), fields...)
	s.endQueued = true
}

// allowed is how much of n bytes of s may go out now.
func (c *conn) allowed(s *stream, n int) int {
	if c.out.size+c.outBusy >= outLimit {
		return 0
	}
	return int(min(int64(n), s.sendWindow, c.sendWindow, int64(c.peerFrame)))
}

// writeData writes one DATA frame.
func (c *conn) writeData(s *stream, p []byte, end bool) {
	var flags http2.Flags
	if end {
		flags = http2.FlagDataEndStream
	}
	putFrameHeader(c.out.reserve(frameHeaderLen), len(p), http2.FrameData, flags, s.id)
	c.outTotal += frameHeaderLen
	if len(p) > 0 {
		c.out.append(p)
		c.outTotal += uint64(len(p))
		s.sendWindow -= int64(len(p))
		c.sendWindow -= int64(len(p))
	}
	c.dataSent++
	c.sentSince = true
}

// wait puts s among those that have something to send, if only room or the connection's window keeps it.
func (c *conn) wait(s *stream) {
	if !s.inReady && s.sendWindow > 0 && !s.queue.empty() && c.side != limboSide {
		s.inReady = true
		c.ready.push(s)
	}
}

// pump sends what waits, a frame of each stream in turn, as far as windows and room allow.
func (c *conn) pump() {
	for c.ready.first != nil && c.sendWindow > 0 && !c.dead {
		s := c.ready.first
		if s.sendWindow <= 0 {
			c.ready.remove(s)
			s.inReady = false
			continue
		}
		n := c.allowed(s, s.queue.size)
		if n <= 0 {
			return
		}
		p := s.queue.front(n) // A frame per piece; what was appended in one piece mostly is one.
		last := len(p) == s.queue.size && s.endQueued && s.trailers == nil
		c.writeData(s, p, last)
		c.sent(s, p)
		s.queue.discard(len(p))
		c.ready.remove(s)
		s.inReady = false
		switch {
		case last:
			c.ended(s)
		case !s.queue.empty():
			c.wait(s)
		case s.endQueued:
			fields := s.trailers
			s.trailers = nil
			c.sendLast(s, fields)
		}
	}
}

// sendLast sends trailers.
func (c *conn) sendLast(s *stream, fields []Field) {
	if c.side == upstreamSide {
		s.call.forget() // The trailers are not kept.
	}
	c.sendFields(s, fields, true)
}

// sent accounts for bytes that leave a stream's queue.
func (c *conn) sent(s *stream, p []byte) {
	if s.handled != nil {
		s.handled.drained()
		return
	}
	if c.side == upstreamSide {
		s.call.keepForReplay(p)
	}
	n := len(p)
	if s.replayed > 0 {
		known := min(n, s.replayed)
		s.replayed -= known
		n -= known
	}
	if n > 0 {
		c.oweCredit(s, n)
	}
}

// ended notes that END_STREAM is in the output.
func (c *conn) ended(s *stream) {
	s.localClosed = true
	switch {
	case s.remoteClosed:
		c.remove(s)
	case s.resetAfter:
		c.refuseRest(s)
	}
}

// giveCredit lets the peer send n bytes more on s, which were consumed. fast says that they went straight on: then the
// window may grow, as it seems to be what holds the sender back.
func (c *conn) giveCredit(s *stream, n int, fast bool) {
	if s.gone.Load() || s.remoteClosed || c.side >= limboSide {
		return
	}
	s.unacked += int64(n)
	if s.unacked < s.window/2 {
		return
	}
	more := s.unacked
	if fast && s.window < maxStreamWindow {
		if account := c.grownOf(s); account.Load() < int64(c.eng.o.MaxBuffered) {
			account.Add(s.window)
			s.grown += s.window
			more += s.window
			s.window *= 2
		}
	}
	s.unacked = 0
	s.recvWindow += more
	c.writeWindowUpdate(s.id, more)
}

// replenish gives the connection's own window back, when enough of it was used.
func (c *conn) replenish() {
	if c.unacked < connWindow/4 {
		return
	}
	if c.side == clientSide && c.buffered >= c.eng.o.MaxBuffered {
		c.held = true
		return
	}
	c.writeWindowUpdate(0, c.unacked)
	c.recvWindow += c.unacked
	c.unacked = 0
}
