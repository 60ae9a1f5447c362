package dispatcher_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/execgate/execgate/conditions"
	"github.com/execgate/execgate/dispatcher"
	"github.com/execgate/execgate/targetclient"
)

func target(id string, kind targetclient.Kind, change ...func(*targetclient.Target)) *targetclient.Target {
	t := &targetclient.Target{ID: id, Name: id, Kind: kind}
	for _, c := range change {
		c(t)
	}
	return t
}

func interrupts(t *targetclient.Target) { t.InterruptOnError = true }
func disabled(t *targetclient.Target)   { t.Disabled = true }

func execution(tb testing.TB, id string, targets ...string) conditions.Execution {
	tb.Helper()
	c, err := conditions.Parse(id)
	if err != nil {
		tb.Fatal(err)
	}
	return conditions.Execution{Condition: c, Targets: targets}
}

func snapshot(tb testing.TB, o dispatcher.SnapshotOptions, executions ...conditions.Execution) *dispatcher.Snapshot {
	tb.Helper()
	s, problems := dispatcher.NewSnapshot(7, executions, []*targetclient.Target{
		target("tell", targetclient.KindWebhook),
		target("ask", targetclient.KindCall),
		target("veto", targetclient.KindCall, interrupts),
		target("off", targetclient.KindWebhook, interrupts, disabled),
		target("async", targetclient.KindAsync, interrupts),
	}, o)
	if len(problems) > 0 {
		tb.Fatal(problems)
	}
	return s
}

// describe says in a line what matters of a plan.
func describe(p *dispatcher.Plan) string {
	if p == nil {
		return "nothing"
	}
	s := fmt.Sprintf("%s %s:", p.Phase, p.Execution)
	for _, t := range p.Targets {
		s += " " + t.Name
	}
	if p.Interrupts {
		s += " interrupts"
	}
	if p.Shadow {
		s += " shadow"
	}
	if p.Protected {
		s += " protected"
	}
	return s
}

func TestSnapshotPlans(t *testing.T) {
	t.Parallel()
	including := execution(t, "response")
	including.Includes = []string{"response/p.S"}
	s := snapshot(t, dispatcher.SnapshotOptions{},
		execution(t, "request", "tell", "gone", "off", "ask", "tell"),
		execution(t, "request/p.S", "ask", "veto"),
		execution(t, "request/p.S/Async", "async"),
		execution(t, "request/p.S/Off", "off"),
		execution(t, "response/p.S", "veto"),
		including,
		execution(t, "function/f", "veto"),
		execution(t, "event/a.*", "async"),
	)
	tests := map[string][2]string{
		"/p.T/M":     {"request request: tell ask tell", "response response: veto interrupts"},
		"/p.S/M":     {"request request/p.S: ask veto interrupts", "response response/p.S: veto interrupts"},
		"/p.S/Off":   {"request request/p.S: ask veto interrupts", "response response/p.S: veto interrupts"},
		"/p.S/Async": {"request request/p.S/Async: async", "response response/p.S: veto interrupts"},
	}
	for method, want := range tests {
		request, response := s.Call(method)
		if got := [2]string{describe(request), describe(response)}; got != want {
			t.Errorf("Call(%q) = %q, want %q", method, got, want)
		}
	}
	if got, want := describe(s.Function("f")), "function function/f: veto interrupts"; got != want {
		t.Errorf("Function = %q, want %q", got, want)
	}
	if got, want := describe(s.Event("a.b")), "event event/a.*: async"; got != want {
		t.Errorf("Event = %q, want %q", got, want)
	}
	if s.Function("g") != nil || s.Event("b") != nil {
		t.Error("a function or event without execution has a plan")
	}
	if s.Generation != 7 || time.Since(s.BuiltAt) > time.Minute {
		t.Errorf("generation %d built at %v", s.Generation, s.BuiltAt)
	}
}

func TestSnapshotInterrupting(t *testing.T) {
	t.Parallel()
	shadow := dispatcher.SnapshotOptions{Policies: map[string]dispatcher.ExecutionPolicy{"request": {Shadow: true}}}
	tests := []struct {
		name         string
		o            dispatcher.SnapshotOptions
		execution    conditions.Execution
		interrupting bool
		hasCalls     bool
	}{
		{"request", dispatcher.SnapshotOptions{}, execution(t, "request", "tell", "veto"), true, true},
		{"response", dispatcher.SnapshotOptions{}, execution(t, "response/p.S/M", "veto"), true, true},
		{"no flag", dispatcher.SnapshotOptions{}, execution(t, "request", "tell", "ask"), false, true},
		{"disabled target", dispatcher.SnapshotOptions{}, execution(t, "request", "off"), false, false},
		{"async target", dispatcher.SnapshotOptions{}, execution(t, "request", "async"), false, true},
		{"event", dispatcher.SnapshotOptions{}, execution(t, "event", "veto"), false, false},
		{"function", dispatcher.SnapshotOptions{}, execution(t, "function/f", "veto"), false, false},
		{"shadow", shadow, execution(t, "request", "veto"), false, true},
		{"shadow of another", shadow, execution(t, "response", "veto"), true, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := snapshot(t, test.o, test.execution)
			if got := s.Interrupting(); got != test.interrupting {
				t.Errorf("Interrupting = %t", got)
			}
			if got := s.HasCalls(); got != test.hasCalls {
				t.Errorf("HasCalls = %t", got)
			}
		})
	}
	off := execution(t, "request", "veto")
	off.Disabled = true
	if s := snapshot(t, dispatcher.SnapshotOptions{}, off); s.Interrupting() || s.HasCalls() {
		t.Error("a disabled execution counts")
	}
}

