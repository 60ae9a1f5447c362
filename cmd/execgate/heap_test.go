package main

import (
	"testing"
	"time"
)

func TestHeapTunerGivesRoomWhileCollectionsComeOften(t *testing.T) {
	t.Parallel()
	const live = 4 << 20
	h := &heapTuner{percent: 100, set: 100}
	now := time.Now()
	collect := func(after time.Duration, live uint64) int {
		now = now.Add(after)
		h.set = h.percentFor(now, live)
		return h.set
	}
	for range 2 * oftenCycles {
		if got := collect(time.Second, live); got != 100 {
			t.Fatalf("rare collections: %d", got)
		}
	}
	for i := range oftenCycles {
		if got, want := collect(10*time.Millisecond, live), 100; i < oftenCycles-1 && got != want {
			t.Fatalf("collection %d: %d, want %d", i, got, want)
		}
	}
	if got := collect(10*time.Millisecond, live); got != 400 {
		t.Fatalf("frequent collections: %d, want 400", got)
	}
	if got := collect(500*time.Millisecond, live); got != 400 {
		t.Fatalf("a little rarer, as the room makes them: %d, want 400", got)
	}
	if got := collect(100*time.Millisecond, 8<<20); got != 200 {
		t.Fatalf("more in use: %d, want 200", got)
	}
	if got := collect(100*time.Millisecond, 1<<30); got != 100 {
		t.Fatalf("much in use: %d, want 100", got)
	}
	collect(10*time.Millisecond, live)
	if got := collect(2*time.Second, live); got != 100 {
		t.Fatalf("quiet again: %d, want 100", got)
	}
}

func TestHeapTunerLeavesOperatorsSettingsAlone(t *testing.T) {
	t.Parallel()
	for _, environ := range [][]string{{"GOGC=50"}, {"A=b", "GOMEMLIMIT=1GiB"}} {
		tuneHeap(environ)() // Were it to do anything, stop would set the percentage.
	}
}
