package proxy

import (
	"bytes"
	"io"
	"net/http"
	"sync/atomic"

	"github.com/execgate/execgate/proxy/h2"
)

var (
	_ h2.Whole = (*inboundReader)(nil)
	_ h2.Whole = (*message)(nil)
)

// message is a body that the gateway made.
type message struct {
	bytes.Reader

	all []byte
}

func newMessage(p []byte) *message {
	m := &message{all: p}
	m.Reset(p)
	return m
}

// Bytes implements [h2.Whole].
func (m *message) Bytes() ([]byte, bool) { return m.all[len(m.all)-m.Len():], true }

// Close does nothing.
func (m *message) Close() error { return nil }

// inbound is a client's request body on its way upstream. The transport reads and closes it on its own goroutine,
// perhaps for longer than the handler runs, so the handler keeps the last word: after finish nothing is read.
type inbound struct {
	r        *http.Request
	trailers http.Header // of the outgoing request: gets what the client sends after the body
	head     []byte      // what was read already, to be sent first
	rest     bool        // the client's body follows head

	informational *informationalRelay // nil where no 1xx can come

	started  atomic.Bool // something was taken from the client's body for the upstream
	ended    atomic.Bool // the client's body was read to its end
	finished atomic.Bool
	failure  atomic.Pointer[error]
}

// newInbound makes r's body the body of out. head is what was read from it before; whole says that head is all of it.
func newInbound(r, out *http.Request, head []byte, whole bool) *inbound {
	in := &inbound{r: r, trailers: out.Trailer, head: head, rest: !whole}
	in.ended.Store(whole)
	out.Body = &inboundReader{in: in, head: bytes.NewReader(head)}
	out.GetBody = func() (io.ReadCloser, error) {
		if in.started.Load() {
			return nil, errBodyConsumed
		}
		return &inboundReader{in: in, head: bytes.NewReader(in.head)}, nil
	}
	return in
}

// finish ends all reading. It is called before the handler returns.
func (in *inbound) finish() { in.finished.Store(true) }

// err is what reading the client's body failed with, nil if it did not.
func (in *inbound) err() error {
	if in == nil {
		return nil
	}
	if e := in.failure.Load(); e != nil {
		return *e
	}
	return nil
}

// inboundReader is one attempt to send the body.
type inboundReader struct {
	in     *inbound
	head   *bytes.Reader
	closed atomic.Bool
}

func (b *inboundReader) Read(p []byte) (int, error) {
	if b.closed.Load() || b.in.finished.Load() {
		return 0, errBodyConsumed
	}
	if b.head.Len() > 0 {
		return b.head.Read(p)
	}
	if !b.in.rest {
		return 0, io.EOF
	}
	if !b.in.started.Swap(true) {
		b.in.informational.proceed()
	}
	n, err := b.in.r.Body.Read(p)
	switch {
	case err == io.EOF:
		b.in.ended.Store(true)
		b.copyTrailers()
	case err != nil:
		b.in.failure.Store(&err)
	}
	return n, err
}

// copyTrailers passes on the trailers, which are known once the body has ended. The transport reads them on the
// goroutine that reads the body, after its end.
func (b *inboundReader) copyTrailers() {
	for name, values := range b.in.r.Trailer {
		if b.in.trailers != nil && values != nil {
			b.in.trailers[name] = values
		}
	}
}

// Bytes implements [h2.Whole].
func (b *inboundReader) Bytes() ([]byte, bool) {
	if b.in.rest || b.closed.Load() || b.in.finished.Load() {
		return nil, false
	}
	return b.in.head[len(b.in.head)-b.head.Len():], true
}

func (b *inboundReader) Close() error {
	b.closed.Store(true)
	return nil
}

// announcedTrailers returns the trailer map for an outgoing request: the names that the client announced, and room for
// others where the protocol lets them come unannounced (chunked HTTP/1.1).
func announcedTrailers(r *http.Request) http.Header {
	if len(r.Trailer) == 0 {
		if r.ProtoMajor == 1 && r.ContentLength < 0 {
			return make(http.Header)
		}
		return nil
	}
	t := make(http.Header, len(r.Trailer))
	for name := range r.Trailer {
		t[name] = nil
	}
	return t
}
