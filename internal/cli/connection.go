package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	actionv2 "github.com/execgate/execgate/gen/zitadel/action/v2"
	actionv3 "github.com/execgate/execgate/gen/zitadel/resources/action/v3alpha"
	"github.com/execgate/execgate/internal/config"
)

const (
	defaultURL     = "http://127.0.0.1:8081"
	defaultTimeout = 15 * time.Second
	maxAnswer      = 64 << 20
	maxInput       = 4 << 20 // what the admin API takes
)

// connection is how the admin API is found: the flags, and behind them the
// environment.
type connection struct {
	environ []string

	url, tokenFile, config    string
	caFile, certFile, keyFile string
	timeout                   time.Duration
}

const connectionHelp = `The gateway is found by, each before the next:
  URL     --admin-url, admin.listen of --config, EXECGATE_ADMIN_URL, ` + defaultURL + `
  token   --token-file, the first of admin.tokens of --config, EXECGATE_ADMIN_TOKEN, none
  trust   --ca-file, the certificate of admin.tls of --config, the system's`

func (p *program) connectionFlags(cmd *cobra.Command) *connection {
	c := &connection{environ: p.environ}
	f := cmd.Flags()
	f.StringVar(&c.url, "admin-url", "", "`URL` of the admin API, http:// or https:// (default EXECGATE_ADMIN_URL, or "+defaultURL+")")
	f.StringVar(&c.tokenFile, "token-file", "", "`FILE` with the bearer token (default EXECGATE_ADMIN_TOKEN)")
	f.StringVarP(&c.config, "config", "c", "", "the gateway's configuration `FILE`: take URL, token and certificate from it")
	f.StringVar(&c.caFile, "ca-file", "", "PEM `FILE` with the certificates to trust")
	f.StringVar(&c.certFile, "cert-file", "", "PEM `FILE` with a client certificate")
	f.StringVar(&c.keyFile, "key-file", "", "PEM `FILE` with the key of --cert-file")
	f.DurationVar(&c.timeout, "request-timeout", defaultTimeout, "give up a call of the admin API after this `TIME`")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
	if cmd.Long != "" {
		cmd.Long += "\n\n"
	} else {
		cmd.Long = cmd.Short + ".\n\n"
	}
	cmd.Long += connectionHelp
	return c
}

func (c *connection) env(name string) string {
	for _, entry := range c.environ {
		if value, ok := strings.CutPrefix(entry, name+"="); ok {
			return value
		}
	}
	return ""
}

// client is a connection to the admin API.
type client struct {
	targets    actionv2.ActionServiceClient
	executions actionv3.ZITADELActionsClient
	gateway    gatewaypb.GatewayServiceClient

	url       string
	tokenFrom string // "from ...", empty without a token
	timeout   time.Duration
	conn      *grpc.ClientConn
	transport atomic.Pointer[error] // last fault of dialling or of the handshake
	wanting   atomic.Bool           // a client certificate was asked for, and there is none
}

func (c *client) close() { _ = c.conn.Close() }

// place is where the admin API is.
type place struct {
	url, address string      // the address is host:port
	tls          *tls.Config // nil: in the clear
	token, from  string
}

// open reads flags, environment and files, and prepares the connection. Nothing
// is sent before the first call.
func (c *connection) open() (*client, error) {
	at, err := c.find()
	if err != nil {
		return nil, err
	}
	cl := &client{url: at.url, tokenFrom: at.from, timeout: c.timeout}
	var security credentials.TransportCredentials = insecure.NewCredentials()
	if at.tls != nil {
		if at.tls.Certificates == nil {
			at.tls.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				cl.wanting.Store(true)
				return &tls.Certificate{}, nil
			}
		}
		security = credentials.NewTLS(at.tls)
	}
	cl.conn, err = grpc.NewClient("passthrough:///"+at.address,
		grpc.WithTransportCredentials(watchedHandshake{security, cl}),
		grpc.WithContextDialer(cl.dial),
		grpc.WithUnaryInterceptor(cl.intercept(at.token)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
		grpc.WithDisableServiceConfig(),
		grpc.WithUserAgent("execgate-cli"),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", at.url, err)
	}
	cl.targets = actionv2.NewActionServiceClient(cl.conn)
	cl.executions = actionv3.NewZITADELActionsClient(cl.conn)
	cl.gateway = gatewaypb.NewGatewayServiceClient(cl.conn)
	return cl, nil
}

