package targetclient

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"time"
)

const (
	// togetherBytes of a payload are copied behind the header, to be written at
	// once; more is written by itself.
	togetherBytes = 16 << 10
	// writeAheadBytes fit into the buffers of a connection that nobody reads
	// yet. A longer request is written aside, since its answer may come before
	// it is read.
	writeAheadBytes = 64 << 10
	// answerGrace is how long an answer may take when the request could not be
	// written, and the end of a request that is answered.
	answerGrace = 50 * time.Millisecond
)

// conn is an HTTP/1 connection, used by one call at a time.
type conn struct {
	key       hostKey
	nc        net.Conn // TLS or not
	raw       net.Conn // what is below TLS
	idleSince time.Time
	until     time.Time // the deadline that nc has, both ways; zero: not known
	reused    bool
	abort     func() // close, bound once
	socket    *socket
	one       [1]byte
}

func newConn(key hostKey, nc, raw net.Conn) *conn {
	c := &conn{key: key, nc: nc, raw: raw, socket: newSocket(nc, raw)}
	c.abort = c.close
	return c
}

// close ends the connection at once, whoever reads or writes. It can be called
// again, and by anybody.
func (c *conn) close() { _ = c.raw.Close() }

// retire ends a connection that nobody uses, in the manner of its protocol.
func (c *conn) retire() { _ = c.nc.Close() }

// setDeadline bounds reading and writing.
func (c *conn) setDeadline(at time.Time) error {
	c.until = at
	return c.nc.SetDeadline(at)
}

// setReadDeadline bounds reading for once.
func (c *conn) setReadDeadline(at time.Time) error {
	c.until = time.Time{}
	return c.nc.SetReadDeadline(at)
}

// usable says whether an idle connection can take another request: it is open,
// and nothing came that nobody asked for. TLS may hold such bytes back where the
// socket does not show them.
func (c *conn) usable() bool {
	if c.nc != c.raw && !c.quiet(past) {
		return false
	}
	alive, ok := c.socket.alive()
	return alive || !ok && c.quiet(time.Now().Add(aliveWait))
}

// errStale says that a kept connection cannot take another request.
var errStale = errors.New("the connection was closed while it was idle")

// past is a deadline that is over: what is read then was there already.
var past = time.Unix(1, 0)

// quiet says whether nothing can be read before the deadline.
func (c *conn) quiet(deadline time.Time) bool {
	if c.setReadDeadline(deadline) != nil {
		return false
	}
	n, err := c.nc.Read(c.one[:])
	return n == 0 && errors.Is(err, os.ErrDeadlineExceeded)
}

// exchange is one request on a connection, and its answer. It is reused: what it
// returns must not refer to it.
type exchange struct {
	request request

	began time.Time     // the call
	took  time.Duration // until the last answer was there; 0: not known

	conn *conn
	out  []byte // the header of the request, what is sent with it behind it
	head int    // length of the header
	in   reader

	written int        // bytes that the connection took
	late    chan error // of the writing aside; nil: it is done
	keep    bool       // the connection can be used again
}

// release gives the exchange back.
func (x *exchange) release() {
	x.request = request{signature: x.request.signature}
	if cap(x.out) > maxPooledBuffer {
		x.out = nil
	}
	exchanges.Put(x)
}

// do writes the request, whose header is in out, and reads the answer, the body
// only if it counts. It ends by the deadline, and at once with an error when ctx
// ends. The status of the answer is set as soon as it is known. The connection
// is closed unless keep says that it can be used again.
func (x *exchange) do(ctx context.Context, deadline time.Time, c *conn, payload []byte, limit int64) (a answer, err error) {
	x.conn, x.written, x.late, x.keep = c, 0, nil, false
	x.in.reset(c.nc)
	direct := c.socket.direct() && len(payload) <= togetherBytes
	if c.reused && !direct && !c.usable() { // a direct one sees for itself
		c.close()
		x.conn, x.in.src = nil, nil
		return answer{}, errStale
	}
	stop, deadline := watch(ctx, c, deadline)
	if err = x.bound(deadline, direct); err == nil {
		if err = x.write(deadline, payload, direct); err == nil {
			a, err = x.read(deadline, limit)
		}
	}
	x.finish(err)
	if stop != nil && !stop() {
		x.keep = false
	}
	x.conn, x.in.src = nil, nil
	return a, err
}

// watch has the connection closed when ctx ends. Where the connection's deadline does that, it is the returned one. stop
// is nil if ctx never ends.
func watch(ctx context.Context, c *conn, deadline time.Time) (stop func() bool, end time.Time) {
	if own, ok := ctx.(interface{ OnCancel(f func()) func() bool }); ok {
		if at, ok := ctx.Deadline(); ok && at.Before(deadline) {
			deadline = at
		}
		return own.OnCancel(c.abort), deadline
	}
	if ctx.Done() == nil {
		return nil, deadline
	}
	return context.AfterFunc(ctx, c.abort), deadline
}

