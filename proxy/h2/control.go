package h2

import (
	"encoding/binary"

	"golang.org/x/net/http2"
)

// onFrame acts on one frame. The error ends the connection.
func (c *conn) onFrame(h frameHeader, p []byte) error {
	if c.block.id != 0 && (h.kind != http2.FrameContinuation || h.stream != c.block.id) {
		return protocolError("a header block was interrupted")
	}
	if !c.settled {
		if h.kind != http2.FrameSettings || h.has(http2.FlagSettingsAck) {
			return protocolError("the first frame is not SETTINGS")
		}
		c.settled = true
	}
	switch h.kind {
	case http2.FrameData:
		return c.onData(h, p)
	case http2.FrameHeaders:
		return c.onHeaders(h, p)
	case http2.FrameContinuation:
		return c.onContinuation(h, p)
	case http2.FrameRSTStream:
		return c.onReset(h, p)
	case http2.FrameSettings:
		return c.onSettings(h, p)
	case http2.FramePing:
		return c.onPing(h, p)
	case http2.FrameGoAway:
		return c.onGoAway(h, p)
	case http2.FrameWindowUpdate:
		return c.onWindowUpdate(h, p)
	case http2.FramePriority:
		return c.onPriority(h, p)
	case http2.FramePushPromise:
		return protocolError("PUSH_PROMISE")
	default:
		// RFC 9113 4.1: ignored.
		if !c.guard.priorities.take(c.now) {
			return calm(ReasonPriorityFlood)
		}
		return nil
	}
}

// idle reports whether a stream was never opened. The lock is held.
func (c *conn) idle(id uint32) bool {
	if c.side == clientSide {
		return id&1 == 0 || id > c.lastID
	}
	return id&1 == 0 || id >= c.nextID
}

// streamError resets a stream for a mistake of the peer. Mistakes that force resets are counted as resets: they cost
// the same. No lock is held.
func (c *conn) streamError(id uint32, code http2.ErrCode) error {
	if !c.guard.resets.take(c.now) && c.side == clientSide {
		return calm(ReasonRapidReset)
	}
	c.mu.Lock()
	s := c.streams.get(id)
	if s == nil {
		c.writeReset(id, code)
		c.remember(id, true)
		c.unlock(&c.wakes)
		return nil
	}
	c.cancel(s, code)
	c.unlock(&c.wakes)
	if c.side == upstreamSide {
		c.eng.fail(s.call, failure{
			grpcStatus: grpcInternal, reset: http2.ErrCodeInternal, text: textBroken,
			cause: http2.StreamError{StreamID: id, Code: code},
		}, &c.wakes)
	}
	return nil
}

func (c *conn) onReset(h frameHeader, p []byte) error {
	if len(p) != 4 {
		return frameSizeError("RST_STREAM")
	}
	code := http2.ErrCode(binary.BigEndian.Uint32(p))
	c.mu.Lock()
	s := c.streams.get(h.stream)
	if s == nil {
		idle := h.stream == 0 || c.idle(h.stream)
		c.restCame(h.stream)
		c.unlock(&c.wakes)
		if idle {
			return protocolError("RST_STREAM on an idle stream")
		}
	} else if c.side == clientSide {
		if s.call != nil {
			s.call.canceled = true
		}
		c.remove(s)
		c.unlock(&c.wakes)
	} else {
		c.upstreamReset(s, code) // Unlocks.
	}
	if c.side == clientSide && !c.guard.resets.take(c.now) {
		return calm(ReasonRapidReset)
	}
	return nil
}

func (c *conn) onSettings(h frameHeader, p []byte) error {
	if h.stream != 0 {
		return protocolError("SETTINGS on a stream")
	}
	if h.has(http2.FlagSettingsAck) {
		if len(p) != 0 {
			return frameSizeError("SETTINGS acknowledgement with content")
		}
		return nil
	}
	if len(p)%6 != 0 {
		return frameSizeError("SETTINGS")
	}
	if !c.guard.settings.take(c.now) || len(p) > 6*64 {
		return calm(ReasonSettingsFlood)
	}
	c.mu.Lock()
	for ; len(p) > 0; p = p[6:] {
		s := http2.Setting{ID: http2.SettingID(binary.BigEndian.Uint16(p)), Val: binary.BigEndian.Uint32(p[2:])}
		if err := c.applySetting(s); err != nil {
			c.unlock(&c.wakes)
			return err
		}
	}
	c.writeSettingsAck()
	c.pump()
	if c.side == upstreamSide {
		c.freed, c.post = true, true // There may be more streams now.
	}
	c.unlock(&c.wakes)
	return nil
}

