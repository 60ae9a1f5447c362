package h2

import "sync"

// maxIdleWorkers is how many goroutines wait for a request at most.
const maxIdleWorkers = 64

// workers are goroutines that wait for a request: their stacks are large enough by now, and growing a stack costs more
// than anything else in starting a goroutine. The one that has served last is the next to serve; what it needs may be in
// the processor's cache yet.
type workers struct {
	mu      sync.Mutex
	last    *worker
	n       int
	stopped bool
}

type worker struct {
	jobs chan job
	next *worker
}

// work runs a handler on a goroutine of its own: one that has run others, if one is idle.
func (p *workers) work(j job) {
	p.mu.Lock()
	w := p.last
	if w != nil {
		p.last, w.next = w.next, nil
		p.n--
	}
	p.mu.Unlock()
	if w == nil {
		w = &worker{jobs: make(chan job, 1)}
		go p.run(w)
	}
	w.jobs <- j
}

// run runs handlers as they come.
func (p *workers) run(w *worker) {
	for j := range w.jobs {
		j.h.serve(j.handler)
		if !p.rest(w) {
			return
		}
	}
}

// rest has a worker wait for the next request. It reports false if enough do.
func (p *workers) rest(w *worker) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped || p.n >= maxIdleWorkers {
		return false
	}
	w.next, p.last = p.last, w
	p.n++
	return true
}

// stop ends those that wait, and the others when they have served.
func (p *workers) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	for w := p.last; w != nil; w = w.next {
		close(w.jobs)
	}
	p.last, p.n = nil, 0
}
