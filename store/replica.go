package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// ReplicaOptions configures a [Replica]. The zero value is usable.
type ReplicaOptions struct {
	// CopyPath is the file that the last known state is copied to and, at the start, read from while the store is away.
	// It is only used with stores that are a [Restorer]. Empty: no copy.
	CopyPath string
	// PollInterval is how often the store's head is asked for, besides the store's own notices. Default 500ms; while the
	// store is away it grows to 2s.
	PollInterval time.Duration
	// Timeout bounds an Update, the wait for the Updates before it included. Default 10s.
	Timeout time.Duration
	// Check may refuse a state before it is adopted or committed: the state before stays. It may be called more than
	// once for one state. Nil: every state that decodes is good.
	Check func(*State) error
	// OnUp is called when [Replica.Up] changes, and once at the start. It must not block.
	OnUp func(up bool)
	// Logger is told about losses, refusals and recoveries. Nil: nothing is logged.
	Logger *slog.Logger
}

const (
	maxPollInterval  = 2 * time.Second
	freshTimeout     = 2 * time.Second
	conflictAttempts = 30
)

// Replica keeps the current [State] of a [Store].
//
// It follows the store: by its notices, and by asking for its head every PollInterval, which heals a missed notice. What
// it does when the store is not simply ahead:
//
//   - The store is away: the last known state stays, also over a restart when there is a local copy. Up is false.
//   - The store is empty or damaged (Redis was restarted without persistence, flushed, or evicted keys), and a state is
//     known: the state is put back, with its revision, so that no veto is lost silently. Of several gateways the one
//     that knows the latest revision wins. To start empty on purpose, delete the items, or stop all gateways and remove
//     their copies.
//   - The store went back to an earlier revision of the same history (a failover lost the last writes, or a backup was
//     put back), or it holds another history that somebody wrote to: the store is the truth and is followed. The state
//     before is kept in the file CopyPath.previous, and an error is logged.
//   - A state does not decode, or Check refuses it: the state before stays, whole. Up is false until the store changes
//     to a good one.
//
// A local copy that was taken from another store (by address, database, prefix or instance) is not used, but moved to
// CopyPath.previous.
type Replica struct {
	store    Store
	restorer Restorer // nil if the store is none
	o        ReplicaOptions
	log      *slog.Logger

	state      atomic.Pointer[State]
	generation atomic.Uint64
	up         atomic.Bool

	sem        chan struct{} // held by whoever compares with the store, or changes it
	copied     *State        // what the local copy held at the start, until a state is known; guarded by sem
	refused    Head          // the head of the last state refused, and why; guarded by sem
	refusedErr error

	notifyMu    sync.Mutex // held while a state is published, so that subscribers see every one in order
	subscribers []func(*State)

	statusMu sync.Mutex
	err      error
	reported bool // OnUp was called

	kick      chan struct{} // the store may have changed
	copyDirty chan struct{} // the state changed since the copy was written

	lifeMu sync.Mutex
	cancel context.CancelFunc // nil before Start and after Stop
	done   chan struct{}
}

// NewReplica returns a replica that is not started. It does not close the store.
func NewReplica(s Store, o ReplicaOptions) *Replica {
	if o.PollInterval <= 0 {
		o.PollInterval = 500 * time.Millisecond
	}
	if o.Timeout <= 0 {
		o.Timeout = 10 * time.Second
	}
	log := o.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	restorer, _ := s.(Restorer)
	return &Replica{
		store:     s,
		restorer:  restorer,
		o:         o,
		log:       log,
		sem:       make(chan struct{}, 1),
		kick:      make(chan struct{}, 1),
		copyDirty: make(chan struct{}, 1),
		err:       fmt.Errorf("%w: not started", ErrUnavailable),
	}
}

