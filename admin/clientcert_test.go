package admin_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/execgate/execgate/admin"
	actionv2 "github.com/execgate/execgate/gen/zitadel/action/v2"
	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/store"
)

// startTLS serves with client certificates that are verified if given.
func startTLS(t *testing.T, authority *testkit.Certificates, change func(*admin.Options)) (address string) {
	t.Helper()
	embedded, err := store.OpenEmbedded(store.EmbeddedOptions{Path: filepath.Join(t.TempDir(), "store.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = embedded.Close() })
	replica := store.NewReplica(embedded, store.ReplicaOptions{})
	if err := replica.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = replica.Stop(context.Background()) })
	o := admin.Options{Store: replica, InstanceID: instance}
	change(&o)
	server, err := admin.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	config := authority.Server.Clone()
	config.ClientAuth, config.ClientCAs = tls.VerifyClientCertIfGiven, authority.Client.RootCAs
	httpServer := &http.Server{Handler: server.Handler(), TLSConfig: config}
	var serving sync.WaitGroup
	serving.Go(func() { _ = httpServer.ServeTLS(ln, "", "") })
	t.Cleanup(func() {
		server.Close()
		_ = httpServer.Close()
		serving.Wait()
	})
	return ln.Addr().String()
}

// shown is a client with or without a certificate and a token.
type shown struct {
	config        *tls.Config
	token, origin string
}

// codes that a read and a write are answered with: over gRPC, REST, gRPC-Web and Connect, which have to agree.
func (s shown) codes(t *testing.T, address string) (read, write codes.Code, message string) {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(s.config)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx := t.Context()
	if s.token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+s.token)
	}
	if s.origin != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "origin", s.origin)
	}
	_, err = actionv2.NewActionServiceClient(conn).ListTargets(ctx, &actionv2.ListTargetsRequest{})
	read, message = status.Code(err), status.Convert(err).Message()
	_, err = actionv2.NewActionServiceClient(conn).DeleteTarget(ctx, &actionv2.DeleteTargetRequest{Id: "1"})
	write = status.Code(err)

	transport := &http.Transport{TLSClientConfig: s.config.Clone(), ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	for _, call := range []struct{ path, contentType, body string }{
		{"/v2/actions/targets/search", "application/json", "{}"},
		{"/zitadel.action.v2.ActionService/ListTargets", "application/json", "{}"},
		{"/zitadel.action.v2.ActionService/ListTargets", "application/grpc-web", "\x00\x00\x00\x00\x00"},
	} {
		req := newRequest(t, "POST", "https://"+address+call.path, call.body)
		req.Header.Set("Content-Type", call.contentType)
		if s.token != "" {
			req.Header.Set("Authorization", "Bearer "+s.token)
		}
		if s.origin != "" {
			req.Header.Set("Origin", s.origin)
		}
		res, err := (&http.Client{Transport: transport}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if read == codes.OK {
			if res.StatusCode != 200 || strings.Contains(string(body), "grpc-status: ") && !strings.Contains(string(body), "grpc-status: 0") {
				t.Errorf("%s %s: %d %q", call.path, call.contentType, res.StatusCode, body)
			}
			continue
		}
		var told struct{ Message string }
		_ = json.Unmarshal(body, &told)
		said := told.Message + res.Header.Get("Grpc-Message") + string(body)
		if decoded, err := url.PathUnescape(said); err == nil {
			said = decoded
		}
		if !strings.Contains(said, message) {
			t.Errorf("%s %s: %d %q, gRPC says %q", call.path, call.contentType, res.StatusCode, body, message)
		}
	}
	return read, write, message
}

func TestAClientCertificateSaysWhoCalls(t *testing.T) {
	t.Parallel()
	authority := testkit.NewCertificates(t)
	issue := func(change func(*x509.Certificate)) tls.Certificate {
		cert, _, _ := authority.Issue(t, change)
		return cert
	}
	byName := issue(func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: "Alice"} })
	byDNS := issue(func(c *x509.Certificate) { c.DNSNames = []string{"other.example.com", "CI.example.com"} })
	byURI := issue(func(c *x509.Certificate) {
		c.URIs = []*url.URL{{Scheme: "spiffe", Host: "example.com", Path: "/admin"}}
	})
	pinned := issue(nil)
	unknown := issue(func(c *x509.Certificate) {
		c.Subject.CommonName = "alice"
		c.DNSNames = []string{"*.example.com", "ci.example.com.evil.example"}
	})
	read, all := []string{"action.target.read"}, []string{"action.*"}
	identities := []admin.ClientCertificate{
		{Name: "by name", CommonName: "Alice", Permissions: read},
		{Name: "by DNS", DNSName: "ci.example.com", Permissions: all},
		{Name: "by URI", URI: "spiffe://example.com/admin", Permissions: all},
		{Name: "pinned", SHA256: sha256.Sum256(pinned.Certificate[0]), Permissions: read},
	}
	with := func(certs ...tls.Certificate) *tls.Config {
		c := authority.Client.Clone()
		c.Certificates = certs
		return c
	}
	both := startTLS(t, authority, func(o *admin.Options) {
		o.ClientCertificates = identities
		o.Tokens = []admin.Token{token("reader", "action.target.read")}
	})
	certificatesOnly := startTLS(t, authority, func(o *admin.Options) { o.ClientCertificates = identities })
	tokensOnly := startTLS(t, authority, func(o *admin.Options) { o.Tokens = []admin.Token{token("reader", "action.target.read")} })
	const refused, denied = codes.Unauthenticated, codes.PermissionDenied
	for name, row := range map[string]struct {
		address     string
		client      shown
		read, write codes.Code
		message     string
	}{
		"a common name":                        {both, shown{config: with(byName)}, codes.OK, denied, ""},
		"a DNS name":                           {both, shown{config: with(byDNS)}, codes.OK, codes.OK, ""},
		"a URI":                                {both, shown{config: with(byURI)}, codes.OK, codes.OK, ""},
		"a fingerprint":                        {both, shown{config: with(pinned)}, codes.OK, denied, ""},
		"one that is not known, with tokens":   {both, shown{config: with(unknown)}, refused, refused, "auth header missing"},
		"one that is not known":                {certificatesOnly, shown{config: with(unknown)}, refused, refused, "the client certificate is not that of a known caller"},
		"none":                                 {certificatesOnly, shown{config: with()}, refused, refused, "auth header missing"},
		"a token":                              {both, shown{config: with(), token: "reader"}, codes.OK, denied, ""},
		"a token comes before a certificate":   {both, shown{config: with(byDNS), token: "reader"}, codes.OK, denied, ""},
		"a bad token is not made good":         {both, shown{config: with(byDNS), token: "guess"}, refused, refused, "the token is not valid"},
		"a token where there are none":         {certificatesOnly, shown{config: with(byDNS), token: "guess"}, refused, refused, "the token is not valid"},
		"a certificate that means nothing":     {tokensOnly, shown{config: with(byDNS)}, refused, refused, "auth header missing"},
		"a browser on another site":            {both, shown{config: with(byDNS), origin: "https://evil.example.com"}, denied, denied, "requests of other web sites are refused while a client certificate says who calls"},
		"a browser on another site, by token":  {both, shown{config: with(byDNS), origin: "https://console.example.com", token: "reader"}, codes.OK, denied, ""},
		"a browser on the site that we are":    {both, shown{config: with(byDNS), origin: "https://" + both}, codes.OK, codes.OK, ""},
		"a browser with an origin that is not": {both, shown{config: with(byDNS), origin: "null"}, denied, denied, "requests of other web sites"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			read, write, message := row.client.codes(t, row.address)
			if read != row.read || write != row.write || !strings.Contains(message, row.message) {
				t.Errorf("reading %v, writing %v, %q", read, write, message)
			}
		})
	}
}

