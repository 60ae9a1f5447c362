package queuetest

import (
	"bytes"
	"errors"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/execgate/execgate/queue"
)

func testDead(_ *testing.T, b *bench) {
	b.open(Setup{})
	ids := b.put("t", "1", "2", "3")
	for _, l := range b.lease("t", 3) {
		l.Record.Attempts, l.Record.Reason = 4, "max_attempts"
		b.settle(l, queue.Dead)
	}
	b.wantCount(queue.Count{Target: "t", Dead: 3})
	b.wantIDs(queue.Filter{State: queue.StateDead}, ids...)
	b.leaseBodies("t", 3)
	r := b.get(ids[1])
	if r.State != queue.StateDead || r.Reason != "max_attempts" || string(r.Body) != "2" || r.Ended.Before(r.Created) {
		b.Fatalf("got %+v", r)
	}
	b.must(b.Replay(b.Context(), ids[1]))
	b.wantErr(b.Replay(b.Context(), ids[1]), queue.ErrNotDead)
	b.wantErr(b.Replay(b.Context(), queue.NewID(time.Now())), queue.ErrNotFound)
	b.wantCount(queue.Count{Target: "t", Pending: 1, Bytes: 1, Dead: 2})
	l := b.leaseBodies("t", 3, "2")[0]
	if got := l.Record; got.ID != ids[1] || got.Attempts != 4 || got.Replayed != 4 || got.Reason != "" || got.Since.Before(r.Ended) {
		b.Errorf("replayed as %+v", got)
	}
	b.settle(l, queue.Delivered)
	n, err := queue.ReplayAll(b.Context(), b, queue.Filter{Target: "nobody"})
	if n != 0 || err != nil {
		b.Errorf("replayed %d of nobody, %v", n, err)
	}
	n, err = queue.ReplayAll(b.Context(), b, queue.Filter{Target: "t", Limit: 1})
	if n != 2 || err != nil {
		b.Errorf("replayed %d, %v", n, err)
	}
	if got := len(b.lease("t", 10)); got != 2 {
		b.Errorf("leased %d", got)
	}
	b.wantCount(queue.Count{Target: "t", Pending: 2, Bytes: 2, Delivered: 1})
}

func testManyDead(_ *testing.T, b *bench) {
	b.open(Setup{})
	var bodies []string
	for i := range 250 {
		bodies = append(bodies, strconv.Itoa(i))
	}
	b.put("t", bodies...)
	b.put("u", "other")
	for _, l := range b.lease("t", 300) {
		b.settle(l, queue.Dead)
	}
	b.settle(b.lease("u", 1)[0], queue.Dead)
	n, err := queue.ReplayAll(b.Context(), b, queue.Filter{Target: "t", Limit: 100})
	if n != 250 || err != nil {
		b.Fatalf("replayed %d, %v", n, err)
	}
	b.wantCount(queue.Count{Target: "t", Pending: 250, Bytes: 640})
	b.leaseBodies("t", 300, bodies...)
	for _, f := range []queue.Filter{{State: queue.StateDead, Target: "t"}, {State: queue.StateDelivered}} {
		if n, err := queue.DropAll(b.Context(), b, f); n != 0 || err != nil {
			b.Errorf("dropped %d of nothing, %v", n, err)
		}
	}
	if n, err := queue.DropAll(b.Context(), b, queue.Filter{Target: "t", Limit: 100}); n != 250 || err != nil {
		b.Errorf("dropped %d, %v", n, err)
	}
	if got := b.count("t"); got != (queue.Count{Target: "t"}) {
		b.Errorf("counts %+v", got)
	}
	if got := b.count("u"); got.Dead != 1 {
		b.Errorf("counts of another target %+v", got)
	}
	page, err := b.List(b.Context(), queue.Filter{})
	b.must(err)
	n, err = b.ReplayEach(b.Context(), page.Records)
	if n != 1 || err != nil {
		b.Errorf("replayed %d, %v", n, err)
	}
	if n, err = b.ReplayEach(b.Context(), page.Records); n != 0 || err != nil {
		b.Errorf("replayed %d that are not dead, %v", n, err)
	}
	if n, err = b.DropEach(b.Context(), append(page.Records, page.Records...)); n != 1 || err != nil {
		b.Errorf("dropped %d, %v", n, err)
	}
}

