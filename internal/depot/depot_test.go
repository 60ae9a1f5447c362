package depot_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"

	"github.com/execgate/execgate/admin"
	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	"github.com/execgate/execgate/internal/depot"
	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/targetclient"
)

func TestMain(m *testing.M) {
	// The thread that the servers' lives hang on.
	testkit.Main(m, goleak.IgnoreAnyFunction("github.com/execgate/execgate/internal/testkit.startWithParent.func1.1"))
}

const limit = 1 << 20

var document = []byte("kind: Export\nformat: 1\n# é ☃\n")

// anywhere connects to every address.
func anywhere(ctx context.Context, network, address string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, network, address)
}

// guarded connects to what the deny list of a target client lets pass.
func guarded(t *testing.T, deny ...string) func(context.Context, string, string) (net.Conn, error) {
	t.Helper()
	c, err := targetclient.New(targetclient.Options{DenyList: deny})
	if err != nil {
		t.Fatal(err)
	}
	return c.Dial
}

func local(path string) admin.Place {
	return admin.Place{Local: &gatewaypb.LocalOutput{Path: path}}
}

// wantCode wants an error of a code that a caller may see, without the secrets of these tests.
func wantCode(t *testing.T, err error, code codes.Code, text string) {
	t.Helper()
	var own *admin.Error
	if !errors.As(err, &own) {
		t.Fatalf("a %T: %v", err, err)
	}
	if own.Code != code || !strings.Contains(own.Text, text) {
		t.Errorf("%v %q, want %v %q", own.Code, own.Text, code, text)
	}
	for _, secret := range []string{"secret", "key-id", "PRIVATE", "internal answer"} {
		if strings.Contains(own.Text, secret) {
			t.Errorf("%q holds a secret", own.Text)
		}
	}
}

// roundTrip writes, reads, and writes over what is there.
func roundTrip(t *testing.T, d *depot.Depot, p admin.Place) {
	t.Helper()
	for _, want := range [][]byte{document, []byte("shorter"), bytes.Repeat([]byte("0123456789abcdef"), limit/16)} {
		if err := d.Write(t.Context(), p, want); err != nil {
			t.Fatal(err)
		}
		got, err := d.Read(t.Context(), p, limit)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
	}
	_, err := d.Read(t.Context(), p, limit-1)
	wantCode(t, err, codes.FailedPrecondition, "larger")
}