// applySetting takes one setting of the peer's into account. The lock is held.
func (c *conn) applySetting(s http2.Setting) error {
	switch s.ID {
	case http2.SettingEnablePush:
		if s.Val > 1 || s.Val == 1 && c.side == upstreamSide {
			return protocolError("SETTINGS_ENABLE_PUSH")
		}
	case http2.SettingHeaderTableSize:
		c.tableSize = int(min(s.Val, headerTableSize))
		if c.encoder != nil {
			c.encoder.setMax(c.tableSize)
		}
	case http2.SettingMaxConcurrentStreams:
		c.maxStreams = s.Val
	case http2.SettingInitialWindowSize:
		if s.Val > maxWindow {
			return &connError{code: http2.ErrCodeFlowControl, text: "SETTINGS_INITIAL_WINDOW_SIZE"}
		}
		// RFC 9113 6.9.2: windows of open streams move by the difference, and may become negative.
		delta := int64(s.Val) - c.peerWindow
		c.peerWindow = int64(s.Val)
		for _, s := range c.streams.slots {
			if s == nil {
				continue
			}
			if s.sendWindow += delta; s.sendWindow > maxWindow {
				return &connError{code: http2.ErrCodeFlowControl, text: "a window became too large"}
			}
			c.wait(s)
		}
	case http2.SettingMaxFrameSize:
		if s.Val < maxFrameSize || s.Val > 1<<24-1 {
			return protocolError("SETTINGS_MAX_FRAME_SIZE")
		}
		c.peerFrame = min(int(s.Val), largeChunk-frameHeaderLen)
	case http2.SettingMaxHeaderListSize: // Advice; the upstream, or the client, says itself what is too much.
	default: // RFC 9113 6.5.2: ignored.
	}
	return nil
}

func (c *conn) onPing(h frameHeader, p []byte) error {
	if len(p) != 8 {
		return frameSizeError("PING")
	}
	if h.stream != 0 {
		return protocolError("PING on a stream")
	}
	data := binary.BigEndian.Uint64(p)
	if h.has(http2.FlagPingAck) {
		c.mu.Lock()
		if data == drainPing && c.drainSince != 0 {
			c.sendFinalGoAway()
		}
		c.unlock(&c.wakes)
		return nil
	}
	c.mu.Lock()
	c.earn()
	c.writePing(true, data)
	c.unlock(&c.wakes)
	if !c.guard.pings.take(c.now) {
		return calm(ReasonPingFlood)
	}
	return nil
}

// earn lets what was sent explain PINGs (peers measure the path with them as data comes) and WINDOW_UPDATEs. The lock
// is held.
func (c *conn) earn() {
	n := c.dataSent - c.sentData
	c.sentData = c.dataSent
	c.guard.pings.earn(n)
	c.guard.windows.earn(4 * n)
}

func (c *conn) onGoAway(h frameHeader, p []byte) error {
	if h.stream != 0 {
		return protocolError("GOAWAY on a stream")
	}
	if len(p) < 8 {
		return frameSizeError("GOAWAY")
	}
	if c.side == upstreamSide {
		c.upstreamGoAway(binary.BigEndian.Uint32(p)&streamIDMask, http2.ErrCode(binary.BigEndian.Uint32(p[4:])))
		return nil
	}
	// The client takes no pushes, which there are none of, and may still open streams. It need not be waited for once
	// its streams have ended.
	c.mu.Lock()
	c.goingAway = true
	if c.streams.len() == 0 {
		c.closing = true
	}
	c.unlock(&c.wakes)
	return nil
}

func (c *conn) onWindowUpdate(h frameHeader, p []byte) error {
	if len(p) != 4 {
		return frameSizeError("WINDOW_UPDATE")
	}
	n := int64(binary.BigEndian.Uint32(p) & streamIDMask)
	c.mu.Lock()
	c.earn()
	if !c.guard.windows.take(c.now) {
		c.unlock(&c.wakes)
		return calm(ReasonWindowUpdateFlood)
	}
	if h.stream == 0 {
		c.sendWindow += n
		tooLarge := c.sendWindow > maxWindow
		c.pump()
		c.unlock(&c.wakes)
		switch {
		case n == 0:
			return protocolError("WINDOW_UPDATE of nothing")
		case tooLarge:
			return &connError{code: http2.ErrCodeFlowControl, text: "the window became too large"}
		}
		return nil
	}
	s := c.streams.get(h.stream)
	if s == nil {
		idle := c.idle(h.stream)
		c.unlock(&c.wakes)
		if idle {
			return protocolError("WINDOW_UPDATE on an idle stream")
		}
		return nil
	}
	if n == 0 || s.sendWindow+n > maxWindow {
		c.unlock(&c.wakes)
		code := http2.ErrCodeFlowControl
		if n == 0 {
			code = http2.ErrCodeProtocol
		}
		return c.streamError(h.stream, code)
	}
	s.sendWindow += n
	c.wait(s)
	c.pump()
	c.unlock(&c.wakes)
	return nil
}

func (c *conn) onPriority(h frameHeader, p []byte) error {
	if h.stream == 0 {
		return protocolError("PRIORITY without stream")
	}
	if len(p) != 5 {
		return frameSizeError("PRIORITY")
	}
	if !c.guard.priorities.take(c.now) {
		return calm(ReasonPriorityFlood)
	}
	if binary.BigEndian.Uint32(p)&streamIDMask == h.stream {
		return c.streamError(h.stream, http2.ErrCodeProtocol)
	}
	return nil // Its advice is not taken.
}
