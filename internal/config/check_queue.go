package config

import (
	"fmt"
	"time"
)

func (c *checker) queue() {
	q := c.config.Queue
	c.oneOf("queue.driver", q.Driver, "auto", "redis", "embedded", "memory")
	c.notNegative("queue.max_pending", int64(q.MaxPending))
	c.notNegative("queue.max_pending_per_target", int64(q.MaxPendingPerTarget))
	if q.MaxPendingPerTarget > q.MaxPending && q.MaxPending > 0 {
		c.fault("queue.max_pending_per_target", "larger than queue.max_pending", "write a smaller number, or raise max_pending")
	}
	c.positive("queue.max_pending_bytes", q.MaxPendingBytes)
	c.positive("queue.max_concurrency_per_target", int64(q.MaxConcurrencyPerTarget))
	if q.Visibility < time.Second {
		c.fault("queue.visibility", fmt.Sprintf("%s is too short: leases are renewed before they end", q.Visibility), "write 1s or more")
	}
	r := q.Retry
	c.positive("queue.retry.max_attempts", int64(r.MaxAttempts))
	c.positiveTime("queue.retry.first_delay", r.FirstDelay)
	c.positiveTime("queue.retry.max_delay", r.MaxDelay)
	c.positiveTime("queue.retry.max_age", r.MaxAge)
	if r.FirstDelay > r.MaxDelay && r.MaxDelay > 0 {
		c.fault("queue.retry.first_delay", "longer than queue.retry.max_delay", "write a shorter time, or raise max_delay")
	}
	c.notNegative("queue.spool.max_bytes", q.Spool.MaxBytes)
	c.notNegative("queue.keep.delivered", int64(q.Keep.Delivered))
	c.positive("queue.keep.dead", int64(q.Keep.Dead))
	c.positive("queue.keep.dead_bytes", q.Keep.DeadBytes)
	c.positiveTime("queue.keep.dead_for", q.Keep.DeadFor)
	c.readable("queue.encryption_key_file", q.EncryptionKeyFile)
}

func (c *checker) notNegative(path string, n int64) {
	if n < 0 {
		c.fault(path, fmt.Sprintf("%d is negative", n), "write 0 or more")
	}
}
