// Package runlog remembers, on this gateway and in memory only, how the last run of each execution ended and what it
// changed, or would have changed in shadow mode. It is what "explain --last" reads.
//
// Payload is kept of shadowed runs alone, because nothing else shows what a rule would do before it may; it is bounded,
// never written anywhere, and gone with the execution. Of other runs the places that changed are kept, not the values.
//
// Start with [New]; a [Log] is a dispatcher.Recorder.
package runlog

import (
	"context"
	"sync"
	"time"

	"github.com/execgate/execgate/dispatcher"
	"github.com/execgate/execgate/internal/jsondiff"
)

// The bounds.
const (
	maxExecutions = 1000
	maxPlaces     = 100
	// maxCompared is the size of both messages together up to which they are compared, maxKept that up to which they are
	// kept, and maxKeptAll that of all that is kept.
	maxCompared = 256 << 10
	maxKept     = 64 << 10
	maxKeptAll  = 16 << 20

	// An execution's enforced runs are recorded up to burst at once, and perSecond in the long run: comparing costs about
	// what decoding does.
	burst     = 20
	perSecond = 10
)

// The outcomes of a run.
const (
	Unchanged   = "unchanged"
	Changed     = "changed"
	Interrupted = "interrupted"
)

// Run is what is remembered of one.
type Run struct {
	Time time.Time
	// Outcome is what happened, or, in shadow mode, what would have.
	Outcome string
	Shadow  bool
	// Diff is what changed, at most 100 places. Without values, unless they were kept.
	Diff []jsondiff.Change
}

// Options say what a Log works with.
type Options struct {
	// ShadowRun is told about every shadowed run, for metrics. May be nil.
	ShadowRun func(execution, outcome string)
	// Now is the clock. Nil: time.Now.
	Now func() time.Time
}

// Log keeps the last runs. It is safe for concurrent use.
type Log struct {
	o Options

	mu      sync.Mutex // guards what follows
	entries map[string]*entry
	kept    int // bytes of payload
}

type entry struct {
	run           Run
	before, after []byte // payload of a shadowed run whose Diff is not made yet
	tokens        float64
	filled        time.Time
}

// New returns an empty log.
func New(o Options) *Log {
	if o.ShadowRun == nil {
		o.ShadowRun = func(string, string) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Log{o: o, entries: make(map[string]*entry)}
}

var _ dispatcher.Recorder = (*Log)(nil)

// Wants implements dispatcher.Recorder.
func (l *Log) Wants(plan *dispatcher.Plan) bool {
	now := l.o.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entry(plan.Execution, now)
	e.tokens = min(burst, e.tokens+now.Sub(e.filled).Seconds()*perSecond)
	e.filled = now
	if e.tokens < 1 {
		return false
	}
	e.tokens--
	return true
}

// Record implements dispatcher.Recorder.
func (l *Log) Record(_ context.Context, r dispatcher.Run) {
	plan := r.Invocation.Plan
	run := Run{Time: l.o.Now(), Outcome: Unchanged, Shadow: plan.Shadow}
	var before, after []byte
	switch {
	case r.Interrupt != nil:
		run.Outcome = Interrupted
	case r.Changed:
		run.Outcome = Changed
		before, after = r.Before, r.After
	}
	if plan.Shadow {
		l.o.ShadowRun(plan.Execution, run.Outcome)
	}
	size := len(before) + len(after)
	switch {
	case size > maxCompared:
		before, after = nil, nil
	case !plan.Shadow || size > maxKept:
		run.Diff = compare(before, after, false)
		before, after = nil, nil
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entry(plan.Execution, run.Time)
	l.drop(e)
	if l.kept+len(before)+len(after) > maxKeptAll {
		run.Diff = compare(before, after, false)
		before, after = nil, nil
	}
	e.run, e.before, e.after = run, before, after
	l.kept += len(before) + len(after)
}

// entry returns that of an execution; a new one takes the place of the oldest when there are too many.
func (l *Log) entry(execution string, now time.Time) *entry {
	if e := l.entries[execution]; e != nil {
		return e
	}
	if len(l.entries) >= maxExecutions {
		oldest := ""
		for id, e := range l.entries {
			if o := l.entries[oldest]; o == nil || e.run.Time.Before(o.run.Time) {
				oldest = id
			}
		}
		l.drop(l.entries[oldest])
		delete(l.entries, oldest)
	}
	e := &entry{tokens: burst, filled: now}
	l.entries[execution] = e
	return e
}

// drop forgets the payload of an entry.
func (l *Log) drop(e *entry) {
	l.kept -= len(e.before) + len(e.after)
	e.before, e.after = nil, nil
}

// Last returns the last run of an execution that was recorded.
func (l *Log) Last(execution string) (Run, bool) {
	l.mu.Lock()
	e := l.entries[execution]
	if e == nil || e.run.Time.IsZero() {
		l.mu.Unlock()
		return Run{}, false
	}
	run, before, after := e.run, e.before, e.after
	l.mu.Unlock()
	if before != nil {
		run.Diff = compare(before, after, true)
	}
	return run, true
}

// Retain forgets the executions that are not named.
func (l *Log) Retain(executions map[string]struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, e := range l.entries {
		if _, ok := executions[id]; !ok {
			l.drop(e)
			delete(l.entries, id)
		}
	}
}

func compare(before, after []byte, values bool) []jsondiff.Change {
	if before == nil || after == nil {
		return nil
	}
	changes, _, err := jsondiff.Diff(before, after, maxPlaces)
	if err != nil {
		return nil
	}
	if !values {
		for i := range changes {
			changes[i].Before, changes[i].After = nil, nil
		}
	}
	return changes
}
