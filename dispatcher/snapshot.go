package dispatcher

import (
	"maps"
	"slices"
	"time"

	"github.com/execgate/execgate/conditions"
	"github.com/execgate/execgate/targetclient"
)

// Plan is what one execution does when it is matched: ready to be dispatched,
// immutable, shared by all calls.
type Plan struct {
	// Execution is the id of the execution.
	Execution string
	// Phase is Request or Response for a proxied call.
	Phase conditions.Kind
	// Targets are called in this order. Empty only for an observed method that no
	// execution matches.
	Targets []*targetclient.Target
	// Interrupts says that some target may end the call. A plan that does not
	// interrupt lets the call go on whatever happens.
	Interrupts bool
	// Shadow: the targets are called, but nothing that they say is applied or
	// can interrupt.
	Shadow bool
	// PerMessage: a response plan also runs on methods that answer with a stream,
	// once for every message of it.
	PerMessage bool
	// Protected: the plan is for a protected method. What would interrupt is a
	// tolerated failure.
	Protected bool
}

// mayInterrupt says whether a failure of the target ends the call. Async targets
// never do: nobody waits for them. That their delivery is not taken may: see
// mayInterruptAtAll.
func (p *Plan) mayInterrupt(t *targetclient.Target) bool {
	return p.binding() && wantsInterrupt(t)
}

// binding says that what ends the call elsewhere ends it here.
func (p *Plan) binding() bool { return !p.Shadow && !p.Protected }

func wantsInterrupt(t *targetclient.Target) bool {
	return t.InterruptOnError && t.Kind != targetclient.KindAsync
}

// mayInterruptAtAll says whether anything about the targets ends the call: a
// failure of one that interrupts, or a delivery that is not taken and must be. What
// cannot be shown to such a target must not pass (D-38 to D-41).
func (p *Plan) mayInterruptAtAll() bool {
	return slices.ContainsFunc(p.Targets, func(t *targetclient.Target) bool {
		return p.mayInterrupt(t) || p.binding() && t.BlocksCall && t.Kind == targetclient.KindAsync
	})
}

// ExecutionPolicy is what an operator says about an execution beyond its
// targets. The zero value changes nothing.
type ExecutionPolicy struct {
	// Shadow and PerMessage are carried into the execution's plan.
	Shadow, PerMessage bool
}

// SnapshotOptions qualify executions. The zero value changes nothing.
type SnapshotOptions struct {
	// BuiltAt is when the snapshot was built. Zero: now.
	BuiltAt time.Time
	// Policies are found by execution id. The policy of the execution that is
	// matched counts, not those of executions that it includes.
	Policies map[string]ExecutionPolicy
	// ProtectedMethods are full methods ("/pkg.Svc/M") on which no execution may
	// interrupt.
	ProtectedMethods []string
	// ObservedMethods have a response plan in any case, without targets if no
	// execution wants one: who dispatches sees the messages of every call of them
	// that was answered.
	ObservedMethods []string
	// ParkDisabled keeps targets that are disabled in their place where the queue
	// tells them, which parks their deliveries: asynchronous ones, and all of an
	// event.
	ParkDisabled bool
}

// Snapshot is one generation of configuration. It is immutable and safe for
// concurrent use; a change of the configuration makes a new one.
type Snapshot struct {
	// Generation is the number of the configuration that it was built from.
	Generation uint64
	// BuiltAt is when it was built.
	BuiltAt time.Time

	index        *conditions.Index
	plans        []*Plan              // by the ordinal of the match
	events       *Snapshot            // that events go by; nil: this one
	protected    map[string]callPlans // protected and observed methods
	observed     bool
	interrupting bool
}

type callPlans struct{ request, response *Plan }

