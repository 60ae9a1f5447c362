package patience

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Context is a context.Context that costs next to nothing until somebody waits for it: it is part of a larger value, has
// no parent to register with, makes its channel when it is asked for, and has a timer only if somebody is to be woken by
// its deadline. That the deadline has passed it says by the clock.
//
// The zero value never ends by itself and has no values. A Context must not be copied.
type Context struct {
	// Key and Val are the only value of the context; a nil Key means none. They are set before anybody else sees it.
	Key, Val any

	deadline time.Time // as Limit said

	ended atomic.Bool
	mu    sync.Mutex
	err   error
	done  chan struct{}
	timer *time.Timer
	first *watch

	own  watch // the first of those that come
	lent bool
}

var _ context.Context = (*Context)(nil)

// watch is somebody who wants to hear of a Context's end.
type watch struct {
	c          *Context
	f          func()
	armed      bool // guarded by c.mu
	prev, next *watch
}

// Limit gives the context a deadline, or an earlier one than it has. It is for who made the context, or was given it
// first: nobody else may have it yet.
func (c *Context) Limit(at time.Time) {
	if c.deadline.IsZero() || at.Before(c.deadline) {
		c.deadline = at
	}
}

// Deadline implements context.Context.
func (c *Context) Deadline() (time.Time, bool) { return c.deadline, !c.deadline.IsZero() }

// Value implements context.Context.
func (c *Context) Value(key any) any {
	if c.Key != nil && key == c.Key {
		return c.Val
	}
	return nil
}

// Err implements context.Context.
func (c *Context) Err() error {
	if !c.ended.Load() {
		if c.deadline.IsZero() || time.Until(c.deadline) > 0 {
			return nil
		}
		c.end(context.DeadlineExceeded)
	}
	return c.reason()
}

// ErrAt is Err for who has just looked at the clock.
func (c *Context) ErrAt(now time.Time) error {
	if !c.ended.Load() {
		if c.deadline.IsZero() || now.Before(c.deadline) {
			return nil
		}
		c.end(context.DeadlineExceeded)
	}
	return c.reason()
}

func (c *Context) reason() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// closed is the channel of those that nobody had asked for before the end.
var closed = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// Done implements context.Context.
func (c *Context) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		if c.err != nil {
			c.done = closed
		} else {
			c.done = make(chan struct{})
			c.arm()
		}
	}
	return c.done
}

// arm sees to it that the context ends with its deadline. The lock is held.
func (c *Context) arm() {
	if c.timer == nil && !c.deadline.IsZero() {
		c.timer = time.AfterFunc(time.Until(c.deadline), func() { c.end(context.DeadlineExceeded) })
	}
}

// Cancel ends the context, if its deadline has not.
func (c *Context) Cancel() {
	if c.Err() == nil {
		c.end(context.Canceled)
	}
}

// Release ends the context when nobody serves the request any more. Whether its deadline has passed meanwhile does not
// matter to those who may still have it.
func (c *Context) Release() {
	if !c.ended.Load() {
		c.end(context.Canceled)
	}
}

func (c *Context) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = err
	c.ended.Store(true)
	if c.done != nil {
		close(c.done)
	}
	if c.timer != nil {
		c.timer.Stop()
	}
	for w := c.first; w != nil; {
		next := w.next
		w.armed, w.prev, w.next = false, nil, nil
		go w.f()
		w = next
	}
	c.first = nil
}

// AfterFunc is [context.AfterFunc], which uses it.
func (c *Context) AfterFunc(f func()) (stop func() bool) { return c.watch(f, true) }

// OnCancel is AfterFunc for who watches the deadline by other means: f may not hear of that.
func (c *Context) OnCancel(f func()) (stop func() bool) { return c.watch(f, false) }

func (c *Context) watch(f func(), deadline bool) (stop func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := &c.own
	if c.lent {
		w = new(watch)
	}
	c.lent, w.c, w.f = true, c, f
	if c.err != nil {
		go f()
		return w.stop
	}
	if deadline {
		c.arm()
	}
	w.armed, w.next = true, c.first
	if c.first != nil {
		c.first.prev = w
	}
	c.first = w
	return w.stop
}

// stop ends the watch. It reports false if f was, or is being, called, or the watch had ended already.
func (w *watch) stop() bool {
	c := w.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if !w.armed {
		return false
	}
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		c.first = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	}
	w.armed, w.prev, w.next = false, nil, nil
	return true
}
