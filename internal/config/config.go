package config

import (
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
	"strings"
	"time"
)

// Config is the whole configuration of one gateway. [Default] gives the value
// of every key that is not set. A Config is not changed after it was loaded.
type Config struct {
	// InstanceID is what targets see as instanceID.
	InstanceID string `key:"instance_id"`
	Log        Log    `key:"log"`
	// ProtectedMethods are full methods on which no execution may interrupt.
	ProtectedMethods []string     `key:"protected_methods"`
	Proxy            Proxy        `key:"proxy"`
	Upstream         Upstream     `key:"upstream"`
	Admin            Admin        `key:"admin"`
	Ops              Ops          `key:"ops"`
	Store            Store        `key:"store"`
	TargetClient     TargetClient `key:"targetclient"`
	Queue            Queue        `key:"queue"`
	Hooks            Hooks        `key:"hooks"`
	Events           Events       `key:"events"`
	Identity         Identity     `key:"identity"`

	origins     origins
	secretsRead bool
}

// Log says what is logged, and how.
type Log struct {
	Level  string `key:"level"`  // debug, info, warn or error
	Format string `key:"format"` // json or text
}

// ServerTLS is the certificate of a listener. Both empty: the listener speaks
// plain text.
type ServerTLS struct {
	CertFile string `key:"cert_file"`
	KeyFile  string `key:"key_file"`
}

// Enabled says whether a certificate is set.
func (t ServerTLS) Enabled() bool { return t.CertFile != "" }

// Proxy is the face to clients.
type Proxy struct {
	// Engine is what serves HTTP/2 behind Listen: "h2", which relays calls that
	// match nothing frame by frame, or "nethttp", the plain stack.
	Engine          string    `key:"engine"`
	Listen          string    `key:"listen"`
	TLS             ServerTLS `key:"tls"`
	MaxMessageBytes int64     `key:"max_message_bytes"`
	// MethodMaxMessageBytes replaces MaxMessageBytes for single full methods.
	MethodMaxMessageBytes map[string]int64 `key:"method_max_message_bytes"`
	ChainTimeout          time.Duration    `key:"chain_timeout"`
	DrainDelay            time.Duration    `key:"drain_delay"`
	DrainTimeout          time.Duration    `key:"drain_timeout"`
	// TrustedProxies are addresses and CIDR ranges whose X-Forwarded-* and
	// Forwarded headers are believed.
	TrustedProxies []string `key:"trusted_proxies"`
	// KillFile switches dispatch off on this gateway while it exists. Empty: no
	// file does.
	KillFile string  `key:"kill_file"`
	GRPCWeb  GRPCWeb `key:"grpc_web"`
	CORS     CORS    `key:"cors"`
}

// CORS lists the origins that the gateway answers preflights for. Empty:
// preflights go to the upstream.
type CORS struct {
	AllowedOrigins []string `key:"allowed_origins"`
}

// GRPCWeb is what the gateway does of gRPC-Web beyond the protocol itself.
type GRPCWeb struct {
	// WebSockets serves its WebSocket transport (subprotocol
	// "grpc-websockets").
	WebSockets bool `key:"websockets"`
}

// Upstream is the API behind the gateway.
type Upstream struct {
	URL string `key:"url"`
	// Authority replaces the client's Host or :authority. Empty: the client's
	// goes along unchanged.
	Authority string    `key:"authority"`
	TLS       ClientTLS `key:"tls"`
	// RESTBasePaths sets the base path of a service's REST routes, by full
	// service name.
	RESTBasePaths map[string]string `key:"rest_base_paths"`
	Schema        Schema            `key:"schema"`
}

// ClientTLS is how a connection that the gateway opens is secured.
type ClientTLS struct {
	CAFile             string `key:"ca_file"` // empty: the system's
	CertFile           string `key:"cert_file"`
	KeyFile            string `key:"key_file"`
	ServerName         string `key:"server_name"`
	InsecureSkipVerify bool   `key:"insecure_skip_verify"`
}

// Schema is where the upstream's descriptors come from.
type Schema struct {
	Source          string        `key:"source"` // reflection or descriptor_set
	DescriptorSet   string        `key:"descriptor_set"`
	RefreshInterval time.Duration `key:"refresh_interval"`
	CachePath       string        `key:"cache_path"`
}

