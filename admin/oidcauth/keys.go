package oidcauth

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

const (
	fetchTimeout = 10 * time.Second // for discovery and keys together
	waitAtMost   = 5 * time.Second  // a call waits for keys
	firstRetry   = time.Second
	lastRetry    = 30 * time.Second
	maxDocument  = 1 << 20
	maxKeys      = 100
	minRSABits   = 2048
)

// keySource keeps the provider's keys. All reading is done by run, so that calls that end cut nothing short, and calls
// that come together cause one read.
type keySource struct {
	issuer, url string // url: configured, "" for discovery
	allowHTTP   bool
	algorithms  []string
	refresh     time.Duration
	minInterval time.Duration
	client      *http.Client
	logger      *slog.Logger
	now         func() time.Time

	set     atomic.Pointer[keySet]
	wake    chan struct{}
	stopped chan struct{}

	mu      sync.Mutex
	last    time.Time     // begin of the last attempt to read
	failed  error         // of the last attempt
	pending chan struct{} // closed at the end of the attempt that calls wait for
}

// keySet is what was read: public keys for signatures.
type keySet struct{ keys []jose.JSONWebKey }

func newKeySource(o Options) *keySource {
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.RootCAs},
		ForceAttemptHTTP2:     true,
		ResponseHeaderTimeout: fetchTimeout,
		DisableKeepAlives:     true, // minutes pass between reads
	}
	k := &keySource{
		issuer:      o.Issuer,
		url:         o.JWKSURL,
		allowHTTP:   o.AllowHTTP,
		algorithms:  o.Algorithms,
		refresh:     o.RefreshInterval,
		minInterval: o.MinFetchInterval,
		logger:      o.Logger,
		now:         o.Now,
		wake:        make(chan struct{}, 1),
		stopped:     make(chan struct{}),
	}
	k.client = &http.Client{
		Transport: bounded{transport},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) >= 5 || !trusted(req.URL, k.allowHTTP) {
				return errors.New("redirected too often, or away from https")
			}
			return nil
		},
	}
	return k
}

// current returns the keys that are known; nil before any were read.
func (k *keySource) current() *keySet { return k.set.Load() }

// need returns when the key is known, as far as that can be: unless it is, the keys are read again, though not too
// often. Without an id, any keys will do.
func (k *keySource) need(ctx context.Context, id string) error {
	if set := k.current(); set != nil && (id == "" || set.has(id)) {
		return nil
	}
	k.again(ctx)
	set := k.current()
	if set != nil && (id == "" || set.has(id)) {
		return nil
	}
	k.mu.Lock()
	failed := k.failed != nil
	k.mu.Unlock()
	if set == nil || failed {
		return errUnavailable // the key may well be the provider's
	}
	return refusal("key")
}

// again makes run read the keys, unless that was done just now, and waits for it. It says whether run tried.
func (k *keySource) again(ctx context.Context) bool {
	k.mu.Lock()
	if k.pending == nil {
		if !k.last.IsZero() && k.now().Sub(k.last) < k.minInterval {
			k.mu.Unlock()
			return false
		}
		k.pending = make(chan struct{})
		k.wake <- struct{}{} // one for each pending
	}
	pending := k.pending
	k.mu.Unlock()

	timeout := time.NewTimer(waitAtMost)
	defer timeout.Stop()
	select {
	case <-pending:
		return true
	case <-timeout.C:
	case <-k.stopped:
	case <-ctx.Done():
	}
	return false
}

// run reads the keys until ctx ends.
func (k *keySource) run(ctx context.Context) {
	defer close(k.stopped)
	retry := firstRetry
	for {
		if err := k.read(ctx); err != nil {
			retry = min(retry*2, lastRetry)
		} else {
			retry = firstRetry
		}
		pause := k.refresh
		k.mu.Lock()
		if k.failed != nil {
			pause = min(retry/2+rand.N(retry/2), k.refresh)
		}
		k.mu.Unlock()
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-k.wake:
			timer.Stop()
		}
	}
}

// read makes one attempt, and lets go those who wait for it.
func (k *keySource) read(ctx context.Context) error {
	k.mu.Lock()
	k.last = k.now()
	if k.pending == nil {
		k.pending = make(chan struct{}) // who comes now waits for this attempt
	} else {
		select {
		case <-k.wake: // it is answered by this
		default:
		}
	}
	k.mu.Unlock()

	ctx, cancel := context.WithTimeoutCause(ctx, fetchTimeout, errors.New("the issuer did not answer in time"))
	defer cancel()
	set, err := k.fetch(ctx)

	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case err == nil:
		k.set.Store(set)
		if k.failed != nil {
			k.logger.Info("the keys of the OIDC issuer are read again", "issuer", k.issuer, "keys", len(set.keys))
		}
	case ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled):
		// We are stopping.
	case k.failed == nil:
		k.logger.Warn("the keys of the OIDC issuer cannot be read", "issuer", k.issuer, "error", err,
			"effect", effect(k.set.Load() != nil))
	}
	k.failed = err
	close(k.pending)
	k.pending = nil
	return err
}

