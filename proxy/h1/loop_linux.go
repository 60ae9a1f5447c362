package h1

import (
	"fmt"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
)

// loop serves connections on one goroutine, with an epoll set of their own: no goroutine has to be woken for each event,
// and many events are told at once. It relays requests that are whole when they are read, to upstream connections that
// are free, and answers that are whole when they are sent. Whatever else comes up, the connection is given back to its
// goroutine, in the middle of an exchange if need be.
type loop struct {
	e       *Engine
	epoll   int
	wake    int // an eventfd: there is something in what mu guards
	events  []syscall.EpollEvent
	members []*member // by file descriptor
	idle    []*member // of the upstream; the one used last at the end
	serving *member
	one     [1]byte

	// The runtime's poller waits for gate, which is readable, once, when epoll has something to tell. So who waits here
	// waits like every other goroutine, and an event that comes while the loop is at work wakes nobody.
	gate    *os.File
	raw     syscall.RawConn
	tryGate func(gate uintptr) bool
	armed   bool
	told    int // events that came
	row     int // events since others had their turn

	clients atomic.Int64

	mu        sync.Mutex
	newcomers []*conn
	release   bool  // idle connections are to go back to the pool
	since     int64 // those that are idle since before then are to be closed
	ending    bool  // the loop is to end when it has no clients
	ended     bool
}

// member is a connection in a loop's set: a client's, or one of the upstream.
type member struct {
	fd int
	c  *conn // the client; of the upstream's, the one whose exchange goes on
	u  *upConn

	// Of a client.
	x      *exchange
	up     *member // over which x goes on
	served int
	unread bool // something came, or may have, that was not read
	eof    bool // the client has ended its half
}

const (
	eventsAtOnce = 128
	// inARow is after how many events a loop lets other goroutines have their turn: about two milliseconds' work.
	inARow = 256

	epollET = 1 << 31
	ends    = syscall.EPOLLRDHUP | syscall.EPOLLHUP | syscall.EPOLLERR
)

func newLoop(e *Engine) (l *loop, err error) {
	l = &loop{e: e, epoll: noFD, wake: noFD, events: make([]syscall.EpollEvent, eventsAtOnce)}
	l.tryGate = l.doGate
	gate := noFD
	defer func() {
		if err != nil {
			for _, fd := range []int{l.epoll, l.wake, gate} {
				if fd != noFD {
					closeFD(fd)
				}
			}
		}
	}()
	if l.epoll, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if gate, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if l.wake, err = eventFD(); err != nil {
		return nil, err
	}
	if err = watchFD(l.epoll, l.wake, syscall.EPOLLIN); err != nil {
		return nil, err
	}
	if err = watchFD(gate, l.epoll, syscall.EPOLLIN|syscall.EPOLLONESHOT); err != nil {
		return nil, err
	}
	if err = syscall.SetNonblock(gate, true); err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	l.gate = os.NewFile(uintptr(gate), "epoll")
	if l.raw, err = l.gate.SyscallConn(); err != nil {
		return nil, err
	}
	return l, nil
}

// serve takes over a connection on which nothing goes on. It reports false if it cannot.
func (l *loop) serve(c *conn) bool {
	if c.back == nil {
		c.back = make(chan parted, 1)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ending || l.ended || !c.detach() {
		return false
	}
	l.clients.Add(1)
	l.newcomers = append(l.newcomers, c)
	l.ring()
	return true
}

// ring wakes the loop.
func (l *loop) ring() {
	one := [8]byte{1}
	_, _ = sysWrite(uintptr(l.wake), one[:])
}

// run is the loop's goroutine.
func (l *loop) run() {
	defer l.e.wg.Done()
	for n := l.wait(); n >= 0; n = l.wait() {
		for i := 0; i < n; {
			i = l.batch(i, n)
		}
		if l.end() {
			return
		}
	}
	l.resign()
}

// resign gives all connections back, and takes no more: the system cannot wait for a gate.
func (l *loop) resign() {
	l.mu.Lock()
	l.ending = true
	newcomers := l.newcomers
	l.newcomers = nil
	l.mu.Unlock()
	for _, c := range newcomers {
		l.clients.Add(-1)
		c.back <- parted{}
	}
	for _, m := range l.members {
		if m != nil && m.u == nil {
			p := parted{}
			if m.x != nil {
				p.sent = len(m.x.out)
			}
			l.part(m, p)
		}
	}
	l.end()
}

// end ends the loop if that is due.
func (l *loop) end() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ending || l.clients.Load() > 0 || len(l.newcomers) > 0 {
		return false
	}
	l.ended = true
	for len(l.idle) > 0 {
		l.drop(l.takeIdle(0))
	}
	_ = l.gate.Close()
	closeFD(l.epoll)
	closeFD(l.wake)
	return true
}

