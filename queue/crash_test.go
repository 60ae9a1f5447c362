package queue_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/queue"
	"github.com/execgate/execgate/targetclient"
)

const (
	// childEnv makes the test binary a gateway, so to speak: it takes and delivers
	// as the JSON in it says, until it is killed or its input ends.
	childEnv = "EXECGATE_QUEUE_TEST_CHILD"
	// crashSizeEnv is how many deliveries the crash tests make.
	crashSizeEnv = "EXECGATE_CRASH_DELIVERIES"

	crashTargets     = 4
	crashConcurrency = 16
)

// childSpec says what a child does.
type childSpec struct {
	Path, Redis, Spool string // Path: embedded; otherwise Redis
	Receiver           string
	Enqueue            int
}

// crashChild is the life of a child. It writes the id of every delivery that was
// accepted to its output.
func crashChild(text string) {
	var spec childSpec
	check(json.Unmarshal([]byte(text), &spec))
	o := queue.DurableOptions{
		Concurrency: crashConcurrency, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Schedule: queue.Schedule{FirstDelay: 100 * time.Millisecond},
	}
	var err error
	if spec.Path != "" {
		o.Backend, err = queue.OpenEmbedded(queue.EmbeddedOptions{Path: spec.Path, LockTimeout: 10 * time.Second})
		check(err)
	} else {
		client := redis.NewClient(&redis.Options{Addr: spec.Redis, ContextTimeoutEnabled: true, MaxRetries: 1, DialTimeout: time.Second})
		o.Backend, err = queue.NewRedis(client, queue.RedisOptions{Visibility: 3 * time.Second})
		check(err)
		o.Spool, err = queue.OpenSpool(queue.SpoolOptions{Path: spec.Spool, LockTimeout: 10 * time.Second})
		check(err)
	}
	client, err := targetclient.New(targetclient.Options{})
	check(err)
	o.Caller = client
	targets := map[string]*queue.Settings{}
	for i := range crashTargets {
		id := "t" + strconv.Itoa(i)
		targets[id] = &queue.Settings{Target: &targetclient.Target{ID: id, Name: id, URL: spec.Receiver + "/" + id}}
	}
	o.Targets = func(id string) (*queue.Settings, bool) { return targets[id], true }
	q, err := queue.NewDurable(o)
	check(err)
	check(q.Start(context.Background()))

	var wg sync.WaitGroup
	work := make(chan int)
	for range 16 {
		wg.Go(func() {
			for i := range work {
				id := queue.NewID(time.Now())
				to := targets["t"+strconv.Itoa(i%crashTargets)].Target
				err := q.Enqueue(context.Background(), queue.Delivery{ID: id, Execution: "request", Target: to, Body: fmt.Appendf(nil, `{"n":%d}`, i)})
				if err == nil {
					_, err = os.Stdout.WriteString(id + "\n")
				}
				check(err)
			}
		})
	}
	for i := range spec.Enqueue {
		work <- i
	}
	close(work)
	wg.Wait()
	_, err = os.Stdout.WriteString("all\n")
	check(err)
	_, _ = io.Copy(io.Discard, os.Stdin)
	q.Stop(context.Background())
	check(o.Backend.Close())
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(3)
	}
}

// crashBundle is a receiver, and what children said and sent.
type crashBundle struct {
	*testing.T
	receiver *httptest.Server

	mu       sync.Mutex
	changed  *sync.Cond
	received map[string]int
	total    int
	accepted map[string]struct{}
}

func crashSetup(t *testing.T) (b *crashBundle, size int) {
	t.Helper()
	size = 5000
	if text := os.Getenv(crashSizeEnv); text != "" {
		var err error
		if size, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	b = &crashBundle{T: t, received: map[string]int{}, accepted: map[string]struct{}{}}
	b.changed = sync.NewCond(&b.mu)
	b.receiver = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		b.received[r.Header.Get("webhook-id")]++
		b.total++
		b.changed.Broadcast()
		b.mu.Unlock()
		<-time.After(time.Millisecond) // a target that does something
	}))
	t.Cleanup(b.receiver.Close)
	return b, size
}

// wait waits until so many different deliveries were received.
func (b *crashBundle) wait(n int) {
	b.Helper()
	b.until(fmt.Sprintf("%d deliveries are received", n), func() bool { return len(b.received) >= n })
}

func (b *crashBundle) until(what string, done func() bool) {
	b.Helper()
	const patience = time.Minute // without any progress
	timeout := time.AfterFunc(patience, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.Errorf("waited in vain: %s; %d received, %d accepted", what, len(b.received), len(b.accepted))
		b.changed.Broadcast()
	})
	defer timeout.Stop()
	b.mu.Lock()
	defer b.mu.Unlock()
	for !done() && !b.Failed() {
		b.changed.Wait()
		timeout.Reset(patience)
	}
	if b.Failed() {
		b.FailNow()
	}
}

