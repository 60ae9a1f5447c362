package queuetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/execgate/execgate/queue"
	"github.com/execgate/execgate/targetclient"
)

// Queue is what stands behind an asynchronous call: [queue.Memory], and
// [queue.Durable] on any backend.
type Queue interface {
	Start(ctx context.Context) error
	Enqueue(ctx context.Context, d queue.Delivery) error
	Pending() int
	Stop(ctx context.Context) (lost int)
}

// RunQueue runs the tests that every queue must pass. The function makes one that
// calls the caller, at most four times at once for one target.
func RunQueue(t *testing.T, newQueue func(t *testing.T, c queue.Caller, targets queue.Lookup) Queue) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, Queue, *caller){
		"everything is delivered once":        testDeliversAll,
		"a slow target holds up no other":     testSlowTarget,
		"it refuses before and after":         testRefuses,
		"the end waits for what is under way": testStopWaits,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &caller{slow: make(chan struct{}), got: map[string]int{}, most: map[string]int{}, running: map[string]int{}}
			c.changed = sync.NewCond(&c.mu)
			q := newQueue(t, c, func(id string) (*queue.Settings, bool) { return &queue.Settings{Target: newTarget(id)}, true })
			defer func() {
				c.release()
				q.Stop(context.WithoutCancel(t.Context()))
			}()
			test(t, q, c)
		})
	}
}

func newTarget(id string) *targetclient.Target {
	return &targetclient.Target{ID: id, Name: "name of " + id, Kind: targetclient.KindAsync}
}

// caller counts calls. Those to the target "slow" hang until it is released.
type caller struct {
	slow     chan struct{}
	released sync.Once

	mu            sync.Mutex
	changed       *sync.Cond
	got           map[string]int // by target and body
	running, most map[string]int // by target
	began, total  int
}

func (c *caller) release() { c.released.Do(func() { close(c.slow) }) }

func (c *caller) Do(ctx context.Context, call targetclient.Call) (targetclient.Result, error) {
	id := call.Target.ID
	c.mu.Lock()
	c.began++
	c.running[id]++
	c.most[id] = max(c.most[id], c.running[id])
	c.changed.Broadcast()
	c.mu.Unlock()
	var err error
	if id == "slow" {
		select {
		case <-c.slow:
		case <-ctx.Done():
			err = &targetclient.Error{Reason: targetclient.ReasonCancelled, Err: ctx.Err()}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running[id]--
	if err == nil {
		c.got[id+" "+string(call.Body)]++
		c.total++
	}
	c.changed.Broadcast()
	return targetclient.Result{StatusCode: 200, Duration: time.Millisecond}, err
}

// wait waits until what was seen is enough.
func (c *caller) wait(enough func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !enough() {
		c.changed.Wait()
	}
}

func start(t *testing.T, q Queue) {
	t.Helper()
	if err := q.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func enqueue(t *testing.T, q Queue, id, body string) {
	t.Helper()
	err := q.Enqueue(t.Context(), queue.Delivery{Execution: "request", Target: newTarget(id), Body: []byte(body)})
	if err != nil {
		t.Fatalf("enqueue %q: %v", body, err)
	}
}

func testDeliversAll(t *testing.T, q Queue, c *caller) {
	start(t, q)
	var wg sync.WaitGroup
	for p := range 4 {
		wg.Go(func() {
			for i := range 50 {
				id := fmt.Sprint("target", i%3)
				err := q.Enqueue(t.Context(), queue.Delivery{Execution: "request", Target: newTarget(id), Body: fmt.Append(nil, p, "/", i)})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	c.wait(func() bool { return c.total >= 200 })
	if lost := q.Stop(t.Context()); lost != 0 {
		t.Errorf("%d are lost", lost)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for what, n := range c.got {
		if n != 1 {
			t.Errorf("%s came %d times", what, n)
		}
	}
	if len(c.got) != 200 {
		t.Errorf("%d came", len(c.got))
	}
	for id, n := range c.most {
		if n > 4 {
			t.Errorf("%d at once to %s", n, id)
		}
	}
}

func testSlowTarget(t *testing.T, q Queue, c *caller) {
	start(t, q)
	for i := range 10 {
		enqueue(t, q, "slow", fmt.Sprint(i))
	}
	for i := range 10 {
		enqueue(t, q, "quick", fmt.Sprint(i))
	}
	c.wait(func() bool { return c.total == 10 && c.running["slow"] == 4 })
	c.release()
	c.wait(func() bool { return c.total == 20 })
}

func testRefuses(t *testing.T, q Queue, _ *caller) {
	d := queue.Delivery{Target: newTarget("t")}
	if err := q.Enqueue(t.Context(), d); !errors.Is(err, queue.ErrStopped) {
		t.Errorf("before the start: %v", err)
	}
	start(t, q)
	if err := q.Start(t.Context()); err == nil {
		t.Error("started twice")
	}
	q.Stop(t.Context())
	q.Stop(t.Context())
	if err := q.Enqueue(t.Context(), d); !errors.Is(err, queue.ErrStopped) {
		t.Errorf("after the end: %v", err)
	}
}

func testStopWaits(t *testing.T, q Queue, c *caller) {
	start(t, q)
	enqueue(t, q, "slow", "x")
	c.wait(func() bool { return c.began == 1 })
	stopped := make(chan int)
	go func() { stopped <- q.Stop(context.WithoutCancel(t.Context())) }()
	select {
	case <-stopped:
		t.Error("stopped before the call had ended")
	case <-time.After(20 * time.Millisecond):
	}
	c.release()
	if lost := <-stopped; lost != 0 {
		t.Errorf("%d are lost", lost)
	}
	c.wait(func() bool { return c.total == 1 })
}
