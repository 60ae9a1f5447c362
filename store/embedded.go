package store

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
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

const (
	defaultMaxRevisions = 1000
	defaultMaxLogBytes  = 64 << 20
)

var (
	bucketMeta  = []byte("meta")
	bucketItems = []byte("items") // itemKey -> value
	bucketLog   = []byte("log")   // revision, 8 bytes big endian -> frame of the meta and the frame of items
	keyHead     = []byte("head")
)

// embeddedHead is the JSON under the key head.
type embeddedHead struct {
	Epoch    string    `json:"epoch"`
	Revision uint64    `json:"revision"`
	ID       string    `json:"id"`
	Time     time.Time `json:"time"`
	Oldest   uint64    `json:"oldest"`
	LogBytes int       `json:"log_bytes"`
}

func (h *embeddedHead) head() Head {
	return Head{Epoch: h.Epoch, Revision: h.Revision, ID: h.ID, Time: h.Time, Oldest: h.Oldest}
}

// Embedded is a [Store] in a local bbolt file, for one process at a time. A commit is on disk when it returns.
type Embedded struct {
	o    EmbeddedOptions
	db   *bolt.DB
	head atomic.Pointer[Head]

	mu       sync.Mutex
	closed   bool
	watchers map[chan struct{}]struct{}
}

var _ Store = (*Embedded)(nil)

// OpenEmbedded opens the store in a local file. Errors say which file, what is wrong, and what to do.
func OpenEmbedded(o EmbeddedOptions) (*Embedded, error) {
	if o.Path == "" {
		return nil, errors.New("store: no path of the embedded store")
	}
	if o.LockTimeout <= 0 {
		o.LockTimeout = time.Second
	}
	if o.MaxRevisions <= 0 {
		o.MaxRevisions = defaultMaxRevisions
	}
	if o.MaxLogBytes <= 0 {
		o.MaxLogBytes = defaultMaxLogBytes
	}
	if err := os.MkdirAll(filepath.Dir(o.Path), 0o700); err != nil {
		return nil, fmt.Errorf("store: make the directory of the store file: %w", withHint(err))
	}
	db, err := bolt.Open(o.Path, 0o600, &bolt.Options{Timeout: o.LockTimeout, FreelistType: bolt.FreelistMapType})
	if err != nil {
		return nil, fmt.Errorf("store: open %s: %w", o.Path, withHint(err))
	}
	s := &Embedded{o: o, db: db, watchers: make(map[chan struct{}]struct{})}
	if err := s.prepare(); err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("store: open %s: %w", o.Path, withHint(err))
	}
	return s, nil
}

// withHint adds what an operator can do about a fault of the file.
func withHint(err error) error {
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return errors.New("another process holds the file; an embedded store serves one gateway: stop the other one, " +
			"choose another store.embedded.path, or use store.driver redis")
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w; the user that runs the gateway must be able to write the file and its directory", err)
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum),
		errors.Is(err, bolterrors.ErrVersionMismatch):
		return fmt.Errorf("not a store file, or damaged (%w); put a backup in its place, or move it away to start empty", err)
	default:
		return err
	}
}

// prepare narrows the file's mode, makes the buckets and reads the head.
func (s *Embedded) prepare() error {
	fi, err := os.Stat(s.o.Path)
	if err != nil {
		return err
	}
	if fi.Mode().Perm()&0o077 != 0 {
		if err := os.Chmod(s.o.Path, 0o600); err != nil {
			return err
		}
	}
	return s.db.Update(func(tx *bolt.Tx) error {
		for _, name := range [][]byte{bucketMeta, bucketItems, bucketLog} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		h, err := readHead(tx)
		if err != nil {
			return err
		}
		head := h.head()
		s.head.Store(&head)
		return nil
	})
}

func readHead(tx *bolt.Tx) (embeddedHead, error) {
	var h embeddedHead
	if v := tx.Bucket(bucketMeta).Get(keyHead); v != nil {
		if err := json.Unmarshal(v, &h); err != nil {
			return h, fmt.Errorf("read the head: %w", err)
		}
	}
	return h, nil
}

