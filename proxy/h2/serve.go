package h2

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// Serve accepts connections on ln and finds out what they speak: HTTP/2 is served, everything else is handed to other
// (see HTTP1Listener), which must not block. With Options.TLS the handshake is done first, and other gets a *tls.Conn.
// It returns nil when ln was closed, and otherwise with ln's error. It may be called for several listeners.
func (e *Engine) Serve(ln net.Listener, other func(net.Conn)) error {
	var pause time.Duration
	for {
		nc, err := ln.Accept()
		if err != nil {
			var temporary net.Error
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			if !errors.As(err, &temporary) || !temporary.Timeout() && !isTooMany(err) {
				return err
			}
			pause = min(max(2*pause, 5*time.Millisecond), time.Second) // As net/http does.
			select {
			case <-time.After(pause):
			case <-e.quit:
				return nil
			}
			continue
		}
		pause = 0
		_ = nc.SetDeadline(time.Now().Add(e.o.ReadHeaderTimeout))
		e.mu.Lock()
		closed := e.closed
		if !closed {
			e.wg.Add(1)
			e.fresh[nc] = struct{}{}
		}
		e.mu.Unlock()
		if closed {
			_ = nc.Close()
			return nil
		}
		go func() {
			defer e.wg.Done()
			e.accept(nc, other)
		}()
	}
}

// accept serves one connection, or hands it on.
func (e *Engine) accept(nc net.Conn, other func(net.Conn)) {
	isHTTP2, read, served, ok := e.sniffInTime(nc)
	switch {
	case !ok:
		_ = nc.Close()
	case isHTTP2:
		e.ServeConn(served, read)
	case len(read) > 0:
		other(&replayConn{Conn: served, head: read})
	default:
		other(served)
	}
}

// sniffInTime is sniff for a connection that is in fresh: its deadline bounds it, and so does Close.
func (e *Engine) sniffInTime(nc net.Conn) (isHTTP2 bool, read []byte, served net.Conn, ok bool) {
	isHTTP2, read, served, err := e.sniff(nc)
	e.mu.Lock()
	delete(e.fresh, nc)
	closed := e.closed
	e.mu.Unlock()
	if err == nil && !closed {
		_ = nc.SetDeadline(time.Time{})
		return isHTTP2, read, served, true
	}
	if errors.Is(err, os.ErrDeadlineExceeded) && !closed {
		e.o.Observer.Limited(ReasonHeaderTimeout)
	}
	return false, nil, nil, false
}

// sniff finds out what a client speaks. read is what it had to read for that.
func (e *Engine) sniff(nc net.Conn) (isHTTP2 bool, read []byte, served net.Conn, err error) {
	if e.o.TLS != nil {
		t := tls.Server(nc, e.o.TLS)
		if err := t.HandshakeContext(e.ctx); err != nil {
			tellPlaintext(err)
			return false, nil, nil, err
		}
		return t.ConnectionState().NegotiatedProtocol == http2.NextProtoTLS, nil, t, nil
	}
	read = make([]byte, 0, sniffLength)
	for len(read) < len(http2.ClientPreface) {
		n, err := nc.Read(read[len(read):cap(read)])
		read = read[:len(read)+n]
		switch {
		case prefacePossible(read) && err != nil:
			return false, nil, nil, err
		case prefacePossible(read):
		case !http1Possible(read):
			return false, nil, nil, errBogusPreface
		default:
			return false, read, nc, nil
		}
	}
	return true, read, nc, nil
}

// tellPlaintext answers a client that speaks HTTP where TLS is spoken, as net/http does.
func tellPlaintext(err error) {
	record, ok := errors.AsType[tls.RecordHeaderError](err)
	if !ok || record.Conn == nil {
		return
	}
	switch string(record.RecordHeader[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO":
		_, _ = io.WriteString(record.Conn, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
	}
}

// sniffLength is how much is read at most before the protocol is known.
const sniffLength = 256

// http1Possible reports whether b can be the beginning of what somebody meant for an HTTP/1 request, well-formed or not.
// A first line that is whole and names neither a version nor a path is nothing that anybody here could answer in words
// the client would know.
func http1Possible(b []byte) bool {
	line, _, whole := bytes.Cut(bytes.TrimLeft(b, "\r\n"), []byte("\n"))
	return !whole || bytes.Contains(line, []byte(" HTTP/")) || bytes.Contains(line, []byte(" /"))
}

// replayConn gives out first what was read before.
type replayConn struct {
	net.Conn
	head []byte
}

func (c *replayConn) Read(p []byte) (int, error) {
	if len(c.head) > 0 {
		n := copy(p, c.head)
		c.head = c.head[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// Unread returns the connection itself, and what was read from it before. The replayConn is not used any more then.
func (c *replayConn) Unread() (net.Conn, []byte) { return c.Conn, c.head }

// CloseWrite ends the outgoing half, where the connection can.
func (c *replayConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// ReadFrom lets the connection use what it has for files and sockets.
func (c *replayConn) ReadFrom(r io.Reader) (int64, error) { return io.Copy(c.Conn, r) }

// HTTP1Listener is a net.Listener for an http.Server that serves what Serve hands on.
type HTTP1Listener struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// NewHTTP1Listener returns a listener whose address is addr.
func NewHTTP1Listener(addr net.Addr) *HTTP1Listener {
	return &HTTP1Listener{addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
}

// Hand passes a connection to Accept. After Close it is closed instead.
func (l *HTTP1Listener) Hand(nc net.Conn) {
	select {
	case l.conns <- nc:
	case <-l.closed:
		_ = nc.Close()
	}
}

// Accept waits for a connection.
func (l *HTTP1Listener) Accept() (net.Conn, error) {
	select {
	case nc := <-l.conns:
		return nc, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close makes Accept return.
func (l *HTTP1Listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr is the address of the listener that the connections come from.
func (l *HTTP1Listener) Addr() net.Addr { return l.addr }
