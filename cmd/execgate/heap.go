package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// heapRoom is what may be allocated between two collections, at least, while they come often. By Go's own rule it is as
	// much as was found in use: of the few megabytes that a gateway lives on, dozens of collections a second.
	heapRoom = 16 << 20
	// Collections come often when the last few of them took less than this.
	often       = 250 * time.Millisecond
	oftenCycles = 8
)

// heapTuner gives the collector room while the gateway is busy, and takes it back when it is not, so that an idle gateway
// is as small as ever. It runs when a collection has ended, and has no goroutine.
type heapTuner struct {
	mu      sync.Mutex
	stopped bool
	percent int // as it was before
	set     int // as it is
	ended   [oftenCycles]time.Time
	next    int
}

// tuneHeap starts a tuner; stop undoes what it did. Whoever sets GOGC or GOMEMLIMIT has said what they want.
func tuneHeap(environ []string) (stop func()) {
	if slices.ContainsFunc(environ, func(v string) bool {
		name, value, _ := strings.Cut(v, "=")
		return (name == "GOGC" || name == "GOMEMLIMIT") && value != ""
	}) {
		return func() {}
	}
	const standard = 100
	t := &heapTuner{percent: standard, set: standard}
	t.watch()
	return t.stop
}

// watch has the end of the next collection told. What is watched has a pointer, so that it is an object of its own.
func (t *heapTuner) watch() {
	runtime.AddCleanup(new(*heapTuner), (*heapTuner).collected, t)
}

// collected is called when a collection has ended.
func (t *heapTuner) collected() {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return
	}
	t.apply(t.percentFor(time.Now(), live[0].Value.Uint64()))
	t.watch()
}

// percentFor is what the collector is to be told, when a collection ended now that found so much in use.
func (t *heapTuner) percentFor(now time.Time, live uint64) int {
	first := t.ended[t.next]
	last := t.ended[(t.next+oftenCycles-1)%oftenCycles]
	t.ended[t.next] = now
	t.next = (t.next + 1) % oftenCycles
	roomy := t.set > t.percent
	switch {
	case !roomy && now.Sub(first) > often, roomy && now.Sub(last) > 4*often:
		return t.percent
	}
	return max(t.percent, int(heapRoom*100/max(live, 1<<20)))
}

// apply tells the collector, unless it knows about as much.
func (t *heapTuner) apply(percent int) {
	if off := percent - t.set; off > t.set/8 || -off > t.set/8 || percent == t.percent && off != 0 {
		debug.SetGCPercent(percent)
		t.set = percent
	}
}

func (t *heapTuner) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopped = true
	t.apply(t.percent)
}
