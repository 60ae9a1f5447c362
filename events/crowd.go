package events

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
)

// instant reads the events of one time that do not fit on one page.
func (p *Poller) instant(ctx context.Context, at time.Time) ([]listed, error) {
	all := &union{seen: map[string]bool{}}
	window := query{since: at.Add(-time.Microsecond), until: at.Add(time.Microsecond)}
	whole, err := p.bothEnds(ctx, window, all)
	if err != nil {
		return nil, err
	}
	if whole {
		return all.at(at), nil
	}
	types, err := p.api.aggregateTypes(ctx)
	if err != nil {
		return nil, err
	}
	for _, l := range all.events {
		types = append(types, l.event.AggregateType)
	}
	for _, typ := range unique(types) {
		ofType := window
		ofType.aggregateType = typ
		whole, err := p.bothEnds(ctx, ofType, all)
		if err != nil {
			return nil, err
		}
		if whole {
			continue
		}
		ids, err := p.apart(ctx, ofType, all)
		if err != nil {
			return nil, err
		}
		for _, id := range ids {
			if err := p.bySequence(ctx, ofType, id, all); err != nil {
				return nil, err
			}
		}
		// Aggregates in the middle that neither end showed cannot be asked for.
		gap := instantKey(at) + "\x00" + typ
		if _, ok := p.position.Seen[gap]; ok {
			continue
		}
		p.position.Seen[gap] = at
		p.o.OnGap()
		p.o.Logger.Error("events may be missing: the upstream has more of one time than it can be asked for", "aggregate_type", typ,
			"from", at.Format(time.RFC3339Nano), "to", at.Format(time.RFC3339Nano))
	}
	events := all.at(at)
	slices.SortStableFunc(events, func(a, b listed) int {
		return cmp.Or(cmp.Compare(a.event.AggregateType, b.event.AggregateType),
			cmp.Compare(a.event.AggregateID, b.event.AggregateID), cmp.Compare(a.event.Sequence, b.event.Sequence))
	})
	return events, nil
}

// bothEnds reads the first and the last page of a query. It says whether that is
// everything.
func (p *Poller) bothEnds(ctx context.Context, q query, all *union) (whole bool, err error) {
	first, err := p.list(ctx, q)
	if err != nil {
		return false, err
	}
	all.add(first)
	if len(first) < pageSize {
		return true, nil
	}
	q.newestFirst = true
	last, err := p.list(ctx, q)
	if err != nil {
		return false, err
	}
	known := map[string]bool{}
	for _, l := range first {
		known[l.key()] = true
	}
	for i := len(last) - 1; i >= 0; i-- {
		whole = whole || known[last[i].key()]
		all.add(last[i : i+1])
	}
	return whole, nil
}

// apart reads the events of a type that bear another sequence than most do, in so
// far as they fit on a page, and returns the ids of those aggregates of which more
// may be there.
func (p *Poller) apart(ctx context.Context, q query, all *union) ([]string, error) {
	often := map[uint64]int{}
	for _, l := range all.events {
		if l.event.AggregateType == q.aggregateType {
			often[l.event.Sequence]++
		}
	}
	var most uint64
	for sequence, n := range often {
		if most == 0 || n > often[most] || n == often[most] && sequence < most {
			most = sequence
		}
	}
	q.sequence = most
	others, err := p.list(ctx, q)
	if err != nil {
		return nil, err
	}
	all.add(others)
	whole := len(others) < pageSize
	if whole && most > 1 {
		q.newestFirst = true
		smaller, err := p.list(ctx, q)
		if err != nil {
			return nil, err
		}
		all.add(smaller)
		// There are upstreams for which it is "greater" in both directions.
		whole = len(smaller) < pageSize && slices.ContainsFunc(smaller, func(l listed) bool { return l.event.Sequence < most })
	}
	// Of an aggregate that has an event with this sequence, all is known then.
	known := map[string]bool{}
	for _, l := range all.events {
		if l.event.AggregateType == q.aggregateType {
			known[l.event.AggregateID] = known[l.event.AggregateID] || whole && l.event.Sequence == most
		}
	}
	var ids []string
	for id, complete := range known {
		if !complete {
			ids = append(ids, id)
		}
	}
	return unique(ids), nil
}

// bySequence reads all of one aggregate.
func (p *Poller) bySequence(ctx context.Context, q query, id string, all *union) error {
	q.aggregateID = id
	for {
		page, err := p.list(ctx, q)
		if err != nil {
			return err
		}
		all.add(page)
		if len(page) < pageSize {
			return nil
		}
		last := page[len(page)-1].event.Sequence
		if last <= q.sequence {
			return fmt.Errorf("%s ignores the sequence", listEvents)
		}
		q.sequence = last
	}
}
