package events

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/execgate/execgate/schema"
)

// Defaults of [PollerOptions].
const (
	defaultInterval = time.Second
	defaultOverlap  = 5 * time.Second
	longestWait     = 30 * time.Second
	saveEvery       = 100 // events between two looks at the lease
)

// errNoMethod says that the upstream has no event API, or that nobody knows yet.
var errNoMethod = errors.New("the upstream's schema has no " + listEvents)

// PollerOptions configure a [Poller]. Conn, Schema, Sink and Cursor are required.
type PollerOptions struct {
	// Conn is the connection to the upstream.
	Conn grpc.ClientConnInterface
	// Schema returns what is known of the upstream, nil while nothing is.
	Schema func() *schema.Schema
	// Token returns the bearer token. Nil, or an empty token: none is sent.
	Token func() (string, error)
	// Sink takes the events.
	Sink *Sink
	// Cursor keeps how far the events are read.
	Cursor Cursor
	// InstanceID is told to targets.
	InstanceID string
	// Interval is the pause between two looks, 0 is 1 s. Overlap is how far each
	// looks back, 0 is 5 s.
	Interval, Overlap time.Duration
	// OnGap is told of every range of time of which events may be missing. Nil:
	// nobody is.
	OnGap func()
	// Logger: nil is slog.Default().
	Logger *slog.Logger
}

// Poller reads the events of an upstream that has ZITADEL's event API and hands
// them to a sink, in the order of the upstream. An event that the sink does not
// take is tried again, and no later one is handed over before it.
type Poller struct {
	o   PollerOptions
	api eventAPI

	position *Position // as the cursor has it; nil: not read
	told     string    // the failure that was logged last
}

