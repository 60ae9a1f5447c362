package app_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/execgate/execgate/internal/config"
	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/internal/testkit/demoapi"
)

// polled makes the configuration poll, with a token in a file.
func polled(t *testing.T, c *config.Config) *config.Config {
	t.Helper()
	c.Events.Poll.Enabled, c.Events.Poll.Interval = true, 10*time.Millisecond
	c.Events.Poll.TokenFile = filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(c.Events.Poll.TokenFile, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

// polls waits until the gateway has read events, or sees that another one does.
func (g *gateway) polls(outcome string) *gateway {
	g.t.Helper()
	until(g.t, "events are polled: "+outcome, func() bool {
		n := g.metric(`execgate_events_polls_total{outcome="` + outcome + `"}`)
		return n != "" && n != "0" && n != "1" // the first look finds the start
	})
	return g
}

// added is the event of a new user.
func added(id string) demoapi.Event {
	return demoapi.Event{AggregateType: "user", AggregateID: id, Type: "user.human.added", Payload: map[string]any{"userName": "mini"}}
}

func TestPolledEvents(t *testing.T) {
	t.Parallel()
	onEveryQueue(t, func(t *testing.T, configured func(string) *config.Config) {
		api, addr := upstream(t, "127.0.0.1:0")
		c := polled(t, configured(addr))
		g := start(t, c).learned()
		target := testkit.NewTarget(t, testkit.TargetOptions{})
		g.put(onEvent("user.human.added"), []string{g.createTarget(webhook("told", target.URL))})
		g.polls("ok")
		api.AppendEvents(added("7"))
		event := target.Wait(1, 20*time.Second)[0].JSON()
		payload, _ := event["event_payload"].(map[string]any)
		if event["event_type"] != "user.human.added" || event["aggregateType"] != "user" || event["aggregateID"] != "7" ||
			event["sequence"] != float64(1) || event["instanceID"] != "default" || event["userID"] != demoapi.DefaultUserID ||
			event["resourceOwner"] != demoapi.DefaultOrgID || event["created_at"] == nil || payload["userName"] != "mini" {
			t.Errorf("got %v", event)
		}
		if event["version"] != nil {
			t.Errorf("the API does not tell the version, but it is %v", event["version"])
		}
		if got := g.metric(`execgate_events_total{outcome="queued",source="poll"}`); got != "1" {
			t.Errorf("polled: %q", got)
		}

		// What happens while no gateway runs is told by the next one, once.
		if err := g.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		api.AppendEvents(added("8"), added("9"))
		again := start(t, c).learned().polls("ok")
		requests := target.Wait(3, 20*time.Second)
		again.polls("ok")
		if len(target.Requests()) != 3 || requests[1].JSON()["aggregateID"] == "7" || requests[2].JSON()["aggregateID"] == "7" {
			t.Errorf("%d requests", len(target.Requests()))
		}
	})
}

func TestPollingATenantOverTLS(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, authority string
		hosts           []string // of the tenant
		serverName      string   // upstream.tls.server_name
		certificate     []string // hosts of the server's certificate
	}{
		{"the URL's own host", "", nil, "", []string{"127.0.0.1"}},
		{"a tenant of another name", "acme.example", []string{"acme.example"}, "", []string{"127.0.0.1"}},
		{"a tenant of another name, a certificate of a third", "acme.example", []string{"acme.example"}, "upstream.internal", []string{"upstream.internal"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			certs := testkit.NewCertificates(t, tc.certificate...)
			api := demoapi.New(demoapi.Options{TLS: certs.Server, Hosts: tc.hosts, Tokens: map[string]string{"secret": "reader"}, Logger: testkit.Logger(t)})
			addr, err := api.Start(t.Context(), "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = api.Stop(context.Background()) })
			c := polled(t, configuration(t, addr))
			c.Upstream.URL, c.Upstream.TLS.CAFile = "https://"+addr, certs.CAFile
			c.Upstream.Authority, c.Upstream.TLS.ServerName = tc.authority, tc.serverName
			g := start(t, c).learned() // reflection goes the same way
			target := testkit.NewTarget(t, testkit.TargetOptions{})
			g.put(onEvent("user.human.added"), []string{g.createTarget(webhook("told", target.URL))})
			g.polls("ok")
			api.AppendEvents(added("7"))
			target.Wait(1, 20*time.Second)
		})
	}
}

func TestTwoGatewaysPollInTurn(t *testing.T) {
	t.Parallel()
	api, addr := upstream(t, "127.0.0.1:0")
	redis := testkit.StartRedis(t, testkit.RedisOptions{AOF: true})
	first := start(t, polled(t, onRedis(configuration(t, addr), redis.URL))).learned()
	target := testkit.NewTarget(t, testkit.TargetOptions{})
	first.put(onEvent("user.human.added"), []string{first.createTarget(webhook("told", target.URL))})
	first.polls("ok")
	second := start(t, polled(t, onRedis(configuration(t, addr), redis.URL))).learned().polls("standby")
	api.AppendEvents(added("1"))
	target.Wait(1, 20*time.Second)
	if err := first.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	api.AppendEvents(added("2"))
	second.polls("ok")
	target.Wait(2, 20*time.Second)
	if n := second.metric(`execgate_events_total{outcome="queued",source="poll"}`); n != "1" {
		t.Errorf("the second gateway told %q", n)
	}

	// Redis restarts while nothing is polled, and events go on.
	redis.Kill()
	api.AppendEvents(added("3"))
	redis.Restart()
	target.Wait(3, 30*time.Second)
}
