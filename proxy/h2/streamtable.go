package h2

import "math/rand/v2"

// streamTable holds the streams of a connection by their ids. There is no tombstone in it: what is taken out is gone, so
// that a connection on which streams come and go stays as quick as it was.
type streamTable struct {
	slots []*stream // a power of two, at most half of them used; nil at first
	n     int
}

const (
	fewStreams  = 8
	manyStreams = 128 // slots beyond which an empty table is given back
)

// streamSpread keeps clients from choosing ids that meet.
var streamSpread = rand.Uint32() | 1

func (t *streamTable) len() int { return t.n }

// home is where the stream with that id stands if nobody else does.
func (t *streamTable) home(id uint32) int {
	h := id * streamSpread
	return int(h^h>>15) & (len(t.slots) - 1)
}

// get returns the stream with that id, or nil.
func (t *streamTable) get(id uint32) *stream {
	if t.n == 0 {
		return nil
	}
	for i := t.home(id); ; i = (i + 1) & (len(t.slots) - 1) {
		if s := t.slots[i]; s == nil || s.id == id {
			return s
		}
	}
}

// put adds a stream whose id is not there.
func (t *streamTable) put(s *stream) {
	if 2*t.n >= len(t.slots) {
		old := t.slots
		t.slots = make([]*stream, max(fewStreams, 2*len(old)))
		for _, other := range old {
			if other != nil {
				t.place(other)
			}
		}
	}
	t.place(s)
	t.n++
}

func (t *streamTable) place(s *stream) {
	i := t.home(s.id)
	for t.slots[i] != nil {
		i = (i + 1) & (len(t.slots) - 1)
	}
	t.slots[i] = s
}

// remove takes a stream out, if it is there.
func (t *streamTable) remove(id uint32) {
	if t.n == 0 {
		return
	}
	mask := len(t.slots) - 1
	i := t.home(id)
	for t.slots[i] == nil || t.slots[i].id != id {
		if t.slots[i] == nil {
			return
		}
		i = (i + 1) & mask
	}
	t.n--
	if t.n == 0 && len(t.slots) > manyStreams {
		t.slots = nil
		return
	}
	// Those behind move up, so that nobody is cut off from where it would be looked for.
	for j := (i + 1) & mask; t.slots[j] != nil; j = (j + 1) & mask {
		if home := t.home(t.slots[j].id); (j-home)&mask >= (j-i)&mask {
			t.slots[i] = t.slots[j]
			i = j
		}
	}
	t.slots[i] = nil
}

// list returns all streams, for who changes the table while it looks at them.
func (t *streamTable) list() []*stream {
	all := make([]*stream, 0, t.n)
	for _, s := range t.slots {
		if s != nil {
			all = append(all, s)
		}
	}
	return all
}
