package transcode

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Style is how JSON is written where there is a choice. Its zero value is that of
// protojson.
type Style struct {
	// ProtoNames writes the names of the schema instead of lowerCamel ones.
	ProtoNames bool
	// EnumNumbers writes enum values as numbers.
	EnumNumbers bool
	// Defaults spells out fields that are unset and have no presence.
	Defaults bool
	// Nulls, with Defaults, spells out other unset fields as null, but for members
	// of a oneof. NoNullValues leaves those of type google.protobuf.Value out,
	// whose null is a value.
	Nulls, NoNullValues bool
}

// AppendJSON appends the message as compact JSON to b. The error is for content
// that JSON has no form for, such as a Timestamp out of range.
func (t *Tree) AppendJSON(b []byte, s Style) ([]byte, error) {
	w := jsonWriter{t: t, style: s}
	return w.message(b, root, t.typ, nil)
}

type jsonWriter struct {
	t     *Tree
	style Style
}

func (w *jsonWriter) key(b []byte, f *Field) []byte {
	if c := b[len(b)-1]; c != '{' {
		b = append(b, ',')
	}
	if w.style.ProtoNames {
		return append(b, f.textKey...)
	}
	return append(b, f.jsonKey...)
}

// message appends message m; url is that of the Any that it is the content of.
func (w *jsonWriter) message(b []byte, m uint32, typ *Type, url []byte) ([]byte, error) {
	if typ.compiled(); typ.form != formObject && typ.form != formEmpty {
		return w.known(b, m, typ)
	}
	b = append(b, '{')
	var err error
	if url != nil {
		b = append(b, `"@type":`...)
		if b, err = appendString(b, url); err != nil {
			return b, err
		}
	}
	if w.style.Defaults {
		return w.spelledOut(b, m, typ)
	}
	t := w.t
	for i := t.live(t.entries[m].a); i != 0; i = t.live(t.entries[i].next) {
		f := &typ.fields[t.entries[i].slot()]
		if b, err = w.field(w.key(b, f), i, f); err != nil {
			return b, err
		}
	}
	return append(b, '}'), nil
}

// spelledOut appends all the fields of m, behind the opening brace.
func (w *jsonWriter) spelledOut(b []byte, m uint32, typ *Type) ([]byte, error) {
	t := w.t
	at := t.live(t.entries[m].a)
	var err error
	for slot := range typ.fields {
		f := &typ.fields[slot]
		switch {
		case at != 0 && int(t.entries[at].slot()) == slot:
			if b, err = w.field(w.key(b, f), at, f); err != nil {
				return b, err
			}
			at = t.live(t.entries[at].next)
		case f.ext || f.oneof >= 0:
		case f.isMap:
			b = append(w.key(b, f), "{}"...)
		case f.list:
			b = append(w.key(b, f), "[]"...)
		case f.implicit:
			b, err = w.value(w.key(b, f), 0, f)
		case w.style.Nulls && !(f.isValue && w.style.NoNullValues):
			b = append(w.key(b, f), "null"...)
		}
	}
	return append(b, '}'), err
}

func (w *jsonWriter) field(b []byte, i uint32, f *Field) ([]byte, error) {
	switch {
	case f.isMap:
		return w.pairs(b, i, f)
	case f.list:
		return w.list(b, i, f)
	default:
		return w.value(b, i, f)
	}
}

func (w *jsonWriter) list(b []byte, i uint32, f *Field) ([]byte, error) {
	t := w.t
	b = append(b, '[')
	if f.message == nil && !isText(f.kind) {
		values := t.numbers(i, f)
		for n := 0; ; n++ {
			v, ok := values.next()
			if !ok {
				return append(b, ']'), nil
			}
			if n > 0 {
				b = append(b, ',')
			}
			b = w.number(b, f, v)
		}
	}
	var err error
	for at := t.entries[i].a; at != 0; at = t.entries[at].next {
		if b, err = w.value(b, at, f); err != nil {
			return b, err
		}
		if t.entries[at].next != 0 {
			b = append(b, ',')
		}
	}
	return append(b, ']'), nil
}

func (w *jsonWriter) pairs(b []byte, i uint32, f *Field) ([]byte, error) {
	t := w.t
	t.sortMap(i, f)
	b = append(b, '{')
	var err error
	for at := t.entries[i].a; at != 0; at = t.entries[at].next {
		if b, err = w.pairKey(b, at, f.key); err != nil {
			return b, err
		}
		if b, err = w.value(b, t.entries[at].c, f.val); err != nil {
			return b, err
		}
		if t.entries[at].next != 0 {
			b = append(b, ',')
		}
	}
	return append(b, '}'), nil
}

