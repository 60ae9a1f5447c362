package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/execgate/execgate/internal/app"
	"github.com/execgate/execgate/internal/config"
	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/internal/testkit/demoapi"
)

// TestAdminScript runs the sessions of testdata/admin: the commands that talk
// to a running gateway, with the real main, and gateways in front of the demo
// identity API. UPDATE=1 writes what they print into the sessions.
func TestAdminScript(t *testing.T) {
	t.Parallel()
	api := demoapi.New(demoapi.Options{Logger: testkit.Logger(t)})
	upstream, err := api.Start(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = api.Stop(ctx)
	})
	certificates := testkit.NewCertificates(t)
	sessions := &sessions{t: t, upstream: upstream, certificates: certificates}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/admin",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE") != "",
		Setup:               quickExit,
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exitcode": exitCode,
			"gateway":  sessions.gateway,
			"receiver": sessions.receiver,
			"shown":    shown,
			"killed":   killed,
		},
	})
}

// quickExit spares each process the second that the race detector waits for
// other threads before its end: sessions start hundreds.
func quickExit(env *testscript.Env) error {
	env.Setenv("GORACE", strings.TrimSpace(os.Getenv("GORACE")+" atexit_sleep_ms=0"))
	return nil
}

// sessions make what a session needs.
type sessions struct {
	t            *testing.T
	upstream     string
	certificates *testkit.Certificates
}

// gateway starts one and points the commands of the session at it: gateway
// [tokens] [tls] [mtls]. Its configuration is in gateway.yaml.
func (s *sessions) gateway(ts *testscript.TestScript, _ bool, args []string) {
	dir, name := ts.Getenv("WORK"), "gateway"+strings.Join(args, "")
	lines := []string{
		"proxy: {listen: '127.0.0.1:0', kill_file: '" + dir + "/" + name + ".kill'}",
		"ops: {listen: '127.0.0.1:0'}",
		"upstream: {url: 'http://" + s.upstream + "', schema: {cache_path: '" + dir + "/schema.binpb'}}",
		"store: {embedded: {path: '" + dir + "/" + name + ".db'}}",
		"targetclient: {deny_list: []}",
	}
	// The port has to be known to those who read the file.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	address := listener.Addr().String()
	ts.Check(listener.Close())
	admin, scheme := "listen: '"+address+"', export_dir: '"+dir+"/exports'", "http"
	for _, arg := range args {
		switch arg {
		case "tokens":
			admin += ", tokens: [{name: ops, token: full, permissions: ['*']}, {name: viewer, token: reads, permissions: [action.target.read]}]"
		case "tls", "mtls":
			admin += ", tls: {cert_file: '" + s.certificates.CertFile + "', key_file: '" + s.certificates.KeyFile + "'"
			if arg == "mtls" {
				admin += ", client_auth: required, client_ca_file: '" + s.certificates.CAFile + "'}" +
					", client_certificates: [{name: ci, san_dns: localhost, permissions: ['*']}"
				ts.Setenv("CERT", s.certificates.CertFile)
				ts.Setenv("KEY", s.certificates.KeyFile)
				admin += "]"
			} else {
				admin += "}"
			}
			scheme = "https"
			ts.Setenv("CA", s.certificates.CAFile)
		default:
			ts.Fatalf("gateway %s?", arg)
		}
	}
	text := strings.Join(append(lines, "admin: {"+admin+"}"), "\n") + "\n"
	file := filepath.Join(dir, "gateway.yaml")
	ts.Check(os.WriteFile(file, []byte(text), 0o600))
	cfg, err := config.Load(file, nil)
	ts.Check(err)
	a, err := app.New(app.Options{Config: cfg, Logger: testkit.Logger(s.t)})
	ts.Check(err)
	ts.Check(a.Start(s.t.Context()))
	ts.Defer(func() { _ = a.Stop(context.Background()) })
	s.learned(ts, a)
	ts.Setenv("EXECGATE_ADMIN_URL", scheme+"://"+address)
}

// learned waits until the gateway knows the schema of its upstream.
func (s *sessions) learned(ts *testscript.TestScript, a *app.App) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range 1000 {
		res, err := http.Get("http://" + a.Addresses().Ops.String() + "/metrics")
		ts.Check(err)
		text, err := io.ReadAll(res.Body)
		ts.Check(err)
		_ = res.Body.Close()
		if strings.Contains(string(text), "\nexecgate_schema_loaded 1\n") {
			return
		}
		<-tick.C
	}
	ts.Fatalf("the schema is not learned")
}

// receiver starts an HTTP endpoint: receiver NAME STATUS BODY. Its URL goes
// into the variable NAME.
func (s *sessions) receiver(ts *testscript.TestScript, _ bool, args []string) {
	code, err := strconv.Atoi(args[1])
	ts.Check(err)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(code)
		_, _ = io.WriteString(w, args[2])
	}))
	ts.Defer(server.Close)
	ts.Setenv(args[0], server.URL)
}

// What differs from run to run, and what stands for it.
var varying = []struct {
	pattern *regexp.Regexp
	by      string
}{
	{regexp.MustCompile(`\b\d{17,19}\b`), "ID"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ`), "TIME"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT[\d:.]+Z`), "TIME"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "ADDR"},
	{regexp.MustCompile(`(signing key: |"signingKey": "|signingKey: )[\w-]+`), "${1}KEY"},
	{regexp.MustCompile(`"0\.\d+s"`), `"SOON"`},
	{regexp.MustCompile(`\b[\d.]+(ms|µs)\b`), "SOON"},
}

// shown runs a command line that succeeds (with a code in front: that ends with
// it) and writes what it prints, both streams, to the file "out", with what
// varies replaced.
func shown(ts *testscript.TestScript, _ bool, args []string) {
	want := "0"
	if _, err := strconv.Atoi(args[0]); err == nil {
		want, args = args[0], args[1:]
	}
	err := ts.Exec(args[0], args[1:]...)
	got := "0"
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = strconv.Itoa(exit.ExitCode())
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	out := ts.ReadFile("stdout") + ts.ReadFile("stderr")
	if got != want {
		ts.Fatalf("%s: exit code %s, want %s:\n%s", strings.Join(args, " "), got, want, out)
	}
	for _, v := range varying {
		out = v.pattern.ReplaceAllString(out, v.by)
	}
	out = strings.ReplaceAll(out, ts.Getenv("WORK"), "$WORK")
	ts.Check(os.WriteFile(ts.MkAbs("out"), []byte(out), 0o600))
}

// killed waits until a gateway has seen its kill file, with ! until it has seen
// that it is gone: killed execgate explain METHOD.
func killed(ts *testscript.TestScript, neg bool, args []string) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range 500 {
		ts.Check(ts.Exec(args[0], args[1:]...))
		if strings.Contains(ts.ReadFile("stdout"), "note: ") != neg {
			return
		}
		<-tick.C
	}
	ts.Fatalf("the gateway does not look at its kill file")
}
