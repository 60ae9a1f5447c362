package targetclient_test

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/execgate/execgate/targetclient"
)

// canned answers every request on a connection with the same bytes and
// allocates nothing: what is measured is the client.
func canned(b *testing.B, requestSize int) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				r := bufio.NewReader(conn)
				for {
					for {
						line, err := r.ReadSlice('\n')
						if err != nil {
							return
						}
						if len(line) == 2 {
							break
						}
					}
					if _, err := r.Discard(requestSize); err != nil {
						return
					}
					if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{\"name\":\"ann\"}"); err != nil {
						return
					}
				}
			})
		}
	})
	b.Cleanup(func() { l.Close(); wg.Wait() })
	return "http://" + l.Addr().String()
}

func BenchmarkDo(b *testing.B) {
	body := []byte(`{"fullMethod":"/x.Y/Z","request":{"name":"` + strings.Repeat("a", 156) + `"}}`)
	for name, keys := range map[string][]string{"unsigned": nil, "signed": {"0aB3dE6gH9jK2mN5pQ8sT1vW4yZ7aB0cD3eF"}} {
		b.Run(name, func(b *testing.B) {
			tgt := &targetclient.Target{ID: "a", URL: canned(b, len(body)), SigningKeys: keys}
			c := newClient(b, targetclient.Options{DenyList: []string{"10.0.0.0/8"}})
			b.Cleanup(c.Close)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Do(b.Context(), targetclient.Call{Target: tgt, Body: body}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkNetHTTP is the same call with nothing around it, for comparison.
func BenchmarkNetHTTP(b *testing.B) {
	body := bytes.Repeat([]byte("a"), 200)
	u := canned(b, len(body))
	client := &http.Client{Transport: &http.Transport{}}
	b.Cleanup(client.CloseIdleConnections)
	b.ReportAllocs()
	for b.Loop() {
		req, _ := http.NewRequestWithContext(b.Context(), http.MethodPost, u, bytes.NewReader(body))
		resp, err := client.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.ReadAll(resp.Body)
		_ = resp.Body.Close()
	}
}