func TestAConnectionDoesNotOutliveItsCertificate(t *testing.T) {
	t.Parallel()
	authority := testkit.NewCertificates(t)
	cert, _, _ := authority.Issue(t, nil)
	var mu sync.Mutex
	now := time.Now()
	address := startTLS(t, authority, func(o *admin.Options) {
		o.ClientCertificates = []admin.ClientCertificate{{Name: "a", CommonName: "another", Permissions: []string{"*"}}}
		o.Now = func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return now
		}
	})
	config := authority.Client.Clone()
	config.Certificates = []tls.Certificate{cert}
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := actionv2.NewActionServiceClient(conn)
	if _, err := client.ListTargets(t.Context(), &actionv2.ListTargetsRequest{}); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	now = cert.Leaf.NotAfter.Add(time.Second)
	mu.Unlock()
	if _, err := client.ListTargets(t.Context(), &actionv2.ListTargetsRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("after its end: %v", err)
	}
}

func TestClientCertificatesThatAreRefused(t *testing.T) {
	t.Parallel()
	f := start(t)
	for name, c := range map[string]admin.ClientCertificate{
		"no name":   {CommonName: "a"},
		"no mark":   {Name: "a"},
		"two marks": {Name: "a", CommonName: "a", URI: "u"},
	} {
		if _, err := admin.New(admin.Options{Store: f.replica, InstanceID: "i", ClientCertificates: []admin.ClientCertificate{c}}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