// child is a running child process.
type child struct {
	b        *crashBundle
	cmd      *exec.Cmd
	in       io.Closer
	enqueued chan struct{} // closed when it has enqueued all
	gone     chan struct{}
}

func (b *crashBundle) start(spec childSpec) *child {
	b.Helper()
	spec.Receiver = b.receiver.URL
	text, err := json.Marshal(spec)
	if err != nil {
		b.Fatal(err)
	}
	c := &child{b: b, cmd: exec.Command(os.Args[0]), enqueued: make(chan struct{}), gone: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	c.cmd.Stderr = os.Stderr
	if !testing.Verbose() {
		c.cmd.Stderr = nil
	}
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		b.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	go func() {
		defer close(c.gone)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if lines.Text() == "all" {
				close(c.enqueued)
				continue
			}
			b.mu.Lock()
			b.accepted[lines.Text()] = struct{}{}
			b.changed.Broadcast()
			b.mu.Unlock()
		}
		_ = c.cmd.Wait()
	}()
	b.Cleanup(c.kill)
	return c
}

// kill ends the child as kill -9 does.
func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	<-c.gone
}

// stop ends the child in an orderly way.
func (c *child) stop() {
	c.b.Helper()
	_ = c.in.Close()
	<-c.gone
	if code := c.cmd.ProcessState.ExitCode(); code != 0 {
		c.b.Errorf("a child ended with code %d", code)
	}
}

// verdict checks that nothing was lost, and how much came twice.
func (b *crashBundle) verdict(began time.Time, inFlight int) {
	b.Helper()
	b.until("all that was accepted is received", func() bool {
		for id := range b.accepted {
			if b.received[id] == 0 {
				return false
			}
		}
		return true
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	twice := b.total - len(b.received)
	b.Logf("%d accepted, %d received, 0 lost, %d duplicates (at most %d were in flight), %v",
		len(b.accepted), len(b.received), twice, inFlight, time.Since(began).Round(10*time.Millisecond))
	if twice > inFlight {
		b.Errorf("%d duplicates, but at most %d were in flight", twice, inFlight)
	}
}

func TestCrashEmbedded(t *testing.T) {
	t.Parallel()
	b, size := crashSetup(t)
	began := time.Now()
	spec := childSpec{Path: filepath.Join(t.TempDir(), "queue.db"), Enqueue: size / 4}
	kills := 0
	for range 3 { // in the middle of enqueuing, delivering, both
		c := b.start(spec)
		b.wait(b.receivedSoFar() + size/8)
		c.kill()
		kills++
	}
	spec.Enqueue = size - b.acceptedSoFar()
	c := b.start(spec)
	<-c.enqueued
	c.stop() // hands back
	spec.Enqueue = 0
	c = b.start(spec)
	b.verdict(began, kills*crashTargets*crashConcurrency)
	c.stop()
}

func TestFrozenGateway(t *testing.T) {
	t.Parallel()
	b, size := crashSetup(t)
	server := testkit.StartRedis(t, testkit.RedisOptions{})
	spools := t.TempDir()
	began := time.Now()
	one := b.start(childSpec{Redis: server.Addr, Spool: filepath.Join(spools, "one"), Enqueue: size / 5})
	b.wait(size / 20)
	<-one.enqueued
	if err := one.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	two := b.start(childSpec{Redis: server.Addr, Spool: filepath.Join(spools, "two")})
	inFlight := crashTargets * crashConcurrency
	b.verdict(began, inFlight) // it got what the frozen one had leased
	if err := one.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	one.stop()
	two.stop()
	b.verdict(began, inFlight) // what the frozen one had leased and not begun, it left alone
}

func (b *crashBundle) acceptedSoFar() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.accepted)
}

func (b *crashBundle) receivedSoFar() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.received)
}

func TestCrashRedis(t *testing.T) {
	t.Parallel()
	b, size := crashSetup(t)
	server := testkit.StartRedis(t, testkit.RedisOptions{AOF: true})
	spools := t.TempDir()
	began := time.Now()
	spec := func(name string, n int) childSpec {
		return childSpec{Redis: server.Addr, Spool: filepath.Join(spools, name), Enqueue: n}
	}
	const gateways = 2
	one, two := b.start(spec("one", size/4)), b.start(spec("two", size/4))
	b.wait(size / 8)
	one.kill()
	one = b.start(spec("one", size/4))
	b.wait(size / 4)
	server.Kill()
	two.kill()
	before := b.acceptedSoFar()
	two = b.start(spec("two", size/4)) // what it accepts goes to its spool
	b.until("the spool takes some", func() bool { return len(b.accepted) >= before+size/50 })
	two.kill()
	two = b.start(spec("two", size/4))
	server.Restart()
	b.wait(size / 2)
	one.kill()
	one = b.start(spec("one", size-b.acceptedSoFar()))
	<-one.enqueued
	<-two.enqueued
	b.verdict(began, (4+gateways)*crashTargets*crashConcurrency)
	one.stop()
	two.stop()
}
