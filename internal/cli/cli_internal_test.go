package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	"github.com/execgate/execgate/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

func TestFieldsOfAPolicyAreSetByPath(t *testing.T) {
	t.Parallel()
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("a: secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for words, want := range map[string]string{
		"enabled=false":                             `{"enabled":false}`,
		"max_concurrency=8":                         `{"maxConcurrency":8}`,
		"maxConcurrency=0":                          `{"maxConcurrency":0}`,
		"breaker.open_for=1m30s":                    `{"breaker":{"openFor":"90s"}}`,
		"breaker.openFor=5ms breaker.minCalls=2":    `{"breaker":{"openFor":"0.005s","minCalls":2}}`,
		"breaker.failure_ratio=0.25":                `{"breaker":{"failureRatio":0.25}}`,
		"allowed_hosts=a.example,b.example":         `{"allowedHosts":{"hosts":["a.example","b.example"]}}`,
		"allowed_hosts=":                            `{"allowedHosts":{}}`,
		`allowed_hosts=["a.example"]`:               `{"allowedHosts":{"hosts":["a.example"]}}`,
		"allowed_hosts.hosts=a.example":             `{"allowedHosts":{"hosts":["a.example"]}}`,
		"headers.X-Api-Key=true headers.values.B=2": `{"headers":{"values":{"X-Api-Key":"true","B":"2"}}}`,
		"headers={X:y}":                             ``,
		"headers.X-Api-Key=@" + key:                 `{"headers":{"values":{"X-Api-Key":"a: secret"}}}`,
	} {
		got, want2 := &gatewaypb.TargetPolicy{}, &gatewaypb.TargetPolicy{}
		err := assign(got, strings.Fields(words))
		if want == "" {
			if err == nil {
				t.Errorf("%s: no error", words)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", words, err)
			continue
		}
		if err := protojson.Unmarshal([]byte(want), want2); err != nil {
			t.Fatal(err)
		}
		if protojson.Format(got) != protojson.Format(want2) {
			t.Errorf("%s: got %s, want %s", words, protojson.Format(got), want)
		}
	}
	mode := &gatewaypb.ExecutionPolicy{}
	if err := assign(mode, []string{"mode=Shadow"}); err != nil || mode.GetMode() != gatewaypb.ExecutionMode_EXECUTION_MODE_SHADOW {
		t.Errorf("mode=Shadow: %v %v", mode, err)
	}
}

func TestWhereTheGatewayIs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	everywhere := write("everywhere.yaml", "admin: {listen: ':9000', tokens: [{name: a, token: of-config, permissions: ['*']}]}")
	v6 := write("v6.yaml", "admin: {listen: '[::]:9000', tokens: [{name: a, token: of-config, permissions: ['*']}]}")
	anyPort := write("port.yaml", "admin: {listen: '127.0.0.1:0'}")
	token, broken := write("token", "of-file\n"), write("broken", "two\nlines\n")
	both := []string{"EXECGATE_ADMIN_URL=https://of-env.example", "EXECGATE_ADMIN_TOKEN=of-env"}

	for name, c := range map[string]struct {
		connection
		url, address, token, fault string
	}{
		"nothing is said":           {connection{}, "http://127.0.0.1:8081", "127.0.0.1:8081", "", ""},
		"environment":               {connection{environ: both}, "https://of-env.example", "of-env.example:443", "of-env", ""},
		"flags win":                 {connection{environ: both, config: everywhere, url: "http://of-flag/", tokenFile: token}, "http://of-flag", "of-flag:80", "of-file", ""},
		"the configuration is next": {connection{environ: both, config: everywhere}, "http://127.0.0.1:9000", "127.0.0.1:9000", "of-config", ""},
		"listening on all of IPv6":  {connection{config: v6}, "http://[::1]:9000", "[::1]:9000", "of-config", ""},
		"a port that nobody knows":  {connection{config: anyPort}, "", "", "", "port 0"},
		"a URL with a path":         {connection{url: "http://a.example/admin"}, "", "", "", "more than scheme, host and port"},
		"a URL without a scheme":    {connection{url: "a.example:80"}, "", "", "", "--admin-url is not a URL"},
		"a bad URL in the environment": {
			connection{environ: []string{"EXECGATE_ADMIN_URL=ftp://hush@x"}}, "", "", "", "EXECGATE_ADMIN_URL is not a URL",
		},
		"a token of two lines": {connection{tokenFile: broken}, "", "", "", "more than one line"},
	} {
		at, err := c.find()
		if c.fault != "" {
			if err == nil || !strings.Contains(err.Error(), c.fault) || strings.Contains(err.Error(), "hush") {
				t.Errorf("%s: got %v, want %s", name, err, c.fault)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if at.url != c.url || at.address != c.address || at.token != c.token {
			t.Errorf("%s: got %s %s %s", name, at.url, at.address, at.token)
		}
	}
}

func TestTheGatewaysOwnCertificateIsTrustedByTheNameItHas(t *testing.T) {
	t.Parallel()
	certificates := testkit.NewCertificates(t, "gate.example")
	file := filepath.Join(t.TempDir(), "gateway.yaml")
	text := "admin: {listen: '127.0.0.1:9000', tls: {cert_file: '" + certificates.CertFile + "', key_file: '" + certificates.KeyFile + "'}}"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	at, err := (&connection{config: file}).find()
	if err != nil {
		t.Fatal(err)
	}
	if at.tls.ServerName != "gate.example" || at.tls.RootCAs == nil {
		t.Errorf("got %q", at.tls.ServerName)
	}
	at, err = (&connection{config: file, caFile: certificates.CAFile}).find()
	if err != nil {
		t.Fatal(err)
	}
	if at.tls.ServerName != "127.0.0.1" {
		t.Errorf("with --ca-file: got %q", at.tls.ServerName)
	}
}

func TestWhatOthersWroteDoesNotSteerTheTerminal(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"a\x1b[2Jb":      "a�[2Jb",
		"two\nlines":     "two lines",
		"tab\tbed":       "tab bed",
		"\u202ereversed": "�reversed",
		"":               "-",
		"ünï":            "ünï",
	} {
		if got := cellText(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
