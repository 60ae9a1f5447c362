package events_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/execgate/execgate/events"
	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/internal/testkit/demoapi"
	"github.com/execgate/execgate/queue"
	"github.com/execgate/execgate/schema"
)

// diary is what a poller logged and how its looks ended.
type diary struct {
	mu       sync.Mutex
	lines    []string
	outcomes map[string]int
	more     chan struct{}
}

func newDiary() *diary { return &diary{outcomes: map[string]int{}, more: make(chan struct{}, 1)} }

// keep makes a poller write it.
func (d *diary) keep(o *events.PollerOptions) {
	o.Logger = slog.New(slog.NewTextHandler(d, nil))
	o.OnPoll = func(outcome string) {
		d.mu.Lock()
		d.outcomes[outcome]++
		d.mu.Unlock()
		select {
		case d.more <- struct{}{}:
		default:
		}
	}
}

// Write takes a line.
func (d *diary) Write(line []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, string(line))
	return len(line), nil
}

// wait returns when an outcome was seen n times more.
func (d *diary) wait(t *testing.T, outcome string, n int) {
	t.Helper()
	d.mu.Lock()
	want := d.outcomes[outcome] + n
	d.mu.Unlock()
	timeout := time.After(20 * time.Second)
	for {
		d.mu.Lock()
		seen, all := d.outcomes[outcome], maps.Clone(d.outcomes)
		d.mu.Unlock()
		if seen >= want {
			return
		}
		select {
		case <-d.more:
		case <-timeout:
			t.Fatalf("%q was not seen %d times: %v", outcome, want, all)
		}
	}
}

// holding returns the lines that hold a text.
func (d *diary) holding(text string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(d.lines), func(line string) bool { return !strings.Contains(line, text) })
}

// refusing is a connection whose calls fail with a status as long as it has one.
type refusing struct {
	grpc.ClientConnInterface
	mu     sync.Mutex
	status error
}

func (r *refusing) set(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = err
}

func (r *refusing) Invoke(ctx context.Context, method string, args, reply any, o ...grpc.CallOption) error {
	r.mu.Lock()
	err := r.status
	r.mu.Unlock()
	if err != nil {
		return err
	}
	return r.ClientConnInterface.Invoke(ctx, method, args, reply, o...)
}

func TestEachRefusalIsToldOnceAndOvercome(t *testing.T) {
	t.Parallel()
	for outcome, step := range map[string]struct {
		code codes.Code
		text string
	}{
		events.PollDenied:        {codes.PermissionDenied, "events.read"},
		events.PollWrongInstance: {codes.NotFound, "upstream.authority"},
		events.PollUnavailable:   {codes.Unavailable, "away"},
		events.PollNoAPI:         {codes.Unimplemented, "events.poll.enabled"},
		events.PollRefused:       {codes.ResourceExhausted, "refuses"},
	} {
		t.Run(outcome, func(t *testing.T) {
			t.Parallel()
			b, d, r := newBench(t), newDiary(), &refusing{}
			b.poll(file(t), d.keep, func(o *events.PollerOptions) { r.ClientConnInterface, o.Conn = o.Conn, r })
			d.wait(t, events.PollOK, 1)
			r.set(status.Error(step.code, "quotes the secret"))
			b.happens("a")
			d.wait(t, outcome, 2)
			r.set(nil)
			b.told.wait(t, 1)
			d.wait(t, events.PollOK, 1)
			if got := d.holding(step.text); len(got) != 1 || !strings.Contains(got[0], "reason="+outcome) {
				t.Errorf("told %q", got)
			}
			if got := d.holding("secret"); len(got) != 0 {
				t.Errorf("the log repeats what the upstream says: %q", got)
			}
			if got := d.holding("polled again"); len(got) != 1 {
				t.Errorf("recovery told %d times", len(got))
			}
		})
	}
}

func TestATokenThatIsRejectedIsToldOnceAndReadAgain(t *testing.T) {
	t.Parallel()
	b, d := newBench(t), newDiary()
	var mu sync.Mutex
	token, fault := "secret", error(nil)
	set := func(to string, err error) {
		mu.Lock()
		defer mu.Unlock()
		token, fault = to, err
	}
	b.poll(file(t), d.keep, func(o *events.PollerOptions) {
		o.Token = func() (string, error) {
			mu.Lock()
			defer mu.Unlock()
			return token, fault
		}
	})
	d.wait(t, events.PollOK, 1)
	set("expired", nil)
	b.happens("a")
	d.wait(t, events.PollUnauthenticated, 3)
	if got := d.holding("does not accept the token"); len(got) != 1 {
		t.Errorf("told %q", got)
	}
	set("secret", nil) // as if somebody had written the file
	b.told.wait(t, 1)
	set("", errors.New("no such file"))
	d.wait(t, events.PollUnauthenticated, 2)
	set("secret", nil)
	b.happens("b")
	if got := b.told.wait(t, 2); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("told %v", got)
	}
	if got := d.holding("expired"); len(got) != 0 {
		t.Errorf("the token is in the log: %q", got)
	}
}

