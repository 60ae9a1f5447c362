package conditions_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/execgate/execgate/conditions"
)

// execution returns an enabled execution of the id; its only target is named
// after it unless targets are given.
func execution(tb testing.TB, id string, targets ...string) conditions.Execution {
	tb.Helper()
	c, err := conditions.Parse(id)
	if err != nil {
		tb.Fatal(err)
	}
	if len(targets) == 0 {
		targets = []string{"t:" + id}
	}
	return conditions.Execution{Condition: c, Targets: targets}
}

// including returns an enabled execution that only includes others.
func including(tb testing.TB, id string, includes ...string) conditions.Execution {
	tb.Helper()
	e := execution(tb, id)
	e.Targets, e.Includes = nil, includes
	return e
}

// index builds an index in which everything resolves.
func index(tb testing.TB, executions ...conditions.Execution) *conditions.Index {
	tb.Helper()
	x, problems := conditions.NewIndex(executions, conditions.Options{})
	if len(problems) > 0 {
		tb.Fatalf("problems: %v", problems)
	}
	return x
}

// ran is the id of the match, empty when there is none.
func ran(m *conditions.Match) string {
	if m == nil {
		return ""
	}
	return m.Execution
}

func TestCallRunsOnlyTheMostSpecific(t *testing.T) {
	t.Parallel()
	// The stored executions and calls of the examples in the specification, and
	// the same in the response phase.
	stored := map[string][]string{
		"all levels":       {"", "/p.S", "/p.S/M"},
		"no method":        {"", "/p.S"},
		"only all":         {""},
		"only the service": {"/p.S"},
		"only the method":  {"/p.S/M"},
		"method and all":   {"", "/p.S/M"},
		"nothing":          {},
	}
	tests := []struct{ stored, call, want string }{
		{"all levels", "/p.S/M", "/p.S/M"},
		{"all levels", "/p.S/N", "/p.S"},
		{"all levels", "/p.T/X", ""},
		{"no method", "/p.S/M", "/p.S"},
		{"only all", "/p.S/M", ""},
		{"only the service", "/p.S/M", "/p.S"},
		{"only the service", "/p.T/M", "-"},
		{"only the method", "/p.S/M", "/p.S/M"},
		{"only the method", "/p.S/N", "-"},
		{"method and all", "/p.S/N", ""},
		{"nothing", "/p.S/M", "-"},
		// Whole segments, case-sensitive.
		{"only the method", "/p.S/MX", "-"},
		{"only the method", "/p.S/m", "-"},
		{"only the method", "/p.s/M", "-"},
		{"only the method", "p.S/M", "-"},
		{"only the service", "/p.SX/M", "-"},
		{"only the service", "/p.S.T/M", "-"},
		{"only the service", "/x.p.S/M", "-"},
		{"only the service", "/p/S", "-"},
		{"only the service", "/p.S", "-"},
		// Not the name of a method: whoever asks has seen a call, so all holds.
		{"all levels", "/p.S/M/", ""},
		{"all levels", "nonsense", ""},
		{"all levels", "", ""},
	}
	for _, test := range tests {
		t.Run(test.stored+" "+test.call, func(t *testing.T) {
			t.Parallel()
			for _, kind := range []conditions.Kind{conditions.Request, conditions.Response} {
				var executions []conditions.Execution
				for _, rest := range stored[test.stored] {
					executions = append(executions, execution(t, kind.String()+rest))
				}
				want := kind.String() + test.want
				if test.want == "-" {
					want = ""
				}
				request, response := index(t, executions...).Call(test.call)
				hit, other := request, response
				if kind == conditions.Response {
					hit, other = response, request
				}
				if got := ran(hit); got != want {
					t.Errorf("%s phase runs %q, want %q", kind, got, want)
				}
				if other != nil {
					t.Errorf("the other phase runs %q", ran(other))
				}
				if hit != nil && (hit.Kind != kind || !slices.Equal(hit.Targets, []string{"t:" + want})) {
					t.Errorf("match = %+v", *hit)
				}
			}
		})
	}
}

