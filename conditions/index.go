package conditions

import (
	"iter"
	"slices"
)

// Match is the execution that a trigger runs. It is shared and must not be
// changed.
type Match struct {
	// Execution is the id of the execution.
	Execution string
	// Kind is the kind of its condition.
	Kind Kind
	// Targets are the ids of the targets in the order of the calls, includes
	// resolved. It is never empty; a target reached twice is listed twice.
	Targets []string
	// Ordinal is the position of the match in [Index.Executions]. A consumer
	// that keeps something per execution can keep it in a slice.
	Ordinal int
}

// Options tune how an index is built. The zero value is ready to use.
type Options struct {
	// HasTarget says whether a target exists; the others are left out of every
	// Match. Nil: every target exists.
	HasTarget func(id string) bool
}

// Index answers which execution a trigger runs. It is immutable and safe for
// concurrent use. The zero value matches nothing.
type Index struct {
	// Each entry already holds what is found at the less specific levels, for
	// both phases on their own, so the first entry found is the answer.
	methods  map[string]phases // by "/pkg.Svc/M"
	services map[string]phases // by "pkg.Svc"
	all      phases

	functions  map[string]*Match
	eventTypes map[string]*Match
	groups     map[string]*Match // by name without ".*"
	anyEvent   *Match

	matches []*Match // by Ordinal
}

// phases are the matches for the two phases of a call. Nil: nothing runs.
type phases struct{ request, response *Match }

// or fills the gaps of p with what a less specific level has.
func (p phases) or(wider phases) phases {
	if p.request == nil {
		p.request = wider.request
	}
	if p.response == nil {
		p.response = wider.response
	}
	return p
}

// NewIndex compiles the executions. What it has to skip (includes that are
// missing, too deep or circular, executions whose condition cannot be read or
// stands twice, of which the last one counts) is reported and does not keep the
// rest from working. The arguments are not kept.
func NewIndex(executions []Execution, o Options) (*Index, []Problem) {
	r, conditions := newResolver(executions, o)
	ids := make([]string, 0, len(r.executions))
	for id, e := range r.executions {
		if !e.Disabled {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids) // so that two indexes of the same executions are alike

	x := &Index{
		methods: make(map[string]phases), services: make(map[string]phases),
		functions: make(map[string]*Match), eventTypes: make(map[string]*Match), groups: make(map[string]*Match),
	}
	for _, id := range ids {
		reached := r.resolve(id)
		if len(reached) == 0 {
			continue // runs nothing, so it must not hide a less specific one
		}
		targets := make([]string, len(reached))
		for i, t := range reached {
			targets[i] = t.Target
		}
		m := &Match{Execution: id, Kind: conditions[id].Kind, Targets: targets, Ordinal: len(x.matches)}
		x.matches = append(x.matches, m)
		x.add(conditions[id], m)
	}
	x.fill()
	return x, r.problems
}

func (x *Index) add(c Condition, m *Match) {
	switch c.Level {
	case Method:
		x.methods[c.Value] = x.methods[c.Value].or(phasesOf(m))
	case Service:
		x.services[c.Value] = x.services[c.Value].or(phasesOf(m))
	case Name:
		x.functions[c.Value] = m
	case EventType:
		x.eventTypes[c.Value] = m
	case Group:
		x.groups[c.Value] = m
	case All:
		if c.Kind == Event {
			x.anyEvent = m
		} else {
			x.all = x.all.or(phasesOf(m))
		}
	}
}

func phasesOf(m *Match) phases {
	if m.Kind == Request {
		return phases{request: m}
	}
	return phases{response: m}
}

// fill gives services what stands on all, and methods what stands on their
// service.
func (x *Index) fill() {
	for service, p := range x.services {
		x.services[service] = p.or(x.all)
	}
	for method, p := range x.methods {
		wider := x.all
		if service, ok := serviceOf(method); ok {
			if s, found := x.services[service]; found {
				wider = s
			}
		}
		x.methods[method] = p.or(wider)
	}
}

// Call returns what a call of the method ("/pkg.Svc/M") runs in its two phases,
// looked up independently; nil means nothing. A name of another form is only
// matched by an execution on all.
//
// It allocates nothing and takes at most two map lookups, however many
// executions there are.
func (x *Index) Call(fullMethod string) (request, response *Match) {
	if p, found := x.methods[fullMethod]; found {
		return p.request, p.response
	}
	if service, ok := serviceOf(fullMethod); ok {
		if p, found := x.services[service]; found {
			return p.request, p.response
		}
	}
	return x.all.request, x.all.response
}

// Function returns what the function runs, or nil.
func (x *Index) Function(name string) *Match { return x.functions[name] }

// Event returns what an event of the type runs, or nil: the execution on the
// type itself, else on the group of that very name, else on the closest group
// above it, else on all events.
func (x *Index) Event(eventType string) *Match {
	if m, found := x.eventTypes[eventType]; found {
		return m
	}
	for group := eventType; group != ""; group = parentGroup(group) {
		if m, found := x.groups[group]; found {
			return m
		}
	}
	return x.anyEvent
}

// HasCalls reports whether any call at all can run something.
func (x *Index) HasCalls() bool {
	return len(x.methods) > 0 || len(x.services) > 0 || x.all != phases{}
}

// Executions walks the executions that can run, by ascending id: enabled, and
// with at least one target.
func (x *Index) Executions() iter.Seq[*Match] { return slices.Values(x.matches) }
