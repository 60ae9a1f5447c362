package h2

import (
	"hash/maphash"
	"strings"
)

// hpackEncoder writes header blocks. x/net's encoder looks each field up in four maps; this one hashes it once, and
// looks in two places of two small arrays. What it writes is plain HPACK (RFC 7541), without Huffman coding: header
// fields that matter are in the table after their second use, and the rest is not worth the time.
//
// A field is put into the table when it is met for the second time, so that what is different in each call (timeouts,
// trace ids) does not drive out what is not.
type hpackEncoder struct {
	out []byte

	entries []Field // a ring: entry id is at id%len(entries)
	added   uint32  // ids that were given out: the newest entry's
	oldest  uint32  // the oldest entry's id
	size    int
	max     int
	lowest  int // the smallest max since the last block, -1 if it did not change

	slots []hpackSlot        // as many for each entry as slotsPerEntry
	names [fieldNames]uint32 // by known name: an id
}

// hpackSlot is what is known of the fields of one hash.
type hpackSlot struct {
	field uint32 // by the hash of name and value: an id
	name  uint32 // by the hash of the name: an id
	seen  uint32 // the hash of a field that was met once
}

const (
	// fewEntries is what an encoder begins with, which is enough for most clients, and maxEntries how many are used at
	// most. The peer's table may have room for more, and then keeps older ones in vain.
	fewEntries    = 4
	maxEntries    = 64
	slotsPerEntry = 2
)

var hashSeed = maphash.MakeSeed()

func hashName(name string) uint64 { return maphash.String(hashSeed, name) }

// hashField is the hash of a whole field, never 0.
func hashField(nameHash uint64, value string) uint32 {
	h := nameHash*0x9e3779b97f4a7c15 ^ maphash.String(hashSeed, value)
	return uint32(h>>32) ^ uint32(h) | 1<<31
}

// staticSlots finds entries of the static table by a hash, nearly always in one look.
type staticSlots [512]struct {
	hash  uint32
	index uint8
}

func (s *staticSlots) put(h uint32, index int) {
	at := h % uint32(len(s))
	for s[at].index != 0 {
		at = (at + 1) % uint32(len(s))
	}
	s[at].hash, s[at].index = h, uint8(index)
}

func (s *staticSlots) find(h uint32) uint8 {
	at := h % uint32(len(s))
	for s[at].index != 0 {
		if s[at].hash == h {
			return s[at].index
		}
		at = (at + 1) % uint32(len(s))
	}
	return 0
}

// staticByField and staticByName are the static table (RFC 7541 A), by hash.
var staticByField, staticByName staticSlots

// staticOfKnown is where known names are in the static table.
var staticOfKnown [fieldNames]uint8

func init() {
	for i := len(staticTable); i > 0; i-- { // Downwards: of equal names the first counts.
		f := &staticTable[i-1]
		f.classify()
		name := hashName(f.Name)
		f.hash, f.static = hashField(name, f.Value), uint8(i)
		staticByField.put(f.hash, i)
		if i == 1 || staticTable[i-2].Name != f.Name {
			staticByName.put(uint32(name), i)
		}
		if f.known.whole() {
			staticOfKnown[f.known] = uint8(i)
		}
	}
	for i := range statusFields {
		statusFields[i] = NewField(":status", statusTexts[i])
	}
}

func newHPACKEncoder() *hpackEncoder {
	return &hpackEncoder{
		max: headerTableSize, lowest: -1, oldest: 1,
		entries: make([]Field, fewEntries), slots: make([]hpackSlot, fewEntries*slotsPerEntry),
	}
}

// setMax limits the table to n bytes, as the peer's SETTINGS say.
func (e *hpackEncoder) setMax(n int) {
	n = min(n, headerTableSize)
	if n == e.max {
		return
	}
	if e.lowest < 0 || n < e.lowest {
		e.lowest = n
	}
	e.max = n
	e.evict(0)
}

// evict makes room for n bytes.
func (e *hpackEncoder) evict(n int) {
	for (e.size+n > e.max || e.full()) && e.oldest <= e.added {
		at := &e.entries[e.oldest%uint32(len(e.entries))]
		e.size -= at.size()
		*at = Field{}
		e.oldest++
	}
}

