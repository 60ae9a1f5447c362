package transcode

import (
	"fmt"
	"sync"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// ReadWire reads a message from its wire form, nested at most depth levels. The
// tree refers to b, which must not be changed.
//
// With inspect, what every Any holds is read too, and an Any whose type is not
// known is an error, as is a message whose declaration is missing.
func (t *Type) ReadWire(b []byte, depth int, inspect bool) (*Tree, error) {
	if len(b) > maxSize {
		return nil, errTooLarge
	}
	tree := newTree(t, b, wirePerEntry)
	if err := tree.readWire(root, tree.typ, b, 0, 0, len(b), depth); err != nil {
		return nil, err
	}
	if len(b) <= usualSize {
		t.note(tree)
	}
	if inspect {
		if err := tree.inspect(root, tree.typ, depth); err != nil {
			return nil, err
		}
	}
	return tree, nil
}

// readWire reads message m from b[from:to], where b is src, or aux if flags say so.
func (t *Tree) readWire(m uint32, typ *Type, b []byte, flags uint32, from, to, depth int) error {
	r := wireReaders.Get().(*wireReader)
	r.t, r.b, r.flags, r.at = t, b, flags, from
	if flags == 0 && m == root {
		t.read = &r.at
	}
	_, err := r.message(m, typ, from, to, depth, 0, false)
	r.t, r.b, t.read = nil, nil, nil
	if cap(r.slots) <= maxPooled {
		r.slots = r.slots[:0]
		wireReaders.Put(r)
	}
	return err
}

// maxPooled bounds what stays in a pool.
const maxPooled = 1 << 16

var wireReaders = sync.Pool{New: func() any { return new(wireReader) }}

type wireReader struct {
	t     *Tree
	b     []byte
	flags uint32   // flagAux, if that is where b is
	at    int      // the last field that has been begun
	slots []uint32 // a stack of tables, slot to entry, of the messages that need one
}

// fieldsOf is where the fields of the message that is being read are found.
type fieldsOf struct {
	m      uint32
	typ    *Type
	last   int32  // slot of the last field, as long as they come in order
	base   int    // start of its table on the stack, -1 as long as there is none
	oneofs uint64 // which of the first 64 oneofs have a member
}

// message reads fields into m until position to, or until the end of group.
func (r *wireReader) message(m uint32, typ *Type, at, to, depth int, group protowire.Number, inGroup bool) (int, error) {
	if depth--; depth < 0 {
		return 0, errDepth
	}
	typ.compiled()
	s := fieldsOf{m: m, typ: typ, last: -1, base: -1}
	if tail := r.t.entries[m].b; tail != 0 {
		s.last, s.oneofs = r.t.entries[tail].slot(), ^uint64(0)
	}
	if typ.form == formAny {
		r.t.anys = true
	}
	for at < to {
		number, wt, n := tag(r.b[at:to])
		if n < 0 {
			return 0, errMalformed
		}
		if wt == protowire.EndGroupType && group != 0 && number == group {
			r.close(&s)
			return at + n, nil
		}
		r.at = at
		size, err := r.field(&s, number, wt, at+n, to, depth, inGroup)
		if err != nil {
			return 0, err
		}
		if size < 0 {
			if size = protowire.ConsumeFieldValue(number, wt, r.b[at+n:to]); size < 0 {
				return 0, errMalformed
			}
			r.t.addUnknown(m, r.flags, at, n+size)
		}
		at += n + size
	}
	if group != 0 {
		return 0, errMalformed
	}
	r.close(&s)
	return at, nil
}

// tag reads a tag. Most are one byte.
func tag(b []byte) (protowire.Number, protowire.Type, int) {
	if c := b[0]; c < 0x80 && c >= 8 {
		return protowire.Number(c >> 3), protowire.Type(c & 7), 1
	}
	number, wt, n := protowire.ConsumeTag(b)
	if number > protowire.MaxValidNumber {
		return 0, 0, -1
	}
	return number, wt, n
}

// field reads one value and returns its size, negative if it is not for a known
// field in a form that the field can have.
func (r *wireReader) field(s *fieldsOf, number protowire.Number, wt protowire.Type, at, to, depth int, inGroup bool) (int, error) {
	slot, ok := s.typ.slotOf(number)
	if !ok {
		return -1, nil
	}
	f := &s.typ.fields[slot]
	switch {
	case f.isMap:
		if depth-1 < 0 {
			return 0, errDepth
		}
		if wt != protowire.BytesType {
			return -1, nil
		}
		return r.pair(s, f, at, to, depth-1)
	case f.message != nil:
		if wt != wireType(f.kind) {
			return -1, nil
		}
		return r.sub(s, f, at, to, depth, inGroup)
	case isText(f.kind):
		if wt != protowire.BytesType {
			return -1, nil
		}
		off, n, err := r.bytes(f, at, to)
		if err != nil {
			return 0, err
		}
		e := entry{meta: uint32(slot) | r.flags, a: uint32(off), b: uint32(n)}
		if f.list {
			list := r.list(s, f)
			r.t.entries[list].c++
			r.t.link(list, r.t.add(e))
		} else {
			r.set(s, f, e, n == 0)
		}
		return off + n - at, nil
	case f.list && wt == protowire.BytesType:
		return r.chunk(s, f, at, to)
	case wt != wireType(f.kind):
		return -1, nil
	}
	v, n := readNumber(f.kind, r.b[at:to])
	if n < 0 {
		return 0, errMalformed
	}
	if f.isNull && v != 0 {
		r.t.lossy = true
	}
	if f.list {
		r.single(s, f, v)
		return n, nil
	}
	e := entry{meta: uint32(slot)}
	e.setBits(v)
	r.set(s, f, e, v == 0)
	return n, nil
}

// bytes reads a length and checks that as many bytes follow.
func (r *wireReader) bytes(f *Field, at, to int) (off, n int, err error) {
	b := r.b[at:to]
	var size uint64
	k := 1
	if len(b) > 0 && b[0] < 0x80 {
		size = uint64(b[0])
	} else if size, k = protowire.ConsumeVarint(b); k < 0 {
		return 0, 0, errMalformed
	}
	if size > uint64(len(b)-k) {
		return 0, 0, errMalformed
	}
	off, n = at+k, int(size)
	if f != nil && f.utf8 && f.kind == protoreflect.StringKind && !utf8.Valid(r.b[off:off+n]) {
		return 0, 0, fmt.Errorf("%s: %w", f.desc.FullName(), errUTF8)
	}
	return off, n, nil
}

// sub reads a message, a group or an element of a list of them.
func (r *wireReader) sub(s *fieldsOf, f *Field, at, to, depth int, inGroup bool) (int, error) {
	off, n := at, 0
	if f.kind == protoreflect.GroupKind {
		if !inGroup {
			// What lies within, down to the innermost group, is well formed: once is enough.
			if _, n := protowire.ConsumeGroup(f.number, r.b[at:to]); n < 0 {
				return 0, errMalformed
			}
		}
	} else {
		var err error
		if off, n, err = r.bytes(nil, at, to); err != nil {
			return 0, err
		}
	}
	var m uint32
	if f.list {
		list := r.list(s, f)
		r.t.entries[list].c++
		m = r.t.add(entry{meta: uint32(f.slot)})
		r.t.link(list, m)
	} else {
		m = r.entry(s, f)
		if e := &r.t.entries[m]; e.cleared() {
			*e = entry{next: e.next, meta: uint32(f.slot)}
		}
	}
	if f.kind == protoreflect.GroupKind {
		end, err := r.message(m, f.message, off, to, depth, f.number, true)
		return end - at, err
	}
	if n == 0 && depth > 0 {
		if f.message.compiled().form == formAny {
			r.t.anys = true
		}
		return off - at, nil
	}
	_, err := r.message(m, f.message, off, off+n, depth, 0, false)
	return off + n - at, err
}

// pair reads one entry of a map.
func (r *wireReader) pair(s *fieldsOf, f *Field, at, to, depth int) (int, error) {
	off, n, err := r.bytes(nil, at, to)
	if err != nil {
		return 0, err
	}
	key, val := entry{}, entry{}
	val.setBits(f.val.zero)
	m := uint32(0)
	if f.val.message != nil {
		m = r.t.add(entry{})
		if f.val.message.compiled().form == formAny {
			r.t.anys = true
		}
	}
	for p, end := off, off+n; p < end; {
		number, wt, k := tag(r.b[p:end])
		if k < 0 {
			return 0, errMalformed
		}
		p += k
		k = -1
		switch {
		case number == 1 && wt == wireType(f.key.kind):
			key, k, err = r.value(f.key, p, end)
		case number == 2 && wt == wireType(f.val.kind) && m != 0:
			k, err = r.mapMessage(f, m, p, end, depth)
		case number == 2 && wt == wireType(f.val.kind):
			val, k, err = r.value(f.val, p, end)
		}
		if err != nil {
			return 0, err
		}
		if k < 0 {
			if k = protowire.ConsumeFieldValue(number, wt, r.b[p:end]); k < 0 {
				return 0, errMalformed
			}
		}
		p += k
	}
	at0 := r.entry(s, f)
	if m == 0 {
		m = r.t.add(val)
	}
	key.c = m
	i := r.t.add(key)
	e := &r.t.entries[at0]
	e.meta &^= flagCleared | flagSorted
	e.c++
	r.t.link(at0, i)
	return off + n - at, nil
}

func (r *wireReader) mapMessage(f *Field, m uint32, at, to, depth int) (int, error) {
	if f.val.kind == protoreflect.GroupKind {
		body, n := protowire.ConsumeGroup(2, r.b[at:to])
		if n < 0 {
			return 0, errMalformed
		}
		_, err := r.message(m, f.val.message, at, at+len(body), depth, 0, true)
		return n, err
	}
	off, n, err := r.bytes(nil, at, to)
	if err != nil {
		return 0, err
	}
	_, err = r.message(m, f.val.message, off, off+n, depth, 0, false)
	return off + n - at, err
}

// value reads a scalar of a map.
func (r *wireReader) value(f *Field, at, to int) (entry, int, error) {
	if isText(f.kind) {
		off, n, err := r.bytes(f, at, to)
		return entry{meta: r.flags, a: uint32(off), b: uint32(n)}, off + n - at, err
	}
	v, n := readNumber(f.kind, r.b[at:to])
	if n < 0 {
		return entry{}, 0, errMalformed
	}
	if f.isNull && v != 0 {
		r.t.lossy = true
	}
	e := entry{}
	e.setBits(v)
	return e, n, nil
}

// chunk reads a packed list. The numbers stay where they are.
func (r *wireReader) chunk(s *fieldsOf, f *Field, at, to int) (int, error) {
	off, n, err := r.bytes(nil, at, to)
	if err != nil {
		return 0, err
	}
	count := uint32(0)
	for b := r.b[off : off+n]; len(b) > 0; count++ {
		v, size := readNumber(f.kind, b)
		if size < 0 {
			return 0, errMalformed
		}
		if f.isNull && v != 0 {
			r.t.lossy = true
		}
		b = b[size:]
	}
	if count > 0 {
		list := r.list(s, f)
		r.t.entries[list].c += count
		r.t.link(list, r.t.add(entry{meta: r.flags, a: uint32(off), b: uint32(n)}))
	}
	return off + n - at, nil
}

// single adds one number to a list.
func (r *wireReader) single(s *fieldsOf, f *Field, v uint64) {
	list := r.list(s, f)
	r.t.entries[list].c++
	r.t.addNumber(list, f.kind, v)
}

// addNumber appends a number to the last chunk of a list, if that is what aux
// ends with, or to a new one.
func (t *Tree) addNumber(list uint32, k protoreflect.Kind, v uint64) {
	off := len(t.aux)
	t.aux = appendNumber(t.aux, k, v)
	if last := t.entries[list].b; last != 0 {
		if e := &t.entries[last]; e.meta&flagAux != 0 && int(e.a)+int(e.b) == off {
			e.b += uint32(len(t.aux) - off)
			return
		}
	}
	t.link(list, t.add(t.since(off)))
}

// set makes e the value of a field without elements.
func (r *wireReader) set(s *fieldsOf, f *Field, e entry, zero bool) {
	i := r.entry(s, f)
	at := &r.t.entries[i]
	e.next = at.next
	if zero && f.implicit {
		e.meta |= flagCleared
	}
	*at = e
}

// list returns the entry of a list, ready for an element.
func (r *wireReader) list(s *fieldsOf, f *Field) uint32 {
	i := r.entry(s, f)
	r.t.entries[i].meta &^= flagCleared
	return i
}

// entry returns the entry of a field. One that has just been made is cleared. The
// other members of its oneof are cleared.
func (r *wireReader) entry(s *fieldsOf, f *Field) uint32 {
	if f.oneof >= 0 && len(s.typ.oneofs[f.oneof]) > 1 {
		if bit := uint64(1) << (f.oneof & 63); s.oneofs&bit == 0 {
			s.oneofs |= bit
		} else {
			r.table(s)
			for _, other := range s.typ.oneofs[f.oneof] {
				if i := r.slots[s.base+int(other)]; i != 0 && other != f.slot {
					r.t.entries[i].meta |= flagCleared
				}
			}
		}
	}
	if s.base < 0 {
		if f.slot > s.last {
			s.last = f.slot
			i := r.t.add(entry{meta: uint32(f.slot) | flagCleared})
			r.t.link(s.m, i)
			return i
		}
		if f.slot == s.last {
			return r.t.entries[s.m].b
		}
		r.table(s)
	}
	at := &r.slots[s.base+int(f.slot)]
	if *at == 0 {
		*at = r.t.add(entry{meta: uint32(f.slot) | flagCleared})
	}
	return *at
}

// table gives a message a table of its fields: they do not come in order.
func (r *wireReader) table(s *fieldsOf) {
	if s.base >= 0 {
		return
	}
	s.base = len(r.slots)
	n := s.base + len(s.typ.fields)
	for cap(r.slots) < n {
		r.slots = append(r.slots[:cap(r.slots)], 0)
	}
	r.slots = r.slots[:n]
	table := r.slots[s.base:]
	clear(table)
	for i := r.t.entries[s.m].a; i != 0; i = r.t.entries[i].next {
		table[r.t.entries[i].slot()] = i
	}
}

// close puts the fields of a message in order.
func (r *wireReader) close(s *fieldsOf) {
	if s.base < 0 {
		return
	}
	p := &r.t.entries[s.m]
	p.a, p.b = 0, 0
	for _, i := range r.slots[s.base:] {
		if i != 0 {
			r.t.entries[i].next = 0
			r.t.link(s.m, i)
		}
	}
	r.slots = r.slots[:s.base]
}
