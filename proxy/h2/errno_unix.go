//go:build unix

package h2

import (
	"errors"
	"syscall"
)

// isTooMany reports whether an Accept failed for want of file descriptors, which others may give back.
func isTooMany(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ECONNABORTED)
}
