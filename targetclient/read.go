package targetclient

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"time"
)

const (
	// readBuffer is what a connection's reader begins with; it grows with the
	// lines of a header.
	readBuffer = 4 << 10
	// maxPooledBuffer is the largest buffer that is kept for the next call.
	maxPooledBuffer = 64 << 10
	// maxChunkLine and maxTrailer bound what is no content in a chunked body.
	maxChunkLine = 4 << 10
	maxTrailer   = 4<<10 - 2
)

// malformed is an answer that is not HTTP/1. Its text names the part, and never
// what was sent.
type malformed string

func (m malformed) Error() string { return "malformed answer: " + string(m) }

var errHeaderTooLarge = errors.New("header of the answer is larger than the limit")

// reader reads an answer from a connection. What it returns is valid until the
// next read.
type reader struct {
	src  io.Reader
	buf  []byte
	r, w int   // buf[r:w] is read and not used yet
	left int64 // that the header may still have
	seen bool  // a byte of the answer has come
	body body

	early    *conn     // it has a deadline before the one below; nil: it has not
	deadline time.Time // of the call
}

// extendTo notes that c has a deadline that may pass before the call's does.
func (b *reader) extendTo(c *conn, deadline time.Time) { b.early, b.deadline = c, deadline }

// extend gives the connection the deadline of the call. It reports false if it had that already.
func (b *reader) extend() bool {
	c := b.early
	if c == nil {
		return false
	}
	b.early = nil
	return c.setDeadline(b.deadline) == nil
}

// read reads from the connection.
func (b *reader) read(p []byte) (int, error) {
	n, err := b.src.Read(p)
	if n == 0 && err != nil && errors.Is(err, os.ErrDeadlineExceeded) && b.extend() {
		return b.src.Read(p)
	}
	return n, err
}

// reset begins an answer.
func (b *reader) reset(src io.Reader) {
	if cap(b.buf) > maxPooledBuffer {
		b.buf = nil
	}
	if b.buf == nil {
		b.buf = make([]byte, readBuffer)
	}
	b.src, b.r, b.w, b.left, b.seen, b.early = src, 0, 0, maxHeaderBytes, false, nil
}

