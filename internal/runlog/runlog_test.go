package runlog_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/execgate/execgate/dispatcher"
	"github.com/execgate/execgate/internal/runlog"
)

func run(execution string, shadow bool, before, after string) dispatcher.Run {
	plan := &dispatcher.Plan{Execution: execution, Shadow: shadow}
	return dispatcher.Run{
		Invocation: &dispatcher.Invocation{Plan: plan}, Before: []byte(before), After: []byte(after), Changed: before != after,
	}
}

func describe(l *runlog.Log, execution string) string {
	r, ok := l.Last(execution)
	if !ok {
		return "none"
	}
	s := r.Outcome
	if r.Shadow {
		s += " in shadow"
	}
	for _, c := range r.Diff {
		s += fmt.Sprintf("; %s %s %s>%s", c.Path, c.Op, c.Before, c.After)
	}
	return s
}

func TestValuesAreKeptOfShadowedRunsOnly(t *testing.T) {
	t.Parallel()
	var counted []string
	l := runlog.New(runlog.Options{ShadowRun: func(execution, outcome string) { counted = append(counted, execution+" "+outcome) }})
	for _, step := range []struct {
		run  dispatcher.Run
		want string
	}{
		{run("a", true, `{"x":1}`, `{"x":2}`), "changed in shadow; x replace 1>2"},
		{run("a", true, `{"x":1}`, `{"x":1}`), "unchanged in shadow"},
		{run("a", false, `{"x":1}`, `{"x":2}`), "changed; x replace >"},
		{run("a", false, `{"x":1}`, ``), "changed"}, // cannot be compared
		{dispatcher.Run{Invocation: run("a", true, "", "").Invocation, Interrupt: &dispatcher.InterruptError{}, Changed: true, Before: []byte("{}"), After: []byte(`{"x":1}`)}, "interrupted in shadow"},
		{run("a", true, `{"x":"`+strings.Repeat("b", 40<<10)+`"}`, `{"x":"`+strings.Repeat("c", 40<<10)+`"}`), "changed in shadow; x replace >"},
		{run("a", true, `{"x":"`+strings.Repeat("b", 200<<10)+`"}`, `{"x":"`+strings.Repeat("c", 200<<10)+`"}`), "changed in shadow"},
	} {
		l.Record(t.Context(), step.run)
		if got := describe(l, "a"); got != step.want {
			t.Errorf("got %s, want %s", got, step.want)
		}
	}
	if got := strings.Join(counted, ", "); got != "a changed, a unchanged, a interrupted, a changed, a changed" {
		t.Errorf("counted %s", got)
	}
	l.Retain(map[string]struct{}{"b": {}})
	if got := describe(l, "a"); got != "none" {
		t.Errorf("after it was deleted: %s", got)
	}
}

func TestEnforcedRunsAreSampled(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	l := runlog.New(runlog.Options{Now: func() time.Time { return now }})
	wanted := func(execution string) (n int) {
		for range 100 {
			if l.Wants(&dispatcher.Plan{Execution: execution}) {
				n++
			}
		}
		return n
	}
	if n := wanted("a"); n != 20 {
		t.Errorf("%d at once, want 20", n)
	}
	if n := wanted("b"); n != 20 {
		t.Errorf("%d of another one, want 20", n)
	}
	now = now.Add(time.Second)
	if n := wanted("a"); n != 10 {
		t.Errorf("%d a second later, want 10", n)
	}
	if got := describe(l, "a"); got != "none" {
		t.Errorf("what was only wanted is remembered: %s", got)
	}
}

func TestTheLogIsBounded(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	l := runlog.New(runlog.Options{Now: func() time.Time { return now }})
	payload := strings.Repeat("b", 30<<10)
	values := 0
	for i := range 1001 {
		now = now.Add(time.Second)
		if i == 300 {
			payload = "b"
		}
		l.Record(t.Context(), run(fmt.Sprint(i), true, `{"x":"`+payload+`"}`, `{"x":"`+payload+`c"}`))
	}
	for i := range 1001 {
		r, ok := l.Last(fmt.Sprint(i))
		if ok == (i == 0) {
			t.Fatalf("run %d remembered: %t", i, ok)
		}
		if ok && r.Diff[0].After != nil {
			values += len(r.Diff[0].Before) + len(r.Diff[0].After)
		}
	}
	if values == 0 || values > 16<<20 {
		t.Errorf("%d bytes of payload are kept", values)
	}
}
