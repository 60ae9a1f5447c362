package queue

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"github.com/execgate/execgate/targetclient"
)

// Options tune a [Memory]. Only Caller is required.
type Options struct {
	// Caller makes the calls.
	Caller Caller
	// Capacity is how many deliveries may be pending: waiting or being
	// delivered. Default 1024.
	Capacity int
	// TargetCapacity is how many of them may be for one target, so that one dead
	// target cannot take the place of all others. Default: a quarter of Capacity.
	TargetCapacity int
	// Concurrency is how many deliveries to one target may run at once. A
	// target's own MaxConcurrency lowers it. Default 16.
	Concurrency int
	// Observer is told of every call. Nil: nobody is.
	Observer Observer
	// Logger gets one line per failed delivery. Nil: slog.Default().
	Logger *slog.Logger
}

// Memory delivers in the background and keeps what waits in memory. Every
// target has a lane of its own, with its own order, concurrency and bound, so a
// slow target delays and displaces only its own deliveries. Within a lane,
// deliveries start in the order in which they were accepted.
//
// A delivery is tried once. It runs under its target's timeout and is not
// touched by the end of the call that made it.
//
// A Memory is started once and stopped once. All methods are safe for
// concurrent use.
type Memory struct {
	o Options

	mu      sync.Mutex
	phase   phase
	lanes   map[string]*lane // by target id; only those that have workers
	pending int              // waiting and running, in all lanes
	cut     int              // running deliveries that the end of the drain cancelled

	drained chan struct{} // closed when stopping and nothing is pending
	stopped chan struct{} // closed when Stop is done
	workers sync.WaitGroup

	// run is the context of the deliveries, from Start to the end of the drain: it
	// is the lifetime of the queue, not of a call.
	run    context.Context
	cancel context.CancelFunc
}

type phase uint8

const (
	created phase = iota
	running
	draining
	ended // the drain is over: nothing is started any more
)

// lane holds the deliveries of one target. Its workers take from the front.
type lane struct {
	waiting []Delivery
	pending int // waiting and running
	workers int
}

// NewMemory returns a queue that takes deliveries once it has been started.
func NewMemory(o Options) *Memory {
	if o.Capacity <= 0 {
		o.Capacity = 1024
	}
	if o.TargetCapacity <= 0 {
		o.TargetCapacity = max(o.Capacity/4, 1)
	}
	if o.Concurrency <= 0 {
		o.Concurrency = 16
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return &Memory{o: o, lanes: make(map[string]*lane), drained: make(chan struct{}), stopped: make(chan struct{})}
}

// Start makes the queue take deliveries. The context gives them its values; it
// is Stop that ends them, not the context. A second Start is an error.
func (m *Memory) Start(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.phase != created {
		return errors.New("start queue: it was started or stopped before")
	}
	m.phase = running
	m.run, m.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return nil
}

// Enqueue takes the delivery and returns at once, without waiting for room or
// for the target: nil when the delivery was accepted, otherwise [ErrFull],
// [ErrTargetFull] or [ErrStopped]. The context is not kept.
func (m *Memory) Enqueue(_ context.Context, d Delivery) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.phase != running {
		return ErrStopped
	}
	l := m.lanes[d.Target.ID]
	if l == nil {
		l = &lane{}
	}
	switch {
	case l.pending >= m.o.TargetCapacity:
		return ErrTargetFull
	case m.pending >= m.o.Capacity:
		return ErrFull
	}
	m.lanes[d.Target.ID] = l
	m.pending++
	l.pending++
	l.waiting = append(l.waiting, d)
	if l.workers < m.concurrency(d.Target) {
		l.workers++
		m.workers.Go(func() { m.work(d.Target.ID, l) })
	}
	return nil
}

// Pending returns how many accepted deliveries are waiting or running.
func (m *Memory) Pending() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pending
}

