package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/execgate/execgate/admin"
	"github.com/execgate/execgate/conditions"
	"github.com/execgate/execgate/dispatcher"
	"github.com/execgate/execgate/internal/runlog"
	"github.com/execgate/execgate/proxy"
	"github.com/execgate/execgate/queue"
	"github.com/execgate/execgate/schema"
	"github.com/execgate/execgate/targetclient"
)

// testFire calls the targets of an execution as what it matches would: the client
// and the targets are the real ones, only nothing goes upstream or into the
// queue, and async targets are called at once.
func (a *App) testFire(ctx context.Context, t admin.TestFire) (admin.TestFireResult, error) {
	config := a.configurator.config.Load()
	condition, err := conditions.Parse(t.Execution)
	if config == nil || err != nil {
		return admin.TestFireResult{}, &admin.Error{Code: codes.Unavailable, Text: "no configuration is in use yet"}
	}
	plan := config.testPlan(t.Execution, condition.Kind)
	if len(plan.Targets) == 0 {
		return admin.TestFireResult{}, &admin.Error{Code: codes.FailedPrecondition, Text: "the execution has no target that is enabled"}
	}
	switch condition.Kind {
	case conditions.Function:
		return a.testFunction(ctx, plan, condition.Value, t.Request)
	case conditions.Event:
		return a.testEvent(ctx, plan, t.Request)
	default:
		return a.testCall(ctx, plan, t)
	}
}

// testCall runs the plan of a phase of a call.
func (a *App) testCall(ctx context.Context, plan *dispatcher.Plan, t admin.TestFire) (admin.TestFireResult, error) {
	plan.Protected = slices.Contains(a.config.ProtectedMethods, t.Method)
	request, response, err := a.testMessages(t)
	if err != nil {
		return admin.TestFireResult{}, err
	}
	inv := &dispatcher.Invocation{
		Plan: plan, FullMethod: t.Method, InstanceID: a.config.InstanceID, Request: request,
	}
	subject := request
	if plan.Phase == conditions.Response {
		inv.Response, subject = response, response
	}
	return a.testRun(ctx, inv, testSubject{
		Message: subject,
		misfit:  func([]byte) error { return subject.misfit },
		told:    proxy.Told,
		timeout: a.config.Proxy.ChainTimeout,
	})
}

// testSubject is the message that the targets of a plan may replace, and how the
// run is told apart from others.
type testSubject struct {
	dispatcher.Message
	misfit  func(answer []byte) error // why the last answer did not fit
	told    func(*dispatcher.InterruptError) string
	timeout time.Duration // of all targets together
}

// testRun runs a plan with a dispatcher of its own.
func (a *App) testRun(ctx context.Context, inv *dispatcher.Invocation, subject testSubject) (admin.TestFireResult, error) {
	before, err := subject.JSON()
	if err != nil {
		return admin.TestFireResult{}, err
	}
	calls := &testCalls{client: a.client, misfit: subject.misfit}
	d := dispatcher.New(dispatcher.Options{
		Caller: calls, Queue: calls, Observer: calls, ChainTimeout: subject.timeout, Logger: a.logger,
	})
	_, err = d.Dispatch(ctx, inv)
	result := admin.TestFireResult{Calls: calls.made}
	if interrupt, ok := errors.AsType[*dispatcher.InterruptError](err); ok {
		result.Outcome, result.Error = runlog.Interrupted, subject.told(interrupt)
		return result, nil
	}
	if err != nil {
		return admin.TestFireResult{}, err
	}
	if result.Message, err = subject.JSON(); err != nil {
		return admin.TestFireResult{}, err
	}
	result.Outcome = runlog.Unchanged
	if !bytes.Equal(before, result.Message) {
		result.Outcome = runlog.Changed
	}
	return result, nil
}

// testPlan is the plan of an execution whether or not it would be matched.
func (c *configuration) testPlan(id string, kind conditions.Kind) *dispatcher.Plan {
	byID := make(map[string]*targetclient.Target, len(c.targets))
	for _, t := range c.targets {
		if !t.Disabled {
			byID[t.ID] = t
		}
	}
	reached, _ := conditions.Trace(c.executions, id, conditions.Options{HasTarget: func(id string) bool { return byID[id] != nil }})
	plan := &dispatcher.Plan{Execution: id, Phase: kind}
	for _, r := range reached {
		plan.Targets = append(plan.Targets, byID[r.Target])
	}
	return plan
}

