package transcode

import (
	"iter"
	"math"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Node is one message within a Tree. It stays valid while the tree changes. The
// zero Node is a message of no type that has no field.
type Node struct {
	t   *Tree
	m   uint32
	typ *Type
}

// Root returns the message itself.
func (t *Tree) Root() Node { return Node{t, root, t.typ} }

// Descriptor returns the descriptor of the message.
func (n Node) Descriptor() protoreflect.MessageDescriptor { return n.typ.desc }

func (n Node) entry(fd protoreflect.FieldDescriptor) (uint32, *Field) {
	if n.t == nil {
		return 0, nil
	}
	f := n.typ.field(fd)
	if f == nil || n.m == 0 {
		return 0, f
	}
	return n.t.find(n.m, f.slot), f
}

// Has reports whether a field is set.
func (n Node) Has(fd protoreflect.FieldDescriptor) bool {
	i, _ := n.entry(fd)
	return i != 0
}

// Fields returns the fields that are set, in the order of the schema.
func (n Node) Fields() iter.Seq[protoreflect.FieldDescriptor] {
	return func(yield func(protoreflect.FieldDescriptor) bool) {
		for i := n.t.live(n.t.entries[n.m].a); i != 0; i = n.t.live(n.t.entries[i].next) {
			if slot := int(n.t.entries[i].slot()); slot < len(n.typ.fields) && !yield(n.typ.fields[slot].desc) {
				return
			}
		}
	}
}

// WhichOneof returns the member of a oneof that is set, nil if none is.
func (n Node) WhichOneof(od protoreflect.OneofDescriptor) protoreflect.FieldDescriptor {
	for i := range od.Fields().Len() {
		if fd := od.Fields().Get(i); n.Has(fd) {
			return fd
		}
	}
	return nil
}

// Same reports whether a field says the same in two messages of one type.
func (n Node) Same(other Node, fd protoreflect.FieldDescriptor) bool {
	i, _ := n.entry(fd)
	j, _ := other.entry(fd)
	if i == 0 || j == 0 {
		return i == j
	}
	c := comparer{a: n.t, b: other.t}
	return c.child(n.m, other.m, i, j, n.typ)
}

// Value is one value of a field.
type Value struct {
	t *Tree
	i uint32 // 0: the default
	f *Field
	// number is the value of an element of a list of numbers.
	number uint64
	isElem bool
}

// Message returns the message that a value is. One that is unset can only be read.
func (v Value) Message() Node { return Node{v.t, v.i, v.f.message.compiled()} }

// Scalar returns the value of a field that is no message.
func (v Value) Scalar() protoreflect.Value {
	k := v.f.kind
	switch {
	case v.isElem:
		return scalarOf(k, v.number)
	case v.i == 0:
		return v.f.desc.Default()
	case k == protoreflect.StringKind:
		return protoreflect.ValueOfString(string(v.t.text(&v.t.entries[v.i])))
	case k == protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(v.t.text(&v.t.entries[v.i]))
	default:
		return scalarOf(k, v.t.entries[v.i].bits())
	}
}

func scalarOf(k protoreflect.Kind, bits uint64) protoreflect.Value {
	switch k {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(bits != 0)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(int32(bits)))
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(int32(bits))
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(uint32(bits))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(bits)
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(math.Float32frombits(uint32(bits)))
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(math.Float64frombits(bits))
	default:
		return protoreflect.ValueOfInt64(int64(bits))
	}
}

func bitsOf(k protoreflect.Kind, v protoreflect.Value) uint64 {
	switch k {
	case protoreflect.BoolKind:
		if v.Bool() {
			return 1
		}
		return 0
	case protoreflect.EnumKind:
		return uint64(int64(v.Enum()))
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind, protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return v.Uint()
	case protoreflect.FloatKind:
		return uint64(math.Float32bits(float32(v.Float())))
	case protoreflect.DoubleKind:
		return math.Float64bits(v.Float())
	default:
		return uint64(v.Int())
	}
}

// Get returns the value of a field that is no list and no map, its default if it
// is unset.
func (n Node) Get(fd protoreflect.FieldDescriptor) Value {
	i, f := n.entry(fd)
	return Value{t: n.t, i: i, f: f}
}

// Len returns the number of elements of a list.
func (n Node) Len(fd protoreflect.FieldDescriptor) int {
	i, _ := n.entry(fd)
	if i == 0 {
		return 0
	}
	return int(n.t.entries[i].c)
}

// Elements returns the elements of a list.
func (n Node) Elements(fd protoreflect.FieldDescriptor) iter.Seq[Value] {
	i, f := n.entry(fd)
	return func(yield func(Value) bool) {
		if i == 0 {
			return
		}
		if f.message == nil && !isText(f.kind) {
			for values := n.t.numbers(i, f); ; {
				v, ok := values.next()
				if !ok || !yield(Value{t: n.t, f: f, number: v, isElem: true}) {
					return
				}
			}
		}
		for at := n.t.entries[i].a; at != 0; at = n.t.entries[at].next {
			if !yield(Value{t: n.t, i: at, f: f}) {
				return
			}
		}
	}
}

