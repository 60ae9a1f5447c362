package h2

import (
	"context"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"

	"golang.org/x/net/http2"
)

// exchange is one request that a handler sends over the engine's connections to the upstream. It is a relayed call
// whose client half is on no connection: what would be written there is kept for the handler to read. The lock of conn
// stands for the connection's.
type exchange struct {
	call
	conn conn

	r    *http.Request
	body responseBody
	stop func() bool // ends the watch over the request's context

	// Guarded by conn's lock.
	cond          sync.Cond
	send          sender
	informational []interim
	came          bool // the headers have
	status        int
	fields        []Field
	in            chunkQueue
	ended         bool // and there is no more than that
	trailers      []Field
	err           error
	closed        bool
}

// interim is a 1xx answer.
type interim struct {
	status int
	fields []Field
}

// RoundTrip sends r over the connections to the upstream that relayed calls share. It is an http.RoundTripper that
// speaks HTTP/2 to one server, whatever host r's URL names, and does what net/http's transport does; it adds no header.
// A request is sent again, once, when it certainly did not reach the server. The error is an http2.StreamError when the
// server reset the stream.
func (e *Engine) RoundTrip(r *http.Request) (*http.Response, error) {
	x := &exchange{r: r}
	x.conn.eng, x.conn.side = e, localSide
	x.conn.gate.L = &x.conn.mu
	x.cond.L = &x.conn.mu
	x.send.cond = &x.cond
	x.body.x = x
	k := &x.call
	k.exchange, k.client, k.sender = x, &k.own, &x.send
	k.head, k.start = r.Method == http.MethodHead, e.clock()
	k.own.call, k.up.call, k.own.peer, k.up.peer = k, k, &k.up, &k.own
	k.own.conn.Store(&x.conn)
	k.up.conn.Store(e.pool.limbo)
	k.up.length = -1
	k.request = requests.Get().(*[]Field) //nolint:forcetypeassert // The pool makes nothing else.
	fields, err := e.appendRequest(*k.request, r)
	*k.request = fields
	if err == nil {
		err = context.Cause(r.Context())
	}
	if err != nil {
		k.freeRequest()
		if r.Body != nil {
			_ = r.Body.Close()
		}
		return nil, err
	}
	x.stop = context.AfterFunc(r.Context(), x.contextDone)

	var w waker
	var whole []byte
	streams := false
	if hasBody(r) {
		streams = true
		if b, ok := r.Body.(Whole); ok && len(r.Trailer) == 0 {
			if whole, ok = b.Bytes(); ok {
				streams = false
			}
		}
	}
	k.up.endQueued = !streams && len(whole) == 0
	e.pool.admit(k, &w)
	switch {
	case streams:
		go x.sendRequest()
	case len(whole) > 0:
		_ = k.send(whole, true, &w)
		fallthrough
	default:
		if r.Body != nil {
			_ = r.Body.Close()
		}
	}
	w.flush()
	return x.response(&w)
}

// sendRequest is the goroutine that reads the request's body.
func (x *exchange) sendRequest() {
	err := x.sendBody(x.r)
	_ = x.r.Body.Close()
	if err != nil {
		x.abort(err)
	}
}

// response waits for the headers of the answer.
func (x *exchange) response(w *waker) (*http.Response, error) {
	c := &x.conn
	c.mu.Lock()
	for !x.came && x.err == nil {
		if len(x.informational) == 0 {
			x.cond.Wait()
			continue
		}
		list := x.informational
		x.informational = nil
		c.unlock(w)
		err := x.tellInterim(list)
		if err != nil {
			x.abort(err)
		}
		c.mu.Lock()
	}
	list, came, err := x.informational, x.came, x.err
	ended := x.ended && x.in.size == 0
	if came && ended && x.trailers == nil {
		c.remove(x.client)
	}
	c.unlock(w)
	w.flush()
	if !came {
		x.stop()
		return nil, err
	}
	if err := x.tellInterim(list); err != nil {
		x.abort(err)
		x.stop()
		return nil, err
	}
	res := &http.Response{
		Status: statusText(x.status) + " " + http.StatusText(x.status), StatusCode: x.status,
		Proto: "HTTP/2.0", ProtoMajor: 2, ContentLength: -1, Request: x.r, Body: &x.body,
	}
	res.Header, res.Trailer = responseHeader(x.fields)
	switch lengths := res.Header["Content-Length"]; {
	case len(lengths) > 0:
		if n, err := parseLength(lengths[0], -1); err == nil {
			res.ContentLength = n
		}
	case ended && !x.head:
		res.ContentLength = 0
	}
	if ended && x.trailers == nil {
		x.stop()
		res.Body = http.NoBody
		return res, nil
	}
	x.body.res = res
	return res, nil
}