func TestPhasesFallBackIndependently(t *testing.T) {
	t.Parallel()
	x := index(t, execution(t, "request"), execution(t, "request/p.S/M"), execution(t, "response/p.S"), execution(t, "response/p.T/M"))
	tests := []struct{ call, request, response string }{
		{"/p.S/M", "request/p.S/M", "response/p.S"},
		{"/p.S/N", "request", "response/p.S"},
		{"/p.T/M", "request", "response/p.T/M"},
		{"/p.T/N", "request", ""},
	}
	for _, test := range tests {
		request, response := x.Call(test.call)
		if ran(request) != test.request || ran(response) != test.response {
			t.Errorf("Call(%q) = %q, %q; want %q, %q", test.call, ran(request), ran(response), test.request, test.response)
		}
	}
}

func TestEvent(t *testing.T) {
	t.Parallel()
	stored := map[string][]string{
		"spec":      {"event", "event/foo.*", "event/foo.bar"},
		"no all":    {"event/foo.*", "event/foo.bar"},
		"one group": {"event/user.*"},
		"nested":    {"event/user.*", "event/user.human.*", "event/user.human.email.*", "event/user.human"},
		"type":      {"event/user.human"},
	}
	tests := []struct{ stored, event, want string }{
		{"spec", "foo.bar", "event/foo.bar"},
		{"spec", "foo.baz", "event/foo.*"},
		{"spec", "foo.bar.baz", "event/foo.*"},
		{"spec", "bar.foo", "event"},
		{"spec", "foo", "event/foo.*"}, // a group's own name
		{"spec", "", "event"},
		{"no all", "bar.foo", ""},
		{"one group", "user.added", "event/user.*"},
		{"one group", "user.grant.added", "event/user.*"},
		{"one group", "user_schema.created", ""},
		{"one group", "usergrant.added", ""},
		{"one group", "User.added", ""},
		{"one group", "x.user.added", ""},
		{"nested", "user.human.email.changed", "event/user.human.email.*"},
		{"nested", "user.human.email", "event/user.human.email.*"},
		{"nested", "user.human.added", "event/user.human.*"},
		{"nested", "user.human", "event/user.human"},
		{"nested", "user.machine.added", "event/user.*"},
		{"type", "user.human.added", ""},
		{"type", "user", ""},
	}
	for _, test := range tests {
		t.Run(test.stored+" "+test.event, func(t *testing.T) {
			t.Parallel()
			var executions []conditions.Execution
			for _, id := range stored[test.stored] {
				executions = append(executions, execution(t, id))
			}
			if got := ran(index(t, executions...).Event(test.event)); got != test.want {
				t.Errorf("runs %q, want %q", got, test.want)
			}
		})
	}
}

func TestFunction(t *testing.T) {
	t.Parallel()
	x := index(t, execution(t, "function/preuserinfo"), execution(t, "request"), execution(t, "event"))
	for name, want := range map[string]string{
		"preuserinfo": "function/preuserinfo", "preaccesstoken": "", "PreUserinfo": "", "preuserinfo2": "", "": "",
	} {
		if got := ran(x.Function(name)); got != want {
			t.Errorf("Function(%q) runs %q, want %q", name, got, want)
		}
	}
}

func TestWhatRunsNothingHidesNothing(t *testing.T) {
	t.Parallel()
	disabled := execution(t, "request/p.S/Disabled")
	disabled.Disabled = true
	executions := []conditions.Execution{
		execution(t, "request", "a"),
		including(t, "request/p.S/Empty"),
		execution(t, "request/p.S/Deleted", "gone", "also gone"),
		including(t, "request/p.S/Includes", "request/p.S/Deleted", "request/p.S/Disabled"),
		including(t, "request/p.S/Self", "request/p.S/Self"),
		including(t, "request/p.S/Missing", "request/p.S/Nowhere"),
		execution(t, "request/p.Empty", "gone"),
		execution(t, "event", "a"),
		execution(t, "event/foo.*", "gone"),
		execution(t, "event/foo.bar", "gone"),
		execution(t, "function/f", "gone"),
		disabled,
	}
	x, problems := conditions.NewIndex(executions, conditions.Options{HasTarget: func(id string) bool { return id == "a" }})
	for _, method := range []string{"Empty", "Deleted", "Includes", "Self", "Missing", "Disabled"} {
		if request, _ := x.Call("/p.S/" + method); ran(request) != "request" {
			t.Errorf("%s runs %q, want the execution on all", method, ran(request))
		}
	}
	if request, _ := x.Call("/p.Empty/M"); ran(request) != "request" {
		t.Errorf("the service without targets runs %q, want the execution on all", ran(request))
	}
	if m := x.Event("foo.bar"); ran(m) != "event" {
		t.Errorf("event runs %q, want event", ran(m))
	}
	if m := x.Function("f"); m != nil {
		t.Errorf("function runs %q, want nothing", ran(m))
	}
	if len(problems) != 2 {
		t.Errorf("problems = %v, want those of Self and Missing", problems)
	}
}

