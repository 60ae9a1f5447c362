package targetclient

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"
)

// DefaultBreakerSettings returns the settings that a zero BreakerSettings
// stands for.
func DefaultBreakerSettings() BreakerSettings {
	return BreakerSettings{
		ConsecutiveFailures: 10,
		Window:              30 * time.Second,
		MinCalls:            20,
		FailureRatio:        0.5,
		OpenFor:             10 * time.Second,
		HalfOpenCalls:       3,
	}
}

// Validate reports settings that make no sense, all of them at once. Zero
// fields are fine.
func (s BreakerSettings) Validate() error {
	var errs []error
	for _, f := range []struct {
		name string
		bad  bool
	}{
		{"consecutive_failures", s.ConsecutiveFailures < 0},
		{"window", s.Window < 0},
		{"min_calls", s.MinCalls < 0},
		{"open_for", s.OpenFor < 0},
		{"half_open_calls", s.HalfOpenCalls < 0},
	} {
		if f.bad {
			errs = append(errs, fmt.Errorf("%s is negative", f.name))
		}
	}
	if !(s.FailureRatio >= 0 && s.FailureRatio <= 1) {
		errs = append(errs, errors.New("failure_ratio is not between 0 and 1"))
	}
	return errors.Join(errs...)
}

// or fills fields that are zero or senseless from d.
func (s BreakerSettings) or(d BreakerSettings) BreakerSettings {
	if s.ConsecutiveFailures <= 0 {
		s.ConsecutiveFailures = d.ConsecutiveFailures
	}
	if s.Window <= 0 {
		s.Window = d.Window
	}
	if s.MinCalls <= 0 {
		s.MinCalls = d.MinCalls
	}
	if !(s.FailureRatio > 0 && s.FailureRatio <= 1) {
		s.FailureRatio = d.FailureRatio
	}
	if s.OpenFor <= 0 {
		s.OpenFor = d.OpenFor
	}
	if s.HalfOpenCalls <= 0 {
		s.HalfOpenCalls = d.HalfOpenCalls
	}
	return s
}

// verdict is what one call says about its target's health.
type verdict uint8

const (
	neutral verdict = iota // says nothing
	healthy
	failing
)

// verdictOf is D-28 and D-66: an answer below 500 is healthy, whatever it
// means; no answer is a failure, unless it was the caller who gave up.
func verdictOf(err *Error) verdict {
	if err == nil {
		return healthy
	}
	switch err.Reason {
	case ReasonCancelled:
		return neutral
	case ReasonFailed:
		if err.StatusCode < 500 {
			return healthy
		}
		return failing
	case ReasonForwarded, ReasonPrecondition:
		return healthy
	default:
		return failing
	}
}

var (
	errNeutral = errors.New("neutral")
	errFailing = errors.New("failing")
)

// breaker is a gobreaker with a counting of its own. gobreaker keeps the states:
// who may pass when, and that an answer to a call of an earlier state no longer
// counts. Its counters are not used, because they forget consecutive failures
// when the window moves on, and judge the ratio only when a call fails; and while
// it is closed, which is nearly always, it is not asked: two locks and two looks
// at the clock for each call.
type breaker struct {
	cb *gobreaker.TwoStepCircuitBreaker[struct{}]

	mu         sync.Mutex
	state      gobreaker.State
	generation uint64 // how often the state has changed
	trip       bool   // the closed breaker is about to open
	count      tally
}

// permit is the leave to make one call.
type permit struct {
	given      bool
	generation uint64
	done       func(error) // gobreaker's; nil: the breaker was closed
}

// newBreaker returns a closed breaker. onChange is called in order and must not
// call back into the breaker.
func newBreaker(s BreakerSettings, onChange func(BreakerState)) *breaker {
	b := &breaker{state: gobreaker.StateClosed, count: tally{settings: s}}
	b.cb = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests: uint32(s.HalfOpenCalls),
		Timeout:     s.OpenFor,
		IsExcluded:  func(err error) bool { return errors.Is(err, errNeutral) },
		// Called once for each call that counts, unless the breaker was closed
		// when it began. It may have closed since.
		IsSuccessful: func(err error) bool { return b.recordLate(err == nil) },
		ReadyToTrip:  func(gobreaker.Counts) bool { return b.tripped() },
		OnStateChange: func(_ string, _, to gobreaker.State) {
			b.mu.Lock()
			b.state = to
			b.generation++
			b.trip = false
			b.count.reset()
			b.mu.Unlock()
			if onChange != nil {
				onChange(breakerState(to))
			}
		},
	})
	return b
}

