package queue_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/queue"
	"github.com/execgate/execgate/queue/queuetest"
	"github.com/execgate/execgate/targetclient"
)

// made is a call that a durableBundle saw.
type made struct {
	target, body, id, url string
	attempt               int
	at                    time.Duration // since the start
}

// durableBundle is a durable queue over a file, with a scripted caller, to be used
// in a synctest bubble.
type durableBundle struct {
	*queue.Durable
	t       *testing.T
	backend queue.Backend
	spool   *queue.Spool
	start   time.Time

	mu       sync.Mutex
	settings map[string]*queue.Settings // by target id
	loaded   bool
	calls    []made
	running  map[string]int
	most     map[string]int
	answer   func(ctx context.Context, c targetclient.Call) (targetclient.Result, error)
	breaker  map[string]targetclient.BreakerState
	settled  []string
	spooled  int
}

func (b *durableBundle) Do(ctx context.Context, c targetclient.Call) (targetclient.Result, error) {
	b.mu.Lock()
	b.calls = append(b.calls, made{c.Target.ID, string(c.Body), c.ID, c.Target.URL, c.Attempt, time.Since(b.start)})
	b.running[c.Target.ID]++
	b.most[c.Target.ID] = max(b.most[c.Target.ID], b.running[c.Target.ID])
	answer := b.answer
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		b.running[c.Target.ID]--
		b.mu.Unlock()
	}()
	if answer == nil {
		return targetclient.Result{StatusCode: 200}, nil
	}
	return answer(ctx, c)
}

func (b *durableBundle) BreakerState(id string) targetclient.BreakerState {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.breaker[id]
}

func (b *durableBundle) TargetCall(string, string, time.Duration) {}
func (b *durableBundle) AsyncDropped(string)                      {}

func (b *durableBundle) DeliverySettled(target, outcome string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.settled = append(b.settled, target+" "+outcome)
}

func (b *durableBundle) DeliverySpooled() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spooled++
}

func (b *durableBundle) lookup(id string) (*queue.Settings, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.settings[id], b.loaded
}

// set changes the bundle as the tests want it.
func (b *durableBundle) set(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
}

// bubble runs a test with a bundle whose targets a, b and c exist.
func bubble(t *testing.T, o queue.DurableOptions, test func(t *testing.T, b *durableBundle)) {
	t.Helper()
	bubbleWith(t, func(*testing.T) queue.DurableOptions { return o }, test)
}

// bubbleWith is bubble for options that must be made in it.
func bubbleWith(t *testing.T, options func(t *testing.T) queue.DurableOptions, test func(t *testing.T, b *durableBundle)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := options(t)
		b := &durableBundle{
			t: t, loaded: true, settings: map[string]*queue.Settings{}, running: map[string]int{}, most: map[string]int{},
			breaker: map[string]targetclient.BreakerState{}, start: time.Now(),
		}
		for _, id := range []string{"a", "b", "c"} {
			b.settings[id] = &queue.Settings{Target: target(id)}
		}
		b.spool = o.Spool
		if b.backend = o.Backend; b.backend == nil {
			b.backend = openEmbedded(t, filepath.Join(t.TempDir(), "queue.db"), queuetest.Setup{})
		}
		o.Poll = 2 * time.Second
		o.Backend, o.Caller, o.Targets, o.Observer, o.Logger = b.backend, b, b.lookup, b, testkit.Logger(t)
		var err error
		if b.Durable, err = queue.NewDurable(o); err != nil {
			t.Fatal(err)
		}
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer b.Stop(t.Context())
		test(t, b)
	})
}

// fails answers with a status, or with a reason other than failed.
func fails(status int, reason targetclient.Reason) func(context.Context, targetclient.Call) (targetclient.Result, error) {
	return func(context.Context, targetclient.Call) (targetclient.Result, error) {
		return targetclient.Result{StatusCode: status}, &targetclient.Error{Reason: reason, StatusCode: status}
	}
}