// Start loads the state, from the store or else from the local copy, and begins to follow the store. It does not fail
// because the store is away: State stays nil until one is known. ctx ends the first load, not what runs afterwards.
func (r *Replica) Start(ctx context.Context) error {
	r.lifeMu.Lock()
	defer r.lifeMu.Unlock()
	if r.cancel != nil {
		return errors.New("store: replica started twice")
	}
	r.sem <- struct{}{}
	r.readCopy()
	err := r.sync(ctx)
	if err != nil && r.copied != nil {
		r.log.Warn("store: serving the local copy", "revision", r.copied.Revision(), "changed_at", r.copied.Time())
		r.publish(r.copied)
	}
	<-r.sem
	if ctx.Err() != nil {
		return ctx.Err()
	}
	runCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r.cancel, r.done = cancel, make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { r.poll(runCtx) })
	wg.Go(func() { r.watch(runCtx) })
	wg.Go(func() { r.copyLoop(runCtx) })
	go func() {
		wg.Wait()
		close(r.done)
	}()
	return nil
}

// Stop ends what Start began and brings the local copy up to date. Safe to call twice, or before Start. It returns the
// context's error if ctx ends first.
func (r *Replica) Stop(ctx context.Context) error {
	r.lifeMu.Lock()
	defer r.lifeMu.Unlock()
	if r.cancel == nil {
		return nil
	}
	r.cancel()
	select {
	case <-r.done:
		r.cancel = nil
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// State returns the last known state, nil before the first load.
func (r *Replica) State() *State { return r.state.Load() }

// Generation counts the states that this replica has had, 0 before the first.
func (r *Replica) Generation() uint64 { return r.generation.Load() }

// Up says whether the last exchange with the store succeeded and its state is the one served.
func (r *Replica) Up() bool { return r.up.Load() }

// Err says why the replica is not up, nil if it is.
func (r *Replica) Err() error {
	r.statusMu.Lock()
	defer r.statusMu.Unlock()
	return r.err
}

// Subscribe calls f after every change of the state, in order, and at once if a state is known. f must not call
// Update, Fresh or Subscribe.
func (r *Replica) Subscribe(f func(*State)) {
	r.notifyMu.Lock()
	defer r.notifyMu.Unlock()
	r.subscribers = append(r.subscribers, f)
	if s := r.state.Load(); s != nil {
		f(s)
	}
}

// Fresh returns a state that is at least as new as every commit acknowledged before the call, by any process. If the
// store is away it returns the last known state, which may be nil, together with an error that wraps [ErrUnavailable]:
// readers that prefer an old answer to none go on with a non-nil state. When ctx ends first, the error is the context's.
func (r *Replica) Fresh(ctx context.Context) (*State, error) {
	opCtx, cancel := context.WithTimeout(ctx, freshTimeout)
	defer cancel()
	head, err := r.store.Head(opCtx)
	if err == nil {
		if s := r.state.Load(); s != nil && sameHead(s.head, head) {
			return s, nil
		}
	} else if err = r.ownTimeout(ctx, err); !errors.Is(err, ErrDamaged) {
		if errors.Is(err, ErrUnavailable) {
			r.setStatus(err)
			r.wake()
		}
		return r.state.Load(), err
	}
	if err := r.acquire(opCtx); err != nil {
		return r.state.Load(), r.ownTimeout(ctx, err)
	}
	err = r.sync(opCtx)
	<-r.sem
	return r.state.Load(), r.ownTimeout(ctx, err)
}

// acquire takes the semaphore.
func (r *Replica) acquire(ctx context.Context) error {
	select {
	case r.sem <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ownTimeout tells the end of a time limit set here from the end of the caller's context.
func (r *Replica) ownTimeout(caller context.Context, err error) error {
	if err == nil || errors.Is(err, ErrUnavailable) || caller.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%w: no answer in time", ErrUnavailable)
}

// Update changes the store. It calls fn with the newest state; fn returns the items to write, or none for no change, or
// an error, which Update returns as it is. Items that are as they were are left out. When another writer was faster fn is
// called again, with the state after that. Update returns the state after the change; it is already this replica's
// state, and its subscribers were told.
//
// Errors: fn's; [ErrConflict] after many attempts; [ErrUnavailable] when the store is away, within a bounded time, in
// which case nothing is known to be written; an error that is none of these when the items make no valid state. One
// Update runs at a time; fn must not call Update or Fresh.
func (r *Replica) Update(
	ctx context.Context, actor, action string, fn func(*State) ([]Item, error),
) (*State, error) {
	opCtx, cancel := context.WithTimeout(ctx, r.o.Timeout)
	defer cancel()
	if err := r.acquire(opCtx); err != nil {
		return nil, r.ownTimeout(ctx, err)
	}
	defer func() { <-r.sem }()
	for attempt := range conflictAttempts {
		if attempt > 0 {
			// Another gateway was faster: wait up to 10ms, so that both do not meet again.
			select {
			case <-opCtx.Done():
				return nil, r.ownTimeout(ctx, opCtx.Err())
			case <-time.After(mathrand.N(10 * time.Millisecond)):
			}
		}
		if err := r.sync(opCtx); err != nil {
			return nil, r.ownTimeout(ctx, err)
		}
		state := r.state.Load()
		items, err := fn(state)
		if err != nil {
			return nil, err
		}
		if items = changed(state, items); len(items) == 0 {
			return state, nil
		}
		next, err := r.commit(opCtx, state, items, actor, action)
		if !errors.Is(err, ErrConflict) {
			return next, r.ownTimeout(ctx, err)
		}
	}
	return nil, fmt.Errorf("%w %d times in a row", ErrConflict, conflictAttempts)
}

// changed leaves out the items that are as they were.
func changed(s *State, items []Item) []Item {
	var out []Item
	for _, it := range items {
		now, ok := s.Item(it.Kind, it.ID)
		if ok != (it.Value != nil) || !bytes.Equal(now, it.Value) {
			out = append(out, it)
		}
	}
	return out
}

// commit writes items on top of state and adopts the result. The semaphore is held.
func (r *Replica) commit(ctx context.Context, state *State, items []Item, actor, action string) (*State, error) {
	next, err := state.apply(items)
	if err != nil {
		return nil, fmt.Errorf("store: refused: %w", err)
	}
	var forget []Item
	for _, id := range oldestTombstones(next.deadT, MaxTombstones) {
		forget = append(forget, Absent(KindTargetTombstone, id))
	}
	for _, id := range oldestTombstones(next.deadE, MaxTombstones) {
		forget = append(forget, Absent(KindExecutionTombstone, id))
	}
	if len(forget) > 0 {
		items = append(items, forget...)
		if next, err = next.apply(forget); err != nil {
			return nil, fmt.Errorf("store: refused: %w", err)
		}
	}
	c := Commit{
		ID: rand.Text(), Epoch: state.head.Epoch, Base: state.head.Revision, Items: items, Actor: actor, Action: action,
	}
	if c.Epoch == "" {
		c.Epoch = rand.Text()
	}
	c.complete()
	next.head = Head{Epoch: c.Epoch, Revision: c.Base + 1, ID: c.ID, Time: c.Time}
	if r.o.Check != nil {
		if err := r.o.Check(next); err != nil {
			return nil, fmt.Errorf("store: refused: %w", err)
		}
	}
	_, err = r.store.Commit(ctx, c)
	if err != nil {
		if errors.Is(err, ErrUnavailable) {
			r.setStatus(err)
		}
		r.wake() // it may have been written nevertheless
		return nil, err
	}
	r.publish(next)
	r.setStatus(nil)
	return next, nil
}

// publish makes s the current state and tells the subscribers. The semaphore is held.
func (r *Replica) publish(s *State) {
	r.notifyMu.Lock()
	defer r.notifyMu.Unlock()
	r.copied = nil
	r.state.Store(s)
	r.generation.Add(1)
	for _, f := range r.subscribers {
		f(s)
	}
	select {
	case r.copyDirty <- struct{}{}:
	default:
	}
}

// setStatus records the result of an exchange with the store, and tells when it differs from the last.
func (r *Replica) setStatus(err error) {
	r.statusMu.Lock()
	defer r.statusMu.Unlock()
	was, first := r.up.Load(), !r.reported
	r.err, r.reported = err, true
	r.up.Store(err == nil)
	if was == (err == nil) && !first {
		return
	}
	if err != nil {
		r.log.Error("store: away; serving the last known configuration", "error", err, "revision", r.knownRevision())
	} else if !first {
		r.log.Info("store: back", "revision", r.knownRevision())
	}
	if r.o.OnUp != nil {
		r.o.OnUp(err == nil)
	}
}

func (r *Replica) knownRevision() uint64 {
	if s := r.state.Load(); s != nil {
		return s.Revision()
	}
	return 0
}

// wake makes the poll loop look at the store now.
func (r *Replica) wake() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}
