//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// loadSpec says what the load generator does.
type loadSpec struct {
	address string
	conns   int
	streams int // calls at once on each connection
	rest    bool
	tls     *tls.Config

	method  string
	message []byte  // without prefix
	want    int     // bytes of the answer's body
	rate    float64 // calls per second, 0 for as many as are answered (closed loop)
	threads int
	callout bool // the target is to be called each time
	once    bool // one call on each connection, and then nothing
}

// measured is what came of it.
type measured struct {
	Calls   int           `json:"calls"`
	Failed  int           `json:"failed"`
	Took    time.Duration `json:"took_ns"`
	P50     time.Duration `json:"p50_ns"`
	P99     time.Duration `json:"p99_ns"`
	Unsent  int           `json:"unsent,omitempty"` // calls of an open loop whose time had come, but not their turn
	Failure string        `json:"failure,omitempty"`
}

// generator makes calls until it is stopped.
type generator struct {
	spec      loadSpec
	recording atomic.Bool
	stopping  atomic.Bool   // no more calls
	drained   chan struct{} // has an element for each connection that has none under way since then
	epoch     time.Time

	loops []*loop
	paces []*pace
	socks []net.Conn
	wg    sync.WaitGroup

	mu      sync.Mutex
	workers []*worker
	failure error
}

// worker is what the connections of one goroutine count in.
type worker struct {
	latencies histogram
	failed    int
}

// startLoad connects and begins to call. It returns when all connections have had an answer.
func startLoad(ctx context.Context, spec loadSpec) (*generator, error) {
	g := &generator{spec: spec, epoch: time.Now(), drained: make(chan struct{}, spec.conns)}
	var ready sync.WaitGroup
	ready.Add(spec.conns)
	err := g.connect(ctx, &ready)
	if err == nil {
		done := make(chan struct{})
		go func() { ready.Wait(); close(done) }()
		select {
		case <-done:
		case <-ctx.Done():
			err = ctx.Err()
		case <-time.After(20 * time.Second):
			err = errors.New("no answers")
		}
	}
	g.mu.Lock()
	if g.failure != nil {
		err = g.failure
	}
	g.mu.Unlock()
	if err != nil {
		g.stop()
		return nil, err
	}
	return g, nil
}

func (g *generator) connect(ctx context.Context, ready *sync.WaitGroup) error {
	if g.spec.tls != nil {
		return g.connectTLS(ctx, ready)
	}
	for range max(1, g.spec.threads) {
		l, err := newLoop()
		if err != nil {
			return err
		}
		g.loops = append(g.loops, l)
		g.worker()
		p := &pace{g: g, loop: l}
		if g.spec.rate > 0 {
			p.every = time.Duration(float64(time.Second) * float64(max(1, g.spec.threads)) / g.spec.rate)
			l.tick = p.tick
		}
		g.paces = append(g.paces, p)
	}
	for i := range g.spec.conns {
		at := i % len(g.loops)
		fd, err := dialSocket(g.spec.address)
		if err != nil {
			return err
		}
		if err := g.loops[at].add(fd, g.client(g.workers[at], g.paces[at], ready)); err != nil {
			_ = syscall.Close(fd)
			return err
		}
	}
	for _, l := range g.loops {
		g.wg.Go(func() {
			if err := l.run(); err != nil {
				g.fail(err)
			}
		})
	}
	return nil
}

// connectTLS serves each connection on a goroutine of its own, which is what crypto/tls wants.
func (g *generator) connectTLS(ctx context.Context, ready *sync.WaitGroup) error {
	for range g.spec.conns {
		d := tls.Dialer{Config: g.spec.tls}
		nc, err := d.DialContext(ctx, "tcp", g.spec.address)
		if err != nil {
			return err
		}
		g.socks = append(g.socks, nc)
		if cs := nc.(*tls.Conn).ConnectionState(); cs.NegotiatedProtocol != "h2" || cs.CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
			return fmt.Errorf("TLS with %q and %s", cs.NegotiatedProtocol, tls.CipherSuiteName(cs.CipherSuite))
		}
		w := g.worker()
		g.wg.Go(func() { _ = serveConn(nc, g.client(w, &pace{g: g}, ready)) })
	}
	return nil
}

func (g *generator) worker() *worker {
	w := &worker{}
	g.mu.Lock()
	g.workers = append(g.workers, w)
	g.mu.Unlock()
	return w
}

func (g *generator) client(w *worker, p *pace, ready *sync.WaitGroup) handler {
	b := client{g: g, w: w, pace: p, ready: sync.OnceFunc(ready.Done)}
	if g.spec.rest {
		return &h1Client{client: b}
	}
	return &h2Client{client: b}
}

// client is what the clients of both protocols share.
type client struct {
	g       *generator
	w       *worker
	pace    *pace
	ready   func()
	drained bool
}

