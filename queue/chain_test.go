package queue_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/execgate/execgate/queue"
	"github.com/execgate/execgate/targetclient"
)

func TestDurableTellsSeveralTargetsInTurn(t *testing.T) {
	interrupting := func(id string) *targetclient.Target {
		t := target(id)
		t.InterruptOnError = true
		return t
	}
	const ok, failed, refused, forwarded = "ok", "failed", "refused", "forwarded"
	for name, step := range map[string]struct {
		first *targetclient.Target
		a     []string // what a answers, the last for ever
		want  []string // calls, in order
	}{
		"all well":                              {target("a"), []string{ok}, []string{"a", "b", "c"}},
		"a failure is tolerated at once":        {target("a"), []string{failed, ok}, []string{"a", "b", "c", "a"}},
		"a refusal is tolerated":                {target("a"), []string{refused}, []string{"a", "b", "c"}},
		"a forwarded error is tolerated":        {target("a"), []string{forwarded}, []string{"a", "b", "c"}},
		"an interrupting failure is waited for": {interrupting("a"), []string{failed, failed, ok}, []string{"a", "a", "a", "b", "c"}},
		"the last attempt interrupts":           {interrupting("a"), []string{failed}, []string{"a", "a", "a"}},
		"a refusal interrupts":                  {interrupting("a"), []string{refused}, []string{"a"}},
		"a forwarded error interrupts":          {interrupting("a"), []string{forwarded}, []string{"a"}},
	} {
		t.Run(name, func(t *testing.T) {
			o := queue.DurableOptions{Schedule: queue.Schedule{MaxAttempts: 3, FirstDelay: 10 * time.Minute}}
			bubble(t, o, func(t *testing.T, b *durableBundle) {
				n := 0
				b.set(func() {
					b.answer = func(_ context.Context, c targetclient.Call) (targetclient.Result, error) {
						if c.Target.ID != "a" {
							return targetclient.Result{StatusCode: 200}, nil
						}
						b.mu.Lock()
						answer := step.a[min(n, len(step.a)-1)]
						n++
						b.mu.Unlock()
						switch answer {
						case failed:
							return fails(500, targetclient.ReasonFailed)(nil, c)
						case refused:
							return fails(403, targetclient.ReasonFailed)(nil, c)
						case forwarded:
							return fails(200, targetclient.ReasonForwarded)(nil, c)
						}
						return targetclient.Result{StatusCode: 200}, nil
					}
				})
				b.enqueue(queue.Delivery{
					Target: step.first, Kind: queue.KindEvent, Execution: "event", Then: []*targetclient.Target{target("b"), target("c")},
				}, "")
				b.after(10 * time.Hour)
				if got := b.bodies(); !slices.Equal(got, step.want) {
					t.Errorf("called %q, want %q", got, step.want)
				}
				if n := b.count(queue.Filter{State: queue.StatePending}); n != 0 {
					t.Errorf("%d are pending", n)
				}
				seen := map[string]string{}
				for _, c := range b.after(0) {
					if before := seen[c.id]; before != "" && before != c.target {
						t.Errorf("%s and %s got the same id", before, c.target)
					}
					seen[c.id] = c.target
				}
			})
		})
	}
}
