package targetclient

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
	"time"
)

const (
	userAgent = "execgate"
	// maxRedirects are followed; the next one is an error (D-52).
	maxRedirects = 4
	// dialTimeout and tlsTimeout bound a connection that nobody waits for any
	// more as well: net/http finishes it for the pool.
	dialTimeout = 5 * time.Second
	tlsTimeout  = 5 * time.Second
	// idlePerHost is generous because a connection that is not kept costs more
	// than one that is. There is no limit over all hosts: one busy target could
	// push the others' connections out.
	idlePerHost = 128
	idleTimeout = 90 * time.Second
	// maxHeaderBytes bounds the header of an answer, 1xx answers before it
	// included.
	maxHeaderBytes = 1 << 20
	// A body that does not count is read this far, for this long, to keep its
	// connection.
	discardBytes = 16 << 10
	discardTime  = 50 * time.Millisecond
)

// newTransport returns the pool that all targets share. It keeps connections by
// scheme and host and has no limit that one host could use up for another.
func newTransport(dial func(ctx context.Context, network, addr string) (net.Conn, error), config *tls.Config) *http.Transport {
	return &http.Transport{
		Proxy:                  nil, // see the package comment
		DialContext:            dial,
		TLSClientConfig:        config,
		TLSHandshakeTimeout:    tlsTimeout,
		MaxIdleConnsPerHost:    idlePerHost,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
		ForceAttemptHTTP2:      true,
		// An HTTP/2 connection carries all calls to its host: find out soon
		// when it is dead.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 10 * time.Second, PingTimeout: 5 * time.Second},
	}
}

var (
	errTooManyRedirects = fmt.Errorf("more than %d redirects", maxRedirects)
	errInsecureRedirect = errors.New("redirect from https to http")
	errRedirectScheme   = errors.New("redirect to a url that is neither http nor https")
	errTooLarge         = errors.New("answer is larger than the limit")
)

// request is one call as it goes over the wire, redirects included.
type request struct {
	plan      *plan
	payload   []byte
	header    http.Header // of the call alone
	signature string      // "": not signed
	delivery  http.Header // what names and signs a delivery, in canonical form

	retryAfter time.Duration // what the last answer asked for
}

// fetch sends the request, follows redirects and reads the answer's body, which
// is nil unless the status is 2xx. The status is 0 if no answer came.
func (c *Client) fetch(ctx context.Context, r *request) (status int, body []byte, err error) {
	u, method := r.plan.url, http.MethodPost
	for hops := 0; ; hops++ {
		if !hostAllowedBy(r.plan.target.AllowedHosts, u) {
			return status, nil, fmt.Errorf("host %q is not one of the target's: %w", u.Hostname(), ErrDenied)
		}
		resp, err := c.transport.RoundTrip(r.to(ctx, u, method))
		if err != nil {
			return status, nil, err
		}
		status = resp.StatusCode
		if status >= 200 && status <= 299 {
			body, err := readBody(resp, c.maxResponseBytes)
			return status, body, err
		}
		r.retryAfter = retryAfter(resp.Header, time.Now())
		discard(resp)
		next, err := redirect(u, resp)
		if next == nil || err != nil {
			return status, nil, err
		}
		if hops == maxRedirects {
			return status, nil, errTooManyRedirects
		}
		if status < http.StatusTemporaryRedirect {
			method = http.MethodGet
		}
		u = next
	}
}

// redirect returns where the answer leads; nil if it is none that can be
// followed, which is then judged by its status.
func redirect(from *url.URL, resp *http.Response) (*url.URL, error) {
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	default:
		return nil, nil
	}
	location := resp.Header.Get("Location")
	if location == "" {
		return nil, nil
	}
	to, err := from.Parse(location)
	switch {
	case err != nil:
		return nil, nil //nolint:nilerr // no usable Location: the status decides
	case to.Scheme != "http" && to.Scheme != "https":
		return nil, errRedirectScheme
	case to.Hostname() == "":
		return nil, nil
	case from.Scheme == "https" && to.Scheme == "http":
		return nil, errInsecureRedirect
	}
	return to, nil
}

