package proxy_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/execgate/execgate/proxy"
	"github.com/execgate/execgate/targetclient"
)

// http1Client speaks HTTP/1.1 on one connection, byte by byte.
type http1Client struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func dialHTTP1(t *testing.T, g *gateway) *http1Client {
	t.Helper()
	var config *tls.Config
	if g.tls {
		config = certificates().client()
		config.ServerName = "127.0.0.1"
	}
	conn := dialTCP(t, g.addr, config)
	return &http1Client{t: t, conn: conn, r: bufio.NewReader(conn)}
}

func (c *http1Client) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, s); err != nil {
		c.t.Fatal(err)
	}
}

// answer reads one answer, to a request with the given method.
func (c *http1Client) answer(method string) (status int, body string, header http.Header) {
	c.t.Helper()
	res, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		c.t.Fatalf("%s: %v", method, err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	if res.Close { // It was taken out.
		res.Header.Set("Connection", "close")
	}
	return res.StatusCode, string(b), res.Header
}

// ended waits until the gateway has ended the connection.
func (c *http1Client) ended() {
	c.t.Helper()
	if b, err := c.r.ReadByte(); err == nil {
		c.t.Fatalf("%q, and not the end", b)
	}
}

// startHTTP1 starts an upstream that speaks HTTP/1.1 only.
func startHTTP1(t *testing.T, useTLS bool, h http.Handler) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	if useTLS {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s.URL
}

const getRequest = "GET %s HTTP/1.1\r\nHost: h\r\n\r\n"

// TestAnswersOnOneConnection: after answers of every kind the next one is where it belongs.
func TestAnswersOnOneConnection(t *testing.T) {
	t.Parallel()
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		switch r.URL.Path {
		case "/204":
			w.WriteHeader(http.StatusNoContent)
		case "/304":
			w.Header().Set("Content-Length", "5")
			w.WriteHeader(http.StatusNotModified)
		case "/chunked":
			_, _ = io.WriteString(w, "one ")
			_ = http.NewResponseController(w).Flush()
			_, _ = io.WriteString(w, "two")
		case "/big":
			_, _ = io.WriteString(w, strings.Repeat("x", 300<<10))
		case "/big-length":
			w.Header().Set("Content-Length", fmt.Sprint(300<<10))
			_, _ = io.WriteString(w, strings.Repeat("y", 300<<10))
		case "/close":
			w.Header().Set("Connection", "close")
			_, _ = io.WriteString(w, "closed")
		default:
			_, _ = io.WriteString(w, r.URL.Path)
		}
	})
	for _, useTLS := range []bool{false, true} {
		var so proxy.ServerOptions
		if useTLS {
			so.TLS = certificates().server.Clone()
			so.TLS.NextProtos = []string{"http/1.1"}
		}
		g := startGatewayServer(t, startHTTP1(t, useTLS, h), nil, so)
		c := dialHTTP1(t, g)
		upload := strings.Repeat("z", 100<<10)
		for _, test := range []struct {
			method, path, body string
			status             int
			want               string
		}{
			{"GET", "/plain", "", 200, "/plain"},
			{"HEAD", "/plain", "", 200, ""},
			{"HEAD", "/big", "", 200, ""},
			{"GET", "/204", "", 204, ""},
			{"GET", "/304", "", 304, ""},
			{"GET", "/chunked", "", 200, "one two"},
			{"HEAD", "/chunked", "", 200, ""},
			{"GET", "/big", "", 200, strings.Repeat("x", 300<<10)},
			{"GET", "/big-length", "", 200, strings.Repeat("y", 300<<10)},
			{"GET", "/close", "", 200, "closed"},
			{"POST", "/upload", upload, 200, "/upload"},
			{"POST", "/upload", "", 200, "/upload"},
		} {
			c.send(fmt.Sprintf("%s %s HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s", test.method, test.path, len(test.body), test.body))
			if status, body, _ := c.answer(test.method); status != test.status || body != test.want {
				t.Fatalf("%s %s: %d %.100q", test.method, test.path, status, body)
			}
			if *engine != "h2" { // net/http ends the connection if the answer comes before it has read the end of the body.
				continue
			}
			c.send(fmt.Sprintf("%s %s HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", test.method, test.path, 1+len(test.body), test.body+"x"))
			if status, body, _ := c.answer(test.method); status != test.status || body != test.want {
				t.Fatalf("chunked %s %s: %d %.100q", test.method, test.path, status, body)
			}
		}
		// All at once, in order.
		var all strings.Builder
		for i := range 20 {
			fmt.Fprintf(&all, getRequest, fmt.Sprintf("/%d", i))
		}
		c.send(all.String())
		for i := range 20 {
			if _, body, _ := c.answer("GET"); body != fmt.Sprintf("/%d", i) {
				t.Fatalf("%d: %q", i, body)
			}
		}
	}
}