// intercept gives each call its deadline and its token, and words its error.
func (c *client) intercept(token string) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		ctx, cancel := context.WithTimeout(ctx, c.timeout)
		defer cancel()
		if token != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
		}
		var header, trailer metadata.MD
		err := invoke(ctx, method, req, reply, conn, append(opts, grpc.Header(&header), grpc.Trailer(&trailer))...)
		if err == nil {
			return nil
		}
		var transport error
		if fault := c.transport.Load(); fault != nil {
			transport = *fault
		}
		return c.describe(method, err, transport, len(header)+len(trailer) > 0)
	}
}

// dial remembers why a connection could not be made: from the error of a call
// that could not be told.
func (c *client) dial(ctx context.Context, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	c.note(err)
	return conn, err
}

func (c *client) note(err error) {
	var call *os.SyscallError
	var op *net.OpError
	switch { // without the address, which stands in the URL
	case errors.As(err, &call):
		err = call.Err
	case errors.As(err, &op):
		err = op.Err
	}
	if err != nil {
		c.transport.Store(&err)
	} else {
		c.transport.Store(nil)
	}
}

// watchedHandshake remembers why TLS did not come about.
type watchedHandshake struct {
	credentials.TransportCredentials
	client *client
}

func (w watchedHandshake) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secured, info, err := w.TransportCredentials.ClientHandshake(ctx, authority, conn)
	w.client.note(err)
	return secured, info, err
}

func (w watchedHandshake) Clone() credentials.TransportCredentials {
	return watchedHandshake{w.TransportCredentials.Clone(), w.client}
}

func (c *client) unreachableHint(err error) string {
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var dns *net.DNSError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &unknown):
		return "its certificate is not trusted; give the one of its issuer with --ca-file FILE"
	case errors.As(err, &name):
		return "its certificate is for another name; write that name in --admin-url"
	case errors.As(err, &record):
		return "it does not speak TLS; write http:// in --admin-url"
	case errors.As(err, &dns):
		return "check the host name in --admin-url"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "is the gateway running? its admin.listen is what --admin-url, EXECGATE_ADMIN_URL or --config must lead to"
	default:
		return "check --admin-url, and https:// if the gateway has admin.tls"
	}
}

// find puts together flags, configuration and environment.
func (c *connection) find() (*place, error) {
	var cfg *config.Config
	if c.config != "" {
		var err error
		if cfg, err = config.Load(c.config, c.environ); err != nil {
			return nil, err
		}
	}
	at, err := c.findURL(cfg)
	if err != nil {
		return nil, err
	}
	if err := c.findToken(cfg, at); err != nil {
		return nil, err
	}
	return at, c.secure(cfg, at)
}

func (c *connection) findURL(cfg *config.Config) (*place, error) {
	raw, from := c.url, "--admin-url"
	if raw == "" && cfg != nil {
		raw, from = listenURL(cfg.Admin.Listen, cfg.Admin.TLS.Enabled()), "admin.listen of "+c.config
		if strings.HasSuffix(raw, ":0") {
			return nil, &Failure{fmt.Errorf("admin.listen has port 0, so the port that the gateway chose is not known"), "give the URL with --admin-url"}
		}
	}
	if raw == "" {
		raw, from = c.env("EXECGATE_ADMIN_URL"), "EXECGATE_ADMIN_URL"
	}
	if raw == "" {
		raw, from = defaultURL, ""
	}
	u, err := url.Parse(raw)
	// The value is not repeated: it may hold a password.
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return nil, usage("%s is not a URL of the form http://host:port or https://host:port", from)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return nil, usage("%s has more than scheme, host and port; tokens go into --token-file or EXECGATE_ADMIN_TOKEN", from)
	}
	at := &place{url: u.Scheme + "://" + u.Host, address: u.Host}
	if u.Port() == "" {
		port := "80"
		if u.Scheme == "https" {
			port = "443"
		}
		at.address = net.JoinHostPort(u.Hostname(), port)
	}
	if u.Scheme == "https" {
		at.tls = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: u.Hostname()}
	}
	return at, nil
}

