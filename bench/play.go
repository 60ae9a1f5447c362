//go:build linux

package main

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"time"
)

// play measures all players of one scenario, round by round.
func (b *bench) play(ctx context.Context, o options, s *scenario, players []contender) (*played, error) {
	p := &played{Name: s.name, Title: s.title}
	if s.idle > 0 {
		return p, b.playIdle(ctx, o, s, players, p)
	}
	teams, err := b.startAll(ctx, s, players, p)
	defer stopAll(teams)
	if err != nil {
		return p, err
	}
	if s.open {
		return p, b.playOpen(ctx, o, s, teams, p)
	}
	for range o.rounds {
		for i, t := range teams {
			m, err := b.round(ctx, o, s.load(b, t.running), t.running)
			if err != nil {
				return p, fmt.Errorf("%s: %w", t.name, err)
			}
			p.Contenders[i].Rounds = append(p.Contenders[i].Rounds, m)
			p.Contenders[i].peak(t)
		}
	}
	return p, nil
}

// team is a contender that runs.
type team struct {
	contender
	*running
}

func (b *bench) startAll(ctx context.Context, s *scenario, players []contender, p *played) ([]team, error) {
	var teams []team
	for _, c := range players {
		if c.does != nil && !c.does(s) {
			continue
		}
		variants := []contender{c}
		if c.gateway && s.executions != nil {
			variants = nil
			for _, n := range s.executions {
				variants = append(variants, contender{name: fmt.Sprintf("%s, %d executions", c.name, n), start: gatewayWith("h2", n)})
			}
		}
		for _, c := range variants {
			r, err := c.start(ctx, b, s)
			if err != nil {
				return teams, fmt.Errorf("%s: %w", c.name, err)
			}
			teams = append(teams, team{c, r})
			p.Contenders = append(p.Contenders, &result{Name: c.name})
		}
	}
	return teams, nil
}

func stopAll(teams []team) {
	for _, t := range teams {
		t.stop()
	}
}

// round is one measurement.
func (b *bench) round(ctx context.Context, o options, l loadSpec, r *running) (measurement, error) {
	first, err := b.counts(ctx)
	if err != nil {
		return measurement{}, err
	}
	g, err := startLoad(ctx, l)
	if ctx.Err() != nil {
		return measurement{}, ctx.Err()
	}
	if err != nil {
		return measurement{measured: measured{Failed: 1, Failure: err.Error()}, Offered: l.rate}, nil //nolint:nilerr // A round that fails is told in the table, and is not the end.
	}
	select {
	case <-ctx.Done():
	case <-time.After(o.warmup):
	}
	var before, after clocks
	m := g.measure(ctx, o.duration, func() { before, after = after, b.clocks(r) })
	if ctx.Err() != nil {
		return measurement{}, ctx.Err()
	}
	done := measurement{measured: m, Offered: l.rate}
	if m.Calls == 0 {
		if m.Failure == "" {
			done.Failure = "nothing was answered"
		}
		return done, nil
	}
	last, err := b.counts(ctx)
	switch {
	case err != nil:
		return done, err
	case last.Calls-first.Calls < int64(m.Calls):
		return done, fmt.Errorf("%w: %d calls, of which the upstream saw %d", errStatus, m.Calls, last.Calls-first.Calls)
	case l.callout && last.Callouts-first.Callouts < int64(m.Calls):
		return done, fmt.Errorf("%w: %d calls, but %d call-outs", errStatus, m.Calls, last.Callouts-first.Callouts)
	}
	done.Rate = float64(m.Calls) / m.Took.Seconds()
	done.CPU = perCall(after.proxy-before.proxy, m.Calls)
	done.UpstreamCPU = perCall(after.upstream-before.upstream, m.Calls)
	done.LoadCPU = perCall(after.load-before.load, m.Calls)
	return done, nil
}

// clocks is what processor time everybody has used.
type clocks struct{ proxy, upstream, load time.Duration }

func (b *bench) clocks(r *running) clocks {
	c := clocks{upstream: b.upstream.cpu()}
	if r.process != nil {
		c.proxy = r.cpu()
	}
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) == nil {
		c.load = time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return c
}

