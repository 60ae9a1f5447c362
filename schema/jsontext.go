package schema

import (
	"bytes"
	"encoding/json"
	"errors"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// compact removes the blanks that protojson puts between tokens, at random per
// build, in place.
func compact(b []byte) []byte {
	out := b[:0]
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case ' ', '\n', '\t', '\r':
			continue
		case '"':
			end := stringEnd(b, i)
			out = append(out, b[i:end]...)
			i = end - 1
			continue
		}
		out = append(out, b[i])
	}
	return out
}

// stringEnd returns the index behind the JSON string that starts at b[i].
func stringEnd(b []byte, i int) int {
	for i++; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(b)
}

// decodeBody parses the first JSON value of body as the upstream would.
func (t *MessageType) decodeBody(body []byte) (protoreflect.Message, error) {
	m := t.typ.New()
	err := t.parse(body, m, true)
	if err == nil {
		return m, nil
	}
	// Servers that read from a stream stop behind the first value.
	decoder := json.NewDecoder(bytes.NewReader(body))
	var first json.RawMessage
	if decoder.Decode(&first) != nil || len(bytes.TrimSpace(body[decoder.InputOffset():])) == 0 {
		return nil, err
	}
	m = t.typ.New()
	if err := t.parse(first, m, true); err != nil {
		return nil, err
	}
	return m, nil
}

// jsonMember is one member of a JSON object, as it stands in the text.
type jsonMember struct {
	key   string // unquoted
	raw   []byte // the key as written, quotes included
	value []byte
}

var errJSON = errors.New("malformed JSON")

// skipBlanks returns the index of the next byte of b, from i, that is no blank.
func skipBlanks(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// valueEnd returns the index behind the JSON value that starts at b[i]. It only
// follows the structure: the text has been parsed before.
func valueEnd(b []byte, i int) int {
	depth := 0
	for i < len(b) {
		switch b[i] {
		case '"':
			i = stringEnd(b, i)
			if depth == 0 {
				return i
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i
			}
			depth--
			if depth == 0 {
				return i + 1
			}
		case ',', ' ', '\n', '\t', '\r':
			if depth == 0 {
				return i
			}
		}
		i++
	}
	return i
}

// splitObject returns the members of the JSON object that b starts with, in order.
func splitObject(b []byte) ([]jsonMember, error) {
	i := skipBlanks(b, 0)
	if i >= len(b) || b[i] != '{' {
		return nil, errJSON
	}
	var members []jsonMember
	for i = skipBlanks(b, i+1); i < len(b); {
		switch b[i] {
		case '}':
			return members, nil
		case ',':
			i = skipBlanks(b, i+1)
			continue
		case '"':
		default:
			return nil, errJSON
		}
		end := stringEnd(b, i)
		m := jsonMember{raw: b[i:end]}
		if bytes.IndexByte(m.raw, '\\') < 0 {
			m.key = string(m.raw[1 : len(m.raw)-1])
		} else if err := json.Unmarshal(m.raw, &m.key); err != nil {
			return nil, errJSON
		}
		i = skipBlanks(b, end)
		if i >= len(b) || b[i] != ':' {
			return nil, errJSON
		}
		i = skipBlanks(b, i+1)
		end = valueEnd(b, i)
		if end == i {
			return nil, errJSON
		}
		m.value = b[i:end]
		members = append(members, m)
		i = skipBlanks(b, end)
	}
	return nil, errJSON
}

// splitArray returns the elements of the JSON array that b starts with.
func splitArray(b []byte) ([][]byte, error) {
	i := skipBlanks(b, 0)
	if i >= len(b) || b[i] != '[' {
		return nil, errJSON
	}
	var elements [][]byte
	for i = skipBlanks(b, i+1); i < len(b); {
		switch b[i] {
		case ']':
			return elements, nil
		case ',':
			i = skipBlanks(b, i+1)
			continue
		}
		end := valueEnd(b, i)
		if end == i {
			return nil, errJSON
		}
		elements = append(elements, b[i:end])
		i = skipBlanks(b, end)
	}
	return nil, errJSON
}

// Kinds of JSON value, by their first byte.
func isString(b []byte) bool { return firstByte(b) == '"' }
func isNull(b []byte) bool   { return firstByte(b) == 'n' }
func isNumber(b []byte) bool {
	c := firstByte(b)
	return c == '-' || c >= '0' && c <= '9'
}

func firstByte(b []byte) byte {
	if i := skipBlanks(b, 0); i < len(b) {
		return b[i]
	}
	return 0
}

// appendObject writes an object of the given members.
func appendObject(out []byte, members []jsonMember) []byte {
	out = append(out, '{')
	for i, m := range members {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, m.raw...)
		out = append(out, ':')
		out = append(out, m.value...)
	}
	return append(out, '}')
}

// quoteJSON returns s as a JSON string.
func quoteJSON(s string) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // strings always encode
	return bytes.TrimRight(b.Bytes(), "\n")
}
