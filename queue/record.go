package queue

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// Kind says what a delivery tells.
type Kind uint8

// The kinds of delivery. The zero value counts as KindAsync.
const (
	// KindAsync is the call of an asynchronous target.
	KindAsync Kind = iota
	// KindEvent tells of an event.
	KindEvent
)

// String returns "async" or "event".
func (k Kind) String() string {
	switch k {
	case KindAsync:
		return "async"
	case KindEvent:
		return "event"
	default:
		return fmt.Sprintf("kind(%d)", uint8(k))
	}
}

// State is where a delivery stands.
type State uint8

// The states. The zero value is none; in a [Filter] it means all.
const (
	// StatePending waits for its turn, for its next attempt, or for the end of
	// an attempt.
	StatePending State = iota + 1
	// StateParked is pending at a target that is not called for now: its breaker
	// is open, it is disabled, or nobody knows it.
	StateParked
	// StateDelivered was accepted by its target. Only the ledger knows it.
	StateDelivered
	// StateDead was given up. It is kept, with its payload, for an operator.
	StateDead
)

// String returns "pending", "parked", "delivered" or "dead".
func (s State) String() string {
	switch s {
	case StatePending:
		return "pending"
	case StateParked:
		return "parked"
	case StateDelivered:
		return "delivered"
	case StateDead:
		return "dead"
	default:
		return fmt.Sprintf("state(%d)", uint8(s))
	}
}

// ParseState is the reverse of String.
func ParseState(s string) (State, error) {
	for state := StatePending; state <= StateDead; state++ {
		if s == state.String() {
			return state, nil
		}
	}
	return 0, fmt.Errorf("state %q is none of pending, parked, delivered, dead", s)
}

// Record is a delivery as a [Backend] keeps it.
type Record struct {
	// ID names the delivery on all attempts and replays; it is sent as
	// webhook-id. See [NewID].
	ID string
	// Target is the id of the target.
	Target string
	Kind   Kind
	// Execution is the id of the execution that asks for it.
	Execution string
	// Created is when the backend took it, by the backend's clock.
	Created time.Time
	// OrderKey, if not empty, keeps deliveries to one target with the same key in
	// order: one begins when the one before is delivered or dead.
	OrderKey string
	// Interrupt: when this delivery is given up, or its target answers with an
	// error to be forwarded, what is in Then is not delivered.
	Interrupt bool
	// Then is delivered later, with the same body: as soon as this one is
	// delivered, or its first attempt failed without Interrupt.
	Then []Step

	// Spent is how much of [DurableOptions.EventTimeout] the targets before took.
	Spent time.Duration

	// Body is the payload. Nil in a listing, and once it is delivered.
	Body []byte
	// Size is the length of the payload.
	Size int

	State State
	// Attempts is how many were made, over all replays.
	Attempts int
	// Replayed is how many of them were made before the last replay.
	Replayed int
	// Since is when the delivery was made or last replayed: its age counts from
	// here.
	Since time.Time
	// Next is when the next attempt is due, if it is pending.
	Next time.Time
	// Ended is when it was delivered or given up.
	Ended time.Time
	// Reason says why it was given up: a [DeadReason].
	Reason string
	// History holds the last attempts, the newest last.
	History []Attempt

	accepted bool   // by an earlier Put: the bounds do not apply again
	sequence uint64 // place among those with the same OrderKey
}

// Step is a later target of a delivery.
type Step struct {
	ID        string `json:"i"`
	Target    string `json:"t"`
	OrderKey  string `json:"ok,omitempty"`
	Interrupt bool   `json:"x,omitempty"`
}

// Attempt is one try of a delivery.
type Attempt struct {
	// Number counts from 1. A number can appear twice at a target: a gateway that
	// died did not write down the attempt it was at.
	Number int `json:"n"`
	// At is when it began.
	At time.Time `json:"t"`
	// Outcome is "ok" or a [targetclient.Reason].
	Outcome string `json:"o"`
	// Status is the HTTP status; 0 if there was no answer.
	Status int `json:"s,omitempty"`
	// Latency is how long it took.
	Latency time.Duration `json:"l"`
	// Detail says more about a failure, without payload and secrets.
	Detail string `json:"d,omitempty"`
}

// maxHistory is how many attempts are remembered, maxDetail how much of each.
const (
	maxHistory = 20
	maxDetail  = 200
)

