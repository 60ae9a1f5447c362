package store

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// A frame is a row of byte strings, each after its length in four bytes, big endian; noValue as the length is a nil. The
// revision log and the local copy are written so. The script commit.lua writes the same.
const noValue = 0xFFFFFFFF

func appendField(b, field []byte) []byte {
	if field == nil {
		return binary.BigEndian.AppendUint32(b, noValue)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(field)))
	return append(b, field...)
}

var errFrame = errors.New("broken frame")

// nextField returns the first field of a frame and the rest. The field shares b's memory.
func nextField(b []byte) (field, rest []byte, err error) {
	if len(b) < 4 {
		return nil, nil, errFrame
	}
	n := binary.BigEndian.Uint32(b)
	b = b[4:]
	if n == noValue {
		return nil, b, nil
	}
	if uint64(n) > uint64(len(b)) {
		return nil, nil, errFrame
	}
	return b[:n:n], b[n:], nil
}

// revisionMeta is what the log keeps of a revision beside its items.
type revisionMeta struct {
	ID     string    `json:"id"`
	Time   time.Time `json:"time"`
	Actor  string    `json:"actor,omitempty"`
	Action string    `json:"action,omitempty"`
}

func (m *revisionMeta) encode() ([]byte, error) { return json.Marshal(m) }

// decodeRevision decodes a revision from its meta and the frame of its items: key, before, after, and so on.
func decodeRevision(number uint64, meta, items []byte) (Revision, error) {
	var m revisionMeta
	if err := json.Unmarshal(meta, &m); err != nil {
		return Revision{}, fmt.Errorf("revision %d: %w", number, withoutValue(err))
	}
	r := Revision{Number: number, ID: m.ID, Time: m.Time, Actor: m.Actor, Action: m.Action}
	for len(items) > 0 {
		var key []byte
		var it RevisionItem
		var errs [3]error
		key, items, errs[0] = nextField(items)
		it.Before, items, errs[1] = nextField(items)
		it.After, items, errs[2] = nextField(items)
		if err := errors.Join(errs[:]...); err != nil {
			return Revision{}, fmt.Errorf("revision %d: %w", number, errFrame)
		}
		var ok bool
		if it.Kind, it.ID, ok = splitItemKey(string(key)); !ok {
			return Revision{}, fmt.Errorf("revision %d: %w", number, errFrame)
		}
		r.Items = append(r.Items, it)
	}
	return r, nil
}

// formatTime and parseTime are how heads keep times.
func formatTime(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

func parseTime(s string) (time.Time, error) { return time.Parse(time.RFC3339Nano, s) }

// complete fills what a commit leaves to the store.
func (c *Commit) complete() {
	if c.ID == "" {
		c.ID = rand.Text()
	}
	if c.Time.IsZero() {
		c.Time = time.Now()
	}
	c.Time = c.Time.UTC().Round(0)
}
