package queue

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// EmbeddedOptions configures [OpenEmbedded]. Only Path is required.
type EmbeddedOptions struct {
	// Path is the file. It is made if it is missing, with its directory, readable
	// by the owner only. One process at a time can have it open.
	Path string
	// LockTimeout is how long to wait for another process to release the file.
	// Default 1s.
	LockTimeout time.Duration
	// Limits bound what is kept.
	Limits Limits
	// Sealer encrypts payloads. Nil: they are stored as they are.
	Sealer *Sealer
}

// Embedded is a [Backend] in a local bbolt file. A delivery is on disk when Put
// returns; what many goroutines write at the same time shares one fsync. Leases
// are kept in memory, for there is one process only: when it ends, however it
// ends, what was leased is due again at once.
//
// Room that is free is used again; the file shrinks when it is opened, if it is
// large and mostly free.
type Embedded struct {
	o      EmbeddedOptions
	limits Limits
	db     *bolt.DB
	writes *committer[embeddedWrite]

	// mu is held over the whole of a Lease, so that what was settled in the
	// meantime is not leased again out of an old read transaction: its mark goes
	// only after the commit, under mu.
	mu     sync.Mutex
	closed bool
	lanes  map[string]*embeddedLane
	tokens uint64 // given so far
}

var _ Backend = (*Embedded)(nil)

// embeddedLane is what is known about one target beside the file.
type embeddedLane struct {
	stat   laneStat          // as committed
	leased map[string]string // id -> token
	look   time.Time         // when to look again for what is due
	parked time.Time         // until
}

// laneStat is the JSON under keyStat.
type laneStat struct {
	Open      int   `json:"open"`
	OpenBytes int64 `json:"open_bytes"`
	Dead      int   `json:"dead"`
	DeadBytes int64 `json:"dead_bytes"`
	Done      int   `json:"done"`
}

// The layout: bucketTargets holds a bucket per target, with these in it.
var (
	bucketTargets = []byte("targets")
	bucketHeads   = []byte("heads")  // id -> head, whatever the state
	bucketBodies  = []byte("bodies") // id -> sealed payload, unless delivered
	bucketDue     = []byte("due")    // 8 bytes of milliseconds, id -> order key or nothing; pending ones whose turn it is
	bucketDead    = []byte("dead")   // id -> nothing
	bucketDone    = []byte("done")   // id -> nothing
	bucketOrder   = []byte("order")  // order key, 0, 8 bytes of sequence -> id; pending ones with an order key
	keyStat       = []byte("stat")

	laneBuckets = [][]byte{bucketHeads, bucketBodies, bucketDue, bucketDead, bucketDone, bucketOrder}
)

// never is when to look again into a lane in which nothing is due.
const never = 100 * 365 * 24 * time.Hour

// OpenEmbedded opens the queue in a local file. Errors say which file, and what to
// do.
func OpenEmbedded(o EmbeddedOptions) (*Embedded, error) {
	if o.Path == "" {
		return nil, errors.New("queue: no path of the embedded queue")
	}
	if o.LockTimeout <= 0 {
		o.LockTimeout = time.Second
	}
	db, err := openBolt(o.Path, o.LockTimeout)
	if err != nil {
		return nil, err
	}
	e := &Embedded{o: o, limits: o.Limits.complete(), db: db, lanes: make(map[string]*embeddedLane)}
	if err := e.load(); err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("queue: open %s: %w", o.Path, err)
	}
	e.writes = newCommitter(64<<20, e.commit)
	return e, nil
}

// load reads the counters of the lanes.
func (e *Embedded) load() error {
	err := e.db.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucketTargets)
		return err
	})
	if err != nil {
		return err
	}
	lanes := make(map[string]*embeddedLane)
	err = e.db.View(func(tx *bolt.Tx) error {
		targets := tx.Bucket(bucketTargets)
		return targets.ForEachBucket(func(target []byte) error {
			lane := &embeddedLane{leased: make(map[string]string)}
			if err := json.Unmarshal(targets.Bucket(target).Get(keyStat), &lane.stat); err != nil {
				return fmt.Errorf("%w: the counters of a target cannot be read", ErrDamaged)
			}
			lanes[string(target)] = lane
			return nil
		})
	})
	if err == nil {
		e.lanes = lanes
	}
	return err
}

