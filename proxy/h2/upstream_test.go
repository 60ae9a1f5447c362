package h2_test

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/execgate/execgate/proxy/h2"
)

const unavailable = "HEADERS 1 END :status=200 content-type=application/grpc grpc-status=14 grpc-message=upstream is not available"

// TestWhatTheUpstreamSaysIsWhatTheClientGets walks through what an upstream may say, and may not.
func TestWhatTheUpstreamSaysIsWhatTheClientGets(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		head []string // of the request, beyond the usual
		get  bool
		say  func(u *rawPeer)
		want []string // what the client gets
		back string   // what the upstream gets in the end
	}{
		{name: "headers, data, trailers", say: func(u *rawPeer) {
			u.headers(1, false, ":status", "200", "content-type", "application/grpc")
			u.must(u.WriteData(1, false, []byte("hello")))
			u.headers(1, true, "grpc-status", "0")
		}, want: []string{"HEADERS 1 :status=200 content-type=application/grpc", "DATA 1 hello", "HEADERS 1 END grpc-status=0"}},
		{name: "trailers only", say: func(u *rawPeer) {
			u.headers(1, true, ":status", "200", "grpc-status", "5", "grpc-message", "no")
		}, want: []string{"HEADERS 1 END :status=200 grpc-status=5 grpc-message=no"}},
		{name: "padding is not passed on", say: func(u *rawPeer) {
			u.headers(1, false, ":status", "200")
			u.must(u.WriteDataPadded(1, true, []byte("hello"), make([]byte, 100)))
		}, want: []string{"HEADERS 1 :status=200", "DATA 1 END hello"}},
		{name: "empty data with the end", say: func(u *rawPeer) {
			u.headers(1, false, ":status", "200")
			u.must(u.WriteData(1, false, nil))
			u.must(u.WriteData(1, true, nil))
		}, want: []string{"HEADERS 1 :status=200", "DATA 1 END "}},
		{name: "informational answers", say: func(u *rawPeer) {
			u.headers(1, false, ":status", "103", "link", "</a>")
			u.headers(1, false, ":status", "103", "link", "</b>")
			u.headers(1, true, ":status", "204")
		}, want: []string{"HEADERS 1 :status=103 link=</a>", "HEADERS 1 :status=103 link=</b>", "HEADERS 1 END :status=204"}},
		{name: "304 with a length", say: func(u *rawPeer) {
			u.headers(1, true, ":status", "304", "content-length", "77")
		}, want: []string{"HEADERS 1 END :status=304 content-length=77"}},
		{name: "a long field needs CONTINUATION", say: func(u *rawPeer) {
			b := u.block(":status", "200", "x-long", strings.Repeat("!", 40_000))
			u.must(u.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b[:10_000], EndStream: true}))
			u.must(u.WriteContinuation(1, false, b[10_000:25_000]))
			u.must(u.WriteContinuation(1, true, b[25_000:]))
		}, want: []string{"HEADERS 1 END :status=200 x-long=" + strings.Repeat("!", 40_000)}},
		{name: "an early end, and then a reset", say: func(u *rawPeer) {
			u.headers(1, true, ":status", "200", "grpc-status", "8")
			u.must(u.WriteRSTStream(1, http2.ErrCodeNo))
		}, want: []string{"HEADERS 1 END :status=200 grpc-status=8", "RST 1 NO_ERROR"}},
		{name: "a reset", say: func(u *rawPeer) {
			u.must(u.WriteRSTStream(1, http2.ErrCodeCancel))
		}, want: []string{resetAnswer("1", "CANCEL")}},
		{name: "a reset that is about our connection", say: func(u *rawPeer) {
			u.must(u.WriteRSTStream(1, http2.ErrCodeFlowControl))
		}, want: []string{resetAnswer("13", "FLOW_CONTROL_ERROR")}},
		{name: "a reset that asks for patience", say: func(u *rawPeer) {
			u.must(u.WriteRSTStream(1, http2.ErrCodeEnhanceYourCalm))
		}, want: []string{resetAnswer("8", "ENHANCE_YOUR_CALM")}},
		{name: "a reset after the headers", say: func(u *rawPeer) {
			u.headers(1, false, ":status", "200")
			u.must(u.WriteRSTStream(1, http2.ErrCodeInternal))
		}, want: []string{"HEADERS 1 :status=200",
			"HEADERS 1 END grpc-status=13 grpc-message=upstream reset the stream: INTERNAL_ERROR"}},
		{name: "fields of the upstream's connection", say: func(u *rawPeer) {
			u.headers(1, true, ":status", "200", "a", "1", "proxy-authenticate", "Basic", "b", "2", "te", "trailers", "c", "3")
		}, want: []string{"HEADERS 1 END :status=200 a=1 b=2 c=3"}},
		{name: "no status", say: func(u *rawPeer) { u.headers(1, false, "x", "y") },
			want: []string{answerBroken}, back: "RST 1 PROTOCOL_ERROR"},
		{name: "a strange status", say: func(u *rawPeer) { u.headers(1, false, ":status", "2000") },
			want: []string{answerBroken}, back: "RST 1 PROTOCOL_ERROR"},
		{name: "101", say: func(u *rawPeer) { u.headers(1, false, ":status", "101") },
			want: []string{answerBroken}, back: "RST 1 PROTOCOL_ERROR"},
		{name: "an informational answer that ends", say: func(u *rawPeer) { u.headers(1, true, ":status", "103") },
			want: []string{answerBroken}, back: "RST 1 PROTOCOL_ERROR"},
		{name: "an upper-case name", say: func(u *rawPeer) { u.headers(1, false, ":status", "200", "X-Y", "z") },
			want: []string{answerBroken}, back: "RST 1 PROTOCOL_ERROR"},
		{name: "a connection's field", say: func(u *rawPeer) { u.headers(1, false, ":status", "200", "connection", "close") },
			want: []string{answerBroken}, back: "RST 1 PROTOCOL_ERROR"},
		{name: "data before headers", say: func(u *rawPeer) { u.must(u.WriteData(1, false, []byte("x"))) },
			want: []string{answerBroken}, back: "RST 1 PROTOCOL_ERROR"},
		{name: "trailers that do not end", say: func(u *rawPeer) {
			u.headers(1, false, ":status", "200")
			u.headers(1, false, "grpc-status", "0")
		}, want: []string{"HEADERS 1 :status=200",
			"HEADERS 1 END grpc-status=13 grpc-message=upstream broke the protocol"}, back: "RST 1 PROTOCOL_ERROR"},
		{name: "more than the length", say: func(u *rawPeer) {
			u.headers(1, false, ":status", "200", "content-length", "3")
			u.must(u.WriteData(1, true, []byte("four")))
		}, want: []string{"HEADERS 1 :status=200 content-length=3",
			"HEADERS 1 END grpc-status=13 grpc-message=upstream broke the protocol"}, back: "RST 1 PROTOCOL_ERROR"},
		{name: "less than the length", say: func(u *rawPeer) {
			u.headers(1, false, ":status", "200", "content-length", "5")
			u.must(u.WriteData(1, true, []byte("four")))
		}, want: []string{"HEADERS 1 :status=200 content-length=5",
			"HEADERS 1 END grpc-status=13 grpc-message=upstream broke the protocol"}, back: "RST 1 PROTOCOL_ERROR"},
		{name: "data beyond the window", say: func(u *rawPeer) {
			u.headers(1, false, ":status", "200")
			for range 5 {
				u.must(u.WriteData(1, false, make([]byte, 16384)))
			}
		}, want: nil, back: "RST 1 FLOW_CONTROL_ERROR"},
		{name: "a push", say: func(u *rawPeer) {
			u.must(u.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, EndHeaders: true, BlockFragment: u.block(":method", "GET")}))
		}, want: []string{unavailable}, back: "GOAWAY 0 PROTOCOL_ERROR"},
		{name: "a connection that ends before the answer", say: func(u *rawPeer) { _ = u.nc.Close() },
			want: []string{unavailable}},
		{name: "a connection that ends in the answer", say: func(u *rawPeer) {
			u.headers(1, false, ":status", "200")
			_ = u.nc.Close()
		}, want: []string{"HEADERS 1 :status=200", "HEADERS 1 END grpc-status=14 grpc-message=upstream is not available"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			u := newRawUpstream(t)
			f := newFront(t, u.address(), nil)
			client := rawClient(t, f, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100})
			client.request(1, false, "content-type", "application/grpc")
			up := u.accept()
			up.expect(forwarded(1, false, "content-type", "application/grpc"))
			c.say(up)
			if strings.Contains(c.name, "beyond the window") {
				up.expect(c.back)
				return
			}
			client.expect(c.want...)
			if c.back != "" {
				up.expect(c.back)
			}
		})
	}
}

