package queue

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/execgate/execgate/targetclient"
)

// Settings are what the queue must know about a target.
type Settings struct {
	// Target is called. Disabled parks its deliveries, MaxConcurrency lowers the
	// cap of its lane.
	Target *targetclient.Target
	// Schedule says when attempts are made; its zero fields are those of
	// DurableOptions.
	Schedule Schedule
	// OrderBy keeps deliveries in order.
	OrderBy OrderBy
	// OnFull says what to do with a delivery that cannot be taken.
	OnFull OnFull
}

// OrderBy says which deliveries to a target keep their order: those with the same
// user, or the same aggregate. Those without one have no order. It costs: of the
// deliveries with one key only one is under way at a time, so that a key gets one
// attempt per round trip, and waits as long as its first delivery is retried; and
// the queue keeps an entry more for each.
type OrderBy string

// The ways to order.
const (
	OrderByNone      OrderBy = ""
	OrderByUser      OrderBy = "user_id"
	OrderByAggregate OrderBy = "aggregate_id"
)

// OnFull says what becomes of a delivery that neither the queue nor the spool can
// take.
type OnFull string

// What can become of it.
const (
	// OnFullDrop gives it up: it is counted and logged, the caller goes on.
	OnFullDrop OnFull = "drop"
	// OnFullBlockCall blocks the call: it waits until there is room, and when its
	// time is up, it fails ([ErrBlocked]).
	OnFullBlockCall OnFull = "block_call"
)

// ErrBlocked wraps the error of a delivery that could not be taken for a target
// with OnFullBlockCall: the call that asked for it must not go on.
var ErrBlocked = errors.New("call is blocked by its delivery")

// Lookup returns what is configured for a target now; nil: there is no such
// target. Without a configuration loaded is false, and nothing is delivered. It
// is called often and must be quick.
type Lookup func(targetID string) (s *Settings, loaded bool)

// DurableOptions configure [NewDurable]. Backend, Caller and Targets are required.
type DurableOptions struct {
	Backend Backend
	// Caller makes the calls. If it has a method BreakerState, as
	// [*targetclient.Client] does, an open breaker parks a target.
	Caller Caller
	// Targets is asked at every attempt, so that a changed target counts at once.
	Targets Lookup
	// Schedule is for targets that have none. Zero fields: [DefaultSchedule].
	Schedule Schedule
	// Concurrency is how many deliveries to one target may be under way. Default
	// 16.
	Concurrency int
	// MaxConcurrency is how many to all targets; free places go round. Default
	// 256.
	MaxConcurrency int
	// Spool takes deliveries while the backend is away. Nil: they are refused.
	Spool *Spool
	// BlockFor is how long OnFullBlockCall waits at most. Default 10s.
	BlockFor time.Duration
	// TargetGrace is how long deliveries to an unknown target are parked before
	// they become dead letters: this gateway may not have heard of it yet. Default
	// 5m.
	TargetGrace time.Duration
	// OnGone, if not nil, is called when a target answered 410: it is to be
	// disabled. It must not wait for the queue.
	OnGone func(ctx context.Context, targetID string)
	// Observer is told of every attempt; it may be a DeliveryObserver. Nil: nobody
	// is.
	Observer Observer
	// Logger gets what goes wrong. Nil: slog.Default().
	Logger *slog.Logger
	// Poll is how often the backend is asked for what others put there. Default
	// 200ms.
	Poll time.Duration
	// EventTimeout bounds the calls of the targets of one event that follow each
	// other; a target that is left none of it gets it whole, as each repetition
	// does. 0: only the targets' own timeouts do.
	EventTimeout time.Duration
	// EventMaxAge is when deliveries of events are given up at the latest, also
	// when none of their attempts was made. 0: only the schedule says.
	EventMaxAge time.Duration
	// WorkOff makes Stop deliver what is due by then, within its time, before it
	// leases no more: for a backend that no other gateway reads.
	WorkOff bool
}

