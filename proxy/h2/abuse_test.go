package h2_test

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/execgate/execgate/proxy/h2"
)

// TestFloodsEndTheConnection sends more of each kind than any client has reason to.
func TestFloodsEndTheConnection(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		flood func(c *rawPeer, i int) error
		want  h2.Reason
	}{
		{"rapid reset", func(c *rawPeer, i int) error {
			id := uint32(2*i + 1)
			if err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, EndStream: true, BlockFragment: requestBlock}); err != nil {
				return err
			}
			return c.WriteRSTStream(id, http2.ErrCodeCancel)
		}, h2.ReasonRapidReset},
		{"made to reset", func(c *rawPeer, i int) error { // CVE-2025-8671
			id := uint32(2*i + 1)
			if err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, EndStream: true, BlockFragment: requestBlock}); err != nil {
				return err
			}
			return c.WriteWindowUpdate(id, 0)
		}, h2.ReasonRapidReset},
		{"malformed requests", func(c *rawPeer, i int) error {
			return c.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 1), EndHeaders: true, EndStream: true, BlockFragment: requestBlock[:1]})
		}, h2.ReasonRapidReset},
		{"SETTINGS", func(c *rawPeer, _ int) error { return c.WriteSettings() }, h2.ReasonSettingsFlood},
		{"one large SETTINGS", func(c *rawPeer, _ int) error {
			return c.WriteSettings(make([]http2.Setting, 1000)...)
		}, h2.ReasonSettingsFlood},
		{"PING", func(c *rawPeer, _ int) error { return c.WritePing(false, [8]byte{}) }, h2.ReasonPingFlood},
		{"empty DATA", func(c *rawPeer, i int) error {
			if i == 0 {
				return c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: requestBlock})
			}
			return c.WriteData(1, false, nil)
		}, h2.ReasonEmptyFrames},
		{"padding only", func(c *rawPeer, i int) error {
			if i == 0 {
				return c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: requestBlock})
			}
			return c.WriteDataPadded(1, false, nil, make([]byte, 5))
		}, h2.ReasonEmptyFrames},
		{"WINDOW_UPDATE", func(c *rawPeer, _ int) error { return c.WriteWindowUpdate(0, 1) }, h2.ReasonWindowUpdateFlood},
		{"PRIORITY", func(c *rawPeer, _ int) error { return c.WritePriority(1, http2.PriorityParam{StreamDep: 3}) }, h2.ReasonPriorityFlood},
		{"unknown frames", func(c *rawPeer, _ int) error { return c.WriteRawFrame(0xbe, 0, 0, nil) }, h2.ReasonPriorityFlood},
		{"CONTINUATION", func(c *rawPeer, i int) error {
			if i == 0 {
				return c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: requestBlock})
			}
			return c.WriteContinuation(1, false, []byte("x"))
		}, h2.ReasonContinuationFlood},
		{"long CONTINUATION", func(c *rawPeer, i int) error {
			if i == 0 {
				return c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: requestBlock})
			}
			return c.WriteContinuation(1, false, make([]byte, 16<<10))
		}, h2.ReasonContinuationFlood},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			u := newRawUpstream(t)
			f := newFront(t, u.address(), func(o *h2.Options) { o.MaxHeaderBytes = 256 << 10 })
			client := rawClient(t, f)
			go func() {
				for i := range 20_000 {
					if c.flood(client, i) != nil {
						return
					}
				}
			}()
			if code, told := client.ended(); told && code != http2.ErrCodeEnhanceYourCalm {
				t.Errorf("ended with %v", code)
			}
			f.waitFor(t, c.want.String(), func() bool { return f.limited[c.want] == 1 })
			f.waitFor(t, "the calls' ends", func() bool { return f.engine.InFlight() == 0 })
			f.mu.Lock()
			if len(f.limited) != 1 {
				t.Errorf("limits: %v", f.limited)
			}
			f.mu.Unlock()
			// Others are served as before.
			other := rawClient(t, f)
			other.request(1, true)
			for up := u.accept(); ; {
				frame, err := up.next()
				if err != nil {
					t.Fatal(err)
				}
				if strings.HasPrefix(frame, "HEADERS") && strings.Contains(frame, "a.test") {
					break
				}
			}
		})
	}
}

// requestBlock is a GET without state: only entries of the static table.
var requestBlock = []byte{0x82, 0x86, 0x84, 0x41, 1, 'a'}

