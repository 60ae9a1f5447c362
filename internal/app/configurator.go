package app

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/execgate/execgate/conditions"
	"github.com/execgate/execgate/dispatcher"
	"github.com/execgate/execgate/internal/metrics"
	"github.com/execgate/execgate/internal/runlog"
	"github.com/execgate/execgate/policy"
	"github.com/execgate/execgate/queue"
	"github.com/execgate/execgate/store"
	"github.com/execgate/execgate/targetclient"
)

// configurator turns each state of the store into a snapshot and puts it to
// use. A state that cannot be put to use leaves the one before in place, whole.
type configurator struct {
	protected []string
	observed  []string // methods that events are derived from
	defaults  policy.TargetDefaults
	client    *targetclient.Client
	metrics   *metrics.Metrics
	runs      *runlog.Log
	logger    *slog.Logger
	// killed says whether dispatch is off on this gateway, whatever the store
	// says.
	killed func() bool
	// durable: the queue parks what disabled asynchronous targets are told.
	durable bool

	current atomic.Pointer[dispatcher.Snapshot]
	config  atomic.Pointer[configuration] // that current was made of
	checked atomic.Pointer[checked]

	mu         sync.Mutex // serialises adopt
	generation uint64
}

// nothing is the snapshot that is used while dispatch is off here: it matches
// nothing and holds nothing up, not even while no configuration was ever loaded.
var nothing, _ = dispatcher.NewSnapshot(0, nil, nil, dispatcher.SnapshotOptions{})

// snapshot returns the snapshot that calls go by, nil while there is none.
func (c *configurator) snapshot() *dispatcher.Snapshot {
	if c.killed() {
		return nothing
	}
	return c.current.Load()
}

// loaded returns the snapshot of the newest configuration, nil while there is
// none.
func (c *configurator) loaded() *dispatcher.Snapshot { return c.current.Load() }

// dispatching says whether anything can fire: neither switch is off.
func (c *configurator) dispatching() bool {
	config := c.config.Load()
	return !c.killed() && (config == nil || config.dispatch)
}

// check says why a state cannot be put to use, nil if it can.
func (c *configurator) check(state *store.State) error {
	config, err := configure(state, c.defaults)
	if err == nil {
		c.checked.Store(&checked{state, config})
	}
	return err
}

// checked is the last state that was checked: it is mostly the next to be
// adopted.
type checked struct {
	state  *store.State
	config *configuration
}

func (c *configurator) configuration(state *store.State) (*configuration, error) {
	if last := c.checked.Swap(nil); last != nil && last.state == state {
		return last.config, nil
	}
	return configure(state, c.defaults)
}

// adopt builds the snapshot of a state and swaps it in. Calls that have begun
// go on with the one before.
func (c *configurator) adopt(state *store.State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	config, err := c.configuration(state)
	if err != nil { // check has refused it already
		c.logger.Error("configuration refused, the one before stays in use", "revision", state.Revision(), "error", err)
		return
	}
	c.generation++
	next, problems := dispatcher.NewSnapshot(c.generation, config.executions, config.targets, dispatcher.SnapshotOptions{
		Policies:         config.policies,
		ProtectedMethods: c.protected,
		ObservedMethods:  c.observed,
		ParkDisabled:     c.durable,
	})
	if !config.dispatch {
		next, _ = dispatcher.NewSnapshot(c.generation, nil, nil, dispatcher.SnapshotOptions{})
	}
	before := c.config.Swap(config)
	c.current.Store(next)

	ids, names, executionIDs := map[string]struct{}{}, map[string]struct{}{}, map[string]struct{}{}
	for _, t := range config.targets {
		ids[t.ID], names[t.Name] = struct{}{}, struct{}{}
	}
	for _, e := range config.executions {
		executionIDs[e.Condition.ID()] = struct{}{}
	}
	c.client.Retain(ids)
	c.metrics.Retain(names, executionIDs)
	c.runs.Retain(executionIDs)
	for _, p := range problems {
		c.logger.Warn("include skipped", "execution", p.Execution, "problem", p.Text)
	}
	if was := before == nil || before.dispatch; was != config.dispatch {
		c.logger.Warn("dispatch was switched", "on", config.dispatch, "revision", state.Revision())
	}
	c.logger.Info("configuration in use", "generation", next.Generation, "revision", state.Revision(),
		"targets", len(config.targets), "executions", len(config.executions))
}

// breakers yields the breaker state of each target in use, for the metrics.
func (c *configurator) breakers(yield func(target string, state int)) {
	config := c.config.Load()
	if config == nil {
		return
	}
	for _, t := range config.targets {
		yield(t.Name, int(c.client.BreakerState(t.ID)))
	}
}

// settings says what the queue must know about a target; see [queue.Lookup].
func (c *configurator) settings(targetID string) (s *queue.Settings, loaded bool) {
	config := c.config.Load()
	if config == nil {
		return nil, false
	}
	return config.settings[targetID], true
}

// targetName returns the name of a target in use, "" if it is not.
func (c *configurator) targetName(id string) string {
	if s, _ := c.settings(id); s != nil {
		return s.Target.Name
	}
	return ""
}

