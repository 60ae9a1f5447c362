package app_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/internal/testkit/demoapi"
)

func TestPolledEvents(t *testing.T) {
	t.Parallel()
	api, addr := upstream(t, "127.0.0.1:0")
	c := configuration(t, addr)
	c.Events.Poll.Enabled, c.Events.Poll.Interval = true, 10*time.Millisecond
	c.Events.Poll.TokenFile = filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(c.Events.Poll.TokenFile, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	g := start(t, c).learned()
	target := testkit.NewTarget(t, testkit.TargetOptions{})
	g.put(onEvent("user.human.added"), []string{g.createTarget(webhook("told", target.URL))})
	until(t, "the start is kept", func() bool { _, err := os.Stat(c.PollPath()); return err == nil })
	api.AppendEvents(demoapi.Event{AggregateType: "user", AggregateID: "7", Type: "user.human.added", Payload: map[string]any{"userName": "mini"}})
	event := target.Wait(1, 20*time.Second)[0].JSON()
	payload, _ := event["event_payload"].(map[string]any)
	if event["event_type"] != "user.human.added" || event["aggregateType"] != "user" || event["aggregateID"] != "7" ||
		event["sequence"] != float64(1) || event["instanceID"] != "default" || payload["userName"] != "mini" {
		t.Errorf("got %v", event)
	}
	if got := g.metric(`execgate_events_total{outcome="queued",source="poll"}`); got != "1" {
		t.Errorf("polled: %q", got)
	}
}
