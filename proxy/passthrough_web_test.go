package proxy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/execgate/execgate/proxy"
)

// eachWebTransport runs a test over plain and TLS connections on both sides. The client of the TLS front speaks HTTP/2.
func eachWebTransport(t *testing.T, h http.Handler, test func(t *testing.T, g *gateway, c *http.Client)) {
	t.Helper()
	for _, front := range []bool{false, true} {
		for _, back := range []bool{false, true} {
			t.Run(fmt.Sprintf("client tls %v upstream tls %v", front, back), func(t *testing.T) {
				t.Parallel()
				var so proxy.ServerOptions
				if front {
					so.TLS = certificates().server
				}
				test(t, startGatewayServer(t, startWeb(t, back, h), nil, so), webClient(t))
			})
		}
	}
}

func get(t *testing.T, c *http.Client, method, url string, body io.Reader, header ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(testContext(t), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

func readAll(t *testing.T, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestRequestsReachTheUpstreamAsTheyAre(t *testing.T) {
	t.Parallel()
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Seen", fmt.Sprintf("%s %s %s te=%q cl=%d", r.Method, r.RequestURI, r.Host, r.TransferEncoding, r.ContentLength))
		w.Header()["Seen-Headers"] = headerNames(r.Header)
		w.Header().Set("Seen-Trailer", r.Trailer.Get("X-Trailer"))
		_, _ = w.Write(body)
	})
	eachWebTransport(t, h, func(t *testing.T, g *gateway, c *http.Client) {
		res := get(t, c, "PATCH", g.url()+"/a%2Fb//c;d?x=%zz&&y", strings.NewReader("the body"),
			"User-Agent", "", "X-Multi", "1", "X-Multi", "2", "Accept-Encoding", "br")
		if got := readAll(t, res.Body); got != "the body" {
			t.Errorf("body %q", got)
		}
		if got, want := res.Header.Get("Seen"), "PATCH /a%2Fb//c;d?x=%zz&&y "+g.addr+" te=[] cl=8"; got != want {
			t.Errorf("seen %q, want %q", got, want)
		}
		want := []string{"Accept-Encoding", "Content-Length", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Multi", "X-Multi"}
		if got := res.Header["Seen-Headers"]; !slices.Equal(got, want) {
			t.Errorf("headers %q, want %q", got, want)
		}
		if got := g.observed.next(t); got != (request{"http", "other", "200"}) {
			t.Errorf("observed %v", got)
		}

		// A body without length, with a trailer.
		r, err := http.NewRequestWithContext(testContext(t), "POST", g.url()+"/up?", io.NopCloser(strings.NewReader("chunks")))
		if err != nil {
			t.Fatal(err)
		}
		r.Trailer = http.Header{"X-Trailer": {"late"}}
		res, err = c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		if got := readAll(t, res.Body); got != "chunks" {
			t.Errorf("body %q", got)
		}
		if got := res.Header.Get("Seen"); !strings.HasPrefix(got, "POST /up? ") || !strings.HasSuffix(got, "cl=-1") {
			t.Errorf("seen %q", got)
		}
		if got := res.Header.Get("Seen-Trailer"); got != "late" {
			t.Errorf("trailer %q", got)
		}
	})
}

func headerNames(h http.Header) []string {
	var names []string
	for name, values := range h {
		for range values {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func TestAnswersReachTheClientAsTheyAre(t *testing.T) {
	t.Parallel()
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		switch r.URL.Path {
		case "/plain":
			h["Date"], h["Content-Type"] = nil, nil
			h["Set-Cookie"] = []string{"a=1", "b=2"}
			_, _ = io.WriteString(w, "<html>")
		case "/head":
			h.Set("Content-Length", "12345")
			h.Set("Content-Type", "x/y")
		case "/204":
			w.WriteHeader(http.StatusNoContent)
		case "/304":
			h.Set("Etag", `"e"`)
			w.WriteHeader(http.StatusNotModified)
		case "/empty":
			h.Set("Content-Length", "0")
		case "/trailers":
			h.Set("Trailer", "X-Announced, X-Never")
			_, _ = io.WriteString(w, "body")
			h.Set("X-Announced", "1")
			h.Set(http.TrailerPrefix+"X-Surprise", "2")
		case "/hop":
			h.Set("Keep-Alive", "timeout=5")
			h.Set("Proxy-Authenticate", "Basic")
			h.Set("X-Stays", "1")
		}
	})
	eachWebTransport(t, h, func(t *testing.T, g *gateway, c *http.Client) {
		res := get(t, c, "GET", g.url()+"/plain", nil)
		if got := readAll(t, res.Body); got != "<html>" {
			t.Errorf("body %q", got)
		}
		if got := headerNames(res.Header); !slices.Equal(got, []string{"Content-Length", "Set-Cookie", "Set-Cookie"}) {
			t.Errorf("headers %q", got)
		}
		res = get(t, c, "HEAD", g.url()+"/head", nil)
		if res.ContentLength != 12345 || res.Header.Get("Content-Type") != "x/y" {
			t.Errorf("HEAD: %d, %v", res.ContentLength, res.Header)
		}
		res = get(t, c, "GET", g.url()+"/204", nil)
		if res.StatusCode != 204 || readAll(t, res.Body) != "" || res.Header.Get("Content-Length") != "" {
			t.Errorf("204: %v", res)
		}
		res = get(t, c, "GET", g.url()+"/304", nil)
		if res.StatusCode != 304 || res.Header.Get("Etag") != `"e"` {
			t.Errorf("304: %v", res)
		}
		res = get(t, c, "GET", g.url()+"/empty", nil)
		if res.ContentLength != 0 || readAll(t, res.Body) != "" {
			t.Errorf("empty: %v", res)
		}
		res = get(t, c, "GET", g.url()+"/trailers", nil)
		if _, ok := res.Trailer["X-Announced"]; !ok {
			t.Errorf("announced %v", res.Trailer)
		}
		if got := readAll(t, res.Body); got != "body" {
			t.Errorf("body %q", got)
		}
		if res.Trailer.Get("X-Announced") != "1" || res.Trailer.Get("X-Surprise") != "2" {
			t.Errorf("trailers %v", res.Trailer)
		}
		res = get(t, c, "GET", g.url()+"/hop", nil)
		if res.Header.Get("Keep-Alive")+res.Header.Get("Proxy-Authenticate") != "" || res.Header.Get("X-Stays") != "1" {
			t.Errorf("hop-by-hop: %v", res.Header)
		}
	})
}

func TestServerSentEventsArriveAsTheyAreSent(t *testing.T) {
	t.Parallel()
	next := make(chan string)
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		rc := http.NewResponseController(w)
		_ = rc.Flush()
		for e := range next {
			if e == "" {
				return
			}
			_, _ = io.WriteString(w, e)
			_ = rc.Flush()
		}
	})
	eachWebTransportSerial(t, h, func(t *testing.T, g *gateway, c *http.Client) {
		res := get(t, c, "GET", g.url()+"/events", nil) // The headers come before any event.
		r := bufio.NewReader(res.Body)
		for i := range 3 {
			e := fmt.Sprintf("data: %d\n", i)
			next <- e
			if got, err := r.ReadString('\n'); err != nil || got != e {
				t.Fatalf("event %q, %v", got, err)
			}
		}
		next <- ""
		if _, err := r.ReadByte(); err != io.EOF {
			t.Errorf("end: %v", err)
		}
	})
}

func eachWebTransportSerial(t *testing.T, h http.Handler, test func(t *testing.T, g *gateway, c *http.Client)) {
	t.Helper()
	for _, front := range []bool{false, true} {
		for _, back := range []bool{false, true} {
			var so proxy.ServerOptions
			if front {
				so.TLS = certificates().server
			}
			test(t, startGatewayServer(t, startWeb(t, back, h), nil, so), webClient(t))
		}
	}
}

func TestInformationalAnswersPass(t *testing.T) {
	t.Parallel()
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(body)
	})
	eachWebTransport(t, h, func(t *testing.T, g *gateway, c *http.Client) {
		var mu sync.Mutex
		var codes []int
		ctx := httptrace.WithClientTrace(testContext(t), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			mu.Lock()
			defer mu.Unlock()
			if code == 103 && h.Get("Link") == "" {
				t.Error("103 without its header")
			}
			codes = append(codes, code)
			return nil
		}})
		r, err := http.NewRequestWithContext(ctx, "POST", g.url()+"/", strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Expect", "100-continue")
		res, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		if got := readAll(t, res.Body); got != "body" {
			t.Errorf("body %q", got)
		}
		if h := res.Header.Get("Link"); h != "" {
			t.Errorf("103's header in the final answer: %q", h)
		}
		mu.Lock()
		defer mu.Unlock()
		if !slices.Contains(codes, 103) {
			t.Errorf("informational answers %v", codes)
		}
	})
}

