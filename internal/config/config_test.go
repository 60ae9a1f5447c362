package config_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/execgate/execgate/internal/config"
)

var update = flag.Bool("update", false, "write the golden files")

// load writes text to a file called config.yaml and loads it, with faults that
// name the file without its directory.
func load(t *testing.T, text string, environ ...string) (*config.Config, string) {
	t.Helper()
	dir := t.TempDir()
	name := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(name, environ)
	if err == nil {
		return c, ""
	}
	if faults := (config.Faults)(nil); !errors.As(err, &faults) {
		t.Errorf("the error is a %T, want config.Faults", err)
	}
	return nil, strings.ReplaceAll(err.Error(), dir+string(filepath.Separator), "")
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAnEmptyFileIsAllDefaults(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "# nothing\n", "---\n", "proxy:\nadmin: ~\n"} {
		c, faults := load(t, text)
		if faults != "" {
			t.Fatalf("%q: %s", text, faults)
		}
		if got, want := config.Flat(c), config.Flat(config.Default()); got != want {
			t.Errorf("%q: %s", text, cmp.Diff(want, got))
		}
	}
	if _, err := config.Load("", nil); err != nil {
		t.Errorf("no file: %v", err)
	}
}

func TestExample(t *testing.T) {
	t.Parallel()
	c, err := config.Load("../../config.example.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/example.golden", config.Flat(c))

	t.Run("is the default but for the token", func(t *testing.T) {
		t.Parallel()
		want := config.Default()
		want.Admin.Tokens = c.Admin.Tokens
		if got, want := config.Flat(c), config.Flat(want); got != want {
			t.Error(cmp.Diff(want, got))
		}
	})
	t.Run("has every key", func(t *testing.T) {
		t.Parallel()
		for _, path := range config.MissingKeys(c) {
			t.Errorf("%s is not in config.example.yaml", path)
		}
	})
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs; -update writes it:\n%s", name, diff)
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, text, want string }{
		{"a misspelt key", "proxy:\n  lisen: 127.0.0.1:1\n",
			"config.yaml:2: proxy.lisen: unknown key; did you mean listen?"},
		{"a key in the wrong section", "descriptor_set: x\n",
			"config.yaml:1: descriptor_set: unknown key; did you mean upstream.schema.descriptor_set?"},
		{"a key like none", "ops:\n  zzzzzzz: 1\n",
			"config.yaml:2: ops.zzzzzzz: unknown key; known here: listen"},
		{"a key in a list", "admin:\n  tokens:\n    - nam: ops\n      token: t\n      permissions: [action.*]\n",
			"config.yaml:3: admin.tokens[0].nam: unknown key; did you mean name?\n" +
				"config.yaml:3: admin.tokens[0].name: empty; name the caller; the name stands in the audit log"},
		{"text for a number", "proxy:\n  max_message_bytes: 20MiB\n",
			"config.yaml:2: proxy.max_message_bytes: expected a whole number, found a string; write the number of bytes without a unit, 20971520 for 20 MiB"},
		{"a quoted number", "queue:\n  max_pending: \"5\"\n",
			"config.yaml:2: queue.max_pending: expected a whole number, found a string; write a whole number without a unit"},
		{"a number out of range", "queue:\n  max_pending: 99999999999999999999\n",
			"config.yaml:2: queue.max_pending: expected a whole number, found a number; write a whole number without a unit"},
		{"text for a boolean", "store:\n  redis:\n    cluster: yes\n",
			"config.yaml:3: store.redis.cluster: expected true or false, found a string; write true or false"},
		{"text for a fraction", "targetclient:\n  breaker:\n    failure_ratio: half\n",
			"config.yaml:3: targetclient.breaker.failure_ratio: expected a number, found a string; write a number like 0.5"},
		{"text for a section", "proxy: 127.0.0.1:8080\n",
			"config.yaml:1: proxy: expected keys and values, found a string; write one of: engine, listen, tls, max_message_bytes, method_max_message_bytes, chain_timeout, drain_delay, drain_timeout, trusted_proxies, kill_file, grpc_web, cors"},
		{"text for a list", "targetclient:\n  deny_list: localhost\n",
			"config.yaml:2: targetclient.deny_list: expected a list, found a string; write [a, b] or one \"- a\" on each line"},
		{"text for a map", "upstream:\n  rest_base_paths: /admin\n",
			"config.yaml:2: upstream.rest_base_paths: expected keys and values, found a string; write {name: value}"},
		{"a section for text", "instance_id: {a: b}\n",
			"config.yaml:1: instance_id: expected a string, found keys and values; write a string"},
		{"a list for the whole", "- a\n",
			"config.yaml:1: expected keys and values, found a list; write one of: instance_id, log, protected_methods, proxy, upstream, admin, ops, store, targetclient, queue, hooks, events, identity"},
		{"a duration without a unit", "proxy:\n  chain_timeout: 30\n",
			"config.yaml:2: proxy.chain_timeout: \"30\" is not a duration; write a number with its unit, like 500ms, 30s or 2m"},
		{"a duration of nothing", "proxy:\n  drain_timeout: 0s\n",
			"config.yaml:2: proxy.drain_timeout: 0s is not positive; write a duration above 0, like 30s"},
		{"a duration below nothing", "proxy:\n  drain_delay: -1s\n",
			"config.yaml:2: proxy.drain_delay: -1s is negative; write 0s or more"},
		{"a key twice", "ops:\n  listen: 127.0.0.1:1\n  listen: 127.0.0.1:2\n",
			"config.yaml:3: ops.listen: given twice, first on line 2; keep one"},
		{"a section twice", "ops: {}\nproxy: {}\nops: {}\n",
			"config.yaml:3: ops: given twice, first on line 1; keep one"},
		{"two documents", "ops: {}\n---\nproxy: {}\n",
			"config.yaml:2: a second document starts here; keep the configuration in one document"},
		{"a merge key", "proxy: &p\n  tls: {}\nops:\n  <<: *p\n",
			"config.yaml:4: ops: merge keys (<<) are not read; write the keys out"},
		{"not YAML", "proxy:\n\tlisten: x\n",
			"config.yaml:2: not YAML: found character that cannot start any token; mend the syntax; indent with spaces"},
		{"an address without a port", "proxy:\n  listen: 127.0.0.1\n",
			"config.yaml:2: proxy.listen: \"127.0.0.1\" is not an address to listen on; write host:port, like 127.0.0.1:8080 or :8080"},
		{"a port out of range", "ops:\n  listen: :70000\n",
			"config.yaml:2: ops.listen: \":70000\" is not an address to listen on; write host:port, like 127.0.0.1:8080 or :8080"},
		{"one address twice", "ops:\n  listen: 127.0.0.1:8080\n",
			"config.yaml:2: ops.listen: 127.0.0.1:8080 is taken by proxy.listen; give each listener a port of its own"},
		{"a relative URL", "upstream:\n  url: /api\n",
			"config.yaml:2: upstream.url: not an absolute URL; write http://host:port or https://host:port"},
		{"a URL of another scheme", "upstream:\n  url: ftp://host\n",
			"config.yaml:2: upstream.url: the scheme \"ftp\" is not http or https; write http://host:port or https://host:port"},
		{"a URL with a password", "upstream:\n  url: http://me:hush@host\n",
			"config.yaml:2: upstream.url: carries a user name or password; remove it: callers' credentials go along unchanged"},
		{"a URL with a path", "upstream:\n  url: http://host/api\n",
			"config.yaml:2: upstream.url: has a path, query or fragment; end after the port: the client's path is used as it is"},
		{"a bad range", "proxy:\n  trusted_proxies: [10.0.0.0/33, \"::1\", host]\n",
			"config.yaml:2: proxy.trusted_proxies[0]: \"10.0.0.0/33\" is neither an IP address nor a CIDR range; write 10.0.0.7 or 10.0.0.0/8\n" +
				"config.yaml:2: proxy.trusted_proxies[2]: \"host\" is neither an IP address nor a CIDR range; write 10.0.0.7 or 10.0.0.0/8"},
		{"a bad deny list entry", "targetclient:\n  deny_list:\n    - localhost\n    - 10.0.0.256\n    - 10.0.0.0/99\n    - \"*.internal\"\n",
			"config.yaml:4: targetclient.deny_list[1]: \"10.0.0.256\" is neither a CIDR range nor an address nor a host name; write 10.0.0.0/8, 10.0.0.7 or host.example\n" +
				"config.yaml:5: targetclient.deny_list[2]: \"10.0.0.0/99\" is neither a CIDR range nor an address nor a host name; write 10.0.0.0/8, 10.0.0.7 or host.example\n" +
				"config.yaml:6: targetclient.deny_list[3]: \"*.internal\" is neither a CIDR range nor an address nor a host name; write 10.0.0.0/8, 10.0.0.7 or host.example"},
		{"hooks", "hooks:\n  listen: 0.0.0.0:8083\n  function_timeout: 0s\n  functions: [\"a b\"]\n  signing_key_files: [/nowhere]\n",
			"config.yaml:3: hooks.function_timeout: 0s is not positive; write a duration above 0, like 30s\n" +
				"config.yaml:4: hooks.functions[0]: \"a b\" is not the name of a function; use letters, digits, _, . and -\n" +
				"config.yaml:5: hooks.signing_key_files[0]: /nowhere: no such file; create it, or correct the path"},
		{"hooks for everybody", "hooks:\n  listen: :8083\n",
			"config.yaml:2: hooks.listen: :8083 can be reached from other machines, and neither hooks.signing_keys nor hooks.tokens is set: " +
				"anybody there could send events and run functions; add a signing key or a token, or listen on 127.0.0.1"},
		{"a bad origin", "proxy:\n  cors:\n    allowed_origins: [console.example, \"https://a.example/x\"]\n",
			"config.yaml:3: proxy.cors.allowed_origins[0]: \"console.example\" is not an origin; write scheme://host[:port] without a path, or *\n" +
				"config.yaml:3: proxy.cors.allowed_origins[1]: \"https://a.example/x\" is not an origin; write scheme://host[:port] without a path, or *"},
		{"a value of a closed set", "store:\n  driver: reddis\n",
			"config.yaml:2: store.driver: \"reddis\" is not known; did you mean redis?"},
		{"an engine that is not there", "proxy:\n  engine: h3\n",
			"config.yaml:2: proxy.engine: \"h3\" is not known; did you mean h2?"},
		{"an identity source that is not there", "identity:\n  source: jwt\n",
			"config.yaml:2: identity.source: \"jwt\" is not built yet; write none: targets then get no userID, orgID and projectID"},
		{"a queue that is not there", "queue:\n  driver: kafka\n",
			"config.yaml:2: queue.driver: \"kafka\" is not known; write auto or redis or embedded or memory"},
		{"a queue in a Redis that is none", "store:\n  redis:\n    url: http://127.0.0.1\nqueue:\n  driver: redis\n",
			"config.yaml:3: store.redis.url: the scheme \"http\" is not redis, rediss or unix; write redis://host:port/database, rediss:// for TLS"},
		{"a lease that ends at once", "queue:\n  visibility: 10ms\n",
			"config.yaml:2: queue.visibility: 10ms is too short: leases are renewed before they end; write 1s or more"},
		{"a retry that begins late", "queue:\n  retry:\n    first_delay: 3h\n",
			"config.yaml:3: queue.retry.first_delay: longer than queue.retry.max_delay; write a shorter time, or raise max_delay"},
		{"a spool below nothing", "queue:\n  spool:\n    max_bytes: -1\n",
			"config.yaml:3: queue.spool.max_bytes: -1 is negative; write 0 or more"},
		{"a certificate without its key", "proxy:\n  tls:\n    cert_file: nosuch.pem\n",
			"config.yaml:2: proxy.tls.key_file: missing, but proxy.tls.cert_file is given; name the key, or remove the certificate\n" +
				"config.yaml:3: proxy.tls.cert_file: nosuch.pem: no such file; create it, or correct the path"},
		{"a key without its certificate", "admin:\n  tls:\n    key_file: nosuch.pem\n",
			"config.yaml:2: admin.tls.cert_file: missing, but admin.tls.key_file is given; name the certificate, or remove the key\n" +
				"config.yaml:3: admin.tls.key_file: nosuch.pem: no such file; create it, or correct the path"},
		{"TLS for an http upstream", "upstream:\n  tls:\n    server_name: x\n",
			"config.yaml:2: upstream.tls: set, but upstream.url is not https; write an https:// URL, or remove the section"},
		{"a descriptor set without a file", "upstream:\n  schema:\n    source: descriptor_set\n",
			"config.yaml:2: upstream.schema.descriptor_set: missing, but upstream.schema.source is descriptor_set; name a serialized FileDescriptorSet with imports (protoc --include_imports -o FILE, buf build -o FILE)"},
		{"a missing file", "upstream:\n  schema: {source: descriptor_set, descriptor_set: nosuch.binpb}\n",
			"config.yaml:2: upstream.schema.descriptor_set: nosuch.binpb: no such file; create it, or correct the path"},
		{"an open admin port without tokens", "admin:\n  listen: 0.0.0.0:8081\n",
			"config.yaml:2: admin.listen: 0.0.0.0:8081 can be reached from other machines, and admin.tokens is empty: anybody there could change targets and executions; add a token, or listen on 127.0.0.1"},
		{"a token and a file", "admin:\n  tokens:\n    - {name: a, token: hush, token_file: /dev/null, permissions: [action.*]}\n",
			"config.yaml:3: admin.tokens[0].token_file: given together with admin.tokens[0].token; keep one of them"},
		{"a token file that is not there", "admin:\n  tokens:\n    - {name: a, token_file: nosuch, permissions: [action.*]}\n",
			"config.yaml:3: admin.tokens[0].token_file: nosuch: no such file; create it, or correct the path"},
		{"a token without anything", "admin:\n  tokens:\n    - {}\n",
			"config.yaml:3: admin.tokens[0].name: empty; name the caller; the name stands in the audit log\n" +
				"config.yaml:3: admin.tokens[0].token: no token is given; write token or token_file\n" +
				"config.yaml:3: admin.tokens[0].permissions: no permission is given, so the token could do nothing; write [\"action.*\", \"execution.*\", \"gateway.*\"] for all of them"},
		{"tokens alike", "admin:\n  tokens:\n    - {name: a, token: hush, permissions: [action.*]}\n    - {name: a, token: hush, permissions: [\"Action.*\"]}\n",
			"config.yaml:4: admin.tokens[1].name: \"a\" is already the name of admin.tokens[0]; give each token a name of its own\n" +
				"config.yaml:4: admin.tokens[1].token: the same token as admin.tokens[0]; give each caller a token of its own\n" +
				"config.yaml:4: admin.tokens[1].permissions[0]: \"Action.*\" is not a permission; write one like action.target.read, or action.* for all below"},
		{"a token that no header carries", "admin:\n  tokens:\n    - {name: a, token: \"hu sh\", permissions: [action.*]}\n",
			"config.yaml:3: admin.tokens[0].token: contains spaces or characters that no header can carry; use printable ASCII without spaces"},
		{"Redis addresses without a mode", "store:\n  driver: redis\n  redis: {addrs: [\"a:1\", \"b:1\", c]}\n",
			"config.yaml:3: store.redis.addrs[2]: \"c\" is not host:port; write host:port\n" +
				"config.yaml:3: store.redis.addrs: several, without master_name or cluster; write master_name for Sentinels or cluster: true for a Cluster"},
		{"Redis addresses with a URL", "store:\n  driver: redis\n  redis: {addrs: [\"a:1\"], cluster: true, url: \"redis://b:1\"}\n",
			"config.yaml:3: store.redis.addrs: given together with a URL; keep addrs or the URL"},
		{"a Redis URL of another scheme", "store:\n  driver: redis\n  redis: {url: \"http://:hush@b:1\"}\n",
			"config.yaml:3: store.redis.url: the scheme \"http\" is not redis, rediss or unix; write redis://host:port/database, rediss:// for TLS"},
		{"Redis TLS that is off", "store:\n  driver: redis\n  redis: {tls: {server_name: x}}\n",
			"config.yaml:3: store.redis.tls.server_name: given, but TLS is not enabled; write enabled: true, or a rediss:// URL"},
		{"a Redis URL with a parameter", "store:\n  driver: redis\n  redis: {url: \"redis://:hush@b:1/0?pool_size=3\", key_prefix: \"{a}\", cluster: true, db: 2}\n",
			"config.yaml:3: store.redis.key_prefix: holds braces: they choose the hash slot of a key; leave them out\n" +
				"config.yaml:3: store.redis.url: the parameter \"pool_size\" is not known; write db or skip_verify, or none\n" +
				"config.yaml:3: store.redis.db: 2 is no database here; write 0 or more; a cluster has only 0"},
		{"Sentinel credentials without Sentinels", "store:\n  driver: redis\n  redis: {sentinel_password: hush}\n",
			"config.yaml:3: store.redis.sentinel_username: Sentinel credentials without store.redis.master_name; write master_name, or username and password"},
		{"a limit for what is no method", "proxy:\n  method_max_message_bytes:\n    pkg.Service: 5\n    /pkg.Service/A: x\n    /pkg.Service/B: 0\n",
			"config.yaml:3: proxy.method_max_message_bytes[pkg.Service]: \"pkg.Service\" is not a full method; write /package.Service/Method\n" +
				"config.yaml:4: proxy.method_max_message_bytes[/pkg.Service/A]: expected a whole number, found a string; write a whole number without a unit\n" +
				"config.yaml:5: proxy.method_max_message_bytes[/pkg.Service/B]: 0 is not positive; write a number above 0"},
		{"a ratio above one", "targetclient:\n  breaker: {failure_ratio: 50}\n",
			"config.yaml:2: targetclient.breaker.failure_ratio: 50 is not above 0 and at most 1; write 0.5 for one half"},
		{"a method that is none", "protected_methods: [pkg.Service/Method]\n",
			"config.yaml:1: protected_methods[0]: \"pkg.Service/Method\" is not a full method; write /package.Service/Method"},
		{"a base path that is none", "upstream:\n  rest_base_paths: {a.B: admin, \"a/b\": /x}\n",
			"config.yaml:2: upstream.rest_base_paths[a.B]: \"admin\" is not a base path; begin with a slash and end without one, like /admin/v1\n" +
				"config.yaml:2: upstream.rest_base_paths[a/b]: \"a/b\" is not a service; write package.Service"},
		{"several at once, by line", "proxy:\n  listen: x\nops:\n  lissten: y\nstore:\n  driver: z\n",
			"config.yaml:2: proxy.listen: \"x\" is not an address to listen on; write host:port, like 127.0.0.1:8080 or :8080\n" +
				"config.yaml:4: ops.lissten: unknown key; did you mean listen?\n" +
				"config.yaml:6: store.driver: \"z\" is not known; write embedded or redis"},
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

func TestAMissingFileIsNamed(t *testing.T) {
	t.Parallel()
	_, err := config.Load("nosuch.yaml", nil)
	if want := "nosuch.yaml: no such file; check the path given with --config"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	_, err = config.Load(t.TempDir(), nil)
	if err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("a directory: %v", err)
	}
}

