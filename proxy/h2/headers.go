package h2

import (
	"errors"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// headerTableSize is the size of the HPACK tables on both sides of every connection: the protocol's default.
const headerTableSize = 4096

// headerReader decodes header blocks. It belongs to the connection's reader.
type headerReader struct {
	table  hpackDecoder
	fields []Field  // of the block that was decoded last
	box    *[]Field // what fields is a part of, from requests; nil: there is none
	text   *texts   // where the strings of literals are; nil: nowhere yet
	limit  int
	size   int
	over   bool // the list is larger than limit; fields are not all there

	authority string // the last one that was valid
}

func newHeaderReader(limit int) *headerReader {
	return &headerReader{limit: limit, table: hpackDecoder{max: headerTableSize}}
}

func (r *headerReader) texts() *texts {
	if r.text == nil {
		r.text = allTexts.Get().(*texts) //nolint:forcetypeassert // The pool makes nothing else.
	}
	return r.text
}

// keepFields is how many fields the scratch list may keep room for.
const keepFields = 128

// rest gives up the fields, and their memory.
func (r *headerReader) rest() {
	if r.text != nil {
		allTexts.Put(r.text)
		r.text = nil
	}
	if r.box == nil {
		return
	}
	*r.box = r.fields
	freeFields(r.box)
	r.box, r.fields = nil, nil
}

// freeFields gives a list back.
func freeFields(box *[]Field) {
	clear(*box)
	*box = (*box)[:0]
	if cap(*box) <= keepFields {
		requests.Put(box)
	}
}

// decode reads one whole block into r.fields. The error ends the connection.
func (r *headerReader) decode(block []byte) error {
	if cap(r.fields) > keepFields {
		r.rest()
	}
	if r.box == nil {
		r.box = requests.Get().(*[]Field) //nolint:forcetypeassert // The pool makes nothing else.
		r.fields = *r.box
	}
	clear(r.fields)
	r.fields = r.fields[:0]
	r.size, r.over = 0, false
	return r.readBlock(block)
}

// decodeMore reads a block that came right after the last, and returns its fields; those before stay as they are. over says
// that there were too many.
func (r *headerReader) decodeMore(block []byte) (fields []Field, over bool, err error) {
	n := len(r.fields)
	r.size, r.over = 0, false
	err = r.readBlock(block)
	fields = r.fields[n:]
	return fields, r.over, err
}

// What can be wrong with a message, all of it a stream error of type PROTOCOL_ERROR (RFC 9113 8.1.1).
var (
	errFieldName     = errors.New("header field name is not valid")
	errFieldValue    = errors.New("header field value is not valid")
	errConnection    = errors.New("connection-specific header field")
	errPseudo        = errors.New("pseudo-header field is unknown, repeated, missing or misplaced")
	errContentLength = errors.New("content-length is not valid")
	errAuthority     = errors.New(":authority or host is not valid, or they differ")
	errPath          = errors.New(":path is not valid")
	errStatus        = errors.New(":status is not valid")
)

// nameChars are the characters of a lower-case token (RFC 9110 5.6.2, RFC 9113 8.2.1).
var nameChars = func() (t [256]bool) {
	for c := '0'; c <= '9'; c++ {
		t[c] = true
	}
	for c := 'a'; c <= 'z'; c++ {
		t[c] = true
	}
	for _, c := range "!#$%&'*+-.^_`|~" {
		t[c] = true
	}
	return t
}()

func validName(name string) bool {
	for i := range len(name) {
		if !nameChars[name[i]] {
			return false
		}
	}
	return name != ""
}

// validValue allows what net/http allows: no control characters but the tab.
func validValue(v string) bool {
	for i := range len(v) {
		if c := v[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// checkField looks at one regular field that was not decoded.
func checkField(f *Field) error {
	f.classify()
	return f.flaws.err()
}

// parseLength reads a Content-Length; prior is what an earlier field said, -1 if none did.
func parseLength(v string, prior int64) (int64, error) {
	n, err := strconv.ParseUint(v, 10, 63)
	if err != nil || v[0] == '+' || prior >= 0 && int64(n) != prior {
		return 0, errContentLength
	}
	return int64(n), nil
}

// readRequest turns the decoded fields into h, or says why they are no request.
func (r *headerReader) readRequest(h *Head) error {
	*h = Head{contentLength: -1, conn: h.conn}
	var authority, contentType, te bool
	var host string
	regular := false // Pseudo-headers are not to come any more.
	n := 0           // so many fields are kept
	for i := range r.fields {
		f := &r.fields[i]
		var target *string
		switch f.known {
		case nameMethod:
			target = &h.method
		case nameScheme:
			target = &h.scheme
		case namePath:
			target = &h.path
		case nameAuthority:
			if regular || authority || f.flaws&flawValue != 0 {
				return errPseudo
			}
			authority, h.authority = true, f.Value
			h.pseudos++
			continue
		default:
			if len(f.Name) > 0 && f.Name[0] == ':' {
				return errPseudo
			}
		}
		if target != nil {
			if regular || *target != "" || f.Value == "" || f.flaws&flawValue != 0 {
				return errPseudo
			}
			*target = f.Value
			h.pseudos++
			continue
		}
		if !regular {
			regular, n = true, i
		}
		if f.flaws != 0 {
			return f.flaws.err()
		}
		h.notable |= notableNames[f.known]
		switch f.known {
		case nameTE:
			if te || f.Value != "trailers" {
				h.notable |= NotableTE
			}
			te = true
		case nameHost:
			// RFC 9113 8.3.1: two answers to whose request this is are one too many.
			if host != "" || f.Value == "" || authority && f.Value != h.authority {
				return errAuthority
			}
			host = f.Value
			continue
		case nameContentType:
			if contentType {
				h.notable |= NotableContentTypes
			}
			contentType = true
			if h.contentType == "" {
				h.contentType = f.Value
			}
		case nameGRPCTimeout:
			h.timeout = f.Value
		case nameContentLength:
			n, err := parseLength(f.Value, h.contentLength)
			if err != nil {
				return err
			}
			h.contentLength = n
		default:
		}
		if n != i {
			r.fields[n] = *f
		}
		n++
	}
	if regular {
		h.fields = r.fields[h.pseudos:n]
	}
	if h.authority == "" {
		h.authority = host
	}
	return r.check(h)
}

// check looks at the pseudo-headers together.
func (r *headerReader) check(h *Head) error {
	if !validMethod(h.method) {
		return errPseudo
	}
	if h.authority != r.authority {
		if h.authority != "" && (!httpguts.ValidHostHeader(h.authority) || strings.IndexByte(h.authority, '@') >= 0) {
			return errAuthority
		}
		if len(h.authority) <= longText {
			r.authority = strings.Clone(h.authority)
		}
	}
	if h.method == "CONNECT" {
		if h.scheme != "" || h.path != "" || h.authority == "" {
			return errPseudo
		}
		return nil
	}
	if h.scheme != "http" && h.scheme != "https" {
		return errPseudo
	}
	if h.path == "" {
		return errPseudo
	}
	if h.path[0] != '/' && (h.path != "*" || h.method != "OPTIONS") {
		return errPath
	}
	return nil
}

func validMethod(m string) bool {
	if m == "POST" || m == "GET" {
		return true
	}
	for i := range len(m) {
		c := m[i]
		if !nameChars[c] && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return m != ""
}

// response is what a header block of an upstream says.
type response struct {
	status        int
	grpcStatus    string
	contentLength int64
	fields        []Field
}

// readResponse turns the decoded fields into the headers of a response.
func (r *headerReader) readResponse() (response, error) {
	res := response{contentLength: -1}
	if len(r.fields) == 0 || r.fields[0].known != nameStatus {
		return res, errPseudo
	}
	v := r.fields[0].Value
	if len(v) != 3 || v[0] < '1' || v[0] > '9' || v[1] < '0' || v[1] > '9' || v[2] < '0' || v[2] > '9' {
		return res, errStatus
	}
	res.status = int(v[0]-'0')*100 + int(v[1]-'0')*10 + int(v[2]-'0')
	if res.status == 101 {
		return res, errStatus // RFC 9113 8.6
	}
	res.fields = r.fields[1:]
	own := 0
	for i := range res.fields {
		f := &res.fields[i]
		if f.flaws != 0 {
			return res, f.flaws.err()
		}
		switch f.known {
		case nameContentLength:
			n, err := parseLength(f.Value, res.contentLength)
			if err != nil {
				return res, err
			}
			res.contentLength = n
		case nameGRPCStatus:
			res.grpcStatus = f.Value
		case nameProxyAuthenticate, nameProxyAuthorization, nameTE, nameHTTP2Settings: // They are between the upstream and us.
			own++
			continue
		default:
		}
		if own > 0 {
			res.fields[i-own] = *f
		}
	}
	res.fields = res.fields[:len(res.fields)-own]
	return res, nil
}

// readTrailers checks that fields that were decoded can be trailers, and returns their grpc-status.
func readTrailers(fields []Field) (grpcStatus string, err error) {
	for i := range fields {
		f := &fields[i]
		if f.flaws != 0 { // A pseudo-header is no valid name.
			return "", f.flaws.err()
		}
		if f.known == nameGRPCStatus {
			grpcStatus = f.Value
		}
	}
	return grpcStatus, nil
}