// Pairs returns the entries of a map, by key.
func (n Node) Pairs(fd protoreflect.FieldDescriptor) iter.Seq2[protoreflect.MapKey, Value] {
	i, f := n.entry(fd)
	return func(yield func(protoreflect.MapKey, Value) bool) {
		if i == 0 {
			return
		}
		n.t.sortMap(i, f)
		for at := n.t.entries[i].a; at != 0; at = n.t.entries[at].next {
			key := Value{t: n.t, i: at, f: f.key}
			if !yield(key.Scalar().MapKey(), Value{t: n.t, i: n.t.entries[at].c, f: f.val}) {
				return
			}
		}
	}
}

// field returns the entry of a field, made if there is none, cleared and the other
// members of its oneof too.
func (n Node) field(fd protoreflect.FieldDescriptor) (uint32, *Field) {
	f := n.typ.field(fd)
	at := uint32(0)
	for i := n.t.entries[n.m].a; i != 0; i = n.t.entries[i].next {
		e := &n.t.entries[i]
		switch other := &n.typ.fields[e.slot()]; {
		case other == f:
			at = i
		case f.oneof >= 0 && other.oneof == f.oneof:
			e.meta |= flagCleared
		}
	}
	if at == 0 {
		at = n.t.add(entry{meta: uint32(f.slot) | flagCleared})
		n.t.insert(n.m, at)
	}
	return at, f
}

// Clear unsets a field.
func (n Node) Clear(fd protoreflect.FieldDescriptor) {
	if i, _ := n.entry(fd); i != 0 {
		n.t.entries[i].meta |= flagCleared
	}
}

// Set sets a field that is no list, no map and no message.
func (n Node) Set(fd protoreflect.FieldDescriptor, v protoreflect.Value) {
	at, f := n.field(fd)
	e := n.t.scalar(f.kind, v)
	n.t.lossy = n.t.lossy || f.isNull
	e.next, e.meta = n.t.entries[at].next, e.meta|uint32(f.slot)
	if f.implicit && (isText(f.kind) && e.b == 0 || !isText(f.kind) && e.bits() == 0) {
		e.meta |= flagCleared
	}
	n.t.entries[at] = e
}

func (t *Tree) scalar(k protoreflect.Kind, v protoreflect.Value) entry {
	switch k {
	case protoreflect.StringKind:
		return t.keep([]byte(v.String()))
	case protoreflect.BytesKind:
		return t.keep(v.Bytes())
	}
	e := entry{}
	e.setBits(bitsOf(k, v))
	return e
}

// Mutable returns the message that a field is, which it sets.
func (n Node) Mutable(fd protoreflect.FieldDescriptor) Node {
	at, f := n.field(fd)
	if e := &n.t.entries[at]; e.cleared() {
		*e = entry{next: e.next, meta: uint32(f.slot)}
	}
	return Node{n.t, at, f.message.compiled()}
}

// Append adds a value to a list that is not of messages.
func (n Node) Append(fd protoreflect.FieldDescriptor, v protoreflect.Value) {
	at, f := n.elements(fd)
	n.t.lossy = n.t.lossy || f.isNull
	if !isText(f.kind) {
		n.t.addNumber(at, f.kind, bitsOf(f.kind, v))
		return
	}
	n.t.link(at, n.t.add(n.t.scalar(f.kind, v)))
}

// AppendMessage adds a message to a list.
func (n Node) AppendMessage(fd protoreflect.FieldDescriptor) Node {
	at, f := n.elements(fd)
	m := n.t.add(entry{meta: uint32(f.slot)})
	n.t.link(at, m)
	return Node{n.t, m, f.message.compiled()}
}

// elements returns a list or a map, counted for one element more.
func (n Node) elements(fd protoreflect.FieldDescriptor) (uint32, *Field) {
	at, f := n.field(fd)
	e := &n.t.entries[at]
	if e.cleared() {
		*e = entry{next: e.next, meta: uint32(f.slot)}
	}
	e.meta &^= flagSorted
	e.c++
	return at, f
}

// Put sets a value of a map that is not of messages.
func (n Node) Put(fd protoreflect.FieldDescriptor, key protoreflect.MapKey, v protoreflect.Value) {
	f := n.typ.field(fd)
	n.t.lossy = n.t.lossy || f.val.isNull
	n.put(fd, key, n.t.add(n.t.scalar(f.val.kind, v)))
}

// PutMessage sets a value of a map of messages to an empty one.
func (n Node) PutMessage(fd protoreflect.FieldDescriptor, key protoreflect.MapKey) Node {
	f := n.typ.field(fd)
	m := n.t.add(entry{})
	n.put(fd, key, m)
	return Node{n.t, m, f.val.message.compiled()}
}

func (n Node) put(fd protoreflect.FieldDescriptor, key protoreflect.MapKey, value uint32) {
	at, f := n.elements(fd)
	e := n.t.scalar(f.key.kind, key.Value())
	e.c = value
	n.t.link(at, n.t.add(e))
}

// ReadJSON sets an empty message to what b says, nested at most depth levels.
func (n Node) ReadJSON(b []byte, depth int) error {
	tree, err := n.typ.ReadJSON(b, JSONOptions{Depth: depth})
	if err != nil {
		return err
	}
	from := len(n.t.aux)
	n.t.aux = tree.AppendWire(n.t.aux)
	return n.t.readWire(n.m, n.typ, n.t.aux, flagAux, from, len(n.t.aux), 2*depth+2)
}

// AppendJSON appends the message as JSON, as [Tree.AppendJSON] does.
func (n Node) AppendJSON(b []byte, s Style) ([]byte, error) {
	w := jsonWriter{t: n.t, style: s}
	return w.message(b, n.m, n.typ, nil)
}