func TestExpectationIsTheUpstreamsToRefuse(t *testing.T) {
	t.Parallel()
	g := startGateway(t, startWeb(t, false, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "too big", http.StatusRequestEntityTooLarge)
	})), nil)
	conn := dialTCP(t, g.addr, nil)
	_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("status %d", res.StatusCode)
	}
}

func TestEarlyAnswerReachesAClientThatStillSends(t *testing.T) {
	t.Parallel()
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		_ = rc.EnableFullDuplex()
		_, _ = io.WriteString(w, "early\n")
		_ = rc.Flush()
		line, _ := bufio.NewReader(r.Body).ReadString('\n')
		_, _ = io.WriteString(w, "then "+line)
	})
	eachWebTransport(t, h, func(t *testing.T, g *gateway, c *http.Client) {
		body, send := io.Pipe()
		defer func() { _ = send.Close() }()
		res := get(t, c, "POST", g.url()+"/", body)
		r := bufio.NewReader(res.Body)
		if got, err := r.ReadString('\n'); err != nil || got != "early\n" {
			t.Fatalf("%q, %v", got, err)
		}
		go func() { _, _ = io.WriteString(send, "more\n") }()
		if got, err := r.ReadString('\n'); err != nil || got != "then more\n" {
			t.Fatalf("%q, %v", got, err)
		}
	})
}

