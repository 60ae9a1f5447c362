package targetclient

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func newOwn(t *testing.T) *Client {
	t.Helper()
	c, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// A connection that the target closed while it was idle is not used: the call
// goes out on another one, and once.
func TestAConnectionThatTheTargetClosedIsNotUsed(t *testing.T) {
	t.Parallel()
	var requests atomic.Int64
	closed := make(chan struct{}, 10)
	url, conns := origin(t, func(c *net.TCPConn) {
		if readRequest(c, 2) {
			requests.Add(1)
			_, _ = io.WriteString(c, ok200+"Content-Length: 2\r\n\r\n{}")
		}
		_ = c.Close()
		closed <- struct{}{}
	})
	c := newOwn(t)
	for range 5 {
		if _, err := c.Do(t.Context(), Call{Target: &Target{ID: "a", URL: url}, Body: []byte("{}")}); err != nil {
			t.Fatal(err)
		}
		<-closed
		// The kernel has the end by now: on loopback it is delivered with the close.
	}
	if requests.Load() != 5 || conns.Load() != 5 {
		t.Errorf("%d requests on %d connections", requests.Load(), conns.Load())
	}
}

// What a target sends behind its answer is nobody's answer, wherever it waits: in
// the socket, in TLS, in a record of its own.
func TestBytesBehindAnAnswerAreNoAnswer(t *testing.T) {
	t.Parallel()
	const forged = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
	certificate := httptest.NewUnstartedServer(nil)
	certificate.StartTLS()
	config := certificate.TLS.Clone()
	certificate.Close()
	config.NextProtos = nil
	for name, secure := range map[string]bool{"plain": false, "TLS": true} {
		for _, size := range []int{2, 3000, 4096, 10_000, 40_000} {
			for _, together := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s, %d bytes, together %t", name, size, together), func(t *testing.T) {
					t.Parallel()
					url, conns := origin(t, func(raw *net.TCPConn) {
						c := net.Conn(raw)
						if secure {
							c = tls.Server(raw, config)
						}
						if !readRequest(c, 2) {
							return
						}
						answer := fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", ok200, size, strings.Repeat("x", size))
						if together {
							_, _ = io.WriteString(c, answer+forged)
						} else {
							_, _ = io.WriteString(c, answer)
							_, _ = io.WriteString(c, forged)
						}
						untilGone(c)
					})
					c := newOwn(t)
					if secure {
						url = strings.Replace(url, "http:", "https:", 1)
						c.use(c.transport.dial, &tls.Config{InsecureSkipVerify: true})
					}
					for range 3 {
						res, err := c.Do(t.Context(), Call{Target: &Target{ID: "a", URL: url}, Body: []byte("{}")})
						if err != nil || len(res.Body) != size {
							t.Errorf("%.10q, %v", res.Body, err)
						}
						<-time.After(200 * time.Millisecond)
					}
					if conns.Load() != 3 {
						t.Errorf("%d connections", conns.Load())
					}
				})
			}
		}
	}
}

// dropping answers the first request of a connection, and closes it when the
// second has come.
func dropping(requests *atomic.Int64, first string) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		if !readRequest(c, 0) {
			return
		}
		requests.Add(1)
		_, _ = io.WriteString(c, first)
		if readRequest(c, 0) {
			requests.Add(1)
		}
	}
}

// What may have been processed is not sent again, unless it says itself that it
// may be.
func TestARequestThatMayHaveBeenProcessedIsNotRepeated(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		headers  map[string]string
		requests int64
		fails    bool
	}{
		"a POST":            {requests: 2, fails: true},
		"a POST with a key": {headers: map[string]string{"Idempotency-Key": "1"}, requests: 3},
	} {
		for _, over := range []string{"own", "net/http"} {
			t.Run(name+" over "+over, func(t *testing.T) {
				t.Parallel()
				var requests atomic.Int64
				url, _ := origin(t, dropping(&requests, ok200+"Content-Length: 2\r\n\r\n{}"))
				c := newOwn(t)
				c.transport.allHTTP = over != "own"
				target := &Target{ID: "a", URL: url, Headers: tc.headers}
				_, first := c.Do(t.Context(), Call{Target: target})
				_, second := c.Do(t.Context(), Call{Target: target})
				if first != nil || (second != nil) != tc.fails || requests.Load() != tc.requests {
					t.Errorf("%v, %v, %d requests", first, second, requests.Load())
				}
			})
		}
	}
}

