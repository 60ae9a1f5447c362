package h2

import (
	"errors"
	"net/http"
	"strconv"

	"golang.org/x/net/http2"
)

// maxInformational bounds how many 1xx answers one call may bring.
const maxInformational = 32

var statusTexts = func() (t [600]string) {
	for i := range t {
		t[i] = strconv.Itoa(i)
	}
	return t
}()

// statusFields are made after the static table.
var statusFields [len(statusTexts)]Field

func statusField(status int) *Field {
	if status >= 100 && status < len(statusFields) {
		return &statusFields[status]
	}
	return &Field{Name: ":status", Value: statusText(status)}
}

func statusText(status int) string {
	if status >= 100 && status < len(statusTexts) {
		return statusTexts[status]
	}
	return strconv.Itoa(status)
}

// onResponseBlock acts on a header block of the upstream.
func (c *conn) onResponseBlock(id uint32, end bool) error {
	c.mu.Lock()
	s := c.streams.get(id)
	if s == nil {
		idle := c.idle(id)
		c.unlock(&c.wakes)
		if idle {
			return protocolError("HEADERS on an idle stream")
		}
		return nil // We reset it, and the upstream did not know yet.
	}
	if s.remoteClosed {
		c.unlock(&c.wakes)
		return c.streamError(id, http2.ErrCodeStreamClosed)
	}
	if s.remoteHead {
		return c.onResponseTrailers(s, end) // Unlocks.
	}
	res, err := c.headers.readResponse()
	informational := err == nil && res.status < 200
	if err != nil || c.headers.over || informational && end || end && res.contentLength > 0 && !s.call.head && res.status != http.StatusNotModified {
		c.unlock(&c.wakes)
		return c.streamError(id, http2.ErrCodeProtocol)
	}
	if !informational {
		s.remoteHead, s.remoteClosed = true, end
		if !s.call.head {
			s.length = res.contentLength
		} else {
			s.length = 0
		}
		s.call.forget()
		if !end && s.length < 0 {
			if rest := c.takeRest(s); rest.body.size() > 0 {
				return c.onWholeAnswer(s, &res, &rest) // Unlocks.
			}
		}
		if end && s.localClosed {
			c.remove(s)
		}
	}
	c.unlock(&c.wakes)

	k := s.call
	d := k.client.lock()
	defer d.unlock(&c.wakes)
	if k.client.gone.Load() {
		return nil
	}
	if informational {
		if k.informational++; k.informational <= maxInformational {
			d.sendStatus(k.client, res.status, res.fields, false)
		}
		return nil
	}
	k.status = res.status
	k.grpcStatus = res.grpcStatus
	d.sendStatus(k.client, res.status, res.fields, end)
	return nil
}

// rest is what follows the headers of an answer, if that is one message and the trailers: nearly every answer to a unary
// call.
type rest struct {
	body     span // no payload: something else follows
	trailers []Field
	status   string
	broken   bool  // the trailers are none
	err      error // the tables are out of step
}

// takeRest takes what follows the headers of s, if that is all of the answer and nothing about it needs a closer look. The
// lock is held.
func (c *conn) takeRest(s *stream) (r rest) {
	data, ok := c.in.peek()
	if !ok || !c.plainData(s, data) || data.flags != 0 {
		return r
	}
	const last = http2.FlagHeadersEndHeaders | http2.FlagHeadersEndStream
	block, ok := c.in.peekAfter(data)
	if !ok || block.kind != http2.FrameHeaders || block.stream != s.id || block.flags != last || block.length > maxFrameSize {
		return r
	}
	c.takeData(s, data)
	r.body = c.in.last(data.length)
	_, p, _, _ := c.in.next()
	var over bool
	if r.trailers, over, r.err = c.headers.decodeMore(p); r.err != nil {
		r.broken = true
		r.err = &connError{code: http2.ErrCodeCompression, text: r.err.Error()}
		return r
	}
	var err error
	r.status, err = readTrailers(r.trailers)
	r.broken = err != nil || over
	return r
}

