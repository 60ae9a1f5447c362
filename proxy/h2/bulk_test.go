package h2_test

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/execgate/execgate/proxy/h2"
)

// TestLargeBodiesArriveAsTheyWereSent: many bodies at once, of all sizes, come through unchanged in both directions, whether
// sockets take what they are given or only a part of it, and whether their length was stated or not.
func TestLargeBodiesArriveAsTheyWereSent(t *testing.T) {
	t.Parallel()
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		_ = http.NewResponseController(w).Flush()
		_, _ = io.Copy(w, r.Body)
	})
	for name, small := range map[string]bool{"large socket buffers": false, "small socket buffers": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dial := func(ctx context.Context, address string) (net.Conn, error) {
				nc, err := new(net.Dialer).DialContext(ctx, "tcp", address)
				if tcp, ok := nc.(*net.TCPConn); ok && small {
					_ = tcp.SetWriteBuffer(64 << 10)
					_ = tcp.SetReadBuffer(256 << 10)
				}
				return nc, err
			}
			f := newFront(t, startWeb(t, nil, echo), func(o *h2.Options) {
				o.Upstream.Conns, o.Upstream.Dial = 2, dial
			})
			var wg sync.WaitGroup
			for i := range 3 {
				client := f.web(t)
				client.Transport.(*http.Transport).DialContext = func(ctx context.Context, _, address string) (net.Conn, error) {
					return dial(ctx, address)
				}
				for j := range 4 {
					wg.Go(func() {
						rng := rand.New(rand.NewPCG(uint64(i), uint64(j)))
						for _, size := range []int{1, 3000, 20_000, 100_000 + rng.IntN(100_000), 1 << 20} {
							exchangeBody(t, client, f.url("/"), rng, size)
						}
					})
				}
			}
			wg.Wait()
		})
	}
}

// exchangeBody sends random bytes, as many as size, and expects them back.
func exchangeBody(t *testing.T, client *http.Client, url string, rng *rand.Rand, size int) {
	t.Helper()
	body := make([]byte, size)
	for i := range body {
		body[i] = byte(rng.Uint32())
	}
	var reader io.Reader = bytes.NewReader(body)
	if rng.IntN(2) == 0 {
		reader = io.MultiReader(reader, strings.NewReader("")) // Its length is not known.
	}
	req, err := http.NewRequestWithContext(testContext(t), http.MethodPost, url, reader)
	if err != nil {
		t.Error(err)
		return
	}
	res, err := client.Do(req)
	if err != nil {
		t.Error(err)
		return
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil || !bytes.Equal(got, body) {
		t.Errorf("%d of %d bytes came back, or others; %v", len(got), len(body), err)
	}
}
