package admin

import (
	"context"
	"slices"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/execgate/execgate/conditions"
	objectv3 "github.com/execgate/execgate/gen/zitadel/object/v3alpha"
	actionv3 "github.com/execgate/execgate/gen/zitadel/resources/action/v3alpha"
	resourcev3 "github.com/execgate/execgate/gen/zitadel/resources/object/v3alpha"
	"github.com/execgate/execgate/store"
)

// v3alpha is zitadel.resources.action.v3alpha.ZITADELActions. It is called behind the guard.
type v3alpha struct {
	actionv3.UnimplementedZITADELActionsServer
	core     *core
	instance string
}

// CreateTarget implements the RPC.
func (a *v3alpha) CreateTarget(ctx context.Context, req *actionv3.CreateTargetRequest) (*actionv3.CreateTargetResponse, error) {
	in := req.GetTarget()
	if !validName(in.GetName()) {
		return nil, errTargetName
	}
	if in.GetTimeout().AsDuration() == 0 {
		return nil, errTargetTimeout
	}
	if err := a.core.allowedURL(ctx, v3TargetURL(in), errTargetURL); err != nil {
		return nil, err
	}
	t, err := a.core.createTarget(ctx, func(t *store.Target) error {
		t.Name, t.Timeout = in.GetName(), in.GetTimeout().AsDuration()
		t.Type, t.Endpoint = v3StoredType(in), v3TargetURL(in)
		t.Async, t.InterruptOnError = in.GetIsAsync(), in.GetInterruptOnError()
		return nil
	})
	if err != nil {
		return nil, err
	}
	answerCreated(ctx)
	return &actionv3.CreateTargetResponse{Details: a.targetDetails(t)}, nil
}

