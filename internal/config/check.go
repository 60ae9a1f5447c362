package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/execgate/execgate/internal/strictyaml"
)

// checker finds what is wrong with the meaning of a configuration.
type checker struct {
	config *Config
	broken map[string]bool // keys that have a fault already
	faults Faults
}

// fault notes what is wrong with the key at path.
func (c *checker) fault(path, text, hint string) {
	if c.broken[path] {
		return
	}
	at := c.config.origins.find(path)
	c.faults = append(c.faults, Fault{File: at.file, Line: at.line, Env: at.env, Path: path, Text: text, Hint: hint})
}

func (c *checker) all() {
	cfg := c.config
	c.notEmpty("instance_id", cfg.InstanceID, "name the instance, or leave the key out")
	c.oneOf("log.level", cfg.Log.Level, "debug", "info", "warn", "error")
	c.oneOf("log.format", cfg.Log.Format, "json", "text")
	for i, m := range cfg.ProtectedMethods {
		c.method(fmt.Sprintf("protected_methods[%d]", i), m)
	}
	c.proxy()
	c.upstream()
	c.admin()
	c.listeners()
	c.store()
	c.targetClient()
	c.queue()
	c.hooks()
	c.events()
	if cfg.Identity.Source != "none" {
		c.fault("identity.source", fmt.Sprintf("%q is not built yet", cfg.Identity.Source), "write none: targets then get no userID, orgID and projectID")
	}
}

