package store

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// ReplicaOptions configures a [Replica]. The zero value is usable.
type ReplicaOptions struct {
	// CopyPath is the file that the last known state is copied to and, at the start, read from while the store is away.
	// It is only used with stores that are a [Restorer]. Empty: no copy.
	CopyPath string
	// PollInterval is how often the store's head is asked for, besides the store's own notices. Default 500ms.
	PollInterval time.Duration
	// Timeout bounds every exchange with the store. Default 3s.
	Timeout time.Duration
	// Check may refuse a state before it is adopted or committed: the state before stays. It may be called more than
	// once for one state. Nil: every state that decodes is good.
	Check func(*State) error
	// OnUp is called when [Replica.Up] changes, and once at the start. It must not block.
	OnUp func(up bool)
	// Logger is told about losses, refusals and recoveries. Nil: nothing is logged.
	Logger *slog.Logger
}

// Replica keeps the current [State] of a [Store].
type Replica struct{}

// NewReplica returns a replica that is not started. It does not close the store.
func NewReplica(s Store, o ReplicaOptions) *Replica { return &Replica{} }

// Start loads the state, from the store or else from the local copy, and begins to follow the store. It does not fail
// because the store is away: State stays nil until one is known.
func (r *Replica) Start(ctx context.Context) error { return errors.ErrUnsupported }

// Stop ends what Start began and brings the local copy up to date. Safe to call twice, or before Start.
func (r *Replica) Stop(ctx context.Context) error { return errors.ErrUnsupported }

// State returns the last known state, nil before the first load.
func (r *Replica) State() *State { return nil }

// Fresh returns a state that is at least as new as every commit acknowledged before the call, by any process. If the
// store is away it returns the last known state, which may be nil, together with an error that wraps [ErrUnavailable]:
// readers that prefer an old answer to none go on with a non-nil state.
func (r *Replica) Fresh(ctx context.Context) (*State, error) { return nil, errors.ErrUnsupported }

// Update changes the store. It calls fn with the newest state; fn returns the items to write, or none for no change, or
// an error, which Update returns as it is. When another writer was faster fn is called again, with the state after
// that. Update returns the state after the change; it is already this replica's state, and its subscribers were told.
// Errors: fn's; [ErrConflict] after many attempts; [ErrUnavailable] when the store is away. One Update runs at a time;
// fn must not call Update or Fresh.
func (r *Replica) Update(ctx context.Context, actor, action string, fn func(*State) ([]Item, error)) (*State, error) {
	return nil, errors.ErrUnsupported
}

// Subscribe calls f after every change of the state, in order, and at once if a state is known. f must not call
// Update, Fresh or Subscribe.
func (r *Replica) Subscribe(f func(*State)) {}

// Up says whether the last exchange with the store succeeded and its state is the one served.
func (r *Replica) Up() bool { return false }

// Err says why the replica is not up, nil if it is.
func (r *Replica) Err() error { return nil }

// Generation counts the states that this replica has had, 0 before the first.
func (r *Replica) Generation() uint64 { return 0 }
