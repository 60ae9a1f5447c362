package dispatcher_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execgate/execgate/conditions"
	"github.com/execgate/execgate/dispatcher"
	"github.com/execgate/execgate/queue"
	"github.com/execgate/execgate/targetclient"
)

// fakeCaller answers by the target's name.
type fakeCaller struct {
	answers map[string]func(ctx context.Context) (targetclient.Result, error)
	calls   []string // "name payload"
}

func (c *fakeCaller) Do(ctx context.Context, call targetclient.Call) (targetclient.Result, error) {
	c.calls = append(c.calls, call.Target.Name+" "+string(call.Body))
	if !call.ChainEnd.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, call.ChainEnd, targetclient.ErrChainTimeout)
		defer cancel()
	}
	if answer := c.answers[call.Target.Name]; answer != nil {
		return answer(ctx)
	}
	return targetclient.Result{StatusCode: 200}, nil
}

// answers with a body, after a second of the bubble's time if there is one.
func answers(body string) func(context.Context) (targetclient.Result, error) {
	return func(context.Context) (targetclient.Result, error) {
		return targetclient.Result{StatusCode: 200, Body: []byte(body), Duration: time.Second}, nil
	}
}

func fails(e targetclient.Error) func(context.Context) (targetclient.Result, error) {
	return func(context.Context) (targetclient.Result, error) {
		return targetclient.Result{StatusCode: e.StatusCode, Duration: time.Second}, &e
	}
}

// takes answers after a while, and stands for what the client makes of a context
// that ends before.
func takes(d time.Duration) func(context.Context) (targetclient.Result, error) {
	return func(ctx context.Context) (targetclient.Result, error) {
		start := time.Now()
		select {
		case <-time.After(d):
			return targetclient.Result{StatusCode: 200, Body: []byte(`{"a":"late"}`), Duration: d}, nil
		case <-ctx.Done():
			reason := targetclient.ReasonCancelled
			if errors.Is(context.Cause(ctx), targetclient.ErrChainTimeout) {
				reason = targetclient.ReasonTimeout
			}
			return targetclient.Result{Duration: time.Since(start)}, &targetclient.Error{Reason: reason, Err: context.Cause(ctx)}
		}
	}
}

// fakeQueue remembers what it takes, unless it refuses.
type fakeQueue struct {
	taken   []string
	users   []string
	refuses error
}

func (q *fakeQueue) Enqueue(_ context.Context, d queue.Delivery) error {
	if q.refuses == nil {
		q.users = append(q.users, d.UserID)
		q.taken = append(q.taken, fmt.Sprintf("%s of %s %s", d.Target.Name, d.Execution, d.Body))
	}
	return q.refuses
}

// fakeObserver remembers what it is told.
type fakeObserver struct{ events []string }

func (o *fakeObserver) Matched(phase, execution string) {
	o.events = append(o.events, "matched "+phase+" "+execution)
}

func (o *fakeObserver) TargetCall(target, outcome string, d time.Duration) {
	o.events = append(o.events, fmt.Sprintf("%s %s %v", target, outcome, d))
}

func (o *fakeObserver) AsyncDropped(reason string) {
	o.events = append(o.events, "dropped "+reason)
}

// message is a Message with the one string field "a", or none.
type message struct {
	json    string
	jsonErr error
}

func (m *message) JSON() ([]byte, error) { return []byte(m.json), m.jsonErr }

func (m *message) Replace(b []byte) error {
	after, err := m.Preview(b)
	if err == nil {
		m.json = string(after)
	}
	return err
}

func (m *message) Preview(b []byte) ([]byte, error) {
	if !bytes.HasPrefix(bytes.TrimSpace(b), []byte("{")) {
		return nil, fmt.Errorf("not an object: %s", b)
	}
	var content struct {
		A string `json:"a,omitempty"`
	}
	decoder := json.NewDecoder(bytes.NewReader(b))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&content); err != nil {
		return nil, fmt.Errorf("%w: %s", err, b)
	}
	return json.Marshal(content)
}