// configuration is what one state of the store says, as the dispatcher knows
// it. It is immutable.
type configuration struct {
	executions []conditions.Execution
	targets    []*targetclient.Target
	settings   map[string]*queue.Settings            // by target id
	policies   map[string]dispatcher.ExecutionPolicy // by execution id
	dispatch   bool                                  // the store's switch
}

// configure converts what is stored. The error names every record that cannot
// be used.
func configure(state *store.State, defaults policy.TargetDefaults) (*configuration, error) {
	c := &configuration{
		executions: make([]conditions.Execution, 0, len(state.Executions())),
		targets:    make([]*targetclient.Target, 0, len(state.Targets())),
		settings:   make(map[string]*queue.Settings, len(state.Targets())),
		policies:   make(map[string]dispatcher.ExecutionPolicy),
		dispatch:   true,
	}
	var faults []error
	for _, stored := range state.Executions() {
		if err := c.addExecution(state, stored); err != nil {
			faults = append(faults, fmt.Errorf("execution %q: %w", stored.ID, err))
		}
	}
	for _, stored := range state.Targets() {
		if err := c.addTarget(state, stored, defaults); err != nil {
			faults = append(faults, fmt.Errorf("target %q: %w", stored.ID, err))
		}
	}
	if value, ok := state.Item(store.KindSwitch, policy.SwitchDispatch); ok {
		s, err := policy.DecodeSwitch(value)
		if err != nil {
			faults = append(faults, fmt.Errorf("switch %q: %w", policy.SwitchDispatch, err))
		} else {
			c.dispatch = s.IsOn()
		}
	}
	return c, errors.Join(faults...)
}

func (c *configuration) addExecution(state *store.State, stored *store.Execution) error {
	condition, err := conditions.Parse(stored.ID)
	if err != nil {
		return err
	}
	var p *policy.Execution
	if value, ok := state.Item(store.KindExecutionPolicy, stored.ID); ok {
		if p, err = policy.DecodeExecution(value); err != nil {
			return fmt.Errorf("policy: %w", err)
		}
	}
	c.executions = append(c.executions, conditions.Execution{
		Condition: condition, Targets: stored.Targets, Includes: stored.Includes, Disabled: !p.IsEnabled(),
	})
	own := dispatcher.ExecutionPolicy{Shadow: p.EffectiveMode() == policy.ModeShadow, PerMessage: p.IsPerMessage()}
	if own != (dispatcher.ExecutionPolicy{}) {
		c.policies[condition.ID()] = own
	}
	return nil
}

func (c *configuration) addTarget(state *store.State, stored *store.Target, defaults policy.TargetDefaults) error {
	t, err := target(stored)
	if err != nil {
		return err
	}
	settings := &queue.Settings{Target: t}
	if value, ok := state.Item(store.KindTargetPolicy, stored.ID); ok {
		p, err := policy.DecodeTarget(value)
		if err != nil {
			return fmt.Errorf("policy: %w", err)
		}
		qualify(t, p, defaults)
		if err := sign(t, p); err != nil {
			return fmt.Errorf("policy: %w", err)
		}
		deliver(settings, p, defaults)
		t.BlocksCall = settings.OnFull == queue.OnFullBlockCall
	}
	c.targets = append(c.targets, t)
	c.settings[t.ID] = settings
	return nil
}

// qualify applies a policy. What it does not say stays zero, which is the
// client's default; a breaker is replaced as a whole, so it needs the defaults.
func qualify(t *targetclient.Target, p *policy.Target, defaults policy.TargetDefaults) {
	t.Disabled = !p.IsEnabled()
	t.AllowedHosts, t.Headers = p.AllowedHosts, p.Headers
	if p.MaxConcurrency != nil {
		if t.MaxConcurrency = int(*p.MaxConcurrency); t.MaxConcurrency == 0 {
			t.MaxConcurrency = math.MaxInt32 // no cap, whatever the default is
		}
	}
	if p.Breaker != nil {
		t.Breaker = new(targetclient.BreakerSettings(p.BreakerSettings(defaults)))
	}
}

// sign applies the signatures of a policy.
func sign(t *targetclient.Target, p *policy.Target) error {
	signatures := p.EffectiveSignatures()
	if !slices.Contains(signatures, policy.SignatureZITADEL) {
		t.SigningKeys = nil
	}
	v1, v1a := slices.Contains(signatures, policy.SignatureStandardV1), slices.Contains(signatures, policy.SignatureStandardV1a)
	if !v1 && !v1a {
		return nil
	}
	var err error
	t.StandardWebhooks, err = targetclient.NewStandardWebhooks(v1, v1a, p.SigningSecrets)
	return err
}

// deliver applies what a policy says of deliveries.
func deliver(s *queue.Settings, p *policy.Target, defaults policy.TargetDefaults) {
	s.Schedule = queue.Schedule(p.RetrySettings(defaults))
	if by := p.EffectiveOrderBy(); by != policy.OrderByNone {
		s.OrderBy = queue.OrderBy(by)
	}
	s.OnFull = queue.OnFull(p.EffectiveOnFull())
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
