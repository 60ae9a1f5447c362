package demoapi

import (
	"crypto/rand"
	"fmt"
	"strconv"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventpb "github.com/execgate/execgate/gen/zitadel/event/v1"
	objectpb "github.com/execgate/execgate/gen/zitadel/object/v2"
)

// Aggregate types of the events that the server writes.
const (
	aggregateUser    = "user"
	aggregateSession = "session"
	aggregateOrg     = "org"
	aggregateAction  = "action"
)

// aggregate names what an event happened to.
type aggregate struct {
	kind, id string
}

// state is everything that the server keeps.
type state struct {
	now func() time.Time

	mu       sync.Mutex // guards what follows
	last     time.Time  // time of the last transaction
	ids      uint64
	users    map[string]*user
	logins   map[string]*user // by lower-case user name
	sessions map[string]*session
	orgs     map[string]*org
	log      []*eventpb.Event // in order of writing
	versions map[aggregate]uint64
}

func newState(now func() time.Time) *state {
	s := &state{
		now:      now,
		users:    map[string]*user{},
		logins:   map[string]*user{},
		sessions: map[string]*session{},
		orgs:     map[string]*org{},
		versions: map[aggregate]uint64{},
	}
	s.orgs[DefaultOrgID] = &org{id: DefaultOrgID, name: "Demo"}
	return s
}

// nextID returns an id like the real ones: decimal, ordered by time.
func (s *state) nextID() string {
	s.ids++
	const epoch = 1577836800000 // 2020-01-01, which keeps ids at 18 digits
	return strconv.FormatUint(uint64(s.now().UnixMilli()-epoch)*1_000_000+s.ids%1_000_000, 10)
}

// newCode returns a verification code.
func newCode() string {
	return rand.Text()[:6]
}

// tx is one write. All of its events bear the same time, as those of one
// database transaction do.
type tx struct {
	s    *state
	at   time.Time
	call *call
}

// begin starts a write. The caller holds s.mu until it is done.
func (s *state) begin(c *call) *tx {
	at := s.now().UTC().Truncate(time.Microsecond)
	if !at.After(s.last) {
		at = s.last.Add(time.Microsecond)
	}
	s.last = at
	return &tx{s: s, at: at, call: c}
}

func (t *tx) timestamp() *timestamppb.Timestamp { return timestamppb.New(t.at) }

// emit writes an event. The payload may be nil.
func (t *tx) emit(a aggregate, owner, eventType string, payload map[string]any) {
	t.s.versions[a]++
	e := &eventpb.Event{
		Editor:       &eventpb.Editor{UserId: t.call.userID, DisplayName: t.call.userID, Service: "demo"},
		Aggregate:    &eventpb.Aggregate{Id: a.id, Type: aggregateType(a.kind), ResourceOwner: owner},
		Sequence:     t.s.versions[a],
		CreationDate: t.timestamp(),
		Type:         eventTypeOf(eventType),
	}
	if len(payload) > 0 {
		p, err := structpb.NewStruct(payload)
		if err != nil {
			panic(fmt.Sprintf("payload of %s: %v", eventType, err))
		}
		e.Payload = p
	}
	t.s.log = append(t.s.log, e)
}

// details describes a resource after the write.
func (t *tx) details(a aggregate, owner string) *objectpb.Details {
	return &objectpb.Details{
		Sequence:      t.s.versions[a],
		ChangeDate:    t.timestamp(),
		ResourceOwner: owner,
	}
}

// page cuts a sorted result to what the query asks for.
func page[T any](all []T, q *objectpb.ListQuery) ([]T, error) {
	const defaultLimit, maxLimit = 100, 1000
	limit := uint64(q.GetLimit())
	switch {
	case limit == 0:
		limit = defaultLimit
	case limit > maxLimit:
		return nil, failure(invalidArgument, "Limit exceeded", "QUERY-4M0fs")
	}
	if q.GetOffset() >= uint64(len(all)) {
		return nil, nil
	}
	all = all[q.GetOffset():]
	return all[:min(limit, uint64(len(all)))], nil
}

// listDetails describes a result. The caller holds s.mu.
func (s *state) listDetails(total int) *objectpb.ListDetails {
	d := &objectpb.ListDetails{TotalResult: uint64(total), ProcessedSequence: uint64(len(s.log))}
	if len(s.log) > 0 {
		d.Timestamp = s.log[len(s.log)-1].GetCreationDate()
	}
	return d
}
