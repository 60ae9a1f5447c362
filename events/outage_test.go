package events_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/execgate/execgate/events"
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