func TestSnapshotPolicies(t *testing.T) {
	t.Parallel()
	s := snapshot(t, dispatcher.SnapshotOptions{
		Policies:         map[string]dispatcher.ExecutionPolicy{"request/p.S": {Shadow: true}, "request/none": {Shadow: true}},
		ProtectedMethods: []string{"/p.S/Safe", "/p.T/Safe", "/none.N/None"},
	}, execution(t, "request", "veto"), execution(t, "request/p.S", "veto"), execution(t, "response/p.T/Safe", "veto"))
	tests := map[string][2]string{
		"/p.S/M":       {"request request/p.S: veto shadow", "nothing"},
		"/p.S/Safe":    {"request request/p.S: veto shadow protected", "nothing"},
		"/p.T/M":       {"request request: veto interrupts", "nothing"},
		"/p.T/Safe":    {"request request: veto protected", "response response/p.T/Safe: veto protected"},
		"/none.N/None": {"request request: veto protected", "nothing"},
	}
	for method, want := range tests {
		request, response := s.Call(method)
		if got := [2]string{describe(request), describe(response)}; got != want {
			t.Errorf("Call(%q) = %q, want %q", method, got, want)
		}
	}
	if !s.Interrupting() {
		t.Error("not Interrupting, though other methods are not protected")
	}
}

func TestSnapshotReportsProblems(t *testing.T) {
	t.Parallel()
	e := execution(t, "request", "tell")
	e.Includes = []string{"request/p.Gone"}
	s, problems := dispatcher.NewSnapshot(1, []conditions.Execution{e},
		[]*targetclient.Target{target("tell", targetclient.KindWebhook)}, dispatcher.SnapshotOptions{})
	if len(problems) != 1 || problems[0].Execution != "request" {
		t.Errorf("problems = %v, want that of request", problems)
	}
	if request, _ := s.Call("/p.S/M"); describe(request) != "request request: tell" {
		t.Errorf("plan = %s", describe(request))
	}
}

func TestSnapshotLookupAllocatesNothing(t *testing.T) {
	// Not parallel: AllocsPerRun counts the whole process.
	s := snapshot(t, dispatcher.SnapshotOptions{ProtectedMethods: []string{"/p.S/Safe"}},
		execution(t, "request/p.S", "veto"), execution(t, "response/p.S/M", "tell"))
	allocs := testing.AllocsPerRun(1000, func() {
		for _, method := range []string{"/p.S/M", "/p.S/N", "/p.S/Safe", "/p.T/M"} {
			s.Call(method)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations, want none", allocs)
	}
}

func BenchmarkSnapshotCall(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		var executions []conditions.Execution
		for i := range n {
			executions = append(executions, execution(b, fmt.Sprintf("request/pkg.Svc%d/M", i), "veto"))
		}
		s := snapshot(b, dispatcher.SnapshotOptions{}, executions...)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.Call("/pkg.Other/M")
			}
		})
	}
}

func TestSnapshotKeepsTheDisabledThatTheQueueParks(t *testing.T) {
	t.Parallel()
	targets := []*targetclient.Target{
		target("later", targetclient.KindAsync, disabled), target("off", targetclient.KindWebhook, disabled),
	}
	executions := []conditions.Execution{execution(t, "request", "off", "later"), execution(t, "request/p.S", "off")}
	for park, want := range map[bool]string{true: "request request: later", false: "nothing"} {
		s, _ := dispatcher.NewSnapshot(1, executions, targets, dispatcher.SnapshotOptions{ParkDisabled: park})
		if request, _ := s.Call("/p.S/M"); describe(request) != want {
			t.Errorf("parked %t: %s", park, describe(request))
		}
	}
}

// An asynchronous target whose delivery must be taken may end the call; so what
// cannot be shown to it must not pass.
func TestATargetThatBlocksCallsMayInterrupt(t *testing.T) {
	t.Parallel()
	blocks := func(t *targetclient.Target) { t.BlocksCall = true }
	for name, test := range map[string]struct {
		target            *targetclient.Target
		shadow, protected bool
		want              bool
	}{
		"async":                           {target: target("t", targetclient.KindAsync)},
		"async, blocks":                   {target: target("t", targetclient.KindAsync, blocks), want: true},
		"a webhook has no delivery":       {target: target("t", targetclient.KindWebhook, blocks)},
		"async, blocks, in shadow mode":   {target: target("t", targetclient.KindAsync, blocks), shadow: true},
		"async, blocks, protected method": {target: target("t", targetclient.KindAsync, blocks), protected: true},
		"async, interrupt_on_error":       {target: target("t", targetclient.KindAsync, interrupts)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			condition, err := conditions.Parse("request/p.S/M")
			if err != nil {
				t.Fatal(err)
			}
			o := dispatcher.SnapshotOptions{Policies: map[string]dispatcher.ExecutionPolicy{"request/p.S/M": {Shadow: test.shadow}}}
			if test.protected {
				o.ProtectedMethods = []string{"/p.S/M"}
			}
			s, _ := dispatcher.NewSnapshot(1, []conditions.Execution{{Condition: condition, Targets: []string{test.target.ID}}},
				[]*targetclient.Target{test.target}, o)
			request, _ := s.Call("/p.S/M")
			equal(t, "the plan interrupts", request.Interrupts, test.want)
			equal(t, "the snapshot interrupts", s.Interrupting(), test.want || test.protected)
		})
	}
}
