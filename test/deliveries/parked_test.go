package deliveries

import (
	"strings"
	"testing"
	"time"

	"github.com/execgate/execgate/internal/testkit"
)

// TestAnEnabledTargetIsCalledAtOnceByAllGateways enables targets at one gateway:
// both have to call them sooner than they would look by themselves.
func TestAnEnabledTargetIsCalledAtOnceByAllGateways(t *testing.T) {
	t.Parallel()
	const calls, atOnce = 200, 2 * targets * concurrency
	b := setup(t)
	server := testkit.StartRedis(t, testkit.RedisOptions{})
	api, root := upstream(t), t.TempDir()
	make := func(name string) *gateway {
		return newGateway(t, gatewaySpec{
			name: name, dir: subdir(t, root, name), upstream: api, redis: server.URL,
			rules: strings.ReplaceAll(b.rules(), "async: true\n", "async: true\npolicy: {enabled: false}\n"),
		}).start()
	}
	one, two := make("one"), make("two")
	b.use(one, two)
	b.grant(calls)
	b.taking()
	for _, g := range []*gateway{one, two} {
		until(t, "all are shown as parked", func() bool { return g.metric("execgate_deliveries", `state="parked"`) == targets*calls })
	}
	release := b.hold()
	defer release()
	began := time.Now()
	for _, target := range []string{"t0", "t1"} {
		one.enable(target)
	}
	b.arrived(atOnce) // as many as both gateways together make at once
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("%d calls were under way after %v", atOnce, took)
	}
	release()
	b.verdict(began, 0)
	b.settled(one)
	b.settled(two)
}
