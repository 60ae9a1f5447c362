package h2

import (
	"crypto/tls"
	"net"
)

// Head is what a Director sees of a request. It belongs to the connection and is valid while Decide runs; or it is a
// handler's, which may give the call back, and valid until that has returned or given it back.
//
// The methods that change it change what goes upstream when the request is relayed; a Handler gets the request as the
// client sent it.
type Head struct {
	method, scheme, path, authority string
	contentType                     string
	timeout                         string  // grpc-timeout
	fields                          []Field // no pseudo-headers, no host
	pseudos                         int     // so many fields stand before them in the reader's list
	notable                         Notable
	contentLength                   int64 // -1: not stated
	end                             bool
	conn                            *conn
	kept                            bool // it is a handler's, with a memo of its own
	memo                            any
}

// Method is :method.
func (h *Head) Method() string { return h.method }

// Scheme is :scheme as the client sent it.
func (h *Head) Scheme() string { return h.scheme }

// Path is :path, with the query.
func (h *Head) Path() string { return h.path }

// Authority is :authority, or the Host header where the client sent only that.
func (h *Head) Authority() string { return h.authority }

// ContentType is the first Content-Type; see Get for what a client sent twice.
func (h *Head) ContentType() string { return h.contentType }

// ContentLength is the stated length of the body, -1 when none was stated.
func (h *Head) ContentLength() int64 { return h.contentLength }

// EndStream says that the request has no body.
func (h *Head) EndStream() bool { return h.end }

// Fields are the header fields in the order in which they came, without pseudo-headers and host. The slice must not be
// kept; its strings may be.
func (h *Head) Fields() []Field { return h.fields }

// Notable says which fields a request came with that a proxy must do something about.
type Notable uint8

const (
	// NotableOrigin is origin.
	NotableOrigin Notable = 1 << iota
	// NotableExpect is expect.
	NotableExpect
	// NotableTrailer is trailer.
	NotableTrailer
	// NotableOwnHop is proxy-authenticate, proxy-authorization or http2-settings.
	NotableOwnHop
	// NotableTE is te, unless it is there once and in the usual letters.
	NotableTE
	// NotableForwarded is forwarded, or one whose name begins with x-forwarded-.
	NotableForwarded
	// NotableContentTypes is content-type, more than once.
	NotableContentTypes
)

var notableNames = [fieldNames]Notable{
	nameOrigin: NotableOrigin, nameExpect: NotableExpect, nameTrailer: NotableTrailer,
	nameProxyAuthenticate: NotableOwnHop, nameProxyAuthorization: NotableOwnHop, nameHTTP2Settings: NotableOwnHop,
	nameForwarded: NotableForwarded,
}

// Notable says what of that the request came with. It does not follow what is changed.
func (h *Head) Notable() Notable { return h.notable }

// Get returns the first value of a field, "" if there is none. name is lower-case.
func (h *Head) Get(name string) string {
	for i := range h.fields {
		if h.fields[i].Name == name {
			return h.fields[i].Value
		}
	}
	return ""
}

// Remove takes out every field for which drop returns true.
func (h *Head) Remove(drop func(name string) bool) {
	kept := h.fields[:0]
	for i := range h.fields {
		if !drop(h.fields[i].Name) {
			kept = append(kept, h.fields[i])
		}
	}
	clear(h.fields[len(kept):])
	h.fields = kept
}

// Add appends a field. name must be lower-case, and both valid.
func (h *Head) Add(name, value string) {
	h.fields = append(h.fields, Field{Name: name, Value: value})
}

// AddField appends a field; see Add.
func (h *Head) AddField(f Field) { h.fields = append(h.fields, f) }

// Set replaces the first field of that name and takes out the others, or appends one.
func (h *Head) Set(name, value string) {
	found := false
	kept := h.fields[:0]
	for _, f := range h.fields {
		if f.Name == name {
			if found {
				continue
			}
			found = true
			if f.Value != value {
				f = Field{Name: name, Value: value}
			}
		}
		kept = append(kept, f)
	}
	clear(h.fields[len(kept):])
	h.fields = kept
	if !found {
		h.Add(name, value)
	}
}

// SetAuthority replaces :authority.
func (h *Head) SetAuthority(authority string) { h.authority = authority }

// RemoteAddr is the client's address as net.Conn gives it; the string is the same for every request of a connection.
func (h *Head) RemoteAddr() string { return h.conn.remoteAddr }

// LocalAddr is the address that the client connected to.
func (h *Head) LocalAddr() net.Addr { return h.conn.nc.LocalAddr() }

// TLS is the state of the client's connection, nil without TLS.
func (h *Head) TLS() *tls.ConnectionState { return h.conn.tlsState }

// Memo is a value that the Director keeps per client connection; nil at first. It saves working out again what is the
// same for every request, as the fields that name the client are. A handler's Head has the one that was there when the request came.
func (h *Head) Memo() any {
	if h.kept {
		return h.memo
	}
	return h.conn.memo
}

// SetMemo keeps v for the connection's further requests, if h is not a handler's.
func (h *Head) SetMemo(v any) {
	if h.kept {
		h.memo = v
		return
	}
	h.conn.memo = v
}
