package queuetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/execgate/execgate/queue"
)

// Setup says what kind of backend a test wants.
type Setup struct {
	Limits queue.Limits
	Sealer *queue.Sealer
}

// Place is where the data of one test is. Open opens a backend over it, which is
// closed with the test; the one before must be closed if only one can be open.
type Place struct {
	Open func(t *testing.T, s Setup) queue.Backend
	// Visibility is after which time the leases of a closed backend are free; 0
	// for those that are free at once.
	Visibility time.Duration
}

// Run runs the conformance tests. Each gets a place of its own.
func Run(t *testing.T, newPlace func(t *testing.T) Place) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, *bench){
		"a delivery can be put, seen and leased":           testPut,
		"an id is taken once":                              testPutTwice,
		"what is full says so, and takes again":            testBounds,
		"a lease is nobody else's":                         testLease,
		"ready says where and when":                        testReady,
		"delivered ones are in the ledger without payload": testDelivered,
		"retries come when they are due":                   testRetry,
		"dead letters are kept, replayed and dropped":      testDead,
		"many are replayed in order, and dropped":          testManyDead,
		"dead letters are bounded":                         testDeadBounds,
		"what is released is due at once":                  testRelease,
		"dropped deliveries are gone":                      testDrop,
		"an order key keeps the order":                     testOrder,
		"an order key survives drops and replays":          testOrderRepairs,
		"lists are filtered and paged":                     testList,
		"parked lanes are shown as parked":                 testParked,
		"another instance sees what was accepted":          testReopen,
		"payloads are sealed":                              testSealed,
		"many at once lose nothing":                        testMany,
		"a closed backend refuses":                         testClosed,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, &bench{T: t, place: newPlace(t)})
		})
	}
}

// bench is one test's view of its backend.
type bench struct {
	*testing.T
	place Place
	queue.Backend
}

func (b *bench) open(s Setup) { b.Backend = b.place.Open(b.T, s) }

func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b *bench) wantErr(err, want error) {
	b.Helper()
	if !errors.Is(err, want) {
		b.Fatalf("got %v, want %v", err, want)
	}
}

func record(target, body string) *queue.Record {
	return &queue.Record{ID: queue.NewID(time.Now()), Target: target, Execution: "request", Body: []byte(body)}
}

func (b *bench) put(target string, bodies ...string) (ids []string) {
	b.Helper()
	for _, body := range bodies {
		r := record(target, body)
		b.must(b.Put(b.Context(), r))
		ids = append(ids, r.ID)
	}
	return ids
}

func (b *bench) putKeyed(target, key string, bodies ...string) (ids []string) {
	b.Helper()
	for _, body := range bodies {
		r := record(target, body)
		r.OrderKey = key
		b.must(b.Put(b.Context(), r))
		ids = append(ids, r.ID)
	}
	return ids
}

func (b *bench) lease(target string, limit int) []*queue.Lease {
	b.Helper()
	leases, err := b.Lease(b.Context(), target, limit)
	b.must(err)
	return leases
}

// leaseBodies leases and checks what comes, in order.
func (b *bench) leaseBodies(target string, limit int, want ...string) []*queue.Lease {
	b.Helper()
	leases := b.lease(target, limit)
	var got []string
	for _, l := range leases {
		got = append(got, string(l.Record.Body))
	}
	if !slices.Equal(got, want) {
		b.Fatalf("leased %q, want %q", got, want)
	}
	return leases
}

// wait leases one delivery, when it is due.
func (b *bench) wait(target string) *queue.Lease {
	b.Helper()
	var leases []*queue.Lease
	b.eventually("something is due", func() bool {
		leases = b.lease(target, 1)
		return len(leases) == 1
	})
	return leases[0]
}

// eventually polls: backends do not tell.
func (b *bench) eventually(what string, done func() bool) {
	b.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !done(); <-tick.C {
		if time.Now().After(deadline) {
			b.Fatalf("waited in vain: %s", what)
		}
	}
}

func (b *bench) settle(l *queue.Lease, a queue.Action) {
	b.Helper()
	b.must(b.Settle(b.Context(), l, queue.Verdict{Action: a}))
}

func (b *bench) get(id string) *queue.Record {
	b.Helper()
	r, err := b.Get(b.Context(), id)
	b.must(err)
	return r
}

// ids lists all pages.
func (b *bench) ids(f queue.Filter) (ids []string) {
	b.Helper()
	for {
		page, err := b.List(b.Context(), f)
		b.must(err)
		for _, r := range page.Records {
			ids = append(ids, r.ID)
			if r.Body != nil {
				b.Errorf("listing %s: it has a body", r.ID)
			}
		}
		if page.Next == "" {
			return ids
		}
		f.Cursor = page.Next
	}
}

