package app

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"

	"google.golang.org/grpc/codes"

	"github.com/execgate/execgate/admin"
	"github.com/execgate/execgate/conditions"
	"github.com/execgate/execgate/dispatcher"
	"github.com/execgate/execgate/events"
	"github.com/execgate/execgate/internal/hooks"
	"github.com/execgate/execgate/internal/runlog"
	"github.com/execgate/execgate/targetclient"
)

// testFunction runs the plan of a function on what a provider would send.
func (a *App) testFunction(ctx context.Context, plan *dispatcher.Plan, function string, input []byte) (admin.TestFireResult, error) {
	run, err := dispatcher.NewFunctionRun(function, input)
	if err != nil {
		return admin.TestFireResult{}, &admin.Error{Code: codes.InvalidArgument, Text: "request: " + err.Error()}
	}
	return a.testRun(ctx, &dispatcher.Invocation{Plan: plan, Function: run}, testSubject{
		Message: run,
		misfit: func(answer []byte) error {
			_, err := run.Preview(answer)
			return err
		},
		told:    toldProvider,
		timeout: a.config.Hooks.FunctionTimeout,
	})
}

// toldProvider returns the answer of the hooks listener to a provider whose
// function was interrupted.
func toldProvider(e *dispatcher.InterruptError) string {
	text, _ := json.Marshal(hooks.Forwarded(e)) // always marshals
	return string(text)
}

// testEvent tells the targets of an event of it: each once, in order, without the
// queue. Nothing that they answer is applied.
func (a *App) testEvent(ctx context.Context, plan *dispatcher.Plan, payload []byte) (admin.TestFireResult, error) {
	body, err := a.testEventBody(plan.Execution, payload)
	if err != nil {
		return admin.TestFireResult{}, err
	}
	calls := &testCalls{client: a.client}
	outcome := runlog.Unchanged
	for _, target := range plan.Targets {
		_, err := calls.Do(ctx, targetclient.Call{Target: target, Body: body})
		if ctx.Err() != nil {
			return admin.TestFireResult{}, &dispatcher.CallerGoneError{Err: ctx.Err()}
		}
		if err != nil && target.InterruptOnError {
			outcome = runlog.Interrupted
			break
		}
	}
	return admin.TestFireResult{Calls: calls.made, Outcome: outcome}, nil
}

// testEventBody returns what targets get of an event that the execution is on.
func (a *App) testEventBody(execution string, payload []byte) ([]byte, error) {
	header := http.Header{"Content-Type": {"application/json"}}
	list, err := events.Decode(header, payload, a.config.InstanceID)
	if err != nil {
		return nil, &admin.Error{Code: codes.InvalidArgument, Text: "request: " + err.Error()}
	}
	if !slices.Contains(conditions.Candidates(conditions.Event, list[0].Type), execution) {
		return nil, &admin.Error{Code: codes.InvalidArgument, Text: "request: the execution is not on events of this event_type"}
	}
	return list[0].Envelope()
}
