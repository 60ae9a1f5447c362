package oidcauth

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"google.golang.org/grpc/codes"

	"github.com/execgate/execgate/admin"
)

// Algorithms are the signature algorithms that a configuration may name, and all that are accepted when it names none.
// What is signed with a shared secret, or not at all, is never accepted: whoever can verify such a token can make one.
func Algorithms() []string {
	return []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
}

// Defaults of [Options].
const (
	DefaultRefreshInterval  = 5 * time.Minute
	DefaultMinFetchInterval = 10 * time.Second
)

// Options configures an [Authenticator]. Issuer, Audience, and Roles or PermissionsClaim are required.
type Options struct {
	// Issuer is the provider, exactly as its tokens name it.
	Issuer string
	// Audience lists who tokens may be made for; one of them must be among a token's audience.
	Audience []string
	// JWKSURL is where the provider's keys are. Empty: discovery tells.
	JWKSURL string
	// AllowHTTP lets keys come over plain http from other machines than this one.
	AllowHTTP bool
	// RootCAs verify the provider's certificate. Nil: the system's.
	RootCAs *x509.CertPool
	// Algorithms are the signature algorithms that are accepted. Empty: [Algorithms].
	Algorithms []string
	// ClockSkew is how far the provider's clock may be off.
	ClockSkew time.Duration
	// RequireATJWT refuses tokens whose header does not say typ "at+jwt" (RFC 9068).
	RequireATJWT bool
	// RolesClaim is the path of the claim that holds roles: a name, or names joined by dots. A string is a list of roles
	// separated by spaces, a list holds one in each element, and of an object the keys are roles.
	RolesClaim string
	// Roles grants permissions to roles. A role that is missing here grants nothing.
	Roles map[string][]string
	// PermissionsClaim is the path of a claim that holds permissions themselves, in the same forms. Empty: none does.
	PermissionsClaim string
	// RefreshInterval is how long the keys are used before they are read again; a key that the provider took back is
	// refused after that. 0: [DefaultRefreshInterval].
	RefreshInterval time.Duration
	// MinFetchInterval bounds how often tokens with unknown keys make the keys be read again. 0:
	// [DefaultMinFetchInterval].
	MinFetchInterval time.Duration
	// Logger is told when the keys cannot be read, and at debug level why a token is refused. Nil: nothing is logged.
	Logger *slog.Logger
	// Now is the clock. Nil: time.Now.
	Now func() time.Time
}

// Authenticator checks JWT access tokens. Make one with [New]; safe for concurrent use.
type Authenticator struct {
	options Options
	keys    *keySource
}

var _ admin.Signed = (*Authenticator)(nil)

// errUnavailable is answered while there are no keys to check a token with.
var errUnavailable = &admin.Error{Code: codes.Unavailable, Text: "the token cannot be checked now: the issuer's keys cannot be read; try again later"}

