//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMain is the upstream where the test has started it as one.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "upstream" {
		serveUpstream(os.Args[2])
	}
	os.Exit(m.Run())
}

// One short round of everything that needs no peers: the program must not rot.
func TestRunsWithoutPeers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	// As the other tests build it, so that what they have built can be used.
	binary := filepath.Join(dir, "execgate")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", binary, "../cmd/execgate").CombinedOutput(); err != nil {
		t.Fatalf("build the gateway: %v\n%s", err, out)
	}
	file := filepath.Join(dir, "bench.json")
	args := []string{
		"-scenario", "unary-4x16,rest-64,1m-4x2,stream,tls-4x16,webhook,rewrite", "-only", "direct,execgate,execgate-nethttp",
		"-rounds", "1", "-duration", "200ms", "-warmup", "10ms", "-json", file, "-gateway", binary,
	}
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), args, &stdout, &stderr); code != 0 {
		t.Fatalf("exit code %d\n%s%s", code, stdout.String(), stderr.String())
	}
	var r report
	raw, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(raw, &r)
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Scenarios) != 7 {
		t.Fatalf("%d scenarios", len(r.Scenarios))
	}
	for _, p := range r.Scenarios {
		engines := 0
		for _, c := range p.Contenders {
			m := c.Rounds[0]
			if m.Calls == 0 || m.Failed != 0 || m.Failure != "" || m.Rate <= 0 || m.P50 <= 0 || m.P99 < m.P50 {
				t.Errorf("%s, %s: %+v", p.Name, c.Name, m)
			}
			if strings.HasPrefix(c.Name, "execgate") {
				engines++
				if m.CPU <= 0 || c.Peak < 1<<20 {
					t.Errorf("%s, %s: CPU %v, peak memory %v", p.Name, c.Name, m.CPU, c.Peak)
				}
			}
		}
		if engines != 2 {
			t.Errorf("%s was measured on %d of the gateway's engines", p.Name, engines)
		}
		if want := "\n### " + p.Name + ": "; !strings.Contains(stdout.String(), want) {
			t.Errorf("no table of %s in\n%s", p.Name, stdout.String())
		}
	}
}

func TestQuantilesOfAHistogram(t *testing.T) {
	t.Parallel()
	var h histogram
	for i := 1; i <= 1000; i++ {
		h.add(time.Duration(i) * time.Microsecond)
	}
	for q, want := range map[float64]time.Duration{0.5: 500 * time.Microsecond, 0.99: 990 * time.Microsecond} {
		if got := h.quantile(q); got < want || got > want*103/100 {
			t.Errorf("quantile %v is %v, want %v or a little more", q, got, want)
		}
	}
}

// The load generator takes a header block for granted if it was read before. It may only if it left the table alone.
func TestWhichHeaderBlocksChangeTheTable(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("v", 300)
	for name, c := range map[string]struct {
		block []byte
		want  bool
	}{
		"indices":                   {[]byte{0x88, 0xff, 0x05, 0xbe}, false},
		"a literal":                 {literal(0, 31, "application/grpc"), false},
		"a literal with its name":   {append(literalNamed(0, "grpc-status", "0"), 0x88), false},
		"never indexed":             {literalNamed(0x10, "authorization", "x"), false},
		"an index after a long one": {append(append([]byte{0x04, 0x7f, 0xad, 0x01}, long...), 0x41, 0x01, 'x'), true},
		"incremental":               {literal(0x40, 31, "application/grpc"), true},
		"incremental with name":     {append([]byte{0x88}, literalNamed(0x40, "grpc-status", "0")...), true},
		"a new size":                {[]byte{0x3f, 0x01}, true},
	} {
		if got := changesTable(c.block); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestMessagesHaveTheSizesTheirScenariosSay(t *testing.T) {
	t.Parallel()
	if n := len(newUserMessage()); n != 200 {
		t.Errorf("the small message has %d bytes", n)
	}
	if n := len(restBody); n != 200 {
		t.Errorf("the REST answer has %d bytes", n)
	}
	for _, n := range []int{0, 1, 2, 3, 127, 128, 129, 130, 131, 200, 16 << 10, 1 << 20} {
		if got := len(filler(n)); got != n {
			t.Errorf("a filler of %d bytes has %d", n, got)
		}
	}
}
