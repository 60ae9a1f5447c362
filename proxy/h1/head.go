package h1

import (
	"bytes"
	"crypto/tls"
	"strings"
	"unsafe"
)

// Field is one header field. Its name is in Go's canonical form ("Content-Type"), its value without the white space
// around it.
type Field struct{ Name, Value string }

// Head is the head of a request. It, and its strings, are valid until the exchange is Done.
//
// The methods that change it change what goes upstream when the request is relayed; net/http gets it as the client sent
// it.
type Head struct {
	method, target, host string
	minor                int // HTTP/1.minor

	// fields are what may travel on: no Host, no framing, nothing that belongs to the connection.
	fields []Field
	hosts  int

	length  int64 // of the body; -1: chunked
	lengths int   // Content-Length fields
	coded   int   // Transfer-Encoding fields

	closes     bool // Connection: close
	trailersOK bool // TE: trailers
	// What only net/http's handlers do: upgrades, expectations, announced trailers, HTTP/1.0, other forms of the target.
	odd bool

	conn *conn
}

// Method is the request's method.
func (h *Head) Method() string { return h.method }

// Target is the request's target as it was sent. It begins with a single slash.
func (h *Head) Target() string { return h.target }

// Host is the value of the Host header.
func (h *Head) Host() string { return h.host }

// Fields are the header fields that may travel on, in the order in which they came: without Host, framing and what
// belongs to the connection.
func (h *Head) Fields() []Field { return h.fields }

// ContentLength is the length of the body, -1 if it is not stated.
func (h *Head) ContentLength() int64 { return h.length }

// RemoteAddr is the client's address as net.Conn gives it; the string is the same for every request of a connection.
func (h *Head) RemoteAddr() string { return h.conn.remoteAddr }

// TLS is the state of the client's connection, nil without TLS.
func (h *Head) TLS() *tls.ConnectionState { return h.conn.tlsState }

// Memo is a value that the Director keeps per client connection; nil at first.
func (h *Head) Memo() any { return h.conn.memo }

// SetMemo keeps v for the connection's further requests.
func (h *Head) SetMemo(v any) { h.conn.memo = v }

// Remove takes out every field for which drop returns true.
func (h *Head) Remove(drop func(name string) bool) {
	kept := h.fields[:0]
	for _, f := range h.fields {
		if !drop(f.Name) {
			kept = append(kept, f)
		}
	}
	clear(h.fields[len(kept):])
	h.fields = kept
}

// Add appends a field. Both parts must be valid.
func (h *Head) Add(name, value string) { h.fields = append(h.fields, Field{Name: name, Value: value}) }

// A refusal is why a request is not taken.
type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string { return r.text }

var (
	errBareLF          = &refusal{400, "line does not end in CRLF"}
	errRequestLine     = &refusal{400, "malformed request line"}
	errVersion         = &refusal{505, "unsupported protocol version"}
	errFieldName       = &refusal{400, "malformed header name"}
	errFieldValue      = &refusal{400, "malformed header value"}
	errFolded          = &refusal{400, "folded header"}
	errHost            = &refusal{400, "missing, malformed or repeated Host header"}
	errLength          = &refusal{400, "malformed or repeated Content-Length header"}
	errCodingAndLength = &refusal{400, "both Content-Length and Transfer-Encoding"}
	errCoding          = &refusal{501, "unsupported transfer encoding"}
	errTooLarge        = &refusal{431, "request header fields too large"}
	errChunk           = &refusal{400, "malformed chunked encoding"}
	errTimeout         = &refusal{408, "request took too long"}
)

// maxFields is how many header fields a head may have.
const maxFields = 1000

// headEnd finds the end of the head that b begins with: the length of the head with its empty line, 0 if it is not there
// yet. from is where to go on looking, the beginning of a line; next is where to go on the next time.
func headEnd(b []byte, from int) (end, next int, err error) {
	for {
		i := bytes.IndexByte(b[from:], '\n')
		if i < 0 {
			return 0, from, nil
		}
		if i == 0 || b[from+i-1] != '\r' {
			return 0, from, errBareLF
		}
		from += i + 1
		if i == 1 {
			return from, from, nil
		}
	}
}

// text is b as a string, without a copy: b must not change as long as the string is used.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) } //nolint:gosec // G103: see above.

// parse reads a whole head, as headEnd found it. Names are put in canonical form where they lie.
func (h *Head) parse(b []byte) error {
	*h = Head{fields: h.fields[:0], conn: h.conn}
	i := bytes.IndexByte(b, '\r')
	if b[i+1] != '\n' {
		return errRequestLine
	}
	if err := h.parseLine(b[:i]); err != nil {
		return err
	}
	b = b[i+2:]
	for n := 0; len(b) > 2; n++ {
		if n == maxFields {
			return errTooLarge
		}
		end, colon, err := splitField(b)
		if err != nil {
			return err
		}
		if err := h.field(text(b[:colon]), text(trim(b[colon+1:end]))); err != nil {
			return err
		}
		b = b[end+2:]
	}
	return h.check()
}

