package h2

import (
	"context"
	"net/http"
	"runtime"

	"golang.org/x/net/http2"
)

// Relayer is what the ResponseWriter of a handled stream is, too: its call can be given back to the engine.
type Relayer interface {
	// Relay sends r upstream, whose body must be Whole, and has the answer relayed to the client frame by frame, errors
	// included, as if the request had never been handed over. It returns when the call has ended. When the context of r
	// is done before, the client is told so.
	//
	// ok is false when nothing was done: the client's request has not been read to its end, or something was answered
	// already.
	Relay(r *http.Request) (c Call, ok bool)
}

var (
	_ Relayer           = (*responseWriter)(nil)
	_ http.RoundTripper = (*Engine)(nil)
)

// relayState is what has become of a call that a handler gave back. The connection's lock guards it.
type relayState struct {
	began, ended bool
	call         Call
	sender       sender
}

// Relay implements Relayer.
func (w *responseWriter) Relay(r *http.Request) (Call, bool) {
	h := w.h
	c := h.c
	var body []byte
	if hasBody(r) {
		whole, ok := r.Body.(Whole)
		if !ok || len(r.Trailer) > 0 {
			return Call{}, false
		}
		if body, ok = whole.Bytes(); !ok {
			return Call{}, false
		}
		defer r.Body.Close()
	}
	if w.status != 0 || w.done {
		return Call{}, false
	}
	k := &call{keeper: h, client: &h.stream, start: c.eng.clock(), grpc: grpcType(r.Header.Get("Content-Type")), timeout: r.Header.Get("Grpc-Timeout"), head: w.isHead}
	t := &k.up
	t.call, t.peer, t.length = k, &h.stream, -1
	t.conn.Store(c.eng.pool.limbo)
	t.endQueued = len(body) == 0
	k.request = requests.Get().(*[]Field) //nolint:forcetypeassert // The pool makes nothing else.
	fields, err := c.eng.appendRequest(*k.request, r)
	*k.request = fields
	if err != nil {
		k.freeRequest()
		return Call{}, false
	}
	c.mu.Lock()
	if h.gone.Load() || !h.inEnded || h.in.size > 0 || len(h.trailerCame) > 0 {
		c.unlock(&h.wakes)
		k.freeRequest()
		return Call{}, false
	}
	h.handled, h.call, h.peer = nil, k, t
	h.relay = relayState{began: true, sender: sender{cond: &h.cond}}
	k.sender = &h.relay.sender
	c.unlock(&h.wakes)
	w.done = true

	stop := context.AfterFunc(r.Context(), func() {
		var wakes waker
		c.eng.fail(k, failure{grpcStatus: grpcDeadlineExceeded, status: http.StatusGatewayTimeout, text: textDeadline, reset: http2.ErrCodeCancel}, &wakes)
		wakes.flush()
	})
	defer stop()
	c.eng.pool.admit(k, &h.wakes)
	if len(body) > 0 {
		_ = k.send(body, true, &h.wakes)
	}
	// Other handlers whose targets have answered as well go first: what they send upstream goes out in the same write.
	runtime.Gosched()
	h.wakes.flush()

	c.mu.Lock()
	for !h.relay.ended {
		h.cond.Wait()
	}
	c.unlock(&h.wakes)
	return h.relay.call, true
}

// relayEnded is told that the call which the handler gave back has ended.
func (h *handled) relayEnded(c *Call) {
	h.c.mu.Lock()
	h.relay.call, h.relay.ended = *c, true
	h.cond.Broadcast()
	h.c.mu.Unlock()
}
