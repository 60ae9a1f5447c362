package h2

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

// handlerQueue is how much of a handler's output waits for the client before the handler does.
const handlerQueue = 64 << 10

// writeBuffer is how much of a body is kept before anything is sent: short bodies get a Content-Length.
const writeBuffer = 4 << 10

var writeBuffers = sync.Pool{New: func() any { return new([writeBuffer]byte) }}

// responseWriter is the http.ResponseWriter of a handled stream. It does what net/http's HTTP/2 server does.
type responseWriter struct {
	h      *handled
	header http.Header // nil until somebody wants it
	isHead bool

	status      int     // 0: WriteHeader was not called
	fields      []Field // the header as it was then
	hasType     bool
	hasLength   bool
	hasDate     bool
	hasEncoding bool
	declared    []string // announced trailers, canonical
	length      int64    // the Content-Length that the handler stated; -1: none
	written     int64
	sentHeader  atomic.Bool
	done        bool
	buf         *[writeBuffer]byte
	n           int
	err         error
}

var (
	_ http.ResponseWriter = (*responseWriter)(nil)
	_ http.Flusher        = (*responseWriter)(nil)
)

// Header returns the map that WriteHeader sends, and that trailers are put into after it.
func (w *responseWriter) Header() http.Header {
	if w.header == nil {
		w.header = make(http.Header)
	}
	return w.header
}

// WriteHeader notes the status and the headers; they are sent with the first bytes of the body, or Flush. A 1xx status
// is sent at once.
func (w *responseWriter) WriteHeader(status int) {
	if w.status != 0 || w.done {
		return
	}
	if status < 100 || status > 999 {
		panic(fmt.Sprintf("invalid WriteHeader code %v", status))
	}
	if status < 200 {
		w.informational(status)
		return
	}
	w.status, w.length = status, -1
	w.fields = make([]Field, 0, len(w.header)+3)
	for name, values := range w.header {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			continue
		}
		w.snapshot(name, values)
	}
}

// snapshot takes one header into the fields that will be sent.
func (w *responseWriter) snapshot(name string, values []string) {
	switch name {
	case "Content-Type":
		w.hasType = true
	case "Content-Encoding":
		w.hasEncoding = len(values) > 0 && values[0] != ""
	case "Date":
		w.hasDate = true
	case "Content-Length":
		w.hasLength = true
		if len(values) == 0 {
			return
		}
		n, err := strconv.ParseUint(values[0], 10, 63)
		if err != nil {
			w.hasLength = false
			return
		}
		w.length = int64(n)
		values = values[:1]
	case "Trailer":
		for _, v := range values {
			for key := range strings.SplitSeq(v, ",") {
				w.declare(http.CanonicalHeaderKey(strings.TrimSpace(key)))
			}
		}
	}
	w.fields = appendFields(w.fields, name, values)
}

// appendFields adds what may be sent of a header.
func appendFields(fields []Field, name string, values []string) []Field {
	lower := lowerName(name)
	for _, v := range values {
		f := Field{Name: lower, Value: v}
		if checkField(&f) == nil {
			fields = append(fields, f)
		}
	}
	return fields
}

// declare notes the name of a trailer.
func (w *responseWriter) declare(name string) {
	switch name {
	case "", "Transfer-Encoding", "Content-Length", "Trailer": // RFC 9110 6.5.1
	default:
		if !slices.Contains(w.declared, name) {
			w.declared = append(w.declared, name)
		}
	}
}

func (w *responseWriter) informational(status int) {
	var fields []Field
	for name, values := range w.header {
		if name != "Content-Length" && name != "Transfer-Encoding" {
			fields = appendFields(fields, name, values)
		}
	}
	h := w.h
	h.c.mu.Lock()
	if !h.gone.Load() {
		h.c.sendStatus(&h.stream, status, fields, false)
	}
	h.c.unlock(&h.wakes)
	h.wakes.flush()
}

// Write sends p, sooner or later, and waits while the client does not take it.
func (w *responseWriter) Write(p []byte) (int, error) { return write(w, p) }

// WriteString is Write.
func (w *responseWriter) WriteString(s string) (int, error) { return write(w, s) }

func write[T []byte | string](w *responseWriter, p T) (int, error) {
	if w.done {
		return 0, errors.New("write after the handler returned")
	}
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if !bodyAllowed(w.status) {
		return 0, http.ErrBodyNotAllowed
	}
	w.written += int64(len(p))
	if w.length >= 0 && w.written > w.length {
		return 0, http.ErrContentLength
	}
	if w.err != nil {
		return 0, w.err
	}
	total := len(p)
	for len(p) > 0 {
		if w.n == 0 && len(p) >= writeBuffer {
			if err := w.chunk([]byte(p)); err != nil {
				return 0, err
			}
			break
		}
		if w.buf == nil {
			w.buf = writeBuffers.Get().(*[writeBuffer]byte) //nolint:forcetypeassert // The pool makes nothing else.
		}
		n := copy(w.buf[w.n:], p)
		w.n += n
		p = p[n:]
		if w.n == writeBuffer {
			if err := w.flushBuffer(); err != nil {
				return 0, err
			}
		}
	}
	return total, nil
}

func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}

// Flush sends what there is.
func (w *responseWriter) Flush() { _ = w.FlushError() }

// FlushError is Flush, and says whether it worked.
func (w *responseWriter) FlushError() error {
	if w.done {
		return errClientGone
	}
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	return w.flushBuffer()
}

func (w *responseWriter) flushBuffer() error {
	n := w.n
	w.n = 0
	if n == 0 {
		return w.chunk(nil)
	}
	return w.chunk(w.buf[:n])
}

