//go:build !race

package h2

import (
	"syscall"
	"unsafe"
)

// readNow, writeNow and gather are calls of the kernel that do not wait, since the descriptor does not. The scheduler
// need not know of them: telling it, and getting the processor back on a busy machine, was a seventh of a relayed call of
// 16 KiB.

func readNow(fd uintptr, p []byte) (int, error) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p))) //nolint:gosec // G103: p lives as long as the call
	return int(n), asError(errno)
}

func writeNow(fd uintptr, p []byte) (int, error) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p))) //nolint:gosec // G103: as above
	return int(n), asError(errno)
}

// canGather says that output in several pieces can be written at once.
const canGather = true

type scratch = []syscall.Iovec

// gather writes d.out, in one system call.
func (d *socket) gather(fd uintptr) (int, error) {
	for p := d.out.head; p != nil; p = p.next {
		v := syscall.Iovec{Base: &p.buf[p.r]}
		v.SetLen(p.w - p.r)
		d.pieces = append(d.pieces, v)
	}
	n, _, errno := syscall.RawSyscall(syscall.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&d.pieces[0])), uintptr(len(d.pieces))) //nolint:gosec // G103: as above
	clear(d.pieces)
	d.pieces = d.pieces[:0]
	return int(n), asError(errno)
}

// asError returns nil for no error.
func asError(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}
