package proxy_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/execgate/execgate/proxy"
)

func TestWebSocketUpgrade(t *testing.T) {
	t.Parallel()
	var open atomic.Int32
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Connection") != "Upgrade" || r.ProtoMajor != 1 {
			http.Error(w, "no upgrade", http.StatusBadRequest)
			return
		}
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		open.Add(1)
		defer func() { _ = conn.Close(); open.Add(-1) }()
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Accept: x\r\n\r\nhello ")
		_ = rw.Flush()
		for {
			line, err := rw.ReadString('\n')
			if err != nil {
				return
			}
			_, _ = rw.WriteString("echo " + line)
			_ = rw.Flush()
		}
	})
	for _, front := range []bool{false, true} {
		for _, back := range []bool{false, true} {
			t.Run(fmt.Sprintf("client tls %v upstream tls %v", front, back), func(t *testing.T) {
				t.Parallel()
				var so proxy.ServerOptions
				var config *tls.Config
				if front {
					so.TLS = certificates().server
					config = certificates().client()
					config.ServerName = "127.0.0.1"
				}
				g := startGatewayServer(t, startWeb(t, back, h), nil, so)
				conn := dialTCP(t, g.addr, config)
				// The client sends its first frame with the request.
				_, _ = io.WriteString(conn, "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\nfirst\n")
				r := bufio.NewReader(conn)
				res, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = res.Body.Close() }()
				if res.StatusCode != 101 || res.Header.Get("Upgrade") == "" || res.Header.Get("Sec-Websocket-Accept") != "x" {
					t.Fatalf("%d %v", res.StatusCode, res.Header)
				}
				for _, want := range []string{"hello echo first\n", "echo second\n"} {
					if got, err := r.ReadString('\n'); err != nil || got != want {
						t.Fatalf("%q, %v, want %q", got, err, want)
					}
					_, _ = io.WriteString(conn, "second\n")
				}
				if got := g.proxy.InFlight(); got != 1 {
					t.Errorf("%d in flight", got)
				}
				ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
				defer cancel()
				if cut := g.server.Drain(ctx); cut != 1 {
					t.Errorf("%d cut", cut)
				}
				if got := g.observed.next(t); got != (request{"http", "other", "101"}) {
					t.Errorf("observed %v", got)
				}
			})
		}
	}
}

func TestOtherUpgradesAreNotPassedOn(t *testing.T) {
	t.Parallel()
	g := startGateway(t, startWeb(t, false, rawEcho()), nil)
	conn := dialTCP(t, g.addr, nil)
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if got := res.Header.Get("Seen-Names"); res.StatusCode != 200 || strings.Contains(got, "Upgrade") || strings.Contains(got, "Http2") {
		t.Errorf("%d, upstream saw %s", res.StatusCode, got)
	}
}

func TestTrustedProxiesAreBelieved(t *testing.T) {
	t.Parallel()
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, name := range []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Prefix", "Forwarded"} {
			w.Header().Set("Seen-"+name, strings.Join(r.Header[name], "|"))
		}
	})
	url := startWeb(t, false, h)
	for _, test := range []struct {
		name    string
		trusted []string
		want    map[string]string
	}{
		{"nobody", nil, map[string]string{
			"For": "127.0.0.1", "Host": "HOST", "Proto": "http", "Prefix": "", "Forwarded": "",
		}},
		{"somebody else", []string{"10.0.0.0/8", "::1"}, map[string]string{
			"For": "127.0.0.1", "Host": "HOST", "Proto": "http", "Prefix": "", "Forwarded": "",
		}},
		{"the client", []string{"127.0.0.0/8"}, map[string]string{
			"For": "1.2.3.4, 5.6.7.8, 127.0.0.1", "Host": "public.example.com", "Proto": "https", "Prefix": "/p",
			"Forwarded": `for=1.2.3.4, for=127.0.0.1;host="HOST";proto=http`,
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			g := startGateway(t, url, func(o *proxy.Options) { o.TrustedProxies = test.trusted })
			res := get(t, webClient(t), "GET", g.url()+"/", nil, "X-Forwarded-For", "1.2.3.4", "X-Forwarded-For", "5.6.7.8",
				"X-Forwarded-Host", "public.example.com", "X-Forwarded-Proto", "https", "X-Forwarded-Prefix", "/p", "Forwarded", "for=1.2.3.4")
			for name, want := range test.want {
				header := "Seen-X-Forwarded-" + name
				if name == "Forwarded" {
					header = "Seen-Forwarded"
				}
				if got := res.Header.Get(header); got != strings.ReplaceAll(want, "HOST", g.addr) {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
		})
	}
}
