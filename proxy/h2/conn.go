package h2

import (
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

type side uint8

const (
	clientSide   side = iota // a client's connection to us
	upstreamSide             // our connection to the upstream
	limboSide                // no connection: what calls are on that wait for one
	localSide                // no connection either: an exchange, see there
)

// conn is one HTTP/2 connection.
//
// Its reader owns the first group of fields and acts on each frame. A writer, which there is while there is output that
// was not written in passing, takes the output and writes it. Everything else is guarded by mu, which any goroutine may take to append
// output, but only one connection's at a time: what has to happen on another one (credit for the source of what went
// out, the end of the other half of a call) is noted in a waker and done after unlock. The one exception is the limbo's
// lock, which is taken before a connection's.
//
// Nobody waits while holding mu, and a reader waits for nothing but its own connection: input, and room for output. So
// no cycle of waiting can come about, whatever the peers do.
type conn struct {
	eng        *Engine
	nc         net.Conn
	side       side
	remoteAddr string
	localAddr  net.Addr // client side
	tlsState   *tls.ConnectionState
	memo       any

	// The reader's.
	in       inputBuffer
	headers  *headerReader
	head     Head
	block    headerBlock
	guard    guard
	wakes    waker
	now      int64 // when the input that is being worked on came
	prefer   *conn // client side: the upstream connection that calls go to
	settled  bool  // the peer's first SETTINGS came
	sentData int   // dataSent as of the last WINDOW_UPDATE or PING

	// What the janitor looks at.
	lastRead   atomic.Int64 // when something was read last
	waitsSince atomic.Int64 // since when a preface or a header block is not complete; 0: none is
	writeSince atomic.Int64 // since when a write makes no progress; 0: none is under way

	mu          sync.Mutex
	streams     streamTable
	nextID      uint32 // upstream side: of the next stream
	lastID      uint32 // client side: the highest that the client opened
	handlers    int    // client side: handlers that run, even if their stream is gone
	maxStreams  uint32 // upstream side: as the peer's SETTINGS say
	out         chunkQueue
	outBusy     int           // taken by the writer and not written yet
	outTotal    uint64        // bytes that were ever appended to out
	outWritten  uint64        // bytes that were written to the socket, as far as is known
	encoder     *hpackEncoder // nil until the first block
	tableSize   int           // of the encoder, as the peer's SETTINGS say
	sendWindow  int64
	peerWindow  int64 // the initial window of new streams
	peerFrame   int   // the largest payload that we send
	ready       streamList
	recvWindow  int64
	unacked     int64
	buffered    int            // client side: bytes of request bodies that wait in the gateway
	held        bool           // client side: the connection's window is not replenished until buffered is less
	dataSent    int            // DATA frames, ever
	goingAway   bool           // no new streams; with the last one the connection ends
	final       bool           // client side: streams above lastID are ignored
	closed      []closedStream // the streams that were closed last
	closedAt    int
	lingering   []lingering
	closing     bool // the writer ends the connection when all is written
	dead        bool // nothing can be written any more
	writing     bool // somebody takes the output and writes it, until there is none
	slow        bool // the socket did not take it all; until it has, what is appended waits
	wakeOwed    bool // somebody will start that
	saidGoodbye bool
	gateWaits   bool
	pingSent    int64 // when the PING was sent whose answer is awaited; 0: none
	sentSince   bool  // HEADERS or DATA were sent since the last answer
	idleSince   int64
	drainSince  int64 // when Shutdown began to end the connection; 0: it has not
	post        bool  // unlock has more to do than to unlock
	freed       bool
	credits     []owedCredit
	finished    []*call
	orphans     []*handled // their streams are gone
	direct      *socket
	gate        sync.Cond
	grown       atomic.Int64 // by how much the windows of a client's calls were grown, both ways
	usedCalls   atomic.Pointer[call]
	openStreams atomic.Int32 // len of streams, for those who only want to compare
}

const (
	// connWindow is the flow-control window of a whole connection. It is given back as data arrives: one stream that
	// does not move must not hold up the others. What bounds memory are the streams' own windows and, for clients,
	// Options.MaxBuffered.
	connWindow = 4 << 20
	// maxStreamWindow is how large a stream's window may grow.
	maxStreamWindow = 1 << 20
	// outLimit is how much DATA may wait in the output. More waits in the streams' queues, where it holds back its source.
	outLimit = 256 << 10
	// gateLimit is how much output, of whatever kind, may wait before nothing more is read from that peer, or, on the
	// upstream's side, no more calls go there.
	gateLimit = 1 << 20
	// lazyCredit is how much may be forwarded before the window is looked at: a fraction of the smallest window.
	lazyCredit = 16 << 10
)

func newConn(e *Engine, nc net.Conn, s side) *conn {
	c := &conn{
		eng:        e,
		nc:         nc,
		side:       s,
		sendWindow: defaultWindow,
		peerWindow: defaultWindow,
		peerFrame:  maxFrameSize,
		recvWindow: defaultWindow,
	}
	c.head.conn = c
	c.gate.L = &c.mu
	if s == limboSide {
		c.sendWindow = 0
		return c
	}
	c.tableSize = headerTableSize
	c.direct = newSocket(nc)
	c.now = e.clock()
	c.idleSince = c.now
	c.lastRead.Store(c.now)
	c.waitsSince.Store(c.now)
	limit := e.o.MaxHeaderBytes
	if s == upstreamSide {
		limit = e.o.Upstream.MaxHeaderBytes
		c.in.limit = bulkInput
		c.nextID = 1
		c.maxStreams = 100 // Until the upstream says otherwise.
	}
	c.headers = newHeaderReader(limit)
	c.guard = newGuard(e.o.Limits, c.now)
	return c
}

// waker collects what a goroutine owes to connections whose lock it does not hold: wake-ups of their writers, credit
// for what left a queue, the ends of calls. A reader keeps one and flushes it when its input is used up, so that what
// one read brought goes out in one write.
type waker struct {
	conns    []*conn
	credits  []owedCredit
	finished []*call
	orphans  []*handled
	ended    *call // to be given back
	now      int64 // when the input came that is being worked on; 0: nobody looked at the clock
	settling bool
	freed    bool
	done     Call
}

type owedCredit struct {
	source *stream
	n      int
}

// unlock ends the hold of c's lock. What else has to be done is done, or noted in w.
func (c *conn) unlock(w *waker) {
	if c.dead && c.out.size > 0 {
		c.out.clear()
	}
	if !c.writing && !c.wakeOwed && c.mustWrite() {
		c.wakeOwed = true
		w.conns = append(w.conns, c)
	}
	if !c.post {
		c.mu.Unlock()
		return
	}
	c.post = false
	w.credits = append(w.credits, c.credits...)
	clear(c.credits)
	c.credits = c.credits[:0]
	w.finished = append(w.finished, c.finished...)
	clear(c.finished)
	c.finished = c.finished[:0]
	w.orphans = append(w.orphans, c.orphans...)
	clear(c.orphans)
	c.orphans = c.orphans[:0]
	if c.freed {
		c.freed = false
		w.freed = true
	}
	c.mu.Unlock()
	w.settle(c.eng)
}

// settle does what was noted. Doing it may note more.
func (w *waker) settle(e *Engine) {
	if w.settling {
		return
	}
	w.settling = true
	for {
		switch {
		case len(w.credits) > 0:
			last := len(w.credits) - 1
			owed := w.credits[last]
			w.credits[last] = owedCredit{}
			w.credits = w.credits[:last]
			c := owed.source.lock()
			c.buffered -= owed.n
			c.giveCredit(owed.source, owed.n, false)
			c.release()
			if k := owed.source.call; k.sender != nil && owed.source == k.client {
				k.sender.took(owed.n)
			}
			c.unlock(w)
		case len(w.finished) > 0:
			last := len(w.finished) - 1
			k := w.finished[last]
			w.finished[last] = nil
			w.finished = w.finished[:last]
			e.finish(k, w)
		case len(w.orphans) > 0:
			last := len(w.orphans) - 1
			h := w.orphans[last]
			w.orphans[last] = nil
			w.orphans = w.orphans[:last]
			h.ctx.Cancel()
		case w.freed:
			w.freed = false
			if e.pool.waits.Load() > 0 {
				e.pool.place(w)
			}
		default:
			w.settling = false
			return
		}
	}
}

// mustWrite reports whether there is something to write, or to end. The lock is held.
func (c *conn) mustWrite() bool {
	return !c.dead && c.side < limboSide && (c.out.size > 0 || c.closing && !c.saidGoodbye)
}

// flush writes what can be written at once, and starts writers for the rest.
func (w *waker) flush() {
	for i := 0; i < len(w.conns); i++ { // Writing may add to the list.
		c := w.conns[i]
		w.conns[i] = nil
		c.startWriting(w)
	}
	w.conns = w.conns[:0]
}

// finish ends a call whose client half is gone: the upstream half ends too, if it has not, and the director is told.
func (e *Engine) finish(k *call, w *waker) {
	if !k.up.gone.Load() {
		k.eventful = true
		c := k.up.lock()
		c.cancel(&k.up, http2.ErrCodeCancel)
		c.unlock(w)
	}
	if k.exchange != nil {
		return
	}
	now := w.now
	if now == 0 {
		now = e.clock()
	}
	w.done = Call{
		Tag: k.tag, Status: k.status, GRPCStatus: k.grpcStatus, Start: e.epoch.Add(time.Duration(k.start)),
		Duration: time.Duration(max(0, now-k.start)), Canceled: k.canceled, Local: k.local,
	}
	if k.keeper != nil {
		k.keeper.relayEnded(&w.done)
		w.done = Call{}
		return
	}
	e.o.Director.Done(&w.done)
	e.calls.Add(-1)
	if k.mayReturn(w) {
		k.next, w.ended = w.ended, k
	}
}

// cancel ends a stream from our side, at once: what waits is dropped. The lock is held.
func (c *conn) cancel(s *stream, code http2.ErrCode) {
	if s.gone.Load() {
		return
	}
	switch c.side {
	case limboSide:
		c.eng.pool.drop(s)
		return
	case localSide:
		s.call.exchange.fail(http2.StreamError{Code: code})
		return
	}
	c.writeReset(s.id, code)
	c.remember(s.id, true)
	c.remove(s)
}

// closedStream is a stream that is not in the table any more.
type closedStream struct {
	id    uint32
	reset bool // by us: what the peer sent before it knew is no mistake of its
}

// rememberedStreams is how many closed streams are remembered.
const rememberedStreams = 32

// remember notes that a stream was closed. The lock is held.
func (c *conn) remember(id uint32, reset bool) {
	if len(c.closed) < rememberedStreams {
		c.closed = append(c.closed, closedStream{id: id, reset: reset})
		return
	}
	c.closed[c.closedAt%rememberedStreams] = closedStream{id: id, reset: reset}
	c.closedAt++
}

// wasClosed returns what is remembered of a stream. The lock is held.
func (c *conn) wasClosed(id uint32) (known, reset bool) {
	for _, s := range c.closed {
		if s.id == id {
			known, reset = true, reset || s.reset
		}
	}
	return known, reset
}

// add puts a stream into the table. The lock is held.
func (c *conn) add(s *stream) {
	s.sendWindow = c.peerWindow
	s.recvWindow, s.window = defaultWindow, defaultWindow
	c.streams.put(s)
	c.openStreams.Store(int32(c.streams.len()))
}

// remove takes a stream out of the table: it is closed, both ways. The lock is held.
func (c *conn) remove(s *stream) {
	if s.gone.Load() {
		return
	}
	s.gone.Store(true)
	c.streams.remove(s.id)
	if c.side == clientSide {
		c.remember(s.id, false)
	}
	c.openStreams.Store(int32(c.streams.len()))
	c.detach(s)
	s.trailers = nil
	switch {
	case s.handled != nil:
		s.handled.cond.Broadcast()
		c.orphans = append(c.orphans, s.handled)
		c.post = true
	case s == s.call.client:
		if s.call.sender != nil {
			s.call.sender.cond.Broadcast()
		}
		c.finished = append(c.finished, s.call)
		c.post = true
	default:
		s.call.forget()
		c.freed, c.post = true, true
	}
	if c.streams.len() == 0 {
		c.idleSince = c.eng.clock()
		if c.goingAway {
			c.closing = true
		}
	}
}

// detach drops what a stream has waiting and gives back what it holds of the connection's. The lock is held.
func (c *conn) detach(s *stream) {
	if s.inReady {
		c.ready.remove(s)
		s.inReady = false
	}
	if n := s.queue.size - s.replayed; n > 0 && s.call != nil {
		c.oweCredit(s, n)
	}
	s.queue.clear()
	s.replayed = 0
	if s.grown > 0 {
		c.grownOf(s).Add(-s.grown)
		s.grown = 0
	}
}

// grownOf is the account of the client whose call s belongs to.
func (c *conn) grownOf(s *stream) *atomic.Int64 {
	if s.peer == nil || s == s.call.client {
		return &c.grown
	}
	return &s.peer.conn.Load().grown
}

// oweCredit notes that n bytes of s need no room any more. The lock is held.
func (c *conn) oweCredit(s *stream, n int) {
	if s.owedAt < len(c.credits) && c.credits[s.owedAt].source == s.peer {
		c.credits[s.owedAt].n += n
		return
	}
	s.owedAt = len(c.credits)
	s.eventful = true
	c.credits = append(c.credits, owedCredit{source: s.peer, n: n})
	c.post = true
}

// release gives the client its connection's window back once less waits. The lock is held.
func (c *conn) release() {
	if c.held && c.buffered < c.eng.o.MaxBuffered/2 {
		c.held = false
		c.replenish()
	}
}

// kill ends the connection without further words.
func (c *conn) kill(w *waker) {
	c.mu.Lock()
	c.killLocked()
	c.unlock(w)
}

func (c *conn) killLocked() {
	if c.dead {
		return
	}
	c.dead = true
	c.out.clear()
	c.gate.Broadcast()
	nc := c.nc
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn() // tls.Conn.Close would try to say goodbye.
	}
	_ = nc.Close()
}