// perCall is in microseconds.
func perCall(d time.Duration, calls int) float64 {
	return float64(d.Nanoseconds()) / 1e3 / float64(calls)
}

// shares of its own peak are what each contender is offered in an open loop.
var shares = []int{50, 80, 100}

// openStreams is how many calls of an open loop may be under way on a connection. More wait in the load generator, with
// their clocks running.
const openStreams = 100

// playOpen finds each contender's peak with a closed loop, and then calls at fixed rates: shares of that peak, and for all
// the same rate, 80 % of nginx's peak (or of the lowest, without it).
func (b *bench) playOpen(ctx context.Context, o options, s *scenario, teams []team, p *played) error {
	peaks := make([]float64, len(teams))
	for i, t := range teams {
		rates := make([]float64, 0, 3)
		for range 3 {
			m, err := b.round(ctx, o, s.load(b, t.running), t.running)
			if err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
			rates = append(rates, m.Rate)
		}
		peaks[i] = median(rates)
	}
	p.Contenders = nil
	type offer struct {
		team int
		rate float64
		to   *result
	}
	var offers []offer
	add := func(label string, rate func(i int) float64) {
		for i, t := range teams {
			r := &result{Name: t.name, Offer: label}
			p.Contenders = append(p.Contenders, r)
			offers = append(offers, offer{i, rate(i), r})
		}
	}
	common := 0.8 * slices.Min(peaks)
	for i, t := range teams {
		if t.name == "nginx" {
			common = 0.8 * peaks[i]
		}
	}
	add("same for all", func(int) float64 { return common })
	for _, share := range shares {
		add(fmt.Sprintf("%d %% of own peak", share), func(i int) float64 { return peaks[i] * float64(share) / 100 })
	}
	for range min(o.rounds, 3) {
		for _, offer := range offers {
			t := teams[offer.team]
			l := s.load(b, t.running)
			l.rate, l.streams = offer.rate, openStreams
			m, err := b.round(ctx, o, l, t.running)
			if err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
			offer.to.Rounds = append(offer.to.Rounds, m)
			offer.to.peak(t)
		}
	}
	return nil
}

const (
	idleAtOnce = 20 // connections that make their call at the same time, so that few upstream connections are needed
	idleSettle = time.Second
)

// playIdle opens connections that make one call each and then nothing, and looks how much memory that took. Every round has
// new processes: memory once taken is not always given back.
func (b *bench) playIdle(ctx context.Context, o options, s *scenario, players []contender, p *played) error {
	for round := range min(o.rounds, 3) {
		var started played
		teams, err := b.startAll(ctx, s, players, &started)
		if round == 0 {
			p.Contenders = started.Contenders
		}
		for i := 0; err == nil && i < len(teams); i++ {
			var m measurement
			if m, err = b.idleRound(ctx, s, teams[i].running); err == nil {
				p.Contenders[i].Rounds = append(p.Contenders[i].Rounds, m)
				p.Contenders[i].peak(teams[i])
			}
		}
		stopAll(teams)
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) idleRound(ctx context.Context, s *scenario, r *running) (measurement, error) {
	l := s.load(b, r)
	l.conns = idleAtOnce
	warm, err := startLoad(ctx, l) // Upstream connections, pools and the like are no matter of idle connections.
	if err != nil {
		return measurement{}, err
	}
	select {
	case <-ctx.Done():
	case <-time.After(200 * time.Millisecond):
	}
	warm.stop()
	time.Sleep(200 * time.Millisecond)
	before := r.memory("VmRSS")
	l.once = true
	var open []*generator
	defer func() {
		for _, g := range open {
			g.stop()
		}
	}()
	for range s.idle / idleAtOnce {
		g, err := startLoad(ctx, l)
		if err != nil {
			return measurement{}, err
		}
		open = append(open, g)
	}
	select {
	case <-ctx.Done():
		return measurement{}, ctx.Err()
	case <-time.After(idleSettle):
	}
	m := measurement{PerConn: float64(r.memory("VmRSS")-before) / float64(s.idle)}
	m.Calls = s.idle
	for _, g := range open {
		g.mu.Lock()
		if g.failure != nil {
			m.Failure = g.failure.Error()
			m.Failed++
		}
		g.mu.Unlock()
	}
	return m, nil
}
