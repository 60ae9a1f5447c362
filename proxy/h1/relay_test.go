package h1_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/proxy/h1"
)

func TestMain(m *testing.M) { testkit.Main(m, goleak.IgnoreCurrent()) }

// testTimeout is how long a test waits for what must happen.
const testTimeout = 20 * time.Second

// told counts, and answers errors in plain text.
type told struct {
	mu     sync.Mutex
	status []int
	errs   []error
	done   chan struct{}
}

func (d *told) Decide(h *h1.Head) h1.Exchange {
	if strings.HasPrefix(h.Target(), "/other") {
		return nil
	}
	if strings.Contains(h.Target(), "%") {
		if _, err := url.ParseRequestURI(h.Target()); err != nil {
			return nil
		}
	}
	return d
}

func (d *told) Answered(status int, _ func() http.Header) h1.Watcher {
	if d.done != nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.status = append(d.status, status)
	}
	return nil
}

func (d *told) Failed(w http.ResponseWriter, err error) bool {
	d.mu.Lock()
	d.errs = append(d.errs, err)
	d.mu.Unlock()
	w.WriteHeader(http.StatusBadGateway)
	return false
}

func (d *told) Done() {
	if d.done != nil {
		d.done <- struct{}{}
	}
}

// startEngine serves d's exchanges on a free port. What is not relayed gets "other".
func startEngine(tb testing.TB, d h1.Director, upstream string, change func(*h1.Options)) (addr string, e *h1.Engine) {
	tb.Helper()
	lend := make(chan net.Conn)
	closed := make(chan struct{})
	o := h1.Options{Director: d, Upstream: h1.UpstreamOptions{Address: upstream}, Other: func(nc net.Conn) {
		select {
		case lend <- nc:
		case <-closed:
			_ = nc.Close()
		}
	}}
	if change != nil {
		change(&o)
	}
	e, err := h1.New(o)
	if err != nil {
		tb.Fatal(err)
	}
	server := &http.Server{ConnState: h1.StateChanged, ReadHeaderTimeout: testTimeout, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "other")
	})}
	ln := listen(tb)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(chanListener{lend, closed, ln.Addr()}) })
	serving.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { e.ServeConn(nc) })
		}
	})
	tb.Cleanup(func() {
		_ = ln.Close()
		close(closed)
		_ = server.Close()
		e.Close()
		serving.Wait()
	})
	return ln.Addr().String(), e
}

func listen(tb testing.TB) net.Listener {
	tb.Helper()
	ln, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	return ln
}

// chanListener is a net.Listener for connections that come through a channel.
type chanListener struct {
	conns  chan net.Conn
	closed chan struct{}
	addr   net.Addr
}

func (l chanListener) Accept() (net.Conn, error) {
	select {
	case nc := <-l.conns:
		return nc, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l chanListener) Close() error   { return nil }
func (l chanListener) Addr() net.Addr { return l.addr }

// startUpstream runs serve for each connection.
func startUpstream(tb testing.TB, serve func(conn net.Conn)) (addr string) {
	tb.Helper()
	ln := listen(tb)
	var mu sync.Mutex
	var conns []net.Conn
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
			serving.Go(func() {
				defer func() { _ = conn.Close() }()
				serve(conn)
			})
		}
	})
	tb.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		for _, conn := range conns {
			_ = conn.Close()
		}
		mu.Unlock()
		serving.Wait()
	})
	return ln.Addr().String()
}

// answering answers every request with the same bytes.
func answering(answer string) func(net.Conn) {
	return func(conn net.Conn) {
		buf, out := make([]byte, 64<<10), []byte(answer)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			for range bytes.Count(buf[:n], []byte("\r\n\r\n")) {
				if _, err := conn.Write(out); err != nil {
					return
				}
			}
		}
	}
}

func dial(tb testing.TB, addr string) net.Conn {
	tb.Helper()
	conn, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(testTimeout))
	return conn
}

const getRequest = "GET /v2/users/5?x=1 HTTP/1.1\r\nHost: h\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n"