const answerBroken = "HEADERS 1 END :status=200 content-type=application/grpc grpc-status=13 grpc-message=upstream broke the protocol"

// resetAnswer is what a gRPC client gets when the upstream resets its call with code.
func resetAnswer(status, code string) string {
	return "HEADERS 1 END :status=200 content-type=application/grpc grpc-status=" + status +
		" grpc-message=upstream reset the stream: " + code
}

// TestFailuresAreToldInTheSubtypeOfTheRequest: that is what clients expect back.
func TestFailuresAreToldInTheSubtypeOfTheRequest(t *testing.T) {
	t.Parallel()
	for sent, want := range map[string]string{
		"application/grpc+Proto; charset=utf-8": "application/grpc+proto",
		"Application/GRPC;a=b":                  "application/grpc",
	} {
		u := newRawUpstream(t)
		client := rawClient(t, newFront(t, u.address(), nil))
		client.request(1, true, "content-type", sent)
		up := u.accept()
		up.expect(forwarded(1, true, "content-type", sent))
		up.must(up.WriteRSTStream(1, http2.ErrCodeRefusedStream))
		up.expect(forwarded(3, true, "content-type", sent))
		up.must(up.WriteRSTStream(3, http2.ErrCodeRefusedStream))
		client.expect("HEADERS 1 END :status=200 content-type=" + want +
			" grpc-status=14 grpc-message=upstream reset the stream: REFUSED_STREAM")
	}
}