// Admin is the API that manages targets and executions.
type Admin struct {
	Listen string   `key:"listen"`
	TLS    AdminTLS `key:"tls"`
	Tokens []Token  `key:"tokens"`
	OIDC   OIDC     `key:"oidc"`
	// ClientCertificates are callers that show a certificate instead of a token.
	ClientCertificates []ClientCertificate `key:"client_certificates"`
	// ActionsEnabled is the feature flag of ZITADEL's v3alpha service: false
	// refuses its methods. Executions run either way.
	ActionsEnabled bool `key:"actions_enabled"`
	// ExportDir is the directory that export and import keep files below.
	// Empty: files are refused.
	ExportDir string `key:"export_dir"`
}

// AdminTLS is the certificate of the admin listener, and what it asks of its
// clients.
type AdminTLS struct {
	CertFile     string `key:"cert_file"`
	KeyFile      string `key:"key_file"`
	ClientCAFile string `key:"client_ca_file"`
	ClientAuth   string `key:"client_auth"` // none, optional or required
}

// Enabled says whether a certificate is set.
func (t AdminTLS) Enabled() bool { return t.CertFile != "" }

// OIDC lets callers come with JWT access tokens of a provider. No issuer: none
// do.
type OIDC struct {
	Issuer   string   `key:"issuer"`
	Audience []string `key:"audience"`
	JWKSURL  string   `key:"jwks_url"` // empty: discovery tells
	// RolesClaim is the path of the claim whose roles Roles grants permissions to;
	// PermissionsClaim that of one that holds permissions themselves.
	RolesClaim       string              `key:"roles_claim"`
	Roles            map[string][]string `key:"roles"`
	PermissionsClaim string              `key:"permissions_claim"`
	Algorithms       []string            `key:"algorithms"` // empty: all that are not symmetric
	ClockSkew        time.Duration       `key:"clock_skew"`
	// RequireATJWT refuses tokens without the header typ: at+jwt (RFC 9068).
	RequireATJWT bool   `key:"require_at_jwt"`
	CAFile       string `key:"ca_file"` // empty: the system's
	// AllowHTTP lets the issuer be on another machine without TLS.
	AllowHTTP bool `key:"allow_http"`
}

// ClientCertificate is one caller of the admin API that shows a certificate with
// one of the four marks.
type ClientCertificate struct {
	Name              string   `key:"name"`
	SubjectCN         string   `key:"subject_cn"`
	SANDNS            string   `key:"san_dns"`
	SANURI            string   `key:"san_uri"`
	FingerprintSHA256 string   `key:"fingerprint_sha256"`
	Permissions       []string `key:"permissions"`
}

// Fingerprint returns the digest that FingerprintSHA256 writes in hexadecimal,
// with or without colons.
func (c ClientCertificate) Fingerprint() (digest [sha256.Size]byte, ok bool) {
	text := strings.ReplaceAll(c.FingerprintSHA256, ":", "")
	n, err := hex.Decode(digest[:], []byte(text[:min(len(text), 2*sha256.Size)]))
	return digest, err == nil && n == sha256.Size && len(text) == 2*sha256.Size
}

// Token is one caller of the admin API.
type Token struct {
	Name        string   `key:"name"`
	Token       Secret   `key:"token"`
	TokenFile   string   `key:"token_file"`
	Permissions []string `key:"permissions"`
}

// Ops is the listener for metrics and health.
type Ops struct {
	Listen string `key:"listen"`
}

// Store is where targets and executions are kept.
type Store struct {
	Driver   string        `key:"driver"` // embedded or redis
	Embedded EmbeddedStore `key:"embedded"`
	Redis    RedisStore    `key:"redis"`
}

// EmbeddedStore is a file for one node.
type EmbeddedStore struct {
	Path string `key:"path"`
}

// RedisStore is a Redis server, a Sentinel-guarded one or a Cluster.
type RedisStore struct {
	// URL names one server. It may carry a password, so it is a secret.
	URL     Secret `key:"url"`
	URLFile string `key:"url_file"`
	// Addrs are host:port of Sentinels (with MasterName), of cluster nodes (with
	// Cluster), or of the one server. They replace URL.
	Addrs                []string `key:"addrs"`
	MasterName           string   `key:"master_name"`
	Cluster              bool     `key:"cluster"`
	DB                   int      `key:"db"`
	Username             string   `key:"username"`
	Password             Secret   `key:"password"`
	PasswordFile         string   `key:"password_file"`
	SentinelUsername     string   `key:"sentinel_username"`
	SentinelPassword     Secret   `key:"sentinel_password"`
	SentinelPasswordFile string   `key:"sentinel_password_file"`
	TLS                  RedisTLS `key:"tls"`
	KeyPrefix            string   `key:"key_prefix"`
	CopyPath             string   `key:"copy_path"`
}