// to builds the request of one hop. A GET, which is what 301, 302 and 303 make
// of a POST, carries nothing of the delivery: no body, no signature, no headers
// of the call. Another host gets none of the target's fixed headers.
func (r *request) to(ctx context.Context, u *url.URL, method string) *http.Request {
	base := r.plan.own
	if u != r.plan.url && sameHostForm(u.Hostname()) != r.plan.host {
		base = r.plan.other
	}
	header := make(http.Header, len(base)+len(r.header)+3)
	maps.Copy(header, base)
	req := &http.Request{
		Method: method, URL: u, Host: u.Host, Header: header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	if method == http.MethodPost {
		for name, values := range r.header {
			if name = http.CanonicalHeaderKey(name); !reserved(name) {
				header[name] = values
			}
		}
		header["Content-Type"] = contentType
		if r.signature != "" {
			header[SignatureHeaderName] = []string{r.signature}
		}
		maps.Copy(header, r.delivery)
		req.ContentLength = int64(len(r.payload))
		req.Body = http.NoBody
		if len(r.payload) > 0 {
			req.Body = io.NopCloser(bytes.NewReader(r.payload))
			// Lets net/http try again on another connection when a kept one
			// turns out to be dead before a byte was written.
			req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(r.payload)), nil }
		}
	}
	if _, ok := header["Authorization"]; !ok && u.User != nil {
		password, _ := u.User.Password()
		header["Authorization"] = []string{"Basic " + base64.StdEncoding.EncodeToString([]byte(u.User.Username()+":"+password))}
	}
	return req.WithContext(ctx)
}

var contentType = []string{"application/json"} // never changed

// readBody reads and closes the body. It ends in an error one byte past the
// limit.
func readBody(resp *http.Response, limit int64) ([]byte, error) {
	defer resp.Body.Close()
	if resp.ContentLength > limit {
		return nil, errTooLarge
	}
	// The announced length is believed only so far before the bytes are there.
	// One more byte than announced: the read that fills the rest also sees the
	// end.
	size := 512
	if resp.ContentLength >= 0 {
		size = int(min(resp.ContentLength, 1<<20)) + 1
	}
	body := make([]byte, 0, size)
	for {
		if len(body) == cap(body) {
			body = append(body, 0)[:len(body)]
		}
		n, err := resp.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		if int64(len(body)) > limit {
			return nil, errTooLarge
		}
		switch {
		case errors.Is(err, io.EOF):
			return body, nil
		case err != nil:
			return nil, err
		}
	}
}

// discard closes the body, having read what keeps the connection usable if that
// is little and comes at once.
func discard(resp *http.Response) {
	if resp.ContentLength != 0 && resp.ContentLength <= discardBytes && resp.StatusCode != http.StatusSwitchingProtocols {
		timer := time.AfterFunc(discardTime, func() { _ = resp.Body.Close() })
		_, _ = io.CopyN(io.Discard, resp.Body, discardBytes+1)
		timer.Stop()
	}
	_ = resp.Body.Close()
}

// transportError gives an error from below a text that is fit for logs.
type transportError struct {
	text string
	err  error
}

func (e *transportError) Error() string { return e.text }
func (e *transportError) Unwrap() error { return e.err }

// clean keeps what the other side sent out of an error's text. net/http quotes
// such bytes, except in a protocol error. (The url is never in it: that is
// http.Client's doing, which is not used here.)
func clean(err error) error {
	var protocol textproto.ProtocolError
	if errors.As(err, &protocol) {
		return &transportError{"malformed answer", err}
	}
	if text, _, quoted := strings.Cut(err.Error(), `"`); quoted && !ours(err) {
		return &transportError{strings.TrimRight(text, " :="), err}
	}
	return err
}

// ours says whether the text of the error was written in this package.
func ours(err error) bool { return errors.Is(err, ErrDenied) }
