package queue

import (
	"context"
	"errors"
	"time"

	"github.com/execgate/execgate/targetclient"
)

// attempt makes one attempt of a leased delivery and settles it.
func (q *Durable) attempt(l *Lease) {
	r := l.Record
	settings, why := q.admit(r.Target)
	switch {
	case !q.holds(l):
		q.letGo(l)
		return
	case why != "":
		q.settle(l, Verdict{Action: Release})
		return
	case settings == nil:
		q.bury(l)
		return
	case errors.Is(l.Fault, ErrSealed):
		q.o.Logger.Error("a delivery waits for the key of its payload", "delivery", r.ID, "target", settings.Target.Name)
		q.settle(l, Verdict{Action: Retry, After: sealedDelay})
		return
	case l.Fault != nil:
		q.o.Logger.Error("the payload of a delivery is damaged", "delivery", r.ID, "target", settings.Target.Name, "error", l.Fault)
		r.Reason = DeadDamaged
		q.settle(l, Verdict{Action: Dead})
		q.ended(settings.Target.Name, DeadDamaged)
		return
	}
	target, schedule := settings.Target, settings.Schedule.Or(q.o.Schedule)
	began := l.clock()
	if r.Kind == KindEvent && q.o.EventMaxAge > 0 {
		if began.Sub(r.Since) > q.o.EventMaxAge {
			q.expire(l, target)
			return
		}
		schedule.MaxAge = min(schedule.MaxAge, q.o.EventMaxAge)
	}
	ctx, cancel := q.budget(r)
	res, err := q.o.Caller.Do(ctx, targetclient.Call{Target: target, Body: r.Body, ID: r.ID, Attempt: r.Attempts + 1})
	cancel()
	j := judge(r, schedule, l.clock().Sub(r.Since), res, err)
	if q.o.Observer != nil {
		q.o.Observer.TargetCall(target.Name, j.outcome, res.Duration)
	}
	if j.counted {
		a := Attempt{Number: r.Attempts + 1, At: began, Outcome: j.outcome, Status: res.StatusCode, Latency: res.Duration}
		if err != nil {
			a.Detail = err.Error()
		}
		r.note(a)
		r.Spent += l.clock().Sub(began)
	}
	r.Reason = j.dead
	if j.stop && len(r.Then) > 0 {
		q.o.Logger.Warn("later targets are not told: an earlier one interrupts", "delivery", r.ID,
			"execution", r.Execution, "target", target.Name, "reason", j.outcome, "count", len(r.Then))
		r.Then = nil
	}
	if j.goOn && !q.goOn(r) {
		// The queue is stopping, or away: then this attempt must be made again, so
		// that the later targets are not forgotten.
		q.settle(l, Verdict{Action: Release})
		return
	}
	q.report(r, target, j, err)
	q.settle(l, j.verdict)
	if j.gone && q.o.OnGone != nil {
		q.o.OnGone(q.calls, target.ID)
	}
}

// budget bounds a call by what the targets of the event that were told before
// have left of the time for all of them. A repetition, and a target for which
// nothing is left, has it whole.
func (q *Durable) budget(r *Record) (context.Context, context.CancelFunc) {
	if r.Kind != KindEvent || q.o.EventTimeout <= 0 {
		return q.calls, func() {}
	}
	if r.Attempts > 0 || r.Spent >= q.o.EventTimeout {
		r.Spent = 0
	}
	return context.WithTimeoutCause(q.calls, q.o.EventTimeout-r.Spent, targetclient.ErrChainTimeout)
}

// expire makes a dead letter of the delivery of an event that is too old to be
// told. It keeps its later targets, for a replay.
func (q *Durable) expire(l *Lease, target *targetclient.Target) {
	r := l.Record
	r.Reason = DeadAge
	q.o.Logger.Error("delivery is a dead letter", "delivery", r.ID, "execution", r.Execution, "target", target.Name, "reason", r.Reason)
	q.settle(l, Verdict{Action: Dead})
	q.ended(target.Name, DeadAge)
}

// bury makes a dead letter of a delivery whose target is deleted.
func (q *Durable) bury(l *Lease) {
	r := l.Record
	if !q.goOn(r) {
		q.settle(l, Verdict{Action: Release})
		return
	}
	r.Reason = DeadTarget
	q.o.Logger.Error("delivery is a dead letter", "delivery", r.ID, "execution", r.Execution, "target", r.Target, "reason", r.Reason)
	q.settle(l, Verdict{Action: Dead})
	q.ended(r.Target, r.Reason)
}

// goOn hands the delivery on to the next of its targets. It does so before the
// delivery itself is settled: a crash in between repeats both, under their ids.
func (q *Durable) goOn(r *Record) bool {
	if len(r.Then) == 0 {
		return true
	}
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		if q.take(q.calls, r.follow()) == nil {
			r.Then = nil
			return true
		}
		select {
		case <-time.After(wait):
		case <-q.work.Done():
			return false
		}
	}
}

// report tells the log and the observer how an attempt ended.
func (q *Durable) report(r *Record, target *targetclient.Target, j judgement, err error) {
	attrs := []any{"delivery", r.ID, "execution", r.Execution, "target", target.Name, "attempt", r.Attempts, "reason", j.outcome, "error", err}
	switch {
	case j.verdict.Action == Delivered:
		q.ended(target.Name, "delivered")
	case j.verdict.Action == Dead:
		q.o.Logger.Error("delivery is a dead letter", append(attrs, "dead", j.dead)...)
		q.ended(target.Name, j.dead)
	case j.counted:
		q.o.Logger.Warn("delivery failed and will be tried again", append(attrs, "after", j.verdict.After)...)
		q.ended(target.Name, "retried")
	}
}