func TestHeadHasNoBodyWhateverItsLength(t *testing.T) {
	t.Parallel()
	u := newRawUpstream(t)
	client := rawClient(t, newFront(t, u.address(), nil))
	client.headers(1, true, ":method", "HEAD", ":scheme", "http", ":path", "/", ":authority", "a")
	up := u.accept()
	up.expect("HEADERS 1 END :method=HEAD :scheme=http :path=/ :authority=a")
	up.headers(1, true, ":status", "200", "content-length", "1000")
	client.expect("HEADERS 1 END :status=200 content-length=1000")
}

func TestFailuresOfOtherTrafficAre502(t *testing.T) {
	t.Parallel()
	u := newRawUpstream(t)
	client := rawClient(t, newFront(t, u.address(), nil))
	client.headers(1, true, ":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a")
	up := u.accept()
	up.expect("HEADERS 1 END :method=GET :scheme=http :path=/ :authority=a")
	_ = up.nc.Close()
	client.expect("HEADERS 1 :status=502 content-type=text/plain; charset=utf-8 content-length=26 x-content-type-options=nosniff",
		"DATA 1 END (26)")
}

func TestRefusedCallsAreSentAgainOnce(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		refuse func(up *rawPeer)
	}{
		{"REFUSED_STREAM", func(up *rawPeer) { up.must(up.WriteRSTStream(1, http2.ErrCodeRefusedStream)) }},
		{"GOAWAY", func(up *rawPeer) { up.must(up.WriteGoAway(0, http2.ErrCodeNo, nil)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			u := newRawUpstream(t)
			f := newFront(t, u.address(), nil)
			client := rawClient(t, f)
			client.request(1, false)
			client.must(client.WriteData(1, false, []byte("one")))
			up := u.accept()
			up.expect(forwarded(1, false), "DATA 1 one")
			c.refuse(up)
			second, id := up, uint32(3)
			if c.name == "GOAWAY" {
				second, id = u.accept(), 1
			}
			// The connection may be chosen before the first data is moved to it, or after.
			second.expect(forwarded(id, false), "DATA "+string(rune('0'+id))+" one")
			client.must(client.WriteData(1, true, []byte("two")))
			second.expect("DATA " + string(rune('0'+id)) + " END two")
			second.headers(id, true, ":status", "200")
			client.expect("HEADERS 1 END :status=200")

			// Once is enough.
			client.request(3, true, "content-type", "application/grpc")
			for range 2 {
				got, err := second.next()
				second.must(err)
				id += 2
				if !strings.HasPrefix(got, "HEADERS ") {
					t.Fatal(got)
				}
				second.must(second.WriteRSTStream(id, http2.ErrCodeRefusedStream))
			}
			client.expect(strings.Replace(resetAnswer("14", "REFUSED_STREAM"), "HEADERS 1", "HEADERS 3", 1))
		})
	}
}