func (b *bench) wantIDs(f queue.Filter, want ...string) {
	b.Helper()
	got := b.ids(f)
	want = slices.Clone(want)
	slices.Reverse(want) // the newest first
	if !slices.Equal(got, want) {
		b.Fatalf("%v %q lists %q, want %q", f.State, f.Target, got, want)
	}
}

func (b *bench) count(target string) queue.Count {
	b.Helper()
	counts, err := b.Counts(b.Context())
	b.must(err)
	for _, c := range counts {
		if c.Target == target {
			return c
		}
	}
	return queue.Count{Target: target}
}

func (b *bench) wantCount(want queue.Count) {
	b.Helper()
	if got := b.count(want.Target); got != want {
		b.Fatalf("counts %+v, want %+v", got, want)
	}
}

func testPut(_ *testing.T, b *bench) {
	b.open(Setup{})
	before := time.Now()
	in := record("t1", "payload \x00\xff")
	in.Kind, in.Interrupt = queue.KindEvent, true
	in.Then = []queue.Step{{ID: queue.NewID(before), Target: "t2", Interrupt: true}}
	b.must(b.Put(b.Context(), in))
	b.wantCount(queue.Count{Target: "t1", Pending: 1, Bytes: int64(len(in.Body))})
	check := func(r *queue.Record) {
		b.Helper()
		switch {
		case r.ID != in.ID, r.Target != "t1", r.Kind != queue.KindEvent, r.Execution != "request", !r.Interrupt,
			len(r.Then) != 1 || r.Then[0] != in.Then[0], string(r.Body) != string(in.Body), r.Size != len(in.Body),
			r.State != queue.StatePending, r.Attempts != 0, len(r.History) != 0, r.Reason != "":
			b.Fatalf("got %+v, want %+v", r, in)
		case r.Created.Before(before.Add(-time.Minute)), r.Created.After(time.Now().Add(time.Minute)), !r.Since.Equal(r.Created):
			b.Fatalf("created %v, since %v, now %v", r.Created, r.Since, before)
		}
	}
	check(b.get(in.ID))
	b.wantIDs(queue.Filter{}, in.ID)
	leases := b.lease("t1", 10)
	if len(leases) != 1 || leases[0].Fault != nil {
		b.Fatalf("leased %v", leases)
	}
	check(leases[0].Record)
	if d := leases[0].Now.Sub(leases[0].Record.Created); d < 0 || d > time.Minute {
		b.Errorf("leased %v after it was made", d)
	}
	_, err := b.Get(b.Context(), queue.NewID(before))
	b.wantErr(err, queue.ErrNotFound)
	empty := record("t1", "")
	b.must(b.Put(b.Context(), empty))
	if r := b.get(empty.ID); r.Body == nil || len(r.Body) != 0 {
		b.Errorf("an empty body became %v", r.Body)
	}
}

func testPutTwice(_ *testing.T, b *bench) {
	b.open(Setup{})
	r := record("t", "1")
	b.must(b.Put(b.Context(), r))
	b.must(b.Put(b.Context(), r))
	b.wantCount(queue.Count{Target: "t", Pending: 1, Bytes: 1})
	l := b.leaseBodies("t", 10, "1")[0]
	b.must(b.Put(b.Context(), r))
	b.leaseBodies("t", 10)
	b.settle(l, queue.Delivered)
	b.must(b.Put(b.Context(), r)) // the ledger knows it
	b.leaseBodies("t", 10)
	b.wantCount(queue.Count{Target: "t", Delivered: 1})
}

func testBounds(_ *testing.T, b *bench) {
	b.open(Setup{Limits: queue.Limits{MaxBody: 6, MaxPending: 4, MaxPendingPerTarget: 2, MaxBytes: 10}})
	put := func(target, body string) error { return b.Put(b.Context(), record(target, body)) }
	b.wantErr(put("a", "1234567"), queue.ErrTooLarge)
	b.must(put("a", "1"))
	b.must(put("a", "1"))
	b.wantErr(put("a", "1"), queue.ErrTargetFull)
	b.wantErr(put("b", "1"), nil)
	b.must(put("c", "123456"))
	b.wantErr(put("d", "1"), queue.ErrFull) // by number
	leases := b.lease("a", 2)
	b.settle(leases[0], queue.Delivered)
	b.wantErr(put("d", "123"), queue.ErrFull) // by bytes
	b.must(put("d", "12"))
	b.settle(leases[1], queue.Dead)
	b.must(put("d", ""))
	b.wantCount(queue.Count{Target: "d", Pending: 2, Bytes: 2})
}

