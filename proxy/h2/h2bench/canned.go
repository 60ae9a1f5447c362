package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// wire is one end of an HTTP/2 connection that costs as little as it can: frames are read in place, and what they
// cause is written when the input is used up.
type wire struct {
	nc  net.Conn
	in  *bufio.Reader
	out []byte
	enc *hpack.Encoder
	buf bytes.Buffer
	got int // DATA received and not yet given back

	window  int            // of the connection, as the peer gave it
	initial int            // of new streams
	given   map[uint32]int // WINDOW_UPDATEs less DATA, per stream that waits
	waiting []message
}

// message is what waits for window: data, and what follows it.
type message struct {
	id   uint32
	data []byte
	then func()
}

func newWire(nc net.Conn) *wire {
	w := &wire{nc: nc, in: bufio.NewReaderSize(nc, 64<<10), window: 65535, initial: 65535, given: map[uint32]int{}}
	w.enc = hpack.NewEncoder(&w.buf)
	return w
}

func (w *wire) frame(kind http2.FrameType, flags http2.Flags, id uint32, p []byte) {
	n := len(p)
	w.out = append(w.out, byte(n>>16), byte(n>>8), byte(n), byte(kind), byte(flags))
	w.out = binary.BigEndian.AppendUint32(w.out, id)
	w.out = append(w.out, p...)
}

func (w *wire) headers(id uint32, end bool, fields ...hpack.HeaderField) {
	w.buf.Reset()
	for _, f := range fields {
		_ = w.enc.WriteField(f)
	}
	flags := http2.FlagHeadersEndHeaders
	if end {
		flags |= http2.FlagHeadersEndStream
	}
	w.frame(http2.FrameHeaders, flags, id, w.buf.Bytes())
}

// data sends p as windows allow, with END_STREAM if then is nil, and calls then after it otherwise.
func (w *wire) data(id uint32, p []byte, then func()) {
	if len(p) <= min(w.window, w.initial, 16<<10) && len(w.waiting) == 0 {
		w.piece(id, p, then == nil)
		w.window -= len(p)
		if then != nil {
			then()
		}
		return
	}
	w.waiting = append(w.waiting, message{id: id, data: append([]byte(nil), p...), then: then})
	w.pump()
}

func (w *wire) piece(id uint32, p []byte, end bool) {
	var flags http2.Flags
	if end {
		flags = http2.FlagDataEndStream
	}
	w.frame(http2.FrameData, flags, id, p)
}

// pump sends what waits, as far as it may.
func (w *wire) pump() {
	kept := w.waiting[:0]
	for _, m := range w.waiting {
		for len(m.data) > 0 {
			n := min(len(m.data), 16<<10, w.window, w.initial+w.given[m.id])
			if n <= 0 {
				break
			}
			w.piece(m.id, m.data[:n], n == len(m.data) && m.then == nil)
			w.window -= n
			w.given[m.id] -= n
			m.data = m.data[n:]
		}
		if len(m.data) > 0 {
			kept = append(kept, m)
			continue
		}
		delete(w.given, m.id)
		if m.then != nil {
			m.then()
		}
	}
	w.waiting = kept
}

// start sends the SETTINGS, with windows that never are in the way.
func (w *wire) start() {
	var s []byte
	s = binary.BigEndian.AppendUint16(s, uint16(http2.SettingInitialWindowSize))
	s = binary.BigEndian.AppendUint32(s, 1<<30)
	s = binary.BigEndian.AppendUint16(s, uint16(http2.SettingMaxConcurrentStreams))
	s = binary.BigEndian.AppendUint32(s, 1000)
	w.frame(http2.FrameSettings, 0, 0, s)
	w.frame(http2.FrameWindowUpdate, 0, 0, binary.BigEndian.AppendUint32(nil, 1<<30))
}

