//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// bench is one run of the program.
type bench struct {
	dir      string // temporary
	gateway  string // the gateway's binary
	against  string // another, or empty
	version  string // where it is from
	upstream *process
	port     int // of the upstream, of everything it speaks
	threads  int // of the upstream and of the load
	workers  int // of each proxy
	cert     certificate
	log      io.Writer // what goes on
}

// contender is what load can be put on.
type contender struct {
	name    string
	command string // a peer's program; empty for what is always there
	start   func(ctx context.Context, b *bench, s *scenario) (*running, error)
	// gateways are measured with each number of executions.
	gateway bool
	does    func(s *scenario) bool // nil: all
}

// running is a contender that has started.
type running struct {
	*process        // nil for direct
	address  string // for this scenario
}

func (r *running) stop() {
	if r.process != nil {
		r.process.stop()
	}
}

// against is the contender that is only there if it was given a binary.
const against = "execgate-against"

// contenders are all there are, in the order of the tables.
func contenders() []contender {
	return []contender{
		{name: "direct", start: startDirect, does: func(s *scenario) bool { return plain(s) && !s.tls && s.idle == 0 }},
		{name: "nginx", command: "nginx", start: startNginx},
		{name: "haproxy", command: "haproxy", start: startHAProxy, does: plain},
		{name: "nghttpx", command: "nghttpx", start: startNghttpx, does: plain},
		{name: "execgate", start: gatewayWith("h2", configuredAnyway), gateway: true},
		{name: "execgate-nethttp", start: gatewayWith("nethttp", configuredAnyway), gateway: true, does: func(s *scenario) bool { return s.executions == nil && !s.open }},
		{name: against, start: otherGateway, does: func(s *scenario) bool { return s.executions == nil }},
	}
}

// plain leaves out what other proxies cannot do, and what says nothing of them.
func plain(s *scenario) bool { return s.callout == "" && s.executions == nil }

// find looks for a program also where Debian puts daemons.
func find(command string) (string, error) {
	if path, err := exec.LookPath(command); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, command)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: %w", command, exec.ErrNotFound)
}

// startUpstream runs this program again.
func (b *bench) startUpstream(ctx context.Context, self string) error {
	out, in := io.Pipe()
	defer func() { _ = out.Close() }()
	p, err := startProcess("upstream", in, self, "upstream", strconv.Itoa(b.threads))
	if err != nil {
		return err
	}
	b.upstream = p
	go func() {
		select {
		case <-p.exited:
		case <-ctx.Done():
		case <-time.After(10 * time.Second):
		}
		_ = in.CloseWithError(errors.New(p.said.String()))
	}()
	line, err := bufio.NewReader(out).ReadBytes('\n')
	var said struct{ Port int }
	if err == nil {
		err = json.Unmarshal(line, &said)
	}
	if err != nil {
		return fmt.Errorf("start the upstream: %w", err)
	}
	b.port = said.Port
	return nil
}

// counts asks the upstream what it has answered.
func (b *bench) counts(ctx context.Context) (counts, error) {
	var c counts
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+local(b.port)+countsPath, http.NoBody)
	if err != nil {
		return c, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return c, fmt.Errorf("ask the upstream: %w", err)
	}
	err = json.NewDecoder(response.Body).Decode(&c)
	_ = response.Body.Close()
	return c, err
}

func startDirect(_ context.Context, b *bench, _ *scenario) (*running, error) {
	return &running{address: local(b.port)}, nil
}

func local(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

// freePort is one that nobody has now.
func freePort() (int, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port, nil
}

// answers reports whether somebody listens.
func answers(address string) bool {
	d := net.Dialer{Timeout: time.Second}
	nc, err := d.DialContext(context.Background(), "tcp", address)
	if err != nil {
		return false
	}
	_ = nc.Close()
	return true
}

// subdir makes a directory for one process's files.
func (b *bench) subdir(name string) (string, error) {
	dir := filepath.Join(b.dir, name)
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o700)
}