func (b *durableBundle) enqueue(d queue.Delivery, bodies ...string) {
	b.t.Helper()
	for _, body := range bodies {
		d.Body = []byte(body)
		if err := b.Enqueue(b.t.Context(), d); err != nil {
			b.t.Fatalf("enqueue %q: %v", body, err)
		}
	}
}

// after lets the time pass, and returns the calls made so far.
func (b *durableBundle) after(d time.Duration) []made {
	time.Sleep(d)
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.calls)
}

func (b *durableBundle) bodies() (all []string) {
	for _, c := range b.after(0) {
		all = append(all, c.target+c.body)
	}
	return all
}

func (b *durableBundle) one(f queue.Filter) *queue.Record {
	b.t.Helper()
	page, err := b.backend.List(b.t.Context(), f)
	if err != nil || len(page.Records) != 1 {
		b.t.Fatalf("%d records in state %v, %v", len(page.Records), f.State, err)
	}
	return page.Records[0]
}

func (b *durableBundle) count(f queue.Filter) int {
	b.t.Helper()
	page, err := b.backend.List(b.t.Context(), f)
	if err != nil {
		b.t.Fatal(err)
	}
	return len(page.Records)
}

func TestDurableRetriesUntilTheLastAttempt(t *testing.T) {
	schedule := queue.Schedule{MaxAttempts: 6, FirstDelay: time.Second, MaxDelay: 4 * time.Second}
	bubble(t, queue.DurableOptions{Schedule: schedule}, func(t *testing.T, b *durableBundle) {
		b.set(func() { b.answer = fails(503, targetclient.ReasonFailed) })
		b.enqueue(queue.Delivery{Target: target("a"), Execution: "request"}, "x")
		calls := b.after(time.Hour)
		if len(calls) != 6 {
			t.Fatalf("%d attempts", len(calls))
		}
		for i, c := range calls {
			if c.id != calls[0].id || c.id == "" || c.attempt != i+1 {
				t.Errorf("attempt %d went out as %+v", i+1, c)
			}
			if i > 0 {
				longest := schedule.Or(queue.DefaultSchedule()).Longest(i) + 2*time.Second
				if waited := c.at - calls[i-1].at; waited > longest {
					t.Errorf("attempt %d came after %v, more than %v", i+1, waited, longest)
				}
			}
		}
		r := b.one(queue.Filter{State: queue.StateDead})
		if r.Reason != queue.DeadAttempts || r.Attempts != 6 || len(r.History) != 6 || r.History[5].Status != 503 {
			t.Errorf("got %+v", r)
		}
		b.set(func() { b.answer = nil })
		if err := b.backend.Replay(t.Context(), r.ID); err != nil {
			t.Fatal(err)
		}
		calls = b.after(time.Minute)
		if last := calls[len(calls)-1]; len(calls) != 7 || last.attempt != 7 || last.id != r.ID || last.body != "x" {
			t.Errorf("after the replay: %+v", calls)
		}
		if want := append(slices.Repeat([]string{"name of a retried"}, 5), "name of a max_attempts", "name of a delivered"); !slices.Equal(b.settled, want) {
			t.Errorf("observed %q", b.settled)
		}
	})
}

func TestDurableHonoursRetryAfterAndTheLargestAge(t *testing.T) {
	bubble(t, queue.DurableOptions{Schedule: queue.Schedule{FirstDelay: time.Millisecond, MaxDelay: time.Second, MaxAge: time.Hour}},
		func(t *testing.T, b *durableBundle) {
			b.set(func() {
				b.answer = func(context.Context, targetclient.Call) (targetclient.Result, error) {
					return targetclient.Result{StatusCode: 429, RetryAfter: 25 * time.Minute},
						&targetclient.Error{Reason: targetclient.ReasonFailed, StatusCode: 429}
				}
			})
			b.enqueue(queue.Delivery{Target: target("a")}, "x")
			var at []time.Duration
			for _, c := range b.after(3 * time.Hour) {
				at = append(at, c.at.Round(time.Minute))
			}
			if want := []time.Duration{0, 25 * time.Minute, 50 * time.Minute, time.Hour}; !slices.Equal(at, want) {
				t.Errorf("attempts at %v", at)
			}
			if r := b.one(queue.Filter{State: queue.StateDead}); r.Reason != queue.DeadAge {
				t.Errorf("dead for %q", r.Reason)
			}
		})
}