func TestEnvironmentOverridesTheFile(t *testing.T) {
	t.Parallel()
	c, faults := load(t, "proxy:\n  listen: 127.0.0.1:1\n",
		"EXECGATE_PROXY_LISTEN=127.0.0.1:2",
		"EXECGATE_PROXY_MAX_MESSAGE_BYTES=7",
		"EXECGATE_PROXY_CHAIN_TIMEOUT=5s",
		"EXECGATE_PROXY_TRUSTED_PROXIES=10.0.0.0/8, ::1",
		"EXECGATE_TARGETCLIENT_DENY_LIST=",
		"EXECGATE_TARGETCLIENT_ALLOW_LIST=[a.example, b.example]",
		"EXECGATE_TARGETCLIENT_BREAKER_FAILURE_RATIO=1",
		"EXECGATE_STORE_REDIS_CLUSTER=true",
		"EXECGATE_STORE_REDIS_PASSWORD=a=b: 'c'",
		"EXECGATE_INSTANCE_ID=007",
		`EXECGATE_UPSTREAM_REST_BASE_PATHS={"a.B": "/x"}`,
		`EXECGATE_ADMIN_TOKENS=[{"name":"ci","token":"t","permissions":["action.*"]}]`,
		"EXECGATE_ADMIN_URL=http://elsewhere", "EXECGATE_ADMIN_TOKEN=for the command line",
		"EXECGATE_PORT=tcp://10.0.0.1:80", "EXECGATE_SERVICE_HOST=10.0.0.1", "EXECGATE_SERVICE_PORT_HTTP=80",
		"EXECGATE_ADMIN_PORT_8081_TCP_ADDR=10.0.0.1", "PATH=/bin",
	)
	if faults != "" {
		t.Fatal(faults)
	}
	for name, eq := range map[string]bool{
		"listen":   c.Proxy.Listen == "127.0.0.1:2",
		"bytes":    c.Proxy.MaxMessageBytes == 7,
		"timeout":  c.Proxy.ChainTimeout == 5*time.Second,
		"commas":   cmp.Equal(c.Proxy.TrustedProxies, []string{"10.0.0.0/8", "::1"}),
		"empty":    len(c.TargetClient.DenyList) == 0,
		"yaml":     cmp.Equal(c.TargetClient.AllowList, []string{"a.example", "b.example"}),
		"ratio":    c.TargetClient.Breaker.FailureRatio == 1,
		"cluster":  c.Store.Redis.Cluster,
		"secret":   c.Store.Redis.Password.Reveal() == "a=b: 'c'",
		"instance": c.InstanceID == "007",
		"map":      c.Upstream.RESTBasePaths["a.B"] == "/x",
		"tokens":   len(c.Admin.Tokens) == 1 && c.Admin.Tokens[0].Token.Reveal() == "t",
	} {
		if !eq {
			t.Errorf("%s was not taken over", name)
		}
	}
}

