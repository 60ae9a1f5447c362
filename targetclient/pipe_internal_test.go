package targetclient

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipeListener hands connections over in memory, so that a bubble's clock can
// run while a call waits.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// bubble runs f with a client whose calls all reach h, on a clock that jumps.
func bubble(t *testing.T, o Options, h http.HandlerFunc, f func(t *testing.T, c *Client)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
		s := &http.Server{Handler: h}
		var wg sync.WaitGroup
		wg.Go(func() { _ = s.Serve(l) })
		c, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		c.use(l.dial, nil)
		f(t, c)
		c.Close()
		_ = s.Close()
		wg.Wait()
	})
}

func TestNothingButTheTargetsTimeoutEndsASlowCall(t *testing.T) {
	t.Parallel()
	h := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		for range 2 { // half in the header, half in the body
			select {
			case <-time.After(130 * time.Second):
			case <-r.Context().Done():
				return
			}
			_, _ = io.WriteString(w, "{}")
			w.(http.Flusher).Flush()
		}
	}
	bubble(t, Options{}, h, func(t *testing.T, c *Client) {
		t.Helper()
		res, err := c.Do(t.Context(), Call{Target: &Target{ID: "a", URL: "http://a", Timeout: 270 * time.Second}, Body: []byte("{}")})
		if err != nil || string(res.Body) != "{}{}" || res.Duration != 260*time.Second {
			t.Errorf("270 s: %q after %v, %v", res.Body, res.Duration, err)
		}
		for name, tt := range map[string]struct{ timeout, want time.Duration }{
			"exact": {250 * time.Second, 250 * time.Second}, "default": {0, 10 * time.Second},
		} {
			res, err := c.Do(t.Context(), Call{Target: &Target{ID: "a", URL: "http://a", Timeout: tt.timeout}, Body: []byte("{}")})
			if !errors.Is(err, ErrTargetTimeout) || res.Duration != tt.want {
				t.Errorf("%s: %v after %v", name, err, res.Duration)
			}
		}
	})
}

func TestBreakerOfATarget(t *testing.T) {
	t.Parallel()
	var mode string // read by the handler only while Do waits for it
	var calls int
	h := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		calls++
		switch mode {
		case "500":
			w.WriteHeader(500)
		case "404":
			w.WriteHeader(404)
		case "302":
			w.WriteHeader(302)
		case "forward":
			_, _ = io.WriteString(w, `{"forwardedStatusCode":403}`)
		case "precondition":
			_, _ = io.WriteString(w, `{"forwardedErrorMessage":"no"}`)
		case "hang":
			<-r.Context().Done()
		case "cut":
			panic(http.ErrAbortHandler)
		}
	}
	type told struct {
		id, name string
		state    BreakerState
	}
	var changes []told
	o := Options{OnBreakerChange: func(id, name string, s BreakerState) { changes = append(changes, told{id, name, s}) }}
	bubble(t, o, h, func(t *testing.T, c *Client) {
		t.Helper()
		call := func(ctx context.Context, m string, tgt *Target) Reason {
			mode = m
			_, err := c.Do(ctx, Call{Target: tgt, Body: []byte("{}")})
			synctest.Wait()
			var e *Error
			if errors.As(err, &e) {
				return e.Reason
			}
			return 0
		}
		for m, want := range map[string]struct {
			reason Reason
			opens  bool
		}{
			"500": {ReasonFailed, true}, "cut": {ReasonTransport, true}, "hang": {ReasonTimeout, true},
			"404": {ReasonFailed, false}, "302": {ReasonFailed, false}, "forward": {ReasonForwarded, false},
			"precondition": {ReasonPrecondition, false}, "ok": {0, false},
		} {
			tgt := &Target{ID: m, Name: "name of " + m, URL: "http://" + m, Timeout: time.Second}
			for range 30 {
				if got := call(t.Context(), m, tgt); got != want.reason && !(want.opens && got == ReasonBreakerOpen) {
					t.Errorf("%s: %v", m, got)
				}
			}
			if got := c.BreakerState(m); (got == BreakerOpen) != want.opens {
				t.Errorf("%s: %v", m, got)
			}
		}

		// Whoever gives up says nothing; the chain's end is the target's fault.
		patient := &Target{ID: "patient", URL: "http://patient", Timeout: time.Minute}
		for range 30 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if got := call(ctx, "hang", patient); got != ReasonCancelled {
				t.Errorf("caller's deadline: %v", got)
			}
			cancel()
		}
		if got := c.BreakerState("patient"); got != BreakerClosed {
			t.Errorf("after callers gave up: %v", got)
		}
		for range 10 {
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, ErrChainTimeout)
			if got := call(ctx, "hang", patient); got != ReasonTimeout {
				t.Errorf("chain's end: %v", got)
			}
			cancel()
		}
		if got := c.BreakerState("patient"); got != BreakerOpen {
			t.Errorf("after ends of the chain: %v", got)
		}

		// An open breaker makes no call; a probe that the caller gives up does
		// not wedge it; three answers close it.
		before := calls
		if got := call(t.Context(), "ok", patient); got != ReasonBreakerOpen || calls != before {
			t.Errorf("open: %v, %d calls", got, calls-before)
		}
		time.Sleep(11 * time.Second)
		changes = nil
		for range 5 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if got := call(ctx, "hang", patient); got != ReasonCancelled {
				t.Errorf("probe given up: %v", got)
			}
			cancel()
		}
		for range 3 {
			if got := call(t.Context(), "forward", patient); got != ReasonForwarded {
				t.Errorf("probe: %v", got)
			}
		}
		if len(changes) != 2 || changes[0].state != BreakerHalfOpen || changes[1] != (told{"patient", "", BreakerClosed}) {
			t.Errorf("changes %v", changes)
		}
	})
}

