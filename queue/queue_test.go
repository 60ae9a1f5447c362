package queue_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/execgate/execgate/dispatcher"
	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/queue"
	"github.com/execgate/execgate/queue/queuetest"
)

var (
	_ dispatcher.Queue = (*queue.Memory)(nil)
	_ dispatcher.Queue = (*queue.Durable)(nil)
)

func TestQueues(t *testing.T) {
	t.Parallel()
	durable := func(t *testing.T, b queue.Backend, c queue.Caller, targets queue.Lookup) queuetest.Queue {
		q, err := queue.NewDurable(queue.DurableOptions{
			Backend: b, Caller: c, Targets: targets, Concurrency: 4, Poll: 20 * time.Millisecond, Logger: testkit.Logger(t),
		})
		if err != nil {
			t.Fatal(err)
		}
		return q
	}
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		queuetest.RunQueue(t, func(t *testing.T, c queue.Caller, _ queue.Lookup) queuetest.Queue {
			return queue.NewMemory(queue.Options{Caller: c, Concurrency: 4, Logger: testkit.Logger(t)})
		})
	})
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		queuetest.RunQueue(t, func(t *testing.T, c queue.Caller, targets queue.Lookup) queuetest.Queue {
			return durable(t, openEmbedded(t, filepath.Join(t.TempDir(), "queue.db"), queuetest.Setup{}), c, targets)
		})
	})
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		client := redisClient(t, testkit.StartRedis(t, testkit.RedisOptions{}).Addr)
		queuetest.RunQueue(t, func(t *testing.T, c queue.Caller, targets queue.Lookup) queuetest.Queue {
			return durable(t, openRedis(t, client, queue.RedisOptions{Instance: t.Name(), Timeout: 10 * time.Second}), c, targets)
		})
	})
}
