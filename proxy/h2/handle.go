package h2

import (
	"errors"
	"io"
	"net/http"
	"net/textproto"
	"net/url"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"github.com/execgate/execgate/internal/patience"
)

var (
	// errClientGone is what a handler gets once its client has reset the stream, or is away.
	errClientGone = errors.New("client disconnected")
	errBodyClosed = http.ErrBodyReadAfterClose
)

// handled is a stream that a handler serves.
//
// It is its own stream's keeper: the reader puts in what comes, the handler's goroutine takes it out and sends, and
// both meet under the connection's lock.
type handled struct {
	stream

	c     *conn
	ctx   patience.Context
	r     http.Request
	url   url.URL
	w     responseWriter
	body  requestBody
	wakes waker    // the handler's
	head  Head     // what Relay sends; without conn if it cannot be asked for
	box   *[]Field // what head's fields are a part of, from requests

	// Guarded by the connection's lock.
	cond         sync.Cond
	in           chunkQueue
	inEnded      bool
	inClosed     bool // the handler wants no more
	trailerCame  []Field
	readTimeout  *time.Timer
	writeTimeout *time.Timer
	readExpired  bool
	relay        relayState
}

// handle gives the request in c.head to a handler.
func (c *conn) handle(id uint32, action Action) {
	h := &c.head
	hd := &handled{c: c}
	if err := hd.putURL(h); err != nil {
		c.reject(id)
		return
	}
	hd.cond.L = &c.mu
	hd.handled = hd
	hd.id = id
	hd.conn.Store(c)
	hd.remoteHead, hd.remoteClosed, hd.inEnded = true, h.end, h.end
	hd.length = h.contentLength
	// It ends with the stream, which ends with the connection, and so with the engine.
	hd.ctx.Key, hd.ctx.Val = http.LocalAddrContextKey, c.localAddr

	header, trailer, needsContinue := requestHeader(h)
	hd.r = *(&http.Request{ // Neither this one nor the copy that WithContext makes is on the heap.
		Method:        h.method,
		URL:           &hd.url,
		Proto:         "HTTP/2.0",
		ProtoMajor:    2,
		Header:        header,
		Trailer:       trailer,
		ContentLength: h.contentLength,
		Host:          h.authority,
		RemoteAddr:    c.remoteAddr,
		RequestURI:    h.path,
		Body:          http.NoBody,
	}).WithContext(&hd.ctx)
	r := &hd.r
	if h.method == http.MethodConnect {
		r.RequestURI = h.authority
	}
	if h.scheme == "https" {
		r.TLS = c.tlsState
	}
	if h.end {
		r.ContentLength = 0
	} else {
		hd.body = requestBody{h: hd, needsContinue: needsContinue}
		r.Body = &hd.body
	}
	hd.body.r = r
	hd.w = responseWriter{h: hd, isHead: h.method == http.MethodHead}
	if action.Relayable {
		hd.keepHead(h)
	}

	c.eng.calls.Add(1)
	c.mu.Lock()
	c.add(&hd.stream)
	c.handlers++
	c.unlock(&c.wakes)
	c.eng.workers.work(job{hd, action.Handler})
}

// job is a request for a handler.
type job struct {
	h       *handled
	handler http.Handler
}

// reject resets a stream whose request is malformed. That it is counted is enough; the flood, if it is one, ends with
// the next frame.
func (c *conn) reject(id uint32) {
	c.guard.resets.take(c.now)
	c.mu.Lock()
	c.writeReset(id, http2.ErrCodeProtocol)
	c.remember(id, true)
	c.unlock(&c.wakes)
}

// putURL makes the URL that a request asks for.
func (h *handled) putURL(head *Head) error {
	switch {
	case head.method == http.MethodConnect:
		h.url = url.URL{Host: head.authority}
	case plainPath(head.path):
		h.url = url.URL{Path: head.path}
	default:
		u, err := url.ParseRequestURI(head.path)
		if err != nil {
			return err
		}
		h.url = *u
	}
	return nil
}

// plainPath reports whether a path is one, and nothing else, without any of it having to be decoded.
func plainPath(path string) bool {
	for i := range len(path) {
		switch c := path[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		case c == '/' && (i == 0 || path[i-1] != '/'):
		default:
			return false
		}
	}
	return path != "" && path[0] == '/'
}

// requestHeader makes the map that handlers want, with what net/http does to it.
func requestHeader(h *Head) (header, trailer http.Header, needsContinue bool) {
	header = make(http.Header, len(h.fields))
	values := make([]string, len(h.fields)) // One allocation for all the slices that have one value.
	for i, f := range h.fields {
		name := canonical(f.Name)
		switch name {
		case "Trailer":
			for key := range strings.SplitSeq(f.Value, ",") {
				switch key = textproto.CanonicalMIMEHeaderKey(textproto.TrimString(key)); key {
				case "", "Transfer-Encoding", "Trailer", "Content-Length": // Bogus.
				default:
					if trailer == nil {
						trailer = make(http.Header)
					}
					trailer[key] = nil
				}
			}
			continue
		case "Expect":
			if strings.EqualFold(f.Value, "100-continue") {
				needsContinue = true
				continue
			}
		case "Cookie":
			if prior := header["Cookie"]; len(prior) > 0 {
				prior[0] += "; " + f.Value // RFC 9113 8.2.3
				continue
			}
		}
		if prior, ok := header[name]; ok {
			header[name] = append(prior, f.Value)
			continue
		}
		values[i] = f.Value
		header[name] = values[i : i+1 : i+1]
	}
	return header, trailer, needsContinue
}

