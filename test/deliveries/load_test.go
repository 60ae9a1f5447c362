package deliveries

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	demopb "github.com/execgate/execgate/gen/execgate/demo/v1"
)

const (
	echo = "/execgate.demo.v1.StreamService/Echo"
	// targets is how many asynchronous targets a call has, concurrency how many
	// deliveries to one of them may be under way at a gateway.
	targets     = 2
	concurrency = 16
)

// bundle is a receiver, and callers of gateways.
type bundle struct {
	testing.TB
	url string // of the receiver

	mu      sync.Mutex
	changed *sync.Cond // whatever changes

	// What was received.
	ids     map[string]int    // by path and webhook-id: how often
	texts   map[string]string // by path and text of the call: the webhook-id
	told    map[string]int    // by text: how many targets
	whole   int               // accepted calls of which all targets were told
	strange []string          // what should not have come
	total   int
	times   []time.Time   // when each came
	held    chan struct{} // if not nil, answers wait until it is closed

	// What was called.
	gateways []*gateway
	granted  int             // calls that may be accepted by now
	taken    int             // of these: made, or being made
	accepted map[string]span // by text
	refused  int
	why      map[string]int // by error of a refused call
	closed   bool
}

// span is when a call began and was seen to succeed.
type span struct{ from, to time.Time }

// setup starts a receiver, and callers that wait for gateways and for calls to
// be granted.
func setup(t testing.TB) *bundle {
	t.Helper()
	b := &bundle{TB: t, ids: map[string]int{}, texts: map[string]string{}, told: map[string]int{}, why: map[string]int{}, accepted: map[string]span{}}
	b.changed = sync.NewCond(&b.mu)
	receiver := httptest.NewServer(http.HandlerFunc(b.receive))
	t.Cleanup(receiver.Close)
	b.url = receiver.URL
	var callers sync.WaitGroup
	for i := range 32 {
		callers.Go(func() { b.callAgainAndAgain(i) })
	}
	t.Cleanup(func() {
		b.mu.Lock()
		b.closed = true
		b.changed.Broadcast()
		b.mu.Unlock()
		callers.Wait()
	})
	return b
}

// rules are targets and an execution, as a document.
func (b *bundle) rules() string {
	var text strings.Builder
	for i := range targets {
		fmt.Fprintf(&text, "kind: Target\nname: t%d\nwebhook: {url: \"%s/t%d\"}\ntimeout: 20s\nasync: true\n---\n", i, b.url, i)
	}
	fmt.Fprintf(&text, "kind: Execution\ncondition: request%s\ntargets:\n", echo)
	for i := range targets {
		fmt.Fprintf(&text, "  - t%d\n", i)
	}
	return text.String()
}

func (b *bundle) receive(_ http.ResponseWriter, r *http.Request) {
	var told struct{ Request struct{ Text string } }
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the gateway was killed
	}
	err = json.Unmarshal(body, &told)
	id := r.Header.Get("webhook-id")
	b.mu.Lock()
	text := told.Request.Text
	before, known := b.texts[r.URL.Path+" "+text]
	if err != nil || id == "" || known && before != id {
		b.strange = append(b.strange, fmt.Sprintf("%s %s, before %s: %s", r.URL.Path, id, before, body))
	}
	b.texts[r.URL.Path+" "+text] = id
	if !known {
		b.told[text]++
		if _, accepted := b.accepted[text]; accepted && b.told[text] == targets {
			b.whole++
		}
	}
	b.ids[r.URL.Path+" "+id]++
	b.total++
	b.times = append(b.times, time.Now())
	b.changed.Broadcast()
	held := b.held
	b.mu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-r.Context().Done(): // the gateway gave up
		}
		return
	}
	<-time.After(5 * time.Millisecond) // a target that does something, so that there is a backlog
}

