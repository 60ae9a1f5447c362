package h1_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/execgate/execgate/proxy/h1"
)

// always has event loops serve every connection after its first exchange.
func always(o *h1.Options) { o.LoopFrom = 1 }

// scripted answers each request as its query says.
func scripted(conn net.Conn) {
	r := bufio.NewReader(conn)
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		said := fmt.Sprintf("%s %s %s", req.Method, req.RequestURI, body)
		head := "HTTP/1.1 200 OK\r\nX-Said: " + strconv.Quote(said) + "\r\n"
		ends := false
		var pieces []string
		switch mode := req.URL.Query().Get("mode"); mode {
		case "split":
			whole := head + "Content-Length: " + strconv.Itoa(len(said)) + "\r\n\r\n" + said
			at := rand.IntN(len(whole))
			pieces = []string{whole[:at], whole[at:]}
		case "chunked":
			pieces = []string{head + fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", len(said), said), "0\r\n\r\n"}
		case "closes", "ends":
			if ends = true; mode == "closes" {
				head += "Connection: close\r\n"
			}
			pieces = []string{head + "Content-Length: " + strconv.Itoa(len(said)) + "\r\n\r\n" + said}
		case "hints":
			pieces = []string{"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + head + "Content-Length: " + strconv.Itoa(len(said)) + "\r\n\r\n" + said}
		case "large":
			said += strings.Repeat("x", 200<<10)
			pieces = []string{head + "Content-Length: " + strconv.Itoa(len(said)) + "\r\n\r\n" + said}
		case "nothing":
			pieces = []string{strings.Replace(head, "200 OK", "204 No Content", 1) + "\r\n"}
		case "unasked":
			pieces = []string{head + "Content-Length: " + strconv.Itoa(len(said)) + "\r\n\r\n" + said + "HTTP/1.1 500 Unasked\r\nContent-Length: 0\r\n\r\n"}
		default:
			pieces = []string{head + "Content-Length: " + strconv.Itoa(len(said)) + "\r\n\r\n" + said}
		}
		for _, piece := range pieces {
			if end := strings.Index(piece, "\r\n\r\n"); req.Method == http.MethodHead && end >= 0 {
				piece = piece[:end+4]
			}
			if _, err := io.WriteString(conn, piece); err != nil {
				return
			}
		}
		if ends {
			return
		}
	}
}

// asked is a request and what is known of its answer.
type asked struct{ method, said, sent string }

func ask(n int, method, mode string) asked {
	body := ""
	target := fmt.Sprintf("/v2/%d?mode=%s", n, mode)
	head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: h\r\n", method, target)
	switch {
	case method == http.MethodPost:
		body = strings.Repeat("b", n%3000)
		head += fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
	case method == "CHUNKED":
		method, body = http.MethodPut, "chunk"
		head = fmt.Sprintf("PUT %s HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nchunk\r\n0\r\n\r\n", target)
	default:
		head += "\r\n"
	}
	return asked{method: method, said: fmt.Sprintf("%s %s %s", method, target, body), sent: head}
}

// check reads the answer to a. Only what is not safe may find that the upstream just ended its connection.
func (a asked) check(r *bufio.Reader) error {
	res, err := http.ReadResponse(r, &http.Request{Method: a.method})
	for err == nil && res.StatusCode == http.StatusEarlyHints {
		res, err = http.ReadResponse(r, &http.Request{Method: a.method})
	}
	if err != nil {
		return fmt.Errorf("%s: %w", a.said, err)
	}
	body, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", a.said, err)
	case res.StatusCode == http.StatusBadGateway && (a.method == http.MethodPost || a.method == http.MethodPut):
	case res.Header.Get("X-Said") != strconv.Quote(a.said):
		return fmt.Errorf("%s: %d, %.80q", a.said, res.StatusCode, res.Header.Get("X-Said"))
	case res.StatusCode == http.StatusOK && a.method != http.MethodHead && !strings.HasPrefix(string(body), a.said):
		return fmt.Errorf("%s: %.80q", a.said, body)
	}
	return nil
}

