package deliveries

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	demopb "github.com/execgate/execgate/gen/execgate/demo/v1"
	"github.com/execgate/execgate/internal/testkit"
)

// parkedEnv is how many deliveries BenchmarkParked parks.
const parkedEnv = "EXECGATE_PARKED"

// figures is a gateway whose targets are counters in this process.
type figures struct {
	*testing.B
	g     *gateway
	redis *testkit.Redis // nil: embedded
	dir   string
	got   atomic.Int64
}

// onEveryQueue runs a benchmark with the embedded queue, and with Redis under both
// ways to sync its disk.
func onEveryQueue(b *testing.B, targets int, enabled bool, run func(f *figures)) {
	for _, name := range []string{"embedded", "redis-everysec", "redis-always"} {
		b.Run(name, func(b *testing.B) {
			f := &figures{B: b, dir: b.TempDir()}
			receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				f.got.Add(1)
			}))
			b.Cleanup(receiver.Close)
			spec := gatewaySpec{name: name, dir: f.dir, upstream: upstream(b)}
			switch name {
			case "redis-everysec":
				f.redis = testkit.StartRedis(b, testkit.RedisOptions{Args: []string{"appendonly", "yes", "appendfsync", "everysec"}})
			case "redis-always":
				f.redis = testkit.StartRedis(b, testkit.RedisOptions{AOF: true})
			}
			if f.redis != nil {
				spec.redis = f.redis.URL
			}
			var rules, list strings.Builder
			for i := range targets {
				fmt.Fprintf(&rules, "kind: Target\nname: t%d\nwebhook: {url: %q}\ntimeout: 20s\nasync: true\npolicy: {enabled: %v}\n---\n", i, receiver.URL, enabled)
				fmt.Fprintf(&list, "  - t%d\n", i)
			}
			spec.rules = rules.String() + "kind: Execution\ncondition: request" + echo + "\ntargets:\n" + list.String()
			f.g = newGateway(b, spec).start()
			run(f)
		})
	}
}

// calls makes n calls over four connections, so many at once.
func (f *figures) calls(n, atOnce int, call func(client demopb.StreamServiceClient, i int)) {
	var clients []demopb.StreamServiceClient
	for range 4 {
		conn, err := grpc.NewClient("passthrough:///"+f.g.proxy, plaintext)
		if err != nil {
			f.Fatal(err)
		}
		defer conn.Close()
		clients = append(clients, demopb.NewStreamServiceClient(conn))
	}
	var next atomic.Int64
	var all sync.WaitGroup
	for range atOnce {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				call(clients[i%len(clients)], i)
			}
		})
	}
	all.Wait()
}

var payload = &demopb.EchoRequest{Text: strings.Repeat("x", 200)}

// park makes n deliveries that are parked, for so many targets.
func (f *figures) park(n, targets int) {
	f.calls((n+targets-1)/targets, 64, func(client demopb.StreamServiceClient, _ int) {
		if _, err := client.Echo(f.Context(), payload); err != nil {
			f.Error(err)
		}
	})
	if n := f.g.metric("execgate_async_dropped_total"); n != 0 {
		f.Fatalf("%v were dropped", n)
	}
}

// enable turns the targets on.
func (f *figures) enable(targets int) {
	for i := range targets {
		f.g.enable(fmt.Sprintf("t%d", i))
	}
}

// delivered waits for so many deliveries.
func (f *figures) delivered(n int) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	before, since := int64(0), time.Now()
	for got := f.got.Load(); got < int64(n); got = f.got.Load() {
		if got > before {
			before, since = got, time.Now()
		} else if time.Since(since) > time.Minute {
			f.Fatalf("%d of %d were delivered, and then none", got, n)
		}
		<-tick.C
	}
}

// redisSeconds is the CPU time of Redis so far.
func (f *figures) redisSeconds() (sum float64) {
	if f.redis == nil {
		return 0
	}
	info := f.redis.Client().InfoMap(f.Context(), "cpu")
	for _, name := range []string{"used_cpu_sys", "used_cpu_user"} {
		seconds, err := strconv.ParseFloat(info.Item("CPU", name), 64)
		if err != nil {
			f.Fatal(err)
		}
		sum += seconds
	}
	return sum
}

