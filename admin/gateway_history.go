package admin

import (
	"context"
	"errors"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	"github.com/execgate/execgate/store"
)

// auditPage is how many revisions are read at once when entries are looked for.
const auditPage = 200

// revisionsBelow returns the newest revisions below a number (0: the newest of all), newest first, at most n, and where
// the log stands.
func (g *gateway) revisionsBelow(ctx context.Context, below uint64, n int) ([]store.Revision, store.Head, error) {
	if g.o.History == nil {
		return nil, store.Head{}, errNoHistory
	}
	for attempt := 0; ; attempt++ {
		head, err := g.o.History.Head(ctx)
		if err != nil {
			return nil, head, err
		}
		end := head.Revision + 1
		if below != 0 {
			end = min(end, below)
		}
		if head.Oldest == 0 || end <= head.Oldest {
			return nil, head, nil
		}
		count := min(uint64(n), end-head.Oldest)
		revisions, err := g.o.History.Revisions(ctx, end-count-1, int(count))
		if errors.Is(err, store.ErrCompacted) && attempt < 3 {
			continue // the log was cut meanwhile
		}
		revisions = slices.DeleteFunc(revisions, func(r store.Revision) bool { return r.Number >= end })
		slices.Reverse(revisions)
		return revisions, head, err
	}
}

// ListRevisions lists the accepted changes, newest first.
func (g *gateway) ListRevisions(ctx context.Context, r *gatewaypb.ListRevisionsRequest) (*gatewaypb.ListRevisionsResponse, error) {
	limit, err := g.core.limits.limit(r.GetLimit())
	if err != nil {
		return nil, err
	}
	revisions, head, err := g.revisionsBelow(ctx, r.GetBefore(), int(limit))
	if err != nil {
		return nil, err
	}
	out := &gatewaypb.ListRevisionsResponse{Current: head.Revision, Oldest: oldestReachable(head)}
	for _, rev := range revisions {
		var items uint32
		for _, it := range rev.Items {
			if it.Kind != store.KindTargetTombstone && it.Kind != store.KindExecutionTombstone && !outdated(it) {
				items++
			}
		}
		out.Revisions = append(out.Revisions, &gatewaypb.Revision{
			Number: rev.Number, Time: timestamppb.New(rev.Time), Actor: rev.Actor, Action: rev.Action, Items: items,
		})
	}
	return out, nil
}

// oldestReachable is the oldest revision that the log leads back to: the one before the oldest that it holds. The empty
// store before the first revision is none.
func oldestReachable(head store.Head) uint64 {
	if head.Oldest == 0 {
		return head.Revision
	}
	return max(head.Oldest-1, min(head.Revision, 1))
}

// ListAudit lists who changed what, newest first.
func (g *gateway) ListAudit(ctx context.Context, r *gatewaypb.ListAuditRequest) (*gatewaypb.ListAuditResponse, error) {
	limit, err := g.core.limits.limit(r.GetLimit())
	if err != nil {
		return nil, err
	}
	s, err := g.core.read(ctx)
	if err != nil {
		return nil, err
	}
	filter := newAuditFilter(s, r.GetResource())
	out := &gatewaypb.ListAuditResponse{}
	for below := r.GetBefore(); ; {
		revisions, _, err := g.revisionsBelow(ctx, below, auditPage)
		if err != nil {
			return nil, err
		}
		if len(revisions) == 0 {
			return out, nil
		}
		for _, rev := range revisions {
			filter.learn(rev.Items)
			if r.GetActor() != "" && rev.Actor != r.GetActor() {
				continue
			}
			items := filter.keep(rev.Items)
			if len(items) == 0 && filter.on() {
				continue
			}
			out.Entries = append(out.Entries, &gatewaypb.AuditEntry{
				Revision: rev.Number, Time: timestamppb.New(rev.Time), Actor: rev.Actor, Action: rev.Action,
				Changes: describeChanges(items, s),
			})
			if len(out.Entries) == int(limit) {
				return out, nil
			}
		}
		if below = revisions[len(revisions)-1].Number; below <= 1 {
			return out, nil
		}
	}
}

// auditFilter keeps the changes of one resource. A name means the target that has it, and those that had it.
type auditFilter struct {
	ref, name string
	ids       map[string]bool
}

func newAuditFilter(s *store.State, ref string) *auditFilter {
	f := &auditFilter{ref: ref, name: strings.ToLower(ref), ids: map[string]bool{ref: true}}
	if id, err := executionID(ref); err == nil {
		f.ids[id] = true
	}
	if t := findTarget(s, ref); t != nil {
		f.ids[t.ID] = true
	}
	return f
}

func (f *auditFilter) on() bool { return f.ref != "" }

// learn notes the ids of targets that have or had the name. Revisions come newest first, so what a target was called at
// its end is known before what happened to it.
func (f *auditFilter) learn(items []store.RevisionItem) {
	if !f.on() {
		return
	}
	for _, it := range items {
		if it.Kind == store.KindTarget &&
			(strings.ToLower(targetName(it.Before)) == f.name || strings.ToLower(targetName(it.After)) == f.name) {
			f.ids[it.ID] = true
		}
	}
}

func (f *auditFilter) keep(items []store.RevisionItem) []store.RevisionItem {
	if !f.on() {
		return items
	}
	return slices.DeleteFunc(slices.Clone(items), func(it store.RevisionItem) bool { return !f.ids[it.ID] || outdated(it) })
}
