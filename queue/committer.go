package queue

import (
	"context"
	"sync"
)

// committer gathers what many goroutines want to write into few writes: while one
// is under way the next ones collect, and then go together. A lone one does not
// wait.
type committer[T any] struct {
	commit  func([]*pending[T]) // one batch at a time; sets each err
	maxSize int

	mu      sync.Mutex
	queue   []*pending[T]
	closed  bool
	arrived chan struct{} // cap 1: the queue is no longer empty
	done    chan struct{} // closed when nothing will be written any more
}

// pending is something to be written.
type pending[T any] struct {
	what T
	size int
	err  error
	done chan struct{}
}

// maxBatch bounds a batch beside its size.
const maxBatch = 512

func newCommitter[T any](maxSize int, commit func([]*pending[T])) *committer[T] {
	c := &committer[T]{commit: commit, maxSize: maxSize, arrived: make(chan struct{}, 1), done: make(chan struct{})}
	go c.run()
	return c
}

// do writes and waits. When ctx ends, it returns: the write may still happen.
func (c *committer[T]) do(ctx context.Context, size int, what T) error {
	p := &pending[T]{what: what, size: size, done: make(chan struct{})}
	if !c.submit(p) {
		return ErrStopped
	}
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// doAll writes several, in order, and waits for them whatever becomes of ctx.
// There is an error for each.
func (c *committer[T]) doAll(what []T) []error {
	all, errs := make([]*pending[T], len(what)), make([]error, len(what))
	for i, w := range what {
		all[i] = &pending[T]{what: w, done: make(chan struct{})}
	}
	if !c.submit(all...) {
		for i := range errs {
			errs[i] = ErrStopped
		}
		return errs
	}
	for i, p := range all {
		<-p.done
		errs[i] = p.err
	}
	return errs
}

// submit says false when nothing is taken any more.
func (c *committer[T]) submit(p ...*pending[T]) bool {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return false
	}
	c.queue = append(c.queue, p...)
	c.mu.Unlock()
	select {
	case c.arrived <- struct{}{}:
	default:
	}
	return true
}

func (c *committer[T]) run() {
	defer close(c.done)
	for {
		batch, closed := c.take()
		if len(batch) == 0 {
			if closed {
				return
			}
			<-c.arrived
			continue
		}
		c.commit(batch)
		for _, p := range batch {
			close(p.done)
		}
	}
}

func (c *committer[T]) take() (batch []*pending[T], closed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, size := 0, 0
	for n < len(c.queue) && n < maxBatch && (n == 0 || size+c.queue[n].size <= c.maxSize) {
		size += c.queue[n].size
		n++
	}
	batch = c.queue[:n:n]
	if c.queue = c.queue[n:]; len(c.queue) == 0 {
		c.queue = nil
	}
	return batch, c.closed
}

func (c *committer[T]) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// close takes nothing more, writes what was taken, and waits for it.
func (c *committer[T]) close() {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		select {
		case c.arrived <- struct{}{}:
		default:
		}
	}
	c.mu.Unlock()
	<-c.done
}
