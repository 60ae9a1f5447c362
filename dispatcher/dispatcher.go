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
	// Do returns when the answer is read, the target's timeout has passed or ctx
	// has ended. The error is a *[targetclient.Error].
	Do(ctx context.Context, call targetclient.Call) (targetclient.Result, error)
}

// Queue takes deliveries for async targets.
type Queue interface {
	// Enqueue takes the delivery or says at once why not; see
	// [queue.DropReason].
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

// Shadowed is what a target of a shadow plan would have done.
type Shadowed struct {
	Invocation *Invocation
	Target     *targetclient.Target
	// Interrupt is the error that would have ended the call; nil if it would
	// have gone on.
	Interrupt *InterruptError
	// Before and After are the message as JSON, when the answer would have
	// changed it. They are payload: not for a log.
	Before, After []byte
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
	// OnShadow is called when a target of a shadow plan would have interrupted
	// the call or changed the message. Nil: nobody wants to know.
	OnShadow func(context.Context, Shadowed)
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
	if o.OnShadow == nil {
		o.OnShadow = func(context.Context, Shadowed) {}
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
	var out Outcome
	plan := inv.Plan
	d.o.Observer.Matched(plan.Phase.String(), plan.Execution)
	if gone := callerGone(ctx); gone != nil {
		return out, gone
	}
	chain, cancel := d.budget(ctx)
	defer cancel()

	var payload []byte // of the current content; nil: not built yet
	for _, target := range plan.Targets {
		if payload == nil {
			var err error
			if payload, err = inv.envelope(); err != nil {
				return out, err
			}
		}
		changed, failure := d.call(chain, inv, target, payload)
		if gone := callerGone(ctx); gone != nil {
			return out, gone
		}
		if failure != nil {
			interrupt := newInterrupt(plan, target, failure)
			if plan.mayInterrupt(target) {
				return out, interrupt
			}
			d.tolerate(ctx, inv, target, interrupt)
			continue
		}
		if changed {
			out.Changed, payload = true, nil
		}
	}
	return out, nil
}

// budget gives the targets of one dispatch their common deadline, below the
// caller's own.
func (d *Dispatcher) budget(ctx context.Context) (context.Context, context.CancelFunc) {
	if d.o.ChainTimeout <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, d.o.ChainTimeout, targetclient.ErrChainTimeout)
}

// call calls one target according to its kind, and applies its answer.
func (d *Dispatcher) call(chain context.Context, inv *Invocation, target *targetclient.Target, payload []byte) (changed bool, failure *targetclient.Error) {
	var took time.Duration
	switch {
	case errors.Is(context.Cause(chain), targetclient.ErrChainTimeout):
		failure = &targetclient.Error{Reason: targetclient.ReasonTimeout, Err: targetclient.ErrChainTimeout}
	case target.Kind == targetclient.KindAsync:
		d.enqueue(chain, inv.Plan, target, payload)
		return false, nil
	case target.Kind == targetclient.KindWebhook || target.Kind == targetclient.KindCall:
		changed, took, failure = d.ask(chain, inv, target, payload)
	default:
		return false, &targetclient.Error{Reason: targetclient.ReasonFailed, Err: ErrUnknownKind}
	}
	outcome := "ok"
	if failure != nil {
		outcome = failure.Reason.String()
	}
	d.o.Observer.TargetCall(target.Name, outcome, took)
	return changed, failure
}

// ask waits for the target's answer, and applies it if the target's kind says
// so. An answer without a body changes nothing.
func (d *Dispatcher) ask(chain context.Context, inv *Invocation, target *targetclient.Target, payload []byte) (changed bool, took time.Duration, failure *targetclient.Error) {
	result, failure := d.do(chain, targetclient.Call{Target: target, Body: payload})
	if failure == nil && target.Kind == targetclient.KindCall && len(result.Body) > 0 {
		changed, failure = d.apply(chain, inv, target, result)
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

// apply makes the answer the message. In a shadow plan it only says what would
// have become of the message.
func (d *Dispatcher) apply(ctx context.Context, inv *Invocation, target *targetclient.Target, result targetclient.Result) (changed bool, failure *targetclient.Error) {
	var err error
	if inv.Plan.Shadow {
		err = d.preview(ctx, inv, target, result.Body)
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

func (d *Dispatcher) preview(ctx context.Context, inv *Invocation, target *targetclient.Target, answer []byte) error {
	before, err := inv.subject().JSON()
	if err != nil {
		return err
	}
	after := answer
	if p, ok := inv.subject().(Previewer); ok {
		if after, err = p.Preview(answer); err != nil {
			return err
		}
	}
	if !bytes.Equal(before, after) {
		d.o.OnShadow(ctx, Shadowed{Invocation: inv, Target: target, Before: before, After: after})
	}
	return nil
}

// enqueue hands the payload over to the background. What happens to it there
// does not concern the call.
func (d *Dispatcher) enqueue(ctx context.Context, plan *Plan, target *targetclient.Target, payload []byte) {
	err := d.o.Queue.Enqueue(ctx, queue.Delivery{Execution: plan.Execution, Target: target, Body: payload})
	if err != nil {
		reason := queue.DropReason(err)
		d.o.Observer.AsyncDropped(reason)
		d.o.Logger.Error("async delivery dropped", "execution", plan.Execution, "target", target.Name, "reason", reason)
	}
}

// tolerate takes note of a failure that does not end the call.
func (d *Dispatcher) tolerate(ctx context.Context, inv *Invocation, target *targetclient.Target, failure *InterruptError) {
	plan := inv.Plan
	d.o.Logger.Warn("target failed, the call goes on", "execution", plan.Execution, "target", target.Name,
		"reason", failure.Reason.String(), "method", inv.FullMethod, "error", failure.Err)
	switch {
	case !wantsInterrupt(target):
	case plan.Protected:
		d.o.OnSuppressed(ctx, failure)
	case plan.Shadow:
		d.o.OnShadow(ctx, Shadowed{Invocation: inv, Target: target, Interrupt: failure})
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
func callerGone(ctx context.Context) error {
	if ctx.Err() == nil {
		deadline, ok := ctx.Deadline()
		if !ok || time.Now().Before(deadline) {
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
