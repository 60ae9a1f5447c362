//go:build linux

package main

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// conn is one end of a connection. It belongs to one goroutine: that of its loop, or one of its own (serveConn).
type conn struct {
	fd      int
	loop    *loop
	handler handler
	rest    []byte // input that was not used yet
	out     []byte // output
	sent    int    // how much of out was written
	blocked bool   // the socket took no more; epoll tells when it does
	touched bool   // is in loop.dirty
}

// handler is what a connection speaks.
type handler interface {
	// open is called once, before anything else.
	open(*conn)
	// input uses what it can of p and says how much that was; it is called again with the rest and what comes after.
	input(c *conn, p []byte) (int, error)
	// writable is called when output was written.
	writable(*conn)
	// closed is called once, with the reason.
	closed(*conn, error)
}

// loop serves connections on one goroutine.
type loop struct {
	epoll  int
	conns  map[int]*conn
	buf    []byte
	dirty  []*conn
	accept func() handler // of a listener's connections
	place  func() *loop   // which loop is to serve the next of them
	listen int

	mu   sync.Mutex
	todo []func()
	wake [2]int

	tick    func() time.Duration // called after each batch; says when to call it again at the latest, 0 for never
	timer   int                  // a timerfd
	stopped bool
}

const never = -1

func newLoop() (*loop, error) {
	l := &loop{conns: map[int]*conn{}, buf: make([]byte, 128<<10), listen: never, timer: never}
	var err error
	if l.epoll, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := syscall.Pipe2(l.wake[:], syscall.O_NONBLOCK|syscall.O_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	return l, l.watch(l.wake[0], syscall.EPOLLIN, syscall.EPOLL_CTL_ADD)
}

func (l *loop) watch(fd int, events uint32, op int) error {
	return os.NewSyscallError("epoll_ctl", syscall.EpollCtl(l.epoll, op, fd, &syscall.EpollEvent{Events: events, Fd: int32(fd)}))
}

// do runs f on the loop's goroutine.
func (l *loop) do(f func()) {
	l.mu.Lock()
	l.todo = append(l.todo, f)
	l.mu.Unlock()
	_, _ = syscall.Write(l.wake[1], []byte{0})
}

// stop ends run, which closes all connections.
func (l *loop) stop() { l.do(func() { l.stopped = true }) }

// add takes a connected socket over.
func (l *loop) add(fd int, h handler) error {
	if err := syscall.SetNonblock(fd, true); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	c := &conn{fd: fd, loop: l, handler: h}
	l.conns[fd] = c
	if err := l.watch(fd, syscall.EPOLLIN, syscall.EPOLL_CTL_ADD); err != nil {
		return err
	}
	h.open(c)
	c.touch()
	return nil
}

// listenOn accepts connections, each with a handler of accept.
func (l *loop) listenOn(fd int, accept func() handler) error {
	l.listen, l.accept = fd, accept
	l.place = func() *loop { return l }
	return l.watch(fd, syscall.EPOLLIN, syscall.EPOLL_CTL_ADD)
}

// touch has the output written at the end of the batch.
func (c *conn) touch() {
	if !c.touched && c.loop != nil {
		c.touched = true
		c.loop.dirty = append(c.loop.dirty, c)
	}
}

func (l *loop) run() error {
	defer l.close()
	events := make([]syscall.EpollEvent, 256)
	for !l.stopped {
		l.flush()
		if l.tick != nil {
			d := l.tick()
			l.flush()
			if d > 0 {
				if err := l.alarm(d); err != nil {
					return err
				}
			}
		}
		n, err := syscall.EpollWait(l.epoll, events, -1)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return os.NewSyscallError("epoll_wait", err)
		}
		for i := range max(n, 0) {
			l.event(int(events[i].Fd), events[i].Events)
		}
	}
	return nil
}

// alarm wakes the loop after d, to the microsecond and not the millisecond of epoll_wait.
func (l *loop) alarm(d time.Duration) error {
	const monotonic, nonblock, cloexec = 1, syscall.O_NONBLOCK, syscall.O_CLOEXEC
	if l.timer == never {
		fd, _, errno := syscall.Syscall(syscall.SYS_TIMERFD_CREATE, monotonic, nonblock|cloexec, 0)
		if errno != 0 {
			return os.NewSyscallError("timerfd_create", errno)
		}
		l.timer = int(fd)
		if err := l.watch(l.timer, syscall.EPOLLIN, syscall.EPOLL_CTL_ADD); err != nil {
			return err
		}
	}
	spec := [2]syscall.Timespec{1: syscall.NsecToTimespec(d.Nanoseconds())}                                                    // Once.
	_, _, errno := syscall.Syscall6(syscall.SYS_TIMERFD_SETTIME, uintptr(l.timer), 0, uintptr(unsafe.Pointer(&spec)), 0, 0, 0) //nolint:gosec // G103: a system call that the syscall package has no function for.
	if errno != 0 {
		return os.NewSyscallError("timerfd_settime", errno)
	}
	return nil
}

