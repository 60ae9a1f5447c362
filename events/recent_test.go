package events_test

import (
	"errors"
	"strconv"
	"testing"

	"github.com/execgate/execgate/events"
	"github.com/execgate/execgate/queue"
)

func TestRecentDropsWhatWasTaken(t *testing.T) {
	t.Parallel()
	next := &told{more: make(chan struct{}, 1)}
	r := events.NewRecent(next)
	send := func(id string) error { return r.Enqueue(t.Context(), queue.Delivery{ID: id, AggregateID: id}) }
	next.full.Store(true)
	if err := send("a"); !errors.Is(err, queue.ErrFull) {
		t.Errorf("a full queue: %v", err)
	}
	next.full.Store(false)
	for _, id := range []string{"a", "a", "", "", "b", "a"} { // what has no id is never known
		if err := send(id); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(next.ids); got != 4 {
		t.Errorf("%d were taken: %v", got, next.ids)
	}
	for i := range 10_000 {
		if err := send(strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
	}
	if send("a") != nil || send("9999") != nil || len(next.ids) != 10_005 {
		t.Errorf("%d were taken; the oldest is forgotten, the newest not", len(next.ids))
	}
}
