package app

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/execgate/execgate/dispatcher"
	"github.com/execgate/execgate/internal/metrics"
	"github.com/execgate/execgate/policy"
	"github.com/execgate/execgate/queue"
	"github.com/execgate/execgate/store"
)

// deliveries is a queue with its life.
type deliveries interface {
	dispatcher.Queue
	Start(ctx context.Context) error
	Stop(ctx context.Context) (lost int)
	Pending() int
}

var (
	_ deliveries = (*queue.Memory)(nil)
	_ deliveries = (*queue.Durable)(nil)
)

// The bounds of a queue in memory, where the configuration names none.
const (
	memoryPending          = 10_000
	memoryPendingPerTarget = 1_000
)

// openQueue opens the queue. Redis may be away.
func (a *App) openQueue() error {
	cfg := a.config.Queue
	driver := a.config.QueueDriver()
	if driver == "memory" {
		capacity, perTarget := cfg.MaxPending, cfg.MaxPendingPerTarget
		if capacity == 0 {
			capacity = memoryPending
		}
		if perTarget == 0 {
			perTarget = min(memoryPendingPerTarget, capacity)
		}
		a.queue = queue.NewMemory(queue.Options{
			Caller:         a.client,
			Capacity:       capacity,
			TargetCapacity: perTarget,
			Concurrency:    cfg.MaxConcurrencyPerTarget,
			Observer:       a.metrics,
			Logger:         a.logger,
		})
		return nil
	}
	var sealer *queue.Sealer
	if cfg.EncryptionKeyFile != "" {
		var err error
		if sealer, err = queue.ReadSealer(cfg.EncryptionKeyFile); err != nil {
			return fmt.Errorf("queue.encryption_key_file: %w", err)
		}
	}
	if err := a.openBackend(driver, sealer); err != nil {
		return err
	}
	a.teardown.add(func(context.Context) { a.warn("close the queue", a.backend.Close()) })
	durable, err := queue.NewDurable(queue.DurableOptions{
		Backend: a.backend,
		Caller:  a.client,
		Targets: a.configurator.settings,
		Schedule: queue.Schedule{
			MaxAttempts: cfg.Retry.MaxAttempts,
			FirstDelay:  cfg.Retry.FirstDelay,
			MaxDelay:    cfg.Retry.MaxDelay,
			MaxAge:      cfg.Retry.MaxAge,
		},
		Concurrency: cfg.MaxConcurrencyPerTarget,
		Spool:       a.spool,
		OnGone:      a.disable,
		Observer:    a.metrics,
		Logger:      a.logger,
		// Gateways on one Redis take over from each other; an embedded queue would wait for the next start.
		WorkOff:      driver == "embedded",
		EventTimeout: a.config.Events.JobTimeout,
		EventMaxAge:  a.config.Events.JobTTL,
	})
	if err != nil {
		return err
	}
	a.queue = durable
	a.configurator.durable = true
	return nil
}

// openBackend opens what the deliveries are kept in.
func (a *App) openBackend(driver string, sealer *queue.Sealer) (err error) {
	cfg := a.config.Queue
	limits := queue.Limits{
		MaxPending:          cfg.MaxPending,
		MaxPendingPerTarget: cfg.MaxPendingPerTarget,
		MaxBytes:            cfg.MaxPendingBytes,
		Ledger:              cfg.Keep.Delivered,
		MaxDead:             cfg.Keep.Dead,
		MaxDeadBytes:        cfg.Keep.DeadBytes,
		DeadFor:             cfg.Keep.DeadFor,
	}
	if limits.Ledger == 0 {
		limits.Ledger = -1 // 0 in the configuration is "none", to the queue it is its default
	}
	if driver == "embedded" {
		if a.backend, err = queue.OpenEmbedded(queue.EmbeddedOptions{Path: a.config.QueuePath(), Limits: limits, Sealer: sealer}); err != nil {
			return fmt.Errorf("open the queue: %w", err)
		}
		return nil
	}
	client, err := a.queueClient()
	if err != nil {
		return err
	}
	a.teardown.add(func(context.Context) { a.warn("close the queue's connections", client.Close()) })
	if a.backend, err = queue.NewRedis(client, queue.RedisOptions{
		KeyPrefix:  a.config.Store.Redis.KeyPrefix,
		Instance:   a.config.InstanceID,
		Visibility: cfg.Visibility,
		Limits:     limits,
		Sealer:     sealer,
	}); err != nil {
		return fmt.Errorf("open the queue: %w", err)
	}
	if cfg.Spool.MaxBytes > 0 {
		a.openSpool(sealer)
	}
	return nil
}

