package conditions_test

import (
	"reflect"
	"testing"

	"github.com/execgate/execgate/conditions"
)

func TestTraceSaysWhereTargetsComeFrom(t *testing.T) {
	t.Parallel()
	execution := func(id string, disabled bool, targets, includes []string) conditions.Execution {
		c, err := conditions.Parse(id)
		if err != nil {
			t.Fatal(err)
		}
		return conditions.Execution{Condition: c, Targets: targets, Includes: includes, Disabled: disabled}
	}
	executions := []conditions.Execution{
		execution("request/a.B/C", true, []string{"1", "gone"}, []string{"request/a.B", "request/x.Y", "request/missing.S"}),
		execution("request/a.B", false, []string{"2"}, []string{"request"}),
		execution("request", false, []string{"1"}, []string{"request/a.B/C"}),
		execution("request/x.Y", true, []string{"3"}, nil),
	}
	o := conditions.Options{HasTarget: func(id string) bool { return id != "gone" }}
	got, problems := conditions.Trace(executions, "request./a.B/C", o)
	want := []conditions.Reached{
		{Target: "1", Execution: "request/a.B/C"}, {Target: "2", Execution: "request/a.B"}, {Target: "1", Execution: "request"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if len(problems) != 1 { // the one that is missing
		t.Errorf("problems %v", problems)
	}
	if got, _ := conditions.Trace(executions, "request/no.Such", o); got != nil {
		t.Errorf("got %v for an execution that is not there", got)
	}
}