// TestAnswersOfAllKinds: what of an answer reaches the client, and what ends the exchange.
func TestAnswersOfAllKinds(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, answer, want string // want: without "HTTP/1.1 "
		fails              bool
	}{
		{name: "a plain one", answer: "HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 2\r\n\r\nok", want: "200 OK\r\nX-A: b\r\nContent-Length: 2\r\n\r\nok"},
		{name: "a reason of its own", answer: "HTTP/1.1 299 What Ever\r\nContent-Length: 0\r\n\r\n", want: "299 What Ever\r\nContent-Length: 0\r\n\r\n"},
		{name: "no reason", answer: "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", want: "200 \r\nContent-Length: 0\r\n\r\n"},
		{name: "LF only", answer: "HTTP/1.1 200 OK\nx-a: b\nContent-Length: 2\n\nok", want: "200 OK\r\nX-A: b\r\nContent-Length: 2\r\n\r\nok"},
		{name: "a folded line", answer: "HTTP/1.1 200 OK\r\nX-A: b\r\n\t c\r\nContent-Length: 0\r\n\r\n", want: "200 OK\r\nX-A: b  \t c\r\nContent-Length: 0\r\n\r\n"},
		{name: "hop by hop", answer: "HTTP/1.1 200 OK\r\nConnection: X-Mine\r\nX-Mine: 1\r\nKeep-Alive: 5\r\nContent-Length: 0\r\n\r\n", want: "200 OK\r\nContent-Length: 0\r\n\r\n"},
		{name: "chunks", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2 \r\nok\r\n3;a=b\r\nyes\r\n0\r\n\r\n", want: "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n3\r\nyes\r\n0\r\n\r\n"},
		{name: "chunks and a length", answer: "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", want: "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"},
		{name: "trailers", answer: "HTTP/1.1 200 OK\r\nTrailer: X-T\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx-t: 1\r\nContent-Length: 5\r\n\r\n",
			want: "200 OK\r\nTrailer: X-T\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-T: 1\r\n\r\n"},
		{name: "until the end", answer: "HTTP/1.0 200 OK\r\n\r\nok", want: "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"},
		{name: "informational", answer: "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
			want: "103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
		{name: "informational without end", answer: strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 40), fails: true},
		{name: "a switch", answer: "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", fails: true},
		{name: "204 with a length", answer: "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", want: "204 No Content\r\n\r\n"},
		{name: "two lengths", answer: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!", fails: true},
		{name: "a length that is none", answer: "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", fails: true},
		{name: "an unknown coding", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok", fails: true},
		{name: "chunked twice", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", fails: true},
		{name: "chunks in HTTP/1.0", answer: "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", fails: true},
		{name: "a control character", answer: "HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 0\r\n\r\n", fails: true},
		{name: "a bare CR", answer: "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n", fails: true},
		{name: "a space in a name", answer: "HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 0\r\n\r\n", fails: true},
		{name: "another protocol", answer: "SSH-2.0-OpenSSH\r\n\r\n", fails: true},
		{name: "nothing", answer: "", fails: true},
		{name: "a status that is none", answer: "HTTP/1.1 2x0 OK\r\n\r\n", fails: true},
		{name: "a head without end", answer: "HTTP/1.1 200 OK\r\n" + strings.Repeat("X-Y: z\r\n", 1<<18), fails: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := &told{done: make(chan struct{}, 1)}
			upstream := startUpstream(t, func(conn net.Conn) {
				if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
					_, _ = io.WriteString(conn, test.answer)
				}
			})
			addr, _ := startEngine(t, d, upstream, nil)
			conn := dial(t, addr)
			_, _ = io.WriteString(conn, getRequest)
			<-d.done
			_ = conn.(*net.TCPConn).CloseWrite()
			got, err := io.ReadAll(conn)
			if err != nil {
				t.Fatal(err)
			}
			want := "HTTP/1.1 " + test.want
			if test.fails {
				if !strings.Contains(string(got), "HTTP/1.1 502 Bad Gateway\r\n") {
					t.Errorf("got %.200q", got)
				}
				return
			}
			if string(got) != want {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		})
	}
}

// TestConnectionsToTheUpstreamAreBounded: who finds none waits for one.
func TestConnectionsToTheUpstreamAreBounded(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	open, most := 0, 0
	upstream := startUpstream(t, func(conn net.Conn) {
		mu.Lock()
		open++
		most = max(most, open)
		mu.Unlock()
		answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")(conn)
		mu.Lock()
		open--
		mu.Unlock()
	})
	addr, _ := startEngine(t, &told{}, upstream, func(o *h1.Options) { o.Upstream.MaxConns = 2 })
	var clients sync.WaitGroup
	for range 8 {
		conn := dial(t, addr)
		clients.Go(func() {
			r := bufio.NewReader(conn)
			for range 50 {
				_, _ = io.WriteString(conn, getRequest)
				res, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
			}
		})
	}
	clients.Wait()
	mu.Lock()
	defer mu.Unlock()
	if most > 2 {
		t.Errorf("%d connections at once", most)
	}
}

// TestAWaitForAConnectionEnds when patience does.
func TestAWaitForAConnectionEnds(t *testing.T) {
	t.Parallel()
	upstream := startUpstream(t, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
	d := &told{}
	addr, _ := startEngine(t, d, upstream, func(o *h1.Options) {
		o.Upstream.MaxConns, o.Upstream.QueueTimeout = 1, 50*time.Millisecond
	})
	first, second := dial(t, addr), dial(t, addr)
	_, _ = io.WriteString(first, getRequest)
	_, _ = io.WriteString(second, getRequest)
	answers := make(chan int, 2)
	for _, conn := range []net.Conn{first, second} {
		go func() {
			if res, err := http.ReadResponse(bufio.NewReader(conn), nil); err == nil {
				_ = res.Body.Close()
				answers <- res.StatusCode
			}
		}()
	}
	if status := <-answers; status != http.StatusBadGateway {
		t.Errorf("status %d", status)
	}
}

// TestIdleAndSilentConnectionsEnd, and only those.
func TestIdleAndSilentConnectionsEnd(t *testing.T) {
	t.Parallel()
	upstream := startUpstream(t, answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
	addr, e := startEngine(t, &told{}, upstream, func(o *h1.Options) {
		o.IdleTimeout, o.ReadHeaderTimeout = 100*time.Millisecond, 50*time.Millisecond
	})
	for _, sent := range []string{"", getRequest, "GET /other HTTP/1.1\r\nHost: h\r\n\r\n"} {
		conn := dial(t, addr)
		_, _ = io.WriteString(conn, sent)
		if _, err := io.ReadAll(conn); err != nil {
			t.Errorf("after %q: %v", sent, err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	if err := e.Shutdown(ctx); err != nil {
		t.Error(err)
	}
}

// TestOptionsThatCannotBeUsed are told by name.
func TestOptionsThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	for _, o := range []h1.Options{{}, {Director: &told{}}, {Director: &told{}, Other: func(net.Conn) {}}} {
		if _, err := h1.New(o); err == nil {
			t.Errorf("%+v", o)
		}
	}
}

// TestRelayingAllocatesNothing: neither does the upstream of this test, nor the client. Not parallel: allocations are
// counted for the whole process.
func TestRelayingAllocatesNothing(t *testing.T) { //nolint:paralleltest // See above.
	roundTrip := relayed(t, getRequest, http.StatusOK, nil)
	if n := testing.AllocsPerRun(2000, roundTrip); n > spared {
		t.Errorf("%v allocations", n)
	}
}

// relayed returns what sends a request through an engine and reads the answer.
func relayed(tb testing.TB, request string, status int, change func(*h1.Options)) func() {
	tb.Helper()
	answer := fmt.Sprintf("HTTP/1.1 %d OK\r\nContent-Type: application/json\r\nDate: Sat, 21 Nov 2026 22:13:42 GMT\r\nContent-Length: 200\r\n\r\n%s",
		status, strings.Repeat("x", 200))
	addr, _ := startEngine(tb, &told{}, startUpstream(tb, answering(answer)), change)
	conn := dial(tb, addr)
	out, buf := []byte(request), make([]byte, 4<<10)
	return func() {
		if _, err := conn.Write(out); err != nil {
			tb.Fatal(err)
		}
		for n := 0; n < len(answer); {
			m, err := conn.Read(buf)
			if err != nil && !errors.Is(err, io.EOF) || m == 0 {
				tb.Fatal(err)
			}
			n += m
		}
	}
}

// BenchmarkRelay is a GET through the engine, client and upstream included.
func BenchmarkRelay(b *testing.B) {
	roundTrip := relayed(b, getRequest, http.StatusOK, nil)
	b.ReportAllocs()
	for b.Loop() {
		roundTrip()
	}
}
