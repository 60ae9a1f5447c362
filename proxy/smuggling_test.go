package proxy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/execgate/execgate/proxy"
)

// strictUpstream takes down every request that it sees, and answers it.
type strictUpstream struct {
	addr string
	mu   sync.Mutex
	seen []string
}

func startStrictUpstream(t *testing.T) *strictUpstream {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := &strictUpstream{addr: ln.Addr().String()}
	var serving sync.WaitGroup
	t.Cleanup(func() { _ = ln.Close(); serving.Wait() })
	serving.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = conn.Close() })
			serving.Go(func() { u.serve(conn) })
		}
	})
	return u
}

func (u *strictUpstream) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	r := bufio.NewReader(conn)
	for {
		if _, err := r.Peek(1); err != nil {
			return
		}
		req, err := http.ReadRequest(r)
		if err != nil {
			u.note("not a request")
			return
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			u.note(req.Method + " " + req.RequestURI + " broken off")
			return
		}
		u.note(fmt.Sprintf("%s %s %s %q", req.Method, req.RequestURI, req.Host, body))
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	}
}

func (u *strictUpstream) note(s string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.seen = append(u.seen, s)
}

func (u *strictUpstream) take() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	seen := u.seen
	u.seen = nil
	return seen
}

// statuses reads answers until the connection ends.
func statuses(t *testing.T, conn net.Conn) (list []int) {
	t.Helper()
	r := bufio.NewReader(conn)
	for {
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			return list
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		list = append(list, res.StatusCode)
	}
}

// smuggled is what must never be taken for a request.
const smuggled = "GET /smuggled HTTP/1.1\r\nHost: s\r\n\r\n"

