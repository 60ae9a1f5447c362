package h2

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Whole is what the Body of a request may be besides an io.ReadCloser: a body that is in memory. It is sent without a
// goroutine that reads it.
type Whole interface {
	// Bytes returns what has not been read yet. ok is false if more follows it. The bytes are not changed, and not
	// kept after the body was closed.
	Bytes() (p []byte, ok bool)
}

// appendRequest adds the fields that say r, in the order and the form of HTTP/2, as net/http's transport does.
func (e *Engine) appendRequest(fields []Field, r *http.Request) ([]Field, error) {
	method := r.Method
	if method == "" {
		method = http.MethodGet
	}
	authority := r.Host
	if authority == "" {
		authority = r.URL.Host
	}
	if e.o.Upstream.Authority != "" {
		authority = e.o.Upstream.Authority
	}
	path := r.URL.RequestURI()
	if path[0] != '/' && path != "*" { // An opaque URL that began with two slashes has its scheme.
		path = strings.TrimPrefix(path, r.URL.Scheme+"://"+authority)
	}
	if path == "" || path[0] != '/' && path != "*" || !validValue(path) || !validMethod(method) {
		return fields, errPath
	}
	fields = append(fields,
		Field{Name: ":method", Value: method}, Field{Name: ":scheme", Value: e.scheme}, Field{Name: ":path", Value: path})
	if authority != "" {
		fields = append(fields, Field{Name: ":authority", Value: authority})
	}
	for name, values := range r.Header {
		switch name {
		case "Connection", "Proxy-Connection", "Keep-Alive", "Transfer-Encoding", "Upgrade", "Host", "Content-Length":
			continue
		}
		lower := lowerName(name)
		for _, v := range values {
			f := Field{Name: lower, Value: v}
			if err := checkField(&f); err != nil {
				return fields, err
			}
			fields = append(fields, f)
		}
	}
	if n, ok := statedLength(r); ok {
		fields = append(fields, Field{Name: "content-length", Value: strconv.FormatInt(n, 10)})
	}
	if len(r.Trailer) > 0 {
		names := make([]string, 0, len(r.Trailer))
		for name := range r.Trailer {
			names = append(names, name)
		}
		slices.Sort(names)
		fields = append(fields, Field{Name: "trailer", Value: strings.Join(names, ",")})
	}
	return fields, nil
}

// hasBody reports whether a request has a body, perhaps an empty one.
func hasBody(r *http.Request) bool { return r.Body != nil && r.Body != http.NoBody }

// statedLength is the Content-Length to be sent, if one is.
func statedLength(r *http.Request) (int64, bool) {
	switch {
	case !hasBody(r):
		return 0, r.Method == http.MethodPost || r.Method == http.MethodPut || r.Method == http.MethodPatch
	case r.ContentLength > 0:
		return r.ContentLength, true
	}
	return 0, false
}

// sender is whose goroutine sends the request of a call, if it is no connection's reader. It is guarded by the lock of
// the connection that the client's half is on.
type sender struct {
	cond  *sync.Cond
	waits int // what it sent and what waits still in the gateway
}

// took is told that n bytes need no room any more.
func (s *sender) took(n int) {
	s.waits -= n
	if s.waits < handlerQueue {
		s.cond.Broadcast()
	}
}

// errEndedEarly stops a body that nobody wants any more.
var errEndedEarly = errors.New("the call has ended")

// send sends a part of the request's body, and END_STREAM if end is set. It waits while too much of it waits. Locks are
// not held.
func (k *call) send(p []byte, end bool, w *waker) error {
	for {
		n := min(len(p), handlerQueue)
		d := k.up.lock()
		if k.up.gone.Load() {
			d.unlock(w)
			return errEndedEarly
		}
		waits := n - d.sendData(&k.up, p[:n], end && n == len(p))
		d.unlock(w)
		if waits > 0 || n < len(p) {
			w.flush()
			c := k.client.lock()
			c.buffered += waits
			k.sender.waits += waits
			for k.sender.waits >= handlerQueue && !k.client.gone.Load() {
				k.sender.cond.Wait()
			}
			gone := k.client.gone.Load()
			c.unlock(w)
			if gone {
				return errEndedEarly
			}
		}
		if p = p[n:]; len(p) == 0 {
			return nil
		}
	}
}

var bodyBuffers = sync.Pool{New: func() any { return new([handlerQueue / 2]byte) }}

// sendBody reads a body and sends it, then the trailers. The error is the body's.
func (k *call) sendBody(r *http.Request) error {
	buf := bodyBuffers.Get().(*[handlerQueue / 2]byte) //nolint:forcetypeassert // The pool makes nothing else.
	defer bodyBuffers.Put(buf)
	var w waker
	defer w.flush()
	for {
		n, err := r.Body.Read(buf[:])
		if n > 0 && k.send(buf[:n], false, &w) != nil {
			return nil // The call has ended; nobody wants to know.
		}
		w.flush()
		switch {
		case err == io.EOF:
			k.sendEnd(r.Trailer, &w)
			return nil
		case err != nil:
			return err
		}
	}
}

// sendEnd ends the request.
func (k *call) sendEnd(trailer http.Header, w *waker) {
	var fields []Field
	for name, values := range trailer {
		fields = appendFields(fields, name, values)
	}
	if len(fields) == 0 {
		_ = k.send(nil, true, w)
		return
	}
	d := k.up.lock()
	if !k.up.gone.Load() {
		d.sendTrailers(&k.up, fields)
	}
	d.unlock(w)
}
