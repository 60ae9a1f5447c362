//go:build !unix

package h2

import "net"

// canGather says that output in several pieces can be written at once.
const canGather = false

// socket is for systems where it is known to work.
type socket struct{}

func newSocket(net.Conn) *socket { return nil }

func (*socket) write(*chunkQueue) (int, error) { return 0, nil }

func (*socket) read(*inputBuffer) (int, error) { return 0, nil }
