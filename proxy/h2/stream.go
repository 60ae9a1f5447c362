package h2

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

// stream is one stream on one connection: the client's half of a relayed call, the upstream's half of it, or a stream
// that a handler serves.
//
// Everything below conn is guarded by the lock of the connection that conn names. That of an upstream half changes when
// the call is moved to another connection; see lock.
type stream struct {
	conn atomic.Pointer[conn]
	gone atomic.Bool // not in the connection's table any more; set under its lock

	// Set before anybody else sees the stream, and once more, under the lock, when a handler gives a call back.
	call    *call    // relayed: what both halves belong to
	peer    *stream  // relayed: the other half
	handled *handled // served by a handler

	id           uint32
	localClosed  bool // END_STREAM is in the output
	remoteClosed bool // END_STREAM was received
	remoteHead   bool // the peer's (final) headers were received

	// Sending. What may not go out yet waits in queue; then the trailers, then END_STREAM.
	sendWindow int64
	queue      chunkQueue
	replayed   int // so much at the queue's front was credited to the source already
	trailers   []Field
	endQueued  bool
	resetAfter bool // RST_STREAM(NO_ERROR) follows END_STREAM
	inReady    bool
	prev, next *stream // in conn.ready, or among those that wait for a connection
	owedAt     int     // where in conn.credits this stream's source stands, if it does
	eventful   bool    // the call is not to be used again; see newCall

	// Receiving.
	recvWindow int64 // what the peer may still send
	window     int64 // the size that recvWindow is kept at
	unacked    int64 // consumed, not yet given back to the peer
	grown      int64 // how far window is above where it began
	length     int64 // what is left of the content-length; -1: none was stated

	// lazy is what was forwarded at once and not yet counted in unacked. It belongs to the connection's reader.
	lazy int
}

// lock locks the connection that the stream is on and returns it.
func (s *stream) lock() *conn {
	for {
		c := s.conn.Load()
		c.mu.Lock()
		if s.conn.Load() == c {
			return c
		}
		c.mu.Unlock()
	}
}

// call is a relayed call: two streams. The client's half is own, unless a handler had the stream before, or it is an
// exchange, whose client half is on no connection.
type call struct {
	client   *stream
	own, up  stream
	keeper   *handled  // a handler gave the call back, and waits for its end
	exchange *exchange // a handler's own request
	sender   *sender   // who sends the request, if no connection's reader does

	tag   any
	start int64  // by the engine's clock
	grpc  string // the content type that failures are told in, as gRPC says; "": it is no gRPC call
	// timeout is what grpc-timeout said.
	timeout string
	head    bool // the method is HEAD: the response has no body, whatever its length says

	// Guarded by the lock of client's connection.
	status        int
	grpcStatus    string
	local         bool
	canceled      bool
	eventful      bool // it is not to be used again; see newCall
	informational int

	// Guarded by the lock of up's connection.
	request  *[]Field // the headers with pseudo-headers, for as long as the call may have to be sent again
	noRetry  bool     // it may not: an answer has begun, too much was sent, or it was already
	replay   chunkQueue
	sentAt   uint64 // where in the connection's output the headers end
	waitFrom time.Time

	refusedBy *conn // the connection that the call was taken back from

	next *call // among those that are to be used again
}

// Calls are used again, by the client's connection that they were on. That must be no surprise to anybody who still holds
// one. A call that is relayed without incident is known to two goroutines, the readers of the two connections, and each
// only while it acts on a frame. So it is enough that
//
//   - the upstream's reader ends the call (finish), when both halves have left their connections' tables; it gives the call
//     back when it has worked on all its input (pause), and acts on no frame;
//   - the client's reader takes it between two frames (newCall).
//
// Calls with which anything else happened are left to the garbage collector: those that somebody owed credit for, that
// waited for a connection or were sent again, that failed, that handlers have to do with, and whose end came from elsewhere.

