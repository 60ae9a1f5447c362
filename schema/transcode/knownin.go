package transcode

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// knownForm reads a message of a type with a form of its own.
func (r *jsonReader) knownForm(m uint32, typ *Type, limit int) error {
	look := r.look
	r.look = nil
	defer func() { r.look = look }()
	switch typ.form {
	case formAny:
		return r.any(m, typ, limit)
	case formWrapper:
		return r.only(m, typ, func(i uint32, f *Field) (bool, error) { return r.scalarValue(i, f) })
	case formStruct:
		return r.only(m, typ, func(i uint32, f *Field) (bool, error) {
			err := r.pairs(i, f, limit)
			return r.t.entries[i].c > 0, err
		})
	case formList:
		return r.only(m, typ, func(i uint32, f *Field) (bool, error) {
			err := r.list(i, f, limit)
			return r.t.entries[i].c > 0, err
		})
	case formValue:
		return r.value(m, typ, limit)
	}
	if r.peek() != '"' {
		return r.fault()
	}
	at := r.pos
	text, err := r.text()
	if err != nil {
		return err
	}
	if typ.form == formMask {
		if !r.t.setMask(m, typ, text) {
			return r.at(at, errors.New("invalid path of a google.protobuf.FieldMask"))
		}
		return nil
	}
	parse := parseDuration
	if typ.form == formTimestamp {
		parse = parseTimestamp
	}
	seconds, nanos, ok := parse(text)
	if !ok {
		return r.at(at, errSyntax)
	}
	r.t.setBits(m, &typ.fields[typ.first], uint64(seconds))
	r.t.setBits(m, &typ.fields[typ.second], uint64(int64(nanos)))
	return nil
}

// only reads the one field of a message, number 1.
func (r *jsonReader) only(m uint32, typ *Type, read func(i uint32, f *Field) (bool, error)) error {
	f := &typ.fields[typ.first]
	i := r.t.add(entry{meta: uint32(f.slot)})
	set, err := read(i, f)
	if err != nil || !set {
		return err
	}
	if e := &r.t.entries[i]; f.implicit && (isText(f.kind) && e.b == 0 || !isText(f.kind) && e.bits() == 0) {
		return nil
	}
	r.t.link(m, i)
	return nil
}

// setBits sets a number that is unset, unless zero says nothing.
func (t *Tree) setBits(m uint32, f *Field, v uint64) {
	if v == 0 && f.implicit {
		return
	}
	e := entry{meta: uint32(f.slot)}
	e.setBits(v)
	t.insert(m, t.add(e))
}

// value reads a google.protobuf.Value.
func (r *jsonReader) value(m uint32, typ *Type, limit int) error {
	c := r.peek()
	var number protowire.Number
	switch {
	case c == 'n':
		number = 1
	case c == '-' || '0' <= c && c <= '9':
		number = 2
	case c == '"':
		number = 3
	case c == 't', c == 'f':
		number = 4
	case c == '{':
		number = 5
	case c == '[':
		number = 6
	default:
		return r.fault()
	}
	slot, _ := typ.slotOf(number)
	f := &typ.fields[slot]
	i := r.t.add(entry{meta: uint32(slot)})
	r.t.link(m, i)
	if f.message != nil {
		if err := r.known(f.message); err != nil {
			return err
		}
		return r.knownForm(i, f.message, limit)
	}
	if number == 1 {
		return r.literal("null")
	}
	_, err := r.scalarValue(i, f)
	return err
}

// any reads a google.protobuf.Any.
func (r *jsonReader) any(m uint32, typ *Type, limit int) error {
	if r.peek() != '{' {
		return r.fault()
	}
	start := r.pos
	url, at, fields, err := r.typeURL(limit)
	after := r.pos
	r.pos = start
	switch {
	case err != nil:
		return err
	case at < 0 && fields == 0:
		r.pos = after
		return nil
	case at < 0 && r.o.Lenient:
		return r.skip(limit)
	case at < 0:
		return r.at(start, errors.New(`missing "@type"`))
	}
	inner := typ.types.byURL(r.t.text(&url))
	if inner == nil {
		return r.at(at, errNotAType)
	}
	url.meta |= uint32(typ.first)
	r.t.insert(m, r.t.add(url))
	content := r.t.open(m, typ)
	if inner.compiled(); inner.form == formObject {
		return r.message(content, inner, limit, true)
	}
	if err := r.known(inner); err != nil {
		return err
	}
	return r.anyValue(content, inner, limit)
}