// onWholeAnswer acts on an answer that came in one piece. The lock is held, and is released.
func (c *conn) onWholeAnswer(s *stream, res *response, r *rest) error {
	if !r.broken {
		s.remoteClosed = true
		if s.localClosed {
			c.remove(s)
		}
	}
	c.unlock(&c.wakes)

	k, admitted := s.call, r.body.size()
	d := k.client.lock()
	if !k.client.gone.Load() {
		k.status, k.grpcStatus = res.status, res.grpcStatus
		d.sendStatus(k.client, res.status, res.fields, false)
		admitted = d.sendFrame(k.client, r.body, false)
		if !r.broken {
			if r.status != "" {
				k.grpcStatus = r.status
			}
			d.sendTrailers(k.client, r.trailers)
		}
	}
	d.unlock(&c.wakes)
	c.forwarded(s, admitted, r.body.size()-admitted, !r.broken)
	if r.broken && r.err == nil {
		return c.streamError(s.id, http2.ErrCodeProtocol)
	}
	return r.err
}

// onResponseTrailers acts on a block that ends a response. The lock is held, and is released.
func (c *conn) onResponseTrailers(s *stream, end bool) error {
	status, err := readTrailers(c.headers.fields)
	if err != nil || !end || c.headers.over || s.length > 0 && !s.call.head {
		c.unlock(&c.wakes)
		return c.streamError(s.id, http2.ErrCodeProtocol)
	}
	s.remoteClosed = true
	if s.localClosed {
		c.remove(s)
	}
	c.unlock(&c.wakes)

	k := s.call
	d := k.client.lock()
	if !k.client.gone.Load() {
		if status != "" {
			k.grpcStatus = status
		}
		d.sendTrailers(k.client, c.headers.fields)
	}
	d.unlock(&c.wakes)
	return nil
}

// failure is why a call cannot be completed.
type failure struct {
	reset      http2.ErrCode // what a client is told once the answer has begun, where that is all that can be said
	grpcStatus string        // "": UNAVAILABLE
	status     int           // 0: 502
	text       string
	cause      error // for a handler's own request; nil: text says it
}

func (f failure) err() error {
	if f.cause != nil {
		return f.cause
	}
	return errors.New(f.text)
}

// The words for a caller, as the rest of the gateway has them.
const (
	textUnavailable = "upstream is not available"
	textBusy        = "upstream has no stream free"
	textBroken      = "upstream broke the protocol"
	textDeadline    = "the caller's deadline has passed"
)

// Codes of gRPC on the wire.
const (
	grpcCanceled          = "1"
	grpcDeadlineExceeded  = "4"
	grpcPermissionDenied  = "7"
	grpcResourceExhausted = "8"
	grpcInternal          = "13"
	grpcUnavailable       = "14"
)

// fail ends a call that the upstream will not complete: a status for gRPC, 502 for the rest, a reset if the answer has
// begun. No lock is held.
func (e *Engine) fail(k *call, f failure, w *waker) {
	s := k.client
	c := s.lock()
	defer c.unlock(w)
	if s.gone.Load() {
		return
	}
	if k.exchange != nil {
		k.exchange.fail(f.err())
		return
	}
	s.eventful = true
	if s.localClosed || s.endQueued {
		// The answer is whole already; only the request is not wanted any more.
		if s.localClosed {
			c.refuseRest(s)
		} else {
			s.resetAfter = true
		}
		return
	}
	k.local = true
	if f.grpcStatus == "" {
		f.grpcStatus = grpcUnavailable
	}
	switch {
	case k.grpc != "" && k.status == 0:
		s.resetAfter = !s.remoteClosed
		k.status, k.grpcStatus = http.StatusOK, f.grpcStatus
		c.sendStatus(s, http.StatusOK, []Field{
			{Name: "content-type", Value: k.grpc},
			{Name: "grpc-status", Value: f.grpcStatus},
			{Name: "grpc-message", Value: f.text},
		}, true)
	case k.grpc != "" && k.status == http.StatusOK:
		s.resetAfter = !s.remoteClosed
		k.grpcStatus = f.grpcStatus
		c.sendTrailers(s, []Field{
			{Name: "grpc-status", Value: f.grpcStatus},
			{Name: "grpc-message", Value: f.text},
		})
	case k.status == 0:
		s.resetAfter = !s.remoteClosed
		k.status = f.status
		if k.status == 0 {
			k.status = http.StatusBadGateway
		}
		body := f.text + "\n"
		c.sendStatus(s, k.status, []Field{
			{Name: "content-type", Value: "text/plain; charset=utf-8"},
			{Name: "content-length", Value: strconv.Itoa(len(body))},
			{Name: "x-content-type-options", Value: "nosniff"},
		}, k.head)
		if !k.head {
			c.sendData(s, []byte(body), true)
		}
	default:
		c.cancel(s, f.reset)
	}
}
