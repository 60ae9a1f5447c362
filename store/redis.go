package store

import (
	"errors"
	"time"
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
	TLS                                  bool
	CAFile, CertFile, KeyFile, ServerName string
	// KeyPrefix and Instance are part of every key: prefix:{instance}:name. Defaults "execgate" and "default". The braces
	// keep the keys of one instance in one hash slot.
	KeyPrefix, Instance string
	// Timeout bounds each attempt to dial, write or read. Default 1s.
	Timeout time.Duration
	// MaxRevisions is how many revisions the log keeps. Default 1000.
	MaxRevisions int
	// MaxLogBytes is how large the log may become; the newest revision is always kept. Default 64 MiB.
	MaxLogBytes int
}

// OpenRedis returns the store in Redis. It does not connect; errors are about the options.
func OpenRedis(o RedisOptions) (Store, error) { return nil, errors.ErrUnsupported }