// full reports whether there is no place for one more entry.
func (e *hpackEncoder) full() bool { return int(e.added-e.oldest) >= len(e.entries)-1 }

// enlarge makes as many places as there may be.
func (e *hpackEncoder) enlarge() {
	old := e.entries
	e.entries, e.slots = make([]Field, maxEntries), make([]hpackSlot, maxEntries*slotsPerEntry)
	for id := e.oldest; id <= e.added; id++ {
		f := old[id%uint32(len(old))]
		e.entries[id%maxEntries] = f
		slot := e.slot(f.hash)
		e.place(id, slot, &f)
		e.slots[slot].seen = f.hash
	}
}

func (e *hpackEncoder) slot(hash uint32) uint32 { return hash % uint32(len(e.slots)) }

// index returns the index of the entry that id names.
func (e *hpackEncoder) index(id uint32) int { return len(staticTable) + 1 + int(e.added-id) }

// entry returns the entry that id names, if it is still there.
func (e *hpackEncoder) entry(id uint32) *Field {
	if id < e.oldest || id > e.added || id == 0 {
		return nil
	}
	return &e.entries[id%uint32(len(e.entries))]
}

// encode appends one field to the block.
func (e *hpackEncoder) encode(f *Field) {
	if e.lowest >= 0 { // RFC 7541 4.2
		if e.lowest < e.max {
			e.out = appendInt(e.out, 0x20, 5, e.lowest)
		}
		e.out = appendInt(e.out, 0x20, 5, e.max)
		e.lowest = -1
	}
	if f.hash == 0 || f.Sensitive {
		e.encodeNew(f)
		return
	}
	if f.static != 0 {
		e.out = append(e.out, 0x80|f.static)
		return
	}
	e.encodeKnown(f)
}

// encodeNew encodes a field that is in no table that somebody else has.
func (e *hpackEncoder) encodeNew(f *Field) {
	whole := *f
	if whole.known == nameOther {
		whole.known = nameOf(f.Name)
	}
	switch {
	case f.Sensitive:
		e.literal(0x10, 4, &whole)
	case whole.known.changing() && f.Value != "":
		e.literal(0, 4, &whole)
	default:
		whole.workOut()
		if whole.static != 0 {
			e.out = append(e.out, 0x80|whole.static)
			return
		}
		e.encodeKnown(&whole)
	}
}

// encodeKnown encodes a field whose hash is known.
func (e *hpackEncoder) encodeKnown(f *Field) {
	slot := e.slot(f.hash)
	for _, at := range [2]uint32{slot, slot ^ 1} {
		id := e.slots[at].field
		if entry := e.entry(id); entry != nil && entry.hash == f.hash && entry.Name == f.Name && entry.Value == f.Value {
			e.out = appendInt(e.out, 0x80, 7, e.index(id))
			return
		}
	}
	if size := f.size(); e.slots[slot].seen != f.hash || size > e.max/2 || f.Value != "" && f.known.changing() {
		e.slots[slot].seen = f.hash
		e.literal(0, 4, f)
	} else {
		e.literal(0x40, 6, f)
		e.add(f, size)
	}
}

// add puts a field into the table.
func (e *hpackEncoder) add(f *Field, size int) {
	if e.full() && len(e.entries) < maxEntries {
		e.enlarge()
	}
	e.evict(size)
	e.added++
	// The table must not hold on to the memory of a larger string that f was cut from.
	at := &e.entries[e.added%uint32(len(e.entries))]
	*at = *f
	at.Name, at.Value = strings.Clone(f.Name), strings.Clone(f.Value)
	e.size += size
	e.place(e.added, e.slot(f.hash), at)
}

// place notes where an entry is found.
func (e *hpackEncoder) place(id, slot uint32, f *Field) {
	if old := e.slots[slot].field; old >= e.oldest && old < id { // The other place, then.
		slot ^= 1
	}
	e.slots[slot].field = id
	if f.known.whole() {
		e.names[f.known] = id
	} else {
		e.slots[e.slot(uint32(hashName(f.Name)))].name = id
	}
}