// TestHPACKBombs are small blocks that mean large lists.
func TestHPACKBombs(t *testing.T) {
	t.Parallel()
	u := newRawUpstream(t)
	f := newFront(t, u.address(), func(o *h2.Options) { o.MaxHeaderBytes = 64 << 10 })
	client := rawClient(t, f)
	// One field of almost the size of the table, and then thousands of references to it.
	block := append([]byte{}, requestBlock...)
	block = append(block, 0x40, 1, 'x', 0x7f)
	const n = 3900
	block = append(block, (n-127)&0x7f|0x80, (n-127)>>7)
	block = append(block, make([]byte, n)...)
	for i := len(block) - n; i < len(block); i++ {
		block[i] = 'v'
	}
	for len(block) < 16<<10 {
		block = append(block, 0xbe)
	}
	client.must(client.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, EndStream: true, BlockFragment: block}))
	client.expect("HEADERS 1 END :status=431 content-length=0")
	f.waitFor(t, "the limit", func() bool { return f.limited[h2.ReasonHeaderList] == 1 })
	// The connection, and its tables, are as good as before.
	client.must(client.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, EndHeaders: true, EndStream: true,
		BlockFragment: append(append([]byte{}, requestBlock...), 0xbf)}))
	up := u.accept()
	up.expect("HEADERS 1 END :method=GET :scheme=http :path=/ :authority=a x=" + strings.Repeat("v", n))
}

func TestPeersThatKeepUsWaiting(t *testing.T) {
	t.Parallel()
	settings := "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	for _, c := range []struct {
		name string
		say  string
		want h2.Reason
	}{
		{"nothing at all", "", h2.ReasonHeaderTimeout},
		{"half a preface", http2.ClientPreface[:10], h2.ReasonHeaderTimeout},
		{"no SETTINGS", http2.ClientPreface, h2.ReasonHeaderTimeout},
		{"half of a frame's head", http2.ClientPreface + settings + "\x00\x00", h2.ReasonHeaderTimeout},
		{"half of HEADERS", http2.ClientPreface + settings + "\x00\x00\x20\x01\x05\x00\x00\x00\x01\x82", h2.ReasonHeaderTimeout},
		{"no CONTINUATION", http2.ClientPreface + settings + "\x00\x00\x01\x01\x01\x00\x00\x00\x01\x82", h2.ReasonHeaderTimeout},
	} {
		for _, secure := range []bool{false, true} {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				server, _ := testTLS(t)
				f := newFront(t, "127.0.0.1:1", func(o *h2.Options) {
					o.ReadHeaderTimeout = 60 * time.Millisecond
					if secure {
						o.TLS = server // What is said is no handshake either.
					}
				})
				nc := connect(t, f)
				defer nc.Close()
				_ = nc.SetDeadline(time.Now().Add(testTimeout))
				if !secure || c.say == "" {
					_, _ = io.WriteString(nc, c.say)
				}
				if _, err := io.Copy(io.Discard, nc); err != nil && strings.Contains(err.Error(), "timeout") {
					t.Error("the connection was not ended")
				}
				f.waitFor(t, c.want.String(), func() bool { return f.limited[c.want] == 1 })
			})
		}
	}
}

// TestCloseDoesNotWaitForWhoSaysNothing: neither before nor after the handshake, whatever ReadHeaderTimeout allows.
func TestCloseDoesNotWaitForWhoSaysNothing(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		server, client := testTLS(t)
		f := newFront(t, "127.0.0.1:1", func(o *h2.Options) {
			o.ReadHeaderTimeout = time.Hour
			if secure {
				o.TLS = server
			}
		})
		clients := make([]net.Conn, 8)
		for i := range clients {
			clients[i] = connect(t, f)
		}
		last := connect(t, f) // Once it was answered, the others have been accepted.
		if secure {
			client = client.Clone()
			client.ServerName, client.NextProtos = "127.0.0.1", []string{"http/1.1"}
			last = tls.Client(last, client)
		}
		_, _ = io.WriteString(last, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		if _, err := io.ReadFull(last, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		_ = last.Close()
		f.engine.Close()
		for _, nc := range clients {
			_ = nc.SetDeadline(time.Now().Add(testTimeout))
			if _, err := io.Copy(io.Discard, nc); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("a connection was not ended")
			}
			_ = nc.Close()
		}
		if n := f.limited[h2.ReasonHeaderTimeout]; n != 0 {
			t.Errorf("%d of them count as too slow", n)
		}
	}
}

func TestIdleConnectionsAreEnded(t *testing.T) {
	t.Parallel()
	f := newFront(t, "127.0.0.1:1", func(o *h2.Options) { o.IdleTimeout = 50 * time.Millisecond })
	client := rawClient(t, f)
	client.expect("GOAWAY 0 NO_ERROR")
	if code, told := client.ended(); told {
		t.Errorf("and then %v", code)
	}
}

func TestSilentClientsAreAskedAndGivenUp(t *testing.T) {
	t.Parallel()
	u := newRawUpstream(t)
	f := newFront(t, u.address(), func(o *h2.Options) {
		o.PingAfter, o.PingTimeout = 50*time.Millisecond, 100*time.Millisecond
	})
	client := rawClient(t, f)
	client.request(1, true)
	up := u.accept()
	up.expect(forwarded(1, true))
	for pings := 0; pings < 3; { // Answered, it is left alone.
		frame, err := client.ReadFrame()
		client.must(err)
		if p, ok := frame.(*http2.PingFrame); ok {
			pings++
			client.must(client.WritePing(true, p.Data))
		}
	}
	up.expect("RST 1 CANCEL") // Nothing is answered any more.
	f.waitFor(t, "the limit", func() bool { return f.limited[h2.ReasonPingTimeout] == 1 })
}

