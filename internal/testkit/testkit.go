package testkit

import (
	"bytes"
	"log/slog"
	"net"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

// Main runs the tests of a package and fails it when goroutines are left
// behind. Call it from TestMain.
func Main(m *testing.M, options ...goleak.Option) {
	// The gRPC-Web wrapper imports a timer that starts its goroutine in init.
	options = append(options, goleak.IgnoreTopFunction("github.com/desertbit/timer.timerRoutine"))
	goleak.VerifyTestMain(m, options...)
}

// Logger returns a logger whose lines appear in the log of the test, from debug
// level up. What comes after the end of the test is dropped.
func Logger(tb testing.TB) *slog.Logger {
	tb.Helper()
	w := &logWriter{tb: tb}
	tb.Cleanup(w.end)
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{
		Level: slog.LevelDebug,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))
}

// logWriter hands lines to a test as long as it runs: writing to the log of a
// test that is over panics.
type logWriter struct {
	mu   sync.Mutex // guards what follows
	tb   testing.TB
	over bool
}

// Write hands on one line.
func (w *logWriter) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.over {
		w.tb.Log(string(bytes.TrimRight(line, "\n")))
	}
	return len(line), nil
}

func (w *logWriter) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
}

// FreePort returns a loopback port that nobody listened on a moment ago. Where
// a server can be told to take port 0, that is better: nothing keeps another
// process from taking the port first.
func FreePort(tb testing.TB) string {
	tb.Helper()
	_, port, _ := net.SplitHostPort(FreeAddr(tb))
	return port
}

// FreeAddr returns a loopback address with a free port; see FreePort.
func FreeAddr(tb testing.TB) string {
	tb.Helper()
	ln, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("find a free port: %v", err)
	}
	defer ln.Close()
	return ln.Addr().String()
}