// Close implements [Backend]. What was accepted is on disk.
func (e *Embedded) Close() error {
	e.mu.Lock()
	before := e.closed
	e.closed = true
	e.mu.Unlock()
	e.writes.close()
	if before {
		return nil
	}
	return e.db.Close()
}

// Ready implements [Worker].
func (e *Embedded) Ready(context.Context) (targets []string, wait time.Duration, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, 0, ErrStopped
	}
	now := time.Now()
	wait = never
	for target, lane := range e.lanes {
		switch {
		case lane.stat.Open == len(lane.leased):
		case lane.look.After(now):
			wait = min(wait, lane.look.Sub(now))
		default:
			targets = append(targets, target)
		}
	}
	return targets, wait, nil
}

// Lease implements [Worker].
func (e *Embedded) Lease(_ context.Context, target string, limit int) (leases []*Lease, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	lane := e.lanes[target]
	switch {
	case e.closed:
		return nil, ErrStopped
	case lane == nil || limit <= 0:
		return nil, nil
	}
	now := time.Now()
	look := now.Add(never)
	err = e.db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketTargets).Bucket([]byte(target))
		heads, bodies, cursor := b.Bucket(bucketHeads), b.Bucket(bucketBodies), b.Bucket(bucketDue).Cursor()
		for key, _ := cursor.First(); key != nil; key, _ = cursor.Next() {
			due, id := splitDue(key)
			if due.After(now) {
				look = due
				break
			}
			if _, held := lane.leased[id]; held {
				continue
			}
			if len(leases) == limit {
				look = now
				break
			}
			l := &Lease{Now: now, since: now}
			l.read(target, id, heads.Get([]byte(id)), bodies.Get([]byte(id)), e.o.Sealer)
			l.Record.Next = due // as it is in the key, even if the head is damaged
			leases = append(leases, l)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%w: lease: %w", ErrUnavailable, err)
	}
	for _, l := range leases {
		e.tokens++
		l.token = strconv.FormatUint(e.tokens, 10)
		lane.leased[l.Record.ID] = l.token
	}
	lane.look = look
	return leases, nil
}

// Visibility implements [Worker].
func (e *Embedded) Visibility() time.Duration { return 0 }

// Renew implements [Worker]. Leases last as long as the process.
func (e *Embedded) Renew(context.Context, []*Lease) ([]*Lease, error) { return nil, nil }

// Park implements [Worker].
func (e *Embedded) Park(_ context.Context, target string, d time.Duration) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if lane := e.lanes[target]; lane != nil {
		lane.parked = time.Now().Add(d)
	}
	return nil
}

// Counts implements [Desk].
func (e *Embedded) Counts(context.Context) ([]Count, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	counts := make([]Count, 0, len(e.lanes))
	for target, lane := range e.lanes {
		counts = append(counts, Count{
			Target: target, Pending: lane.stat.Open, Bytes: lane.stat.OpenBytes, Parked: lane.parked.After(now),
			Dead: lane.stat.Dead, Delivered: lane.stat.Done,
		})
	}
	return counts, nil
}

// Get implements [Desk].
func (e *Embedded) Get(_ context.Context, id string) (r *Record, err error) {
	parked := e.parkedLanes()
	err = e.view(func(tx *bolt.Tx) error {
		target, stored := find(tx, id)
		if target == nil {
			return ErrNotFound
		}
		if r, err = decodeHead(stored); err != nil {
			return err
		}
		if r.State == StatePending && parked[r.Target] {
			r.State = StateParked
		}
		if body := target.Bucket(bucketBodies).Get([]byte(id)); body != nil {
			r.Body, err = e.o.Sealer.open(r, body)
		}
		return err
	})
	if err != nil && !errors.Is(err, ErrSealed) {
		return nil, err
	}
	return r, err
}

