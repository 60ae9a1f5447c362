package dispatcher

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/execgate/execgate/queue"
	"github.com/execgate/execgate/targetclient"
)

// Caller makes one call to one target. [*targetclient.Client] is one.
type Caller interface {
	// Do returns when the answer is read, the target's timeout or call.ChainEnd has
	// passed, or ctx has ended. The error is a *[targetclient.Error]. The body of the
	// call is used again once Do has returned: it must not be kept.
	Do(ctx context.Context, call targetclient.Call) (targetclient.Result, error)
}

// Queue takes deliveries for async targets.
type Queue interface {
	// Enqueue takes the delivery or says why not; see [queue.DropReason]. An
	// error with [queue.ErrBlocked] ends the call, any other one does not.
	Enqueue(ctx context.Context, d queue.Delivery) error
}

// Observer is told what happens, for metrics. Its methods are called from many
// goroutines and must not block.
type Observer interface {
	// Matched reports the start of a dispatch: "request" or "response", and the
	// execution's id.
	Matched(phase, execution string)
	// TargetCall reports the call of a target that was waited for: its name,
	// "ok" or a [targetclient.Reason], and how long the call took; 0 when it was
	// not made any more.
	TargetCall(target, outcome string, d time.Duration)
	// AsyncDropped reports a delivery that the queue did not take, with a reason
	// of [queue.DropReason].
	AsyncDropped(reason string)
}

// Run is one dispatch that has come to its end: what it did, or, with a shadow
// plan, what it would have done.
type Run struct {
	// Invocation is what was dispatched. Its messages belong to the call: they
	// must not be kept.
	Invocation *Invocation
	// Interrupt is what ended the call; with a shadow plan, the first failure
	// that would have. Nil: the call goes on.
	Interrupt *InterruptError
	// Changed says that the message of the phase is, or would be, another one.
	Changed bool
	// Before is the message of the phase as it came, After what became, or would
	// have become, of it; After is nil when no answer was applied. With a shadow
	// plan every target sees the message as it came, so After is the answer of
	// the last target that wanted a change. Both are payload: not for a log.
	Before, After []byte
}

// Recorder is told about runs. Its methods are called from many goroutines and
// must not block.
type Recorder interface {
	// Wants says whether the run that is about to begin is to be recorded, which
	// costs a comparison of the message before and after. Runs of shadow plans
	// are recorded in any case.
	Wants(plan *Plan) bool
	// Record is told about a run that ended, unless its caller was gone by then
	// or the message had no JSON form.
	Record(ctx context.Context, run Run)
}

// Options say what a Dispatcher works with.
type Options struct {
	// Caller calls targets. Required.
	Caller Caller
	// Queue takes what async targets get. Required.
	Queue Queue
	// ChainTimeout bounds all targets of one dispatch together. Zero: no bound.
	ChainTimeout time.Duration
	// Observer may be nil.
	Observer Observer
	// Logger gets one line per tolerated failure. Nil: slog.Default().
	Logger *slog.Logger
	// Recorder may be nil.
	Recorder Recorder
	// OnSuppressed is called when a target would have interrupted the call of a
	// protected method. Nil: nobody wants to know.
	OnSuppressed func(context.Context, *InterruptError)
}

// Dispatcher runs plans. It is safe for concurrent use.
type Dispatcher struct{ o Options }

