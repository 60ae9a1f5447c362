package admin

import (
	"fmt"

	actionv3 "github.com/execgate/execgate/gen/zitadel/resources/action/v3alpha"
)

// The field rules of zitadel.resources.action.v3alpha. Violations that have an id are found by the commands, after the
// feature flag.

func v3CreateTarget(req *actionv3.CreateTargetRequest) error {
	t := req.GetTarget()
	if t == nil {
		return invalid("target: value is required")
	}
	if t.GetTargetType() == nil {
		return invalid("target.target_type: value is required")
	}
	if err := v3URL(t); err != nil {
		return err
	}
	return checkTimeout(t.GetTimeout())
}

func v3PatchTarget(req *actionv3.PatchTargetRequest) error {
	if err := checkRunes("id", req.GetId(), maxIDRunes); err != nil {
		return err
	}
	t := req.GetTarget()
	if t == nil {
		return invalid("target: value is required")
	}
	if t.GetTargetType() != nil {
		if err := v3URL(t); err != nil {
			return err
		}
	}
	return checkTimeout(t.GetTimeout())
}

func v3URL(t v3TargetType) error {
	url := v3TargetURL(t)
	if err := checkRunes("url", url, maxURLRunes); err != nil {
		return err
	}
	if err := checkAbsoluteURL(url); err != nil {
		return invalid("url: %v", err)
	}
	return nil
}

func v3DeleteTarget(req *actionv3.DeleteTargetRequest) error {
	return checkRunes("id", req.GetId(), maxIDRunes)
}

func v3GetTarget(req *actionv3.GetTargetRequest) error {
	return checkRunes("id", req.GetId(), maxIDRunes)
}

func v3SearchTargets(req *actionv3.SearchTargetsRequest) error {
	if err := checkEnum("sorting_column", req.GetSortingColumn()); err != nil {
		return err
	}
	for i, f := range req.GetFilters() {
		field := fmt.Sprintf("filters[%d]", i)
		var err error
		switch q := f.GetQuery().(type) {
		case *actionv3.TargetSearchFilter_Name:
			err = checkNameFilter(field+".name", q.Name.GetName(), q.Name.GetMethod())
		case *actionv3.TargetSearchFilter_InIds:
			err = checkList(field+".in_ids.ids", len(q.InIds.GetIds()))
		default:
			err = errFilterMissing
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func v3PutExecution(req *actionv3.PutExecutionRequest) error {
	return checkConditionFields("condition", readCondition(req.GetExecution().GetCondition().ProtoReflect()))
}

func v3DeleteExecution(req *actionv3.DeleteExecutionRequest) error {
	return checkRunes("id", req.GetId(), maxExecutionIDRunes)
}

func v3SearchExecutions(req *actionv3.SearchExecutionsRequest) error {
	for i, f := range req.GetFilters() {
		field := fmt.Sprintf("filters[%d]", i)
		var err error
		switch q := f.GetFilter().(type) {
		case *actionv3.ExecutionSearchFilter_InConditions:
			err = checkConditionList(field+".in_conditions.conditions", v3Conditions(q.InConditions.GetConditions()))
		case *actionv3.ExecutionSearchFilter_ExecutionType:
			err = checkEnum(field+".execution_type.type", q.ExecutionType.GetType())
		case *actionv3.ExecutionSearchFilter_Target:
			if q.Target.GetId() == "" {
				err = invalid("%s.target.id: value is required", field)
			}
		case *actionv3.ExecutionSearchFilter_Include:
			err = checkRunes(field+".include.include", q.Include.GetInclude(), maxExecutionIDRunes)
		default:
			err = errFilterMissing
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func v3Conditions(list []*actionv3.Condition) []condition {
	conds := make([]condition, len(list))
	for i, c := range list {
		conds[i] = readCondition(c.ProtoReflect())
	}
	return conds
}
