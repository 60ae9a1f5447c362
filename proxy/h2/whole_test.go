package h2_test

import (
	"bytes"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"github.com/execgate/execgate/proxy/h2"
)

// atOnce has frames arrive in one piece.
func (p *rawPeer) atOnce(write func(f *http2.Framer)) {
	p.t.Helper()
	var b bytes.Buffer
	f := http2.NewFramer(&b, nil)
	f.AllowIllegalWrites = true
	write(f)
	p.send(b.String())
}

// answer writes headers, one message and trailers.
func (p *rawPeer) answer(f *http2.Framer, id uint32, body string, trailers ...string) {
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, BlockFragment: p.block(":status", "200", "content-type", "application/grpc")})
	_ = f.WriteData(id, false, []byte(body))
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, EndStream: true, BlockFragment: p.block(trailers...)})
}

// TestCallsInOnePiece: a request that comes with its body, and an answer that comes with its body and its trailers, are what they
// are frame by frame.
func TestCallsInOnePiece(t *testing.T) {
	t.Parallel()
	const (
		headers = "HEADERS 3 :status=200 content-type=application/grpc"
		whole   = "HEADERS 3 END grpc-status=0"
		broken  = "HEADERS 3 END grpc-status=13 grpc-message=upstream broke the protocol"
		lost    = "HEADERS 3 END grpc-status=14 grpc-message=upstream is not available"
	)
	for name, test := range map[string]struct {
		client, upstream []http2.Setting
		received         []string // by the upstream
		answer           func(up *rawPeer, f *http2.Framer)
		want             []string // by the client
		credit           uint32   // then the client gives, and wants
		more             []string
		told             string // to the upstream, at last
		status           string
	}{
		"as it should be": {
			answer: func(up *rawPeer, f *http2.Framer) { up.answer(f, 3, "world", "grpc-status", "0") },
			want:   []string{headers, "DATA 3 world", whole}, status: "0",
		},
		"the status comes with the headers too": {
			answer: func(up *rawPeer, f *http2.Framer) {
				up.answer(f, 3, "world", "grpc-status", "0", "x-a", "b", "x-a", "b")
			},
			want: []string{headers, "DATA 3 world", whole + " x-a=b x-a=b"}, status: "0",
		},
		"the client takes little": {
			client: []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 3}},
			answer: func(up *rawPeer, f *http2.Framer) { up.answer(f, 3, "world", "grpc-status", "0") },
			want:   []string{headers, "DATA 3 wor"}, credit: 5, more: []string{"DATA 3 ld", whole}, status: "0",
		},
		"the upstream takes little": {
			upstream: []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 3}},
			received: []string{"DATA 3 hel"},
			answer:   func(up *rawPeer, f *http2.Framer) { up.answer(f, 3, "world", "grpc-status", "0") },
			want:     []string{headers, "DATA 3 world", whole}, status: "0",
		},
		"a pseudo-header among the trailers": {
			answer: func(up *rawPeer, f *http2.Framer) { up.answer(f, 3, "world", "grpc-status", "0", ":status", "200") },
			want:   []string{headers, "DATA 3 world", broken}, told: "RST 3 PROTOCOL_ERROR", status: "13",
		},
		"too many trailers": {
			answer: func(up *rawPeer, f *http2.Framer) {
				up.answer(f, 3, "world", "grpc-status", "0", "x-long", strings.Repeat("x", 2000))
			},
			want: []string{headers, "DATA 3 world", broken}, told: "RST 3 PROTOCOL_ERROR", status: "13",
		},
		"trailers that cannot be decoded": {
			answer: func(up *rawPeer, f *http2.Framer) {
				up.answer(f, 3, "world")
				_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, EndHeaders: true, EndStream: true, BlockFragment: []byte{0x80}})
			},
			want: []string{headers, "DATA 3 world", "HEADERS 3 END"}, told: "GOAWAY 0 COMPRESSION_ERROR", status: "",
		},
		"trailers that cannot be decoded, at once": {
			answer: func(up *rawPeer, f *http2.Framer) {
				_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, EndHeaders: true, BlockFragment: up.block(":status", "200", "content-type", "application/grpc")})
				_ = f.WriteData(3, false, []byte("world"))
				_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, EndHeaders: true, EndStream: true, BlockFragment: []byte{0x80}})
			},
			want: []string{headers, "DATA 3 world", lost}, told: "GOAWAY 0 COMPRESSION_ERROR", status: "14",
		},
		"more than was stated": {
			answer: func(up *rawPeer, f *http2.Framer) {
				_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, EndHeaders: true, BlockFragment: up.block(":status", "200", "content-type", "application/grpc", "content-length", "4")})
				_ = f.WriteData(3, false, []byte("world"))
				_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, EndHeaders: true, EndStream: true, BlockFragment: up.block("grpc-status", "0")})
			},
			want: []string{headers + " content-length=4", broken}, told: "RST 3 PROTOCOL_ERROR", status: "13",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := newRawUpstream(t, test.upstream...)
			f := newFront(t, u.address(), func(o *h2.Options) { o.Upstream.MaxHeaderBytes = 1000 })
			client := rawClient(t, f, test.client...)
			// The first call finds no connection, and is answered frame by frame.
			client.request(1, true, "content-type", "application/grpc")
			up := u.accept()
			up.expect(forwarded(1, true, "content-type", "application/grpc"))
			up.headers(1, true, ":status", "200", "grpc-status", "0")
			client.expect("HEADERS 1 END :status=200 grpc-status=0")

			client.atOnce(func(f *http2.Framer) {
				_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, EndHeaders: true, BlockFragment: client.block(
					":method", "POST", ":scheme", "http", ":path", "/pkg.Service/Method", ":authority", "a.test", "content-type", "application/grpc")})
				_ = f.WriteData(3, true, []byte("hello"))
			})
			up.expect(forwarded(3, false, "content-type", "application/grpc"))
			if test.received == nil {
				up.expect("DATA 3 END hello")
			} else {
				up.expect(test.received...)
				up.must(up.WriteWindowUpdate(3, 10))
				up.expect("DATA 3 END lo")
			}
			up.atOnce(func(f *http2.Framer) { test.answer(up, f) })
			client.expect(test.want...)
			if test.credit > 0 {
				client.must(client.WriteWindowUpdate(3, test.credit))
				client.expect(test.more...)
			}
			if test.told != "" {
				up.expect(test.told)
			}
			f.waitFor(t, "the ends", func() bool {
				return len(f.done) == 2 && f.done[1].GRPCStatus == test.status && f.done[1].Status == 200 && !f.done[1].Canceled
			})
			if strings.HasPrefix(test.told, "GOAWAY") {
				return
			}
			client.request(5, true)
			up.expect(forwarded(5, true))
			up.headers(5, true, ":status", "204")
			client.expect("HEADERS 5 END :status=204")
		})
	}
}
