package admin

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/execgate/execgate/conditions"
	"github.com/execgate/execgate/store"
)

// Limits bounds the pages of lists. The zero value means 100 and 1000.
type Limits struct {
	Default uint32 // of a query that asks for none
	Max     uint32 // above it a query is refused
}

func (l Limits) withDefaults() Limits {
	return Limits{Default: cmp.Or(l.Default, 100), Max: cmp.Or(l.Max, 1000)}
}

// page is which part of a result is wanted.
type page struct {
	offset uint64
	limit  uint32 // 0: the default
	asc    bool
}

// limit returns the limit that a query is given.
func (l Limits) limit(wanted uint32) (uint32, error) {
	if wanted > l.Max {
		return 0, errLimit
	}
	return cmp.Or(wanted, l.Default), nil
}

// found is a page of a result.
type found[T any] struct {
	page  []T
	total uint64
	limit uint32
	end   bool // nothing follows the page
	state *store.State
}

// list filters, sorts and cuts. The input is sorted by creation and then id, and stays as it is; order nil is that
// order. Equal elements keep the order of ids given by tie, and descending turns that around as well.
func list[T any](all []T, keep []func(T) bool, order, tie func(a, b T) int, p page) (rows []T, total uint64) {
	matches := make([]T, 0, len(all))
next:
	for _, row := range all {
		for _, f := range keep {
			if !f(row) {
				continue next
			}
		}
		matches = append(matches, row)
	}
	total = uint64(len(matches))
	from := min(p.offset, total)
	to := min(from+uint64(p.limit), total)
	switch {
	case order != nil:
		direction := -1
		if p.asc {
			direction = 1
		}
		matches = smallest(matches, int(to), func(a, b T) int {
			if c := order(a, b); c != 0 {
				return direction * c
			}
			return direction * tie(a, b)
		})
	case !p.asc:
		slices.Reverse(matches)
	}
	return matches[from:to], total
}

// smallest returns the first n rows in the order of compare, sorted; it changes the order of rows. Pages are small
// beside the rows that there can be, and sorting all of these would be most of the work of a search.
func smallest[T any](rows []T, n int, compare func(a, b T) int) []T {
	if n >= len(rows)/4 {
		slices.SortFunc(rows, compare)
		return rows[:n]
	}
	if n == 0 {
		return nil
	}
	top := rows[:n] // a heap, its largest first
	sink := func(i int) {
		for {
			child := 2*i + 1
			if child >= n {
				return
			}
			if child+1 < n && compare(top[child], top[child+1]) < 0 {
				child++
			}
			if compare(top[i], top[child]) >= 0 {
				return
			}
			top[i], top[child] = top[child], top[i]
			i = child
		}
	}
	for i := n/2 - 1; i >= 0; i-- {
		sink(i)
	}
	for _, row := range rows[n:] {
		if compare(row, top[0]) < 0 {
			top[0] = row
			sink(0)
		}
	}
	slices.SortFunc(top, compare)
	return top
}

// search is list with the state and the limits around it.
func search[T any](ctx context.Context, c *core, all func(*store.State) []T, keep func(*store.State) []func(T) bool,
	order, tie func(a, b T) int, p page,
) (found[T], error) {
	limit, err := c.limits.limit(p.limit)
	if err != nil {
		return found[T]{}, err
	}
	p.limit = limit
	s, err := c.read(ctx)
	if err != nil {
		return found[T]{}, err
	}
	rows, total := list(all(s), keep(s), order, tie, p)
	return found[T]{
		page:  rows,
		total: total,
		limit: limit,
		end:   min(p.offset, total)+uint64(len(rows)) >= total,
		state: s,
	}, nil
}

type (
	targetFilter    = func(*store.Target) bool
	executionFilter = func(*store.Execution) bool
)

func (c *core) searchTargets(ctx context.Context, filters []targetFilter, order func(a, b *store.Target) int, p page) (found[*store.Target], error) {
	keep := func(*store.State) []targetFilter { return filters }
	return search(ctx, c, (*store.State).Targets, keep, order, byTargetID, p)
}

// searchExecutions takes filters that need the state as well.
func (c *core) searchExecutions(ctx context.Context, keep func(*store.State) []executionFilter,
	order func(a, b *store.Execution) int, p page,
) (found[*store.Execution], error) {
	return search(ctx, c, (*store.State).Executions, keep, order, byExecutionID, p)
}

// textMethod is how a text is compared; both APIs number the methods alike.
type textMethod int32

const (
	textEquals textMethod = iota
	textEqualsIgnoreCase
	textStartsWith
	textStartsWithIgnoreCase
	textContains
	textContainsIgnoreCase
	textEndsWith
	textEndsWithIgnoreCase
)

