package queue_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/queue"
	"github.com/execgate/execgate/targetclient"
)

// gateway starts a durable queue on a Redis, with a real client.
func gateway(t *testing.T, server *testkit.Redis, to *targetclient.Target, schedule queue.Schedule) (*queue.Durable, *queue.Redis) {
	t.Helper()
	client, err := targetclient.New(targetclient.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	backend := openRedis(t, redisClient(t, server.Addr), queue.RedisOptions{Timeout: 10 * time.Second})
	q, err := queue.NewDurable(queue.DurableOptions{
		Backend: backend, Caller: client, Schedule: schedule, Concurrency: 4, Poll: 20 * time.Millisecond, Logger: testkit.Logger(t),
		Targets: func(string) (*queue.Settings, bool) { return &queue.Settings{Target: to}, true },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
		cancel()
		q.Stop(ctx)
	})
	return q, backend
}

func TestGatewaysHandOver(t *testing.T) {
	t.Parallel()
	server := testkit.StartRedis(t, testkit.RedisOptions{})
	hanging, open := testkit.NewTarget(t, testkit.TargetOptions{}), testkit.NewTarget(t, testkit.TargetOptions{})
	hanging.Answer(testkit.Answer{Hang: true})
	one, _ := gateway(t, server, &targetclient.Target{ID: "t", Name: "t", URL: hanging.URL, Timeout: time.Minute}, queue.Schedule{})
	const n = 50
	for i := range n {
		if err := one.Enqueue(t.Context(), queue.Delivery{Target: &targetclient.Target{ID: "t"}, Body: fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
	}
	hanging.Wait(4, 20*time.Second)
	// The visibility is 30 s: what was leased only comes sooner if it is handed back.
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	one.Stop(ctx)
	gateway(t, server, &targetclient.Target{ID: "t", Name: "t", URL: open.URL}, queue.Schedule{})
	seen := map[string]bool{}
	for _, r := range open.Wait(n, 20*time.Second) {
		seen[string(r.Body)] = true
		if got := r.Header.Get("execgate-attempt"); got != "1" {
			t.Errorf("attempt %s: one that was cut does not count", got)
		}
	}
	if len(seen) != n || time.Since(began) > 15*time.Second {
		t.Errorf("%d came within %v", len(seen), time.Since(began))
	}
}

func TestEveryAttemptIsSigned(t *testing.T) {
	t.Parallel()
	const secret, key = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "zitadel-key"
	standard, err := targetclient.NewStandardWebhooks(true, false, []string{secret, "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"})
	if err != nil {
		t.Fatal(err)
	}
	reference, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	server := testkit.StartRedis(t, testkit.RedisOptions{})
	receiver := testkit.NewTarget(t, testkit.TargetOptions{SigningKey: key})
	receiver.Answer(testkit.Answer{Status: 503}, testkit.Answer{Status: 400}, testkit.Answer{Status: 200})
	to := &targetclient.Target{ID: "t", Name: "t", URL: receiver.URL, SigningKeys: []string{"old", key}, StandardWebhooks: standard}
	q, backend := gateway(t, server, to, queue.Schedule{FirstDelay: 10 * time.Millisecond})
	if err := q.Enqueue(t.Context(), queue.Delivery{Target: to, Execution: "request", Body: []byte(`{"a":1}`)}); err != nil {
		t.Fatal(err)
	}
	receiver.Wait(2, 20*time.Second)
	var dead queue.Page
	for len(dead.Records) == 0 && t.Context().Err() == nil {
		if dead, err = backend.List(t.Context(), queue.Filter{State: queue.StateDead}); err != nil {
			t.Fatal(err)
		}
	}
	if err := backend.Replay(t.Context(), dead.Records[0].ID); err != nil {
		t.Fatal(err)
	}
	requests := receiver.Wait(3, 20*time.Second)
	for i, r := range requests {
		if r.SignatureErr != nil {
			t.Errorf("attempt %d: ZITADEL-Signature: %v", i+1, r.SignatureErr)
		}
		if err := reference.Verify(r.Body, r.Header); err != nil {
			t.Errorf("attempt %d: webhook-signature: %v", i+1, err)
		}
		if got := r.Header.Get("webhook-id"); got == "" || got != requests[0].Header.Get("webhook-id") {
			t.Errorf("attempt %d: id %q", i+1, got)
		}
		if got := r.Header.Get("execgate-attempt"); got != fmt.Sprint(i+1) {
			t.Errorf("attempt %d: counted as %q", i+1, got)
		}
		if strings.Count(r.Header.Get("webhook-signature"), "v1,") != 2 {
			t.Errorf("attempt %d: %q", i+1, r.Header.Get("webhook-signature"))
		}
	}
}