func TestFaultsInTheEnvironmentNameTheVariable(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ variable, want string }{
		{"EXECGATE_PROXY_LISTN=x", "EXECGATE_PROXY_LISTN: no key has this environment variable; did you mean EXECGATE_PROXY_LISTEN?"},
		{"EXECGATE_PROXY_TLS=x", "EXECGATE_PROXY_TLS: no key has this environment variable; it is a section; set its keys one by one, like EXECGATE_PROXY_TLS_CERT_FILE"},
		{"EXECGATE_QUITE_ANOTHER_THING=x", "EXECGATE_QUITE_ANOTHER_THING: no key has this environment variable; unset it; the variable of a key is EXECGATE_ and its path, upper case, dots as underscores"},
		{"EXECGATE_PROXY_LISTEN=x", `EXECGATE_PROXY_LISTEN: proxy.listen: "x" is not an address to listen on; write host:port, like 127.0.0.1:8080 or :8080`},
		{"EXECGATE_QUEUE_MAX_PENDING=many", "EXECGATE_QUEUE_MAX_PENDING: queue.max_pending: expected a whole number, found a string; write a whole number without a unit"},
		{"EXECGATE_QUEUE_MAX_PENDING=", "EXECGATE_QUEUE_MAX_PENDING: queue.max_pending: the variable is empty; give it a value, or unset it"},
		{"EXECGATE_ADMIN_TOKENS=[{hush", "EXECGATE_ADMIN_TOKENS: admin.tokens: not YAML or JSON; mend the syntax"},
		{"EXECGATE_ADMIN_TOKENS=hush", `EXECGATE_ADMIN_TOKENS: admin.tokens: expected a list, found a string; write [a, b] or one "- a" on each line`},
		{"EXECGATE_ADMIN_TOKENS=[{name: a, tokn: hush}]", "EXECGATE_ADMIN_TOKENS: admin.tokens[0].tokn: unknown key; did you mean token?\n" +
			"EXECGATE_ADMIN_TOKENS: admin.tokens[0].token: no token is given; write token or token_file\n" +
			`EXECGATE_ADMIN_TOKENS: admin.tokens[0].permissions: no permission is given, so the token could do nothing; write ["action.*", "execution.*", "gateway.*"] for all of them`},
		{"EXECGATE_ADMIN_LISTEN=:8081", "EXECGATE_ADMIN_LISTEN: admin.listen: :8081 can be reached from other machines, and admin.tokens is empty: anybody there could change targets and executions; add a token, or listen on 127.0.0.1"},
	} {
		_, got := load(t, "", tc.variable)
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s: %s", tc.variable, diff)
		}
		if strings.Contains(got, "hush") {
			t.Error("a secret is in the fault")
		}
	}
}

