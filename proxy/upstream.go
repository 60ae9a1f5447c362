package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// UpstreamOptions say where the upstream is and how to speak to it.
type UpstreamOptions struct {
	// URL is http://host:port (h2c for gRPC, HTTP/1.1 for the rest) or https://host:port (TLS with ALPN). It has no
	// path, query or user info.
	URL string
	// Authority replaces the Host / :authority of every request. Empty: what the client sent goes upstream, which is
	// what an upstream needs that finds its tenant by host.
	Authority string
	// CAFile names a PEM file whose certificates are trusted for https, instead of the system's. Empty: the system's.
	CAFile string
	// TLS secures https connections: roots, client certificate, server name. It is cloned. Nil: the system's roots, or
	// CAFile's.
	TLS *tls.Config
	// DialTimeout bounds one attempt to connect. Zero: 5 s.
	DialTimeout time.Duration
}

// upstream is the API behind the gateway: its address and the connections to it.
type upstream struct {
	scheme    string
	host      string
	authority string

	tls         *tls.Config // nil: h2c
	dialTimeout time.Duration

	rpc     *http.Transport   // HTTP/2 only: gRPC and what else needs both directions at once
	relay   http.RoundTripper // does what rpc does over the connections of relayed calls; nil: there are none
	web     *http.Transport   // everything else
	upgrade *http.Transport   // HTTP/1.1 only: requests that may switch protocols
}

func newUpstream(o UpstreamOptions) (*upstream, error) {
	u, err := url.Parse(o.URL)
	if err != nil {
		return nil, errors.New("upstream url cannot be parsed")
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("upstream url needs the scheme http or https, not %q", u.Scheme)
	case u.Host == "":
		return nil, errors.New("upstream url has no host")
	case u.User != nil, u.RawQuery != "", u.Fragment != "", u.Path != "" && u.Path != "/":
		return nil, errors.New("upstream url must be scheme and host only: paths reach the upstream as the client sent them")
	}
	var tlsConfig *tls.Config
	if u.Scheme == "https" {
		tlsConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		if o.TLS != nil {
			tlsConfig = o.TLS.Clone()
		}
		if o.CAFile != "" {
			if tlsConfig.RootCAs, err = loadCAs(o.CAFile); err != nil {
				return nil, err
			}
		}
	}
	if o.DialTimeout <= 0 {
		o.DialTimeout = 5 * time.Second
	}
	up := &upstream{scheme: u.Scheme, host: u.Host, authority: o.Authority, tls: tlsConfig, dialTimeout: o.DialTimeout}
	var h1, h2, both http.Protocols
	h1.SetHTTP1(true)
	h2.SetHTTP2(true)
	h2.SetUnencryptedHTTP2(true)
	both.SetHTTP1(true)
	both.SetHTTP2(true)
	if u.Scheme == "http" {
		both = h1
	}
	up.rpc = newTransport(o, tlsConfig, &h2)
	up.web = newTransport(o, tlsConfig, &both)
	up.upgrade = newTransport(o, tlsConfig, &h1)
	return up, nil
}

func loadCAs(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read upstream CA file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("upstream CA file %s has no PEM certificate", file)
	}
	return pool, nil
}

func newTransport(o UpstreamOptions, tlsConfig *tls.Config, protocols *http.Protocols) *http.Transport {
	dialer := &net.Dialer{Timeout: o.DialTimeout, KeepAlive: 30 * time.Second}
	t := &http.Transport{
		// No Proxy: the environment's HTTP_PROXY is for clients, and the upstream is ours.
		DialContext:            dialer.DialContext,
		TLSHandshakeTimeout:    2 * o.DialTimeout,
		Protocols:              protocols,
		DisableCompression:     true, // The client's Accept-Encoding decides, and bodies are passed as they are.
		MaxIdleConnsPerHost:    1024,
		IdleConnTimeout:        90 * time.Second,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: 1 << 20,
		HTTP2: &http.HTTP2Config{
			// A connection that died silently must not swallow calls. Not more often, though: a gRPC server takes a ping
			// within five minutes of the last as abuse and ends the connection (gRFC A8). TCP's own keep-alive is faster.
			SendPingTimeout: 6 * time.Minute,
			PingTimeout:     15 * time.Second,
		},
	}
	if tlsConfig != nil {
		t.TLSClientConfig = tlsConfig.Clone()
	}
	return t
}

// transport returns the connections for one operation.
func (u *upstream) transport(op *operation) http.RoundTripper {
	switch {
	case op.upgrade != "":
		return u.upgrade
	case op.needsHTTP2 && u.relay != nil:
		return u.relay
	case op.needsHTTP2:
		return u.rpc
	default:
		return u.web
	}
}

// url returns the URL under which a request goes upstream: the target exactly as the client sent it.
func (u *upstream) url(r *http.Request) *url.URL {
	out := &url.URL{Scheme: u.scheme, Host: u.host}
	host := u.authority
	if host == "" {
		host = r.Host
	}
	putTarget(out, requestTarget(r), host)
	return out
}

// setTarget makes target ("/path?query") the one that out asks for.
func setTarget(out *http.Request, target string) { putTarget(out.URL, target, out.Host) }

// putTarget makes u ask for target without changing a byte, where Go's client can be made to: Path and RawPath would be
// normalised on the way out, an Opaque that begins with two slashes would be read as an authority.
func putTarget(u *url.URL, target, host string) {
	*u = url.URL{Scheme: u.Scheme, Host: u.Host}
	if !strings.HasPrefix(target, "//") {
		u.Opaque = target
		return
	}
	path, query, asked := strings.Cut(target, "?")
	if plain, err := url.PathUnescape(path); err == nil {
		u.Path, u.RawPath, u.RawQuery, u.ForceQuery = plain, path, query, asked && query == ""
		if u.RequestURI() == target {
			return
		}
	}
	// Whole, it is cut off again (HTTP/2) or becomes the absolute form (HTTP/1.1), which every server must accept.
	*u = url.URL{Scheme: u.Scheme, Host: u.Host, Opaque: "//" + host + target}
}

// requestTarget is the request's target in origin form ("/path?query", "*"), byte for byte.
func requestTarget(r *http.Request) string {
	target := r.RequestURI
	if target == "" { // A request that no server read.
		return r.URL.RequestURI()
	}
	if target[0] == '/' || target == "*" {
		return target
	}
	// Absolute form: "http://host/path?query".
	start := 0
	for i := 0; i+2 < len(target); i++ {
		if target[i] == ':' && target[i+1] == '/' && target[i+2] == '/' {
			start = i + 3
			break
		}
	}
	for i := start; i < len(target); i++ {
		switch target[i] {
		case '/':
			return target[i:]
		case '?':
			return "/" + target[i:]
		}
	}
	if r.Method == http.MethodOptions {
		return "*" // RFC 9112 3.2.4
	}
	return "/"
}

// cleanTarget reports whether a target can be written on an HTTP/1.1 request line. HTTP/2 could carry a space.
func cleanTarget(target string) bool {
	for i := range len(target) {
		if c := target[i]; c <= ' ' || c == 0x7f {
			return false
		}
	}
	return true
}

func (u *upstream) close() {
	u.rpc.CloseIdleConnections()
	u.web.CloseIdleConnections()
	u.upgrade.CloseIdleConnections()
}
