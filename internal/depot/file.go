package depot

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"google.golang.org/grpc/codes"
)

// root opens the directory, made if it is missing, and returns the path below it. Nothing that is done through the root
// can leave it, by dots or by symbolic links.
func (d *Depot) root(path string) (*os.Root, string, error) {
	if d.o.Dir == "" {
		return nil, "", refuse(codes.FailedPrecondition, "this gateway keeps no files: admin.export_dir is not set")
	}
	if strings.ContainsRune(path, 0) || strings.HasSuffix(path, "/") {
		return nil, "", refuse(codes.InvalidArgument, "local path: not the name of a file")
	}
	if err := os.MkdirAll(d.o.Dir, 0o700); err != nil {
		return nil, "", refuse(codes.FailedPrecondition, "admin.export_dir cannot be used: %s", reason(err))
	}
	if filepath.IsAbs(path) {
		dir, err := filepath.Abs(d.o.Dir)
		if err != nil {
			return nil, "", refuse(codes.FailedPrecondition, "admin.export_dir cannot be used")
		}
		if path, err = filepath.Rel(dir, path); err != nil {
			return nil, "", errOutside
		}
	}
	if path = filepath.Clean(path); path == "." {
		return nil, "", refuse(codes.InvalidArgument, "local path: not the name of a file")
	}
	if !filepath.IsLocal(path) {
		return nil, "", errOutside
	}
	r, err := os.OpenRoot(d.o.Dir)
	if err != nil {
		return nil, "", refuse(codes.FailedPrecondition, "admin.export_dir cannot be used: %s", reason(err))
	}
	return r, path, nil
}

var errOutside = refuse(codes.InvalidArgument, "local path: leads out of admin.export_dir")

// reason is the system's word, without the path.
func reason(err error) string {
	var no syscall.Errno
	if errors.As(err, &no) {
		return no.Error()
	}
	return "not possible"
}

func fileFailure(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return refuse(codes.NotFound, "local path: no such file")
	case errors.As(err, new(syscall.Errno)):
		return refuse(codes.FailedPrecondition, "local path: %s", reason(err))
	}
	return errOutside // the root says so with an error that has no name
}

// writeFile writes a new file that then takes the place of the old one. Only the owner can read it.
func (d *Depot) writeFile(path string, document []byte) (err error) {
	r, path, err := d.root(path)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	dir, name := filepath.Split(path)
	if dir != "" {
		if err := r.MkdirAll(filepath.Clean(dir), 0o700); err != nil {
			return fileFailure(err)
		}
	}
	temporary := filepath.Join(dir, "."+rand.Text()+".tmp")
	f, err := r.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fileFailure(err)
	}
	defer func() {
		if err != nil {
			_ = r.Remove(temporary)
		}
	}()
	_, err = f.Write(document)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = r.Rename(temporary, filepath.Join(dir, name))
	}
	if err != nil {
		return fileFailure(err)
	}
	return nil
}

func (d *Depot) readFile(path string, limit int64) ([]byte, error) {
	r, path, err := d.root(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	// A pipe must not hold up the call.
	f, err := r.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fileFailure(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fileFailure(err)
	}
	if !info.Mode().IsRegular() {
		return nil, refuse(codes.InvalidArgument, "local path: not a file")
	}
	text, err := readAll(f, limit)
	if errors.Is(err, errTooLarge) {
		return nil, refuse(codes.FailedPrecondition, "local path: the document is larger than an import may be")
	}
	if err != nil {
		return nil, fileFailure(err)
	}
	return text, nil
}