func TestSecretsFromFiles(t *testing.T) {
	t.Parallel()
	token := write(t, "token", "hush\n")
	password := write(t, "password", " keep spaces \r\n")
	url := write(t, "url", "redis://:pw@redis.example:6379/1")
	c, faults := load(t, fmt.Sprintf(`
admin: {tokens: [{name: ops, token_file: %s, permissions: ["action.*"]}]}
store: {driver: redis, redis: {url_file: %s, password_file: %s}}
`, token, url, password))
	if faults != "" {
		t.Fatal(faults)
	}
	if got := c.Admin.Tokens[0].Token.Reveal(); got != "hush" {
		t.Errorf("token %q", got)
	}
	if got := c.Store.Redis.Password.Reveal(); got != " keep spaces " {
		t.Errorf("password %q", got)
	}
	if got := c.Store.Redis.URL.Reveal(); got != "redis://:pw@redis.example:6379/1" {
		t.Errorf("URL %q", got)
	}
	if err := c.Check(); err != nil {
		t.Errorf("a loaded configuration is checked again: %v", err)
	}
	if _, faults := load(t, "store: {driver: redis, redis: {password_file: "+write(t, "empty", "\n")+"}}"); !strings.Contains(faults, "the file is empty") {
		t.Errorf("an empty file: %q", faults)
	}
}