func TestTargetsOfEveryFormPass(t *testing.T) {
	t.Parallel()
	g := startGateway(t, startWeb(t, false, rawEcho()), nil)
	for _, test := range []struct{ line, want string }{
		{"GET http://other.example.com/path?q=1 HTTP/1.1", "GET /path?q=1 other.example.com"},
		{"GET http://other.example.com?q=1 HTTP/1.1", "GET /?q=1 other.example.com"},
		{"GET /a|b^c\"<> HTTP/1.1", "GET /a|b^c\"<> host.example.com"},
		{"GET /%61%2f%2F/../x HTTP/1.1", "GET /%61%2f%2F/../x host.example.com"},
		{"GET /x? HTTP/1.1", "GET /x? host.example.com"},
		{"GET //twice//x HTTP/1.1", "GET //twice//x host.example.com"},
		{"GET //a%2Fb/../?q=%zz HTTP/1.1", "GET //a%2Fb/../?q=%zz host.example.com"},
		{"GET //twice? HTTP/1.1", "GET //twice? host.example.com"},
		// What Go's client would write otherwise goes in absolute form, which every server must accept.
		{"GET //twice|x?q HTTP/1.1", "GET http://host.example.com//twice|x?q host.example.com"},
		{"DELETE /with-body HTTP/1.1", "DELETE /with-body host.example.com"},
	} {
		conn := dialTCP(t, g.addr, nil)
		_, _ = io.WriteString(conn, test.line+"\r\nHost: host.example.com\r\nConnection: close, X-Listed\r\nX-Listed: secret\r\nTE: gzip\r\n\r\n")
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := res.Header.Get("Seen"); got != test.want {
			t.Errorf("%s: seen %q, want %q", test.line, got, test.want)
		}
		if got := res.Header.Get("Seen-Names"); strings.Contains(got, "X-Listed") || strings.Contains(got, "Te") || strings.Contains(got, "User-Agent") {
			t.Errorf("%s: headers %s", test.line, got)
		}
		_ = res.Body.Close()
	}
}

// rawEcho shows the request line as it was.
func rawEcho() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Seen", r.Method+" "+r.RequestURI+" "+r.Host)
		w.Header().Set("Seen-Names", fmt.Sprint(headerNames(r.Header)))
	})
}

