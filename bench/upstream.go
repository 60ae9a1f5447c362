//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"

	"golang.org/x/net/http2"
)

// The upstream answers every gRPC call with as many bytes as it was sent, but for streamRequest, which it answers with
// streamMessages messages; and every HTTP/1.1 request with the same JSON, but for those of a target (callouts). It looks at
// as little as it can.

// counts is what was answered. A proxy that answered in the upstream's place, or left out a call-out, would be found out.
type counts struct {
	Calls    int64 `json:"calls"` // gRPC and REST
	Callouts int64 `json:"callouts"`
}

var answered, called atomic.Int64

// upstream serves until it is killed.
func upstream(threads int) error {
	var loops []*loop
	for range max(threads, 1) {
		l, err := newLoop()
		if err != nil {
			return err
		}
		loops = append(loops, l)
	}
	fd, port, err := listenSocket()
	if err != nil {
		return err
	}
	var next atomic.Uint32
	if err := loops[0].listenOn(fd, func() handler { return &firstBytes{} }); err != nil {
		return err
	}
	loops[0].place = func() *loop { return loops[int(next.Add(1))%len(loops)] }
	if err := json.NewEncoder(os.Stdout).Encode(map[string]int{"port": port}); err != nil {
		return err
	}
	for _, l := range loops[1:] {
		go func() { _ = l.run() }()
	}
	return loops[0].run()
}

// firstBytes finds out what a client speaks.
type firstBytes struct{}

func (*firstBytes) open(*conn)          {}
func (*firstBytes) writable(*conn)      {}
func (*firstBytes) closed(*conn, error) {}
func (*firstBytes) input(c *conn, p []byte) (int, error) {
	preface := []byte(http2.ClientPreface)
	n := min(len(p), len(preface))
	if !bytes.Equal(p[:n], preface[:n]) {
		c.handler = h1Server{}
		return c.handler.input(c, p)
	}
	if n < len(preface) {
		return 0, nil
	}
	c.handler = newH2Server(c)
	used, err := c.handler.input(c, p[n:])
	return n + used, err
}

// h2Server answers gRPC calls.
type h2Server struct {
	*h2
	partial ring[partial]

	indexed, namedType, namedStatus bool // what is in the peer's header table
}

// partial is a request of more than one frame.
type partial struct {
	length  int
	unacked int
	first   [5 + len(streamRequest)]byte
}

func newH2Server(c *conn) *h2Server {
	s := &h2Server{h2: newH2(c)}
	s.frame = s.on
	s.settings()
	return s
}

func (s *h2Server) open(*conn)          {}
func (s *h2Server) closed(*conn, error) {}

func (s *h2Server) on(kind http2.FrameType, flags http2.Flags, id uint32, p []byte) error {
	end := flags&http2.FlagDataEndStream != 0
	switch kind {
	case http2.FrameData:
		q := s.partial.get(id)
		if q == nil {
			if end {
				s.answer(id, p, len(p))
				return nil
			}
			q = s.partial.add(id)
		}
		if q.length < len(q.first) {
			copy(q.first[q.length:], p)
		}
		q.length += len(p)
		if end {
			first, length := q.first, q.length
			s.partial.remove(id)
			s.answer(id, first[:min(length, len(first))], length)
			return nil
		}
		if q.unacked += len(p); q.unacked >= streamWindow/2 {
			s.giveBack(id, q.unacked)
			q.unacked = 0
		}
	case http2.FrameHeaders:
		if end {
			return errors.New("a call without a message")
		}
	case http2.FrameRSTStream:
		s.partial.remove(id)
		s.forget(id)
	}
	return nil
}

// Header blocks, as literals and by the indices that they have when all of them are in the table.
var (
	literalType   = literal(0x00, 31, "application/grpc")
	literalStatus = append(literalNamed(0x00, "grpc-status", "0"), literalNamed(0x00, "grpc-message", "")...)
	insertType    = literal(0x40, 31, "application/grpc")
	insertStatus  = append(literalNamed(0x40, "grpc-status", "0"), literalNamed(0x40, "grpc-message", "")...)
)

const status200 = 0x88

func (s *h2Server) answer(id uint32, first []byte, length int) {
	answered.Add(1)
	message, times := reply(length), 1
	if length == 5+len(streamRequest) && bytes.Equal(first[5:], streamRequest[:]) {
		message, times = reply(5+streamMessage), streamMessages
	}
	s.indexed = s.known && s.table >= 4096
	var block [32]byte
	b := append(block[:0], status200)
	switch {
	case !s.indexed:
		b = append(b, literalType...)
	case !s.namedType:
		b = append(b, insertType...)
		s.namedType = true
	case s.namedStatus:
		b = append(b, 0x80|64)
	default:
		b = append(b, 0x80|62)
	}
	s.put(http2.FrameHeaders, http2.FlagHeadersEndHeaders, id, b)
	if times == 1 && len(s.sending) == 0 && len(message) <= min(maxFrame, s.window, s.initial) {
		s.data(id, message, false)
		s.trailers(id)
		return
	}
	s.send(body{id: id, p: message, times: times, done: func() { s.trailers(id) }})
}

