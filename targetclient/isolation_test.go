package targetclient_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/execgate/execgate/targetclient"
)

func TestSlowAndDeadTargetsDoNotHarmAFastOne(t *testing.T) {
	t.Parallel()
	slow := serve(t, hang(t))
	fast := serve(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	// Nobody accepts but the kernel: the TLS handshake hangs.
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dead.Close() })
	c := newClient(t, targetclient.Options{})

	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range 200 {
		u := slow.URL
		if i%2 == 0 {
			u = "https://" + dead.Addr().String()
		}
		wg.Go(func() {
			tgt := &targetclient.Target{ID: u, URL: u, Timeout: time.Minute}
			if _, err := c.Do(ctx, targetclient.Call{Target: tgt, Body: []byte("{}")}); err == nil {
				t.Errorf("%s answered", u)
			}
		})
	}
	tgt := &targetclient.Target{ID: "fast", URL: fast.URL, Timeout: 5 * time.Second}
	var fastCalls sync.WaitGroup
	for range 4 {
		fastCalls.Go(func() {
			for range 50 {
				if _, err := c.Do(t.Context(), targetclient.Call{Target: tgt, Body: []byte("{}")}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	fastCalls.Wait()
	cancel()
	wg.Wait()
	if s := c.BreakerState("fast"); s != targetclient.BreakerClosed {
		t.Errorf("breaker %v", s)
	}
}

func TestOverTheConcurrencyCapFailsAtOnce(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ options, target, cap int }{
		"the target's cap":   {options: 1, target: 3, cap: 3},
		"the client's cap":   {options: 3, cap: 3},
		"none, by default":   {cap: 0},
		"only another's cap": {target: 0, cap: 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			arrived, release := make(chan struct{}, 100), make(chan struct{})
			s := serve(t, func(http.ResponseWriter, *http.Request) {
				arrived <- struct{}{}
				<-release
			})
			c := newClient(t, targetclient.Options{MaxConcurrency: tt.options})
			tgt := target(s.URL)
			tgt.MaxConcurrency = tt.target
			running := tt.cap
			if running == 0 {
				running = 20
			}
			var wg sync.WaitGroup
			for range running {
				wg.Go(func() {
					if _, err := c.Do(t.Context(), targetclient.Call{Target: tgt}); err != nil {
						t.Error(err)
					}
				})
			}
			for range running {
				<-arrived
			}
			if tt.cap > 0 {
				for range 30 {
					_, err := do(t, c, tgt, "")
					wantReason(t, err, targetclient.ReasonOverConcurrency)
				}
				if s := c.BreakerState(tgt.ID); s != targetclient.BreakerClosed {
					t.Errorf("breaker %v: what was refused counts", s)
				}
			}
			close(release)
			wg.Wait()
			if _, err := do(t, c, tgt, ""); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

func TestTheCapIsExact(t *testing.T) {
	t.Parallel()
	var running, most atomic.Int64
	s := serve(t, func(http.ResponseWriter, *http.Request) {
		n := running.Add(1)
		defer running.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
	})
	c := newClient(t, targetclient.Options{MaxConcurrency: 2})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				_, err := c.Do(t.Context(), targetclient.Call{Target: target(s.URL)})
				var e *targetclient.Error
				if err != nil && (!errors.As(err, &e) || e.Reason != targetclient.ReasonOverConcurrency) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if most.Load() > 2 {
		t.Errorf("%d calls at once", most.Load())
	}
}

func TestDeniedAddressesOpenTheBreaker(t *testing.T) {
	t.Parallel()
	c := newClient(t, targetclient.Options{DenyList: []string{"127.0.0.1"}})
	tgt := target("http://127.0.0.1:1")
	for range 10 {
		_, err := do(t, c, tgt, "")
		wantReason(t, err, targetclient.ReasonDeniedAddress)
	}
	_, err := do(t, c, tgt, "")
	wantReason(t, err, targetclient.ReasonBreakerOpen)
}

func TestTheEnvironmentsProxyIsNotUsed(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Host) })
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	c := newClient(t, targetclient.Options{Resolver: dns(t, func(string) []string { return []string{"127.0.0.1"} })})
	// The name matters: a proxy is never used for localhost.
	res, err := do(t, c, target("http://target.example:"+port), "{}")
	if err != nil || string(res.Body) != "target.example:"+port {
		t.Errorf("%q, %v", res.Body, err)
	}
}

func TestManyCallersShareAClientWhileTargetsChange(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/bad" {
			w.WriteHeader(500)
		}
		_, _ = io.Copy(w, r.Body)
	})
	c := newClient(t, targetclient.Options{OnBreakerChange: func(string, string, targetclient.BreakerState) {}})
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for i := range 100 {
				tgt := target(s.URL)
				tgt.ID = fmt.Sprint(i % 3)
				tgt.Timeout += time.Duration(i % 2)
				if i%5 == 0 {
					tgt.URL += "/bad"
				}
				body := fmt.Sprintf(`{"worker":%d,"call":%d}`, worker, i)
				res, err := c.Do(t.Context(), targetclient.Call{Target: tgt, Body: []byte(body)})
				var e *targetclient.Error
				if err == nil && string(res.Body) != body {
					t.Errorf("got the answer %s for %s", res.Body, body)
				} else if err != nil && !errors.As(err, &e) {
					t.Errorf("error %T", err)
				}
				_ = c.BreakerState(tgt.ID)
				if i%10 == 0 {
					c.Retain(map[string]struct{}{"1": {}})
				}
			}
		})
	}
	wg.Wait()
}