// TestMatchedAndUnmatchedRequestsShareAConnection, in any order, and all at once.
func TestMatchedAndUnmatchedRequestsShareAConnection(t *testing.T) {
	t.Parallel()
	for _, useTLS := range []bool{false, true} {
		upstream, l := startListener(t, nil)
		target := startTarget(t, "target", targetclient.KindWebhook, true, nil)
		var so proxy.ServerOptions
		if useTLS {
			so.TLS = certificates().server.Clone()
		}
		matched := withExecutions(t, targetsOf(target), on(t, "request"+deleteUser, "target"))
		g := startGatewayServer(t, upstream, func(o *proxy.Options) { matched(o); o.Schema = demoSchema }, so)
		c := dialHTTP1(t, g)
		var sent strings.Builder
		for i := range 10 {
			fmt.Fprintf(&sent, "DELETE /v2/users/%d HTTP/1.1\r\nHost: h\r\n\r\n", i)
			fmt.Fprintf(&sent, "POST /v2/sessions HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
			fmt.Fprintf(&sent, "POST /v2/users/human HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}")
		}
		c.send(sent.String())
		for range 30 {
			if status, body, _ := c.answer("POST"); status != 200 {
				t.Fatalf("%d %s", status, body)
			}
		}
		if got := l.take(); len(got) != 30 {
			t.Errorf("upstream got %d", len(got))
		}
		if got := len(target.received()); got != 10 {
			t.Errorf("target got %d", got)
		}
	}
}

// TestAClientThatLeavesCancelsItsRequest, on the relayed path as on the other.
func TestAClientThatLeavesCancelsItsRequest(t *testing.T) {
	t.Parallel()
	began, ended := make(chan struct{}), make(chan struct{})
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/streams" {
			_ = http.NewResponseController(w).Flush()
		}
		began <- struct{}{}
		<-r.Context().Done()
		ended <- struct{}{}
	})
	for _, useTLS := range []bool{false, true} {
		var so proxy.ServerOptions
		if useTLS {
			so.TLS = certificates().server.Clone()
		}
		g := startGatewayServer(t, startHTTP1(t, useTLS, h), nil, so)
		for _, head := range []string{
			"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
			"GET /streams HTTP/1.1\r\nHost: h\r\n\r\n",
			"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + "10000\r\n" + strings.Repeat("x", 0x10000) + "\r\n0\r\n\r\n",
		} {
			c := dialHTTP1(t, g)
			c.send(head)
			<-began
			_ = c.conn.Close()
			<-ended
			if got := g.observed.next(t); got.code != "499" && !(strings.Contains(head, "/streams") && got.code != "200") {
				t.Errorf("tls %v, %.20q: observed %v", useTLS, head, got)
			}
		}
	}
}

