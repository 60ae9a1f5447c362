package admin

import (
	"context"
	"slices"
	"strings"

	"github.com/execgate/execgate/conditions"
	"github.com/execgate/execgate/store"
)

// maxExecutionIDRunes is a type word, a slash and the longest value.
const maxExecutionIDRunes = 1020

// put is an execution as a caller wants it.
type put struct {
	condition condition
	targets   []string
	includes  []string // execution ids as the caller wrote them
	// mayBeEmpty says that an execution without any list is accepted.
	mayBeEmpty bool
}

// putResult says what a put came to.
type putResult struct {
	// execution is nil when an empty list was put where nothing is stored; then gone says what was there before, if
	// anything.
	execution *store.Execution
	gone      *store.Tombstone
	created   bool
}

// putExecution replaces the lists of an execution as a whole, and creates it if there is none.
func (c *core) putExecution(ctx context.Context, action string, p put) (putResult, error) {
	if slices.Contains(p.targets, "") || slices.Contains(p.includes, "") {
		return putResult{}, errEmptyReference
	}
	cond, err := c.existing(p.condition)
	if err != nil {
		return putResult{}, err
	}
	switch {
	case len(p.targets) > 0 && len(p.includes) > 0:
		return putResult{}, errBothLists
	case len(p.targets) == 0 && len(p.includes) == 0 && !p.mayBeEmpty:
		return putResult{}, errNothingToCall
	}
	includes := make([]string, len(p.includes))
	for i, id := range p.includes {
		if includes[i], err = executionID(id); err != nil {
			return putResult{}, errUnknownInclude
		}
	}

	id := cond.ID()
	var result putResult
	err = c.change(ctx, action, func(s *store.State) ([]store.Item, error) {
		result = putResult{}
		before := s.Execution(id)
		if before != nil && slices.Equal(before.Targets, p.targets) && slices.Equal(before.Includes, includes) {
			result.execution = before
			return nil, nil
		}
		if before == nil && len(p.targets) == 0 && len(includes) == 0 {
			result.gone = s.ExecutionTombstone(id)
			return nil, nil
		}
		if err := checkReferences(s, cond, p.targets, includes); err != nil {
			return nil, err
		}
		items := changes{}
		e := c.preparePut(s, id, &items)
		e.Targets, e.Includes = p.targets, includes
		items.add(e.Item())
		result = putResult{execution: e, created: before == nil}
		return items.done()
	})
	return result, err
}

// preparePut returns the record that an execution is put as, all but its lists. What is remembered of an earlier one of
// the condition is then forgotten, and its sequence goes on.
func (c *core) preparePut(s *store.State, id string, items *changes) *store.Execution {
	e := &store.Execution{ID: id}
	before, gone := s.Execution(id), s.ExecutionTombstone(id)
	switch {
	case before != nil:
		*e = *before
		e.ChangedAt = c.changeTime(before.ChangedAt)
	case gone != nil:
		e.Sequence = gone.Sequence
		e.CreatedAt = c.changeTime(gone.DeletedAt)
		e.ChangedAt = e.CreatedAt
		items.remove(s, store.KindExecutionTombstone, id)
	default:
		e.CreatedAt = c.changeTime(s.Time())
		e.ChangedAt = e.CreatedAt
	}
	e.Sequence++
	return e
}

// checkReferences refuses lists that name what is not there, or that include in circles or too deep.
func checkReferences(s *store.State, cond conditions.Condition, targets, includes []string) error {
	seen := make(map[string]struct{}, len(targets)+len(includes))
	twice := func(id string) bool {
		_, ok := seen[id]
		seen[id] = struct{}{}
		return ok
	}
	for _, id := range targets {
		if twice(id) || s.Target(id) == nil {
			return errUnknownTarget
		}
	}
	for _, id := range includes {
		if twice(id) || s.Execution(id) == nil {
			return errUnknownInclude
		}
	}
	id := cond.ID()
	if slices.Contains(includes, id) {
		return errIncludesItself
	}
	for _, included := range includes {
		if err := checkChain(s, included, []string{id}); err != nil {
			return err
		}
	}
	for _, included := range includes {
		if c, err := conditions.Parse(included); err != nil || c.Kind != cond.Kind {
			return errIncludeType
		}
	}
	return nil
}

