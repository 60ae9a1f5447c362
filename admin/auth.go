package admin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"strings"
)

// The permissions that calls ask for.
const (
	permTargetRead      = "action.target.read"
	permTargetWrite     = "action.target.write"
	permTargetDelete    = "action.target.delete"
	permExecutionRead   = "action.execution.read"
	permExecutionWrite  = "action.execution.write"
	permExecutionDelete = "action.execution.delete"
	permExecutionList   = "execution.read"
)

// permissionAliases names, for a permission, another one that includes it: the generations of the API differ in what
// they ask for.
var permissionAliases = map[string]string{
	permExecutionList:   permExecutionRead,
	permExecutionDelete: permExecutionWrite,
}

// Caller is who makes a call.
type Caller struct {
	// Name stands in the audit log.
	Name string
	// Permissions are granted as named; "*" grants everything, and a trailing ".*" everything below it.
	Permissions []string
}

// Can says whether the caller has the permission, itself or through an alias.
func (c Caller) Can(permission string) bool {
	alias := permissionAliases[permission]
	for _, granted := range c.Permissions {
		if grants(granted, permission) || alias != "" && grants(granted, alias) {
			return true
		}
	}
	return false
}

func grants(granted, permission string) bool {
	if granted == permission || granted == "*" {
		return true
	}
	prefix, wildcard := strings.CutSuffix(granted, "*")
	return wildcard && strings.HasSuffix(prefix, ".") && strings.HasPrefix(permission, prefix)
}

// ErrUnknownToken is what an [Authenticator] answers for a token that is not, or no longer, one of its own.
var ErrUnknownToken = errors.New("admin: unknown token")

// Authenticator says whose a bearer token is.
type Authenticator interface {
	// Authenticate returns the caller, or an error that wraps ErrUnknownToken so that the next authenticator is asked.
	// Any other error ends the call. No error may contain the token. Safe for concurrent use.
	Authenticate(ctx context.Context, token string) (Caller, error)
}

// Signed is an optional second interface of an [Authenticator] whose tokens cannot be guessed, because they are signed.
// It is asked also for an address that failed too often: what others do there locks out nobody who has a good token,
// and such tokens are new every few minutes.
type Signed interface {
	Authenticator
	// Signed does nothing.
	Signed()
}

// Token is a static bearer token.
type Token struct {
	// Name stands in the audit log.
	Name string
	// SHA256 is the digest of the token; the token itself is not kept.
	SHA256 [sha256.Size]byte
	// Permissions as in [Caller].
	Permissions []string
}

// HashToken returns the digest that a [Token] holds.
func HashToken(token string) [sha256.Size]byte { return sha256.Sum256([]byte(token)) }

// staticTokens is the authenticator of a fixed list.
type staticTokens []Token

// Authenticate compares with every token in constant time: the time taken says nothing about which one is near.
func (s staticTokens) Authenticate(_ context.Context, token string) (Caller, error) {
	digest := HashToken(token)
	found := -1
	for i := range s {
		if subtle.ConstantTimeCompare(digest[:], s[i].SHA256[:]) == 1 {
			found = i
		}
	}
	if found < 0 {
		return Caller{}, ErrUnknownToken
	}
	return Caller{Name: s[found].Name, Permissions: s[found].Permissions}, nil
}

// authentication decides who calls.
type authentication struct {
	authenticators []Authenticator
	certificates   []ClientCertificate
	failures       *failureLimit
}

// open says that nobody has to authenticate.
func (a *authentication) open() bool { return len(a.authenticators)+len(a.certificates) == 0 }

// caller returns who sent the value of an Authorization header from an address.
func (a *authentication) caller(ctx context.Context, header, address string) (Caller, error) {
	if a.open() {
		return Caller{Name: "anonymous", Permissions: []string{"*"}}, nil
	}
	if strings.TrimSpace(header) == "" {
		return Caller{}, errNoAuthHeader
	}
	scheme, token, _ := strings.Cut(strings.TrimSpace(header), " ")
	token = strings.TrimSpace(token)
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return Caller{}, errBadToken
	}
	digest := HashToken(token)
	allowed := a.failures.allow(address, digest)
	for _, authenticator := range a.authenticators {
		if _, signed := authenticator.(Signed); !allowed && !signed {
			continue
		}
		caller, err := authenticator.Authenticate(ctx, token)
		switch {
		case err == nil:
			a.failures.succeeded(address, digest)
			return caller, nil
		case !errors.Is(err, ErrUnknownToken):
			return Caller{}, err
		}
	}
	if !allowed {
		return Caller{}, errManyFailures
	}
	a.failures.failed(address, digest)
	return Caller{}, errBadToken
}

type callerKey struct{}

func withCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// callerName is the name for the audit log.
func callerName(ctx context.Context) string {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c.Name
}
