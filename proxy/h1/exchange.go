package h1

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// exchange is a request that is relayed, and its answer.
type exchange struct {
	c      *conn
	head   Head
	told   Exchange
	answer answer
	out    []byte // what goes out next
	u      *upConn
	header func() http.Header // of the answer

	watcher Watcher
	begun   bool // something of the answer was sent
	framing framing
	keep    bool // the client's connection, if nothing goes wrong

	// The request's body.
	left     int64 // of a body with a length
	chunks   chunks
	theirs   chunks      // of the answer
	bodyDone atomic.Bool // it was read to its end
	pumpOut  []byte
	pump     func() error
	pumpTo   *upConn // the side's; nil: the upstream takes no more of it
}

// framing is how an answer's body ends for the client.
type framing uint8

const (
	withoutBody framing = iota
	withLength
	inChunks
)

var exchanges = sync.Pool{New: func() any {
	x := &exchange{}
	x.header = x.answer.header
	x.pump = x.pumpBody
	return x
}}

// maxKept is how large the buffers of an exchange may be that is used again.
const maxKept = 2 * streamSize

// release gives x back.
func (x *exchange) release() {
	fields, answerFields, out, pumpOut := x.head.fields[:0], x.answer.fields[:0], x.out[:0], x.pumpOut[:0]
	if cap(out)+cap(pumpOut) > maxKept || cap(fields)+cap(answerFields) > 256 {
		return
	}
	clear(fields[:cap(fields)])
	clear(answerFields[:cap(answerFields)])
	x.c, x.u, x.told, x.watcher = nil, nil, nil, nil
	x.head = Head{fields: fields}
	x.answer = answer{fields: answerFields}
	x.out, x.pumpOut = out, pumpOut
	x.begun, x.pumpTo, x.keep, x.left, x.framing = false, nil, false, 0, withoutBody
	x.chunks, x.theirs = chunks{}, chunks{}
	x.bodyDone.Store(false)
	exchanges.Put(x)
}

// relay serves the exchange. It reports whether another may follow on the client's connection.
func (x *exchange) relay() (keep bool) {
	c := x.c
	defer x.told.Done()
	x.keep = !x.head.closes
	if err := x.compose(); err != nil {
		var r *refusal
		errors.As(err, &r)
		return x.fail(&ClientError{err: r})
	}
	if x.bodyDone.Load() {
		c.setPhase(phaseWaiting)
	}
	return x.settle(x.run(0))
}

// run sends the request and delivers the answer. If x.u is set, sent bytes of it are sent.
func (x *exchange) run(sent int) error {
	if err := x.roundTrip(sent); err != nil {
		return err
	}
	if failure := x.c.side.failure.Load(); failure != nil {
		return failure
	}
	return x.deliver()
}

// settle ends the exchange. It reports whether another may follow on the client's connection.
func (x *exchange) settle(err error) (keep bool) {
	c := x.c
	if x.u != nil && (err != nil || !x.bodyDone.Load()) {
		c.up.Store(nil)
		c.e.pool.drop(x.u)
		x.u = nil
	}
	x.endSide()
	if err != nil {
		return x.fail(x.cause(err))
	}
	if x.u != nil {
		x.giveBack()
	}
	if !x.bodyDone.Load() {
		c.linger()
		return false
	}
	return x.keep
}

// endSide waits until nobody else reads from the client.
func (x *exchange) endSide() {
	c := x.c
	if c.leave(phaseWaiting) {
		return
	}
	deadline := longAgo
	if !x.bodyDone.Load() {
		deadline = time.Now().Add(lingerTimeout)
	}
	c.stopSide(deadline)
	c.setPhase(phaseBusy)
}

// giveBack returns the upstream's connection after a whole answer.
func (x *exchange) giveBack() {
	c, u := x.c, x.u
	x.u = nil
	c.up.Store(nil)
	if c.side.failure.Swap(nil) != nil || !x.reusable(u) {
		c.e.pool.drop(u)
		return
	}
	c.e.pool.put(u)
}

