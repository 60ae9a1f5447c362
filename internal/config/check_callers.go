package config

import (
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
)

// callerName checks the name of a caller of the admin API. Names are those of
// one audit log, whatever the callers show.
func (c *checker) callerName(at, name, kind string, names map[string]string) {
	if !c.notEmpty(at+".name", name, "name the caller; the name stands in the audit log") {
		return
	}
	if first, ok := names[name]; ok {
		c.fault(at+".name", fmt.Sprintf("%q is already the name of %s", name, first), fmt.Sprintf("give each %s a name of its own", kind))
		return
	}
	names[name] = at
}

// permissions checks what is granted to who.
func (c *checker) permissions(path string, list []string, who string) {
	if len(list) == 0 {
		c.fault(path, fmt.Sprintf("no permission is given, so %s could do nothing", who), `write ["action.*", "execution.*", "gateway.*"] for all of them`)
	}
	for i, p := range list {
		if !permission.MatchString(p) {
			c.fault(fmt.Sprintf("%s[%d]", path, i), fmt.Sprintf("%q is not a permission", p), "write one like action.target.read, or action.* for all below")
		}
	}
}

// adminTLS checks the certificate of the admin listener, and what its clients
// have to show.
func (c *checker) adminTLS(t AdminTLS) {
	const path = "admin.tls"
	c.keyPair(path, t.CertFile, t.KeyFile)
	c.oneOf(path+".client_auth", t.ClientAuth, "none", "optional", "required")
	c.authorities(path+".client_ca_file", t.ClientCAFile)
	switch {
	case t.ClientAuth == "none" && t.ClientCAFile != "":
		c.fault(path+".client_ca_file", "given, but admin.tls.client_auth is none", "write client_auth: optional or required, or remove the file")
	case t.ClientAuth != "optional" && t.ClientAuth != "required":
	case t.CertFile == "" && t.KeyFile == "":
		c.fault(path+".client_auth", fmt.Sprintf("%s, but the listener has no certificate of its own", t.ClientAuth), "name cert_file and key_file")
	case t.ClientCAFile == "":
		c.fault(path+".client_ca_file", fmt.Sprintf("missing, but admin.tls.client_auth is %s", t.ClientAuth), "name the authorities that sign the clients' certificates")
	}
}

// clientCertificates checks the callers that show certificates.
func (c *checker) clientCertificates(a Admin, names map[string]string) {
	if len(a.ClientCertificates) > 0 && a.TLS.ClientAuth == "none" {
		c.fault("admin.client_certificates", "given, but admin.tls.client_auth is none: nobody is asked for a certificate", "write client_auth: optional or required")
	}
	marks := map[string]string{}
	for i, cert := range a.ClientCertificates {
		at := fmt.Sprintf("admin.client_certificates[%d]", i)
		c.callerName(at, cert.Name, "caller", names)
		var given []string
		for _, m := range []struct{ key, value string }{
			{"subject_cn", cert.SubjectCN},
			{"san_dns", strings.ToLower(cert.SANDNS)},
			{"san_uri", cert.SANURI},
			{"fingerprint_sha256", strings.ToLower(strings.ReplaceAll(cert.FingerprintSHA256, ":", ""))},
		} {
			if m.value == "" {
				continue
			}
			given = append(given, m.key)
			if first, ok := marks[m.key+"="+m.value]; ok {
				c.fault(at+"."+m.key, fmt.Sprintf("the same as that of %s, which is found first", first), "give each caller a mark of its own")
				continue
			}
			marks[m.key+"="+m.value] = at
		}
		switch {
		case len(given) == 0:
			c.fault(at, "nothing says which certificate it is", "write one of subject_cn, san_dns, san_uri, fingerprint_sha256")
		case len(given) > 1:
			c.fault(at+"."+given[1], fmt.Sprintf("given together with %s", given[0]), "keep one of them")
		}
		if _, ok := cert.Fingerprint(); cert.FingerprintSHA256 != "" && !ok {
			c.fault(at+".fingerprint_sha256", fmt.Sprintf("%q is no SHA-256 digest", cert.FingerprintSHA256),
				"write 64 hexadecimal digits: openssl x509 -noout -fingerprint -sha256 -in FILE")
		}
		c.permissions(at+".permissions", cert.Permissions, "the caller")
	}
}