// NewPoller returns a poller that does nothing until Run.
func NewPoller(o PollerOptions) *Poller {
	if o.Interval <= 0 {
		o.Interval = defaultInterval
	}
	if o.Overlap <= 0 {
		o.Overlap = defaultOverlap
	}
	if o.OnGap == nil {
		o.OnGap = func() {}
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return &Poller{o: o, api: eventAPI{conn: o.Conn, schema: o.Schema, token: o.Token}}
}

// Run polls until ctx ends. It waits for an upstream that is away or has no
// event API, and while another gateway polls.
func (p *Poller) Run(ctx context.Context) {
	pause := p.o.Interval
	for ctx.Err() == nil {
		err := p.poll(ctx)
		switch {
		case ctx.Err() != nil:
		case err == nil, errors.Is(err, ErrNotHolder):
			if p.told != "" {
				p.o.Logger.Info("events are polled again")
			}
			p.told, pause = "", p.o.Interval
		default:
			// Statuses of the upstream may quote what they were given.
			text := err.Error()
			if s, ok := status.FromError(err); ok {
				text = "the upstream answered " + s.Code().String()
			}
			if text != p.told {
				p.o.Logger.Warn("events cannot be polled, it is tried again", "error", text)
			}
			p.told, pause = text, min(pause*2, max(longestWait, p.o.Interval))
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
	}
	release, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	p.o.Cursor.Release(release)
}

// poll reads everything that is new.
func (p *Poller) poll(ctx context.Context) (err error) {
	fresh, err := p.o.Cursor.Acquire(ctx)
	if err != nil {
		p.position = nil
		return err
	}
	if fresh || p.position == nil {
		stored, err := p.o.Cursor.Load(ctx)
		if err != nil {
			return err
		}
		if stored != nil { // else Redis was emptied, and what is known here still holds
			p.position = stored
		}
	}
	if p.position == nil {
		return p.begin(ctx)
	}
	since := p.position.At.Add(-p.o.Overlap)
	for {
		if since.Before(p.position.Start) {
			since = p.position.Start
		}
		page, err := p.list(ctx, query{since: since})
		if err != nil {
			return err
		}
		next, crowded := time.Time{}, false
		if len(page) >= pageSize {
			first, last := page[0].at, page[len(page)-1].at
			switch {
			case first.Equal(last):
				next = last
				if _, done := p.position.Seen[instantKey(last)]; done {
					break
				}
				if page, err = p.instant(ctx, last); err != nil {
					return err
				}
				crowded = true
			default:
				// The rest of the last transaction bears the same time, and since is exclusive.
				if next = last.Add(-time.Microsecond); next.Before(first) {
					next = last.Add(-time.Nanosecond)
				}
			}
		}
		if err := p.deliver(ctx, page); err != nil {
			return err
		}
		if next.IsZero() {
			return nil
		}
		if crowded {
			p.position.Seen[instantKey(next)] = next
		}
		since = next
	}
}

// list asks for events while this gateway is the one that polls.
func (p *Poller) list(ctx context.Context, q query) ([]listed, error) {
	fresh, err := p.o.Cursor.Acquire(ctx)
	if err == nil && fresh {
		err = ErrNotHolder // for a while, another may have been
	}
	if err != nil {
		p.position = nil
		return nil, err
	}
	return p.api.list(ctx, q)
}

// begin takes the newest event as the start. That goes by the upstream's clock.
func (p *Poller) begin(ctx context.Context) error {
	newest, err := p.list(ctx, query{newestFirst: true, limit: 1})
	if err != nil {
		return err
	}
	position := &Position{Seen: map[string]time.Time{}}
	if len(newest) > 0 {
		position.Start, position.At = newest[0].at, newest[0].at
	}
	if err := p.o.Cursor.Save(ctx, position); err != nil {
		return err
	}
	p.position = position
	return nil
}

// deliver hands over what was not seen. What it did is kept, also when it fails.
func (p *Poller) deliver(ctx context.Context, page []listed) (err error) {
	unsaved := 0
	save := func() error {
		if unsaved == 0 {
			return nil
		}
		p.position.forget(p.o.Overlap)
		if err := p.o.Cursor.Save(ctx, p.position); err != nil {
			p.position = nil // whoever has the lease knows better
			return err
		}
		unsaved = 0
		return nil
	}
	for _, l := range page {
		key := l.key()
		if _, ok := p.position.Seen[key]; ok {
			continue
		}
		l.event.InstanceID = p.o.InstanceID
		err := p.o.Sink.Accept(ctx, "poll", &l.event)
		if format := (*FormatError)(nil); errors.As(err, &format) {
			p.o.Logger.Error("a polled event cannot be told", "event_type", l.event.Type, "error", err)
		} else if err != nil {
			return errors.Join(err, save())
		}
		p.position.Seen[key] = l.at
		if l.at.After(p.position.At) {
			p.position.At = l.at
		}
		if unsaved++; unsaved >= saveEvery {
			if err := save(); err != nil {
				return err
			}
		}
	}
	return save()
}

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
		var ids []string
		for _, l := range all.events {
			if l.event.AggregateType == typ {
				ids = append(ids, l.event.AggregateID)
			}
		}
		for _, id := range unique(ids) {
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

// Position is how far the events are read.
type Position struct {
	// Start is the time of the newest event that is not told.
	Start time.Time `json:"start"`
	// At is the time of the newest event that was.
	At time.Time `json:"at"`
	// Seen holds the events of the overlap before At, with their times, and the
	// times that were read to the end though they did not fit on a page.
	Seen map[string]time.Time `json:"seen"`
}

// instantKey has an empty first part: events have their aggregate type there.
func instantKey(at time.Time) string { return "\x00" + at.UTC().Format(time.RFC3339Nano) }

// forget drops what will not be read again.
func (p *Position) forget(overlap time.Duration) {
	for key, at := range p.Seen {
		if !at.After(p.At.Add(-overlap)) {
			delete(p.Seen, key)
		}
	}
}

func readPosition(text []byte) (*Position, error) {
	p := &Position{}
	if err := json.Unmarshal(text, p); err != nil {
		return nil, errors.New("the position in the events is damaged; without it, polling begins at the newest event")
	}
	if p.Seen == nil {
		p.Seen = map[string]time.Time{}
	}
	return p, nil
}
