//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/net/http2"
)

// h2 is what both ends of an HTTP/2 connection do: frames, windows, SETTINGS. It trusts the other end to keep to the
// protocol where breaking it would only spoil the measurement.
type h2 struct {
	c     *conn
	frame func(kind http2.FrameType, flags http2.Flags, id uint32, p []byte) error

	window  int // what the peer takes on the connection
	initial int // and on a new stream
	table   int // the peer's header table
	known   bool
	ready   func() // called when the peer's first SETTINGS are there

	unacked int // DATA received and not yet given back
	sending []*body
}

// body is DATA that is to be sent, as windows allow.
type body struct {
	id     uint32
	p      []byte
	times  int // how often p is sent
	off    int
	window int
	end    bool // END_STREAM after the last
	done   func()
}

const (
	frameHeader  = 9
	maxFrame     = 16 << 10
	streamWindow = 1 << 20
	connWindow   = 16 << 20
	maxOut       = 128 << 10 // output that waits for the socket; DATA beyond that is not made yet
)

func newH2(c *conn) *h2 { return &h2{c: c, window: 65535, initial: 65535, table: 4096} }

func (h *h2) put(kind http2.FrameType, flags http2.Flags, id uint32, p []byte) {
	n := len(p)
	h.c.out = append(h.c.out, byte(n>>16), byte(n>>8), byte(n), byte(kind), byte(flags), byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
	h.c.out = append(h.c.out, p...)
}

func (h *h2) settings() {
	var s []byte
	for _, v := range [][2]uint32{
		{uint32(http2.SettingInitialWindowSize), streamWindow},
		{uint32(http2.SettingMaxConcurrentStreams), 1000},
		{uint32(http2.SettingEnablePush), 0},
	} {
		s = binary.BigEndian.AppendUint16(s, uint16(v[0]))
		s = binary.BigEndian.AppendUint32(s, v[1])
	}
	h.put(http2.FrameSettings, 0, 0, s)
	h.put(http2.FrameWindowUpdate, 0, 0, binary.BigEndian.AppendUint32(nil, connWindow-65535))
}

// send sends b: at once if it fits, which is the usual case.
func (h *h2) send(b body) {
	if len(h.sending) == 0 && b.times == 1 && len(b.p) <= min(maxFrame, h.window, h.initial) {
		h.data(b.id, b.p, b.end)
		if b.done != nil {
			b.done()
		}
		return
	}
	b.window = h.initial
	h.sending = append(h.sending, &b)
	h.pump()
}

func (h *h2) data(id uint32, p []byte, end bool) {
	var flags http2.Flags
	if end {
		flags = http2.FlagDataEndStream
	}
	h.window -= len(p)
	h.put(http2.FrameData, flags, id, p)
}

// pump sends what waits, a frame of each stream in turn, as far as it may.
func (h *h2) pump() {
	for progress := true; progress && len(h.sending) > 0 && h.c.unsent() < maxOut && h.window > 0; {
		progress = false
		kept := h.sending[:0]
		for _, b := range h.sending {
			if n := min(len(b.p)-b.off, maxFrame, h.window, b.window); n > 0 {
				progress = true
				last := b.times == 1 && b.off+n == len(b.p)
				h.data(b.id, b.p[b.off:b.off+n], last && b.end)
				b.off += n
				b.window -= n
				if b.off == len(b.p) {
					b.off = 0
					b.times--
				}
				if last {
					if b.done != nil {
						b.done()
					}
					continue
				}
			}
			kept = append(kept, b)
		}
		h.sending = kept
	}
}

func (h *h2) forget(id uint32) {
	for i, b := range h.sending {
		if b.id == id {
			h.sending = append(h.sending[:i], h.sending[i+1:]...)
			return
		}
	}
}

var errLost = errors.New("the connection was lost")

// input uses whole frames.
func (h *h2) input(_ *conn, p []byte) (used int, err error) {
	for len(p)-used >= frameHeader {
		f := p[used:]
		n := int(f[0])<<16 | int(f[1])<<8 | int(f[2])
		if n > maxFrame {
			return used, fmt.Errorf("a frame of %d bytes", n)
		}
		if len(f) < frameHeader+n {
			break
		}
		used += frameHeader + n
		if err := h.one(http2.FrameType(f[3]), http2.Flags(f[4]), binary.BigEndian.Uint32(f[5:])&^(1<<31), f[frameHeader:frameHeader+n]); err != nil {
			return used, err
		}
	}
	if h.unacked >= connWindow/2 {
		h.put(http2.FrameWindowUpdate, 0, 0, binary.BigEndian.AppendUint32(nil, uint32(h.unacked)))
		h.unacked = 0
	}
	if len(h.sending) > 0 {
		h.pump()
	}
	return used, nil
}

func (h *h2) writable(*conn) {
	if len(h.sending) > 0 {
		h.pump()
	}
}

func (h *h2) one(kind http2.FrameType, flags http2.Flags, id uint32, p []byte) error {
	switch kind {
	case http2.FrameSettings:
		if flags&http2.FlagSettingsAck != 0 {
			return nil
		}
		for ; len(p) >= 6; p = p[6:] {
			v := int(binary.BigEndian.Uint32(p[2:]))
			switch http2.SettingID(binary.BigEndian.Uint16(p)) {
			case http2.SettingInitialWindowSize:
				for _, b := range h.sending {
					b.window += v - h.initial
				}
				h.initial = v
			case http2.SettingHeaderTableSize:
				h.table = v
			}
		}
		h.put(http2.FrameSettings, http2.FlagSettingsAck, 0, nil)
		if !h.known {
			h.known = true
			if h.ready != nil {
				h.ready()
			}
		}
		return nil
	case http2.FrameWindowUpdate:
		n := int(binary.BigEndian.Uint32(p))
		if id == 0 {
			h.window += n
			return nil
		}
		for _, b := range h.sending {
			if b.id == id {
				b.window += n
				break
			}
		}
		return nil
	case http2.FramePing:
		if flags&http2.FlagPingAck == 0 {
			h.put(http2.FramePing, http2.FlagPingAck, 0, p)
		}
		return nil
	case http2.FrameGoAway:
		return fmt.Errorf("%w: GOAWAY %x", errLost, p)
	case http2.FrameData:
		h.unacked += len(p)
		if flags&http2.FlagDataPadded != 0 {
			return errors.New("padded DATA")
		}
	case http2.FrameHeaders:
		if flags&http2.FlagHeadersEndHeaders == 0 {
			return errors.New("a header block in pieces")
		}
	case http2.FramePriority, http2.FramePushPromise, http2.FrameContinuation:
		return nil
	}
	return h.frame(kind, flags, id, p)
}

// giveBack returns window of a stream that goes on.
func (h *h2) giveBack(id uint32, n int) {
	h.put(http2.FrameWindowUpdate, 0, id, binary.BigEndian.AppendUint32(nil, uint32(n)))
}

// ring finds what is known of a stream by its id. Ids that only one side opens come in order, so that a small table does.
type ring[T any] struct {
	slots []slot[T]
	used  int
}

type slot[T any] struct {
	id uint32
	v  T
}

// get returns the entry of id, and nil if there is none.
func (r *ring[T]) get(id uint32) *T {
	if len(r.slots) == 0 {
		return nil
	}
	if s := &r.slots[int(id>>1)&(len(r.slots)-1)]; s.id == id {
		return &s.v
	}
	return nil
}

// taken reports whether adding id would make the table grow because of another that is still there.
func (r *ring[T]) taken(id uint32) bool {
	return len(r.slots) > 0 && r.slots[int(id>>1)&(len(r.slots)-1)].id != 0 && r.used < len(r.slots)/2
}

// add makes an entry.
func (r *ring[T]) add(id uint32) *T {
	for {
		if len(r.slots) > 0 {
			if s := &r.slots[int(id>>1)&(len(r.slots)-1)]; s.id == 0 {
				*s = slot[T]{id: id}
				r.used++
				return &s.v
			}
		}
		old := r.slots
		r.slots = make([]slot[T], max(64, 2*len(old)))
		for _, s := range old {
			if s.id != 0 {
				r.slots[int(s.id>>1)&(len(r.slots)-1)] = s
			}
		}
	}
}

func (r *ring[T]) remove(id uint32) {
	if r.get(id) != nil {
		r.slots[int(id>>1)&(len(r.slots)-1)].id = 0
		r.used--
	}
}
