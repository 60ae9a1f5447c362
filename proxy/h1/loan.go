package h1

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// loan is a client's connection as net/http's server sees it. It gives out one request at a time: what belongs to the
// next one stays with the connection, which goes on by itself once the answer has been sent. So a connection on which
// some request matched is not slow for ever, and net/http does for one what it always did, hijacking included.
//
// net/http keeps its own side of the connection between requests, so that the next one costs no more than it does there.
type loan struct {
	c *conn
	// returned gets one value for each time that net/http is done with a request.
	returned chan struct{}

	mu      sync.Mutex
	changed sync.Cond
	state   loanState
	expired bool  // a read deadline has passed
	left    int64 // of the request, in bytes, its head included; where the body is chunked: of the head
	chunked bool
	chunks  chunks // where in the body reading is
}

type loanState uint8

const (
	loanParked loanState = iota // the connection's goroutine has the connection
	loanLent                    // net/http serves a request
	loanTunnel                  // the connection is no longer HTTP
	loanOver                    // net/http, or the connection, has ended
)

// tlsLoan is a loan of a connection with TLS; net/http asks for its state.
type tlsLoan struct{ *loan }

// ConnectionState is that of the client's connection.
func (l tlsLoan) ConnectionState() tls.ConnectionState { return *l.c.tlsState }

// lend has net/http serve the request at the front of c.in, with a head of head bytes and a body as Head.length says. It
// reports whether another may follow.
func (c *conn) lend(head int, length int64) bool {
	if c.loan != nil && c.loan.isOver() {
		c.loan = nil
	}
	fresh := c.loan == nil
	if fresh {
		c.loan = &loan{c: c, returned: make(chan struct{}, 1)}
		c.loan.changed.L = &c.loan.mu
	}
	l := c.loan
	l.mu.Lock()
	l.state, l.expired = loanLent, false
	l.left, l.chunked, l.chunks = int64(head)+max(length, 0), length < 0, chunks{}
	l.mu.Unlock()
	l.changed.Broadcast()
	if fresh {
		var nc net.Conn = l
		if c.tlsState != nil {
			nc = tlsLoan{l}
		}
		c.e.o.Other(nc)
	}
	<-l.returned
	l.mu.Lock()
	ended, over := l.ended(), l.state != loanParked
	l.mu.Unlock()
	if over || !ended {
		return false
	}
	_ = c.SetDeadline(time.Time{})
	return true
}

// StateChanged is for the http.Server that serves what Options.Other got: it tells what the server's ConnState is told.
func StateChanged(nc net.Conn, state http.ConnState) {
	var l *loan
	switch nc := nc.(type) {
	case *loan:
		l = nc
	case tlsLoan:
		l = nc.loan
	default:
		return
	}
	switch state {
	case http.StateIdle:
		l.giveBack(loanParked)
	case http.StateHijacked:
		l.giveBack(loanTunnel)
	default:
	}
}

// giveBack ends the serving of a request.
func (l *loan) giveBack(to loanState) {
	l.mu.Lock()
	lent := l.state == loanLent
	if lent {
		l.state = to
	}
	l.mu.Unlock()
	l.changed.Broadcast()
	if lent {
		l.returned <- struct{}{}
	}
}

func (l *loan) isOver() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state == loanOver
}

// end takes the connection away from net/http. It reports false if the connection is a tunnel, which somebody else
// closes.
func (l *loan) end() bool {
	l.mu.Lock()
	tunnel := l.state == loanTunnel
	if !tunnel {
		l.state = loanOver
	}
	l.mu.Unlock()
	l.changed.Broadcast()
	return !tunnel
}

// ended reports whether the request has been given out to its end. l.mu is held.
func (l *loan) ended() bool { return l.left == 0 && (!l.chunked || l.chunks.ended()) }

