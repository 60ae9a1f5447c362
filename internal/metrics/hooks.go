package metrics

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type (
	hookKey  struct{ endpoint, code string }
	eventKey struct{ source, outcome string }
)

// hookSeries are the series of what others send to the gateway.
type hookSeries struct {
	calls     *counters[hookKey]
	durations *histograms
	events    *counters[eventKey]
	gaps      prometheus.Counter
	polls     *counters[string]
}

func (m *Metrics) newHookSeries() hookSeries {
	gaps := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "execgate_events_gap_total",
		Help: "Ranges of time of which polled events may be missing.",
	})
	m.registry.MustRegister(gaps)
	return hookSeries{
		gaps: gaps,
		calls: newCounters(m.registry, "execgate_hook_requests_total",
			"Requests to the hooks listener, by endpoint (functions, events) and HTTP status.",
			[]string{"endpoint", "code"},
			func(k hookKey) []string { return []string{k.endpoint, k.code} }),
		durations: &histograms{vec: histogramVec(m.registry, "execgate_hook_request_duration_seconds",
			"Time that requests to the hooks listener took, by endpoint.", callBuckets, "endpoint")},
		events: newCounters(m.registry, "execgate_events_total",
			"Events, by where they come from and by outcome: queued (repetitions too), unmatched, failed, too_old.",
			[]string{"source", "outcome"},
			func(k eventKey) []string { return []string{k.source, k.outcome} }),
		polls: newCounters(m.registry, "execgate_events_polls_total",
			"Looks at the events of the upstream, by outcome: ok, standby (another gateway polls), waiting, or why it failed.",
			[]string{"outcome"}, func(outcome string) []string { return []string{outcome} }),
	}
}

// HookCall counts a request to the hooks listener.
func (m *Metrics) HookCall(endpoint string, status int, d time.Duration) {
	m.hooks.calls.get(hookKey{endpoint, strconv.Itoa(status)}).Inc()
	m.hooks.durations.get(endpoint).Observe(d.Seconds())
}

// EventSeen counts an event.
func (m *Metrics) EventSeen(source, outcome string) {
	m.hooks.events.get(eventKey{source, outcome}).Inc()
}

// EventGap counts a range of time of which polled events may be missing.
func (m *Metrics) EventGap() { m.hooks.gaps.Inc() }

// EventPoll counts a look at the events of the upstream.
func (m *Metrics) EventPoll(outcome string) { m.hooks.polls.get(outcome).Inc() }
