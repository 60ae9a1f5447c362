package h2

import (
	"net/http"
	"runtime"
	"time"

	"golang.org/x/net/http2"
)

// Relayer is what the ResponseWriter of a handled stream is, too: its call can be given back to the engine.
type Relayer interface {
	// Head is the request as the client sent it; what is changed in it, Relay sends. It is nil if the Action did not say
	// that the call can be given back.
	Head() *Head
	// Relay sends Head upstream, with another body, and has the answer relayed to the client frame by frame, errors
	// included, as if the request had never been handed over. It does not wait for the answer, and the handler is to
	// return: what it had of the call is not its own any more.
	//
	// It reports false if nothing was done: the client's request has not been read to its end, something was answered
	// already, or there is no Head.
	Relay(o Handback) bool
}

// Handback is how a call is given back.
type Handback struct {
	// Body is that of the request. It is not kept.
	Body []byte
	// Deadline is when the client is told that it has passed, if the answer is not whole by then. Zero: never.
	Deadline time.Time
	// Ended is called once, when the handler has returned and the call has ended, perhaps on a goroutine that reads a
	// connection: it must be quick. The Call is valid until it returns. Nil: nobody wants to know.
	Ended func(*Call)
}

var (
	_ Relayer           = (*responseWriter)(nil)
	_ http.RoundTripper = (*Engine)(nil)
)

// relayState is what has become of a call that a handler gave back. The connection's lock guards it.
type relayState struct {
	began    bool
	returned bool // the handler has
	over     bool // the call has ended
	call     Call
	ended    func(*Call)
	deadline int64       // by the engine's clock; 0: there is none
	timeout  *time.Timer // nil while the deadline is distant
	sender   sender
}

// pseudoFields is how many fields a request that can be given back has before those of its head.
const pseudoFields = 4

// keepHead takes the head over from the connection's reader.
func (h *handled) keepHead(head *Head) {
	h.head = *head
	h.box = h.c.headers.handOver(head, h.c.eng)
	h.head.pseudos = len(*h.box) - len(h.head.fields)
	h.head.fields = (*h.box)[h.head.pseudos:]
	h.head.kept, h.head.memo = true, head.conn.memo
}

func (h *handled) dropHead() {
	if h.box != nil {
		freeFields(h.box)
		h.box = nil
	}
}

// takeHead makes of the head the list of fields to be sent.
func (h *handled) takeHead() *[]Field {
	head, box := &h.head, h.box
	h.box = nil
	fields := (*box)[:cap(*box)]
	if n := pseudoFields + len(head.fields); len(head.fields) > 0 && len(fields) > pseudoFields && &fields[pseudoFields] == &head.fields[0] {
		clear(fields[min(n, len(*box)):len(*box)]) // Some were taken out.
		*box = fields[:n]
	} else { // There were more than had room, or none is left.
		clear((*box)[pseudoFields:])
		*box = append(fields[:pseudoFields], head.fields...)
	}
	if authority := &(*box)[3]; h.c.eng.o.Upstream.Authority == "" && authority.Value != head.authority {
		*authority = Field{Name: ":authority", Value: head.authority}
	}
	return box
}

// Head implements Relayer.
func (w *responseWriter) Head() *Head {
	if w.h.head.conn == nil || w.h.box == nil {
		return nil
	}
	return &w.h.head
}

// Relay implements Relayer.
func (w *responseWriter) Relay(o Handback) bool {
	h := w.h
	c := h.c
	if w.status != 0 || w.done || h.box == nil || h.head.pseudos != pseudoFields {
		return false
	}
	c.mu.Lock()
	if h.gone.Load() || !h.inEnded || h.in.size > 0 || len(h.trailerCame) > 0 {
		c.unlock(&h.wakes)
		return false
	}
	left := time.Until(o.Deadline) // Before the clock below, so that it is not too early.
	k := &call{keeper: h, client: &h.stream, start: c.eng.clock(), grpc: grpcType(h.head.contentType), timeout: h.head.Get("grpc-timeout"), head: w.isHead}
	t := &k.up
	t.call, t.peer, t.length = k, &h.stream, -1
	t.conn.Store(c.eng.pool.limbo)
	t.endQueued = len(o.Body) == 0
	k.request = h.takeHead()
	h.handled, h.call, h.peer = nil, k, t
	h.relay.began, h.relay.ended, h.relay.sender = true, o.Ended, sender{cond: &h.cond}
	k.sender = &h.relay.sender
	if !o.Deadline.IsZero() {
		h.relay.deadline = k.start + int64(left)
		if left < c.eng.distant() {
			k.setTimer(left)
		}
	}
	c.unlock(&h.wakes)
	w.done = true

	c.eng.pool.admit(k, &h.wakes)
	if len(o.Body) > 0 {
		_ = k.send(o.Body, true, &h.wakes)
	}
	// Other handlers whose targets have answered as well go first: what they send upstream goes out in the same write.
	runtime.Gosched()
	h.wakes.flush()
	return true
}

// setTimer has a call that a handler gave back fail when its time is over. The lock of the client's connection is held.
func (k *call) setTimer(left time.Duration) {
	e := k.keeper.c.eng
	k.keeper.relay.timeout = time.AfterFunc(left, func() {
		var wakes waker
		e.fail(k, failure{grpcStatus: grpcDeadlineExceeded, status: http.StatusGatewayTimeout, text: textDeadline, reset: http2.ErrCodeCancel}, &wakes)
		wakes.flush()
	})
}

// relayEnded is told that the call which the handler gave back has ended.
func (h *handled) relayEnded(c *Call) {
	h.c.mu.Lock()
	h.relay.call, h.relay.over = *c, true
	stop(h.relay.timeout)
	returned := h.relay.returned
	h.c.mu.Unlock()
	if returned {
		h.tellRelayed()
	}
}

// tellRelayed is called once, when the handler has returned and the call has ended.
func (h *handled) tellRelayed() {
	if h.relay.ended != nil {
		h.relay.ended(&h.relay.call)
	}
	h.c.eng.calls.Add(-1)
}
