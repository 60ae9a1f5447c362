package targetclient

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// guard is what all calls to one target id share: the breaker and the count of
// running calls.
type guard struct {
	id      string
	running atomic.Int64
	last    atomic.Pointer[plan]
	gone    atomic.Bool // its target was deleted: tell nobody about it

	mu       sync.Mutex
	breakers []guardedBreaker // the newest last
}

// maxBreakers bounds the breakers of one id.
const maxBreakers = 4

// guardedBreaker is a breaker and the settings that it belongs to: what was
// learned about one address must not stop calls to another one. The old breaker
// stays for calls that still run with the old settings, so that the two do not
// replace each other in turns.
type guardedBreaker struct {
	key     breakerKey
	breaker *breaker
}

type breakerKey struct {
	url, allowedHosts string
	timeout           time.Duration
	settings          BreakerSettings
}

// plan is everything about calls with one Target value that can be made once.
type plan struct {
	target  *Target
	breaker *breaker
	url     *url.URL // nil: urlErr
	urlErr  error
	host    string // of url, as compared
	timeout time.Duration
	limit   int64       // 0: none
	own     http.Header // to the target's own host: fixed headers included
	other   http.Header // to another host, where a redirect leads

	key     hostKey // of url
	head    []byte  // of a POST there: all that is the same for all calls
	headErr error   // why none can be sent
	// namesDelivery says that a fixed header has the name of one of a delivery's.
	namesDelivery bool
	signers       []*signer
}

func (g *guard) planFor(c *Client, t *Target) *plan {
	if p := g.last.Load(); p != nil && p.target == t {
		return p
	}
	p := &plan{target: t, timeout: t.Timeout, limit: int64(t.MaxConcurrency)}
	if p.timeout <= 0 {
		p.timeout = DefaultTimeout
	}
	if p.limit <= 0 {
		p.limit = int64(c.maxConcurrency)
	}
	if p.url, p.urlErr = parseTargetURL(t.URL); p.urlErr == nil {
		p.host = sameHostForm(p.url.Hostname())
	}
	p.other = http.Header{"User-Agent": {userAgent}}
	p.own = p.other.Clone()
	for name, value := range t.Headers {
		if name = http.CanonicalHeaderKey(name); !reserved(name) {
			p.own[name] = []string{value}
		}
	}
	p.prepare()
	settings := c.breaker
	if t.Breaker != nil {
		settings = t.Breaker.or(DefaultBreakerSettings())
	}
	key := breakerKey{url: t.URL, allowedHosts: strings.Join(t.AllowedHosts, "\n"), timeout: p.timeout, settings: settings}

	g.mu.Lock()
	defer g.mu.Unlock()
	before := g.last.Load()
	if i := slices.IndexFunc(g.breakers, func(b guardedBreaker) bool { return b.key == key }); i >= 0 {
		p.breaker = g.breakers[i].breaker
	} else {
		p.breaker = g.newBreaker(c, settings)
		if len(g.breakers) == maxBreakers {
			g.breakers = slices.Delete(g.breakers, 0, 1)
		}
		g.breakers = append(g.breakers, guardedBreaker{key, p.breaker})
	}
	g.last.Store(p)
	if before != nil && before.breaker != p.breaker {
		if s := p.breaker.current(); s != before.breaker.current() {
			g.changed(c, s)
		}
	}
	return p
}

// prepare makes what all requests of the plan have in common.
func (p *plan) prepare() {
	for _, key := range p.target.SigningKeys {
		p.signers = append(p.signers, newSigner(key))
	}
	for _, name := range []string{canonicalWebhookID, canonicalWebhookTimestamp, canonicalWebhookSignature, canonicalAttempt} {
		p.namesDelivery = p.namesDelivery || p.own[name] != nil
	}
	if p.urlErr != nil {
		return
	}
	p.key = keyOf(p.url)
	header := p.own.Clone()
	header["Content-Type"] = contentType
	authorize(header, p.url)
	p.head, p.headErr = appendHead(nil, p.url, http.MethodPost, header)
}

func (g *guard) newBreaker(c *Client, settings BreakerSettings) *breaker {
	var b *breaker
	b = newBreaker(settings, func(s BreakerState) {
		if g.last.Load().breaker == b {
			g.changed(c, s)
		}
	})
	return b
}

// changed tells of the state that the breaker in use has now.
func (g *guard) changed(c *Client, s BreakerState) {
	if g.gone.Load() {
		return
	}
	name := g.last.Load().target.Name
	level := slog.LevelInfo
	if s == BreakerOpen {
		level = slog.LevelWarn
	}
	c.logger.Log(context.Background(), level, "breaker changed", "target", name, "target_id", g.id, "state", s.String())
	if c.onBreakerChange != nil {
		c.onBreakerChange(g.id, name, s)
	}
}

// enter counts a call in, unless limit (0: none) calls are running.
func (g *guard) enter(limit int64) bool {
	if limit <= 0 {
		g.running.Add(1)
		return true
	}
	for {
		n := g.running.Load()
		if n >= limit {
			return false
		}
		if g.running.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (g *guard) leave() { g.running.Add(-1) }

// parseTargetURL never repeats the url in its error: it may hold secrets.
func parseTargetURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return nil, errors.New("url cannot be parsed")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("url is neither http nor https")
	case u.Hostname() == "":
		return nil, errors.New("url has no host")
	}
	return u, nil
}

// reserved says whether a header (in canonical form) is the client's own
// business: those that frame the message, and those that say what it is.
func reserved(name string) bool {
	switch name {
	case "Accept-Encoding", "Connection", "Content-Encoding", "Content-Length", "Content-Type", "Expect", "Host",
		"Keep-Alive", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
		canonicalSignatureHeader:
		return true
	}
	return false
}

// canonicalSignatureHeader is SignatureHeaderName as net/http spells it.
const canonicalSignatureHeader = "Zitadel-Signature"
