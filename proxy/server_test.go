package proxy_test

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/execgate/execgate/proxy"
)

func TestSlowHeadersAreGivenUp(t *testing.T) {
	t.Parallel()
	for _, useTLS := range []bool{false, true} {
		so := proxy.ServerOptions{ReadHeaderTimeout: 100 * time.Millisecond}
		if useTLS {
			so.TLS = certificates().server
		}
		g := startGatewayServer(t, startWeb(t, false, rawEcho()), nil, so)
		for _, sent := range []string{"", "GET / HTTP/1.1\r\nHost: h\r\nX-Slow: ", "PRI * HTTP/2.0\r\n"} {
			conn := dialTCP(t, g.addr, nil)
			if useTLS {
				sent = "" // Not even a handshake.
			}
			if _, err := io.WriteString(conn, sent); err != nil {
				t.Fatal(err)
			}
			// What matters is that the server ends it, not what it says before.
			if _, err := io.Copy(io.Discard, conn); err != nil && !strings.Contains(err.Error(), "reset") {
				t.Errorf("tls %v, after %q: %v", useTLS, sent, err)
			}
		}
	}
}

func TestHeadersAreBounded(t *testing.T) {
	t.Parallel()
	g := startGatewayServer(t, startWeb(t, false, rawEcho()), nil, proxy.ServerOptions{MaxHeaderBytes: 16 << 10})
	conn := dialTCP(t, g.addr, nil)
	go func() {
		_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: h\r\nX-Big: "+strings.Repeat("x", 64<<10)+"\r\n\r\n")
	}()
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("status %d", res.StatusCode)
	}
}

// TestUpstreamConnectionsThatWentStaleAreReplaced: a request that may be repeated is tried again on a new connection.
func TestUpstreamConnectionsThatWentStaleAreReplaced(t *testing.T) {
	t.Parallel()
	// The upstream ends each connection after one answer without saying so.
	addr, seen := rawUpstream(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	g := startGateway(t, "http://"+addr, nil)
	for range 50 {
		res := get(t, webClient(t), "GET", g.url()+"/", nil)
		if got := readAll(t, res.Body); res.StatusCode != 200 || got != "ok" {
			t.Fatalf("%d %q", res.StatusCode, got)
		}
		<-seen
	}
}
