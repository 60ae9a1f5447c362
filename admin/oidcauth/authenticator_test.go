package oidcauth_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/execgate/execgate/admin"
	"github.com/execgate/execgate/admin/oidcauth"
	"github.com/execgate/execgate/internal/testkit/oidcserver"
)

func TestRolesBecomePermissions(t *testing.T) {
	t.Parallel()
	provider := oidcserver.Start(t, clients()...)
	f := start(t, options(provider))
	for client, want := range map[string]struct{ read, write codes.Code }{
		"operator":  {codes.OK, codes.OK},
		"viewer":    {codes.OK, codes.PermissionDenied},
		"stranger":  {codes.PermissionDenied, codes.PermissionDenied},
		"elsewhere": {codes.Unauthenticated, codes.Unauthenticated},
		"late":      {codes.Unauthenticated, codes.Unauthenticated},
	} {
		t.Run(client, func(t *testing.T) {
			g := *f
			g.t = t
			g.want(provider.Token(client), want.read, want.write)
		})
	}
	f.want(static, codes.OK, codes.OK)
	f.want("no JWT", codes.Unauthenticated, codes.Unauthenticated)
	if provider.KeyReads() != 1 {
		t.Errorf("the keys were read %d times", provider.KeyReads())
	}
}

func TestTheAccessTokenOfALoginIsAcceptedAndItsIDTokenIsNot(t *testing.T) {
	t.Parallel()
	provider := oidcserver.Start(t, clients()...)
	f := start(t, options(provider))
	access, id := provider.Login(audience)
	f.want(access, codes.OK, codes.OK)
	f.want(id, codes.Unauthenticated, codes.Unauthenticated)

	o := options(provider)
	o.RequireATJWT = true
	f = start(t, o)
	f.want(access, codes.Unauthenticated, codes.Unauthenticated) // this provider's say typ JWT
	claims := provider.Claims(audience)
	maps.Copy(claims, zitadelRoles("viewer"))
	f.want(provider.Sign("at+jwt", claims), codes.OK, codes.PermissionDenied)
}

