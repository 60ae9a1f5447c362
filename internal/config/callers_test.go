package config_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/execgate/execgate/internal/testkit"
)

func TestCallersOfTheAdminAPI(t *testing.T) {
	t.Parallel()
	certs := testkit.NewCertificates(t)
	c, faults := load(t, fmt.Sprintf(`
admin:
  listen: 0.0.0.0:8081
  tls: {cert_file: %[1]s, key_file: %[2]s, client_ca_file: %[3]s, client_auth: required}
  oidc:
    issuer: https://id.example.com
    audience: [execgate, "284917263"]
    roles: {admin: ["*"], viewer: [action.target.read, execution.read]}
    roles_claim: realm_access.roles
    algorithms: [RS256, EdDSA]
    clock_skew: 5s
    ca_file: %[3]s
  client_certificates:
    - {name: ci, san_dns: ci.example.com, permissions: ["action.*"]}
    - {name: mesh, san_uri: "spiffe://example.com/admin", permissions: ["*"]}
    - {name: laptop, subject_cn: Alice, permissions: [gateway.read]}
    - {name: pinned, fingerprint_sha256: "%[4]s", permissions: [gateway.read]}
`, certs.CertFile, certs.KeyFile, certs.CAFile, strings.TrimSuffix(strings.Repeat("0A:", 32), ":")))
	if faults != "" {
		t.Fatal(faults)
	}
	if diff := cmp.Diff(map[string][]string{"admin": {"*"}, "viewer": {"action.target.read", "execution.read"}}, c.Admin.OIDC.Roles); diff != "" {
		t.Error(diff)
	}
	if o := c.Admin.OIDC; o.ClockSkew != 5*time.Second || o.RolesClaim != "realm_access.roles" || len(o.Audience) != 2 {
		t.Errorf("%+v", o)
	}
	if digest, ok := c.Admin.ClientCertificates[3].Fingerprint(); !ok || digest[0] != 0x0a || digest[31] != 0x0a {
		t.Errorf("fingerprint %x %v", digest, ok)
	}

	c, faults = load(t, "",
		"EXECGATE_ADMIN_OIDC_ISSUER=https://id.example.com", "EXECGATE_ADMIN_OIDC_AUDIENCE=a,b",
		`EXECGATE_ADMIN_OIDC_ROLES={"admin": ["*"]}`, "EXECGATE_ADMIN_LISTEN=:8081")
	if faults != "" || len(c.Admin.OIDC.Audience) != 2 || len(c.Admin.OIDC.Roles["admin"]) != 1 {
		t.Errorf("by environment: %+v %s", c, faults)
	}
	c, faults = load(t, "", "EXECGATE_ADMIN_TLS_CERT_FILE="+certs.CertFile, "EXECGATE_ADMIN_TLS_KEY_FILE="+certs.KeyFile,
		"EXECGATE_ADMIN_TLS_CLIENT_CA_FILE="+certs.CAFile, "EXECGATE_ADMIN_TLS_CLIENT_AUTH=optional", "EXECGATE_ADMIN_LISTEN=:8081",
		`EXECGATE_ADMIN_CLIENT_CERTIFICATES=[{name: ci, subject_cn: ci, permissions: ["*"]}]`)
	if faults != "" || len(c.Admin.ClientCertificates) != 1 {
		t.Errorf("by environment: %+v %s", c, faults)
	}
}

