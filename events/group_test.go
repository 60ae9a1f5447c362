package events_test

import (
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/execgate/execgate/events"
	"github.com/execgate/execgate/internal/testkit"
)

// redisCursor returns a cursor with connections of its own.
func redisCursor(t *testing.T, r *testkit.Redis, lease time.Duration) *events.RedisCursor {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: r.Addr, MaxRetries: -1, DialTimeout: time.Second, ContextTimeoutEnabled: true})
	t.Cleanup(func() { _ = client.Close() })
	return events.NewRedisCursor(client, events.RedisCursorOptions{KeyPrefix: "p", Instance: "i", Lease: lease})
}

func TestAnEmptiedRedisSkipsNothing(t *testing.T) {
	t.Parallel()
	b, d := newBench(t), newDiary()
	r := testkit.StartRedis(t, testkit.RedisOptions{})
	admin := r.Client()
	b.told.before.Store(func(aggregate string) {
		if aggregate == "b" { // in the middle of a page, with more behind it
			if err := admin.FlushAll(context.Background()).Err(); err != nil {
				t.Error(err)
			}
			b.happens("d", "e")
		}
	})
	b.poll(redisCursor(t, r, time.Minute), d.keep)
	d.wait(t, events.PollOK, 1)
	b.told.full.Store(true)
	b.happens("a", "b", "c")
	d.wait(t, events.PollQueue, 1)
	b.told.full.Store(false)
	b.told.wait(t, 5)
	d.wait(t, events.PollOK, 1)
	if got, want := b.told.aggregates(), []string{"a", "b", "c", "d", "e"}; !slices.Equal(got, want) {
		t.Errorf("told %v, want %v", got, want)
	}
	if got := d.holding("was lost"); len(got) != 1 {
		t.Errorf("told %q", got)
	}
}

func TestARedisThatComesBackEmptySkipsNothing(t *testing.T) {
	t.Parallel()
	b, d := newBench(t), newDiary()
	r := testkit.StartRedis(t, testkit.RedisOptions{})
	b.poll(redisCursor(t, r, time.Minute), d.keep)
	d.wait(t, events.PollOK, 1)
	b.happens("a")
	b.told.wait(t, 1)
	d.wait(t, events.PollOK, 1)
	r.Kill()
	b.happens("b")
	d.wait(t, events.PollCursor, 2)
	r.Restart()
	b.happens("c")
	if got := b.told.wait(t, 3); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("told %v", got)
	}
}

func TestAnotherGatewayTakesOverThoughRedisIsEmptied(t *testing.T) {
	t.Parallel()
	b, first, second := newBench(t), newDiary(), newDiary()
	r := testkit.StartRedis(t, testkit.RedisOptions{})
	stop := b.poll(redisCursor(t, r, time.Minute), first.keep)
	first.wait(t, events.PollOK, 1)
	b.poll(redisCursor(t, r, time.Minute), second.keep)
	b.happens("a")
	b.told.wait(t, 1)
	first.wait(t, events.PollOK, 1)
	second.wait(t, events.PollStandby, 7) // it has looked how far the first one is
	r.Kill()
	second.wait(t, events.PollCursor, 1)
	stop()
	b.happens("b")
	r.Restart()
	if got := b.told.wait(t, 2); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("told %v", got)
	}
}

func TestACopyOutlivesGatewayAndRedis(t *testing.T) {
	t.Parallel()
	b, d := newBench(t), newDiary()
	r := testkit.StartRedis(t, testkit.RedisOptions{})
	kept := file(t)
	withCopy := func(o *events.PollerOptions) { o.Copy = &kept }
	stop := b.poll(redisCursor(t, r, time.Minute), d.keep, withCopy)
	d.wait(t, events.PollOK, 1)
	b.happens("a")
	b.told.wait(t, 1)
	stop()
	b.happens("b")
	if err := r.Client().FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	b.poll(redisCursor(t, r, time.Minute), d.keep, withCopy)
	if got := b.told.wait(t, 2); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("told %v", got)
	}
}

// paused is a connection that stops a poller in the middle of a look, as a
// machine that sleeps does.
type paused struct {
	grpc.ClientConnInterface
	asleep, wake chan struct{}
	once         sync.Once
}

func (p *paused) Invoke(ctx context.Context, method string, args, reply any, o ...grpc.CallOption) error {
	err := p.ClientConnInterface.Invoke(ctx, method, args, reply, o...)
	p.once.Do(func() {
		close(p.asleep)
		<-p.wake
	})
	return err
}

