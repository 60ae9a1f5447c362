package transcode

import (
	"slices"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// AppendWire appends the wire form of the message to b: fields in the order in
// which protobuf writes them, map entries by key, unknown fields behind.
func (t *Tree) AppendWire(b []byte) []byte {
	w := wireWriters.Get().(*wireWriter)
	w.t = t
	if n := len(t.entries); cap(w.sizes) < n {
		w.sizes = make([]uint32, n)
	} else {
		w.sizes = w.sizes[:n]
	}
	size := w.size(root, t.typ)
	b = slices.Grow(b, size)
	b = w.write(b, root, t.typ)
	w.t = nil
	if cap(w.sizes) <= maxPooled {
		wireWriters.Put(w)
	}
	return b
}

var wireWriters = sync.Pool{New: func() any { return new(wireWriter) }}

type wireWriter struct {
	t     *Tree
	sizes []uint32 // of messages, packed lists and map entries (by their key)
}

func withLength(n int) int { return protowire.SizeVarint(uint64(n)) + n }

// size computes the size of message m, and remembers those of what it holds.
func (w *wireWriter) size(m uint32, typ *Type) int {
	t, n := w.t, 0
	for i := t.live(t.entries[m].a); i != 0; i = t.live(t.entries[i].next) {
		if slot := int(t.entries[i].slot()); slot < len(typ.fields) {
			n += w.sizeField(i, &typ.fields[slot])
		} else if t.find(m, typ.second) == 0 {
			// The content of an Any that came as JSON.
			_, inner := t.content(m, typ)
			if size := w.size(i, inner); size > 0 {
				n += len(typ.fields[typ.second].tag) + withLength(size)
			}
		}
	}
	for i := t.entries[m].c; i != 0; i = t.entries[i].next {
		n += int(t.entries[i].b)
	}
	w.sizes[m] = uint32(n)
	return n
}

func (w *wireWriter) sizeField(i uint32, f *Field) int {
	t, n := w.t, 0
	switch {
	case f.isMap:
		t.sortMap(i, f)
		for at := t.entries[i].a; at != 0; at = t.entries[at].next {
			size := w.sizeValue(at, f.key) + w.sizeValue(t.entries[at].c, f.val)
			w.sizes[at] = uint32(size)
			n += len(f.tag) + withLength(size)
		}
	case f.list && f.message == nil && !isText(f.kind):
		for values := t.numbers(i, f); ; {
			v, ok := values.next()
			if !ok {
				break
			}
			n += sizeNumber(f.kind, v)
		}
		if f.packed {
			w.sizes[i] = uint32(n)
			return len(f.packTag) + withLength(n)
		}
		n += int(t.entries[i].c) * len(f.tag)
	case f.list:
		for at := t.entries[i].a; at != 0; at = t.entries[at].next {
			n += w.sizeValue(at, f)
		}
	default:
		return w.sizeValue(i, f)
	}
	return n
}

// sizeValue returns the size of one value, its tag included.
func (w *wireWriter) sizeValue(i uint32, f *Field) int {
	switch {
	case f.kind == protoreflect.GroupKind:
		return len(f.tag) + w.size(i, f.message) + len(f.end)
	case f.message != nil:
		return len(f.tag) + withLength(w.size(i, f.message))
	case isText(f.kind):
		return len(f.tag) + withLength(int(w.t.entries[i].b))
	default:
		return len(f.tag) + sizeNumber(f.kind, w.t.entries[i].bits())
	}
}

func (w *wireWriter) write(b []byte, m uint32, typ *Type) []byte {
	t := w.t
	if typ.ordered {
		for i := t.live(t.entries[m].a); i != 0; i = t.live(t.entries[i].next) {
			b = w.writeChild(b, m, i, typ)
		}
	} else {
		var few [32]uint32
		all := few[:0]
		for i := t.live(t.entries[m].a); i != 0; i = t.live(t.entries[i].next) {
			all = append(all, i)
		}
		rank := func(i uint32) int {
			if slot := int(t.entries[i].slot()); slot < len(typ.fields) {
				return int(typ.fields[slot].rank)
			}
			return len(typ.fields)
		}
		slices.SortFunc(all, func(x, y uint32) int { return rank(x) - rank(y) })
		for _, i := range all {
			b = w.writeChild(b, m, i, typ)
		}
	}
	for i := t.entries[m].c; i != 0; i = t.entries[i].next {
		b = append(b, t.text(&t.entries[i])...)
	}
	return b
}

func (w *wireWriter) writeChild(b []byte, m, i uint32, typ *Type) []byte {
	t := w.t
	if slot := int(t.entries[i].slot()); slot < len(typ.fields) {
		return w.writeField(b, i, &typ.fields[slot])
	}
	if t.find(m, typ.second) == 0 && w.sizes[i] > 0 {
		_, inner := t.content(m, typ)
		b = append(b, typ.fields[typ.second].tag...)
		b = protowire.AppendVarint(b, uint64(w.sizes[i]))
		b = w.write(b, i, inner)
	}
	return b
}

func (w *wireWriter) writeField(b []byte, i uint32, f *Field) []byte {
	t := w.t
	switch {
	case f.isMap:
		for at := t.entries[i].a; at != 0; at = t.entries[at].next {
			b = append(b, f.tag...)
			b = protowire.AppendVarint(b, uint64(w.sizes[at]))
			b = w.writeValue(b, at, f.key)
			b = w.writeValue(b, t.entries[at].c, f.val)
		}
	case f.list && f.message == nil && !isText(f.kind):
		if f.packed {
			b = append(b, f.packTag...)
			b = protowire.AppendVarint(b, uint64(w.sizes[i]))
		}
		for values := t.numbers(i, f); ; {
			v, ok := values.next()
			if !ok {
				break
			}
			if !f.packed {
				b = append(b, f.tag...)
			}
			b = appendNumber(b, f.kind, v)
		}
	case f.list:
		for at := t.entries[i].a; at != 0; at = t.entries[at].next {
			b = w.writeValue(b, at, f)
		}
	default:
		b = w.writeValue(b, i, f)
	}
	return b
}

func (w *wireWriter) writeValue(b []byte, i uint32, f *Field) []byte {
	b = append(b, f.tag...)
	switch {
	case f.kind == protoreflect.GroupKind:
		return append(w.write(b, i, f.message), f.end...)
	case f.message != nil:
		return w.write(protowire.AppendVarint(b, uint64(w.sizes[i])), i, f.message)
	case isText(f.kind):
		e := &w.t.entries[i]
		return append(protowire.AppendVarint(b, uint64(e.b)), w.t.text(e)...)
	default:
		return appendNumber(b, f.kind, w.t.entries[i].bits())
	}
}
