package queue

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

const (
	// compactFrom is how large a file is before it is worth being compacted.
	compactFrom = 64 << 20
	// compacting is added to the name of a file while it is written anew.
	compacting = ".compact"
)

// openBolt opens a file, with its directory, for this process alone. A file that
// is large and mostly free is compacted first.
func openBolt(path string, lockTimeout time.Duration) (*bolt.DB, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("queue: make the directory of the queue file: %w", err)
	}
	db, err := lockBolt(path, lockTimeout)
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("queue: open %s: another process holds the file; it serves one gateway: stop the other one, "+
			"choose another path, or use queue.driver redis", path)
	case err != nil:
		return nil, fmt.Errorf("queue: open %s: %w", path, err)
	}
	fi, err := os.Stat(path)
	if err == nil && fi.Mode().Perm()&0o077 != 0 {
		err = os.Chmod(path, 0o600)
	}
	if err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("queue: %w", err)
	}
	if free := int64(db.Stats().FreePageN) * int64(db.Info().PageSize); fi.Size() > compactFrom && free > fi.Size()/2 {
		return compact(path, db)
	}
	return db, nil
}

// lockBolt opens a file that has the path also once the lock was waited for: its
// holder may have put a compacted one in its place.
func lockBolt(path string, lockTimeout time.Duration) (*bolt.DB, error) {
	for deadline := time.Now().Add(lockTimeout); ; {
		var file *os.File
		o := boltOptions()
		o.Timeout = max(time.Until(deadline), time.Millisecond)
		o.OpenFile = func(name string, flag int, mode os.FileMode) (_ *os.File, err error) {
			file, err = os.OpenFile(name, flag, mode)
			return file, err
		}
		db, err := bolt.Open(path, 0o600, o)
		if err != nil {
			return nil, err
		}
		locked, err := file.Stat()
		there, thereErr := os.Stat(path)
		if err == nil && thereErr == nil && os.SameFile(locked, there) {
			return db, nil
		}
		_ = db.Close()
		if err := errors.Join(err, thereErr); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
}

func boltOptions() *bolt.Options {
	return &bolt.Options{
		FreelistType: bolt.FreelistMapType,
		// After a large backlog the list of free pages is large as well, and would
		// be written with every commit. It is found anew when the file is opened.
		NoFreelistSync: true,
	}
}

// compact puts a smaller copy in the place of the file of db, and returns it open;
// or db, when there is no room for a copy. Both are locked until the old one has
// no name any more. A crash leaves one or the other, each of them whole.
func compact(path string, db *bolt.DB) (*bolt.DB, error) {
	smaller, err := copyBolt(path+compacting, db)
	if err != nil {
		return db, nil //nolint:nilerr // it is as good as it was
	}
	if err := os.Rename(path+compacting, path); err != nil {
		_ = smaller.Close()
		_ = os.Remove(path + compacting)
		return db, nil //nolint:nilerr // likewise
	}
	_ = db.Close()
	// What is written from now on is in a file whose name must last.
	if err := syncDirectory(filepath.Dir(path)); err != nil {
		_ = smaller.Close()
		return nil, fmt.Errorf("queue: open %s: %w", path, err)
	}
	return smaller, nil
}

// copyBolt writes all of db to a new file, which is on disk when it returns.
func copyBolt(path string, db *bolt.DB) (_ *bolt.DB, err error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err // of a crash in the middle
	}
	o := boltOptions()
	o.NoSync = true // until it is whole
	to, err := bolt.Open(path, 0o600, o)
	if err != nil {
		return nil, err
	}
	if err = bolt.Compact(to, db, 16<<20); err == nil {
		err = to.Sync()
	}
	if err != nil {
		_ = to.Close()
		_ = os.Remove(path)
		return nil, err
	}
	to.NoSync = false
	return to, nil
}

// syncDirectory makes the names in a directory last.
func syncDirectory(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
