package targetclient

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
	"sync"
	"time"
)

const (
	userAgent = "execgate"
	// maxRedirects are followed; the next one is an error (D-52).
	maxRedirects = 4
	dialTimeout  = 5 * time.Second
	tlsTimeout   = 5 * time.Second
	// maxHeaderBytes bounds the header of an answer, 1xx answers before it
	// included.
	maxHeaderBytes = 1 << 20
	// A body that does not count is read this far, for this long, to keep its
	// connection.
	discardBytes = 16 << 10
	discardTime  = 50 * time.Millisecond
)

var (
	errTooManyRedirects = fmt.Errorf("more than %d redirects", maxRedirects)
	errInsecureRedirect = errors.New("redirect from https to http")
	errRedirectScheme   = errors.New("redirect to a url that is neither http nor https")
	errTooLarge         = errors.New("answer is larger than the limit")
)

// answer is what counts of an answer to one request.
type answer struct {
	status int
	body   []byte // nil unless the status is 2xx
	// Values of the header, "" when absent.
	location, retryAfter, date string
}

// bound is when a call ends unless its context ends before, and by whose timeout.
type bound struct {
	at    time.Time
	cause error
}

// context returns a context that ends there too.
func (b bound) context(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithDeadlineCause(ctx, b.at, b.cause)
}

// exchanges are reused: buffers of a request and its answer.
var exchanges = sync.Pool{New: func() any { return new(exchange) }}

// fetch sends the request, follows redirects and reads the answer's body, which
// is nil unless the status is 2xx. The status is 0 if no answer came.
func (c *Client) fetch(ctx context.Context, end bound, r *request, x *exchange) (status int, body []byte, err error) {
	u, method := r.plan.url, http.MethodPost
	for hops := 0; ; hops++ {
		if !hostAllowedBy(r.plan.target.AllowedHosts, u) {
			return status, nil, fmt.Errorf("host %q is not one of the target's: %w", u.Hostname(), ErrDenied)
		}
		a, err := c.transport.send(ctx, end, r, u, method, c.maxResponseBytes, x)
		if a.status != 0 {
			status = a.status
		}
		if err != nil || status >= 200 && status <= 299 {
			return status, a.body, err
		}
		r.retryAfter = retryAfter(a.retryAfter, a.date, time.Now())
		next, err := redirect(u, &a)
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
func redirect(from *url.URL, a *answer) (*url.URL, error) {
	switch a.status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	default:
		return nil, nil
	}
	if a.location == "" {
		return nil, nil
	}
	to, err := from.Parse(a.location)
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