// typeURL reads the object of an Any for its "@type". at is where it stands, -1 if
// there is none.
func (r *jsonReader) typeURL(limit int) (url entry, at, fields int, err error) {
	at = -1
	r.pos++
	if r.peek() == '}' {
		r.pos++
		return entry{}, at, 0, nil
	}
	for {
		if r.peek() != '"' {
			return entry{}, at, 0, r.fault()
		}
		start := r.pos
		name, err := r.text()
		if err != nil {
			return entry{}, at, 0, err
		}
		isType := string(name) == "@type"
		if err := r.colon(); err != nil {
			return entry{}, at, 0, err
		}
		fields++
		switch {
		case !isType:
			err = r.skip(limit)
		case at >= 0:
			err = r.at(start, errors.New(`duplicate "@type"`))
		case r.peek() != '"':
			err = r.fault()
		default:
			at = r.pos
			if url, err = r.keepString(); err == nil && url.b == 0 {
				err = r.at(at, errors.New(`empty "@type"`))
			}
		}
		if err != nil {
			return entry{}, at, 0, err
		}
		c := r.peek()
		if c != ',' && c != '}' {
			return entry{}, at, 0, r.fault()
		}
		r.pos++
		if c == '}' {
			return url, at, fields, nil
		}
	}
}

// anyValue reads the content of an Any whose type has a form of its own: the
// member "value". The object has been read before and is well formed.
func (r *jsonReader) anyValue(m uint32, inner *Type, limit int) error {
	r.pos++
	found := false
	for {
		at := r.pos
		name, err := r.text()
		if err != nil {
			return err
		}
		which := string(name)
		if err := r.colon(); err != nil {
			return err
		}
		r.blanks()
		switch {
		case which == "@type":
			_, err = r.text()
		case which == "value" && found:
			err = r.at(at, errors.New(`duplicate field "value"`))
		case which == "value":
			found = true
			if inner.form == formEmpty {
				err = r.empty(limit)
			} else {
				err = r.knownForm(m, inner, limit)
			}
		case r.o.Lenient:
			err = r.skip(limit)
		default:
			err = r.at(at, &nameError{"unknown field", `"` + which + `"`})
		}
		if err != nil {
			return err
		}
		c := r.peek()
		if c != ',' && c != '}' {
			return r.fault()
		}
		r.pos++
		if c == '}' {
			break
		}
		if r.peek() != '"' {
			return r.fault()
		}
	}
	if !found && inner.form != formEmpty {
		return r.at(r.pos-1, errors.New(`missing "value"`))
	}
	return nil
}

// empty reads an object without known members.
func (r *jsonReader) empty(limit int) error {
	if r.peek() != '{' {
		return r.fault()
	}
	if r.o.Lenient {
		// The object itself is no level, as everywhere.
		return r.skip(limit + 1)
	}
	r.pos++
	if r.peek() != '}' {
		return r.fault()
	}
	r.pos++
	return nil
}

func (t *Tree) setMask(m uint32, typ *Type, text []byte) bool {
	joined := trimmed(text)
	if joined == "" {
		return true
	}
	f := &typ.fields[typ.first]
	list := t.add(entry{meta: uint32(f.slot)})
	for path := range strings.SplitSeq(joined, ",") {
		off := len(t.aux)
		for _, c := range []byte(path) {
			if c == '_' {
				return false
			}
			if c >= 'A' && c <= 'Z' {
				t.aux = append(t.aux, '_')
				c += 'a' - 'A'
			}
			t.aux = append(t.aux, c)
		}
		if !isFullName(t.aux[off:]) {
			return false
		}
		t.entries[list].c++
		t.link(list, t.add(t.since(off)))
	}
	t.link(m, list)
	return true
}

func parseTimestamp(b []byte) (seconds int64, nanos int32, ok bool) {
	s := string(b)
	at, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return 0, 0, false
	}
	if seconds = at.Unix(); seconds < minTimestamp || seconds > maxTimestamp {
		return 0, 0, false
	}
	point := strings.LastIndexByte(s, '.')
	zone := strings.LastIndexAny(s, "Z-+")
	if point >= 0 && zone >= point && zone-point > len(".999999999") {
		return 0, 0, false
	}
	return seconds, int32(at.Nanosecond()), true
}

func parseDuration(b []byte) (seconds int64, nanos int32, ok bool) {
	if len(b) < 2 || b[len(b)-1] != 's' {
		return 0, 0, false
	}
	b = b[:len(b)-1]
	neg := b[0] == '-'
	if neg || b[0] == '+' {
		b = b[1:]
	}
	n := digits(b)
	if len(b) == 0 || n == 0 && b[0] != '.' || n > 1 && b[0] == '0' {
		return 0, 0, false
	}
	if n > 0 {
		var err error
		if seconds, err = strconv.ParseInt(string(b[:n]), 10, 64); err != nil {
			return 0, 0, false
		}
	}
	if b = b[n:]; len(b) > 0 {
		if b[0] != '.' || len(b) > 10 || digits(b[1:]) != len(b)-1 {
			return 0, 0, false
		}
		frac := append(bytes.Clone(b[1:]), "000000000"[:10-len(b)]...)
		v, err := strconv.ParseInt(string(frac), 10, 32)
		if err != nil {
			return 0, 0, false
		}
		nanos = int32(v)
	}
	if neg {
		seconds, nanos = -seconds, -nanos
	}
	return seconds, nanos, seconds >= -maxDuration && seconds <= maxDuration
}
