package admin

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/execgate/execgate/conditions"
	actionv2 "github.com/execgate/execgate/gen/zitadel/action/v2"
	filterv2 "github.com/execgate/execgate/gen/zitadel/filter/v2"
	"github.com/execgate/execgate/store"
)

// v2 is zitadel.action.v2.ActionService. It is called behind the guard.
type v2 struct {
	actionv2.UnimplementedActionServiceServer
	core *core
}

// CreateTarget implements the RPC.
func (a *v2) CreateTarget(ctx context.Context, req *actionv2.CreateTargetRequest) (*actionv2.CreateTargetResponse, error) {
	if req.GetTimeout().AsDuration() == 0 {
		return nil, errTargetTimeout
	}
	if err := a.core.allowedURL(ctx, req.GetEndpoint(), errTargetURL); err != nil {
		return nil, err
	}
	t, err := a.core.createTarget(ctx, func(t *store.Target) error {
		t.Name, t.Endpoint, t.Timeout = req.GetName(), req.GetEndpoint(), req.GetTimeout().AsDuration()
		t.Type, t.Async, t.InterruptOnError = v2StoredType(req)
		t.PayloadType = v2PayloadTypes[req.GetPayloadType()]
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &actionv2.CreateTargetResponse{Id: t.ID, CreationDate: timestamppb.New(t.CreatedAt), SigningKey: t.SigningKey}, nil
}

// UpdateTarget implements the RPC.
func (a *v2) UpdateTarget(ctx context.Context, req *actionv2.UpdateTargetRequest) (*actionv2.UpdateTargetResponse, error) {
	if req.GetTimeout() != nil && req.GetTimeout().AsDuration() == 0 {
		return nil, errTargetTimeoutPatch
	}
	if req.Endpoint != nil {
		if err := a.core.allowedURL(ctx, req.GetEndpoint(), errTargetURLPatch); err != nil {
			return nil, err
		}
	}
	res := new(actionv2.UpdateTargetResponse)
	if req.GetExpirationSigningKey() != nil {
		res.SigningKey = proto.String(newSigningKey())
	}
	t, err := a.core.updateTarget(ctx, "UpdateTarget", req.GetId(), errTargetGonePatch, func(t *store.Target) error {
		if req.Name != nil {
			t.Name = req.GetName()
		}
		if req.GetTargetType() != nil {
			v2SetType(t, req)
		}
		if req.GetTimeout() != nil {
			t.Timeout = req.GetTimeout().AsDuration()
		}
		if req.Endpoint != nil {
			t.Endpoint = req.GetEndpoint()
		}
		if res.SigningKey != nil {
			t.SigningKey = res.GetSigningKey()
		}
		if req.GetPayloadType() != actionv2.PayloadType_PAYLOAD_TYPE_UNSPECIFIED {
			t.PayloadType = v2PayloadTypes[req.GetPayloadType()]
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	res.ChangeDate = timestamppb.New(t.ChangedAt)
	return res, nil
}

// DeleteTarget implements the RPC.
func (a *v2) DeleteTarget(ctx context.Context, req *actionv2.DeleteTargetRequest) (*actionv2.DeleteTargetResponse, error) {
	deleted, _, err := a.core.deleteTarget(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	res := new(actionv2.DeleteTargetResponse)
	if deleted != nil {
		res.DeletionDate = timestamppb.New(deleted.DeletedAt)
	}
	return res, nil
}

// GetTarget implements the RPC.
func (a *v2) GetTarget(ctx context.Context, req *actionv2.GetTargetRequest) (*actionv2.GetTargetResponse, error) {
	t, err := a.core.getTarget(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	return &actionv2.GetTargetResponse{Target: v2Target(t)}, nil
}

// ListTargets implements the RPC.
func (a *v2) ListTargets(ctx context.Context, req *actionv2.ListTargetsRequest) (*actionv2.ListTargetsResponse, error) {
	filters := make([]targetFilter, 0, len(req.GetFilters()))
	for _, f := range req.GetFilters() {
		switch q := f.GetFilter().(type) {
		case *actionv2.TargetSearchFilter_TargetNameFilter:
			filters = append(filters, nameFilter(q.TargetNameFilter.GetTargetName(), textMethod(q.TargetNameFilter.GetMethod())))
		case *actionv2.TargetSearchFilter_InTargetIdsFilter:
			filters = append(filters, targetIDFilter(q.InTargetIdsFilter.GetTargetIds()))
		}
	}
	result, err := a.core.searchTargets(ctx, filters, v2TargetOrder[req.GetSortingColumn()], v2Page(req.GetPagination()))
	if err != nil {
		return nil, err
	}
	res := &actionv2.ListTargetsResponse{Pagination: v2Pagination(result), Targets: make([]*actionv2.Target, len(result.page))}
	for i, t := range result.page {
		res.Targets[i] = v2Target(t)
	}
	return res, nil
}

// SetExecution implements the RPC.
func (a *v2) SetExecution(ctx context.Context, req *actionv2.SetExecutionRequest) (*actionv2.SetExecutionResponse, error) {
	result, err := a.core.putExecution(ctx, "SetExecution", put{
		condition:  readCondition(req.GetCondition().ProtoReflect()),
		targets:    req.GetTargets(),
		mayBeEmpty: true,
	})
	if err != nil {
		return nil, err
	}
	res := new(actionv2.SetExecutionResponse)
	switch {
	case result.execution != nil:
		res.SetDate = timestamppb.New(result.execution.ChangedAt)
	case result.gone != nil:
		res.SetDate = timestamppb.New(result.gone.DeletedAt)
	}
	return res, nil
}

// ListExecutions implements the RPC. Executions that list neither a target that exists nor an include do nothing and
// are left out.
func (a *v2) ListExecutions(ctx context.Context, req *actionv2.ListExecutionsRequest) (*actionv2.ListExecutionsResponse, error) {
	keep := func(s *store.State) []executionFilter {
		filters := []executionFilter{func(e *store.Execution) bool {
			return len(e.Includes) > 0 || slices.ContainsFunc(e.Targets, func(id string) bool { return s.Target(id) != nil })
		}}
		for _, f := range req.GetFilters() {
			switch q := f.GetFilter().(type) {
			case *actionv2.ExecutionSearchFilter_InConditionsFilter:
				filters = append(filters, conditionFilter(v2Conditions(q.InConditionsFilter.GetConditions())))
			case *actionv2.ExecutionSearchFilter_ExecutionTypeFilter:
				filters = append(filters, kindFilter(v2Kinds[q.ExecutionTypeFilter.GetExecutionType()]))
			case *actionv2.ExecutionSearchFilter_TargetFilter:
				filters = append(filters, usesFilter(s, q.TargetFilter.GetTargetId()))
			}
		}
		return filters
	}
	result, err := a.core.searchExecutions(ctx, keep, v2ExecutionOrder[req.GetSortingColumn()], v2Page(req.GetPagination()))
	if err != nil {
		return nil, err
	}
	res := &actionv2.ListExecutionsResponse{Pagination: v2Pagination(result), Executions: make([]*actionv2.Execution, len(result.page))}
	for i, e := range result.page {
		res.Executions[i] = v2Execution(e)
	}
	return res, nil
}

// ListExecutionFunctions implements the RPC.
func (a *v2) ListExecutionFunctions(context.Context, *actionv2.ListExecutionFunctionsRequest) (*actionv2.ListExecutionFunctionsResponse, error) {
	return &actionv2.ListExecutionFunctionsResponse{Functions: a.core.functionNames()}, nil
}

// ListExecutionMethods implements the RPC.
func (a *v2) ListExecutionMethods(context.Context, *actionv2.ListExecutionMethodsRequest) (*actionv2.ListExecutionMethodsResponse, error) {
	methods, _, _ := a.core.schema()
	return &actionv2.ListExecutionMethodsResponse{Methods: slices.Sorted(slices.Values(methods))}, nil
}

// ListExecutionServices implements the RPC.
func (a *v2) ListExecutionServices(context.Context, *actionv2.ListExecutionServicesRequest) (*actionv2.ListExecutionServicesResponse, error) {
	_, services, _ := a.core.schema()
	return &actionv2.ListExecutionServicesResponse{Services: slices.Sorted(slices.Values(services))}, nil
}

// v2TargetType is what the requests to create and to update a target have in common.
type v2TargetType interface {
	GetRestWebhook() *actionv2.RESTWebhook
	GetRestCall() *actionv2.RESTCall
	GetRestAsync() *actionv2.RESTAsync
}

func v2StoredType(t v2TargetType) (kind store.TargetType, async, interrupt bool) {
	switch {
	case t.GetRestCall() != nil:
		return store.TargetRequestResponse, false, t.GetRestCall().GetInterruptOnError()
	case t.GetRestAsync() != nil:
		return store.TargetWebhook, true, false
	default:
		return store.TargetWebhook, false, t.GetRestWebhook().GetInterruptOnError()
	}
}

// v2SetType replaces type and flags. An asynchronous target that is set to be one stays what v3alpha made of it.
func v2SetType(t *store.Target, in v2TargetType) {
	kind, async, interrupt := v2StoredType(in)
	if async && t.Async {
		return
	}
	t.Type, t.Async, t.InterruptOnError = kind, async, interrupt
}

func v2Target(t *store.Target) *actionv2.Target {
	out := &actionv2.Target{
		Id:           t.ID,
		CreationDate: timestamppb.New(t.CreatedAt),
		ChangeDate:   timestamppb.New(t.ChangedAt),
		Name:         t.Name,
		Timeout:      durationpb.New(t.Timeout),
		Endpoint:     t.Endpoint,
		SigningKey:   t.SigningKey,
	}
	for number, stored := range v2PayloadTypes {
		if stored == t.PayloadType {
			out.PayloadType = number
		}
	}
	switch {
	case t.Async:
		out.TargetType = &actionv2.Target_RestAsync{RestAsync: &actionv2.RESTAsync{}}
	case t.Type == store.TargetRequestResponse:
		out.TargetType = &actionv2.Target_RestCall{RestCall: &actionv2.RESTCall{InterruptOnError: t.InterruptOnError}}
	default:
		out.TargetType = &actionv2.Target_RestWebhook{RestWebhook: &actionv2.RESTWebhook{InterruptOnError: t.InterruptOnError}}
	}
	return out
}

func v2Execution(e *store.Execution) *actionv2.Execution {
	out := &actionv2.Execution{
		CreationDate: timestamppb.New(e.CreatedAt),
		ChangeDate:   timestamppb.New(e.ChangedAt),
		Targets:      e.Targets,
	}
	if cond, err := conditions.Parse(e.ID); err == nil {
		out.Condition = new(actionv2.Condition)
		writeCondition(out.Condition.ProtoReflect(), cond)
	}
	return out
}

var v2PayloadTypes = map[actionv2.PayloadType]string{
	actionv2.PayloadType_PAYLOAD_TYPE_UNSPECIFIED: "",
	actionv2.PayloadType_PAYLOAD_TYPE_JSON:        "json",
	actionv2.PayloadType_PAYLOAD_TYPE_JWT:         "jwt",
	actionv2.PayloadType_PAYLOAD_TYPE_JWE:         "jwe",
}

func v2Page(q *filterv2.PaginationRequest) page {
	return page{offset: q.GetOffset(), limit: q.GetLimit(), asc: q.GetAsc()}
}

func v2Pagination[T any](f found[T]) *filterv2.PaginationResponse {
	return &filterv2.PaginationResponse{TotalResult: f.total, AppliedLimit: uint64(f.limit)}
}

// v2TargetOrder has the order of each column; what it lacks is sorted by creation.
var v2TargetOrder = map[actionv2.TargetFieldName]func(a, b *store.Target) int{
	actionv2.TargetFieldName_TARGET_FIELD_NAME_ID:                 targetsByID,
	actionv2.TargetFieldName_TARGET_FIELD_NAME_CHANGED_DATE:       targetsByChange,
	actionv2.TargetFieldName_TARGET_FIELD_NAME_NAME:               targetsByName,
	actionv2.TargetFieldName_TARGET_FIELD_NAME_TARGET_TYPE:        func(a, b *store.Target) int { return v2TypeRank(a) - v2TypeRank(b) },
	actionv2.TargetFieldName_TARGET_FIELD_NAME_URL:                targetsByURL,
	actionv2.TargetFieldName_TARGET_FIELD_NAME_TIMEOUT:            targetsByTimeout,
	actionv2.TargetFieldName_TARGET_FIELD_NAME_INTERRUPT_ON_ERROR: targetsByInterrupt,
}

// v2TypeRank is webhook, call, async.
func v2TypeRank(t *store.Target) int {
	switch {
	case t.Async:
		return 2
	case isCall(t):
		return 1
	default:
		return 0
	}
}

// v2ExecutionOrder has the order of each column; what it lacks is sorted by creation.
var v2ExecutionOrder = map[actionv2.ExecutionFieldName]func(a, b *store.Execution) int{
	actionv2.ExecutionFieldName_EXECUTION_FIELD_NAME_ID:           executionsByID,
	actionv2.ExecutionFieldName_EXECUTION_FIELD_NAME_CHANGED_DATE: executionsByChange,
}

var v2Kinds = map[actionv2.ExecutionType]conditions.Kind{
	actionv2.ExecutionType_EXECUTION_TYPE_REQUEST:  conditions.Request,
	actionv2.ExecutionType_EXECUTION_TYPE_RESPONSE: conditions.Response,
	actionv2.ExecutionType_EXECUTION_TYPE_EVENT:    conditions.Event,
	actionv2.ExecutionType_EXECUTION_TYPE_FUNCTION: conditions.Function,
}

// optionalTime is nil for the zero time.
func optionalTime(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
