package metrics

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// table finds the series of a label combination without a lock and without an
// allocation. A new combination copies the map; there are few of them, and
// soon no new ones.
type table[K comparable, V any] struct {
	mu      sync.Mutex // held while the map is replaced
	current atomic.Pointer[map[K]V]
}

// get returns the value of k, from create when there is none yet.
func (t *table[K, V]) get(k K, create func() V) V {
	if v, ok := t.lookup()[k]; ok {
		return v
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	next := t.copyLocked()
	if v, ok := next[k]; ok {
		return v
	}
	v := create()
	next[k] = v
	t.current.Store(&next)
	return v
}

// lookup returns the map of now; it must not be changed.
func (t *table[K, V]) lookup() map[K]V {
	if m := t.current.Load(); m != nil {
		return *m
	}
	return nil
}

// retain drops every key that keep refuses, and tells drop of it.
func (t *table[K, V]) retain(keep func(K) bool, drop func(K)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := t.copyLocked()
	maps.DeleteFunc(next, func(k K, _ V) bool {
		if keep(k) {
			return false
		}
		drop(k)
		return true
	})
	t.current.Store(&next)
}

func (t *table[K, V]) copyLocked() map[K]V {
	if m := t.lookup(); m != nil {
		return maps.Clone(m)
	}
	return map[K]V{}
}

// counters are the counters of one name, by the key of their labels.
type counters[K comparable] struct {
	vec    *prometheus.CounterVec
	labels func(K) []string
	series table[K, prometheus.Counter]
}

func newCounters[K comparable](r *prometheus.Registry, name, help string, names []string, labels func(K) []string) *counters[K] {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, names)
	r.MustRegister(vec)
	return &counters[K]{vec: vec, labels: labels}
}

func (c *counters[K]) get(k K) prometheus.Counter {
	return c.series.get(k, func() prometheus.Counter { return c.vec.WithLabelValues(c.labels(k)...) })
}

func (c *counters[K]) has(k K) bool { _, ok := c.series.lookup()[k]; return ok }

func (c *counters[K]) len() int { return len(c.series.lookup()) }

func (c *counters[K]) retain(keep func(K) bool) {
	c.series.retain(keep, func(k K) { c.vec.DeleteLabelValues(c.labels(k)...) })
}

// histograms are the histograms of one name, by their only label.
type histograms struct {
	vec    *prometheus.HistogramVec
	series table[string, prometheus.Observer]
}

func histogramVec(r *prometheus.Registry, name, help string, buckets []float64, label string) *prometheus.HistogramVec {
	vec := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, []string{label})
	r.MustRegister(vec)
	return vec
}

func (h *histograms) get(label string) prometheus.Observer {
	return h.series.get(label, func() prometheus.Observer { return h.vec.WithLabelValues(label) })
}

func (h *histograms) retain(keep func(string) bool) {
	h.series.retain(keep, func(label string) { h.vec.DeleteLabelValues(label) })
}

// known are the names that may have series. Before the first set every name
// may.
type known struct {
	current atomic.Pointer[knownNames]
}

type knownNames struct{ targets, executions map[string]struct{} }

func (k *known) set(targets, executions map[string]struct{}) {
	k.current.Store(&knownNames{targets, executions})
}

func (k *known) target(name string) bool {
	names := k.current.Load()
	if names == nil {
		return true
	}
	_, ok := names.targets[name]
	return ok
}

func (k *known) execution(id string) bool {
	names := k.current.Load()
	if names == nil {
		return true
	}
	_, ok := names.executions[id]
	return ok
}
