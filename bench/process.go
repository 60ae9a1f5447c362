//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a child, with the children that it has itself.
type process struct {
	name   string
	cmd    *exec.Cmd
	exited chan struct{}
	said   tail
}

// tail keeps the end of what a process says.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if n := len(t.b) - 4096; n > 0 {
		t.b = t.b[:copy(t.b, t.b[n:])]
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.b))
}

// startProcess runs a command in a process group of its own, so that Ctrl-C reaches this program alone, which then ends the
// others. They end as well when this program dies. Standard output and error go to output, if it is not nil.
func startProcess(name string, output io.Writer, command string, args ...string) (*process, error) {
	p := &process{name: name, exited: make(chan struct{})}
	p.cmd = exec.CommandContext(context.Background(), command, args...) //nolint:gosec // G204: our own commands.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	p.cmd.Stdout = &p.said
	if output != nil {
		p.cmd.Stdout = io.MultiWriter(output, &p.said)
	}
	p.cmd.Stderr = p.cmd.Stdout
	p.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.TempDir()}
	for _, name := range []string{"GOMAXPROCS", "GOGC"} {
		if v, ok := os.LookupEnv(name); ok {
			p.cmd.Env = append(p.cmd.Env, name+"="+v)
		}
	}
	p.cmd.WaitDelay = time.Second
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

// stop ends the process and whatever it has started.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(2 * time.Second):
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // Its group: all that is left of it.
	<-p.exited
}

var errEnded = errors.New("it ended")

// wait waits until ready says true.
func (p *process) wait(ctx context.Context, ready func() bool) error {
	limit := time.After(60 * time.Second)
	for !ready() {
		select {
		case <-p.exited:
			return fmt.Errorf("start %s: %w: %s", p.name, errEnded, p.said.String())
		case <-limit:
			return fmt.Errorf("start %s: it does not answer: %s", p.name, p.said.String())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// pids are the process and its descendants.
func (p *process) pids() []int {
	pids := []int{p.cmd.Process.Pid}
	for i := 0; i < len(pids); i++ {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pids[i]))
		for _, name := range tasks {
			text, _ := os.ReadFile(name)
			for _, f := range strings.Fields(string(text)) {
				if pid, err := strconv.Atoi(f); err == nil {
					pids = append(pids, pid)
				}
			}
		}
	}
	return pids
}

// cpu is the time, user and system, that all of them took.
func (p *process) cpu() time.Duration {
	var sum time.Duration
	for _, pid := range p.pids() {
		sum += cpuOf(pid)
	}
	return sum
}

// cpuOf adds up what the scheduler counted for each thread, to the nanosecond. Where the kernel does not, /proc/PID/stat has
// it in hundredths of seconds.
func cpuOf(pid int) time.Duration {
	var sum time.Duration
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, name := range tasks {
		text, _ := os.ReadFile(name)
		first, _, _ := strings.Cut(string(text), " ")
		n, _ := strconv.ParseInt(first, 10, 64)
		sum += time.Duration(n)
	}
	if sum > 0 {
		return sum
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// memory adds up a field of /proc/PID/status (VmRSS, VmHWM), in bytes. Pages that processes share count for each.
func (p *process) memory(field string) int {
	sum := 0
	for _, pid := range p.pids() {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		for line := range strings.Lines(string(text)) {
			if v, ok := strings.CutPrefix(line, field+":"); ok {
				kb, _ := strconv.Atoi(strings.Fields(v)[0])
				sum += kb << 10
			}
		}
	}
	return sum
}
