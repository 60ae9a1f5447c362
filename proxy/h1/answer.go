package h1

import (
	"bytes"
	"errors"
	"net/http"
	"strings"
)

// errAnswer is for an upstream whose answer cannot be understood in one way only.
var errAnswer = errors.New("upstream's answer is malformed")

// answer is the head of an answer of the upstream. Its strings are valid until more is read.
type answer struct {
	status  int
	reason  string
	minor   int
	fields  []Field // what may travel on
	length  int64   // -1: not stated
	chunked bool
	closes  bool
}

// answerEnd is headEnd for answers, whose lines may end in LF alone.
func answerEnd(b []byte, from int) (end, next int) {
	for {
		i := bytes.IndexByte(b[from:], '\n')
		if i < 0 {
			return 0, from
		}
		empty := i == 0 || i == 1 && b[from] == '\r'
		from += i + 1
		if empty {
			return from, from
		}
	}
}

// parse reads a whole head, as answerEnd found it. Names are put in canonical form where they lie.
func (a *answer) parse(b []byte) error {
	*a = answer{fields: a.fields[:0], length: -1}
	line, b := cutLine(b)
	if !a.parseLine(line) {
		return errAnswer
	}
	for {
		line, b = cutLine(b)
		if len(line) == 0 {
			break
		}
		for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') { // RFC 9112 5.2: folded lines become one.
			more, after := cutLine(b)
			joined := line[:cap(line)-cap(more)+len(more)]
			for i := len(line); joined[i] == '\r' || joined[i] == '\n'; i++ {
				joined[i] = ' '
			}
			line, b = joined, after
		}
		name, value, ok := parseField(line)
		if !ok || !a.field(name, value) {
			return errAnswer
		}
	}
	if a.chunked {
		if a.minor == 0 {
			return errAnswer
		}
		a.length = -1
	}
	return nil
}

// cutLine cuts off the first line, which ends in LF.
func cutLine(b []byte) (line, rest []byte) {
	i := bytes.IndexByte(b, '\n')
	line, rest = b[:i], b[i+1:]
	if i > 0 && line[i-1] == '\r' {
		line = line[:i-1]
	}
	return line, rest
}

func (a *answer) parseLine(line []byte) bool {
	const start = "HTTP/1.x 200"
	if len(line) < len(start) || string(line[:7]) != "HTTP/1." || line[7] != '0' && line[7] != '1' || line[8] != ' ' {
		return false
	}
	a.minor = int(line[7] - '0')
	for _, c := range line[9:12] {
		if c < '0' || c > '9' {
			return false
		}
		a.status = a.status*10 + int(c-'0')
	}
	if a.status < 100 {
		return false
	}
	if line = line[12:]; len(line) > 0 {
		if line[0] != ' ' || !isPlain(line) {
			return false
		}
		a.reason = text(line[1:])
	}
	return true
}

// isPlain reports whether b has no control characters.
func isPlain(b []byte) bool {
	for _, c := range b {
		if class[c]&isText == 0 {
			return false
		}
	}
	return true
}

// parseField reads a field line, in which the name is put in canonical form.
func parseField(line []byte) (name, value string, ok bool) {
	colon, upper := 0, true
	for ; colon < len(line) && class[line[colon]]&isToken != 0; colon++ {
		c := line[colon]
		if upper {
			line[colon] = upperCase[c]
		} else {
			line[colon] = lowerCase[c]
		}
		upper = c == '-'
	}
	if colon == 0 || colon == len(line) || line[colon] != ':' {
		return "", "", false
	}
	b := trim(line[colon+1:])
	return text(line[:colon]), text(b), isPlain(b)
}

// field takes in one field.
func (a *answer) field(name, value string) bool {
	switch name {
	case "Content-Length":
		n, ok := parseLength(value)
		if !ok || a.length >= 0 && a.length != n {
			return false
		}
		a.length = n
	case "Transfer-Encoding":
		if a.chunked || !strings.EqualFold(value, "chunked") {
			return false
		}
		a.chunked = true
	case "Connection":
		for token := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(strings.Trim(token, " \t"), "close") {
				a.closes = true
			}
		}
		a.fields = append(a.fields, Field{Name: name, Value: value})
	case "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Upgrade", "Http2-Settings":
	default:
		a.fields = append(a.fields, Field{Name: name, Value: value})
	}
	return true
}

// travels removes the Connection fields, and what they name.
func (a *answer) travels() {
	var named []string
	for _, f := range a.fields {
		if f.Name == "Connection" {
			for token := range strings.SplitSeq(f.Value, ",") {
				switch token = strings.Trim(token, " \t"); {
				case token == "", strings.EqualFold(token, "close"), strings.EqualFold(token, "keep-alive"):
				default:
					named = append(named, http.CanonicalHeaderKey(token))
				}
			}
		}
	}
	kept := a.fields[:0]
next:
	for _, f := range a.fields {
		if f.Name == "Connection" {
			continue
		}
		for _, name := range named {
			if f.Name == name {
				continue next
			}
		}
		kept = append(kept, f)
	}
	clear(a.fields[len(kept):])
	a.fields = kept
}

// bodiless reports whether an answer with this status has no body, whatever it says.
func bodiless(status int) bool {
	return status < http.StatusOK || status == http.StatusNoContent || status == http.StatusNotModified
}

// header makes the fields a map, which may be kept.
func (a *answer) header() http.Header {
	h := make(http.Header, len(a.fields))
	for _, f := range a.fields {
		name := strings.Clone(f.Name)
		h[name] = append(h[name], strings.Clone(f.Value))
	}
	return h
}

// appendStatus writes a status line.
func appendStatus(out []byte, status int, reason string) []byte {
	out = append(out, "HTTP/1.1 "...)
	out = append(out, byte('0'+status/100), byte('0'+status/10%10), byte('0'+status%10), ' ')
	out = append(out, reason...)
	return append(out, '\r', '\n')
}

func appendFields(out []byte, fields []Field) []byte {
	for i := range fields {
		out = appendField(out, fields[i].Name, fields[i].Value)
	}
	return out
}
