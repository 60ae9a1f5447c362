package app_test

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	actionv2 "github.com/execgate/execgate/gen/zitadel/action/v2"
	"github.com/execgate/execgate/internal/config"
	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/internal/testkit/oidcserver"
)

const zitadelRoles = "urn:zitadel:iam:org:project:roles"

// provider is one whose client "operator" may do everything, and "viewer" look at targets.
func provider(t *testing.T) *oidcserver.Server {
	roles := func(role string) map[string]any {
		return map[string]any{zitadelRoles: map[string]any{role: map[string]any{"1": "example.com"}}, "preferred_username": role + "@example.com"}
	}
	return oidcserver.New(t,
		oidcserver.Client{ID: "operator", Audience: []string{"execgate"}, Claims: roles("admin")},
		oidcserver.Client{ID: "viewer", Audience: []string{"execgate"}, Claims: roles("viewer")},
		oidcserver.Client{ID: "elsewhere", Claims: roles("admin")},
	)
}

func withProvider(c *config.Config, p *oidcserver.Server) *config.Config {
	c.Admin.OIDC.Issuer = p.Issuer()
	c.Admin.OIDC.Audience = []string{"execgate"}
	c.Admin.OIDC.Roles = map[string][]string{"admin": {"*"}, "viewer": {"action.target.read"}}
	c.Admin.Tokens = []config.Token{{Name: "static", Token: config.NewSecret("a-static-token"), Permissions: []string{"*"}}}
	return c
}

// caller of the admin API, with a token, a certificate, both or nothing.
type caller struct {
	g     *gateway
	tls   *tls.Config // nil: plain text
	token string
}

// targets reads targets over gRPC and REST, which have to agree, and makes one over gRPC.
func (c caller) targets(name string) (read, write codes.Code) {
	t, address := c.g.t, c.g.Addresses().Admin.String()
	t.Helper()
	scheme, conn := "http", (*grpc.ClientConn)(nil)
	if c.tls == nil {
		conn = dial(t, address)
	} else {
		scheme = "https"
		var err error
		if conn, err = grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(c.tls))); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	ctx := t.Context()
	if c.token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.token)
	}
	actions := actionv2.NewActionServiceClient(conn)
	_, err := actions.ListTargets(ctx, &actionv2.ListTargetsRequest{})
	read = status.Code(err)
	_, err = actions.CreateTarget(ctx, &actionv2.CreateTargetRequest{
		Name: name, Endpoint: "https://hooks.example.com", Timeout: durationpb.New(time.Second), TargetType: &actionv2.CreateTargetRequest_RestWebhook{RestWebhook: &actionv2.RESTWebhook{}},
	})
	write = status.Code(err)

	req, err := http.NewRequestWithContext(ctx, http.MethodPost, scheme+"://"+address+"/v2/actions/targets/search", nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	transport := &http.Transport{TLSClientConfig: c.tls}
	defer transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	want := map[codes.Code]int{codes.OK: 200, codes.Unauthenticated: 401, codes.PermissionDenied: 403, codes.Unavailable: 503}[read]
	if res.StatusCode != want {
		t.Errorf("REST answers %d %s, gRPC %v", res.StatusCode, body, read)
	}
	return read, write
}

// actors of the changes, the latest first.
func (c caller) actors() []string {
	c.g.t.Helper()
	ctx := metadata.AppendToOutgoingContext(c.g.t.Context(), "authorization", "Bearer "+c.token)
	conn := dial(c.g.t, c.g.Addresses().Admin.String())
	if c.tls != nil {
		var err error
		if conn, err = grpc.NewClient("passthrough:///"+c.g.Addresses().Admin.String(), grpc.WithTransportCredentials(credentials.NewTLS(c.tls))); err != nil {
			c.g.t.Fatal(err)
		}
		c.g.t.Cleanup(func() { _ = conn.Close() })
	}
	res, err := gatewaypb.NewGatewayServiceClient(conn).ListRevisions(ctx, &gatewaypb.ListRevisionsRequest{})
	if err != nil {
		c.g.t.Fatal(err)
	}
	var names []string
	for _, r := range res.GetRevisions() {
		names = append(names, r.GetActor())
	}
	return names
}

