//go:build unix

package targetclient

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"
)

// aliveWait is how long a connection that is no socket gets to show that it is not
// what it was.
const aliveWait = time.Millisecond

// socket is what a connection's own methods do not offer. It does nothing for a
// connection that is none.
type socket struct {
	raw   syscall.RawConn // nil: it is none
	plain bool            // what is sent goes over it as it is

	look  func(fd uintptr)
	quiet bool

	// What send does, in steps.
	step  func(fd uintptr) bool
	in    *reader
	out   []byte
	sent  int
	fresh bool
	asked bool // the first step is done
	early bool // an answer is there before the request
	err   error
}

func newSocket(nc, raw net.Conn) *socket {
	s := &socket{plain: nc == raw}
	conn, ok := raw.(syscall.Conn)
	if !ok {
		return s
	}
	var err error
	if s.raw, err = conn.SyscallConn(); err != nil {
		s.raw = nil
		return s
	}
	s.look = func(fd uintptr) {
		var b [1]byte
		// The descriptor does not block.
		_, err := readNow(int(fd), b[:])
		s.quiet = errors.Is(err, syscall.EAGAIN)
	}
	s.step = s.next
	return s
}

// alive says whether nothing came that nobody asked for, the end included. ok is
// false if that cannot be told.
func (s *socket) alive() (alive, ok bool) {
	if s.raw == nil {
		return false, false
	}
	s.quiet = false
	// Not raw.Read: the deadline of an earlier call may have passed.
	return s.raw.Control(s.look) == nil && s.quiet, true
}

// direct says whether send can be used.
func (s *socket) direct() bool { return s.plain && s.raw != nil }

// send sends a request as far as it goes at once, having looked whether the
// connection is alive, unless it is fresh; when all is sent, it waits for the first
// bytes of the answer. All of it takes one wait and no more calls of the kernel
// than there have to be.
func (s *socket) send(out []byte, in *reader, fresh bool) (sent int, err error) {
	s.in, s.out, s.sent, s.fresh, s.asked, s.early, s.err = in, out, 0, fresh, false, false, nil
	err = s.raw.Read(s.step)
	for err != nil && errors.Is(err, os.ErrDeadlineExceeded) && in.extend() {
		err = s.raw.Read(s.step) // Goes on where it was.
	}
	if err == nil {
		err = s.err
	}
	s.in, s.out = nil, nil
	return s.sent, err
}

// next is called until it says that it is done, the second time when there is
// something to read.
func (s *socket) next(fd uintptr) (done bool) {
	n, err := ignoringEINTR(readNow, int(fd), s.in.buf[s.in.w:])
	if n > 0 {
		s.in.w += n
		s.in.seen = true
	}
	nothing := errors.Is(err, syscall.EAGAIN)
	if s.asked {
		if err != nil && !nothing {
			s.err = os.NewSyscallError("read", err)
		}
		return !nothing
	}
	s.asked = true
	if !nothing {
		// A fresh connection's early answer is one, and its end shows later.
		if s.early = true; !s.fresh {
			s.err = errStale
			return true
		}
	}
	n, err = ignoringEINTR(writeNow, int(fd), s.out)
	switch {
	case err == nil:
		s.sent = n
	case !errors.Is(err, syscall.EAGAIN):
		s.err = os.NewSyscallError("write", err)
		return true
	}
	return s.sent < len(s.out) || s.early
}

func ignoringEINTR(call func(int, []byte) (int, error), fd int, p []byte) (int, error) {
	for {
		n, err := call(fd, p)
		if !errors.Is(err, syscall.EINTR) {
			return n, err
		}
	}
}