// TestSmuggling sends requests that servers and proxies are known to read in different ways. The upstream sees one
// request, as it was meant, or none, and then the client is told why.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	const post = "POST /x HTTP/1.1\r\nHost: h\r\n"
	const end = "Connection: close\r\n\r\n"
	one := func(body string) string { return fmt.Sprintf("POST /x h %q", body) }
	for _, test := range []struct {
		name, sent string
		want       []int    // of the engine of package h1
		seen       []string // by the upstream then
		plain      []int    // of net/http, where it is more lenient
		plainSeen  []string
		waits      bool // net/http waits for more
	}{
		{name: "a request", sent: post + "Content-Length: 3\r\n" + end + "abc", want: []int{200}, seen: []string{one("abc")}},
		{name: "a chunked request", sent: post + "Transfer-Encoding: chunked\r\n" + end + "3\r\nabc\r\n0\r\n\r\n", want: []int{200}, seen: []string{one("abc")}},
		{name: "two requests at once", sent: post + "Content-Length: 3\r\n\r\nabc" + post + "Content-Length: 0\r\n" + end, want: []int{200, 200}, seen: []string{one("abc"), one("")}},
		{name: "CL.TE", sent: post + "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n" + end + "0\r\n\r\nG" + smuggled, want: []int{400},
			plain: []int{200}, plainSeen: []string{one("")}},
		{name: "TE.CL", sent: post + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n" + end + "24\r\n" + smuggled + "\r\n0\r\n\r\n", want: []int{400},
			plain: []int{400}, plainSeen: []string{"POST /x broken off"}},
		{name: "TE xchunked", sent: post + "Transfer-Encoding: xchunked\r\n" + end + smuggled, want: []int{501}},
		{name: "TE chunked twice", sent: post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n" + end + "0\r\n\r\n", want: []int{501}},
		{name: "TE in a list", sent: post + "Transfer-Encoding: gzip, chunked\r\n" + end + "0\r\n\r\n", want: []int{501}},
		{name: "TE chunked, chunked", sent: post + "Transfer-Encoding: chunked, chunked\r\n" + end + "0\r\n\r\n", want: []int{501}},
		{name: "TE identity", sent: post + "Transfer-Encoding: identity\r\nContent-Length: 3\r\n" + end + "abc", want: []int{501}},
		{name: "TE chunked and identity", sent: post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n" + end + "0\r\n\r\n", want: []int{501}},
		{name: "TE empty", sent: post + "Transfer-Encoding:\r\nContent-Length: 3\r\n" + end + "abc", want: []int{501}},
		{name: "TE with a vertical tab", sent: post + "Transfer-Encoding: \x0bchunked\r\n" + end + "0\r\n\r\n", want: []int{400}},
		{name: "TE with a space before the colon", sent: post + "Transfer-Encoding : chunked\r\n" + end + "0\r\n\r\n", want: []int{400}},
		{name: "TE on HTTP/1.0", sent: "POST /x HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled, want: []int{501},
			plain: []int{200}, plainSeen: []string{one("")}},
		{name: "TE in a folded line", sent: post + "X: y\r\n Transfer-Encoding: chunked\r\nContent-Length: 3\r\n" + end + "abc", want: []int{400},
			plain: []int{200}, plainSeen: []string{one("abc")}},
		{name: "a folded value of TE", sent: post + "Transfer-Encoding:\r\n chunked\r\n" + end + "0\r\n\r\n", want: []int{501}, plain: []int{200}, plainSeen: []string{one("")}},
		{name: "a first line that is folded", sent: "POST /x HTTP/1.1\r\n X: y\r\nHost: h\r\n" + end, want: []int{400}},
		{name: "two lengths that differ", sent: post + "Content-Length: 3\r\nContent-Length: 4\r\n" + end + "abcd", want: []int{400}},
		{name: "two lengths that agree", sent: post + "Content-Length: 3\r\nContent-Length: 3\r\n" + end + "abc", want: []int{400}, plain: []int{200}, plainSeen: []string{one("abc")}},
		{name: "a list of lengths", sent: post + "Content-Length: 3, 3\r\n" + end + "abc", want: []int{400}},
		{name: "a negative length", sent: post + "Content-Length: -3\r\n" + end + "abc", want: []int{400}},
		{name: "a length with a plus", sent: post + "Content-Length: +3\r\n" + end + "abc", want: []int{400}},
		{name: "a hexadecimal length", sent: post + "Content-Length: 0x3\r\n" + end + "abc", want: []int{400}},
		{name: "a length with an exponent", sent: post + "Content-Length: 3e0\r\n" + end + "abc", want: []int{400}},
		{name: "an empty length", sent: post + "Content-Length:\r\n" + end + "abc", want: []int{400}},
		{name: "a length that overflows", sent: post + "Content-Length: 18446744073709551619\r\n" + end + "abc", want: []int{400}},
		{name: "a length that is longer still", sent: post + "Content-Length: 99999999999999999999999999999\r\n" + end + "abc", want: []int{400}},
		{name: "bare LF as an end of line", sent: "POST /x HTTP/1.1\nHost: h\nContent-Length: 0\nConnection: close\n\n", want: []int{400}, plain: []int{200}, plainSeen: []string{one("")}},
		{name: "bare LF after one header", sent: post + "X: y\nContent-Length: 3\r\n" + end + "abc", want: []int{400}, plain: []int{200}, plainSeen: []string{one("abc")}},
		{name: "bare CR in a value", sent: post + "X: y\rContent-Length: 3\r\nContent-Length: 0\r\n" + end, want: []int{400}},
		{name: "bare CR in the request line", sent: "POST /x HTTP/1.1\rX: y\r\nHost: h\r\n" + end, want: []int{400}},
		{name: "NUL in a value", sent: post + "X: a\x00b\r\n" + end, want: []int{400}},
		{name: "a control character in a value", sent: post + "X: a\x01b\r\n" + end, want: []int{400}},
		{name: "DEL in a value", sent: post + "X: a\x7fb\r\n" + end, want: []int{400}},
		{name: "NUL in a name", sent: post + "X\x00Y: a\r\n" + end, want: []int{400}},
		{name: "a control character in a name", sent: post + "X\x02Y: a\r\n" + end, want: []int{400}},
		{name: "a space before the colon", sent: post + "Content-Length : 3\r\n" + end + "abc", want: []int{400}},
		{name: "a space in a name", sent: post + "X Y: a\r\n" + end, want: []int{400}},
		{name: "no name", sent: post + ": a\r\n" + end, want: []int{400}},
		{name: "no colon", sent: post + "Hello\r\n" + end, want: []int{400}},
		{name: "a name beyond ASCII", sent: post + "Ähm: a\r\n" + end, want: []int{400}},
		{name: "a chunk size that overflows", sent: post + "Transfer-Encoding: chunked\r\n" + end + "10000000000000003\r\nabc\r\n0\r\n\r\n", want: []int{400}, plainSeen: []string{"POST /x broken off"}},
		{name: "a chunk size with a sign", sent: post + "Transfer-Encoding: chunked\r\n" + end + "+3\r\nabc\r\n0\r\n\r\n", want: []int{400}, plainSeen: []string{"POST /x broken off"}},
		{name: "a chunk size with 0x", sent: post + "Transfer-Encoding: chunked\r\n" + end + "0x3\r\nabc\r\n0\r\n\r\n", want: []int{400}, plainSeen: []string{"POST /x broken off"}},
		{name: "no chunk size", sent: post + "Transfer-Encoding: chunked\r\n" + end + "\r\nabc\r\n0\r\n\r\n", want: []int{400}, plainSeen: []string{"POST /x broken off"}},
		{name: "a chunk that ends late", sent: post + "Transfer-Encoding: chunked\r\n" + end + "3\r\nabcd\r\n0\r\n\r\n", want: []int{400}, plainSeen: []string{"POST /x broken off"}},
		{name: "a chunk size behind LF", sent: post + "Transfer-Encoding: chunked\r\n" + end + "3\nabc\r\n0\r\n\r\n", want: []int{400}},
		{name: "chunk data that end in LF", sent: post + "Transfer-Encoding: chunked\r\n" + end + "3\r\nabc\n0\r\n\r\n", want: []int{400}, plainSeen: []string{"POST /x broken off"}},
		{name: "a chunk extension", sent: post + "Transfer-Encoding: chunked\r\n" + end + "3;a=\"b\"\r\nabc\r\n0;x\r\n\r\n", want: []int{200}, seen: []string{one("abc")}},
		{name: "a chunk extension with LF", sent: post + "Transfer-Encoding: chunked\r\n" + end + "3;\nabc\r\n0\r\n\r\n", want: []int{400}},
		{name: "a chunk extension with CR", sent: post + "Transfer-Encoding: chunked\r\n" + end + "3;a\rb\r\nabc\r\n0\r\n\r\n", want: []int{400}, plainSeen: []string{"POST /x broken off"}},
		{name: "a long chunk extension", sent: post + "Transfer-Encoding: chunked\r\n" + end + "3;" + strings.Repeat("x", 8<<10) + "\r\nabc\r\n0\r\n\r\n", want: []int{400}, plainSeen: []string{"POST /x broken off"}},
		{name: "trailers", sent: post + "Transfer-Encoding: chunked\r\n" + end + "3\r\nabc\r\n0\r\nX-Late: 1\r\nContent-Length: 5\r\nTransfer-Encoding: gzip\r\nHost: evil\r\n\r\n",
			want: []int{200}, seen: []string{one("abc")}},
		{name: "malformed trailers", sent: post + "Transfer-Encoding: chunked\r\n" + end + "3\r\nabc\r\n0\r\nX Y: 1\r\n\r\n", want: []int{400}, plain: []int{200}, plainSeen: []string{one("abc")}},
		{name: "trailers in bare LF", sent: post + "Transfer-Encoding: chunked\r\n" + end + "3\r\nabc\r\n0\r\nX: 1\n\r\n", want: []int{400}, waits: true},
		{name: "the absolute form", sent: "POST http://h/x HTTP/1.1\r\nHost: other\r\nContent-Length: 3\r\n" + end + "abc", want: []int{200}, seen: []string{one("abc")}},
		{name: "no Host", sent: "POST /x HTTP/1.1\r\n" + end, want: []int{400}},
		{name: "two Hosts", sent: post + "Host: h\r\n" + end, want: []int{400}},
		{name: "a Host with a path", sent: "POST /x HTTP/1.1\r\nHost: h/x@y\r\n" + end, want: []int{400}, plain: []int{400}},
		{name: "a Host with a space", sent: "POST /x HTTP/1.1\r\nHost: a b\r\n" + end, want: []int{400}},
		{name: "a target with a tab", sent: "POST /x\ty HTTP/1.1\r\nHost: h\r\n" + end, want: []int{400}},
		{name: "a target with a space", sent: "POST /x y HTTP/1.1\r\nHost: h\r\n" + end, want: []int{400}},
		{name: "two spaces in the request line", sent: "POST  /x HTTP/1.1\r\nHost: h\r\n" + end, want: []int{400}},
		{name: "a tab in the request line", sent: "POST\t/x HTTP/1.1\r\nHost: h\r\n" + end, want: []int{400}},
		{name: "a method that is none", sent: "PO(ST /x HTTP/1.1\r\nHost: h\r\n" + end, want: []int{400}},
		{name: "a higher minor version", sent: "POST /x HTTP/1.2\r\nHost: h\r\n" + end, want: []int{200}, seen: []string{one("")}},
		{name: "no version", sent: "GET /x\r\n" + "\r\n", want: []int{400}},
		{name: "a version with two digits", sent: "POST /x HTTP/1.10\r\nHost: h\r\n" + end, want: []int{400}},
		{name: "the preface's version in a request", sent: "POST /x HTTP/2.0\r\nHost: h\r\n" + end, want: []int{505}},
		{name: "Connection that names the length", sent: post + "Content-Length: 3\r\nConnection: close, Content-Length\r\n\r\nabc", want: []int{200}, seen: []string{one("abc")}},
		{name: "Connection that names Host", sent: post + "Content-Length: 3\r\nConnection: close, Host\r\n\r\nabc", want: []int{200}, seen: []string{one("abc")}},
		{name: "an upgrade with a body", sent: post + "Upgrade: h2c\r\nConnection: close, Upgrade\r\nContent-Length: 3\r\n\r\nabc", want: []int{200}, seen: []string{one("abc")}},
		{name: "headers without end", sent: post + strings.Repeat("X-Y: z\r\n", 64<<10), want: []int{431}},
		{name: "a line without end", sent: post + "X-Y: " + strings.Repeat("z", 512<<10), want: []int{431}},
		{name: "a target without end", sent: "POST /" + strings.Repeat("z", 512<<10), want: []int{431}},
		{name: "many headers", sent: post + strings.Repeat("A: b\r\n", 2000) + end, want: []int{431}, plain: []int{200}, plainSeen: []string{one("")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if test.waits && *engine != "h2" {
				return
			}
			up := startStrictUpstream(t)
			g := startGatewayServer(t, "http://"+up.addr, nil, proxy.ServerOptions{MaxHeaderBytes: 64 << 10})
			conn := dialTCP(t, g.addr, nil)
			go func() { _, _ = io.WriteString(conn, test.sent) }()
			want, wantSeen := test.want, test.seen
			if *engine != "h2" {
				if test.plain != nil {
					want = test.plain
				}
				if test.plainSeen != nil {
					wantSeen = test.plainSeen
				}
			}
			if got := statuses(t, conn); !slices.Equal(got, want) {
				t.Errorf("answers %v, want %v", got, want)
			}
			_ = g.server.Close()
			g.proxy.Close()
			waitFor(t, func() bool { return g.proxy.InFlight() == 0 })
			seen := up.take()
			for _, s := range seen {
				if strings.Contains(s, "smuggled HTTP") || strings.HasPrefix(s, "GET /smuggled") || s == "not a request" {
					t.Errorf("upstream saw %q", seen)
				}
			}
			if len(wantSeen) == 0 && len(seen) == 1 && strings.HasSuffix(seen[0], "broken off") {
				return // It was begun, and never taken for whole.
			}
			if !slices.Equal(seen, wantSeen) && !(len(seen) == 0 && len(wantSeen) == 1 && strings.HasSuffix(wantSeen[0], "broken off")) {
				t.Errorf("upstream saw %q, want %q", seen, wantSeen)
			}
		})
	}
}

// waitFor waits until something is the case.
func waitFor(t *testing.T, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(testTimeout); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen")
		}
	}
}