// pairKey appends a key of a map and its colon.
func (w *jsonWriter) pairKey(b []byte, at uint32, key *Field) ([]byte, error) {
	e := &w.t.entries[at]
	var err error
	switch key.kind {
	case protoreflect.StringKind:
		b, err = appendString(b, w.t.text(e))
	case protoreflect.BoolKind:
		b = strconv.AppendBool(append(b, '"'), e.bits() != 0)
		b = append(b, '"')
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind, protoreflect.Fixed32Kind, protoreflect.Fixed64Kind:
		b = strconv.AppendUint(append(b, '"'), e.bits(), 10)
		b = append(b, '"')
	default:
		b = strconv.AppendInt(append(b, '"'), int64(e.bits()), 10)
		b = append(b, '"')
	}
	return append(b, ':'), err
}

// value appends one value; entry 0 is that of an unset field.
func (w *jsonWriter) value(b []byte, i uint32, f *Field) ([]byte, error) {
	e := &w.t.entries[i]
	switch {
	case f.message != nil:
		return w.message(b, i, f.message, nil)
	case f.kind == protoreflect.StringKind:
		b, err := appendString(b, w.t.text(e))
		if err != nil {
			err = fmt.Errorf("%s: %w", f.desc.FullName(), err)
		}
		return b, err
	case f.kind == protoreflect.BytesKind:
		b = append(b, '"')
		b = base64.StdEncoding.AppendEncode(b, w.t.text(e))
		return append(b, '"'), nil
	case i == 0:
		return w.number(b, f, f.zero), nil
	default:
		return w.number(b, f, e.bits()), nil
	}
}

func (w *jsonWriter) number(b []byte, f *Field, v uint64) []byte {
	switch f.kind {
	case protoreflect.BoolKind:
		return strconv.AppendBool(b, v != 0)
	case protoreflect.EnumKind:
		if f.isNull {
			return append(b, "null"...)
		}
		if name := f.enum.quoted(int32(v)); name != nil && !w.style.EnumNumbers {
			return append(b, name...)
		}
		return strconv.AppendInt(b, int64(int32(v)), 10)
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return strconv.AppendUint(b, v, 10)
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return append(strconv.AppendUint(append(b, '"'), v, 10), '"')
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return append(strconv.AppendInt(append(b, '"'), int64(v), 10), '"')
	case protoreflect.FloatKind:
		return appendFloat(b, float64(math.Float32frombits(uint32(v))), 32)
	case protoreflect.DoubleKind:
		return appendFloat(b, math.Float64frombits(v), 64)
	default:
		return strconv.AppendInt(b, int64(v), 10)
	}
}

func appendFloat(b []byte, v float64, size int) []byte {
	switch {
	case math.IsNaN(v):
		return append(b, `"NaN"`...)
	case math.IsInf(v, 1):
		return append(b, `"Infinity"`...)
	case math.IsInf(v, -1):
		return append(b, `"-Infinity"`...)
	}
	abs, format := math.Abs(v), byte('f')
	if abs != 0 && (size == 64 && (abs < 1e-6 || abs >= 1e21) ||
		size == 32 && (float32(abs) < 1e-6 || float32(abs) >= 1e21)) {
		format = 'e'
	}
	b = strconv.AppendFloat(b, v, format, -1, size)
	if n := len(b); format == 'e' && n >= 4 && b[n-4] == 'e' && b[n-3] == '-' && b[n-2] == '0' {
		b[n-2] = b[n-1] // e-09 is e-9
		b = b[:n-1]
	}
	return b
}

// known appends a message of a type with a form of its own.
func (w *jsonWriter) known(b []byte, m uint32, typ *Type) ([]byte, error) {
	t := w.t
	if typ.missing {
		return b, fmt.Errorf("%w: %s", errIncomplete, typ.desc.FullName())
	}
	first := t.find(m, typ.first)
	switch typ.form {
	case formAny:
		return w.any(b, m, typ)
	case formWrapper:
		return w.value(b, first, &typ.fields[typ.first])
	case formStruct:
		if first == 0 {
			return append(b, "{}"...), nil
		}
		return w.pairs(b, first, &typ.fields[typ.first])
	case formList:
		if first == 0 {
			return append(b, "[]"...), nil
		}
		return w.list(b, first, &typ.fields[typ.first])
	case formValue:
		i := t.live(t.entries[m].a)
		if i == 0 {
			return b, errors.New("a google.protobuf.Value of no kind")
		}
		f := &typ.fields[t.entries[i].slot()]
		if f.kind == protoreflect.DoubleKind {
			if v := math.Float64frombits(t.entries[i].bits()); math.IsNaN(v) || math.IsInf(v, 0) {
				return b, errors.New("a google.protobuf.Value that is no number of JSON")
			}
		}
		return w.value(b, i, f)
	case formMask:
		return w.mask(b, first, typ)
	}
	seconds := int64(t.entries[first].bits())
	nanos := int64(int32(t.entries[t.find(m, typ.second)].bits()))
	if typ.form == formTimestamp {
		return appendTimestamp(b, seconds, nanos)
	}
	return appendDuration(b, seconds, nanos)
}