// New returns a dispatcher.
func New(o Options) *Dispatcher {
	if o.Observer == nil {
		o.Observer = unobserved{}
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.OnSuppressed == nil {
		o.OnSuppressed = func(context.Context, *InterruptError) {}
	}
	return &Dispatcher{o: o}
}

// Outcome is what a dispatch that was not interrupted added up to.
type Outcome struct {
	// Changed says that some target's answer was applied to the message of the
	// phase.
	Changed bool
}

// Dispatch calls the plan's targets one after the other, each with the content
// as the ones before left it. The message of the phase is replaced in place.
//
// The error is an *[InterruptError], a *[CallerGoneError] (ctx is the caller's;
// it has ended then) or a *[MessageError]. After an error the message may have
// been replaced by targets that were called earlier.
func (d *Dispatcher) Dispatch(ctx context.Context, inv *Invocation) (Outcome, error) {
	d.o.Observer.Matched(inv.Plan.Phase.String(), inv.Plan.Execution)
	now := inv.Now
	if now.IsZero() {
		now = time.Now()
	}
	if gone := callerGone(ctx, now); gone != nil {
		return Outcome{}, gone
	}
	run := d.begin(inv)
	out, err := d.walk(ctx, now, inv, run)
	d.end(ctx, run, out, err)
	return out, err
}

// walk calls the targets from now on. What only seems to happen, it notes in run.
func (d *Dispatcher) walk(ctx context.Context, now time.Time, inv *Invocation, run *Run) (Outcome, error) {
	var out Outcome
	end := d.chainEnd(now)
	buffer, _ := payloads.Get().(*[]byte)
	payload := (*buffer)[:0] // of the current content; empty: not built yet
	defer func() {
		if cap(payload) <= maxPooledPayload {
			*buffer = payload
			payloads.Put(buffer)
		}
	}()
	for _, target := range inv.Plan.Targets {
		if len(payload) == 0 {
			var err error
			if payload, err = inv.appendEnvelope(payload); err != nil {
				return out, err
			}
		}
		changed, took, failure := d.call(ctx, now, end, inv, run, target, payload)
		if now = now.Add(took); took == 0 {
			now = time.Now()
		}
		if gone := callerGone(ctx, now); gone != nil {
			return out, gone
		}
		if failure != nil {
			interrupt := newInterrupt(inv.Plan, target, failure)
			if inv.Plan.mayInterrupt(target) || errors.Is(failure, queue.ErrBlocked) && inv.Plan.binding() {
				return out, interrupt
			}
			d.tolerate(ctx, inv, run, target, interrupt)
			continue
		}
		if changed {
			out.Changed, payload = true, payload[:0]
		}
	}
	return out, nil
}

// begin returns the record of a run that begins, nil when nobody wants one.
func (d *Dispatcher) begin(inv *Invocation) *Run {
	if d.o.Recorder == nil || !inv.Plan.Shadow && !d.o.Recorder.Wants(inv.Plan) {
		return nil
	}
	before, err := inv.subject().JSON()
	if err != nil {
		return nil // the walk ends for the same reason
	}
	return &Run{Invocation: inv, Before: before}
}

// end hands the record of a run over.
func (d *Dispatcher) end(ctx context.Context, run *Run, out Outcome, err error) {
	if run == nil {
		return
	}
	interrupt, interrupted := errors.AsType[*InterruptError](err)
	switch {
	case interrupted:
		run.Interrupt = interrupt
	case err != nil:
		return
	case out.Changed:
		if run.After, err = run.Invocation.subject().JSON(); err != nil {
			return
		}
	}
	run.Changed = run.After != nil && !bytes.Equal(run.Before, run.After)
	d.o.Recorder.Record(ctx, *run)
}

// chainEnd is when the targets of a dispatch that begins now have used up their
// common budget; zero: never.
func (d *Dispatcher) chainEnd(now time.Time) time.Time {
	if d.o.ChainTimeout <= 0 {
		return time.Time{}
	}
	return now.Add(d.o.ChainTimeout)
}

// call calls one target according to its kind, and applies its answer. It
// returns how long the call took, if there was one that was waited for.
func (d *Dispatcher) call(ctx context.Context, now, end time.Time, inv *Invocation, run *Run, target *targetclient.Target, payload []byte) (changed bool, took time.Duration, failure *targetclient.Error) {
	switch {
	case !end.IsZero() && !now.Before(end):
		failure = &targetclient.Error{Reason: targetclient.ReasonTimeout, Err: targetclient.ErrChainTimeout}
	case target.Kind == targetclient.KindAsync:
		return false, 0, d.enqueue(ctx, end, inv, target, payload)
	case target.Kind == targetclient.KindWebhook || target.Kind == targetclient.KindCall:
		changed, took, failure = d.ask(ctx, now, end, inv, run, target, payload)
	default:
		return false, 0, &targetclient.Error{Reason: targetclient.ReasonFailed, Err: ErrUnknownKind}
	}
	outcome := "ok"
	if failure != nil {
		outcome = failure.Reason.String()
	}
	d.o.Observer.TargetCall(target.Name, outcome, took)
	return changed, took, failure
}

// ask waits for the target's answer, and applies it if the target's kind says
// so. An answer without a body changes nothing.
func (d *Dispatcher) ask(ctx context.Context, now, end time.Time, inv *Invocation, run *Run, target *targetclient.Target, payload []byte) (changed bool, took time.Duration, failure *targetclient.Error) {
	result, failure := d.do(ctx, targetclient.Call{Target: target, Body: payload, ChainEnd: end, Now: now})
	if failure == nil && target.Kind == targetclient.KindCall && len(result.Body) > 0 {
		changed, failure = apply(inv, run, result)
	}
	return changed, result.Duration, failure
}

func (d *Dispatcher) do(ctx context.Context, call targetclient.Call) (targetclient.Result, *targetclient.Error) {
	result, err := d.o.Caller.Do(ctx, call)
	if err == nil {
		return result, nil
	}
	if failure, ok := errors.AsType[*targetclient.Error](err); ok {
		return result, failure
	}
	return result, &targetclient.Error{Reason: targetclient.ReasonTransport, Err: err}
}

// apply makes the answer the message. With a shadow plan it only notes what
// would have become of the message.
func apply(inv *Invocation, run *Run, result targetclient.Result) (changed bool, failure *targetclient.Error) {
	var err error
	if inv.Plan.Shadow {
		err = preview(inv, run, result.Body)
	} else {
		err = inv.subject().Replace(result.Body)
		changed = err == nil
	}
	if err != nil {
		return false, &targetclient.Error{
			Reason: targetclient.ReasonNotApplicable, StatusCode: result.StatusCode, Err: &misfitError{err},
		}
	}
	return changed, nil
}

func preview(inv *Invocation, run *Run, answer []byte) error {
	after, err := previewed(inv.subject(), answer)
	if err != nil {
		return err
	}
	run.wouldBecome(after)
	return nil
}

// wouldBecome notes what an answer would have made of the message.
func (r *Run) wouldBecome(after []byte) {
	switch {
	case r == nil || r.Interrupt != nil: // what follows an interruption would not have come
	case r.After == nil || !bytes.Equal(after, r.Before): // an echo would have echoed what an earlier target said
		r.After = after
	}
}

func previewed(m Message, answer []byte) ([]byte, error) {
	if p, ok := m.(Previewer); ok {
		return p.Preview(answer)
	}
	return answer, nil
}

// enqueue hands the payload over to the background. What happens to it there
// does not concern the call; that it was not taken is a failure only if the
// target blocks calls whose delivery is not safe.
func (d *Dispatcher) enqueue(ctx context.Context, end time.Time, inv *Invocation, target *targetclient.Target, payload []byte) *targetclient.Error {
	if !end.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, end, targetclient.ErrChainTimeout)
		defer cancel()
	}
	err := d.o.Queue.Enqueue(ctx, queue.Delivery{
		Execution: inv.Plan.Execution, Target: target, Body: bytes.Clone(payload), UserID: inv.UserID,
	})
	if err == nil {
		return nil
	}
	reason := queue.DropReason(err)
	d.o.Observer.AsyncDropped(reason)
	d.o.Logger.Error("async delivery dropped", "execution", inv.Plan.Execution, "target", target.Name, "reason", reason)
	if errors.Is(err, queue.ErrBlocked) {
		return &targetclient.Error{Reason: targetclient.ReasonFailed, Err: err}
	}
	return nil
}

