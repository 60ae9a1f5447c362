//go:build !race

package h2

import "testing"

// With the race detector, pools forget on purpose.
func TestRelayedCallAllocatesNothing(t *testing.T) {
	d := &steadyDirector{}
	s := newSteady(t, d)
	before := d.done
	// What a grpc-timeout takes is a few bytes of a larger piece; and a collection may empty the pools.
	if n := testing.AllocsPerRun(200, func() { s.calls(16) }); n >= 4 {
		t.Errorf("%v allocations for 16 calls", n)
	}
	if d.done != before+201*16 {
		t.Errorf("%d calls have ended", d.done-before)
	}
}