// wait waits for events, and returns how many there are.
func (l *loop) wait() int {
	if l.row < inARow {
		if n := pollFD(l.epoll, l.events); n > 0 {
			l.row += n
			return n
		}
	}
	l.armed = false
	if l.raw.Read(l.tryGate) != nil {
		return -1
	}
	l.row = l.told
	return l.told
}

// doGate always has the goroutine wait, if only for its turn: then the scheduler looks what others wait for.
func (l *loop) doGate(gate uintptr) bool {
	if l.armed {
		if l.told = pollFD(l.epoll, l.events); l.told > 0 {
			return true
		}
	}
	var passed [1]syscall.EpollEvent
	pollFD(int(gate), passed[:])
	rearmFD(int(gate), l.epoll)
	l.armed = true
	return false
}

// batch serves the events from i on, and returns how far it came: a fault in one connection does not end the others.
func (l *loop) batch(i, n int) (next int) {
	defer func() {
		if fault := recover(); fault != nil {
			l.e.o.Logger.Error("a connection panicked", "type", fmt.Sprintf("%T", fault), "stack", string(debug.Stack()))
			l.fault()
		}
	}()
	for next = i; next < n; {
		ev := &l.events[next]
		next++
		fd := int(ev.Fd)
		if fd == l.wake {
			l.look()
			continue
		}
		if m := l.members[fd]; m != nil { // It may just have gone.
			l.serving = m
			if m.u != nil {
				l.upstream(m, ev.Events)
			} else {
				l.client(m, ev.Events)
			}
		}
	}
	return next
}

// fault ends the connection that was being served.
func (l *loop) fault() {
	m := l.serving
	if m.u != nil || l.members[m.fd] != m {
		return
	}
	x, up := m.x, m.up
	m.x, m.up = nil, nil
	if up != nil {
		l.drop(up)
	}
	l.part(m, parted{ended: true})
	if x != nil && x.told != nil {
		defer func() { _ = recover() }()
		x.told.Done()
	}
}

// look does what others asked for.
func (l *loop) look() {
	var count [8]byte
	_, _ = sysRead(uintptr(l.wake), count[:])
	l.mu.Lock()
	newcomers, release, since := l.newcomers, l.release, l.since
	l.newcomers, l.release, l.since = nil, false, 0
	l.mu.Unlock()
	for _, c := range newcomers {
		m := &member{fd: c.fd, c: c}
		if !l.add(m, syscall.EPOLLIN|syscall.EPOLLRDHUP|epollET) {
			l.clients.Add(-1)
			c.bounced = maxBounces
			c.back <- parted{}
		}
	}
	for len(l.idle) > 0 && l.idle[0].u.idleAt < since {
		l.drop(l.takeIdle(0))
	}
	for release && len(l.idle) > 0 {
		l.yield(l.takeIdle(len(l.idle) - 1))
	}
}

// add puts a connection into the set.
func (l *loop) add(m *member, events uint32) bool {
	if watchFD(l.epoll, m.fd, events) != nil {
		return false
	}
	for len(l.members) <= m.fd {
		l.members = append(l.members, nil)
	}
	l.members[m.fd] = m
	return true
}