// NewSnapshot builds a snapshot. Targets that do not exist or are disabled count
// as deleted, but see [SnapshotOptions]. Problems are those of
// [conditions.NewIndex]: for the log, nothing keeps the snapshot from being used.
// The arguments must not be changed afterwards.
func NewSnapshot(generation uint64, executions []conditions.Execution, targets []*targetclient.Target, o SnapshotOptions) (*Snapshot, []conditions.Problem) {
	byID := make(map[string]*targetclient.Target, len(targets))
	for _, t := range targets {
		if !t.Disabled || o.ParkDisabled && t.Kind == targetclient.KindAsync {
			byID[t.ID] = t
		}
	}
	index, problems := conditions.NewIndex(executions, conditions.Options{
		HasTarget: func(id string) bool { return byID[id] != nil },
	})
	s := &Snapshot{Generation: generation, BuiltAt: o.BuiltAt, index: index}
	if s.BuiltAt.IsZero() {
		s.BuiltAt = time.Now()
	}
	for m := range index.Executions() {
		own := o.Policies[m.Execution]
		p := &Plan{Execution: m.Execution, Phase: m.Kind, Shadow: own.Shadow, PerMessage: own.PerMessage}
		for _, id := range m.Targets {
			p.Targets = append(p.Targets, byID[id])
		}
		p.Interrupts = p.mayInterruptAtAll()
		s.plans = append(s.plans, p)
		s.interrupting = s.interrupting || p.Interrupts && (p.Phase == conditions.Request || p.Phase == conditions.Response)
	}
	s.protect(o.ProtectedMethods)
	s.observe(o.ObservedMethods)
	if o.ParkDisabled {
		s.events = withDisabled(generation, executions, targets, o)
	}
	return s, problems
}

// withDisabled returns the snapshot of the same configuration in which no target
// is disabled, nil when none is.
func withDisabled(generation uint64, executions []conditions.Execution, targets []*targetclient.Target, o SnapshotOptions) *Snapshot {
	all := slices.Clone(targets)
	for i, t := range all {
		if t.Disabled {
			enabled := *t
			enabled.Disabled = false
			all[i] = &enabled
		}
	}
	if slices.Equal(all, targets) {
		return nil
	}
	s, _ := NewSnapshot(generation, executions, all, SnapshotOptions{BuiltAt: o.BuiltAt, Policies: o.Policies})
	return s
}

// protect keeps plans of their own for the protected methods.
func (s *Snapshot) protect(methods []string) {
	if len(methods) == 0 {
		return
	}
	protected := make(map[string]callPlans, len(methods))
	for _, method := range methods {
		request, response := s.Call(method)
		protected[method] = callPlans{asProtected(request), asProtected(response)}
	}
	s.protected = protected
}

// observe keeps plans of their own for the observed methods.
func (s *Snapshot) observe(methods []string) {
	if len(methods) == 0 {
		return
	}
	own := make(map[string]callPlans, len(methods)+len(s.protected))
	maps.Copy(own, s.protected)
	for _, method := range methods {
		request, response := s.Call(method)
		if response == nil {
			response = &Plan{Phase: conditions.Response}
		}
		own[method] = callPlans{request, response}
	}
	s.protected, s.observed = own, true
}

func asProtected(p *Plan) *Plan {
	if p == nil {
		return nil
	}
	q := *p
	q.Protected, q.Interrupts = true, false
	return &q
}

// Call returns the plans for the two phases of a call of the method
// ("/pkg.Svc/M"); nil means that nothing runs. It allocates nothing.
func (s *Snapshot) Call(fullMethod string) (request, response *Plan) {
	if p, found := s.protected[fullMethod]; found {
		return p.request, p.response
	}
	requestMatch, responseMatch := s.index.Call(fullMethod)
	return s.plan(requestMatch), s.plan(responseMatch)
}

// Function returns the plan for a function, or nil.
func (s *Snapshot) Function(name string) *Plan { return s.plan(s.index.Function(name)) }

// Event returns the plan for an event, or nil.
func (s *Snapshot) Event(eventType string) *Plan {
	if s.events != nil {
		return s.events.Event(eventType)
	}
	return s.plan(s.index.Event(eventType))
}

func (s *Snapshot) plan(m *conditions.Match) *Plan {
	if m == nil {
		return nil
	}
	return s.plans[m.Ordinal]
}

// HasCalls reports whether any call at all can run something.
func (s *Snapshot) HasCalls() bool { return s.observed || s.index.HasCalls() }

// Interrupting reports whether some execution on calls has a target that may
// interrupt: if so, calls that cannot be told apart must not pass.
func (s *Snapshot) Interrupting() bool { return s.interrupting }