// TestLoops: whatever comes over a connection that a loop serves, each request has its own answer, in order, and whole.
func TestLoops(t *testing.T) {
	t.Parallel()
	addr, e := startEngine(t, &told{}, startUpstream(t, scripted), always)
	modes := []string{"split", "chunked", "closes", "ends", "hints", "large", "nothing", "unasked"}
	methods := []string{http.MethodPost, http.MethodHead, "CHUNKED", http.MethodDelete}
	var looped atomic.Bool
	var clients sync.WaitGroup
	for i := range 32 {
		conn := dial(t, addr)
		random := rand.New(rand.NewPCG(uint64(i), 1))
		clients.Go(func() {
			defer func() { _ = conn.Close() }()
			r := bufio.NewReader(conn)
			for n := 0; n < 300; {
				var batch []asked
				for range 1 + random.IntN(4)/3*random.IntN(8) { // Pipelined, now and then.
					method, mode := http.MethodGet, ""
					if odd := random.IntN(10 + i); odd == 0 {
						mode = modes[random.IntN(len(modes))]
					} else if odd < 4 {
						method = methods[random.IntN(len(methods))]
					}
					if n++; method == http.MethodDelete && n%50 == 0 {
						batch = append(batch, asked{sent: "GET /other HTTP/1.1\r\nHost: h\r\n\r\n"})
						continue
					}
					if method == http.MethodDelete {
						method = http.MethodGet
					}
					batch = append(batch, ask(n, method, mode))
				}
				var out string
				for _, a := range batch {
					out += a.sent
				}
				for at := len(out); len(out) > 0; out, at = out[at:], len(out)-at {
					if random.IntN(10) == 0 {
						at = random.IntN(len(out)) + 1
					}
					if _, err := io.WriteString(conn, out[:at]); err != nil {
						t.Error(err)
						return
					}
				}
				for _, a := range batch {
					if a.said == "" {
						res, err := http.ReadResponse(r, nil)
						if err != nil {
							t.Error(err)
							return
						}
						_, _ = io.Copy(io.Discard, res.Body)
						_ = res.Body.Close()
						continue
					}
					if err := a.check(r); err != nil {
						t.Error(err)
						return
					}
				}
				if e.Looped() > 0 {
					looped.Store(true)
				}
			}
		})
	}
	clients.Wait()
	if !looped.Load() {
		t.Error("no loop had a connection")
	}
}

// looping returns a connection that a loop serves.
func looping(t *testing.T, addr string, e *h1.Engine) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn := dial(t, addr)
	r := bufio.NewReader(conn)
	before := e.Looped()
	for n := range 20 {
		a := ask(n, http.MethodGet, "")
		_, _ = io.WriteString(conn, a.sent)
		if err := a.check(r); err != nil {
			t.Fatal(err)
		}
	}
	if e.Looped() <= before {
		t.Fatal("no loop has the connection")
	}
	return conn, r
}

// silentUpstream answers as scripted does, but not what it is asked at /slow: it tells of that, and of its end.
func silentUpstream(t *testing.T) (addr string, begun, ended chan struct{}) {
	t.Helper()
	begun, ended = make(chan struct{}, 8), make(chan struct{}, 8)
	addr = startUpstream(t, func(conn net.Conn) {
		ours, theirs := net.Pipe()
		defer func() { _ = theirs.Close() }()
		go func() {
			defer func() { _ = ours.Close() }()
			scripted(ours)
		}()
		go func() { _, _ = io.Copy(conn, theirs) }()
		buf := make([]byte, 64<<10)
		slow := false
		for {
			n, err := conn.Read(buf)
			if err != nil {
				if slow {
					ended <- struct{}{}
				}
				return
			}
			if strings.HasPrefix(string(buf[:n]), "GET /slow") {
				slow = true
				begun <- struct{}{}
				continue
			}
			_, _ = theirs.Write(buf[:n])
		}
	})
	return addr, begun, ended
}

