package store

import (
	"errors"
	"time"
)

// EmbeddedOptions configures [OpenEmbedded].
type EmbeddedOptions struct {
	// Path is the file. It is made if it is missing, with its directory, readable by the owner only.
	Path string
	// LockTimeout is how long to wait for another process to release the file. Default 1s.
	LockTimeout time.Duration
	// MaxRevisions is how many revisions the log keeps. Default 1000.
	MaxRevisions int
	// MaxLogBytes is how large the log may become; the newest revision is always kept. Default 64 MiB.
	MaxLogBytes int
}

// OpenEmbedded opens the store in a local file. One process at a time can hold it.
func OpenEmbedded(o EmbeddedOptions) (Store, error) { return nil, errors.ErrUnsupported }