func (s *h2Server) trailers(id uint32) {
	var block [64]byte
	b := block[:0]
	switch {
	case !s.indexed:
		b = append(b, literalStatus...)
	case !s.namedStatus:
		b = append(b, insertStatus...)
		s.namedStatus = true
	default:
		b = append(b, 0x80|63, 0x80|62)
	}
	s.put(http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream, id, b)
}

// literal is an HPACK literal whose name is in the static table.
func literal(kind byte, name int, value string) []byte {
	prefix := byte(0x0f)
	if kind == 0x40 {
		prefix = 0x3f
	}
	var b []byte
	if name < int(prefix) {
		b = append(b, kind|byte(name))
	} else {
		b = append(b, kind|prefix, byte(name-int(prefix)))
	}
	b = append(b, byte(len(value)))
	return append(b, value...)
}

func literalNamed(kind byte, name, value string) []byte {
	b := append([]byte{kind, byte(len(name))}, name...)
	b = append(b, byte(len(value)))
	return append(b, value...)
}

// replies has the messages that were sent already, by length; only the goroutines of loops read and write it, and
// losing an entry to another goroutine costs nothing.
var replies atomic.Pointer[map[int][]byte]

// reply is a message of so many bytes, with its prefix: a string in the first field.
func reply(length int) []byte {
	known := replies.Load()
	if known != nil {
		if p := (*known)[length]; p != nil {
			return p
		}
	}
	more := map[int][]byte{}
	if known != nil {
		for k, v := range *known {
			more[k] = v
		}
	}
	more[length] = grpcMessage(filler(max(length-5, 0)))
	replies.Store(&more)
	return more[length]
}

// filler is a protobuf message of n bytes: one string in the first field, or nothing where that does not fit.
func filler(n int) []byte {
	for text := n - 2; text >= 0; text-- {
		b := binary.AppendUvarint([]byte{0x0a}, uint64(text))
		if len(b)+text <= n {
			b = append(b, bytes.Repeat([]byte{'x'}, text)...)
			return append(b, make([]byte, n-len(b))...)
		}
	}
	return make([]byte, n)
}

func grpcMessage(m []byte) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(m)))
	return append(b, m...)
}

// h1Server answers HTTP/1.1 requests, on the upstream's behalf and on a target's.
type h1Server struct{}

func (h1Server) open(*conn)          {}
func (h1Server) writable(*conn)      {}
func (h1Server) closed(*conn, error) {}

var (
	restAnswer    = h1Answer(restBody)
	webhookAnswer = h1Answer(`{}`)
	rewriteAnswer = h1Answer(rewrittenJSON())
)

func h1Answer(text string) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
}

func (h1Server) input(c *conn, p []byte) (used int, err error) {
	for used < len(p) {
		head, n, err := h1Message(p[used:])
		if err != nil || n == 0 {
			return used, err
		}
		used += n
		switch {
		case bytes.HasPrefix(head, []byte("POST "+webhookPath)):
			called.Add(1)
			c.out = append(c.out, webhookAnswer...)
		case bytes.HasPrefix(head, []byte("POST "+rewritePath)):
			called.Add(1)
			c.out = append(c.out, rewriteAnswer...)
		case bytes.HasPrefix(head, []byte("GET "+countsPath)):
			text, _ := json.Marshal(counts{answered.Load(), called.Load()}) // Two numbers.
			c.out = append(c.out, h1Answer(string(text))...)
		default:
			answered.Add(1)
			c.out = append(c.out, restAnswer...)
		}
	}
	return used, nil
}

var errChunks = errors.New("a broken chunk")

// h1Message returns the head of the HTTP/1.1 message that p begins with, and the length of all of it; 0 if it is not whole.
func h1Message(p []byte) (head []byte, length int, err error) {
	end := bytes.Index(p, []byte("\r\n\r\n"))
	if end < 0 {
		return nil, 0, nil
	}
	head = p[:end+2]
	at := end + 4
	if v, ok := h1Field(head, "content-length"); ok {
		n, err := strconv.Atoi(string(v))
		if err != nil {
			return nil, 0, err
		}
		if at += n; at > len(p) {
			return head, 0, nil
		}
		return head, at, nil
	}
	if v, ok := h1Field(head, "transfer-encoding"); ok && string(v) == "chunked" {
		for {
			line := bytes.Index(p[at:], []byte("\r\n"))
			if line < 0 {
				return head, 0, nil
			}
			n, err := strconv.ParseUint(string(p[at:at+line]), 16, 31)
			if err != nil {
				return nil, 0, errChunks
			}
			if at += line + 2 + int(n) + 2; at > len(p) {
				return head, 0, nil
			}
			if n == 0 {
				return head, at, nil
			}
		}
	}
	return head, at, nil
}

// h1Field finds a field of a head; name is in lower case.
func h1Field(head []byte, name string) ([]byte, bool) {
	for {
		at := bytes.IndexByte(head, '\n')
		if at < 0 {
			return nil, false
		}
		head = head[at+1:]
		if len(head) > len(name) && head[len(name)] == ':' && (head[0]|0x20) == name[0] && bytes.EqualFold(head[:len(name)], []byte(name)) {
			v, _, _ := bytes.Cut(head[len(name)+1:], []byte("\r"))
			return bytes.TrimSpace(v), true
		}
	}
}