// fill reads what comes, at least one byte. There is room for it.
func (b *reader) fill() error {
	for {
		n, err := b.read(b.buf[b.w:])
		b.w += n
		if n > 0 {
			b.seen = true
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// line returns the next line without its end, and whether that is CRLF. The
// line and its end are at most limit bytes.
func (b *reader) line(limit int64, tooLong error) (line []byte, crlf bool, err error) {
	searched := 0
	for {
		if i := bytes.IndexByte(b.buf[b.r+searched:b.w], '\n'); i >= 0 {
			end := b.r + searched + i
			line = b.buf[b.r:end]
			b.r = end + 1
			if int64(len(line)+1) > limit {
				return nil, false, tooLong
			}
			if n := len(line); n > 0 && line[n-1] == '\r' {
				return line[:n-1], true, nil
			}
			return line, false, nil
		}
		searched = b.w - b.r
		if int64(searched) >= limit {
			return nil, false, tooLong
		}
		if b.w == len(b.buf) {
			if b.r > 0 {
				copy(b.buf, b.buf[b.r:b.w])
				b.r, b.w = 0, searched
			} else {
				b.buf = append(b.buf, make([]byte, len(b.buf))...)
			}
		}
		if err := b.fill(); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, false, err
		}
	}
}

// headerLine is a line of a header, all of which have one limit.
func (b *reader) headerLine() ([]byte, bool, error) {
	line, crlf, err := b.line(b.left, errHeaderTooLarge)
	b.left -= int64(len(line)) + 2
	return line, crlf, err
}

// Read reads what is buffered, or from the connection.
func (b *reader) Read(p []byte) (int, error) {
	if b.r == b.w {
		return b.read(p)
	}
	n := copy(p, b.buf[b.r:b.w])
	b.r += n
	return n, nil
}

func (b *reader) buffered() int { return b.w - b.r }

// head is what counts of an answer's header.
type head struct {
	status  int
	length  int64 // of the body; -1: chunked, or until the connection ends
	chunked bool
	// last says that nothing may be read or sent after this answer.
	last bool
	gzip bool
	// The first value of each, "" when absent.
	location, retryAfter, date string
}

// bodiless says that no body follows, whatever the header says.
func (h *head) bodiless() bool {
	return h.status < 200 || h.status == 204 || h.status == 304
}

// readHead reads the header of the answer, and of the interim answers before it.
// An answer that can be read in two ways is malformed, or the last one on its
// connection. (RFC 9112, 6.3 and 11.)
func readHead(b *reader) (head, error) {
	for {
		h, err := readOneHead(b)
		// 101 is final: what follows is another protocol.
		if err != nil || h.status >= 200 || h.status == 101 {
			return h, err
		}
	}
}

func readOneHead(b *reader) (head, error) {
	line, crlf, err := b.headerLine()
	if err != nil {
		return head{}, err
	}
	h := head{length: -1}
	minor, ok := h.readStatusLine(line)
	if !ok {
		return head{}, malformed("status line")
	}
	f := fields{head: &h, length: -1}
	for first := true; ; first = false {
		var ended bool
		line, ended, err = b.headerLine()
		if err != nil {
			return head{}, err
		}
		crlf = crlf && ended
		if len(line) == 0 {
			break
		}
		if err := f.add(line, first); err != nil {
			return head{}, err
		}
	}
	return h, f.frame(minor, crlf)
}

// readStatusLine takes "HTTP/1.1 200 OK", the reason being optional.
func (h *head) readStatusLine(line []byte) (minor int, ok bool) {
	const prefix = "HTTP/1.0 "
	if len(line) < len(prefix)+3 || string(line[:7]) != prefix[:7] || line[7] != '0' && line[7] != '1' || line[8] != ' ' {
		return 0, false
	}
	code := bytes.TrimLeft(line[8:], " ")
	if len(code) < 3 || len(code) > 3 && code[3] != ' ' {
		return 0, false
	}
	for _, c := range code[:3] {
		if c < '0' || c > '9' {
			return 0, false
		}
		h.status = h.status*10 + int(c-'0')
	}
	return int(line[7] - '0'), h.status >= 100
}

// field is one that counts.
type field uint8

const (
	otherField field = iota
	contentLength
	transferEncoding
	connection
	contentEncoding
	trailer
	location
	retryAfterField
	date
)

// fieldOf finds a field by its name.
func fieldOf(name []byte) field {
	var want string
	var f field
	switch len(name) {
	case len("Date"):
		want, f = "date", date
	case len("Trailer"):
		want, f = "trailer", trailer
	case len("Location"):
		want, f = "location", location
	case len("Connection"):
		want, f = "connection", connection
	case len("Retry-After"):
		want, f = "retry-after", retryAfterField
	case len("Content-Length"):
		want, f = "content-length", contentLength
	case len("Content-Encoding"):
		want, f = "content-encoding", contentEncoding
	case len("Transfer-Encoding"):
		want, f = "transfer-encoding", transferEncoding
	default:
		return otherField
	}
	if !equalFold(name, want) {
		return otherField
	}
	return f
}

// equalFold compares with a text in lower case. ASCII only.
func equalFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// fields collects the fields of a header.
type fields struct {
	head *head

	last            field
	length          int64 // -1: none
	codings         int   // values of Transfer-Encoding
	encoded         bool  // a Content-Encoding has come
	close, keep     bool
	given           uint16 // of the fields whose first value counts
	framingTrailers bool   // announced ones that would change the framing
}

// add takes one line of a header.
func (f *fields) add(line []byte, first bool) error {
	name, value, ok := splitLine(line, first)
	if !ok || len(name) == 0 && f.last != otherField {
		// A folded line is not joined to a field that counts.
		return malformed("header line")
	}
	if len(name) == 0 {
		return nil
	}
	if f.last = fieldOf(name); f.last == otherField {
		return nil
	}
	return f.set(f.last, trimBlanks(value))
}

// splitLine takes a line of a header apart. The name is empty when the line
// goes on with the field before (RFC 9112, 5.2).
func splitLine(line []byte, first bool) (name, value []byte, ok bool) {
	if line[0] == ' ' || line[0] == '\t' {
		return nil, line, !first && validValue(line)
	}
	name, value, found := bytes.Cut(line, colon)
	return name, value, found && validName(name) && validValue(value)
}

func (f *fields) set(name field, value []byte) error {
	h := f.head
	switch name {
	case contentLength:
		n, ok := parseLength(value)
		if !ok || f.length >= 0 && f.length != n {
			return malformed("Content-Length")
		}
		f.length = n
	case transferEncoding:
		if f.codings++; f.codings > 1 || !equalFold(value, "chunked") {
			return malformed("Transfer-Encoding")
		}
	case connection:
		f.close = f.close || hasToken(value, "close")
		f.keep = f.keep || hasToken(value, "keep-alive")
	case contentEncoding:
		if !f.encoded {
			f.encoded, h.gzip = true, equalFold(value, "gzip")
		}
	case trailer:
		f.framingTrailers = f.framingTrailers || hasToken(value, "content-length") || hasToken(value, "transfer-encoding") || hasToken(value, "trailer")
	case location:
		f.first(name, &h.location, value)
	case retryAfterField:
		f.first(name, &h.retryAfter, value)
	case date:
		// Needed only to read a Retry-After, but that may come later.
		if h.status >= 300 {
			f.first(name, &h.date, value)
		}
	}
	return nil
}

// frame says how long the body is, and whether the connection can go on.
func (f *fields) frame(minor int, crlf bool) error {
	h := f.head
	h.last = f.close || minor == 0 && !f.keep || !crlf
	switch {
	case f.codings > 0 && minor == 0:
		return malformed("Transfer-Encoding in HTTP/1.0")
	case f.codings > 0 && f.framingTrailers:
		return malformed("Trailer")
	case h.bodiless():
		h.last = h.last || f.codings > 0 || f.length > 0
		h.length = 0
	case f.codings > 0:
		h.chunked = true
		h.last = h.last || f.length >= 0
	case f.length >= 0:
		h.length = f.length
	default:
		h.last = true
	}
	if h.status == 101 {
		h.last = true
	}
	return nil
}

var colon = []byte{':'}

// first keeps the first value of a field.
func (f *fields) first(name field, s *string, value []byte) {
	if f.given&(1<<name) == 0 {
		f.given |= 1 << name
		*s = string(value)
	}
}

func trimBlanks(b []byte) []byte { return bytes.Trim(b, " \t") }

// parseLength takes digits only.
func parseLength(b []byte) (n int64, ok bool) {
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// hasToken says whether a list contains the token, which is in lower case.
func hasToken(list []byte, token string) bool {
	for len(list) > 0 {
		var element []byte
		element, list, _ = bytes.Cut(list, []byte{','})
		if equalFold(trimBlanks(element), token) {
			return true
		}
	}
	return false
}

// validName says whether a field's name is a token (RFC 9110, 5.6.2).
func validName(b []byte) bool {
	for _, c := range b {
		if !tokenBytes[c] {
			return false
		}
	}
	return len(b) > 0
}

// validValue says whether a field's value has no control characters but tabs.
func validValue(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

var tokenBytes = func() (t [256]bool) {
	for c := range t {
		t[c] = '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' ||
			c < 0x80 && strings.IndexByte("!#$%&'*+-.^_`|~", byte(c)) >= 0
	}
	return t
}()
