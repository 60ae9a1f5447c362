package queue_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/queue"
	"github.com/execgate/execgate/queue/queuetest"
)

func TestPayloadsAtRestAreSealed(t *testing.T) {
	t.Parallel()
	sealer, err := queue.NewSealer(bytes.Repeat([]byte("k"), 32))
	if err != nil {
		t.Fatal(err)
	}
	secret := []byte("the secret payload")
	// One that waits, one that is dead, one that was delivered.
	fill := func(t *testing.T, q queue.Backend) {
		for range 3 {
			if err := q.Put(t.Context(), &queue.Record{ID: queue.NewID(time.Now()), Target: "t", Body: secret}); err != nil {
				t.Fatal(err)
			}
		}
		leases, err := q.Lease(t.Context(), "t", 2)
		if err != nil || len(leases) != 2 {
			t.Fatalf("leased %d, %v", len(leases), err)
		}
		for i, action := range []queue.Action{queue.Delivered, queue.Dead} {
			if err := q.Settle(t.Context(), leases[i], queue.Verdict{Action: action}); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "queue.db")
		fill(t, openEmbedded(t, path, queuetest.Setup{Sealer: sealer}))
		stored, err := os.ReadFile(path)
		if err != nil || bytes.Contains(stored, secret) {
			t.Errorf("the file shows a payload, or cannot be read: %v", err)
		}
		if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v", fi.Mode(), err)
		}
	})
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		server := testkit.StartRedis(t, testkit.RedisOptions{})
		behind := server.Client()
		fill(t, openRedis(t, redisClient(t, server.Addr), queue.RedisOptions{Sealer: sealer, Timeout: 10 * time.Second}))
		bodies := behind.HGetAll(t.Context(), "execgate:{default}:queue:bodies:t").Val()
		if len(bodies) != 2 {
			t.Errorf("%d payloads are kept", len(bodies))
		}
		for _, key := range behind.Keys(t.Context(), "*").Val() {
			if stored := behind.Dump(t.Context(), key).Val(); bytes.Contains([]byte(stored), secret) {
				t.Errorf("%s shows a payload", key)
			}
		}
		if text := fmt.Sprint(bodies); bytes.Contains([]byte(text), secret) {
			t.Error("the bodies show a payload")
		}
	})
}
