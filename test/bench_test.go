package test

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"

	demopb "github.com/execgate/execgate/gen/execgate/demo/v1"
	"github.com/execgate/execgate/internal/testkit"
)

const echo = "/execgate.demo.v1.StreamService/Echo"

// BenchmarkUnary makes the same small unary call directly, through the gateway
// without a match, and through the gateway with one synchronous webhook, over
// four connections with sixteen calls at once on each. Besides the time it
// reports the CPU that the gateway's process took for a call.
func BenchmarkUnary(b *testing.B) {
	_, addr := demoAPI(b)
	target := testkit.NewTarget(b, testkit.TargetOptions{})
	target.AnswerWith(func(testkit.TargetRequest) testkit.Answer { return testkit.Answer{} })
	through := startProcess(b, b.TempDir(), addr, `proxy: {listen: "127.0.0.1:0"}`).learned()
	matched := startProcess(b, b.TempDir(), addr, `proxy: {listen: "127.0.0.1:0"}`).learned()
	id := matched.post("/targets", `{"name":"webhook","restWebhook":{"url":"`+target.URL+`"},"timeout":"20s","interruptOnError":true}`)
	matched.post("/executions", `{"condition":{"request":{"method":"`+echo+`"}},"targets":["`+id+`"]}`)

	b.Run("direct", func(b *testing.B) { benchmarkEcho(b, addr, nil) })
	b.Run("pass-through", func(b *testing.B) { benchmarkEcho(b, through.proxy, through) })
	b.Run("one-webhook", func(b *testing.B) { benchmarkEcho(b, matched.proxy, matched) })
}

func benchmarkEcho(b *testing.B, addr string, gateway *process) {
	var conns []*grpc.ClientConn
	for range 4 {
		conns = append(conns, dial(b, addr))
	}
	request := &demopb.EchoRequest{Text: strings.Repeat("x", 200)}
	call := func(conn *grpc.ClientConn) error {
		_, err := demopb.NewStreamServiceClient(conn).Echo(b.Context(), request)
		return err
	}
	for _, conn := range conns { // connect, and warm up
		for range 50 {
			if err := call(conn); err != nil {
				b.Fatal(err)
			}
		}
	}
	var next atomic.Int64
	before := gateway.cpuSeconds(b)
	b.SetParallelism(32) // times two cores: 64 calls at once
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		conn := conns[next.Add(1)%4]
		for pb.Next() {
			if err := call(conn); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
	if gateway != nil {
		b.ReportMetric((gateway.cpuSeconds(b)-before)*1e6/float64(b.N), "gateway-cpu-us/op")
	}
}

// cpuSeconds is the CPU time of the gateway's process so far.
func (p *process) cpuSeconds(b *testing.B) float64 {
	if p == nil {
		return 0
	}
	response, err := http.Get("http://" + p.ops + "/metrics")
	if err != nil {
		b.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "process_cpu_seconds_total "); ok {
			seconds, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				b.Fatal(err)
			}
			return seconds
		}
	}
	b.Fatal("no process_cpu_seconds_total")
	return 0
}