// mayCall reports whether another call is wanted. Where the generator is being stopped it is not, and busy says whether the
// connection has calls under way still.
func (c *client) mayCall(busy bool) bool {
	if !c.g.stopping.Load() {
		return true
	}
	if !busy && !c.drained {
		c.drained = true
		c.g.drained <- struct{}{}
	}
	return false
}

func (c *client) now() time.Duration { return time.Since(c.g.epoch) }

// record counts a call that began at begin.
func (c *client) record(begin, now time.Duration, err error) {
	if c.ready != nil {
		c.ready()
		c.ready = nil
	}
	if err != nil {
		c.g.fail(err)
	}
	if !c.g.recording.Load() {
		return
	}
	if err != nil {
		c.w.failed++
		return
	}
	c.w.latencies.add(now - begin)
}

// lost is told that a connection has ended.
func (c *client) lost(err error) {
	if err == nil || c.g.stopping.Load() {
		return
	}
	c.g.fail(fmt.Errorf("%w: %w", errLost, err))
	if c.ready != nil {
		c.ready()
		c.ready = nil
	}
}

// fail keeps the first failure.
func (g *generator) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.failure == nil {
		g.failure = err
	}
}

// measure records for as long as d. around is called right before and right after.
func (g *generator) measure(ctx context.Context, d time.Duration, around func()) measured {
	around()
	begin := time.Now()
	g.recording.Store(true)
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
	g.recording.Store(false)
	m := measured{Took: time.Since(begin)}
	around()
	m.Unsent = g.stop()
	var all histogram
	for _, w := range g.workers {
		all.merge(&w.latencies)
		m.Failed += w.failed
	}
	m.Calls, m.P50, m.P99 = int(all.n), all.quantile(0.5), all.quantile(0.99)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.failure != nil {
		m.Failure = g.failure.Error()
	}
	return m
}

// drainTime is how long calls that are under way at the end of a measurement may take.
const drainTime = 2 * time.Second

// stop lets the calls that are under way end, closes the connections and waits for the goroutines. It returns how many calls
// of an open loop were not sent yet.
func (g *generator) stop() int {
	unsent := 0
	for _, p := range g.paces {
		if p.every > 0 {
			unsent += p.unsent()
		}
	}
	g.stopping.Store(true)
	g.mu.Lock()
	lost := g.failure != nil
	g.mu.Unlock()
	if !lost && !g.spec.once {
		for _, l := range g.loops {
			l.do(func() {
				for _, c := range l.conns {
					c.handler.(interface{ drain() }).drain()
				}
			})
		}
		limit := time.After(drainTime)
		for left := g.spec.conns; left > 0; left-- {
			select {
			case <-g.drained:
			case <-limit:
				left = 0
			}
		}
	}
	for _, l := range g.loops {
		l.stop()
	}
	for _, nc := range g.socks {
		_ = nc.Close()
	}
	g.wg.Wait()
	return unsent
}

// pace is when the calls of an open loop are to be made. Latency counts from then, however late a call is sent.
type pace struct {
	g     *generator
	loop  *loop
	every time.Duration // 0: a closed loop
	begin time.Duration
	sent  int
	idle  []caller // connections that can take another call, the one that waited longest first
}

// caller makes one call that was due at a time.
type caller interface {
	call(due time.Duration) (more bool)
}

// oftenest is how often calls are made at most: a timer for every single one would be most of the load.
const oftenest = 50 * time.Microsecond

// due is how many calls should have been made but were not.
func (p *pace) due(now time.Duration) int {
	if p.every == 0 || p.begin == 0 {
		return 0
	}
	return int((now-p.begin)/p.every) - p.sent
}

// unsent is due, for another goroutine than the loop's.
func (p *pace) unsent() int {
	n := make(chan int, 1)
	p.loop.do(func() { n <- p.due(time.Since(p.g.epoch)) })
	select {
	case v := <-n:
		return v
	case <-time.After(drainTime): // It has ended.
		return 0
	}
}

// tick makes the calls that are due, and says when the next is.
func (p *pace) tick() time.Duration {
	if p.g.stopping.Load() {
		return 0
	}
	now := time.Since(p.g.epoch)
	if p.begin == 0 {
		if len(p.idle) == 0 {
			return 0
		}
		p.begin = now
	}
	for n := p.due(now); n > 0 && len(p.idle) > 0; n-- {
		c := p.idle[0]
		p.idle = p.idle[:copy(p.idle, p.idle[1:])]
		at := p.begin + time.Duration(p.sent)*p.every
		p.sent++
		if c.call(at) {
			p.idle = append(p.idle, c)
		}
	}
	if len(p.idle) == 0 {
		return 0 // An answer will call.
	}
	return max(p.begin+time.Duration(p.sent+1)*p.every-time.Since(p.g.epoch), oftenest)
}