func TestTheGatewayStartsWithoutItsOIDCProvider(t *testing.T) {
	t.Parallel()
	_, addr := upstream(t, "127.0.0.1:0")
	p := provider(t)
	p.Up()
	tokens := map[string]string{}
	for _, client := range []string{"operator", "viewer", "elsewhere"} {
		tokens[client] = p.Token(client)
	}
	p.Down()
	g := start(t, withProvider(configuration(t, addr), p)).learned()
	if status, _ := g.ready(); status != 200 {
		t.Errorf("/readyz says %d", status)
	}
	if read, write := (caller{g: g, token: tokens["operator"]}).targets("a"); read != codes.Unavailable || write != codes.Unavailable {
		t.Errorf("without the provider: %v %v", read, write)
	}
	if read, write := (caller{g: g, token: "a-static-token"}).targets("b"); read != codes.OK || write != codes.OK {
		t.Errorf("a static token without the provider: %v %v", read, write)
	}
	p.Up()
	actions := actionv2.NewActionServiceClient(dial(t, g.Addresses().Admin.String()))
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+tokens["viewer"])
	until(t, "the provider is found", func() bool {
		_, err := actions.ListTargets(ctx, &actionv2.ListTargetsRequest{})
		return err == nil
	})
	for client, want := range map[string][2]codes.Code{
		"operator":  {codes.OK, codes.OK},
		"viewer":    {codes.OK, codes.PermissionDenied},
		"elsewhere": {codes.Unauthenticated, codes.Unauthenticated},
	} {
		if read, write := (caller{g: g, token: tokens[client]}).targets("by " + client); read != want[0] || write != want[1] {
			t.Errorf("%s: %v %v, want %v", client, read, write, want)
		}
	}
	actors := caller{g: g, token: tokens["operator"]}.actors()
	slices.Sort(actors)
	if want := []string{`oidc:operator "admin@example.com"`, "static"}; !slices.Equal(slices.Compact(actors), want) {
		t.Errorf("the changes were made by %q, want %q", actors, want)
	}
}