// remove takes a connection out of the set.
func (l *loop) remove(m *member) {
	_ = syscall.EpollCtl(l.epoll, syscall.EPOLL_CTL_DEL, m.fd, nil)
	l.members[m.fd] = nil
}

// part gives a client's connection back to its goroutine, with its exchange if there is one.
func (l *loop) part(m *member, p parted) {
	c := m.c
	if p.x = m.x; p.x != nil && m.up != nil {
		l.remove(m.up)
	}
	l.remove(m)
	if c.bounced++; m.served >= worthwhile {
		c.bounced = 0
	}
	l.clients.Add(-1)
	c.back <- p
}

// client is called when something came from a client.
func (l *loop) client(m *member, events uint32) {
	if events&ends != 0 {
		m.eof = true
	}
	if m.x == nil {
		l.read(m)
		return
	}
	m.unread = true
	if m.eof { // Its goroutine looks whether anybody still waits for the answer.
		l.part(m, parted{sent: len(m.x.out)})
	}
}

// read reads from a client that has no exchange.
func (l *loop) read(m *member) {
	in := &m.c.in
	room := in.room()
	n, errno := sysRead(uintptr(m.fd), room)
	switch {
	case errno == syscall.EAGAIN || errno == syscall.EINTR:
		// EINTR does not happen to what does not wait.
		in.rest()
		m.unread = false
	case errno != 0 || n == 0:
		l.part(m, parted{}) // Who reads again sees the same.
	default:
		in.w += n
		m.unread = n == len(room) // Otherwise that was all; of what comes now epoll will tell.
		l.next(m)
	}
}

// next begins the exchange that was read, if it is simple.
func (l *loop) next(m *member) {
	c := m.c
	b := c.in.bytes()
	end, _, err := headEnd(b, 0)
	if err != nil || end <= 2 || end > l.e.o.MaxHeaderBytes || m.eof || !l.e.pool.proven.Load() || !c.leave(phaseIdle) {
		l.part(m, parted{})
		return
	}
	x := exchanges.Get().(*exchange) //nolint:forcetypeassert // The pool makes nothing else.
	x.c, x.head.conn = c, c
	h := &x.head
	if err := h.parse(b[:end]); err == nil && !h.odd && h.length >= 0 && int64(len(b)-end) >= h.length {
		x.told = l.e.o.Director.Decide(h)
	}
	if x.told == nil {
		x.release()
		c.enter(phaseBusy, phaseIdle) // If it was closed in between, its goroutine sees that.
		l.part(m, parted{})
		return
	}
	c.in.r += end
	m.x = x
	x.keep = !h.closes
	_ = x.compose() // A body with a length cannot be malformed.
	l.send(m)
}

// send sends the request of m's exchange over a free connection.
func (l *loop) send(m *member) {
	x := m.x
	for {
		up := l.take()
		if up == nil {
			l.part(m, parted{})
			return
		}
		if _, errno := sysRead(uintptr(up.fd), l.one[:]); errno != syscall.EAGAIN { // It says something, or has ended.
			l.drop(up)
			continue
		}
		up.c, up.u.client = m.c, m
		x.u, m.up = up.u, up
		n, errno := sysWrite(uintptr(up.fd), x.out)
		if errno != 0 {
			n = 0
		}
		if n < len(x.out) {
			l.part(m, parted{sent: n})
		}
		return
	}
}

// take returns a free connection to the upstream.
func (l *loop) take() *member {
	if n := len(l.idle); n > 0 {
		return l.takeIdle(n - 1)
	}
	u := l.e.pool.takeIdle()
	if u == nil {
		return nil
	}
	if u.plain == nil || !u.detach() {
		l.e.pool.put(u)
		return nil
	}
	m := &member{fd: u.fd, u: u}
	if !l.add(m, syscall.EPOLLIN|syscall.EPOLLRDHUP|epollET) {
		l.e.pool.drop(u)
		return nil
	}
	return m
}

// drop closes a connection to the upstream.
func (l *loop) drop(m *member) {
	l.remove(m)
	l.e.pool.drop(m.u)
}

