package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/execgate/execgate/conditions"
	actionv2 "github.com/execgate/execgate/gen/zitadel/action/v2"
	filterv2 "github.com/execgate/execgate/gen/zitadel/filter/v2"
	actionv3 "github.com/execgate/execgate/gen/zitadel/resources/action/v3alpha"
	resourcev3 "github.com/execgate/execgate/gen/zitadel/resources/object/v3alpha"
	"github.com/execgate/execgate/internal/strictyaml"
)

// pageSize is the most that the admin API returns at once.
const pageSize = 1000

// target finds a target by its id or, whatever the letter case, its name. An id
// goes before the same text as a name.
func (c *client) target(ctx context.Context, nameOrID string) (*actionv2.Target, error) {
	byID, err := c.targets.ListTargets(ctx, &actionv2.ListTargetsRequest{Filters: []*actionv2.TargetSearchFilter{
		{Filter: &actionv2.TargetSearchFilter_InTargetIdsFilter{InTargetIdsFilter: &actionv2.InTargetIDsFilter{TargetIds: []string{nameOrID}}}},
	}})
	if err != nil {
		return nil, err
	}
	if len(byID.GetTargets()) == 1 {
		return byID.GetTargets()[0], nil
	}
	byName, err := c.targets.ListTargets(ctx, &actionv2.ListTargetsRequest{Filters: []*actionv2.TargetSearchFilter{
		nameFilter(nameOrID, filterv2.TextFilterMethod_TEXT_FILTER_METHOD_EQUALS_IGNORE_CASE),
	}})
	if err != nil {
		return nil, err
	}
	if len(byName.GetTargets()) == 1 {
		return byName.GetTargets()[0], nil
	}
	return nil, c.unknownTarget(ctx, nameOrID)
}

func nameFilter(name string, method filterv2.TextFilterMethod) *actionv2.TargetSearchFilter {
	return &actionv2.TargetSearchFilter{Filter: &actionv2.TargetSearchFilter_TargetNameFilter{
		TargetNameFilter: &actionv2.TargetNameFilter{TargetName: name, Method: method},
	}}
}

// targetIDs finds the ids of targets, in order.
func (c *client) targetIDs(ctx context.Context, namesOrIDs []string) ([]string, error) {
	ids := make([]string, 0, len(namesOrIDs))
	for _, name := range namesOrIDs {
		t, err := c.target(ctx, name)
		if err != nil {
			return nil, err
		}
		ids = append(ids, t.GetId())
	}
	return ids, nil
}

// targetNames maps ids to names, for tables. An id without a target is left
// out.
func (c *client) targetNames(ctx context.Context, ids []string) (map[string]string, error) {
	names := make(map[string]string, len(ids))
	slices.Sort(ids)
	for chunk := range slices.Chunk(slices.Compact(ids), pageSize) {
		res, err := c.targets.ListTargets(ctx, &actionv2.ListTargetsRequest{
			Pagination: &filterv2.PaginationRequest{Limit: pageSize},
			Filters: []*actionv2.TargetSearchFilter{{Filter: &actionv2.TargetSearchFilter_InTargetIdsFilter{
				InTargetIdsFilter: &actionv2.InTargetIDsFilter{TargetIds: chunk},
			}}},
		})
		if err != nil {
			return nil, err
		}
		for _, t := range res.GetTargets() {
			names[t.GetId()] = t.GetName()
		}
	}
	return names, nil
}

// unknownTarget is the error for a name that no target has. What it lists is
// only for the hint, so that nothing else comes of it when it fails.
func (c *client) unknownTarget(ctx context.Context, name string) error {
	f := &Failure{Err: fmt.Errorf("there is no target with the name or id %q", name), Hint: "execgate target list shows what there is"}
	res, err := c.targets.ListTargets(ctx, &actionv2.ListTargetsRequest{Pagination: &filterv2.PaginationRequest{Limit: pageSize}})
	if err != nil {
		return f
	}
	var names []string
	for _, t := range res.GetTargets() {
		names = append(names, t.GetName())
	}
	if near := strictyaml.Closest(name, names); near != "" {
		f.Hint = fmt.Sprintf("did you mean %s?", plainText(near))
	}
	return f
}

// unknownExecution is the same for an id that no execution has.
func (c *client) unknownExecution(ctx context.Context, id string) error {
	f := &Failure{Err: fmt.Errorf("there is no execution %q", id), Hint: "execgate execution list shows what there is"}
	res, err := c.executions.SearchExecutions(ctx, &actionv3.SearchExecutionsRequest{Query: &resourcev3.ListQuery{Limit: pageSize}})
	if err != nil {
		return f
	}
	var ids []string
	for _, e := range res.GetResult() {
		ids = append(ids, e.GetDetails().GetId())
	}
	if near := strictyaml.Closest(id, ids); near != "" {
		f.Hint = fmt.Sprintf("did you mean %s?", plainText(near))
	}
	return f
}

// unknown replaces the answer NOT_FOUND about the thing that was asked for.
func unknown(err error, say func() error) error {
	if status.Code(err) == codes.NotFound {
		return say()
	}
	return err
}

// executionID reads an execution id and returns the one form that is stored.
func executionID(arg string) (conditions.Condition, error) {
	c, err := conditions.Parse(arg)
	if err != nil {
		return c, usage("%v; write request, request/pkg.Service, request/pkg.Service/Method, the same with response, function/name, event, event/type or event/group.*", err)
	}
	return c, nil
}

// methodName reads a full method, with or without its leading slash.
func methodName(arg string) (string, error) {
	name := "/" + strings.TrimPrefix(arg, "/")
	service, method, ok := strings.Cut(name[1:], "/")
	if !ok || service == "" || method == "" || strings.ContainsAny(method, "/ ") || strings.Contains(service, " ") {
		return "", usage("%q is no method; write /pkg.Service/Method", arg)
	}
	return name, nil
}

// condition writes a condition as the API's message.
func condition(c conditions.Condition) *actionv3.Condition {
	all := c.Level == conditions.All
	switch c.Kind {
	case conditions.Request:
		m := &actionv3.RequestExecution{}
		switch {
		case all:
			m.Condition = &actionv3.RequestExecution_All{All: true}
		case c.Level == conditions.Service:
			m.Condition = &actionv3.RequestExecution_Service{Service: c.Value}
		default:
			m.Condition = &actionv3.RequestExecution_Method{Method: c.Value}
		}
		return &actionv3.Condition{ConditionType: &actionv3.Condition_Request{Request: m}}
	case conditions.Response:
		m := &actionv3.ResponseExecution{}
		switch {
		case all:
			m.Condition = &actionv3.ResponseExecution_All{All: true}
		case c.Level == conditions.Service:
			m.Condition = &actionv3.ResponseExecution_Service{Service: c.Value}
		default:
			m.Condition = &actionv3.ResponseExecution_Method{Method: c.Value}
		}
		return &actionv3.Condition{ConditionType: &actionv3.Condition_Response{Response: m}}
	case conditions.Event:
		m := &actionv3.EventExecution{}
		switch {
		case all:
			m.Condition = &actionv3.EventExecution_All{All: true}
		case c.Level == conditions.Group:
			m.Condition = &actionv3.EventExecution_Group{Group: c.Value}
		default:
			m.Condition = &actionv3.EventExecution_Event{Event: c.Value}
		}
		return &actionv3.Condition{ConditionType: &actionv3.Condition_Event{Event: m}}
	default:
		return &actionv3.Condition{ConditionType: &actionv3.Condition_Function{Function: c.Value}}
	}
}
