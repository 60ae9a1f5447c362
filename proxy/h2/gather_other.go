//go:build unix && !linux

package h2

import "syscall"

// canGather says that output in several pieces can be written at once.
const canGather = false

type scratch = struct{}

func (d *socket) gather(uintptr) (int, error) { return 0, syscall.EAGAIN }
