package events

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/execgate/execgate/dispatcher"
	"github.com/execgate/execgate/queue"
)

// ErrNotLoaded says that there is no configuration yet, so that nobody can tell
// what an event matches.
var ErrNotLoaded = errors.New("configuration of the gateway is not loaded")

// Outcomes of an event, as the metric shows them.
const (
	Queued    = "queued"    // safely in the queue
	Unmatched = "unmatched" // no execution wants it
	Failed    = "failed"    // the queue did not take it
	TooOld    = "too_old"   // polled later than events.poll.max_age
)

// SinkOptions configure a [Sink]. Snapshot and Queue are required.
type SinkOptions struct {
	// Snapshot returns the configuration that events go by, nil while there is
	// none.
	Snapshot func() *dispatcher.Snapshot
	// Queue keeps what is to be delivered.
	Queue dispatcher.Queue
	// Observer is told the source and the outcome of every event: Queued,
	// Unmatched, Failed or TooOld. Nil: nobody is.
	Observer func(source, outcome string)
}

// Sink puts events into the queue. It is safe for concurrent use.
type Sink struct{ o SinkOptions }

// NewSink returns a sink.
func NewSink(o SinkOptions) *Sink {
	if o.Observer == nil {
		o.Observer = func(string, string) {}
	}
	return &Sink{o: o}
}

// Accept matches the event against the configuration of now. If an execution
// wants it, one delivery tells all its targets, in order. When Accept returns nil,
// the delivery is kept, or nobody wants the event, or the queue knows it already.
// The source is a label: "ingest", "poll" or "derive".
func (s *Sink) Accept(ctx context.Context, source string, e *Event) error {
	snapshot := s.o.Snapshot()
	if snapshot == nil {
		s.o.Observer(source, Failed)
		return ErrNotLoaded
	}
	plan := snapshot.Event(e.Type)
	if plan == nil {
		s.o.Observer(source, Unmatched)
		return nil
	}
	body, err := e.Envelope()
	if err != nil {
		s.o.Observer(source, Failed)
		return &FormatError{"the event has no JSON form", err}
	}
	targets := slices.Clone(plan.Targets)
	for i, t := range targets {
		if plan.Shadow { // what one says keeps no other from being told
			copied := *t
			copied.InterruptOnError = false
			targets[i] = &copied
		}
	}
	err = s.o.Queue.Enqueue(ctx, queue.Delivery{
		Execution: plan.Execution, Target: targets[0], Then: targets[1:], Body: body,
		ID: e.DeliveryID(time.Now()), Kind: queue.KindEvent, UserID: e.UserID, AggregateID: e.AggregateID,
	})
	if err != nil {
		s.o.Observer(source, Failed)
		return fmt.Errorf("queue the event: %w", err)
	}
	s.o.Observer(source, Queued)
	return nil
}

// Permanent says of an error of Accept that the event would not be taken the next
// time either.
func Permanent(err error) bool { return AsFormatError(err) != nil || errors.Is(err, queue.ErrTooLarge) }
