package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// process is a server in a process of its own.
type process struct {
	name    string
	address string
	cmd     *exec.Cmd
}

func start(name string, args ...string) (*process, error) {
	p := &process{name: name, cmd: exec.CommandContext(context.Background(), os.Args[0], args...)} //nolint:gosec // G204: ourselves.
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	var said struct{ Address string }
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &said)
	}
	if err != nil {
		p.stop()
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p.address = said.Address
	return p, nil
}

func (p *process) stop() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// cpu is the processor time that the process has used.
func (p *process) cpu() time.Duration {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.cmd.Process.Pid))
	var total time.Duration
	for _, file := range files {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		ns, _, _ := strings.Cut(string(stat), " ")
		n, _ := strconv.ParseInt(ns, 10, 64)
		total += time.Duration(n)
	}
	return total
}

func run(args []string) error {
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	rounds := flags.Int("rounds", 3, "rounds, interleaved")
	d := flags.Duration("d", 2*time.Second, "length of one measurement")
	only := flags.String("only", "", "measure this one only")
	var s scenario
	s.flags(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	up, err := start("direct", "canned")
	if err != nil {
		return err
	}
	defer up.stop()
	peers := []*process{up}
	for _, name := range []string{"engine", "reverse"} {
		if *only != "" && *only != name {
			continue
		}
		p, err := start(name, name, up.address)
		if err != nil {
			return err
		}
		defer p.stop()
		peers = append(peers, p)
	}
	type row struct {
		rate, cpu []float64
		p50, p99  []time.Duration
	}
	rows := make([]row, len(peers))
	for range *rounds {
		for i, p := range peers {
			if *only != "" && p == up {
				rows[i].rate, rows[i].cpu = append(rows[i].rate, 0), append(rows[i].cpu, 0)
				rows[i].p50, rows[i].p99 = append(rows[i].p50, 0), append(rows[i].p99, 0)
				continue
			}
			before := p.cpu()
			r, err := load(p.address, s, *d)
			if err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			used := p.cpu() - before
			rows[i].rate = append(rows[i].rate, float64(r.calls)/r.took.Seconds())
			rows[i].cpu = append(rows[i].cpu, float64(used.Nanoseconds())/1e3/float64(r.calls))
			rows[i].p50 = append(rows[i].p50, r.latencies[len(r.latencies)/2])
			rows[i].p99 = append(rows[i].p99, r.latencies[len(r.latencies)*99/100])
		}
	}
	fmt.Printf("unary %s, %d rounds of %v, medians\n%-10s %12s %14s %10s %10s\n", s, *rounds, *d, "", "calls/s", "CPU us/call", "p50", "p99")
	for i, p := range peers {
		fmt.Printf("%-10s %12.0f %14.2f %10v %10v\n", p.name, median(rows[i].rate), median(rows[i].cpu),
			median(rows[i].p50).Round(time.Microsecond), median(rows[i].p99).Round(time.Microsecond))
	}
	return nil
}

// loadOnly makes calls to one address.
func loadOnly(address string, args []string) error {
	flags := flag.NewFlagSet("load", flag.ContinueOnError)
	d := flags.Duration("d", 6*time.Second, "how long")
	var s scenario
	s.flags(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	r, err := load(address, s, *d)
	if err == nil {
		fmt.Printf("%s: %.0f calls/s, p50 %v, p99 %v\n", s, float64(r.calls)/r.took.Seconds(),
			r.latencies[len(r.latencies)/2], r.latencies[len(r.latencies)*99/100])
	}
	return err
}

func (s *scenario) flags(flags *flag.FlagSet) {
	flags.IntVar(&s.conns, "c", 4, "connections")
	flags.IntVar(&s.streams, "s", 16, "streams per connection")
	flags.IntVar(&s.size, "n", 200, "bytes per message")
}

func median[T float64 | time.Duration](v []T) T {
	slices.Sort(v)
	return v[len(v)/2]
}