func TestCallsThatWereTooLongToKeepAreNotSentAgain(t *testing.T) {
	t.Parallel()
	u := newRawUpstream(t)
	client := rawClient(t, newFront(t, u.address(), nil))
	client.request(1, false, "content-type", "application/grpc")
	up := u.accept()
	up.must(up.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20}))
	up.must(up.WriteWindowUpdate(0, 1<<20))
	up.expect(forwarded(1, false, "content-type", "application/grpc"))
	for range 5 {
		client.must(client.WriteData(1, false, make([]byte, 16<<10)))
		up.expect("DATA 1 (16384)")
	}
	up.must(up.WriteRSTStream(1, http2.ErrCodeRefusedStream))
	client.expect(resetAnswer("14", "REFUSED_STREAM"), "RST 1 NO_ERROR")
}

func TestConnectionThatDiesBeforeAnythingWasWritten(t *testing.T) {
	t.Parallel()
	// The first connection is full; what waits is sent over the second, whatever becomes of the first.
	u := newRawUpstream(t, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
	f := newFront(t, u.address(), func(o *h2.Options) { o.Upstream.Conns, o.Upstream.MaxConns = 1, 1 })
	client := rawClient(t, f)
	// What comes before the upstream's SETTINGS is placed at once; so one call goes first.
	client.request(1, true)
	up := u.accept()
	up.expect(forwarded(1, true))
	up.headers(1, true, ":status", "204")
	client.expect("HEADERS 1 END :status=204")

	client.request(3, true, "content-type", "application/grpc")
	up.expect(forwarded(3, true, "content-type", "application/grpc"))
	client.request(5, false, "x", "waits")
	client.must(client.WriteData(5, true, []byte("with data")))
	client.must(client.WritePing(false, [8]byte{1}))
	for {
		f, err := client.ReadFrame()
		client.must(err)
		if p, ok := f.(*http2.PingFrame); ok && p.IsAck() {
			break
		}
	}
	_ = up.nc.Close()
	client.expect(strings.Replace(unavailable, "HEADERS 1", "HEADERS 3", 1))
	up = u.accept()
	up.expect(forwarded(1, false, "x", "waits"), "DATA 1 END with data")
	up.headers(1, true, ":status", "200")
	client.expect("HEADERS 5 END :status=200")
}

func TestQueueTimeout(t *testing.T) {
	t.Parallel()
	u := newRawUpstream(t, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 0})
	f := newFront(t, u.address(), func(o *h2.Options) {
		o.Upstream.MaxConns = 1
		o.Upstream.Conns = 1
		o.Upstream.QueueTimeout = 100 * time.Millisecond
	})
	client := rawClient(t, f)
	// What came before the upstream's SETTINGS is placed at once.
	warm := rawClient(t, f)
	warm.request(1, true)
	up := u.accept()
	up.expect(forwarded(1, true))
	up.headers(1, true, ":status", "204")
	warm.expect("HEADERS 1 END :status=204")
	client.request(1, true, "content-type", "application/grpc")
	client.expect("HEADERS 1 END :status=200 content-type=application/grpc grpc-status=14 grpc-message=upstream has no stream free")
	f.waitFor(t, "the limit", func() bool { return f.limited[h2.ReasonQueueTimeout] == 1 })
}

func TestUpstreamThatIsSilentIsAskedAndGivenUp(t *testing.T) {
	t.Parallel()
	u := newRawUpstream(t)
	f := newFront(t, u.address(), func(o *h2.Options) {
		o.Upstream.PingAfter = 50 * time.Millisecond
		o.Upstream.PingTimeout = 50 * time.Millisecond
	})
	client := rawClient(t, f)
	client.request(1, true, "content-type", "application/grpc")
	up := u.accept()
	up.expect(forwarded(1, true, "content-type", "application/grpc"))
	client.expect(unavailable) // The PING is in the socket, unread.
	f.waitFor(t, "the limit", func() bool { return f.limited[h2.ReasonPingTimeout] == 1 })
}
