package demo

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/execgate/execgate/internal/app"
	"github.com/execgate/execgate/internal/config"
	"github.com/execgate/execgate/internal/metrics"
)

// logFile is where the demo's gateway logs to, in its directory.
const logFile = "gateway.log"

// StartGateway returns an Options.Start that runs the real gateway in this
// process, on the embedded store.
func StartGateway(build metrics.Build) func(context.Context, Settings) (Gateway, error) {
	return func(ctx context.Context, s Settings) (Gateway, error) {
		log, err := os.OpenFile(filepath.Join(s.Dir, logFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return nil, fmt.Errorf("open the gateway's log: %w", err)
		}
		a, err := app.New(app.Options{
			Config: gatewayConfig(s),
			Logger: slog.New(slog.NewJSONHandler(log, nil)),
			Build:  build,
		})
		if err == nil {
			err = a.Start(ctx)
		}
		if err != nil {
			_ = log.Close()
			return nil, err
		}
		return &running{app: a, log: log}, nil
	}
}

func gatewayConfig(s Settings) *config.Config {
	c := config.Default()
	c.InstanceID = "demo"
	c.Proxy.Listen, c.Admin.Listen, c.Ops.Listen = s.Proxy, s.Admin, s.Ops
	c.Proxy.DrainTimeout = 5 * time.Second
	c.Upstream.URL = s.UpstreamURL
	c.Upstream.Schema.CachePath = filepath.Join(s.Dir, "schema.binpb")
	c.Store.Embedded.Path = filepath.Join(s.Dir, "execgate.db")
	c.TargetClient.AllowList = []string{s.TargetHost}
	c.Admin.Tokens = []config.Token{{
		Name: "demo", Token: config.NewSecret(s.Token), Permissions: []string{"action.*", "execution.*"},
	}}
	return c
}

// running is a gateway of internal/app.
type running struct {
	app *app.App
	log *os.File
}

// ProxyAddr is where clients call.
func (r *running) ProxyAddr() string { return r.app.Addresses().Proxy.String() }

// AdminAddr is where targets and executions are managed.
func (r *running) AdminAddr() string { return r.app.Addresses().Admin.String() }

// OpsAddr is where metrics and health are.
func (r *running) OpsAddr() string { return r.app.Addresses().Ops.String() }

// Stop drains the gateway and closes its log.
func (r *running) Stop(ctx context.Context) error {
	defer r.log.Close()
	return r.app.Stop(ctx)
}
