package queue_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/queue"
	"github.com/execgate/execgate/targetclient"
)

// TestRedisFailover kills the master behind Sentinel while deliveries are under
// way and come in: what the replica had, and what the spool took in between, is
// delivered by way of the new master.
func TestRedisFailover(t *testing.T) {
	t.Parallel()
	sentinel := testkit.StartRedisSentinel(t, testkit.RedisOptions{AOF: true})
	client := redis.NewFailoverClient(&redis.FailoverOptions{
		MasterName: sentinel.MasterName, SentinelAddrs: sentinel.Addrs, ContextTimeoutEnabled: true, MaxRetries: 1,
		DialTimeout: time.Second,
	})
	t.Cleanup(func() { _ = client.Close() })
	backend := openRedis(t, client, queue.RedisOptions{Visibility: 2 * time.Second})
	spool := openSpool(t, queue.SpoolOptions{Path: filepath.Join(t.TempDir(), "spool.db")})
	caller, err := targetclient.New(targetclient.Options{})
	if err != nil {
		t.Fatal(err)
	}
	receiver := testkit.NewTarget(t, testkit.TargetOptions{})
	receiver.Answer(testkit.Answer{Hang: true})
	to := &targetclient.Target{ID: "t", Name: "t", URL: receiver.URL, Timeout: time.Minute}
	q, err := queue.NewDurable(queue.DurableOptions{
		Backend: backend, Spool: spool, Caller: caller, Concurrency: 4, Logger: testkit.Logger(t),
		Targets: func(string) (*queue.Settings, bool) { return &queue.Settings{Target: to}, true },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Second)
		defer cancel()
		q.Stop(ctx)
		caller.Close()
	})
	ids := map[string]bool{}
	enqueue := func(n int) {
		t.Helper()
		for range n {
			id := queue.NewID(time.Now())
			ids[id] = true
			if err := q.Enqueue(t.Context(), queue.Delivery{ID: id, Target: to, Body: fmt.Append(nil, id)}); err != nil {
				t.Fatal(err)
			}
		}
	}

	enqueue(50)
	receiver.Wait(4, 20*time.Second) // are under way
	master := sentinel.Master.Client()
	if n, err := master.Do(t.Context(), "WAIT", 1, 10_000).Int(); err != nil || n != 1 {
		t.Fatalf("the replica does not follow: %d, %v", n, err)
	}
	sentinel.Master.Kill()
	enqueue(50)
	receiver.Answer(testkit.Answer{})
	receiver.Release() // these arrived, and nobody could be told
	var seen map[string]int
	for n := len(ids); len(seen) < len(ids); n++ {
		seen = map[string]int{}
		for _, r := range receiver.Wait(n, 30*time.Second) {
			seen[r.Header.Get("webhook-id")]++
		}
	}
	twice := 0
	for id := range ids {
		switch n := seen[id]; {
		case n == 0:
			t.Errorf("%s is lost", id)
		case n > 1:
			twice += n - 1
		}
	}
	if twice > 8 { // what was under way, and what the last of it followed
		t.Errorf("%d duplicates", twice)
	}
	counts, err := backend.Counts(t.Context())
	if err != nil || len(counts) != 1 || counts[0].Dead != 0 {
		t.Errorf("counts %+v, %v", counts, err)
	}
}
