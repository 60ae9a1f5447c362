//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "upstream" {
		serveUpstream(os.Args[2]) // Before signals are caught: they end it.
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// serveUpstream is what this program does when it was started by itself.
func serveUpstream(threads string) {
	n, err := strconv.Atoi(threads)
	if err == nil {
		err = upstream(n)
	}
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}

// options are the flags.
type options struct {
	scenarios string
	only      string
	rounds    int
	duration  time.Duration
	warmup    time.Duration
	gateway   string
	against   string
	workers   int
	threads   int
	json      string
	markdown  string
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	list := flags.Bool("list", false, "list the scenarios and contenders")
	flags.StringVar(&o.scenarios, "scenario", "", "the scenarios, as patterns with commas between them (unary-*,rest-1); all without")
	flags.StringVar(&o.only, "only", "", "the contenders, with commas between them; all without")
	flags.IntVar(&o.rounds, "rounds", 5, "how often each contender is measured, in turn")
	flags.DurationVar(&o.duration, "duration", 800*time.Millisecond, "how long one measurement takes")
	flags.DurationVar(&o.warmup, "warmup", 150*time.Millisecond, "load before each measurement that does not count")
	flags.StringVar(&o.gateway, "gateway", "", "the gateway's binary; built from the tree without")
	flags.StringVar(&o.against, "against", "", "another binary of the gateway, measured in turn with the first as "+against)
	flags.IntVar(&o.workers, "workers", runtime.NumCPU(), "worker processes or threads of each peer")
	flags.IntVar(&o.threads, "threads", max(1, runtime.NumCPU()/4), "threads of the upstream, and of the load generator")
	flags.StringVar(&o.json, "json", "", "write everything that was measured to this file")
	flags.StringVar(&o.markdown, "markdown", "", "write the tables to this file as well")
	flags.Usage = func() {
		fmt.Fprintln(stderr, "usage: bench [flags]")
		flags.PrintDefaults()
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil || flags.NArg() > 0 || o.rounds < 1 || o.duration <= 0:
		return 2
	}
	if *list {
		for _, s := range scenarios() {
			fmt.Fprintf(stdout, "%-18s %s\n", s.name, s.title)
		}
		for _, c := range contenders() {
			fmt.Fprintln(stdout, c.name)
		}
		return 0
	}
	report, err := o.run(ctx, stderr)
	if report != nil && len(report.Scenarios) > 0 {
		if err := o.write(report, stdout); err != nil {
			fmt.Fprintln(stderr, "bench:", err)
			return 1
		}
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	return 0
}

// run measures what was chosen. What is done when it fails is returned all the same.
func (o options) run(ctx context.Context, log io.Writer) (_ *report, err error) {
	chosen, err := choose(o.scenarios)
	if err != nil {
		return nil, err
	}
	var players []contender
	for _, c := range contenders() {
		if c.name == against {
			if o.against == "" {
				continue
			}
		} else if o.only != "" && !contains(o.only, c.name) {
			continue
		}
		if c.command != "" {
			if _, err := find(c.command); err != nil {
				fmt.Fprintf(log, "%s was not found and is left out\n", c.name)
				continue
			}
		}
		players = append(players, c)
	}
	if len(players) == 0 {
		return nil, fmt.Errorf("no contender of %q is there (see -list)", o.only)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "execgate-bench")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	b := &bench{dir: dir, workers: o.workers, threads: o.threads, gateway: o.gateway, log: log}
	if b.cert, err = newCertificate(dir); err != nil {
		return nil, err
	}
	if b.gateway == "" {
		if err := b.buildGateway(ctx); err != nil {
			return nil, err
		}
	} else if b.gateway, err = filepath.Abs(b.gateway); err != nil {
		return nil, err
	} else {
		b.version = filepath.Base(b.gateway)
	}
	if o.against != "" {
		if b.against, err = filepath.Abs(o.against); err != nil {
			return nil, err
		}
	}
	if err := b.startUpstream(ctx, self); err != nil {
		return nil, err
	}
	defer b.upstream.stop()
	r := &report{Machine: machine(), Versions: b.versions(ctx, players), Rounds: o.rounds, Duration: o.duration.String(), Workers: o.workers, Threads: o.threads}
	for _, s := range chosen {
		fmt.Fprintf(log, "%s\n", s.title)
		done, err := b.play(ctx, o, s, players)
		if done != nil {
			r.Scenarios = append(r.Scenarios, done)
		}
		if err != nil {
			return r, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return r, nil
}

func contains(list, name string) bool {
	for _, one := range strings.Split(list, ",") {
		if one == name {
			return true
		}
	}
	return false
}

// write prints the tables, and writes the files that were asked for.
func (o options) write(r *report, stdout io.Writer) error {
	text := r.markdown()
	_, _ = io.WriteString(stdout, text)
	if o.markdown != "" {
		if err := os.WriteFile(o.markdown, []byte(text), 0o600); err != nil {
			return err
		}
	}
	if o.json != "" {
		raw, err := r.json()
		if err != nil {
			return err
		}
		return os.WriteFile(o.json, raw, 0o600)
	}
	return nil
}
