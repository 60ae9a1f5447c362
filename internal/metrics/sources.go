package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Sources are asked at every scrape. Each must be set, but those that say
// otherwise, and safe for concurrent use.
type Sources struct {
	// StoreUp says whether the store can be reached.
	StoreUp func() bool
	// Snapshot returns the generation in use and when it was built; ok is false
	// while there is none.
	Snapshot func() (generation uint64, builtAt time.Time, ok bool)
	// SnapshotRefused says whether the newest configuration of the store cannot
	// be used, so that the one before is kept.
	SnapshotRefused func() bool
	// Dispatching says whether executions can fire: no switch is off.
	Dispatching func() bool
	// SchemaLoaded says whether the upstream's schema is known.
	SchemaLoaded func() bool
	// AsyncPending counts the asynchronous deliveries that wait or run.
	AsyncPending func() int
	// Deliveries calls yield with what the queue keeps for each target; the targets
	// that are gone have no name. Nil: there is no durable queue.
	Deliveries func(yield func(DeliveryCount))
	// Spooled counts the deliveries that wait for Redis in the spool. Nil: there is
	// none.
	Spooled func() int
	// Breakers calls yield with the name of every target and the state of its
	// breaker: 0 closed, 1 half open, 2 open.
	Breakers func(yield func(target string, state int))
}

// DeliveryCount is what the queue keeps for one target.
type DeliveryCount struct {
	Target                           string
	Pending, Parked, Dead, Delivered int
}

// Watch adds the series of the sources. Call it once.
func (m *Metrics) Watch(s Sources) { m.registry.MustRegister(&states{s}) }

var (
	storeUpDesc = prometheus.NewDesc("execgate_store_up",
		"1 while the store can be reached.", nil, nil)
	generationDesc = prometheus.NewDesc("execgate_snapshot_generation",
		"Generation of the configuration in use; 0 while there is none.", nil, nil)
	ageDesc = prometheus.NewDesc("execgate_snapshot_age_seconds",
		"Time since the configuration in use was built.", nil, nil)
	refusedDesc = prometheus.NewDesc("execgate_snapshot_refused",
		"1 while the newest configuration of the store cannot be used and the one before is kept.", nil, nil)
	dispatchDesc = prometheus.NewDesc("execgate_dispatch_enabled",
		"1 while executions can fire, 0 while a switch or the kill file keeps them off.", nil, nil)
	schemaDesc = prometheus.NewDesc("execgate_schema_loaded",
		"1 when the upstream's schema is known.", nil, nil)
	pendingDesc = prometheus.NewDesc("execgate_async_pending",
		"Asynchronous deliveries that wait or run.", nil, nil)
	deliveriesDesc = prometheus.NewDesc("execgate_deliveries",
		"Deliveries that the queue keeps, by the target's name and state: pending, parked, dead, delivered (those in the ledger). "+
			"Targets that are gone are \"other\".", []string{"target", "state"}, nil)
	spooledDesc = prometheus.NewDesc("execgate_spool_deliveries",
		"Deliveries that wait in the spool of this gateway until Redis is back.", nil, nil)
	breakerDesc = prometheus.NewDesc("execgate_breaker_state",
		"State of a target's breaker: 0 closed, 1 half open, 2 open.", []string{"target"}, nil)
)

// states reads the sources when it is collected, so that nothing is ever stale.
type states struct{ s Sources }

var _ prometheus.Collector = (*states)(nil)

// Describe lists the series.
func (c *states) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{storeUpDesc, generationDesc, ageDesc, refusedDesc, dispatchDesc, schemaDesc, pendingDesc, deliveriesDesc, spooledDesc, breakerDesc} {
		out <- d
	}
}

// Collect reads the sources.
func (c *states) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(storeUpDesc, number(c.s.StoreUp()))
	gauge(refusedDesc, number(c.s.SnapshotRefused()))
	gauge(dispatchDesc, number(c.s.Dispatching()))
	gauge(schemaDesc, number(c.s.SchemaLoaded()))
	gauge(pendingDesc, float64(c.s.AsyncPending()))
	c.deliveries(gauge)
	if c.s.Spooled != nil {
		gauge(spooledDesc, float64(c.s.Spooled()))
	}
	generation, builtAt, ok := c.s.Snapshot()
	gauge(generationDesc, float64(generation))
	if ok {
		gauge(ageDesc, time.Since(builtAt).Seconds())
	}
	seen := map[string]struct{}{}
	c.s.Breakers(func(target string, state int) {
		// Two targets of one name would make the whole scrape fail.
		if _, twice := seen[target]; !twice {
			seen[target] = struct{}{}
			gauge(breakerDesc, float64(state), target)
		}
	})
}

// deliveries sums up by name, so that no series comes twice.
func (c *states) deliveries(gauge func(d *prometheus.Desc, v float64, labels ...string)) {
	if c.s.Deliveries == nil {
		return
	}
	sums := map[string]DeliveryCount{}
	c.s.Deliveries(func(n DeliveryCount) {
		if n.Target == "" {
			n.Target = other
		}
		sum := sums[n.Target]
		sum.Pending += n.Pending
		sum.Parked += n.Parked
		sum.Dead += n.Dead
		sum.Delivered += n.Delivered
		sums[n.Target] = sum
	})
	for name, sum := range sums {
		gauge(deliveriesDesc, float64(sum.Pending), name, "pending")
		gauge(deliveriesDesc, float64(sum.Parked), name, "parked")
		gauge(deliveriesDesc, float64(sum.Dead), name, "dead")
		gauge(deliveriesDesc, float64(sum.Delivered), name, "delivered")
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