// parseLine reads the request line.
func (h *Head) parseLine(line []byte) error {
	space := bytes.IndexByte(line, ' ')
	if space <= 0 {
		return errRequestLine
	}
	for _, c := range line[:space] {
		if class[c]&isToken == 0 {
			return errRequestLine
		}
	}
	h.method = text(line[:space])
	line = line[space+1:]
	if space = bytes.IndexByte(line, ' '); space <= 0 {
		return errRequestLine
	}
	for _, c := range line[:space] {
		if c <= ' ' || c == 0x7f {
			return errRequestLine
		}
	}
	h.target = text(line[:space])
	switch string(line[space+1:]) {
	case "HTTP/1.1":
		h.minor = 1
	case "HTTP/1.0":
		h.odd = true
	default:
		version := line[space+1:]
		if !bytes.HasPrefix(version, []byte("HTTP/")) || len(version) != len("HTTP/1.1") {
			return errRequestLine
		}
		if !bytes.HasPrefix(version, []byte("HTTP/1.")) || version[7] < '0' || version[7] > '9' {
			return errVersion
		}
		h.minor, h.odd = 1, true // RFC 9110 2.5: a higher minor version is served as 1.1.
	}
	if h.target[0] != '/' || len(h.target) > 1 && h.target[1] == '/' {
		h.odd = true
	}
	return nil
}

// splitField finds the end of the field line that b begins with and its colon, and checks both parts.
func splitField(b []byte) (end, colon int, err error) {
	if b[0] == ' ' || b[0] == '\t' {
		return 0, 0, errFolded
	}
	upper := true
	for {
		c := b[colon]
		if class[c]&isToken == 0 {
			break
		}
		if upper {
			b[colon] = upperCase[c]
		} else {
			b[colon] = lowerCase[c]
		}
		upper = c == '-'
		colon++
	}
	if colon == 0 || b[colon] != ':' {
		return 0, 0, errFieldName
	}
	for end = colon + 1; class[b[end]]&isText != 0; end++ {
	}
	if b[end] != '\r' || b[end+1] != '\n' { // There is a CRLF, and one more, behind every field.
		return 0, 0, errFieldValue
	}
	return end, colon, nil
}

func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// field takes in one field.
func (h *Head) field(name, value string) error {
	switch name {
	case "Host":
		h.host = value
		h.hosts++
	case "Content-Length":
		n, ok := parseLength(value)
		if h.lengths++; !ok || h.lengths > 1 {
			return errLength
		}
		h.length = n
	case "Transfer-Encoding":
		if h.coded++; h.coded > 1 || !strings.EqualFold(value, "chunked") {
			return errCoding
		}
		h.length = -1
	case "Connection":
		h.connection(value)
	case "Te":
		h.te(value)
	case "Upgrade", "Expect", "Trailer":
		h.odd = true
	case "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "Http2-Settings":
	default:
		h.fields = append(h.fields, Field{Name: name, Value: value})
	}
	return nil
}

// connection reads the Connection header. Fields that it names belong to the connection; that is left to net/http.
func (h *Head) connection(value string) {
	for token := range strings.SplitSeq(value, ",") {
		switch token = strings.Trim(token, " \t"); {
		case token == "", strings.EqualFold(token, "keep-alive"):
		case strings.EqualFold(token, "close"):
			h.closes = true
		case strings.EqualFold(token, "te"):
		default:
			h.odd = true
		}
	}
}

func (h *Head) te(value string) {
	for token := range strings.SplitSeq(value, ",") {
		h.trailersOK = h.trailersOK || strings.EqualFold(strings.Trim(token, " \t"), "trailers")
	}
}

// parseLength reads a Content-Length: digits alone.
func parseLength(s string) (n int64, ok bool) {
	if len(s) == 0 || len(s) > 18 {
		return 0, false
	}
	for i := range len(s) {
		c := s[i] - '0'
		if c > 9 {
			return 0, false
		}
		n = n*10 + int64(c)
	}
	return n, true
}

// check looks at the fields together.
func (h *Head) check() error {
	switch {
	case h.hosts > 1, h.minor == 1 && h.hosts == 0:
		return errHost
	case h.coded > 0 && h.lengths > 0:
		return errCodingAndLength
	case h.coded > 0 && h.minor == 0:
		return errCoding
	}
	for i := range len(h.host) {
		if class[h.host[i]]&isHost == 0 {
			return errHost
		}
	}
	if h.host == "" {
		h.odd = true
	}
	return nil
}

// Classes of characters.
const (
	isToken = 1 << iota // RFC 9110 5.6.2
	isText              // in a field's value
	isHost              // as golang.org/x/net/http/httpguts.ValidHostHeader has it
)

var class, upperCase, lowerCase = func() (class, upper, lower [256]byte) {
	for i := range class {
		c := byte(i)
		upper[i], lower[i] = c, c
		alpha := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		digit := c >= '0' && c <= '9'
		if alpha || digit || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0 && c != 0 {
			class[i] |= isToken
		}
		if c >= ' ' && c != 0x7f || c == '\t' {
			class[i] |= isText
		}
		if alpha || digit || strings.IndexByte("!$%&'()*+,-./:;=[]_~", c) >= 0 && c != 0 {
			class[i] |= isHost
		}
		switch {
		case c >= 'a' && c <= 'z':
			upper[i] = c - 'a' + 'A'
		case c >= 'A' && c <= 'Z':
			lower[i] = c - 'A' + 'a'
		}
	}
	return class, upper, lower
}()
