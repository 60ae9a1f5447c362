package transcode

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strconv"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// plain returns how many bytes of s, from its start, are printable ASCII that
// stands for itself in a JSON string.
func plain(s []byte) int {
	const (
		low  = 0x0101010101010101
		high = 0x8080808080808080
	)
	i := 0
	for ; i+8 <= len(s); i += 8 {
		v := binary.LittleEndian.Uint64(s[i:])
		// In each byte the high bit is set for a byte that is above 0x7f, below 0x20,
		// '"' or '\'. (A borrow may set it too high up; the loop below looks closely.)
		quote, slash := v^(low*'"'), v^(low*'\\')
		if (v|(v-low*' ')|(quote-low)|(slash-low))&high != 0 {
			break
		}
	}
	for ; i < len(s); i++ {
		if c := s[i]; c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' {
			return i
		}
	}
	return i
}

var (
	errSyntax   = errors.New("not the JSON that the type takes")
	errNotJSON  = errors.New("not valid JSON")
	errTooDeep  = errors.New("exceeded max recursion depth")
	errNotAType = errors.New("a type that is not in the schema")
)

// scanner reads the tokens of JSON, as strictly and in places as generously as
// protojson does. What it has read is behind pos.
type scanner struct {
	src []byte
	pos int
	tmp []byte // for strings that are not kept
}

func (s *scanner) blanks() {
	for s.pos < len(s.src) {
		switch s.src[s.pos] {
		case ' ', '\n', '\r', '\t':
			s.pos++
		default:
			return
		}
	}
}

// peek returns the first byte of the next token, 0 at the end.
func (s *scanner) peek() byte {
	s.blanks()
	if s.pos >= len(s.src) {
		return 0
	}
	return s.src[s.pos]
}

// fault is what is wrong at the current place.
func (s *scanner) fault() error {
	if s.pos >= len(s.src) {
		if len(bytes.TrimSpace(s.src)) == 0 {
			return s.at(s.pos, errSyntax)
		}
		return &ParseError{err: errNotJSON}
	}
	return s.at(s.pos, errSyntax)
}

func (s *scanner) at(pos int, err error) error {
	before := s.src[:min(pos, len(s.src))]
	column := before[bytes.LastIndexByte(before, '\n')+1:]
	return &ParseError{Line: bytes.Count(before, []byte("\n")) + 1, Column: utf8.RuneCount(column) + 1, err: err}
}

// literal reads null, true or false.
func (s *scanner) literal(word string) error {
	end := s.pos + len(word)
	if end > len(s.src) || string(s.src[s.pos:end]) != word || end < len(s.src) && isWord(s.src[end]) {
		return s.fault()
	}
	s.pos = end
	return nil
}

