package events

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	"google.golang.org/grpc"

	"github.com/execgate/execgate/schema"
)

// Defaults of [PollerOptions].
const (
	defaultInterval = time.Second
	defaultOverlap  = 5 * time.Second
	longestWait     = 30 * time.Second
	waitingPause    = 200 * time.Millisecond
	saveEvery       = 100  // events between two looks at the lease, at least
	saveAtLatest    = 1000 // the same, at most
	saveShare       = 10   // of the time, one part in so many goes into keeping the position
	followEvery     = 5    // looks at the lease of another between two at its position
)

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
	// Copy keeps the position as this gateway knows it, for when Cursor has lost
	// it. Nil: it is only known as long as the process lives.
	Copy *FileCursor
	// InstanceID is told to targets.
	InstanceID string
	// Interval is the pause between two looks, 0 is 1 s. Overlap is how far each
	// looks back, 0 is 5 s.
	Interval, Overlap time.Duration
	// MaxAge is how old an event may be to be told. 0: as old as it likes.
	MaxAge time.Duration
	// OnGap is told of every range of time of which events may be missing. Nil:
	// nobody is.
	OnGap func()
	// OnPoll is told how every look ended: [PollOK] and so on. Nil: nobody is.
	OnPoll func(outcome string)
	// Logger: nil is slog.Default().
	Logger *slog.Logger
}

