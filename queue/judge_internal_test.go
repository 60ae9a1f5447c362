package queue

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/execgate/execgate/targetclient"
)

func TestJudge(t *testing.T) {
	t.Parallel()
	schedule := DefaultSchedule()
	status := func(code int) error {
		return &targetclient.Error{Reason: targetclient.ReasonFailed, StatusCode: code}
	}
	reason := func(r targetclient.Reason) error { return &targetclient.Error{Reason: r} }
	for name, step := range map[string]struct {
		err      error
		attempts int
		age      time.Duration
		action   Action
		counted  bool
		dead     string
	}{
		"success":                     {nil, 0, 0, Delivered, true, ""},
		"no answer":                   {reason(targetclient.ReasonTransport), 0, 0, Retry, true, ""},
		"timeout":                     {reason(targetclient.ReasonTimeout), 0, 0, Retry, true, ""},
		"denied address":              {reason(targetclient.ReasonDeniedAddress), 0, 0, Retry, true, ""},
		"an error of another make":    {errors.New("what"), 0, 0, Retry, true, ""},
		"cut off after 404":           {&targetclient.Error{Reason: targetclient.ReasonTimeout, StatusCode: 404}, 0, 0, Retry, true, ""},
		"breaker open":                {reason(targetclient.ReasonBreakerOpen), 0, 0, Release, false, ""},
		"cancelled":                   {reason(targetclient.ReasonCancelled), 0, 0, Release, false, ""},
		"cancelled by another make":   {context.Canceled, 0, 0, Release, false, ""},
		"over concurrency":            {reason(targetclient.ReasonOverConcurrency), 24, 100 * time.Hour, Retry, false, ""},
		"forwarded":                   {&targetclient.Error{Reason: targetclient.ReasonForwarded, StatusCode: 200}, 0, 0, Delivered, true, ""},
		"precondition":                {&targetclient.Error{Reason: targetclient.ReasonPrecondition, StatusCode: 200}, 0, 0, Delivered, true, ""},
		"the last attempt":            {status(500), 24, 0, Dead, true, DeadAttempts},
		"the last but one":            {status(500), 23, 0, Retry, true, ""},
		"too old":                     {status(500), 0, 72 * time.Hour, Dead, true, DeadAge},
		"a parked one succeeds":       {nil, 0, 1000 * time.Hour, Delivered, true, ""},
		"304, a redirect that is not": {status(304), 0, 0, Retry, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := judge(&Record{Attempts: step.attempts}, schedule, step.age, targetclient.Result{}, step.err)
			if j.verdict.Action != step.action || j.counted != step.counted || j.dead != step.dead {
				t.Errorf("got %+v", j)
			}
		})
	}
	for code := 400; code <= 599; code++ {
		j := judge(&Record{}, schedule, 0, targetclient.Result{}, status(code))
		want := ""
		switch code {
		case 410:
			want = DeadGone
		case 408, 409, 425, 429:
		default:
			if code < 500 {
				want = DeadRefused
			}
		}
		if j.dead != want || j.gone != (code == 410) || !j.counted {
			t.Errorf("%d: %+v", code, j)
		}
	}
	if j := judge(&Record{Attempts: 30, Replayed: 6}, schedule, 0, targetclient.Result{}, status(500)); j.dead != DeadAttempts {
		t.Errorf("attempt 25 after a replay: %+v", j)
	}
	if j := judge(&Record{Attempts: 30, Replayed: 7}, schedule, 0, targetclient.Result{}, status(500)); j.dead != "" {
		t.Errorf("attempt 24 after a replay: %+v", j)
	}
}

func TestScheduleIsFullJitter(t *testing.T) {
	t.Parallel()
	s := DefaultSchedule()
	var bounds []time.Duration
	for n := 1; n <= 13; n++ {
		bounds = append(bounds, s.Longest(n))
	}
	if got, want := fmt.Sprint(bounds), "[5s 10s 20s 40s 1m20s 2m40s 5m20s 10m40s 21m20s 42m40s 1h25m20s 2h0m0s 2h0m0s]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if d := s.Longest(1 << 20); d != s.MaxDelay {
		t.Errorf("far out: %v", d)
	}
	for n := 1; n < 20; n++ {
		var least, most time.Duration = s.Longest(n), 0
		for range 2000 {
			d, dead := s.next(n, 0, 0)
			if dead != "" || d < 0 || d > s.Longest(n) {
				t.Fatalf("after attempt %d: %v, %q", n, d, dead)
			}
			least, most = min(least, d), max(most, d)
		}
		if least > s.Longest(n)/20 || most < s.Longest(n)*19/20 {
			t.Errorf("after attempt %d: from %v to %v", n, least, most)
		}
	}
	for name, step := range map[string]struct {
		age, retryAfter, least, most time.Duration
	}{
		"retry-after is the least":  {0, time.Hour, time.Hour, time.Hour},
		"a day is enough":           {0, 1000 * time.Hour, 24 * time.Hour, 24 * time.Hour},
		"the last is at the end":    {71 * time.Hour, 24 * time.Hour, time.Hour, time.Hour},
		"jitter is more than asked": {0, 1, 1, 5 * time.Second},
	} {
		if d, dead := s.next(1, step.age, step.retryAfter); dead != "" || d < step.least || d > step.most {
			t.Errorf("%s: %v %q", name, d, dead)
		}
	}
}

func TestIDsGrowAndRepeat(t *testing.T) {
	t.Parallel()
	now := time.Now()
	last := ""
	for i := range 10000 {
		id := NewID(now.Add(-time.Duration(i) * time.Second)) // a clock that goes back
		if !ValidID(id) || id <= last {
			t.Fatalf("%q after %q", id, last)
		}
		last = id
	}
	a, b := IDFor(now, "x", "y"), IDFor(now, "xy")
	if a != IDFor(now, "x", "y") || a == b || !ValidID(a) || timeOf(a).UnixMilli() != now.UnixMilli() {
		t.Errorf("%q and %q", a, b)
	}
	if firstID(now) > a || firstID(now.Add(time.Millisecond)) <= a {
		t.Errorf("%q is not between %q and the next", a, firstID(now))
	}
}
