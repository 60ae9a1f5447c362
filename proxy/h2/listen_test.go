package h2_test

import (
	"context"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
)

// listenAgain takes over an address while the old server, which is stopped gracefully, still has it: as a rolling
// restart does.
func listenAgain(address string, old *grpc.Server) (net.Listener, error) {
	go old.GracefulStop()
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		})
	}}
	for {
		ln, err := lc.Listen(context.Background(), "tcp", address)
		if err == nil {
			return ln, nil
		}
	}
}
