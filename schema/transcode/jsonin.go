package transcode

import (
	"errors"
	"strconv"
	"sync"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// JSONOptions say how JSON is read.
type JSONOptions struct {
	// Depth is how deep messages may be nested.
	Depth int
	// Inspect is as for [Type.ReadWire], to Depth.
	Inspect bool
	// Lenient ignores names that the type does not know, names of enum values
	// among them, and what follows the first value.
	Lenient bool
	// Observed, if not nil, is told how the author writes.
	Observed *Observed
}

// ReadJSON reads a message from JSON. The tree refers to b, which must not be
// changed. An error about the text is a *ParseError.
func (t *Type) ReadJSON(b []byte, o JSONOptions) (*Tree, error) {
	return t.readJSON(b, nil, o)
}

// ReadJSONField reads a message of which b is one field, and the others are unset.
// Null is the field unset, if it is no value of it.
func (t *Type) ReadJSONField(b []byte, fd protoreflect.FieldDescriptor, o JSONOptions) (*Tree, error) {
	return t.readJSON(b, t.field(fd), o)
}

func (t *Type) readJSON(b []byte, f *Field, o JSONOptions) (*Tree, error) {
	if len(b) > maxSize/2 {
		return nil, errTooLarge
	}
	tree := newTree(t, b, jsonPerEntry)
	r := jsonReaders.Get().(*jsonReader)
	tree.read = &r.pos
	defer func() {
		tree.read = nil
		r.release()
	}()
	r.src, r.pos, r.t, r.o, r.look = b, 0, tree, o, o.Observed
	var err error
	if f == nil {
		err = r.message(root, tree.typ, o.Depth, false)
	} else if err = r.known(tree.typ); err == nil {
		_, err = r.field(root, f, o.Depth-1)
	}
	if err != nil {
		return nil, err
	}
	if r.blanks(); r.pos < len(b) && (!o.Lenient || f != nil) {
		return nil, r.fault()
	}
	if o.Inspect {
		if err := tree.inspect(root, tree.typ, o.Depth); err != nil {
			return nil, err
		}
	}
	return tree, nil
}

var jsonReaders = sync.Pool{New: func() any { return new(jsonReader) }}

func (r *jsonReader) release() {
	if cap(r.tmp) <= maxPooled && cap(r.seen) <= maxPooled {
		*r = jsonReader{scanner: scanner{tmp: r.tmp}, seen: r.seen[:0]}
		jsonReaders.Put(r)
	}
}

type jsonReader struct {
	scanner
	t    *Tree
	o    JSONOptions
	look *Observed // nil where the style is nobody's choice
	// seen is a stack of bit sets, the fields and oneofs of each open message.
	seen []uint64
}

// known refuses types that nothing can be read into.
func (r *jsonReader) known(typ *Type) error {
	if typ.compiled(); typ.missing {
		return r.at(r.pos, errNotAType)
	}
	return nil
}

// message reads a message into m; skipType is for the content of an Any.
func (r *jsonReader) message(m uint32, typ *Type, limit int, skipType bool) error {
	if limit--; limit < 0 {
		return r.at(r.pos, errTooDeep)
	}
	r.blanks()
	if err := r.known(typ); err != nil {
		return err
	}
	switch typ.form {
	case formObject:
		return r.object(m, typ, limit, skipType)
	case formEmpty:
		return r.empty(limit)
	default:
		return r.knownForm(m, typ, limit)
	}
}

func (r *jsonReader) object(m uint32, typ *Type, limit int, skipType bool) error {
	if r.peek() != '{' {
		return r.fault()
	}
	r.pos++
	base := len(r.seen)
	r.seen = append(r.seen, 0)
	for n := len(typ.fields) + len(typ.oneofs); n > 64; n -= 64 {
		r.seen = append(r.seen, 0)
	}
	last, guess := int32(-1), int32(0)
	ordered := true
	if r.peek() != '}' {
		for {
			slot, at, err := r.key(typ, guess, skipType)
			if err != nil {
				return err
			}
			switch slot {
			case slotType:
				_, err = r.text()
			case slotUnknown:
				err = r.skip(limit)
			default:
				guess = slot + 1
				f := &typ.fields[slot]
				var set bool
				set, err = r.member(m, typ, f, base, at, limit)
				if set && slot < last {
					ordered = false
				}
				if set {
					last = slot
				}
			}
			if err != nil {
				return err
			}
			if c := r.peek(); c == '}' {
				break
			} else if c != ',' {
				return r.fault()
			}
			r.pos++
		}
	}
	r.pos++
	if r.look != nil {
		r.look.gaps(typ, r.seen[base:])
	}
	r.seen = r.seen[:base]
	if !ordered {
		r.t.order(m)
	}
	return nil
}

const (
	slotUnknown = -1
	slotType    = -2
)

// key reads a name, its colon and the blanks behind, and finds the field. guess is
// the slot that it probably is.
func (r *jsonReader) key(typ *Type, guess int32, skipType bool) (slot int32, at int, err error) {
	if r.peek() != '"' {
		return 0, 0, r.fault()
	}
	at = r.pos
	rest := r.src[r.pos:]
	for end := min(int(guess)+4, len(typ.fields)); int(guess) < end; guess++ {
		f := &typ.fields[guess]
		if n := len(f.jsonKey); n <= len(rest) && rest[1] == f.jsonKey[1] && f.own && string(rest[:n]) == string(f.jsonKey) {
			r.pos += n
			r.blanks()
			r.look.name(f, true)
			return guess, at, nil
		}
	}
	name, err := r.text()
	if err != nil {
		return 0, 0, err
	}
	slot, found := typ.byKey[string(name)]
	unknown := ""
	var extErr error
	switch {
	case skipType && string(name) == "@type":
		slot = slotType
	case found:
		f := &typ.fields[slot]
		r.look.name(f, string(name) == f.json)
	case isBracketed(string(name)):
		extErr = r.extension(typ, string(name[1:len(name)-1]), at)
		fallthrough
	default:
		slot = slotUnknown
		if !r.o.Lenient {
			unknown = string(r.src[at:r.pos])
		}
	}
	if err := r.colon(); err != nil {
		return 0, 0, err
	}
	if extErr != nil {
		return 0, 0, extErr
	}
	if unknown != "" {
		return 0, 0, r.at(at, &nameError{"unknown field", unknown})
	}
	r.blanks()
	return slot, at, nil
}

// extension says what is wrong with the name of an extension that the type does
// not have. Nothing is, if there is nothing of the name.
func (r *jsonReader) extension(typ *Type, name string, at int) error {
	if _, err := typ.types.files.FindDescriptorByName(protoreflect.FullName(name)); err != nil {
		return nil //nolint:nilerr // an unknown name
	}
	return r.at(at, errors.New("not an extension of the type"))
}

func has(set []uint64, i int) bool { return set[i>>6]&(1<<(i&63)) != 0 }

// member reads the value of a field of an object, and reports whether it set it.
func (r *jsonReader) member(m uint32, typ *Type, f *Field, base, at, limit int) (bool, error) {
	seen := r.seen[base:]
	if has(seen, int(f.slot)) {
		name := string(r.src[at : at+r.nameLen(at)])
		return false, r.at(at, &nameError{"duplicate field", name})
	}
	seen[f.slot>>6] |= 1 << (f.slot & 63)
	if r.unset(f) {
		err := r.literal("null")
		r.look.unset(f, true)
		return false, err
	}
	if f.oneof >= 0 {
		bit := len(typ.fields) + int(f.oneof)
		if has(seen, bit) {
			return false, within(r.at(at, errors.New("another field of its oneof is set")), f.json)
		}
		seen[bit>>6] |= 1 << (bit & 63)
	}
	set, err := r.field(m, f, limit)
	if err == nil && !set {
		r.look.unset(f, false)
	}
	return set, err
}

// nameLen returns the length of the string at a place, which has been read.
func (r *jsonReader) nameLen(at int) int {
	s := scanner{src: r.src, pos: at}
	_, _, _, _ = s.string()
	return s.pos - at
}

// unset reports whether a null follows that says that f is unset.
func (r *jsonReader) unset(f *Field) bool {
	if r.peek() != 'n' {
		return false
	}
	if f.isValue || f.isNull {
		return false
	}
	word := scanner{src: r.src, pos: r.pos}
	return word.literal("null") == nil
}

// field reads the value of f and reports whether it is set now.
func (r *jsonReader) field(m uint32, f *Field, limit int) (bool, error) {
	if r.unset(f) {
		return false, r.literal("null")
	}
	i := r.t.add(entry{meta: uint32(f.slot)})
	set := true
	var err error
	switch {
	case f.isMap:
		look := r.look
		r.look = nil
		err = r.pairs(i, f, limit)
		r.look = look
		set = r.t.entries[i].c > 0
	case f.list:
		err = r.list(i, f, limit)
		set = r.t.entries[i].c > 0
	case f.message != nil:
		err = r.message(i, f.message, limit, false)
	default:
		set, err = r.scalarValue(i, f)
		if e := &r.t.entries[i]; set && f.implicit {
			set = e.bits() != 0
			if isText(f.kind) {
				set = e.b > 0
			}
		}
	}
	if err != nil {
		return false, within(err, f.json)
	}
	if set {
		r.t.link(m, i)
	}
	return set, nil
}

func (r *jsonReader) list(i uint32, f *Field, limit int) error {
	if r.peek() != '[' {
		return r.fault()
	}
	r.pos++
	if r.peek() == ']' {
		r.pos++
		return nil
	}
	numbers := f.message == nil && !isText(f.kind)
	before := r.look.snapshot()
	dropped := false
	for n := 0; ; n++ {
		var err error
		set := true
		if numbers {
			var v uint64
			if v, set, err = r.bits(f); err == nil && set {
				r.t.lossy = r.t.lossy || f.isNull && v != 0
				r.t.entries[i].c++
				r.t.addNumber(i, f.kind, v)
			}
		} else {
			e := r.t.add(entry{meta: uint32(f.slot)})
			if f.message != nil {
				err = r.message(e, f.message, limit, false)
			} else {
				set, err = r.scalarValue(e, f)
			}
			r.t.entries[i].c++
			r.t.link(i, e)
		}
		if err != nil {
			return within(err, "["+strconv.Itoa(n)+"]")
		}
		dropped = dropped || !set
		c := r.peek()
		if c != ',' && c != ']' {
			return r.fault()
		}
		r.pos++
		if c == ']' {
			break
		}
	}
	if dropped {
		r.look.restore(before)
	}
	return nil
}

func (r *jsonReader) pairs(i uint32, f *Field, limit int) error {
	if r.peek() != '{' {
		return r.fault()
	}
	r.pos++
	if r.peek() == '}' {
		r.pos++
		return nil
	}
	for {
		if r.peek() != '"' {
			return r.fault()
		}
		at := r.pos
		key, err := r.mapKey(f.key)
		if err != nil {
			return err
		}
		if err := r.colon(); err != nil {
			return err
		}
		v := r.t.add(entry{})
		set := true
		if f.val.message != nil {
			err = r.message(v, f.val.message, limit, false)
		} else {
			r.blanks()
			set, err = r.scalarValue(v, f.val)
		}
		if err != nil {
			return within(err, "[*]")
		}
		if set {
			key.c = v
			k := r.t.add(key)
			r.t.entries[i].c++
			r.t.link(i, k)
		}
		c := r.peek()
		if c != ',' && c != '}' {
			return r.fault()
		}
		r.pos++
		if c == '}' {
			count := r.t.entries[i].c
			if r.t.sortMap(i, f); r.t.entries[i].c != count {
				return r.at(at, errors.New("a key twice"))
			}
			return nil
		}
	}
}
