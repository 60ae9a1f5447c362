package store

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// A local copy is the line copyMagic, a frame of the header (JSON) and of key and value of every item, and the SHA-256
// of all that.
const copyMagic = "execgate local copy 1\n"

type copyHeader struct {
	// Store is the identity of the store that it is a copy of; see [Restorer].
	Store    string    `json:"store"`
	Epoch    string    `json:"epoch"`
	Revision uint64    `json:"revision"`
	ID       string    `json:"id"`
	Time     time.Time `json:"time"`
	Items    int       `json:"items"`
}

// WriteCopy writes a dump to a file that only the owner can read: to a new file first, which then takes the place of
// the old one, so that the file is whole at any time. The directory is made if it is missing. identity says which store
// the dump is of.
func WriteCopy(path, identity string, d Dump) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	sum := sha256.New()
	buf := bufio.NewWriterSize(f, 64<<10)
	w := io.MultiWriter(buf, sum)
	header, err := json.Marshal(copyHeader{
		Store: identity, Epoch: d.Epoch, Revision: d.Revision, ID: d.ID, Time: d.Time, Items: len(d.Items),
	})
	if err != nil {
		return err
	}
	b := appendField([]byte(copyMagic), header)
	if _, err := w.Write(b); err != nil {
		return err
	}
	for _, it := range d.Items {
		b = appendField(b[:0], []byte(itemKey(it.Kind, it.ID)))
		b = appendField(b, it.Value)
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	if _, err := buf.Write(sum.Sum(nil)); err != nil {
		return err
	}
	if err := buf.Flush(); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes a rename in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

var errCopyBroken = errors.New("the local copy is damaged")

// ReadCopy reads what [WriteCopy] wrote. A missing file is fs.ErrNotExist.
func ReadCopy(path string) (d Dump, identity string, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Dump{}, "", err
	}
	body, ok := bytes.CutPrefix(b, []byte(copyMagic))
	if !ok || len(body) < sha256.Size {
		return Dump{}, "", errCopyBroken
	}
	sum := sha256.Sum256(b[:len(b)-sha256.Size])
	if !bytes.Equal(sum[:], b[len(b)-sha256.Size:]) {
		return Dump{}, "", errCopyBroken
	}
	body = body[:len(body)-sha256.Size]
	field, body, err := nextField(body)
	if err != nil {
		return Dump{}, "", errCopyBroken
	}
	var h copyHeader
	if err := json.Unmarshal(field, &h); err != nil {
		return Dump{}, "", errCopyBroken
	}
	d.Head = Head{Epoch: h.Epoch, Revision: h.Revision, ID: h.ID, Time: h.Time}
	for len(body) > 0 {
		var key, value []byte
		if key, body, err = nextField(body); err != nil {
			return Dump{}, "", errCopyBroken
		}
		if value, body, err = nextField(body); err != nil {
			return Dump{}, "", errCopyBroken
		}
		kind, id, ok := splitItemKey(string(key))
		if !ok {
			return Dump{}, "", errCopyBroken
		}
		d.Items = append(d.Items, Item{Kind: kind, ID: id, Value: value})
	}
	if len(d.Items) != h.Items {
		return Dump{}, "", fmt.Errorf("%w: %d items instead of %d", errCopyBroken, len(d.Items), h.Items)
	}
	return d, h.Store, nil
}