func TestTheAdminAPIByClientCertificates(t *testing.T) {
	t.Parallel()
	_, addr := upstream(t, "127.0.0.1:0")
	p := provider(t)
	p.Up()
	certs := testkit.NewCertificates(t)
	ci, _, _ := certs.Issue(t, func(c *x509.Certificate) { c.DNSNames = []string{"ci.example.com"} })
	stranger, _, _ := certs.Issue(t, nil)
	pinned, _, _ := certs.Issue(t, nil)
	digest := sha256.Sum256(pinned.Certificate[0])

	c := withProvider(configuration(t, addr), p)
	c.Admin.TLS = config.AdminTLS{CertFile: certs.CertFile, KeyFile: certs.KeyFile, ClientCAFile: certs.CAFile, ClientAuth: "required"}
	c.Admin.ClientCertificates = []config.ClientCertificate{
		{Name: "ci", SANDNS: "ci.example.com", Permissions: []string{"action.*"}},
		{Name: "pinned", FingerprintSHA256: formatted(digest[:]), Permissions: []string{"action.target.read"}},
	}
	g := start(t, c)
	with := func(cert tls.Certificate) *tls.Config {
		client := certs.Client.Clone()
		client.Certificates = []tls.Certificate{cert}
		return client
	}
	claims := p.Claims("execgate")
	maps.Copy(claims, map[string]any{
		zitadelRoles: []string{"admin"},
		"cnf":        map[string]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(digest[:])},
	})
	bound := p.Sign("at+jwt", claims)
	for name, row := range map[string]struct {
		caller      caller
		read, write codes.Code
	}{
		"by DNS name":                         {caller{g, with(ci), ""}, codes.OK, codes.OK},
		"by fingerprint":                      {caller{g, with(pinned), ""}, codes.OK, codes.PermissionDenied},
		"by nothing known":                    {caller{g, with(stranger), ""}, codes.Unauthenticated, codes.Unauthenticated},
		"by token":                            {caller{g, with(stranger), p.Token("viewer")}, codes.OK, codes.PermissionDenied},
		"by a token bound to it":              {caller{g, with(pinned), bound}, codes.OK, codes.OK},
		"by a token bound to another's":       {caller{g, with(ci), bound}, codes.Unauthenticated, codes.Unauthenticated},
		"by a token that is bad, which stays": {caller{g, with(ci), "guess"}, codes.Unauthenticated, codes.Unauthenticated},
	} {
		if read, write := row.caller.targets(name); read != row.read || write != row.write {
			t.Errorf("%s: %v %v, want %v %v", name, read, write, row.read, row.write)
		}
	}
	actors := caller{g, with(stranger), p.Token("operator")}.actors()
	slices.Sort(actors)
	if want := []string{"ci", "oidc:someone"}; !slices.Equal(actors, want) {
		t.Errorf("the changes were made by %q, want %q", actors, want)
	}
	if _, err := tls.Dial("tcp", g.Addresses().Admin.String(), certs.Client.Clone()); err == nil {
		// With TLS 1.3 the client learns of the refusal when it reads.
		transport := &http.Transport{TLSClientConfig: certs.Client}
		defer transport.CloseIdleConnections()
		if res, err := (&http.Client{Transport: transport}).Get("https://" + g.Addresses().Admin.String()); err == nil {
			_ = res.Body.Close()
			t.Errorf("without a certificate: %s", res.Status)
		}
	}
}

// formatted is a digest as openssl prints it.
func formatted(digest []byte) string {
	var b strings.Builder
	for i, c := range digest {
		if i > 0 {
			b.WriteByte(':')
		}
		const digits = "0123456789ABCDEF"
		b.WriteByte(digits[c>>4])
		b.WriteByte(digits[c&15])
	}
	return b.String()
}

func TestCertificatesOfBothListenersFollowTheirFiles(t *testing.T) {
	t.Parallel()
	_, addr := upstream(t, "127.0.0.1:0")
	certs, dir := testkit.NewCertificates(t), t.TempDir()
	cert, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	put := func(name, from string) {
		t.Helper()
		text, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(name, text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	put(cert, certs.CertFile)
	put(key, certs.KeyFile)
	c := configuration(t, addr)
	c.Proxy.TLS = config.ServerTLS{CertFile: cert, KeyFile: key}
	c.Admin.TLS.CertFile, c.Admin.TLS.KeyFile = cert, key
	g := start(t, c)
	serials := func() (list [2]int64) {
		t.Helper()
		for i, address := range []string{g.Addresses().Proxy.String(), g.Addresses().Admin.String()} {
			client := certs.Client.Clone()
			client.NextProtos = []string{"h2"}
			conn, err := tls.Dial("tcp", address, client)
			if err != nil {
				t.Fatal(err)
			}
			state := conn.ConnectionState()
			if state.NegotiatedProtocol != "h2" {
				t.Errorf("%s speaks %q", address, state.NegotiatedProtocol)
			}
			list[i] = state.PeerCertificates[0].SerialNumber.Int64()
			_ = conn.Close()
		}
		return list
	}
	if got := serials(); got != [2]int64{2, 2} {
		t.Fatalf("serials %v", got)
	}
	fresh, freshCert, freshKey := certs.Issue(t, nil)
	n := fresh.Leaf.SerialNumber.Int64()
	put(cert, freshCert)
	put(key, freshKey)
	until(t, "both have the new certificate", func() bool { return serials() == [2]int64{n, n} })
}
