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
	default:
		return DroppedError
	}
}
