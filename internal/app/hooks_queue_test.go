package app_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/execgate/execgate/internal/config"
	"github.com/execgate/execgate/internal/testkit"
)

// zitadelEvent is ZITADEL's payload of an event of now.
func zitadelEvent(eventType, aggregateID string, sequence int) string {
	return fmt.Sprintf(`{"aggregateID":%q,"aggregateType":"user","instanceID":"3","sequence":%d,"event_type":%q,"created_at":%q}`,
		aggregateID, sequence, eventType, time.Now().UTC().Format(time.RFC3339Nano))
}

// cloudEvents is a batch of CloudEvents with these ids.
func cloudEvents(ids ...string) string {
	var list []string
	for _, id := range ids {
		list = append(list, fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"/crm","type":"crm.changed","subject":%[1]q}`, id))
	}
	return "[" + strings.Join(list, ",") + "]"
}

// sendEvents posts an event, or a batch, that must be accepted.
func (g *gateway) sendEvents(body string) {
	g.t.Helper()
	contentType := "application/json"
	if strings.HasPrefix(body, "[") {
		contentType = "application/cloudevents-batch+json"
	}
	if status, answer := g.post("/events", body, "Content-Type", contentType); status != http.StatusAccepted {
		g.t.Fatalf("%s: %d %s", body, status, answer)
	}
}

// subjects are the aggregate ids that a target was told of, in order.
func subjects(requests []testkit.TargetRequest) (ids []string) {
	for _, r := range requests {
		id, _ := r.JSON()["aggregateID"].(string)
		ids = append(ids, id)
	}
	return ids
}

func TestARepeatedEventIsDroppedWhoeverRepeatsIt(t *testing.T) {
	t.Parallel()
	onEveryQueue(t, func(t *testing.T, configured func(string) *config.Config) {
		_, addr := upstream(t, "127.0.0.1:0")
		c := withHooks(configured(addr))
		g := start(t, c)
		target := testkit.NewTarget(t, testkit.TargetOptions{})
		g.put(onEvent("user.locked"), []string{g.createTarget(webhook("told", target.URL))})
		g.put(onEvent("crm.changed"), []string{g.createTarget(webhook("crm", target.URL))})
		one := zitadelEvent("user.locked", "z", 1)
		g.sendEvents(one)
		g.sendEvents(cloudEvents("a", "b"))
		target.Wait(3, 20*time.Second)
		until(t, "all are delivered", func() bool { return len(g.deliveries("delivered")) == 3 })

		g.sendEvents(one)
		g.sendEvents(cloudEvents("b", "c", "a", "c")) // in part
		target.Wait(4, 20*time.Second)
		if err := g.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		gateways := []*gateway{start(t, c)}
		if c.Store.Driver == "redis" {
			gateways = append(gateways, start(t, withHooks(configured(addr))))
		}
		for _, again := range gateways {
			again.sendEvents(one)
			again.sendEvents(cloudEvents("a", "b", "c"))
		}
		gateways[len(gateways)-1].sendEvents(zitadelEvent("user.locked", "last", 1))
		target.Wait(5, 20*time.Second)
		until(t, "nothing is left", func() bool { return len(gateways[0].deliveries("pending")) == 0 })
		seen := map[string]int{}
		for _, id := range subjects(target.Requests()) {
			seen[id]++
		}
		if len(target.Requests()) != 5 || len(seen) != 5 {
			t.Errorf("told of %v", seen)
		}
	})
}

func TestAQueueInMemoryDropsRepeatedEvents(t *testing.T) {
	t.Parallel()
	_, addr := upstream(t, "127.0.0.1:0")
	c := withHooks(configuration(t, addr))
	c.Queue.Driver = "memory"
	g := start(t, c)
	target := testkit.NewTarget(t, testkit.TargetOptions{})
	g.put(onEvent("crm.changed"), []string{g.createTarget(webhook("crm", target.URL))})
	g.sendEvents(cloudEvents("a", "a"))
	g.sendEvents(cloudEvents("b", "a"))
	g.sendEvents(cloudEvents("last"))
	target.Wait(3, 20*time.Second)
	if err := g.Stop(t.Context()); err != nil { // what it has taken is told
		t.Fatal(err)
	}
	if got := subjects(target.Requests()); len(got) != 3 {
		t.Errorf("told of %v", got)
	}
}

func TestEventsThatRedisCannotTakeAreKeptOrRefused(t *testing.T) {
	t.Parallel()
	for name, spool := range map[string]int64{"spool": 1 << 20, "no spool": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, addr := upstream(t, "127.0.0.1:0")
			redis := testkit.StartRedis(t, testkit.RedisOptions{AOF: true})
			c := withHooks(onRedis(configuration(t, addr), redis.URL))
			c.Queue.Spool.MaxBytes = spool
			g := start(t, c)
			target := testkit.NewTarget(t, testkit.TargetOptions{})
			g.put(onEvent("crm.changed"), []string{g.createTarget(webhook("crm", target.URL))})
			g.sendEvents(cloudEvents("before"))
			target.Wait(1, 20*time.Second)
			redis.Kill()
			batch := cloudEvents("a", "before", "b")
			status, answer := g.post("/events", batch, "Content-Type", "application/cloudevents-batch+json")
			if want := map[bool]int{true: 202, false: 503}[spool > 0]; status != want || strings.Contains(answer, redis.Addr) {
				t.Errorf("without Redis: %d %s", status, answer)
			}
			redis.Restart()
			until(t, "Redis takes events", func() bool {
				status, _ := g.post("/events", batch, "Content-Type", "application/cloudevents-batch+json")
				return status == http.StatusAccepted
			})
			target.Wait(3, 20*time.Second)
			g.sendEvents(cloudEvents("last"))
			target.Wait(4, 20*time.Second)
			until(t, "nothing is left", func() bool { return len(g.deliveries("pending")) == 0 })
			if got := subjects(target.Requests()); len(got) != 4 {
				t.Errorf("told of %v", got)
			}
		})
	}
}

func TestAFullQueueRefusesEvents(t *testing.T) {
	t.Parallel()
	onEveryQueue(t, func(t *testing.T, configured func(string) *config.Config) {
		_, addr := upstream(t, "127.0.0.1:0")
		c := withHooks(configured(addr))
		c.Queue.MaxPending = 1
		g := start(t, c)
		target := testkit.NewTarget(t, testkit.TargetOptions{})
		target.Answer(testkit.Answer{Hang: true})
		g.put(onEvent("crm.changed"), []string{g.createTarget(webhook("crm", target.URL))})
		g.sendEvents(cloudEvents("a"))
		target.Wait(1, 20*time.Second)
		if status, answer := g.post("/events", cloudEvents("b"), "Content-Type", "application/cloudevents-batch+json"); status != 503 {
			t.Errorf("%d %s", status, answer)
		}
		if got := g.metric(`execgate_events_total{outcome="failed",source="ingest"}`); got != "1" {
			t.Errorf("failed: %q", got)
		}
		target.Answer(testkit.Answer{})
		target.Release()
		until(t, "there is room again", func() bool {
			status, _ := g.post("/events", cloudEvents("a", "b"), "Content-Type", "application/cloudevents-batch+json")
			return status == http.StatusAccepted
		})
		if got := subjects(target.Wait(2, 20*time.Second)); got[1] != "b" {
			t.Errorf("told of %v", got)
		}
	})
}

func TestAnEventOfATargetThatIsDownIsToldLater(t *testing.T) {
	t.Parallel()
	onEveryQueue(t, func(t *testing.T, configured func(string) *config.Config) {
		_, addr := upstream(t, "127.0.0.1:0")
		c := withHooks(configured(addr))
		c.Queue.Retry.FirstDelay = 50 * time.Millisecond
		c.TargetClient.Breaker.ConsecutiveFailures, c.TargetClient.Breaker.OpenFor = 2, 200*time.Millisecond
		g := start(t, c)
		target, healthy := testkit.NewTarget(t, testkit.TargetOptions{}), testkit.NewTarget(t, testkit.TargetOptions{})
		target.Answer(testkit.Answer{Status: 503}, testkit.Answer{Cut: true}, testkit.Answer{Status: 500}, testkit.Answer{})
		down, up := g.createTarget(webhook("down", target.URL)), g.createTarget(webhook("up", healthy.URL))
		g.put(onEvent("crm.changed"), []string{down, up})
		g.sendEvents(cloudEvents("a"))
		healthy.Wait(1, 20*time.Second) // it does not wait for the other one
		requests := target.Wait(4, 20*time.Second)
		for i, r := range requests {
			if r.Header.Get("execgate-attempt") != fmt.Sprint(i+1) || r.Header.Get("webhook-id") != requests[0].Header.Get("webhook-id") {
				t.Errorf("attempt %d: %v", i, r.Header)
			}
		}
		if len(healthy.Requests()) != 1 {
			t.Errorf("the healthy target was told %d times", len(healthy.Requests()))
		}
	})
}

func TestTheJobOfAnEventHasItsTime(t *testing.T) {
	t.Parallel()
	onEveryQueue(t, func(t *testing.T, configured func(string) *config.Config) {
		_, addr := upstream(t, "127.0.0.1:0")
		c := withHooks(configured(addr))
		c.Events.JobTimeout = 300 * time.Millisecond
		c.Queue.Retry.FirstDelay = time.Millisecond
		g := start(t, c)
		target := testkit.NewTarget(t, testkit.TargetOptions{})
		target.Answer(testkit.Answer{Hang: true}, testkit.Answer{})
		g.put(onEvent("crm.changed"), []string{g.createTarget(webhook("slow", target.URL))}) // its own timeout is 10 s
		g.sendEvents(cloudEvents("a"))
		began := time.Now()
		target.WaitLeft(1, 5*time.Second)
		target.Wait(2, 20*time.Second)
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}