func TestTokensThatAreNotValid(t *testing.T) {
	t.Parallel()
	provider, other := oidcserver.Start(t, clients()...), oidcserver.Start(t, clients()...)
	now, o := time.Now(), options(provider)
	o.Now = func() time.Time { return now }
	f := start(t, o)
	with := func(changes map[string]any) map[string]any {
		claims := provider.Claims(audience)
		maps.Copy(claims, zitadelRoles("operator"))
		for name, value := range changes {
			if value == nil {
				delete(claims, name)
			} else {
				claims[name] = value
			}
		}
		return claims
	}
	good := provider.Token("operator")
	for name, row := range map[string]struct {
		token string
		want  codes.Code // OK or Unauthenticated
	}{
		"one that is":                      {provider.Sign("JWT", with(nil)), codes.OK},
		"at+jwt":                           {provider.Sign("at+jwt", with(nil)), codes.OK},
		"application/at+jwt":               {provider.Sign("application/AT+JWT", with(nil)), codes.OK},
		"no type":                          {provider.Sign("", with(nil)), codes.OK},
		"several audiences":                {provider.Sign("JWT", with(map[string]any{"aud": []string{"a", audience}})), codes.OK},
		"just expired, within the skew":    {provider.Sign("JWT", with(map[string]any{"exp": now.Unix()})), codes.OK},
		"an expiry with a fraction":        {provider.Sign("JWT", with(map[string]any{"exp": float64(now.Unix()) + 60.5})), codes.OK},
		"expired":                          {provider.Sign("JWT", with(map[string]any{"exp": now.Add(-5 * time.Second).Unix()})), codes.Unauthenticated},
		"no expiry":                        {provider.Sign("JWT", with(map[string]any{"exp": nil})), codes.Unauthenticated},
		"not valid yet":                    {provider.Sign("JWT", with(map[string]any{"nbf": now.Add(time.Minute).Unix()})), codes.Unauthenticated},
		"another audience":                 {provider.Sign("JWT", with(map[string]any{"aud": "another"})), codes.Unauthenticated},
		"no audience":                      {provider.Sign("JWT", with(map[string]any{"aud": nil})), codes.Unauthenticated},
		"an empty audience":                {provider.Sign("JWT", with(map[string]any{"aud": []string{}})), codes.Unauthenticated},
		"another issuer in name":           {provider.Sign("JWT", with(map[string]any{"iss": other.Issuer()})), codes.Unauthenticated},
		"the issuer with a slash":          {provider.Sign("JWT", with(map[string]any{"iss": provider.Issuer() + "/"})), codes.Unauthenticated},
		"another issuer":                   {other.Token("operator"), codes.Unauthenticated},
		"another issuer that claims to be": {other.Sign("JWT", with(nil)), codes.Unauthenticated},
		"no subject":                       {provider.Sign("JWT", with(map[string]any{"sub": nil})), codes.Unauthenticated},
		"a logout token by type":           {provider.Sign("logout+jwt", with(nil)), codes.Unauthenticated},
		"an event token by claim":          {provider.Sign("JWT", with(map[string]any{"events": map[string]any{}})), codes.Unauthenticated},
		"an ID token by nonce":             {provider.Sign("JWT", with(map[string]any{"nonce": "n"})), codes.Unauthenticated},
		"an ID token by at_hash":           {provider.Sign("JWT", with(map[string]any{"at_hash": "h"})), codes.Unauthenticated},
		"an ID token by Keycloak's typ":    {provider.Sign("JWT", with(map[string]any{"typ": "ID"})), codes.Unauthenticated},
		"a refresh token by Keycloak":      {provider.Sign("JWT", with(map[string]any{"typ": "Refresh"})), codes.Unauthenticated},
		"an access token by Keycloak":      {provider.Sign("JWT", with(map[string]any{"typ": "Bearer"})), codes.OK},
		"an ID token by Cognito":           {provider.Sign("JWT", with(map[string]any{"token_use": "id"})), codes.Unauthenticated},
		"bound by DPoP":                    {provider.Sign("JWT", with(map[string]any{"cnf": map[string]any{"jkt": "x"}})), codes.Unauthenticated},
		"bound to a certificate":           {provider.Sign("JWT", with(map[string]any{"cnf": map[string]any{"x5t#S256": "x"}})), codes.Unauthenticated},
		"alg none":                         {unsigned(t, "none", with(nil)), codes.Unauthenticated},
		"alg NONE":                         {unsigned(t, "NONE", with(nil)), codes.Unauthenticated},
		"no signature":                     {good[:strings.LastIndexByte(good, '.')+1], codes.Unauthenticated},
		"another payload":                  {swapPayload(good, provider.Sign("JWT", with(nil))), codes.Unauthenticated},
		"signed with a shared secret":      {symmetric(t, []byte("0123456789abcdef0123456789abcdef"), with(nil)), codes.Unauthenticated},
		"signed with the public key":       {symmetric(t, []byte(provider.KeysURL()+strings.Repeat("=", 32)), with(nil)), codes.Unauthenticated},
		"the JSON serialization":           {`{"payload":"","signatures":[]}`, codes.Unauthenticated},
		"two dots":                         {"..", codes.Unauthenticated},
		"five parts":                       {"a.b.c.d.e", codes.Unauthenticated},
	} {
		t.Run(name, func(t *testing.T) {
			caller, err := f.auth.Authenticate(t.Context(), row.token)
			switch {
			case row.want == codes.OK && (err != nil || !caller.Can("action.target.write")):
				t.Errorf("%+v %v", caller, err)
			case row.want != codes.OK && !errors.Is(err, admin.ErrUnknownToken):
				t.Errorf("%+v %v, want ErrUnknownToken", caller, err)
			}
		})
	}
}