// A GET, which a redirect makes, is repeated.
func TestAGetIsRepeated(t *testing.T) {
	t.Parallel()
	for _, over := range []string{"own", "net/http"} {
		t.Run(over, func(t *testing.T) {
			t.Parallel()
			var requests atomic.Int64
			url, _ := origin(t, func(c *net.TCPConn) {
				for readRequest(c, 0) {
					switch requests.Add(1) {
					case 1: // the POST
						_, _ = io.WriteString(c, "HTTP/1.1 303 x\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n")
					case 2: // the GET, on the same connection
						return
					default:
						_, _ = io.WriteString(c, ok200+"Content-Length: 2\r\n\r\n{}")
					}
				}
			})
			c := newOwn(t)
			c.transport.allHTTP = over != "own"
			res, err := c.Do(t.Context(), Call{Target: &Target{ID: "a", URL: url}})
			if err != nil || string(res.Body) != "{}" || requests.Load() != 3 {
				t.Errorf("%q, %v, %d requests", res.Body, err, requests.Load())
			}
		})
	}
}

// unwritable is a connection that seems to be alive, until it is written to.
type unwritable struct{ net.Conn }

func (unwritable) Write([]byte) (int, error) { return 0, net.ErrClosed }

// A dead connection to which nothing could be written is replaced without anybody
// noticing.
func TestNothingWrittenIsWrittenElsewhere(t *testing.T) {
	t.Parallel()
	url, conns := origin(t, answering(ok200+"Content-Length: 2\r\n\r\n{}"))
	c := newOwn(t)
	target := &Target{ID: "a", URL: url}
	for range 3 {
		if _, err := c.Do(t.Context(), Call{Target: target, Body: []byte("{}")}); err != nil {
			t.Fatal(err)
		}
		for _, list := range c.transport.pool.idle {
			kept := list[0]
			kept.nc, kept.raw = unwritable{kept.nc}, unwritable{kept.nc}
			kept.socket = &socket{}
		}
	}
	if conns.Load() != 3 {
		t.Errorf("%d connections", conns.Load())
	}
}

// The deadline of one call does not end the connection for the next.
func TestAConnectionOutlivesTheTimeoutOfACall(t *testing.T) {
	t.Parallel()
	url, conns := origin(t, answering(ok200+"Content-Length: 2\r\n\r\n{}"))
	c := newOwn(t)
	for range 2 {
		_, err := c.Do(t.Context(), Call{Target: &Target{ID: "a", URL: url, Timeout: time.Second}, Body: []byte("{}")})
		if err != nil {
			t.Error(err)
		}
		<-time.After(1100 * time.Millisecond)
	}
	if conns.Load() != 1 {
		t.Errorf("%d connections", conns.Load())
	}
}

// The end of the caller is the end of the connection, whatever is going on.
func TestTheEndOfTheCallerClosesTheConnectionAtOnce(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"before the answer": "", "in the header": "HTTP/1.1 200", "in the body": ok200 + "Content-Length: 5\r\n\r\n{",
		"in the body of an error": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			waiting, gone := make(chan struct{}), make(chan struct{})
			url, _ := origin(t, func(c *net.TCPConn) {
				readRequest(c, 2)
				_, _ = io.WriteString(c, answer)
				close(waiting)
				untilGone(c)
				close(gone)
			})
			ctx, cancel := context.WithCancel(t.Context())
			go func() { <-waiting; cancel() }()
			_, err := newOwn(t).Do(ctx, Call{Target: &Target{ID: "a", URL: url, Timeout: time.Minute}, Body: []byte("{}")})
			var e *Error
			if !errors.As(err, &e) || e.Reason != ReasonCancelled {
				t.Errorf("%v", err)
			}
			<-gone
		})
	}
}