// BenchmarkDelivery tells how fast deliveries that were parked go to a receiver,
// and what each takes of the CPU.
func BenchmarkDelivery(b *testing.B) {
	const targets = 4
	onEveryQueue(b, targets, false, func(f *figures) {
		f.park(f.N, targets)
		gateway, redis := f.g.metric("process_cpu_seconds_total"), f.redisSeconds()
		f.ResetTimer()
		f.enable(targets)
		f.delivered(f.N)
		f.StopTimer()
		f.ReportMetric(float64(f.N)/f.Elapsed().Seconds(), "deliveries/s")
		f.ReportMetric((f.g.metric("process_cpu_seconds_total")-gateway)/float64(f.N)*1e6, "gateway-cpu-us/delivery")
		f.ReportMetric((f.redisSeconds()-redis)/float64(f.N)*1e6, "redis-cpu-us/delivery")
	})
}

// BenchmarkCall tells what an asynchronous target adds to a call: each is made
// with and without, in turn.
func BenchmarkCall(b *testing.B) {
	for _, atOnce := range []int{1, 16} {
		b.Run(fmt.Sprintf("callers=%d", atOnce), func(b *testing.B) {
			onEveryQueue(b, 1, true, func(f *figures) {
				with, without := make([]time.Duration, f.N), make([]time.Duration, f.N)
				f.ResetTimer()
				f.calls(2*f.N, atOnce, func(client demopb.StreamServiceClient, i int) {
					began := time.Now()
					var err error
					if i%2 == 0 {
						_, err = client.Echo(f.Context(), payload)
						with[i/2] = time.Since(began)
					} else {
						_, err = client.Peek(f.Context(), payload)
						without[i/2] = time.Since(began)
					}
					if err != nil {
						f.Error(err)
					}
				})
				f.StopTimer()
				slices.Sort(with)
				slices.Sort(without)
				for name, percent := range map[string]int{"p50": 50, "p99": 99} {
					at := f.N * percent / 100
					f.ReportMetric(float64(with[at].Microseconds()), name+"-with-us")
					f.ReportMetric(float64(without[at].Microseconds()), name+"-without-us")
					f.ReportMetric(float64((with[at] - without[at]).Microseconds()), name+"-added-us")
				}
			})
		})
	}
}

// BenchmarkParked tells what parked deliveries take of the memory of the gateway
// and of Redis, or of the disk; and what the gateway takes while it delivers some
// of them.
func BenchmarkParked(b *testing.B) {
	const targets = 4
	n := 10_000
	if text := os.Getenv(parkedEnv); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			b.Fatal(err)
		}
	}
	onEveryQueue(b, targets, false, func(f *figures) {
		memory := f.memory()
		for f.Loop() { // once: it takes long
			f.park(n, targets)
		}
		f.report("before", memory)
		f.ReportMetric(float64(n)/f.Elapsed().Seconds(), "parked/s")
		f.report("parked", f.memory())
		kept := f.kept()
		f.ReportMetric(kept/(1<<20), "kept-MiB")
		f.ReportMetric(kept/float64(n), "kept-B/delivery")
		f.enable(targets)
		f.delivered(n / 10)
		f.report("delivering", f.memory())
	})
}

// rss is the memory of the gateway in MiB: what is its own, and what are pages of
// files, which the system takes back when it needs them.
type rss struct{ anonymous, file float64 }

func (f *figures) report(when string, r rss) {
	f.ReportMetric(r.anonymous, when+"-rss-MiB")
	f.ReportMetric(r.file, when+"-rss-file-MiB")
}

// memory returns what the gateway takes now; nothing where there is no /proc.
func (f *figures) memory() (r rss) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", f.g.cmd.Process.Pid))
	if err != nil {
		f.Log(err)
		return r
	}
	for line := range strings.Lines(string(status)) {
		for field, to := range map[string]*float64{"RssAnon:": &r.anonymous, "RssFile:": &r.file} {
			value, ok := strings.CutPrefix(line, field)
			if !ok {
				continue
			}
			kib, err := strconv.ParseFloat(strings.Fields(value)[0], 64)
			if err != nil {
				f.Fatal(err)
			}
			*to = kib / 1024
		}
	}
	return r
}

// kept returns how many bytes the queue takes in Redis, or on disk.
func (f *figures) kept() float64 {
	if f.redis == nil {
		fi, err := os.Stat(filepath.Join(f.dir, "execgate-queue.db"))
		if err != nil {
			f.Fatal(err)
		}
		return float64(fi.Size())
	}
	bytes, err := strconv.ParseFloat(f.redis.Client().InfoMap(f.Context(), "memory").Item("Memory", "used_memory_rss"), 64)
	if err != nil {
		f.Fatal(err)
	}
	return bytes
}