func testDeadBounds(_ *testing.T, b *bench) {
	b.open(Setup{Limits: queue.Limits{MaxDead: 3, MaxDeadBytes: 10, DeadFor: time.Hour}})
	ids := b.put("t", "1", "2", "3", "4", "123456", "7890")
	for _, l := range b.lease("t", 4) {
		b.settle(l, queue.Dead)
	}
	b.wantIDs(queue.Filter{State: queue.StateDead}, ids[1:4]...)
	for _, l := range b.lease("t", 4) {
		b.settle(l, queue.Dead)
	}
	b.wantIDs(queue.Filter{State: queue.StateDead}, ids[4:]...) // 10 bytes
	b.wantCount(queue.Count{Target: "t", Dead: 2})
	n, err := b.Maintain(b.Context())
	if n != 0 || err != nil {
		b.Fatalf("expired %d, %v", n, err)
	}
	old := record("t", "old")
	old.ID = queue.IDFor(time.Now().Add(-2*time.Hour), "old")
	b.must(b.Put(b.Context(), old))
	for _, l := range b.lease("t", 1) {
		b.settle(l, queue.Delivered)
	}
	stale := record("u", "old")
	stale.ID = queue.IDFor(time.Now().Add(-2*time.Hour), "stale")
	b.must(b.Put(b.Context(), stale))
	b.settle(b.lease("u", 1)[0], queue.Dead)
	if n, err = b.Maintain(b.Context()); n != 1 || err != nil {
		b.Fatalf("expired %d, %v", n, err)
	}
	_, err = b.Get(b.Context(), stale.ID)
	b.wantErr(err, queue.ErrNotFound)
	if got := b.count("u"); got.Dead != 0 {
		b.Errorf("counts %+v", got)
	}
	b.wantIDs(queue.Filter{State: queue.StateDead}, ids[4:]...)
}

func testRelease(_ *testing.T, b *bench) {
	b.open(Setup{})
	b.put("t", "1", "2", "3")
	leases := b.leaseBodies("t", 2, "1", "2")
	b.settle(leases[0], queue.Release)
	if targets, _, _ := b.Ready(b.Context()); !slices.Equal(targets, []string{"t"}) {
		b.Errorf("ready: %q", targets)
	}
	again := b.lease("t", 3)
	if len(again) != 2 {
		b.Fatalf("leased %d", len(again))
	}
	for _, l := range append(again, leases[1]) {
		if l.Record.Attempts != 0 {
			b.Errorf("%s has %d attempts", l.Record.Body, l.Record.Attempts)
		}
		b.settle(l, queue.Delivered)
	}
	b.wantCount(queue.Count{Target: "t", Delivered: 3})
}

func testDrop(_ *testing.T, b *bench) {
	b.open(Setup{})
	ids := b.put("t", "leased", "delivered", "dead", "retried", "waiting")
	leases := b.lease("t", 4)
	b.settle(leases[1], queue.Delivered)
	b.settle(leases[2], queue.Dead)
	b.must(b.Settle(b.Context(), leases[3], queue.Verdict{Action: queue.Retry, After: time.Hour}))
	for _, id := range ids {
		b.must(b.Drop(b.Context(), id))
		b.wantErr(b.Drop(b.Context(), id), queue.ErrNotFound)
		_, err := b.Get(b.Context(), id)
		b.wantErr(err, queue.ErrNotFound)
	}
	b.leaseBodies("t", 10)
	b.wantErr(b.Settle(b.Context(), leases[0], queue.Verdict{Action: queue.Delivered}), queue.ErrLeaseLost)
	if got := b.count("t"); got != (queue.Count{Target: "t"}) {
		b.Errorf("counts %+v", got)
	}
	b.put("t", "1", "2")
	n, err := queue.DropAll(b.Context(), b, queue.Filter{Target: "t", State: queue.StatePending})
	if n != 2 || err != nil {
		b.Errorf("dropped %d, %v", n, err)
	}
}

func testOrder(_ *testing.T, b *bench) {
	b.open(Setup{})
	b.putKeyed("t", "k", "k1", "k2", "k3")
	b.putKeyed("t", "l", "l1", "l2")
	b.put("t", "free")
	b.putKeyed("u", "k", "u1")
	leases := b.leaseBodies("t", 10, "k1", "l1", "free")
	b.leaseBodies("u", 10, "u1")
	b.must(b.Settle(b.Context(), leases[0], queue.Verdict{Action: queue.Retry, After: 50 * time.Millisecond}))
	b.leaseBodies("t", 10) // k2 waits for k1
	b.settle(leases[1], queue.Delivered)
	b.settle(b.leaseBodies("t", 10, "l2")[0], queue.Delivered)
	l := b.wait("t")
	if string(l.Record.Body) != "k1" {
		b.Fatalf("leased %q", l.Record.Body)
	}
	b.settle(l, queue.Dead)
	l = b.leaseBodies("t", 10, "k2")[0]
	b.settle(l, queue.Release)
	l = b.leaseBodies("t", 10, "k2")[0]
	b.settle(l, queue.Delivered)
	b.settle(b.leaseBodies("t", 10, "k3")[0], queue.Delivered)
	b.putKeyed("t", "k", "k4")
	b.leaseBodies("t", 10, "k4")
}

