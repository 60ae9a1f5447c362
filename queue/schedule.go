package queue

import (
	"math/rand/v2"
	"time"
)

// Schedule says when attempts are made: exponential with full jitter.
//
// After attempt n without success the next one is due after a random time between
// 0 and min(MaxDelay, FirstDelay * 2^(n-1)), all equally likely; with the defaults
// at most 5s, 10s, 20s, 40s, 80s ... and 2h from attempt 12 on, half of that on
// average, and some 14 hours for all 25 attempts. When the target asks for more by
// Retry-After, it gets that, up to a day.
//
// The age counts from when the delivery was accepted, or replayed. A time that
// would pass MaxAge is cut so that a last attempt is made then; an attempt that
// fails at that age or later is the last. A delivery that waits parked grows
// older, too, but always gets at least one attempt after that.
type Schedule struct {
	// MaxAttempts is how many attempts are made. Default 25.
	MaxAttempts int
	// FirstDelay bounds the first time. Default 5s.
	FirstDelay time.Duration
	// MaxDelay bounds all of them. Default 2h.
	MaxDelay time.Duration
	// MaxAge is when to give up. Default 72h.
	MaxAge time.Duration
}

// DefaultSchedule returns the defaults.
func DefaultSchedule() Schedule {
	return Schedule{MaxAttempts: 25, FirstDelay: 5 * time.Second, MaxDelay: 2 * time.Hour, MaxAge: 72 * time.Hour}
}

// Or returns the schedule with its zero fields taken from the other one.
func (r Schedule) Or(other Schedule) Schedule {
	r.MaxAttempts = orDefault(r.MaxAttempts, other.MaxAttempts)
	r.FirstDelay = orDefault(r.FirstDelay, other.FirstDelay)
	r.MaxDelay = orDefault(r.MaxDelay, other.MaxDelay)
	r.MaxAge = orDefault(r.MaxAge, other.MaxAge)
	return r
}

// Longest returns the upper bound of the time after attempt n, which counts from
// 1.
func (r Schedule) Longest(n int) time.Duration {
	d := min(r.FirstDelay, r.MaxDelay)
	for ; n > 1 && d < r.MaxDelay; n-- {
		if d *= 2; d <= 0 || d > r.MaxDelay {
			d = r.MaxDelay
		}
	}
	return d
}

// longestRetryAfter is how much of a Retry-After is honoured.
const longestRetryAfter = 24 * time.Hour

// next returns when to try again after n attempts, at that age; or the reason to
// give up.
func (r Schedule) next(n int, age, retryAfter time.Duration) (after time.Duration, dead string) {
	left := r.MaxAge - age
	switch {
	case n >= r.MaxAttempts:
		return 0, DeadAttempts
	case left <= 0:
		return 0, DeadAge
	}
	after = rand.N(r.Longest(n) + 1)
	return min(max(after, min(retryAfter, longestRetryAfter)), left), ""
}
