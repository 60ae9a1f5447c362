package h2_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/execgate/execgate/proxy/h2"
)

// settled waits until v has not moved for a while, and returns it.
func settled(t *testing.T, v *atomic.Int64) int64 {
	t.Helper()
	for last, deadline := v.Load(), time.Now().Add(testTimeout); time.Now().Before(deadline); {
		time.Sleep(150 * time.Millisecond) // Nothing tells when nothing happens any more.
		now := v.Load()
		if now == last && now > 0 {
			return now
		}
		last = now
	}
	t.Fatal("it goes on and on")
	return 0
}

// source is an upstream that writes without end, and counts.
func source(written *atomic.Int64, total int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		p := make([]byte, 10_000)
		for n := 0; n < total; n += len(p) {
			for i := range p {
				p[i] = byte(n/len(p) + i)
			}
			if _, err := w.Write(p); err != nil {
				return
			}
			written.Add(int64(len(p)))
		}
	})
}

// TestSlowReaderHoldsBackTheSource: what a client does not take is not taken from the upstream either.
func TestSlowReaderHoldsBackTheSource(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		handled bool
		window  uint32
		limit   int64
	}{
		// The rest of each limit is in the sockets and in the upstream's own buffers.
		{"by its window, relayed", false, 65535, 2 << 20},
		{"by its socket, relayed", false, 1 << 30, 11 << 20},
		{"by its window, handled", true, 65535, 2 << 20},
		{"by its socket, handled", true, 1 << 30, 11 << 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			const total = 12_000_000
			var written atomic.Int64
			var f *front
			if c.handled {
				f = newHandling(t, source(&written, total), nil)
			} else {
				f = newFront(t, startWeb(t, nil, source(&written, total)), nil)
			}
			client := rawClient(t, f, http2.Setting{ID: http2.SettingInitialWindowSize, Val: c.window})
			if c.window > 65535 {
				client.must(client.WriteWindowUpdate(0, c.window))
			}
			client.request(1, true)
			if n := settled(t, &written); n > c.limit {
				t.Errorf("%d bytes were taken from the source", n)
			} else {
				t.Logf("%d bytes were taken from the source", n)
			}
			// Then it reads on, and gets everything.
			sum, want := sha256.New(), sha256.New()
			for n := 0; n < total; n += 10_000 {
				p := make([]byte, 10_000)
				for i := range p {
					p[i] = byte(n/len(p) + i)
				}
				_, _ = want.Write(p)
			}
			got := 0
			for {
				frame, err := client.ReadFrame()
				client.must(err)
				d, ok := frame.(*http2.DataFrame)
				if !ok {
					continue
				}
				got += len(d.Data())
				_, _ = sum.Write(d.Data())
				if len(d.Data()) > 0 && c.window == 65535 {
					client.must(client.WriteWindowUpdate(0, uint32(len(d.Data()))))
					client.must(client.WriteWindowUpdate(1, uint32(len(d.Data()))))
				}
				if d.StreamEnded() {
					break
				}
			}
			if got != total || !bytes.Equal(sum.Sum(nil), want.Sum(nil)) {
				t.Errorf("%d bytes arrived, or not the right ones", got)
			}
		})
	}
}

// TestSlowUpstreamHoldsBackTheClient is the same for requests.
func TestSlowUpstreamHoldsBackTheClient(t *testing.T) {
	t.Parallel()
	for _, handled := range []bool{false, true} {
		t.Run(fmt.Sprint("handled ", handled), func(t *testing.T) {
			t.Parallel()
			const total = 30_000_000
			release := make(chan struct{})
			slow := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				select {
				case <-release:
				case <-r.Context().Done():
					return
				}
				n, err := io.Copy(io.Discard, r.Body)
				fmt.Fprint(w, n, err)
			})
			var f *front
			if handled {
				f = newHandling(t, slow, nil)
			} else {
				f = newFront(t, startWeb(t, nil, slow), nil)
			}
			var read atomic.Int64
			body := io.TeeReader(io.LimitReader(zeros{}, total), counter{&read})
			r, _ := http.NewRequestWithContext(testContext(t), http.MethodPost, f.url("/"), body)
			answer := make(chan string, 1)
			go func() {
				res, err := f.web(t).Do(r)
				if err != nil {
					answer <- err.Error()
					return
				}
				b, _ := io.ReadAll(res.Body)
				_ = res.Body.Close()
				answer <- string(b)
			}()
			if n := settled(t, &read); n > 6<<20 {
				t.Errorf("%d bytes were taken from the client", n)
			} else {
				t.Logf("%d bytes were taken from the client", n)
			}
			close(release)
			if got := <-answer; got != fmt.Sprint(total, " <nil>") && got != fmt.Sprint(total, error(nil)) {
				t.Errorf("got %q", got)
			}
		})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

type counter struct{ n *atomic.Int64 }

