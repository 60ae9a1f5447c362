package oidcauth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/execgate/execgate/admin"
)

// maxToken bounds a token; what is larger fits into no header anyway.
const maxToken = 64 << 10

// header is of a JWT.
type header struct {
	Algorithm string `json:"alg"`
	Type      string `json:"typ"`
	KeyID     string `json:"kid"`
}

// peek looks at a token before its signature is verified, and refuses what cannot be valid here.
func (a *Authenticator) peek(token string) (*header, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 || len(token) > maxToken {
		return nil, refusal("no JWT")
	}
	head, claimed := new(header), new(claims)
	if !decode(parts[0], head) || !decode(parts[1], claimed) {
		return nil, refusal("no JWT")
	}
	switch {
	case !slices.Contains(a.options.Algorithms, head.Algorithm):
		return nil, refusal("algorithm")
	case claimed.Issuer != a.options.Issuer:
		return nil, refusal("issuer")
	case !intersects(claimed.Audience, a.options.Audience):
		return nil, refusal("audience")
	case claimed.Expiry == nil || !a.options.Now().Before(claimed.Expiry.time().Add(a.options.ClockSkew)):
		return nil, refusal("expired")
	}
	// RFC 9068: "at+jwt", which the media type's prefix may precede. Many providers sign access tokens as plain "JWT";
	// any other type is that of another kind of token.
	switch strings.TrimPrefix(strings.ToLower(head.Type), "application/") {
	case "at+jwt":
	case "jwt", "":
		if a.options.RequireATJWT {
			return nil, refusal("type: not at+jwt")
		}
	default:
		return nil, refusal("type: of another kind of token")
	}
	return head, nil
}

func decode(part string, into any) bool {
	text, err := base64.RawURLEncoding.DecodeString(part)
	return err == nil && json.Unmarshal(text, into) == nil
}

// claims are what we read of a token's payload.
type claims struct {
	Issuer    string      `json:"iss"`
	Subject   string      `json:"sub"`
	Audience  stringList  `json:"aud"`
	Expiry    *numberDate `json:"exp"`
	NotBefore *numberDate `json:"nbf"`

	Username string `json:"preferred_username"`
	ClientID string `json:"client_id"`

	Confirmation map[string]json.RawMessage `json:"cnf"`

	all map[string]any
}

func readClaims(token *oidc.IDToken) (*claims, error) {
	c := new(claims)
	if token.Claims(c) != nil || token.Claims(&c.all) != nil {
		return nil, refusal("claims")
	}
	return c, nil
}

// idTokenClaims stand in ID tokens only: the first ones bind them to a login, the last to the session that it made.
var idTokenClaims = []string{"nonce", "at_hash", "c_hash", "s_hash"}

// accessToken refuses what is signed by the same keys and is no access token. An ID token of a plain login carries one
// of idTokenClaims; Keycloak and Cognito name the kind of every token in a claim; a logout token carries events.
func (c *claims) accessToken() error {
	for _, name := range idTokenClaims {
		if _, ok := c.all[name]; ok {
			return refusal("an ID token")
		}
	}
	if _, ok := c.all["events"]; ok {
		return refusal("a logout or event token")
	}
	if use, ok := c.all["token_use"].(string); ok && use != "access" {
		return refusal("token_use: not an access token")
	}
	if kind, ok := c.all["typ"].(string); ok {
		switch strings.ToLower(kind) {
		case "bearer", "jwt", "at+jwt", "access", "access_token":
		default:
			return refusal("typ claim: not an access token")
		}
	}
	return nil
}

// holder refuses a token that is bound to a key whose holder the caller has not shown to be. Binding to a client
// certificate (RFC 8705) is checked; other bindings, as of DPoP, cannot be.
func (c *claims) holder(ctx context.Context) error {
	if len(c.Confirmation) == 0 {
		return nil
	}
	var thumbprint string
	if json.Unmarshal(c.Confirmation["x5t#S256"], &thumbprint) != nil || len(c.Confirmation) != 1 {
		return refusal("bound to a key")
	}
	certificate := admin.ClientCertificateFrom(ctx)
	if certificate == nil {
		return refusal("bound to a client certificate")
	}
	digest := sha256.Sum256(certificate.Raw)
	if subtle.ConstantTimeCompare([]byte(thumbprint), []byte(base64.RawURLEncoding.EncodeToString(digest[:]))) != 1 {
		return refusal("bound to another client certificate")
	}
	return nil
}

// actor is the caller for the audit log: the subject, which no static token's name can be mistaken for, and who that is
// to people. What users may choose themselves is quoted.
func (c *claims) actor() string {
	name := "oidc:" + plain(c.Subject)
	switch {
	case c.Username != "":
		return name + " " + strconv.Quote(cut(c.Username))
	case c.ClientID != "" && c.ClientID != c.Subject:
		return name + " " + strconv.Quote(cut(c.ClientID))
	}
	return name
}

// plain is the text itself if it cannot be mistaken for more than one word, and quoted otherwise.
func plain(text string) string {
	text = cut(text)
	if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' }) {
		return strconv.Quote(text)
	}
	return text
}

// cut bounds a text; subjects have at most 255 characters.
func cut(text string) string {
	const most = 255
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most]) + "..."
	}
	return text
}

// stringList is a claim that is one string or several.
type stringList []string

func (l *stringList) UnmarshalJSON(text []byte) error {
	var one string
	if json.Unmarshal(text, &one) == nil {
		*l = stringList{one}
		return nil
	}
	return json.Unmarshal(text, (*[]string)(l))
}

// numberDate is a time in seconds since 1970, which need not be whole.
type numberDate float64

// time is never beyond what a time.Time can compare.
func (n numberDate) time() time.Time {
	const latest = 1 << 38 // some 8700 years from 1970
	seconds := min(max(float64(n), -latest), latest)
	return time.UnixMilli(int64(seconds * 1000))
}
