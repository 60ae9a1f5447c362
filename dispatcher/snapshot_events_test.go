package dispatcher_test

import (
	"testing"

	"github.com/execgate/execgate/conditions"
	"github.com/execgate/execgate/dispatcher"
	"github.com/execgate/execgate/targetclient"
)

func TestDisabledTargetsOfEventsKeepTheirPlace(t *testing.T) {
	t.Parallel()
	exact, err := conditions.Parse("event/user.added")
	if err != nil {
		t.Fatal(err)
	}
	all, err := conditions.Parse("event")
	if err != nil {
		t.Fatal(err)
	}
	executions := []conditions.Execution{
		{Condition: exact, Targets: []string{"off"}},
		{Condition: all, Targets: []string{"on", "off"}},
	}
	targets := []*targetclient.Target{
		{ID: "on", Kind: targetclient.KindWebhook},
		{ID: "off", Kind: targetclient.KindWebhook, Disabled: true},
	}
	for park, want := range map[bool][]string{false: {"event", "on"}, true: {"event/user.added", "off"}} {
		s, _ := dispatcher.NewSnapshot(1, executions, targets, dispatcher.SnapshotOptions{ParkDisabled: park})
		plan := s.Event("user.added")
		if plan == nil || plan.Execution != want[0] || len(plan.Targets) != 1 || plan.Targets[0].ID != want[1] {
			t.Errorf("parking %v: %+v", park, plan)
		}
	}
}
