package h2

import (
	"time"

	"golang.org/x/net/http2"
)

// An answer may be whole before its request is. RFC 9113 8.1 lets a server tell with RST_STREAM(NO_ERROR) that the rest is
// not wanted, and has clients keep the answer, but curl for one then forgets it. So the RST_STREAM waits a moment, in which
// the client may go on sending, and what comes is thrown away. A client that ends its request in time is not reset. It gets a PING instead:
// curl 7.88 sleeps on with its answer until something comes.
const (
	lingerFor    = 250 * time.Millisecond // At least: connections are looked after now and then.
	lingerBytes  = 1 << 20
	maxLingering = rememberedStreams // Beyond that, the oldest is reset at once.
)

// lingering is a stream that is closed but for its RST_STREAM.
type lingering struct {
	id    uint32
	since int64
}

// refuseRest closes a stream whose answer is whole and whose request is not. The lock is held.
func (c *conn) refuseRest(s *stream) {
	if c.side != clientSide || s.gone.Load() {
		c.cancel(s, http2.ErrCodeNo)
		return
	}
	if len(c.lingering) == maxLingering {
		c.writeReset(c.lingering[0].id, http2.ErrCodeNo)
		c.lingering = append(c.lingering[:0], c.lingering[1:]...)
	}
	c.lingering = append(c.lingering, lingering{s.id, c.eng.clock()})
	c.writeWindowUpdate(s.id, lingerBytes)
	c.remember(s.id, true)
	c.remove(s)
}

// restCame notes that the peer closed a stream on its own, and reports whether it lingered. The lock is held.
func (c *conn) restCame(id uint32) bool {
	for i := range c.lingering {
		if c.lingering[i].id == id {
			c.lingering = append(c.lingering[:i], c.lingering[i+1:]...)
			return true
		}
	}
	return false
}

// endLingering resets the streams that have waited for long enough. The lock is held.
func (c *conn) endLingering(now int64) {
	n := 0
	for n < len(c.lingering) && now-c.lingering[n].since > int64(lingerFor) {
		c.writeReset(c.lingering[n].id, http2.ErrCodeNo)
		n++
	}
	c.lingering = append(c.lingering[:0], c.lingering[n:]...)
}