func TestDurableTellsThatATargetIsGone(t *testing.T) {
	gone := make(chan string, 1)
	bubble(t, queue.DurableOptions{OnGone: func(_ context.Context, id string) { gone <- id }}, func(t *testing.T, b *durableBundle) {
		b.set(func() { b.answer = fails(410, targetclient.ReasonFailed) })
		b.enqueue(queue.Delivery{Target: target("a")}, "x")
		if id := <-gone; id != "a" {
			t.Errorf("gone is %q", id)
		}
		if r := b.one(queue.Filter{}); r.State != queue.StateDead || r.Reason != queue.DeadGone || r.Attempts != 1 {
			t.Errorf("got %+v", r)
		}
	})
}

func TestDurableParksWithoutUsingUpAttempts(t *testing.T) {
	for name, step := range map[string]struct{ park, unpark func(b *durableBundle) }{
		"an open breaker": {
			func(b *durableBundle) { b.breaker["a"] = targetclient.BreakerOpen },
			func(b *durableBundle) { b.breaker["a"] = targetclient.BreakerHalfOpen },
		},
		"a disabled target": {
			func(b *durableBundle) {
				off := *target("a")
				off.Disabled = true
				b.settings["a"] = &queue.Settings{Target: &off}
			},
			func(b *durableBundle) { b.settings["a"] = &queue.Settings{Target: target("a")} },
		},
		"no configuration": {
			func(b *durableBundle) { b.loaded = false },
			func(b *durableBundle) { b.loaded = true },
		},
		"a target that nobody knows yet": {
			func(b *durableBundle) { delete(b.settings, "a") },
			func(b *durableBundle) { b.settings["a"] = &queue.Settings{Target: target("a")} },
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, queue.DurableOptions{TargetGrace: 3 * time.Hour}, func(t *testing.T, b *durableBundle) {
				b.set(func() { step.park(b) })
				b.enqueue(queue.Delivery{Target: target("a")}, "1", "2", "3")
				if calls := b.after(2 * time.Hour); len(calls) != 0 {
					t.Fatalf("called while parked: %+v", calls)
				}
				if n := b.count(queue.Filter{State: queue.StateParked}); n != 3 {
					t.Errorf("%d are parked", n)
				}
				if n := b.Pending(); n != 3 {
					t.Errorf("%d are pending", n)
				}
				b.set(func() { step.unpark(b) })
				calls := b.after(10 * time.Second)
				if len(calls) != 3 || calls[0].attempt != 1 {
					t.Fatalf("after it was over: %+v", calls)
				}
				if n := b.count(queue.Filter{State: queue.StateDelivered}); n != 3 {
					t.Errorf("%d are delivered", n)
				}
			})
		})
	}
}

func TestDurableABreakerThatOpensInBetween(t *testing.T) {
	bubble(t, queue.DurableOptions{}, func(t *testing.T, b *durableBundle) {
		b.set(func() {
			b.answer = func(context.Context, targetclient.Call) (targetclient.Result, error) {
				b.set(func() { b.breaker["a"] = targetclient.BreakerOpen })
				return targetclient.Result{}, &targetclient.Error{Reason: targetclient.ReasonBreakerOpen}
			}
		})
		b.enqueue(queue.Delivery{Target: target("a")}, "1")
		b.after(time.Minute)
		if r := b.one(queue.Filter{State: queue.StateParked}); r.Attempts != 0 || len(r.History) != 0 {
			t.Errorf("got %+v", r)
		}
		b.set(func() { b.answer, b.breaker["a"] = nil, targetclient.BreakerClosed })
		b.after(time.Minute)
		if r := b.one(queue.Filter{State: queue.StateDelivered}); r.Attempts != 1 {
			t.Errorf("got %+v", r)
		}
	})
}