// Durable takes deliveries into a [Backend] and delivers them out of it, at least
// once each. Every target has a lane of its own with a bound on what is under
// way, so a slow target delays only its own deliveries.
//
// It is started once and stopped once. All methods are safe for concurrent use.
// Any number of gateways may run one on the same backend, if that is shared.
type Durable struct {
	o       DurableOptions
	breaker func(targetID string) targetclient.BreakerState
	ended   func(target, outcome string)
	spooled func()

	phase   atomic.Uint32 // a phase
	pending atomic.Int64  // as last counted in the backend

	nudged  chan struct{} // cap 1: look for what is due
	drained chan struct{} // cap 1: the spool has something
	slots   chan struct{} // a place for each call under way

	mu      sync.Mutex
	tracks  map[string]*track
	held    map[string]*Lease    // by id of the delivery; to be renewed
	unknown map[string]time.Time // targets that nobody knows, since when

	work     context.Context // ends when leasing is to end
	stopWork context.CancelFunc
	calls    context.Context // ends when calls are to be cut
	cutCalls context.CancelFunc
	loops    sync.WaitGroup // what ends with work; it starts calls
	running  sync.WaitGroup // calls
	renewing sync.WaitGroup // what ends with calls
	stopped  chan struct{}
}

// NewDurable returns a queue that takes deliveries once it has been started.
func NewDurable(o DurableOptions) (*Durable, error) {
	if o.Backend == nil || o.Caller == nil || o.Targets == nil {
		return nil, errors.New("queue: backend, caller and targets are required")
	}
	o.Schedule = o.Schedule.Or(DefaultSchedule())
	o.Concurrency = orDefault(o.Concurrency, 16)
	o.MaxConcurrency = orDefault(o.MaxConcurrency, 256)
	o.BlockFor = orDefault(o.BlockFor, 10*time.Second)
	o.TargetGrace = orDefault(o.TargetGrace, 5*time.Minute)
	o.Poll = orDefault(o.Poll, 200*time.Millisecond)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	q := &Durable{
		o:       o,
		breaker: func(string) targetclient.BreakerState { return targetclient.BreakerClosed },
		ended:   func(string, string) {},
		spooled: func() {},
		nudged:  make(chan struct{}, 1),
		drained: make(chan struct{}, 1),
		slots:   make(chan struct{}, o.MaxConcurrency),
		tracks:  make(map[string]*track),
		held:    make(map[string]*Lease),
		unknown: make(map[string]time.Time),
		stopped: make(chan struct{}),
	}
	if b, ok := o.Caller.(interface {
		BreakerState(targetID string) targetclient.BreakerState
	}); ok {
		q.breaker = b.BreakerState
	}
	if d, ok := o.Observer.(DeliveryObserver); ok {
		q.ended, q.spooled = d.DeliverySettled, d.DeliverySpooled
	}
	return q, nil
}

// Start makes the queue take deliveries and deliver what is there. The context
// gives the calls its values; it is Stop that ends them. A second Start is an
// error.
func (q *Durable) Start(ctx context.Context) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if phase(q.phase.Load()) != created {
		return errors.New("start queue: it was started or stopped before")
	}
	ctx = context.WithoutCancel(ctx)
	q.work, q.stopWork = context.WithCancel(ctx)
	q.calls, q.cutCalls = context.WithCancel(ctx)
	q.phase.Store(uint32(running))
	q.loops.Go(q.schedule)
	q.loops.Go(q.attend)
	if q.o.Backend.Visibility() > 0 {
		q.renewing.Go(q.renew)
	}
	if q.o.Spool != nil {
		q.loops.Go(q.drain)
	}
	return nil
}

// Stop refuses new deliveries, works off what is due if WorkOff says so, leases no
// more, and waits until the calls under way have ended, or ctx does; then it cuts
// them. What was leased and not delivered is
// handed back, so that other gateways, or the next start, get it at once. Nothing
// is lost: the number that it returns, for the sake of [Memory], is 0. The backend
// and the spool stay open.
func (q *Durable) Stop(ctx context.Context) (lost int) {
	q.mu.Lock()
	before := phase(q.phase.Swap(uint32(draining)))
	q.mu.Unlock()
	if before == running {
		if q.o.WorkOff {
			q.workOff(ctx)
		}
		q.mu.Lock()
		q.stopWork() // under mu: no lane starts after it
		q.mu.Unlock()
	}
	switch before {
	case created:
		close(q.stopped)
		return 0
	case draining, ended:
		<-q.stopped
		return 0
	}
	defer close(q.stopped)
	quiet := make(chan struct{})
	go func() {
		q.loops.Wait()
		q.running.Wait()
		close(quiet)
	}()
	select {
	case <-quiet:
	case <-ctx.Done():
		q.cutCalls()
		<-quiet
	}
	q.cutCalls()
	q.renewing.Wait()
	return 0
}

