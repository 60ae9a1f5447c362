package queue_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/queue"
)

// trapBundle is a queue of two gateways over one Redis.
type trapBundle struct {
	*testing.T
	server   *testkit.Redis
	behind   *redis.Client // what happens behind the back of the queue
	one, two *queue.Redis
}

const trapVisibility = 300 * time.Millisecond

func trap(t *testing.T, o testkit.RedisOptions) *trapBundle {
	t.Helper()
	b := &trapBundle{T: t, server: testkit.StartRedis(t, o)}
	b.behind = b.server.Client()
	options := queue.RedisOptions{Visibility: trapVisibility, Timeout: 2 * time.Second}
	b.one = openRedis(t, redisClient(t, b.server.Addr), options)
	b.two = openRedis(t, redisClient(t, b.server.Addr), options)
	return b
}

const trapStream = "execgate:{default}:queue:stream:t"

func (b *trapBundle) put(bodies ...string) {
	b.Helper()
	for _, body := range bodies {
		if err := b.one.Put(b.Context(), &queue.Record{ID: queue.NewID(time.Now()), Target: "t", Body: []byte(body)}); err != nil {
			b.Fatalf("put %q: %v", body, err)
		}
	}
}

func (b *trapBundle) lease(q *queue.Redis, limit int) (leases []*queue.Lease, bodies []string) {
	b.Helper()
	leases, err := q.Lease(b.Context(), "t", limit)
	if err != nil {
		b.Fatal(err)
	}
	for _, l := range leases {
		bodies = append(bodies, string(l.Record.Body))
	}
	return leases, bodies
}

// deliver leases and delivers until as many as wanted came, and returns their
// bodies in order.
func (b *trapBundle) deliver(q *queue.Redis, n int) (bodies []string) {
	b.Helper()
	b.eventually("the deliveries come", func() bool {
		leases, more := b.lease(q, n-len(bodies))
		for _, l := range leases {
			b.settle(q, l, queue.Delivered, nil)
		}
		bodies = append(bodies, more...)
		return len(bodies) == n
	})
	slices.Sort(bodies)
	return bodies
}

func (b *trapBundle) eventually(what string, done func() bool) {
	b.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !done(); <-tick.C {
		if time.Now().After(deadline) {
			b.Fatalf("waited in vain: %s", what)
		}
	}
}

func (b *trapBundle) settle(q *queue.Redis, l *queue.Lease, a queue.Action, want error) {
	b.Helper()
	if err := q.Settle(b.Context(), l, queue.Verdict{Action: a}); !errors.Is(err, want) {
		b.Fatalf("settle: %v, want %v", err, want)
	}
}

