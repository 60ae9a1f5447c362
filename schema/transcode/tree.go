package transcode

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"math"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Tree is the content of one message: entries that refer to each other by index
// and to their text by offset, in the bytes that were read or in a buffer of the
// tree's own. It is not safe for concurrent use: reading may sort a map.
type Tree struct {
	typ     *Type
	src     []byte // what was read; never changed
	aux     []byte // what is not in src as it is needed
	entries []entry
	// unknown and anys say that the tree holds fields that the schema does not
	// know, and messages of google.protobuf.Any.
	unknown, anys bool
	// lossy says that it may hold a google.protobuf.NullValue with a number other
	// than 0.
	lossy bool
	// read, while the tree is being read, is how much of src has been.
	read *int
}

// entry is one field of a message, one element of a list, one key or value of a
// map, or one stretch of unknown fields. What a to d mean depends on it:
//
//	scalar           the value: a its lower half, b its upper half
//	string, bytes    a offset, b length
//	message          a first and b last field, c first and d last unknown stretch
//	list             a first and b last element or chunk, c their number
//	map              a first and b last key, c their number
//	key of a map     a and b as a scalar or a string, c the value
//	chunk, unknown   a offset, b length
//
// A chunk is a stretch of numbers in the form of a packed list.
type entry struct {
	next uint32 // the next of its kind in the same message, list or map; 0 is none
	meta uint32 // slot of the field, and flags
	a, b uint32
	c, d uint32
}

const (
	flagCleared  = 1 << 31 // not set (any more)
	flagAux      = 1 << 30 // a is an offset in aux
	flagSorted   = 1 << 29 // of a map: sorted by key, each key once
	flagDiffers  = 1 << 28 // see compare
	slotMask     = 1<<24 - 1
	root         = 1       // entry 0 is none
	maxSize      = 1 << 30 // of wire bytes; of JSON half of it, for numbers can be longer on the wire
	maxDepthAny  = 100
	anyWeight    = 5
	wirePerEntry = 4 // bytes of input for each entry, a guess
	jsonPerEntry = 10
	maxEntryHint = 1 << 16
	usualSize    = 4 << 10 // up to which messages of a type are taken to be like the one before
)

var (
	errTooLarge   = errors.New("too large")
	errDepth      = errors.New("nested too deep")
	errMalformed  = errors.New("malformed wire format")
	errUTF8       = errors.New("invalid UTF-8")
	errIncomplete = errors.New("holds a message whose type is not in the schema")
)

// newTree returns an empty tree over src.
func newTree(t *Type, src []byte, perEntry int) *Tree {
	guess := min(len(src)/perEntry+8, maxEntryHint)
	if usual := int(t.usual.Load()); usual > 0 && len(src) <= usualSize {
		guess = min(guess, usual+usual/4+2)
	}
	tree := &Tree{typ: t.compiled(), src: src, entries: make([]entry, root+1, guess)}
	return tree
}

// note remembers how many entries a message had, for the next one.
func (t *Type) note(tree *Tree) {
	n := uint32(len(tree.entries))
	if usual := t.usual.Load(); n > usual || n < usual/2 {
		t.usual.Store(n)
	}
}

// New returns an empty message.
func (t *Type) New() *Tree { return newTree(t, nil, 1) }

// Lossy reports whether another message may have the same JSON: all the numbers
// of a google.protobuf.NullValue are null. Unknown fields do not count.
func (t *Tree) Lossy() bool { return t.lossy }

// Type returns the type of the message.
func (t *Tree) Type() *Type { return t.typ }

func (e *entry) slot() int32   { return int32(e.meta & slotMask) }
func (e *entry) cleared() bool { return e.meta&flagCleared != 0 }
func (e *entry) bits() uint64  { return uint64(e.b)<<32 | uint64(e.a) }

func (e *entry) setBits(v uint64) {
	e.a, e.b = uint32(v), uint32(v>>32)
}

// add returns the index of a new entry. Pointers to entries are stale after it.
func (t *Tree) add(e entry) uint32 {
	if len(t.entries) == cap(t.entries) {
		t.grow()
	}
	t.entries = append(t.entries, e)
	return uint32(len(t.entries) - 1)
}

// grow makes room for more entries: for as many as it takes if what has not been
// read yet is like what has.
func (t *Tree) grow() {
	n := len(t.entries)
	more := max(n, 16)
	if n > maxEntryHint/2 {
		more = n / 4
		if t.read != nil && *t.read > 0 {
			rest := float64(len(t.src)-*t.read) / float64(*t.read)
			more = max(n/16, min(int(float64(n)*rest*1.05), 16*n))
		}
	}
	t.entries = slices.Grow(t.entries, more)
}

