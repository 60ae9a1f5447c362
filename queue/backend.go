package queue

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"
)

// Inbox takes deliveries.
type Inbox interface {
	// Put keeps the delivery. When it returns nil, the delivery is as safe as the
	// backend can make it. A delivery whose id is known already is not taken
	// again, which is no error. The record is not changed and not kept.
	//
	// Errors: [ErrTooLarge], [ErrFull], [ErrTargetFull], [ErrStopped];
	// [ErrUnavailable] when the backend is away, which may mean that the delivery
	// was taken all the same: put it again, with the same id.
	Put(ctx context.Context, r *Record) error
}

// Worker is what a runner needs. Times are relative, so that the backend's clock
// alone decides.
type Worker interface {
	// Ready returns the ids of the targets for which something may be due, and
	// how long it is until the next one is due, as far as the backend knows.
	Ready(ctx context.Context) (targets []string, wait time.Duration, err error)
	// Lease takes at most limit deliveries that are due out of the target's lane.
	// Nobody else gets them until they are settled, or until the backend's
	// visibility has passed without [Worker.Renew].
	Lease(ctx context.Context, target string, limit int) ([]*Lease, error)
	// Visibility is how long a lease lasts without being renewed; 0: as long as
	// the process.
	Visibility() time.Duration
	// Renew prolongs leases and returns those that are lost: they passed to
	// somebody else.
	Renew(ctx context.Context, leases []*Lease) (lost []*Lease, err error)
	// Settle ends a lease. The record of the lease is stored as it is now, but
	// for its body. ErrLeaseLost: the delivery is somebody else's, or gone;
	// nothing was changed. ErrUnavailable: settle it again.
	Settle(ctx context.Context, l *Lease, v Verdict) error
	// Park marks the target's deliveries as parked for so long, or (0) as not
	// parked. It only concerns what is shown: who leases decides for himself.
	Park(ctx context.Context, target string, d time.Duration) error
	// Maintain removes what has been kept long enough, and returns how many dead
	// letters that were.
	Maintain(ctx context.Context) (expired int, err error)
}

// Desk is what an operator needs.
type Desk interface {
	// Get returns a delivery with its payload. ErrNotFound: nobody knows it (any
	// more). ErrSealed: no key opens the payload; the record comes without it.
	Get(ctx context.Context, id string) (*Record, error)
	// List returns deliveries, the newest ids first, without payloads.
	List(ctx context.Context, f Filter) (Page, error)
	// Replay makes a dead letter pending, due at once, with all its attempts
	// before it. ErrNotFound; ErrNotDead.
	Replay(ctx context.Context, id string) error
	// Drop forgets a delivery in whatever state. An attempt that is running goes
	// on, but is the last. ErrNotFound.
	Drop(ctx context.Context, id string) error
	// ReplayEach and DropEach do so to deliveries that List returned, in this
	// order and many at once, and return to how many: those that are not dead or
	// not there any more are left out.
	ReplayEach(ctx context.Context, listed []*Record) (int, error)
	DropEach(ctx context.Context, listed []*Record) (int, error)
	// Counts returns what is kept, by target.
	Counts(ctx context.Context) ([]Count, error)
}

// Backend keeps deliveries until they are done with. [Embedded] and [Redis] are
// the two. All methods are safe for concurrent use.
type Backend interface {
	Inbox
	Worker
	Desk
	// Close ends the backend; what was leased stays in it. Later calls fail with
	// ErrStopped or ErrUnavailable.
	Close() error
}

// Errors of a backend, beside ErrFull, ErrTargetFull and ErrStopped.
var (
	// ErrUnavailable: the backend cannot be reached, or cannot write.
	ErrUnavailable = errors.New("queue is unavailable")
	// ErrTooLarge: the payload is larger than a delivery may be.
	ErrTooLarge = errors.New("payload is too large for the queue")
	// ErrNotFound: there is no such delivery.
	ErrNotFound = errors.New("delivery not found")
	// ErrNotDead: only dead letters are replayed.
	ErrNotDead = errors.New("delivery is not a dead letter")
	// ErrLeaseLost: the lease ended before it was settled.
	ErrLeaseLost = errors.New("lease is lost")
	// ErrSealed: the payload is encrypted with a key that is not there.
	ErrSealed = errors.New("payload is encrypted with an unknown key")
	// ErrDamaged: what is stored cannot be understood.
	ErrDamaged = errors.New("queue is damaged")
)

// Lease is a delivery that a worker holds.
type Lease struct {
	// Record is the worker's own: it writes down there what happened.
	Record *Record
	// Now was the backend's time when the lease was given.
	Now time.Time
	// Fault is why the record has no body: ErrSealed or ErrDamaged.
	Fault error

	token string    // of the backend
	since time.Time // Now, by this process's clock

	// Guarded by the mutex of the Durable that holds it.

	renewed  time.Time // when the last renewal that succeeded was asked for
	settling bool      // its end is being written
	lost     bool
}

// read fills in what is stored. A head that cannot be read is a fault of this
// delivery, not of its lane.
func (l *Lease) read(target, id string, stored, body []byte, s *Sealer) {
	if l.Record, l.Fault = decodeHead(stored); l.Fault != nil {
		l.Record = &Record{ID: id, Target: target, Created: l.Now, Since: l.Now, State: StatePending, Size: max(len(body)-1, 0)}
		return
	}
	l.Record.Body, l.Fault = s.open(l.Record, body)
}

// clock is the backend's time now, as far as it is known here.
func (l *Lease) clock() time.Time { return l.Now.Add(time.Since(l.since)) }