// reusable reports whether u, which brought the whole answer, may be used again, and notes that it was used.
func (x *exchange) reusable(u *upConn) bool {
	a := &x.answer
	if a.closes || a.minor == 0 || len(u.in.bytes()) > 0 || !a.delimited(x.head.method) {
		return false
	}
	u.used = true
	u.in.large = a.length > inputSize/2 || u.in.w > inputSize
	return true
}

// delimited reports whether the answer's end is seen otherwise than by the end of the connection.
func (a *answer) delimited(method string) bool {
	return a.chunked || a.length >= 0 || bodiless(a.status) || method == http.MethodHead
}

// cause is what ended the exchange: the client, if it was the client.
func (x *exchange) cause(err error) error {
	if failure := x.c.side.failure.Swap(nil); failure != nil {
		return failure
	}
	return err
}

// compose writes the request into x.out, with as much of its body as has come.
func (x *exchange) compose() error {
	c, h := x.c, &x.head
	host := c.e.o.Upstream.Authority
	if host == "" {
		host = h.host
	}
	out := append(x.out[:0], h.method...)
	out = append(out, ' ')
	out = append(out, h.target...)
	out = append(out, " HTTP/1.1\r\nHost: "...)
	out = append(out, host...)
	out = append(out, '\r', '\n')
	out = appendFields(out, h.fields)
	if h.trailersOK {
		out = append(out, "Te: trailers\r\n"...)
	}
	var err error
	switch {
	case h.length < 0:
		out = append(out, "Transfer-Encoding: chunked\r\n\r\n"...)
		out, err = x.appendChunks(out)
		x.bodyDone.Store(err == nil && x.chunks.ended())
	case h.lengths > 0 || h.method == http.MethodPost || h.method == http.MethodPut || h.method == http.MethodPatch:
		out = append(out, "Content-Length: "...)
		out = strconv.AppendInt(out, h.length, 10)
		out = append(out, "\r\n\r\n"...)
		here := c.in.bytes()
		here = here[:min(h.length, int64(len(here)))]
		out = append(out, here...)
		c.in.r += len(here)
		x.left = h.length - int64(len(here))
		x.bodyDone.Store(x.left == 0)
	default:
		out = append(out, '\r', '\n')
		x.bodyDone.Store(true)
	}
	x.out = out
	return err
}

// appendChunks writes the chunks that have come.
func (x *exchange) appendChunks(out []byte) ([]byte, error) {
	in := &x.c.in
	for {
		data, n, err := x.chunks.next(in.bytes())
		if err != nil {
			return out, err
		}
		in.r += n
		out = appendChunk(out, data)
		if x.chunks.ended() {
			out = append(out, "0\r\n"...)
			return x.chunks.appendTrailer(out)
		}
		if n == 0 {
			return out, nil
		}
	}
}

// pumpBody sends the rest of the request's body.
func (x *exchange) pumpBody() error {
	c := x.c
	if x.head.length < 0 {
		for !x.chunks.ended() {
			if len(c.in.room()) == 0 {
				c.in.grow(streamSize)
			}
			if err := c.fill(&c.in); err != nil {
				return err
			}
			out, err := x.appendChunks(x.pumpOut[:0])
			x.pumpOut = out
			x.forward(out)
			if err != nil {
				return err
			}
		}
		x.bodyDone.Store(true)
		return nil
	}
	buf := streams.Get().(*[]byte) //nolint:forcetypeassert // The pool makes nothing else.
	defer streams.Put(buf)
	for x.left > 0 {
		n, err := c.Conn.Read((*buf)[:min(x.left, streamSize)])
		x.left -= int64(n)
		x.forward((*buf)[:n])
		if x.left == 0 {
			break
		}
		if err != nil {
			return err
		}
	}
	x.bodyDone.Store(true)
	return nil
}

// forward sends a piece of the body upstream, as long as the upstream takes any.
func (x *exchange) forward(p []byte) {
	if x.pumpTo == nil || len(p) == 0 {
		return
	}
	if x.pumpTo.write(p) != nil {
		x.pumpTo = nil
	}
}

// maxAttempts bounds how often a request is tried that was certainly not processed.
const maxAttempts = 4

