package admin

import (
	"context"
	"maps"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"

	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	"github.com/execgate/execgate/internal/jsondiff"
	"github.com/execgate/execgate/policy"
	"github.com/execgate/execgate/queue"
	"github.com/execgate/execgate/schema"
	"github.com/execgate/execgate/store"
	"github.com/execgate/execgate/targetclient"
)

// GatewayOptions are what execgate.v1.GatewayService needs beside the store. Every field may be nil or zero; then what it
// is for is refused or left out.
type GatewayOptions struct {
	// History is the log of the store. Nil: revisions, rollback and audit are refused.
	History History
	// Defaults are in force where the policy of a target says nothing.
	Defaults policy.TargetDefaults
	// ProtectedMethods are the methods on which no execution may interrupt.
	ProtectedMethods []string
	// Upstream returns what is known of the upstream's API, nil while nothing is.
	Upstream func() *schema.Schema
	// Killed says whether dispatch is switched off on this gateway, whatever the store says.
	Killed func() bool
	// Breaker returns the state of a target's breaker, as this gateway sees it.
	Breaker func(targetID string) targetclient.BreakerState
	// LastRun returns what is remembered of the last run of an execution on this gateway.
	LastRun func(execution string) (LastRun, bool)
	// TestFire calls the targets of an execution. Nil: test-fire is refused. An *[Error] is told to the caller.
	TestFire func(ctx context.Context, t TestFire) (TestFireResult, error)
	// Deliveries are those of the queue. Nil: they are refused.
	Deliveries queue.Desk
	// Places are where Export writes to and Import reads from, besides the call itself. Nil: those are refused.
	Places Places
}

// History is the log of accepted changes. Every store.Store is one.
type History interface {
	// Head says where the log begins and ends.
	Head(ctx context.Context) (store.Head, error)
	// Revisions returns those after the given one, oldest first, at most limit (0: all), or an error that wraps
	// store.ErrCompacted when the log no longer reaches back that far.
	Revisions(ctx context.Context, after uint64, limit int) ([]store.Revision, error)
}

// LastRun is what is remembered of a run of an execution.
type LastRun struct {
	Time time.Time
	// Outcome is "unchanged", "changed" or "interrupted": of a shadowed run, what it would have been.
	Outcome string
	Shadow  bool
	// Diff is what changed, or would have. Its values are nil when they are not kept.
	Diff []jsondiff.Change
}

// TestFire asks for calls of the targets of one execution.
type TestFire struct {
	// Execution is the id of an execution that is stored, of the request or the response phase.
	Execution string
	// Method is the full method that the messages belong to; the execution is on it, on its service or on all.
	Method string
	// Request and Response are the messages as JSON. Response is nil in the request phase.
	Request, Response []byte
}

// TestFireResult is what came of it.
type TestFireResult struct {
	Calls []TestFireCall
	// Outcome is "unchanged", "changed" or "interrupted".
	Outcome string
	// Message is the message of the phase after all targets, as JSON; nil when the outcome is "interrupted".
	Message []byte
	// Error is what a caller would have been told.
	Error string
}

// TestFireCall is one call.
type TestFireCall struct {
	// Target is its name, Request the body that it got.
	Target  string
	Request []byte
	// Status of the answer is 0 if there was none. Response is its body, if it was read.
	Status   int
	Response []byte
	// Outcome is the label of the metric, Err says why if it is not "ok".
	Outcome  string
	Err      string
	Duration time.Duration
}

// The permissions of the service.
const (
	permGatewayRead  = "gateway.read"
	permGatewayWrite = "gateway.write"
)

// Errors of the service: texts of our own, no ids.
var (
	errNoSuchTarget    = &Error{codes.NotFound, "", "there is no target with this id or name"}
	errNoSuchExecution = &Error{codes.NotFound, "", "there is no execution with this id"}
	errNoHistory       = &Error{codes.Unimplemented, "", "this gateway has no access to the log of changes"}
	errNoTestFire      = &Error{codes.Unimplemented, "", "this gateway cannot call targets"}
)

// gateway serves execgate.v1.GatewayService.
type gateway struct {
	gatewaypb.UnsafeGatewayServiceServer

	core     *core
	instance string
	o        GatewayOptions
}

func newGateway(c *core, instance string, o GatewayOptions) *gateway {
	if o.Upstream == nil {
		o.Upstream = func() *schema.Schema { return nil }
	}
	if o.Killed == nil {
		o.Killed = func() bool { return false }
	}
	if o.Breaker == nil {
		o.Breaker = func(string) targetclient.BreakerState { return targetclient.BreakerClosed }
	}
	if o.LastRun == nil {
		o.LastRun = func(string) (LastRun, bool) { return LastRun{}, false }
	}
	return &gateway{core: c, instance: instance, o: o}
}

func init() {
	maps.Copy(rules, gatewayRules)
	maps.Copy(rules, configRules)
}

