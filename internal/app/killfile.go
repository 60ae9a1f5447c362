package app

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
)

// killFileInterval is how often the kill file is looked for.
const killFileInterval = 250 * time.Millisecond

// killFile switches dispatch off on this gateway for as long as a file is
// there. It needs nothing but the file system: no store, no admin API.
type killFile struct {
	path   string // empty: there is no such file
	logger *slog.Logger

	present atomic.Bool
	failed  bool // the last look failed
}

// killed says whether the file was there at the last look.
func (k *killFile) killed() bool { return k.present.Load() }

// look takes note of whether the file is there. When that cannot be told,
// everything stays as it is.
func (k *killFile) look() {
	if k.path == "" {
		return
	}
	_, err := os.Lstat(k.path)
	present := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		if !k.failed {
			k.logger.Error("the kill file cannot be looked for", "path", k.path, "error", err)
		}
		k.failed = true
		return
	}
	k.failed = false
	if k.present.Swap(present) == present {
		return
	}
	if present {
		k.logger.Warn("dispatch is switched off on this gateway: the kill file is there", "path", k.path)
	} else {
		k.logger.Warn("the kill file is gone: dispatch is as the store says", "path", k.path)
	}
}

// watch looks until ctx ends.
func (k *killFile) watch(ctx context.Context) {
	if k.path == "" {
		return
	}
	tick := time.NewTicker(killFileInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			k.look()
		}
	}
}
