package app

import (
	"context"
	"fmt"
	"net"

	"github.com/execgate/execgate/dispatcher"
	"github.com/execgate/execgate/events"
	"github.com/execgate/execgate/internal/certs"
	"github.com/execgate/execgate/internal/config"
	"github.com/execgate/execgate/internal/hooks"
	"github.com/execgate/execgate/internal/metrics"
	"github.com/execgate/execgate/proxy"
)

var _ hooks.Observer = (*metrics.Metrics)(nil)

// inbound is the listener for functions and events. All of it is nil while it is
// off.
type inbound struct {
	door   *door
	server *httpServer
}

// listen opens the listener if there is to be one.
func (i *inbound) listen(ctx context.Context, address string) error {
	if address == "" {
		return nil
	}
	var err error
	i.door, err = openDoor(ctx, "hooks.listen", address)
	return err
}

func (i *inbound) address() net.Addr {
	if i.door == nil {
		return nil
	}
	return i.door.listener.Addr()
}

// shutdown takes nothing more and waits for what is in flight.
func (i *inbound) shutdown(ctx context.Context) error {
	if i.server == nil {
		return nil
	}
	return i.server.Shutdown(ctx)
}

// assembleHooks makes what answers on the hooks listener.
func (a *App) assembleHooks() error {
	cfg := a.config.Hooks
	if a.inbound.door == nil {
		return nil
	}
	certificate, err := a.certificate(certs.Options{Listener: "hooks.tls", CertFile: cfg.TLS.CertFile, KeyFile: cfg.TLS.KeyFile})
	if err != nil {
		return fmt.Errorf("hooks: %w", err)
	}
	var tokens []string
	for _, t := range cfg.Tokens {
		tokens = append(tokens, t.Token.Reveal())
	}
	handler := hooks.New(hooks.Options{
		Snapshot: a.configurator.snapshot,
		Dispatcher: dispatcher.New(dispatcher.Options{
			Caller:       a.client,
			Queue:        a.queue,
			ChainTimeout: cfg.FunctionTimeout,
			Observer:     a.metrics,
			Recorder:     a.runs,
			Logger:       a.logger,
		}),
		Sink:         a.newSink(),
		SigningKeys:  cfg.Keys(),
		Tokens:       tokens,
		Functions:    cfg.Functions,
		InstanceID:   a.config.InstanceID,
		MaxBodyBytes: cfg.MaxBodyBytes,
		Observer:     a.metrics,
		Logger:       a.logger,
	})
	a.inbound.server = newServer(handler, certificate, a.logger)
	return nil
}

// serveHooks begins to answer.
func (a *App) serveHooks() {
	if a.inbound.door == nil {
		return
	}
	a.serve(a.inbound.door, a.inbound.server)
	a.logger.Info("serving hooks", "hooks", a.inbound.door.address())
}

// newSink makes what takes events.
func (a *App) newSink() *events.Sink {
	var taking dispatcher.Queue = a.queue
	if a.backend == nil { // a queue in memory knows no ids
		if a.recent == nil {
			a.recent = events.NewRecent(a.queue)
		}
		taking = a.recent
	}
	return events.NewSink(events.SinkOptions{
		Snapshot: a.configurator.snapshot,
		Queue:    taking,
		Observer: a.metrics.EventSeen,
	})
}

// deriving returns the dispatcher of calls, with the rules for derived events
// before it.
func (a *App) deriving(next *dispatcher.Dispatcher) proxy.Dispatcher {
	if len(a.config.Events.Derive) == 0 {
		return next
	}
	var rules []events.Rule
	for _, r := range a.config.Events.Derive {
		rules = append(rules, events.Rule(r))
	}
	return events.NewDeriver(next, rules, a.newSink(), a.config.InstanceID, a.logger)
}

// derivedFrom returns the methods that events are derived from.
func derivedFrom(cfg config.Events) []string {
	var methods []string
	for _, r := range cfg.Derive {
		methods = append(methods, r.Method)
	}
	return methods
}
