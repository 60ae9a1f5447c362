//go:build unix && (!linux || race)

package targetclient

import "syscall"

// The race detector knows of these that one end of a connection follows the other.

func readNow(fd int, p []byte) (int, error) { return syscall.Read(fd, p) }

func writeNow(fd int, p []byte) (int, error) { return syscall.Write(fd, p) }
