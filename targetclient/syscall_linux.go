//go:build !race

package targetclient

import (
	"syscall"
	"unsafe"
)

// readNow and writeNow are calls of the kernel that do not block, since the
// descriptor does not. The scheduler need not know, which would give the processor
// away on a busy machine: a fifth of a call.

func readNow(fd int, p []byte) (int, error) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p))) //nolint:gosec // G103: p lives as long as the call
	return int(n), asError(errno)
}

func writeNow(fd int, p []byte) (int, error) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p))) //nolint:gosec // G103: p lives as long as the call
	return int(n), asError(errno)
}

// asError returns nil for no error, and allocates nothing for the usual one.
func asError(errno syscall.Errno) error {
	switch errno {
	case 0:
		return nil
	case syscall.EAGAIN:
		return errAgain
	}
	return errno
}

var errAgain error = syscall.EAGAIN
