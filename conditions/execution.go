package conditions

import (
	"fmt"
	"slices"
)

// MaxDepth is how many executions one path of includes may hold: the execution
// itself and two levels below it.
const MaxDepth = 3

// Execution binds a condition to what runs when it is met.
type Execution struct {
	Condition Condition
	// Targets are target ids, in the order in which they are called.
	Targets []string
	// Includes are ids of executions whose targets are put in their place, in
	// this order, after Targets.
	Includes []string
	// Disabled makes the execution count as absent, also where it is included.
	Disabled bool
}

// Problem is something in an execution that was skipped when the index was
// built. It is worth a line in the log and never an error for a caller.
type Problem struct {
	Execution string // the id of the execution that runs less than it says
	Text      string // what was skipped, and why
}

// String returns both parts in one line.
func (p Problem) String() string { return fmt.Sprintf("execution %q: %s", p.Execution, p.Text) }

// Reached is a target that an execution calls, and the execution that lists it:
// itself, or one that it includes.
type Reached struct{ Target, Execution string }

// Trace returns what the execution with the given id calls, in order, and which
// execution each target comes from. The executions need be no more than it and
// what it includes. It follows the rules of [NewIndex], except that the
// execution itself may be disabled. Nil when there is no such execution.
func Trace(executions []Execution, id string, o Options) ([]Reached, []Problem) {
	r, _ := newResolver(executions, o)
	if id = r.normalise(id); r.executions[id] == nil {
		return nil, r.problems
	}
	return r.resolve(id), r.problems
}

// newResolver also returns the conditions by id.
func newResolver(executions []Execution, o Options) (*resolver, map[string]Condition) {
	r := &resolver{executions: make(map[string]*Execution, len(executions)), hasTarget: o.HasTarget}
	conditions := make(map[string]Condition, len(executions))
	for i := range executions {
		// Parsing the id brings every spelling of a condition to one form.
		id := executions[i].Condition.ID()
		c, err := Parse(id)
		if err != nil {
			r.problems = append(r.problems, Problem{Execution: id, Text: fmt.Sprintf("skipped: %v", err)})
			continue
		}
		id = c.ID()
		if _, twice := r.executions[id]; twice {
			r.problems = append(r.problems, Problem{Execution: id, Text: "defined twice, the last one counts"})
		}
		r.executions[id], conditions[id] = &executions[i], c
	}
	return r, conditions
}

// resolver flattens includes into lists of targets.
type resolver struct {
	executions map[string]*Execution // by normalised id
	hasTarget  func(id string) bool
	problems   []Problem
	// path holds the ids from the execution being resolved down to the current
	// one; it is as long as the current depth.
	path []string
}

// resolve returns the targets of an execution, depth first, with includes in
// place. Targets that are gone and includes that may not be followed are left
// out. It is nil when nothing remains.
func (r *resolver) resolve(id string) []Reached {
	r.path = append(r.path, id)
	defer func() { r.path = r.path[:len(r.path)-1] }()

	var targets []Reached
	e := r.executions[id]
	for _, target := range e.Targets {
		if r.hasTarget == nil || r.hasTarget(target) {
			targets = append(targets, Reached{Target: target, Execution: id})
		}
	}
	for _, spelled := range e.Includes {
		include := r.normalise(spelled)
		included, found := r.executions[include]
		switch {
		case !found:
			r.skip(spelled, "there is no such execution")
		case included.Disabled:
		case slices.Contains(r.path, include):
			r.skip(spelled, "it would include itself")
		case len(r.path) == MaxDepth:
			r.skip(spelled, fmt.Sprintf("more than %d levels", MaxDepth))
		default:
			targets = append(targets, r.resolve(include)...)
		}
	}
	return targets
}

func (r *resolver) skip(include, why string) {
	r.problems = append(r.problems, Problem{
		Execution: r.path[0],
		Text:      fmt.Sprintf("include %q of %q skipped: %s", include, r.path[len(r.path)-1], why),
	})
}

// normalise returns the id of an included execution in the spelling of the map.
func (r *resolver) normalise(include string) string {
	if _, found := r.executions[include]; !found {
		if c, err := Parse(include); err == nil {
			return c.ID()
		}
	}
	return include
}