func TestSettingsReplaceTheBreakerNothingElseDoes(t *testing.T) {
	t.Parallel()
	failing := true
	h := func(w http.ResponseWriter, _ *http.Request) {
		if failing {
			w.WriteHeader(500)
		}
	}
	var told []BreakerState
	o := Options{OnBreakerChange: func(_, _ string, s BreakerState) { told = append(told, s) }}
	bubble(t, o, h, func(t *testing.T, c *Client) {
		t.Helper()
		do := func(tgt Target) Reason {
			_, err := c.Do(t.Context(), Call{Target: &tgt})
			var e *Error
			if errors.As(err, &e) {
				return e.Reason
			}
			return 0
		}
		base := Target{ID: "a", Name: "first", URL: "http://a", Timeout: time.Second}
		for range 10 {
			do(base)
		}
		same := base
		same.Name, same.Kind, same.InterruptOnError, same.SigningKeys, same.MaxConcurrency = "second", KindAsync, true, []string{"k"}, 5
		same.Breaker = &BreakerSettings{MinCalls: 20}
		if got := do(same); got != ReasonBreakerOpen {
			t.Errorf("same settings: %v, want an open breaker still", got)
		}
		for name, change := range map[string]func(*Target){
			"url":      func(t *Target) { t.URL = "http://b" },
			"timeout":  func(t *Target) { t.Timeout = 2 * time.Second },
			"hosts":    func(t *Target) { t.AllowedHosts = []string{"a"} },
			"settings": func(t *Target) { t.Breaker = &BreakerSettings{OpenFor: time.Second} },
		} {
			changed := base
			change(&changed)
			if got := do(changed); got != ReasonFailed || c.BreakerState("a") != BreakerClosed {
				t.Errorf("%s: %v, %v; want a new breaker", name, got, c.BreakerState("a"))
			}
		}
		if len(told) == 0 || told[0] != BreakerOpen || told[1] != BreakerClosed {
			t.Errorf("told %v", told)
		}

		// Calls that still run with the old value and calls with the new one
		// take turns, and neither starts afresh each time.
		before, after := Target{ID: "turns", URL: "http://old"}, Target{ID: "turns", URL: "http://new"}
		for range 10 {
			do(before)
			do(after)
		}
		if do(before) != ReasonBreakerOpen || do(after) != ReasonBreakerOpen {
			t.Error("a breaker was replaced at every turn")
		}

		// A target that is gone and comes back is a new one.
		c.Retain(map[string]struct{}{"a": {}})
		if got := c.BreakerState("turns"); got != BreakerClosed {
			t.Errorf("gone: %v", got)
		}
		failing = false
		if got := do(before); got != 0 {
			t.Errorf("back: %v", got)
		}
	})
}

func TestAConnectionThatTakesTooLongIsATimeout(t *testing.T) {
	t.Parallel()
	c, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.use(func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "too slow", Name: "a", IsTimeout: true}}
	}, nil)
	_, err = c.Do(t.Context(), Call{Target: &Target{ID: "a", URL: "http://a"}})
	var e *Error
	if !errors.As(err, &e) || e.Reason != ReasonTimeout || errors.Is(err, ErrTargetTimeout) {
		t.Errorf("%v", err)
	}
	var dns *net.DNSError
	if !errors.As(err, &dns) {
		t.Error("the cause is lost")
	}
}