// listenURL is where something that listens on address is reached from here.
func listenURL(address string, secure bool) string {
	scheme := "http"
	if secure {
		scheme = "https"
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return scheme + "://" + address
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if ip.Is6() {
			host = "::1"
		}
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}

func (c *connection) findToken(cfg *config.Config, at *place) error {
	switch env := strings.TrimSpace(c.env("EXECGATE_ADMIN_TOKEN")); {
	case c.tokenFile != "":
		text, err := readSecret(c.tokenFile)
		if err != nil {
			return fmt.Errorf("read the token: %w", err)
		}
		at.token, at.from = text, "from "+c.tokenFile
	case cfg != nil && configToken(cfg) != "":
		at.token, at.from = configToken(cfg), "from admin.tokens of "+c.config
	case env != "":
		at.token, at.from = env, "from EXECGATE_ADMIN_TOKEN"
	}
	if strings.ContainsFunc(at.token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return usage("the token %s holds more than one line, or characters that no token has", at.from)
	}
	return nil
}

// configToken is the first token that is there in plain.
func configToken(cfg *config.Config) string {
	for _, t := range cfg.Admin.Tokens {
		if !t.Token.Empty() {
			return t.Token.Reveal()
		}
	}
	return ""
}

// secure fills in what TLS needs.
func (c *connection) secure(cfg *config.Config, at *place) error {
	if (c.certFile == "") != (c.keyFile == "") {
		return usage("--cert-file and --key-file go together")
	}
	if at.tls == nil {
		if c.caFile != "" || c.certFile != "" {
			return usage("%s is without TLS: --ca-file and --cert-file have no meaning there; write https://", at.url)
		}
		return nil
	}
	if c.certFile != "" {
		pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
		if err != nil {
			return fmt.Errorf("read the client certificate: %w", err)
		}
		at.tls.Certificates = []tls.Certificate{pair}
	}
	file := c.caFile
	if file == "" {
		if cfg == nil || !cfg.Admin.TLS.Enabled() {
			return nil
		}
		file = cfg.Admin.TLS.CertFile
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read the certificates to trust: %w", err)
	}
	roots := x509.NewCertPool()
	if c.caFile == "" {
		if system, err := x509.SystemCertPool(); err == nil {
			roots = system
		}
		at.tls.ServerName = ownName(text, at.tls.ServerName)
	}
	if !roots.AppendCertsFromPEM(text) {
		return fmt.Errorf("%s holds no PEM certificate", file)
	}
	at.tls.RootCAs = roots
	return nil
}

// ownName returns a name that the gateway's own certificate has. The address
// that it listens on need not be one.
func ownName(text []byte, host string) string {
	block, _ := pem.Decode(text)
	if block == nil {
		return host
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil || leaf.VerifyHostname(host) == nil {
		return host
	}
	switch {
	case len(leaf.DNSNames) > 0:
		return strings.Replace(leaf.DNSNames[0], "*", "execgate", 1)
	case len(leaf.IPAddresses) > 0:
		return leaf.IPAddresses[0].String()
	}
	return host
}

// readSecret reads a file that holds one secret.
func readSecret(name string) (string, error) {
	text, err := readBounded(name, nil)
	if err != nil {
		return "", err
	}
	secret := strings.TrimRight(string(text), "\r\n")
	if secret == "" {
		return "", fmt.Errorf("%s is empty", name)
	}
	return secret, nil
}

// readBounded reads a file, or stdin when its name is "-" and there is one.
func readBounded(name string, stdin io.Reader) ([]byte, error) {
	source := stdin
	if name != "-" || stdin == nil {
		file, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		source = file
	}
	text, err := io.ReadAll(io.LimitReader(source, maxInput+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(text) > maxInput {
		return nil, fmt.Errorf("%s is larger than %d bytes", name, maxInput)
	}
	return text, nil
}
