package oidcauth_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/execgate/execgate/admin"
	"github.com/execgate/execgate/admin/oidcauth"
	actionpb "github.com/execgate/execgate/gen/zitadel/action/v2"
	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/internal/testkit/oidcserver"
	"github.com/execgate/execgate/store"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const (
	audience  = "execgate"
	rolesPath = "urn:zitadel:iam:org:project:roles"
	static    = "a-static-token"
)

// zitadelRoles is a claim in ZITADEL's form: the organisations that granted each role.
func zitadelRoles(roles ...string) map[string]any {
	granted := map[string]any{}
	for _, r := range roles {
		granted[r] = map[string]any{"284917263": "example.com"}
	}
	return map[string]any{rolesPath: granted}
}

// clients of the provider in most tests.
func clients() []oidcserver.Client {
	return []oidcserver.Client{
		{ID: "operator", Audience: []string{audience}, Claims: zitadelRoles("operator", "unrelated")},
		{ID: "viewer", Audience: []string{audience}, Claims: zitadelRoles("viewer")},
		{ID: "stranger", Audience: []string{audience}},
		{ID: "elsewhere", Audience: []string{"another-application"}, Claims: zitadelRoles("operator")},
		{ID: "late", Audience: []string{audience}, Claims: zitadelRoles("operator"), Lifetime: -time.Minute},
		{ID: audience, Claims: zitadelRoles("operator")},
	}
}

func options(provider *oidcserver.Server) oidcauth.Options {
	return oidcauth.Options{
		Issuer:     provider.Issuer(),
		Audience:   []string{"some-other-name", audience},
		ClockSkew:  time.Second,
		RolesClaim: rolesPath,
		Roles: map[string][]string{
			"operator": {"action.*", "execution.*"},
			"viewer":   {"action.target.read"},
		},
		MinFetchInterval: time.Nanosecond,
	}
}

// fixture is an admin server on a real socket that believes a provider.
type fixture struct {
	t       *testing.T
	address string
	actions actionpb.ActionServiceClient
	http    *http.Client
	auth    *oidcauth.Authenticator
}

func start(t *testing.T, o oidcauth.Options, change ...func(*admin.Options)) *fixture {
	t.Helper()
	if o.Logger == nil {
		o.Logger = testkit.Logger(t)
	}
	auth, err := oidcauth.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { auth.Run(ctx) })
	t.Cleanup(running.Wait)
	t.Cleanup(cancel)

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
	adminOptions := admin.Options{
		Store:          replica,
		InstanceID:     "instance",
		Tokens:         []admin.Token{{Name: "static", SHA256: admin.HashToken(static), Permissions: []string{"*"}}},
		Authenticators: []admin.Authenticator{auth},
		Logger:         testkit.Logger(t),
	}
	for _, c := range change {
		c(&adminOptions)
	}
	server, err := admin.New(adminOptions)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	httpServer := &http.Server{Handler: server.Handler(), Protocols: new(http.Protocols)}
	httpServer.Protocols.SetHTTP1(true)
	httpServer.Protocols.SetUnencryptedHTTP2(true)
	running.Go(func() { _ = httpServer.Serve(ln) })
	conn, err := grpc.NewClient("passthrough:///"+ln.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, address: ln.Addr().String(), actions: actionpb.NewActionServiceClient(conn), auth: auth,
		http: &http.Client{Transport: &http.Transport{}}}
	t.Cleanup(func() {
		_ = conn.Close()
		f.http.CloseIdleConnections()
		server.Close()
		_ = httpServer.Close()
	})
	return f
}

// read and write call over gRPC and REST, and fail the test when the two do not agree.
func (f *fixture) read(token string) codes.Code {
	f.t.Helper()
	_, err := f.actions.ListTargets(bearer(f.t, token), &actionpb.ListTargetsRequest{})
	return f.same(err, "POST", "/v2/actions/targets/search", token)
}

// grpc is read without REST: while things change, the two may differ.
func (f *fixture) grpc(token string) codes.Code {
	_, err := f.actions.ListTargets(bearer(f.t, token), &actionpb.ListTargetsRequest{})
	return status.Code(err)
}

func (f *fixture) write(token string) codes.Code {
	f.t.Helper()
	_, err := f.actions.DeleteTarget(bearer(f.t, token), &actionpb.DeleteTargetRequest{Id: "1"})
	return f.same(err, "DELETE", "/v2/actions/targets/1", token)
}

func bearer(t *testing.T, token string) context.Context {
	return metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token)
}

// httpStatus of the codes that occur here.
var httpStatus = map[codes.Code]int{
	codes.OK: 200, codes.Unauthenticated: 401, codes.PermissionDenied: 403, codes.Unavailable: 503, codes.ResourceExhausted: 429,
}

func (f *fixture) same(err error, method, path, token string) codes.Code {
	f.t.Helper()
	st := status.Convert(err)
	req, errReq := http.NewRequestWithContext(f.t.Context(), method, "http://"+f.address+path, nil)
	if errReq != nil {
		f.t.Fatal(errReq)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, errRes := f.http.Do(req)
	if errRes != nil {
		f.t.Fatal(errRes)
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	if want := httpStatus[st.Code()]; res.StatusCode != want {
		f.t.Errorf("%s %s: REST answers %d %s, gRPC %v", method, path, res.StatusCode, text, err)
	}
	if st.Code() == codes.Unauthenticated {
		var body struct{ Message string }
		if json.Unmarshal(text, &body) != nil || body.Message != st.Message() || body.Message != "the token is not valid" {
			f.t.Errorf("refused with %q over gRPC and %s over REST", st.Message(), text)
		}
	}
	return st.Code()
}

func (f *fixture) want(token string, read, write codes.Code) {
	f.t.Helper()
	if got := f.read(token); got != read {
		f.t.Errorf("reading: %v, want %v", got, read)
	}
	if got := f.write(token); got != write {
		f.t.Errorf("writing: %v, want %v", got, write)
	}
}

// until waits for something that happens by itself.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline, tick := time.After(15*time.Second), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-deadline:
			t.Fatalf("%s: not within 15 s", what)
		case <-tick.C:
		}
	}
}