func TestTooManyStreams(t *testing.T) {
	t.Parallel()
	u := newRawUpstream(t)
	f := newFront(t, u.address(), func(o *h2.Options) { o.MaxConcurrentStreams = 2 })
	client := rawClient(t, f)
	for id := uint32(1); id <= 5; id += 2 {
		client.request(id, true)
	}
	client.expect("RST 5 REFUSED_STREAM")
	up := u.accept()
	up.expect(forwarded(1, true))
	up.headers(1, true, ":status", "200")
	client.expect("HEADERS 1 END :status=200")
	client.request(7, true)
	up.expect(forwarded(3, true), forwarded(5, true))
	f.waitFor(t, "the limit", func() bool { return f.limited[h2.ReasonConcurrentStreams] == 1 })
}

// TestHandlersCountEvenIfTheirStreamsAreGone: resetting a stream does not make room for another handler while the first
// still runs.
func TestHandlersCountEvenIfTheirStreamsAreGone(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	f := newHandling(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }), func(o *h2.Options) { o.MaxConcurrentStreams = 2 })
	defer close(release)
	client := rawClient(t, f)
	for id := uint32(1); id <= 5; id += 2 {
		client.request(id, true)
		if id < 5 {
			client.must(client.WriteRSTStream(id, http2.ErrCodeCancel))
		}
	}
	client.expect("RST 5 REFUSED_STREAM")
}

// TestClientThatDoesNotRead has all the windows it wants, and leaves the answers in its socket.
func TestClientThatDoesNotRead(t *testing.T) {
	t.Parallel()
	f := newFront(t, startWeb(t, nil, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, 1<<20))
	})), func(o *h2.Options) { o.WriteTimeout = 200 * time.Millisecond })
	client := rawClient(t, f, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
	client.must(client.WriteWindowUpdate(0, 1<<30))
	for id := uint32(1); id < 100; id += 2 {
		client.request(id, true)
	}
	f.waitFor(t, "the limit", func() bool { return f.limited[h2.ReasonWriteTimeout] == 1 })
}

func TestPaddingCountsForTheWindows(t *testing.T) {
	t.Parallel()
	u := newRawUpstream(t)
	f := newFront(t, u.address(), nil)
	client := rawClient(t, f)
	client.request(1, false)
	up := u.accept()
	up.expect(forwarded(1, false))
	// Padding is given back at once, so a stream may go on with it forever; but the last byte of each goes upstream.
	for range 3000 {
		client.must(client.WriteDataPadded(1, false, []byte("x"), make([]byte, 255)))
	}
	client.must(client.WriteData(1, true, nil))
	got := 0
	for {
		frame, err := up.ReadFrame()
		up.must(err)
		if d, ok := frame.(*http2.DataFrame); ok {
			if got += len(d.Data()); d.StreamEnded() {
				break
			}
		}
	}
	if got != 3000 {
		t.Errorf("%d bytes arrived", got)
	}
	// The window is what it was: not a byte more than it.
	client.request(3, false)
	for range 4 {
		client.must(client.WriteDataPadded(3, false, make([]byte, 16000), make([]byte, 255)))
	}
	client.must(client.WriteDataPadded(3, false, make([]byte, 300), make([]byte, 211)))
	client.must(client.WriteData(3, false, make([]byte, 1)))
}

// bigEndian is for frames that the Framer does not write.
func bigEndian(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

func TestSelfDependencyAndOtherNonsense(t *testing.T) {
	t.Parallel()
	u := newRawUpstream(t)
	f := newFront(t, u.address(), nil)
	client := rawClient(t, f)
	client.must(client.WriteRawFrame(http2.FramePriority, 0, 1, append(bigEndian(1), 0)))
	client.expect("RST 1 PROTOCOL_ERROR")
	for id, fields := range map[uint32][]string{
		3: {":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a", "host", "b"},
		5: {":method", "GET", ":scheme", "http", ":path", "/", ":authority", "user@a"},
		7: {":method", "GET", ":scheme", "ftp", ":path", "/", ":authority", "a"},
		9: {":method", "GET", ":scheme", "http", ":path", "relative", ":authority", "a"},
	} {
		peer := rawClient(t, f)
		peer.headers(id, true, fields...)
		peer.expect("RST " + string(rune('0'+id)) + " PROTOCOL_ERROR")
	}
	peer := rawClient(t, f)
	peer.headers(1, true, ":method", "CONNECT", ":authority", "a:1")
	peer.expect("HEADERS 1 END :status=405 content-length=0")
}