// roundTrip sends the request, and waits until something of the answer is in x.u.in. If x.u is set, the request was
// begun on it, whole, and sent bytes of it are sent.
func (x *exchange) roundTrip(sent int) error {
	c := x.c
	whole := x.bodyDone.Load()
	for attempt := 1; ; attempt++ {
		u, begun := x.u, x.u != nil
		if !begun {
			var err error
			if u, err = c.e.pool.get(attempt > maxAttempts/2); err != nil {
				return err
			}
			x.u = u
		}
		c.up.Store(u)
		if c.side.failure.Load() != nil {
			return errStale
		}
		var err error
		if begun {
			sent, err = u.finish(x.out, sent)
		} else {
			sent, err = u.send(x.out, &u.in, whole)
		}
		if err == nil && !whole {
			if sent == len(x.out) {
				x.startPump()
			}
			return u.fill(&u.in)
		}
		if err == nil {
			return nil
		}
		again := attempt < maxAttempts && c.side.failure.Load() == nil &&
			(sent == 0 && (u.used || errors.Is(err, errStale)) || u.used && attempt <= maxAttempts/2 && whole && x.repeatable(err))
		if !again {
			return err
		}
		if sent > 0 { // Once.
			attempt = maxAttempts - 1
		}
		c.up.Store(nil)
		x.u = nil
		c.e.pool.drop(u)
	}
}

// repeatable reports whether a request may be sent a second time after the upstream ended the connection without a word.
func (x *exchange) repeatable(err error) bool {
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		return false
	}
	switch x.head.method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
}

// startPump has the side send the rest of the body.
func (x *exchange) startPump() {
	s := &x.c.side
	s.mu.Lock()
	defer s.mu.Unlock()
	x.pumpTo = x.u
	x.c.startSide(x.pump)
}

// fail tells what went wrong, and the client if it can be. It reports whether the client's connection can go on.
func (x *exchange) fail(err error) (keep bool) {
	c := x.c
	w := &errorWriter{header: make(http.Header)}
	if x.begun && x.framing == withLength {
		w.header["Content-Length"] = []string{strconv.FormatInt(x.answer.length, 10)}
	}
	complete := x.told.Failed(w, err)
	if client, ok := err.(*ClientError); ok { //nolint:errorlint // cause returns it bare.
		if x.keep = false; client.Gone {
			return false
		}
	}
	if x.begun {
		if !complete || x.framing != inChunks {
			return false
		}
		out := appendChunk(x.out[:0], w.body)
		x.out = append(out, "0\r\n\r\n"...)
		err := c.write(x.out)
		return err == nil && x.bodyDone.Load() && x.keep
	}
	keep = x.keep && x.bodyDone.Load() && !c.e.draining.Load()
	x.out = w.append(x.out[:0], x.head.method == http.MethodHead, keep)
	if err := c.write(x.out); err != nil {
		return false
	}
	if !keep && !x.bodyDone.Load() {
		c.linger()
	}
	return keep
}

// errorWriter is the http.ResponseWriter for an answer of the gateway.
type errorWriter struct {
	header http.Header
	status int
	body   []byte
}

func (w *errorWriter) Header() http.Header { return w.header }

func (w *errorWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

func (w *errorWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	w.body = append(w.body, p...)
	return len(p), nil
}

// append writes the answer.
func (w *errorWriter) append(out []byte, head, keep bool) []byte {
	w.WriteHeader(http.StatusInternalServerError)
	out = appendStatus(out, w.status, http.StatusText(w.status))
	w.header["Content-Length"] = []string{strconv.Itoa(len(w.body))}
	w.header["Date"] = []string{time.Now().UTC().Format(http.TimeFormat)}
	if !keep {
		w.header["Connection"] = []string{"close"}
	}
	var b headerBuffer = out
	_ = w.header.Write(&b)
	out = append(b, '\r', '\n')
	if head {
		return out
	}
	return append(out, w.body...)
}

// headerBuffer is a byte slice to write to.
type headerBuffer []byte

func (b *headerBuffer) Write(p []byte) (int, error) {
	*b = append(*b, p...)
	return len(p), nil
}

var _ io.Writer = (*headerBuffer)(nil)
