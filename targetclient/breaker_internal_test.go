package targetclient

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// run plays a script on a breaker with the default settings: F fails, S
// succeeds, N says nothing, each 10 ms apart. It returns how many were refused.
func run(b *breaker, script string) (refused int) {
	for _, r := range script {
		time.Sleep(10 * time.Millisecond) // the bubble's clock
		p := b.allow()
		if !p.given {
			refused++
			continue
		}
		b.done(p, map[rune]verdict{'F': failing, 'S': healthy, 'N': neutral}[r], time.Now())
	}
	return refused
}

func TestWhenTheBreakerOpens(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		script string
		open   bool
	}{
		"nine in a row":                               {strings.Repeat("F", 9), false},
		"ten in a row":                                {strings.Repeat("F", 10), true},
		"a success between":                           {strings.Repeat("F", 9) + "S" + strings.Repeat("F", 9), false},
		"ten in a row after a success":                {"S" + strings.Repeat("F", 10), true},
		"what says nothing does not end a row":        {strings.Repeat("F", 9) + "NNN" + "F", true},
		"what says nothing does not count":            {strings.Repeat("F", 9) + strings.Repeat("N", 100), false},
		"half of nineteen":                            {strings.Repeat("SF", 9) + "F", false},
		"half of twenty, the last one fails":          {strings.Repeat("SF", 10), true},
		"half of twenty, the last one succeeds":       {strings.Repeat("FS", 10), true},
		"less than half":                              {strings.Repeat("SSF", 100), false},
		"more than half":                              {strings.Repeat("SFF", 7), true},
		"twenty with those that say nothing":          {strings.Repeat("SFN", 9), false},
		"half, after many successes":                  {strings.Repeat("S", 50) + strings.Repeat("FFFFFFFFFS", 5), false},
		"half, after many successes, a little longer": {strings.Repeat("S", 50) + strings.Repeat("FFFFFFFFFS", 7), true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBreaker(DefaultBreakerSettings(), nil)
				run(b, tt.script)
				if open := b.current() == BreakerOpen; open != tt.open {
					t.Errorf("open %v, want %v", open, tt.open)
				}
			})
		})
	}
}

func TestARowOfFailuresMayTakeLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(DefaultBreakerSettings(), nil)
		for i := range 10 {
			if s := b.current(); s != BreakerClosed {
				t.Fatalf("%v after %d failures", s, i)
			}
			run(b, "F")
			time.Sleep(10 * time.Minute)
		}
		// It opened ten minutes ago.
		if s := b.current(); s != BreakerHalfOpen {
			t.Errorf("%v after ten failures", s)
		}
	})
}

func TestTheRatioForgetsWhatIsOlderThanTheWindow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(DefaultBreakerSettings(), nil)
		run(b, strings.Repeat("FFS", 6)) // 18 calls
		time.Sleep(34 * time.Second)
		run(b, strings.Repeat("FFS", 6)) // 18 again, not 36
		if s := b.current(); s != BreakerClosed {
			t.Fatalf("%v: the first calls still count", s)
		}
		time.Sleep(28 * time.Second)
		run(b, "FF")
		if s := b.current(); s != BreakerOpen {
			t.Errorf("%v: calls within the window do not count", s)
		}
	})
}

func TestHowTheBreakerCloses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		script  string
		refused int
		want    BreakerState
	}{
		"all succeed":                          {"SSS", 0, BreakerClosed},
		"two succeed":                          {"SS", 0, BreakerHalfOpen},
		"the first fails":                      {"F", 0, BreakerOpen},
		"the last fails":                       {"SSF", 0, BreakerOpen},
		"after a failure the rest is refused":  {"FSS", 2, BreakerOpen},
		"what says nothing gives its place up": {"NNNNNNNNNNSNSNS", 0, BreakerClosed},
		"nothing but that":                     {strings.Repeat("N", 100), 0, BreakerHalfOpen},
		"closed again it starts from nothing":  {"SSS" + strings.Repeat("F", 9), 0, BreakerClosed},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBreaker(DefaultBreakerSettings(), nil)
				run(b, strings.Repeat("F", 10))
				time.Sleep(9 * time.Second)
				if refused := run(b, "SSSS"); refused != 4 {
					t.Fatalf("%d of 4 refused while open", refused)
				}
				time.Sleep(time.Second)
				if refused := run(b, tt.script); refused != tt.refused || b.current() != tt.want {
					t.Errorf("%d refused, %v; want %d, %v", refused, b.current(), tt.refused, tt.want)
				}
			})
		})
	}
}

func TestHalfOpenLetsThreeThroughAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(DefaultBreakerSettings(), nil)
		late := b.allow()
		run(b, strings.Repeat("F", 10))
		time.Sleep(11 * time.Second)
		probes := []permit{b.allow(), b.allow(), b.allow()}
		if slices.ContainsFunc(probes, func(p permit) bool { return !p.given }) || b.allow().given {
			t.Fatal("not exactly three were let through")
		}
		b.done(probes[0], neutral, time.Now())
		again := b.allow()
		if !again.given || b.allow().given {
			t.Fatal("a probe that was given up did not make room for exactly one")
		}
		b.done(late, failing, time.Now()) // a call from before: no news
		for _, p := range []permit{probes[1], probes[2], again} {
			if s := b.current(); s != BreakerHalfOpen {
				t.Fatalf("%v before the last probe", s)
			}
			b.done(p, healthy, time.Now())
		}
		if s := b.current(); s != BreakerClosed {
			t.Errorf("%v, want closed", s)
		}
	})
}

func TestChangesAreToldInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var told []BreakerState
		b := newBreaker(DefaultBreakerSettings(), func(s BreakerState) { told = append(told, s) })
		run(b, strings.Repeat("F", 12))
		time.Sleep(11 * time.Second)
		run(b, "F")
		time.Sleep(11 * time.Second)
		run(b, "SSS")
		if got, want := fmt.Sprint(told), "[open half_open open half_open closed]"; got != want {
			t.Errorf("told %s, want %s", got, want)
		}
	})
}

// The tally agrees with one that keeps every call, but for the calls in the
// window's last slot, which it may keep a little longer.
func TestTallyAgainstANaiveOne(t *testing.T) {
	t.Parallel()
	type call struct {
		at time.Duration
		ok bool
	}
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 200 {
		s := DefaultBreakerSettings()
		s.Window = time.Duration(1+r.IntN(1000)) * time.Millisecond
		start := time.Unix(1700000000, 0)
		tl := tally{settings: s}
		var calls []call
		var now time.Duration
		inRow := 0
		for range 300 {
			now += time.Duration(r.Int64N(int64(s.Window) / (1 + r.Int64N(20))))
			if r.IntN(50) == 0 {
				now += time.Duration(r.Int64N(int64(5 * s.Window)))
			}
			c := call{now, r.IntN(2) == 0}
			calls = append(calls, c)
			tl.add(start.Add(now), c.ok)
			inRow++
			if c.ok {
				inRow = 0
			}
			var surely, perhaps int
			for _, c := range calls {
				if age := now - c.at; age <= s.Window {
					surely++
					perhaps++
				} else if age <= s.Window+s.Window/slots+time.Nanosecond*slots {
					perhaps++
				}
			}
			got := 0
			for _, slot := range tl.slot {
				got += slot.ok + slot.failed
			}
			// Rounding of the slot's width shortens the window by some ns.
			if got < surely-1 || got > perhaps || tl.inRow != inRow {
				t.Fatalf("round %d: %d calls in the window, want %d to %d; %d in a row, want %d", round, got, surely, perhaps, tl.inRow, inRow)
			}
		}
	}
}