// Poller reads the events of an upstream that has ZITADEL's event API and hands
// them to a sink, in the order of the upstream. An event that the sink does not
// take is tried again, and no later one is handed over before it; one that can
// never be taken is logged and left out.
type Poller struct {
	o   PollerOptions
	api eventAPI

	position *Position // as the cursor has it; nil: not read
	known    *Position // the last that was seen, here or of another gateway
	copied   time.Time // the time of the position in the copy
	began    time.Time // of Run
	standby  int       // looks since another gateway's position was read
	nextSave time.Time // not before, unless much is to be saved
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
	if o.OnPoll == nil {
		o.OnPoll = func(string) {}
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return &Poller{o: o, api: eventAPI{conn: o.Conn, schema: o.Schema, token: o.Token}}
}

// Run polls until ctx ends. It waits for an upstream that is away or has no
// event API, and while another gateway polls.
func (p *Poller) Run(ctx context.Context) {
	p.began = time.Now()
	if p.o.Copy != nil {
		var err error
		if p.known, err = p.o.Copy.Load(ctx); err != nil {
			p.o.Logger.Warn("the copy of the position in the events cannot be used", "error", err)
		}
	}
	pause := p.o.Interval
	for ctx.Err() == nil {
		err := p.poll(ctx)
		if ctx.Err() != nil {
			break
		}
		pause = p.judge(ctx, err, pause)
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
	p.copy(release)
}

// judge tells how a look ended, each failure once, and returns how long to wait
// after such a pause.
func (p *Poller) judge(ctx context.Context, err error, pause time.Duration) time.Duration {
	f := failureOf(err)
	defer p.o.OnPoll(f.outcome)
	if f.outcome == PollOK || f.outcome == PollStandby {
		if p.told != "" {
			p.o.Logger.Info("events are polled again")
		}
		p.told = ""
		return p.o.Interval
	}
	if f.outcome != p.told {
		p.o.Logger.Log(ctx, f.level, f.text, "reason", f.outcome, "error", f.err) //nolint:sloglint // one of a closed set
	}
	p.told = f.outcome
	if f.outcome == PollWaiting {
		return min(p.o.Interval, waitingPause)
	}
	if f.ofUpstream {
		p.o.Cursor.Release(ctx) // another gateway may reach it
		p.position = nil
	}
	return min(pause*2, max(longestWait, p.o.Interval))
}

// poll reads everything that is new.
func (p *Poller) poll(ctx context.Context) error {
	if err := p.api.ready(); err != nil {
		return err
	}
	fresh, err := p.o.Cursor.Acquire(ctx)
	if err != nil {
		p.position = nil
		if errors.Is(err, ErrNotHolder) {
			p.follow(ctx)
		}
		return ofCursor(err)
	}
	if fresh || p.position == nil {
		if err := p.load(ctx); err != nil {
			return ofCursor(err)
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

// load takes the position that is kept. If there is none though one was known,
// Redis was emptied: that one is kept anew, so that nothing is skipped.
func (p *Poller) load(ctx context.Context) error {
	stored, err := p.o.Cursor.Load(ctx)
	if err != nil {
		return err
	}
	if stored == nil && p.known != nil {
		if err := p.o.Cursor.Save(ctx, p.known); err != nil {
			return err
		}
		stored = p.known
		p.o.Logger.Warn("the position in the events was lost, this gateway's own is taken", "at", stored.At)
	}
	if stored != nil {
		p.position, p.known = stored, stored
	}
	return nil
}

// follow looks, now and then, how far the gateway is that polls.
func (p *Poller) follow(ctx context.Context) {
	if p.standby--; p.standby >= 0 {
		return
	}
	p.standby = followEvery
	if stored, err := p.o.Cursor.Load(ctx); err == nil && stored != nil {
		p.known = stored
		p.copy(ctx)
	}
}

// copy keeps a copy of what is known of the position. That it cannot is no reason
// to stop.
func (p *Poller) copy(ctx context.Context) {
	if p.o.Copy == nil || p.known == nil || p.known.At.Equal(p.copied) {
		return
	}
	if err := p.o.Copy.Save(ctx, p.known); err != nil {
		p.o.Logger.Warn("no copy of the position in the events can be kept", "error", err)
	}
	p.copied = p.known.At
}

// list asks for events while this gateway is the one that polls.
func (p *Poller) list(ctx context.Context, q query) ([]listed, error) {
	fresh, err := p.o.Cursor.Acquire(ctx)
	if err == nil && fresh {
		err = ErrNotHolder // for a while, another may have been
	}
	if err != nil {
		p.position = nil
		return nil, ofCursor(err)
	}
	return p.api.list(ctx, q)
}

// begin takes the newest event as the start, by the upstream's clock; but not one
// of after this gateway's start, since when it is to be told of everything.
func (p *Poller) begin(ctx context.Context) error {
	newest, err := p.list(ctx, query{newestFirst: true, limit: 1})
	if err != nil {
		return err
	}
	position := &Position{Seen: map[string]time.Time{}}
	if len(newest) > 0 {
		position.Start = newest[0].at
		if p.began.Before(position.Start) {
			position.Start = p.began.UTC().Truncate(time.Microsecond)
		}
		position.At = position.Start
	}
	if err := p.o.Cursor.Save(ctx, position); err != nil {
		return ofCursor(err)
	}
	p.position, p.known = position, position
	p.copy(ctx)
	if position.At.IsZero() {
		p.o.Logger.Info("events are polled from the first one on: there is none yet")
		return nil
	}
	p.o.Logger.Info("events are polled from now on: no position is kept", "at", position.At)
	return nil
}

// deliver hands over what was not seen. What it did is kept, also when it fails or
// is to stop.
func (p *Poller) deliver(ctx context.Context, page []listed) (err error) {
	unsaved := 0
	save := func() error {
		if unsaved == 0 {
			return nil
		}
		p.position.forget(p.o.Overlap)
		began := time.Now()
		if err := p.o.Cursor.Save(context.WithoutCancel(ctx), p.position); err != nil {
			p.position = nil // whoever has the lease knows better
			return ofCursor(err)
		}
		unsaved = 0
		// What the overlap holds is written each time, which may be much.
		p.nextSave = time.Now().Add((saveShare - 1) * time.Since(began))
		return nil
	}
	old := page[:0:0]
	defer func() { p.skipped(old) }()
	for _, l := range page {
		key := l.key()
		if _, ok := p.position.Seen[key]; ok {
			continue
		}
		if ctx.Err() != nil {
			return errors.Join(ctx.Err(), save())
		}
		if p.o.MaxAge > 0 && time.Since(l.at) > p.o.MaxAge {
			old = append(old, l)
		} else if err := p.accept(ctx, l); err != nil {
			return errors.Join(err, save())
		}
		p.position.Seen[key] = l.at
		if l.at.After(p.position.At) {
			p.position.At = l.at
		}
		if unsaved++; unsaved >= saveAtLatest || unsaved >= saveEvery && time.Now().After(p.nextSave) {
			if err := save(); err != nil {
				return err
			}
		}
	}
	if err := save(); err != nil {
		return err
	}
	p.copy(ctx)
	return nil
}

// accept hands an event over. An error says that it may be taken later.
func (p *Poller) accept(ctx context.Context, l listed) error {
	l.event.InstanceID = p.o.InstanceID
	err := p.o.Sink.Accept(ctx, "poll", &l.event)
	if err != nil && Permanent(err) {
		p.o.Logger.Error("a polled event cannot be told", "event_type", l.event.Type, "aggregate_type", l.event.AggregateType,
			"sequence", l.event.Sequence, "created_at", l.event.CreatedAt, "error", err)
		return nil
	}
	return ofSink(err)
}

// skipped tells of events that are too old to be told.
func (p *Poller) skipped(old []listed) {
	if len(old) == 0 {
		return
	}
	for range old {
		p.o.Sink.o.Observer("poll", TooOld)
	}
	p.o.Logger.Warn("events are too old to be told", "count", len(old), "from", old[0].at.Format(time.RFC3339Nano),
		"to", old[len(old)-1].at.Format(time.RFC3339Nano))
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
