package deliveries

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/internal/testkit/demoapi"
)

var plaintext = grpc.WithTransportCredentials(insecure.NewCredentials())

// binary is the gateway that TestMain built.
var binary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "execgate-deliveries")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "execgate")
		build := exec.Command("go", "build", "-buildvcs=false", "-o", binary, "../../cmd/execgate")
		if out, err := build.CombinedOutput(); err != nil {
			panic(fmt.Sprintf("build the binary: %v\n%s", err, out))
		}
		return m.Run()
	}())
}

// upstream starts an identity API for gateways to stand in front of.
func upstream(t testing.TB) (addr string) {
	t.Helper()
	api := demoapi.New(demoapi.Options{Logger: testkit.Logger(t)})
	addr, err := api.Start(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = api.Stop(t.Context()) })
	t.Logf("the upstream is %s", addr)
	return addr
}

// gateway is a gateway that can be killed and started again on what it left.
type gateway struct {
	t    testing.TB
	name string
	args []string

	cmd               *exec.Cmd
	conn              *grpc.ClientConn
	proxy, admin, ops string
	exited            chan struct{} // closed when it has ended
	mu                sync.Mutex
	tail              [][]byte // of the log
	warnings          map[string]int
}

// gatewaySpec says how a gateway is configured.
type gatewaySpec struct {
	name     string
	dir      string // of its own
	upstream string
	redis    string // URL; empty: embedded
	proxy    string // more of the section proxy, as YAML in a line that begins with a comma
	queue    string // the section queue, likewise, without that comma
	rules    string // targets and executions, for --apply
}

// newGateway writes the configuration of a gateway; it does not start it.
func newGateway(t testing.TB, s gatewaySpec) *gateway {
	t.Helper()
	store := fmt.Sprintf("{driver: embedded, embedded: {path: %s/execgate.db}}", s.dir)
	if s.redis != "" {
		store = fmt.Sprintf("{driver: redis, redis: {url: %q, copy_path: %s/execgate-copy.db}}", s.redis, s.dir)
	}
	config := fmt.Sprintf(`
proxy: {listen: "127.0.0.1:0"%s}
admin: {listen: "127.0.0.1:0"}
ops: {listen: "127.0.0.1:0"}
upstream: {url: "http://%s", schema: {cache_path: %s/schema.binpb}}
store: %s
queue: {%s}
targetclient: {deny_list: []}
`, s.proxy, s.upstream, s.dir, store, s.queue)
	for name, text := range map[string]string{"config.yaml": config, "rules.yaml": s.rules} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	g := &gateway{t: t, name: s.name, warnings: map[string]int{}}
	g.args = []string{"serve", "--config", filepath.Join(s.dir, "config.yaml"), "--apply", filepath.Join(s.dir, "rules.yaml")}
	t.Cleanup(func() {
		g.kill()
		if t.Failed() {
			t.Logf("log of %s:\n%s", g.name, bytes.Join(g.tail, nil))
		}
	})
	return g
}

// start runs it until it serves and knows the schema.
func (g *gateway) start() *gateway {
	g.t.Helper()
	g.cmd, g.exited = exec.Command(binary, g.args...), make(chan struct{})
	// The environment of whoever runs the tests is no part of them.
	g.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "GOMAXPROCS=" + os.Getenv("GOMAXPROCS")}
	log, err := g.cmd.StderrPipe()
	if err != nil {
		g.t.Fatal(err)
	}
	if err := g.cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	serving := make(chan struct{})
	go g.follow(log, serving)
	select {
	case <-serving:
	case <-g.exited:
		g.t.Fatalf("gateway %s ended at once", g.name)
	case <-time.After(time.Minute):
		g.t.Fatalf("gateway %s does not serve", g.name)
	}
	g.t.Logf("gateway %s serves on %s", g.name, g.proxy)
	until(g.t, "the schema is learned", func() bool { return g.metric("execgate_schema_loaded") == 1 })
	g.conn, err = grpc.NewClient("passthrough:///"+g.proxy, plaintext,
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1, MaxDelay: 50 * time.Millisecond}}))
	if err != nil {
		g.t.Fatal(err)
	}
	return g
}

// follow reads the log until the process ends. It keeps its end, and counts the
// warnings.
func (g *gateway) follow(log io.Reader, serving chan<- struct{}) {
	for lines := bufio.NewScanner(log); lines.Scan(); {
		var line struct{ Level, Msg, Proxy, Admin, Ops string }
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "serving" {
			g.proxy, g.admin, g.ops = line.Proxy, line.Admin, line.Ops
			close(serving)
		}
		if line.Level == "INFO" {
			continue // a line for each call
		}
		g.mu.Lock()
		g.warnings[line.Msg]++
		g.tail = append(g.tail, append(slices.Clone(lines.Bytes()), '\n'))
		g.tail = g.tail[max(0, len(g.tail)-50):]
		g.mu.Unlock()
	}
	_ = g.cmd.Wait()
	close(g.exited)
}

// kill ends it as kill -9 does.
func (g *gateway) kill() {
	if g.cmd == nil {
		return
	}
	_ = g.cmd.Process.Kill()
	g.gone()
}

// stop ends it in an orderly way, and returns the exit code.
func (g *gateway) stop() int {
	g.t.Helper()
	if err := g.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		g.t.Fatal(err)
	}
	return g.gone()
}

func (g *gateway) gone() (exitCode int) {
	<-g.exited
	exitCode = g.cmd.ProcessState.ExitCode()
	_ = g.conn.Close()
	g.cmd = nil
	return exitCode
}

// metric returns the sum of the series of a metric; those that have the label
// only, if one is given as name="value".
func (g *gateway) metric(name string, labels ...string) (sum float64) {
	response, err := http.Get("http://" + g.ops + "/metrics")
	if err != nil {
		return -1
	}
	defer response.Body.Close()
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		series, value, _ := strings.Cut(lines.Text(), " ")
		if base, _, _ := strings.Cut(series, "{"); base != name {
			continue
		}
		if slices.ContainsFunc(labels, func(l string) bool { return !strings.Contains(series, l) }) {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			g.t.Fatal(err)
		}
		sum += n
	}
	return sum
}

// enable turns a target on.
func (g *gateway) enable(target string) {
	g.t.Helper()
	request, err := http.NewRequestWithContext(g.t.Context(), http.MethodPatch,
		"http://"+g.admin+"/v1/targets/"+target+"/policy", strings.NewReader(`{"enabled":true}`))
	if err != nil {
		g.t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		g.t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		g.t.Fatalf("enable %s: %s", target, response.Status)
	}
}

// until asks again and again, for a minute.
func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain: %s", what)
		case <-tick.C:
		}
	}
}