// Action says what becomes of a leased delivery.
type Action uint8

// The actions.
const (
	// Delivered ends it; it goes into the ledger and loses its payload.
	Delivered Action = iota + 1
	// Retry makes it due again after the verdict's time.
	Retry
	// Dead makes it a dead letter.
	Dead
	// Release hands it back as if it had not been leased.
	Release
)

// Verdict is how a lease is settled.
type Verdict struct {
	Action Action
	After  time.Duration // for Retry
}

// Filter selects deliveries. The zero value is all of them.
type Filter struct {
	State  State  // 0: all
	Target string // id; "": all
	// Limit is how many are returned. Default 100, at most 1000.
	Limit int
	// Cursor is the Next of the page before.
	Cursor string
}

func (f *Filter) limit() int {
	if f.Limit <= 0 {
		return 100
	}
	return min(f.Limit, 1000)
}

// Page is a part of a list.
type Page struct {
	Records []*Record
	Next    string // cursor of the next page; "": this is the last
}

// Count is what a backend keeps for one target.
type Count struct {
	Target string
	// Pending are waiting, leased or parked; Bytes are their payloads.
	Pending int
	Bytes   int64
	// Parked says that they are parked.
	Parked bool
	Dead   int
	// Delivered are those in the ledger, not all that ever were.
	Delivered int
}

// Limits bound what a backend keeps. A zero field stands for its default.
type Limits struct {
	// MaxBody is the size of a payload. Default 32 MiB.
	MaxBody int
	// MaxPending is how many deliveries may be pending, parked ones included.
	// Default 2,000,000.
	MaxPending int
	// MaxPendingPerTarget is how many of them may be for one target. Default:
	// half of MaxPending.
	MaxPendingPerTarget int
	// MaxBytes is how much their payloads may take together. Default 2 GiB.
	MaxBytes int64
	// Ledger is how many delivered ones are remembered for each target, without
	// payload. Default 1000; negative: none.
	Ledger int
	// MaxDead is how many dead letters are kept for each target; the oldest goes.
	// Default 10,000.
	MaxDead int
	// MaxDeadBytes is how much the payloads of a target's dead letters may take;
	// the oldest go. Default 256 MiB.
	MaxDeadBytes int64
	// DeadFor is how long after its making a dead letter is kept. Default 30 days.
	DeadFor time.Duration
}

func (l Limits) complete() Limits {
	l.MaxBody = orDefault(l.MaxBody, 32<<20)
	l.MaxPending = orDefault(l.MaxPending, 2_000_000)
	l.MaxPendingPerTarget = orDefault(l.MaxPendingPerTarget, max(l.MaxPending/2, 1))
	l.MaxBytes = orDefault(l.MaxBytes, 2<<30)
	switch {
	case l.Ledger == 0:
		l.Ledger = 1000
	case l.Ledger < 0:
		l.Ledger = 0
	}
	l.MaxDead = orDefault(l.MaxDead, 10_000)
	l.MaxDeadBytes = orDefault(l.MaxDeadBytes, 256<<20)
	l.DeadFor = orDefault(l.DeadFor, 30*24*time.Hour)
	return l
}

func orDefault[T ~int | ~int64](value, standard T) T {
	if value <= 0 {
		return standard
	}
	return value
}

// ReplayAll replays every dead letter that the filter selects (its state is
// ignored), the oldest first, and returns how many. It ends at the first error,
// and with ctx.
func ReplayAll(ctx context.Context, d Desk, f Filter) (n int, err error) {
	f.State = StateDead
	cursors := []string{f.Cursor}
	for { // the newest are listed first
		page, err := d.List(ctx, f)
		if err != nil {
			return 0, err
		}
		if page.Next == "" {
			break
		}
		f.Cursor = page.Next
		cursors = append(cursors, page.Next)
	}
	last := ""
	for _, cursor := range slices.Backward(cursors) {
		f.Cursor = cursor
		page, err := d.List(ctx, f)
		if err != nil {
			return n, err
		}
		// What was replayed already may be dead again by now.
		page.Records = slices.DeleteFunc(page.Records, func(r *Record) bool { return r.ID < last })
		last = cursor
		slices.Reverse(page.Records)
		replayed, err := d.ReplayEach(ctx, page.Records)
		n += replayed
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// DropAll drops every delivery that the filter selects, the newest first, and
// returns how many. It ends as ReplayAll does.
func DropAll(ctx context.Context, d Desk, f Filter) (n int, err error) {
	for {
		page, err := d.List(ctx, f)
		if err != nil {
			return n, err
		}
		dropped, err := d.DropEach(ctx, page.Records)
		n += dropped
		if err != nil || page.Next == "" {
			return n, err
		}
		f.Cursor = page.Next
	}
}

// done counts those of many that had no error. Those that are gone, or not dead
// any more, are no error of the whole.
func done(errs []error) (n int, err error) {
	for _, each := range errs {
		switch {
		case each == nil:
			n++
		case !errors.Is(each, ErrNotFound) && !errors.Is(each, ErrNotDead):
			err = firstError(err, each)
		}
	}
	return n, err
}

// newPage makes a page of what was found, which may be more than fits.
func newPage(found []*Record, limit int) Page {
	slices.SortFunc(found, func(a, b *Record) int { return strings.Compare(b.ID, a.ID) })
	if len(found) <= limit {
		return Page{Records: found}
	}
	return Page{Records: found[:limit], Next: found[limit-1].ID}
}
