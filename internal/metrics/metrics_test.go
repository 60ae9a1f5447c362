package metrics_test

import (
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/execgate/execgate/internal/metrics"
	"github.com/execgate/execgate/queue"
)

var (
	_ queue.Observer = (*metrics.Metrics)(nil)
)

// scrape returns the lines that Prometheus would read, without comments.
func scrape(t *testing.T, m *metrics.Metrics) map[string]string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	lines := map[string]string{}
	for line := range strings.Lines(w.Body.String()) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "#") {
			cut := strings.LastIndexByte(line, ' ')
			lines[line[:cut]] = line[cut+1:]
		}
	}
	return lines
}

func expect(t *testing.T, lines map[string]string, want map[string]string) {
	t.Helper()
	for series, value := range want {
		if got, ok := lines[series]; got != value || ok == (value == "") {
			t.Errorf("%s is %q, want %q", series, got, value)
		}
	}
}

func TestNamesAndLabels(t *testing.T) {
	t.Parallel()
	m := metrics.New(metrics.Build{Version: "v1.2.3", Commit: "abc"})
	m.RequestDone("grpc", "/pkg.Service/Method", "OK", 3*time.Millisecond)
	m.RequestDone("http", "other", "404", time.Millisecond)
	m.Overhead(30 * time.Microsecond)
	m.Unevaluated("request", "no_schema")
	m.Matched("request", "request/pkg.Service")
	m.TargetCall("audit", "ok", 2*time.Millisecond)
	m.TargetCall("audit", "timeout", time.Second)
	m.AsyncDropped("full")
	m.H2Limited("rapid_reset")
	m.H1Refused(431)
	m.DeliverySettled("audit", "delivered")
	m.DeliverySpooled()
	for i := range 2000 {
		m.AdminCall("/made.Up/M"+strconv.Itoa(i), codes.OK, 0)
	}
	m.Watch(metrics.Sources{
		StoreUp:         func() bool { return true },
		Snapshot:        func() (uint64, time.Time, bool) { return 7, time.Now(), true },
		SnapshotRefused: func() bool { return true },
		Dispatching:     func() bool { return true },
		SchemaLoaded:    func() bool { return false },
		AsyncPending:    func() int { return 4 },
		Spooled:         func() int { return 3 },
		Deliveries: func(yield func(metrics.DeliveryCount)) {
			yield(metrics.DeliveryCount{Target: "audit", Pending: 1, Dead: 2, Delivered: 5})
			yield(metrics.DeliveryCount{Parked: 1})
			yield(metrics.DeliveryCount{Parked: 2})
		},
		Breakers: func(yield func(string, int)) {
			yield("audit", 2)
			yield("other", 0)
			yield("other", 1)
		},
	})
	lines := scrape(t, m)
	expect(t, lines, map[string]string{
		`execgate_requests_total{code="OK",method="/pkg.Service/Method",protocol="grpc"}`:    "1",
		`execgate_requests_total{code="404",method="other",protocol="http"}`:                 "1",
		`execgate_request_duration_seconds_count{protocol="grpc"}`:                           "1",
		`execgate_request_duration_seconds_count{protocol="connect"}`:                        "0",
		`execgate_overhead_seconds_count`:                                                    "1",
		`execgate_unevaluated_total{phase="request",reason="no_schema"}`:                     "1",
		`execgate_unevaluated_total{phase="response",reason="encoding"}`:                     "0",
		`execgate_executions_matched_total{execution="request/pkg.Service",phase="request"}`: "1",
		`execgate_target_calls_total{outcome="ok",target="audit"}`:                           "1",
		`execgate_target_calls_total{outcome="timeout",target="audit"}`:                      "1",
		`execgate_target_call_duration_seconds_count{target="audit"}`:                        "2",
		`execgate_admin_requests_total{code="OK",method="/made.Up/M0"}`:                      "1",
		`execgate_admin_requests_total{code="OK",method="other"}`:                            "1000",
		`execgate_async_dropped_total{reason="full"}`:                                        "1",
		`execgate_async_dropped_total{reason="shutdown"}`:                                    "0",
		`execgate_h2_limited_total{reason="rapid_reset"}`:                                    "1",
		`execgate_h1_refused_total{code="431"}`:                                              "1",
		`execgate_snapshot_refused`:                                                          "1",
		`execgate_store_up`:                                                                  "1",
		`execgate_snapshot_generation`:                                                       "7",
		`execgate_schema_loaded`:                                                             "0",
		`execgate_async_pending`:                                                             "4",
		`execgate_async_dropped_total{reason="spool_full"}`:                                  "0",
		`execgate_delivery_attempts_total{outcome="delivered",target="audit"}`:               "1",
		`execgate_deliveries_spooled_total`:                                                  "1",
		`execgate_spool_deliveries`:                                                          "3",
		`execgate_deliveries{state="dead",target="audit"}`:                                   "2",
		`execgate_deliveries{state="delivered",target="audit"}`:                              "5",
		`execgate_deliveries{state="pending",target="audit"}`:                                "1",
		`execgate_deliveries{state="parked",target="audit"}`:                                 "0",
		`execgate_deliveries{state="parked",target="other"}`:                                 "3",
		`execgate_breaker_state{target="audit"}`:                                             "2",
		`execgate_breaker_state{target="other"}`:                                             "0",
	})
	for _, prefix := range []string{"execgate_snapshot_age_seconds", `execgate_build_info{commit="abc",goversion="go`, "go_goroutines", "process_cpu_seconds_total"} {
		found := false
		for series := range lines {
			found = found || strings.HasPrefix(series, prefix)
		}
		if !found {
			t.Errorf("no %s", prefix)
		}
	}
}

