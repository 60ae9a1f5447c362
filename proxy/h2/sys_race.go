//go:build linux && race

package h2

import "golang.org/x/sys/unix"

const canGather = true

type scratch = [][]byte

func (d *socket) gather(fd uintptr) (int, error) {
	for p := d.out.head; p != nil; p = p.next {
		d.pieces = append(d.pieces, p.buf[p.r:p.w])
	}
	n, err := unix.Writev(int(fd), d.pieces)
	clear(d.pieces)
	d.pieces = d.pieces[:0]
	return n, err
}
