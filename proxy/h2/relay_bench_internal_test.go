package h2

import (
	"bytes"
	"net"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// steady relays calls without sockets: the test is the client, the upstream and the writer of both connections, so that
// what is measured is what a relayed call costs beside the kernel.
type steady struct {
	tb         testing.TB
	client, up *conn
	id         uint32
	request    []byte // a header block, once the client's table is filled
	answer     []byte
	trailers   []byte
	body       []byte
	frames     []byte
	ids        []uint32
	read       []byte // what the client was sent
}

type steadyDirector struct{ done int }

func (*steadyDirector) Decide(h *Head) Action {
	h.Set("te", "trailers")
	h.Add("x-forwarded-for", "127.0.0.1")
	h.Add("x-forwarded-host", h.Authority())
	h.Add("x-forwarded-proto", "http")
	return Action{}
}

func (d *steadyDirector) Done(*Call) { d.done++ }

var steadyRequest = []Field{
	{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: "/zitadel.user.v2.UserService/GetUserByID"},
	{Name: ":authority", Value: "auth.example.com"}, {Name: "content-type", Value: "application/grpc"},
	{Name: "user-agent", Value: "grpc-go/1.85.0"}, {Name: "te", Value: "trailers"}, {Name: "grpc-accept-encoding", Value: "gzip"},
	{Name: "authorization", Value: "Bearer dG9rZW4tdG9rZW4tdG9rZW4tdG9rZW4tdG9rZW4tdG9rZW4"},
}

func newSteady(tb testing.TB, d Director) *steady {
	tb.Helper()
	e, err := New(Options{Director: d, Upstream: UpstreamOptions{Address: "upstream.test:1"}})
	if err != nil {
		tb.Fatal(err)
	}
	ours, theirs := net.Pipe()
	tb.Cleanup(func() { _, _ = ours.Close(), theirs.Close() })
	s := &steady{tb: tb, client: newConn(e, ours, clientSide), up: newConn(e, ours, upstreamSide), id: 1}
	for _, c := range []*conn{s.client, s.up} {
		c.writing = true // By the test.
		c.settled = true
		c.greet()
		c.sendWindow = maxWindow / 2
		c.peerWindow = 1 << 20
	}
	s.up.maxStreams = 1000
	e.pool.list.Store(&[]*conn{s.up})
	s.body = make([]byte, 200)

	block := func(enc *hpack.Encoder, out *bytes.Buffer, fields ...Field) []byte {
		for _, f := range fields {
			_ = enc.WriteField(hpack.HeaderField{Name: f.Name, Value: f.Value})
		}
		b := bytes.Clone(out.Bytes())
		out.Reset()
		return b
	}
	var out bytes.Buffer
	enc := hpack.NewEncoder(&out)
	timeout := "\x00\x0cgrpc-timeout\x084999000u"
	first := block(enc, &out, steadyRequest...)
	s.request = append(first, timeout...)
	head := []Field{{Name: ":status", Value: "200"}, {Name: "content-type", Value: "application/grpc"}}
	tail := []Field{{Name: "grpc-status", Value: "0"}, {Name: "grpc-message", Value: ""}}
	var upOut bytes.Buffer
	upEnc := hpack.NewEncoder(&upOut)
	s.answer, s.trailers = block(upEnc, &upOut, head...), block(upEnc, &upOut, tail...)
	s.calls(1)
	s.request = append(block(enc, &out, steadyRequest...), timeout...)
	s.answer, s.trailers = block(upEnc, &upOut, head...), block(upEnc, &upOut, tail...)
	s.calls(64)
	return s
}

func (s *steady) frame(kind http2.FrameType, flags http2.Flags, id uint32, p []byte) {
	var h [frameHeaderLen]byte
	putFrameHeader(h[:], len(p), kind, flags, id)
	s.frames = append(append(s.frames, h[:]...), p...)
}

// bring has c's reader work on s.frames, as if one read had brought them.
func (s *steady) bring(c *conn) {
	for rest := s.frames; len(rest) > 0; {
		n := copy(c.in.room(), rest)
		c.in.filled(n)
		rest = rest[n:]
	}
	s.frames = s.frames[:0]
	c.now = c.eng.clock()
	c.wakes.now = c.now
	for {
		h, p, ok, err := c.in.next()
		if err != nil {
			s.tb.Fatal(err)
		}
		if !ok {
			break
		}
		if err := c.onFrame(h, p); err != nil {
			s.tb.Fatal(err)
		}
	}
	if err := c.pause(); err != nil {
		s.tb.Fatal(err)
	}
	c.head = Head{conn: c}
	c.headers.rest()
}

// write takes the output of c.
func (s *steady) write(c *conn) []byte {
	c.mu.Lock()
	var batch chunkQueue
	c.out.cut(&batch, 1<<30)
	c.written(int64(batch.size), nil)
	c.unlock(&c.wakes)
	s.read = s.read[:0]
	for p := batch.head; p != nil; p = p.next {
		s.read = append(s.read, p.buf[p.r:p.w]...)
	}
	batch.clear()
	return s.read
}

// calls makes n calls at once.
func (s *steady) calls(n int) {
	for range n {
		s.frame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, s.id, s.request)
		s.frame(http2.FrameData, http2.FlagDataEndStream, s.id, s.body)
		s.id += 2
	}
	s.bring(s.client)
	s.ids = s.ids[:0]
	for b := s.write(s.up); len(b) > 0; {
		if bytes.HasPrefix(b, []byte(http2.ClientPreface)) {
			b = b[len(http2.ClientPreface):]
		}
		h := parseFrameHeader(b)
		if h.kind == http2.FrameData && h.has(http2.FlagDataEndStream) {
			s.ids = append(s.ids, h.stream)
		}
		b = b[frameHeaderLen+h.length:]
	}
	if len(s.ids) != n {
		s.tb.Fatalf("%d of %d calls reached the upstream", len(s.ids), n)
	}
	for _, id := range s.ids {
		s.frame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, id, s.answer)
		s.frame(http2.FrameData, 0, id, s.body)
		s.frame(http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream, id, s.trailers)
	}
	s.bring(s.up)
	ended := 0
	for b := s.write(s.client); len(b) > 0; {
		h := parseFrameHeader(b)
		if h.kind == http2.FrameHeaders && h.has(http2.FlagHeadersEndStream) {
			ended++
		}
		b = b[frameHeaderLen+h.length:]
	}
	if ended != n {
		s.tb.Fatalf("%d of %d calls were answered", ended, n)
	}
}

// BenchmarkRelayedCall is one unary call from the client's HEADERS to its trailers, 16 at once.
func BenchmarkRelayedCall(b *testing.B) {
	s := newSteady(b, &steadyDirector{})
	b.ReportAllocs()
	b.ResetTimer()
	for n := b.N; n > 0; n -= 16 {
		s.calls(min(n, 16))
	}
}
