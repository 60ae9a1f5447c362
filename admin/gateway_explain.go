package admin

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/execgate/execgate/conditions"
	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	"github.com/execgate/execgate/internal/jsondiff"
	"github.com/execgate/execgate/store"
)

// Explain says what a call, a function or an event would do now. Payload values, passwords among them, are for who may
// write.
func (g *gateway) Explain(ctx context.Context, r *gatewaypb.ExplainRequest) (*gatewaypb.ExplainResponse, error) {
	caller, _ := ctx.Value(callerKey{}).(Caller)
	if r.GetWithValues() && !caller.Can(permGatewayWrite) {
		return nil, errNoPermission
	}
	s, err := g.core.store.Fresh(ctx)
	stale := err != nil
	if s == nil || err != nil && ctx.Err() != nil {
		if err == nil {
			err = store.ErrUnavailable
		}
		return nil, err
	}
	e := &explanation{gateway: g, state: s, request: r, out: &gatewaypb.ExplainResponse{}}
	if stale {
		e.note("the store cannot be reached: this is the last configuration known")
	}
	if err := e.noteSwitches(); err != nil {
		return nil, err
	}
	switch {
	case r.GetFunction() != "":
		err = e.function(r.GetFunction())
	case r.GetEvent() != "":
		err = e.phase(conditions.Event, r.GetEvent(), "", false)
	default:
		err = e.call("/" + strings.TrimPrefix(r.GetMethod(), "/"))
	}
	return e.out, err
}

// explanation is one in the making.
type explanation struct {
	*gateway
	state   *store.State
	request *gatewaypb.ExplainRequest
	out     *gatewaypb.ExplainResponse
}

func (e *explanation) note(text string) {
	if !slices.Contains(e.out.Notes, text) {
		e.out.Notes = append(e.out.Notes, text)
	}
}

func (e *explanation) noteSwitches() error {
	dispatch, err := dispatchSwitch(e.state)
	if err != nil {
		return err
	}
	if !dispatch.IsOn() {
		e.note("dispatch is switched off: nothing fires on any gateway")
	}
	if e.o.Killed() {
		e.note("dispatch is switched off on this gateway by its kill file: nothing fires here")
	}
	return nil
}

// function explains a function, by any of its names.
func (e *explanation) function(name string) error {
	name = withoutAlias(conditions.Condition{Kind: conditions.Function, Level: conditions.Name, Value: name}).Value
	if known := e.core.functionNames(); !slices.Contains(known, name) {
		e.note("there is no function of this name; there are " + strings.Join(known, ", "))
	}
	return e.phase(conditions.Function, name, "", false)
}

// neverFires are the prefixes of methods that are not matched at all.
var neverFires = []string{"/grpc.health.v1.Health/", "/grpc.reflection."}

// call explains both phases of a call.
func (e *explanation) call(method string) error {
	var noRequest, noResponse string // why a phase cannot fire
	streams := false                 // the answer is a stream
	const unknown = ": a call that has an execution gets UNAVAILABLE if a target may interrupt, and otherwise passes untouched"
	if slices.ContainsFunc(neverFires, func(prefix string) bool { return strings.HasPrefix(method, prefix) }) {
		e.note("health checks and reflection never fire executions")
		noRequest, noResponse = "never fires", "never fires"
	} else if known := e.o.Upstream(); known == nil {
		e.note("the schema of the upstream is not known" + unknown)
	} else if m := known.Method(method); m == nil {
		e.note("the schema of the upstream does not have the method" + unknown)
	} else if m.ClientStreaming {
		e.note("the client streams messages: no execution fires")
		noRequest, noResponse = "streaming", "streaming"
	} else if m.ServerStreaming {
		e.note("the server streams messages: the request phase fires on the one request message, the response phase on each " +
			"message of the answer, and only if the policy of the execution says so (per_message)")
		streams = true
	}
	if slices.Contains(e.o.ProtectedMethods, method) {
		e.note("the method is protected: no execution may interrupt it")
	}
	if err := e.phase(conditions.Request, method, noRequest, false); err != nil {
		return err
	}
	return e.phase(conditions.Response, method, noResponse, streams)
}

