package h2

import (
	"hash/maphash"
	"strings"

	"golang.org/x/net/http2/hpack"
)

// hpackEncoder writes header blocks. x/net's encoder looks each field up in four maps; this one hashes it once, and
// looks in two places of two small arrays. What it writes is plain HPACK (RFC 7541), without Huffman coding: header
// fields that matter are in the table after their second use, and the rest is not worth the time.
//
// A field is put into the table when it is met for the second time, so that what is different in each call (timeouts,
// trace ids) does not drive out what is not.
type hpackEncoder struct {
	out []byte

	entries []tableEntry // a ring: entry id is at id%len(entries)
	added   uint32       // ids that were given out: the newest entry's
	oldest  uint32       // the oldest entry's id
	size    int
	max     int
	lowest  int // the smallest max since the last block, -1 if it did not change

	slots []hpackSlot // as many for each entry as slotsPerEntry
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
	fewEntries    = 16
	maxEntries    = 64
	slotsPerEntry = 2
)

type tableEntry struct {
	name, value string
}

func (e tableEntry) size() int { return len(e.name) + len(e.value) + 32 }

var hashSeed = maphash.MakeSeed()

func hashName(name string) uint64 { return maphash.String(hashSeed, name) }

func hashField(nameHash uint64, value string) uint64 {
	return nameHash*0x9e3779b97f4a7c15 ^ maphash.String(hashSeed, value)
}

// staticFields and staticNames are the static table (RFC 7541 A), by hash.
var staticFields, staticNames = func() (fields, names map[uint64]uint8) {
	fields, names = make(map[uint64]uint8), make(map[uint64]uint8)
	for i := len(staticTable); i > 0; i-- { // Downwards: of equal names the first counts.
		f := staticTable[i-1]
		h := hashName(f.name)
		names[h] = uint8(i)
		if f.value != "" {
			fields[hashField(h, f.value)] = uint8(i)
		}
	}
	return fields, names
}()

// staticSlots is such a map, where nearly every lookup ends at once.
type staticSlots [512]struct {
	hash  uint64
	index uint8
}

func newStaticSlots(m map[uint64]uint8) *staticSlots {
	var s staticSlots
	for h, i := range m {
		at := h % uint64(len(s))
		for s[at].index != 0 {
			at = (at + 1) % uint64(len(s))
		}
		s[at].hash, s[at].index = h, i
	}
	return &s
}

func (s *staticSlots) find(h uint64) int {
	at := h % uint64(len(s))
	for s[at].index != 0 {
		if s[at].hash == h {
			return int(s[at].index)
		}
		at = (at + 1) % uint64(len(s))
	}
	return 0
}

var staticByField, staticByName = newStaticSlots(staticFields), newStaticSlots(staticNames)

func newHPACKEncoder() *hpackEncoder {
	return &hpackEncoder{
		max: headerTableSize, lowest: -1, oldest: 1,
		entries: make([]tableEntry, fewEntries), slots: make([]hpackSlot, fewEntries*slotsPerEntry),
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
		*at = tableEntry{}
		e.oldest++
	}
}

// full reports whether there is no place for one more entry.
func (e *hpackEncoder) full() bool { return int(e.added-e.oldest) >= len(e.entries)-1 }

// enlarge makes as many places as there may be.
func (e *hpackEncoder) enlarge() {
	old := e.entries
	e.entries, e.slots = make([]tableEntry, maxEntries), make([]hpackSlot, maxEntries*slotsPerEntry)
	for id := e.oldest; id <= e.added; id++ {
		f := old[id%uint32(len(old))]
		e.entries[id%maxEntries] = f
		name := hashName(f.name)
		h := hashField(name, f.value)
		e.place(id, e.slot(h), e.slot(name))
		e.slots[e.slot(h)].seen = uint32(h >> 32)
	}
}

func (e *hpackEncoder) slot(hash uint64) uint64 { return hash % uint64(len(e.slots)) }

// find returns the index of the entry that id names, if it is still there and is the one that was meant.
func (e *hpackEncoder) find(id uint32, f *hpack.HeaderField, whole bool) int {
	if id < e.oldest || id > e.added || id == 0 {
		return 0
	}
	at := &e.entries[id%uint32(len(e.entries))]
	if at.name != f.Name || whole && at.value != f.Value {
		return 0
	}
	return len(staticTable) + 1 + int(e.added-id)
}

