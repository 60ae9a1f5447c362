package targetclient

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"sync"
	"time"
)

const (
	protocolHTTP1 = "http/1.1"
	protocolHTTP2 = "h2"
)

// dialFunc makes a connection, or refuses to.
type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// transport sends requests: over HTTP/1 by itself, over HTTP/2, which a host may
// choose in its TLS handshake, by net/http. It keeps connections by scheme and
// host, and has no limit that one host could use up for another.
type transport struct {
	dial  dialFunc
	tls   *tls.Config
	pool  pool
	http2 *http.Transport
	hand  handover
	// allHTTP sends everything by net/http: for tests that compare.
	allHTTP bool
}

func newTransport(dial dialFunc, config *tls.Config) *transport {
	if config == nil {
		config = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	config = config.Clone()
	for _, p := range []string{protocolHTTP2, protocolHTTP1} {
		if !slices.Contains(config.NextProtos, p) {
			config.NextProtos = append(config.NextProtos, p)
		}
	}
	t := &transport{dial: dial, tls: config}
	t.http2 = &http.Transport{
		Proxy:                  nil, // see the package comment
		DialContext:            dial,
		DialTLSContext:         t.dialHTTP2,
		TLSClientConfig:        config.Clone(),
		MaxIdleConnsPerHost:    idlePerHost,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
		ForceAttemptHTTP2:      true,
		// An HTTP/2 connection carries all calls to its host: find out soon
		// when it is dead.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 10 * time.Second, PingTimeout: 5 * time.Second},
	}
	return t
}

func (t *transport) closeIdle() {
	t.pool.closeIdle()
	t.http2.CloseIdleConnections()
}

// send sends one request and reads its answer. With an error, the answer's
// status tells whether one had begun.
func (t *transport) send(ctx context.Context, end bound, r *request, u *url.URL, method string, limit int64, x *exchange) (answer, error) {
	key := r.plan.key
	if u != r.plan.url {
		key = keyOf(u)
	}
	x.took = 0
	if t.allHTTP || t.pool.speaksHTTP2(key) {
		return t.sendHTTP(ctx, end, r.http, u, method, limit)
	}
	var err error
	if x.out, err = r.appendTo(x.out[:0], u, method); err != nil {
		return answer{}, err
	}
	x.head = len(x.out)
	var payload []byte
	if method == http.MethodPost {
		payload = r.payload
	}
	for {
		c, err := t.connection(ctx, end, key)
		if errors.Is(err, errHTTP2) {
			t.hand.over(c)
			defer t.hand.back(c)
			return t.sendHTTP(ctx, end, r.http, u, method, limit)
		}
		if err != nil {
			return answer{}, err
		}
		a, err := x.do(ctx, end.at, c, payload, limit)
		x.took = time.Since(x.began)
		if x.keep {
			c.reused = true
			t.pool.put(c, x.began.Add(x.took))
		}
		if err != nil && c.reused && ctx.Err() == nil && x.again(err, r.repeatable(method)) {
			continue // every turn uses up a kept connection
		}
		return a, err
	}
}

// again says whether the request may be sent on another connection: nothing of
// it was written, so that the target cannot have acted on it; or the connection
// ended before an answer began, and repeating does no harm.
func (x *exchange) again(err error, repeatable bool) bool {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	return x.written == 0 || repeatable && !x.in.seen
}

// connection returns a kept connection, which may be dead, or a new one.
func (t *transport) connection(ctx context.Context, end bound, key hostKey) (*conn, error) {
	if c := t.pool.take(key); c != nil {
		return c, nil
	}
	ctx, cancel := end.context(ctx)
	defer cancel()
	return t.connect(ctx, key)
}

// sendHTTP is send by net/http.
func (t *transport) sendHTTP(ctx context.Context, end bound, request func(context.Context, *url.URL, string) *http.Request, u *url.URL, method string, limit int64) (answer, error) {
	ctx, cancel := end.context(ctx)
	defer cancel()
	resp, err := t.http2.RoundTrip(request(ctx, u, method))
	if err != nil {
		return answer{}, err
	}
	a := answer{
		status: resp.StatusCode, location: resp.Header.Get("Location"),
		retryAfter: resp.Header.Get("Retry-After"), date: resp.Header.Get("Date"),
	}
	defer resp.Body.Close()
	if a.status >= 200 && a.status <= 299 {
		if resp.ContentLength > limit {
			return a, errTooLarge
		}
		a.body, err = readUpTo(resp.Body, resp.ContentLength, limit)
		return a, err
	}
	discard(resp)
	return a, nil
}

// discard reads what keeps the connection usable if that is little and comes at
// once.
func discard(resp *http.Response) {
	if resp.ContentLength != 0 && resp.ContentLength <= discardBytes && resp.StatusCode != http.StatusSwitchingProtocols {
		timer := time.AfterFunc(discardTime, func() { _ = resp.Body.Close() })
		_, _ = io.CopyN(io.Discard, resp.Body, discardBytes+1)
		timer.Stop()
	}
}

// dialHTTP2 is how net/http gets a connection: the one on which a host has just
// chosen HTTP/2, or a new one.
func (t *transport) dialHTTP2(ctx context.Context, network, addr string) (net.Conn, error) {
	if c := t.hand.take(addr); c != nil {
		return c.nc, nil
	}
	raw, err := t.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	nc, err := t.handshake(ctx, raw, addr)
	if err != nil {
		return nil, err
	}
	t.pool.learnHTTP2(hostKey{tls: true, addr: addr}, nc.ConnectionState().NegotiatedProtocol == protocolHTTP2)
	return nc, nil
}

// handover holds connections on their way to net/http.
type handover struct {
	mu    sync.Mutex
	conns []*conn
}

func (h *handover) over(c *conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.conns = append(h.conns, c)
}

// take returns a connection to the address; nil: there is none.
func (h *handover) take(addr string) *conn {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.IndexFunc(h.conns, func(c *conn) bool { return c.key.addr == addr })
	if i < 0 {
		return nil
	}
	c := h.conns[i]
	h.conns = slices.Delete(h.conns, i, i+1)
	return c
}

// back closes a connection that net/http did not want.
func (h *handover) back(c *conn) {
	h.mu.Lock()
	i := slices.Index(h.conns, c)
	if i >= 0 {
		h.conns = slices.Delete(h.conns, i, i+1)
	}
	h.mu.Unlock()
	if i >= 0 {
		c.retire()
	}
}
