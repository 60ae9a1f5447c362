package admin

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	actionv2 "github.com/execgate/execgate/gen/zitadel/action/v2"
	actionv3 "github.com/execgate/execgate/gen/zitadel/resources/action/v3alpha"
)

// rule is what one method asks for before its command runs.
type rule struct {
	permission string // empty: any authenticated caller
	// validate checks the fields of the request, nil if there are none to check.
	validate func(proto.Message) error
	// flagged methods are refused when the actions feature is off.
	flagged bool
}

// fields makes a rule's validate of a function for one request type.
func fields[M proto.Message](validate func(M) error) func(proto.Message) error {
	return func(m proto.Message) error {
		req, ok := m.(M)
		if !ok {
			return fmt.Errorf("request is a %T", m)
		}
		return validate(req)
	}
}

// rules has every method of the API; a method that it lacks cannot be called.
var rules = map[string]rule{
	actionv3.ZITADELActions_CreateTarget_FullMethodName:                    {permTargetWrite, fields(v3CreateTarget), true},
	actionv3.ZITADELActions_PatchTarget_FullMethodName:                     {permTargetWrite, fields(v3PatchTarget), true},
	actionv3.ZITADELActions_DeleteTarget_FullMethodName:                    {permTargetDelete, fields(v3DeleteTarget), true},
	actionv3.ZITADELActions_GetTarget_FullMethodName:                       {permTargetRead, fields(v3GetTarget), true},
	actionv3.ZITADELActions_SearchTargets_FullMethodName:                   {permTargetRead, fields(v3SearchTargets), true},
	actionv3.ZITADELActions_PutExecution_FullMethodName:                    {permExecutionWrite, fields(v3PutExecution), true},
	actionv3.ZITADELActions_DeleteExecution_FullMethodName:                 {permExecutionDelete, fields(v3DeleteExecution), true},
	actionv3.ZITADELActions_SearchExecutions_FullMethodName:                {permExecutionList, fields(v3SearchExecutions), true},
	actionv3.ZITADELActions_ListAvailableExecutionFunctions_FullMethodName: {permExecutionList, nil, true},
	actionv3.ZITADELActions_ListAvailableExecutionMethods_FullMethodName:   {permExecutionList, nil, true},
	actionv3.ZITADELActions_ListAvailableExecutionServices_FullMethodName:  {permExecutionList, nil, true},

	actionv2.ActionService_CreateTarget_FullMethodName:           {permTargetWrite, fields(v2CreateTarget), false},
	actionv2.ActionService_UpdateTarget_FullMethodName:           {permTargetWrite, fields(v2UpdateTarget), false},
	actionv2.ActionService_DeleteTarget_FullMethodName:           {permTargetDelete, fields(v2DeleteTarget), false},
	actionv2.ActionService_GetTarget_FullMethodName:              {permTargetRead, fields(v2GetTarget), false},
	actionv2.ActionService_ListTargets_FullMethodName:            {permTargetRead, fields(v2ListTargets), false},
	actionv2.ActionService_AddPublicKey_FullMethodName:           {permTargetWrite, fields(v2AddPublicKey), false},
	actionv2.ActionService_ActivatePublicKey_FullMethodName:      {permTargetWrite, fields(v2ActivatePublicKey), false},
	actionv2.ActionService_DeactivatePublicKey_FullMethodName:    {permTargetWrite, fields(v2DeactivatePublicKey), false},
	actionv2.ActionService_RemovePublicKey_FullMethodName:        {permTargetWrite, fields(v2RemovePublicKey), false},
	actionv2.ActionService_ListPublicKeys_FullMethodName:         {permTargetRead, fields(v2ListPublicKeys), false},
	actionv2.ActionService_SetExecution_FullMethodName:           {permExecutionWrite, fields(v2SetExecution), false},
	actionv2.ActionService_ListExecutions_FullMethodName:         {permExecutionRead, fields(v2ListExecutions), false},
	actionv2.ActionService_ListExecutionFunctions_FullMethodName: {"", nil, false},
	actionv2.ActionService_ListExecutionMethods_FullMethodName:   {"", nil, false},
	actionv2.ActionService_ListExecutionServices_FullMethodName:  {"", nil, false},
}

// incoming is what the protocols tell the guard about a call.
type incoming struct {
	method        string // full name with leading slash
	authorization string // value of the Authorization header
	address       string // of the client, host:port
	origin, host  string // of a browser; the Host header or :authority
}

// guard is what every call passes, whatever its protocol.
type guard struct {
	auth       *authentication
	featureOff bool
	observer   Observer
	logger     *slog.Logger
}

// call runs a command behind the checks. Errors are statuses.
func (g *guard) call(ctx context.Context, in incoming, req any, command func(context.Context, any) (any, error)) (res any, err error) {
	start := time.Now()
	defer func() {
		if p := recover(); p != nil {
			g.logger.Error("admin call panicked", "method", in.method, "panic", p, "stack", string(debug.Stack()))
			res, err = nil, errInternal
		}
		code := codes.OK
		if err != nil {
			st := g.status(in, err)
			res, err, code = nil, st.Err(), st.Code()
		}
		if g.observer != nil {
			g.observer.AdminCall(in.method, code, time.Since(start))
		}
	}()
	if ctx, err = g.check(ctx, in, req); err != nil {
		return nil, err
	}
	return command(ctx, req)
}

// check returns the context with the caller, or the first of the checks that fails.
func (g *guard) check(ctx context.Context, in incoming, req any) (context.Context, error) {
	caller, err := g.admit(ctx, in)
	if err != nil {
		return ctx, err
	}
	rule := rules[in.method]
	if message, ok := req.(proto.Message); ok && rule.validate != nil {
		if err := rule.validate(message); err != nil {
			return ctx, err
		}
	}
	if rule.flagged && g.featureOff {
		return ctx, errFeatureOff
	}
	return withCaller(ctx, caller), nil
}

type admittedKey struct{}

// front is the part of call that needs no request, for a protocol that would complain of a body before call sees it. The
// context that it returns spares call the same work.
func (g *guard) front(ctx context.Context, in incoming) (context.Context, error) {
	start := time.Now()
	caller, err := g.admit(ctx, in)
	if err == nil {
		return context.WithValue(ctx, admittedKey{}, caller), nil
	}
	st := g.status(in, err)
	if g.observer != nil {
		g.observer.AdminCall(in.method, st.Code(), time.Since(start))
	}
	return ctx, st.Err()
}

// admit is authentication and permission: what a caller has to pass before anything is said about the request.
func (g *guard) admit(ctx context.Context, in incoming) (Caller, error) {
	if caller, ok := ctx.Value(admittedKey{}).(Caller); ok {
		return caller, nil
	}
	rule, ok := rules[in.method]
	if !ok {
		return Caller{}, status.Error(codes.Unimplemented, "unknown method "+in.method)
	}
	if g.auth.open() && foreignSite(in) {
		return Caller{}, errForeignSite
	}
	caller, err := g.auth.identify(ctx, in)
	if err != nil {
		return Caller{}, err
	}
	if rule.permission != "" && !caller.Can(rule.permission) {
		return Caller{}, errNoPermission
	}
	return caller, nil
}

// status renders an error, and logs what the caller is not told.
func (g *guard) status(in incoming, err error) *status.Status {
	if st, ok := status.FromError(err); ok {
		return st
	}
	st, known := toStatus(err)
	if !known {
		g.logger.Error("admin call failed", "method", in.method, "error", err)
	}
	return st
}