// TestRequestsThatMayHaveBeenSeenAreNotRepeated: only methods that change nothing are, and only on connections that
// had been used before.
func TestRequestsThatMayHaveBeenSeenAreNotRepeated(t *testing.T) {
	t.Parallel()
	var seen atomic.Int32
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				r := bufio.NewReader(conn)
				for {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, req.Body)
					if req.URL.Path == "/drop" {
						seen.Add(1)
						return
					}
					_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				}
			}()
		}
	}()
	g := startGateway(t, "http://"+ln.Addr().String(), nil)
	for _, test := range []struct {
		method string
		reused bool
		want   int32
	}{
		{"GET", false, 1}, {"POST", false, 1}, {"GET", true, 2}, {"HEAD", true, 2}, {"POST", true, 1}, {"PUT", true, 1}, {"DELETE", true, 1},
	} {
		seen.Store(0)
		c := dialHTTP1(t, g)
		if test.reused {
			c.send(fmt.Sprintf(getRequest, "/"))
			c.answer("GET")
		}
		c.send(test.method + " /drop HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
		if status, _, _ := c.answer(test.method); status != http.StatusBadGateway {
			t.Errorf("%v: status %d", test, status)
		}
		if got := seen.Load(); got != test.want {
			t.Errorf("%v: sent %d times", test, got)
		}
	}
}

// TestAnAnswerThatNobodyAskedForIsNotDelivered: what an idle connection of the upstream says, or says too much, is not
// taken for the answer to the next request.
func TestAnAnswerThatNobodyAskedForIsNotDelivered(t *testing.T) {
	t.Parallel()
	if *engine != "h2" { // There it is a race.
		return
	}
	const poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
	said := make(chan struct{}, 16)
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				r := bufio.NewReader(conn)
				for {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, req.Body)
					if req.URL.Path == "/at-once" {
						_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"+poison)
						continue
					}
					_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
					time.Sleep(5 * time.Millisecond) // The answer has been passed on by then.
					_, _ = io.WriteString(conn, poison)
					said <- struct{}{}
				}
			}()
		}
	}()
	g := startGateway(t, "http://"+ln.Addr().String(), nil)
	c := dialHTTP1(t, g)
	for i := range 20 {
		c.send("POST /at-once HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
		if status, body, _ := c.answer("POST"); status != 200 || body != "ok" {
			t.Fatalf("%d: %d %q", i, status, body)
		}
		c.send("POST /late HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
		if status, body, _ := c.answer("POST"); status != 200 || body != "ok" {
			t.Fatalf("%d: %d %q", i, status, body)
		}
		<-said
	}
}

// TestConnectionsAreKeptOnBothSides: requests one after the other need one connection to the upstream.
func TestConnectionsAreKeptOnBothSides(t *testing.T) {
	t.Parallel()
	var opened atomic.Int32
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	g := startGateway(t, s.URL, nil)
	for range 3 {
		c := dialHTTP1(t, g)
		for range 10 {
			c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello")
			if _, body, _ := c.answer("POST"); body != "hello" {
				t.Fatalf("%q", body)
			}
		}
	}
	if n := opened.Load(); n > 3 {
		t.Errorf("%d connections", n)
	}
}

// TestDrainOverHTTP1: what is on its way is answered, with the end of the connection; idle connections end at once.
func TestDrainOverHTTP1(t *testing.T) {
	t.Parallel()
	began, proceed := make(chan struct{}), make(chan struct{})
	g := startGateway(t, startWeb(t, false, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			began <- struct{}{}
			<-proceed
		}
		_, _ = io.WriteString(w, "done")
	})), nil)
	idle, busy := dialHTTP1(t, g), dialHTTP1(t, g)
	idle.send(fmt.Sprintf(getRequest, "/"))
	idle.answer("GET")
	busy.send(fmt.Sprintf(getRequest, "/slow"))
	<-began
	drained := make(chan int, 1)
	go func() { drained <- g.server.Drain(testContext(t)) }()
	idle.ended()
	close(proceed)
	status, body, header := busy.answer("GET")
	if status != 200 || body != "done" || header.Get("Connection") != "close" {
		t.Errorf("%d %q %v", status, body, header)
	}
	busy.ended()
	if cut := <-drained; cut != 0 {
		t.Errorf("%d were cut", cut)
	}
}

