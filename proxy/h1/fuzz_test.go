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
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/execgate/execgate/proxy/h1"
)

// seenRequest is a request in a form that can be compared.
func seenRequest(r *http.Request) (string, error) {
	body, err := io.ReadAll(r.Body)
	return fmt.Sprintf("%s %s %q", r.Method, r.RequestURI, body), err
}

// seenBy returns the requests that net/http reads from b, as far as it does.
func seenBy(b []byte) (seen []string) {
	r := bufio.NewReader(bytes.NewReader(b))
	for {
		for { // As the engine, which ignores empty lines before a request.
			if p, _ := r.Peek(2); string(p) != "\r\n" {
				break
			}
			_, _ = r.Discard(2)
		}
		req, err := http.ReadRequest(r)
		if err != nil {
			return seen
		}
		s, err := seenRequest(req)
		if err != nil {
			return seen
		}
		seen = append(seen, s)
	}
}

// answerSeen is an upstream: it tells see of every request on conn and answers it, until conn ends. sent is what the client
// said. What net/http does not read as a request fails the test.
func answerSeen(t *testing.T, conn net.Conn, sent []byte, see func(request string)) {
	r := bufio.NewReader(conn)
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.ErrClosedPipe) &&
				!errors.Is(err, net.ErrClosed) && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("upstream saw no request: %v, of %q", err, sent)
			}
			return
		}
		s, err := seenRequest(req)
		if err != nil {
			return // It was broken off.
		}
		see(s)
		answer := "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
		if req.Method == http.MethodHead {
			answer = answer[:len(answer)-2]
		}
		_, _ = io.WriteString(conn, answer)
	}
}

// FuzzConn: whatever a client sends, the upstream sees the requests that net/http reads from it, or fewer, and nothing
// that is not a request; nothing panics, and everything ends.
func FuzzConn(f *testing.F) {
	for _, s := range []string{
		"GET /a HTTP/1.1\r\nHost: h\r\n\r\n",
		"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nHost: h\r\n\r\n",
		"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nX: y\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
		"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
		"GET /other HTTP/1.1\r\nHost: h\r\n\r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n",
		"POST /other HTTP/1.0\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nxyHEAD /a HTTP/1.1\r\nHost: h\r\n\r\n",
		"\r\n\r\nGET /a HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nX:\ty\r\n\r\n",
	} {
		f.Add([]byte(s), uint16(7))
	}
	f.Fuzz(func(t *testing.T, sent []byte, piece uint16) {
		var mu sync.Mutex
		var seen []string
		var upstreams sync.WaitGroup
		o := func(o *h1.Options) {
			o.MaxHeaderBytes = 16 << 10
			o.Upstream.Dial = func(context.Context, string) (net.Conn, error) {
				ours, theirs := net.Pipe()
				upstreams.Go(func() {
					defer func() { _ = theirs.Close() }()
					answerSeen(t, theirs, sent, func(s string) {
						mu.Lock()
						defer mu.Unlock()
						seen = append(seen, s)
					})
				})
				return ours, nil
			}
		}
		addr, e := startEngine(t, &told{}, "unused:1", o)
		_ = addr
		client, served := net.Pipe()
		ended := make(chan struct{})
		go func() { defer close(ended); e.ServeConn(served) }()
		go func() { _, _ = io.Copy(io.Discard, client) }()
		_ = client.SetDeadline(time.Now().Add(testTimeout))
		for rest := sent; len(rest) > 0; {
			n := min(len(rest), int(piece)+1)
			if _, err := client.Write(rest[:n]); err != nil {
				break
			}
			rest = rest[n:]
		}
		_ = client.Close()
		select {
		case <-ended:
		case <-time.After(testTimeout):
			t.Fatalf("%q does not end", sent)
		}
		e.Close()
		upstreams.Wait()
		want := seenBy(sent)
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