func TestFaultsOfCallers(t *testing.T) {
	t.Parallel()
	certs := testkit.NewCertificates(t)
	const reachable = "config.yaml:2: admin.listen: :8081 can be reached from other machines, and admin.tokens is empty: anybody there could change targets and executions; add a token, or listen on 127.0.0.1"
	pair := fmt.Sprintf("cert_file: %s, key_file: %s", certs.CertFile, certs.KeyFile)
	for _, tc := range []struct{ name, text, want string }{
		{"a provider without anything", "admin:\n  oidc: {issuer: \"https://id.example.com\"}\n",
			"config.yaml:2: admin.oidc.audience: no audience is given: every token that the issuer made, for whatever application, would be accepted; list what tokens for this gateway have in aud: the id of the project, or of the API\n" +
				"config.yaml:2: admin.oidc.roles: no role is given, so no token could do anything; write {role: [\"action.*\", \"execution.*\", \"gateway.*\"]}, or permissions_claim"},
		{"everything but the provider", "admin:\n  oidc: {audience: [a]}\n",
			"config.yaml:2: admin.oidc.issuer: missing, but admin.oidc.audience is given; name the provider as its tokens do in iss, or remove the section"},
		{"everything wrong at once", "admin:\n  oidc:\n    issuer: http://id.example.com\n    audience: [\"\"]\n    jwks_url: ftp://x\n    algorithms: [HS256, none, RS265]\n    clock_skew: -1s\n    roles: {a: [], b: [\"Action.*\"]}\n    roles_claim: \"\"\n    ca_file: nosuch.pem\n",
			"config.yaml:3: admin.oidc.issuer: is http: whoever is on the way can change the keys, and then make tokens; write https, or allow_http: true in a network that you trust\n" +
				"config.yaml:4: admin.oidc.audience[0]: empty; write what tokens for this gateway have in aud\n" +
				"config.yaml:5: admin.oidc.jwks_url: not an https URL; write https://host or https://host/path, exactly as the provider does\n" +
				"config.yaml:6: admin.oidc.algorithms[0]: \"HS256\" proves nothing: whoever can verify such a token can make one; write RS256, or what else the issuer signs with\n" +
				"config.yaml:6: admin.oidc.algorithms[1]: \"none\" proves nothing: whoever can verify such a token can make one; write RS256, or what else the issuer signs with\n" +
				"config.yaml:6: admin.oidc.algorithms[2]: \"RS265\" is not known; did you mean RS256?\n" +
				"config.yaml:7: admin.oidc.clock_skew: -1s is negative; write 0s or more\n" +
				"config.yaml:8: admin.oidc.roles[a]: no permission is given, so the role could do nothing; write [\"action.*\", \"execution.*\", \"gateway.*\"] for all of them\n" +
				"config.yaml:8: admin.oidc.roles[b][0]: \"Action.*\" is not a permission; write one like action.target.read, or action.* for all below\n" +
				"config.yaml:9: admin.oidc.roles_claim: empty; name the claim that holds the roles\n" +
				"config.yaml:10: admin.oidc.ca_file: nosuch.pem: no such file; create it, or correct the path"},
		{"an issuer with a password", "admin:\n  oidc: {issuer: \"https://me:hush@id.example.com\", audience: [a], permissions_claim: scope}\n",
			"config.yaml:2: admin.oidc.issuer: has a user name, query or fragment; write https://host or https://host/path, exactly as the provider does"},
		{"http on this machine", "admin:\n  oidc: {issuer: \"http://localhost:8080\", jwks_url: \"http://[::1]/keys?p=a\", audience: [a], permissions_claim: scope}\n", ""},
		{"http where it is allowed", "admin:\n  oidc: {issuer: \"http://zitadel:8080\", audience: [a], permissions_claim: scope, allow_http: true}\n", ""},
		{"roles that are no lists", "admin:\n  oidc: {issuer: \"https://id.example.com\", audience: [a], roles: {a: \"*\"}}\n",
			"config.yaml:2: admin.oidc.roles[a]: expected a list, found a string; write [a, b] or one \"- a\" on each line"},
		{"client authentication without a certificate", "admin:\n  tls: {client_auth: required}\n",
			"config.yaml:2: admin.tls.client_auth: required, but the listener has no certificate of its own; name cert_file and key_file"},
		{"client authentication without authorities", "admin:\n  tls: {" + pair + ", client_auth: optional}\n",
			"config.yaml:2: admin.tls.client_ca_file: missing, but admin.tls.client_auth is optional; name the authorities that sign the clients' certificates"},
		{"authorities without client authentication", "admin:\n  tls: {" + pair + ", client_ca_file: " + certs.CAFile + "}\n",
			"config.yaml:2: admin.tls.client_ca_file: given, but admin.tls.client_auth is none; write client_auth: optional or required, or remove the file"},
		{"authorities that are none", "admin:\n  tls: {" + pair + ", client_auth: required, client_ca_file: " + certs.KeyFile + "}\n",
			"config.yaml:2: admin.tls.client_ca_file: " + certs.KeyFile + ": no PEM certificate in it; name a file of PEM certificates"},
		{"client authentication of no kind", "admin:\n  tls: {client_auth: require}\n",
			"config.yaml:2: admin.tls.client_auth: \"require\" is not known; did you mean required?"},
		{"an open admin port with authentication of nobody", "admin:\n  listen: :8081\n  tls: {" + pair + ", client_auth: required, client_ca_file: " + certs.CAFile + "}\n", reachable},
		{"certificates that nobody asks for", "admin:\n  client_certificates:\n    - {name: a, subject_cn: a, permissions: [\"*\"]}\n",
			"config.yaml:2: admin.client_certificates: given, but admin.tls.client_auth is none: nobody is asked for a certificate; write client_auth: optional or required"},
		{"certificates that are not told apart", "admin:\n  tls: {" + pair + ", client_auth: required, client_ca_file: " + certs.CAFile + "}\n" +
			"  tokens: [{name: a, token: t, permissions: [\"*\"]}]\n  client_certificates:\n" +
			"    - {name: a, subject_cn: x, permissions: [\"*\"]}\n" +
			"    - {name: b, san_dns: A.example, san_uri: u, permissions: [\"*\"]}\n" +
			"    - {name: c, san_dns: a.example, permissions: [x y]}\n" +
			"    - {name: d}\n" +
			"    - {name: e, fingerprint_sha256: 0A:0B, permissions: [\"*\"]}\n",
			"config.yaml:5: admin.client_certificates[0].name: \"a\" is already the name of admin.tokens[0]; give each caller a name of its own\n" +
				"config.yaml:6: admin.client_certificates[1].san_uri: given together with san_dns; keep one of them\n" +
				"config.yaml:7: admin.client_certificates[2].san_dns: the same as that of admin.client_certificates[1], which is found first; give each caller a mark of its own\n" +
				"config.yaml:7: admin.client_certificates[2].permissions[0]: \"x y\" is not a permission; write one like action.target.read, or action.* for all below\n" +
				"config.yaml:8: admin.client_certificates[3]: nothing says which certificate it is; write one of subject_cn, san_dns, san_uri, fingerprint_sha256\n" +
				"config.yaml:8: admin.client_certificates[3].permissions: no permission is given, so the caller could do nothing; write [\"action.*\", \"execution.*\", \"gateway.*\"] for all of them\n" +
				"config.yaml:9: admin.client_certificates[4].fingerprint_sha256: \"0A:0B\" is no SHA-256 digest; write 64 hexadecimal digits: openssl x509 -noout -fingerprint -sha256 -in FILE"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, got := load(t, tc.text)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
			if strings.Contains(got, "hush") {
				t.Error("a secret is in the fault")
			}
		})
	}
}
