package queue

import (
	"context"
	"errors"
	"time"

	"github.com/execgate/execgate/targetclient"
)

// track is the lane of one target in this gateway. Its goroutine leases and hands
// out; it is there only while there is something to do.
type track struct {
	target string

	// The rest is guarded by Durable.mu.

	active  bool // the goroutine runs
	again   bool // there may be something to lease
	running int  // calls under way
	freed   chan struct{}
	parked  string    // why it is parked, or ""
	shown   time.Time // when the backend was told so
}

const (
	// attendEvery is how often what is parked is looked at and counted.
	attendEvery = 5 * time.Second
	// parkedFor is how long a backend shows a lane as parked without hearing more.
	parkedFor = 4 * attendEvery
	// maintainEvery is how often the backend removes what is old.
	maintainEvery = time.Minute
	// settleTimeout bounds one try to settle.
	settleTimeout = 10 * time.Second
)

// Why a lane is parked.
const (
	parkedNotLoaded = "not_loaded" // no configuration yet
	parkedUnknown   = "unknown_target"
	parkedDisabled  = "disabled"
	parkedBreaker   = "breaker_open"
)

// nudge makes the scheduler look at once.
func (q *Durable) nudge() {
	select {
	case q.nudged <- struct{}{}:
	default:
	}
}

// schedule starts lanes that have something due.
func (q *Durable) schedule() {
	away := false
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-q.work.Done():
			return
		case <-q.nudged:
		case <-timer.C:
		}
		targets, wait, err := q.o.Backend.Ready(q.work)
		switch {
		case q.work.Err() != nil:
			return
		case err != nil:
			if !away {
				q.o.Logger.Error("queue is away; deliveries wait", "error", err)
			}
			away = true
			timer.Reset(time.Second)
			continue
		case away:
			away = false
			q.o.Logger.Info("queue is back")
		}
		for _, target := range targets {
			q.kick(target)
		}
		timer.Reset(min(wait, q.o.Poll))
	}
}

// workOff returns when nothing is due and no call is under way, what is parked
// aside, or when ctx ends. Retries that are due later stay where they are.
func (q *Durable) workOff(ctx context.Context) {
	const look = 10 * time.Millisecond
	for ctx.Err() == nil {
		targets, _, err := q.o.Backend.Ready(ctx)
		if err != nil {
			return
		}
		busy := false
		for _, target := range targets {
			if _, why := q.admit(target); why == "" {
				busy = true
				q.kick(target)
			}
		}
		q.mu.Lock()
		for _, t := range q.tracks {
			busy = busy || t.running > 0
		}
		q.mu.Unlock()
		if !busy {
			return
		}
		pause := time.NewTimer(look)
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
		pause.Stop()
	}
}

// kick makes sure that somebody looks at the lane.
func (q *Durable) kick(target string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.work.Err() != nil {
		return
	}
	t := q.tracks[target]
	if t == nil {
		t = &track{target: target, freed: make(chan struct{}, 1)}
		q.tracks[target] = t
	}
	t.again = true
	if !t.active {
		t.active = true
		q.loops.Go(func() { q.serve(t) })
	}
}

// serve leases from a lane and hands out, until there is nothing more or the lane
// is parked.
func (q *Durable) serve(t *track) {
	var leased []*Lease
	left := false
	defer func() {
		q.handBack(leased)
		if !left {
			q.mu.Lock()
			t.active = false
			q.mu.Unlock()
		}
	}()
	for {
		settings, why := q.admit(t.target)
		q.park(t, why)
		if why != "" || q.work.Err() != nil {
			return
		}
		limit, ahead := q.limit(settings)
		q.mu.Lock()
		want, look := limit+ahead-len(leased)-t.running, t.again && len(leased) <= ahead/2
		if look && want > 0 {
			t.again = false
		}
		q.mu.Unlock()
		if look && want > 0 {
			asked := time.Now()
			got, err := q.o.Backend.Lease(q.work, t.target, want)
			if err != nil {
				if q.work.Err() == nil && !errors.Is(err, ErrUnavailable) {
					q.o.Logger.Error("lease deliveries", "target", q.name(t.target), "error", err)
				}
				return
			}
			leased = append(leased, q.hold(got, asked)...)
			if len(got) == want {
				q.mu.Lock()
				t.again = true
				q.mu.Unlock()
			}
		}
		if len(leased) == 0 {
			if left = q.leave(t); left {
				return
			}
		}
		if !q.place(t, limit) {
			return
		}
		if len(leased) == 0 {
			q.free(t) // only room was missing
			continue
		}
		l := leased[0]
		leased = leased[1:]
		q.running.Go(func() {
			defer q.free(t)
			q.attempt(l)
		})
	}
}

