package app

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"sync"
	"sync/atomic"

	"github.com/execgate/execgate/conditions"
	"github.com/execgate/execgate/dispatcher"
	"github.com/execgate/execgate/internal/metrics"
	"github.com/execgate/execgate/store"
	"github.com/execgate/execgate/targetclient"
)

// configurator turns each state of the store into a snapshot and puts it to
// use. A state that cannot be put to use leaves the one before in place, whole.
type configurator struct {
	protected []string
	client    *targetclient.Client
	metrics   *metrics.Metrics
	logger    *slog.Logger

	current atomic.Pointer[dispatcher.Snapshot]
	targets atomic.Pointer[[]*targetclient.Target] // of the current snapshot

	mu         sync.Mutex // serialises adopt
	generation uint64
}

// snapshot returns the snapshot in use, nil while there is none.
func (c *configurator) snapshot() *dispatcher.Snapshot { return c.current.Load() }

// check says why a state cannot be put to use, nil if it can.
func (c *configurator) check(state *store.State) error {
	_, _, err := records(state)
	return err
}

// adopt builds the snapshot of a state and swaps it in. Calls that have begun
// go on with the one before.
func (c *configurator) adopt(state *store.State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	executions, targets, err := records(state)
	if err != nil { // check has refused it already
		c.logger.Error("configuration refused, the one before stays in use", "revision", state.Revision(), "error", err)
		return
	}
	c.generation++
	next, problems := dispatcher.NewSnapshot(c.generation, executions, targets, dispatcher.SnapshotOptions{
		ProtectedMethods: c.protected,
	})
	c.current.Store(next)
	c.targets.Store(&targets)

	ids, names, executionIDs := map[string]struct{}{}, map[string]struct{}{}, map[string]struct{}{}
	for _, t := range targets {
		ids[t.ID], names[t.Name] = struct{}{}, struct{}{}
	}
	for _, e := range executions {
		executionIDs[e.Condition.ID()] = struct{}{}
	}
	c.client.Retain(ids)
	c.metrics.Retain(names, executionIDs)
	for _, p := range problems {
		c.logger.Warn("include skipped", "execution", p.Execution, "problem", p.Text)
	}
	c.logger.Info("configuration in use", "generation", next.Generation, "revision", state.Revision(),
		"targets", len(targets), "executions", len(executions))
}

// breakers yields the breaker state of each target in use, for the metrics.
func (c *configurator) breakers(yield func(target string, state int)) {
	targets := c.targets.Load()
	if targets == nil {
		return
	}
	for _, t := range *targets {
		yield(t.Name, int(c.client.BreakerState(t.ID)))
	}
}

// records converts what is stored into what the dispatcher works with. The
// error names every record that cannot be used.
func records(state *store.State) ([]conditions.Execution, []*targetclient.Target, error) {
	var faults []error
	executions := make([]conditions.Execution, 0, len(state.Executions()))
	for _, e := range state.Executions() {
		condition, err := conditions.Parse(e.ID)
		if err != nil {
			faults = append(faults, fmt.Errorf("execution %q: %w", e.ID, err))
			continue
		}
		executions = append(executions, conditions.Execution{Condition: condition, Targets: e.Targets, Includes: e.Includes})
	}
	targets := make([]*targetclient.Target, 0, len(state.Targets()))
	for _, stored := range state.Targets() {
		t, err := target(stored)
		if err != nil {
			faults = append(faults, fmt.Errorf("target %q: %w", stored.ID, err))
			continue
		}
		targets = append(targets, t)
	}
	return executions, targets, errors.Join(faults...)
}

// target converts a stored target. Its URL is left out of errors: it may carry
// a password.
func target(stored *store.Target) (*targetclient.Target, error) {
	t := &targetclient.Target{
		ID:               stored.ID,
		Name:             stored.Name,
		URL:              stored.Endpoint,
		Timeout:          stored.Timeout,
		InterruptOnError: stored.InterruptOnError,
	}
	switch {
	case stored.Async:
		t.Kind = targetclient.KindAsync
	case stored.Type == store.TargetWebhook:
		t.Kind = targetclient.KindWebhook
	case stored.Type == store.TargetRequestResponse:
		t.Kind = targetclient.KindCall
	default:
		return nil, fmt.Errorf("the type %q is not known", stored.Type)
	}
	if stored.SigningKey != "" {
		t.SigningKeys = []string{stored.SigningKey}
	}
	switch stored.PayloadType {
	case "", "json":
		t.PayloadType = targetclient.JSON
	case "jwt":
		t.PayloadType = targetclient.JWT
	case "jwe":
		t.PayloadType = targetclient.JWE
	default:
		return nil, fmt.Errorf("the payload type %q is not known", stored.PayloadType)
	}
	if u, err := url.Parse(stored.Endpoint); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("the endpoint is not an absolute http or https URL")
	}
	return t, nil
}
