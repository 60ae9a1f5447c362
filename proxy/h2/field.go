package h2

import "strings"

// Field is one header field. Names are lower-case.
//
// Beside name and value it carries what was found out about the two when they were put into a decoder's table, so that
// a field that a peer repeats by its number need not be looked at again.
type Field struct {
	Name, Value string
	// Sensitive fields are in no table, here and further on.
	Sensitive bool

	known  fieldName
	flaws  flaws
	static uint8  // where in the static table the whole field is; valid if hash is not 0
	hash   uint32 // of name and value; 0: not worked out
}

// NewField returns a field that is worked out already: for one that is sent again and again.
func NewField(name, value string) Field {
	f := Field{Name: name, Value: value}
	f.classify()
	f.workOut()
	return f
}

// classify sets known and flaws.
func (f *Field) classify() {
	f.known = nameOf(f.Name)
	f.flaws = flawsOfName(f.Name)
	f.checkValue()
}

// checkValue adds the flaws of the value to those of the name.
func (f *Field) checkValue() {
	if !validValue(f.Value) {
		f.flaws |= flawValue
	}
	if f.known == nameTE && !strings.EqualFold(f.Value, "trailers") {
		f.flaws |= flawConnection
	}
}

// workOut sets hash and static.
func (f *Field) workOut() {
	f.hash = hashField(hashName(f.Name), f.Value)
	f.static = staticByField.find(f.hash)
	if f.static != 0 && (staticTable[f.static-1].Name != f.Name || staticTable[f.static-1].Value != f.Value) {
		f.static = 0
	}
}

// size is the field's in a table and in a list (RFC 7541 4.1).
func (f *Field) size() int { return len(f.Name) + len(f.Value) + 32 }

// flaws are what makes a field one that no message may have.
type flaws uint8

const (
	flawName       flaws = 1 << iota // a pseudo-header's name has it too
	flawValue                        //
	flawConnection                   // it speaks of the connection only
)

// err is the reason that is told, nil if there is none.
func (f flaws) err() error {
	switch {
	case f == 0:
		return nil
	case f&flawName != 0:
		return errFieldName
	case f&flawValue != 0:
		return errFieldValue
	default:
		return errConnection
	}
}

func flawsOfName(name string) flaws {
	if !validName(name) {
		return flawName
	}
	switch name {
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		return flawConnection
	}
	return 0
}

// fieldName says which of the names that somebody asks for a field has.
type fieldName uint8

const (
	nameOther fieldName = iota
	nameMethod
	nameScheme
	namePath
	nameAuthority
	nameStatus
	nameHost
	nameContentType
	nameContentLength
	nameTE
	nameGRPCTimeout
	nameGRPCStatus
	nameGRPCMessage
	nameOrigin
	nameExpect
	nameTrailer
	nameProxyAuthenticate
	nameProxyAuthorization
	nameHTTP2Settings
	nameForwarded // Forwarded, and X-Forwarded with whatever follows
	nameTraceparent
	nameRequestID
	nameDate
	nameETag
	nameUserAgent
	nameAuthorization
	nameAcceptEncoding
	nameGRPCEncoding
	nameGRPCAcceptEncoding

	fieldNames
)

// namesOfFields are the names by fieldName.
var namesOfFields = [fieldNames]string{
	nameMethod: ":method", nameScheme: ":scheme", namePath: ":path", nameAuthority: ":authority", nameStatus: ":status",
	nameHost: "host", nameContentType: "content-type", nameContentLength: "content-length", nameTE: "te",
	nameGRPCTimeout: "grpc-timeout", nameGRPCStatus: "grpc-status", nameGRPCMessage: "grpc-message",
	nameOrigin: "origin", nameExpect: "expect", nameTrailer: "trailer",
	nameProxyAuthenticate: "proxy-authenticate", nameProxyAuthorization: "proxy-authorization", nameHTTP2Settings: "http2-settings",
	nameForwarded: "forwarded", nameTraceparent: "traceparent", nameRequestID: "x-request-id", nameDate: "date", nameETag: "etag",
	nameUserAgent: "user-agent", nameAuthorization: "authorization", nameAcceptEncoding: "accept-encoding",
	nameGRPCEncoding: "grpc-encoding", nameGRPCAcceptEncoding: "grpc-accept-encoding",
}

var fieldsByName = func() map[string]fieldName {
	m := make(map[string]fieldName, fieldNames)
	for i, name := range namesOfFields {
		if name != "" {
			m[name] = fieldName(i)
		}
	}
	return m
}()

func nameOf(name string) fieldName {
	if known, ok := fieldsByName[name]; ok {
		return known
	}
	if strings.HasPrefix(name, "x-forwarded-") {
		return nameForwarded
	}
	return nameOther
}

// whole reports whether known says the whole name.
func (n fieldName) whole() bool { return n != nameOther && n != nameForwarded }

// changing names fields that are hardly ever the same twice, or only by chance.
func (n fieldName) changing() bool {
	switch n {
	case nameGRPCTimeout, nameContentLength, nameTraceparent, nameRequestID, nameDate, nameETag, nameGRPCMessage:
		return true
	default:
		return false
	}
}