// limit is how many calls to the target may be under way, and how many more are
// leased ahead so that none waits for a round trip.
func (q *Durable) limit(s *Settings) (limit, ahead int) {
	if s == nil {
		return q.o.Concurrency, 0
	}
	limit = q.o.Concurrency
	if s.Target.MaxConcurrency > 0 {
		limit = min(limit, s.Target.MaxConcurrency)
	}
	if q.breaker(s.Target.ID) == targetclient.BreakerHalfOpen {
		return 1, 0
	}
	return limit, limit
}

// leave ends the goroutine of a lane unless there is something new.
func (q *Durable) leave(t *track) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if t.again {
		return false
	}
	t.active = false
	return true
}

// place waits for room for one more call: in the lane, then among all.
func (q *Durable) place(t *track, limit int) bool {
	for {
		q.mu.Lock()
		room := t.running < limit
		if room {
			t.running++
		}
		q.mu.Unlock()
		if room {
			break
		}
		select {
		case <-t.freed:
		case <-q.work.Done():
			return false
		}
	}
	// A lane waits for one place at a time, and a channel serves who waits in
	// turn: the lanes go round.
	select {
	case q.slots <- struct{}{}:
		return true
	case <-q.work.Done():
		q.mu.Lock()
		t.running--
		q.mu.Unlock()
		return false
	}
}

func (q *Durable) free(t *track) {
	<-q.slots
	q.mu.Lock()
	t.running--
	q.mu.Unlock()
	select {
	case t.freed <- struct{}{}:
	default:
	}
}

// handBack releases what was leased.
func (q *Durable) handBack(leased []*Lease) {
	for _, l := range leased {
		q.running.Go(func() { q.settle(l, Verdict{Action: Release}) })
	}
}

// admit says what is configured for a target, and why it must not be called now.
// Nothing at all, and no reason: its deliveries are dead letters.
func (q *Durable) admit(target string) (s *Settings, why string) {
	s, loaded := q.o.Targets(target)
	switch {
	case !loaded:
		return nil, parkedNotLoaded
	case s == nil:
		q.mu.Lock()
		defer q.mu.Unlock()
		since, known := q.unknown[target]
		if !known {
			since = time.Now()
			q.unknown[target] = since
		}
		if time.Since(since) < q.o.TargetGrace {
			return nil, parkedUnknown
		}
		return nil, ""
	}
	q.mu.Lock()
	delete(q.unknown, target)
	q.mu.Unlock()
	switch {
	case s.Target.Disabled:
		return s, parkedDisabled
	case q.breaker(target) == targetclient.BreakerOpen:
		return s, parkedBreaker
	}
	return s, ""
}

// name is what the log calls a target: by its id when nobody knows it.
func (q *Durable) name(target string) string {
	if s, _ := q.o.Targets(target); s != nil && s.Target.Name != "" {
		return s.Target.Name
	}
	return target
}

// park takes note of whether a lane is parked, and tells the backend and the log.
func (q *Durable) park(t *track, why string) {
	now := time.Now()
	q.mu.Lock()
	before := t.parked
	t.parked = why
	tell := (why == "") != (before == "") || (why != "" && now.Sub(t.shown) >= attendEvery)
	if tell {
		t.shown = now
	}
	q.mu.Unlock()
	if why != before {
		if why != "" {
			q.o.Logger.Warn("deliveries are parked", "target", q.name(t.target), "reason", why)
		} else {
			q.o.Logger.Info("deliveries are not parked any more", "target", q.name(t.target))
		}
	}
	if !tell {
		return
	}
	d := parkedFor
	if why == "" {
		d = 0
	}
	if err := q.o.Backend.Park(q.work, t.target, d); err != nil && q.work.Err() == nil && !errors.Is(err, ErrUnavailable) {
		q.o.Logger.Error("park deliveries", "target", q.name(t.target), "error", err)
	}
}

// attend counts, keeps the marks of parked lanes alive, unparks, and lets the
// backend clean up.
func (q *Durable) attend() {
	tick := time.NewTicker(attendEvery)
	defer tick.Stop()
	var cleaned time.Time
	for {
		if time.Since(cleaned) >= maintainEvery {
			if expired, err := q.o.Backend.Maintain(q.work); err == nil {
				cleaned = time.Now()
				if expired > 0 {
					q.o.Logger.Warn("dead letters were kept long enough and are gone", "count", expired)
				}
			}
		}
		counts, err := q.o.Backend.Counts(q.work)
		if err == nil {
			total := 0
			for _, c := range counts {
				total += c.Pending
				if c.Pending > 0 {
					q.look(c.Target)
				}
			}
			q.pending.Store(int64(total))
		}
		select {
		case <-tick.C:
		case <-q.work.Done():
			return
		}
	}
}