func isWord(c byte) bool {
	return c == '-' || c == '+' || c == '.' || c == '_' ||
		'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// string reads a string. Its text is src[from:to]; escaped says that it is not to
// be taken literally, but was checked.
func (s *scanner) string() (from, to int, escaped bool, err error) {
	from = s.pos + 1
	i := from
	high := false
	for {
		i += plain(s.src[i:])
		if i >= len(s.src) {
			s.pos = len(s.src)
			return 0, 0, false, &ParseError{err: errNotJSON}
		}
		switch c := s.src[i]; {
		case c == '"':
			text := s.src[from:i]
			if high && !utf8.Valid(text) {
				return 0, 0, false, s.at(s.pos, errUTF8)
			}
			if escaped {
				var ok bool
				if s.tmp, ok = unescape(s.tmp[:0], text); !ok {
					return 0, 0, false, s.at(s.pos, errSyntax)
				}
			}
			s.pos = i + 1
			return from, i, escaped, nil
		case c == '\\':
			escaped = true
			i += 2
			if i > len(s.src) {
				i = len(s.src)
			}
		case c >= utf8.RuneSelf:
			high = true
			for i < len(s.src) && s.src[i] >= utf8.RuneSelf {
				i++
			}
		default:
			s.pos = i
			return 0, 0, false, s.fault()
		}
	}
}

// text reads a string that is not kept: it is valid until the next one is read.
func (s *scanner) text() ([]byte, error) {
	from, to, escaped, err := s.string()
	if err != nil || escaped {
		return s.tmp, err
	}
	return s.src[from:to], nil
}

// unescape appends the text of a JSON string to b.
func unescape(b, text []byte) ([]byte, bool) {
	for {
		i := bytes.IndexByte(text, '\\')
		if i < 0 {
			return append(b, text...), true
		}
		b = append(b, text[:i]...)
		if len(text) < i+2 {
			return b, false
		}
		c := text[i+1]
		text = text[i+2:]
		switch c {
		case '"', '\\', '/':
			b = append(b, c)
		case 'b':
			b = append(b, '\b')
		case 'f':
			b = append(b, '\f')
		case 'n':
			b = append(b, '\n')
		case 'r':
			b = append(b, '\r')
		case 't':
			b = append(b, '\t')
		case 'u':
			r, ok := hex4(text)
			if !ok {
				return b, false
			}
			text = text[4:]
			if utf16.IsSurrogate(r) {
				if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
					return b, false
				}
				low, ok := hex4(text[2:])
				if r = utf16.DecodeRune(r, low); !ok || r == unicode.ReplacementChar {
					return b, false
				}
				text = text[6:]
			}
			b = utf8.AppendRune(b, r)
		default:
			return b, false
		}
	}
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range b[:4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// number reads a number.
func (s *scanner) number() ([]byte, error) {
	n, ok := numberEnd(s.src[s.pos:])
	if !ok {
		return nil, s.fault()
	}
	b := s.src[s.pos : s.pos+n]
	s.pos += n
	return b, nil
}

func digits(b []byte) int {
	i := 0
	for i < len(b) && '0' <= b[i] && b[i] <= '9' {
		i++
	}
	return i
}

// numberEnd returns the length of the number that b starts with. Like protojson's,
// it lets the digits of an exponent be absent.
func numberEnd(b []byte) (int, bool) {
	n := 0
	if len(b) > 0 && b[0] == '-' {
		n++
	}
	whole := digits(b[n:])
	if whole == 0 {
		return 0, false
	}
	if b[n] == '0' {
		whole = 1
	}
	n += whole
	if len(b) >= n+2 && b[n] == '.' {
		if frac := digits(b[n+1:]); frac > 0 {
			n += 1 + frac
		}
	}
	if len(b) >= n+2 && (b[n] == 'e' || b[n] == 'E') {
		n++
		if b[n] == '+' || b[n] == '-' {
			if n++; n == len(b) {
				return 0, false
			}
		}
		n += digits(b[n:])
	}
	if n < len(b) && isWord(b[n]) {
		return 0, false
	}
	return n, true
}

// integer rewrites a number as digits without fraction and exponent, if it is an
// integer of at most 20 digits.
func integer(b []byte) ([]byte, bool) {
	rest, neg := b, false
	if rest[0] == '-' {
		rest, neg = rest[1:], true
	}
	n := digits(rest)
	if n == len(rest) {
		if len(rest) == 1 && rest[0] == '0' {
			return rest, true
		}
		return b, true
	}
	whole := rest[:n]
	if whole[0] == '0' {
		whole = nil
	}
	var frac []byte
	if rest = rest[n:]; rest[0] == '.' {
		n = digits(rest[1:])
		frac, rest = bytes.TrimRight(rest[1:1+n], "0"), rest[1+n:]
	}
	if len(whole) == 0 && len(frac) == 0 {
		return []byte("0"), true
	}
	exp := 0
	if len(rest) > 1 {
		e, err := strconv.ParseInt(string(rest[1:]), 10, 32)
		if err != nil {
			return nil, false
		}
		exp = int(e)
	}
	var out []byte
	if neg {
		out = append(out, '-')
	}
	if exp >= 0 {
		if len(frac) > exp || len(whole)+exp > 20 {
			return nil, false
		}
		out = append(append(out, whole...), frac...)
		for range exp - len(frac) {
			out = append(out, '0')
		}
		return out, true
	}
	keep := len(whole) + exp
	if len(frac) > 0 || keep < 0 || len(bytes.TrimRight(whole[keep:], "0")) > 0 {
		return nil, false
	}
	return append(out, whole[:keep]...), true
}

// skip reads any value, nested at most limit levels deep.
func (s *scanner) skip(limit int) error {
	var few [64]byte
	open := few[:0]
	for {
		// A value.
		switch c := s.peek(); c {
		case '{', '[':
			s.pos++
			if open = append(open, c); len(open) > limit {
				return s.at(s.pos-1, errTooDeep)
			}
			end := c + 2 // '}' and ']'
			if s.peek() == end {
				break
			}
			if c == '{' {
				if err := s.name(); err != nil {
					return err
				}
			}
			continue
		default:
			if err := s.scalar(c); err != nil {
				return err
			}
			if len(open) == 0 {
				return nil
			}
		}
		// What follows a value, or the end of an empty one.
		for {
			last := open[len(open)-1]
			switch c := s.peek(); {
			case c == last+2:
				s.pos++
				if open = open[:len(open)-1]; len(open) == 0 {
					return nil
				}
				continue
			case c != ',':
				return s.fault()
			}
			s.pos++
			if last == '{' {
				if s.peek() != '"' {
					return s.fault()
				}
				if err := s.name(); err != nil {
					return err
				}
			}
			break
		}
	}
}

// name reads the name of a member and the colon.
func (s *scanner) name() error {
	if s.peek() != '"' {
		return s.fault()
	}
	if _, _, _, err := s.string(); err != nil {
		return err
	}
	return s.colon()
}

func (s *scanner) colon() error {
	if s.peek() != ':' {
		return s.fault()
	}
	s.pos++
	return nil
}

// scalar reads the string, number or literal that starts with c.
func (s *scanner) scalar(c byte) error {
	var err error
	switch {
	case c == '"':
		_, _, _, err = s.string()
	case c == 'n':
		err = s.literal("null")
	case c == 't':
		err = s.literal("true")
	case c == 'f':
		err = s.literal("false")
	case c == '-' || '0' <= c && c <= '9':
		_, err = s.number()
	default:
		err = s.fault()
	}
	return err
}
