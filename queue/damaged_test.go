package queue_test

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/queue"
	"github.com/execgate/execgate/queue/queuetest"
)

func TestADamagedDeliveryHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	put := func(t *testing.T, q queue.Backend, body string) string {
		id := queue.NewID(time.Now())
		if err := q.Put(t.Context(), &queue.Record{ID: id, Target: "t", Body: []byte(body)}); err != nil {
			t.Fatal(err)
		}
		return id
	}
	check := func(t *testing.T, q queue.Backend, damaged string) {
		leases, err := q.Lease(t.Context(), "t", 10)
		if err != nil || len(leases) != 2 {
			t.Fatalf("leased %d, %v", len(leases), err)
		}
		for _, l := range leases {
			action := queue.Delivered
			if l.Record.ID == damaged {
				action, l.Record.Reason = queue.Dead, queue.DeadDamaged
				if !errors.Is(l.Fault, queue.ErrDamaged) {
					t.Errorf("fault %v", l.Fault)
				}
			} else if l.Fault != nil {
				t.Errorf("fault %v", l.Fault)
			}
			if err := q.Settle(t.Context(), l, queue.Verdict{Action: action}); err != nil {
				t.Fatal(err)
			}
		}
		if r, err := q.Get(t.Context(), damaged); err != nil || r.State != queue.StateDead || r.Reason != queue.DeadDamaged {
			t.Errorf("got %+v, %v", r, err)
		}
		counts, err := q.Counts(t.Context())
		if err != nil || len(counts) != 1 || counts[0] != (queue.Count{Target: "t", Dead: 1, Delivered: 1}) {
			t.Errorf("counts %+v, %v", counts, err)
		}
	}
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "queue.db")
		q := openEmbedded(t, path, queuetest.Setup{})
		damaged := put(t, q, "damaged")
		put(t, q, "well")
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
		db, err := bolt.Open(path, 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		err = db.Update(func(tx *bolt.Tx) error {
			return tx.Bucket([]byte("targets")).Bucket([]byte("t")).Bucket([]byte("heads")).Put([]byte(damaged), []byte("rubbish"))
		})
		if err := errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
		check(t, openEmbedded(t, path, queuetest.Setup{}), damaged)
	})
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		server := testkit.StartRedis(t, testkit.RedisOptions{})
		q := openRedis(t, redisClient(t, server.Addr), queue.RedisOptions{Timeout: 10 * time.Second})
		damaged := put(t, q, "damaged")
		put(t, q, "well")
		if err := server.Client().HSet(t.Context(), "execgate:{default}:queue:heads:t", damaged, "rubbish").Err(); err != nil {
			t.Fatal(err)
		}
		check(t, q, damaged)
	})
}