func TestFiles(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made", "when needed")
	d := depot.New(depot.Options{Dir: dir})
	roundTrip(t, d, local("a.yaml"))
	roundTrip(t, d, local("deep/er/a.yaml"))
	roundTrip(t, d, local(filepath.Join(dir, "absolute.yaml")))
	roundTrip(t, d, local("x/../back.yaml"))
	info, err := os.Stat(filepath.Join(dir, "deep/er/a.yaml"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 4 { // nothing is left over
		t.Errorf("%v %v", entries, err)
	}
}

func TestFilesStayBelowTheDirectory(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	dir, outside := filepath.Join(top, "exports"), filepath.Join(top, "outside")
	for _, d := range []string{dir, outside} {
		if err := os.Mkdir(d, 0o750); err != nil {
			t.Fatal(err)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(filepath.Join(outside, "passwd"), []byte("root"), 0o600))
	must(os.Symlink(outside, filepath.Join(dir, "link")))
	must(os.Symlink("../outside", filepath.Join(dir, "relative link")))
	must(os.Symlink(filepath.Join(outside, "passwd"), filepath.Join(dir, "file link")))
	must(os.Mkdir(filepath.Join(dir, "directory"), 0o750))
	must(syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	d := depot.New(depot.Options{Dir: dir})
	for _, path := range []string{
		"../outside/passwd", "a/../../outside/passwd", filepath.Join(outside, "passwd"), "/etc/passwd", "..", ".", "/", "directory/",
		"link/passwd", "relative link/passwd", "a\x00b", "link/new/x", dir, "directory", "passwd/",
	} {
		if _, err := d.Read(t.Context(), local(path), limit); err == nil {
			t.Errorf("%q was read", path)
		} else {
			wantCodes(t, path, err)
		}
		if err := d.Write(t.Context(), local(path), document); err == nil {
			t.Errorf("%q was written", path)
		} else {
			wantCodes(t, path, err)
		}
	}
	for _, path := range []string{"file link", "pipe"} {
		if _, err := d.Read(t.Context(), local(path), limit); err == nil {
			t.Errorf("%q was read", path)
		}
	}
	must(d.Write(t.Context(), local("file link"), document)) // takes the place of the link
	if text, err := os.ReadFile(filepath.Join(outside, "passwd")); err != nil || string(text) != "root" {
		t.Errorf("%q %v", text, err)
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 {
		t.Errorf("%v %v", entries, err)
	}
	_, err := d.Read(t.Context(), local("nothing"), limit)
	wantCode(t, err, codes.NotFound, "no such file")
	err = depot.New(depot.Options{}).Write(t.Context(), local("a"), document)
	wantCode(t, err, codes.FailedPrecondition, "admin.export_dir")
}

// wantCodes wants an error that is told.
func wantCodes(t *testing.T, path string, err error) {
	t.Helper()
	var own *admin.Error
	if !errors.As(err, &own) || strings.Contains(own.Text, "/") {
		t.Errorf("%q: %v", path, err)
	}
}

func s3Place(s *testkit.S3, change func(*gatewaypb.S3Location)) admin.Place {
	l := &gatewaypb.S3Location{
		Path: "backups/execgate.yaml", Endpoint: s.Endpoint, AccessKeyId: s.AccessKey, SecretAccessKey: s.SecretKey, Bucket: "exports", Ssl: s.CAFile != "",
	}
	if change != nil {
		change(l)
	}
	return admin.Place{S3: l}
}

func TestS3(t *testing.T) {
	t.Parallel()
	s := testkit.StartS3(t, false, "exports")
	d := depot.New(depot.Options{Dial: anywhere})
	roundTrip(t, d, s3Place(s, nil))
	if _, err := os.Stat(filepath.Join(s.Dir, "exports", "backups", "execgate.yaml")); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]struct {
		change func(*gatewaypb.S3Location)
		code   codes.Code
		text   string
	}{
		"no such bucket":      {func(l *gatewaypb.S3Location) { l.Bucket = "nothing" }, codes.NotFound, "no such bucket"},
		"a wrong secret":      {func(l *gatewaypb.S3Location) { l.SecretAccessKey = "other-secret" }, codes.FailedPrecondition, "credentials"},
		"a wrong key":         {func(l *gatewaypb.S3Location) { l.AccessKeyId = "other-key-id" }, codes.FailedPrecondition, "credentials"},
		"a bucket of no form": {func(l *gatewaypb.S3Location) { l.Bucket = "N" }, codes.InvalidArgument, "bucket"},
		"a URL as endpoint":   {func(l *gatewaypb.S3Location) { l.Endpoint = "http://" + l.Endpoint + "/x" }, codes.InvalidArgument, "endpoint"},
		"TLS to a plain port": {func(l *gatewaypb.S3Location) { l.Ssl = true }, codes.Unavailable, "cannot be reached"},
		"nobody there":        {func(l *gatewaypb.S3Location) { l.Endpoint = testkit.FreeAddr(t) }, codes.Unavailable, "cannot be reached"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wantCode(t, d.Write(t.Context(), s3Place(s, c.change), document), c.code, c.text)
			_, err := d.Read(t.Context(), s3Place(s, c.change), limit)
			wantCode(t, err, c.code, c.text)
		})
	}
	_, err := d.Read(t.Context(), s3Place(s, func(l *gatewaypb.S3Location) { l.Path = "nothing" }), limit)
	wantCode(t, err, codes.NotFound, "no object")
}

func TestS3OverTLS(t *testing.T) {
	t.Parallel()
	s := testkit.StartS3(t, true, "exports")
	ca, err := os.ReadFile(s.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	roundTrip(t, depot.New(depot.Options{Dial: anywhere, TLS: &tls.Config{RootCAs: roots}}), s3Place(s, nil))
	_, err = depot.New(depot.Options{Dial: anywhere}).Read(t.Context(), s3Place(s, nil), limit)
	wantCode(t, err, codes.Unavailable, "certificate")
}

func gcsPlace(bucket, account string) admin.Place {
	return admin.Place{GCS: &gatewaypb.GCSLocation{Bucket: bucket, Path: "backups/execgate é.yaml", ServiceaccountJson: account}}
}

func TestGCS(t *testing.T) {
	t.Parallel()
	g := testkit.StartGCS(t, "exports")
	for _, address := range []string{g.URL, strings.TrimPrefix(g.URL, "http://")} {
		d := depot.New(depot.Options{Dial: guarded(t, "127.0.0.0/8"), GCSEmulator: address})
		roundTrip(t, d, gcsPlace("exports", ""))
		_, err := d.Read(t.Context(), admin.Place{GCS: &gatewaypb.GCSLocation{Bucket: "exports", Path: "nothing"}}, limit)
		wantCode(t, err, codes.NotFound, "no object")
		wantCode(t, d.Write(t.Context(), gcsPlace("nothing", ""), document), codes.NotFound, "no such bucket")
	}
	nobody := depot.New(depot.Options{GCSEmulator: testkit.FreeAddr(t)})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := nobody.Write(ctx, gcsPlace("exports", ""), document); err == nil {
		t.Error("written")
	}
}

// account is the key of a service account whose tokens come from a server.
func account(t *testing.T, change func(map[string]string)) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]string{
		"type": "service_account", "client_email": "a@b.example", "private_key_id": "key-id",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), "token_uri": "https://token.example/",
	}
	change(fields)
	text, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// google stands before a real fake-gcs-server as Google does: it gives tokens and asks for them.
type google struct {
	*httptest.Server
	tokens atomic.Int32
}

func newGoogle(t *testing.T, objects string, tokenStatus int) *google {
	t.Helper()
	behind, err := url.Parse(objects)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(behind)
	proxy.Transport = &http.Transport{DisableKeepAlives: true}
	g := new(google)
	g.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Host == "token.example":
			g.tokens.Add(1)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(tokenStatus)
			_, _ = fmt.Fprint(w, `{"access_token": "t0ken", "token_type": "Bearer", "expires_in": 3600, "note": "internal answer"}`)
		case r.Host != "storage.googleapis.com" || r.Header.Get("Authorization") != "Bearer t0ken":
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = fmt.Fprint(w, "internal answer")
		default:
			proxy.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(g.Close)
	return g
}

// depot is one for which every name leads to this server.
func (g *google) depot() *depot.Depot {
	config := g.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	config.InsecureSkipVerify = true // the certificate is of another name
	return depot.New(depot.Options{TLS: config, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return anywhere(ctx, network, g.Listener.Addr().String())
	}})
}

func TestGCSWithAServiceAccount(t *testing.T) {
	t.Parallel()
	g := newGoogle(t, testkit.StartGCS(t, "exports").URL, http.StatusOK)
	roundTrip(t, g.depot(), gcsPlace("exports", account(t, func(map[string]string) {})))
	if g.tokens.Load() == 0 {
		t.Error("no token was asked for")
	}
	refusing := newGoogle(t, g.URL, http.StatusForbidden)
	_, err := refusing.depot().Read(t.Context(), gcsPlace("exports", account(t, func(map[string]string) {})), limit)
	wantCode(t, err, codes.FailedPrecondition, "refuses the service account")
}

func TestGCSTakesServiceAccountsOnly(t *testing.T) {
	t.Parallel()
	asked := false
	d := depot.New(depot.Options{Dial: func(context.Context, string, string) (net.Conn, error) {
		asked = true
		return nil, errors.New("not in this test")
	}})
	with := func(key, value string) string { return account(t, func(m map[string]string) { m[key] = value }) }
	for name, text := range map[string]string{
		"nothing":                    "",
		"no JSON":                    "secret",
		"the machine's own":          `{"type": "authorized_user", "client_id": "secret"}`,
		"a command to run":           `{"type": "external_account", "credential_source": {"executable": {"command": "secret"}}}`,
		"no email":                   with("client_email", ""),
		"no key":                     with("private_key", "secret"),
		"a token server without TLS": with("token_uri", "http://169.254.169.254/secret"),
		"a token server of no form":  with("token_uri", "https://"),
	} {
		_, err := d.Read(t.Context(), gcsPlace("exports", text), limit)
		wantCode(t, err, codes.InvalidArgument, "serviceaccount_json")
		if asked {
			t.Errorf("%s: connected", name)
		}
	}
}

func TestConnectionsStayOffTheDenyList(t *testing.T) {
	t.Parallel()
	s := testkit.StartS3(t, false, "exports")
	for _, endpoint := range []string{s.Endpoint, strings.Replace(s.Endpoint, "127.0.0.1", "localhost", 1)} {
		d := depot.New(depot.Options{Dial: guarded(t, "127.0.0.0/8", "::1")})
		place := s3Place(s, func(l *gatewaypb.S3Location) { l.Endpoint = endpoint })
		wantCode(t, d.Write(t.Context(), place, document), codes.PermissionDenied, "deny_list")
	}
	token := account(t, func(m map[string]string) { m["token_uri"] = "https://127.0.0.1:1/" })
	_, err := depot.New(depot.Options{Dial: guarded(t, "127.0.0.0/8")}).Read(t.Context(), gcsPlace("exports", token), limit)
	wantCode(t, err, codes.PermissionDenied, "deny_list")
}

func TestAServerThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	d := depot.New(depot.Options{Dial: anywhere})
	place := admin.Place{S3: &gatewaypb.S3Location{Endpoint: silent.Addr().String(), Bucket: "exports", Path: "p", AccessKeyId: "key-id", SecretAccessKey: "secret"}}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	wantCode(t, d.Write(ctx, place, document), codes.DeadlineExceeded, "timeout")
	ctx, giveUp := context.WithCancel(t.Context())
	giveUp()
	if _, err := d.Read(ctx, place, limit); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