func TestSecretsAreNeverSeen(t *testing.T) {
	t.Parallel()
	c, faults := load(t, "store: {redis: {password: hush}}\nadmin: {tokens: [{name: a, token: hush, permissions: [action.*]}]}\n")
	if faults != "" {
		t.Fatal(faults)
	}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("start", "config", c, "password", c.Store.Redis.Password)
	slog.New(slog.NewTextHandler(&log, nil)).Info("start", "config", c, "tokens", c.Admin.Tokens)
	asJSON, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	printed := fmt.Sprintf("%v %+v %#v %v %q %x %+v", c, c, *c, c.Admin, c.Admin.Tokens, c.Store.Redis.Password, &c.Store.Redis)
	for _, text := range []string{log.String(), string(asJSON), printed, config.Flat(c)} {
		if strings.Contains(text, "hush") || strings.Contains(text, "68757368") || strings.Contains(text, "104 117") {
			t.Errorf("the secret is in %s", text)
		}
	}
	if !strings.Contains(string(asJSON), "REDACTED") {
		t.Error("a secret that is set should show that it is")
	}
}

func TestEveryVariableNameIsUnique(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for _, path := range config.AllPaths() {
		name := config.EnvName(path)
		if other, ok := seen[name]; ok {
			t.Errorf("%s and %s share %s", path, other, name)
		}
		seen[name] = path
	}
	if len(seen) < 60 {
		t.Errorf("only %d keys were found", len(seen))
	}
}

func FuzzLoad(f *testing.F) {
	f.Add("proxy: {listen: \"127.0.0.1:0\"}\n")
	f.Add("admin:\n  tokens:\n  - &a {name: x}\n  - *a\n")
	f.Add("a: &a [*a]\n")
	f.Fuzz(func(t *testing.T, text string) {
		name := filepath.Join(t.TempDir(), "c.yaml")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := config.Load(name, nil)
		if (c == nil) == (err == nil) {
			t.Fatalf("config %v and error %v", c != nil, err)
		}
		if err == nil && c.Check() != nil {
			t.Fatal("what Load accepts, Check refuses")
		}
	})
}
