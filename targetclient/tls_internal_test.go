package targetclient

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// secured is a TLS target that may speak HTTP/2, its connections counted.
func secured(t *testing.T, http2 bool, h http.HandlerFunc) (s *httptest.Server, conns *atomic.Int64) {
	t.Helper()
	conns = &atomic.Int64{}
	s = httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = http2
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Config.ConnState = func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			conns.Add(1)
		}
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s, conns
}

func trusting(t *testing.T, s *httptest.Server) *Client {
	t.Helper()
	transport, _ := s.Client().Transport.(*http.Transport)
	c, err := New(Options{TLSConfig: &tls.Config{RootCAs: transport.TLSClientConfig.RootCAs, ServerName: "example.com", MinVersion: tls.VersionTLS12}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestTheHostChoosesTheProtocol(t *testing.T) {
	t.Parallel()
	for name, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, conns := secured(t, http2, func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				_, _ = io.WriteString(w, r.Proto+" "+string(body))
			})
			c := trusting(t, s)
			target := &Target{ID: "a", URL: s.URL}
			for _, body := range []string{"{}", strings.Repeat("x", 50_000), strings.Repeat("x", 500_000), "{}"} {
				res, err := c.Do(t.Context(), Call{Target: target, Body: []byte(body)})
				if err != nil || string(res.Body) != name+" "+body {
					t.Errorf("%.30q, %v", res.Body, err)
				}
			}
			if conns.Load() != 1 {
				t.Errorf("%d connections", conns.Load())
			}
			if len(c.transport.hand.conns) != 0 {
				t.Error("a connection is left between the two clients")
			}
		})
	}
}

// Many first calls at once may make a connection each; none is lost.
func TestManyFirstCallsToAnHTTP2Host(t *testing.T) {
	t.Parallel()
	s, _ := secured(t, true, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	c := trusting(t, s)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			res, err := c.Do(t.Context(), Call{Target: &Target{ID: "a", URL: s.URL}, Body: []byte("{}")})
			if err != nil || string(res.Body) != "{}" {
				t.Errorf("%q, %v", res.Body, err)
			}
		})
	}
	wg.Wait()
	if len(c.transport.hand.conns) != 0 {
		t.Error("a connection is left between the two clients")
	}
}

// A host that no longer speaks HTTP/2, or speaks it from now on, is understood.
func TestAHostChangesItsMind(t *testing.T) {
	t.Parallel()
	answer := func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }
	one, _ := secured(t, false, answer)
	two, _ := secured(t, true, answer)
	c := trusting(t, one)
	now := one.Listener.Addr().String()
	dial := c.transport.dial
	c.use(func(ctx context.Context, network, _ string) (net.Conn, error) { return dial(ctx, network, now) }, c.transport.tls)
	for _, step := range []struct {
		host *httptest.Server
		want string
	}{{one, "HTTP/1.1"}, {two, "HTTP/2.0"}, {one, "HTTP/1.1"}, {two, "HTTP/2.0"}} {
		now = step.host.Listener.Addr().String()
		c.Close()
		res, err := c.Do(t.Context(), Call{Target: &Target{ID: "a", URL: "https://target.example"}, Body: []byte("{}")})
		if err != nil || string(res.Body) != step.want {
			t.Errorf("%q, %v; want %s", res.Body, err, step.want)
		}
	}
}
