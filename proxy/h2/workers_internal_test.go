package h2

import (
	"testing"
)

// TestWorkersRestOneUponTheOther: who served last serves next, and no more wait than should.
func TestWorkersRestOneUponTheOther(t *testing.T) {
	t.Parallel()
	var p workers
	all := make([]*worker, maxIdleWorkers+1)
	for i := range all {
		all[i] = &worker{jobs: make(chan job, 1)}
		if rests := p.rest(all[i]); rests != (i < maxIdleWorkers) {
			t.Fatalf("worker %d rests: %v", i, rests)
		}
	}
	for i := maxIdleWorkers - 1; i >= 2; i-- {
		p.work(job{})
		if len(all[i].jobs) != 1 {
			t.Fatalf("worker %d was not the next", i)
		}
	}
	p.stop()
	for i, w := range all[:2] {
		if _, ok := <-w.jobs; ok {
			t.Errorf("worker %d is not told to end", i)
		}
	}
	if p.rest(all[5]) {
		t.Error("a worker rests after the end")
	}
}
