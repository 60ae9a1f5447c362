package queue

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
)

// SpoolOptions configures [OpenSpool]. Only Path is required.
type SpoolOptions struct {
	// Path is the file; see [EmbeddedOptions].
	Path string
	// MaxBytes is how much the spool may hold. Default 256 MiB.
	MaxBytes int64
	// MaxBody is the size of a payload. Default 32 MiB.
	MaxBody int
	// Sealer encrypts payloads. Nil: they are stored as they are.
	Sealer *Sealer
	// LockTimeout is how long to wait for another process to release the file.
	// Default 1s.
	LockTimeout time.Duration
}

// ErrSpoolFull says that the backend is away, and the spool holds as much as it may.
var ErrSpoolFull = errors.New("spool is full")

// Spool is a bounded file that takes deliveries while the backend is away, and
// gives them back in the order in which they came. What it took is on disk.
type Spool struct {
	o      SpoolOptions
	db     *bolt.DB
	writes *committer[func(*spoolTx) error]

	count, bytes atomic.Int64 // as committed
}

// spoolTx is one transaction, with the counters as they are in it.
type spoolTx struct {
	b            *bolt.Bucket
	count, bytes int64
	err          error
}

var bucketSpool = []byte("spool") // 8 bytes of sequence -> length of the head, head, sealed payload

// OpenSpool opens the spool in a local file.
func OpenSpool(o SpoolOptions) (*Spool, error) {
	if o.Path == "" {
		return nil, errors.New("queue: no path of the spool")
	}
	o.MaxBytes = orDefault(o.MaxBytes, 256<<20)
	o.MaxBody = orDefault(o.MaxBody, 32<<20)
	o.LockTimeout = orDefault(o.LockTimeout, time.Second)
	db, err := openBolt(o.Path, o.LockTimeout)
	if err != nil {
		return nil, err
	}
	s := &Spool{o: o, db: db}
	err = db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(bucketSpool)
		if err != nil {
			return err
		}
		return b.ForEach(func(_, v []byte) error {
			s.count.Add(1)
			s.bytes.Add(int64(len(v)))
			return nil
		})
	})
	if err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("queue: open %s: %w", o.Path, err)
	}
	s.writes = newCommitter(64<<20, s.commit)
	return s, nil
}

// Len returns how many deliveries are in the spool.
func (s *Spool) Len() int { return int(s.count.Load()) }

// Bytes returns how much they take.
func (s *Spool) Bytes() int64 { return s.bytes.Load() }

// Close closes the file.
func (s *Spool) Close() error {
	s.writes.close()
	return s.db.Close()
}

func (s *Spool) commit(batch []*pending[func(*spoolTx) error]) {
	t := &spoolTx{count: s.count.Load(), bytes: s.bytes.Load()}
	err := s.db.Update(func(tx *bolt.Tx) error {
		t.b = tx.Bucket(bucketSpool)
		for _, p := range batch {
			if p.err = p.what(t); t.err != nil {
				return t.err
			}
		}
		return nil
	})
	if err != nil {
		for _, p := range batch {
			p.err = fmt.Errorf("write the spool: %w", err)
		}
		return
	}
	s.count.Store(t.count)
	s.bytes.Store(t.bytes)
}

// put keeps the delivery: ErrSpoolFull, ErrTooLarge, ErrStopped.
func (s *Spool) put(ctx context.Context, r *Record) error {
	if len(r.Body) > s.o.MaxBody && !r.accepted {
		return ErrTooLarge
	}
	stored := *r
	stored.Created, stored.Size = time.Time{}, len(r.Body)
	head, body := encodeHead(&stored), s.o.Sealer.seal(r)
	value := make([]byte, 4, 4+len(head)+len(body))
	binary.BigEndian.PutUint32(value, uint32(len(head)))
	value = append(append(value, head...), body...)
	return s.writes.do(ctx, len(value), func(t *spoolTx) error {
		if t.bytes+int64(len(value)) > s.o.MaxBytes {
			return ErrSpoolFull
		}
		sequence, err := t.b.NextSequence()
		if err == nil {
			key := make([]byte, 8)
			putUint64(key, sequence)
			t.b.FillPercent = 0.9
			err = t.b.Put(key, value)
		}
		t.err = err
		t.count++
		t.bytes += int64(len(value))
		return err
	})
}

