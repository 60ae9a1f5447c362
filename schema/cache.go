package schema

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// writeCache replaces the file at path by b, readable by the owner only. A reader
// sees the old file or the new one, also after a crash.
func writeCache(path string, b []byte) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("create the directory of the schema cache: %w", err)
	}
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // 0600
	if err != nil {
		return fmt.Errorf("write the schema cache: %w", err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(b); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = f.Close()
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write the schema cache: %w", err)
	}
	return nil
}

// readCache returns the cached descriptor set, nil if there is none.
func readCache(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read the schema cache: %w", err)
	}
	return b, nil
}
