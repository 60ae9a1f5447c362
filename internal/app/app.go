package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/execgate/execgate/admin"
	"github.com/execgate/execgate/dispatcher"
	"github.com/execgate/execgate/events"
	"github.com/execgate/execgate/internal/certs"
	"github.com/execgate/execgate/internal/config"
	"github.com/execgate/execgate/internal/depot"
	"github.com/execgate/execgate/internal/metrics"
	"github.com/execgate/execgate/internal/runlog"
	"github.com/execgate/execgate/policy"
	"github.com/execgate/execgate/proxy"
	"github.com/execgate/execgate/proxy/h2"
	"github.com/execgate/execgate/queue"
	"github.com/execgate/execgate/schema"
	"github.com/execgate/execgate/store"
	"github.com/execgate/execgate/targetclient"
)

// Options say what to run.
type Options struct {
	// Config is checked, and not changed afterwards. Required.
	Config *config.Config
	// Logger takes everything that is logged. Nil: slog.Default().
	Logger *slog.Logger
	// Apply names a document of targets and executions that is applied at the
	// start. Empty: none.
	Apply string
	// Build is shown by the metrics.
	Build metrics.Build
}

// App is one gateway.
type App struct {
	config   *config.Config
	logger   *slog.Logger
	build    metrics.Build
	apply    string // the document to apply at the start
	document []byte

	metrics      *metrics.Metrics
	store        store.Store
	replica      *store.Replica
	configurator *configurator
	kill         *killFile
	runs         *runlog.Log
	client       *targetclient.Client
	queue        deliveries
	backend      queue.Backend // nil: the queue is in memory
	spool        *queue.Spool  // nil: there is none
	learner      *schema.Learner
	proxy        *proxy.Proxy
	admin        *admin.Server

	proxyDoor, adminDoor, ops *door
	proxyServer               *proxy.Server
	adminServer               *httpServer

	inbound inbound        // functions and events
	recent  *events.Recent // of events, in front of a queue in memory
	polling polling        // events of the upstream

	life       atomic.Int32
	teardown   teardown
	watched    []func(context.Context) // run in the background from the start on
	background sync.WaitGroup
	doors      sync.WaitGroup
	failed     chan error
}

// The metrics are told by everybody.
var (
	_ proxy.Observer         = (*metrics.Metrics)(nil)
	_ dispatcher.Observer    = (*metrics.Metrics)(nil)
	_ queue.Observer         = (*metrics.Metrics)(nil)
	_ queue.DeliveryObserver = (*metrics.Metrics)(nil)
	_ admin.Observer         = (*metrics.Metrics)(nil)
)