// name returns the index of an entry that has the name of f, 0 if there is none.
func (e *hpackEncoder) name(f *Field) int {
	var id uint32
	if f.known.whole() {
		if i := staticOfKnown[f.known]; i != 0 {
			return int(i)
		}
		id = e.names[f.known]
	} else {
		h := uint32(hashName(f.Name))
		if i := staticByName.find(h); i != 0 && staticTable[i-1].Name == f.Name {
			return int(i)
		}
		id = e.slots[e.slot(h)].name
	}
	if entry := e.entry(id); entry != nil && entry.Name == f.Name {
		return e.index(id)
	}
	return 0
}

// literal appends a field that is not in the table.
func (e *hpackEncoder) literal(kind byte, prefix uint, f *Field) {
	name := e.name(f)
	out := appendInt(e.out, kind, prefix, name)
	if name == 0 {
		out = appendInt(out, 0, 7, len(f.Name))
		out = append(out, f.Name...)
	}
	out = appendInt(out, 0, 7, len(f.Value))
	e.out = append(out, f.Value...)
}

// appendInt appends an integer with a prefix of so many bits; kind is what stands before it (RFC 7541 5.1).
func appendInt(out []byte, kind byte, prefix uint, n int) []byte {
	limit := 1<<prefix - 1
	if n < limit {
		return append(out, kind|byte(n))
	}
	out = append(out, kind|byte(limit))
	for n -= limit; n >= 128; n >>= 7 {
		out = append(out, byte(n)|0x80)
	}
	return append(out, byte(n))
}

// staticTable is RFC 7541 A.
var staticTable = [...]Field{
	{Name: ":authority", Value: ""}, {Name: ":method", Value: "GET"}, {Name: ":method", Value: "POST"}, {Name: ":path", Value: "/"}, {Name: ":path", Value: "/index.html"},
	{Name: ":scheme", Value: "http"}, {Name: ":scheme", Value: "https"}, {Name: ":status", Value: "200"}, {Name: ":status", Value: "204"}, {Name: ":status", Value: "206"},
	{Name: ":status", Value: "304"}, {Name: ":status", Value: "400"}, {Name: ":status", Value: "404"}, {Name: ":status", Value: "500"}, {Name: "accept-charset", Value: ""},
	{Name: "accept-encoding", Value: "gzip, deflate"}, {Name: "accept-language", Value: ""}, {Name: "accept-ranges", Value: ""}, {Name: "accept", Value: ""},
	{Name: "access-control-allow-origin", Value: ""}, {Name: "age", Value: ""}, {Name: "allow", Value: ""}, {Name: "authorization", Value: ""}, {Name: "cache-control", Value: ""},
	{Name: "content-disposition", Value: ""}, {Name: "content-encoding", Value: ""}, {Name: "content-language", Value: ""}, {Name: "content-length", Value: ""},
	{Name: "content-location", Value: ""}, {Name: "content-range", Value: ""}, {Name: "content-type", Value: ""}, {Name: "cookie", Value: ""}, {Name: "date", Value: ""}, {Name: "etag", Value: ""},
	{Name: "expect", Value: ""}, {Name: "expires", Value: ""}, {Name: "from", Value: ""}, {Name: "host", Value: ""}, {Name: "if-match", Value: ""}, {Name: "if-modified-since", Value: ""},
	{Name: "if-none-match", Value: ""}, {Name: "if-range", Value: ""}, {Name: "if-unmodified-since", Value: ""}, {Name: "last-modified", Value: ""}, {Name: "link", Value: ""},
	{Name: "location", Value: ""}, {Name: "max-forwards", Value: ""}, {Name: "proxy-authenticate", Value: ""}, {Name: "proxy-authorization", Value: ""}, {Name: "range", Value: ""},
	{Name: "referer", Value: ""}, {Name: "refresh", Value: ""}, {Name: "retry-after", Value: ""}, {Name: "server", Value: ""}, {Name: "set-cookie", Value: ""},
	{Name: "strict-transport-security", Value: ""}, {Name: "transfer-encoding", Value: ""}, {Name: "user-agent", Value: ""}, {Name: "vary", Value: ""}, {Name: "via", Value: ""},
	{Name: "www-authenticate", Value: ""},
}