// spooled is a delivery in the spool.
type spooled struct {
	key    []byte
	record *Record
	fault  error // why the record has no body, or is nil
}

// first returns the oldest deliveries after the key, of about so many bytes.
func (s *Spool) first(after []byte, limit, size int) (found []spooled, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		cursor := tx.Bucket(bucketSpool).Cursor()
		key, value := cursor.Seek(append(after[:len(after):len(after)], 0))
		for ; key != nil && len(found) < limit && size > 0; key, value = cursor.Next() {
			size -= len(value)
			item := spooled{key: append([]byte(nil), key...)}
			item.record, item.fault = s.decode(value)
			found = append(found, item)
		}
		return nil
	})
	return found, err
}

func (s *Spool) decode(value []byte) (*Record, error) {
	if len(value) < 4 || len(value)-4 < int(binary.BigEndian.Uint32(value)) {
		return nil, ErrDamaged
	}
	length := int(binary.BigEndian.Uint32(value))
	// The prefix of a head, which a spool does not keep: pending, time unknown.
	r, err := decodeHead(append([]byte("p0000000000000"), value[4:4+length]...))
	if err != nil {
		return nil, err
	}
	r.accepted = true
	r.Body, err = s.o.Sealer.open(r, value[4+length:])
	return r, err
}

// remove forgets what the backend has taken.
func (s *Spool) remove(ctx context.Context, keys [][]byte) error {
	return s.writes.do(ctx, 0, func(t *spoolTx) error {
		for _, key := range keys {
			if value := t.b.Get(key); value != nil {
				t.count--
				t.bytes -= int64(len(value))
			}
			if t.err = t.b.Delete(key); t.err != nil {
				return t.err
			}
		}
		return nil
	})
}

// drain gives everything to the inbox, in order, and returns how many it took. It
// stops when the inbox is away. What cannot be read is left, and is an error in
// the end; so is what the inbox refuses for good, which goes.
func (s *Spool) drain(ctx context.Context, inbox Inbox) (n int, err error) {
	var last []byte
	var faults error
	for {
		batch, err := s.first(last, 256, 8<<20)
		if err != nil || len(batch) == 0 {
			return n, errors.Join(err, faults)
		}
		taken, err := s.give(ctx, inbox, batch, &faults)
		if len(taken) > 0 {
			if removeErr := s.remove(ctx, taken); removeErr != nil {
				return n, removeErr
			}
			n += len(taken)
		}
		if err != nil {
			return n, err
		}
		for _, item := range batch {
			faults = firstError(faults, item.fault)
		}
		last = batch[len(batch)-1].key
	}
}

// give puts a batch: at once, but for those with an order key.
func (s *Spool) give(ctx context.Context, inbox Inbox, batch []spooled, faults *error) (taken [][]byte, err error) {
	results := make([]chan error, len(batch))
	for i, item := range batch {
		if item.fault != nil {
			continue
		}
		result := make(chan error, 1)
		results[i] = result
		if item.record.OrderKey == "" {
			go func() { result <- inbox.Put(ctx, item.record) }()
			continue
		}
		putErr := inbox.Put(ctx, item.record)
		result <- putErr
		if transient(ctx, putErr) {
			break // none may overtake it
		}
	}
	for i, result := range results {
		if result == nil {
			continue
		}
		putErr := <-result
		if transient(ctx, putErr) {
			err = firstError(err, putErr)
			continue
		}
		*faults = firstError(*faults, putErr)
		taken = append(taken, batch[i].key)
	}
	return taken, err
}

// transient says whether the same Put may succeed later.
func transient(ctx context.Context, err error) bool {
	return err != nil && (ctx.Err() != nil || errors.Is(err, ErrUnavailable) || errors.Is(err, ErrStopped))
}

func firstError(a, b error) error {
	if a != nil {
		return a
	}
	return b
}
