//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2Client makes gRPC calls on one connection.
type h2Client struct {
	client
	*h2
	next    uint32
	streams ring[call]
	waiting bool // is in pace.idle
	message []byte

	request requestBlock
	decoder *hpack.Decoder
	checked map[string]answer // header blocks that were read already, and change no table
	got     answer
}

// call is one that waits for its answer.
type call struct {
	begin   time.Duration
	length  int
	unacked int
	ok      bool // status 200 was there
}

// answer is what a header block says.
type answer struct {
	status, grpcStatus, message string
}

func (c *h2Client) open(cn *conn) {
	c.h2 = newH2(cn)
	c.frame = c.on
	c.h2.ready = c.begin
	c.next = 1
	c.message = grpcMessage(c.g.spec.message)
	c.checked = map[string]answer{}
	c.decoder = hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		switch f.Name {
		case ":status":
			c.got.status = f.Value
		case "grpc-status":
			c.got.grpcStatus = f.Value
		case "grpc-message":
			c.got.message = f.Value
		}
	})
	cn.out = append(cn.out, http2.ClientPreface...)
	c.settings()
}

func (c *h2Client) closed(_ *conn, err error) { c.lost(err) }

// drain is called when no more calls are to be made.
func (c *h2Client) drain() { c.mayCall(c.streams.used > 0) }

// begin makes the first calls, when the peer's SETTINGS are there.
func (c *h2Client) begin() {
	c.request.inTable = c.table >= 4096
	if c.pace.every > 0 {
		c.waiting = true
		c.pace.idle = append(c.pace.idle, c)
		return
	}
	for range c.g.spec.streams {
		c.call(c.now())
	}
}

func (c *h2Client) call(due time.Duration) bool {
	for c.streams.get(c.next) != nil || c.streams.taken(c.next) { // Slower than those after it. Ids may be left out.
		c.next += 2
	}
	id := c.next
	c.next += 2
	c.streams.add(id).begin = due
	c.put(http2.FrameHeaders, http2.FlagHeadersEndHeaders, id, c.request.block(c.g.spec, id))
	c.send(body{id: id, p: c.message, times: 1, end: true})
	c.c.touch()
	c.waiting = c.pace.every > 0 && c.streams.used < c.g.spec.streams
	return c.waiting
}

var errStatus = errors.New("not OK")

func (c *h2Client) on(kind http2.FrameType, flags http2.Flags, id uint32, p []byte) error {
	s := c.streams.get(id)
	if s == nil {
		if kind == http2.FrameHeaders {
			_, _ = c.decoder.Write(p)
			c.checked = map[string]answer{}
		}
		return nil
	}
	end := flags&http2.FlagDataEndStream != 0
	switch kind {
	case http2.FrameData:
		s.length += len(p)
		if !end {
			if s.unacked += len(p); s.unacked >= streamWindow/2 {
				c.giveBack(id, s.unacked)
				s.unacked = 0
			}
			return nil
		}
		c.done(id, s, fmt.Errorf("%w: no trailers", errStatus))
	case http2.FrameHeaders:
		a, err := c.read(p)
		if err != nil {
			return err
		}
		if a.status != "" {
			s.ok = a.status == "200"
		}
		if !end {
			return nil
		}
		switch {
		case !s.ok || a.grpcStatus != "0":
			err = fmt.Errorf("%w: status %q, grpc-status %q %q", errStatus, a.status, a.grpcStatus, a.message)
		case s.length != c.g.spec.want:
			err = fmt.Errorf("%w: %d bytes and not %d", errStatus, s.length, c.g.spec.want)
		}
		c.done(id, s, err)
	case http2.FrameRSTStream:
		c.forget(id)
		c.done(id, s, fmt.Errorf("%w: RST_STREAM %x", errStatus, p))
	}
	return nil
}

func (c *h2Client) done(id uint32, s *call, err error) {
	now := c.now()
	c.record(s.begin, now, err)
	c.streams.remove(id)
	switch {
	case c.g.spec.once, !c.mayCall(c.streams.used > 0):
	case c.pace.every == 0:
		c.call(now)
	case !c.waiting:
		c.waiting = true
		c.pace.idle = append(c.pace.idle, c)
	}
}