func TestDurableGivesUpOnADeletedTarget(t *testing.T) {
	bubble(t, queue.DurableOptions{TargetGrace: time.Minute}, func(t *testing.T, b *durableBundle) {
		b.set(func() { delete(b.settings, "a") })
		b.enqueue(queue.Delivery{Target: target("a"), Then: []*targetclient.Target{target("b")}}, "x")
		b.after(2 * time.Minute)
		if r := b.one(queue.Filter{Target: "a"}); r.State != queue.StateDead || r.Reason != queue.DeadTarget || r.Attempts != 0 {
			t.Errorf("got %+v", r)
		}
		if got := b.bodies(); !slices.Equal(got, []string{"bx"}) {
			t.Errorf("called %q", got)
		}
	})
}

func TestDurableASlowTargetDelaysNoOther(t *testing.T) {
	bubble(t, queue.DurableOptions{Concurrency: 4, MaxConcurrency: 8}, func(t *testing.T, b *durableBundle) {
		b.set(func() {
			capped := *target("c")
			capped.MaxConcurrency = 2
			b.settings["c"] = &queue.Settings{Target: &capped}
			b.answer = func(ctx context.Context, c targetclient.Call) (targetclient.Result, error) {
				d := 10 * time.Millisecond
				if c.Target.ID == "a" {
					d = time.Hour
				}
				select {
				case <-time.After(d):
					return targetclient.Result{StatusCode: 200}, nil
				case <-ctx.Done():
					return targetclient.Result{}, &targetclient.Error{Reason: targetclient.ReasonCancelled, Err: ctx.Err()}
				}
			}
		})
		for i := range 100 {
			for _, id := range []string{"a", "b", "c"} {
				b.enqueue(queue.Delivery{Target: target(id)}, fmt.Sprint(i))
			}
		}
		b.after(10 * time.Second)
		for _, id := range []string{"b", "c"} {
			if n := b.count(queue.Filter{Target: id, State: queue.StateDelivered}); n != 100 {
				t.Errorf("%d of %s are delivered", n, id)
			}
		}
		if b.most["a"] != 4 || b.most["b"] > 4 || b.most["c"] > 2 {
			t.Errorf("at most %v at once", b.most)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		b.Stop(ctx) // cuts what hangs
		if n := b.count(queue.Filter{Target: "a", State: queue.StatePending}); n != 100 {
			t.Errorf("%d of a are left", n)
		}
		leases, err := b.backend.Lease(t.Context(), "a", 200)
		if err != nil || len(leases) != 100 || leases[0].Record.Attempts != 0 {
			t.Errorf("%d were handed back, %v", len(leases), err)
		}
		if err := b.Enqueue(t.Context(), queue.Delivery{Target: target("a")}); !errors.Is(err, queue.ErrStopped) {
			t.Errorf("after the end: %v", err)
		}
	})
}

func TestDurableStopWaitsForCalls(t *testing.T) {
	bubble(t, queue.DurableOptions{}, func(t *testing.T, b *durableBundle) {
		b.set(func() {
			b.answer = func(context.Context, targetclient.Call) (targetclient.Result, error) {
				time.Sleep(time.Second)
				return targetclient.Result{StatusCode: 200}, nil
			}
		})
		b.enqueue(queue.Delivery{Target: target("a")}, "1")
		b.after(500 * time.Millisecond)
		b.Stop(t.Context())
		if n := b.count(queue.Filter{State: queue.StateDelivered}); n != 1 {
			t.Errorf("%d are delivered", n)
		}
		b.Stop(t.Context())
	})
}

func TestDurableStopWorksOffWhatIsDue(t *testing.T) {
	slow := func(context.Context, targetclient.Call) (targetclient.Result, error) {
		time.Sleep(time.Second)
		return targetclient.Result{StatusCode: 200}, nil
	}
	t.Run("within its time, and leaves what is parked", func(t *testing.T) {
		bubble(t, queue.DurableOptions{Concurrency: 2, WorkOff: true}, func(t *testing.T, b *durableBundle) {
			b.set(func() {
				b.answer = slow
				b.breaker["b"] = targetclient.BreakerOpen
			})
			b.enqueue(queue.Delivery{Target: target("a")}, "1", "2", "3", "4", "5", "6", "7")
			b.enqueue(queue.Delivery{Target: target("b")}, "1")
			began := time.Now()
			b.Stop(t.Context())
			if n := b.count(queue.Filter{State: queue.StateDelivered}); n != 7 {
				t.Errorf("%d of 7 are delivered", n)
			}
			if took := time.Since(began); took > 6*time.Second {
				t.Errorf("the stop took %v: it waited for what is parked", took)
			}
		})
	})
	t.Run("no longer than its time", func(t *testing.T) {
		bubble(t, queue.DurableOptions{Concurrency: 1, WorkOff: true}, func(t *testing.T, b *durableBundle) {
			b.set(func() { b.answer = slow })
			b.enqueue(queue.Delivery{Target: target("a")}, "1", "2", "3", "4", "5", "6", "7")
			ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
			defer cancel()
			began := time.Now()
			b.Stop(ctx)
			if took := time.Since(began); took > 4*time.Second {
				t.Errorf("the stop took %v", took)
			}
			if n := b.count(queue.Filter{State: queue.StateDelivered}); n < 2 || n == 7 {
				t.Errorf("%d are delivered", n)
			}
		})
	})
}

func TestDurableUsesTheTargetOfTheMoment(t *testing.T) {
	bubble(t, queue.DurableOptions{Schedule: queue.Schedule{FirstDelay: time.Minute}}, func(t *testing.T, b *durableBundle) {
		b.set(func() {
			b.settings["a"].Target.URL = "http://old.example"
			b.answer = fails(0, targetclient.ReasonTransport)
		})
		b.enqueue(queue.Delivery{Target: target("a")}, "1")
		b.after(0)
		b.set(func() {
			moved := *target("a")
			moved.URL = "http://new.example"
			b.settings["a"] = &queue.Settings{Target: &moved}
			b.answer = nil
		})
		calls := b.after(2 * time.Minute)
		if len(calls) != 2 || calls[0].url != "http://old.example" || calls[1].url != "http://new.example" {
			t.Errorf("called %+v", calls)
		}
	})
}

func TestDurableKeepsTheOrderOfAUser(t *testing.T) {
	bubble(t, queue.DurableOptions{Schedule: queue.Schedule{FirstDelay: time.Second}}, func(t *testing.T, b *durableBundle) {
		b.set(func() {
			b.settings["a"].OrderBy = queue.OrderByUser
			n := 0
			b.answer = func(_ context.Context, c targetclient.Call) (targetclient.Result, error) {
				time.Sleep(time.Millisecond)
				b.mu.Lock()
				defer b.mu.Unlock()
				if n++; string(c.Body) == "u1" && c.Attempt < 3 {
					return targetclient.Result{}, &targetclient.Error{Reason: targetclient.ReasonTimeout}
				}
				return targetclient.Result{StatusCode: 200}, nil
			}
		})
		b.enqueue(queue.Delivery{Target: target("a"), UserID: "user"}, "u1", "u2", "u3")
		b.enqueue(queue.Delivery{Target: target("a"), UserID: "other"}, "o1", "o2")
		b.enqueue(queue.Delivery{Target: target("a")}, "x")
		b.after(time.Minute)
		var user, all []string
		for _, body := range b.bodies() {
			all = append(all, body)
			if body[1] == 'u' {
				user = append(user, body)
			}
		}
		if want := []string{"au1", "au1", "au1", "au2", "au3"}; !slices.Equal(user, want) {
			t.Errorf("for the user: %q of %q", user, all)
		}
		if i, j := slices.Index(all, "ao2"), slices.Index(all, "au2"); i < 0 || i > j {
			t.Errorf("another user waited: %q", all)
		}
	})
}
