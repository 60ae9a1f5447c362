package store

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// RedisOptions configures [OpenRedis]. Either URL or Addrs says where Redis is; what is set beside a URL adds to it, and
// wins.
type RedisOptions struct {
	// URL is redis://[user:password@]host:port/db, rediss:// for TLS, or unix://[user:password@]/path?db=n.
	URL string
	// Addrs are host:port of the server; of the sentinels, if MasterName is set; of some nodes, if Cluster is set.
	Addrs []string
	// MasterName makes it a Sentinel setup.
	MasterName string
	// Cluster makes it a Redis Cluster.
	Cluster bool
	// Username and Password are for the server that holds the data, the Sentinel ones for the sentinels.
	Username, Password                 string
	SentinelUsername, SentinelPassword string
	// DB is the database number; 0 in a cluster.
	DB int
	// TLS switches TLS on (so does a rediss URL and any of the files below). CAFile replaces the system's roots; CertFile
	// and KeyFile are the client's own; ServerName replaces the host for the verification.
	TLS                                   bool
	CAFile, CertFile, KeyFile, ServerName string
	// KeyPrefix and Instance are part of every key: prefix:{instance}:name. Defaults "execgate" and "default". The braces
	// keep the keys of one instance in one hash slot.
	KeyPrefix, Instance string
	// Timeout bounds each exchange, from the dial to the answer; loads and large commits get more. Default 1s.
	Timeout time.Duration
	// MaxRevisions is how many revisions the log keeps. Default 1000.
	MaxRevisions int
	// MaxLogBytes is how large the log may become; the newest revision is always kept. Default 64 MiB.
	MaxLogBytes int
}

// complete fills the defaults.
func (o *RedisOptions) complete() {
	if o.KeyPrefix == "" {
		o.KeyPrefix = "execgate"
	}
	if o.Instance == "" {
		o.Instance = "default"
	}
	if o.Timeout <= 0 {
		o.Timeout = time.Second
	}
	if o.MaxRevisions <= 0 {
		o.MaxRevisions = defaultMaxRevisions
	}
	if o.MaxLogBytes <= 0 {
		o.MaxLogBytes = defaultMaxLogBytes
	}
}

// universal checks the options and translates them. Errors never hold the URL: it may carry a password.
func (o *RedisOptions) universal() (*redis.UniversalOptions, error) {
	u := &redis.UniversalOptions{
		Addrs:            slices.Clone(o.Addrs),
		MasterName:       o.MasterName,
		IsClusterMode:    o.Cluster,
		DB:               o.DB,
		Username:         o.Username,
		Password:         o.Password,
		SentinelUsername: o.SentinelUsername,
		SentinelPassword: o.SentinelPassword,

		Protocol:                 2,
		DialTimeout:              o.Timeout,
		DialerRetries:            1,
		ReadTimeout:              loadTimeout, // the context of each exchange says less
		WriteTimeout:             loadTimeout,
		ContextTimeoutEnabled:    true,
		MaxRetries:               1,
		PoolSize:                 10,
		PipelinePoolSize:         -1,
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12}
	useTLS := o.TLS || o.CAFile != "" || o.CertFile != "" || o.KeyFile != ""
	if o.URL != "" {
		fromURL, err := parseRedisURL(o.URL)
		if err != nil {
			return nil, err
		}
		u.Addrs = append([]string{fromURL.Addr}, u.Addrs...)
		if u.Username == "" {
			u.Username = fromURL.Username
		}
		if u.Password == "" {
			u.Password = fromURL.Password
		}
		if u.DB == 0 {
			u.DB = fromURL.DB
		}
		if fromURL.TLSConfig != nil {
			useTLS = true
			tlsConfig.InsecureSkipVerify = fromURL.TLSConfig.InsecureSkipVerify
		}
	}
	switch {
	case len(u.Addrs) == 0:
		return nil, errors.New("store: neither url nor addrs of redis are set")
	case o.MasterName != "" && o.Cluster:
		return nil, errors.New("store: master_name (Sentinel) and cluster exclude each other")
	case o.MasterName == "" && !o.Cluster && len(u.Addrs) > 1:
		return nil, errors.New("store: several redis addrs need master_name (Sentinel) or cluster")
	case o.Cluster && u.DB != 0:
		return nil, errors.New("store: a redis cluster has no databases; leave db out, or 0")
	case u.DB < 0:
		return nil, errors.New("store: redis db is negative")
	case strings.ContainsAny(o.KeyPrefix, "{}"):
		return nil, errors.New("store: key_prefix must not hold braces: they choose the hash slot of the keys")
	}
	if useTLS {
		if err := o.fillTLS(tlsConfig); err != nil {
			return nil, err
		}
		u.TLSConfig = tlsConfig
	}
	return u, nil
}

func parseRedisURL(raw string) (*redis.Options, error) {
	parsed, err := url.Parse(raw)
	if err != nil {
		return nil, errors.New("store: redis url cannot be parsed; the form is redis://[user:password@]host:port/db, " +
			"with special characters in user and password percent-encoded")
	}
	for key := range parsed.Query() {
		if key != "db" && key != "skip_verify" {
			return nil, fmt.Errorf("store: redis url: parameter %q is not supported", key)
		}
	}
	opts, err := redis.ParseURL(raw)
	if err != nil {
		return nil, errors.New("store: redis url is not valid; the form is redis://[user:password@]host:port/db, " +
			"rediss:// for TLS, or unix:///path?db=n")
	}
	return opts, nil
}

func (o *RedisOptions) fillTLS(c *tls.Config) error {
	c.ServerName = o.ServerName
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return fmt.Errorf("store: read the CA of redis: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("store: %s holds no PEM certificate", o.CAFile)
		}
	}
	if o.CertFile == "" && o.KeyFile == "" {
		return nil
	}
	if o.CertFile == "" || o.KeyFile == "" {
		return errors.New("store: the client certificate of redis needs both cert_file and key_file")
	}
	cert, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
	if err != nil {
		return fmt.Errorf("store: client certificate of redis: %w", err)
	}
	c.Certificates = []tls.Certificate{cert}
	return nil
}

// identity names the place of the data; see [Restorer].
func (o *RedisOptions) identity(u *redis.UniversalOptions) string {
	var place string
	switch {
	case o.MasterName != "":
		place = "sentinel " + o.MasterName + "/" + strconv.Itoa(u.DB)
	case o.Cluster:
		place = "cluster " + strings.Join(slices.Sorted(slices.Values(u.Addrs)), ",")
	default:
		place = u.Addrs[0] + "/" + strconv.Itoa(u.DB)
	}
	return fmt.Sprintf("redis %s %s:{%s}", place, o.KeyPrefix, url.PathEscape(o.Instance))
}