// read decodes a header block, unless the same bytes were decoded before and mean the same still.
func (c *h2Client) read(p []byte) (answer, error) {
	if a, ok := c.checked[string(p)]; ok {
		return a, nil
	}
	c.got = answer{}
	if _, err := c.decoder.Write(p); err != nil {
		return answer{}, err
	}
	if err := c.decoder.Close(); err != nil {
		return answer{}, err
	}
	if changesTable(p) || len(c.checked) > 64 {
		c.checked = map[string]answer{}
	} else {
		c.checked[string(p)] = c.got
	}
	return c.got, nil
}

// changesTable reports whether a header block (RFC 7541 6) leaves another table than it found.
func changesTable(p []byte) bool {
	for len(p) > 0 {
		switch b := p[0]; {
		case b&0x80 != 0:
			p = skipInt(p, 7)
		case b&0xc0 == 0x40, b&0xe0 == 0x20:
			return true
		default:
			named := b&0x0f != 0
			if p = skipInt(p, 4); !named {
				p = skipString(p)
			}
			p = skipString(p)
		}
	}
	return false
}

func skipInt(p []byte, prefix uint) []byte {
	limit := byte(1<<prefix - 1)
	full := p[0]&limit == limit
	p = p[1:]
	for full && len(p) > 0 {
		full = p[0]&0x80 != 0
		p = p[1:]
	}
	return p
}

func skipString(p []byte) []byte {
	if len(p) == 0 {
		return nil
	}
	n, shift := int(p[0]&0x7f), uint(0)
	rest := skipInt(p, 7)
	if n == 0x7f {
		for _, b := range p[1 : len(p)-len(rest)] {
			n += int(b&0x7f) << shift
			shift += 7
		}
	}
	return rest[min(n, len(rest)):]
}

// requestBlock makes header blocks as grpc-go's clients send them. What is the same in each call goes into the peer's table
// once; the timeout differs from call to call and does not.
type requestBlock struct {
	inTable bool // the peer has one
	buf     []byte
	fixed   []byte
	name    byte // of the timeout
}

var timeoutName = "grpc-timeout"

func requestFields(spec loadSpec) []hpack.HeaderField {
	scheme := "http"
	if spec.tls != nil {
		scheme = "https"
	}
	return []hpack.HeaderField{
		{Name: ":method", Value: "POST"},
		{Name: ":scheme", Value: scheme},
		{Name: ":path", Value: spec.method},
		{Name: ":authority", Value: authority},
		{Name: "content-type", Value: "application/grpc"},
		{Name: "user-agent", Value: "grpc-go/1.85.0"},
		{Name: "te", Value: "trailers"},
		{Name: "grpc-accept-encoding", Value: "gzip"},
		{Name: "authorization", Value: bearer},
	}
}

// block is the next request's, valid until the next call.
func (r *requestBlock) block(spec loadSpec, id uint32) []byte {
	var number [20]byte
	timeout := append(strconv.AppendInt(number[:0], 4999000+int64(id/2%1000), 10), 'u')
	if r.fixed != nil {
		r.buf = append(append(r.buf[:0], r.fixed...), 0x0f, r.name-0x0f, byte(len(timeout)))
		if !r.inTable {
			r.buf = append(append(r.buf[:len(r.fixed)], 0, byte(len(timeoutName))), timeoutName...)
			r.buf = append(r.buf, byte(len(timeout)))
		}
		return append(r.buf, timeout...)
	}
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	fields := requestFields(spec)
	for i := range fields {
		fields[i].Sensitive = !r.inTable
		_ = enc.WriteField(fields[i])
	}
	if !r.inTable {
		r.fixed = bytes.Clone(b.Bytes())
		return r.block(spec, id)
	}
	_ = enc.WriteField(hpack.HeaderField{Name: timeoutName, Value: string(timeout)})
	first := bytes.Clone(b.Bytes())
	b.Reset()
	for _, f := range fields {
		_ = enc.WriteField(f) // Indices, now.
	}
	r.fixed, r.name = bytes.Clone(b.Bytes()), 62
	return first
}
