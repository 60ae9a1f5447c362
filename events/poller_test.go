package events_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/execgate/execgate/conditions"
	"github.com/execgate/execgate/dispatcher"
	"github.com/execgate/execgate/events"
	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/internal/testkit/demoapi"
	"github.com/execgate/execgate/queue"
	"github.com/execgate/execgate/schema"
	"github.com/execgate/execgate/targetclient"
)

func TestMain(m *testing.M) {
	// The thread that redis-server's life hangs on.
	testkit.Main(m, goleak.IgnoreAnyFunction("github.com/execgate/execgate/internal/testkit.startWithParent.func1.1"),
		// It looks once a second whether its client was closed.
		goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

// told is a queue that keeps what it is given.
type told struct {
	mu     sync.Mutex
	ids    []string
	bodies []string
	full   atomic.Bool
	refuse atomic.Value // the error by which one aggregate is refused, map[string]error
	before atomic.Value // called with the aggregate, func(string)
	more   chan struct{}
	dead   chan struct{} // for before to wait for
}

func (q *told) Enqueue(_ context.Context, d queue.Delivery) error {
	if q.full.Load() {
		return queue.ErrFull
	}
	if err := q.refuse.Load(); err != nil && err.(map[string]error)[d.AggregateID] != nil {
		return err.(map[string]error)[d.AggregateID]
	}
	if before := q.before.Load(); before != nil {
		before.(func(string))(d.AggregateID)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ids, q.bodies = append(q.ids, d.ID), append(q.bodies, d.AggregateID)
	select {
	case q.more <- struct{}{}:
	default:
	}
	return nil
}

func (q *told) aggregates() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.bodies)
}

// wait returns the aggregates of the first n events.
func (q *told) wait(t *testing.T, n int) []string {
	t.Helper()
	timeout := time.After(time.Minute)
	for {
		if got := q.aggregates(); len(got) >= n {
			return got
		}
		select {
		case <-q.more:
		case <-timeout:
			t.Fatalf("told %d events, want %d", len(q.aggregates()), n)
		}
	}
}

type bench struct {
	t        *testing.T
	api      *demoapi.Server
	addr     string
	told     *told
	gaps     atomic.Int32
	once     sync.Once
	stopping chan struct{} // closed when a poller is told to stop
	asks     chan struct{} // each call of the event API, as far as somebody waits
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, told: &told{more: make(chan struct{}, 1), dead: make(chan struct{})}, asks: make(chan struct{}), stopping: make(chan struct{})}
	b.api = demoapi.New(demoapi.Options{Tokens: map[string]string{"secret": "reader"}, OnRequest: func(demoapi.Request) {
		select {
		case b.asks <- struct{}{}:
		default:
		}
	}})
	var err error
	if b.addr, err = b.api.Start(t.Context(), "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.api.Stop(context.Background()) })
	return b
}

// looked waits for whole looks at the upstream.
func (b *bench) looked() {
	b.t.Helper()
	for range 3 {
		select {
		case <-b.asks:
		case <-time.After(20 * time.Second):
			b.t.Fatal("the upstream is not asked")
		}
	}
}

// poll polls until the test ends or stop is called.
func (b *bench) poll(cursor events.Cursor, change ...func(*events.PollerOptions)) (stop func()) {
	b.t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+b.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.t.Fatal(err)
	}
	s, err := schema.FromDescriptorSet(demoapi.DescriptorSet())
	if err != nil {
		b.t.Fatal(err)
	}
	snapshot, _ := dispatcher.NewSnapshot(1, []conditions.Execution{{Condition: conditions.Condition{Kind: conditions.Event, Level: conditions.All}, Targets: []string{"1"}}},
		[]*targetclient.Target{{ID: "1", Name: "t", URL: "http://127.0.0.1:1/", Kind: targetclient.KindAsync, Timeout: time.Second}}, dispatcher.SnapshotOptions{})
	o := events.PollerOptions{
		Conn: conn, Schema: func() *schema.Schema { return s }, Token: func() (string, error) { return "secret", nil },
		Sink:   events.NewSink(events.SinkOptions{Snapshot: func() *dispatcher.Snapshot { return snapshot }, Queue: b.told}),
		Cursor: cursor, Interval: 20 * time.Millisecond, OnGap: func() { b.gaps.Add(1) }, Logger: testkit.Logger(b.t),
	}
	for _, c := range change {
		c(&o)
	}
	p := events.NewPoller(o)
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { p.Run(ctx) })
	context.AfterFunc(ctx, func() { b.once.Do(func() { close(b.stopping) }) })
	stop = sync.OnceFunc(func() { cancel(); done.Wait(); _ = conn.Close() })
	b.t.Cleanup(stop)
	return stop
}

func (b *bench) happens(aggregates ...string) {
	for _, id := range aggregates {
		b.api.AppendEvents(demoapi.Event{AggregateType: "user", AggregateID: id, Type: "user.human.added"})
	}
}

func file(t *testing.T) events.FileCursor {
	t.Helper()
	return events.FileCursor{Path: filepath.Join(t.TempDir(), "new", "events")}
}

func numbered(prefix string, n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("%s%d", prefix, i)
	}
	return names
}

func TestPollsFromNowInOrderOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.happens("before")
	cursor := file(t)
	stop := b.poll(cursor)
	b.looked()
	b.happens("a", "b", "c")
	b.told.wait(t, 3)
	b.looked() // the overlap holds all of them
	stop()
	b.happens("d", "e")
	b.poll(cursor)
	b.told.wait(t, 5)
	b.looked()
	if got, want := b.told.aggregates(), []string{"a", "b", "c", "d", "e"}; !slices.Equal(got, want) {
		t.Errorf("told %v, want %v", got, want)
	}
}

func TestAFullQueueLosesNoPolledEvent(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.poll(file(t))
	b.looked()
	b.told.full.Store(true)
	b.happens("a", "b")
	b.looked()
	b.told.full.Store(false)
	if got := b.told.wait(t, 2); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("told %v", got)
	}
}

func TestMoreThanAPage(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	cursor := file(t)
	stop := b.poll(cursor)
	b.looked()
	stop()
	var want []string
	for i := range 25 { // one transaction lies across the end of the page
		var batch []demoapi.Event
		for j := range 90 {
			id := fmt.Sprintf("%d-%d", i, j)
			batch, want = append(batch, demoapi.Event{AggregateType: "user", AggregateID: id, Type: "user.locked"}), append(want, id)
		}
		b.api.AppendEvents(batch...)
	}
	b.poll(cursor)
	b.told.wait(t, len(want))
	b.looked()
	if got := b.told.aggregates(); !slices.Equal(got, want) || b.gaps.Load() != 0 {
		t.Errorf("told %d, want %d in order; %d gaps", len(got), len(want), b.gaps.Load())
	}
}

func TestMoreThanAPageOfOneTime(t *testing.T) {
	t.Parallel()
	transaction := func(typ string, ids []string) (batch []demoapi.Event) {
		for _, id := range ids {
			batch = append(batch, demoapi.Event{AggregateType: typ, AggregateID: id, Type: typ + ".changed"})
		}
		return batch
	}
	for name, c := range map[string]struct {
		batch []demoapi.Event
		told  int
		gaps  int32
	}{
		"both ends show all": {transaction("user", numbered("u", 1500)), 1500, 0},
		"types apart": {slices.Concat(transaction("user", numbered("u", 900)), transaction("org", numbered("o", 900)),
			transaction("project", numbered("p", 900))), 2700, 0},
		"one aggregate":    {transaction("user", slices.Repeat([]string{"u"}, 2500)), 2500, 1}, // who knows what else there is
		"more than can be": {transaction("user", numbered("u", 2500)), 2000, 1},
		"one with many in the midst of many with one": {slices.Concat(transaction("user", numbered("u", 1100)), transaction("user", slices.Repeat([]string{"m"}, 600)),
			transaction("user", numbered("v", 1100))), 2600, 1},
		"exactly a page":     {transaction("user", numbered("u", 1000)), 1000, 0},
		"a page and another": {transaction("user", numbered("u", 2000)), 2000, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			cursor := file(t)
			stop := b.poll(cursor)
			b.looked()
			stop()
			b.api.AppendEvents(c.batch...)
			b.happens("after")
			b.poll(cursor)
			b.told.wait(t, c.told+1)
			b.looked() // the gap is known now, too
			b.looked()
			got := b.told.aggregates()
			unique := slices.Clone(b.told.ids)
			slices.Sort(unique)
			if len(got) != c.told+1 || got[c.told] != "after" || len(slices.Compact(unique)) != len(got) || b.gaps.Load() != c.gaps {
				t.Errorf("told %d, want %d, the last %q; %d gaps", len(got), c.told+1, got[len(got)-1], b.gaps.Load())
			}
		})
	}
}

func TestOneGatewayOfAGroupPolls(t *testing.T) {
	t.Parallel()
	r := testkit.StartRedis(t, testkit.RedisOptions{})
	b := newBench(t)
	cursor := func() *events.RedisCursor {
		client := redis.NewClient(&redis.Options{Addr: r.Client().Options().Addr, Password: r.Client().Options().Password})
		t.Cleanup(func() { _ = client.Close() })
		return events.NewRedisCursor(client, events.RedisCursorOptions{KeyPrefix: "p", Instance: "i", Lease: 300 * time.Millisecond})
	}
	first := cursor()
	if fresh, err := first.Acquire(t.Context()); err != nil || !fresh {
		t.Fatalf("first: %v, %v", fresh, err)
	}
	if fresh, err := first.Acquire(t.Context()); err != nil || fresh {
		t.Fatalf("again: %v, %v", fresh, err)
	}
	if err := first.Save(t.Context(), &events.Position{}); err != nil {
		t.Fatal(err)
	}
	if _, err := cursor().Acquire(t.Context()); err == nil {
		t.Fatal("two hold the lease")
	}
	stop := b.poll(cursor()) // takes over when the lease ends
	b.poll(cursor())
	b.happens("a", "b")
	b.told.wait(t, 2)
	if err := first.Save(t.Context(), &events.Position{}); err == nil {
		t.Error("saved without the lease")
	}
	stop() // the other one goes on
	b.happens("c", "d")
	b.told.wait(t, 4)
	b.looked()
	if got, want := b.told.aggregates(), []string{"a", "b", "c", "d"}; !slices.Equal(got, want) {
		t.Errorf("told %v, want %v", got, want)
	}
}