// look brings up to date whether a lane is parked.
func (q *Durable) look(target string) {
	_, why := q.admit(target)
	q.mu.Lock()
	t := q.tracks[target]
	if t == nil {
		t = &track{target: target, freed: make(chan struct{}, 1)}
		q.tracks[target] = t
	}
	before := t.parked
	q.mu.Unlock()
	q.park(t, why)
	if before != "" && why == "" {
		q.kick(target)
	}
}

// hold makes leases be renewed until they are settled, and returns those that are
// not held already: after the backend was away for longer than the visibility, it
// may give us once more what we have not been able to settle.
func (q *Durable) hold(leases []*Lease, asked time.Time) (fresh []*Lease) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, l := range leases {
		l.renewed = asked
		if q.held[l.Record.ID] == nil {
			q.held[l.Record.ID] = l
			fresh = append(fresh, l)
		}
	}
	return fresh
}

// holds says whether a lease is still ours for certain. It is not when this
// process was stopped, or the backend away, for too long: then somebody else may
// be at it, and an attempt that has not begun had better not begin.
func (q *Durable) holds(l *Lease) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	visibility := q.o.Backend.Visibility()
	return !l.lost && (visibility == 0 || time.Since(l.renewed) < visibility)
}

func (q *Durable) letGo(l *Lease) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.held[l.Record.ID] == l {
		delete(q.held, l.Record.ID)
	}
}

// renew keeps leases alive, also while the calls of a stopping queue end.
func (q *Durable) renew() {
	tick := time.NewTicker(max(q.o.Backend.Visibility()/3, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-q.calls.Done():
			return
		case <-tick.C:
		}
		q.mu.Lock()
		leases := make([]*Lease, 0, len(q.held))
		for _, l := range q.held {
			if l.lost {
				continue
			}
			leases = append(leases, l)
		}
		q.mu.Unlock()
		asked := time.Now()
		lost, err := q.o.Backend.Renew(q.calls, leases)
		count := 0
		q.mu.Lock()
		for _, l := range lost {
			if !l.settling { // otherwise it is not lost, but done with in the meantime
				l.lost = true
				count++
			}
		}
		if err == nil { // otherwise there are two more tries
			for _, l := range leases {
				l.renewed = asked
			}
		}
		q.mu.Unlock()
		if count > 0 {
			q.o.Logger.Warn("deliveries passed to another gateway: the queue could not be told in time that they are under way",
				"count", count)
		}
	}
}

// drain empties the spool whenever the backend is there.
func (q *Durable) drain() {
	retry := time.NewTimer(0) // what an earlier process left
	defer retry.Stop()
	for {
		select {
		case <-q.work.Done():
			return
		case <-q.drained:
		case <-retry.C:
		}
		n, err := q.o.Spool.drain(q.work, q.o.Backend)
		if n > 0 {
			q.o.Logger.Info("deliveries left the spool", "count", n, "left", q.o.Spool.Len())
			q.nudge()
		}
		if err != nil && !errors.Is(err, ErrUnavailable) && q.work.Err() == nil {
			q.o.Logger.Error("empty the spool", "error", err, "left", q.o.Spool.Len())
		}
		if err != nil {
			// What arrives in the meantime is no reason to try sooner.
			pause := time.NewTimer(time.Second)
			select {
			case <-q.work.Done():
			case <-pause.C:
			}
			pause.Stop()
		}
		if q.o.Spool.Len() > 0 {
			retry.Reset(time.Millisecond)
		}
	}
}

// settle ends a lease, however long the backend is away; a stopping queue gives up
// when its calls are cut.
func (q *Durable) settle(l *Lease, v Verdict) {
	q.mu.Lock()
	l.settling = true
	q.mu.Unlock()
	defer q.letGo(l)
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(q.calls), settleTimeout)
		err := q.o.Backend.Settle(ctx, l, v)
		cancel()
		switch {
		case err == nil:
			switch {
			case v.Action == Retry && v.After < q.o.Poll:
				q.nudge()
			case v.Action != Retry && v.Action != Release && l.Record.OrderKey != "":
				q.kick(l.Record.Target) // the next one with the key
			}
			return
		case errors.Is(err, ErrLeaseLost):
			q.o.Logger.Debug("a delivery was settled or dropped by somebody else",
				"delivery", l.Record.ID, "target", l.Record.Target)
			return
		case errors.Is(err, ErrStopped):
			return
		}
		select {
		case <-time.After(wait):
		case <-q.calls.Done():
			return
		}
	}
}