func (l *loop) event(fd int, events uint32) {
	switch fd {
	case l.timer:
		var b [8]byte
		_, _ = syscall.Read(fd, b[:])
		return
	case l.wake[0]:
		var b [64]byte
		_, _ = syscall.Read(fd, b[:])
		l.mu.Lock()
		todo := l.todo
		l.todo = nil
		l.mu.Unlock()
		for _, f := range todo {
			f()
		}
		return
	case l.listen:
		nfd, _, err := syscall.Accept4(fd, syscall.SOCK_CLOEXEC)
		if err == nil {
			_ = syscall.SetsockoptInt(nfd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
			if to := l.place(); to != l {
				to.do(func() { _ = to.add(nfd, l.accept()) })
			} else {
				_ = l.add(nfd, l.accept())
			}
		}
		return
	}
	c := l.conns[fd]
	if c == nil {
		return
	}
	if events&syscall.EPOLLOUT != 0 {
		c.blocked = false
		if err := l.watch(fd, syscall.EPOLLIN, syscall.EPOLL_CTL_MOD); err != nil {
			l.drop(c, err)
			return
		}
		c.touch()
	}
	if events&^syscall.EPOLLOUT != 0 {
		if err := c.read(); err != nil {
			l.drop(c, err)
		}
	}
}

// read reads once and has the handler use it.
func (c *conn) read() error {
	buf := c.loop.buf
	have := copy(buf, c.rest)
	n, err := syscall.Read(c.fd, buf[have:])
	switch {
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EINTR):
		return nil
	case err != nil:
		return os.NewSyscallError("read", err)
	case n == 0:
		return io.EOF
	}
	c.touch()
	return c.feed(buf[:have+n])
}

// feed has the handler use p, and keeps the rest.
func (c *conn) feed(p []byte) error {
	used, err := c.handler.input(c, p)
	c.rest = append(c.rest[:0], p[used:]...)
	return err
}

// flush writes what the batch's connections have to say.
func (l *loop) flush() {
	for i := 0; i < len(l.dirty); i++ { // Handlers may add to it.
		c := l.dirty[i]
		c.touched = false
		if c.fd == never {
			continue
		}
		if err := c.write(); err != nil {
			l.drop(c, err)
		}
	}
	l.dirty = l.dirty[:0]
}

func (c *conn) write() error {
	for !c.blocked && c.unsent() > 0 {
		n, err := syscall.Write(c.fd, c.out[c.sent:])
		switch {
		case errors.Is(err, syscall.EAGAIN):
			c.blocked = true
			return c.loop.watch(c.fd, syscall.EPOLLIN|syscall.EPOLLOUT, syscall.EPOLL_CTL_MOD)
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil:
			return os.NewSyscallError("write", err)
		}
		c.wrote(n)
	}
	return nil
}

func (c *conn) unsent() int { return len(c.out) - c.sent }

// wrote takes n bytes off the output, and lets the handler add to it.
func (c *conn) wrote(n int) {
	if c.sent += n; c.sent >= len(c.out)/2 {
		c.out = c.out[:copy(c.out, c.out[c.sent:])]
		c.sent = 0
	}
	c.handler.writable(c)
}

func (l *loop) drop(c *conn, err error) {
	if c.fd == never {
		return
	}
	delete(l.conns, c.fd)
	_ = syscall.Close(c.fd)
	c.fd = never
	c.handler.closed(c, err)
}

func (l *loop) close() {
	for _, c := range l.conns {
		l.drop(c, nil)
	}
	if l.listen != never {
		_ = syscall.Close(l.listen)
	}
	if l.timer != never {
		_ = syscall.Close(l.timer)
	}
	_ = syscall.Close(l.wake[0])
	_ = syscall.Close(l.wake[1])
	_ = syscall.Close(l.epoll)
}

// serveConn serves one connection on the caller's goroutine, for what is not a plain socket: TLS.
func serveConn(nc net.Conn, h handler) error {
	c := &conn{fd: never, handler: h}
	buf := make([]byte, 64<<10)
	h.open(c)
	err := func() error {
		for {
			for c.unsent() > 0 {
				n, err := nc.Write(c.out[c.sent:])
				if err != nil {
					return err
				}
				c.wrote(n)
			}
			have := copy(buf, c.rest)
			n, err := nc.Read(buf[have:])
			if err != nil {
				return err
			}
			if err := c.feed(buf[:have+n]); err != nil {
				return err
			}
		}
	}()
	h.closed(c, err)
	return err
}

// dialSocket connects to an address of this machine.
func dialSocket(address string) (int, error) {
	to, err := net.ResolveTCPAddr("tcp4", address)
	if err != nil {
		return never, err
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return never, os.NewSyscallError("socket", err)
	}
	_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
	sa := &syscall.SockaddrInet4{Port: to.Port}
	copy(sa.Addr[:], to.IP.To4())
	if err := syscall.Connect(fd, sa); err != nil {
		_ = syscall.Close(fd)
		return never, os.NewSyscallError("connect", err)
	}
	return fd, nil
}

// listenSocket listens on a port of its own on loopback, and says which.
func listenSocket() (fd int, port int, err error) {
	if fd, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0); err != nil {
		return never, 0, os.NewSyscallError("socket", err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return never, 0, os.NewSyscallError("bind", err)
	}
	if err := syscall.Listen(fd, 4096); err != nil {
		return never, 0, os.NewSyscallError("listen", err)
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		return never, 0, os.NewSyscallError("getsockname", err)
	}
	return fd, sa.(*syscall.SockaddrInet4).Port, nil
}