func TestOptionsStarPasses(t *testing.T) {
	t.Parallel()
	ln, seen := rawUpstream(t, "HTTP/1.1 204 No Content\r\nAllow: GET\r\n\r\n")
	g := startGateway(t, "http://"+ln, nil)
	conn := dialTCP(t, g.addr, nil)
	_, _ = io.WriteString(conn, "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != 204 || res.Header.Get("Allow") != "GET" {
		t.Errorf("%v", res)
	}
	if got := <-seen; !strings.HasPrefix(got, "OPTIONS * HTTP/1.1\r\n") {
		t.Errorf("seen %q", got)
	}
}

// rawUpstream answers one request with the given bytes, and tells what it got.
func rawUpstream(t *testing.T, answer string) (addr string, seen chan string) {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	seen = make(chan string, 16)
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				var head strings.Builder
				r := bufio.NewReader(conn)
				for {
					line, err := r.ReadString('\n')
					if err != nil {
						return
					}
					head.WriteString(line)
					if line == "\r\n" {
						break
					}
				}
				seen <- head.String()
				_, _ = io.WriteString(conn, answer)
			}()
		}
	}()
	return ln.Addr().String(), seen
}

func TestConnectIsRefused(t *testing.T) {
	t.Parallel()
	g := startGateway(t, startWeb(t, false, rawEcho()), nil)
	conn := dialTCP(t, g.addr, nil)
	_, _ = io.WriteString(conn, "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: "CONNECT"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("status %d", res.StatusCode)
	}
}

func TestUnreachableUpstreamIsBadGateway(t *testing.T) {
	t.Parallel()
	g := startGateway(t, "http://"+closedPort(t), nil)
	res := get(t, webClient(t), "GET", g.url()+"/ui", nil)
	if res.StatusCode != http.StatusBadGateway || !strings.HasPrefix(res.Header.Get("Content-Type"), "text/plain") {
		t.Errorf("%d %v", res.StatusCode, res.Header)
	}
	if got := readAll(t, res.Body); got != "upstream is not available\n" {
		t.Errorf("body %q", got)
	}
	if got := g.observed.next(t); got != (request{"http", "other", "502"}) {
		t.Errorf("observed %v", got)
	}
}

func TestCutAnswersAreNotTakenForWhole(t *testing.T) {
	t.Parallel()
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	eachWebTransport(t, h, func(t *testing.T, g *gateway, c *http.Client) {
		res := get(t, c, "GET", g.url()+"/", nil)
		if b, err := io.ReadAll(res.Body); err == nil {
			t.Errorf("%q was taken for whole", b)
		}
		if got := g.observed.next(t); got != (request{"http", "other", "502"}) {
			t.Errorf("observed %v", got)
		}
	})
}

// TestHugeBodiesPassInBoundedMemory is not parallel: it measures the heap.
func TestHugeBodiesPassInBoundedMemory(t *testing.T) {
	const size = 200 << 20
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Whatever comes goes back while it comes.
		rc := http.NewResponseController(w)
		_ = rc.EnableFullDuplex()
		n, _ := io.Copy(w, r.Body)
		if n != size {
			t.Errorf("the upstream got %d bytes", n)
		}
	})
	for _, useTLS := range []bool{false, true} {
		var so proxy.ServerOptions
		if useTLS {
			so.TLS = certificates().server
		}
		g := startGatewayServer(t, startWeb(t, useTLS, h), nil, so)
		stop := make(chan struct{})
		peak := make(chan uint64)
		var before runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		go func() {
			var most uint64
			for {
				select {
				case <-stop:
					peak <- most
					return
				case <-time.After(20 * time.Millisecond):
					var m runtime.MemStats
					runtime.ReadMemStats(&m)
					most = max(most, m.HeapInuse)
				}
			}
		}()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // The race detector is slow.
		r, err := http.NewRequestWithContext(ctx, "POST", g.url()+"/", io.LimitReader(zeros{}, size))
		if err != nil {
			t.Fatal(err)
		}
		c := webClient(t)
		c.Timeout = 0
		res, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		cancel()
		close(stop)
		used := int64(<-peak) - int64(before.HeapInuse)
		if err != nil || n != size {
			t.Errorf("tls %v: %d bytes back, %v", useTLS, n, err)
		}
		t.Logf("tls %v: heap grew by at most %d KiB for %d MiB both ways", useTLS, used>>10, size>>20)
		if used > 64<<20 {
			t.Errorf("heap grew by %d MiB", used>>20)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
