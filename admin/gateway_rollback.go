package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/execgate/execgate/conditions"
	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	"github.com/execgate/execgate/policy"
	"github.com/execgate/execgate/store"
)

// Rollback makes the configuration what it was at a revision.
func (g *gateway) Rollback(ctx context.Context, r *gatewaypb.RollbackRequest) (*gatewaypb.RollbackResponse, error) {
	if g.o.History == nil {
		return nil, errNoHistory
	}
	var changes []*gatewaypb.ItemChange
	plan := func(s *store.State) ([]store.Item, error) {
		changed, err := g.since(ctx, s, r.GetRevision())
		if err != nil {
			return nil, err
		}
		b := rollback{core: g.core, state: s}
		for _, it := range changed {
			b.undo(it)
		}
		items, err := b.done()
		changes = describeChanges(b.undone, s)
		return items, err
	}
	if r.GetDryRun() {
		s, err := g.core.store.Fresh(ctx)
		if err != nil {
			return nil, err
		}
		if _, err := plan(s); err != nil {
			return nil, err
		}
		return &gatewaypb.RollbackResponse{Revision: s.Revision(), Changes: changes}, nil
	}
	after, err := g.core.store.Update(ctx, callerName(ctx), fmt.Sprintf("Rollback to %d", r.GetRevision()), plan)
	if err != nil {
		return nil, g.refusal(ctx, r.GetRevision(), err)
	}
	return &gatewaypb.RollbackResponse{Revision: after.Revision(), Changes: changes}, nil
}

// refusal is the answer for an error of the store: what is none of its known ones says that the result is no valid
// configuration.
func (g *gateway) refusal(ctx context.Context, revision uint64, err error) error {
	if own := (*Error)(nil); errors.As(err, &own) || errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrConflict) || ctx.Err() != nil {
		return err
	}
	return errRollback("the configuration of revision %d cannot be used: %v", revision, err)
}

func errRollback(format string, args ...any) error {
	return &Error{codes.FailedPrecondition, "", fmt.Sprintf(format, args...)}
}

// since returns, for every item that changed after a revision, its value then (Before) and its value now (After).
func (g *gateway) since(ctx context.Context, s *store.State, revision uint64) ([]store.RevisionItem, error) {
	if revision > s.Revision() {
		return nil, &Error{codes.NotFound, "", fmt.Sprintf("there is no revision %d, the newest is %d", revision, s.Revision())}
	}
	revisions, err := g.o.History.Revisions(ctx, revision, 0)
	if errors.Is(err, store.ErrCompacted) {
		return nil, errRollback("the log of changes does not reach back to revision %d", revision)
	}
	if err != nil {
		return nil, err
	}
	type key struct {
		kind store.Kind
		id   string
	}
	seen := make(map[key]bool)
	var items []store.RevisionItem
	expect := revision + 1
	for _, rev := range revisions {
		if rev.Number > s.Revision() {
			break // newer than the state: the commit will conflict, and this is done again
		}
		if rev.Number != expect {
			return nil, errRollback("the log of changes has a gap after revision %d", expect-1)
		}
		expect++
		for _, it := range rev.Items {
			if k := (key{it.Kind, it.ID}); !seen[k] {
				seen[k] = true
				now, _ := s.Item(it.Kind, it.ID)
				items = append(items, store.RevisionItem{Kind: it.Kind, ID: it.ID, Before: it.Before, After: now})
			}
		}
	}
	if expect != s.Revision()+1 {
		return nil, errRollback("the log of changes does not reach back to revision %d", revision)
	}
	slices.SortFunc(items, func(a, b store.RevisionItem) int {
		return cmp.Or(strings.Compare(string(a.Kind), string(b.Kind)), strings.Compare(a.ID, b.ID))
	})
	return items, nil
}

// rollback collects one commit that undoes changes.
type rollback struct {
	core    *core
	state   *store.State
	changes changes
	undone  []store.RevisionItem // what a reader of the log will see
}

// undo takes one item back to its value then. What is remembered of deleted resources is no configuration, switches are
// turned by hand, and of kinds that it does not know this version cannot say whether an old value is still right: they
// stay.
func (b *rollback) undo(it store.RevisionItem) {
	then, now := it.Before, it.After
	if sameSaid(then, now) {
		return
	}
	var item store.Item
	var err error
	switch it.Kind {
	case store.KindTarget:
		item, err = b.target(it.ID, then)
	case store.KindExecution:
		item, err = b.execution(it.ID, then)
	case store.KindTargetPolicy:
		item, err = b.targetPolicy(it.ID, then, now)
	case store.KindExecutionPolicy:
		item, err = b.executionPolicy(it.ID, then, now)
	default:
		return
	}
	b.changes.add(item, err)
	b.undone = append(b.undone, store.RevisionItem{Kind: it.Kind, ID: it.ID, Before: now, After: item.Value})
}