// TestAnUpstreamThatOnlySpeaksHTTP2OverTLS is reached all the same.
func TestAnUpstreamThatOnlySpeaksHTTP2OverTLS(t *testing.T) {
	t.Parallel()
	config := certificates().server.Clone()
	config.NextProtos = []string{"h2"}
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	s := &http.Server{TLSConfig: config, Protocols: &protocols, ReadHeaderTimeout: testTimeout, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, r.Proto)
	})}
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() { defer close(served); _ = s.ServeTLS(ln, "", "") }()
	t.Cleanup(func() { _ = s.Close(); <-served })
	g := startGateway(t, "https://"+ln.Addr().String(), nil)
	c := dialHTTP1(t, g)
	for range 3 {
		c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello")
		if status, body, _ := c.answer("POST"); status != 200 || body != "HTTP/2.0" {
			t.Errorf("%d %q", status, body)
		}
	}
}

// TestAnEarlyAnswerEndsAnUpload: the client gets it although it has not sent everything.
func TestAnEarlyAnswerEndsAnUpload(t *testing.T) {
	t.Parallel()
	g := startGateway(t, startWeb(t, false, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		http.Error(w, "too much", http.StatusRequestEntityTooLarge)
	})), nil)
	for _, framing := range []string{"Content-Length: 10000000", "Transfer-Encoding: chunked"} {
		c := dialHTTP1(t, g)
		c.send("POST / HTTP/1.1\r\nHost: h\r\n" + framing + "\r\n\r\n")
		if strings.HasPrefix(framing, "T") {
			c.send("5\r\nhello\r\n")
		}
		if status, body, _ := c.answer("POST"); status != http.StatusRequestEntityTooLarge || body != "too much\n" {
			t.Errorf("%s: %d %q", framing, status, body)
		}
		if *engine == "h2" {
			c.ended()
		}
	}
}

// TestSlowRequestsOfHTTP1: a head that takes too long is answered, a body that is slow passes as it comes.
func TestSlowRequestsOfHTTP1(t *testing.T) {
	t.Parallel()
	g := startGatewayServer(t, startWeb(t, false, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })), nil,
		proxy.ServerOptions{ReadHeaderTimeout: 200 * time.Millisecond})
	c := dialHTTP1(t, g)
	c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n")
	for _, b := range "hello" {
		time.Sleep(60 * time.Millisecond) // Longer than the head may take, in all.
		c.send(string(b))
	}
	if status, body, _ := c.answer("POST"); status != 200 || body != "hello" {
		t.Errorf("%d %q", status, body)
	}
	c.send("GET / HTTP/1.1\r\nHost:")
	if *engine == "h2" {
		if status, _, _ := c.answer("GET"); status != http.StatusRequestTimeout {
			t.Errorf("status %d", status)
		}
	}
	c.ended()
}

// TestDrainWaitsForAMatchedRequest that a target is being asked about, on a connection that had others before.
func TestDrainWaitsForAMatchedRequest(t *testing.T) {
	t.Parallel()
	began, proceed := make(chan struct{}), make(chan struct{})
	upstream, _ := startListener(t, nil)
	target := startTarget(t, "target", targetclient.KindWebhook, true, func(envelope) (int, string) {
		began <- struct{}{}
		<-proceed
		return 200, ""
	})
	matched := withExecutions(t, targetsOf(target), on(t, "request"+deleteUser, "target"))
	g := startGateway(t, upstream, func(o *proxy.Options) { matched(o); o.Schema = demoSchema })
	c := dialHTTP1(t, g)
	c.send(fmt.Sprintf(getRequest, "/ui"))
	c.answer("GET")
	c.send("DELETE /v2/users/5 HTTP/1.1\r\nHost: h\r\n\r\n")
	<-began
	drained := make(chan int, 1)
	go func() { drained <- g.server.Drain(testContext(t)) }()
	waitRefused(t, g.addr)
	close(proceed)
	if status, body, _ := c.answer("DELETE"); status != 200 {
		t.Errorf("%d %s", status, body)
	}
	c.ended()
	if cut := <-drained; cut != 0 {
		t.Errorf("%d were cut", cut)
	}
}
