package events

import (
	"bytes"
	"encoding/json"
	"strconv"
	"time"

	"github.com/execgate/execgate/queue"
)

// Event is something that has happened, as targets get to see it. Only Type is
// required; what is empty is left out of the payload.
type Event struct {
	AggregateID, AggregateType string
	ResourceOwner, InstanceID  string
	// Version is that of the aggregate, like "v2".
	Version string
	// Sequence counts per aggregate.
	Sequence uint64
	// Type is like "user.human.added".
	Type string
	// CreatedAt is RFC 3339.
	CreatedAt string
	// UserID is who caused it.
	UserID string
	// Payload is JSON, mostly an object.
	Payload json.RawMessage

	// Source and ID name the event where it comes from; see [Event.DeliveryID].
	// They are not part of the payload.
	Source, ID string
}

// wire is an event on the wire.
type wire struct {
	AggregateID   string          `json:"aggregateID,omitempty"`
	AggregateType string          `json:"aggregateType,omitempty"`
	ResourceOwner string          `json:"resourceOwner,omitempty"`
	InstanceID    string          `json:"instanceID,omitempty"`
	Version       string          `json:"version,omitempty"`
	Sequence      uint64          `json:"sequence,omitempty"`
	Type          string          `json:"event_type,omitempty"`
	CreatedAt     string          `json:"created_at,omitempty"`
	UserID        string          `json:"userID,omitempty"`
	Payload       json.RawMessage `json:"event_payload,omitempty"`
}

// Envelope returns the payload that targets get: compact JSON, HTML characters
// escaped.
func (e *Event) Envelope() ([]byte, error) {
	w := wire{
		AggregateID: e.AggregateID, AggregateType: e.AggregateType, ResourceOwner: e.ResourceOwner,
		InstanceID: e.InstanceID, Version: e.Version, Sequence: e.Sequence, Type: e.Type,
		CreatedAt: e.CreatedAt, UserID: e.UserID, Payload: e.Payload,
	}
	if bytes.Equal(bytes.TrimSpace(w.Payload), []byte("null")) {
		w.Payload = nil
	}
	return json.Marshal(w)
}

// recent is how far an event's time may be from now to be part of its id.
const recent = 24 * time.Hour

// DeliveryID returns the id under which the queue knows the event, so that it
// drops a repetition: the same for the same Source and ID, or, without an ID, for
// the same type, aggregate and sequence. It is empty when nothing tells the event
// from others.
//
// The queue files deliveries by the time in their id, so an event that says no
// time, or one long past, is filed under the day on which it came: its repetition
// on a later day is not known as one.
func (e *Event) DeliveryID(now time.Time) string {
	parts := []string{"id", e.Source, e.ID}
	if e.ID == "" {
		if e.AggregateID == "" || e.Sequence == 0 {
			return ""
		}
		parts = []string{"sequence", e.InstanceID, e.AggregateType, e.AggregateID, strconv.FormatUint(e.Sequence, 10), e.Type}
	}
	at, err := time.Parse(time.RFC3339Nano, e.CreatedAt)
	if err != nil || now.Sub(at).Abs() > recent {
		at = now.UTC().Truncate(recent)
	}
	return queue.IDFor(at, parts...)
}