func testOrderRepairs(_ *testing.T, b *bench) {
	b.open(Setup{})
	ids := b.putKeyed("t", "k", "1", "2", "3", "4")
	b.must(b.Drop(b.Context(), ids[1])) // one that waits
	b.must(b.Drop(b.Context(), ids[0])) // the first
	l := b.leaseBodies("t", 10, "3")[0]
	b.must(b.Drop(b.Context(), ids[2])) // the one under way
	b.wantErr(b.Settle(b.Context(), l, queue.Verdict{Action: queue.Delivered}), queue.ErrLeaseLost)
	l = b.leaseBodies("t", 10, "4")[0]
	b.settle(l, queue.Dead)
	b.putKeyed("t", "k", "5")
	b.must(b.Replay(b.Context(), ids[3])) // behind 5
	l = b.leaseBodies("t", 10, "5")[0]
	b.settle(l, queue.Delivered)
	b.settle(b.leaseBodies("t", 10, "4")[0], queue.Delivered)
	b.leaseBodies("t", 10)
}

func testList(_ *testing.T, b *bench) {
	b.open(Setup{})
	var all, ofA, deadA []string
	for i, body := range numbered("", 25) {
		target := []string{"a", "b", "c"}[i%3]
		id := b.put(target, body)[0]
		all = append(all, id)
		if target == "a" {
			ofA = append(ofA, id)
		}
	}
	for i, l := range b.lease("a", 6) {
		if i%2 == 0 {
			b.settle(l, queue.Dead)
			deadA = append(deadA, l.Record.ID)
		} else {
			b.settle(l, queue.Delivered)
		}
	}
	for _, limit := range []int{0, 1, 3, 7, 24, 25, 26} {
		b.wantIDs(queue.Filter{Limit: limit}, all...)
		b.wantIDs(queue.Filter{Limit: limit, Target: "a"}, ofA...)
		b.wantIDs(queue.Filter{Limit: limit, Target: "a", State: queue.StatePending}, ofA[6:]...)
		b.wantIDs(queue.Filter{Limit: limit, State: queue.StateDead}, deadA...)
		b.wantIDs(queue.Filter{Limit: limit, State: queue.StateDead, Target: "b"})
		b.wantIDs(queue.Filter{Limit: limit, State: queue.StateParked})
		b.wantIDs(queue.Filter{Limit: limit, Target: "nobody"})
	}
}

func testParked(_ *testing.T, b *bench) {
	b.open(Setup{})
	id := b.put("t", "1")[0]
	other := b.put("u", "1")[0]
	b.must(b.Park(b.Context(), "t", time.Minute))
	b.wantIDs(queue.Filter{State: queue.StateParked}, id)
	b.wantIDs(queue.Filter{State: queue.StatePending}, other)
	b.wantIDs(queue.Filter{}, id, other)
	if r := b.get(id); r.State != queue.StateParked {
		b.Errorf("state %v", r.State)
	}
	if r := b.get(other); r.State != queue.StatePending {
		b.Errorf("state %v", r.State)
	}
	b.wantCount(queue.Count{Target: "t", Pending: 1, Bytes: 1, Parked: true})
	b.must(b.Park(b.Context(), "t", 0))
	b.wantIDs(queue.Filter{State: queue.StateParked})
	b.must(b.Park(b.Context(), "t", 20*time.Millisecond))
	b.eventually("it is not parked any more", func() bool { return !b.count("t").Parked })
}

func testReopen(_ *testing.T, b *bench) {
	b.open(Setup{})
	ids := b.put("t", "1", "2", "3", "4")
	keyed := b.putKeyed("t", "k", "k1", "k2")
	leases := b.lease("t", 4)
	b.settle(leases[0], queue.Delivered)
	b.settle(leases[1], queue.Dead)
	b.must(b.Settle(b.Context(), leases[2], queue.Verdict{Action: queue.Retry, After: time.Hour}))
	b.must(b.Close())
	b.wantErr(func() error {
		err := b.Put(background(b), record("t", "late"))
		if errors.Is(err, queue.ErrUnavailable) {
			return queue.ErrStopped
		}
		return err
	}(), queue.ErrStopped)

	b.open(Setup{})
	b.wantCount(queue.Count{Target: "t", Pending: 4, Bytes: 6, Dead: 1, Delivered: 1})
	b.wantIDs(queue.Filter{}, append(slices.Clone(ids), keyed...)...)
	var got []string
	b.eventually("the leases are free", func() bool {
		for _, l := range b.lease("t", 10) {
			got = append(got, string(l.Record.Body))
			b.settle(l, queue.Delivered)
		}
		return len(got) == 3
	})
	slices.Sort(got)
	if !slices.Equal(got, []string{"4", "k1", "k2"}) {
		b.Errorf("leased %q", got)
	}
	if r := b.get(ids[2]); r.Next.Sub(r.Created) < 50*time.Minute {
		b.Errorf("the retry is due %v after it was made", r.Next.Sub(r.Created))
	}
	b.must(b.Replay(b.Context(), ids[1]))
	b.leaseBodies("t", 10, "2")
}