func (c counter) Write(p []byte) (int, error) { c.n.Add(int64(len(p))); return len(p), nil }

// TestStuckStreamsDoNotHoldUpOthers: many streams that nobody reads share both connections with calls that must go on.
func TestStuckStreamsDoNotHoldUpOthers(t *testing.T) {
	t.Parallel()
	var written atomic.Int64
	mux := http.NewServeMux()
	mux.Handle("/flood", source(&written, 100_000_000))
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	f := newFront(t, startWeb(t, nil, mux), func(o *h2.Options) { o.Upstream.Conns, o.Upstream.MaxConns = 1, 1 })
	stuck := rawClient(t, f, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	for i := range 100 {
		stuck.headers(uint32(2*i+1), true, ":method", "GET", ":scheme", "http", ":path", "/flood", ":authority", "a")
	}
	if n := settled(t, &written); n > 100*(64<<10+20_000)+1<<20 {
		t.Errorf("%d bytes were taken for 100 streams", n)
	}
	client := f.web(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				body := strings.Repeat("x", 200_000)
				res, err := client.Post(f.url("/echo"), "text/plain", strings.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				got, err := io.ReadAll(res.Body)
				_ = res.Body.Close()
				if err != nil || string(got) != body {
					t.Errorf("%d bytes, %v", len(got), err)
					return
				}
			}
		})
	}
	wg.Wait()
	// And those that were stuck are not lost.
	stuck.must(stuck.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100}))
	seen := 0
	for seen < 100 {
		frame, err := stuck.ReadFrame()
		stuck.must(err)
		if d, ok := frame.(*http2.DataFrame); ok && len(d.Data()) == 100 {
			seen++
		}
	}
}

// TestSettingsInMidFlight changes the initial window while data waits for it: RFC 9113 6.9.2.
func TestSettingsInMidFlight(t *testing.T) {
	t.Parallel()
	u := newRawUpstream(t)
	f := newFront(t, u.address(), nil)
	window := func(c *rawPeer, n uint32) {
		c.must(c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: n}))
	}
	client := rawClient(t, f, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 5})
	client.request(1, true)
	up := u.accept()
	up.expect(forwarded(1, true))
	up.headers(1, false, ":status", "200")
	up.must(up.WriteData(1, false, []byte("0123456789")))
	client.expect("HEADERS 1 :status=200", "DATA 1 01234")
	window(client, 2) // Now it is -3.
	window(client, 4) // -1
	client.must(client.WriteWindowUpdate(1, 2))
	client.expect("DATA 1 5")
	window(client, 6)
	client.expect("DATA 1 67")
	up.must(up.WriteData(1, false, []byte("ab")))
	up.headers(1, true, "x", "end")
	client.must(client.WriteWindowUpdate(1, 100))
	got, err := client.next()
	client.must(err)
	if got == "DATA 1 89" { // "ab" may have come too late for the same frame.
		client.expect("DATA 1 ab")
	} else if got != "DATA 1 89ab" {
		t.Error(got)
	}
	client.expect("HEADERS 1 END x=end")

	// The same towards the upstream.
	up.must(up.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 3}))
	up.must(up.WritePing(false, [8]byte{}))
	for {
		frame, err := up.ReadFrame()
		up.must(err)
		if p, ok := frame.(*http2.PingFrame); ok && p.IsAck() {
			break
		}
	}
	client.request(3, false)
	client.must(client.WriteData(3, true, []byte("0123456")))
	up.expect(forwarded(3, false), "DATA 3 012")
	up.must(up.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 5}))
	up.expect("DATA 3 34")
	up.must(up.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100}))
	up.expect("DATA 3 END 56")
}

// TestHeaderTableSize: a peer may want no table, or a large one; both may change.
func TestHeaderTableSize(t *testing.T) {
	t.Parallel()
	u := newRawUpstream(t)
	f := newFront(t, u.address(), nil)
	client := rawClient(t, f)
	up := (*rawPeer)(nil)
	for i, size := range []uint32{0, 4096, 100, 1 << 20, 0, 60} {
		client.must(client.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: size}))
		client.dec.SetMaxDynamicTableSize(min(size, 4096))
		client.dec.SetAllowedMaxDynamicTableSize(4096)
		id := uint32(2*i + 1)
		client.request(id, true)
		if up == nil {
			up = u.accept()
		}
		up.expect(forwarded(id, true))
		for range 2 {
			up.headers(id, false, ":status", "103", "x-a", "b", "x-c", strings.Repeat("d", 100))
			client.expect(fmt.Sprintf("HEADERS %d :status=103 x-a=b x-c=%s", id, strings.Repeat("d", 100)))
		}
		up.headers(id, true, ":status", "200")
		client.expect(fmt.Sprintf("HEADERS %d END :status=200", id))
	}
}

