//go:build unix

package h1

import (
	"io"
	"net"
	"syscall"
)

// plainSocket reads and writes a socket itself: it holds no buffer while it waits, and asks a connection whether it has
// ended in the same step that waits for the answer, which would have to look anyway.
type plainSocket struct {
	raw syscall.RawConn
	in  *input
	err error

	tryFill func(fd uintptr) bool

	// What send has to do.
	out     []byte
	sent    int
	pending bool // nothing was sent yet
	wait    bool
	trySend func(fd uintptr) bool

	// What write has to do. It may be another goroutine's.
	writing  []byte
	writeErr error
	tryWrite func(fd uintptr) bool
}

// newPlainSocket returns nil if nc is no plain socket.
func newPlainSocket(nc net.Conn) *plainSocket {
	t, ok := nc.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return nil
	}
	s := &plainSocket{raw: raw}
	s.tryFill = s.doFill
	s.trySend = s.doSend
	s.tryWrite = s.doWrite
	return s
}

// read reads once. It reports false if there is nothing.
func (s *plainSocket) read(fd uintptr) bool {
	for {
		n, err := sysRead(fd, s.in.room())
		switch err {
		case 0:
			if s.in.w += n; n == 0 {
				s.err = io.EOF
			}
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			return false
		default:
			s.err = err
		}
		return true
	}
}

func (s *plainSocket) doFill(fd uintptr) bool {
	if s.read(fd) {
		return true
	}
	s.in.rest()
	return false
}

func (s *plainSocket) fill(in *input) error {
	s.in, s.err = in, nil
	if err := s.raw.Read(s.tryFill); err != nil {
		return err
	}
	return s.err
}

// doSend first looks whether there is something to read, which there must not be, and then sends. It reports whether it
// is done; if not, it is called again when there is something to read.
func (s *plainSocket) doSend(fd uintptr) bool {
	if !s.pending {
		return s.doFill(fd)
	}
	if s.read(fd) {
		s.err = errStale
		return true
	}
	s.in.rest()
	s.pending = false
	for {
		n, err := sysWrite(fd, s.out)
		switch err {
		case 0:
			s.sent = n
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
		default:
			s.err = err
			return true
		}
		return s.sent < len(s.out) || !s.wait
	}
}

func (s *plainSocket) doWrite(fd uintptr) bool {
	for len(s.writing) > 0 {
		n, err := sysWrite(fd, s.writing)
		switch err {
		case 0:
			s.writing = s.writing[n:]
		case syscall.EINTR:
		case syscall.EAGAIN:
			return false
		default:
			s.writeErr = err
			return true
		}
	}
	return true
}

// write writes all of p.
func (s *plainSocket) write(p []byte) error {
	s.writing, s.writeErr = p, nil
	err := s.raw.Write(s.tryWrite)
	s.writing = nil
	if err == nil {
		err = s.writeErr
	}
	return err
}

// send writes as much of p as the socket takes now. If that is all of it, and wait is set, it waits for an answer and
// reads it.
func (s *plainSocket) send(p []byte, in *input, wait bool) (sent int, err error) {
	s.in, s.err = in, nil
	s.out, s.sent, s.pending, s.wait = p, 0, true, wait
	err = s.raw.Read(s.trySend)
	s.out = nil
	if err == nil {
		err = s.err
	}
	return s.sent, err
}

// pollConn is a socket below TLS that can be asked whether there is anything to read.
type pollConn struct {
	net.Conn
	raw     syscall.RawConn
	polling bool
}

func newPollConn(nc net.Conn) net.Conn {
	t, ok := nc.(*net.TCPConn)
	if !ok {
		return nc
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return nc
	}
	return &pollConn{Conn: nc, raw: raw}
}

// Read does not wait while it polls.
func (c *pollConn) Read(p []byte) (n int, err error) {
	if !c.polling {
		return c.Conn.Read(p)
	}
	failed := c.raw.Read(func(fd uintptr) bool {
		n, err = syscall.Read(int(fd), p)
		return true
	})
	switch {
	case failed != nil:
		return 0, failed
	case err == syscall.EAGAIN || err == syscall.EINTR:
		return 0, nothingYet{}
	case err != nil:
		return 0, err
	case n <= 0:
		return 0, io.EOF
	}
	return n, nil
}

// nothingYet is what TLS takes for a deadline that has passed: it can be read from again.
type nothingYet struct{}

func (nothingYet) Error() string   { return "nothing to read yet" }
func (nothingYet) Timeout() bool   { return true }
func (nothingYet) Temporary() bool { return true }