// unsigned is a token without a signature.
func unsigned(t *testing.T, alg string, claims map[string]any) string {
	t.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"`+alg+`","typ":"JWT"}`)) + "." + encode(payload) + "."
}

func symmetric(t *testing.T, key []byte, claims map[string]any) string {
	t.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: jose.JSONWebKey{Key: key, KeyID: "key-1"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func swapPayload(token, other string) string {
	parts := strings.Split(token, ".")
	parts[1] = strings.Split(other, ".")[1]
	return strings.Join(parts, ".")
}

func TestKeysRotate(t *testing.T) {
	t.Parallel()
	provider := oidcserver.Start(t, clients()...)
	o := options(provider)
	o.RefreshInterval = 200 * time.Millisecond
	f := start(t, o)
	first := provider.Token("viewer")
	f.want(first, codes.OK, codes.PermissionDenied)

	provider.Rotate(true)
	second := provider.Token("viewer")
	f.want(second, codes.OK, codes.PermissionDenied) // at once
	f.want(first, codes.OK, codes.PermissionDenied)  // until the provider takes the old key back

	provider.Rotate(false)
	until(t, "tokens of the old keys are refused", func() bool { return f.grpc(second) == codes.Unauthenticated })
	f.want(first, codes.Unauthenticated, codes.Unauthenticated)
	f.want(provider.Token("viewer"), codes.OK, codes.PermissionDenied)
}

// clock is one that a test moves.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time       { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) move(d time.Duration) { c.ahead.Add(int64(d)) }

func TestUnknownKeysDoNotFloodTheProvider(t *testing.T) {
	t.Parallel()
	provider, other := oidcserver.Start(t, clients()...), oidcserver.Start(t, clients()...)
	o, c := options(provider), new(clock)
	o.MinFetchInterval, o.Now = 20*time.Second, c.now
	f := start(t, o)
	f.want(provider.Token("viewer"), codes.OK, codes.PermissionDenied)
	flood := func() {
		var all sync.WaitGroup
		for range 20 {
			other.Rotate(false)
			other.Rotate(false) // its ids are ahead of the provider's
			token := other.Sign("JWT", provider.Claims(audience))
			all.Go(func() {
				if _, err := f.auth.Authenticate(t.Context(), token); !errors.Is(err, admin.ErrUnknownToken) {
					t.Error(err)
				}
			})
		}
		all.Wait()
	}
	flood()
	if n := provider.KeyReads(); n != 1 {
		t.Errorf("the keys were read %d times", n)
	}
	c.move(o.MinFetchInterval)
	flood()
	if n := provider.KeyReads(); n != 2 {
		t.Errorf("an interval later the keys were read %d times", n)
	}
}

func TestCallsThatComeTogetherReadTheKeysOnce(t *testing.T) {
	t.Parallel()
	provider := oidcserver.Start(t, clients()...)
	o, c := options(provider), new(clock)
	o.MinFetchInterval, o.Now = 20*time.Second, c.now
	f := start(t, o)
	f.want(provider.Token("viewer"), codes.OK, codes.PermissionDenied)
	provider.Rotate(true)
	token := provider.Token("viewer")
	if _, err := f.auth.Authenticate(t.Context(), token); !errors.Is(err, admin.ErrUnknownToken) {
		t.Errorf("a new key within the interval: %v", err)
	}
	c.move(o.MinFetchInterval)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if _, err := f.auth.Authenticate(t.Context(), token); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := provider.KeyReads(); n != 2 {
		t.Errorf("the keys were read %d times", n)
	}
}

func TestFailuresOfOthersAtOneAddressLockNoSignedTokenOut(t *testing.T) {
	t.Parallel()
	provider := oidcserver.Start(t, clients()...)
	now := time.Now()
	f := start(t, options(provider), func(o *admin.Options) {
		o.Now = func() time.Time { return now } // nothing is forgiven meanwhile
	})
	var last codes.Code
	for range 300 {
		_, err := f.actions.ListTargets(bearer(t, "a guess"), nil)
		if last = status.Code(err); last == codes.ResourceExhausted {
			break
		}
	}
	if last != codes.ResourceExhausted {
		t.Errorf("guesses are answered %v", last)
	}
	f.want(provider.Token("viewer"), codes.OK, codes.PermissionDenied)
	f.want(provider.Token("elsewhere"), codes.ResourceExhausted, codes.ResourceExhausted)
}

func TestTheProviderIsAwayAtTheStart(t *testing.T) {
	t.Parallel()
	provider := oidcserver.New(t, clients()...)
	var log bytes.Buffer
	var mu sync.Mutex
	o := options(provider)
	o.Logger = slog.New(slog.NewTextHandler(&locked{&mu, &log}, nil))
	f := start(t, o)
	provider.Up()
	token := provider.Token("operator")
	provider.Down()
	f2 := start(t, o) // one that has never seen it
	f2.want(token, codes.Unavailable, codes.Unavailable)
	f2.want(static, codes.OK, codes.OK)
	f2.want("no JWT", codes.Unauthenticated, codes.Unauthenticated)
	provider.Up()
	for _, g := range []*fixture{f, f2} {
		until(t, "the provider is found", func() bool { return g.grpc(token) == codes.OK })
		g.want(token, codes.OK, codes.OK)
	}
	mu.Lock()
	defer mu.Unlock()
	if text := log.String(); !strings.Contains(text, "cannot be read") || !strings.Contains(text, "are read again") || strings.Contains(text, token) {
		t.Errorf("the log says\n%s", text)
	}
}

type locked struct {
	mu  *sync.Mutex
	log *bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.log.Write(p)
}

func TestTheProviderGoesAwayAndComesBack(t *testing.T) {
	t.Parallel()
	provider := oidcserver.Start(t, clients()...)
	o := options(provider)
	o.RefreshInterval = 50 * time.Millisecond
	f := start(t, o)
	old := provider.Token("operator")
	f.want(old, codes.OK, codes.OK)
	provider.Rotate(true)
	fresh := provider.Sign("JWT", merge(provider.Claims(audience), zitadelRoles("operator")))
	provider.Rotate(true) // and a key that is made while it is away
	unseen := provider.Sign("JWT", merge(provider.Claims(audience), zitadelRoles("operator")))
	until(t, "the new keys are read", func() bool { return f.grpc(fresh) == codes.OK })
	provider.Down()
	provider.Rotate(true)
	newest := provider.Sign("JWT", merge(provider.Claims(audience), zitadelRoles("operator")))
	f.want(old, codes.OK, codes.OK) // the keys that are known stay in use
	f.want(unseen, codes.OK, codes.OK)
	f.want(newest, codes.Unavailable, codes.Unavailable) // it may well be the provider's
	provider.Up()
	until(t, "the newest key is read", func() bool { return f.grpc(newest) == codes.OK })
}

func merge(a, b map[string]any) map[string]any {
	maps.Copy(a, b)
	return a
}

func TestKeysWithoutDiscovery(t *testing.T) {
	t.Parallel()
	provider := oidcserver.Start(t, clients()...)
	o := options(provider)
	o.JWKSURL = provider.KeysURL()
	f := start(t, o)
	f.want(provider.Token("operator"), codes.OK, codes.OK)
}

func TestADiscoveryDocumentOfAnotherIssuerIsNotBelieved(t *testing.T) {
	t.Parallel()
	provider := oidcserver.Start(t, clients()...)
	o := options(provider)
	o.Issuer += "/" // the same place, another name
	f := start(t, o)
	claims := provider.Claims(audience)
	claims["iss"] = o.Issuer
	f.want(provider.Sign("JWT", claims), codes.Unavailable, codes.Unavailable)
}

func TestTheActorOfTheAuditLog(t *testing.T) {
	t.Parallel()
	provider := oidcserver.Start(t, clients()...)
	f := start(t, options(provider))
	for want, changes := range map[string]map[string]any{
		`oidc:someone`:                             {},
		`oidc:someone "alice@example.com"`:         {"preferred_username": "alice@example.com", "client_id": "console"},
		`oidc:someone "console"`:                   {"client_id": "console"},
		`oidc:console`:                             {"sub": "console", "client_id": "console"},
		`oidc:"static\nlog line" "a\" \"b"`:        {"sub": "static\nlog line", "preferred_username": `a" "b`},
		"oidc:" + strings.Repeat("x", 255) + "...": {"sub": strings.Repeat("x", 300)},
	} {
		caller, err := f.auth.Authenticate(t.Context(), provider.Sign("JWT", merge(provider.Claims(audience), changes)))
		if err != nil || caller.Name != want {
			t.Errorf("%v: %q, want %q (%v)", changes, caller.Name, want, err)
		}
	}
}

func TestWhatAnAuthenticatorNeeds(t *testing.T) {
	t.Parallel()
	good := oidcauth.Options{
		Issuer: "https://id.example.com", Audience: []string{audience},
		RolesClaim: "roles", Roles: map[string][]string{"a": {"*"}},
	}
	if _, err := oidcauth.New(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*oidcauth.Options){
		"an issuer":              func(o *oidcauth.Options) { o.Issuer = "" },
		"an issuer that is sure": func(o *oidcauth.Options) { o.Issuer = "http://id.example.com" },
		"keys that are sure":     func(o *oidcauth.Options) { o.JWKSURL = "http://id.example.com/keys" },
		"an audience":            func(o *oidcauth.Options) { o.Audience = nil },
		"roles":                  func(o *oidcauth.Options) { o.Roles = nil },
		"signatures":             func(o *oidcauth.Options) { o.Algorithms = []string{"none"} },
		"signatures by one side": func(o *oidcauth.Options) { o.Algorithms = []string{"RS256", "HS256"} },
	} {
		o := good
		change(&o)
		if _, err := oidcauth.New(o); err == nil {
			t.Errorf("%s: accepted without", name)
		}
	}
	good.Issuer, good.AllowHTTP = "http://id.example.com", true
	if _, err := oidcauth.New(good); err != nil {
		t.Error(err)
	}
}