func effect(known bool) string {
	if known {
		return "the keys that were read last stay in use"
	}
	return "access tokens are refused as UNAVAILABLE; static tokens and client certificates are not affected"
}

// fetch asks the provider where its keys are, and for them. Its error holds no query: that may be a secret.
func (k *keySource) fetch(ctx context.Context) (*keySet, error) {
	from := k.url
	if from == "" {
		provider, err := oidc.NewProvider(oidc.ClientContext(ctx, k.client), k.issuer)
		if err != nil {
			return nil, fmt.Errorf("discovery: %w", shorten(err))
		}
		var document struct {
			JWKSURI string `json:"jwks_uri"`
		}
		if err := provider.Claims(&document); err != nil {
			return nil, fmt.Errorf("discovery: %w", err)
		}
		u, err := url.Parse(document.JWKSURI)
		if err != nil || u.Host == "" || !trusted(u, k.allowHTTP) {
			return nil, errors.New("discovery: jwks_uri is no https URL")
		}
		from = document.JWKSURI
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, errors.New("read keys: not a URL")
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	res, err := k.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("read keys: %w", shorten(err))
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("read keys: the issuer answered %s", res.Status)
	}
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	return parseKeys(text, k.algorithms)
}

// parseKeys keeps the keys that can verify a signature that we accept. What it does not understand it leaves out: a
// provider may add keys of new kinds at any time.
func parseKeys(text []byte, algorithms []string) (*keySet, error) {
	var document struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &document); err != nil {
		return nil, errors.New("read keys: the answer is no JSON Web Key Set")
	}
	set := new(keySet)
	for _, raw := range document.Keys {
		var key jose.JSONWebKey
		if json.Unmarshal(raw, &key) != nil || !usable(&key, algorithms) || len(set.keys) == maxKeys {
			continue
		}
		set.keys = append(set.keys, key)
	}
	if len(set.keys) == 0 {
		return nil, errors.New("read keys: there is none that verifies signatures with the accepted algorithms")
	}
	return set, nil
}

func usable(key *jose.JSONWebKey, algorithms []string) bool {
	if !key.Valid() || !key.IsPublic() || key.Use != "" && key.Use != "sig" {
		return false
	}
	if public, ok := key.Key.(*rsa.PublicKey); ok && public.N.BitLen() < minRSABits {
		return false
	}
	if key.Algorithm == "" {
		return true
	}
	for _, a := range algorithms {
		if a == key.Algorithm {
			return true
		}
	}
	return false
}

func (s *keySet) has(id string) bool {
	for i := range s.keys {
		if s.keys[i].KeyID == id {
			return true
		}
	}
	return false
}

// signatureCheck verifies one token's signature for the library, and keeps whether it failed.
type signatureCheck struct {
	keys   *keySet
	failed bool
}

var _ oidc.KeySet = (*signatureCheck)(nil)

// VerifySignature implements [oidc.KeySet].
func (c *signatureCheck) VerifySignature(_ context.Context, token string) ([]byte, error) {
	all := make([]jose.SignatureAlgorithm, 0, 10)
	for _, a := range Algorithms() { // the library has compared with those that are accepted
		all = append(all, jose.SignatureAlgorithm(a))
	}
	signed, err := jose.ParseSignedCompact(token, all)
	if err != nil || len(signed.Signatures) != 1 {
		return nil, errors.New("malformed")
	}
	head := signed.Signatures[0].Header
	for i := range c.keys.keys {
		key := &c.keys.keys[i]
		if head.KeyID != "" && key.KeyID != head.KeyID || key.Algorithm != "" && key.Algorithm != head.Algorithm {
			continue
		}
		if payload, err := signed.Verify(key.Key); err == nil {
			return payload, nil
		}
	}
	c.failed = true
	return nil, errors.New("no key fits")
}

// bounded ends answers that are too long.
type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := b.next.RoundTrip(req)
	if err == nil {
		res.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(res.Body, maxDocument), res.Body}
	}
	return res, err
}

// shorten leaves the URL out of an error, and bounds what the other side said.
func shorten(err error) error {
	if outer := (*url.Error)(nil); errors.As(err, &outer) {
		return outer.Err
	}
	const most = 300
	if text := err.Error(); len(text) > most {
		return errors.New(strings.ToValidUTF8(text[:most], "") + "...")
	}
	return err
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