func key(c byte) []byte { return bytes.Repeat([]byte{c}, 32) }

func testSealed(t *testing.T, b *bench) {
	sealer := func(keys ...[]byte) *queue.Sealer {
		s, err := queue.NewSealer(keys...)
		b.must(err)
		return s
	}
	b.open(Setup{Sealer: sealer(key('a'))})
	ids := b.put("t", "first", "second")
	if r := b.get(ids[0]); string(r.Body) != "first" || r.Size != 5 {
		t.Fatalf("got %+v", r)
	}
	b.must(b.Close())

	b.open(Setup{Sealer: sealer(key('b'), key('a'))})
	ids = append(ids, b.put("t", "third")...)
	if r := b.get(ids[0]); string(r.Body) != "first" {
		t.Fatalf("got %q", r.Body)
	}
	b.must(b.Close())

	b.open(Setup{Sealer: sealer(key('b'))})
	r, err := b.Get(b.Context(), ids[0])
	b.wantErr(err, queue.ErrSealed)
	if r == nil || r.ID != ids[0] || r.Body != nil {
		t.Fatalf("got %+v", r)
	}
	if r := b.get(ids[2]); string(r.Body) != "third" {
		t.Fatalf("got %q", r.Body)
	}
	faults := 0
	for _, l := range b.lease("t", 10) {
		if l.Fault != nil {
			b.wantErr(l.Fault, queue.ErrSealed)
			faults++
		}
	}
	if faults != 2 {
		t.Errorf("%d leases without payload", faults)
	}
	b.must(b.Close())

	b.open(Setup{})
	_, err = b.Get(b.Context(), ids[2])
	b.wantErr(err, queue.ErrSealed)
}

func testMany(t *testing.T, b *bench) {
	b.open(Setup{Limits: queue.Limits{Ledger: 10}})
	const producers, each, workers = 8, 100, 4
	targets := []string{"a", "b", "c"}
	var wg sync.WaitGroup
	for p := range producers {
		wg.Go(func() {
			for i := range each {
				r := record(targets[(p+i)%len(targets)], "body")
				if i%5 == 0 {
					r.OrderKey = "key"
				}
				if err := b.Put(b.Context(), r); err != nil {
					t.Error(err)
				}
			}
		})
	}
	var seen sync.Map
	var done atomic.Int64
	for range workers {
		wg.Go(func() {
			for round := 0; done.Load() < producers*each && b.Context().Err() == nil && !t.Failed(); round++ {
				leases, err := b.Lease(b.Context(), targets[round%len(targets)], 7)
				if err != nil {
					t.Error(err)
					return
				}
				for i, l := range leases {
					v := queue.Verdict{Action: queue.Delivered}
					switch {
					case i == 3 && l.Record.Attempts == 0:
						v.Action = queue.Release
					case i == 4 && l.Record.Attempts == 0:
						l.Record.Attempts++
						v = queue.Verdict{Action: queue.Retry, After: time.Millisecond}
					default:
						if _, twice := seen.LoadOrStore(l.Record.ID, true); twice {
							t.Errorf("%s came twice", l.Record.ID)
						}
					}
					if err := b.Settle(b.Context(), l, v); err != nil {
						t.Error(err)
					}
					if v.Action == queue.Delivered {
						done.Add(1)
					}
				}
			}
		})
	}
	wg.Wait()
	for _, target := range targets {
		b.wantCount(queue.Count{Target: target, Delivered: 10})
	}
}

func testClosed(_ *testing.T, b *bench) {
	b.open(Setup{})
	b.must(b.Close())
	b.must(b.Close())
	if _, _, err := b.Ready(b.Context()); err == nil {
		b.Error("ready after the end")
	}
	if _, err := b.Lease(b.Context(), "t", 1); err == nil {
		b.Error("leased after the end")
	}
	if _, err := b.List(b.Context(), queue.Filter{}); err == nil {
		b.Error("listed after the end")
	}
	b.Backend = nil
}
