package events

import (
	"context"
	"sync"

	"github.com/execgate/execgate/dispatcher"
	"github.com/execgate/execgate/queue"
)

// recentIDs is how many ids a [Recent] knows.
const recentIDs = 10_000

// Recent is a queue that drops what it took before, by its id, in front of one
// that does not. It knows the last 10,000 ids of the process. It is safe for
// concurrent use.
type Recent struct {
	next dispatcher.Queue

	mu    sync.Mutex
	known map[string]struct{}
	ring  []string // the ids in known, the oldest at oldest once it is full
	at    int
}

// NewRecent returns a queue in front of next.
func NewRecent(next dispatcher.Queue) *Recent {
	return &Recent{next: next, known: map[string]struct{}{}}
}

// Enqueue hands a delivery on, unless it is known. One that is not taken is not
// known.
func (r *Recent) Enqueue(ctx context.Context, d queue.Delivery) error {
	if d.ID == "" {
		return r.next.Enqueue(ctx, d)
	}
	r.mu.Lock()
	defer r.mu.Unlock() // until it is taken: a repetition must not be told that it was
	if _, ok := r.known[d.ID]; ok {
		return nil
	}
	if err := r.next.Enqueue(ctx, d); err != nil {
		return err
	}
	r.known[d.ID] = struct{}{}
	if len(r.ring) < recentIDs {
		r.ring = append(r.ring, d.ID)
		return nil
	}
	delete(r.known, r.ring[r.at])
	r.ring[r.at] = d.ID
	r.at = (r.at + 1) % recentIDs
	return nil
}
