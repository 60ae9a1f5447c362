package oidcauth

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPermissionsOfClaims(t *testing.T) {
	t.Parallel()
	roles := map[string][]string{
		"admin": {"*"}, "ops": {"action.*", "execution.*"}, "read": {"action.target.read", "execution.read"},
		"Target Reader": {"action.target.read"}, "empty": nil,
	}
	for name, row := range map[string]struct {
		claims, rolesClaim, permissionsClaim string
		want                                 []string
	}{
		"a string":                    {`{"role":"ops"}`, "role", "", []string{"action.*", "execution.*"}},
		"a string of several":         {`{"scope":"openid read  ops"}`, "scope", "", []string{"action.*", "action.target.read", "execution.*", "execution.read"}},
		"a string with spaces":        {`{"role":"Target Reader"}`, "role", "", []string{"action.target.read"}},
		"a list":                      {`{"roles":["x","read"]}`, "roles", "", []string{"action.target.read", "execution.read"}},
		"a list with spaces":          {`{"roles":["Target Reader"]}`, "roles", "", []string{"action.target.read"}},
		"words in a list are one":     {`{"roles":["x admin"]}`, "roles", "", nil},
		"a list of other things":      {`{"roles":[1,null,{"admin":{}},["admin"],"read"]}`, "roles", "", []string{"action.target.read", "execution.read"}},
		"an object, as ZITADEL's":     {`{"urn:zitadel:iam:org:project:roles":{"read":{"1":"a.example"},"x":{"1":"a.example"}}}`, "urn:zitadel:iam:org:project:roles", "", []string{"action.target.read", "execution.read"}},
		"an object with refusals":     {`{"roles":{"admin":false,"ops":null,"read":true}}`, "roles", "", []string{"action.target.read", "execution.read"}},
		"a path, as Keycloak's":       {`{"realm_access":{"roles":["read"]}}`, "realm_access.roles", "", []string{"action.target.read", "execution.read"}},
		"a path with a dotted client": {`{"resource_access":{"my.client":{"roles":["read"]}}}`, "resource_access.my.client.roles", "", []string{"action.target.read", "execution.read"}},
		"a name with dots, as Auth0's": {`{"https://a.example/roles":["read"],"https://a":{"example/roles":["admin"]}}`, "https://a.example/roles", "",
			[]string{"action.target.read", "execution.read"}},
		"a path through no object":   {`{"a":"x","a.b":3}`, "a.b.c", "", nil},
		"a path that ends early":     {`{"a":{"b":null}}`, "a.b", "", nil},
		"a number":                   {`{"roles":1}`, "roles", "", nil},
		"true":                       {`{"roles":true}`, "roles", "", nil},
		"a role of nothing":          {`{"roles":["empty","missing"]}`, "roles", "", nil},
		"other case":                 {`{"roles":["ADMIN"]}`, "roles", "", nil},
		"permissions themselves":     {`{"scope":"openid action.target.read"}`, "", "scope", []string{"action.target.read", "openid"}},
		"permissions are no roles":   {`{"roles":["action.target.read"]}`, "roles", "", nil},
		"both":                       {`{"roles":["read"],"p":["action.target.read","gateway.read"]}`, "roles", "p", []string{"action.target.read", "execution.read", "gateway.read"}},
		"none configured, none told": {`{}`, "roles", "p", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var claims map[string]any
			if err := json.Unmarshal([]byte(row.claims), &claims); err != nil {
				t.Fatal(err)
			}
			a := &Authenticator{options: Options{RolesClaim: row.rolesClaim, Roles: roles, PermissionsClaim: row.permissionsClaim}}
			if got := a.permissions(claims); !slices.Equal(got, row.want) {
				t.Error(cmp.Diff(row.want, got))
			}
		})
	}
}

func TestKeysThatAreUsed(t *testing.T) {
	t.Parallel()
	const ec = `"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"`
	for name, row := range map[string]struct {
		set  string
		used int
	}{
		"a key":                       {`{` + ec + `}`, 1},
		"a key for signatures":        {`{` + ec + `,"use":"sig","alg":"ES256"}`, 1},
		"a key for encryption":        {`{` + ec + `,"use":"enc"}`, 0},
		"a key of another algorithm":  {`{` + ec + `,"alg":"ECDH-ES"}`, 0},
		"a private key":               {`{` + ec + `,"d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"}`, 0},
		"a shared secret":             {`{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}`, 0},
		"a short RSA key":             {`{"kty":"RSA","e":"AQAB","n":"2pUB1wCvpfcV5DzhAO-8_3PW0X7Ub9pDDpLxbW8cCyv5UtHfd7rZTkQVaTcZvfqCXrPjJ2BNsz_jbg9nd9Q"}`, 0},
		"a key of a kind to come":     {`{"kty":"AKP","alg":"ML-DSA-44","pub":"AA"},{` + ec + `}`, 1},
		"a point that is not on it":   {`{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"}`, 0},
		"a number, a string and null": {`1,"a",null`, 0},
	} {
		set, err := parseKeys([]byte(`{"keys":[`+row.set+`]}`), Algorithms())
		if (err == nil) != (row.used > 0) || err == nil && len(set.keys) != row.used {
			t.Errorf("%s: %v %v", name, set, err)
		}
	}
	for _, text := range []string{"", "[]", "<html>", `{"keys":{}}`} {
		if _, err := parseKeys([]byte(text), Algorithms()); err == nil {
			t.Errorf("%q is a key set", text)
		}
	}
}

func FuzzPeek(f *testing.F) {
	f.Add("eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJpIiwiYXVkIjoiYSIsImV4cCI6OTk5OTk5OTk5OX0.AA")
	a := &Authenticator{options: Options{Issuer: "i", Audience: []string{"a"}, Algorithms: Algorithms()}}
	a.options.Now = numberDate(1).time
	f.Fuzz(func(t *testing.T, token string) {
		if head, err := a.peek(token); err == nil && !slices.Contains(Algorithms(), head.Algorithm) {
			t.Errorf("%q has algorithm %q", token, head.Algorithm)
		}
	})
}