func TestAnUpstreamThatGoesAndComesBack(t *testing.T) {
	t.Parallel()
	b, d := newBench(t), newDiary()
	b.poll(file(t), d.keep)
	d.wait(t, events.PollOK, 1)
	b.happens("a")
	b.told.wait(t, 1)
	if err := b.api.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.happens("b")
	d.wait(t, events.PollUnavailable, 3)
	b.happens("c")
	if _, err := b.api.Start(t.Context(), b.addr); err != nil {
		t.Fatal(err)
	}
	if got := b.told.wait(t, 3); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("told %v", got)
	}
	d.wait(t, events.PollOK, 1)
	if away, again := d.holding("upstream is away"), d.holding("polled again"); len(away) != 1 || len(again) != 1 {
		t.Errorf("told %q and %q", away, again)
	}
}

// withoutEvents is the schema of an API that has no AdminService.
func withoutEvents(t *testing.T) *schema.Schema {
	t.Helper()
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(demoapi.DescriptorSet(), set); err != nil {
		t.Fatal(err)
	}
	for _, f := range set.GetFile() {
		f.Service = slices.DeleteFunc(f.GetService(), func(s *descriptorpb.ServiceDescriptorProto) bool { return s.GetName() == "AdminService" })
	}
	text, err := proto.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	s, err := schema.FromDescriptorSet(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAnUpstreamWithoutAnEventAPIIsNotAsked(t *testing.T) {
	t.Parallel()
	b, d := newBench(t), newDiary()
	var mu sync.Mutex
	var known *schema.Schema
	var whole func() *schema.Schema
	b.poll(file(t), d.keep, func(o *events.PollerOptions) {
		whole = o.Schema
		o.Schema = func() *schema.Schema {
			mu.Lock()
			defer mu.Unlock()
			return known
		}
	})
	set := func(s *schema.Schema) {
		mu.Lock()
		defer mu.Unlock()
		known = s
	}
	d.wait(t, events.PollWaiting, 2)
	if got := d.holding("level=WARN"); len(got) != 0 {
		t.Errorf("a schema that is still to come is no reason to warn: %q", got)
	}
	set(withoutEvents(t))
	d.wait(t, events.PollNoAPI, 2)
	if got := d.holding("no event API"); len(got) != 1 {
		t.Errorf("told %q", got)
	}
	select {
	case <-b.asks:
		t.Error("it is asked")
	default:
	}
	set(whole()) // the upstream was updated
	d.wait(t, events.PollOK, 1)
	b.happens("a")
	b.told.wait(t, 1)
}

func TestWhatHappensAfterTheStartIsToldHoweverLateTheFirstLook(t *testing.T) {
	t.Parallel()
	b, d := newBench(t), newDiary()
	b.happens("before")
	var ready atomic.Bool
	b.poll(file(t), d.keep, func(o *events.PollerOptions) {
		whole := o.Schema
		o.Schema = func() *schema.Schema {
			if !ready.Load() {
				return nil
			}
			return whole()
		}
	})
	d.wait(t, events.PollWaiting, 1)
	b.happens("a", "b")
	ready.Store(true)
	d.wait(t, events.PollOK, 2)
	if got := b.told.wait(t, 2); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("told %v", got)
	}
}

func TestAnEventThatCanNeverBeQueuedHoldsUpNothing(t *testing.T) {
	t.Parallel()
	b, d := newBench(t), newDiary()
	b.told.refuse.Store(map[string]error{"large": queue.ErrTooLarge})
	b.poll(file(t), d.keep)
	d.wait(t, events.PollOK, 1)
	b.happens("a", "large", "b")
	if got := b.told.wait(t, 2); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("told %v", got)
	}
	d.wait(t, events.PollOK, 2)
	if got := d.holding("cannot be told"); len(got) != 1 {
		t.Errorf("told %q", got)
	}
}

func TestOldEventsAreSkippedAloud(t *testing.T) {
	t.Parallel()
	b, d := newBench(t), newDiary()
	cursor := file(t)
	stop := b.poll(cursor, d.keep)
	d.wait(t, events.PollOK, 1)
	stop()
	b.happens("a", "b")
	p, err := cursor.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.poll(cursor, d.keep, func(o *events.PollerOptions) { o.MaxAge = time.Nanosecond })
	d.wait(t, events.PollOK, 2)
	if got := b.told.aggregates(); len(got) != 0 {
		t.Errorf("told %v", got)
	}
	if got := d.holding("too old"); len(got) != 1 || !strings.Contains(got[0], "count=2") || !strings.Contains(got[0], "from=") {
		t.Errorf("told %q", got)
	}
	if now, err := cursor.Load(t.Context()); err != nil || !now.At.After(p.At) {
		t.Errorf("the position stays: %v, %v", now, err)
	}
}

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

func TestAPollerThatStopsKeepsWhatItDid(t *testing.T) {
	t.Parallel()
	b, d := newBench(t), newDiary()
	cursor := file(t)
	var stop func()
	reached := make(chan struct{})
	b.told.before.Store(func(aggregate string) {
		if aggregate == "u7" {
			close(reached)
			<-b.told.dead
		}
	})
	stop = b.poll(cursor, d.keep)
	d.wait(t, events.PollOK, 1)
	b.happens(numbered("u", 20)...)
	<-reached
	stopped := make(chan struct{})
	go func() {
		stop()
		close(stopped)
	}()
	<-b.stopping // its context has ended
	close(b.told.dead)
	<-stopped
	b.told.before.Store(func(string) {})
	b.poll(cursor, d.keep)
	b.told.wait(t, 20)
	d.wait(t, events.PollOK, 1)
	if got := b.told.aggregates(); !slices.Equal(got, numbered("u", 20)) {
		t.Errorf("told %v", got)
	}
}
