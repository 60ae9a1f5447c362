package queue_test

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/queue"
	"github.com/execgate/execgate/queue/queuetest"
)

func redisClient(t testing.TB, addrs ...string) redis.UniversalClient {
	t.Helper()
	c := redis.NewUniversalClient(&redis.UniversalOptions{
		Addrs: addrs, IsClusterMode: len(addrs) > 1, ContextTimeoutEnabled: true, MaxRetries: 1,
		DialTimeout: time.Second, DisableIdentity: true,
	})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func openRedis(t testing.TB, c redis.UniversalClient, o queue.RedisOptions) *queue.Redis {
	t.Helper()
	q, err := queue.NewRedis(c, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.Close() })
	return q
}

func testRedis(t *testing.T, c redis.UniversalClient) {
	const visibility = 3 * time.Second
	queuetest.Run(t, func(t *testing.T) queuetest.Place {
		return queuetest.Place{
			Open: func(t *testing.T, s queuetest.Setup) queue.Backend {
				return openRedis(t, c, queue.RedisOptions{
					KeyPrefix: "test", Instance: t.Name(), Visibility: visibility, Timeout: 10 * time.Second,
					Limits: s.Limits, Sealer: s.Sealer,
				})
			},
			Visibility: visibility,
		}
	})
}

func TestRedis(t *testing.T) {
	t.Parallel()
	testRedis(t, redisClient(t, testkit.StartRedis(t, testkit.RedisOptions{}).Addr))
}

func TestRedisCluster(t *testing.T) {
	t.Parallel()
	testRedis(t, redisClient(t, testkit.StartRedisCluster(t, testkit.RedisOptions{}).Addrs...))
}