func TestIncludes(t *testing.T) {
	t.Parallel()
	const a, b, c, d, e = "request/p.S/A", "request/p.S/B", "request/p.S/C", "request/p.S/D", "request/p.S/E"
	both := execution(t, a, "1", "2")
	both.Includes = []string{b}
	off := execution(t, c, "9")
	off.Disabled = true
	tests := []struct {
		name       string
		executions []conditions.Execution
		want       []string // targets of A
		problems   []string // a part of the text of each problem of A
	}{
		{
			"in listed order, depth first",
			[]conditions.Execution{including(t, a, b, d), including(t, b, c, e), execution(t, c, "3", "1"), execution(t, d, "4", "2"), execution(t, e, "5")},
			[]string{"3", "1", "5", "4", "2"}, nil,
		},
		{
			"own targets before includes",
			[]conditions.Execution{both, execution(t, b, "3")},
			[]string{"1", "2", "3"}, nil,
		},
		{
			"a target reached twice is called twice",
			[]conditions.Execution{including(t, a, b, c), execution(t, b, "1", "2"), execution(t, c, "2", "1")},
			[]string{"1", "2", "2", "1"}, nil,
		},
		{
			"an execution reached twice beside itself is no cycle",
			[]conditions.Execution{including(t, a, b, c), including(t, b, d), including(t, c, d), execution(t, d, "1")},
			[]string{"1", "1"}, nil,
		},
		{
			"an included execution that is gone",
			[]conditions.Execution{including(t, a, d, b), execution(t, b, "1")},
			[]string{"1"}, []string{`include "request/p.S/D" of "request/p.S/A" skipped`},
		},
		{
			"an included execution that is disabled",
			[]conditions.Execution{including(t, a, c, b), execution(t, b, "1"), off},
			[]string{"1"}, nil,
		},
		{
			"two levels below are allowed",
			[]conditions.Execution{including(t, a, b), including(t, b, c), execution(t, c, "1")},
			[]string{"1"}, nil,
		},
		{
			"the third level below is skipped, the rest runs",
			[]conditions.Execution{including(t, a, b, e), including(t, b, c), including(t, c, d), execution(t, d, "1"), execution(t, e, "2")},
			[]string{"2"}, []string{`include "request/p.S/D" of "request/p.S/C" skipped: more than 3 levels`},
		},
		{
			"a cycle of one",
			[]conditions.Execution{including(t, a, a, b), execution(t, b, "1")},
			[]string{"1"}, []string{`include "request/p.S/A" of "request/p.S/A" skipped: it would include itself`},
		},
		{
			"a cycle of two, entered from outside",
			[]conditions.Execution{including(t, a, b, d), including(t, b, c), including(t, c, b), execution(t, d, "1")},
			[]string{"1"}, []string{`include "request/p.S/B" of "request/p.S/C" skipped: it would include itself`},
		},
		{
			"an include in the older spelling",
			[]conditions.Execution{including(t, a, "request./p.S/B"), execution(t, b, "1")},
			[]string{"1"}, nil,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			x, problems := conditions.NewIndex(test.executions, conditions.Options{})
			request, _ := x.Call("/p.S/A")
			if request == nil || !slices.Equal(request.Targets, test.want) {
				t.Errorf("match = %+v, want targets %q", request, test.want)
			}
			problems = slices.DeleteFunc(problems, func(p conditions.Problem) bool { return p.Execution != a })
			if len(problems) != len(test.problems) {
				t.Fatalf("problems = %v, want %d", problems, len(test.problems))
			}
			for i, want := range test.problems {
				if !strings.Contains(problems[i].String(), want) {
					t.Errorf("problem %d = %q, want it to contain %q", i, problems[i], want)
				}
			}
		})
	}
}

