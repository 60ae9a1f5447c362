package demo_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/execgate/execgate/internal/demo"
	"github.com/execgate/execgate/internal/metrics"
	"github.com/execgate/execgate/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// transcript is what a demo prints. Waiters are told when a text has appeared.
type transcript struct {
	mu   sync.Mutex
	text strings.Builder
	more *sync.Cond
}

func newTranscript() *transcript {
	tr := &transcript{}
	tr.more = sync.NewCond(&tr.mu)
	return tr
}

// Write appends.
func (tr *transcript) Write(b []byte) (int, error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	defer tr.more.Broadcast()
	return tr.text.Write(b)
}

// String returns everything so far.
func (tr *transcript) String() string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.text.String()
}

// await returns the first match once there is one, and "" when over is closed
// before.
func (tr *transcript) await(pattern string, over <-chan struct{}) string {
	re := regexp.MustCompile(pattern)
	ended := false
	go func() {
		<-over
		tr.mu.Lock()
		defer tr.mu.Unlock()
		ended = true
		tr.more.Broadcast()
	}()
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for {
		if found := re.FindStringSubmatch(tr.text.String()); found != nil {
			return found[len(found)-1]
		}
		if ended {
			return ""
		}
		tr.more.Wait()
	}
}

func TestEveryStepDoesWhatItSays(t *testing.T) {
	t.Parallel()
	out := newTranscript()
	err := demo.Run(t.Context(), demo.Options{
		Once: true, Ephemeral: true, Out: out,
		Start: demo.StartGateway(metrics.Build{Version: "test"}),
	})
	t.Log(out.String())
	if err != nil {
		t.Error(err)
	}
	if strings.Contains(out.String(), "\x1b") {
		t.Error("colours although the output is no terminal")
	}
}

func TestItStaysUpAndShowsWhatTheTargetsGet(t *testing.T) {
	t.Parallel()
	// The limit ends a demo that never shows what is waited for.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out := newTranscript()
	over := make(chan struct{})
	var runErr error
	go func() {
		defer close(over)
		runErr = demo.Run(ctx, demo.Options{
			Ephemeral: true, Out: out,
			Start: demo.StartGateway(metrics.Build{Version: "test"}),
		})
	}()
	if out.await(`tail -f (\S+)`, over) == "" {
		t.Fatalf("the demo ended: %v\n%s", runErr, out)
	}
	// The printed command for REST, sent as it stands.
	command := regexp.MustCompile(`curl (http://\S+/v2/users/human) -d '([^']+)'\n   # a call that is refused`).FindStringSubmatch(out.String())
	if command == nil {
		t.Fatalf("no command to copy:\n%s", out)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, command[1], strings.NewReader(command[2]))
	if err != nil {
		t.Fatal(err)
	}
	// curl -d says this, whatever the body is.
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	answer, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("%d %s", resp.StatusCode, answer)
	}
	if out.await(`#\d+ (POST /stamp)`, over) == "" {
		t.Error("the delivery is not shown")
	}
	cancel()
	<-over
	if runErr != nil {
		t.Error(runErr)
	}
}

func TestAGatewayThatDoesNotStart(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	err := demo.Run(t.Context(), demo.Options{
		Once: true, Ephemeral: true, Out: io.Discard,
		Start: func(context.Context, demo.Settings) (demo.Gateway, error) { return nil, broken },
	})
	if !errors.Is(err, broken) {
		t.Errorf("error is %v", err)
	}
}

// nothing is a gateway that forwards every call as it is and has neither
// metrics nor an admin API: the identity API itself.
type nothing struct{ addr string }

// ProxyAddr is where the identity API is.
func (n nothing) ProxyAddr() string { return n.addr }

// AdminAddr is where the identity API is.
func (n nothing) AdminAddr() string { return n.addr }

// OpsAddr is where the identity API is.
func (n nothing) OpsAddr() string { return n.addr }

// Stop does nothing.
func (n nothing) Stop(context.Context) error { return nil }

func TestAGatewayThatDoesNothingFailsTheTour(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	out := newTranscript()
	err := demo.Run(ctx, demo.Options{
		Once: true, Ephemeral: true, Out: out,
		Start: func(_ context.Context, s demo.Settings) (demo.Gateway, error) {
			cancel() // nobody waits for it to become ready
			return nothing{strings.TrimPrefix(s.UpstreamURL, "http://")}, nil
		},
	})
	if err == nil {
		t.Errorf("the tour succeeded:\n%s", out)
	}
}
