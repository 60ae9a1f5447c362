//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// report is all that was measured; the JSON file has it as it is.
type report struct {
	Machine   string            `json:"machine"`
	Versions  map[string]string `json:"versions"`
	Rounds    int               `json:"rounds"`
	Duration  string            `json:"duration"`
	Workers   int               `json:"workers"`
	Threads   int               `json:"threads"`
	Scenarios []*played         `json:"scenarios"`
}

// played is one scenario.
type played struct {
	Name       string    `json:"name"`
	Title      string    `json:"title"`
	Contenders []*result `json:"contenders"`
}

// result is one contender in one scenario.
type result struct {
	Name   string        `json:"name"`
	Offer  string        `json:"offer,omitempty"`
	Rounds []measurement `json:"rounds"`
	Peak   int           `json:"peak_bytes"`
}

// measurement is one contender in one round. CPU is in microseconds per call.
type measurement struct {
	measured
	Rate        float64 `json:"calls_per_second"`
	Offered     float64 `json:"offered,omitempty"`
	CPU         float64 `json:"cpu_us"`
	UpstreamCPU float64 `json:"upstream_cpu_us"`
	LoadCPU     float64 `json:"load_cpu_us"`
	PerConn     float64 `json:"bytes_per_connection,omitempty"`
}

func (r *result) peak(t team) {
	if t.process != nil {
		r.Peak = max(r.Peak, t.memory("VmHWM"))
	}
}

func (r *result) median(of func(measurement) float64) float64 {
	v := make([]float64, 0, len(r.Rounds))
	for _, m := range r.Rounds {
		if m.Calls > 0 {
			v = append(v, of(m))
		}
	}
	return median(v)
}

func (r *result) rate() float64 { return r.median(func(m measurement) float64 { return m.Rate }) }
func (r *result) cpu() float64  { return r.median(func(m measurement) float64 { return m.CPU }) }
func (r *result) p50() float64 {
	return r.median(func(m measurement) float64 { return float64(m.P50) })
}
func (r *result) p99() float64 {
	return r.median(func(m measurement) float64 { return float64(m.P99) })
}

// spread is half of what lies between the lowest and the highest rate, in per cent of the median.
func (r *result) spread() float64 {
	lowest, highest := r.Rounds[0].Rate, r.Rounds[0].Rate
	for _, m := range r.Rounds {
		lowest, highest = min(lowest, m.Rate), max(highest, m.Rate)
	}
	return 50 * (highest - lowest) / max(r.rate(), 1)
}