// opaque hides Preview.
type opaque struct{ dispatcher.Message }

// testBundle is a dispatcher with everything around it, and an invocation to
// dispatch.
type testBundle struct {
	caller     fakeCaller
	queue      fakeQueue
	observer   fakeObserver
	log        bytes.Buffer
	runs       []dispatcher.Run
	wants      bool
	suppressed []*dispatcher.InterruptError
	inv        *dispatcher.Invocation
	request    *message
	response   *message
}

func setup(phase conditions.Kind, targets ...*targetclient.Target) *testBundle {
	b := &testBundle{request: &message{json: `{"a":"request"}`}, response: &message{json: `{"a":"response"}`}}
	b.caller.answers = map[string]func(context.Context) (targetclient.Result, error){}
	plan := &dispatcher.Plan{Execution: phase.String() + "/p.S", Phase: phase, Targets: targets}
	b.inv = &dispatcher.Invocation{Plan: plan, FullMethod: "/p.S/M", Request: b.request}
	if phase == conditions.Response {
		b.inv.Response = b.response
	}
	return b
}

func (b *testBundle) dispatch(ctx context.Context, chainTimeout time.Duration) (dispatcher.Outcome, error) {
	d := dispatcher.New(dispatcher.Options{
		Caller: &b.caller, Queue: &b.queue, Observer: &b.observer, ChainTimeout: chainTimeout,
		Logger:       slog.New(slog.NewTextHandler(&b.log, nil)),
		Recorder:     b,
		OnSuppressed: func(_ context.Context, e *dispatcher.InterruptError) { b.suppressed = append(b.suppressed, e) },
	})
	return d.Dispatch(ctx, b.inv)
}

// Wants and Record make the bundle a Recorder.
func (b *testBundle) Wants(*dispatcher.Plan) bool                  { return b.wants }
func (b *testBundle) Record(_ context.Context, run dispatcher.Run) { b.runs = append(b.runs, run) }

// recorded describes the runs recorded so far.
func (b *testBundle) recorded() (runs []string) {
	for _, r := range b.runs {
		s := fmt.Sprintf("%s -> %s changed %t", r.Before, r.After, r.Changed)
		if r.Interrupt != nil {
			s += ", interrupted by " + r.Interrupt.Target + ": " + r.Interrupt.Reason.String()
		}
		runs = append(runs, s)
	}
	return runs
}

// payload is the envelope of a request phase with the given message.
func payload(request string) string { return `{"fullMethod":"/p.S/M","request":` + request + `}` }

func equal[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s\n got: %v\nwant: %v", what, got, want)
	}
}

func TestTargetsAreCalledInOrderAndSeeEarlierAnswers(t *testing.T) {
	t.Parallel()
	b := setup(conditions.Request,
		target("tell", targetclient.KindWebhook), target("ask", targetclient.KindCall), target("async", targetclient.KindAsync),
		target("nothing to say", targetclient.KindCall), target("clear", targetclient.KindCall), target("tell", targetclient.KindWebhook),
	)
	b.caller.answers["tell"] = answers(`{"a":"ignored"}`)
	b.caller.answers["ask"] = answers(`{"a":"<asked>"}`)
	b.caller.answers["nothing to say"] = answers(``)
	b.caller.answers["clear"] = answers(`{}`)
	out, err := b.dispatch(t.Context(), time.Minute)
	equal(t, "error", err, nil)
	equal(t, "outcome", out, dispatcher.Outcome{Changed: true})
	equal(t, "calls", b.caller.calls, []string{
		"tell " + payload(`{"a":"request"}`),
		"ask " + payload(`{"a":"request"}`),
		"nothing to say " + payload(`{"a":"\u003casked\u003e"}`),
		"clear " + payload(`{"a":"\u003casked\u003e"}`),
		"tell " + payload(`{}`),
	})
	equal(t, "deliveries", b.queue.taken, []string{"async of request/p.S " + payload(`{"a":"\u003casked\u003e"}`)})
	equal(t, "request", b.request.json, `{}`)
	equal(t, "observed", b.observer.events, []string{
		"matched request request/p.S", "tell ok 1s", "ask ok 1s", "nothing to say ok 1s", "clear ok 1s", "tell ok 1s",
	})
	equal(t, "log", b.log.String(), "")
}