// oidcAlgorithms are those that a signature may have. With the others, whoever
// can verify a token can make one.
var oidcAlgorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// oidc checks the provider whose tokens are accepted.
func (c *checker) oidc(o OIDC) {
	const path = "admin.oidc"
	if o.Issuer == "" {
		for _, set := range []struct {
			key   string
			given bool
		}{
			{"audience", len(o.Audience) > 0},
			{"jwks_url", o.JWKSURL != ""},
			{"roles", len(o.Roles) > 0},
			{"permissions_claim", o.PermissionsClaim != ""},
			{"algorithms", len(o.Algorithms) > 0},
			{"ca_file", o.CAFile != ""},
		} {
			if set.given {
				c.fault(path+".issuer", fmt.Sprintf("missing, but %s.%s is given", path, set.key), "name the provider as its tokens do in iss, or remove the section")
				return
			}
		}
		return
	}
	c.providerURL(path+".issuer", o.Issuer, o.AllowHTTP, false)
	if o.JWKSURL != "" {
		c.providerURL(path+".jwks_url", o.JWKSURL, o.AllowHTTP, true)
	}
	if len(o.Audience) == 0 {
		c.fault(path+".audience", "no audience is given: every token that the issuer made, for whatever application, would be accepted",
			"list what tokens for this gateway have in aud: the id of the project, or of the API")
	}
	for i, a := range o.Audience {
		c.notEmpty(fmt.Sprintf("%s.audience[%d]", path, i), a, "write what tokens for this gateway have in aud")
	}
	for i, a := range o.Algorithms {
		at := fmt.Sprintf("%s.algorithms[%d]", path, i)
		if strings.HasPrefix(strings.ToUpper(a), "HS") || strings.EqualFold(a, "none") {
			c.fault(at, fmt.Sprintf("%q proves nothing: whoever can verify such a token can make one", a), "write RS256, or what else the issuer signs with")
			continue
		}
		c.oneOf(at, a, oidcAlgorithms...)
	}
	c.notNegativeTime(path+".clock_skew", o.ClockSkew)
	c.authorities(path+".ca_file", o.CAFile)
	if len(o.Roles) == 0 && o.PermissionsClaim == "" {
		c.fault(path+".roles", "no role is given, so no token could do anything", `write {role: ["action.*", "execution.*", "gateway.*"]}, or permissions_claim`)
	}
	if len(o.Roles) > 0 {
		c.notEmpty(path+".roles_claim", o.RolesClaim, "name the claim that holds the roles")
	}
	for _, role := range slices.Sorted(maps.Keys(o.Roles)) {
		c.permissions(fmt.Sprintf("%s.roles[%s]", path, role), o.Roles[role], "the role")
	}
}

// providerURL checks where keys come from: whoever can change them on the way
// can make tokens. The value is not repeated: it may carry a password.
func (c *checker) providerURL(path, text string, allowHTTP, query bool) {
	const hint = "write https://host or https://host/path, exactly as the provider does"
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "" || !isPort(u.Port(), true) || u.Scheme != "https" && u.Scheme != "http":
		c.fault(path, "not an https URL", hint)
	case u.User != nil || u.Fragment != "" || u.RawQuery != "" && !query:
		c.fault(path, "has a user name, query or fragment", hint)
	case u.Scheme == "http" && !allowHTTP && !isLoopback(net.JoinHostPort(u.Hostname(), "80")):
		c.fault(path, "is http: whoever is on the way can change the keys, and then make tokens", "write https, or allow_http: true in a network that you trust")
	}
}