// chunk sends the headers, if they have not been, and p.
func (w *responseWriter) chunk(p []byte) error {
	if w.err == nil && !w.sentHeader.Load() {
		w.err = w.sendHeader(p)
	}
	if w.err == nil && !w.isHead && len(p) > 0 {
		w.err = w.h.send(p, false)
	}
	return w.err
}

// sendHeader sends the headers; p is the beginning of the body, all of it if the handler is done.
func (w *responseWriter) sendHeader(p []byte) error {
	w.sentHeader.Store(true)
	body := bodyAllowed(w.status)
	if !w.hasLength && w.done && body && (len(p) > 0 || !w.isHead) {
		w.fields = append(w.fields, Field{Name: "content-length", Value: strconv.Itoa(len(p))})
	}
	if !w.hasType && !w.hasEncoding && body && len(p) > 0 {
		w.fields = append(w.fields, Field{Name: "content-type", Value: http.DetectContentType(p)})
	}
	if !w.hasDate {
		w.fields = append(w.fields, Field{Name: "date", Value: time.Now().UTC().Format(http.TimeFormat)})
	}
	end := w.isHead || w.done && len(p) == 0 && len(w.trailerNames()) == 0
	h := w.h
	h.c.mu.Lock()
	defer func() {
		h.c.unlock(&h.wakes)
		h.wakes.flush()
	}()
	if h.gone.Load() {
		return errClientGone
	}
	h.c.sendStatus(&h.stream, w.status, w.fields, end)
	return nil
}

// trailerNames are those of the trailers that have a value.
func (w *responseWriter) trailerNames() []string {
	var names []string
	for _, name := range w.declared {
		if len(w.header[name]) > 0 {
			names = append(names, name)
		}
	}
	return names
}

// finish sends what is left and ends the stream.
func (w *responseWriter) finish() {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	w.done = true
	for name, values := range w.header {
		if rest, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			rest = http.CanonicalHeaderKey(rest)
			w.declare(rest)
			w.header[rest] = values
		}
	}
	var p []byte
	if w.n > 0 {
		p = w.buf[:w.n]
	}
	if w.err == nil && !w.sentHeader.Load() {
		w.err = w.sendHeader(p)
	}
	if w.err == nil && !w.isHead {
		w.sendEnd(p)
	}
	if w.buf != nil {
		writeBuffers.Put(w.buf)
		w.buf = nil
	}
}

// sendEnd sends the last of the body and END_STREAM, with the trailers if there are any.
func (w *responseWriter) sendEnd(p []byte) {
	names := w.trailerNames()
	if len(names) == 0 {
		w.err = w.h.send(p, true)
		return
	}
	if len(p) > 0 {
		if w.err = w.h.send(p, false); w.err != nil {
			return
		}
	}
	slices.Sort(names)
	var fields []Field
	for _, name := range names {
		fields = appendFields(fields, name, w.header[name])
	}
	h := w.h
	h.c.mu.Lock()
	if !h.gone.Load() {
		h.c.sendTrailers(&h.stream, fields)
	}
	h.c.unlock(&h.wakes)
	h.wakes.flush()
}

// send sends p, and END_STREAM if end is set, waiting while there is no room.
func (h *handled) send(p []byte, end bool) error {
	c := h.c
	c.mu.Lock()
	defer func() {
		c.unlock(&h.wakes)
		h.wakes.flush()
	}()
	for {
		for h.queue.size >= handlerQueue && !h.gone.Load() {
			h.cond.Wait()
		}
		if h.gone.Load() {
			if end && h.localClosed {
				return nil
			}
			return errClientGone
		}
		n := min(len(p), handlerQueue-h.queue.size)
		last := end && n == len(p)
		c.sendData(&h.stream, p[:n], last)
		if p = p[n:]; len(p) == 0 {
			return nil
		}
		c.unlock(&h.wakes)
		h.wakes.flush()
		c.mu.Lock()
	}
}

// SetReadDeadline bounds how long reading the body may take. The zero time takes the bound away.
func (w *responseWriter) SetReadDeadline(t time.Time) error {
	h := w.h
	h.c.mu.Lock()
	defer h.c.mu.Unlock()
	stop(h.readTimeout)
	h.readTimeout, h.readExpired = nil, false
	if t.IsZero() {
		return nil
	}
	left := time.Until(t)
	if left <= 0 {
		h.readExpired = true
		h.cond.Broadcast()
		return nil
	}
	var timer *time.Timer
	timer = time.AfterFunc(left, func() {
		h.c.mu.Lock()
		if h.readTimeout == timer {
			h.readExpired = true
			h.cond.Broadcast()
		}
		h.c.mu.Unlock()
	})
	h.readTimeout = timer
	return nil
}

// SetWriteDeadline bounds how long the answer may take; then the stream is reset. The zero time takes the bound away.
func (w *responseWriter) SetWriteDeadline(t time.Time) error {
	h := w.h
	h.c.mu.Lock()
	defer h.c.mu.Unlock()
	stop(h.writeTimeout)
	h.writeTimeout = nil
	if t.IsZero() {
		return nil
	}
	var timer *time.Timer
	timer = time.AfterFunc(max(0, time.Until(t)), func() {
		var wakes waker
		h.c.mu.Lock()
		if h.writeTimeout == timer {
			h.c.cancel(&h.stream, http2.ErrCodeInternal)
		}
		h.c.unlock(&wakes)
		wakes.flush()
	})
	h.writeTimeout = timer
	return nil
}

// EnableFullDuplex does nothing: reading and writing never wait for each other.
func (w *responseWriter) EnableFullDuplex() error { return nil }