// text returns the bytes that an entry refers to.
func (t *Tree) text(e *entry) []byte {
	if e.meta&flagAux != 0 {
		return t.aux[e.a : e.a+e.b]
	}
	return t.src[e.a : e.a+e.b]
}

// keep puts b into the tree's own buffer and returns an entry that refers to it.
func (t *Tree) keep(b []byte) entry {
	off := len(t.aux)
	t.aux = append(t.aux, b...)
	return t.since(off)
}

// since returns an entry for what was appended to aux since it was off long.
func (t *Tree) since(off int) entry {
	return entry{meta: flagAux, a: uint32(off), b: uint32(len(t.aux) - off)}
}

// link appends child i to the list that starts and ends at *first and *last.
func (t *Tree) link(parent, i uint32) {
	p := &t.entries[parent]
	if p.b == 0 {
		p.a = i
	} else {
		t.entries[p.b].next = i
	}
	p.b = i
}

// find returns the entry of a field that is set, 0 if it is not.
func (t *Tree) find(m uint32, slot int32) uint32 {
	for i := t.entries[m].a; i != 0; i = t.entries[i].next {
		if e := &t.entries[i]; e.slot() == slot && !e.cleared() {
			return i
		}
	}
	return 0
}

// live returns the first entry from i on that is set.
func (t *Tree) live(i uint32) uint32 {
	for i != 0 && t.entries[i].cleared() {
		i = t.entries[i].next
	}
	return i
}

// addUnknown appends a stretch of src, or aux, to the unknown fields of m.
func (t *Tree) addUnknown(m, flags uint32, off, n int) {
	t.unknown = true
	if last := t.entries[m].d; last != 0 {
		if e := &t.entries[last]; e.meta == flags && int(e.a)+int(e.b) == off {
			e.b += uint32(n)
			return
		}
	}
	t.linkUnknown(m, t.add(entry{meta: flags, a: uint32(off), b: uint32(n)}))
}

func (t *Tree) linkUnknown(m, i uint32) {
	p := &t.entries[m]
	if p.d == 0 {
		p.c = i
	} else {
		t.entries[p.d].next = i
	}
	p.d = i
}

// unknownOf returns the unknown fields of m, in aux's or src's memory if they are
// one stretch.
func (t *Tree) unknownOf(m uint32) []byte {
	first := t.entries[m].c
	if first == 0 {
		return nil
	}
	if t.entries[first].next == 0 {
		return t.text(&t.entries[first])
	}
	var b []byte
	for i := first; i != 0; i = t.entries[i].next {
		b = append(b, t.text(&t.entries[i])...)
	}
	return b
}

// insert links field i into message m where its slot belongs.
func (t *Tree) insert(m, i uint32) {
	p, slot := &t.entries[m], t.entries[i].slot()
	if p.b == 0 || t.entries[p.b].slot() < slot {
		t.link(m, i)
		return
	}
	before := uint32(0)
	for at := p.a; at != 0 && t.entries[at].slot() < slot; at = t.entries[at].next {
		before = at
	}
	if before == 0 {
		t.entries[i].next, p.a = p.a, i
	} else {
		t.entries[i].next, t.entries[before].next = t.entries[before].next, i
	}
}

// order sorts the fields of m by slot.
func (t *Tree) order(m uint32) {
	var few [32]uint32
	all := few[:0]
	for i := t.entries[m].a; i != 0; i = t.entries[i].next {
		all = append(all, i)
	}
	slices.SortFunc(all, func(x, y uint32) int { return int(t.entries[x].slot()) - int(t.entries[y].slot()) })
	t.relink(m, all)
}

// relink makes all the fields of m, or the elements of a list or keys of a map.
func (t *Tree) relink(m uint32, all []uint32) {
	p := &t.entries[m]
	p.a, p.b = 0, 0
	for _, i := range all {
		t.entries[i].next = 0
		t.link(m, i)
	}
}

// sortMap puts the keys of map i in order and leaves of each key the last value.
func (t *Tree) sortMap(i uint32, f *Field) {
	e := &t.entries[i]
	if e.meta&flagSorted != 0 {
		return
	}
	e.meta |= flagSorted
	sorted := true
	for at := e.a; at != 0; at = t.entries[at].next {
		if next := t.entries[at].next; next != 0 && t.compareKeys(f.key.kind, at, next) >= 0 {
			sorted = false
			break
		}
	}
	if sorted {
		return
	}
	all := make([]uint32, 0, e.c)
	for at := e.a; at != 0; at = t.entries[at].next {
		all = append(all, at)
	}
	slices.SortStableFunc(all, func(x, y uint32) int { return t.compareKeys(f.key.kind, x, y) })
	last := all[:0]
	for n, at := range all {
		if n+1 < len(all) && t.compareKeys(f.key.kind, at, all[n+1]) == 0 {
			continue
		}
		last = append(last, at)
	}
	t.relink(i, last)
	t.entries[i].c = uint32(len(last))
}