func TestTheEndOfTheChainEndsTheCall(t *testing.T) {
	t.Parallel()
	url, conns := origin(t, untilGoneTCP)
	c := newOwn(t)
	for _, left := range []time.Duration{50 * time.Millisecond, 0} {
		_, err := c.Do(t.Context(), Call{Target: &Target{ID: "a", URL: url}, ChainEnd: time.Now().Add(left)})
		var e *Error
		if !errors.As(err, &e) || e.Reason != ReasonTimeout || !errors.Is(err, ErrChainTimeout) {
			t.Errorf("%v left: %v", left, err)
		}
	}
	if conns.Load() != 1 {
		t.Errorf("%d connections: one call came too late to be made", conns.Load())
	}
}

// Neither calls nor idle connections have goroutines.
func TestNoGoroutines(t *testing.T) { //nolint:paralleltest // it counts them all
	var inside atomic.Int64
	url, _ := origin(t, func(c *net.TCPConn) {
		for readRequest(c, 2) {
			inside.Store(int64(runtime.NumGoroutine()))
			_, _ = io.WriteString(c, ok200+"Content-Length: 2\r\n\r\n{}")
		}
	})
	c := newOwn(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	target := &Target{ID: "a", URL: url, Timeout: time.Minute}
	for i := range 3 {
		before := int64(runtime.NumGoroutine())
		if _, err := c.Do(ctx, Call{Target: target, Body: []byte("{}")}); err != nil {
			t.Fatal(err)
		}
		// Once there is a connection, its other end has a goroutine already.
		if more := inside.Load() - before; i > 0 && more > 0 {
			t.Errorf("%d goroutines more during the call", more)
		}
	}
}

// pipes makes connections that lead nowhere.
func pipes(key hostKey, n int) (list []*conn) {
	for range n {
		ours, theirs := net.Pipe()
		_ = theirs.Close()
		list = append(list, newConn(key, ours, ours))
	}
	return list
}

func TestThePoolIsBounded(t *testing.T) {
	t.Parallel()
	var p pool
	defer p.closeIdle()
	busy := hostKey{addr: "busy:80"}
	list := pipes(busy, idlePerHost+10)
	for _, c := range list {
		p.put(c, time.Now())
	}
	if p.count != idlePerHost || p.take(busy) != list[len(list)-1] {
		t.Errorf("%d connections to one host", p.count)
	}
	if _, err := list[9].nc.Write(nil); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the oldest is not closed: %v", err)
	}
	for i := range idleOverall {
		p.put(pipes(hostKey{addr: string(rune('a' + i))}, 1)[0], time.Now())
	}
	if p.count != idleOverall || len(p.idle[busy]) != 1 {
		t.Errorf("%d connections, %d of them to the busy host", p.count, len(p.idle[busy]))
	}
}

func TestIdleConnectionsAreClosedInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var p pool
		key := hostKey{addr: "a:80"}
		list := pipes(key, 2)
		p.put(list[0], time.Now())
		time.Sleep(60 * time.Second)
		p.put(list[1], time.Now())
		for _, step := range []struct {
			after time.Duration
			count int
		}{{29 * time.Second, 2}, {2 * time.Second, 1}, {58 * time.Second, 1}, {2 * time.Second, 0}} {
			time.Sleep(step.after)
			synctest.Wait()
			p.mu.Lock()
			if p.count != step.count || (p.timer != nil) != (step.count > 0) {
				t.Errorf("%d connections, want %d; a timer: %t", p.count, step.count, p.timer != nil)
			}
			p.mu.Unlock()
		}
	})
}
