package h1

import (
	"os"
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

// pollFD tells what there is without waiting: how many events.
func pollFD(epoll int, events []syscall.EpollEvent) int {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0) //nolint:gosec // G103: as above.
	if errno != 0 {
		return 0
	}
	return int(n)
}

// watchFD puts fd into an epoll set.
func watchFD(epoll, fd int, events uint32) error {
	return os.NewSyscallError("epoll_ctl", syscall.EpollCtl(epoll, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: events, Fd: int32(fd)}))
}

// rearmFD has epoll tell once more, once, when fd can be read.
func rearmFD(epoll, fd int) {
	_ = syscall.EpollCtl(epoll, syscall.EPOLL_CTL_MOD, fd, &syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLONESHOT, Fd: int32(fd)})
}

func eventFD() (int, error) {
	fd, _, errno := syscall.RawSyscall(syscall.SYS_EVENTFD2, 0, syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if errno != 0 {
		return noFD, os.NewSyscallError("eventfd2", errno)
	}
	return int(fd), nil
}

func closeFD(fd int) { _ = syscall.Close(fd) }

func shutDownFD(fd int) { _ = syscall.Shutdown(fd, syscall.SHUT_RDWR) }