// tellInterim hands 1xx answers to whoever traces the request.
func (x *exchange) tellInterim(list []interim) error {
	if len(list) == 0 {
		return nil
	}
	trace := httptrace.ContextClientTrace(x.r.Context())
	if trace == nil || trace.Got1xxResponse == nil {
		return nil
	}
	for _, i := range list {
		header, _ := responseHeader(i.fields)
		if err := trace.Got1xxResponse(i.status, textproto.MIMEHeader(header)); err != nil {
			return err
		}
	}
	return nil
}

// responseHeader makes the maps that handlers want.
func responseHeader(fields []Field) (header, trailer http.Header) {
	header = make(http.Header, len(fields))
	values := make([]string, len(fields)) // One allocation for all the slices that have one value.
	for i, f := range fields {
		name := canonical(f.Name)
		if name == "Trailer" {
			for key := range strings.SplitSeq(f.Value, ",") {
				if key = textproto.CanonicalMIMEHeaderKey(textproto.TrimString(key)); key != "" {
					if trailer == nil {
						trailer = make(http.Header)
					}
					trailer[key] = nil
				}
			}
			continue
		}
		if prior, ok := header[name]; ok {
			header[name] = append(prior, f.Value)
			continue
		}
		values[i] = f.Value
		header[name] = values[i : i+1 : i+1]
	}
	return header, trailer
}

// What follows up to fail is what the upstream's connection tells. The lock is held.

func (x *exchange) headCame(status int, fields []Field, end bool) {
	kept := append([]Field(nil), fields...)
	if status < http.StatusOK {
		x.informational = append(x.informational, interim{status, kept})
	} else {
		x.came, x.status, x.fields, x.ended = true, status, kept, end
	}
	x.cond.Broadcast()
}

func (x *exchange) dataCame(p []byte, end bool) {
	x.in.append(p)
	x.ended = x.ended || end
	x.cond.Broadcast()
}

func (x *exchange) trailersCame(fields []Field) {
	x.trailers = append(make([]Field, 0, len(fields)), fields...)
	x.ended = true
	x.cond.Broadcast()
}

// fail ends the exchange, unless the answer is whole already.
func (x *exchange) fail(err error) {
	if x.err == nil && !x.ended {
		x.err = err
	}
	x.conn.remove(x.client)
	x.cond.Broadcast()
}

// abort ends the exchange from our side. The lock is not held.
func (x *exchange) abort(err error) {
	var w waker
	x.conn.mu.Lock()
	x.fail(err)
	x.conn.unlock(&w)
	w.flush()
}

// contextDone is called when the request's context is done.
func (x *exchange) contextDone() { x.abort(context.Cause(x.r.Context())) }

// responseBody is the Body of an answer.
type responseBody struct {
	x   *exchange
	res *http.Response
}

// Read waits for what the upstream sends.
func (b *responseBody) Read(p []byte) (int, error) {
	x := b.x
	c := &x.conn
	var w waker
	c.mu.Lock()
	for {
		switch {
		case x.closed:
			c.mu.Unlock()
			return 0, errBodyClosed
		case x.in.size > 0:
			n := 0
			for n < len(p) && x.in.size > 0 {
				piece := x.in.front(len(p) - n)
				n += copy(p[n:], piece)
				x.in.discard(len(piece))
			}
			empty, ended := x.in.size == 0, x.ended
			c.mu.Unlock()
			if !ended {
				d := x.up.lock()
				d.buffered -= n
				d.giveCredit(&x.up, n, empty)
				d.unlock(&w)
				w.flush()
			}
			return n, nil
		case x.ended:
			c.remove(x.client)
			trailers := x.trailers
			x.trailers = nil
			c.unlock(&w)
			w.flush()
			x.stop()
			b.copyTrailers(trailers)
			return 0, io.EOF
		case x.err != nil:
			err := x.err
			c.mu.Unlock()
			x.stop()
			return 0, err
		}
		x.cond.Wait()
	}
}

func (b *responseBody) copyTrailers(fields []Field) {
	if len(fields) == 0 {
		return
	}
	if b.res.Trailer == nil {
		b.res.Trailer = make(http.Header, len(fields))
	}
	for _, f := range fields {
		name := canonical(f.Name)
		b.res.Trailer[name] = append(b.res.Trailer[name], f.Value)
	}
}

// Close ends the exchange, whether it was read to its end or not.
func (b *responseBody) Close() error {
	x := b.x
	var w waker
	x.conn.mu.Lock()
	x.closed = true
	x.in.clear()
	if x.err == nil {
		x.err = http2.StreamError{Code: http2.ErrCodeCancel}
	}
	x.conn.remove(x.client)
	x.cond.Broadcast()
	x.conn.unlock(&w)
	w.flush()
	x.stop()
	return nil
}