func TestResponsePhaseReplacesTheResponse(t *testing.T) {
	t.Parallel()
	b := setup(conditions.Response, target("ask", targetclient.KindCall), target("tell", targetclient.KindWebhook))
	b.caller.answers["ask"] = answers(`{"a":"asked"}`)
	out, err := b.dispatch(t.Context(), 0)
	equal(t, "error", err, nil)
	equal(t, "changed", out.Changed, true)
	equal(t, "calls", b.caller.calls, []string{
		`ask {"fullMethod":"/p.S/M","request":{"a":"request"},"response":{"a":"response"}}`,
		`tell {"fullMethod":"/p.S/M","request":{"a":"request"},"response":{"a":"asked"}}`,
	})
	equal(t, "request", b.request.json, `{"a":"request"}`)
	equal(t, "response", b.response.json, `{"a":"asked"}`)
}

func TestNothingChangesWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	b := setup(conditions.Request, target("tell", targetclient.KindWebhook), target("ask", targetclient.KindCall), target("async", targetclient.KindAsync))
	b.caller.answers["tell"] = answers(`{"a":"ignored"}`)
	out, err := b.dispatch(t.Context(), 0)
	equal(t, "error", err, nil)
	equal(t, "outcome", out, dispatcher.Outcome{})
	equal(t, "request", b.request.json, `{"a":"request"}`)
}

// Every way in which a target can fail, for each kind that is waited for, with
// and without the flag.
func TestFailureCountsByTheTargetsOwnFlag(t *testing.T) {
	t.Parallel()
	failures := map[string]targetclient.Error{
		"transport":        {Reason: targetclient.ReasonTransport, Err: errors.New("connection refused")},
		"timeout":          {Reason: targetclient.ReasonTimeout, Err: fmt.Errorf("%w: %w", targetclient.ErrTargetTimeout, context.DeadlineExceeded)},
		"failed":           {Reason: targetclient.ReasonFailed, StatusCode: 500},
		"forwarded":        {Reason: targetclient.ReasonForwarded, StatusCode: 200, ForwardedStatus: 403, Message: "the-message"},
		"precondition":     {Reason: targetclient.ReasonPrecondition, StatusCode: 200, ForwardedStatus: 500, Message: "the-message"},
		"breaker_open":     {Reason: targetclient.ReasonBreakerOpen},
		"over_concurrency": {Reason: targetclient.ReasonOverConcurrency},
		"denied_address":   {Reason: targetclient.ReasonDeniedAddress, Err: targetclient.ErrDenied},
	}
	for reason, failure := range failures {
		for _, kind := range []targetclient.Kind{targetclient.KindWebhook, targetclient.KindCall} {
			t.Run(fmt.Sprintf("%s tolerated from a %s", reason, kind), func(t *testing.T) {
				t.Parallel()
				b := setup(conditions.Request, target("bad", kind), target("next", targetclient.KindWebhook))
				b.caller.answers["bad"] = fails(failure)
				out, err := b.dispatch(t.Context(), time.Minute)
				equal(t, "error", err, nil)
				equal(t, "outcome", out, dispatcher.Outcome{})
				equal(t, "calls", b.caller.calls, []string{"bad " + payload(`{"a":"request"}`), "next " + payload(`{"a":"request"}`)})
				equal(t, "observed", b.observer.events, []string{"matched request request/p.S", "bad " + reason + " 1s", "next ok 0s"})
				log := b.log.String()
				if strings.Count(log, "\n") != 1 || !strings.Contains(log, `level=WARN msg="target failed, the call goes on" execution=request/p.S target=bad reason=`+reason) {
					t.Errorf("log: %s", log)
				}
				if strings.Contains(log, "the-message") || strings.Contains(log, `"a"`) {
					t.Errorf("the log tells too much: %s", log)
				}
			})
			t.Run(fmt.Sprintf("%s interrupts from a %s", reason, kind), func(t *testing.T) {
				t.Parallel()
				b := setup(conditions.Request,
					target("first", targetclient.KindCall, interrupts), target("bad", kind, interrupts),
					target("next", targetclient.KindWebhook), target("async", targetclient.KindAsync))
				b.caller.answers["first"] = answers(`{"a":"first"}`)
				b.caller.answers["bad"] = fails(failure)
				_, err := b.dispatch(t.Context(), time.Minute)
				var interrupt *dispatcher.InterruptError
				if !errors.As(err, &interrupt) {
					t.Fatalf("error %v, want an InterruptError", err)
				}
				equal(t, "interrupt", *interrupt, dispatcher.InterruptError{
					Execution: "request/p.S", Target: "bad", Reason: failure.Reason,
					ForwardedStatus: failure.ForwardedStatus, Message: failure.Message, Err: &failure,
				})
				if failure.Err != nil && !errors.Is(err, failure.Err) {
					t.Errorf("%v does not wrap the cause", err)
				}
				if strings.Contains(err.Error(), "the-message") {
					t.Errorf("the error text tells what the target wanted forwarded: %v", err)
				}
				equal(t, "number of calls", len(b.caller.calls), 2)
				equal(t, "deliveries", b.queue.taken, nil)
				equal(t, "observed", b.observer.events, []string{"matched request request/p.S", "first ok 1s", "bad " + reason + " 1s"})
				equal(t, "log", b.log.String(), "") // whoever answers the caller logs it
			})
		}
	}
}

