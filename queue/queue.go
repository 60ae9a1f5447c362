package queue

import (
	"context"
	"errors"
	"time"

	"github.com/execgate/execgate/targetclient"
)

// Delivery is one payload for one target.
type Delivery struct {
	// Execution is the id of the execution that asks for it; for the log.
	Execution string
	// Target is the target as configured when the delivery was made. A later
	// change of the configuration does not change it.
	Target *targetclient.Target
	// Body is the payload. It may be shared: nobody changes it.
	Body []byte

	// What follows matters to [Durable] only, but for Then.

	// ID makes the delivery known, so that the same one is not taken twice; see
	// [IDFor]. Empty: a new one.
	ID string
	// Kind says what it tells. Zero: an async call.
	Kind Kind
	// UserID and AggregateID are what the target may want to be kept in order.
	UserID, AggregateID string
	// Then are told the same after Target, in order: each when the one before it
	// was delivered, or failed once without InterruptOnError. When one with
	// InterruptOnError is given up, those after it are not told.
	Then []*targetclient.Target
}

// Caller makes one call to one target, bounded by the target's own timeout.
// [*targetclient.Client] is one.
type Caller interface {
	Do(ctx context.Context, call targetclient.Call) (targetclient.Result, error)
}

// Observer is told what became of deliveries. Its methods are called from many
// goroutines and must not block.
type Observer interface {
	// TargetCall reports a call that was made, or refused before it was sent:
	// the target's name, "ok" or a [targetclient.Reason], and how long it took.
	TargetCall(target, outcome string, d time.Duration)
	// AsyncDropped reports an accepted delivery that was given up. The only
	// reason is [DroppedShutdown].
	AsyncDropped(reason string)
}

// DeliveryObserver is what an Observer can be as well, to be told what became of
// durable deliveries.
type DeliveryObserver interface {
	// DeliverySettled reports the end of an attempt: the target's name (its id, if
	// it has none) and "delivered", "retried" or a reason for a dead letter.
	DeliverySettled(target, outcome string)
	// DeliverySpooled reports that the backend was away and the spool took one.
	DeliverySpooled()
}

// Why a queue does not take a delivery.
var (
	// ErrFull: the queue holds as many deliveries as it may.
	ErrFull = errors.New("queue is full")
	// ErrTargetFull: the queue holds as many deliveries for this target as it
	// may.
	ErrTargetFull = errors.New("queue is full for the target")
	// ErrStopped: the queue has not been started, or is being stopped.
	ErrStopped = errors.New("queue is stopped")
)

// The reasons for which deliveries are dropped: a closed set, which is also the
// label of the metric.
const (
	DroppedFull       = "full"        // ErrFull
	DroppedTargetFull = "target_full" // ErrTargetFull
	DroppedStopped    = "stopped"     // ErrStopped
	DroppedShutdown   = "shutdown"    // accepted, but still there at the end of the drain
	DroppedTooLarge   = "too_large"   // ErrTooLarge
	DroppedSpoolFull  = "spool_full"  // ErrSpoolFull
	DroppedAway       = "unavailable" // ErrUnavailable
	DroppedError      = "error"       // any other error of a queue
)

// DropReason returns the reason that stands for an error of Enqueue.
func DropReason(err error) string {
	switch {
	case errors.Is(err, ErrFull):
		return DroppedFull
	case errors.Is(err, ErrTargetFull):
		return DroppedTargetFull
	case errors.Is(err, ErrStopped):
		return DroppedStopped
	case errors.Is(err, ErrTooLarge):
		return DroppedTooLarge
	case errors.Is(err, ErrSpoolFull):
		return DroppedSpoolFull
	case errors.Is(err, ErrUnavailable):
		return DroppedAway
	default:
		return DroppedError
	}
}
