package testkit

import (
	"encoding/xml"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// H2specCases is how many cases h2spec has.
const H2specCases = 146

// BuildH2spec builds the conformance suite of HTTP/2, whose version tools/go.mod has, for the time of the test, and
// returns the program's path.
func BuildH2spec(t *testing.T) string {
	t.Helper()
	root, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		t.Fatalf("find the module: %v", err)
	}
	bin, tools := filepath.Join(t.TempDir(), "h2spec"), filepath.Join(strings.TrimSpace(string(root)), "tools")
	build := exec.CommandContext(t.Context(), "go", "build", "-C", tools, "-o", bin, "github.com/summerwind/h2spec/cmd/h2spec")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build h2spec: %v\n%s", err, out)
	}
	return bin
}

// RunH2spec runs all cases of the h2spec at bin, strictly, against a server of HTTP/2 at address, over TLS with any certificate or
// without TLS. Every case must pass. The server answers GET and POST of / with a body of a few bytes, which h2spec's
// flow-control cases need, and reads the request before it answers.
func RunH2spec(t *testing.T, bin, address string, useTLS bool) {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	report := filepath.Join(t.TempDir(), "report.xml")
	args := []string{"-h", host, "-p", port, "--strict", "-o", "5", "-j", report}
	if useTLS {
		args = append(args, "-t", "-k")
	}
	out, err := exec.CommandContext(t.Context(), bin, args...).CombinedOutput()
	if err != nil {
		t.Logf("h2spec: %v", err)
	}
	passed, failed := readH2specReport(t, report)
	if failed > 0 || passed < H2specCases {
		t.Errorf("%d cases passed, %d failed\n%s", passed, failed, out)
	}
	t.Logf("%d cases passed", passed)
}

// readH2specReport counts the cases of a JUnit report. What h2spec skips (it could not build the case) counts as neither.
func readH2specReport(t *testing.T, file string) (passed, failed int) {
	t.Helper()
	var report struct {
		Suites []struct {
			Cases []struct {
				Name    string    `xml:"classname,attr"`
				Failure *struct{} `xml:"failure"`
				Error   *struct{} `xml:"error"`
				Skipped *struct{} `xml:"skipped"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := xml.Unmarshal(b, &report); err != nil {
		t.Fatal(err)
	}
	for _, s := range report.Suites {
		for _, c := range s.Cases {
			switch {
			case c.Failure != nil || c.Error != nil:
				failed++
				t.Logf("failed: %s", c.Name)
			case c.Skipped == nil:
				passed++
			default:
				t.Logf("skipped: %s", c.Name)
			}
		}
	}
	return passed, failed
}
