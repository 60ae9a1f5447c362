package h2_test

import (
	"encoding/xml"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/execgate/execgate/proxy/h2"
)

// h2spec builds the conformance suite, whose version tools/go.mod has.
func h2spec(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "h2spec")
	build := exec.CommandContext(t.Context(), "go", "build", "-C", "../../tools", "-o", bin, "github.com/summerwind/h2spec/cmd/h2spec")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build h2spec: %v\n%s", err, out)
	}
	return bin
}

// TestH2spec runs all of h2spec, strictly, against the relay and against handled streams.
func TestH2spec(t *testing.T) {
	t.Parallel()
	bin := h2spec(t)
	// h2spec's flow-control cases want a body of a few bytes, and others that the request is read before it is answered.
	web := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write([]byte("a few bytes\n"))
	})
	for _, c := range []struct {
		name         string
		tls, handled bool
	}{
		{"h2c, relayed", false, false},
		{"TLS, relayed", true, false},
		{"h2c, handled", false, true},
		{"TLS, handled", true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server, _ := testTLS(t)
			d := newDirector()
			if c.handled {
				d.decide = func(*h2.Head) h2.Action { return h2.Action{Handler: web} }
			}
			f := newFront(t, startWeb(t, nil, web), func(o *h2.Options) {
				o.Director = d
				if c.tls {
					o.TLS = server
				}
			})
			host, port, _ := net.SplitHostPort(f.address)
			report := filepath.Join(t.TempDir(), "report.xml")
			args := []string{"-h", host, "-p", port, "--strict", "-o", "5", "-j", report}
			if c.tls {
				args = append(args, "-t", "-k")
			}
			out, err := exec.CommandContext(t.Context(), bin, args...).CombinedOutput()
			if err != nil {
				t.Logf("h2spec: %v", err)
			}
			passed, failed := readReport(t, report)
			if failed > 0 || passed < 146 {
				t.Errorf("%d cases passed, %d failed\n%s", passed, failed, out)
			}
			t.Logf("%d cases passed", passed)
		})
	}
}

// readReport counts the cases of a JUnit report. What h2spec skips (it could not build the case) counts as neither.
func readReport(t *testing.T, file string) (passed, failed int) {
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