// find returns the bucket of the target that has the delivery, and its head.
func find(tx *bolt.Tx, id string) (target *bolt.Bucket, stored []byte) {
	targets := tx.Bucket(bucketTargets)
	_ = targets.ForEachBucket(func(name []byte) error {
		if b := targets.Bucket(name); stored == nil {
			if stored = b.Bucket(bucketHeads).Get([]byte(id)); stored != nil {
				target = b
			}
		}
		return nil
	})
	return target, stored
}

// List implements [Desk].
func (e *Embedded) List(_ context.Context, f Filter) (page Page, err error) {
	limit := f.limit()
	parked := e.parkedLanes()
	var found []*Record
	err = e.view(func(tx *bolt.Tx) error {
		targets := tx.Bucket(bucketTargets)
		return targets.ForEachBucket(func(name []byte) error {
			if f.Target != "" && f.Target != string(name) {
				return nil
			}
			r, err := listLane(targets.Bucket(name), &f, limit+1, parked[string(name)])
			found = append(found, r...)
			return err
		})
	})
	if err != nil {
		return Page{}, err
	}
	return newPage(found, limit), nil
}

// listLane returns the newest records of one target.
func listLane(b *bolt.Bucket, f *Filter, limit int, parked bool) (found []*Record, err error) {
	heads := b.Bucket(bucketHeads)
	index := heads
	switch f.State {
	case StateDelivered:
		index = b.Bucket(bucketDone)
	case StateDead:
		index = b.Bucket(bucketDead)
	case StatePending, StateParked:
		if parked != (f.State == StateParked) {
			return nil, nil
		}
	}
	cursor := index.Cursor()
	var key []byte
	if f.Cursor == "" {
		key, _ = cursor.Last()
	} else if key, _ = cursor.Seek([]byte(f.Cursor)); key == nil {
		key, _ = cursor.Last()
	} else {
		key, _ = cursor.Prev()
	}
	pendingOnly := f.State == StatePending || f.State == StateParked
	for ; key != nil && len(found) < limit; key, _ = cursor.Prev() {
		stored := heads.Get(key)
		if len(stored) > 0 && pendingOnly && stored[0] != letterPending {
			continue
		}
		r, err := decodeHead(stored)
		if err != nil {
			return nil, err
		}
		if r.State == StatePending && parked {
			r.State = StateParked
		}
		found = append(found, r)
	}
	return found, nil
}

func (e *Embedded) parkedLanes() map[string]bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	parked := make(map[string]bool)
	for target, lane := range e.lanes {
		if lane.parked.After(now) {
			parked[target] = true
		}
	}
	return parked
}

func (e *Embedded) view(read func(*bolt.Tx) error) error {
	err := e.db.View(read)
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return ErrStopped
	}
	return err
}

func dueKey(due time.Time, id string) []byte {
	key := make([]byte, 8, 8+len(id))
	putUint64(key, uint64(max(due.UnixMilli(), 0)))
	return append(key, id...)
}

func splitDue(key []byte) (due time.Time, id string) {
	return time.UnixMilli(int64(getUint64(key))), string(key[8:])
}

func orderPrefix(key string) []byte { return append([]byte(key), 0) }

func orderKey(key string, sequence uint64) []byte {
	k := append(orderPrefix(key), make([]byte, 8)...)
	putUint64(k[len(k)-8:], sequence)
	return k
}

// firstInOrder returns the first pending delivery with the order key.
func firstInOrder(b *bolt.Bucket, key string) (id string) {
	prefix := orderPrefix(key)
	k, v := b.Bucket(bucketOrder).Cursor().Seek(prefix)
	if k == nil || !bytes.HasPrefix(k, prefix) {
		return ""
	}
	return string(v)
}