func TestShutdownLetsCallsFinish(t *testing.T) {
	t.Parallel()
	u := newRawUpstream(t)
	f := newFront(t, u.address(), nil)
	client := rawClient(t, f)
	client.request(1, true)
	up := u.accept()
	up.expect(forwarded(1, true))
	done := make(chan error, 1)
	go func() { done <- f.engine.Shutdown(testContext(t)) }()
	// First no end is named, and what was on its way is still served.
	for {
		frame, err := client.ReadFrame()
		client.must(err)
		if g, ok := frame.(*http2.GoAwayFrame); ok {
			if describe(g) != "GOAWAY 2147483647 NO_ERROR" {
				t.Error(describe(g))
			}
			break
		}
	}
	client.request(3, true)
	up.expect(forwarded(3, true))
	client.expect("GOAWAY 3 NO_ERROR") // After the PING was answered.
	client.request(5, true)            // Not seen any more.
	up.headers(3, true, ":status", "200")
	up.headers(1, true, ":status", "200")
	client.expect("HEADERS 3 END :status=200", "HEADERS 1 END :status=200")
	if _, told := client.ended(); told {
		t.Error("there was another GOAWAY")
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestShutdownUnderLoadLosesNoCall(t *testing.T) {
	t.Parallel()
	f := newFront(t, startGRPC(t, &service{}), nil)
	next := newFront(t, startGRPC(t, &service{}), nil)
	ctx := testContext(t)
	// The client connects again, to whoever is in front then.
	var address atomic.Pointer[string]
	address.Store(&f.address)
	client := testpb.NewTestServiceClient(dialThrough(t, &address))
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := client.UnaryCall(ctx, &testpb.SimpleRequest{Payload: payload(100)}); err != nil {
					t.Errorf("lost a call: %v", err)
					return
				}
			}
		})
	}
	f.waitFor(t, "calls", func() bool { return len(f.done) > 200 })
	address.Store(&next.address)
	if err := f.engine.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	next.waitFor(t, "calls", func() bool { return len(next.done) > 200 })
	close(stop)
	wg.Wait()
}

// TestServerSpeaksFirst: with TLS the server's SETTINGS need not wait for the client's, and with h2c for its preface only.
func TestServerSpeaksFirst(t *testing.T) {
	t.Parallel()
	server, client := testTLS(t)
	for _, secure := range []bool{false, true} {
		f := newFront(t, "127.0.0.1:1", func(o *h2.Options) {
			if secure {
				o.TLS = server
			}
		})
		nc := connect(t, f)
		if secure {
			config := client.Clone()
			config.NextProtos, config.ServerName = []string{"h2"}, "127.0.0.1"
			nc = tls.Client(nc, config)
		} else if _, err := io.WriteString(nc, http2.ClientPreface); err != nil {
			t.Fatal(err)
		}
		p := newRawPeer(t, nc)
		if frame, err := p.ReadFrame(); err != nil || frame.Header().Type != http2.FrameSettings {
			t.Errorf("secure %v: got %v, %v", secure, frame, err)
		}
	}
}

// TestManySmallFramesAtOnce: frames that come together go on as they came, whether there is room for them or not.
func TestManySmallFramesAtOnce(t *testing.T) {
	t.Parallel()
	frames := func(id uint32, last bool) []byte {
		var b bytes.Buffer
		f := http2.NewFramer(&b, nil)
		for i := range 6 {
			_ = f.WriteData(id, last && i == 5, []byte(strings.Repeat(string(rune('a'+i)), i+1)))
		}
		return b.Bytes()
	}
	for _, window := range []uint32{0, 9, 65535} {
		t.Run(fmt.Sprint("window ", window), func(t *testing.T) {
			t.Parallel()
			u := newRawUpstream(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: window})
			f := newFront(t, u.address(), nil)
			client := rawClient(t, f, http2.Setting{ID: http2.SettingInitialWindowSize, Val: window})
			client.request(1, false)
			up := u.accept()
			up.expect(forwarded(1, false))
			up.headers(1, false, ":status", "200")
			client.expect("HEADERS 1 :status=200")
			want := "abbcccddddeeeeeffffff"
			for _, way := range []struct{ from, to *rawPeer }{{client, up}, {up, client}} {
				for round := range 3 {
					last := round == 2
					way.from.send(string(frames(1, last)))
					if window < 100 {
						way.to.must(way.to.WriteWindowUpdate(1, 21))
					}
					got, n, ended := "", 0, false
					for len(got) < len(want) || last && !ended {
						frame, err := way.to.ReadFrame()
						way.to.must(err)
						if d, ok := frame.(*http2.DataFrame); ok {
							got, ended = got+string(d.Data()), d.StreamEnded()
							n++
						}
					}
					if got != want || ended != last || window > 100 && n != 6 {
						t.Errorf("round %d: %q in %d frames, end %v", round, got, n, ended)
					}
				}
			}
		})
	}
}