func TestDeletedTargetsAreSkippedSilently(t *testing.T) {
	t.Parallel()
	x, problems := conditions.NewIndex(
		[]conditions.Execution{execution(t, "response/p.S", "1", "gone", "2", "1")},
		conditions.Options{HasTarget: func(id string) bool { return id != "gone" }},
	)
	_, response := x.Call("/p.S/M")
	if response == nil || !slices.Equal(response.Targets, []string{"1", "2", "1"}) || len(problems) != 0 {
		t.Errorf("match = %+v, problems = %v", response, problems)
	}
}

func TestExecutionsOfUnreadableOrRepeatedConditions(t *testing.T) {
	t.Parallel()
	x, problems := conditions.NewIndex([]conditions.Execution{
		{Targets: []string{"1"}},
		{Condition: conditions.Condition{Kind: conditions.Function, Level: conditions.All}, Targets: []string{"1"}},
		{Condition: conditions.Condition{Kind: conditions.Event, Level: conditions.Group, Value: "user.*"}, Targets: []string{"1"}},
		execution(t, "request", "1"),
		execution(t, "request", "2"),
	}, conditions.Options{})
	if len(problems) != 3 {
		t.Errorf("problems = %v, want three", problems)
	}
	if m := x.Event("user.added"); ran(m) != "event/user.*" {
		t.Errorf("a group given with its suffix does not match: %q", ran(m))
	}
	if request, _ := x.Call("/p.S/M"); request == nil || !slices.Equal(request.Targets, []string{"2"}) {
		t.Errorf("match = %+v, want the last of the two", request)
	}
}

func TestExecutionsAndHasCalls(t *testing.T) {
	t.Parallel()
	x := index(t, execution(t, "response/p.S"), execution(t, "event"), execution(t, "request"), including(t, "request/p.S"))
	var got []string
	for m := range x.Executions() {
		if m.Ordinal != len(got) {
			t.Errorf("%q has ordinal %d at position %d", m.Execution, m.Ordinal, len(got))
		}
		got = append(got, m.Execution)
	}
	if want := []string{"event", "request", "response/p.S"}; !slices.Equal(got, want) {
		t.Errorf("Executions = %q, want %q", got, want)
	}
	for id, want := range map[string]bool{
		"request": true, "response/p.S": true, "request/p.S/M": true, "event": false, "event/a.*": false, "function/f": false,
	} {
		if got := index(t, execution(t, id)).HasCalls(); got != want {
			t.Errorf("HasCalls with only %q = %t", id, got)
		}
	}
	if index(t, including(t, "request")).HasCalls() {
		t.Error("HasCalls with only an execution that runs nothing")
	}
	var zero conditions.Index
	if request, response := zero.Call("/p.S/M"); request != nil || response != nil || zero.HasCalls() || zero.Event("a") != nil || zero.Function("f") != nil {
		t.Error("the zero Index matches something")
	}
}

func TestLookupAllocatesNothing(t *testing.T) {
	// Not parallel: AllocsPerRun counts the whole process.
	x := index(t, manyExecutions(t, 1000)...)
	names := []string{"/pkg7.Svc/M7", "/pkg7.Svc/Other", "/other.Svc/M", "nonsense"}
	allocs := testing.AllocsPerRun(1000, func() {
		for _, name := range names {
			x.Call(name)
		}
		x.Event("user.human.added")
		x.Function("f")
	})
	if allocs != 0 {
		t.Errorf("%v allocations, want none", allocs)
	}
}

// naive answers as section 3 of the specification reads, with no index.
type naive struct {
	executions []conditions.Execution
	hasTarget  func(string) bool
}

func (n naive) find(id string) *conditions.Execution {
	for i := range n.executions {
		if e := &n.executions[i]; e.Condition.ID() == id && !e.Disabled {
			return e
		}
	}
	return nil
}

func (n naive) targets(id string, above []string) (targets []string) {
	e := n.find(id)
	if e == nil || slices.Contains(above, id) || len(above) == 3 {
		return nil
	}
	for _, target := range e.Targets {
		if n.hasTarget(target) {
			targets = append(targets, target)
		}
	}
	for _, include := range e.Includes {
		targets = append(targets, n.targets(include, append(slices.Clone(above), id))...)
	}
	return targets
}