// yield gives a connection to the upstream back to the pool.
func (l *loop) yield(m *member) {
	l.remove(m)
	if m.u.restore() != nil {
		l.e.pool.drop(m.u)
		return
	}
	l.e.pool.put(m.u)
}

// takeIdle takes a connection that is not in use out of those that are to be used.
func (l *loop) takeIdle(i int) *member {
	m := l.idle[i]
	l.idle = append(l.idle[:i], l.idle[i+1:]...)
	return m
}

// upstream is called when something came from the upstream.
func (l *loop) upstream(up *member, events uint32) {
	u := up.u
	if up.c == nil {
		if _, errno := sysRead(uintptr(up.fd), l.one[:]); errno == syscall.EAGAIN {
			return
		}
		for i, m := range l.idle {
			if m == up {
				l.drop(l.takeIdle(i))
				return
			}
		}
		return
	}
	m := u.client
	l.serving = m
	x := m.x
	n, errno := sysRead(uintptr(up.fd), u.in.room())
	switch {
	case errno == syscall.EAGAIN || errno == syscall.EINTR:
		u.in.rest()
		return
	case errno != 0 || n == 0:
		l.part(m, parted{sent: len(x.out)}) // Who reads again sees the same.
		return
	}
	u.in.w += n
	if whole, more := x.answered(); whole {
		l.deliver(m, events&ends == 0)
	} else if !more || events&ends != 0 { // Of an end that has come already epoll will not tell again.
		l.part(m, parted{sent: len(x.out)})
	}
}

// answered reports whether the answer in x.u.in, which x.answer then has, is final and whole, and if not, whether more of
// it can be waited for.
func (x *exchange) answered() (whole, more bool) {
	in, a := &x.u.in, &x.answer
	b := in.bytes()
	room := len(in.room()) > 0
	end, _ := answerEnd(b, 0)
	if end == 0 {
		return false, room
	}
	if a.parse(b[:end]) != nil || a.status < http.StatusOK || a.chunked {
		return false, false
	}
	if bodiless(a.status) || x.head.method == http.MethodHead || a.length >= 0 && int64(len(b)-end) >= a.length {
		in.r += end
		return true, false
	}
	return false, room && a.length >= 0 && int64(end)+a.length <= int64(len(*in.buf)-in.r)
}

// deliver sends a whole answer, and ends the exchange. again says whether the upstream's connection can be used again.
func (l *loop) deliver(m *member, again bool) {
	x, up := m.x, m.up
	u := up.u
	x.composeFinal()
	if x.framing == withLength {
		piece := u.in.bytes()[:x.answer.length]
		x.watch(piece)
		x.out = append(x.out, piece...)
		u.in.r += len(piece)
	}
	n, errno := sysWrite(uintptr(m.fd), x.out)
	switch {
	case errno == syscall.EAGAIN:
		l.part(m, parted{})
		return
	case errno != 0:
		l.part(m, parted{err: os.NewSyscallError("write", errno)})
		return
	case n < len(x.out):
		l.part(m, parted{sent: n})
		return
	}
	x.u, m.x, m.up = nil, nil, nil
	up.c, u.client = nil, nil
	switch {
	case !x.reusable(u) || !again:
		l.drop(up)
	case l.e.pool.crowded():
		l.yield(up)
	default:
		u.in.rest()
		u.idleAt = l.e.now.Load()
		l.idle = append(l.idle, up)
	}
	keep := x.keep
	x.told.Done()
	x.release()
	m.served++
	c := m.c
	switch {
	case !keep:
		l.part(m, parted{ended: true})
	case !c.enter(phaseBusy, phaseIdle):
		l.part(m, parted{ended: true})
	case c.e.draining.Load():
		l.part(m, parted{ended: true})
	case len(c.in.bytes()) > 0:
		l.next(m)
	default:
		c.in.rest()
		if m.unread || m.eof {
			l.read(m)
		} else if c.e.active.Load() < int64(c.e.o.LoopFrom/4) { // Its goroutine answers sooner.
			l.part(m, parted{})
		}
	}
}