func TestRedisConsumerGroupIsGone(t *testing.T) {
	t.Parallel()
	b := trap(t, testkit.RedisOptions{})
	b.put("1", "2", "3")
	leases, _ := b.lease(b.one, 1)
	// As after a failover to a replica that had the stream, not the group.
	if err := b.behind.XGroupDestroy(t.Context(), trapStream, "gateways").Err(); err != nil {
		t.Fatal(err)
	}
	b.settle(b.one, leases[0], queue.Retry, queue.ErrLeaseLost)
	leases, bodies := b.lease(b.two, 10)
	if !slices.Equal(bodies, []string{"1", "2", "3"}) {
		t.Fatalf("leased %q", bodies)
	}
	for _, l := range leases {
		b.settle(b.two, l, queue.Delivered, nil)
	}
	// All is gone, with scripts and group.
	b.put("4")
	leases, _ = b.lease(b.one, 1)
	if err := b.behind.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if err := b.behind.ScriptFlush(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	b.settle(b.one, leases[0], queue.Delivered, queue.ErrLeaseLost)
	if _, bodies = b.lease(b.one, 10); len(bodies) != 0 {
		t.Errorf("leased %q of nothing", bodies)
	}
	b.put("5")
	if leases, bodies = b.lease(b.two, 10); !slices.Equal(bodies, []string{"5"}) {
		t.Fatalf("leased %q", bodies)
	}
	b.settle(b.two, leases[0], queue.Delivered, nil)
}

func TestRedisWorkerSlowerThanItsVisibility(t *testing.T) {
	t.Parallel()
	b := trap(t, testkit.RedisOptions{})
	b.put("renewed", "late success", "late failure", "late twice")
	slow, _ := b.lease(b.one, 4)
	// The first is renewed for three times the visibility, the others are not.
	for range 9 {
		<-time.After(trapVisibility / 3)
		if lost, err := b.one.Renew(t.Context(), slow[:1]); err != nil || len(lost) != 0 {
			t.Fatalf("renew: %d lost, %v", len(lost), err)
		}
	}
	quick, bodies := b.lease(b.two, 10)
	if !slices.Equal(bodies, []string{"late success", "late failure", "late twice"}) {
		t.Fatalf("the other gateway got %q", bodies)
	}
	if lost, err := b.one.Renew(t.Context(), slow); err != nil || len(lost) != 3 || lost[0] != slow[1] {
		t.Errorf("renew: %d lost, %v", len(lost), err)
	}
	b.settle(b.one, slow[0], queue.Delivered, nil)
	b.settle(b.one, slow[1], queue.Delivered, nil) // it was delivered, after all
	b.settle(b.two, quick[0], queue.Retry, queue.ErrLeaseLost)
	b.settle(b.one, slow[2], queue.Dead, queue.ErrLeaseLost) // not for it to say
	b.settle(b.one, slow[2], queue.Release, queue.ErrLeaseLost)
	b.settle(b.two, quick[1], queue.Delivered, nil)
	b.settle(b.two, quick[2], queue.Retry, nil)
	b.settle(b.one, slow[3], queue.Delivered, nil)
	leases, bodies := b.lease(b.two, 10)
	if len(leases) != 0 {
		t.Errorf("still there: %q", bodies)
	}
	counts, err := b.one.Counts(t.Context())
	if err != nil || len(counts) != 1 || counts[0] != (queue.Count{Target: "t", Delivered: 4}) {
		t.Errorf("counts %+v, %v", counts, err)
	}
}

func TestRedisStuckEntriesOfAGatewayThatDied(t *testing.T) {
	t.Parallel()
	b := trap(t, testkit.RedisOptions{})
	const n = 500
	for i := range n {
		b.put(fmt.Sprint(i))
	}
	if leases, _ := b.lease(b.one, n); len(leases) != n {
		t.Fatalf("leased %d", len(leases))
	}
	b.lease(b.one, n) // nothing more
	targets, wait, err := b.two.Ready(t.Context())
	if err != nil || len(targets) != 0 || wait > trapVisibility {
		t.Errorf("ready: %q in %v, %v", targets, wait, err)
	}
	if got := b.deliver(b.two, n); len(slices.Compact(got)) != n {
		t.Errorf("some came twice: %q", got)
	}
}

func TestRedisStreamDoesNotGrow(t *testing.T) {
	t.Parallel()
	b := trap(t, testkit.RedisOptions{})
	for range 20 {
		for i := range 50 {
			b.put(fmt.Sprint(i))
		}
		leases, _ := b.lease(b.one, 50)
		for i, l := range leases {
			switch {
			case i%10 == 0 && l.Record.Attempts == 0:
				l.Record.Attempts++
				b.settle(b.one, l, queue.Retry, nil)
			case i%10 == 1:
				if err := b.two.Drop(t.Context(), l.Record.ID); err != nil {
					t.Fatal(err)
				}
				b.settle(b.one, l, queue.Delivered, queue.ErrLeaseLost)
			default:
				b.settle(b.one, l, queue.Delivered, nil)
			}
		}
	}
	b.put("waits")
	if n, err := queue.DropAll(t.Context(), b.one, queue.Filter{State: queue.StatePending}); err != nil || n == 0 {
		t.Errorf("dropped %d, %v", n, err)
	}
	b.eventually("dropped entries are cleared", func() bool {
		b.lease(b.two, 10)
		return b.behind.XLen(t.Context(), trapStream).Val() == 0
	})
	pending := b.behind.XPending(t.Context(), trapStream, "gateways").Val()
	if pending.Count != 0 {
		t.Errorf("%d entries are pending", pending.Count)
	}
	if _, err := queue.DropAll(t.Context(), b.one, queue.Filter{}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.one.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	keys := b.behind.Keys(t.Context(), "*").Val()
	slices.Sort(keys)
	if want := []string{"execgate:{default}:queue:stat"}; !slices.Equal(keys, want) {
		t.Errorf("left are %q", keys)
	}
}

func TestRedisClocksOfGatewaysDoNotMatter(t *testing.T) {
	t.Parallel()
	b := trap(t, testkit.RedisOptions{})
	// Ids that gateways with a wrong clock would make.
	for _, skew := range []time.Duration{-1000 * time.Hour, 1000 * time.Hour} {
		r := &queue.Record{ID: queue.IDFor(time.Now().Add(skew), "x"), Target: "t", Created: time.Now().Add(skew), Next: time.Now().Add(skew)}
		if err := b.one.Put(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	leases, _ := b.lease(b.two, 10)
	if len(leases) != 2 {
		t.Fatalf("leased %d", len(leases))
	}
	for _, l := range leases {
		server, err := b.behind.Time(t.Context()).Result()
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range []time.Time{l.Now, l.Record.Created, l.Record.Since} {
			if d := server.Sub(at); d < 0 || d > time.Minute {
				t.Errorf("off by %v from the clock of the server", d)
			}
		}
	}
}

func TestRedisOutOfMemoryRefusesAndRecovers(t *testing.T) {
	t.Parallel()
	b := trap(t, testkit.RedisOptions{})
	b.put("1", "2", "3")
	leases, _ := b.lease(b.one, 3)
	if err := b.behind.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	err := b.one.Put(t.Context(), &queue.Record{ID: queue.NewID(time.Now()), Target: "t", Body: []byte("x")})
	if !errors.Is(err, queue.ErrUnavailable) || !strings.Contains(err.Error(), "OOM") {
		t.Errorf("put: %v", err)
	}
	b.settle(b.one, leases[0], queue.Delivered, nil) // makes room
	retried := b.one.Settle(t.Context(), leases[1], queue.Verdict{Action: queue.Retry})
	if retried != nil && !errors.Is(retried, queue.ErrUnavailable) {
		t.Errorf("retry: %v", retried)
	}
	if err := b.behind.ConfigSet(t.Context(), "maxmemory", "0").Err(); err != nil {
		t.Fatal(err)
	}
	if retried != nil {
		b.settle(b.one, leases[1], queue.Retry, nil)
	}
	b.settle(b.one, leases[2], queue.Release, nil)
	if got := b.deliver(b.two, 2); !slices.Equal(got, []string{"2", "3"}) {
		t.Errorf("got %q", got)
	}
}

func TestRedisRestart(t *testing.T) {
	t.Parallel()
	for _, aof := range []bool{true, false} {
		t.Run(fmt.Sprintf("aof %v", aof), func(t *testing.T) {
			t.Parallel()
			b := trap(t, testkit.RedisOptions{AOF: aof})
			b.put("leased", "retried", "waits")
			leases, _ := b.lease(b.one, 2)
			b.settle(b.one, leases[1], queue.Retry, nil)
			b.server.Kill()
			err := b.one.Put(t.Context(), &queue.Record{ID: queue.NewID(time.Now()), Target: "t", Body: []byte("x")})
			if !errors.Is(err, queue.ErrUnavailable) {
				t.Fatalf("put while it is away: %v", err)
			}
			if _, _, err := b.one.Ready(t.Context()); !errors.Is(err, queue.ErrUnavailable) {
				t.Fatalf("ready while it is away: %v", err)
			}
			b.settle(b.one, leases[0], queue.Delivered, queue.ErrUnavailable)
			b.server.Restart()
			b.put("new")
			want := []string{"leased", "new", "retried", "waits"}
			if !aof {
				want = []string{"new"} // documented: without AOF all of it is lost
			}
			if got := b.deliver(b.two, len(want)); !slices.Equal(got, want) {
				t.Errorf("got %q", got)
			}
		})
	}
}