// RedisTLS secures the connections to Redis. A rediss:// URL and any of the
// files imply Enabled.
type RedisTLS struct {
	Enabled    bool   `key:"enabled"`
	CAFile     string `key:"ca_file"`
	CertFile   string `key:"cert_file"`
	KeyFile    string `key:"key_file"`
	ServerName string `key:"server_name"`
}

// TargetClient holds the defaults for calls to targets.
type TargetClient struct {
	// DenyList holds CIDR ranges, addresses and host names that no target may
	// have; AllowList the exceptions from it.
	DenyList         []string `key:"deny_list"`
	AllowList        []string `key:"allow_list"`
	MaxResponseBytes int64    `key:"max_response_bytes"`
	// MaxConcurrency bounds the calls in flight to one target; 0: no bound.
	MaxConcurrency int     `key:"max_concurrency"`
	Breaker        Breaker `key:"breaker"`
}

// Breaker says when calls to a target are suspended. It opens on either rule:
// ConsecutiveFailures in a row, or FailureRatio of at least MinCalls within
// Window.
type Breaker struct {
	ConsecutiveFailures int           `key:"consecutive_failures"`
	Window              time.Duration `key:"window"`
	MinCalls            int           `key:"min_calls"`
	FailureRatio        float64       `key:"failure_ratio"`
	OpenFor             time.Duration `key:"open_for"`
	HalfOpenCalls       int           `key:"half_open_calls"`
}

// Queue holds asynchronous deliveries.
type Queue struct {
	Driver string `key:"driver"` // auto, redis, embedded or memory
	// MaxPending and MaxPendingPerTarget bound the deliveries that wait; 0: the
	// default of the driver.
	MaxPending              int           `key:"max_pending"`
	MaxPendingPerTarget     int           `key:"max_pending_per_target"`
	MaxPendingBytes         int64         `key:"max_pending_bytes"`
	MaxConcurrencyPerTarget int           `key:"max_concurrency_per_target"`
	Visibility              time.Duration `key:"visibility"`
	Retry                   QueueRetry    `key:"retry"`
	Spool                   QueueSpool    `key:"spool"`
	Keep                    QueueKeep     `key:"keep"`
	// EncryptionKeyFile holds the keys that payloads are encrypted with, one per
	// line, the newest first. Empty: they are not encrypted.
	EncryptionKeyFile string        `key:"encryption_key_file"`
	Embedded          EmbeddedQueue `key:"embedded"`
}

// QueueRetry says when attempts are made where the policy of a target does not.
type QueueRetry struct {
	MaxAttempts int           `key:"max_attempts"`
	FirstDelay  time.Duration `key:"first_delay"`
	MaxDelay    time.Duration `key:"max_delay"`
	MaxAge      time.Duration `key:"max_age"`
}

// QueueSpool takes deliveries while Redis is away. MaxBytes of 0 turns it off.
type QueueSpool struct {
	Path     string `key:"path"` // empty: beside store.redis.copy_path
	MaxBytes int64  `key:"max_bytes"`
}

// QueueKeep bounds what is kept of deliveries that are done with, for each
// target.
type QueueKeep struct {
	Delivered int           `key:"delivered"` // without payload
	Dead      int           `key:"dead"`
	DeadBytes int64         `key:"dead_bytes"`
	DeadFor   time.Duration `key:"dead_for"`
}

// EmbeddedQueue is a queue in one local file.
type EmbeddedQueue struct {
	Path string `key:"path"` // empty: beside store.embedded.path
}

// QueueDriver returns the queue that is meant: redis, embedded or memory.
func (c *Config) QueueDriver() string {
	if c.Queue.Driver == "auto" {
		return c.Store.Driver
	}
	return c.Queue.Driver
}

// QueuePath returns the file of the embedded queue.
func (c *Config) QueuePath() string {
	return beside(c.Queue.Embedded.Path, c.Store.Embedded.Path, "", "-queue")
}

// SpoolPath returns the file of the spool.
func (c *Config) SpoolPath() string {
	return beside(c.Queue.Spool.Path, c.Store.Redis.CopyPath, "-copy", "-spool")
}

// beside returns path, or else another file's with the end of its name changed.
func beside(path, other, without, with string) string {
	if path != "" {
		return path
	}
	extension := filepath.Ext(other)
	return strings.TrimSuffix(strings.TrimSuffix(other, extension), without) + with + extension
}

// Identity is how callers are told apart; "none" is the only source.
type Identity struct {
	Source string `key:"source"`
}
