package h2

import (
	"net/http"
	"strings"

	"golang.org/x/net/http2"
)

// onRequest acts on the headers of a new stream of a client.
func (c *conn) onRequest(id uint32, end, self bool) error {
	c.mu.Lock()
	if c.final {
		// RFC 9113 6.8: what is above the id that GOAWAY named is ignored; the client knows that it was not seen.
		c.unlock(&c.wakes)
		return nil
	}
	c.lastID = id
	c.guard.priorities.earn(2)
	c.guard.windows.earn(2)
	crowded := c.streams.len() >= c.eng.o.MaxConcurrentStreams || c.handlers >= c.eng.o.MaxConcurrentStreams
	c.unlock(&c.wakes)
	if crowded {
		c.eng.o.Observer.Limited(ReasonConcurrentStreams)
		return c.streamError(id, http2.ErrCodeRefusedStream)
	}
	if self {
		return c.streamError(id, http2.ErrCodeProtocol)
	}
	h := &c.head
	if c.headers.over {
		c.eng.o.Observer.Limited(ReasonHeaderList)
		c.refuse(id, end, http.StatusRequestHeaderFieldsTooLarge)
		return nil
	}
	if err := c.headers.readRequest(h); err != nil {
		return c.streamError(id, http2.ErrCodeProtocol)
	}
	h.end = end
	if end && h.contentLength > 0 {
		return c.streamError(id, http2.ErrCodeProtocol)
	}
	action := c.eng.o.Director.Decide(h)
	switch {
	case action.Handler != nil:
		c.handle(id, action)
	case h.method == http.MethodConnect:
		c.refuse(id, end, http.StatusMethodNotAllowed)
	default:
		c.relay(id, action.Tag)
	}
	return nil
}

// refuse answers a request with a status and nothing else.
func (c *conn) refuse(id uint32, end bool, status int) {
	c.mu.Lock()
	c.encode(statusField(status))
	c.encode(&Field{Name: "content-length", Value: "0"})
	c.writeBlock(id, true)
	if !end {
		c.writeReset(id, http2.ErrCodeNo)
	}
	c.remember(id, !end)
	c.unlock(&c.wakes)
}

// grpcType is the content type in which a gRPC call is answered by the gateway itself, which is that of the request
// without parameters; "" if a content type is none of gRPC's (gRPC-Web's are not).
func grpcType(contentType string) string {
	const plain = "application/grpc"
	if contentType == plain {
		return plain
	}
	if len(contentType) < len(plain) || !strings.EqualFold(contentType[:len(plain)], plain) {
		return ""
	}
	switch rest := contentType[len(plain):]; {
	case rest == "", rest[0] == ';', rest[0] == ' ', rest[0] == '\t':
		return plain
	case rest[0] == '+':
		if i := strings.IndexAny(contentType, "; \t"); i >= 0 {
			contentType = contentType[:i]
		}
		return strings.ToLower(contentType)
	}
	return ""
}

// relay sends c.head upstream.
func (c *conn) relay(id uint32, tag any) {
	h := &c.head
	k := c.newCall()
	k.tag, k.start, k.grpc, k.timeout, k.head = tag, c.now, grpcType(h.contentType), h.timeout, h.method == http.MethodHead
	k.client = &k.own
	s, t := k.client, &k.up
	s.call, t.call, s.peer, t.peer = k, k, t, s
	s.id = id
	s.conn.Store(c)
	t.conn.Store(c.eng.pool.limbo)
	s.remoteHead, s.remoteClosed = true, h.end
	s.length = h.contentLength
	t.length = -1
	t.endQueued = h.end
	k.request = c.headers.handOver(h, c.eng)
	c.eng.calls.Add(1)
	c.mu.Lock()
	c.add(s)
	body := c.takeWholeBody(s)
	c.unlock(&c.wakes)
	up, admitted := c.eng.pool.route(k, c.prefer, body, &c.wakes)
	c.prefer = up
	switch n := body.size(); {
	case n == 0:
	case up != nil:
		c.forwarded(s, admitted, n-admitted, true)
	default:
		c.forward(s, body, body.payload(), true)
	}
}

// takeWholeBody takes the next frame if it is all of the body of s, whose headers were the last, and nothing about it needs a
// closer look. The lock is held.
func (c *conn) takeWholeBody(s *stream) (body span) {
	h, ok := c.in.peek()
	if !ok || !c.plainData(s, h) || h.flags != http2.FlagDataEndStream || s.remoteClosed || s.length >= 0 && s.length != int64(h.length) {
		return body
	}
	c.takeData(s, h)
	s.length, s.remoteClosed = 0, true
	return c.in.last(h.length)
}

// plainData reports whether a frame is DATA on s, with something in it, within all bounds.
func (c *conn) plainData(s *stream, h frameHeader) bool {
	return h.kind == http2.FrameData && h.stream == s.id && h.length > 0 && h.length <= maxFrameSize &&
		int64(h.length) <= min(s.recvWindow, c.recvWindow)
}

// takeData takes such a frame from the input and accounts for it. The lock is held.
func (c *conn) takeData(s *stream, h frameHeader) {
	c.in.r += frameHeaderLen + h.length
	s.recvWindow -= int64(h.length)
	c.recvWindow -= int64(h.length)
	c.unacked += int64(h.length)
	c.replenish()
}

// handOver gives away the list of fields that was decoded last, as what goes upstream for h: the pseudo-headers, in the
// usual order, and what the director left of the others.
func (r *headerReader) handOver(h *Head, e *Engine) *[]Field {
	var pseudo [4]Field // As they came, if they are as they came: with what is known of them.
	for _, f := range r.fields[:h.pseudos] {
		switch f.known {
		case nameMethod:
			pseudo[0] = f
		case namePath:
			pseudo[2] = f
		case nameAuthority:
			if f.Value == h.authority {
				pseudo[3] = f
			}
		default:
		}
	}
	pseudo[1] = e.schemeField
	n := len(pseudo)
	switch {
	case e.o.Upstream.Authority != "":
		pseudo[3] = e.authorityField
	case h.authority == "":
		n--
	case pseudo[3].Name == "":
		pseudo[3] = Field{Name: ":authority", Value: h.authority}
	}
	box, decoded := r.box, len(r.fields)
	r.box = nil
	r.fields = r.fields[:cap(r.fields)]
	if len(h.fields) > 0 && n == h.pseudos && len(r.fields) > n && &r.fields[n] == &h.fields[0] {
		*box = r.fields[:n+len(h.fields)]
		copy(*box, pseudo[:n])
		if len(*box) < decoded { // Some were taken out.
			clear(r.fields[len(*box):decoded])
		}
	} else {
		own := requests.Get().(*[]Field) //nolint:forcetypeassert // The pool makes nothing else.
		*own = append(append(*own, pseudo[:n]...), h.fields...)
		*box = r.fields
		freeFields(box)
		box = own
	}
	r.fields, h.fields = nil, nil
	return box
}
