//go:build unix

package targetclient

import (
	"errors"
	"syscall"
	"time"
)

// aliveWait is how long a connection that is no socket gets to show that it is not
// what it was.
const aliveWait = time.Millisecond

// aliveCheck looks whether an idle connection is still what it was: nothing to
// read, not closed. A server's close shows before a request is written, and so
// does an answer that nobody asked for.
type aliveCheck struct {
	conn  *conn
	raw   syscall.RawConn // nil: the connection is no socket
	look  func(fd uintptr)
	quiet bool
}

func (a *aliveCheck) init(c *conn) {
	a.conn = c
	s, ok := c.raw.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return
	}
	a.raw = raw
	a.look = func(fd uintptr) {
		var b [1]byte
		// The descriptor does not block.
		_, err := syscall.Read(int(fd), b[:])
		a.quiet = errors.Is(err, syscall.EAGAIN)
	}
}

// alive says whether a request may be written. After false the connection
// cannot be used.
func (a *aliveCheck) alive() bool {
	if a.raw == nil {
		return a.conn.quiet(time.Now().Add(aliveWait))
	}
	a.quiet = false
	// Not raw.Read: the deadline of an earlier call may have passed.
	return a.raw.Control(a.look) == nil && a.quiet
}