// Stop refuses new deliveries and waits until the accepted ones are delivered,
// or the context ends. It then gives up those that wait, cancels those that
// run, waits for them to return, and says how many deliveries were lost that
// way. Stopping twice, or before the start, loses nothing; the second Stop waits
// for the first.
func (m *Memory) Stop(ctx context.Context) (lost int) {
	m.mu.Lock()
	before := m.phase
	if before == created || before == running {
		m.phase = draining
		if m.pending == 0 {
			close(m.drained)
		}
	}
	m.mu.Unlock()
	switch before {
	case created:
		close(m.stopped)
		return 0
	case draining, ended:
		<-m.stopped
		return 0
	}
	defer close(m.stopped)

	select {
	case <-m.drained:
	case <-ctx.Done():
		lost = m.giveUp()
	}
	m.cancel()
	m.workers.Wait()
	m.mu.Lock()
	lost += m.cut
	m.mu.Unlock()
	if lost > 0 {
		m.o.Logger.Error("async deliveries lost at shutdown", "count", lost)
	}
	for range lost {
		if m.o.Observer != nil {
			m.o.Observer.AsyncDropped(DroppedShutdown)
		}
	}
	return lost
}

// giveUp empties the lanes and returns how many deliveries were waiting.
func (m *Memory) giveUp() (lost int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.phase = ended
	for _, l := range m.lanes {
		lost += len(l.waiting)
		l.pending -= len(l.waiting)
		l.waiting = nil
	}
	m.pending -= lost
	return lost
}

// concurrency is the number of deliveries to the target that may run at once.
func (m *Memory) concurrency(t *targetclient.Target) int {
	if t.MaxConcurrency > 0 {
		return min(t.MaxConcurrency, m.o.Concurrency)
	}
	return m.o.Concurrency
}

// work delivers from the lane until it is empty or has a worker too many.
func (m *Memory) work(id string, l *lane) {
	for {
		d, ok := m.next(id, l)
		if !ok {
			return
		}
		m.done(l, m.deliver(d))
	}
}

// next takes the delivery at the front of the lane. When there is none for this
// worker, the worker is off the lane, and an empty lane goes.
func (m *Memory) next(id string, l *lane) (d Delivery, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	// A newer configuration may want fewer workers; the last one always stays.
	if len(l.waiting) > 0 && l.workers <= m.concurrency(l.waiting[0].Target) {
		d, l.waiting[0] = l.waiting[0], Delivery{}
		l.waiting = l.waiting[1:]
		return d, true
	}
	l.workers--
	if l.workers == 0 {
		delete(m.lanes, id)
	}
	return Delivery{}, false
}

// deliver makes a delivery, and those that follow it.
func (m *Memory) deliver(d Delivery) error {
	err := m.call(d)
	for _, next := range d.Then {
		if err != nil && d.Target.InterruptOnError || m.run.Err() != nil {
			break
		}
		d.Target = next
		err = m.call(d)
	}
	return err
}

func (m *Memory) call(d Delivery) error {
	result, err := m.o.Caller.Do(m.run, targetclient.Call{Target: d.Target, Body: d.Body})
	outcome := "ok"
	if err != nil {
		outcome = targetclient.ReasonTransport.String()
		if e, ok := errors.AsType[*targetclient.Error](err); ok {
			outcome = e.Reason.String()
		}
	}
	if m.o.Observer != nil {
		m.o.Observer.TargetCall(d.Target.Name, outcome, result.Duration)
	}
	if err != nil && m.run.Err() == nil {
		m.o.Logger.Warn("async delivery failed",
			"execution", d.Execution, "target", d.Target.Name, "reason", outcome, "error", err)
	}
	return err
}

// done takes a delivery that was made off the counts.
func (m *Memory) done(l *lane, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil && m.run.Err() != nil {
		m.cut++
	}
	l.pending--
	m.pending--
	if m.phase == draining && m.pending == 0 {
		close(m.drained)
	}
}