var (
	fullMethod  = regexp.MustCompile(`^/[A-Za-z_]\w*(\.[A-Za-z_]\w*)*/[A-Za-z_]\w*$`)
	serviceName = regexp.MustCompile(`^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$`)
	hostName    = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?$`)
	permission  = regexp.MustCompile(`^(\*|[a-z0-9_]+(\.[a-z0-9_]+)*(\.\*)?)$`)
	httpToken   = regexp.MustCompile(`^[\x21-\x7e]+$`)
)

func (c *checker) proxy() {
	p := c.config.Proxy
	c.oneOf("proxy.engine", p.Engine, "nethttp", "h2")
	c.serverTLS("proxy.tls", p.TLS)
	c.positive("proxy.max_message_bytes", p.MaxMessageBytes)
	for _, m := range slices.Sorted(maps.Keys(p.MethodMaxMessageBytes)) {
		at := fmt.Sprintf("proxy.method_max_message_bytes[%s]", m)
		c.method(at, m)
		c.positive(at, p.MethodMaxMessageBytes[m])
	}
	c.positiveTime("proxy.chain_timeout", p.ChainTimeout)
	c.notNegativeTime("proxy.drain_delay", p.DrainDelay)
	c.positiveTime("proxy.drain_timeout", p.DrainTimeout)
	for i, entry := range p.TrustedProxies {
		if !isAddress(entry) && !isRange(entry) {
			c.fault(fmt.Sprintf("proxy.trusted_proxies[%d]", i), fmt.Sprintf("%q is neither an IP address nor a CIDR range", entry), "write 10.0.0.7 or 10.0.0.0/8")
		}
	}
	for i, origin := range p.CORS.AllowedOrigins {
		if !isOrigin(origin) {
			c.fault(fmt.Sprintf("proxy.cors.allowed_origins[%d]", i), fmt.Sprintf("%q is not an origin", origin), "write scheme://host[:port] without a path, or *")
		}
	}
}

func (c *checker) upstream() {
	u := c.config.Upstream
	secure := c.upstreamURL(u.URL)
	if u.Authority != "" && strings.ContainsAny(u.Authority, "/ @?#") {
		c.fault("upstream.authority", fmt.Sprintf("%q is not a host", u.Authority), "write host or host:port")
	}
	t := u.TLS
	c.clientTLS("upstream.tls", t.CAFile, t.CertFile, t.KeyFile)
	if t != (ClientTLS{}) && !secure {
		c.fault("upstream.tls", "set, but upstream.url is not https", "write an https:// URL, or remove the section")
	}
	if t.InsecureSkipVerify && t.CAFile != "" {
		c.fault("upstream.tls.insecure_skip_verify", "given together with upstream.tls.ca_file", "remove it: the ca_file verifies the upstream")
	}
	for _, service := range slices.Sorted(maps.Keys(u.RESTBasePaths)) {
		at, path := fmt.Sprintf("upstream.rest_base_paths[%s]", service), u.RESTBasePaths[service]
		if !serviceName.MatchString(service) {
			c.fault(at, fmt.Sprintf("%q is not a service", service), "write package.Service")
		}
		if !strings.HasPrefix(path, "/") || path != "/" && strings.HasSuffix(path, "/") || strings.ContainsAny(path, "?# ") {
			c.fault(at, fmt.Sprintf("%q is not a base path", path), "begin with a slash and end without one, like /admin/v1")
		}
	}
	s := u.Schema
	c.oneOf("upstream.schema.source", s.Source, "reflection", "descriptor_set")
	c.notNegativeTime("upstream.schema.refresh_interval", s.RefreshInterval)
	switch {
	case s.Source == "descriptor_set" && s.DescriptorSet == "":
		c.fault("upstream.schema.descriptor_set", "missing, but upstream.schema.source is descriptor_set",
			"name a serialized FileDescriptorSet with imports (protoc --include_imports -o FILE, buf build -o FILE)")
	case s.Source == "reflection" && s.DescriptorSet != "":
		c.fault("upstream.schema.descriptor_set", "given, but upstream.schema.source is reflection", "write source: descriptor_set, or remove the file")
	default:
		c.readable("upstream.schema.descriptor_set", s.DescriptorSet)
	}
}

// upstreamURL checks upstream.url and says whether it is https. The value is
// not repeated in a fault: it may carry a password.
func (c *checker) upstreamURL(text string) (secure bool) {
	const path, hint = "upstream.url", "write http://host:port or https://host:port"
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "":
		c.fault(path, "not an absolute URL", hint)
		return strings.HasPrefix(text, "https:")
	case u.Scheme != "http" && u.Scheme != "https":
		c.fault(path, fmt.Sprintf("the scheme %q is not http or https", u.Scheme), hint)
	case u.User != nil:
		c.fault(path, "carries a user name or password", "remove it: callers' credentials go along unchanged")
	case u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/":
		c.fault(path, "has a path, query or fragment", "end after the port: the client's path is used as it is")
	case !isPort(u.Port(), true):
		c.fault(path, fmt.Sprintf("%q is not a port", u.Port()), hint)
	}
	return u.Scheme == "https"
}

func (c *checker) admin() {
	a := c.config.Admin
	c.adminTLS(a.TLS)
	names, values := map[string]string{}, map[string]int{}
	for i, t := range a.Tokens {
		at := fmt.Sprintf("admin.tokens[%d]", i)
		c.callerName(at, t.Name, "token", names)
		c.token(at, t, i, values)
		c.permissions(at+".permissions", t.Permissions, "the token")
	}
	c.oidc(a.OIDC)
	c.clientCertificates(a, names)
	if len(a.Tokens)+len(a.ClientCertificates) == 0 && a.OIDC.Issuer == "" && !isLoopback(a.Listen) && isListen(a.Listen) {
		c.fault("admin.listen", fmt.Sprintf("%s can be reached from other machines, and admin.tokens is empty: anybody there could change targets and executions", a.Listen),
			"add a token, or listen on 127.0.0.1")
	}
}

// token checks the secret of one token; it is never repeated in a fault.
func (c *checker) token(at string, t Token, i int, values map[string]int) {
	switch value := t.Token.Reveal(); {
	case value == "" && t.TokenFile == "":
		c.fault(at+".token", "no token is given", "write token or token_file")
	case value == "":
		// The fault of the file is enough.
	case !httpToken.MatchString(value):
		c.fault(at+".token", "contains spaces or characters that no header can carry", "use printable ASCII without spaces")
	default:
		if first, ok := values[value]; ok {
			c.fault(at+".token", fmt.Sprintf("the same token as admin.tokens[%d]", first), "give each caller a token of its own")
			return
		}
		values[value] = i
	}
}

// listeners checks the addresses that are listened on.
func (c *checker) listeners() {
	seen := map[string]string{}
	for _, l := range []struct{ path, address string }{
		{"proxy.listen", c.config.Proxy.Listen},
		{"admin.listen", c.config.Admin.Listen},
		{"ops.listen", c.config.Ops.Listen},
		{"hooks.listen", c.config.Hooks.Listen},
	} {
		if l.path == "hooks.listen" && l.address == "" {
			continue // it is off
		}
		if !isListen(l.address) {
			c.fault(l.path, fmt.Sprintf("%q is not an address to listen on", l.address), "write host:port, like 127.0.0.1:8080 or :8080")
			continue
		}
		if first, ok := seen[l.address]; ok && !strings.HasSuffix(l.address, ":0") {
			c.fault(l.path, fmt.Sprintf("%s is taken by %s", l.address, first), "give each listener a port of its own")
		}
		seen[l.address] = l.path
	}
}

func (c *checker) store() {
	s := c.config.Store
	c.oneOf("store.driver", s.Driver, "embedded", "redis")
	if s.Driver == "embedded" {
		c.notEmpty("store.embedded.path", s.Embedded.Path, "name a file")
		if c.config.QueueDriver() != "redis" {
			return
		}
	}
	r := s.Redis
	c.notEmpty("store.redis.key_prefix", r.KeyPrefix, "name a prefix, or leave the key out")
	if strings.ContainsAny(r.KeyPrefix, "{}") {
		c.fault("store.redis.key_prefix", "holds braces: they choose the hash slot of a key", "leave them out")
	}
	c.notEmpty("store.redis.copy_path", r.CopyPath, "name a file, or leave the key out")
	c.redisPlace(r)
	if r.DB < 0 || r.Cluster && r.DB != 0 {
		c.fault("store.redis.db", fmt.Sprintf("%d is no database here", r.DB), "write 0 or more; a cluster has only 0")
	}
	c.clientTLS("store.redis.tls", r.TLS.CAFile, r.TLS.CertFile, r.TLS.KeyFile)
	if r.TLS.ServerName != "" && !r.TLS.Enabled && r.TLS.CAFile == "" && r.TLS.CertFile == "" && !strings.HasPrefix(r.URL.Reveal(), "rediss:") {
		c.fault("store.redis.tls.server_name", "given, but TLS is not enabled", "write enabled: true, or a rediss:// URL")
	}
}

// redisPlace checks where Redis is: one server, Sentinels or a Cluster.
func (c *checker) redisPlace(r RedisStore) {
	for i, a := range r.Addrs {
		if host, port, err := net.SplitHostPort(a); err != nil || host == "" || !isPort(port, false) {
			c.fault(fmt.Sprintf("store.redis.addrs[%d]", i), fmt.Sprintf("%q is not host:port", a), "write host:port")
		}
	}
	switch {
	case len(r.Addrs) == 0:
		c.redisURL(r.URL.Reveal())
		if r.MasterName != "" {
			c.fault("store.redis.master_name", "given without store.redis.addrs", "list the Sentinels in addrs")
		}
	case !r.URL.Empty() || r.URLFile != "":
		c.fault("store.redis.addrs", "given together with a URL", "keep addrs or the URL")
	case len(r.Addrs) > 1 && !r.Cluster && r.MasterName == "":
		c.fault("store.redis.addrs", "several, without master_name or cluster", "write master_name for Sentinels or cluster: true for a Cluster")
	}
	if r.Cluster && r.MasterName != "" {
		c.fault("store.redis.cluster", "given together with store.redis.master_name", "keep cluster or master_name")
	}
	if r.MasterName == "" && (r.SentinelUsername != "" || !r.SentinelPassword.Empty() || r.SentinelPasswordFile != "") {
		c.fault("store.redis.sentinel_username", "Sentinel credentials without store.redis.master_name", "write master_name, or username and password")
	}
}

// redisURL checks a URL without repeating it: it may carry a password.
func (c *checker) redisURL(text string) {
	const path, hint = "store.redis.url", "write redis://host:port/database, rediss:// for TLS"
	if text == "" && c.config.Store.Redis.URLFile != "" {
		return // the fault of the file is enough
	}
	u, err := url.Parse(text)
	if err != nil {
		c.fault(path, "not a URL", hint)
		return
	}
	if u.Scheme != "redis" && u.Scheme != "rediss" && u.Scheme != "unix" {
		c.fault(path, fmt.Sprintf("the scheme %q is not redis, rediss or unix", u.Scheme), hint)
		return
	}
	for key := range u.Query() {
		if key != "db" && key != "skip_verify" {
			c.fault(path, fmt.Sprintf("the parameter %q is not known", key), "write db or skip_verify, or none")
		}
	}
	if u.Scheme == "unix" {
		return
	}
	if u.Hostname() == "" || !isPort(u.Port(), true) {
		c.fault(path, "names no host, or no valid port", hint)
	}
	if db := strings.Trim(u.Path, "/"); db != "" {
		if _, err := strconv.ParseUint(db, 10, 16); err != nil {
			c.fault(path, "the path is not the number of a database", hint)
		}
	}
}

func (c *checker) targetClient() {
	t := c.config.TargetClient
	c.hosts("targetclient.deny_list", t.DenyList)
	c.hosts("targetclient.allow_list", t.AllowList)
	c.positive("targetclient.max_response_bytes", t.MaxResponseBytes)
	if t.MaxConcurrency < 0 {
		c.fault("targetclient.max_concurrency", "negative", "write 0 for no bound, or a positive number")
	}
	b := t.Breaker
	c.positive("targetclient.breaker.consecutive_failures", int64(b.ConsecutiveFailures))
	c.positiveTime("targetclient.breaker.window", b.Window)
	c.positive("targetclient.breaker.min_calls", int64(b.MinCalls))
	if b.FailureRatio <= 0 || b.FailureRatio > 1 {
		c.fault("targetclient.breaker.failure_ratio", fmt.Sprintf("%v is not above 0 and at most 1", b.FailureRatio), "write 0.5 for one half")
	}
	c.positiveTime("targetclient.breaker.open_for", b.OpenFor)
	c.positive("targetclient.breaker.half_open_calls", int64(b.HalfOpenCalls))
}

// hosts checks the entries of a deny or allow list.
func (c *checker) hosts(path string, list []string) {
	for i, entry := range list {
		if !isAddress(entry) && !isRange(entry) && !isHostName(entry) {
			c.fault(fmt.Sprintf("%s[%d]", path, i), fmt.Sprintf("%q is neither a CIDR range nor an address nor a host name", entry),
				"write 10.0.0.0/8, 10.0.0.7 or host.example")
		}
	}
}

func (c *checker) method(path, value string) {
	if !fullMethod.MatchString(value) {
		c.fault(path, fmt.Sprintf("%q is not a full method", value), "write /package.Service/Method")
	}
}

func (c *checker) notEmpty(path, value, hint string) bool {
	if value == "" {
		c.fault(path, "empty", hint)
	}
	return value != ""
}

func (c *checker) oneOf(path, value string, allowed ...string) {
	if slices.Contains(allowed, value) {
		return
	}
	hint := "write " + strings.Join(allowed, " or ")
	if near := strictyaml.Closest(value, allowed); near != "" {
		hint = fmt.Sprintf("did you mean %s?", near)
	}
	c.fault(path, fmt.Sprintf("%q is not known", value), hint)
}

func (c *checker) positive(path string, n int64) {
	if n <= 0 {
		c.fault(path, fmt.Sprintf("%d is not positive", n), "write a number above 0")
	}
}

func (c *checker) positiveTime(path string, d time.Duration) {
	if d <= 0 {
		c.fault(path, fmt.Sprintf("%v is not positive", d), "write a duration above 0, like 30s")
	}
}

func (c *checker) notNegativeTime(path string, d time.Duration) {
	if d < 0 {
		c.fault(path, fmt.Sprintf("%v is negative", d), "write 0s or more")
	}
}

// serverTLS checks the certificate of a listener.
func (c *checker) serverTLS(path string, t ServerTLS) { c.keyPair(path, t.CertFile, t.KeyFile) }

// clientTLS checks the files of connections that the gateway opens.
func (c *checker) clientTLS(path, ca, cert, key string) {
	c.authorities(path+".ca_file", ca)
	c.keyPair(path, cert, key)
}

// authorities checks a file of certificates that others are verified with.
func (c *checker) authorities(path, file string) {
	if !c.readable(path, file) || file == "" {
		return
	}
	text, err := readFile(file)
	if err != nil || !x509.NewCertPool().AppendCertsFromPEM(text) {
		c.fault(path, fmt.Sprintf("%s: no PEM certificate in it", file), "name a file of PEM certificates")
	}
}

// keyPair checks that a certificate and its key are both there and fit.
func (c *checker) keyPair(path, cert, key string) {
	switch {
	case cert == "" && key == "":
		return
	case cert == "":
		c.fault(path+".cert_file", fmt.Sprintf("missing, but %s.key_file is given", path), "name the certificate, or remove the key")
		c.readable(path+".key_file", key)
		return
	case key == "":
		c.fault(path+".key_file", fmt.Sprintf("missing, but %s.cert_file is given", path), "name the key, or remove the certificate")
		c.readable(path+".cert_file", cert)
		return
	}
	if hasCert, hasKey := c.readable(path+".cert_file", cert), c.readable(path+".key_file", key); !hasCert || !hasKey {
		return
	}
	if _, err := tls.LoadX509KeyPair(cert, key); err != nil {
		c.fault(path+".cert_file", fmt.Sprintf("%s and %s are no certificate with its key: %v", cert, key, err), "name two PEM files that belong together")
	}
}

// readable reports a file that is named and cannot be opened.
func (c *checker) readable(path, name string) bool {
	if name == "" {
		return true
	}
	info, err := os.Stat(name)
	if err == nil && info.IsDir() {
		c.fault(path, fmt.Sprintf("%s: is a directory", name), "name a file")
		return false
	}
	if err == nil {
		var f *os.File
		if f, err = os.Open(name); err == nil {
			_ = f.Close()
			return true
		}
	}
	c.fault(path, fmt.Sprintf("%s: %s", name, fileProblem(err)), "create it, or correct the path")
	return false
}

func isAddress(s string) bool { _, err := netip.ParseAddr(s); return err == nil }

func isRange(s string) bool { _, err := netip.ParsePrefix(s); return err == nil }

// isHostName leaves out what looks like a mistyped address: a name whose last
// label is a number is no name.
func isHostName(s string) bool {
	if len(s) > 253 || !hostName.MatchString(s) {
		return false
	}
	labels := strings.Split(strings.TrimSuffix(s, "."), ".")
	_, err := strconv.Atoi(labels[len(labels)-1])
	return err != nil
}

func isOrigin(s string) bool {
	if s == "*" {
		return true
	}
	u, err := url.Parse(s)
	return err == nil && u.Scheme != "" && u.Host != "" && u.Path == "" && u.RawQuery == "" && u.Fragment == "" && u.User == nil
}

func isPort(s string, empty bool) bool {
	if s == "" {
		return empty
	}
	_, err := strconv.ParseUint(s, 10, 16)
	return err == nil
}

// isListen accepts host:port with an empty host, an address or a name.
func isListen(s string) bool {
	host, port, err := net.SplitHostPort(s)
	return err == nil && isPort(port, false) && (host == "" || isAddress(host) || isHostName(host))
}

// isLoopback says whether only this machine can reach the address. A name
// other than localhost is taken for reachable: what it resolves to can change.
func isLoopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