func TestSeriesOfWhatIsGoneAreRemoved(t *testing.T) {
	t.Parallel()
	m := metrics.New(metrics.Build{})
	for _, target := range []string{"kept", "gone"} {
		m.TargetCall(target, "ok", 0)
	}
	for _, execution := range []string{"request", "response"} {
		m.Matched("request", execution)
	}
	m.Retain(map[string]struct{}{"kept": {}}, map[string]struct{}{"request": {}})
	m.TargetCall("gone", "ok", 0) // a delivery that was on its way
	m.TargetCall("kept", "ok", 0)
	m.Matched("request", "response")
	expect(t, scrape(t, m), map[string]string{
		`execgate_target_calls_total{outcome="ok",target="kept"}`:                 "2",
		`execgate_target_calls_total{outcome="ok",target="gone"}`:                 "",
		`execgate_target_call_duration_seconds_count{target="kept"}`:              "2",
		`execgate_target_call_duration_seconds_count{target="gone"}`:              "",
		`execgate_executions_matched_total{execution="request",phase="request"}`:  "1",
		`execgate_executions_matched_total{execution="response",phase="request"}`: "",
	})
	m.Retain(map[string]struct{}{"gone": {}}, nil)
	m.TargetCall("gone", "ok", 0)
	expect(t, scrape(t, m), map[string]string{
		`execgate_target_calls_total{outcome="ok",target="kept"}`: "",
		`execgate_target_calls_total{outcome="ok",target="gone"}`: "1",
	})
}

func TestManyGoroutinesLoseNothing(t *testing.T) {
	t.Parallel()
	m := metrics.New(metrics.Build{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 1000 {
				if method := "/a.B/" + string(rune('A'+i%20)); i%2 == 0 {
					m.RequestDone("grpc", method, "OK", 0)
				} else {
					m.RequestsDone("grpc", method, "OK")(0)
				}
			}
		})
	}
	wg.Wait()
	lines := scrape(t, m)
	expect(t, lines, map[string]string{`execgate_request_duration_seconds_count{protocol="grpc"}`: "4000"})
	for i := range 20 {
		expect(t, lines, map[string]string{
			`execgate_requests_total{code="OK",method="/a.B/` + string(rune('A'+i)) + `",protocol="grpc"}`: "200",
		})
	}
}

func TestACallAllocatesNothing(t *testing.T) {
	m := metrics.New(metrics.Build{})
	call := func() {
		m.RequestDone("grpc", "/pkg.Service/Method", "OK", time.Millisecond)
		m.Matched("request", "request")
		m.TargetCall("audit", "ok", time.Millisecond)
		m.Overhead(time.Millisecond)
	}
	call()
	if n := testing.AllocsPerRun(100, call); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkRequestDone(b *testing.B) {
	m := metrics.New(metrics.Build{})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			m.RequestDone("grpc", "/pkg.Service/Method", "OK", time.Millisecond)
		}
	})
}
