package targetclient

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

// request is one call as it goes over the wire, redirects included.
type request struct {
	plan      *plan
	payload   []byte
	header    http.Header // of the call alone
	signature []byte      // empty: not signed
	delivery  delivery    // what names and signs a delivery

	retryAfter time.Duration // what the last answer asked for
}

var (
	contentType    = []string{"application/json"} // never changed
	errHeaderValue = errors.New("a header's name or value cannot be sent")
	errRequestURI  = errors.New("the url has control characters")
)

// fields returns the headers of one hop, but for what frames the message. A GET,
// which is what 301, 302 and 303 make of a POST, carries nothing of the delivery:
// no body, no signature, no headers of the call. Another host gets none of the
// target's fixed headers.
func (r *request) fields(u *url.URL, method string) http.Header {
	base := r.plan.own
	if u != r.plan.url && sameHostForm(u.Hostname()) != r.plan.host {
		base = r.plan.other
	}
	header := make(http.Header, len(base)+len(r.header)+3)
	maps.Copy(header, base)
	if method == http.MethodPost {
		for name, values := range r.header {
			if name = http.CanonicalHeaderKey(name); !reserved(name) {
				header[name] = values
			}
		}
		header["Content-Type"] = contentType
		if len(r.signature) > 0 {
			header[SignatureHeaderName] = []string{string(r.signature)}
		}
		r.delivery.set(header)
	}
	authorize(header, u)
	return header
}

// authorize makes a url's user info a header, unless there is one already.
func authorize(header http.Header, u *url.URL) {
	if _, ok := header["Authorization"]; ok || u.User == nil {
		return
	}
	password, _ := u.User.Password()
	header["Authorization"] = []string{"Basic " + base64.StdEncoding.EncodeToString([]byte(u.User.Username()+":"+password))}
}

// http returns the request of one hop for net/http. The payload is copied: its
// reader may still read when the answer is there.
func (r *request) http(ctx context.Context, u *url.URL, method string) *http.Request {
	req := &http.Request{
		Method: method, URL: u, Host: u.Host, Header: r.fields(u, method),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	if method == http.MethodPost {
		req.ContentLength = int64(len(r.payload))
		req.Body = http.NoBody
		if len(r.payload) > 0 {
			payload := bytes.Clone(r.payload)
			req.Body = io.NopCloser(bytes.NewReader(payload))
			// Lets net/http try again on another connection when a kept one
			// turns out to be dead before a byte was written.
			req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(payload)), nil }
		}
	}
	return req.WithContext(ctx)
}

// appendTo writes the header of one hop for HTTP/1, its end included.
func (r *request) appendTo(b []byte, u *url.URL, method string) ([]byte, error) {
	p := r.plan
	if u == p.url && method == http.MethodPost && len(r.header) == 0 && !(p.namesDelivery && r.delivery.id != "") {
		if p.headErr != nil {
			return b, p.headErr
		}
		b = append(b, p.head...)
		if len(r.signature) > 0 {
			b = append(append(b, SignatureHeaderName+": "...), r.signature...)
			b = append(b, "\r\n"...)
		}
		if !r.delivery.valid() {
			return b, errHeaderValue
		}
		b = r.delivery.appendTo(b)
	} else {
		var err error
		if b, err = appendHead(b, u, method, r.fields(u, method)); err != nil {
			return b, err
		}
	}
	if method == http.MethodPost {
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, int64(len(r.payload)), 10)
		b = append(b, "\r\n"...)
	}
	return append(b, "\r\n"...), nil
}

// repeatable says whether the request may be sent again although it may have
// been processed: a GET, and what carries a key by which the target knows it.
func (r *request) repeatable(method string) bool {
	if method == http.MethodGet {
		return true
	}
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
		if r.plan.own[name] != nil || r.header[name] != nil {
			return true
		}
	}
	return false
}

// appendHead writes the request line and the headers, in the order of their
// names, without the end. What the headers say about the body's framing is left
// to the caller.
func appendHead(b []byte, u *url.URL, method string, header http.Header) ([]byte, error) {
	host, err := hostHeader(u)
	if err != nil {
		return b, err
	}
	uri := u.RequestURI()
	if strings.ContainsFunc(uri, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return b, errRequestURI
	}
	b = append(append(append(b, method...), ' '), uri...)
	b = append(append(b, " HTTP/1.1\r\nHost: "...), host...)
	b = append(b, "\r\nAccept-Encoding: gzip\r\n"...)
	for _, name := range slices.Sorted(maps.Keys(header)) {
		for _, value := range header[name] {
			if !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
				return b, errHeaderValue
			}
			if name == "User-Agent" && value == "" {
				continue
			}
			b = append(append(b, name...), ": "...)
			b = append(append(b, strings.Trim(value, " \t")...), "\r\n"...)
		}
	}
	return b, nil
}

// hostHeader is what net/http sends: the url's host in ASCII, without an
// address's zone, empty when it cannot be sent.
func hostHeader(u *url.URL) (string, error) {
	host, err := httpguts.PunycodeHostPort(u.Host)
	if err != nil {
		return "", err
	}
	if !httpguts.ValidHostHeader(host) {
		return "", nil
	}
	if end := strings.LastIndexByte(host, ']'); strings.HasPrefix(host, "[") && end > 0 {
		if zone := strings.IndexByte(host[:end], '%'); zone >= 0 {
			host = host[:zone] + host[end:]
		}
	}
	return host, nil
}

// keyOf names the connections that lead to the url.
func keyOf(u *url.URL) hostKey {
	port := u.Port()
	if port == "" {
		port = defaultPort(u.Scheme)
	}
	return hostKey{tls: u.Scheme == "https", addr: net.JoinHostPort(asciiHost(u.Hostname()), port)}
}
