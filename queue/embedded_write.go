package queue

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
)

// embeddedWrite is one change of the file. It runs in the committer's goroutine.
type embeddedWrite struct {
	// apply looks first, and changes only when nothing can go wrong any more: a
	// write that is refused must leave nothing behind, for it shares its
	// transaction.
	apply func(*embeddedTx) error
	// after, if not nil, runs after a commit in which apply had no error, with mu
	// held.
	after func()
}

// embeddedTx is one transaction, with the counters as they are in it.
type embeddedTx struct {
	e       *Embedded
	targets *bolt.Bucket
	stats   map[string]*laneStat // of the lanes that were looked at
	total   laneStat
	err     error // ends the transaction
}

func (e *Embedded) commit(batch []*pending[embeddedWrite]) {
	t := &embeddedTx{e: e, stats: make(map[string]*laneStat)}
	e.mu.Lock()
	for _, lane := range e.lanes {
		t.total.Open += lane.stat.Open
		t.total.OpenBytes += lane.stat.OpenBytes
	}
	e.mu.Unlock()
	err := e.db.Update(func(tx *bolt.Tx) error {
		t.targets = tx.Bucket(bucketTargets)
		for _, p := range batch {
			if p.err = p.what.apply(t); t.err != nil {
				return t.err
			}
		}
		return t.writeStats()
	})
	if err != nil {
		for _, p := range batch {
			p.err = fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for target, stat := range t.stats {
		lane := e.lanes[target]
		if lane == nil {
			lane = &embeddedLane{leased: make(map[string]string)}
			e.lanes[target] = lane
		}
		lane.stat = *stat
	}
	for _, p := range batch {
		if p.err == nil && p.what.after != nil {
			p.what.after()
		}
	}
}

func (t *embeddedTx) writeStats() error {
	for target, stat := range t.stats {
		encoded, err := json.Marshal(stat)
		if err != nil {
			return err
		}
		if b := t.targets.Bucket([]byte(target)); b != nil {
			if err := b.Put(keyStat, encoded); err != nil {
				return err
			}
		}
	}
	return nil
}

// stat returns the counters of a lane, to be changed.
func (t *embeddedTx) stat(target string) *laneStat {
	s := t.stats[target]
	if s == nil {
		s = &laneStat{}
		t.e.mu.Lock()
		if lane := t.e.lanes[target]; lane != nil {
			*s = lane.stat
		}
		t.e.mu.Unlock()
		t.stats[target] = s
	}
	return s
}

// open counts a pending delivery in (1) or out (-1).
func (t *embeddedTx) open(target string, sign, size int) {
	s := t.stat(target)
	s.Open += sign
	s.OpenBytes += int64(sign * size)
	t.total.Open += sign
	t.total.OpenBytes += int64(sign * size)
}

func (t *embeddedTx) lane(target string) *bolt.Bucket { return t.targets.Bucket([]byte(target)) }

func (t *embeddedTx) makeLane(target string) *bolt.Bucket {
	b := t.lane(target)
	if b != nil {
		return b
	}
	b, err := t.targets.CreateBucket([]byte(target))
	if t.fail(err) {
		return nil
	}
	for _, name := range laneBuckets {
		_, err := b.CreateBucket(name)
		t.fail(err)
	}
	return b
}

// fail ends the transaction if there is an error.
func (t *embeddedTx) fail(err error) bool {
	if err != nil {
		t.err = errors.Join(t.err, err)
	}
	return err != nil
}

func (t *embeddedTx) put(b *bolt.Bucket, bucket, key, value []byte) {
	in := b.Bucket(bucket)
	in.FillPercent = 0.9 // most keys grow
	t.fail(in.Put(key, value))
}

func (t *embeddedTx) delete(b *bolt.Bucket, bucket, key []byte) { t.fail(b.Bucket(bucket).Delete(key)) }

// Put implements [Inbox].
func (e *Embedded) Put(ctx context.Context, r *Record) error {
	if len(r.Body) > e.limits.MaxBody && !r.accepted {
		return ErrTooLarge
	}
	if !ValidID(r.ID) || r.Target == "" {
		return errors.New("queue: a delivery needs an id and a target")
	}
	now := time.Now()
	stored := *r
	stored.Created, stored.Since, stored.State = now, now, StatePending
	stored.Size = len(r.Body)
	body := e.o.Sealer.seal(r)
	return e.writes.do(ctx, len(body), embeddedWrite{
		apply: func(t *embeddedTx) error {
			if b := t.lane(stored.Target); b != nil && b.Bucket(bucketHeads).Get([]byte(stored.ID)) != nil {
				return nil
			}
			if !stored.accepted {
				switch {
				case t.stat(stored.Target).Open >= e.limits.MaxPendingPerTarget:
					return ErrTargetFull
				case t.total.Open >= e.limits.MaxPending, t.total.OpenBytes+int64(stored.Size) > e.limits.MaxBytes:
					return ErrFull
				}
			}
			b := t.makeLane(stored.Target)
			if b == nil {
				return t.err
			}
			t.put(b, bucketBodies, []byte(stored.ID), body)
			t.queue(b, &stored, now)
			t.open(stored.Target, 1, stored.Size)
			return nil
		},
		after: func() { e.lookAt(stored.Target, now) },
	})
}

// queue makes a delivery due, or lets it wait for its turn, and stores its head.
func (t *embeddedTx) queue(b *bolt.Bucket, r *Record, due time.Time) {
	r.Next = due
	turn := true
	if r.OrderKey != "" {
		if r.sequence == 0 {
			var err error
			r.sequence, err = b.Bucket(bucketOrder).NextSequence()
			t.fail(err)
			t.put(b, bucketOrder, orderKey(r.OrderKey, r.sequence), []byte(r.ID))
		}
		turn = firstInOrder(b, r.OrderKey) == r.ID
	}
	if turn {
		t.put(b, bucketDue, dueKey(due, r.ID), nil)
	}
	t.put(b, bucketHeads, []byte(r.ID), encodeHead(r))
}

// unqueue takes a pending delivery out of the lane; the next one with its order
// key is due now.
func (t *embeddedTx) unqueue(b *bolt.Bucket, r *Record) {
	t.delete(b, bucketDue, dueKey(r.Next, r.ID))
	if r.OrderKey == "" {
		return
	}
	t.delete(b, bucketOrder, orderKey(r.OrderKey, r.sequence))
	id := firstInOrder(b, r.OrderKey)
	if id == "" {
		return
	}
	next, err := decodeHead(b.Bucket(bucketHeads).Get([]byte(id)))
	if t.fail(err) {
		return
	}
	// It may be there already, when r was not the first.
	t.put(b, bucketDue, dueKey(next.Next, id), nil)
}

func (e *Embedded) lookAt(target string, due time.Time) {
	if lane := e.lanes[target]; lane != nil && due.Before(lane.look) {
		lane.look = due
	}
}

// Settle implements [Worker].
func (e *Embedded) Settle(ctx context.Context, l *Lease, v Verdict) error {
	r := *l.Record // the write may outlive the call
	now := time.Now()
	e.mu.Lock()
	lane := e.lanes[r.Target]
	if lane == nil || lane.leased[r.ID] != l.token {
		e.mu.Unlock()
		return ErrLeaseLost
	}
	if v.Action == Release {
		delete(lane.leased, r.ID)
		e.lookAt(r.Target, now)
		e.mu.Unlock()
		return nil
	}
	e.mu.Unlock()
	return e.writes.do(ctx, 0, embeddedWrite{
		apply: func(t *embeddedTx) error { return t.settle(&r, v, now) },
		after: func() {
			delete(lane.leased, r.ID)
			if v.Action == Retry {
				e.lookAt(r.Target, now.Add(v.After))
			} else if r.OrderKey != "" {
				e.lookAt(r.Target, now)
			}
		},
	})
}

func (t *embeddedTx) settle(r *Record, v Verdict, now time.Time) error {
	b := t.lane(r.Target)
	if b == nil {
		return ErrLeaseLost
	}
	head := b.Bucket(bucketHeads).Get([]byte(r.ID))
	if head == nil {
		return ErrLeaseLost
	}
	stored, err := decodeHead(head)
	if err != nil {
		stored = r // what Lease made of it
	}
	if stored.State != StatePending {
		return ErrLeaseLost
	}
	settled := *r
	switch v.Action {
	case Retry:
		t.delete(b, bucketDue, dueKey(stored.Next, r.ID))
		settled.State = StatePending
		t.queue(b, &settled, now.Add(v.After))
		return nil
	case Delivered:
		settled.State, settled.Ended, settled.Next = StateDelivered, now, time.Time{}
		t.unqueue(b, stored)
		t.open(r.Target, -1, stored.Size)
		t.delete(b, bucketBodies, []byte(r.ID))
		t.put(b, bucketHeads, []byte(r.ID), encodeHead(&settled))
		t.put(b, bucketDone, []byte(r.ID), nil)
		stat := t.stat(r.Target)
		for stat.Done++; stat.Done > t.e.limits.Ledger; stat.Done-- {
			oldest, _ := b.Bucket(bucketDone).Cursor().First()
			t.forget(b, bucketDone, oldest)
		}
	case Dead:
		settled.State, settled.Ended, settled.Next = StateDead, now, time.Time{}
		t.unqueue(b, stored)
		t.open(r.Target, -1, stored.Size)
		t.put(b, bucketHeads, []byte(r.ID), encodeHead(&settled))
		t.put(b, bucketDead, []byte(r.ID), nil)
		stat := t.stat(r.Target)
		stat.Dead++
		stat.DeadBytes += int64(stored.Size)
		t.trimDead(r.Target, b, "")
	default:
		return fmt.Errorf("queue: a lease cannot be settled with action %d", v.Action)
	}
	return nil
}

// trimDead removes the oldest dead letters that are too many, too large together,
// or older than the id, and returns how many.
func (t *embeddedTx) trimDead(target string, b *bolt.Bucket, before string) (n int) {
	stat := t.stat(target)
	for stat.Dead > 0 {
		oldest, _ := b.Bucket(bucketDead).Cursor().First()
		if oldest == nil {
			break
		}
		keep := stat.Dead <= t.e.limits.MaxDead && (stat.DeadBytes <= t.e.limits.MaxDeadBytes || stat.Dead == 1)
		if keep && string(oldest) >= before {
			break
		}
		r, err := decodeHead(b.Bucket(bucketHeads).Get(oldest))
		if t.fail(err) {
			break
		}
		stat.Dead--
		stat.DeadBytes -= int64(r.Size)
		t.forget(b, bucketDead, oldest)
		n++
	}
	return n
}

// forget removes every trace of a delivery that is not pending.
func (t *embeddedTx) forget(b *bolt.Bucket, index, id []byte) {
	id = append([]byte(nil), id...) // bbolt's own memory changes with the deletion
	t.delete(b, index, id)
	t.delete(b, bucketHeads, id)
	t.delete(b, bucketBodies, id)
}

// Replay implements [Desk].
func (e *Embedded) Replay(ctx context.Context, id string) error {
	return e.change(ctx, e.replaying(id))
}

// ReplayEach implements [Desk].
func (e *Embedded) ReplayEach(_ context.Context, listed []*Record) (int, error) {
	return done(e.writes.doAll(each(listed, e.replaying)))
}

// Drop implements [Desk].
func (e *Embedded) Drop(ctx context.Context, id string) error { return e.change(ctx, e.dropping(id)) }

// DropEach implements [Desk].
func (e *Embedded) DropEach(_ context.Context, listed []*Record) (int, error) {
	return done(e.writes.doAll(each(listed, e.dropping)))
}

func each(listed []*Record, write func(id string) embeddedWrite) []embeddedWrite {
	writes := make([]embeddedWrite, len(listed))
	for i, r := range listed {
		writes[i] = write(r.ID)
	}
	return writes
}

func (e *Embedded) replaying(id string) embeddedWrite {
	now := time.Now()
	var target string
	return embeddedWrite{
		apply: func(t *embeddedTx) error {
			b, r, err := t.find(id)
			switch {
			case err != nil:
				return err
			case r.State != StateDead:
				return ErrNotDead
			}
			target = r.Target
			r.State, r.Reason, r.Ended = StatePending, "", time.Time{}
			r.Replayed, r.Since, r.sequence = r.Attempts, now, 0
			t.delete(b, bucketDead, []byte(id))
			stat := t.stat(target)
			stat.Dead--
			stat.DeadBytes -= int64(r.Size)
			t.open(target, 1, r.Size)
			t.queue(b, r, now)
			return nil
		},
		after: func() { e.lookAt(target, now) },
	}
}

func (e *Embedded) dropping(id string) embeddedWrite {
	var target string
	now := time.Now()
	return embeddedWrite{
		apply: func(t *embeddedTx) error {
			b, r, err := t.find(id)
			if err != nil {
				return err
			}
			target = r.Target
			index := bucketDue
			switch stat := t.stat(target); r.State {
			case StateDead:
				index = bucketDead
				stat.Dead--
				stat.DeadBytes -= int64(r.Size)
			case StateDelivered:
				index = bucketDone
				stat.Done--
			default:
				t.unqueue(b, r)
				t.open(target, -1, r.Size)
			}
			t.forget(b, index, []byte(id))
			return nil
		},
		after: func() {
			if lane := e.lanes[target]; lane != nil {
				delete(lane.leased, id)
			}
			e.lookAt(target, now)
		},
	}
}

// Maintain implements [Worker].
func (e *Embedded) Maintain(ctx context.Context) (expired int, err error) {
	before := firstID(time.Now().Add(-e.limits.DeadFor))
	counts, _ := e.Counts(ctx)
	for _, count := range counts {
		if count.Dead == 0 {
			continue
		}
		n := 0
		err := e.change(ctx, embeddedWrite{apply: func(t *embeddedTx) error {
			if b := t.lane(count.Target); b != nil {
				n = t.trimDead(count.Target, b, before)
			}
			return nil
		}})
		if err != nil {
			return expired, err
		}
		expired += n
	}
	return expired, nil
}

// change waits for the write whatever becomes of ctx, so that what its functions
// share with the caller is at rest.
func (e *Embedded) change(ctx context.Context, w embeddedWrite) error {
	return e.writes.do(context.WithoutCancel(ctx), 0, w)
}

func (t *embeddedTx) find(id string) (*bolt.Bucket, *Record, error) {
	b, stored := find(t.targets.Tx(), id)
	if b == nil {
		return nil, nil, ErrNotFound
	}
	r, err := decodeHead(stored)
	return b, r, err
}

func putUint64(to []byte, v uint64) { binary.BigEndian.PutUint64(to, v) }
func getUint64(from []byte) uint64  { return binary.BigEndian.Uint64(from) }
