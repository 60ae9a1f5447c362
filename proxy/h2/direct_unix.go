//go:build unix

package h2

import (
	"net"
	"syscall"
)

// directWriter writes to a socket without ever waiting. It spares the writer's goroutine, and a switch to it, for the
// usual case that a socket takes what there is.
type directWriter struct {
	raw syscall.RawConn
	try func(fd uintptr) bool
	p   []byte
	n   int
	err error
}

// newDirectWriter returns nil if nc is no plain socket.
func newDirectWriter(nc net.Conn) *directWriter {
	t, ok := nc.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return nil
	}
	d := &directWriter{raw: raw}
	d.try = func(fd uintptr) bool {
		d.n, d.err = syscall.Write(int(fd), d.p)
		return true
	}
	return d
}

// write writes as much of p as the socket takes now.
func (d *directWriter) write(p []byte) (int, error) {
	d.p, d.n, d.err = p, 0, nil
	err := d.raw.Write(d.try)
	d.p = nil
	if err != nil {
		return 0, err
	}
	if d.err == syscall.EAGAIN || d.err == syscall.EINTR { //nolint:errorlint // An errno, as it comes.
		return 0, nil
	}
	return max(d.n, 0), d.err
}
