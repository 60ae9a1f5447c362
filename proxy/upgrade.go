package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
)

// tunnels are the connections that were switched to another protocol, by how to cut them. The HTTP server no longer
// knows them.
type tunnels struct {
	mu     sync.Mutex
	open   map[*tunnel]struct{}
	closed bool
}

// tunnel is one of them.
type tunnel struct{ cut func() }

func (ts *tunnels) add(t *tunnel) bool {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.closed {
		return false
	}
	if ts.open == nil {
		ts.open = make(map[*tunnel]struct{})
	}
	ts.open[t] = struct{}{}
	return true
}

func (ts *tunnels) remove(t *tunnel) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	delete(ts.open, t)
}

// cut closes all tunnels, and every later one at once.
func (ts *tunnels) cut() {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.closed = true
	for t := range ts.open {
		t.cut()
	}
}

// tunnel switches protocols as the upstream agreed to, and copies bytes both ways until one side ends.
func (p *Proxy) tunnel(op *operation, res *http.Response) {
	if op.upgrade == "" || !strings.EqualFold(res.Header.Get("Upgrade"), op.upgrade) {
		p.fail(op, upstreamError(op.ctx, errors.New("upstream switched to a protocol that nobody asked for"), nil))
		return
	}
	back, ok := res.Body.(io.ReadWriteCloser)
	if !ok {
		p.fail(op, internalError(errors.New("connection of the upstream cannot be written")))
		return
	}
	conn, buffered, err := http.NewResponseController(op.w).Hijack()
	if err != nil {
		p.fail(op, internalError(fmt.Errorf("take over the connection: %w", err)))
		return
	}
	t := &tunnel{cut: func() { _, _ = conn.Close(), back.Close() }}
	defer t.cut()
	if !p.tunnels.add(t) {
		return
	}
	defer p.tunnels.remove(t)
	op.started = true
	op.code = httpCodeName(http.StatusSwitchingProtocols)
	if op.edge != nil {
		op.code = codeNames[codes.OK]
	}

	_ = conn.SetDeadline(time.Time{})
	header := res.Header
	removeHopByHop(header)
	header["Connection"] = []string{"Upgrade"}
	header["Upgrade"] = []string{op.upgrade}
	answer := &http.Response{
		Status: res.Status, StatusCode: res.StatusCode, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: header,
	}
	if err := answer.Write(buffered); err != nil {
		return
	}
	if err := buffered.Flush(); err != nil {
		return
	}
	done := make(chan struct{}, 2)
	go func() { relay(back, clientReader(buffered.Reader, conn)); done <- struct{}{} }()
	go func() { relay(conn, back); done <- struct{}{} }()
	<-done
	// One direction has ended; the other side was told by CloseWrite if it can be, and then may still finish.
	<-done
}

// clientReader reads what the server had buffered, then the connection itself.
func clientReader(buffered *bufio.Reader, conn net.Conn) io.Reader {
	n := buffered.Buffered()
	if n == 0 {
		return conn
	}
	head, _ := buffered.Peek(n)
	return io.MultiReader(strings.NewReader(string(head)), conn)
}

// relay copies until from ends, and tells to.
func relay(to io.WriteCloser, from io.Reader) {
	_, err := io.Copy(to, from)
	if half, ok := to.(interface{ CloseWrite() error }); ok && err == nil {
		_ = half.CloseWrite()
		return
	}
	_ = to.Close()
	if c, ok := from.(io.Closer); ok && err != nil {
		_ = c.Close()
	}
}
