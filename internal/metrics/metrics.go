package metrics

import (
	"net/http"
	"runtime"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc/codes"
)

// Build says what is running.
type Build struct{ Version, Commit string }

// Metrics holds every series of one gateway. All its methods are safe for
// concurrent use.
type Metrics struct {
	registry *prometheus.Registry

	requests    *counters[requestKey]
	duration    *prometheus.HistogramVec
	durations   map[string]prometheus.Observer // by protocol
	overhead    prometheus.Histogram
	matched     *counters[matchedKey]
	calls       *counters[callKey]
	callTimes   *histograms
	unevaluated *counters[unevaluatedKey]
	dropped     *counters[string]
	settled     *counters[callKey]
	spooled     prometheus.Counter
	shadow      *counters[shadowKey]
	suppressed  prometheus.Counter
	admin       *counters[adminKey]
	h2Limited   *counters[string]
	h1Refused   *counters[int]
	hooks       hookSeries
	known       known
}

type (
	requestKey     struct{ protocol, method, code string }
	matchedKey     struct{ phase, execution string }
	callKey        struct{ target, outcome string }
	unevaluatedKey struct{ phase, reason string }
	shadowKey      struct{ execution, outcome string }
	adminKey       struct{ method, code string }
)

var (
	protocols = []string{"grpc", "grpc_web", "connect", "rest", "http"}
	phases    = []string{"request", "response"}
	// unevaluatedReasons are those of D-60.
	unevaluatedReasons = []string{"no_schema", "too_large", "undecodable", "encoding"}
	// droppedReasons are those of the queue package.
	droppedReasons = []string{"full", "target_full", "stopped", "shutdown", "too_large", "spool_full", "unavailable", "error"}

	callBuckets     = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}
	overheadBuckets = []float64{.00002, .00005, .0001, .0002, .0005, .001, .002, .005, .01, .02, .05, .1, .5}
)

// New returns the metrics of a gateway, with the collectors of the Go runtime
// and of the process.
func New(build Build) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry(), durations: map[string]prometheus.Observer{}}
	m.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)

	m.requests = newCounters(m.registry, "execgate_requests_total",
		"Requests answered, by protocol, method and code. Methods that the schema does not know are \"other\".",
		[]string{"protocol", "method", "code"},
		func(k requestKey) []string { return []string{k.protocol, k.method, k.code} })
	m.duration = histogramVec(m.registry, "execgate_request_duration_seconds",
		"Time from a request's headers to the end of its answer, by protocol.", callBuckets, "protocol")
	for _, protocol := range protocols {
		m.durations[protocol] = m.duration.WithLabelValues(protocol)
	}
	m.overhead = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "execgate_overhead_seconds",
		Help:    "Time that the gateway itself took for a matched call: without the targets and the upstream.",
		Buckets: overheadBuckets,
	})
	m.registry.MustRegister(m.overhead)

	m.matched = newCounters(m.registry, "execgate_executions_matched_total",
		"Phases of calls that an execution matched, by phase and execution.",
		[]string{"phase", "execution"},
		func(k matchedKey) []string { return []string{k.phase, k.execution} })
	m.calls = newCounters(m.registry, "execgate_target_calls_total",
		"Calls to targets, by the target's name and by outcome.",
		[]string{"target", "outcome"},
		func(k callKey) []string { return []string{k.target, k.outcome} })
	m.callTimes = &histograms{vec: histogramVec(m.registry, "execgate_target_call_duration_seconds",
		"Time that calls to targets took, by the target's name.", callBuckets, "target")}
	m.unevaluated = newCounters(m.registry, "execgate_unevaluated_total",
		"Phases of matched calls whose message could not be shown to the targets, by phase and reason.",
		[]string{"phase", "reason"},
		func(k unevaluatedKey) []string { return []string{k.phase, k.reason} })
	for _, phase := range phases {
		for _, reason := range unevaluatedReasons {
			m.unevaluated.get(unevaluatedKey{phase, reason})
		}
	}
	m.dropped = newCounters(m.registry, "execgate_async_dropped_total",
		"Asynchronous deliveries that were given up, by reason.",
		[]string{"reason"}, func(reason string) []string { return []string{reason} })
	for _, reason := range droppedReasons {
		m.dropped.get(reason)
	}

	m.settled = newCounters(m.registry, "execgate_delivery_attempts_total",
		"Attempts of durable deliveries that ended, by the target's name and by outcome: delivered, retried, or why it is a dead letter.",
		[]string{"target", "outcome"},
		func(k callKey) []string { return []string{k.target, k.outcome} })
	m.spooled = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "execgate_deliveries_spooled_total",
		Help: "Deliveries that the spool took because Redis was away.",
	})
	m.registry.MustRegister(m.spooled)

	m.shadow = newCounters(m.registry, "execgate_shadow_total",
		"Runs of executions in shadow mode, by execution and by what they would have done: changed, interrupted, unchanged.",
		[]string{"execution", "outcome"},
		func(k shadowKey) []string { return []string{k.execution, k.outcome} })
	m.suppressed = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "execgate_interrupts_suppressed_total",
		Help: "Interruptions that did not happen because the method is protected.",
	})
	m.registry.MustRegister(m.suppressed)

	m.admin = newCounters(m.registry, "execgate_admin_requests_total",
		"Calls of the admin API, by method and code.",
		[]string{"method", "code"},
		func(k adminKey) []string { return []string{k.method, k.code} })

	m.h2Limited = newCounters(m.registry, "execgate_h2_limited_total",
		"Limits of the HTTP/2 engine that a client or the upstream hit, by reason.",
		[]string{"reason"}, func(reason string) []string { return []string{reason} })

	m.h1Refused = newCounters(m.registry, "execgate_h1_refused_total",
		"What HTTP/1.1 clients sent that was no request to be served, by the status that it was answered with.",
		[]string{"code"}, func(status int) []string { return []string{strconv.Itoa(status)} })

	m.hooks = m.newHookSeries()

	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "execgate_build_info",
		Help:        "1, with what is running as labels.",
		ConstLabels: prometheus.Labels{"version": build.Version, "commit": build.Commit, "goversion": runtime.Version()},
	})
	info.Set(1)
	m.registry.MustRegister(info)
	return m
}

