package admin

import (
	"fmt"
	"unicode/utf8"

	actionv2 "github.com/execgate/execgate/gen/zitadel/action/v2"
	filterv2 "github.com/execgate/execgate/gen/zitadel/filter/v2"
)

// The field rules of zitadel.action.v2. A missing timeout and a refused endpoint have ids and are found by the
// commands.

func v2CreateTarget(req *actionv2.CreateTargetRequest) error {
	if err := checkRunes("name", req.GetName(), maxNameRunes); err != nil {
		return err
	}
	if req.GetTargetType() == nil {
		return invalid("target_type: value is required")
	}
	if err := checkTimeout(req.GetTimeout()); err != nil {
		return err
	}
	if err := checkRunes("endpoint", req.GetEndpoint(), maxEndpointRunes); err != nil {
		return err
	}
	return checkEnum("payload_type", req.GetPayloadType())
}

func v2UpdateTarget(req *actionv2.UpdateTargetRequest) error {
	if err := checkRunes("id", req.GetId(), maxIDRunes); err != nil {
		return err
	}
	if req.Name != nil {
		if err := checkRunes("name", req.GetName(), maxNameRunes); err != nil {
			return err
		}
	}
	if err := checkTimeout(req.GetTimeout()); err != nil {
		return err
	}
	if req.Endpoint != nil {
		if err := checkRunes("endpoint", req.GetEndpoint(), maxEndpointRunes); err != nil {
			return err
		}
	}
	if d := req.GetExpirationSigningKey(); d.GetSeconds() != 0 || d.GetNanos() != 0 {
		return invalid("expiration_signing_key: value must be 0s")
	}
	return checkEnum("payload_type", req.GetPayloadType())
}

func v2DeleteTarget(req *actionv2.DeleteTargetRequest) error {
	return checkRunes("id", req.GetId(), maxIDRunes)
}

func v2GetTarget(req *actionv2.GetTargetRequest) error {
	return checkRunes("id", req.GetId(), maxIDRunes)
}

func v2ListTargets(req *actionv2.ListTargetsRequest) error {
	if err := checkEnum("sorting_column", req.GetSortingColumn()); err != nil {
		return err
	}
	for i, f := range req.GetFilters() {
		field := fmt.Sprintf("filters[%d]", i)
		var err error
		switch q := f.GetFilter().(type) {
		case *actionv2.TargetSearchFilter_TargetNameFilter:
			err = checkNameFilter(field+".target_name_filter", q.TargetNameFilter.GetTargetName(), q.TargetNameFilter.GetMethod())
		case *actionv2.TargetSearchFilter_InTargetIdsFilter:
			err = checkList(field+".in_target_ids_filter.target_ids", len(q.InTargetIdsFilter.GetTargetIds()))
		default:
			err = invalid("%s.filter: value is required", field)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func v2AddPublicKey(req *actionv2.AddPublicKeyRequest) error {
	if err := checkRunes("target_id", req.GetTargetId(), maxIDRunes); err != nil {
		return err
	}
	if n := len(req.GetPublicKey()); n < 1 || n > maxPublicKey {
		return invalid("public_key: value length must be between 1 and %d bytes", maxPublicKey)
	}
	if err := checkPublicKey(req.GetPublicKey()); err != nil {
		return invalid("public_key: %v", err)
	}
	if t := req.GetExpirationDate(); t != nil && t.CheckValid() != nil {
		return invalid("expiration_date: not a valid timestamp")
	}
	return nil
}

func v2ActivatePublicKey(req *actionv2.ActivatePublicKeyRequest) error {
	return checkKeyIDs(req.GetTargetId(), req.GetKeyId())
}

func v2DeactivatePublicKey(req *actionv2.DeactivatePublicKeyRequest) error {
	return checkKeyIDs(req.GetTargetId(), req.GetKeyId())
}

func v2RemovePublicKey(req *actionv2.RemovePublicKeyRequest) error {
	return checkKeyIDs(req.GetTargetId(), req.GetKeyId())
}

func checkKeyIDs(targetID, keyID string) error {
	if err := checkRunes("target_id", targetID, maxIDRunes); err != nil {
		return err
	}
	return checkRunes("key_id", keyID, maxIDRunes)
}

func v2ListPublicKeys(req *actionv2.ListPublicKeysRequest) error {
	if err := checkRunes("target_id", req.GetTargetId(), maxIDRunes); err != nil {
		return err
	}
	if err := checkEnum("sorting_column", req.GetSortingColumn()); err != nil {
		return err
	}
	for i, f := range req.GetFilters() {
		if err := v2PublicKeyFilter(fmt.Sprintf("filters[%d]", i), f); err != nil {
			return err
		}
	}
	return nil
}

func v2PublicKeyFilter(field string, f *actionv2.PublicKeySearchFilter) error {
	switch q := f.GetFilter().(type) {
	case *actionv2.PublicKeySearchFilter_KeyIdsFilter:
		return v2IDs(field+".key_ids_filter.ids", q.KeyIdsFilter)
	case *actionv2.PublicKeySearchFilter_ActiveFilter:
		return nil
	case *actionv2.PublicKeySearchFilter_ExpirationDateFilter:
		field += ".expiration_date_filter"
		if t := q.ExpirationDateFilter.GetTimestamp(); t == nil || t.CheckValid() != nil {
			return invalid("%s.timestamp: a valid timestamp is required", field)
		}
		return checkEnum(field+".method", q.ExpirationDateFilter.GetMethod())
	default:
		return invalid("%s.filter: value is required", field)
	}
}

func v2IDs(field string, f *filterv2.InIDsFilter) error {
	if err := checkList(field, len(f.GetIds())); err != nil {
		return err
	}
	seen := make(map[string]bool, len(f.GetIds()))
	for i, id := range f.GetIds() {
		if n := utf8.RuneCountInString(id); n < 1 || n > maxIDRunes {
			return invalid("%s[%d]: value length must be between 1 and %d characters", field, i, maxIDRunes)
		}
		if seen[id] {
			return invalid("%s: values must be unique", field)
		}
		seen[id] = true
	}
	return nil
}

func v2SetExecution(req *actionv2.SetExecutionRequest) error {
	return checkWholeCondition("condition", readCondition(req.GetCondition().ProtoReflect()))
}

func v2ListExecutions(req *actionv2.ListExecutionsRequest) error {
	if err := checkEnum("sorting_column", req.GetSortingColumn()); err != nil {
		return err
	}
	for i, f := range req.GetFilters() {
		field := fmt.Sprintf("filters[%d]", i)
		var err error
		switch q := f.GetFilter().(type) {
		case *actionv2.ExecutionSearchFilter_InConditionsFilter:
			err = checkConditionList(field+".in_conditions_filter.conditions", v2Conditions(q.InConditionsFilter.GetConditions()))
		case *actionv2.ExecutionSearchFilter_ExecutionTypeFilter:
			err = checkEnum(field+".execution_type_filter.execution_type", q.ExecutionTypeFilter.GetExecutionType())
		case *actionv2.ExecutionSearchFilter_TargetFilter:
			if q.TargetFilter.GetTargetId() == "" {
				err = invalid("%s.target_filter.target_id: value is required", field)
			}
		default:
			err = invalid("%s.filter: value is required", field)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func v2Conditions(list []*actionv2.Condition) []condition {
	conds := make([]condition, len(list))
	for i, c := range list {
		conds[i] = readCondition(c.ProtoReflect())
	}
	return conds
}
