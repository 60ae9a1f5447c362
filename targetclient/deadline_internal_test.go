package targetclient

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/execgate/execgate/internal/patience"
)

// step is when a target writes what, after a request has come.
type step struct {
	after time.Duration
	text  string
}

// pausing answers each request of its one connection with the next script; what has none is not answered.
func pausing(scripts ...[]step) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		for _, script := range scripts {
			if !readRequest(c, 2) {
				return
			}
			for _, s := range script {
				<-time.After(s.after)
				_, _ = io.WriteString(c, s.text)
			}
		}
		untilGone(c)
	}
}

// A connection keeps the deadline of an earlier call. It is no call's but that one's.
func TestADeadlineThatAnEarlierCallHasLeft(t *testing.T) {
	t.Parallel()
	const (
		whole = ok200 + "Content-Length: 2\r\n\r\n{}"
		long  = 300 * time.Millisecond
	)
	for name, tt := range map[string]struct {
		script  []step
		timeout time.Duration
		idle    time.Duration // before the call
		fails   bool
	}{
		"passes before the answer comes":         {script: []step{{250 * time.Millisecond, whole}}, timeout: long, idle: 150 * time.Millisecond},
		"passes between two parts of the header": {script: []step{{0, whole[:20]}, {250 * time.Millisecond, whole[20:]}}, timeout: long, idle: 150 * time.Millisecond},
		"passes between header and body":         {script: []step{{0, whole[:len(whole)-1]}, {250 * time.Millisecond, "}"}}, timeout: long, idle: 150 * time.Millisecond},
		"has passed before the call":             {script: []step{{0, whole}}, timeout: long, idle: 2 * long},
		"is later than the call's":               {timeout: long / 3, fails: true},
		"is earlier than the call's":             {timeout: long, idle: 150 * time.Millisecond, fails: true},
		"is earlier, and the answer stops":       {script: []step{{0, whole[:20]}}, timeout: long, idle: 150 * time.Millisecond, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, conns := origin(t, pausing([]step{{0, whole}}, tt.script))
			c := newOwn(t)
			if _, err := c.Do(t.Context(), Call{Target: &Target{ID: "a", URL: url, Timeout: long}, Body: []byte("{}")}); err != nil {
				t.Fatal(err)
			}
			<-time.After(tt.idle)
			began := time.Now()
			res, err := c.Do(t.Context(), Call{Target: &Target{ID: "a", URL: url, Timeout: tt.timeout}, Body: []byte("{}")})
			took := time.Since(began)
			if conns.Load() != 1 {
				t.Errorf("%d connections", conns.Load())
			}
			if !tt.fails {
				if err != nil || string(res.Body) != "{}" {
					t.Errorf("%q, %v", res.Body, err)
				}
				return
			}
			failure, ok := err.(*Error)                                                    //nolint:errorlint // As Do says.
			if !ok || failure.Reason != ReasonTimeout || failure.Err != ErrTargetTimeout { //nolint:errorlint // The very one.
				t.Errorf("failed with %v", err)
			}
			if took < tt.timeout || took > tt.timeout+5*time.Second {
				t.Errorf("after %v, with a timeout of %v", took, tt.timeout)
			}
		})
	}
}

// A context of the gateway's own ends a call as any other does, without a timer of its own.
func TestContextsThatKeepTheirDeadlineByTheClock(t *testing.T) {
	t.Parallel()
	url, _ := origin(t, func(c *net.TCPConn) { untilGone(c) })
	target := &Target{ID: "a", URL: url, Timeout: time.Minute}
	for name, tt := range map[string]struct {
		end  func(c *patience.Context)
		want error
	}{
		"cancelled before":  {func(c *patience.Context) { c.Cancel() }, context.Canceled},
		"cancelled":         {func(c *patience.Context) { time.AfterFunc(50*time.Millisecond, c.Cancel) }, context.Canceled},
		"late before":       {func(c *patience.Context) { c.Limit(time.Now()) }, context.DeadlineExceeded},
		"its deadline ends": {func(c *patience.Context) { c.Limit(time.Now().Add(50 * time.Millisecond)) }, context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newOwn(t)
			var ctx patience.Context
			tt.end(&ctx)
			_, err := c.Do(&ctx, Call{Target: target, Body: []byte("{}")})
			failure, ok := err.(*Error)                                             //nolint:errorlint // As Do says.
			if !ok || failure.Reason != ReasonCancelled || failure.Err != tt.want { //nolint:errorlint // The very one.
				t.Errorf("failed with %v", err)
			}
		})
	}
}