// TestAClientOfALoopThatLeaves has its call ended.
func TestAClientOfALoopThatLeaves(t *testing.T) {
	t.Parallel()
	for _, leave := range []func(*net.TCPConn){
		func(conn *net.TCPConn) { _ = conn.Close() },
		func(conn *net.TCPConn) { _ = conn.CloseWrite() },
		func(conn *net.TCPConn) { _ = conn.SetLinger(0); _ = conn.Close() },
	} {
		d := &told{}
		upstream, begun, ended := silentUpstream(t)
		addr, e := startEngine(t, d, upstream, always)
		conn, _ := looping(t, addr, e)
		_, _ = io.WriteString(conn, "GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
		<-begun
		leave(conn.(*net.TCPConn))
		select {
		case <-ended:
		case <-time.After(testTimeout):
			t.Fatal("the upstream still works")
		}
		ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
		if err := e.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		cancel()
		d.mu.Lock()
		var gone *h1.ClientError
		if len(d.errs) != 1 || !errors.As(d.errs[0], &gone) || !gone.Gone {
			t.Errorf("failed with %v", d.errs)
		}
		d.mu.Unlock()
	}
}

// TestAHalfClosedClientOfALoop gets its answer, and nothing after it. If somebody looks before the answer is there, it
// counts as gone; so it may take several attempts.
func TestAHalfClosedClientOfALoop(t *testing.T) {
	t.Parallel()
	addr, e := startEngine(t, &told{}, startUpstream(t, scripted), always)
	for _, mode := range []string{"", "split", "chunked", "large"} {
		var err error
		for range 20 {
			conn, r := looping(t, addr, e)
			a := ask(7, http.MethodGet, mode)
			_, _ = io.WriteString(conn, a.sent)
			_ = conn.(*net.TCPConn).CloseWrite()
			if err = a.check(r); err != nil {
				continue
			}
			if rest, err := io.ReadAll(r); len(rest) > 0 || err != nil {
				t.Errorf("then %q, %v", rest, err)
			}
			break
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// TestLoopsAreDrained: idle connections end at once, and those with an exchange after it; Close ends all.
func TestLoopsAreDrained(t *testing.T) {
	t.Parallel()
	upstream, begun, ended := silentUpstream(t)
	addr, e := startEngine(t, &told{}, upstream, always)
	idle, fromIdle := looping(t, addr, e)
	busy, _ := looping(t, addr, e)
	_, _ = io.WriteString(busy, "GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
	<-begun
	ctx, cancel := context.WithCancel(context.Background())
	drained := make(chan error, 1)
	go func() { drained <- e.Shutdown(ctx) }()
	if rest, err := io.ReadAll(fromIdle); len(rest) > 0 || err != nil {
		t.Errorf("idle: %q, %v", rest, err)
	}
	_ = idle.Close()
	select {
	case err := <-drained:
		t.Fatalf("drained with an exchange under way: %v", err)
	default:
	}
	cancel()
	if err := <-drained; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	e.Close()
	<-ended
	if e.Looped() > 0 {
		t.Errorf("%d connections are left", e.Looped())
	}
}

// TestIdleConnectionsOfLoopsEnd, the clients' and the upstream's.
func TestIdleConnectionsOfLoopsEnd(t *testing.T) {
	t.Parallel()
	var open atomic.Int64
	upstream := startUpstream(t, func(conn net.Conn) {
		open.Add(1)
		scripted(conn)
		open.Add(-1)
	})
	addr, e := startEngine(t, &told{}, upstream, func(o *h1.Options) {
		o.LoopFrom, o.IdleTimeout, o.Upstream.IdleTimeout = 1, 100*time.Millisecond, 50*time.Millisecond
	})
	_, r := looping(t, addr, e)
	if rest, err := io.ReadAll(r); len(rest) > 0 || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
	awaitLoop(t, "the connections to the upstream end", func() bool { return open.Load() == 0 })
}

// awaitLoop waits until what nothing tells of has happened.
func awaitLoop(t *testing.T, what string, happened func() bool) {
	t.Helper()
	for deadline := time.Now().Add(testTimeout); !happened(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it does not come to pass: %s", what)
		}
	}
}

// TestLoopsGiveUpTheirConnections when somebody else needs the place.
func TestLoopsGiveUpTheirConnections(t *testing.T) {
	t.Parallel()
	addr, e := startEngine(t, &told{}, startUpstream(t, scripted), func(o *h1.Options) { o.LoopFrom, o.Upstream.MaxConns = 1, 1 })
	_, _ = looping(t, addr, e)
	begun := time.Now()
	for range 3 {
		conn := dial(t, addr)
		a := ask(1, http.MethodPost, "")
		_, _ = io.WriteString(conn, a.sent)
		if err := a.check(bufio.NewReader(conn)); err != nil {
			t.Error(err)
		}
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("that took %v", took)
	}
}

// panicking panics at some requests.
type panicking struct{ told }

func (d *panicking) Decide(h *h1.Head) h1.Exchange {
	if strings.HasPrefix(h.Target(), "/panic") {
		panic("as asked")
	}
	return d
}

func (d *panicking) Answered(status int, _ func() http.Header) h1.Watcher {
	if status == http.StatusNoContent {
		panic("as asked")
	}
	return nil
}

// TestAFaultInALoop ends one connection.
func TestAFaultInALoop(t *testing.T) {
	t.Parallel()
	addr, e := startEngine(t, &panicking{}, startUpstream(t, scripted), always)
	other, fromOther := looping(t, addr, e)
	for _, request := range []string{"GET /panic HTTP/1.1\r\nHost: h\r\n\r\n", ask(1, http.MethodGet, "nothing").sent} {
		conn, r := looping(t, addr, e)
		_, _ = io.WriteString(conn, request)
		if rest, err := io.ReadAll(r); len(rest) > 0 || err != nil {
			t.Errorf("%q, %v", rest, err)
		}
	}
	a := ask(2, http.MethodGet, "")
	_, _ = io.WriteString(other, a.sent)
	if err := a.check(fromOther); err != nil {
		t.Error(err)
	}
}

// TestLoopsAllocateNothing, as TestRelayingAllocatesNothing.
func TestLoopsAllocateNothing(t *testing.T) { //nolint:paralleltest // See there.
	roundTrip := relayed(t, getRequest, http.StatusOK, always)
	for range 20 {
		roundTrip()
	}
	if n := testing.AllocsPerRun(2000, roundTrip); n > spared {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkLoop is BenchmarkRelay over a loop.
func BenchmarkLoop(b *testing.B) {
	roundTrip := relayed(b, getRequest, http.StatusOK, always)
	b.ReportAllocs()
	for b.Loop() {
		roundTrip()
	}
}

// TestIdleConnectionsThatTheUpstreamEnds are not used again by a loop, whatever the request.
func TestIdleConnectionsThatTheUpstreamEnds(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var conns []net.Conn
	gone := make(chan struct{}, 64)
	addr, e := startEngine(t, &told{}, startUpstream(t, func(conn net.Conn) {
		mu.Lock()
		conns = append(conns, conn)
		mu.Unlock()
		scripted(conn)
		gone <- struct{}{}
	}), always)
	conn, r := looping(t, addr, e)
	for n := range 10 {
		mu.Lock()
		for _, c := range conns {
			_ = c.(*net.TCPConn).CloseWrite()
		}
		for range conns {
			<-gone // The gateway has closed its end.
		}
		conns = conns[:0]
		mu.Unlock()
		for range 12 {
			a := ask(n, http.MethodPost, "")
			_, _ = io.WriteString(conn, a.sent)
			res, err := http.ReadResponse(r, nil)
			if err != nil || res.StatusCode != http.StatusOK {
				t.Fatal(res, err)
			}
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
		}
	}
}

// TestAClientOfALoopThatDoesNotRead gets everything when it does.
func TestAClientOfALoopThatDoesNotRead(t *testing.T) {
	t.Parallel()
	addr, e := startEngine(t, &told{}, startUpstream(t, scripted), always)
	conn, r := looping(t, addr, e)
	const many = 6000
	go func() {
		for n := range many {
			if _, err := io.WriteString(conn, ask(n, http.MethodPost, "").sent); err != nil {
				return
			}
		}
	}()
	awaitLoop(t, "its goroutine has the connection, and waits", func() bool { return e.Looped() == 0 })
	for n := range many {
		if err := ask(n, http.MethodPost, "").check(r); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFewBusyConnectionsLeaveTheLoops, as many enter them.
func TestFewBusyConnectionsLeaveTheLoops(t *testing.T) {
	t.Parallel()
	addr, e := startEngine(t, &told{}, startUpstream(t, scripted), func(o *h1.Options) { o.LoopFrom = 8 })
	var conns []net.Conn
	var readers []*bufio.Reader
	for range 8 {
		conn := dial(t, addr)
		conns, readers = append(conns, conn), append(readers, bufio.NewReader(conn))
	}
	until := func(looped int, conns []net.Conn) {
		t.Helper()
		for deadline := time.Now().Add(testTimeout); e.Looped() != looped; {
			if time.Now().After(deadline) {
				t.Fatalf("loops have %d connections, not %d", e.Looped(), looped)
			}
			for i, conn := range conns {
				a := ask(i, http.MethodGet, "")
				_, _ = io.WriteString(conn, a.sent)
				if err := a.check(readers[i]); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	until(8, conns)
	until(7, conns[:1])
}

// FuzzLoop is FuzzConn for what comes over a connection that a loop serves.
func FuzzLoop(f *testing.F) {
	for _, s := range []string{
		"GET /a HTTP/1.1\r\nHost: h\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\nGET /c HTTP/1.1\r\nHost: h\r\n\r\n",
		"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nHost: h\r\n\r\n",
		"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
		"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nX: y\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n",
		"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
		"GET /other HTTP/1.1\r\nHost: h\r\n\r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n",
		"\r\n\r\nHEAD /a HTTP/1.1\r\nHost: h\r\n x\r\n\r\n",
	} {
		f.Add([]byte(s), uint16(7))
		f.Add([]byte(s), uint16(1000))
	}
	f.Fuzz(func(t *testing.T, sent []byte, piece uint16) {
		var mu sync.Mutex
		var seen []string
		upstream := startUpstream(t, func(conn net.Conn) {
			answerSeen(t, conn, sent, func(s string) {
				mu.Lock()
				defer mu.Unlock()
				seen = append(seen, s)
			})
		})
		addr, e := startEngine(t, &told{}, upstream, func(o *h1.Options) { o.LoopFrom, o.MaxHeaderBytes = 1, 16<<10 })
		conn := dial(t, addr)
		_, _ = io.WriteString(conn, getRequest)
		if _, err := io.ReadFull(conn, make([]byte, len("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))); err != nil {
			t.Fatal(err)
		}
		answered := make(chan error, 1)
		go func() {
			_, err := io.Copy(io.Discard, conn)
			answered <- err
		}()
		for rest := sent; len(rest) > 0; {
			n := min(len(rest), int(piece)+1)
			if _, err := conn.Write(rest[:n]); err != nil {
				break
			}
			rest = rest[n:]
		}
		_ = conn.(*net.TCPConn).CloseWrite()
		if err := <-answered; errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("%q does not end", sent)
		}
		e.Close()
		mu.Lock()
		defer mu.Unlock()
		want := seenBy(append([]byte(getRequest), sent...))
		i := 0
		for _, s := range seen {
			for i < len(want) && want[i] != s { // Some go to net/http.
				i++
			}
			if i == len(want) {
				t.Fatalf("upstream saw %q of %q, not %q", seen, sent, want)
			}
			i++
		}
	})
}