// callAgainAndAgain makes the calls that are granted, over one gateway or
// another. A call that fails is made again, as another one.
func (b *bundle) callAgainAndAgain(caller int) {
	for n := 0; ; n++ {
		b.mu.Lock()
		for !b.closed && (b.taken == b.granted || len(b.gateways) == 0) {
			b.changed.Wait()
		}
		if b.closed {
			b.mu.Unlock()
			return
		}
		b.taken++
		g := b.gateways[(caller+n)%len(b.gateways)]
		conn := g.conn
		b.mu.Unlock()
		text := fmt.Sprintf("caller %d, call %d", caller, n)
		began := time.Now()
		_, err := demopb.NewStreamServiceClient(conn).Echo(b.Context(), &demopb.EchoRequest{Text: text})
		b.mu.Lock()
		if err == nil {
			b.accepted[text] = span{began, time.Now()}
			if b.told[text] == targets {
				b.whole++
			}
		} else {
			b.taken--
			b.refused++
			b.why[err.Error()]++
		}
		b.changed.Broadcast()
		b.mu.Unlock()
		if err != nil {
			<-time.After(10 * time.Millisecond)
		}
	}
}

// hold makes the receiver answer nothing until release is called.
func (b *bundle) hold() (release func()) {
	held := make(chan struct{})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held = held
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.held == held {
			b.held = nil
			close(held)
		}
	}
}

// grant lets callers make so many more calls.
func (b *bundle) grant(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.granted += n
	b.changed.Broadcast()
}

// use lets callers call these gateways, and no other.
func (b *bundle) use(gateways ...*gateway) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gateways = gateways
	b.changed.Broadcast()
}

// until waits for what received or called calls change.
func (b *bundle) until(what string, done func() bool) {
	b.Helper()
	const patience = time.Minute // without any progress
	timeout := time.AfterFunc(patience, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.Errorf("waited in vain: %s; %d calls accepted of %d granted, %d deliveries received", what, len(b.accepted), b.granted, len(b.ids))
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

// arrived waits for so many more deliveries.
func (b *bundle) arrived(more int) {
	b.Helper()
	b.mu.Lock()
	n := len(b.ids) + more
	b.mu.Unlock()
	b.until(fmt.Sprintf("%d deliveries arrive", n), func() bool { return len(b.ids) >= n })
}

// taking waits until all calls that were granted are accepted.
func (b *bundle) taking() {
	b.Helper()
	b.until("all calls are accepted", func() bool { return len(b.accepted) == b.granted })
}

// note logs what goes on.
func (b *bundle) note(what string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.Logf("%s: %d calls accepted, %d refused, %d of %d deliveries received", what, len(b.accepted), b.refused, len(b.ids), targets*len(b.accepted))
}

// lost returns the calls that were accepted and that a target was not told of.
func (b *bundle) lost() (texts []string) {
	for text := range b.accepted {
		if b.told[text] < targets {
			texts = append(texts, text)
		}
	}
	return texts
}

// verdict checks that each target was told of every accepted call at least once,
// and under one id only, and how much came twice.
func (b *bundle) verdict(began time.Time, inFlight int) {
	b.Helper()
	b.taking()
	b.until("every target is told of every accepted call", func() bool { return b.whole == len(b.accepted) })
	b.count(began, inFlight)
}

// count checks and logs what came.
func (b *bundle) count(began time.Time, inFlight int) {
	b.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	twice, lost := b.total-len(b.ids), len(b.accepted)-b.whole
	b.Logf("%d calls accepted, %d refused; %d deliveries expected, %d received, %d of calls that the client saw fail; "+
		"%d calls lost, %d duplicates (at most %d were in flight); %v",
		len(b.accepted), b.refused, targets*len(b.accepted), len(b.ids), len(b.ids)-targets*b.whole,
		lost, twice, inFlight, time.Since(began).Round(10*time.Millisecond))
	for why, n := range b.why {
		b.Logf("%d calls failed with %s", n, why)
	}
	if twice > inFlight {
		b.Errorf("%d duplicates, but at most %d were in flight", twice, inFlight)
	}
	if len(b.strange) > 0 {
		b.Errorf("%d calls were told under two ids or wrong, such as %s", len(b.strange), b.strange[0])
	}
}
