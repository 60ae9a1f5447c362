package config

import "time"

// Default returns the configuration of an empty file.
func Default() *Config {
	return &Config{
		InstanceID: "default",
		Log:        Log{Level: "info", Format: "json"},
		Proxy: Proxy{
			Engine:          "h2",
			Listen:          "127.0.0.1:8080",
			MaxMessageBytes: 20 << 20,
			ChainTimeout:    30 * time.Second,
			DrainTimeout:    30 * time.Second,
			KillFile:        "data/execgate.kill",
		},
		Upstream: Upstream{
			URL: "http://127.0.0.1:9080",
			Schema: Schema{
				Source:          "reflection",
				RefreshInterval: 30 * time.Second,
				CachePath:       "data/schema.binpb",
			},
		},
		Admin: Admin{
			Listen:         "127.0.0.1:8081",
			TLS:            AdminTLS{ClientAuth: "none"},
			OIDC:           OIDC{RolesClaim: "urn:zitadel:iam:org:project:roles", ClockSkew: 30 * time.Second},
			ActionsEnabled: true,
		},
		Ops: Ops{Listen: "127.0.0.1:8082"},
		Store: Store{
			Driver:   "embedded",
			Embedded: EmbeddedStore{Path: "data/execgate.db"},
			Redis: RedisStore{
				URL:       NewSecret("redis://127.0.0.1:6379/0"),
				KeyPrefix: "execgate",
				CopyPath:  "data/execgate-copy.db",
			},
		},
		TargetClient: TargetClient{
			DenyList: []string{
				"localhost", "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
				"172.16.0.0/12", "192.168.0.0/16", "198.18.0.0/15", "::/128", "::1/128", "fc00::/7", "fe80::/10",
			},
			MaxResponseBytes: 20 << 20,
			Breaker: Breaker{
				ConsecutiveFailures: 10,
				Window:              30 * time.Second,
				MinCalls:            20,
				FailureRatio:        0.5,
				OpenFor:             10 * time.Second,
				HalfOpenCalls:       3,
			},
		},
		Queue: Queue{
			Driver:                  "auto",
			MaxPendingBytes:         2 << 30,
			MaxConcurrencyPerTarget: 16,
			Visibility:              30 * time.Second,
			Retry:                   QueueRetry{MaxAttempts: 25, FirstDelay: 5 * time.Second, MaxDelay: 2 * time.Hour, MaxAge: 72 * time.Hour},
			Spool:                   QueueSpool{MaxBytes: 256 << 20},
			Keep:                    QueueKeep{Delivered: 1000, Dead: 10_000, DeadBytes: 256 << 20, DeadFor: 30 * 24 * time.Hour},
		},
		Hooks: Hooks{FunctionTimeout: 10 * time.Second, MaxBodyBytes: 20 << 20},
		Events: Events{
			Poll:       EventPoll{Interval: time.Second, Overlap: 5 * time.Second, MaxAge: 72 * time.Hour},
			JobTimeout: 10 * time.Second,
		},
		Identity: Identity{Source: "none"},
	}
}