// tolerate takes note of a failure that does not end the call.
func (d *Dispatcher) tolerate(ctx context.Context, inv *Invocation, run *Run, target *targetclient.Target, failure *InterruptError) {
	plan := inv.Plan
	d.o.Logger.Warn("target failed, the call goes on", "execution", plan.Execution, "target", target.Name,
		"reason", failure.Reason.String(), "method", inv.FullMethod, "error", failure.Err)
	switch {
	case !wantsInterrupt(target):
	case plan.Protected:
		d.o.OnSuppressed(ctx, failure)
	case plan.Shadow && run != nil && run.Interrupt == nil:
		run.Interrupt = failure
	}
}

func newInterrupt(plan *Plan, target *targetclient.Target, failure *targetclient.Error) *InterruptError {
	return &InterruptError{
		Execution: plan.Execution, Target: target.Name,
		Reason: failure.Reason, ForwardedStatus: failure.ForwardedStatus, Message: failure.Message, Err: failure,
	}
}

// callerGone returns nil as long as the caller waits. A deadline counts as
// passed when the clock says so: a connection's own timer may notice earlier
// than the context's.
func callerGone(ctx context.Context, now time.Time) error {
	if punctual, ok := ctx.(interface{ ErrAt(now time.Time) error }); ok { // It goes by the clock itself.
		if err := punctual.ErrAt(now); err != nil {
			return &CallerGoneError{Err: err}
		}
		return nil
	}
	if ctx.Err() == nil {
		deadline, ok := ctx.Deadline()
		if !ok || now.Before(deadline) {
			return nil
		}
		<-ctx.Done()
	}
	return &CallerGoneError{Err: ctx.Err()}
}

// unobserved is the Observer when there is none.
type unobserved struct{}

// Matched does nothing.
func (unobserved) Matched(string, string) {}

// TargetCall does nothing.
func (unobserved) TargetCall(string, string, time.Duration) {}

// AsyncDropped does nothing.
func (unobserved) AsyncDropped(string) {}