// New returns an authenticator. It asks the provider nothing before [Authenticator.Run].
func New(o Options) (*Authenticator, error) {
	if o.Issuer == "" {
		return nil, errors.New("oidcauth: no issuer")
	}
	if len(o.Audience) == 0 {
		return nil, errors.New("oidcauth: no audience: tokens that the issuer made for any other application would be accepted")
	}
	if o.PermissionsClaim == "" && (o.RolesClaim == "" || len(o.Roles) == 0) {
		return nil, errors.New("oidcauth: neither roles nor a permissions claim: no token could do anything")
	}
	for _, text := range []string{o.Issuer, o.JWKSURL} {
		if text == "" {
			continue
		}
		if u, err := url.Parse(text); err != nil || u.Host == "" || !trusted(u, o.AllowHTTP) {
			return nil, errors.New("oidcauth: the issuer and its keys need https URLs")
		}
	}
	if len(o.Algorithms) == 0 {
		o.Algorithms = Algorithms()
	}
	for _, alg := range o.Algorithms {
		if !slices.Contains(Algorithms(), alg) {
			return nil, fmt.Errorf("oidcauth: algorithm %q is not accepted", alg)
		}
	}
	if o.RefreshInterval <= 0 {
		o.RefreshInterval = DefaultRefreshInterval
	}
	if o.MinFetchInterval <= 0 {
		o.MinFetchInterval = DefaultMinFetchInterval
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Authenticator{options: o, keys: newKeySource(o)}, nil
}

// Run reads the provider's keys, and reads them again at intervals and when a token names a key that is not known. It
// returns when ctx ends. While the provider is away, it tries again at growing intervals of at most half a minute, and
// what was read last stays in use. Call it once.
func (a *Authenticator) Run(ctx context.Context) { a.keys.run(ctx) }

// Signed implements [admin.Signed].
func (a *Authenticator) Signed() {}

// Authenticate implements [admin.Authenticator]. What is no JWT of the issuer is [admin.ErrUnknownToken], and so is
// one that is not valid here: why, only the log tells. While the keys are not known, the error has the code
// UNAVAILABLE.
func (a *Authenticator) Authenticate(ctx context.Context, token string) (admin.Caller, error) {
	caller, err := a.authenticate(ctx, token)
	if why := refusal(""); errors.As(err, &why) {
		a.options.Logger.Debug("access token refused", "reason", string(why))
		return admin.Caller{}, fmt.Errorf("%w: %w", admin.ErrUnknownToken, why)
	}
	return caller, err
}

// refusal is why a token is not accepted. It holds nothing of the token.
type refusal string

func (r refusal) Error() string { return string(r) }

func (a *Authenticator) authenticate(ctx context.Context, token string) (admin.Caller, error) {
	// First what costs nothing: strangers' tokens must not make us ask the provider for keys.
	head, err := a.peek(token)
	if err != nil {
		return admin.Caller{}, err
	}
	if err := a.keys.need(ctx, head.KeyID); err != nil {
		return admin.Caller{}, err
	}
	verified, badSignature, err := a.verify(ctx, token)
	if badSignature && head.KeyID == "" && a.keys.again(ctx) {
		// It names no key, so that a new one shows only by this.
		verified, _, err = a.verify(ctx, token)
	}
	if err != nil {
		return admin.Caller{}, err
	}
	c, err := readClaims(verified)
	if err != nil {
		return admin.Caller{}, err
	}
	if err := a.check(ctx, c); err != nil {
		return admin.Caller{}, err
	}
	return admin.Caller{Name: c.actor(), Permissions: a.permissions(c.all)}, nil
}

// verify checks signature, algorithm and issuer. badSignature says that no key fits.
func (a *Authenticator) verify(ctx context.Context, token string) (verified *oidc.IDToken, badSignature bool, err error) {
	set := &signatureCheck{keys: a.keys.current()}
	verified, err = oidc.NewVerifier(a.options.Issuer, set, &oidc.Config{
		SupportedSigningAlgs: a.options.Algorithms,
		// Several audiences are possible, and the library's clock skew is five minutes.
		SkipClientIDCheck: true,
		SkipExpiryCheck:   true,
	}).Verify(ctx, token)
	switch {
	case set.failed:
		return nil, true, refusal("signature")
	case err != nil:
		return nil, false, refusal("claims or issuer")
	}
	return verified, false, nil
}

// check is what has to hold for claims that are the issuer's.
func (a *Authenticator) check(ctx context.Context, c *claims) error {
	now, skew := a.options.Now(), a.options.ClockSkew
	switch {
	case !intersects(c.Audience, a.options.Audience):
		return refusal("audience")
	case c.Expiry == nil || !now.Before(c.Expiry.time().Add(skew)):
		return refusal("expired")
	case c.NotBefore != nil && now.Add(skew).Before(c.NotBefore.time()):
		return refusal("not valid yet")
	case c.Subject == "":
		return refusal("no subject")
	}
	if err := c.accessToken(); err != nil {
		return err
	}
	return c.holder(ctx)
}

func intersects(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

// trusted says whether what comes from a URL comes from the host that it names: over TLS, or from this machine.
func trusted(u *url.URL, allowHTTP bool) bool {
	if u.Scheme == "https" {
		return true
	}
	return u.Scheme == "http" && (allowHTTP || isLoopback(strings.ToLower(u.Hostname())))
}
