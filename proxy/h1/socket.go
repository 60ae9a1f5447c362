package h1

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// errStale says that a connection of the upstream turned out to have ended before anything was sent on it.
var errStale = errors.New("upstream ended the connection")

// long ago is a deadline that interrupts.
var longAgo = time.Unix(1, 0)

// socket reads and writes a connection. One goroutine reads at a time, and one writes.
type socket struct {
	net.Conn
	plain *plainSocket // nil: not a plain socket

	// mu guards what Conn and fd are; who reads or writes the connection may read them without it.
	mu sync.Mutex
	fd int // of a connection that is a loop's: Conn is closed then. Otherwise noFD.
}

const noFD = -1

func newSocket(nc net.Conn) *socket { return &socket{Conn: nc, plain: newPlainSocket(nc), fd: noFD} }

// Close closes the connection. Only who reads and writes it may.
func (s *socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd != noFD {
		closeFD(s.fd)
		s.fd = noFD
		return nil
	}
	return s.Conn.Close()
}

// hangUp ends the connection from outside: who reads and writes it finds out, and closes it.
func (s *socket) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd != noFD {
		shutDownFD(s.fd)
		return
	}
	_ = s.Conn.Close()
}

// fill waits until there is something, and reads it into in's room, which is not full. While it waits it holds no
// buffer, if there is nothing in it.
func (s *socket) fill(in *input) error {
	if s.plain != nil {
		return s.plain.fill(in)
	}
	n, err := s.Conn.Read(in.room())
	in.w += n
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// send writes all of p, on a connection that must have nothing to say before: then the error is errStale, and nothing was
// sent. sent is how much was. With wait it then waits for an answer as fill does.
func (s *socket) send(p []byte, in *input, wait bool) (sent int, err error) {
	if s.plain != nil {
		if sent, err = s.plain.send(p, in, wait); err != nil || sent == len(p) {
			return sent, err
		}
	} else if !s.silent() {
		return 0, errStale
	}
	n, err := s.Conn.Write(p[sent:])
	sent += n
	if err == nil && wait {
		err = s.fill(in)
	}
	return sent, err
}

// write writes all of p.
func (s *socket) write(p []byte) error {
	if s.plain != nil {
		return s.plain.write(p)
	}
	_, err := s.Conn.Write(p)
	return err
}

// silent reports whether a connection without a plain socket has nothing to say, not even that it has ended.
func (s *socket) silent() bool {
	p, ok := s.Conn.(poller)
	return !ok || p.silent()
}

// poller is a connection that can tell whether there is anything to read.
type poller interface{ silent() bool }