func (w *jsonWriter) any(b []byte, m uint32, typ *Type) ([]byte, error) {
	t := w.t
	content, inner := t.content(m, typ)
	if inner == nil {
		if t.find(m, typ.first) != 0 || t.find(m, typ.second) != 0 {
			return b, fmt.Errorf("%w: content of an Any", errIncomplete)
		}
		return append(b, "{}"...), nil
	}
	url := t.text(&t.entries[t.find(m, typ.first)])
	if inner.compiled(); inner.form == formObject || inner.form == formEmpty {
		return w.message(b, content, inner, url)
	}
	b = append(b, `{"@type":`...)
	b, err := appendString(b, url)
	if err != nil {
		return b, err
	}
	b = append(b, `,"value":`...)
	b, err = w.known(b, content, inner)
	return append(b, '}'), err
}

func (w *jsonWriter) mask(b []byte, list uint32, typ *Type) ([]byte, error) {
	t := w.t
	b = append(b, '"')
	for at := t.entries[list].a; list != 0 && at != 0; at = t.entries[at].next {
		path := t.text(&t.entries[at])
		if !isFullName(path) {
			return b, fmt.Errorf("%s: not a path", typ.desc.FullName())
		}
		upper := false
		for i, c := range path {
			switch {
			case c >= 'A' && c <= 'Z',
				c == '_' && (i+1 == len(path) || path[i+1] < 'a' || path[i+1] > 'z'):
				return b, fmt.Errorf("%s: a path that has no lowerCamel form", typ.desc.FullName())
			case c == '_':
				upper = true
				continue
			case upper:
				c -= 'a' - 'A'
			}
			upper = false
			b = append(b, c)
		}
		if t.entries[at].next != 0 {
			b = append(b, ',')
		}
	}
	return append(b, '"'), nil
}

// isFullName reports whether s is identifiers joined by dots.
func isFullName(s []byte) bool {
	start := true
	for _, c := range s {
		switch {
		case c == '_', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9' && !start:
			start = false
		case c == '.' && !start:
			start = true
		default:
			return false
		}
	}
	return !start
}

const (
	minTimestamp = -62135596800
	maxTimestamp = 253402300799
	maxDuration  = 315576000000
	maxNanos     = 999999999
)

func appendTimestamp(b []byte, seconds, nanos int64) ([]byte, error) {
	if seconds < minTimestamp || seconds > maxTimestamp || nanos < 0 || nanos > maxNanos {
		return b, errors.New("a google.protobuf.Timestamp out of range")
	}
	at := time.Unix(seconds, 0).UTC()
	year, month, day := at.Date()
	hour, minute, second := at.Clock()
	b = append(b, '"')
	b = appendDigits(b, year, 4)
	b = appendDigits(append(b, '-'), int(month), 2)
	b = appendDigits(append(b, '-'), day, 2)
	b = appendDigits(append(b, 'T'), hour, 2)
	b = appendDigits(append(b, ':'), minute, 2)
	b = appendDigits(append(b, ':'), second, 2)
	return append(appendNanos(b, int(nanos)), 'Z', '"'), nil
}

func appendDuration(b []byte, seconds, nanos int64) ([]byte, error) {
	if seconds < -maxDuration || seconds > maxDuration || nanos < -maxNanos || nanos > maxNanos ||
		seconds > 0 && nanos < 0 || seconds < 0 && nanos > 0 {
		return b, errors.New("a google.protobuf.Duration out of range")
	}
	b = append(b, '"')
	if seconds < 0 || nanos < 0 {
		b, seconds, nanos = append(b, '-'), -seconds, -nanos
	}
	b = strconv.AppendInt(b, seconds, 10)
	return append(appendNanos(b, int(nanos)), 's', '"'), nil
}

// appendNanos appends a fraction of 0, 3, 6 or 9 digits.
func appendNanos(b []byte, nanos int) []byte {
	switch {
	case nanos == 0:
		return b
	case nanos%1000000 == 0:
		return appendDigits(append(b, '.'), nanos/1000000, 3)
	case nanos%1000 == 0:
		return appendDigits(append(b, '.'), nanos/1000, 6)
	default:
		return appendDigits(append(b, '.'), nanos, 9)
	}
}

func appendDigits(b []byte, n, width int) []byte {
	at := len(b)
	b = append(b, "000000000"[:width]...)
	for i := at + width - 1; i >= at; i-- {
		b[i] += byte(n % 10)
		n /= 10
	}
	return b
}

// appendString appends s as a JSON string.
func appendString(b, s []byte) ([]byte, error) {
	b = append(b, '"')
	n := plain(s)
	if n == len(s) {
		return append(append(b, s...), '"'), nil
	}
	high := false
	start := 0
	for i := n; i < len(s); i++ {
		c := s[i]
		if c >= utf8.RuneSelf {
			high = true
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[start:i]...)
		start = i + 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\b':
			b = append(b, '\\', 'b')
		case '\f':
			b = append(b, '\\', 'f')
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', "01"[c>>4], "0123456789abcdef"[c&15])
		}
	}
	if high && !utf8.Valid(s) {
		return b, errUTF8
	}
	return append(append(b, s[start:]...), '"'), nil
}
