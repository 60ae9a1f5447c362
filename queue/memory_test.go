package queue_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execgate/execgate/queue"
	"github.com/execgate/execgate/targetclient"
)

// callerFunc is a Caller. In a synctest bubble it may sleep: the time is the
// bubble's.
type callerFunc func(context.Context, targetclient.Call) (targetclient.Result, error)

func (f callerFunc) Do(ctx context.Context, c targetclient.Call) (targetclient.Result, error) {
	return f(ctx, c)
}

// recorder remembers what an Observer is told.
type recorder struct {
	mu      sync.Mutex
	calls   []string
	dropped []string
}

func (r *recorder) TargetCall(target, outcome string, d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, fmt.Sprintf("%s %s %v", target, outcome, d))
}

func (r *recorder) AsyncDropped(reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dropped = append(r.dropped, reason)
}

// testBundle is a started queue with a caller that takes as long as takes says
// for the target, and fails as failing says.
type testBundle struct {
	*queue.Memory
	seen *recorder
	log  *bytes.Buffer // read it when the queue is at rest

	mu      sync.Mutex
	bodies  []string       // of the calls that began, in order
	running map[string]int // by target id
	most    map[string]int // highest of running
}

// takes makes a call take the time and then fail with the error, nil for
// success. A call that is cancelled ends at once.
type takes struct {
	time time.Duration
	err  *targetclient.Error
}

func setup(t *testing.T, o queue.Options, targets map[string]takes) *testBundle {
	t.Helper()
	b := &testBundle{seen: &recorder{}, log: &bytes.Buffer{}, running: map[string]int{}, most: map[string]int{}}
	o.Observer = b.seen
	o.Logger = slog.New(slog.NewTextHandler(b.log, nil))
	o.Caller = callerFunc(func(ctx context.Context, c targetclient.Call) (targetclient.Result, error) {
		b.mu.Lock()
		b.bodies = append(b.bodies, string(c.Body))
		b.running[c.Target.ID]++
		b.most[c.Target.ID] = max(b.most[c.Target.ID], b.running[c.Target.ID])
		b.mu.Unlock()
		defer func() {
			b.mu.Lock()
			b.running[c.Target.ID]--
			b.mu.Unlock()
		}()
		this := targets[c.Target.ID]
		select {
		case <-time.After(this.time):
		case <-ctx.Done():
			return targetclient.Result{}, &targetclient.Error{Reason: targetclient.ReasonCancelled, Err: context.Cause(ctx)}
		}
		if this.err != nil {
			return targetclient.Result{Duration: this.time}, this.err
		}
		return targetclient.Result{Duration: this.time}, nil
	})
	b.Memory = queue.NewMemory(o)
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

func target(id string) *targetclient.Target {
	return &targetclient.Target{ID: id, Name: "name of " + id, Kind: targetclient.KindAsync}
}

func (b *testBundle) enqueue(t *testing.T, id string, bodies ...string) {
	t.Helper()
	for _, body := range bodies {
		if err := b.Enqueue(t.Context(), queue.Delivery{Execution: "request", Target: target(id), Body: []byte(body)}); err != nil {
			t.Fatalf("enqueue %q for %q: %v", body, id, err)
		}
	}
}

func bodies(prefix string, n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprint(prefix, i))
	}
	return all
}

func TestDeliversOnceAndObserves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, queue.Options{}, map[string]takes{
			"good": {time: time.Second},
			"slow": {time: 10 * time.Second, err: &targetclient.Error{Reason: targetclient.ReasonTimeout, Err: targetclient.ErrTargetTimeout}},
			"bad":  {err: &targetclient.Error{Reason: targetclient.ReasonForwarded, ForwardedStatus: 403, Message: "the-secret-message"}},
		})
		b.enqueue(t, "good", "1")
		b.enqueue(t, "slow", "2")
		b.enqueue(t, "bad", "3")
		if got := b.Pending(); got != 3 {
			t.Errorf("pending = %d, want 3", got)
		}
		if lost := b.Stop(t.Context()); lost != 0 {
			t.Errorf("lost %d", lost)
		}
		if got := b.Pending(); got != 0 {
			t.Errorf("pending after the drain = %d", got)
		}
		slices.Sort(b.bodies)
		if want := []string{"1", "2", "3"}; !slices.Equal(b.bodies, want) {
			t.Errorf("calls = %q, want %q", b.bodies, want)
		}
		want := []string{"name of bad forwarded 0s", "name of good ok 1s", "name of slow timeout 10s"}
		slices.Sort(b.seen.calls)
		if !slices.Equal(b.seen.calls, want) {
			t.Errorf("observed %q, want %q", b.seen.calls, want)
		}
		log := b.log.String()
		if strings.Count(log, "async delivery failed") != 2 || strings.Contains(log, "name of good") {
			t.Errorf("log: %s", log)
		}
		for _, want := range []string{`target="name of slow" reason=timeout`, `target="name of bad" reason=forwarded`, "execution=request"} {
			if !strings.Contains(log, want) {
				t.Errorf("log lacks %q: %s", want, log)
			}
		}
		if strings.Contains(log, "the-secret-message") {
			t.Errorf("the log tells what the target wanted forwarded: %s", log)
		}
	})
}

func TestCallerMayGoAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, queue.Options{}, map[string]takes{"a": {time: time.Minute}})
		ctx, cancel := context.WithCancel(t.Context())
		if err := b.Enqueue(ctx, queue.Delivery{Target: target("a")}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		cancel()
		if lost := b.Stop(t.Context()); lost != 0 {
			t.Errorf("lost %d", lost)
		}
		if want := []string{"name of a ok 1m0s"}; !slices.Equal(b.seen.calls, want) {
			t.Errorf("observed %q, want %q", b.seen.calls, want)
		}
	})
}

func TestStartContextDoesNotEndDeliveries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var seen recorder
		m := queue.NewMemory(queue.Options{Observer: &seen, Caller: callerFunc(func(ctx context.Context, _ targetclient.Call) (targetclient.Result, error) {
			time.Sleep(time.Second)
			return targetclient.Result{}, ctx.Err()
		})})
		if err := m.Start(ctx); err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := m.Enqueue(t.Context(), queue.Delivery{Target: target("a")}); err != nil {
			t.Fatal(err)
		}
		if lost := m.Stop(t.Context()); lost != 0 || !slices.Equal(seen.calls, []string{"name of a ok 0s"}) {
			t.Errorf("lost %d, observed %q", lost, seen.calls)
		}
	})
}

func TestBounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, queue.Options{Capacity: 8, TargetCapacity: 3, Concurrency: 2}, map[string]takes{
			"a": {time: time.Second}, "b": {time: time.Second}, "c": {time: time.Second},
		})
		refused := func(id string) error {
			return b.Enqueue(t.Context(), queue.Delivery{Target: target(id)})
		}
		b.enqueue(t, "a", "1", "2", "3")
		if err := refused("a"); !errors.Is(err, queue.ErrTargetFull) {
			t.Errorf("fourth for one target: %v, want ErrTargetFull", err)
		}
		synctest.Wait() // two of them are being delivered now; the bound is the same
		if err := refused("a"); !errors.Is(err, queue.ErrTargetFull) {
			t.Errorf("fourth for one target while two are delivered: %v, want ErrTargetFull", err)
		}
		b.enqueue(t, "b", "1", "2", "3")
		b.enqueue(t, "c", "1", "2")
		if err := refused("c"); !errors.Is(err, queue.ErrFull) {
			t.Errorf("ninth: %v, want ErrFull", err)
		}
		if err := refused("d"); !errors.Is(err, queue.ErrFull) {
			t.Errorf("ninth: %v, want ErrFull", err)
		}
		if got := b.Pending(); got != 8 {
			t.Errorf("pending = %d, want 8", got)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got := b.Pending(); got != 2 { // the third ones of a and b
			t.Errorf("pending after the first round = %d, want 2", got)
		}
		b.enqueue(t, "a", "4", "5")
		b.enqueue(t, "d", "1")
		if lost := b.Stop(t.Context()); lost != 0 {
			t.Errorf("lost %d", lost)
		}
		if len(b.bodies) != 11 {
			t.Errorf("%d calls, want 11", len(b.bodies))
		}
	})
}

func TestConcurrencyAndOrderOfALane(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, queue.Options{Concurrency: 3}, map[string]takes{"a": {time: time.Second}, "one": {time: time.Second}})
		b.enqueue(t, "a", bodies("a", 9)...)
		start := time.Now()
		if lost := b.Stop(t.Context()); lost != 0 {
			t.Errorf("lost %d", lost)
		}
		if took := time.Since(start); took != 3*time.Second || b.most["a"] != 3 {
			t.Errorf("took %v with at most %d at once, want 3s with 3", took, b.most["a"])
		}
	})
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, queue.Options{}, map[string]takes{"one": {time: time.Second}})
		for _, body := range bodies("", 5) {
			one := target("one")
			one.MaxConcurrency = 1
			if err := b.Enqueue(t.Context(), queue.Delivery{Target: one, Body: []byte(body)}); err != nil {
				t.Fatal(err)
			}
		}
		b.Stop(t.Context())
		if !slices.Equal(b.bodies, bodies("", 5)) || b.most["one"] != 1 {
			t.Errorf("delivered %q with at most %d at once, want the order kept, one by one", b.bodies, b.most["one"])
		}
	})
}

func TestLoweredConcurrencyTakesEffect(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, queue.Options{Concurrency: 4}, map[string]takes{"a": {time: time.Second}})
		b.enqueue(t, "a", bodies("wide", 4)...)
		narrow := target("a")
		narrow.MaxConcurrency = 1
		for range 3 {
			if err := b.Enqueue(t.Context(), queue.Delivery{Target: narrow, Body: []byte("narrow")}); err != nil {
				t.Fatal(err)
			}
		}
		start := time.Now()
		b.Stop(t.Context())
		if took := time.Since(start); took != 4*time.Second {
			t.Errorf("took %v, want one second for the wide four and three for the narrow ones", took)
		}
	})
}

func TestSlowTargetDoesNotDelayOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, queue.Options{Capacity: 100}, map[string]takes{"dead": {time: time.Hour}, "good": {time: time.Millisecond}})
		b.enqueue(t, "dead", bodies("dead", 25)...)
		if err := b.Enqueue(t.Context(), queue.Delivery{Target: target("dead")}); !errors.Is(err, queue.ErrTargetFull) {
			t.Errorf("the dead target takes more than a quarter: %v", err)
		}
		b.enqueue(t, "good", bodies("good", 20)...)
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if got := b.Pending(); got != 25 {
			t.Errorf("pending = %d, want only those of the dead target", got)
		}
		b.Stop(t.Context())
	})
}

func TestStopGivesUpAtTheEndOfItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, queue.Options{Concurrency: 2}, map[string]takes{"dead": {time: time.Hour}, "good": {time: time.Second}})
		b.enqueue(t, "dead", bodies("", 5)...)
		b.enqueue(t, "good", bodies("", 4)...)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		start := time.Now()
		stopping := make(chan int)
		go func() { stopping <- b.Stop(ctx) }()
		synctest.Wait()
		if err := b.Enqueue(t.Context(), queue.Delivery{Target: target("good")}); !errors.Is(err, queue.ErrStopped) {
			t.Errorf("enqueue while stopping: %v, want ErrStopped", err)
		}
		second := make(chan int)
		go func() { second <- b.Stop(ctx) }()
		if lost := <-stopping; lost != 5 {
			t.Errorf("lost %d, want 2 running and 3 waiting", lost)
		}
		if lost := <-second; lost != 0 {
			t.Errorf("the second Stop lost %d", lost)
		}
		if took := time.Since(start); took != 10*time.Second {
			t.Errorf("took %v, want 10s", took)
		}
		if got := b.Pending(); got != 0 {
			t.Errorf("pending = %d", got)
		}
		if want := slices.Repeat([]string{queue.DroppedShutdown}, 5); !slices.Equal(b.seen.dropped, want) {
			t.Errorf("dropped = %q, want %q", b.seen.dropped, want)
		}
		if log := b.log.String(); strings.Count(log, "\n") != 1 || !strings.Contains(log, "count=5") {
			t.Errorf("log: %s", log)
		}
	})
}

func TestStopWithoutStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := queue.NewMemory(queue.Options{})
		if err := m.Enqueue(t.Context(), queue.Delivery{Target: target("a")}); !errors.Is(err, queue.ErrStopped) {
			t.Errorf("enqueue before the start: %v, want ErrStopped", err)
		}
		if lost := m.Stop(t.Context()) + m.Stop(t.Context()); lost != 0 {
			t.Errorf("lost %d", lost)
		}
		if err := m.Start(t.Context()); err == nil {
			t.Error("started after the stop")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, queue.Options{}, nil)
		if err := b.Start(t.Context()); err == nil {
			t.Error("started twice")
		}
		if lost := b.Stop(t.Context()) + b.Stop(t.Context()); lost != 0 {
			t.Errorf("lost %d", lost)
		}
	})
}

// Many goroutines at once, with the race detector: every delivery that was
// accepted is made exactly once.
func TestEverythingAcceptedIsDelivered(t *testing.T) {
	t.Parallel()
	var delivered sync.Map
	m := queue.NewMemory(queue.Options{Capacity: 64, Concurrency: 2, Caller: callerFunc(
		func(_ context.Context, c targetclient.Call) (targetclient.Result, error) {
			if _, twice := delivered.LoadOrStore(string(c.Body), true); twice {
				t.Errorf("%s is delivered twice", c.Body)
			}
			return targetclient.Result{}, nil
		},
	)})
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	accepted := make([]int, 8)
	var group sync.WaitGroup
	for g := range accepted {
		group.Go(func() {
			for i := range 500 {
				d := queue.Delivery{Target: target(fmt.Sprint("t", (g+i)%5)), Body: fmt.Appendf(nil, "%d-%d", g, i)}
				if m.Enqueue(t.Context(), d) == nil {
					accepted[g]++
				}
			}
		})
	}
	group.Wait()
	if lost := m.Stop(t.Context()); lost != 0 {
		t.Errorf("lost %d", lost)
	}
	want, got := 0, 0
	for _, n := range accepted {
		want += n
	}
	delivered.Range(func(any, any) bool { got++; return true })
	if got != want || want == 0 {
		t.Errorf("delivered %d of %d accepted", got, want)
	}
}

func TestDropReason(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]error{
		"full":        fmt.Errorf("enqueue: %w", queue.ErrFull),
		"target_full": queue.ErrTargetFull,
		"stopped":     queue.ErrStopped,
		"error":       errors.New("disk full"),
	} {
		if got := queue.DropReason(err); got != want {
			t.Errorf("DropReason(%v) = %q, want %q", err, got, want)
		}
	}
}