// note adds an attempt that was made.
func (r *Record) note(a Attempt) {
	if len(a.Detail) > maxDetail {
		a.Detail = a.Detail[:maxDetail]
	}
	r.Attempts++
	r.History = append(slices.Clip(r.History), a)
	if over := len(r.History) - maxHistory; over > 0 {
		r.History = slices.Clone(r.History[over:])
	}
}

// follow makes the record of the first of Then.
func (r *Record) follow() *Record {
	step := r.Then[0]
	return &Record{
		ID: step.ID, Target: step.Target, Kind: r.Kind, Execution: r.Execution, OrderKey: step.OrderKey,
		Interrupt: step.Interrupt, Then: r.Then[1:], Spent: r.Spent, Body: r.Body, Size: len(r.Body), accepted: true,
	}
}

// head is a Record without its body, as it is stored: the letter of the state,
// 13 digits of milliseconds of Created, and this JSON. Redis writes the first two
// itself when it takes a delivery, by its own clock.
type head struct {
	ID        string    `json:"i"`
	Target    string    `json:"t"`
	Kind      Kind      `json:"k,omitempty"`
	Execution string    `json:"e,omitempty"`
	OrderKey  string    `json:"ok,omitempty"`
	Sequence  uint64    `json:"os,omitempty"`
	Interrupt bool      `json:"x,omitempty"`
	Then      []Step    `json:"th,omitempty"`
	Spent     int64     `json:"sp,omitempty"` // milliseconds
	Size      int       `json:"z"`
	Attempts  int       `json:"n,omitempty"`
	Replayed  int       `json:"np,omitempty"`
	Since     int64     `json:"si,omitempty"` // milliseconds, like all below; 0: as Created
	Next      int64     `json:"nx,omitempty"`
	Ended     int64     `json:"en,omitempty"`
	Reason    string    `json:"r,omitempty"`
	History   []Attempt `json:"h,omitempty"`
}

const (
	letterPending   = 'p'
	letterDelivered = 'd'
	letterDead      = 'x'

	headPrefix = 1 + 13
)

func letter(s State) byte {
	switch s {
	case StateDelivered:
		return letterDelivered
	case StateDead:
		return letterDead
	default:
		return letterPending
	}
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// encodeHead returns the stored form; without the prefix if Created is zero.
func encodeHead(r *Record) []byte {
	h := head{
		ID: r.ID, Target: r.Target, Kind: r.Kind, Execution: r.Execution, OrderKey: r.OrderKey, Sequence: r.sequence,
		Interrupt: r.Interrupt, Then: r.Then, Spent: r.Spent.Milliseconds(), Size: r.Size, Attempts: r.Attempts, Replayed: r.Replayed,
		Next: millis(r.Next), Ended: millis(r.Ended), Reason: r.Reason, History: r.History,
	}
	if !r.Since.Equal(r.Created) {
		h.Since = millis(r.Since)
	}
	encoded, err := json.Marshal(&h)
	if err != nil { // strings, numbers and times
		panic(err)
	}
	if r.Created.IsZero() {
		return encoded
	}
	stored := make([]byte, 0, headPrefix+len(encoded))
	stored = append(stored, letter(r.State))
	stored = fmt.Appendf(stored, "%013d", r.Created.UnixMilli())
	return append(stored, encoded...)
}

func decodeHead(stored []byte) (*Record, error) {
	if len(stored) < headPrefix {
		return nil, fmt.Errorf("%w: a record is too short", ErrDamaged)
	}
	created, err := strconv.ParseInt(string(stored[1:headPrefix]), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%w: a record has no time", ErrDamaged)
	}
	var h head
	if err := json.Unmarshal(stored[headPrefix:], &h); err != nil {
		return nil, fmt.Errorf("%w: a record cannot be read", ErrDamaged)
	}
	r := &Record{
		ID: h.ID, Target: h.Target, Kind: h.Kind, Execution: h.Execution, Created: fromMillis(created),
		OrderKey: h.OrderKey, Interrupt: h.Interrupt, Then: h.Then, Spent: time.Duration(h.Spent) * time.Millisecond, Size: h.Size,
		Attempts: h.Attempts, Replayed: h.Replayed, Since: fromMillis(h.Since), Next: fromMillis(h.Next),
		Ended: fromMillis(h.Ended), Reason: h.Reason, History: h.History, sequence: h.Sequence,
	}
	if h.Since == 0 {
		r.Since = r.Created
	}
	switch stored[0] {
	case letterPending:
		r.State = StatePending
	case letterDelivered:
		r.State = StateDelivered
	case letterDead:
		r.State = StateDead
	default:
		return nil, fmt.Errorf("%w: a record has no state", ErrDamaged)
	}
	return r, nil
}