// gatewayRules are the rules of the service's methods; see rules.
var gatewayRules = map[string]rule{
	gatewaypb.GatewayService_GetTargetPolicy_FullMethodName:       {permGatewayRead, fields(gatewayGetTargetPolicy), false},
	gatewaypb.GatewayService_UpdateTargetPolicy_FullMethodName:    {permGatewayWrite, fields(gatewayUpdateTargetPolicy), false},
	gatewaypb.GatewayService_ResetTargetPolicy_FullMethodName:     {permGatewayWrite, fields(gatewayResetTargetPolicy), false},
	gatewaypb.GatewayService_GetExecutionPolicy_FullMethodName:    {permGatewayRead, fields(gatewayGetExecutionPolicy), false},
	gatewaypb.GatewayService_UpdateExecutionPolicy_FullMethodName: {permGatewayWrite, fields(gatewayUpdateExecutionPolicy), false},
	gatewaypb.GatewayService_ResetExecutionPolicy_FullMethodName:  {permGatewayWrite, fields(gatewayResetExecutionPolicy), false},
	gatewaypb.GatewayService_GetSwitches_FullMethodName:           {permGatewayRead, nil, false},
	gatewaypb.GatewayService_SetSwitches_FullMethodName:           {permGatewayWrite, fields(gatewaySetSwitches), false},
	gatewaypb.GatewayService_ListRevisions_FullMethodName:         {permGatewayRead, fields(gatewayListRevisions), false},
	gatewaypb.GatewayService_Rollback_FullMethodName:              {permGatewayWrite, fields(gatewayRollback), false},
	gatewaypb.GatewayService_ListAudit_FullMethodName:             {permGatewayRead, fields(gatewayListAudit), false},
	gatewaypb.GatewayService_Explain_FullMethodName:               {permGatewayRead, fields(gatewayExplain), false},
	gatewaypb.GatewayService_TestFire_FullMethodName:              {permGatewayWrite, fields(gatewayTestFire), false},
}

// checkTargetRef checks an id or a name.
func checkTargetRef(ref string) error { return checkRunes("id", ref, maxNameRunes) }

func checkExecutionRef(id string) error { return checkRunes("id", id, maxExecutionIDRunes) }

func gatewayGetTargetPolicy(r *gatewaypb.GetTargetPolicyRequest) error {
	return checkTargetRef(r.GetId())
}

func gatewayUpdateTargetPolicy(r *gatewaypb.UpdateTargetPolicyRequest) error {
	if r.GetPolicy() == nil {
		return invalid("policy: value is required")
	}
	return checkTargetRef(r.GetId())
}

func gatewayResetTargetPolicy(r *gatewaypb.ResetTargetPolicyRequest) error {
	if err := policy.CheckTargetFields(r.GetFields()); err != nil {
		return invalid("fields: %v", err)
	}
	return checkTargetRef(r.GetId())
}

func gatewayGetExecutionPolicy(r *gatewaypb.GetExecutionPolicyRequest) error {
	return checkExecutionRef(r.GetId())
}

func gatewayUpdateExecutionPolicy(r *gatewaypb.UpdateExecutionPolicyRequest) error {
	if r.GetPolicy() == nil {
		return invalid("policy: value is required")
	}
	if err := checkEnum("policy.mode", r.GetPolicy().GetMode()); err != nil {
		return err
	}
	return checkExecutionRef(r.GetId())
}

func gatewayResetExecutionPolicy(r *gatewaypb.ResetExecutionPolicyRequest) error {
	if err := policy.CheckExecutionFields(r.GetFields()); err != nil {
		return invalid("fields: %v", err)
	}
	return checkExecutionRef(r.GetId())
}

func gatewaySetSwitches(r *gatewaypb.SetSwitchesRequest) error {
	if r.GetSwitches() == nil {
		return invalid("switches: value is required")
	}
	return nil
}

func gatewayListRevisions(*gatewaypb.ListRevisionsRequest) error { return nil } // the command checks the limit

func gatewayListAudit(r *gatewaypb.ListAuditRequest) error {
	for field, value := range map[string]string{"resource": r.GetResource(), "actor": r.GetActor()} {
		if utf8.RuneCountInString(value) > maxExecutionIDRunes {
			return invalid("%s: value length must be at most %d characters", field, maxExecutionIDRunes)
		}
	}
	return nil
}

func gatewayRollback(r *gatewaypb.RollbackRequest) error {
	if r.GetRevision() == 0 {
		return invalid("revision: value must be greater than 0")
	}
	return nil
}

func gatewayExplain(r *gatewaypb.ExplainRequest) error {
	given := 0
	for _, name := range []string{r.GetMethod(), r.GetFunction(), r.GetEvent()} {
		if name != "" {
			given++
			if err := checkRunes("name", name, maxValueRunes); err != nil {
				return err
			}
		}
	}
	if given != 1 {
		return invalid("request: exactly one of method, function and event must be given")
	}
	if m := r.GetMethod(); m != "" && strings.Count(strings.TrimPrefix(m, "/"), "/") != 1 {
		return invalid(`method: value must be like "/package.Service/Method"`)
	}
	return nil
}

func gatewayTestFire(r *gatewaypb.TestFireRequest) error { return checkExecutionRef(r.GetId()) }

// findTarget returns the target that a caller names by its id or else by its name, or nil.
func findTarget(s *store.State, ref string) *store.Target {
	if t := s.Target(ref); t != nil {
		return t
	}
	return s.TargetByName(ref)
}

// findExecution returns the execution that a caller names, or nil.
func findExecution(s *store.State, ref string) *store.Execution {
	id, err := executionID(ref)
	if err != nil {
		return nil
	}
	return s.Execution(id)
}