// newCall returns a call with nothing in it. It belongs to the connection's reader, which acts on no other stream now.
func (c *conn) newCall() *call {
	for {
		k := c.usedCalls.Load()
		if k == nil {
			return new(call)
		}
		// Nobody else takes one, so next is what it was if the first is still the first.
		if c.usedCalls.CompareAndSwap(k, k.next) {
			*k = call{}
			return k
		}
	}
}

// fewCalls is the last stream of a client whose call is left to the garbage collector: connections that do nothing, of which
// there may be many, mostly have not done much, and keep nothing.
const fewCalls = 31

// mayReturn reports whether a call that ends will be known to nobody but the goroutine that w belongs to, once that acts on
// no frame, and to its client's reader.
func (k *call) mayReturn(w *waker) bool {
	return k.own.id > fewCalls && k.client == &k.own && k.sender == nil && !k.eventful && !k.own.eventful && !k.up.eventful &&
		w == &k.up.conn.Load().wakes
}

// giveBack gives calls that have ended to their clients' connections. The reader acts on no frame.
func (w *waker) giveBack() {
	for k := w.ended; k != nil; {
		next := k.next
		c := k.own.conn.Load()
		for {
			k.next = c.usedCalls.Load()
			if c.usedCalls.CompareAndSwap(k.next, k) {
				break
			}
		}
		k = next
	}
	w.ended = nil
}

var requests = sync.Pool{New: func() any {
	fields := make([]Field, 0, 24)
	return &fields
}}

// maxReplay is how much of a request body is kept for sending it again.
const maxReplay = 64 << 10

// keepForReplay remembers what was sent upstream, as long as that makes sense. The lock of up's connection is held.
func (k *call) keepForReplay(p []byte) {
	if k.noRetry {
		return
	}
	if k.replay.size+len(p) > maxReplay {
		k.forget()
		return
	}
	k.replay.append(p)
}

// forget gives up what is kept for sending the call again. The lock of up's connection is held.
func (k *call) forget() {
	k.noRetry = true
	k.freeRequest()
	k.replay.clear()
}

func (k *call) freeRequest() {
	if k.request == nil {
		return
	}
	freeFields(k.request)
	k.request = nil
}

// streamList is a list of streams that wait; a stream is in one at most.
type streamList struct {
	first, last *stream
	n           int
}

func (l *streamList) push(s *stream) {
	s.prev, s.next = l.last, nil
	if l.last != nil {
		l.last.next = s
	} else {
		l.first = s
	}
	l.last = s
	l.n++
}

func (l *streamList) remove(s *stream) {
	if s.prev != nil {
		s.prev.next = s.next
	} else {
		l.first = s.next
	}
	if s.next != nil {
		s.next.prev = s.prev
	} else {
		l.last = s.prev
	}
	s.prev, s.next = nil, nil
	l.n--
}

// resetStatus is the gRPC status for the code of an upstream's reset, as the gRPC protocol over HTTP/2 maps them.
func resetStatus(code http2.ErrCode) string {
	switch code {
	case http2.ErrCodeRefusedStream:
		return grpcUnavailable
	case http2.ErrCodeCancel:
		return grpcCanceled
	case http2.ErrCodeEnhanceYourCalm:
		return grpcResourceExhausted
	case http2.ErrCodeInadequateSecurity:
		return grpcPermissionDenied
	default:
		return grpcInternal
	}
}

// resetCodeForClient is what a client is told when the upstream reset a stream with code. Codes that speak of the
// connection between the gateway and the upstream would mislead it.
func resetCodeForClient(code http2.ErrCode) http2.ErrCode {
	switch code {
	case http2.ErrCodeCancel, http2.ErrCodeRefusedStream, http2.ErrCodeEnhanceYourCalm,
		http2.ErrCodeInadequateSecurity, http2.ErrCodeHTTP11Required, http2.ErrCodeConnect:
		return code
	default:
		return http2.ErrCodeInternal
	}
}

func (l *streamList) unshift(s *stream) {
	s.prev, s.next = nil, l.first
	if l.first != nil {
		l.first.prev = s
	} else {
		l.last = s
	}
	l.first = s
	l.n++
}