// serve runs the handler.
func (h *handled) serve(handler http.Handler) {
	failed := true
	defer func() {
		if failed {
			if e := recover(); e != nil && e != http.ErrAbortHandler { //nolint:errorlint // A panic's value.
				h.c.eng.o.Logger.Error("a handler panicked", "panic", e, "stack", string(debug.Stack()))
			}
		}
		h.end(failed)
	}()
	handler.ServeHTTP(&h.w, &h.r)
	failed = false
}

// end closes the stream once the handler has returned.
func (h *handled) end(failed bool) {
	c := h.c
	if !failed && !h.relay.began {
		c.mu.Lock()
		h.resetAfter = !h.remoteClosed // What the client still sends is not wanted.
		c.unlock(&h.wakes)
		h.w.finish()
	}
	c.mu.Lock()
	switch {
	case failed:
		c.cancel(&h.stream, http2.ErrCodeInternal)
	case h.relay.began:
	case h.localClosed: // An answer to HEAD that ended before the handler did.
		c.refuseRest(&h.stream)
	}
	h.closeBody()
	stop(h.readTimeout)
	stop(h.writeTimeout)
	c.handlers--
	h.relay.returned = true
	relayed, over := h.relay.began, h.relay.over
	c.unlock(&h.wakes)
	h.wakes.flush()
	h.ctx.Release()
	switch {
	case !relayed:
		h.dropHead()
		c.eng.calls.Add(-1)
	case over:
		h.tellRelayed()
	}
}

func stop(t *time.Timer) {
	if t != nil {
		t.Stop()
	}
}

// dataCame takes in what the reader read. The lock is held.
func (h *handled) dataCame(data []byte, end bool) {
	h.inEnded = h.inEnded || end
	if h.inClosed {
		h.c.buffered -= len(data)
		h.c.giveCredit(&h.stream, len(data), false)
		return
	}
	h.in.append(data)
	h.cond.Broadcast()
}

// trailersCame takes in the end of the request. The lock is held.
func (h *handled) trailersCame(fields []Field) {
	h.inEnded = true
	h.trailerCame = append([]Field(nil), fields...)
	h.cond.Broadcast()
}

// drained is told that something left the output queue. The lock is held.
func (h *handled) drained() {
	if h.queue.size < handlerQueue {
		h.cond.Broadcast()
	}
}

// closeBody drops what was not read. The lock is held.
func (h *handled) closeBody() {
	h.inClosed = true
	n := h.in.size
	h.in.clear()
	h.c.buffered -= n
	h.c.giveCredit(&h.stream, n, false)
	h.c.release()
	h.cond.Broadcast()
}

// wakers are for those that have none of their own. One that was flushed is as good as new.
var wakers = sync.Pool{New: func() any { return new(waker) }}

// requestBody is the Body of a handled request.
type requestBody struct {
	h             *handled
	r             *http.Request
	needsContinue bool
}

// Read waits for what the client sends.
func (b *requestBody) Read(p []byte) (int, error) {
	c := b.h.c
	wakes := wakers.Get().(*waker) //nolint:forcetypeassert // The pool makes nothing else.
	c.mu.Lock()
	n, err := b.take(p, wakes)
	c.unlock(wakes)
	wakes.flush()
	wakers.Put(wakes)
	return n, err
}

// take is Read with the lock held.
func (b *requestBody) take(p []byte, wakes *waker) (int, error) {
	h, c := b.h, b.h.c
	if b.needsContinue {
		b.needsContinue = false
		if !h.w.sentHeader.Load() && !h.gone.Load() {
			c.sendStatus(&h.stream, http.StatusContinue, nil, false)
			c.unlock(wakes)
			wakes.flush()
			c.mu.Lock()
		}
	}
	for {
		switch {
		case h.inClosed:
			return 0, errBodyClosed
		case h.readExpired:
			return 0, os.ErrDeadlineExceeded
		case h.in.size > 0:
			if len(p) == 0 {
				return 0, nil
			}
			n := 0
			for n < len(p) && h.in.size > 0 {
				piece := h.in.front(len(p) - n)
				n += copy(p[n:], piece)
				h.in.discard(len(piece))
			}
			c.buffered -= n
			c.giveCredit(&h.stream, n, h.in.size == 0)
			c.release()
			if h.in.size == 0 && h.inEnded {
				b.copyTrailers()
				return n, io.EOF
			}
			return n, nil
		case h.inEnded:
			b.copyTrailers()
			return 0, io.EOF
		case h.gone.Load():
			return 0, errClientGone
		}
		h.cond.Wait()
	}
}

// copyTrailers fills in the trailers that were announced, as net/http does.
func (b *requestBody) copyTrailers() {
	for _, f := range b.h.trailerCame {
		name := canonical(f.Name)
		if _, ok := b.r.Trailer[name]; ok {
			b.r.Trailer[name] = append(b.r.Trailer[name], f.Value)
		}
	}
	b.h.trailerCame = nil
}

// Close drops what was not read and what still comes.
func (b *requestBody) Close() error {
	var wakes waker
	b.h.c.mu.Lock()
	b.h.closeBody()
	b.h.c.unlock(&wakes)
	wakes.flush()
	return nil
}
