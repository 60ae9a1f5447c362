package queue

import (
	"bytes"
	"testing"
	"time"
)

func FuzzRecord(f *testing.F) {
	at := time.UnixMilli(1700000000000).UTC()
	full := &Record{
		ID: NewID(at), Target: "t", Kind: KindEvent, Execution: `ev"z":5`, Created: at, OrderKey: "k", Interrupt: true,
		Then: []Step{{ID: NewID(at), Target: "u", OrderKey: "o", Interrupt: true}}, Size: 3, State: StateDead, Attempts: 2, Replayed: 1,
		Since: at.Add(time.Second), Ended: at.Add(time.Minute), Reason: DeadGone, sequence: 7,
		History: []Attempt{{Number: 2, At: at, Outcome: "failed", Status: 410, Latency: time.Second, Detail: "why"}},
	}
	f.Add(encodeHead(full))
	f.Add([]byte(`x0100000000000{"th":[]}`))
	f.Add(encodeHead(&Record{ID: NewID(at), Target: "t", Created: at, Since: at, State: StatePending}))
	f.Add([]byte("p0000000000000{}"))
	f.Add([]byte("x"))
	f.Fuzz(func(t *testing.T, stored []byte) {
		r, err := decodeHead(stored)
		if err != nil {
			if r != nil {
				t.Error("a record and an error")
			}
			return
		}
		if r.Created.IsZero() {
			return // a spooled one: it has no prefix yet
		}
		once := encodeHead(r)
		again, err := decodeHead(once)
		if err != nil || !bytes.Equal(once, encodeHead(again)) {
			t.Errorf("%q became %q, then %+v (%v)", stored, once, again, err)
		}
	})
}

func FuzzSealer(f *testing.F) {
	s, err := NewSealer(bytes.Repeat([]byte("k"), 32))
	if err != nil {
		f.Fatal(err)
	}
	r := &Record{ID: "id", Target: "t", Body: []byte("payload")}
	f.Add([]byte("payload"), 3, byte(1))
	f.Add([]byte{}, 0, byte(0xff))
	f.Fuzz(func(t *testing.T, body []byte, at int, change byte) {
		r := &Record{ID: r.ID, Target: r.Target, Body: body}
		stored := s.seal(r)
		if got, err := s.open(r, stored); err != nil || !bytes.Equal(got, body) {
			t.Fatalf("sealed %q, opened %q, %v", body, got, err)
		}
		if _, err := s.open(&Record{ID: r.ID, Target: "other"}, stored); err == nil {
			t.Error("opened for another target")
		}
		if change == 0 || at < 0 {
			return
		}
		stored[at%len(stored)] ^= change
		if got, err := s.open(r, stored); err == nil && stored[0] == formSealed {
			t.Errorf("changed, and opened as %q", got)
		}
	})
}

func FuzzSpooled(f *testing.F) {
	s := &Spool{}
	f.Add([]byte{0, 0, 0, 2, '{', '}', 0, 'b'})
	f.Add([]byte{255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, value []byte) {
		r, err := s.decode(value)
		if err == nil && (r == nil || r.Body == nil) {
			t.Error("neither an error nor a payload")
		}
	})
}