func (b *rollback) target(id string, then []byte) (store.Item, error) {
	now, dead := b.state.Target(id), b.state.TargetTombstone(id)
	if then == nil {
		gone := &store.Tombstone{ID: id, Sequence: now.Sequence + 1, DeletedAt: b.core.changeTime(now.ChangedAt)}
		b.changes.add(gone.TargetItem())
		return store.Absent(store.KindTarget, id), nil
	}
	t, err := store.DecodeTarget(then)
	if err != nil {
		return store.Item{}, err
	}
	switch {
	case now != nil:
		t.Sequence, t.ChangedAt = now.Sequence+1, b.core.changeTime(now.ChangedAt)
	case dead != nil:
		t.Sequence, t.ChangedAt = dead.Sequence+1, b.core.changeTime(dead.DeletedAt)
		b.changes.remove(b.state, store.KindTargetTombstone, id)
	default: // deleted so long ago that it is forgotten
		t.Sequence, t.ChangedAt = t.Sequence+1, b.core.changeTime(t.ChangedAt)
	}
	return t.Item()
}

func (b *rollback) execution(id string, then []byte) (store.Item, error) {
	now, dead := b.state.Execution(id), b.state.ExecutionTombstone(id)
	if then == nil {
		gone := &store.Tombstone{ID: id, Sequence: now.Sequence + 1, DeletedAt: b.core.changeTime(now.ChangedAt)}
		b.changes.add(gone.ExecutionItem())
		return store.Absent(store.KindExecution, id), nil
	}
	e, err := store.DecodeExecution(then)
	if err != nil {
		return store.Item{}, err
	}
	switch {
	case now != nil:
		e.Sequence, e.ChangedAt = now.Sequence+1, b.core.changeTime(now.ChangedAt)
	case dead != nil:
		e.Sequence, e.ChangedAt = dead.Sequence+1, b.core.changeTime(dead.DeletedAt)
		b.changes.remove(b.state, store.KindExecutionTombstone, id)
	default:
		e.Sequence, e.ChangedAt = e.Sequence+1, b.core.changeTime(e.ChangedAt)
	}
	return e.Item()
}

func (b *rollback) targetPolicy(id string, then, now []byte) (store.Item, error) {
	if then == nil {
		return store.Absent(store.KindTargetPolicy, id), nil
	}
	p, err := policy.DecodeTarget(then)
	if err != nil {
		return store.Item{}, err
	}
	last := p.ChangedAt
	if current, err := policy.DecodeTarget(now); err == nil {
		last = current.ChangedAt
	}
	p.Revision, p.ChangedAt = b.next(last)
	value, err := p.Encode()
	return store.Item{Kind: store.KindTargetPolicy, ID: id, Value: value}, err
}

func (b *rollback) executionPolicy(id string, then, now []byte) (store.Item, error) {
	if then == nil {
		return store.Absent(store.KindExecutionPolicy, id), nil
	}
	p, err := policy.DecodeExecution(then)
	if err != nil {
		return store.Item{}, err
	}
	last := p.ChangedAt
	if current, err := policy.DecodeExecution(now); err == nil {
		last = current.ChangedAt
	}
	p.Revision, p.ChangedAt = b.next(last)
	value, err := p.Encode()
	return store.Item{Kind: store.KindExecutionPolicy, ID: id, Value: value}, err
}

func (b *rollback) next(last time.Time) (uint64, time.Time) {
	return b.state.Revision() + 1, b.core.changeTime(last)
}

// done returns the commit, or the error for one that would leave something behind that could not be put by hand.
func (b *rollback) done() ([]store.Item, error) {
	items, err := b.changes.done()
	if err != nil {
		return nil, errRollback("what the log holds cannot be used: %v", err)
	}
	next, err := b.state.Apply(b.state.Revision()+1, items)
	if err != nil {
		return nil, errRollback("the result would not be valid: %v", err)
	}
	for _, it := range b.undone {
		switch {
		case it.After == nil:
		case it.Kind == store.KindTarget:
			if err := checkAbsoluteURL(next.Target(it.ID).Endpoint); err != nil {
				return nil, errRollback("target %q would have an endpoint that is %v", next.Target(it.ID).Name, err)
			}
		case it.Kind == store.KindExecution:
			if _, err := conditions.Parse(it.ID); err != nil {
				return nil, errRollback("execution %q would have no valid condition", it.ID)
			}
		case it.Kind == store.KindTargetPolicy && next.Target(it.ID) == nil,
			it.Kind == store.KindExecutionPolicy && next.Execution(it.ID) == nil:
			return nil, errRollback("the policy of %q would qualify nothing", it.ID)
		}
	}
	for _, e := range next.Executions() {
		for _, id := range e.Targets {
			if next.Target(id) == nil {
				return nil, errRollback("execution %q would call target %q, which would not exist", e.ID, id)
			}
		}
	}
	return items, nil
}