// allow asks for one call. If it may be made, done must be called once.
func (b *breaker) allow() permit {
	b.mu.Lock()
	p := permit{given: b.state == gobreaker.StateClosed, generation: b.generation}
	b.mu.Unlock()
	if !p.given {
		if done, err := b.cb.Allow(); err == nil {
			p.given, p.done = true, done
		}
	}
	return p
}

// done says what a call said that was allowed, and ended now.
func (b *breaker) done(p permit, v verdict, now time.Time) {
	if p.done != nil {
		p.done(v.report())
		return
	}
	if v == neutral || !b.record(p.generation, now, v == healthy) {
		return
	}
	// gobreaker opens on a failure only.
	if done, err := b.cb.Allow(); err == nil {
		done(errFailing)
	}
}

// report is what done wants to hear.
func (v verdict) report() error {
	switch v {
	case healthy:
		return nil
	case failing:
		return errFailing
	default:
		return errNeutral
	}
}

func (b *breaker) current() BreakerState { return breakerState(b.cb.State()) }

// record counts a call that was allowed while the breaker was closed, and reports
// whether that opens it: also a success can, which completes the window's minimum.
// A call of an earlier state no longer counts.
func (b *breaker) record(generation uint64, now time.Time, ok bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.generation != generation || b.trip {
		return false
	}
	b.count.add(now, ok)
	b.trip = b.count.tripped()
	return b.trip
}

// recordLate is record for a call that gobreaker allowed, as a failure if the
// breaker is to open.
func (b *breaker) recordLate(ok bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state != gobreaker.StateClosed {
		return ok
	}
	if !b.trip {
		b.count.add(time.Now(), ok)
		b.trip = b.count.tripped()
	}
	return ok && !b.trip
}

func (b *breaker) tripped() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.trip
}

func breakerState(s gobreaker.State) BreakerState {
	switch s {
	case gobreaker.StateHalfOpen:
		return BreakerHalfOpen
	case gobreaker.StateOpen:
		return BreakerOpen
	default:
		return BreakerClosed
	}
}

// slots is the resolution of the window: a call is forgotten between 1 and
// 1 + 1/slots windows after it ended.
const slots = 10

// tally counts calls: failures in a row, and both kinds over a sliding window.
type tally struct {
	settings BreakerSettings

	inRow  int
	start  time.Time // of slot number 0
	newest int64     // number of the newest slot
	slot   [slots + 1]struct{ ok, failed int }
}

func (t *tally) reset() { *t = tally{settings: t.settings} }

func (t *tally) add(now time.Time, ok bool) {
	t.roll(now)
	s := &t.slot[t.newest%int64(len(t.slot))]
	if ok {
		t.inRow = 0
		s.ok++
		return
	}
	t.inRow++
	s.failed++
}

// roll empties the slots that have come round since the last call.
func (t *tally) roll(now time.Time) {
	if t.start.IsZero() {
		t.start = now
		return
	}
	width := max(t.settings.Window/slots, 1)
	n := int64(now.Sub(t.start) / width)
	for ; t.newest < n; t.newest++ {
		if n-t.newest > int64(len(t.slot)) {
			t.newest = n - int64(len(t.slot)) // all are old: one turn is enough
		}
		t.slot[(t.newest+1)%int64(len(t.slot))] = struct{ ok, failed int }{}
	}
}

func (t *tally) tripped() bool {
	if t.inRow >= t.settings.ConsecutiveFailures {
		return true
	}
	var ok, failed int
	for _, s := range t.slot {
		ok += s.ok
		failed += s.failed
	}
	calls := ok + failed
	return calls >= t.settings.MinCalls && float64(failed) >= t.settings.FailureRatio*float64(calls)
}