func TestAnswerThatDoesNotFit(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"unknown field": `{"a":"x","secret-b":1}`,
		"wrong type":    `{"a":7777}`,
		"not JSON":      `secret-text`,
		"array":         `["secret-text"]`,
		"string":        `"secret-text"`,
		"null":          `null`,
		"blanks":        ` `,
		"the envelope":  `{"fullMethod":"/p.S/M","request":{"a":"secret-text"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(conditions.Request, target("ask", targetclient.KindCall), target("bad", targetclient.KindCall), target("next", targetclient.KindWebhook))
			b.caller.answers["ask"] = answers(`{"a":"asked"}`)
			b.caller.answers["bad"] = answers(body)
			out, err := b.dispatch(t.Context(), 0)
			equal(t, "error", err, nil)
			equal(t, "outcome", out, dispatcher.Outcome{Changed: true})
			equal(t, "request", b.request.json, `{"a":"asked"}`)
			equal(t, "calls", b.caller.calls[2], "next "+payload(`{"a":"asked"}`))
			equal(t, "observed", b.observer.events[2], "bad not_applicable 1s")
			if log := b.log.String(); !strings.Contains(log, "reason=not_applicable") || strings.Contains(log, "secret") || strings.Contains(log, "7777") {
				t.Errorf("log: %s", log)
			}

			b.inv.Plan.Targets[1].InterruptOnError = true
			_, err = b.dispatch(t.Context(), 0)
			var interrupt *dispatcher.InterruptError
			if !errors.As(err, &interrupt) || interrupt.Reason != targetclient.ReasonNotApplicable || interrupt.Target != "bad" {
				t.Fatalf("error %v, want an InterruptError of bad", err)
			}
			if text := err.Error(); strings.Contains(text, "secret") || strings.Contains(text, "7777") {
				t.Errorf("the error text holds payload: %v", err)
			}
			equal(t, "request", b.request.json, `{"a":"asked"}`)
		})
	}
}

func TestBodyOfAWebhookIsNeverApplied(t *testing.T) {
	t.Parallel()
	b := setup(conditions.Request, target("tell", targetclient.KindWebhook, interrupts))
	b.caller.answers["tell"] = answers(`not JSON at all`)
	out, err := b.dispatch(t.Context(), 0)
	equal(t, "error", err, nil)
	equal(t, "outcome", out, dispatcher.Outcome{})
}

func TestAsyncTargetNeverHoldsUpTheCall(t *testing.T) {
	t.Parallel()
	for reason, refuses := range map[string]error{"full": queue.ErrFull, "target_full": queue.ErrTargetFull, "stopped": queue.ErrStopped, "error": errors.New("disk")} {
		t.Run(reason, func(t *testing.T) {
			t.Parallel()
			b := setup(conditions.Response, target("async", targetclient.KindAsync, interrupts), target("tell", targetclient.KindWebhook))
			b.queue.refuses = refuses
			_, err := b.dispatch(t.Context(), 0)
			equal(t, "error", err, nil)
			equal(t, "observed", b.observer.events, []string{"matched response response/p.S", "dropped " + reason, "tell ok 0s"})
			if log := b.log.String(); strings.Count(log, "\n") != 1 || !strings.Contains(log, "execution=response/p.S target=async reason="+reason) {
				t.Errorf("log: %s", log)
			}
		})
	}
}

func TestADeliveryThatBlocksTheCallInterrupts(t *testing.T) {
	t.Parallel()
	run := func(change func(*dispatcher.Plan)) (*testBundle, error) {
		b := setup(conditions.Request, target("async", targetclient.KindAsync), target("tell", targetclient.KindWebhook))
		change(b.inv.Plan)
		b.queue.refuses = fmt.Errorf("%w: %w", queue.ErrBlocked, queue.ErrSpoolFull)
		_, err := b.dispatch(t.Context(), 0)
		return b, err
	}
	b, err := run(func(*dispatcher.Plan) {})
	interrupt, ok := errors.AsType[*dispatcher.InterruptError](err)
	if !ok || interrupt.Target != "async" || interrupt.Reason != targetclient.ReasonFailed || !errors.Is(err, queue.ErrSpoolFull) {
		t.Errorf("error %v", err)
	}
	equal(t, "observed", b.observer.events, []string{"matched request request/p.S", "dropped spool_full"})
	for name, change := range map[string]func(*dispatcher.Plan){
		"shadow": func(p *dispatcher.Plan) { p.Shadow = true }, "protected": func(p *dispatcher.Plan) { p.Protected = true },
	} {
		b, err := run(change)
		equal(t, name, err, nil)
		equal(t, name, len(b.observer.events), 3)
	}
}

func TestADeliveryCarriesWhoItIsAbout(t *testing.T) {
	t.Parallel()
	b := setup(conditions.Request, target("async", targetclient.KindAsync))
	b.inv.UserID = "u1"
	_, err := b.dispatch(t.Context(), 0)
	equal(t, "error", err, nil)
	equal(t, "user", b.queue.users, []string{"u1"})
}

func TestUnknownKind(t *testing.T) {
	t.Parallel()
	b := setup(conditions.Request, target("odd", 9), target("tell", targetclient.KindWebhook))
	_, err := b.dispatch(t.Context(), 0)
	equal(t, "error", err, nil)
	equal(t, "calls", b.caller.calls, []string{"tell " + payload(`{"a":"request"}`)})
	if !strings.Contains(b.log.String(), "unknown kind of target") {
		t.Errorf("log: %s", b.log.String())
	}

	b.inv.Plan.Targets[0].InterruptOnError = true
	_, err = b.dispatch(t.Context(), 0)
	if interrupt, ok := errors.AsType[*dispatcher.InterruptError](err); !ok || !errors.Is(err, dispatcher.ErrUnknownKind) {
		t.Errorf("error %v (%v), want an InterruptError for the unknown kind", err, interrupt)
	}
}

// D-42: nobody waits any more, so nothing is decided by a flag.
func TestCallerGoesAway(t *testing.T) {
	t.Parallel()
	for _, flag := range []bool{false, true} {
		for _, deadline := range []bool{false, true} {
			for name, chainTimeout := range map[string]time.Duration{"no chain timeout": 0, "later chain timeout": time.Minute} {
				t.Run(fmt.Sprintf("interrupt %t, deadline %t, %s", flag, deadline, name), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						b := setup(conditions.Request, target("slow", targetclient.KindCall), target("next", targetclient.KindWebhook), target("async", targetclient.KindAsync))
						b.inv.Plan.Targets[0].InterruptOnError = flag
						b.caller.answers["slow"] = takes(time.Hour)
						ctx, cancel := context.WithCancel(t.Context())
						want := context.Canceled
						if deadline {
							ctx, cancel = context.WithTimeout(t.Context(), 3*time.Second)
							want = context.DeadlineExceeded
						} else {
							time.AfterFunc(3*time.Second, cancel)
						}
						defer cancel()
						_, err := b.dispatch(ctx, chainTimeout)
						var gone *dispatcher.CallerGoneError
						if !errors.As(err, &gone) || !errors.Is(err, want) {
							t.Errorf("error %v, want a CallerGoneError of %v", err, want)
						}
						equal(t, "number of calls", len(b.caller.calls), 1)
						equal(t, "deliveries", b.queue.taken, nil)
						equal(t, "observed", b.observer.events[1:], []string{"slow cancelled 3s"})
						equal(t, "request", b.request.json, `{"a":"request"}`)
						equal(t, "log", b.log.String(), "")
					})
				})
			}
		}
	}
	t.Run("before the first call", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		b := setup(conditions.Request, target("async", targetclient.KindAsync))
		_, err := b.dispatch(ctx, time.Minute)
		if _, ok := errors.AsType[*dispatcher.CallerGoneError](err); !ok {
			t.Errorf("error %v, want a CallerGoneError", err)
		}
		equal(t, "deliveries", b.queue.taken, nil)
	})
	t.Run("while the last target answers", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		b := setup(conditions.Request, target("ask", targetclient.KindCall))
		b.caller.answers["ask"] = func(context.Context) (targetclient.Result, error) {
			cancel()
			return targetclient.Result{StatusCode: 200}, nil
		}
		_, err := b.dispatch(ctx, time.Minute)
		if _, ok := errors.AsType[*dispatcher.CallerGoneError](err); !ok {
			t.Errorf("error %v, want a CallerGoneError", err)
		}
	})
}

// D-43.
func TestChainTimeout(t *testing.T) {
	t.Parallel()
	slow, fast := takes(4*time.Second), takes(time.Second)
	tests := []struct {
		name      string
		targets   []*targetclient.Target
		wantBy    string // the target that interrupts, if any
		wantCalls int
		want      []string // observed
		wantTook  time.Duration
	}{
		{
			"the one in progress fails and the later ones are not called",
			[]*targetclient.Target{
				target("fast", targetclient.KindWebhook), target("slow", targetclient.KindWebhook),
				target("later", targetclient.KindCall), target("async", targetclient.KindAsync), target("last", targetclient.KindWebhook),
			},
			"", 2, []string{"fast ok 1s", "slow timeout 2s", "later timeout 0s", "async timeout 0s", "last timeout 0s"}, 3 * time.Second,
		},
		{
			"the one in progress interrupts",
			[]*targetclient.Target{target("slow", targetclient.KindCall, interrupts), target("later", targetclient.KindCall, interrupts)},
			"slow", 1, []string{"slow timeout 3s"}, 3 * time.Second,
		},
		{
			"a later one interrupts without being called",
			[]*targetclient.Target{target("slow", targetclient.KindCall), target("later", targetclient.KindCall), target("last", targetclient.KindWebhook, interrupts), target("never", targetclient.KindWebhook)},
			"last", 1, []string{"slow timeout 3s", "later timeout 0s", "last timeout 0s"}, 3 * time.Second,
		},
		{
			"a later async one does not interrupt",
			[]*targetclient.Target{target("slow", targetclient.KindCall), target("async", targetclient.KindAsync, interrupts)},
			"", 1, []string{"slow timeout 3s", "async timeout 0s"}, 3 * time.Second,
		},
		{
			"enough time",
			[]*targetclient.Target{target("fast", targetclient.KindWebhook, interrupts), target("fast", targetclient.KindWebhook, interrupts)},
			"", 2, []string{"fast ok 1s", "fast ok 1s"}, 2 * time.Second,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := setup(conditions.Request, test.targets...)
				b.caller.answers["slow"], b.caller.answers["fast"] = slow, fast
				start := time.Now()
				// The caller itself would wait longer.
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				_, err := b.dispatch(ctx, 3*time.Second)
				equal(t, "took", time.Since(start), test.wantTook)
				interrupt, interrupted := errors.AsType[*dispatcher.InterruptError](err)
				switch {
				case interrupted != (test.wantBy != ""), err != nil && !interrupted:
					t.Errorf("error %v, want an interrupt by %q", err, test.wantBy)
				case interrupted && (interrupt.Target != test.wantBy || interrupt.Reason != targetclient.ReasonTimeout || !errors.Is(err, targetclient.ErrChainTimeout)):
					t.Errorf("interrupt %+v, want the chain's timeout by %q", interrupt, test.wantBy)
				}
				equal(t, "number of calls", len(b.caller.calls), test.wantCalls)
				equal(t, "deliveries", b.queue.taken, nil)
				equal(t, "observed", b.observer.events[1:], test.want)
			})
		})
	}
}

func TestShadowPlanOnlyLooks(t *testing.T) {
	t.Parallel()
	b := setup(conditions.Request,
		target("veto", targetclient.KindWebhook, interrupts), target("ask", targetclient.KindCall), target("same", targetclient.KindCall),
		target("bad", targetclient.KindCall, interrupts), target("tolerated", targetclient.KindCall), target("async", targetclient.KindAsync),
	)
	b.inv.Plan.Shadow = true
	b.caller.answers["veto"] = fails(targetclient.Error{Reason: targetclient.ReasonForwarded, ForwardedStatus: 403})
	b.caller.answers["ask"] = answers(`{"a":"asked"}`)
	b.caller.answers["same"] = answers(` {"a": "request"}`)
	b.caller.answers["bad"] = answers(`{"b":1}`)
	b.caller.answers["tolerated"] = answers(`{"b":1}`)
	out, err := b.dispatch(t.Context(), 0)
	equal(t, "error", err, nil)
	equal(t, "outcome", out, dispatcher.Outcome{})
	equal(t, "request", b.request.json, `{"a":"request"}`)
	for _, call := range b.caller.calls {
		if !strings.HasSuffix(call, payload(`{"a":"request"}`)) {
			t.Errorf("call %s, want the message as it came", call)
		}
	}
	equal(t, "number of calls", len(b.caller.calls), 5)
	equal(t, "number of deliveries", len(b.queue.taken), 1)
	equal(t, "recorded", b.recorded(), []string{`{"a":"request"} ->  changed false, interrupted by veto: forwarded`})
	equal(t, "observed", b.observer.events[1:], []string{"veto forwarded 1s", "ask ok 1s", "same ok 1s", "bad not_applicable 1s", "tolerated not_applicable 1s"})
}

func TestShadowPlanWithoutPreview(t *testing.T) {
	t.Parallel()
	b := setup(conditions.Request, target("ask", targetclient.KindCall), target("same", targetclient.KindCall))
	b.inv.Plan.Shadow = true
	b.inv.Request = opaque{b.request}
	b.caller.answers["ask"] = answers(`{"a":"asked"}`)
	b.caller.answers["same"] = answers(`{"a":"request"}`)
	_, err := b.dispatch(t.Context(), 0)
	equal(t, "error", err, nil)
	equal(t, "recorded", b.recorded(), []string{`{"a":"request"} -> {"a":"asked"} changed true`})
}

func TestProtectedPlanIsNotInterrupted(t *testing.T) {
	t.Parallel()
	b := setup(conditions.Request,
		target("veto", targetclient.KindWebhook, interrupts), target("tolerated", targetclient.KindWebhook), target("ask", targetclient.KindCall, interrupts))
	b.inv.Plan.Protected = true
	b.caller.answers["veto"] = fails(targetclient.Error{Reason: targetclient.ReasonForwarded, ForwardedStatus: 403})
	b.caller.answers["tolerated"] = fails(targetclient.Error{Reason: targetclient.ReasonFailed, StatusCode: 500})
	b.caller.answers["ask"] = answers(`{"a":"asked"}`)
	out, err := b.dispatch(t.Context(), 0)
	equal(t, "error", err, nil)
	equal(t, "outcome", out, dispatcher.Outcome{Changed: true})
	equal(t, "request", b.request.json, `{"a":"asked"}`)
	equal(t, "log lines", strings.Count(b.log.String(), "\n"), 2)
	if len(b.suppressed) != 1 || b.suppressed[0].Target != "veto" || b.suppressed[0].Reason != targetclient.ReasonForwarded {
		t.Errorf("suppressed %v, want that of veto", b.suppressed)
	}
	// Both at once: what would not have interrupted is no news from a shadow.
	b.inv.Plan.Shadow = true
	_, err = b.dispatch(t.Context(), 0)
	equal(t, "error", err, nil)
	if slices.ContainsFunc(b.runs, func(r dispatcher.Run) bool { return r.Interrupt != nil }) {
		t.Errorf("recorded %v", b.recorded())
	}
}

func TestMessageWithoutJSON(t *testing.T) {
	t.Parallel()
	for _, phase := range []conditions.Kind{conditions.Request, conditions.Response} {
		t.Run(phase.String(), func(t *testing.T) {
			t.Parallel()
			b := setup(phase, target("tell", targetclient.KindWebhook))
			bad := b.request
			if phase == conditions.Response {
				bad = b.response
			}
			bad.jsonErr = errors.New("secret-text")
			_, err := b.dispatch(t.Context(), 0)
			messageErr, ok := errors.AsType[*dispatcher.MessageError](err)
			if !ok || messageErr.Phase != phase || !errors.Is(err, bad.jsonErr) {
				t.Errorf("error %v, want a MessageError of the %s", err, phase)
			}
			if strings.Contains(err.Error(), "secret-text") {
				t.Errorf("the error text holds payload: %v", err)
			}
			equal(t, "calls", b.caller.calls, nil)
		})
	}
}

func TestOptionsMayBeLeftOut(t *testing.T) {
	t.Parallel()
	b := setup(conditions.Request, target("veto", targetclient.KindWebhook, interrupts), target("ask", targetclient.KindCall))
	b.caller.answers["veto"] = func(context.Context) (targetclient.Result, error) {
		return targetclient.Result{}, errors.New("not even an Error")
	}
	b.caller.answers["ask"] = answers(`{"a":"asked"}`)
	d := dispatcher.New(dispatcher.Options{Caller: &b.caller, Queue: &b.queue, Logger: slog.New(slog.DiscardHandler)})
	for _, plan := range []dispatcher.Plan{{Shadow: true}, {Protected: true}} {
		plan.Phase, plan.Targets = conditions.Request, b.inv.Plan.Targets
		b.inv.Plan = &plan
		if _, err := d.Dispatch(t.Context(), b.inv); err != nil {
			t.Error(err)
		}
	}
	b.inv.Plan = &dispatcher.Plan{Phase: conditions.Request, Targets: b.inv.Plan.Targets}
	_, err := d.Dispatch(t.Context(), b.inv)
	if interrupt, ok := errors.AsType[*dispatcher.InterruptError](err); !ok || interrupt.Reason != targetclient.ReasonTransport {
		t.Errorf("error %v, want a transport failure", err)
	}
}

func BenchmarkDispatch(b *testing.B) {
	bundle := setup(conditions.Request, target("ask", targetclient.KindCall), target("tell", targetclient.KindWebhook))
	d := dispatcher.New(dispatcher.Options{Caller: silent{}, Queue: &bundle.queue, ChainTimeout: time.Minute})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Dispatch(b.Context(), bundle.inv); err != nil {
			b.Fatal(err)
		}
	}
}

// silent is a Caller that does nothing.
type silent struct{}

func (silent) Do(context.Context, targetclient.Call) (targetclient.Result, error) {
	return targetclient.Result{StatusCode: 200}, nil
}