func (t *Tree) compareKeys(k protoreflect.Kind, x, y uint32) int {
	return compareKey(k, t, x, t, y)
}

func compareKey(k protoreflect.Kind, t *Tree, x uint32, u *Tree, y uint32) int {
	a, b := &t.entries[x], &u.entries[y]
	switch k {
	case protoreflect.StringKind:
		return bytes.Compare(t.text(a), u.text(b))
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind, protoreflect.Fixed32Kind, protoreflect.Fixed64Kind, protoreflect.BoolKind:
		return cmp.Compare(a.bits(), b.bits())
	default:
		return cmp.Compare(int64(a.bits()), int64(b.bits()))
	}
}

// numbers walks the values of a list of numbers.
type numbers struct {
	t     *Tree
	kind  protoreflect.Kind
	chunk uint32
	rest  []byte
}

func (t *Tree) numbers(list uint32, f *Field) numbers {
	n := numbers{t: t, kind: f.kind, chunk: t.entries[list].a}
	n.load()
	return n
}

func (n *numbers) load() {
	if n.chunk != 0 {
		n.rest = n.t.text(&n.t.entries[n.chunk])
	}
}

func (n *numbers) next() (uint64, bool) {
	for len(n.rest) == 0 {
		if n.chunk == 0 {
			return 0, false
		}
		n.chunk = n.t.entries[n.chunk].next
		if n.chunk == 0 {
			return 0, false
		}
		n.load()
	}
	v, size := readNumber(n.kind, n.rest)
	n.rest = n.rest[size:]
	return v, true
}

// isText reports whether values of the kind are strings of bytes.
func isText(k protoreflect.Kind) bool {
	return k == protoreflect.StringKind || k == protoreflect.BytesKind
}

// readNumber reads a value in wire form: its bits and its size, negative if b
// does not hold one. Bits of integers and enums are sign-extended, those of a
// float are those of a float32.
func readNumber(k protoreflect.Kind, b []byte) (uint64, int) {
	switch k {
	case protoreflect.Fixed32Kind, protoreflect.FloatKind:
		if len(b) < 4 {
			return 0, -1
		}
		return uint64(binary.LittleEndian.Uint32(b)), 4
	case protoreflect.Sfixed32Kind:
		if len(b) < 4 {
			return 0, -1
		}
		return uint64(int32(binary.LittleEndian.Uint32(b))), 4
	case protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind, protoreflect.DoubleKind:
		if len(b) < 8 {
			return 0, -1
		}
		return binary.LittleEndian.Uint64(b), 8
	}
	var v uint64
	n := 1
	if len(b) > 0 && b[0] < 0x80 {
		v = uint64(b[0])
	} else if v, n = protowire.ConsumeVarint(b); n < 0 {
		return 0, n
	}
	switch k {
	case protoreflect.BoolKind:
		if v != 0 {
			v = 1
		}
	case protoreflect.EnumKind, protoreflect.Int32Kind:
		v = uint64(int32(v))
	case protoreflect.Uint32Kind:
		v = uint64(uint32(v))
	case protoreflect.Sint32Kind:
		v = uint64(protowire.DecodeZigZag(v & math.MaxUint32))
		v = uint64(int32(v))
	case protoreflect.Sint64Kind:
		v = uint64(protowire.DecodeZigZag(v))
	}
	return v, n
}

// appendNumber writes a value in wire form, without a tag.
func appendNumber(b []byte, k protoreflect.Kind, v uint64) []byte {
	switch k {
	case protoreflect.Fixed32Kind, protoreflect.FloatKind, protoreflect.Sfixed32Kind:
		return binary.LittleEndian.AppendUint32(b, uint32(v))
	case protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind, protoreflect.DoubleKind:
		return binary.LittleEndian.AppendUint64(b, v)
	case protoreflect.Sint32Kind, protoreflect.Sint64Kind:
		return protowire.AppendVarint(b, protowire.EncodeZigZag(int64(v)))
	default:
		if v < 0x80 {
			return append(b, byte(v))
		}
		return protowire.AppendVarint(b, v)
	}
}

func sizeNumber(k protoreflect.Kind, v uint64) int {
	switch k {
	case protoreflect.Fixed32Kind, protoreflect.FloatKind, protoreflect.Sfixed32Kind:
		return 4
	case protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind, protoreflect.DoubleKind:
		return 8
	case protoreflect.Sint32Kind, protoreflect.Sint64Kind:
		return protowire.SizeVarint(protowire.EncodeZigZag(int64(v)))
	default:
		return protowire.SizeVarint(v)
	}
}
