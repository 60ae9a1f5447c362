package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// life is where an App is in its life.
type life int32

const (
	starting life = iota
	serving
	stopping
)

// CutError says what the end of the drain cut off.
type CutError struct {
	// Calls were still running when drain_timeout had passed.
	Calls int
	// Deliveries were accepted for asynchronous targets and not made.
	Deliveries int
}

// Error counts them.
func (e *CutError) Error() string {
	return fmt.Sprintf("drain_timeout passed: %d calls and %d asynchronous deliveries were cut", e.Calls, e.Deliveries)
}

// Addresses are those that the gateway listens on.
type Addresses struct {
	Proxy, Admin, Ops net.Addr
	// Hooks is nil when hooks.listen is off.
	Hooks net.Addr
}

// teardown undoes what was started, in reverse.
type teardown struct {
	mu    sync.Mutex
	steps []func(ctx context.Context)
}

func (t *teardown) add(step func(ctx context.Context)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.steps = append(t.steps, step)
}

func (t *teardown) run(ctx context.Context) {
	t.mu.Lock()
	steps := t.steps
	t.steps = nil
	t.mu.Unlock()
	for i := len(steps) - 1; i >= 0; i-- {
		steps[i](ctx)
	}
}

// Start opens the listeners, then everything behind them. It does not wait for
// the upstream or for Redis. On an error, what was started is stopped again.
// ctx ends the start, not what runs afterwards. Call it once.
func (a *App) Start(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			a.teardown.run(context.WithoutCancel(ctx))
			a.doors.Wait()
		}
	}()
	if err := a.readDocument(); err != nil {
		return err
	}
	if err := a.listen(ctx); err != nil {
		return err
	}
	if err := a.assemble(); err != nil {
		return err
	}
	a.kill.look()
	a.serve(a.ops, newServer(a.opsHandler(), nil, a.logger))

	a.replica.Subscribe(a.configurator.adopt)
	if err := a.replica.Start(ctx); err != nil {
		return fmt.Errorf("start the store: %w", err)
	}
	a.teardown.add(func(ctx context.Context) { a.warn("stop the store", a.replica.Stop(ctx)) })
	if err := a.replica.Err(); err != nil {
		a.logger.Warn("the store cannot be used, the gateway starts without it", "error", err)
	}
	if err := a.learn(ctx); err != nil {
		return err
	}
	if err := a.applyDocument(ctx); err != nil {
		return err
	}
	if err := a.queue.Start(ctx); err != nil {
		return err
	}
	a.teardown.add(func(context.Context) { a.client.Close() })

	a.serve(a.adminDoor, a.adminServer)
	a.serve(a.proxyDoor, a.proxyServer)
	a.serveHooks()
	a.polling.start(ctx)
	a.life.Store(int32(serving))
	a.logger.Info("serving", "version", a.build.Version,
		"proxy", a.proxyDoor.address(), "admin", a.adminDoor.address(), "ops", a.ops.address(),
		"upstream", a.config.Upstream.URL, "store", a.config.Store.Driver)
	return nil
}

