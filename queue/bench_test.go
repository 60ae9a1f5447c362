package queue_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/queue"
	"github.com/execgate/execgate/queue/queuetest"
	"github.com/execgate/execgate/targetclient"
)

// parkedEnv is how many deliveries BenchmarkParked parks.
const parkedEnv = "EXECGATE_QUEUE_PARKED"

// benchBackends runs a benchmark on both backends, Redis with appendfsync as it
// comes (everysec) and always.
func benchBackends(b *testing.B, run func(b *testing.B, q queue.Backend, size func() (bytes int64))) {
	b.Run("embedded", func(b *testing.B) {
		path := filepath.Join(b.TempDir(), "queue.db")
		run(b, openEmbedded(b, path, queuetest.Setup{}), func() int64 {
			fi, err := os.Stat(path)
			if err != nil {
				b.Fatal(err)
			}
			return fi.Size()
		})
	})
	for name, o := range map[string]testkit.RedisOptions{
		"redis-everysec": {Args: []string{"appendonly", "yes", "appendfsync", "everysec"}},
		"redis-always":   {AOF: true},
	} {
		b.Run(name, func(b *testing.B) {
			server := testkit.StartRedis(b, o)
			behind := server.Client()
			q := openRedis(b, redisClient(b, server.Addr), queue.RedisOptions{Timeout: 10 * time.Second})
			run(b, q, func() int64 {
				n, err := strconv.ParseInt(behind.InfoMap(context.Background(), "memory").Item("Memory", "used_memory"), 10, 64)
				if err != nil {
					b.Fatal(err)
				}
				return n
			})
		})
	}
}

var benchBody = bytes.Repeat([]byte(`{"fullMethod":"/x.Y/Z"}`), 20)

// BenchmarkEnqueue tells what a call waits for its delivery to be safe.
func BenchmarkEnqueue(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			benchBackends(b, func(b *testing.B, backend queue.Backend, _ func() int64) {
				took := make([]time.Duration, b.N)
				var next atomic.Int64
				var wg sync.WaitGroup
				b.ResetTimer()
				for range callers {
					wg.Go(func() {
						for i := next.Add(1) - 1; i < int64(b.N); i = next.Add(1) - 1 {
							began := time.Now()
							r := &queue.Record{ID: queue.NewID(began), Target: "t" + strconv.Itoa(int(i%4)), Execution: "request", Body: benchBody}
							if err := backend.Put(b.Context(), r); err != nil {
								b.Error(err)
							}
							took[i] = time.Since(began)
						}
					})
				}
				wg.Wait()
				b.StopTimer()
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
				b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "puts/s")
			})
		})
	}
}

// BenchmarkDeliver tells how fast a backlog for four targets goes to a local
// receiver in the same process, whose CPU is included.
func BenchmarkDeliver(b *testing.B) { benchmarkDeliver(b, "") }

// BenchmarkDeliverOrdered does it for one order key: the worst that order can
// cost.
func BenchmarkDeliverOrdered(b *testing.B) { benchmarkDeliver(b, "key") }

func benchmarkDeliver(b *testing.B, orderKey string) {
	benchBackends(b, func(b *testing.B, backend queue.Backend, _ func() int64) {
		var got atomic.Int64
		all := make(chan struct{})
		receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			if got.Add(1) == int64(b.N) {
				close(all)
			}
		}))
		defer receiver.Close()
		client, err := targetclient.New(targetclient.Options{})
		if err != nil {
			b.Fatal(err)
		}
		defer client.Close()
		settings := map[string]*queue.Settings{}
		for i := range 4 {
			id := "t" + strconv.Itoa(i)
			settings[id] = &queue.Settings{Target: &targetclient.Target{ID: id, Name: id, URL: receiver.URL}}
		}
		q, err := queue.NewDurable(queue.DurableOptions{
			Backend: backend, Caller: client,
			Targets: func(id string) (*queue.Settings, bool) { return settings[id], true },
		})
		if err != nil {
			b.Fatal(err)
		}
		fillBackend(b, backend, b.N, orderKey)
		before := cpu()
		b.ResetTimer()
		if err := q.Start(b.Context()); err != nil {
			b.Fatal(err)
		}
		<-all
		q.Stop(b.Context())
		b.StopTimer()
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "deliveries/s")
		b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-us/delivery")
	})
}

// BenchmarkParked tells what a parked delivery of 460 bytes takes.
func BenchmarkParked(b *testing.B) {
	n := 20_000
	if text := os.Getenv(parkedEnv); text != "" {
		n, _ = strconv.Atoi(text)
	}
	benchBackends(b, func(b *testing.B, backend queue.Backend, size func() int64) {
		for b.Loop() { // once: it takes long
			fillBackend(b, backend, n, "")
			if err := backend.Park(b.Context(), "t0", time.Hour); err != nil {
				b.Fatal(err)
			}
		}
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		b.ReportMetric(float64(m.HeapInuse)/(1<<20), "gateway-heap-MiB")
		b.ReportMetric(float64(size())/(1<<20), "kept-MiB")
		b.ReportMetric(float64(size())/float64(n), "kept-B/delivery")
		began := time.Now()
		if page, err := backend.List(b.Context(), queue.Filter{State: queue.StateParked}); err != nil || len(page.Records) != 100 {
			b.Fatalf("%d records, %v", len(page.Records), err)
		}
		b.ReportMetric(float64(time.Since(began).Microseconds()), "list-us")
	})
}

func fillBackend(b *testing.B, backend queue.Backend, n int, orderKey string) {
	b.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 256 {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				r := &queue.Record{
					ID: queue.NewID(time.Now()), Target: "t" + strconv.Itoa(int(i%4)), Execution: "request", Body: benchBody, OrderKey: orderKey,
				}
				if err := backend.Put(b.Context(), r); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// cpu is the time that this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
