package test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/internal/testkit/demoapi"
)

// binary is the gateway that TestMain built.
var binary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "execgate")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "execgate")
		build := exec.Command("go", "build", "-buildvcs=false", "-o", binary, "../cmd/execgate")
		if out, err := build.CombinedOutput(); err != nil {
			panic(fmt.Sprintf("build the binary: %v\n%s", err, out))
		}
		return m.Run()
	}())
}

const token = "the-token-of-the-test"

// process is a running gateway.
type process struct {
	t                 testing.TB
	cmd               *exec.Cmd
	proxy, admin, ops string
	exited            chan struct{} // closed when it has ended
	err               error         // of Wait; valid once exited

	mu  sync.Mutex
	log bytes.Buffer
}

// startProcess runs the gateway with a configuration; sections are added to it.
func startProcess(t testing.TB, dir, upstream, sections string) *process {
	t.Helper()
	file := filepath.Join(dir, "config.yaml")
	text := fmt.Sprintf(`
admin:
  listen: 127.0.0.1:0
  tokens: [{name: ops, token: %s, permissions: ["action.*", "execution.*"]}]
ops: {listen: "127.0.0.1:0"}
upstream:
  url: http://%s
  schema: {cache_path: %[3]s/schema.binpb}
store: {embedded: {path: %[3]s/execgate.db}}
targetclient: {deny_list: []}
%[4]s`, token, upstream, dir, sections)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: exec.Command(binary, "serve", "--config", file), exited: make(chan struct{})}
	// The environment of whoever runs the tests is no part of them.
	p.cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	serving := make(chan struct{})
	go p.follow(stderr, serving)
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.exited
		if t.Failed() {
			t.Log(p.logged())
		}
	})
	select {
	case <-serving:
	case <-p.exited:
		t.Fatalf("the gateway ended: %v\n%s", p.err, p.logged())
	case <-time.After(20 * time.Second):
		t.Fatalf("the gateway does not serve:\n%s", p.logged())
	}
	return p
}

// follow reads the log until the process ends.
func (p *process) follow(stderr io.Reader, serving chan struct{}) {
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		p.mu.Lock()
		p.log.Write(append(lines.Bytes(), '\n'))
		p.mu.Unlock()
		var line struct{ Msg, Proxy, Admin, Ops string }
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "serving" {
			p.proxy, p.admin, p.ops = line.Proxy, line.Admin, line.Ops
			close(serving)
		}
	}
	p.err = p.cmd.Wait()
	close(p.exited)
}

func (p *process) logged() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// line returns the first line of the log with this message.
func (p *process) line(message string) map[string]any {
	for line := range strings.Lines(p.logged()) {
		var fields map[string]any
		if json.Unmarshal([]byte(line), &fields) == nil && fields["msg"] == message {
			return fields
		}
	}
	return nil
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// wait returns the exit code; -1 for the end by a signal.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(20 * time.Second):
		p.t.Fatal("the gateway does not end")
	}
	var exit *exec.ExitError
	if p.err != nil && !errors.As(p.err, &exit) {
		p.t.Fatal(p.err)
	}
	return p.cmd.ProcessState.ExitCode()
}

// post calls the admin API over REST and returns the id of what was made.
func (p *process) post(path, body string) string {
	p.t.Helper()
	request, err := http.NewRequestWithContext(p.t.Context(), http.MethodPost, "http://"+p.admin+"/resources/v3alpha"+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		p.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	var made struct{ Details struct{ ID string } }
	if err := json.Unmarshal(text, &made); err != nil || response.StatusCode != http.StatusCreated {
		p.t.Fatalf("POST %s: %s %s", path, response.Status, text)
	}
	return made.Details.ID
}

// ready returns the status of /readyz, 0 when nobody answers.
func (p *process) ready() int {
	response, err := http.Get("http://" + p.ops + "/readyz")
	if err != nil {
		return 0
	}
	_ = response.Body.Close()
	return response.StatusCode
}

// learned waits until the gateway knows the schema.
func (p *process) learned() *process {
	p.t.Helper()
	until(p.t, "the schema is learned", func() bool {
		response, err := http.Get("http://" + p.ops + "/metrics")
		if err != nil {
			return false
		}
		defer response.Body.Close()
		text, _ := io.ReadAll(response.Body)
		return bytes.Contains(text, []byte("\nexecgate_schema_loaded 1\n"))
	})
	return p
}

func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-deadline:
			t.Fatalf("%s: not within 10 s", what)
		case <-tick.C:
		}
	}
}

func dial(t testing.TB, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func demoAPI(t testing.TB) (*demoapi.Server, string) {
	t.Helper()
	api := demoapi.New(demoapi.Options{Logger: testkit.Logger(t)})
	addr, err := api.Start(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = api.Stop(ctx)
	})
	return api, addr
}