// learn takes the schema that is on disk and begins to follow the upstream's,
// and the kill file.
func (a *App) learn(ctx context.Context) error {
	if err := a.learner.Load(); err != nil {
		if a.config.Upstream.Schema.Source == "descriptor_set" {
			return fmt.Errorf("upstream.schema.descriptor_set: %w", err)
		}
		a.logger.Warn("the schema on disk cannot be used", "error", err)
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	a.background.Go(func() { a.kill.watch(run) })
	a.watch(run)
	a.background.Go(func() {
		if err := a.learner.Run(run); err != nil {
			a.fail(fmt.Errorf("learn the schema: %w", err))
		}
	})
	a.teardown.add(func(context.Context) {
		cancel()
		a.background.Wait()
	})
	return nil
}

// listen opens all listeners, so that a wrong address is told before anything
// else happens, and all wrong ones at once.
func (a *App) listen(ctx context.Context) error {
	var proxyErr, adminErr, opsErr error
	a.proxyDoor, proxyErr = openDoor(ctx, "proxy.listen", a.config.Proxy.Listen)
	a.adminDoor, adminErr = openDoor(ctx, "admin.listen", a.config.Admin.Listen)
	a.ops, opsErr = openDoor(ctx, "ops.listen", a.config.Ops.Listen)
	hooksErr := a.inbound.listen(ctx, a.config.Hooks.Listen)
	for _, d := range []*door{a.proxyDoor, a.adminDoor, a.ops, a.inbound.door} {
		if d != nil {
			a.teardown.add(func(context.Context) { d.close() })
		}
	}
	return errors.Join(proxyErr, adminErr, opsErr, hooksErr)
}

// serve answers what comes through a door, in the background.
func (a *App) serve(d *door, s server) {
	d.server = s
	a.doors.Go(func() {
		if err := s.Serve(d.listener); err != nil {
			a.fail(fmt.Errorf("%s: %w", d.key, err))
		}
	})
}

// fail ends the life of the gateway: something that must run has ended.
func (a *App) fail(err error) {
	select {
	case a.failed <- err:
	default: // one reason is enough
	}
}

// Stop takes the gateway out of service: /readyz says 503 at once, drain_delay
// later no connection is taken any more, and what is in flight has drain_timeout
// to finish, asynchronous deliveries included. The error is a *[CutError] when
// that was not enough. The end of ctx cuts the drain short. Stopping twice, or
// before Start, does nothing.
func (a *App) Stop(ctx context.Context) error {
	if !a.life.CompareAndSwap(int32(serving), int32(stopping)) {
		return nil
	}
	a.logger.Info("stopping", "in_flight", a.proxy.InFlight())
	a.admin.SetServing(false)
	wait(ctx, a.config.Proxy.DrainDelay)
	ctx, cancel := context.WithTimeout(ctx, a.config.Proxy.DrainTimeout)
	defer cancel()

	cut := &CutError{}
	var both sync.WaitGroup
	a.admin.Close()
	both.Go(a.polling.stop)
	both.Go(func() { a.warn("stop the admin API", a.adminServer.Shutdown(ctx)) })
	both.Go(func() { a.warn("stop the hooks", a.inbound.shutdown(ctx)) })
	both.Go(func() { cut.Calls = a.proxyServer.Drain(ctx) })
	both.Wait()
	cut.Deliveries = a.queue.Stop(ctx)

	a.proxy.Close()
	a.teardown.run(context.WithoutCancel(ctx))
	a.doors.Wait()
	if *cut != (CutError{}) {
		a.logger.Error("drain_timeout passed", "calls_cut", cut.Calls, "deliveries_lost", cut.Deliveries)
		return cut
	}
	a.logger.Info("stopped")
	return nil
}

// Addresses returns those that are listened on, with the ports that the system
// chose. Call it after Start.
func (a *App) Addresses() Addresses {
	return Addresses{Proxy: a.proxyDoor.listener.Addr(), Admin: a.adminDoor.listener.Addr(), Ops: a.ops.listener.Addr(),
		Hooks: a.inbound.address()}
}

// Run starts the gateway, serves until ctx ends or something fails for good,
// and stops it. The stop is bounded by drain_delay and drain_timeout. When ctx
// ends before it serves, it stops without an error.
func (a *App) Run(ctx context.Context) error {
	if err := a.Start(ctx); err != nil {
		if errors.Is(err, context.Canceled) && ctx.Err() != nil {
			a.logger.Info("stopped before it served")
			return nil //nolint:nilerr // it was asked to end, it did not fail
		}
		return err
	}
	var failure error
	select {
	case <-ctx.Done():
	case failure = <-a.failed:
		a.logger.Error("the gateway cannot go on", "error", failure)
	}
	return errors.Join(failure, a.Stop(context.WithoutCancel(ctx)))
}

// wait returns after d, or when ctx ends.
func wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// warn logs what went wrong while something was being ended.
func (a *App) warn(doing string, err error) {
	if err != nil {
		a.logger.Warn("not ended in good order", "doing", doing, "error", err)
	}
}
