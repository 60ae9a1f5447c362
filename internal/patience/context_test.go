package patience_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execgate/execgate/internal/patience"
)

type key struct{}

func TestContextThatNobodyEnds(t *testing.T) {
	t.Parallel()
	var c patience.Context
	if _, ok := c.Deadline(); ok || c.Err() != nil || c.Value(key{}) != nil || c.Value(nil) != nil {
		t.Error("the zero value has something")
	}
	select {
	case <-c.Done():
		t.Error("the zero value has ended")
	default:
	}
}

func TestContextHasItsValue(t *testing.T) {
	t.Parallel()
	c := patience.Context{Key: key{}, Val: 7}
	if c.Value(key{}) != 7 || c.Value("other") != nil {
		t.Error("not the value, or another's")
	}
}

func TestCancelledContextEndsForEverybody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var c patience.Context
		early := c.Done()
		child, cancel := context.WithCancel(&c)
		defer cancel()
		var called sync.WaitGroup
		called.Add(3)
		context.AfterFunc(&c, called.Done)
		told := c.OnCancel(called.Done)
		stopped := context.AfterFunc(&c, func() { t.Error("a watch that was stopped is told") })
		if !stopped() || stopped() {
			t.Error("a watch is stopped once")
		}
		c.Cancel()
		c.Cancel()
		c.AfterFunc(called.Done)
		called.Wait()
		<-early
		<-c.Done()
		<-child.Done()
		if told() {
			t.Error("a watch that was told is stopped")
		}
		if !errors.Is(c.Err(), context.Canceled) || !errors.Is(context.Cause(&c), context.Canceled) {
			t.Errorf("ended with %v", c.Err())
		}
	})
}

func TestDeadlineEndsTheContext(t *testing.T) {
	t.Parallel()
	for name, wait := range map[string]func(c *patience.Context){
		"for the channel": func(c *patience.Context) { <-c.Done() },
		"for a function": func(c *patience.Context) {
			called := make(chan struct{})
			context.AfterFunc(c, func() { close(called) })
			<-called
		},
		"by the clock":         func(*patience.Context) { time.Sleep(time.Second) },
		"by a clock just read": func(c *patience.Context) { time.Sleep(time.Second); _ = c.ErrAt(time.Now()); c.Release() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var c patience.Context
				c.Limit(time.Now().Add(time.Second))
				c.Limit(time.Now().Add(time.Hour))
				began := time.Now()
				if c.Err() != nil || c.ErrAt(began.Add(time.Second-1)) != nil {
					t.Error("ended at once")
				}
				wait(&c)
				if took := time.Since(began); took != time.Second {
					t.Errorf("ended after %v", took)
				}
				c.Cancel()
				if !errors.Is(c.Err(), context.DeadlineExceeded) {
					t.Errorf("ended with %v", c.Err())
				}
				<-c.Done()
			})
		})
	}
}

// TestWatchesAmongOthersAreStopped: each watch of several can be taken out.
func TestWatchesAmongOthersAreStopped(t *testing.T) {
	t.Parallel()
	for gone := range 3 {
		synctest.Test(t, func(t *testing.T) {
			var c patience.Context
			var mu sync.Mutex
			told := map[int]bool{}
			var all [3]func() bool
			for i := range all {
				all[i] = c.OnCancel(func() { mu.Lock(); defer mu.Unlock(); told[i] = true })
			}
			if !all[gone]() {
				t.Error("not stopped")
			}
			c.Cancel()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if len(told) != 2 || told[gone] {
				t.Errorf("%d was stopped, told are %v", gone, told)
			}
		})
	}
}

// TestWatchesComeAndGo is for the race detector.
func TestWatchesComeAndGo(t *testing.T) {
	t.Parallel()
	var c patience.Context
	c.Limit(time.Now().Add(time.Hour))
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 100 {
				stop := c.AfterFunc(func() {})
				_ = c.Err()
				stop()
			}
		})
	}
	all.Go(c.Cancel)
	all.Go(c.Release)
	all.Wait()
	if !errors.Is(c.ErrAt(time.Now()), context.Canceled) {
		t.Errorf("ended with %v", c.Err())
	}
}