func (n naive) run(candidates ...string) (id string, targets []string) {
	for _, id := range candidates {
		if targets := n.targets(id, nil); len(targets) > 0 {
			return id, targets
		}
	}
	return "", nil
}

func (n naive) event(name string) (string, []string) {
	candidates := []string{"event/" + name}
	segments := strings.Split(name, ".")
	for i := len(segments); i > 0; i-- {
		candidates = append(candidates, "event/"+strings.Join(segments[:i], ".")+".*")
	}
	return n.run(append(candidates, "event")...)
}

// FuzzIndex: whatever is configured, the index answers like the naive reading.
func FuzzIndex(f *testing.F) {
	for seed := range uint64(32) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		random := rand.New(rand.NewPCG(seed, 1))
		services, methods := []string{"a.S", "a.T", "a.S2"}, []string{"M", "N", "MN"}
		types := []string{"a", "a.b", "a.b.c", "a.bc", "ab", "b"}
		var ids []string
		for _, kind := range []string{"request", "response"} {
			ids = append(ids, kind)
			for _, s := range services {
				ids = append(ids, kind+"/"+s)
				for _, m := range methods {
					ids = append(ids, kind+"/"+s+"/"+m)
				}
			}
		}
		ids = append(ids, "event", "function/f", "function/g")
		for _, e := range types {
			ids = append(ids, "event/"+e, "event/"+e+".*")
		}
		pick := func() string { return ids[random.IntN(len(ids))] }

		n := naive{hasTarget: func(id string) bool { return id != "gone" }}
		share := random.IntN(4) + 1
		for _, id := range ids {
			if random.IntN(4) >= share {
				continue
			}
			e := including(t, id)
			e.Disabled = random.IntN(8) == 0
			for range random.IntN(3) {
				e.Targets = append(e.Targets, []string{"1", "2", "3", "gone"}[random.IntN(4)])
			}
			for range random.IntN(3) {
				e.Includes = append(e.Includes, pick())
			}
			n.executions = append(n.executions, e)
		}
		random.Shuffle(len(n.executions), func(i, j int) {
			n.executions[i], n.executions[j] = n.executions[j], n.executions[i]
		})

		x, _ := conditions.NewIndex(n.executions, conditions.Options{HasTarget: n.hasTarget})
		check := func(trigger string, m *conditions.Match, id string, targets []string) {
			t.Helper()
			if ran(m) != id || m != nil && !slices.Equal(m.Targets, targets) {
				t.Errorf("%s runs %+v, want %q with %q; executions: %+v", trigger, m, id, targets, n.executions)
			}
		}
		for _, s := range append(services, "a", "a.S.T") {
			for _, m := range append(methods, "m", "X") {
				request, response := x.Call("/" + s + "/" + m)
				for kind, match := range map[string]*conditions.Match{"request": request, "response": response} {
					id, targets := n.run(kind+"/"+s+"/"+m, kind+"/"+s, kind)
					check(kind+" /"+s+"/"+m, match, id, targets)
				}
			}
		}
		for _, name := range []string{"f", "g", "h"} {
			id, targets := n.run("function/" + name)
			check("function "+name, x.Function(name), id, targets)
		}
		for _, name := range append(types, "a.b.c.d", "a.c", "b.a", "c", "A.b") {
			id, targets := n.event(name)
			check("event "+name, x.Event(name), id, targets)
		}
	})
}

// manyExecutions returns n executions on methods, services and events, none of
// them on all calls.
func manyExecutions(tb testing.TB, n int) []conditions.Execution {
	tb.Helper()
	executions := make([]conditions.Execution, 0, n)
	for i := range n {
		var id string
		switch i % 4 {
		case 0:
			id = fmt.Sprintf("request/pkg%d.Svc", i)
		case 1:
			id = fmt.Sprintf("event/type%d.*", i)
		case 2:
			id = fmt.Sprintf("response/pkg%d.Svc/M%d", i, i)
		default:
			id = fmt.Sprintf("request/pkg%d.Svc/M%d", i, i)
		}
		executions = append(executions, execution(tb, id, "1"))
	}
	return executions
}