// encode appends one field to the block.
func (e *hpackEncoder) encode(f *hpack.HeaderField) {
	if e.lowest >= 0 { // RFC 7541 4.2
		if e.lowest < e.max {
			e.out = appendInt(e.out, 0x20, 5, e.lowest)
		}
		e.out = appendInt(e.out, 0x20, 5, e.max)
		e.lowest = -1
	}
	nameHash := hashName(f.Name)
	h := hashField(nameHash, f.Value)
	slot := e.slot(h)
	if !f.Sensitive {
		if i := staticByField.find(h); i != 0 && staticTable[i-1].name == f.Name && staticTable[i-1].value == f.Value {
			e.out = append(e.out, 0x80|byte(i))
			return
		}
		for _, at := range [2]uint64{slot, slot ^ 1} {
			if i := e.find(e.slots[at].field, f, true); i != 0 {
				e.out = appendInt(e.out, 0x80, 7, i)
				return
			}
		}
	}
	name := staticByName.find(nameHash)
	if name != 0 && staticTable[name-1].name != f.Name {
		name = 0
	}
	if name == 0 {
		name = e.find(e.slots[e.slot(nameHash)].name, f, false)
	}
	switch size := len(f.Name) + len(f.Value) + 32; {
	case f.Sensitive:
		e.out = e.literal(0x10, 4, name, f)
	case e.slots[slot].seen != uint32(h>>32) || size > e.max/2 || f.Value != "" && changing(f.Name):
		e.slots[slot].seen = uint32(h >> 32)
		e.out = e.literal(0, 4, name, f)
	default:
		e.out = e.literal(0x40, 6, name, f)
		if e.full() && len(e.entries) < maxEntries {
			e.enlarge()
		}
		e.evict(size)
		e.add(f, size, e.slot(h), e.slot(nameHash))
	}
}

// changing names fields that are hardly ever the same twice, or only by chance.
func changing(name string) bool {
	switch name {
	case "grpc-timeout", "content-length", "traceparent", "x-request-id", "date", "etag", "grpc-message":
		return true
	}
	return false
}

// add puts a field into the table.
func (e *hpackEncoder) add(f *hpack.HeaderField, size int, slot, nameSlot uint64) {
	e.added++
	// The table must not hold on to the memory of a larger string that f was cut from.
	e.entries[e.added%uint32(len(e.entries))] = tableEntry{name: strings.Clone(f.Name), value: strings.Clone(f.Value)}
	e.size += size
	e.place(e.added, slot, nameSlot)
}

// place notes where an entry is found.
func (e *hpackEncoder) place(id uint32, slot, nameSlot uint64) {
	if old := e.slots[slot].field; old >= e.oldest && old < id { // The other place, then.
		slot ^= 1
	}
	e.slots[slot].field = id
	e.slots[nameSlot].name = id
}

// literal appends a field that is not in the table.
func (e *hpackEncoder) literal(kind byte, prefix uint, name int, f *hpack.HeaderField) []byte {
	out := appendInt(e.out, kind, prefix, name)
	if name == 0 {
		out = appendInt(out, 0, 7, len(f.Name))
		out = append(out, f.Name...)
	}
	out = appendInt(out, 0, 7, len(f.Value))
	return append(out, f.Value...)
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
var staticTable = [...]tableEntry{
	{":authority", ""}, {":method", "GET"}, {":method", "POST"}, {":path", "/"}, {":path", "/index.html"},
	{":scheme", "http"}, {":scheme", "https"}, {":status", "200"}, {":status", "204"}, {":status", "206"},
	{":status", "304"}, {":status", "400"}, {":status", "404"}, {":status", "500"}, {"accept-charset", ""},
	{"accept-encoding", "gzip, deflate"}, {"accept-language", ""}, {"accept-ranges", ""}, {"accept", ""},
	{"access-control-allow-origin", ""}, {"age", ""}, {"allow", ""}, {"authorization", ""}, {"cache-control", ""},
	{"content-disposition", ""}, {"content-encoding", ""}, {"content-language", ""}, {"content-length", ""},
	{"content-location", ""}, {"content-range", ""}, {"content-type", ""}, {"cookie", ""}, {"date", ""}, {"etag", ""},
	{"expect", ""}, {"expires", ""}, {"from", ""}, {"host", ""}, {"if-match", ""}, {"if-modified-since", ""},
	{"if-none-match", ""}, {"if-range", ""}, {"if-unmodified-since", ""}, {"last-modified", ""}, {"link", ""},
	{"location", ""}, {"max-forwards", ""}, {"proxy-authenticate", ""}, {"proxy-authorization", ""}, {"range", ""},
	{"referer", ""}, {"refresh", ""}, {"retry-after", ""}, {"server", ""}, {"set-cookie", ""},
	{"strict-transport-security", ""}, {"transfer-encoding", ""}, {"user-agent", ""}, {"vary", ""}, {"via", ""},
	{"www-authenticate", ""},
}