func TestAHolderThatSleptCannotMoveThePositionBack(t *testing.T) {
	t.Parallel()
	b, first, second := newBench(t), newDiary(), newDiary()
	r := testkit.StartRedis(t, testkit.RedisOptions{})
	const lease = 300 * time.Millisecond
	p := &paused{asleep: make(chan struct{}), wake: make(chan struct{})}
	// Somebody has polled before, so that the sleeper holds a page when it sleeps.
	stop := b.poll(redisCursor(t, r, lease), first.keep)
	first.wait(t, events.PollOK, 1)
	stop()
	b.happens("a")
	b.poll(redisCursor(t, r, lease), first.keep, func(o *events.PollerOptions) { p.ClientConnInterface, o.Conn = o.Conn, p })
	<-p.asleep
	b.poll(redisCursor(t, r, lease), second.keep) // takes over
	b.told.wait(t, 1)
	b.happens("b")
	b.told.wait(t, 2)
	second.wait(t, events.PollOK, 1)
	state := func() map[string]string { return r.Client().HGetAll(t.Context(), "p:{i}:events:position").Val() }
	before := state()
	close(p.wake)
	first.wait(t, events.PollStandby, 1)
	if after := state(); !maps.Equal(before, after) {
		t.Errorf("the sleeper changed the position:\n%v\n%v", before, after)
	}
	// What it handed over again bears the id of the first time, by which the queue drops it.
	b.told.mu.Lock()
	defer b.told.mu.Unlock()
	if ids := slices.Clone(b.told.ids); len(ids) != 3 || ids[2] != ids[0] {
		t.Errorf("ids %v", ids)
	}
}

func TestAGatewayThatCannotReachTheUpstreamLetsAnotherTry(t *testing.T) {
	t.Parallel()
	b, first, second := newBench(t), newDiary(), newDiary()
	r := testkit.StartRedis(t, testkit.RedisOptions{})
	l, err := net.Listen("tcp", "127.0.0.1:0") // an address at which nobody is
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	l.Close()
	conn, err := grpc.NewClient("passthrough:///"+nobody, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	b.poll(redisCursor(t, r, time.Minute), first.keep, func(o *events.PollerOptions) { o.Conn = conn })
	first.wait(t, events.PollUnavailable, 1)
	b.poll(redisCursor(t, r, time.Minute), second.keep)
	second.wait(t, events.PollOK, 1)
	b.happens("a")
	b.told.wait(t, 1)
}

// killed is a cursor of a gateway that does not get to release its lease.
type killed struct{ *events.RedisCursor }

func (killed) Release(context.Context) {}

func TestAnotherGatewayGoesOnInTheMiddleOfAPage(t *testing.T) {
	t.Parallel()
	b, first, second := newBench(t), newDiary(), newDiary()
	r := testkit.StartRedis(t, testkit.RedisOptions{AOF: true})
	const lease = time.Second
	names := numbered("u", 250) // the position is kept every 100
	reached := make(chan struct{})
	b.told.before.Store(func(aggregate string) {
		if aggregate == names[170] {
			close(reached)
			<-b.told.dead
		}
	})
	stop := b.poll(killed{redisCursor(t, r, lease)}, first.keep)
	first.wait(t, events.PollOK, 1)
	began := time.Now()
	b.happens(names...)
	<-reached
	b.told.before.Store(func(string) {})
	b.poll(redisCursor(t, r, lease), second.keep)
	go stop() // it dies with its lease
	close(b.told.dead)
	second.wait(t, events.PollOK, 1)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took over after %v", took)
	}
	var order []string
	ids := map[string]string{}
	b.told.mu.Lock()
	defer b.told.mu.Unlock()
	for i, aggregate := range b.told.bodies {
		if id, again := ids[aggregate]; !again {
			order = append(order, aggregate)
		} else if id != b.told.ids[i] {
			t.Errorf("%s is told again under another id", aggregate)
		}
		ids[aggregate] = b.told.ids[i]
	}
	if !slices.Equal(order, names) {
		t.Errorf("told %d of %d, or in another order", len(order), len(names))
	}
	if repeated := len(b.told.bodies) - len(order); repeated > 100 {
		t.Errorf("%d were told again", repeated)
	}
}

func TestThePositionInACluster(t *testing.T) {
	t.Parallel()
	c := testkit.StartRedisCluster(t, testkit.RedisOptions{})
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: c.Addrs})
	t.Cleanup(func() { _ = client.Close() })
	cursor := func() *events.RedisCursor {
		return events.NewRedisCursor(client, events.RedisCursorOptions{KeyPrefix: "p", Instance: "a b"})
	}
	first, second := cursor(), cursor()
	if fresh, err := first.Acquire(t.Context()); err != nil || !fresh {
		t.Fatal(fresh, err)
	}
	at := time.Now().UTC().Truncate(time.Microsecond)
	if err := first.Save(t.Context(), &events.Position{At: at}); err != nil {
		t.Fatal(err)
	}
	if _, err := second.Acquire(t.Context()); !errors.Is(err, events.ErrNotHolder) {
		t.Fatal(err)
	}
	first.Release(t.Context())
	if fresh, err := second.Acquire(t.Context()); err != nil || !fresh {
		t.Fatal(fresh, err)
	}
	if p, err := second.Load(t.Context()); err != nil || !p.At.Equal(at) {
		t.Error(p, err)
	}
	if err := first.Save(t.Context(), &events.Position{}); !errors.Is(err, events.ErrNotHolder) {
		t.Error(err)
	}
}