func (r *result) failed() (n int, why string) {
	for _, m := range r.Rounds {
		n += m.Failed
		if m.Failure != "" {
			why = m.Failure
			n = max(n, 1)
		}
	}
	return n, why
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Clone(v)
	slices.Sort(v)
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

func (r *report) json() ([]byte, error) {
	raw, err := json.MarshalIndent(r, "", " ")
	return append(raw, '\n'), err
}

// markdown is a table for each scenario.
func (r *report) markdown() string {
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s. %d rounds of %s, medians; %d workers, %d thread(s) of load and of upstream, nothing pinned.\n", r.Machine, r.Rounds, r.Duration, r.Workers, r.Threads)
	names := make([]string, 0, len(r.Versions))
	for name := range r.Versions {
		names = append(names, name)
	}
	slices.Sort(names)
	for i, name := range names {
		names[i] = name + " " + r.Versions[name]
	}
	fmt.Fprintf(&out, "%s.\n", strings.Join(names, ", "))
	for _, p := range r.Scenarios {
		p.table(&out)
	}
	return out.String()
}

func (p *played) find(name, offer string) *result {
	for _, c := range p.Contenders {
		if c.Name == name && c.Offer == offer && len(c.Rounds) > 0 {
			return c
		}
	}
	return nil
}

func (p *played) table(out *bytes.Buffer) {
	if len(p.Contenders) == 0 || len(p.Contenders[0].Rounds) == 0 {
		return
	}
	fmt.Fprintf(out, "\n### %s: %s\n\n", p.Name, p.Title)
	var header []string
	var row func(c *result) []string
	switch {
	case p.Contenders[0].Rounds[0].PerConn != 0:
		header = []string{"", "KiB per connection", "x nginx", "lowest", "highest", "peak MiB"}
		row = p.idleRow
	case p.Contenders[0].Offer != "":
		header = []string{"", "offered", "offered/s", "answered/s", "p50", "p99", "CPU us/call", "x nginx", "not sent", "peak MiB"}
		row = p.openRow
	default:
		header = []string{"", "calls/s", "+-", "x direct", "x nginx", "p50", "p99", "CPU us/call", "x nginx", "peak MiB", "others us/call"}
		row = p.row
	}
	fmt.Fprintf(out, "| %s |\n|---|%s\n", strings.Join(header, " | "), strings.Repeat("---:|", len(header)-1))
	var notes []string
	for _, c := range p.Contenders {
		if len(c.Rounds) == 0 {
			continue
		}
		fmt.Fprintf(out, "| %s |\n", strings.Join(row(c), " | "))
		if n, why := c.failed(); n > 0 {
			notes = append(notes, fmt.Sprintf("%s: %d calls failed: %s", c.Name, n, why))
		}
	}
	for _, note := range notes {
		fmt.Fprintf(out, "\n**%s**\n", note)
	}
}

func (p *played) row(c *result) []string {
	row := []string{
		c.Name, fmt.Sprintf("%.0f", c.rate()), fmt.Sprintf("%.0f %%", c.spread()),
		times(c, p.find("direct", ""), (*result).rate), times(c, p.find("nginx", ""), (*result).rate),
		short(c.p50()), short(c.p99()),
	}
	others := fmt.Sprintf("%.2f", c.median(func(m measurement) float64 { return m.LoadCPU + m.UpstreamCPU }))
	if c.Peak == 0 { // No process of its own.
		return append(row, "", "", "", others)
	}
	return append(row, fmt.Sprintf("%.2f", c.cpu()), times(c, p.find("nginx", ""), (*result).cpu), mib(c.Peak), others)
}

func (p *played) openRow(c *result) []string {
	row := []string{
		c.Name, c.Offer, fmt.Sprintf("%.0f", c.median(func(m measurement) float64 { return m.Offered })), fmt.Sprintf("%.0f", c.rate()),
		short(c.p50()), short(c.p99()),
	}
	unsent := fmt.Sprintf("%.0f", c.median(func(m measurement) float64 { return float64(m.Unsent) }))
	if c.Peak == 0 {
		return append(row, "", "", unsent, "")
	}
	return append(row, fmt.Sprintf("%.2f", c.cpu()), times(c, p.find("nginx", c.Offer), (*result).cpu), unsent, mib(c.Peak))
}

func (p *played) idleRow(c *result) []string {
	of := func(m measurement) float64 { return m.PerConn / 1024 }
	lowest, highest := of(c.Rounds[0]), of(c.Rounds[0])
	for _, m := range c.Rounds {
		lowest, highest = min(lowest, of(m)), max(highest, of(m))
	}
	value := func(r *result) float64 { return r.median(of) }
	return []string{
		c.Name, fmt.Sprintf("%.1f", value(c)), times(c, p.find("nginx", ""), value),
		fmt.Sprintf("%.1f", lowest), fmt.Sprintf("%.1f", highest), mib(c.Peak),
	}
}

// times is how many times base's value c's is.
func times(c, base *result, value func(*result) float64) string {
	if base == nil || value(base) == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", value(c)/value(base))
}

func short(ns float64) string {
	switch d := time.Duration(ns); {
	case d < time.Millisecond:
		return fmt.Sprintf("%d us", d.Microseconds())
	case d < time.Second:
		return fmt.Sprintf("%.2f ms", ns/1e6)
	default:
		return fmt.Sprintf("%.2f s", ns/1e9)
	}
}

func mib(n int) string { return fmt.Sprintf("%.0f", float64(n)/(1<<20)) }

// machine says what this ran on.
func machine() string {
	model := runtime.GOARCH
	if f, err := os.Open("/proc/cpuinfo"); err == nil {
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if v, ok := strings.CutPrefix(lines.Text(), "model name"); ok {
				model = strings.TrimLeft(v, "\t :")
				break
			}
		}
	}
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	kernel, _, _ := strings.Cut(strings.TrimSpace(string(release)), "-")
	return fmt.Sprintf("%d cores of %s, Linux %s, %s", runtime.NumCPU(), model, kernel, runtime.Version())
}

// versions asks the peers and the gateway what they are.
func (b *bench) versions(ctx context.Context, players []contender) map[string]string {
	versions := map[string]string{"execgate": b.version}
	for _, c := range players {
		if c.command == "" {
			continue
		}
		command, err := find(c.command)
		if err != nil {
			continue
		}
		args := []string{"-v"}
		if c.command == "nghttpx" {
			args = []string{"--version"}
		}
		out, _ := exec.CommandContext(ctx, command, args...).CombinedOutput() //nolint:gosec // G204: our own commands.
		for _, word := range strings.FieldsFunc(string(out), func(r rune) bool { return strings.ContainsRune(" \n/-", r) }) {
			if word[0] >= '0' && word[0] <= '9' {
				versions[c.name] = word
				break
			}
		}
	}
	return versions
}
