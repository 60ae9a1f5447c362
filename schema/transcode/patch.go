package transcode

import (
	"bytes"
	"slices"
	"strconv"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Patch appends to b the JSON body that says after, where body said before: only
// what differs between the two messages differs between the two bodies. Unknown
// keys survive, defaults that were spelled out stay, names, numbers and enums keep
// their style, keys their order. Body must have been read as before. Bound holds
// the fields, as dotted paths of schema names, that are not the body's to say:
// what stands in it of them stays.
func Patch(b, body []byte, before, after *Tree, style Style, bound map[string]bool) ([]byte, error) {
	p := newPatcher(body, before, after, style, bound)
	return p.message(b, root, root, after.typ, "")
}

// PatchField is Patch for a body that is nothing but one field of the message, and
// blank if it said nothing. It appends nothing if the field has no form any more.
func PatchField(b, body []byte, fd protoreflect.FieldDescriptor, before, after *Tree, style Style) ([]byte, error) {
	p := newPatcher(body, before, after, style, nil)
	f := after.typ.field(fd)
	i, j := before.find(root, f.slot), after.find(root, f.slot)
	if p.blanks(); p.pos < len(p.src) {
		b, _, err := p.member(b, i, j, f, "")
		return b, err
	}
	if j == 0 || i != 0 && !p.differs(j) {
		return b, nil
	}
	return p.w.field(b, j, f)
}

// patcher walks the body once, beside the two messages.
type patcher struct {
	scanner
	before *Tree
	w      jsonWriter // of after
	bound  map[string]bool
}

func newPatcher(body []byte, before, after *Tree, style Style, bound map[string]bool) *patcher {
	c := comparer{a: before, b: after, mark: true}
	c.message(root, root, after.typ)
	return &patcher{scanner: scanner{src: body}, before: before, w: jsonWriter{t: after, style: style}, bound: bound}
}

// differs reports whether something of after that is in before is not the same.
func (p *patcher) differs(j uint32) bool { return p.w.t.entries[j].meta&flagDiffers != 0 }

// jump returns the value that starts at pos, and goes behind it. It only follows
// the structure: the text has been read before.
func (p *patcher) jump() []byte {
	p.blanks()
	start, depth := p.pos, 0
	for p.pos < len(p.src) {
		switch c := p.src[p.pos]; c {
		case '"':
			p.pos++
			for p.pos < len(p.src) && p.src[p.pos] != '"' {
				p.pos += plain(p.src[p.pos:])
				if p.pos < len(p.src) && p.src[p.pos] == '\\' {
					p.pos += 2
				} else if p.pos < len(p.src) && p.src[p.pos] != '"' {
					p.pos++
				}
			}
			if p.pos = min(p.pos+1, len(p.src)); depth == 0 {
				return p.src[start:p.pos]
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return p.src[start:p.pos]
			}
			if depth--; depth == 0 {
				p.pos++
				return p.src[start:p.pos]
			}
		case ',', ' ', '\n', '\t', '\r':
			if depth == 0 {
				return p.src[start:p.pos]
			}
		}
		p.pos++
	}
	return p.src[start:]
}

// next goes to the next member of an object or element of an array, behind its
// opening brace at first, and reports false at the end.
func (p *patcher) next() bool {
	c := p.peek()
	if c == ',' {
		p.pos++
		c = p.peek()
	}
	if c == '}' || c == ']' || c == 0 {
		p.pos = min(p.pos+1, len(p.src))
		return false
	}
	return true
}

// message patches the value at pos, the form of message x, to say message y.
func (p *patcher) message(b []byte, x, y uint32, typ *Type, path string) ([]byte, error) {
	if !p.differs(y) {
		return append(b, p.jump()...), nil
	}
	typ.compiled()
	switch typ.form {
	case formObject, formEmpty:
		return p.object(b, x, y, typ, path)
	case formAny:
		return p.any(b, x, y, typ)
	case formStruct:
		return p.pairs(b, p.before.find(x, typ.first), p.w.t.find(y, typ.first), &typ.fields[typ.first], path)
	case formValue:
		return p.value(b, x, y, typ, path)
	}
	return p.rewrite(b, y, &Field{message: typ})
}

// rewrite writes a value anew, in the way of the one at pos: a 64-bit integer
// without quotes where there were none, an enum as a number where it was one.
func (p *patcher) rewrite(b []byte, j uint32, f *Field) ([]byte, error) {
	text := p.jump()
	start := len(b)
	b, err := p.w.field(b, j, f)
	return p.restyle(b, start, text, f, j), err
}

func (p *patcher) restyle(b []byte, start int, text []byte, f *Field, j uint32) []byte {
	if f.enum != nil && !f.isMap && !f.list && !f.isNull && len(text) > 0 {
		return p.restyleEnum(b, start, text, f, p.w.t.entries[j].bits())
	}
	fresh := b[start:]
	if len(text) == 0 || text[0] != '-' && (text[0] < '0' || text[0] > '9') || len(fresh) < 2 || fresh[0] != '"' {
		return b
	}
	inner := string(fresh[1 : len(fresh)-1])
	if _, err := strconv.ParseInt(inner, 10, 64); err != nil {
		if _, err := strconv.ParseUint(inner, 10, 64); err != nil {
			return b
		}
	}
	return append(b[:start], inner...)
}

func (p *patcher) restyleEnum(b []byte, start int, text []byte, f *Field, v uint64) []byte {
	name := f.enum.quoted(int32(v))
	switch {
	case text[0] == '-' || text[0] >= '0' && text[0] <= '9':
		return strconv.AppendInt(b[:start], int64(int32(v)), 10)
	case text[0] == '"' && name != nil:
		return append(b[:start], name...)
	default:
		return b
	}
}

// find returns the field in a slot of message m, looking from hint on if it is not
// behind it.
func find(t *Tree, m uint32, slot int32, hint *uint32) uint32 {
	i := *hint
	if i == 0 || t.entries[i].slot() > slot {
		i = t.entries[m].a
	}
	for ; i != 0 && t.entries[i].slot() <= slot; i = t.entries[i].next {
		*hint = i
		if e := &t.entries[i]; e.slot() == slot && !e.cleared() {
			return i
		}
	}
	return 0
}

// object patches an object of fields. Keys that are no field stay.
func (p *patcher) object(b []byte, x, y uint32, typ *Type, path string) ([]byte, error) {
	if p.peek() != '{' {
		return p.rewrite(b, y, &Field{message: typ})
	}
	p.pos++
	written := make([]uint64, 1+len(typ.fields)/64)
	from, to := p.before.entries[x].a, p.w.t.entries[y].a
	start := len(b) + 1
	b = append(b, '{')
	for p.next() {
		at := len(b)
		if at > start {
			b = append(b, ',')
		}
		key := p.jump()
		if p.peek() == ':' {
			p.pos++
		}
		b = append(append(b, key...), ':')
		slot, ok := p.slot(typ, key)
		if !ok {
			b = append(b, p.jump()...)
			continue
		}
		written[slot>>6] |= 1 << (slot & 63)
		f := &typ.fields[slot]
		sub := p.path(path, f)
		var stays bool
		var err error
		if p.bound[sub] {
			b = append(b, p.jump()...)
			continue
		}
		i, j := find(p.before, x, slot, &from), find(p.w.t, y, slot, &to)
		if b, stays, err = p.member(b, i, j, f, sub); err != nil {
			return b, err
		}
		if !stays {
			b = b[:at]
		}
	}
	from = p.before.entries[x].a
	for j := p.w.t.live(p.w.t.entries[y].a); j != 0; j = p.w.t.live(p.w.t.entries[j].next) {
		slot := p.w.t.entries[j].slot()
		if int(slot) >= len(typ.fields) || has(written, int(slot)) {
			continue
		}
		f := &typ.fields[slot]
		if find(p.before, x, slot, &from) != 0 && !p.differs(j) || p.bound[p.path(path, f)] {
			continue
		}
		var err error
		if b, err = p.w.field(p.w.key(b, f), j, f); err != nil {
			return b, err
		}
	}
	return append(b, '}'), nil
}

func (p *patcher) path(path string, f *Field) string {
	switch {
	case len(p.bound) == 0:
		return ""
	case path == "":
		return string(f.desc.Name())
	default:
		return path + "." + string(f.desc.Name())
	}
}

// slot returns the field that a quoted key means.
func (p *patcher) slot(typ *Type, key []byte) (int32, bool) {
	if len(key) < 2 {
		return 0, false
	}
	name := key[1 : len(key)-1]
	if bytes.IndexByte(name, '\\') >= 0 {
		var ok bool
		if name, ok = unescape(nil, name); !ok {
			return 0, false
		}
	}
	slot, ok := typ.byKey[string(name)]
	return slot, ok
}

// member patches the value at pos, that of field i, to say field j; either is 0 if
// unset. It reports false if the member is to go.
func (p *patcher) member(b []byte, i, j uint32, f *Field, path string) ([]byte, bool, error) {
	switch {
	case i == 0 && j == 0, i != 0 && j != 0 && !p.differs(j):
		return append(b, p.jump()...), true, nil
	case j == 0 && f.isValue && !f.list:
		p.jump() // it has no form: null is a value
		return b, false, nil
	case j == 0:
		return p.gone(b, f)
	case i == 0, p.peek() == 'n' && (f.message != nil || f.isMap) && !f.isValue:
		b, err := p.rewrite(b, j, f)
		return b, true, err
	}
	var err error
	switch {
	case f.isMap:
		b, err = p.pairs(b, i, j, f, path)
	case f.list:
		b, err = p.list(b, i, j, f, path)
	default:
		b, err = p.single(b, i, j, f, path)
	}
	return b, true, err
}

// gone writes the default of a field that is unset now, where the author spells
// out defaults.
func (p *patcher) gone(b []byte, f *Field) ([]byte, bool, error) {
	text := p.jump()
	start := len(b)
	style := p.w.style
	switch {
	case !style.Defaults || f.ext || f.oneof >= 0:
		return b, false, nil
	case f.isMap:
		return append(b, "{}"...), true, nil
	case f.list:
		return append(b, "[]"...), true, nil
	case f.implicit:
		b, err := p.w.value(b, 0, f)
		if f.enum != nil {
			return p.restyleEnum(b, start, text, f, f.zero), true, err
		}
		return p.restyle(b, start, text, f, 0), true, err
	case style.Nulls:
		return append(b, "null"...), true, nil
	default:
		return b, false, nil
	}
}

// single patches one value, which may be an element of a list or map.
func (p *patcher) single(b []byte, i, j uint32, f *Field, path string) ([]byte, error) {
	if f.message != nil {
		return p.message(b, i, j, f.message, path)
	}
	one := *f
	one.list = false
	return p.rewrite(b, j, &one)
}

// list patches an array by position, as long as its length is the same.
func (p *patcher) list(b []byte, i, j uint32, f *Field, path string) ([]byte, error) {
	t := p.w.t
	length := p.before.entries[i].c
	if length != t.entries[j].c || p.peek() != '[' || f.enum != nil && !p.counts(length) {
		return p.rewrite(b, j, f)
	}
	p.pos++
	b = append(b, '[')
	if f.message == nil && !isText(f.kind) {
		was, is := p.before.numbers(i, f), t.numbers(j, f)
		for n := 0; p.next(); n++ {
			if n > 0 {
				b = append(b, ',')
			}
			v, _ := was.next()
			w, _ := is.next()
			text := p.jump()
			if equalNumbers(f.kind, v, w) {
				b = append(b, text...)
				continue
			}
			start := len(b)
			if b = p.w.number(b, f, w); f.enum != nil && !f.isNull {
				b = p.restyleEnum(b, start, text, f, w)
			} else {
				b = p.restyle(b, start, text, &Field{kind: f.kind}, 0)
			}
		}
		return append(b, ']'), nil
	}
	x, y := p.before.entries[i].a, t.entries[j].a
	var err error
	for p.next() {
		if x != p.before.entries[i].a {
			b = append(b, ',')
		}
		switch {
		case !p.differs(y):
			b = append(b, p.jump()...)
		default:
			if b, err = p.single(b, x, y, f, path); err != nil {
				return b, err
			}
		}
		x, y = p.before.entries[x].next, t.entries[y].next
	}
	return append(b, ']'), nil
}

// counts reports whether the array at pos has as many elements: names of enum
// values that nobody knows have been dropped.
func (p *patcher) counts(length uint32) bool {
	start := p.pos
	defer func() { p.pos = start }()
	p.pos++
	n := uint32(0)
	for p.next() {
		p.jump()
		n++
	}
	return n == length
}

// pairs patches the object form of a map by key.
func (p *patcher) pairs(b []byte, i, j uint32, f *Field, path string) ([]byte, error) {
	if p.peek() != '{' {
		p.jump()
		if j == 0 {
			return append(b, "{}"...), nil
		}
		return p.w.pairs(b, j, f)
	}
	p.pos++
	was, is := sortedPairs(p.before, i, f), sortedPairs(p.w.t, j, f)
	used := make([]bool, len(is))
	start := len(b) + 1
	b = append(b, '{')
	keys := &Tree{entries: make([]entry, root+1, root+2)}
	for p.next() {
		key := p.jump()
		if p.peek() == ':' {
			p.pos++
		}
		probe, ok := parseKey(keys, key, f.key)
		n, found := 0, false
		if ok {
			n, found = searchPairs(p.w.t, is, f, keys, probe)
		}
		if !found {
			p.jump()
			continue
		}
		used[n] = true
		if len(b) > start {
			b = append(b, ',')
		}
		b = append(append(b, key...), ':')
		var err error
		switch m, had := searchPairs(p.before, was, f, keys, probe); {
		case !had:
			p.jump()
			b, err = p.w.value(b, p.w.t.entries[is[n]].c, f.val)
		case !p.differs(is[n]):
			b = append(b, p.jump()...)
		default:
			b, err = p.single(b, p.before.entries[was[m]].c, p.w.t.entries[is[n]].c, f.val, path)
		}
		if err != nil {
			return b, err
		}
	}
	for n, at := range is {
		if used[n] {
			continue
		}
		if len(b) > start {
			b = append(b, ',')
		}
		var err error
		if b, err = p.w.pairKey(b, at, f.key); err != nil {
			return b, err
		}
		if b, err = p.w.value(b, p.w.t.entries[at].c, f.val); err != nil {
			return b, err
		}
	}
	return append(b, '}'), nil
}

func sortedPairs(t *Tree, i uint32, f *Field) []uint32 {
	if i == 0 {
		return nil
	}
	t.sortMap(i, f)
	all := make([]uint32, 0, t.entries[i].c)
	for at := t.entries[i].a; at != 0; at = t.entries[at].next {
		all = append(all, at)
	}
	return all
}

func searchPairs(t *Tree, all []uint32, f *Field, keys *Tree, probe uint32) (int, bool) {
	return slices.BinarySearchFunc(all, probe, func(at, probe uint32) int { return compareKey(f.key.kind, t, at, keys, probe) })
}

// parseKey reads a quoted key of a map into the scratch tree keys.
func parseKey(keys *Tree, key []byte, f *Field) (uint32, bool) {
	keys.src, keys.aux, keys.entries = key, keys.aux[:0], keys.entries[:root+1]
	r := jsonReader{scanner: scanner{src: key}, t: keys}
	e, err := r.mapKey(f)
	if err != nil {
		return 0, false
	}
	return keys.add(e), true
}

// value patches a google.protobuf.Value, objects and arrays member by member.
func (p *patcher) value(b []byte, x, y uint32, typ *Type, path string) ([]byte, error) {
	i, j := p.before.live(p.before.entries[x].a), p.w.t.live(p.w.t.entries[y].a)
	if i != 0 && j != 0 && p.before.entries[i].slot() == p.w.t.entries[j].slot() {
		if f := &typ.fields[p.w.t.entries[j].slot()]; f.message != nil {
			inner := f.message.compiled()
			content := &inner.fields[inner.first]
			from, to := p.before.find(i, inner.first), p.w.t.find(j, inner.first)
			if inner.form == formStruct {
				return p.pairs(b, from, to, content, path)
			}
			if from != 0 && to != 0 {
				return p.list(b, from, to, content, path)
			}
		}
	}
	p.jump()
	return p.w.message(b, y, typ, nil)
}

// any patches the object form of an Any whose type has stayed.
func (p *patcher) any(b []byte, x, y uint32, typ *Type) ([]byte, error) {
	from, inner := p.before.content(x, typ)
	to, other := p.w.t.content(y, typ)
	same := inner != nil && inner == other && (inner.compiled().form == formObject || inner.form == formEmpty)
	if same {
		i, j := p.before.find(x, typ.first), p.w.t.find(y, typ.first)
		same = bytes.Equal(p.before.text(&p.before.entries[i]), p.w.t.text(&p.w.t.entries[j]))
	}
	if !same {
		p.jump()
		return p.w.any(b, y, typ)
	}
	// "@type" is no field, so it stays as an unknown key does.
	return p.object(b, from, to, inner, "")
}
