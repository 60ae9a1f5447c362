package deliveries

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/execgate/execgate/internal/testkit"
)

// sizeEnv is how many deliveries each crash test makes.
const sizeEnv = "EXECGATE_CRASH_DELIVERIES"

// crashCalls returns how many calls a crash test makes.
func crashCalls(t *testing.T) int {
	t.Helper()
	text := os.Getenv(sizeEnv)
	if text == "" {
		return 3000 / targets
	}
	size, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return size / targets
}

// subdir returns a directory of its own for a gateway.
func subdir(t testing.TB, root, name string) string {
	t.Helper()
	dir := filepath.Join(root, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestCrashEmbedded kills a gateway with a queue of its own again and again,
// while calls come in and deliveries go out.
func TestCrashEmbedded(t *testing.T) {
	t.Parallel()
	b, calls := setup(t), crashCalls(t)
	g := newGateway(t, gatewaySpec{name: "one", dir: t.TempDir(), upstream: upstream(t), rules: b.rules()}).start()
	began := time.Now()
	b.use(g)
	const kills = 5
	for range kills {
		b.grant(calls / (kills + 1))
		b.arrived(calls / (kills + 1) / 2)
		b.note("kill -9 of the gateway")
		b.use()
		g.kill()
		b.use(g.start())
	}
	b.grant(calls - kills*(calls/(kills+1)))
	b.verdict(began, kills*targets*concurrency)
	b.settled(g)
}

// TestCrashRedis kills gateways that share a Redis, and the Redis.
func TestCrashRedis(t *testing.T) {
	t.Parallel()
	b, calls := setup(t), crashCalls(t)
	server := testkit.StartRedis(t, testkit.RedisOptions{AOF: true})
	began := time.Now()
	left, _, inFlight := b.crashRedis(server, calls)
	b.verdict(began, inFlight)
	b.settled(left)
}

// TestCrashRedisEverysec does the same with appendfsync everysec. Redis hands
// what it acknowledges to the system at once also then, unless a sync of the disk
// takes its time; so kill -9 of Redis takes little or nothing along, and a crash
// of the machine about the last second. What may be missing are calls that were
// under way when Redis was killed, or accepted in the two seconds before.
func TestCrashRedisEverysec(t *testing.T) {
	t.Parallel()
	const window = 2 * time.Second
	b, calls := setup(t), crashCalls(t)
	server := testkit.StartRedis(t, testkit.RedisOptions{Args: []string{"appendonly", "yes", "appendfsync", "everysec"}})
	began := time.Now()
	left, killed, inFlight := b.crashRedis(server, calls)
	b.taking()
	b.settled(left)
	b.mu.Lock()
	for _, at := range b.times {
		if at.Before(killed.to) && killed.from.Sub(at) < window {
			inFlight++ // that it arrived may be lost, so that it comes again
		}
	}
	for _, text := range b.lost() {
		if call := b.accepted[text]; call.from.After(killed.to) || killed.from.Sub(call.to) > window {
			t.Errorf("%s is lost, accepted %v before Redis was killed", text, killed.from.Sub(call.to))
		}
	}
	b.mu.Unlock()
	b.count(began, inFlight)
}

// crashRedis makes calls to two gateways on one Redis. One gateway is killed; then
// Redis, and the other gateway while it has deliveries in its spool; in the end
// that one for good. It returns the one that is left, when Redis was killed, and
// how many deliveries can have been under way at all of that.
func (b *bundle) crashRedis(server *testkit.Redis, calls int) (left *gateway, killed span, inFlight int) {
	t := b.TB
	t.Helper()
	api, root := upstream(t), t.TempDir()
	make := func(name string) *gateway {
		return newGateway(t, gatewaySpec{
			name: name, dir: subdir(t, root, name), upstream: api, redis: server.URL, queue: "visibility: 3s", rules: b.rules(),
		})
	}
	one, two := make("one").start(), make("two").start()
	b.use(one, two)
	part := calls / 5

	b.grant(part)
	b.arrived(part / 2)
	b.note("kill -9 of gateway one")
	b.use(two)
	one.kill()
	b.use(one.start(), two)
	inFlight += targets * concurrency

	b.grant(part)
	b.arrived(part / 2)
	b.note("kill -9 of Redis")
	killed.from = time.Now()
	server.Kill()
	killed.to = time.Now()
	inFlight += 2 * targets * concurrency // of both: Redis could not be told that they arrived
	b.taking()
	b.grant(part / 2)
	b.taking()
	b.note("kill -9 of gateway two, with some in its spool, while Redis is away")
	if n := two.metric("execgate_spool_deliveries"); n == 0 {
		t.Error("there is nothing in the spool of gateway two")
	}
	b.use(one)
	two.kill()
	b.use(one, two.start())
	b.grant(part / 2)
	b.taking()
	b.note("Redis starts again")
	server.Restart()

	b.grant(part)
	b.arrived(part / 2)
	until(t, "the spools are empty", func() bool {
		return one.metric("execgate_spool_deliveries") == 0 && two.metric("execgate_spool_deliveries") == 0
	})
	b.grant(part / 2)
	b.arrived(part / 2)
	b.note("kill -9 of gateway two, for good")
	b.use(one)
	two.kill()
	inFlight += targets * concurrency
	b.grant(calls - b.granted)
	return one, killed, inFlight
}

// settled checks that a gateway has nothing more to deliver and gave nothing up,
// and ends it in an orderly way.
func (b *bundle) settled(g *gateway) {
	b.Helper()
	until(b, "the queue is empty", func() bool { return g.metric("execgate_async_pending") == 0 })
	if n := g.metric("execgate_deliveries", `state="dead"`); n != 0 {
		b.Errorf("%v are dead letters", n)
	}
	if n := g.metric("execgate_async_dropped_total"); n != 0 {
		b.Errorf("%v were dropped", n)
	}
	if code := g.stop(); code != 0 {
		b.Errorf("gateway %s ended with code %d", g.name, code)
	}
}

// TestRedisThatLostAllIsUsedOn empties Redis, scripts included, under two gateways
// that deliver: consumer groups, configuration and all are there again, and what
// is accepted from then on arrives.
func TestRedisThatLostAllIsUsedOn(t *testing.T) {
	t.Parallel()
	const calls = 200
	b := setup(t)
	server := testkit.StartRedis(t, testkit.RedisOptions{})
	behind, api, root := server.Client(), upstream(t), t.TempDir()
	var gateways []*gateway
	for _, name := range []string{"one", "two"} {
		gateways = append(gateways, newGateway(t, gatewaySpec{
			name: name, dir: subdir(t, root, name), upstream: api, redis: server.URL, rules: b.rules(),
		}).start())
	}
	began := time.Now()
	b.use(gateways...)
	b.grant(calls)
	b.verdict(began, 0)
	for range 3 {
		if err := errors.Join(behind.FlushAll(t.Context()).Err(), behind.ScriptFlush(t.Context()).Err()); err != nil {
			t.Fatal(err)
		}
		b.grant(calls)
		b.verdict(began, 0)
	}
	for _, g := range gateways {
		b.settled(g)
	}
}

// TestStopHandsLeasesBack ends a gateway while its targets hang: another one does
// not have to wait for its leases to end.
func TestStopHandsLeasesBack(t *testing.T) {
	t.Parallel()
	const calls, visibility = 100, time.Minute
	b := setup(t)
	server := testkit.StartRedis(t, testkit.RedisOptions{})
	api, root := upstream(t), t.TempDir()
	make := func(name string) *gateway {
		return newGateway(t, gatewaySpec{
			name: name, dir: subdir(t, root, name), upstream: api, redis: server.URL, rules: b.rules(),
			queue: "visibility: " + visibility.String(), proxy: ", drain_timeout: 300ms",
		})
	}
	release := b.hold()
	defer release()
	one := make("one").start()
	b.use(one)
	b.grant(calls)
	b.taking()
	b.arrived(targets*concurrency - len(b.ids))
	began := time.Now()
	if code := one.stop(); code != 0 {
		t.Errorf("gateway one ended with code %d", code)
	}
	release()
	two := make("two").start()
	b.verdict(began, targets*concurrency)
	if took := time.Since(began); took > visibility/2 {
		t.Errorf("the other gateway had all after %v", took)
	}
	b.settled(two)
}

// TestRestartsInGoodOrderRepeatNothing restarts gateways by SIGTERM while calls
// come in and deliveries go out.
func TestRestartsInGoodOrderRepeatNothing(t *testing.T) {
	t.Parallel()
	for _, queue := range []string{"embedded", "redis"} {
		t.Run(queue, func(t *testing.T) {
			t.Parallel()
			const restarts, calls = 4, 300
			b, api, root, url := setup(t), upstream(t), t.TempDir(), ""
			gateways := 1
			if queue == "redis" {
				url, gateways = testkit.StartRedis(t, testkit.RedisOptions{}).URL, 2
			}
			var all []*gateway
			for i := range gateways {
				name := strconv.Itoa(i)
				all = append(all, newGateway(t, gatewaySpec{
					name: name, dir: subdir(t, root, name), upstream: api, redis: url, rules: b.rules(),
				}).start())
			}
			began := time.Now()
			for i := range restarts {
				b.use(all...)
				b.grant(calls)
				b.arrived(calls / 2)
				g := all[i%gateways]
				b.use(slices.DeleteFunc(slices.Clone(all), func(other *gateway) bool { return other == g })...)
				if code := g.stop(); code != 0 {
					t.Errorf("gateway %s ended with code %d", g.name, code)
				}
				g.start()
			}
			b.use(all...)
			b.verdict(began, 0)
			for _, g := range all {
				b.settled(g)
			}
		})
	}
}
