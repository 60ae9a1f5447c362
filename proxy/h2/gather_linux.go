package h2

import "golang.org/x/sys/unix"

// canGather says that output in several pieces can be written at once.
const canGather = true

// gather writes d.out, in one system call.
func (d *socket) gather(fd int) (int, error) {
	for p := d.out.head; p != nil; p = p.next {
		d.pieces = append(d.pieces, p.buf[p.r:p.w])
	}
	n, err := unix.Writev(fd, d.pieces)
	clear(d.pieces)
	d.pieces = d.pieces[:0]
	return n, err
}
