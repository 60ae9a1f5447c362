package h1

import (
	"syscall"
	"unsafe"
)

// sysRead and sysWrite read and write a socket that never makes them wait. So the scheduler need not be told: what
// that costs, and what it costs to get the processor back when the machine is busy, was a fifth of a relayed request.

func sysRead(fd uintptr, p []byte) (int, syscall.Errno) {
	n, _, err := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p))) //nolint:gosec // G103: p is kept alive by the call.
	return int(n), err
}

func sysWrite(fd uintptr, p []byte) (int, syscall.Errno) {
	n, _, err := syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p))) //nolint:gosec // G103: as above.
	return int(n), err
}