// testMessages reads the messages, strictly as far as their types are known.
func (a *App) testMessages(t admin.TestFire) (request, response *testMessage, err error) {
	var input, output *schema.MessageType
	if known := a.learner.Current(); known != nil {
		method := known.Method(t.Method)
		if method == nil {
			return nil, nil, &admin.Error{Code: codes.InvalidArgument, Text: "method: the schema of the upstream does not have " + t.Method}
		}
		input, output = method.Input(), method.Output()
	}
	if request, err = newTestMessage("request", input, t.Request); err != nil || t.Response == nil {
		return request, nil, err
	}
	response, err = newTestMessage("response", output, t.Response)
	return request, response, err
}

// testMessage is a message that remembers why it could not be replaced.
type testMessage struct {
	dispatcher.Message
	misfit error
}

func newTestMessage(field string, typ *schema.MessageType, text []byte) (*testMessage, error) {
	m := &testMessage{Message: new(anyMessage)}
	if typ != nil {
		empty, err := typ.Decode(nil)
		if err != nil {
			return nil, err
		}
		m.Message = empty
	}
	if err := m.Replace(text); err != nil {
		return nil, &admin.Error{Code: codes.InvalidArgument, Text: field + ": " + err.Error()}
	}
	return m, nil
}

// Replace implements dispatcher.Message.
func (m *testMessage) Replace(text []byte) error {
	m.misfit = m.Message.Replace(text)
	return m.misfit
}

// anyMessage is a message of which nothing is known: any JSON object.
type anyMessage struct{ text []byte }

// JSON implements dispatcher.Message.
func (m *anyMessage) JSON() ([]byte, error) { return m.text, nil }

// Replace implements dispatcher.Message.
func (m *anyMessage) Replace(text []byte) error {
	var object map[string]json.RawMessage
	if json.Unmarshal(text, &object) != nil || object == nil {
		return errors.New("not a JSON object")
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, text); err != nil {
		return errors.New("not a JSON object")
	}
	m.text = compact.Bytes()
	return nil
}

// testCalls makes the calls of a test-fire and notes them, in order. It is the
// dispatcher's caller, queue and observer.
type testCalls struct {
	client dispatcher.Caller
	misfit func(answer []byte) error

	mu      sync.Mutex // guards what follows
	made    []admin.TestFireCall
	pending bool // the outcome of the last call is not known yet
}

var (
	_ dispatcher.Caller   = (*testCalls)(nil)
	_ dispatcher.Queue    = (*testCalls)(nil)
	_ dispatcher.Observer = (*testCalls)(nil)
)

// Do implements dispatcher.Caller.
func (c *testCalls) Do(ctx context.Context, call targetclient.Call) (targetclient.Result, error) {
	result, err := c.client.Do(ctx, call)
	made := admin.TestFireCall{
		Target: call.Target.Name, Request: bytes.Clone(call.Body), Status: result.StatusCode, Response: result.Body,
		Outcome: "ok", Duration: result.Duration,
	}
	if failure, ok := errors.AsType[*targetclient.Error](err); ok {
		made.Outcome, made.Err = failure.Reason.String(), failure.Error()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.made, c.pending = append(c.made, made), true
	return result, err
}

// Enqueue implements dispatcher.Queue.
func (c *testCalls) Enqueue(ctx context.Context, d queue.Delivery) error {
	_, _ = c.Do(ctx, targetclient.Call{Target: d.Target, Body: d.Body}) // noted; nobody waits for it
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending = false
	return nil
}

// Matched implements dispatcher.Observer.
func (*testCalls) Matched(string, string) {}

// AsyncDropped implements dispatcher.Observer.
func (*testCalls) AsyncDropped(string) {}

// TargetCall implements dispatcher.Observer: it knows whether the answer could
// be applied, and of calls that were not made any more.
func (c *testCalls) TargetCall(target, outcome string, _ time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.pending {
		c.made = append(c.made, admin.TestFireCall{Target: target, Outcome: outcome, Err: "the time for all targets together is over"})
		return
	}
	c.pending = false
	last := &c.made[len(c.made)-1]
	if last.Outcome == "ok" && outcome != "ok" {
		if misfit := c.misfit(last.Response); misfit != nil {
			last.Err = misfit.Error()
		}
	}
	last.Outcome = outcome
}