// phase explains one phase. never is why nothing can fire in it, if so; perMessage, that the one that would fire must
// want every message of a stream.
func (e *explanation) phase(kind conditions.Kind, name, never string, perMessage bool) error {
	p := &gatewaypb.PhaseExplanation{Phase: kind.String()}
	e.out.Phases = append(e.out.Phases, p)
	for _, id := range conditions.Candidates(kind, name) {
		if e.state.Execution(id) == nil {
			continue
		}
		targets, reason, err := e.execution(id)
		switch {
		case err != nil:
			return err
		case reason == "" && never != "":
			reason = never
		case reason == "" && p.Execution != "":
			reason = "less specific"
		}
		own, err := executionPolicy(e.state, id)
		if err != nil {
			return err
		}
		if reason == "" && perMessage && !own.IsPerMessage() {
			reason, never = "streaming", "less specific" // none of the others fires in its place
		}
		if reason != "" {
			p.Hidden = append(p.Hidden, &gatewaypb.HiddenExecution{Execution: id, Reason: reason})
			continue
		}
		p.Execution, p.Mode, p.Targets = id, modeOut(own.EffectiveMode()), targets
		if e.request.GetLast() {
			p.Last = e.lastRun(id)
		}
	}
	return nil
}

// execution returns the targets of an execution, and why it does not fire whatever else there is; empty if it does.
func (e *explanation) execution(id string) (targets []*gatewaypb.TargetExplanation, reason string, err error) {
	executions, err := e.reachable(id)
	if err != nil {
		return nil, "", err
	}
	reached, problems := conditions.Trace(executions, id, conditions.Options{
		HasTarget: func(target string) bool { return e.state.Target(target) != nil },
	})
	for _, p := range problems {
		e.note(p.String())
	}
	fires := false
	for _, r := range reached {
		t := e.state.Target(r.Target)
		p, err := targetPolicy(e.state, t.ID)
		if err != nil {
			return nil, "", err
		}
		x := &gatewaypb.TargetExplanation{
			Id:               t.ID,
			Name:             t.Name,
			Kind:             targetKind(t),
			Timeout:          durationpb.New(t.Timeout),
			InterruptOnError: t.InterruptOnError && !t.Async,
			Breaker:          e.o.Breaker(t.ID).String(),
			Enabled:          p.IsEnabled(),
		}
		if r.Execution != id {
			x.IncludedFrom = r.Execution
		}
		// What is told through the queue waits there until the target is enabled.
		parked := e.o.Deliveries != nil && (t.Async || isEvent(id))
		fires = fires || x.Enabled || parked
		targets = append(targets, x)
	}
	own, err := executionPolicy(e.state, id)
	switch {
	case err != nil:
		return nil, "", err
	case !own.IsEnabled():
		reason = "disabled"
	case len(targets) == 0:
		reason = "no targets"
	case !fires:
		reason = "targets disabled"
	}
	return targets, reason, nil
}

func isEvent(id string) bool {
	c, err := conditions.Parse(id)
	return err == nil && c.Kind == conditions.Event
}

// reachable returns an execution and all that it includes, directly or not.
func (e *explanation) reachable(id string) ([]conditions.Execution, error) {
	var all []conditions.Execution
	seen := map[string]bool{id: true}
	for queue := []string{id}; len(queue) > 0; queue = queue[1:] {
		stored := e.state.Execution(queue[0])
		if stored == nil {
			continue
		}
		condition, err := conditions.Parse(stored.ID)
		if err != nil {
			continue // refused as a whole elsewhere
		}
		p, err := executionPolicy(e.state, stored.ID)
		if err != nil {
			return nil, err
		}
		all = append(all, conditions.Execution{
			Condition: condition, Targets: stored.Targets, Includes: stored.Includes, Disabled: !p.IsEnabled(),
		})
		for _, include := range stored.Includes {
			if !seen[include] {
				seen[include] = true
				queue = append(queue, include)
			}
		}
	}
	return all, nil
}

func targetKind(t *store.Target) string {
	switch {
	case t.Async:
		return "async"
	case t.Type == store.TargetRequestResponse:
		return "call"
	default:
		return "webhook"
	}
}

// lastRun returns what this gateway remembers of an execution, nil if nothing.
func (e *explanation) lastRun(id string) *gatewaypb.LastRun {
	run, ok := e.o.LastRun(id)
	if !ok {
		return nil
	}
	out := &gatewaypb.LastRun{Time: timestamppb.New(run.Time), Outcome: run.Outcome, Shadow: run.Shadow}
	for _, c := range run.Diff {
		out.Diff = append(out.Diff, e.valueChange(c))
	}
	return out
}

func (e *explanation) valueChange(c jsondiff.Change) *gatewaypb.ValueChange {
	out := &gatewaypb.ValueChange{Path: c.Path, Op: string(c.Op)}
	if e.request.GetWithValues() {
		out.Before, out.After = jsonValue(c.Before), jsonValue(c.After)
	}
	return out
}

// jsonValue returns JSON as a message; nil for none.
func jsonValue(text json.RawMessage) *structpb.Value {
	if text == nil {
		return nil
	}
	v := new(structpb.Value)
	if protojson.Unmarshal(text, v) != nil {
		return nil
	}
	return v
}