// Read gives out the request, and then waits for an end.
func (l *loan) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		switch {
		case l.state == loanOver:
			return 0, io.EOF
		case l.expired:
			return 0, os.ErrDeadlineExceeded
		case len(p) == 0:
			return 0, nil
		case l.state == loanParked:
			l.changed.Wait()
		case l.state == loanTunnel:
			if b := l.c.in.bytes(); len(b) > 0 {
				n := copy(p, b)
				l.c.in.r += n
				return n, nil
			}
			l.mu.Unlock()
			n, err := l.c.Conn.Read(p)
			l.mu.Lock()
			return n, err
		case !l.ended() && len(l.c.in.bytes()) > 0:
			return l.take(p)
		case l.ended() && len(l.c.in.bytes()) > 0: // The next request; that the client has gone would be seen behind it.
			l.changed.Wait()
		default:
			if err := l.fill(); err != nil {
				return 0, err
			}
		}
	}
}

// fill reads what the client sends. l.mu is held, but not while it waits.
func (l *loan) fill() error {
	in := &l.c.in
	if len(in.room()) == 0 {
		in.compact()
	}
	l.mu.Unlock()
	err := l.c.fill(in)
	l.mu.Lock()
	return err
}

// take gives out what is there of the request. l.mu is held.
func (l *loan) take(p []byte) (int, error) {
	in := &l.c.in
	b := in.bytes()
	if len(b) > len(p) {
		b = b[:len(p)]
	}
	if l.left > 0 {
		n := copy(p, b[:min(l.left, int64(len(b)))])
		l.left -= int64(n)
		in.r += n
		return n, nil
	}
	n := 0
	for n < len(b) && !l.chunks.ended() {
		_, used, err := l.chunks.next(b[n:])
		if err != nil {
			return 0, err
		}
		n += used
	}
	in.r += copy(p, b[:n])
	return n, nil
}

// Write sends to the client.
func (l *loan) Write(p []byte) (int, error) {
	if l.isOver() {
		return 0, net.ErrClosed
	}
	return l.c.Conn.Write(p)
}

// ReadFrom lets the connection use what it has for sockets.
func (l *loan) ReadFrom(r io.Reader) (int64, error) {
	if l.isOver() {
		return 0, net.ErrClosed
	}
	return io.Copy(l.c.Conn, r)
}

// Close ends the connection if net/http has it.
func (l *loan) Close() error {
	l.mu.Lock()
	was := l.state
	l.state = loanOver
	l.mu.Unlock()
	l.changed.Broadcast()
	switch was {
	case loanLent:
		err := l.c.Conn.Close()
		l.returned <- struct{}{}
		return err
	case loanTunnel:
		return l.c.Conn.Close()
	default:
		return nil
	}
}

// CloseWrite ends the outgoing half, where the connection can.
func (l *loan) CloseWrite() error {
	if half, ok := l.c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// LocalAddr is the connection's.
func (l *loan) LocalAddr() net.Addr { return l.c.Conn.LocalAddr() }

// RemoteAddr is the connection's.
func (l *loan) RemoteAddr() net.Addr { return l.c.Conn.RemoteAddr() }

// holds reports whether net/http has the connection, and notes what a read deadline means to who waits here.
func (l *loan) holds(deadline time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expired = !deadline.IsZero() && !deadline.After(time.Now())
	l.changed.Broadcast()
	return l.state == loanLent || l.state == loanTunnel
}

// SetReadDeadline bounds reading while net/http has the connection. In between, its deadlines are not the connection's.
func (l *loan) SetReadDeadline(t time.Time) error {
	if !l.holds(t) {
		return nil
	}
	return l.c.Conn.SetReadDeadline(t)
}

// SetWriteDeadline bounds writing while net/http has the connection.
func (l *loan) SetWriteDeadline(t time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state != loanLent && l.state != loanTunnel {
		return nil
	}
	return l.c.Conn.SetWriteDeadline(t)
}

// SetDeadline does both.
func (l *loan) SetDeadline(t time.Time) error {
	if err := l.SetReadDeadline(t); err != nil {
		return err
	}
	return l.SetWriteDeadline(t)
}