// PatchTarget implements the RPC.
func (a *v3alpha) PatchTarget(ctx context.Context, req *actionv3.PatchTargetRequest) (*actionv3.PatchTargetResponse, error) {
	in := req.GetTarget()
	if in.Name != nil && !validName(in.GetName()) {
		return nil, errTargetNamePatch
	}
	if in.GetTimeout() != nil && in.GetTimeout().AsDuration() == 0 {
		return nil, errTargetTimeoutPatch
	}
	if in.GetTargetType() != nil {
		if err := a.core.allowedURL(ctx, v3TargetURL(in), errTargetURLPatch); err != nil {
			return nil, err
		}
	}
	t, err := a.core.updateTarget(ctx, "PatchTarget", req.GetId(), errTargetGonePatch, func(t *store.Target) error {
		if in.Name != nil {
			t.Name = in.GetName()
		}
		if in.GetTargetType() != nil {
			t.Type, t.Endpoint = v3StoredType(in), v3TargetURL(in)
		}
		if in.GetTimeout() != nil {
			t.Timeout = in.GetTimeout().AsDuration()
		}
		if in.GetExecutionType() != nil {
			t.Async, t.InterruptOnError = in.GetIsAsync(), in.GetInterruptOnError()
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &actionv3.PatchTargetResponse{Details: a.targetDetails(t)}, nil
}

// DeleteTarget implements the RPC.
func (a *v3alpha) DeleteTarget(ctx context.Context, req *actionv3.DeleteTargetRequest) (*actionv3.DeleteTargetResponse, error) {
	deleted, found, err := a.core.deleteTarget(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, errTargetGoneDelete
	}
	return &actionv3.DeleteTargetResponse{Details: a.details(deleted.ID, deleted.Sequence, deleted.DeletedAt)}, nil
}

// GetTarget implements the RPC.
func (a *v3alpha) GetTarget(ctx context.Context, req *actionv3.GetTargetRequest) (*actionv3.GetTargetResponse, error) {
	t, err := a.core.getTarget(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	return &actionv3.GetTargetResponse{Target: a.target(t)}, nil
}

// SearchTargets implements the RPC.
func (a *v3alpha) SearchTargets(ctx context.Context, req *actionv3.SearchTargetsRequest) (*actionv3.SearchTargetsResponse, error) {
	filters := make([]targetFilter, 0, len(req.GetFilters()))
	for _, f := range req.GetFilters() {
		switch q := f.GetQuery().(type) {
		case *actionv3.TargetSearchFilter_Name:
			filters = append(filters, nameFilter(q.Name.GetName(), textMethod(q.Name.GetMethod())))
		case *actionv3.TargetSearchFilter_InIds:
			filters = append(filters, targetIDFilter(q.InIds.GetIds()))
		}
	}
	result, err := a.core.searchTargets(ctx, filters, v3TargetOrder[req.GetSortingColumn()], v3Page(req.GetQuery()))
	if err != nil {
		return nil, err
	}
	res := &actionv3.SearchTargetsResponse{
		Details:       v3ListDetails(result),
		SortingColumn: req.GetSortingColumn(),
		Result:        make([]*actionv3.GetTarget, len(result.page)),
	}
	for i, t := range result.page {
		res.Result[i] = a.target(t)
	}
	return res, nil
}

// PutExecution implements the RPC.
func (a *v3alpha) PutExecution(ctx context.Context, req *actionv3.PutExecutionRequest) (*actionv3.PutExecutionResponse, error) {
	in := req.GetExecution()
	cond := readCondition(in.GetCondition().ProtoReflect())
	switch {
	case cond.Kind == 0:
		return nil, errConditionMissing
	case cond.Level == 0 && cond.Kind == conditions.Event:
		return nil, errEventLevelMissing
	case cond.Level == 0:
		return nil, errLevelMissing
	case cond.Level == conditions.Name && cond.Value == "":
		return nil, errFunctionMissing
	}
	result, err := a.core.putExecution(ctx, "PutExecution", put{condition: cond, targets: in.GetTargets(), includes: in.GetIncludes()})
	if err != nil {
		return nil, err
	}
	if result.created {
		answerCreated(ctx)
	}
	return &actionv3.PutExecutionResponse{Details: a.executionDetails(result.execution)}, nil
}

// DeleteExecution implements the RPC.
func (a *v3alpha) DeleteExecution(ctx context.Context, req *actionv3.DeleteExecutionRequest) (*actionv3.DeleteExecutionResponse, error) {
	deleted, err := a.core.deleteExecution(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	return &actionv3.DeleteExecutionResponse{Details: a.details(deleted.ID, deleted.Sequence, deleted.DeletedAt)}, nil
}

// SearchExecutions implements the RPC.
func (a *v3alpha) SearchExecutions(ctx context.Context, req *actionv3.SearchExecutionsRequest) (*actionv3.SearchExecutionsResponse, error) {
	keep := func(s *store.State) []executionFilter {
		filters := make([]executionFilter, 0, len(req.GetFilters()))
		for _, f := range req.GetFilters() {
			switch q := f.GetFilter().(type) {
			case *actionv3.ExecutionSearchFilter_InConditions:
				filters = append(filters, conditionFilter(v3Conditions(q.InConditions.GetConditions())))
			case *actionv3.ExecutionSearchFilter_ExecutionType:
				filters = append(filters, kindFilter(v3Kinds[q.ExecutionType.GetType()]))
			case *actionv3.ExecutionSearchFilter_Target:
				filters = append(filters, usesFilter(s, q.Target.GetId()))
			case *actionv3.ExecutionSearchFilter_Include:
				filters = append(filters, includesFilter(s, q.Include.GetInclude()))
			}
		}
		return filters
	}
	result, err := a.core.searchExecutions(ctx, keep, nil, v3Page(req.GetQuery()))
	if err != nil {
		return nil, err
	}
	res := &actionv3.SearchExecutionsResponse{
		Details: v3ListDetails(result),
		Result:  make([]*actionv3.GetExecution, len(result.page)),
	}
	for i, e := range result.page {
		res.Result[i] = a.execution(e)
	}
	return res, nil
}

// ListAvailableExecutionFunctions implements the RPC.
func (a *v3alpha) ListAvailableExecutionFunctions(context.Context, *actionv3.ListAvailableExecutionFunctionsRequest) (*actionv3.ListAvailableExecutionFunctionsResponse, error) {
	return &actionv3.ListAvailableExecutionFunctionsResponse{Functions: a.core.functionNames()}, nil
}

// ListAvailableExecutionMethods implements the RPC.
func (a *v3alpha) ListAvailableExecutionMethods(context.Context, *actionv3.ListAvailableExecutionMethodsRequest) (*actionv3.ListAvailableExecutionMethodsResponse, error) {
	methods, _, _ := a.core.schema()
	return &actionv3.ListAvailableExecutionMethodsResponse{Methods: slices.Sorted(slices.Values(methods))}, nil
}

// ListAvailableExecutionServices implements the RPC.
func (a *v3alpha) ListAvailableExecutionServices(context.Context, *actionv3.ListAvailableExecutionServicesRequest) (*actionv3.ListAvailableExecutionServicesResponse, error) {
	_, services, _ := a.core.schema()
	return &actionv3.ListAvailableExecutionServicesResponse{Services: slices.Sorted(slices.Values(services))}, nil
}

// v3TargetType is what Target and PatchTarget have in common.
type v3TargetType interface {
	GetRestWebhook() *actionv3.SetRESTWebhook
	GetRestRequestResponse() *actionv3.SetRESTRequestResponse
}

func v3TargetURL(t v3TargetType) string {
	if r := t.GetRestRequestResponse(); r != nil {
		return r.GetUrl()
	}
	return t.GetRestWebhook().GetUrl()
}

func v3StoredType(t v3TargetType) store.TargetType {
	if t.GetRestRequestResponse() != nil {
		return store.TargetRequestResponse
	}
	return store.TargetWebhook
}

func (a *v3alpha) target(t *store.Target) *actionv3.GetTarget {
	out := &actionv3.Target{Name: t.Name, Timeout: durationpb.New(t.Timeout)}
	if t.Type == store.TargetRequestResponse {
		out.TargetType = &actionv3.Target_RestRequestResponse{RestRequestResponse: &actionv3.SetRESTRequestResponse{Url: t.Endpoint}}
	} else {
		out.TargetType = &actionv3.Target_RestWebhook{RestWebhook: &actionv3.SetRESTWebhook{Url: t.Endpoint}}
	}
	switch {
	case t.Async:
		out.ExecutionType = &actionv3.Target_IsAsync{IsAsync: true}
	case t.InterruptOnError:
		out.ExecutionType = &actionv3.Target_InterruptOnError{InterruptOnError: true}
	}
	return &actionv3.GetTarget{Details: a.targetDetails(t), Target: out}
}

func (a *v3alpha) execution(e *store.Execution) *actionv3.GetExecution {
	out := &actionv3.Execution{Targets: e.Targets, Includes: e.Includes}
	if cond, err := conditions.Parse(e.ID); err == nil {
		out.Condition = new(actionv3.Condition)
		writeCondition(out.Condition.ProtoReflect(), cond)
	}
	return &actionv3.GetExecution{Details: a.executionDetails(e), Execution: out}
}

func (a *v3alpha) targetDetails(t *store.Target) *resourcev3.Details {
	return a.details(t.ID, t.Sequence, t.ChangedAt)
}

func (a *v3alpha) executionDetails(e *store.Execution) *resourcev3.Details {
	return a.details(e.ID, e.Sequence, e.ChangedAt)
}

func (a *v3alpha) details(id string, sequence uint64, changed time.Time) *resourcev3.Details {
	return &resourcev3.Details{
		Id:            id,
		Sequence:      sequence,
		ChangeDate:    timestamppb.New(changed),
		ResourceOwner: &objectv3.Owner{Type: objectv3.OwnerType_OWNER_TYPE_INSTANCE, Id: a.instance},
	}
}

func v3ListDetails[T any](f found[T]) *resourcev3.ListDetails {
	details := &resourcev3.ListDetails{AppliedLimit: f.limit, EndOfList: f.end, TotalResult: f.total}
	if f.state.Revision() > 0 {
		details.ProcessedSequence = f.state.Revision()
		details.Timestamp = timestamppb.New(f.state.Time())
	}
	return details
}

func v3Page(q *resourcev3.ListQuery) page {
	return page{offset: q.GetOffset(), limit: q.GetLimit(), asc: q.GetAsc()}
}

// v3TargetOrder has the order of each column; what it lacks is sorted by creation.
var v3TargetOrder = map[actionv3.TargetFieldName]func(a, b *store.Target) int{
	actionv3.TargetFieldName_TARGET_FIELD_NAME_ID:                 targetsByID,
	actionv3.TargetFieldName_TARGET_FIELD_NAME_CHANGE_DATE:        targetsByChange,
	actionv3.TargetFieldName_TARGET_FIELD_NAME_NAME:               targetsByName,
	actionv3.TargetFieldName_TARGET_FIELD_NAME_TARGET_TYPE:        func(a, b *store.Target) int { return compareBool(isCall(a), isCall(b)) },
	actionv3.TargetFieldName_TARGET_FIELD_NAME_URL:                targetsByURL,
	actionv3.TargetFieldName_TARGET_FIELD_NAME_TIMEOUT:            targetsByTimeout,
	actionv3.TargetFieldName_TARGET_FIELD_NAME_ASYNC:              targetsByAsync,
	actionv3.TargetFieldName_TARGET_FIELD_NAME_INTERRUPT_ON_ERROR: targetsByInterrupt,
}

func isCall(t *store.Target) bool { return t.Type == store.TargetRequestResponse }

var v3Kinds = map[actionv3.ExecutionType]conditions.Kind{
	actionv3.ExecutionType_EXECUTION_TYPE_REQUEST:  conditions.Request,
	actionv3.ExecutionType_EXECUTION_TYPE_RESPONSE: conditions.Response,
	actionv3.ExecutionType_EXECUTION_TYPE_EVENT:    conditions.Event,
	actionv3.ExecutionType_EXECUTION_TYPE_FUNCTION: conditions.Function,
}

func validName(name string) bool {
	n := utf8.RuneCountInString(name)
	return n >= 1 && n <= maxNameRunes
}