// Handler serves the metrics to Prometheus.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})
}

// RequestDone counts a request that was answered.
func (m *Metrics) RequestDone(protocol, method, code string, d time.Duration) {
	m.requests.get(requestKey{protocol, method, code}).Inc()
	if o, ok := m.durations[protocol]; ok {
		o.Observe(d.Seconds())
	}
}

// RequestsDone returns what counts requests with these labels as RequestDone does.
func (m *Metrics) RequestsDone(protocol, method, code string) func(d time.Duration) {
	requests, durations := m.requests.get(requestKey{protocol, method, code}), m.durations[protocol]
	return func(d time.Duration) {
		requests.Inc()
		if durations != nil {
			durations.Observe(d.Seconds())
		}
	}
}

// Overhead records the gateway's own share of a matched call.
func (m *Metrics) Overhead(d time.Duration) { m.overhead.Observe(d.Seconds()) }

// Unevaluated counts a phase whose message no target could be shown (D-60).
func (m *Metrics) Unevaluated(phase, reason string) {
	m.unevaluated.get(unevaluatedKey{phase, reason}).Inc()
}

// Matched counts a phase that an execution matched. An execution that is gone
// (see [Metrics.Retain]) is not counted any more.
func (m *Metrics) Matched(phase, execution string) {
	if m.known.execution(execution) {
		m.matched.get(matchedKey{phase, execution}).Inc()
	}
}

// TargetCall counts a call to a target and how long it took. A target that is
// gone (see [Metrics.Retain]) is not counted any more: the last deliveries of a
// deleted target must not bring its series back.
func (m *Metrics) TargetCall(target, outcome string, d time.Duration) {
	if m.known.target(target) {
		m.calls.get(callKey{target, outcome}).Inc()
		m.callTimes.get(target).Observe(d.Seconds())
	}
}

// AsyncDropped counts an asynchronous delivery that was given up.
func (m *Metrics) AsyncDropped(reason string) { m.dropped.get(reason).Inc() }

// H1Refused counts what an HTTP/1.1 client sent and was answered with status unserved.
func (m *Metrics) H1Refused(status int) { m.h1Refused.get(status).Inc() }

// H2Limited counts a limit of the HTTP/2 engine that was hit.
func (m *Metrics) H2Limited(reason string) { m.h2Limited.get(reason).Inc() }

// DeliverySettled counts an attempt of a durable delivery that ended.
func (m *Metrics) DeliverySettled(target, outcome string) {
	if !m.known.target(target) {
		target = other
	}
	m.settled.get(callKey{target, outcome}).Inc()
}

// DeliverySpooled counts a delivery that the spool took.
func (m *Metrics) DeliverySpooled() { m.spooled.Inc() }

// other stands for names that are not bounded.
const other = "other"

// ShadowRun counts a run of an execution in shadow mode by its outcome:
// "changed", "interrupted" or "unchanged".
func (m *Metrics) ShadowRun(execution, outcome string) {
	if m.known.execution(execution) {
		m.shadow.get(shadowKey{execution, outcome}).Inc()
	}
}

// InterruptSuppressed counts an interruption that a protected method was
// spared.
func (m *Metrics) InterruptSuppressed() { m.suppressed.Inc() }

// maxAdminSeries bounds the series of admin calls, should a method be made up
// by a caller.
const maxAdminSeries = 1000

// AdminCall counts a call of the admin API.
func (m *Metrics) AdminCall(method string, code codes.Code, _ time.Duration) {
	k := adminKey{method, code.String()}
	if !m.admin.has(k) && m.admin.len() >= maxAdminSeries {
		k.method = other
	}
	m.admin.get(k).Inc()
}

// Retain removes the series of every target and execution that is not named:
// they were deleted, or renamed.
func (m *Metrics) Retain(targets, executions map[string]struct{}) {
	m.known.set(targets, executions)
	m.calls.retain(func(k callKey) bool { return m.known.target(k.target) })
	m.settled.retain(func(k callKey) bool { return k.target == other || m.known.target(k.target) })
	m.callTimes.retain(m.known.target)
	m.matched.retain(func(k matchedKey) bool { return m.known.execution(k.execution) })
	m.shadow.retain(func(k shadowKey) bool { return m.known.execution(k.execution) })
}