// textFilter returns whether a text matches the value. No character is a wildcard. An empty value is equal to no name
// and matches every name otherwise.
func textFilter(value string, method textMethod) func(string) bool {
	compare := func(f func(s, value string) bool) func(string) bool {
		return func(s string) bool { return f(s, value) }
	}
	ignoreCase := func(f func(s, value string) bool) func(string) bool {
		lower := strings.ToLower(value)
		return func(s string) bool { return f(strings.ToLower(s), lower) }
	}
	switch method {
	case textEqualsIgnoreCase:
		if value == "" {
			return func(string) bool { return true }
		}
		return ignoreCase(func(s, value string) bool { return s == value })
	case textStartsWith:
		return compare(strings.HasPrefix)
	case textStartsWithIgnoreCase:
		return ignoreCase(strings.HasPrefix)
	case textContains:
		return compare(strings.Contains)
	case textContainsIgnoreCase:
		return ignoreCase(strings.Contains)
	case textEndsWith:
		return compare(strings.HasSuffix)
	case textEndsWithIgnoreCase:
		return ignoreCase(strings.HasSuffix)
	default:
		return func(s string) bool { return s == value }
	}
}

func nameFilter(value string, method textMethod) targetFilter {
	matches := textFilter(value, method)
	return func(t *store.Target) bool { return matches(t.Name) }
}

func targetIDFilter(ids []string) targetFilter {
	set := setOf(ids)
	return func(t *store.Target) bool { return set[t.ID] }
}

// conditionFilter finds the executions of exactly these conditions.
func conditionFilter(conds []condition) executionFilter {
	ids := make(map[string]bool, len(conds))
	for _, c := range conds {
		if cond, ok := c.stored(); ok {
			ids[cond.ID()] = true
		}
	}
	return func(e *store.Execution) bool { return ids[e.ID] }
}

// kindFilter finds the executions of a kind; kind 0 finds all.
func kindFilter(kind conditions.Kind) executionFilter {
	word := kind.String()
	return func(e *store.Execution) bool {
		if kind == 0 {
			return true
		}
		rest, ok := strings.CutPrefix(e.ID, word)
		return ok && (rest == "" || rest[0] == '/')
	}
}

// usesFilter finds the executions that list the target themselves.
func usesFilter(s *store.State, targetID string) executionFilter {
	set := setOf(s.UsedBy(targetID))
	return func(e *store.Execution) bool { return set[e.ID] }
}

// includesFilter finds the executions that list the execution themselves.
func includesFilter(s *store.State, rawID string) executionFilter {
	id, err := executionID(rawID)
	if err != nil {
		return func(*store.Execution) bool { return false }
	}
	set := setOf(s.IncludedBy(id))
	return func(e *store.Execution) bool { return set[e.ID] }
}

func setOf(ids []string) map[string]bool {
	set := make(map[string]bool, len(ids))
	for _, id := range ids {
		set[id] = true
	}
	return set
}

func byTargetID(a, b *store.Target) int { return strings.Compare(a.ID, b.ID) }

func byExecutionID(a, b *store.Execution) int { return strings.Compare(a.ID, b.ID) }

// The orders that lists can be sorted in, besides creation.
var (
	targetsByID        = byTargetID
	targetsByChange    = func(a, b *store.Target) int { return a.ChangedAt.Compare(b.ChangedAt) }
	targetsByName      = func(a, b *store.Target) int { return strings.Compare(a.Name, b.Name) }
	targetsByURL       = func(a, b *store.Target) int { return strings.Compare(a.Endpoint, b.Endpoint) }
	targetsByTimeout   = func(a, b *store.Target) int { return cmp.Compare(a.Timeout, b.Timeout) }
	targetsByAsync     = func(a, b *store.Target) int { return compareBool(a.Async, b.Async) }
	targetsByInterrupt = func(a, b *store.Target) int { return compareBool(a.InterruptOnError, b.InterruptOnError) }

	executionsByID     = byExecutionID
	executionsByChange = func(a, b *store.Execution) int { return a.ChangedAt.Compare(b.ChangedAt) }
)

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}

// timeMethod is how a time is compared.
type timeMethod int32

const (
	timeEquals timeMethod = iota
	timeAfter
	timeAfterOrEquals
	timeBefore
	timeBeforeOrEquals
)

// expirationFilter finds keys by their expiration. Keys that never expire come after every time.
func expirationFilter(t time.Time, method timeMethod) func(*store.PublicKey) bool {
	return func(k *store.PublicKey) bool {
		order := k.ExpiresAt.Compare(t)
		if k.ExpiresAt.IsZero() {
			order = 1
		}
		switch method {
		case timeAfter:
			return order > 0
		case timeAfterOrEquals:
			return order >= 0
		case timeBefore:
			return order < 0
		case timeBeforeOrEquals:
			return order <= 0
		default:
			return order == 0
		}
	}
}
