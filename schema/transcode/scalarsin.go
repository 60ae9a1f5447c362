package transcode

import (
	"encoding/base64"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

func (r *jsonReader) mapKey(f *Field) (entry, error) {
	at := r.pos
	if f.kind == protoreflect.StringKind {
		return r.keepString()
	}
	name, err := r.text()
	if err != nil {
		return entry{}, err
	}
	var v uint64
	switch f.kind {
	case protoreflect.BoolKind:
		switch string(name) {
		case "true":
			v = 1
		case "false":
		default:
			err = strconv.ErrSyntax
		}
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		v, err = strconv.ParseUint(string(name), 10, 32)
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		v, err = strconv.ParseUint(string(name), 10, 64)
	default:
		var n int64
		n, err = strconv.ParseInt(string(name), 10, bitSize(f.kind))
		v = uint64(n)
	}
	if err != nil {
		return entry{}, r.at(at, errors.New("invalid key for "+f.kind.String()+" keys"))
	}
	e := entry{}
	e.setBits(v)
	return e, nil
}

func bitSize(k protoreflect.Kind) int {
	switch k {
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind,
		protoreflect.Uint64Kind, protoreflect.Fixed64Kind, protoreflect.DoubleKind:
		return 64
	default:
		return 32
	}
}

// keepString reads a string that stays.
func (r *jsonReader) keepString() (entry, error) {
	from, to, escaped, err := r.string()
	if err != nil {
		return entry{}, err
	}
	if escaped {
		return r.t.keep(r.tmp), nil
	}
	return entry{a: uint32(from), b: uint32(to - from)}, nil
}

// scalarValue reads a scalar into entry i. It reports false for a value that is to
// be ignored.
func (r *jsonReader) scalarValue(i uint32, f *Field) (bool, error) {
	switch f.kind {
	case protoreflect.StringKind:
		if r.peek() != '"' {
			return false, r.invalid(f)
		}
		e, err := r.keepString()
		r.t.setText(i, e)
		return true, err
	case protoreflect.BytesKind:
		if r.peek() != '"' {
			return false, r.invalid(f)
		}
		at := r.pos
		b, err := r.text()
		if err != nil {
			return false, err
		}
		off := len(r.t.aux)
		aux, ok := appendBase64(r.t.aux, b)
		if !ok {
			r.pos = at
			return false, r.invalid(f)
		}
		r.t.aux = aux
		r.t.setText(i, r.t.since(off))
		return true, nil
	}
	v, set, err := r.bits(f)
	if f.isNull && v != 0 {
		r.t.lossy = true
	}
	r.t.entries[i].setBits(v)
	return set, err
}

// setText makes entry i refer to what e refers to.
func (t *Tree) setText(i uint32, e entry) {
	at := &t.entries[i]
	at.meta |= e.meta & flagAux
	at.a, at.b = e.a, e.b
}

// invalid is the error of a value that is none of f. What is no token at all is
// not even that.
func (r *jsonReader) invalid(f *Field) error {
	start := r.peek()
	at := r.pos
	if start == '{' || start == '[' {
		return r.at(at, &valueError{f.kind.String()})
	}
	if err := r.scalar(start); err != nil {
		return err
	}
	return r.at(at, &valueError{f.kind.String()})
}

// appendBase64 reads base64 in either alphabet, padded or not.
func appendBase64(b, s []byte) ([]byte, bool) {
	enc := base64.StdEncoding
	if slices.Contains(s, '-') || slices.Contains(s, '_') {
		enc = base64.URLEncoding
	}
	if len(s)%4 != 0 {
		enc = enc.WithPadding(base64.NoPadding)
	}
	b, err := enc.AppendDecode(b, s)
	return b, err == nil
}

// bits reads a number, a bool or an enum.
func (r *jsonReader) bits(f *Field) (v uint64, set bool, err error) {
	c := r.peek()
	at := r.pos
	ok := false
	switch {
	case f.kind == protoreflect.BoolKind && c == 't':
		return 1, true, r.literal("true")
	case f.kind == protoreflect.BoolKind && c == 'f':
		return 0, true, r.literal("false")
	case f.kind == protoreflect.BoolKind:
	case f.isNull && c == 'n':
		return 0, true, r.literal("null")
	case f.enum != nil && c == '"':
		var name []byte
		if name, err = r.text(); err != nil {
			return 0, false, err
		}
		n, found := f.enum.names[string(name)]
		if found {
			r.look.enum(true)
		}
		if found || r.o.Lenient {
			return uint64(n), found, nil
		}
	case c == '-' || '0' <= c && c <= '9':
		var b []byte
		if b, err = r.number(); err != nil {
			return 0, false, err
		}
		if f.enum != nil {
			r.look.enum(false)
		}
		v, ok = numberBits(f.kind, b)
	case c == '"':
		var b []byte
		if b, err = r.text(); err != nil {
			return 0, false, err
		}
		v, ok = textBits(f.kind, b)
	}
	if !ok {
		r.pos = at
		return 0, false, r.invalid(f)
	}
	return v, true, nil
}

// numberBits converts a number of JSON.
func numberBits(k protoreflect.Kind, b []byte) (uint64, bool) {
	switch k {
	case protoreflect.FloatKind:
		v, err := strconv.ParseFloat(string(b), 32)
		return uint64(math.Float32bits(float32(v))), err == nil
	case protoreflect.DoubleKind:
		v, err := strconv.ParseFloat(string(b), 64)
		return math.Float64bits(v), err == nil
	}
	b, ok := integer(b)
	if !ok {
		return 0, false
	}
	if len(b) < 10 && b[0] != '-' { // what fits everywhere
		n := uint64(0)
		for _, c := range b {
			n = n*10 + uint64(c-'0')
		}
		return n, len(b) > 0
	}
	switch k {
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind, protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		v, err := strconv.ParseUint(string(b), 10, bitSize(k))
		return v, err == nil
	default:
		v, err := strconv.ParseInt(string(b), 10, bitSize(k))
		return uint64(v), err == nil
	}
}

// textBits converts a number in quotes.
func textBits(k protoreflect.Kind, b []byte) (uint64, bool) {
	if k == protoreflect.EnumKind {
		return 0, false
	}
	if k == protoreflect.FloatKind || k == protoreflect.DoubleKind {
		var v float64
		special := true
		switch string(b) {
		case "NaN":
			v = math.NaN()
		case "Infinity":
			v = math.Inf(1)
		case "-Infinity":
			v = math.Inf(-1)
		default:
			special = false
		}
		if special && k == protoreflect.FloatKind {
			return uint64(math.Float32bits(float32(v))), true
		}
		if special {
			return math.Float64bits(v), true
		}
	}
	if n, ok := numberEnd(b); !ok || n != len(b) {
		return 0, false
	}
	return numberBits(k, b)
}

func trimmed(b []byte) string { return strings.TrimSpace(string(b)) }