// checkChain follows the includes of an execution downward. The ancestors lead to it, the first is the execution that
// is being put.
func checkChain(s *store.State, id string, ancestors []string) error {
	e := s.Execution(id)
	if e == nil {
		return nil // deleted since it was included: it contributes nothing
	}
	for _, included := range e.Includes {
		switch {
		case included == id:
			return errIncludedLoop
		case slices.Contains(ancestors, included):
			return errIncludeCycle
		}
	}
	path := append(slices.Clip(ancestors), id)
	for _, included := range e.Includes {
		if s.Execution(included) == nil {
			continue
		}
		if len(path) >= conditions.MaxDepth {
			return errIncludeDepth
		}
		if err := checkChain(s, included, path); err != nil {
			return err
		}
	}
	return nil
}

// deleteExecution removes an execution and returns what is remembered of it.
func (c *core) deleteExecution(ctx context.Context, rawID string) (*store.Tombstone, error) {
	id, err := executionID(rawID)
	if err != nil {
		return nil, errExecutionGone
	}
	var deleted *store.Tombstone
	err = c.change(ctx, "DeleteExecution", func(s *store.State) ([]store.Item, error) {
		e := s.Execution(id)
		if e == nil {
			return nil, errExecutionGone
		}
		items := changes{}
		deleted = c.buryExecution(s, e, &items)
		return items.done()
	})
	return deleted, err
}

// buryExecution removes an execution and its policy, and returns what is remembered of it.
func (c *core) buryExecution(s *store.State, e *store.Execution, items *changes) *store.Tombstone {
	grave := &store.Tombstone{ID: e.ID, Sequence: e.Sequence + 1, DeletedAt: c.changeTime(e.ChangedAt)}
	items.remove(s, store.KindExecution, e.ID)
	items.add(grave.ExecutionItem())
	items.remove(s, store.KindExecutionPolicy, e.ID)
	return grave
}

// executionID returns the one form of an execution id that a caller may write in several.
func executionID(raw string) (string, error) {
	c, err := conditions.Parse(raw)
	if err != nil {
		return "", err
	}
	return withoutAlias(c).ID(), nil
}

// functionsOfZITADEL are the functions that ZITADEL runs.
var functionsOfZITADEL = []string{"preaccesstoken", "presamlresponse", "preuserinfo"}

// functionNames returns the functions that a condition may name, sorted.
func (c *core) functionNames() []string {
	names := append(slices.Clone(functionsOfZITADEL), c.functions...)
	slices.Sort(names)
	return slices.Compact(names)
}

// functionAliases are the names that earlier generations used.
var functionAliases = map[string]string{
	"Action.Flow.Type.CustomiseToken.Action.TriggerType.PreUserinfoCreation":            "preuserinfo",
	"Action.Flow.Type.CustomiseToken.Action.TriggerType.PreAccessTokenCreation":         "preaccesstoken",
	"Action.Flow.Type.CustomizeSAMLResponse.Action.TriggerType.PreSAMLResponseCreation": "presamlresponse",
}

func withoutAlias(c conditions.Condition) conditions.Condition {
	if name, ok := functionAliases[c.Value]; ok && c.Kind == conditions.Function {
		c.Value = name
	}
	return c
}

// existing returns the condition that a caller means, or the error for one that can never come true.
func (c *core) existing(in condition) (conditions.Condition, error) {
	cond, wellFormed := in.stored()
	switch cond.Level {
	case conditions.Method:
		methods, _, known := c.schema()
		if !wellFormed || known && !slices.Contains(methods, cond.Value) {
			return cond, errMethodUnknown
		}
	case conditions.Service:
		_, services, known := c.schema()
		if !wellFormed || known && !slices.Contains(services, cond.Value) {
			return cond, errServiceUnknown
		}
	case conditions.Name:
		if !wellFormed || !slices.Contains(c.functionNames(), cond.Value) {
			return cond, errFunctionUnknown
		}
	case conditions.EventType:
		types, known := c.eventTypes()
		if !wellFormed || known && !slices.Contains(types, cond.Value) {
			return cond, errEventUnknown
		}
	case conditions.Group:
		types, known := c.eventTypes()
		inGroup := func(eventType string) bool {
			return eventType == cond.Value || strings.HasPrefix(eventType, cond.Value+".")
		}
		if !wellFormed || known && !slices.ContainsFunc(types, inGroup) {
			return cond, errGroupUnknown
		}
	}
	return cond, nil
}