// Head implements [Store].
func (s *Embedded) Head(ctx context.Context) (Head, error) {
	if err := ctx.Err(); err != nil {
		return Head{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return Head{}, fmt.Errorf("%w: the file is closed", ErrUnavailable)
	}
	return *s.head.Load(), nil
}

// Load implements [Store].
func (s *Embedded) Load(ctx context.Context) (Dump, error) {
	if err := ctx.Err(); err != nil {
		return Dump{}, err
	}
	var d Dump
	err := s.db.View(func(tx *bolt.Tx) error {
		h, err := readHead(tx)
		if err != nil {
			return err
		}
		d.Head = h.head()
		return tx.Bucket(bucketItems).ForEach(func(k, v []byte) error {
			kind, id, ok := splitItemKey(string(k))
			if !ok {
				return fmt.Errorf("%w: key of %d bytes", ErrDamaged, len(k))
			}
			d.Items = append(d.Items, Item{Kind: kind, ID: id, Value: append(make([]byte, 0, len(v)), v...)})
			return nil
		})
	})
	if err != nil {
		return Dump{}, unavailable("load", err)
	}
	return d, nil
}

// unavailable wraps a fault of the file.
func unavailable(doing string, err error) error {
	return fmt.Errorf("%w: %s: %w", ErrUnavailable, doing, err)
}

// errCommitted ends a transaction of a commit that was applied before.
type errCommitted uint64

func (e errCommitted) Error() string { return "committed before" }

// Commit implements [Store].
func (s *Embedded) Commit(ctx context.Context, c Commit) (uint64, error) {
	if err := c.validate(); err != nil {
		return 0, err
	}
	c.complete()
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	var head Head
	err := s.db.Update(func(tx *bolt.Tx) error {
		var err error
		head, err = s.write(tx, &c)
		return err
	})
	var committed errCommitted
	switch {
	case errors.As(err, &committed):
		return uint64(committed), nil
	case errors.Is(err, ErrConflict):
		return 0, err
	case err != nil:
		return 0, unavailable("commit", err)
	}
	s.publish(head)
	return head.Revision, nil
}

// publish makes head the current one, unless a later commit was faster, and wakes the watchers.
func (s *Embedded) publish(head Head) {
	for {
		now := s.head.Load()
		if now.Revision >= head.Revision || s.head.CompareAndSwap(now, &head) {
			break
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for wake := range s.watchers {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}

func (s *Embedded) write(tx *bolt.Tx, c *Commit) (Head, error) {
	h, err := readHead(tx)
	if err != nil {
		return Head{}, err
	}
	log, items := tx.Bucket(bucketLog), tx.Bucket(bucketItems)
	if h.Revision != c.Base || (h.Revision > 0 && c.Epoch != "" && c.Epoch != h.Epoch) {
		if entry := log.Get(revisionKey(c.Base + 1)); entry != nil {
			r, err := decodeEntry(c.Base+1, entry)
			if err != nil {
				return Head{}, err
			}
			if r.ID == c.ID {
				return Head{}, errCommitted(r.Number)
			}
		}
		return Head{}, fmt.Errorf("%w: at revision %d, not %d", ErrConflict, h.Revision, c.Base)
	}
	if h.Revision == 0 {
		if h.Epoch = c.Epoch; h.Epoch == "" {
			h.Epoch = rand.Text()
		}
	}
	h.Revision++
	h.ID, h.Time = c.ID, c.Time

	meta, err := (&revisionMeta{ID: c.ID, Time: c.Time, Actor: c.Actor, Action: c.Action}).encode()
	if err != nil {
		return Head{}, err
	}
	entry := appendField(nil, meta)
	for _, it := range c.Items {
		key := []byte(itemKey(it.Kind, it.ID))
		entry = appendField(entry, key)
		entry = appendField(entry, items.Get(key))
		entry = appendField(entry, it.Value)
		if it.Value == nil {
			err = items.Delete(key)
		} else {
			err = items.Put(key, it.Value)
		}
		if err != nil {
			return Head{}, err
		}
	}
	if err := log.Put(revisionKey(h.Revision), entry); err != nil {
		return Head{}, err
	}
	if h.Oldest == 0 {
		h.Oldest = h.Revision
	}
	h.LogBytes += len(entry)
	if err := s.trim(log, &h); err != nil {
		return Head{}, err
	}
	value, err := json.Marshal(&h)
	if err != nil {
		return Head{}, err
	}
	return h.head(), tx.Bucket(bucketMeta).Put(keyHead, value)
}

// trim removes the oldest entries of the log until it is within its bounds.
func (s *Embedded) trim(log *bolt.Bucket, h *embeddedHead) error {
	for h.Oldest < h.Revision &&
		(h.Revision-h.Oldest+1 > uint64(s.o.MaxRevisions) || h.LogBytes > s.o.MaxLogBytes) {
		key := revisionKey(h.Oldest)
		h.LogBytes -= len(log.Get(key))
		if err := log.Delete(key); err != nil {
			return err
		}
		h.Oldest++
	}
	return nil
}

func revisionKey(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func decodeEntry(number uint64, entry []byte) (Revision, error) {
	meta, items, err := nextField(entry)
	if err != nil {
		return Revision{}, fmt.Errorf("revision %d: %w", number, err)
	}
	return decodeRevision(number, meta, items)
}

// Revisions implements [Store].
func (s *Embedded) Revisions(ctx context.Context, after uint64, limit int) ([]Revision, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var revs []Revision
	err := s.db.View(func(tx *bolt.Tx) error {
		h, err := readHead(tx)
		if err != nil || after >= h.Revision {
			return err
		}
		if after+1 < h.Oldest {
			return fmt.Errorf("%w: oldest is %d", ErrCompacted, h.Oldest)
		}
		cursor := tx.Bucket(bucketLog).Cursor()
		for k, v := cursor.Seek(revisionKey(after + 1)); k != nil && (limit <= 0 || len(revs) < limit); k, v = cursor.Next() {
			// The entry's bytes are the file's only as long as the transaction lasts.
			r, err := decodeEntry(binary.BigEndian.Uint64(k), append([]byte(nil), v...))
			if err != nil {
				return err
			}
			revs = append(revs, r)
		}
		return nil
	})
	if errors.Is(err, ErrCompacted) {
		return nil, err
	}
	if err != nil {
		return nil, unavailable("read the revision log", err)
	}
	return revs, nil
}

// Watch implements [Store].
func (s *Embedded) Watch(ctx context.Context, notify func(revision uint64)) error {
	wake := make(chan struct{}, 1)
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return fmt.Errorf("%w: the file is closed", ErrUnavailable)
	}
	s.watchers[wake] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.watchers, wake)
		s.mu.Unlock()
	}()
	notify(0)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wake:
			s.mu.Lock()
			closed := s.closed
			s.mu.Unlock()
			if closed {
				return fmt.Errorf("%w: the file is closed", ErrUnavailable)
			}
			notify(s.head.Load().Revision)
		}
	}
}

// Close implements [Store]. It waits for transactions that are running, and releases the file.
func (s *Embedded) Close() error {
	s.mu.Lock()
	s.closed = true
	for wake := range s.watchers {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	s.mu.Unlock()
	return s.db.Close()
}
