//go:build unix

package h2

import (
	"io"
	"net"
	"syscall"
)

// socket reads and writes a plain socket. It writes without ever waiting, which spares the writer's goroutine, and a
// switch to it, in the usual case that a socket takes what there is; and while it waits for input it holds no buffer.
// Reading belongs to the connection's reader, writing to whoever has set conn.writing.
type socket struct {
	raw syscall.RawConn
	try func(fd uintptr) bool
	out *chunkQueue
	n   int
	err error

	pieces scratch

	tryRead func(fd uintptr) bool
	in      *inputBuffer
	got     int
	readErr error
}

// newSocket returns nil if nc is no plain socket.
func newSocket(nc net.Conn) *socket {
	t, ok := nc.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return nil
	}
	d := &socket{raw: raw}
	d.tryRead = func(fd uintptr) bool {
		for {
			d.got, d.readErr = readNow(fd, d.in.room())
			if d.readErr == syscall.EINTR { //nolint:errorlint // An errno, as it comes.
				continue
			}
			break
		}
		if d.readErr == syscall.EAGAIN { //nolint:errorlint // As above.
			d.in.rest()
			return false
		}
		return true
	}
	d.try = func(fd uintptr) bool {
		if head := d.out.head; head.next == nil {
			d.n, d.err = writeNow(fd, head.buf[head.r:head.w])
		} else {
			d.n, d.err = d.gather(fd)
		}
		return true
	}
	return d
}

// write writes as much of q, which is in one piece unless canGather, as the socket takes now. q stays as it is.
func (d *socket) write(q *chunkQueue) (int, error) {
	d.out, d.n, d.err = q, 0, nil
	err := d.raw.Write(d.try)
	d.out = nil
	if err != nil {
		return 0, err
	}
	if d.err == syscall.EAGAIN || d.err == syscall.EINTR { //nolint:errorlint // An errno, as it comes.
		return 0, nil
	}
	return max(d.n, 0), d.err
}

// read waits until there is something and reads it into in's room. What was read still has to be told to in.
func (d *socket) read(in *inputBuffer) (int, error) {
	d.in = in
	if err := d.raw.Read(d.tryRead); err != nil {
		return 0, err
	}
	if d.readErr != nil {
		return 0, d.readErr
	}
	if d.got <= 0 {
		return 0, io.EOF
	}
	return d.got, nil
}