// bound bounds reading and writing. A deadline that an earlier call has left may stay: when it passes before ours does,
// the reader takes care of that. It costs an entry among the timers of the runtime to set one.
func (x *exchange) bound(deadline time.Time, direct bool) error {
	if c := x.conn; direct && c.until.After(x.began) && !c.until.After(deadline) {
		x.in.extendTo(c, deadline)
		return nil
	}
	return x.conn.setDeadline(deadline)
}

// write writes the request. When it fails, an answer may be there all the same.
func (x *exchange) write(deadline time.Time, payload []byte, direct bool) error {
	if len(payload) > writeAheadBytes {
		x.writeAside(payload)
		return nil
	}
	head := x.out[:x.head]
	if len(payload) <= togetherBytes {
		x.out = append(head, payload...)
		head, payload = x.out, nil
	}
	var err error
	if direct {
		x.written, err = x.conn.socket.send(head, &x.in, !x.conn.reused)
		head = head[x.written:]
	}
	if err == nil && len(head)+len(payload) > 0 {
		x.in.extend()
		var n int
		n, err = x.conn.write(head, payload)
		x.written += n
	}
	if err == nil || x.written == 0 || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
		return err
	}
	// The target may have answered before it closed.
	x.in.extend()
	_ = x.conn.setReadDeadline(time.Now().Add(answerGrace))
	if x.in.fill() != nil || x.conn.setReadDeadline(deadline) != nil {
		return err
	}
	x.late = make(chan error, 1)
	x.late <- err
	return nil
}

// writeAside writes the request while its answer is waited for already.
func (x *exchange) writeAside(payload []byte) {
	x.late = make(chan error, 1)
	go func() {
		n, err := x.conn.write(x.out[:x.head], payload)
		x.written = n
		x.late <- err
	}()
}

func (c *conn) write(head, payload []byte) (int, error) {
	n, err := c.nc.Write(head)
	if err == nil && len(payload) > 0 {
		var m int
		m, err = c.nc.Write(payload)
		n += m
	}
	return n, err
}

// read reads the answer.
func (x *exchange) read(deadline time.Time, limit int64) (answer, error) {
	h, err := readHead(&x.in)
	if err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) && !x.in.seen {
			err = errNoAnswer
		}
		return answer{}, err
	}
	a := answer{status: h.status, location: h.location, retryAfter: h.retryAfter, date: h.date}
	if h.status >= 200 && h.status <= 299 {
		a.body, err = readAnswerBody(&x.in, &h, limit)
		x.keep = err == nil && !h.last && x.in.buffered() == 0
		return a, err
	}
	x.keep = !h.last && x.skip(&h, deadline) && x.in.buffered() == 0
	return a, nil
}

// skip reads a body that does not count, if that is little and comes at once: it
// keeps the connection usable.
func (x *exchange) skip(h *head, deadline time.Time) bool {
	if h.length > discardBytes {
		return false
	}
	if h.chunked || h.length > int64(x.in.buffered()) {
		x.in.extend()
		if soon := time.Now().Add(discardTime); soon.Before(deadline) && x.conn.setReadDeadline(soon) != nil {
			return false
		}
	}
	h.gzip = false // whatever it says
	_, err := readAnswerBody(&x.in, h, discardBytes)
	return err == nil
}

// errNoAnswer says that the connection ended where an answer should have begun.
var errNoAnswer = errors.New("the connection was closed before an answer came")

// finish sees to it that nobody writes any more, and that a connection that
// cannot be used is closed.
func (x *exchange) finish(err error) {
	if err != nil || !x.keep {
		x.keep = false
		x.conn.close()
	}
	if x.late == nil {
		return
	}
	// The answer is there: the request should be, too.
	if x.keep {
		x.conn.until = time.Time{}
		_ = x.conn.nc.SetWriteDeadline(time.Now().Add(answerGrace))
	}
	if <-x.late != nil && x.keep {
		x.keep = false
		x.conn.close()
	}
}

// errHTTP2 says that a host wants HTTP/2.
var errHTTP2 = errors.New("the host speaks HTTP/2")

// connect makes a connection, errHTTP2 with it when that is to be spoken on it.
func (t *transport) connect(ctx context.Context, key hostKey) (*conn, error) {
	raw, err := t.dial(ctx, "tcp", key.addr)
	if err != nil {
		return nil, err
	}
	if !key.tls {
		return newConn(key, raw, raw), nil
	}
	nc, err := t.handshake(ctx, raw, key.addr)
	if err != nil {
		return nil, err
	}
	c := newConn(key, nc, raw)
	h2 := nc.ConnectionState().NegotiatedProtocol == protocolHTTP2
	t.pool.learnHTTP2(key, h2)
	if h2 {
		return c, errHTTP2
	}
	return c, nil
}

// handshake secures a connection, or closes it.
func (t *transport) handshake(ctx context.Context, raw net.Conn, addr string) (*tls.Conn, error) {
	config := t.tls.Clone()
	if config.ServerName == "" {
		config.ServerName, _, _ = net.SplitHostPort(addr)
	}
	nc := tls.Client(raw, config)
	ctx, cancel := context.WithTimeout(ctx, tlsTimeout)
	defer cancel()
	if err := nc.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, err
	}
	return nc, nil
}
