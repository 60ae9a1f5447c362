package queue_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/execgate/execgate/queue"
	"github.com/execgate/execgate/targetclient"
)

// answersAfter answers after a time, unless the call's end comes first.
func answersAfter(times map[string]time.Duration) func(context.Context, targetclient.Call) (targetclient.Result, error) {
	return func(ctx context.Context, c targetclient.Call) (targetclient.Result, error) {
		began := time.Now()
		select {
		case <-time.After(times[c.Target.ID]):
			return targetclient.Result{StatusCode: 200, Duration: time.Since(began)}, nil
		case <-ctx.Done():
			return targetclient.Result{Duration: time.Since(began)}, &targetclient.Error{Reason: targetclient.ReasonTimeout, Err: context.Cause(ctx)}
		}
	}
}

func TestTargetsOfAnEventShareTheTimeOfItsJob(t *testing.T) {
	const limit = 10 * time.Second
	for name, tc := range map[string]struct {
		kind  queue.Kind
		takes map[string]time.Duration
		// want is what was called, at which second after the first call.
		want []made
	}{
		"all are told in time": {queue.KindEvent, map[string]time.Duration{"a": 4 * time.Second, "b": 5 * time.Second},
			[]made{{target: "a"}, {target: "b", at: 4 * time.Second}, {target: "c", at: 9 * time.Second}}},
		"a slow target leaves less to the next, which is cut and tried again": {queue.KindEvent, map[string]time.Duration{"a": 7 * time.Second, "b": 5 * time.Second},
			[]made{{target: "a"}, {target: "b", at: 7 * time.Second}, {target: "c", at: 10 * time.Second}, {target: "b"}}},
		"a target alone is cut at the limit, the next gets a job of its own": {queue.KindEvent, map[string]time.Duration{"a": time.Minute, "b": 9 * time.Second},
			[]made{{target: "a"}, {target: "b", at: 10 * time.Second}, {target: "c", at: 19 * time.Second}, {target: "a"}}},
		"asynchronous calls have no such limit": {queue.KindAsync, map[string]time.Duration{"a": time.Minute},
			[]made{{target: "a"}, {target: "b", at: time.Minute}, {target: "c", at: time.Minute}}},
	} {
		t.Run(name, func(t *testing.T) {
			o := queue.DurableOptions{Schedule: queue.Schedule{MaxAttempts: 2, FirstDelay: time.Hour}, EventTimeout: limit}
			bubble(t, o, func(t *testing.T, b *durableBundle) {
				b.set(func() { b.answer = answersAfter(tc.takes) })
				b.enqueue(queue.Delivery{
					Target: target("a"), Kind: tc.kind, Execution: "event", Then: []*targetclient.Target{target("b"), target("c")},
				}, "")
				calls := b.after(2 * time.Hour)
				if len(calls) != len(tc.want) {
					t.Fatalf("calls %v", calls)
				}
				for i, want := range tc.want {
					// Where no time is wanted, it is the jittered one of a retry.
					if at := calls[i].at - calls[0].at; calls[i].target != want.target || (i == 0 || want.at > 0) && (at-want.at).Abs() > 500*time.Millisecond {
						t.Errorf("call %d is of %s after %v, want %s after %v", i, calls[i].target, at, want.target, want.at)
					}
				}
			})
		})
	}
}

func TestAnEventTooOldIsGivenUpWithoutACall(t *testing.T) {
	o := queue.DurableOptions{EventMaxAge: 5 * time.Minute, Schedule: queue.Schedule{FirstDelay: time.Minute, MaxDelay: time.Minute}}
	bubble(t, o, func(t *testing.T, b *durableBundle) {
		for _, kind := range []queue.Kind{queue.KindEvent, queue.KindAsync} {
			b.set(func() { b.breaker["a"] = targetclient.BreakerOpen })
			b.enqueue(queue.Delivery{Target: target("a"), Kind: kind, Execution: "event", Then: []*targetclient.Target{target("b")}}, kind.String())
			b.after(6 * time.Minute)
			b.set(func() { b.breaker["a"] = targetclient.BreakerClosed })
			b.after(time.Minute)
		}
		if got := b.bodies(); !slices.Equal(got, []string{"aasync", "basync"}) {
			t.Errorf("called with %q", got)
		}
		if n := b.count(queue.Filter{State: queue.StateDead}); n != 1 {
			t.Errorf("%d dead letters", n)
		}
	})
}

func TestRetriesOfAnEventEndAtItsAge(t *testing.T) {
	o := queue.DurableOptions{EventMaxAge: 5 * time.Minute, Schedule: queue.Schedule{FirstDelay: time.Minute, MaxDelay: time.Minute}}
	bubble(t, o, func(t *testing.T, b *durableBundle) {
		b.set(func() {
			b.answer = func(_ context.Context, c targetclient.Call) (targetclient.Result, error) {
				return fails(500, targetclient.ReasonFailed)(nil, c)
			}
		})
		b.enqueue(queue.Delivery{Target: target("a"), Kind: queue.KindEvent, Execution: "event"}, "")
		calls := b.after(time.Hour)
		if last := calls[len(calls)-1].at - calls[0].at; len(calls) < 3 || last > 5*time.Minute+time.Second {
			t.Errorf("%d calls, the last after %v", len(calls), last)
		}
		if n := b.count(queue.Filter{State: queue.StateDead}); n != 1 {
			t.Errorf("%d dead letters", n)
		}
	})
}