// Pending returns how many deliveries wait or are under way: in the backend, as of
// a few seconds ago, and in the spool.
func (q *Durable) Pending() int {
	n := int(q.pending.Load())
	if q.o.Spool != nil {
		n += q.o.Spool.Len()
	}
	return n
}

// Enqueue takes the delivery. It returns when it is safely kept, which takes a
// write to disk or a round trip, but never waits for the target: nil, or
// [ErrFull], [ErrTargetFull], [ErrTooLarge], [ErrStopped], [ErrUnavailable],
// [ErrSpoolFull], or one of them together with [ErrBlocked] for a target with
// OnFullBlockCall, which alone waits for room. The end of ctx ends that waiting;
// it does not take a delivery back.
func (q *Durable) Enqueue(ctx context.Context, d Delivery) error {
	if d.Target == nil {
		return errors.New("queue: a delivery needs a target")
	}
	settings, _ := q.o.Targets(d.Target.ID)
	if settings == nil {
		settings = &Settings{}
	}
	r := q.newRecord(d, settings)
	err := q.take(ctx, r)
	if err == nil || settings.OnFull != OnFullBlockCall {
		return err
	}
	limit := time.NewTimer(q.o.BlockFor)
	defer limit.Stop()
	for wait := 10 * time.Millisecond; !errors.Is(err, ErrTooLarge) && !errors.Is(err, ErrStopped); wait = min(2*wait, time.Second) {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrBlocked, err)
		case <-limit.C:
			return fmt.Errorf("%w: %w", ErrBlocked, err)
		}
		if err = q.take(ctx, r); err == nil {
			return nil
		}
	}
	return fmt.Errorf("%w: %w", ErrBlocked, err)
}

// newRecord makes the record of a delivery to a target with the settings.
func (q *Durable) newRecord(d Delivery, settings *Settings) *Record {
	now := time.Now()
	r := &Record{
		ID: d.ID, Target: d.Target.ID, Kind: d.Kind, Execution: d.Execution, Body: d.Body,
		Interrupt: d.Target.InterruptOnError, OrderKey: settings.OrderBy.key(&d),
	}
	if r.ID == "" {
		r.ID = NewID(now)
	}
	for i, t := range d.Then {
		step := Step{ID: NewID(now), Target: t.ID, Interrupt: t.InterruptOnError}
		if d.ID != "" {
			step.ID = IDFor(timeOf(d.ID), d.ID, strconv.Itoa(i))
		}
		if s, _ := q.o.Targets(t.ID); s != nil {
			step.OrderKey = s.OrderBy.key(&d)
		}
		r.Then = append(r.Then, step)
	}
	return r
}

// key returns the order key of a delivery: a hash, because what it stands for may
// be personal data, and the queue must only tell whether two are the same.
func (by OrderBy) key(d *Delivery) string {
	value := ""
	switch by {
	case OrderByUser:
		value = d.UserID
	case OrderByAggregate:
		value = d.AggregateID
	}
	if value == "" {
		return ""
	}
	hash := sha256.Sum256([]byte(value))
	return hex.EncodeToString(hash[:12])
}

// patience bounds a Put, beside what the backend itself does.
const patience = 30 * time.Second

// take keeps a record: in the backend, or in the spool while that is away. As long
// as the spool has something, it gets everything, so that nothing overtakes.
func (q *Durable) take(ctx context.Context, r *Record) error {
	if phase(q.phase.Load()) != running && !r.accepted {
		return ErrStopped
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	spool := q.o.Spool
	if spool != nil && spool.Len() > 0 {
		if err := q.toSpool(ctx, r); !errors.Is(err, ErrSpoolFull) || r.OrderKey != "" {
			return err
		}
	}
	err := q.o.Backend.Put(ctx, r)
	switch {
	case err == nil:
		q.kick(r.Target)
		return nil
	case ctx.Err() != nil:
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	case !errors.Is(err, ErrUnavailable):
		return err
	}
	if spool == nil {
		return err
	}
	if spoolErr := q.toSpool(ctx, r); spoolErr != nil {
		return fmt.Errorf("%w (%w)", spoolErr, err)
	}
	return nil
}

func (q *Durable) toSpool(ctx context.Context, r *Record) error {
	if err := q.o.Spool.put(ctx, r); err != nil {
		return err
	}
	q.spooled()
	select {
	case q.drained <- struct{}{}:
	default:
	}
	return nil
}