func testLease(_ *testing.T, b *bench) {
	b.open(Setup{})
	b.put("t", "1", "2", "3", "4")
	b.put("u", "x")
	first := b.leaseBodies("t", 2, "1", "2")
	b.leaseBodies("t", 1, "3")
	b.leaseBodies("t", 5, "4")
	b.leaseBodies("t", 5)
	b.leaseBodies("nobody", 5)
	b.leaseBodies("u", 5, "x")
	lost, err := b.Renew(b.Context(), first)
	b.must(err)
	if len(lost) != 0 {
		b.Errorf("%d leases are lost", len(lost))
	}
}

func testReady(_ *testing.T, b *bench) {
	b.open(Setup{})
	ready := func() ([]string, time.Duration) {
		b.Helper()
		targets, wait, err := b.Ready(b.Context())
		b.must(err)
		slices.Sort(targets)
		return targets, wait
	}
	if targets, _ := ready(); len(targets) != 0 {
		b.Fatalf("ready at the start: %q", targets)
	}
	b.put("b", "1")
	b.put("a", "1", "2")
	if targets, _ := ready(); !slices.Equal(targets, []string{"a", "b"}) {
		b.Fatalf("ready: %q", targets)
	}
	l := b.leaseBodies("b", 2, "1")[0]
	if targets, _ := ready(); !slices.Equal(targets, []string{"a"}) {
		b.Fatalf("ready after b was leased empty: %q", targets)
	}
	b.leaseBodies("a", 1, "1")
	if targets, _ := ready(); !slices.Equal(targets, []string{"a"}) {
		b.Fatalf("ready while a has more: %q", targets)
	}
	b.leaseBodies("a", 2, "2")
	b.must(b.Settle(b.Context(), l, queue.Verdict{Action: queue.Retry, After: time.Minute}))
	targets, wait := ready()
	if len(targets) != 0 || wait > time.Minute {
		b.Fatalf("ready: %q, or in %v", targets, wait)
	}
}

func testDelivered(_ *testing.T, b *bench) {
	b.open(Setup{Limits: queue.Limits{Ledger: 3}})
	ids := b.put("t", "1", "2", "3", "4", "5")
	b.put("other", "1")
	for _, l := range b.lease("t", 10) {
		l.Record.Attempts = 2
		l.Record.History = []queue.Attempt{{Number: 2, At: l.Now, Outcome: "ok", Status: 204, Latency: time.Second}}
		b.settle(l, queue.Delivered)
	}
	b.wantCount(queue.Count{Target: "t", Delivered: 3})
	b.wantIDs(queue.Filter{Target: "t"}, ids[2:]...)
	b.wantIDs(queue.Filter{State: queue.StateDelivered}, ids[2:]...)
	r := b.get(ids[4])
	if r.State != queue.StateDelivered || r.Body != nil || r.Size != 1 || r.Attempts != 2 || r.Ended.Before(r.Created) {
		b.Errorf("got %+v", r)
	}
	if len(r.History) != 1 || r.History[0].Status != 204 || r.History[0].Latency != time.Second {
		b.Errorf("history %+v", r.History)
	}
	_, err := b.Get(b.Context(), ids[0])
	b.wantErr(err, queue.ErrNotFound)
	b.wantErr(b.Replay(b.Context(), ids[4]), queue.ErrNotDead)
}

func testRetry(_ *testing.T, b *bench) {
	b.open(Setup{})
	id := b.put("t", "1")[0]
	l := b.lease("t", 1)[0]
	l.Record.Attempts = 1
	l.Record.History = []queue.Attempt{{Number: 1, At: l.Now, Outcome: "timeout", Detail: "why"}}
	const after = 300 * time.Millisecond
	began := time.Now()
	b.must(b.Settle(b.Context(), l, queue.Verdict{Action: queue.Retry, After: after}))
	b.leaseBodies("t", 1)
	r := b.get(id)
	if r.State != queue.StatePending || r.Attempts != 1 || len(r.History) != 1 || r.History[0].Detail != "why" {
		b.Fatalf("got %+v", r)
	}
	if d := r.Next.Sub(r.Created); d < after-10*time.Millisecond || d > after+10*time.Second {
		b.Errorf("next attempt %v after it was made", d)
	}
	b.wantErr(b.Settle(b.Context(), l, queue.Verdict{Action: queue.Retry, After: time.Hour}), queue.ErrLeaseLost)
	again := b.wait("t")
	if d := time.Since(began); d < after-5*time.Millisecond {
		b.Errorf("due after %v", d)
	}
	if again.Record.Attempts != 1 || string(again.Record.Body) != "1" {
		b.Errorf("got %+v", again.Record)
	}
	b.settle(again, queue.Delivered)
	b.wantCount(queue.Count{Target: "t", Delivered: 1})
}

// background is a context for what must go on when a test ends.
func background(b *bench) context.Context { return context.WithoutCancel(b.Context()) }

func numbered(prefix string, n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprintf("%s%03d", prefix, i))
	}
	return all
}
