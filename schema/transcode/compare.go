package transcode

import (
	"bytes"
	"math"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Equal reports whether two messages of one type say the same, as proto.Equal
// does: NaN equals NaN, a field that is set differs from one that is not, unknown
// fields count by number. The content of an Any is compared as a message where
// it is known.
func Equal(a, b *Tree) bool {
	if a == b {
		return true
	}
	c := comparer{a: a, b: b}
	return a.typ == b.typ && c.message(root, root, a.typ)
}

// comparer compares messages of tree a with messages of tree b.
type comparer struct {
	a, b *Tree
	// mark, if set, makes it go on behind the first difference and flag what
	// differs in b.
	mark bool
}

// differs notes in b whether entry j differs, and reports whether it is the same.
func (c *comparer) note(j uint32, same bool) bool {
	if c.mark && j != 0 {
		if e := &c.b.entries[j]; same {
			e.meta &^= flagDiffers
		} else {
			e.meta |= flagDiffers
		}
	}
	return same
}

func (c *comparer) message(x, y uint32, typ *Type) bool {
	same := true
	i, j := c.a.live(c.a.entries[x].a), c.b.live(c.b.entries[y].a)
	for i != 0 || j != 0 {
		switch {
		case j == 0 || i != 0 && c.a.entries[i].slot() < c.b.entries[j].slot():
			same = c.alone(typ, c.a.entries[i].slot()) && same
			i = c.a.live(c.a.entries[i].next)
		case i == 0 || c.b.entries[j].slot() < c.a.entries[i].slot():
			same = c.note(j, c.alone(typ, c.b.entries[j].slot())) && same
			j = c.b.live(c.b.entries[j].next)
		default:
			same = c.note(j, c.child(x, y, i, j, typ)) && same
			i, j = c.a.live(c.a.entries[i].next), c.b.live(c.b.entries[j].next)
		}
		if !same && !c.mark {
			return false
		}
	}
	return c.note(y, same && equalUnknown(c.a.unknownOf(x), c.b.unknownOf(y)))
}

// alone reports whether it is no difference that only one of two messages has the
// field in a slot: of an Any, whose value may be absent where its content is not.
func (c *comparer) alone(typ *Type, slot int32) bool {
	return typ.form == formAny && (slot == typ.second || int(slot) == len(typ.fields))
}

// child compares fields of messages x and y.
func (c *comparer) child(x, y, i, j uint32, typ *Type) bool {
	slot := c.a.entries[i].slot()
	if typ.form == formAny && c.alone(typ, slot) {
		_, inner := c.a.content(x, typ)
		_, other := c.b.content(y, typ)
		switch {
		case inner == nil || inner != other:
			return bytes.Equal(c.a.text(&c.a.entries[i]), c.b.text(&c.b.entries[j]))
		case slot == typ.second:
			return true // the content decides
		}
		return c.message(i, j, inner)
	}
	f := &typ.fields[slot]
	switch {
	case f.isMap:
		return c.pairs(i, j, f)
	case f.list:
		return c.list(i, j, f)
	default:
		return c.value(i, j, f)
	}
}

func (c *comparer) value(i, j uint32, f *Field) bool {
	x, y := &c.a.entries[i], &c.b.entries[j]
	switch {
	case f.message != nil:
		return c.message(i, j, f.message)
	case isText(f.kind):
		return bytes.Equal(c.a.text(x), c.b.text(y))
	default:
		return equalNumbers(f.kind, x.bits(), y.bits())
	}
}

func equalNumbers(k protoreflect.Kind, x, y uint64) bool {
	if x == y {
		return true
	}
	var v, w float64
	switch k {
	case protoreflect.FloatKind:
		v, w = float64(math.Float32frombits(uint32(x))), float64(math.Float32frombits(uint32(y)))
	case protoreflect.DoubleKind:
		v, w = math.Float64frombits(x), math.Float64frombits(y)
	default:
		return false
	}
	return v == w || math.IsNaN(v) && math.IsNaN(w)
}

func (c *comparer) list(i, j uint32, f *Field) bool {
	if c.a.entries[i].c != c.b.entries[j].c {
		return false
	}
	if f.message == nil && !isText(f.kind) {
		x, y := c.a.numbers(i, f), c.b.numbers(j, f)
		for {
			v, ok := x.next()
			w, _ := y.next()
			if !ok {
				return true
			}
			if !equalNumbers(f.kind, v, w) {
				return false
			}
		}
	}
	same := true
	x, y := c.a.entries[i].a, c.b.entries[j].a
	for x != 0 && (same || c.mark) {
		same = c.note(y, c.value(x, y, f)) && same
		x, y = c.a.entries[x].next, c.b.entries[y].next
	}
	return same
}

func (c *comparer) pairs(i, j uint32, f *Field) bool {
	c.a.sortMap(i, f)
	c.b.sortMap(j, f)
	same := c.a.entries[i].c == c.b.entries[j].c
	x, y := c.a.entries[i].a, c.b.entries[j].a
	for x != 0 && y != 0 && (same || c.mark) {
		switch order := compareKey(f.key.kind, c.a, x, c.b, y); {
		case order < 0:
			same = false
			x = c.a.entries[x].next
		case order > 0:
			same = c.note(y, false)
			y = c.b.entries[y].next
		default:
			same = c.note(y, c.value(c.a.entries[x].c, c.b.entries[y].c, f.val)) && same
			x, y = c.a.entries[x].next, c.b.entries[y].next
		}
	}
	for ; y != 0 && c.mark; y = c.b.entries[y].next {
		c.note(y, false)
	}
	return same && x == 0 && y == 0
}

func equalUnknown(x, y []byte) bool {
	if len(x) != len(y) {
		return false
	}
	if bytes.Equal(x, y) {
		return true
	}
	return slices.EqualFunc(byNumber(x), byNumber(y), func(a, b unknownField) bool {
		return a.number == b.number && bytes.Equal(a.raw, b.raw)
	})
}

type unknownField struct {
	number protowire.Number
	raw    []byte
}

// byNumber lists unknown fields by number, those of one number in their order.
func byNumber(b []byte) []unknownField {
	var fields []unknownField
	for len(b) > 0 {
		number, _, n := protowire.ConsumeField(b)
		fields = append(fields, unknownField{number, b[:n]})
		b = b[n:]
	}
	slices.SortStableFunc(fields, func(a, b unknownField) int { return int(a.number) - int(b.number) })
	return fields
}

// KeepUnknown carries the fields that the schema does not know from before over
// to after, its replacement: at the top level always, in a singular sub-message
// when it is present in both, in map values by key, in list elements by position
// when the list has kept its length. The content of an Any counts as a
// sub-message as long as its type stays; one that stayed the same keeps its very
// bytes.
func KeepUnknown(before, after *Tree) {
	if before == after || !before.unknown && !before.anys || before.typ != after.typ {
		return
	}
	keeper{before, after}.message(root, root, before.typ)
}

type keeper struct{ from, to *Tree }

func (k keeper) message(x, y uint32, typ *Type) {
	if k.from.entries[x].c != 0 {
		kept := k.to.keep(k.from.unknownOf(x))
		p := &k.to.entries[y]
		p.c, p.d = 0, 0
		k.to.linkUnknown(y, k.to.add(kept))
		k.to.unknown = true
	}
	if typ.form == formAny {
		k.any(x, y, typ)
		return
	}
	i, j := k.from.live(k.from.entries[x].a), k.to.live(k.to.entries[y].a)
	for i != 0 && j != 0 {
		switch a, b := k.from.entries[i].slot(), k.to.entries[j].slot(); {
		case a < b:
			i = k.from.live(k.from.entries[i].next)
		case b < a:
			j = k.to.live(k.to.entries[j].next)
		default:
			k.field(i, j, &typ.fields[a])
			i, j = k.from.live(k.from.entries[i].next), k.to.live(k.to.entries[j].next)
		}
	}
}

func (k keeper) field(i, j uint32, f *Field) {
	switch {
	case f.isMap:
		if f.val.message == nil {
			return
		}
		k.from.sortMap(i, f)
		k.to.sortMap(j, f)
		x, y := k.from.entries[i].a, k.to.entries[j].a
		for x != 0 && y != 0 {
			order := compareKey(f.key.kind, k.from, x, k.to, y)
			if order == 0 {
				k.message(k.from.entries[x].c, k.to.entries[y].c, f.val.message)
			}
			if order <= 0 {
				x = k.from.entries[x].next
			}
			if order >= 0 {
				y = k.to.entries[y].next
			}
		}
	case f.message == nil:
	case f.list:
		if k.from.entries[i].c != k.to.entries[j].c {
			return
		}
		for x, y := k.from.entries[i].a, k.to.entries[j].a; x != 0; {
			k.message(x, y, f.message)
			x, y = k.from.entries[x].next, k.to.entries[y].next
		}
	default:
		k.message(i, j, f.message)
	}
}

func (k keeper) any(x, y uint32, typ *Type) {
	from, inner := k.from.content(x, typ)
	to, other := k.to.content(y, typ)
	if inner == nil || inner != other {
		return
	}
	k.message(from, to, inner)
	value := k.from.find(x, typ.second)
	if value == 0 || k.to.find(y, typ.second) != 0 {
		return
	}
	c := comparer{a: k.from, b: k.to}
	if c.message(from, to, inner) {
		e := k.to.keep(k.from.text(&k.from.entries[value]))
		e.meta |= uint32(typ.second)
		k.to.insert(y, k.to.add(e))
	}
}