func (w *wire) flush() error {
	if len(w.out) == 0 {
		return nil
	}
	_, err := w.nc.Write(w.out)
	w.out = w.out[:0]
	return err
}

// read calls on for every frame until it fails.
func (w *wire) read(on func(kind http2.FrameType, flags http2.Flags, id uint32, p []byte) error) error {
	for {
		if w.in.Buffered() < 9 {
			if err := w.flush(); err != nil {
				return err
			}
		}
		h, err := w.in.Peek(9)
		if err != nil {
			return err
		}
		n := int(h[0])<<16 | int(h[1])<<8 | int(h[2])
		kind, flags, id := http2.FrameType(h[3]), http2.Flags(h[4]), binary.BigEndian.Uint32(h[5:])
		if w.in.Buffered() < 9+n {
			if err := w.flush(); err != nil {
				return err
			}
		}
		all, err := w.in.Peek(9 + n)
		if err != nil {
			return err
		}
		p := all[9:]
		switch kind {
		case http2.FrameSettings:
			if flags&http2.FlagSettingsAck == 0 {
				w.frame(http2.FrameSettings, http2.FlagSettingsAck, 0, nil)
				for ; len(p) >= 6; p = p[6:] {
					if http2.SettingID(binary.BigEndian.Uint16(p)) == http2.SettingInitialWindowSize {
						w.initial = int(binary.BigEndian.Uint32(p[2:]))
					}
				}
			}
		case http2.FrameWindowUpdate:
			if n := int(binary.BigEndian.Uint32(p)); id == 0 {
				w.window += n
			} else {
				w.given[id] += n
			}
			if len(w.waiting) > 0 {
				w.pump()
			} else {
				delete(w.given, id)
			}
		case http2.FramePing:
			if flags&http2.FlagPingAck == 0 {
				w.frame(http2.FramePing, http2.FlagPingAck, 0, p)
			}
		case http2.FrameData:
			if w.got += n; w.got > 1<<20 {
				w.frame(http2.FrameWindowUpdate, 0, 0, binary.BigEndian.AppendUint32(nil, uint32(w.got)))
				w.got = 0
			}
			if flags&http2.FlagDataEndStream == 0 && n > 8<<10 { // A long message; its stream needs more.
				w.frame(http2.FrameWindowUpdate, 0, id, binary.BigEndian.AppendUint32(nil, uint32(n)))
			}
		}
		if err := on(kind, flags, id, p); err != nil {
			return err
		}
		_, _ = w.in.Discard(9 + n)
	}
}

// canned is an upstream whose every method answers with the request's first message.
func canned() error {
	ln, err := listen()
	if err != nil {
		return err
	}
	profile()
	announce(ln)
	for {
		nc, err := ln.Accept()
		if err != nil {
			return err
		}
		go func() { _ = cannedConn(nc) }()
	}
}

func cannedConn(nc net.Conn) error {
	defer nc.Close()
	w := newWire(nc)
	if _, err := io.CopyN(io.Discard, w.in, int64(len(http2.ClientPreface))); err != nil {
		return err
	}
	w.start()
	bodies := map[uint32][]byte{}
	return w.read(func(kind http2.FrameType, flags http2.Flags, id uint32, p []byte) error {
		if kind != http2.FrameData {
			return nil
		}
		if flags&http2.FlagDataEndStream == 0 || bodies[id] != nil {
			bodies[id] = append(bodies[id], p...)
			if flags&http2.FlagDataEndStream == 0 {
				return nil
			}
			p = bodies[id]
			delete(bodies, id)
		}
		w.headers(id, false,
			hpack.HeaderField{Name: ":status", Value: "200"},
			hpack.HeaderField{Name: "content-type", Value: "application/grpc"})
		w.data(id, p, func() {
			w.headers(id, true,
				hpack.HeaderField{Name: "grpc-status", Value: "0"},
				hpack.HeaderField{Name: "grpc-message", Value: ""})
		})
		return nil
	})
}