// queueClient returns connections to Redis for the queue alone, so that many
// deliveries do not hold up the configuration.
func (a *App) queueClient() (redis.UniversalClient, error) {
	return store.NewRedisClient(a.redisOptions())
}

// openSpool opens the spool. A gateway without one still delivers, so that it
// cannot be opened (another process has it, the directory cannot be written) does
// not end the start.
func (a *App) openSpool(sealer *queue.Sealer) {
	spool, err := queue.OpenSpool(queue.SpoolOptions{
		Path: a.config.SpoolPath(), MaxBytes: a.config.Queue.Spool.MaxBytes, Sealer: sealer,
	})
	if err != nil {
		a.logger.Error("there is no spool: while Redis is away, deliveries are dropped", "error", err)
		return
	}
	a.spool = spool
	a.teardown.add(func(context.Context) { a.warn("close the spool", spool.Close()) })
}

// desk returns what an operator asks about deliveries, nil when they are in
// memory.
func (a *App) desk() queue.Desk {
	if a.backend == nil {
		return nil
	}
	return a.backend
}

// disable turns a target off that answered 410: it is not to be called any more.
// Its deliveries are parked until an operator turns it on.
func (a *App) disable(ctx context.Context, targetID string) {
	changed := false
	_, err := a.replica.Update(ctx, "execgate", "DisableGoneTarget", func(s *store.State) ([]store.Item, error) {
		changed = false
		if s.Target(targetID) == nil {
			return nil, nil
		}
		p := new(policy.Target)
		if value, ok := s.Item(store.KindTargetPolicy, targetID); ok {
			var err error
			if p, err = policy.DecodeTarget(value); err != nil {
				return nil, err
			}
		}
		if !p.IsEnabled() {
			return nil, nil
		}
		p.Enabled = new(false)
		if now := time.Now().UTC(); now.After(p.ChangedAt) {
			p.ChangedAt = now
		}
		p.Revision = s.Revision() + 1
		value, err := p.Encode()
		if err != nil {
			return nil, err
		}
		changed = true
		return []store.Item{{Kind: store.KindTargetPolicy, ID: targetID, Value: value}}, nil
	})
	switch name := a.configurator.targetName(targetID); {
	case err != nil:
		a.logger.Error("a target is gone, and cannot be disabled", "target", name, "error", err)
	case changed:
		a.logger.Warn("a target answered that it is gone and is disabled", "target", name)
	}
}

// countTimeout bounds what a scrape of the metrics asks of the queue.
const countTimeout = time.Second

// countDeliveries yields what the queue keeps, for the metrics; nothing while it
// cannot be reached.
func (a *App) countDeliveries(yield func(metrics.DeliveryCount)) {
	if a.backend == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), countTimeout)
	defer cancel()
	counts, err := a.backend.Counts(ctx)
	if err != nil {
		return
	}
	for _, c := range counts {
		n := metrics.DeliveryCount{Target: a.configurator.targetName(c.Target), Pending: c.Pending, Dead: c.Dead, Delivered: c.Delivered}
		if c.Parked {
			n.Pending, n.Parked = 0, c.Pending
		}
		yield(n)
	}
}

// asyncPending returns how many deliveries wait or are under way: of a queue that
// keeps them as it is now, or, while it cannot be reached, as it was a moment ago.
func (a *App) asyncPending() int {
	if a.backend == nil {
		return a.queue.Pending()
	}
	ctx, cancel := context.WithTimeout(context.Background(), countTimeout)
	defer cancel()
	counts, err := a.backend.Counts(ctx)
	if err != nil {
		return a.queue.Pending()
	}
	n := a.spooled()
	for _, c := range counts {
		n += c.Pending
	}
	return n
}

// spooled returns how many deliveries are in the spool.
func (a *App) spooled() int {
	if a.spool == nil {
		return 0
	}
	return a.spool.Len()
}