// New checks the configuration and returns a gateway that is not started. It
// touches nothing outside of the process.
func New(o Options) (*App, error) {
	if o.Config == nil {
		return nil, errors.New("app needs a configuration")
	}
	if err := o.Config.Check(); err != nil {
		return nil, err
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	a := &App{
		config:  o.Config,
		logger:  o.Logger,
		apply:   o.Apply,
		build:   o.Build,
		metrics: metrics.New(o.Build),
		failed:  make(chan error, 1),
	}
	return a, nil
}

// assemble makes the parts, each with what it needs of the others. Nothing runs
// yet, but the embedded store's file is open.
func (a *App) assemble() error {
	cfg := a.config
	var err error
	a.client, err = targetclient.New(targetclient.Options{
		DenyList:         cfg.TargetClient.DenyList,
		AllowList:        cfg.TargetClient.AllowList,
		MaxResponseBytes: cfg.TargetClient.MaxResponseBytes,
		MaxConcurrency:   cfg.TargetClient.MaxConcurrency,
		Breaker:          targetclient.BreakerSettings(cfg.TargetClient.Breaker),
		Logger:           a.logger,
	})
	if err != nil {
		return fmt.Errorf("targetclient: %w", err)
	}
	a.kill = &killFile{path: cfg.Proxy.KillFile, logger: a.logger}
	a.runs = runlog.New(runlog.Options{ShadowRun: a.metrics.ShadowRun})
	a.configurator = &configurator{
		protected: cfg.ProtectedMethods,
		observed:  derivedFrom(cfg.Events),
		defaults:  policyDefaults(cfg),
		client:    a.client,
		metrics:   a.metrics,
		runs:      a.runs,
		logger:    a.logger,
		killed:    a.kill.killed,
	}
	if err := a.openStore(); err != nil {
		return err
	}
	if err := a.openQueue(); err != nil {
		return err
	}
	upstreamTLS, err := clientTLS(cfg.Upstream.TLS)
	if err != nil {
		return fmt.Errorf("upstream.tls: %w", err)
	}
	if a.learner, err = newLearner(cfg.Upstream, upstreamTLS, a.logger); err != nil {
		return fmt.Errorf("upstream.schema: %w", err)
	}
	a.proxy, err = proxy.New(proxy.Options{
		Upstream: proxy.UpstreamOptions{
			URL:       cfg.Upstream.URL,
			Authority: cfg.Upstream.Authority,
			TLS:       upstreamTLS,
		},
		Schema:   a.learner.Current,
		Snapshot: a.configurator.snapshot,
		Dispatcher: a.deriving(dispatcher.New(dispatcher.Options{
			Caller:       a.client,
			Queue:        a.queue,
			ChainTimeout: cfg.Proxy.ChainTimeout,
			Observer:     a.metrics,
			Recorder:     a.runs,
			OnSuppressed: func(context.Context, *dispatcher.InterruptError) { a.metrics.InterruptSuppressed() },
			Logger:       a.logger,
		})),
		InstanceID:            cfg.InstanceID,
		MaxMessageBytes:       cfg.Proxy.MaxMessageBytes,
		MethodMaxMessageBytes: cfg.Proxy.MethodMaxMessageBytes,
		TrustedProxies:        cfg.Proxy.TrustedProxies,
		CORS:                  proxy.CORSOptions{AllowedOrigins: cfg.Proxy.CORS.AllowedOrigins},
		GRPCWebSockets:        cfg.Proxy.GRPCWeb.WebSockets,
		Observer:              a.metrics,
		Logger:                a.logger,
	})
	if err != nil {
		return fmt.Errorf("proxy: %w", err)
	}
	proxyTLS, err := a.certificate(certs.Options{
		Listener: "proxy.tls",
		CertFile: cfg.Proxy.TLS.CertFile,
		KeyFile:  cfg.Proxy.TLS.KeyFile,
	})
	if err != nil {
		return err
	}
	a.proxyServer, err = proxy.NewServer(a.proxy, proxy.ServerOptions{
		TLS:           proxyTLS,
		Logger:        a.logger,
		Relay:         cfg.Proxy.Engine == "h2",
		RelayObserver: relayObserver{a.metrics},
		Refused:       a.metrics.H1Refused,
	})
	if err != nil {
		return fmt.Errorf("proxy.engine: %w", err)
	}
	if err := a.assembleAdmin(); err != nil {
		return fmt.Errorf("admin: %w", err)
	}
	if err := a.assembleHooks(); err != nil {
		return err
	}
	if err := a.assemblePolling(upstreamTLS); err != nil {
		return fmt.Errorf("events.poll: %w", err)
	}
	a.metrics.Watch(metrics.Sources{
		StoreUp:         a.replica.Up,
		Snapshot:        a.snapshotInUse,
		SnapshotRefused: func() bool { return errors.Is(a.replica.Err(), store.ErrRefused) },
		Dispatching:     a.configurator.dispatching,
		SchemaLoaded:    func() bool { return a.learner.Current() != nil },
		AsyncPending:    a.asyncPending,
		Deliveries:      a.countDeliveries,
		Spooled:         a.spooled,
		Breakers:        a.configurator.breakers,
	})
	return nil
}

// relayObserver tells the metrics what the HTTP/2 engine had to limit.
type relayObserver struct{ metrics *metrics.Metrics }

// Limited counts a limit that was hit.
func (o relayObserver) Limited(r h2.Reason) { o.metrics.H2Limited(r.String()) }

// Connections are not counted.
func (relayObserver) Connections(bool, int) {}

// openStore opens the store and puts the replica before it.
func (a *App) openStore() error {
	cfg := a.config.Store
	var copyPath string
	var err error
	switch cfg.Driver {
	case "redis":
		copyPath = cfg.Redis.CopyPath
		a.store, err = store.OpenRedis(a.redisOptions())
	default:
		a.store, err = store.OpenEmbedded(store.EmbeddedOptions{Path: cfg.Embedded.Path})
	}
	if err != nil {
		return err
	}
	a.teardown.add(func(context.Context) { a.warn("close the store", a.store.Close()) })
	a.replica = store.NewReplica(a.store, store.ReplicaOptions{
		CopyPath: copyPath,
		Check:    a.configurator.check,
		Logger:   a.logger,
	})
	return nil
}

// redisOptions say where Redis is, and what the keys in it begin with.
func (a *App) redisOptions() store.RedisOptions {
	r := a.config.Store.Redis
	return store.RedisOptions{
		URL:              r.URL.Reveal(),
		Addrs:            r.Addrs,
		MasterName:       r.MasterName,
		Cluster:          r.Cluster,
		DB:               r.DB,
		Username:         r.Username,
		Password:         r.Password.Reveal(),
		SentinelUsername: r.SentinelUsername,
		SentinelPassword: r.SentinelPassword.Reveal(),
		TLS:              r.TLS.Enabled,
		CAFile:           r.TLS.CAFile,
		CertFile:         r.TLS.CertFile,
		KeyFile:          r.TLS.KeyFile,
		ServerName:       r.TLS.ServerName,
		KeyPrefix:        r.KeyPrefix,
		Instance:         a.config.InstanceID,
	}
}

// assembleAdmin makes the admin API.
func (a *App) assembleAdmin() error {
	cfg := a.config.Admin
	authenticators, err := a.authenticators()
	if err != nil {
		return err
	}
	a.admin, err = admin.New(admin.Options{
		Store:              a.replica,
		Schema:             a.methodsAndServices,
		Functions:          a.config.Hooks.Functions,
		CheckURL:           a.client.CheckURL,
		Tokens:             tokens(cfg),
		Authenticators:     authenticators,
		ClientCertificates: clientCertificates(cfg),
		InstanceID:         a.config.InstanceID,
		ActionsDisabled:    !cfg.ActionsEnabled,
		Gateway: admin.GatewayOptions{
			History:          a.store,
			Defaults:         a.configurator.defaults,
			ProtectedMethods: a.config.ProtectedMethods,
			Upstream:         a.learner.Current,
			Killed:           a.kill.killed,
			Breaker:          a.client.BreakerState,
			LastRun:          a.lastRun,
			TestFire:         a.testFire,
			Deliveries:       a.desk(),
			Places: depot.New(depot.Options{
				Dir:         a.config.Admin.ExportDir,
				Dial:        a.client.Dial,
				GCSEmulator: os.Getenv("STORAGE_EMULATOR_HOST"),
			}),
		},
		Observer: a.metrics,
		Logger:   a.logger,
	})
	if err != nil {
		return err
	}
	adminTLS, err := a.certificate(certs.Options{
		Listener:     "admin.tls",
		CertFile:     cfg.TLS.CertFile,
		KeyFile:      cfg.TLS.KeyFile,
		ClientAuth:   clientAuth[cfg.TLS.ClientAuth],
		ClientCAFile: cfg.TLS.ClientCAFile,
	})
	if err != nil {
		return err
	}
	a.adminServer = newServer(a.admin.Handler(), adminTLS, a.logger)
	return nil
}

// policyDefaults are in force where the policy of a target says nothing.
func policyDefaults(cfg *config.Config) policy.TargetDefaults {
	return policy.TargetDefaults{
		MaxConcurrency: cfg.TargetClient.MaxConcurrency,
		Breaker:        policy.BreakerSettings(cfg.TargetClient.Breaker),
		Retry:          policy.RetrySettings(cfg.Queue.Retry),
	}
}

// lastRun returns what is remembered of an execution.
func (a *App) lastRun(execution string) (admin.LastRun, bool) {
	run, ok := a.runs.Last(execution)
	return admin.LastRun(run), ok
}

// methodsAndServices lists what the upstream offers; known is false while its
// schema is not known.
func (a *App) methodsAndServices() (methods, services []string, known bool) {
	s := a.learner.Current()
	if s == nil {
		return nil, nil, false
	}
	return s.Methods(), s.Services(), true
}

// newLearner makes what learns the upstream's schema.
func newLearner(cfg config.Upstream, upstreamTLS *tls.Config, logger *slog.Logger) (*schema.Learner, error) {
	o := schema.LearnerOptions{
		CachePath:       cfg.Schema.CachePath,
		BasePaths:       cfg.RESTBasePaths,
		RefreshInterval: cfg.Schema.RefreshInterval,
		Logger:          logger,
	}
	if o.RefreshInterval == 0 {
		o.RefreshInterval = -1 // 0s in the configuration is "once", to the learner it is its default
	}
	if cfg.Schema.Source == "descriptor_set" {
		o.DescriptorSetPath = cfg.Schema.DescriptorSet
		return schema.NewLearner(o)
	}
	var err error
	if o.Reflection, err = upstreamTarget(cfg, upstreamTLS); err != nil {
		return nil, err
	}
	return schema.NewLearner(o)
}

// upstreamTarget says how the upstream is reached over gRPC.
func upstreamTarget(cfg config.Upstream, upstreamTLS *tls.Config) (*schema.Reflection, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, errors.New("upstream.url is not a URL")
	}
	port, security := "80", insecure.NewCredentials()
	if u.Scheme == "https" {
		port, security = "443", newUpstreamCredentials(upstreamTLS, u.Hostname())
	}
	if u.Port() != "" {
		port = u.Port()
	}
	r := &schema.Reflection{
		Target: "passthrough:///" + net.JoinHostPort(u.Hostname(), port),
		DialOptions: []grpc.DialOption{
			grpc.WithTransportCredentials(security),
			// The environment's proxy is for clients, and the upstream is ours.
			grpc.WithNoProxy(),
		},
	}
	if cfg.Authority != "" {
		r.DialOptions = append(r.DialOptions, grpc.WithAuthority(cfg.Authority))
	}
	return r, nil
}

// clientTLS reads the files that secure connections to the upstream.
func clientTLS(cfg config.ClientTLS) (*tls.Config, error) {
	t := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         cfg.ServerName,
		InsecureSkipVerify: cfg.InsecureSkipVerify, //nolint:gosec // the operator asks for it by name
	}
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read ca_file: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, errors.New("ca_file holds no PEM certificate")
		}
	}
	if cfg.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("read the certificate: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}
