package h2_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"github.com/execgate/execgate/proxy/h2"
)

// handBack is a handler that reads the request, gives the call back, and tells what Relay returned.
type handBack struct {
	unread bool // the request is not read
	body   string
	ctx    func(context.Context) (context.Context, context.CancelFunc)
	ended  chan h2.Call
	ok     chan bool
}

func newHandBack() *handBack {
	return &handBack{body: "changed", ended: make(chan h2.Call, 1), ok: make(chan bool, 1)}
}

func (h *handBack) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !h.unread {
		_, _ = io.Copy(io.Discard, r.Body)
	}
	ctx := r.Context()
	if h.ctx != nil {
		var cancel context.CancelFunc
		ctx, cancel = h.ctx(ctx)
		defer cancel()
	}
	out := r.Clone(ctx)
	out.Body = whole([]byte(h.body))
	c, ok := w.(h2.Relayer).Relay(out)
	h.ok <- ok
	if !ok {
		w.WriteHeader(http.StatusTeapot)
	}
	h.ended <- c
}

// TestCallsAreGivenBack: what the upstream answers reaches the client as if no handler had been there, and the handler
// is told how the call ended.
func TestCallsAreGivenBack(t *testing.T) {
	t.Parallel()
	const sent = "HEADERS 1 :method=POST :scheme=http :path=/pkg.Service/Method :authority=a.test content-type=application/grpc"
	answer := []string{"HEADERS 1 :status=200 content-type=application/grpc", "DATA 1 hello", "HEADERS 1 END grpc-status=3"}
	respond := func(u *rawPeer, id uint32) {
		u.headers(id, false, ":status", "200", "content-type", "application/grpc")
		u.must(u.WriteData(id, false, []byte("hello")))
		u.headers(id, true, "grpc-status", "3")
	}
	for _, c := range []struct {
		name string
		make func(h *handBack)
		say  func(u, client *rawPeer)
		want []string
		call h2.Call
	}{
		{name: "an answer", say: func(u, _ *rawPeer) { respond(u, 1) }, want: answer, call: h2.Call{Status: 200, GRPCStatus: "3"}},
		{name: "a stream that was not seen is sent again", say: func(u, _ *rawPeer) {
			u.must(u.WriteRSTStream(1, http2.ErrCodeRefusedStream))
			u.expect(strings.Replace(sent, " 1 ", " 3 ", 1), "DATA 3 END changed")
			respond(u, 3)
		}, want: answer, call: h2.Call{Status: 200, GRPCStatus: "3"}},
		{name: "a reset", say: func(u, _ *rawPeer) { u.must(u.WriteRSTStream(1, http2.ErrCodeEnhanceYourCalm)) },
			want: []string{resetAnswer("8", "ENHANCE_YOUR_CALM")}, call: h2.Call{Status: 200, GRPCStatus: "8", Local: true}},
		{name: "a connection that ends", say: func(u, _ *rawPeer) { _ = u.nc.Close() },
			want: []string{unavailable}, call: h2.Call{Status: 200, GRPCStatus: "14", Local: true}},
		{name: "a client that gives up", say: func(u, client *rawPeer) {
			client.must(client.WriteRSTStream(1, http2.ErrCodeCancel))
			u.expect("RST 1 CANCEL")
		}, call: h2.Call{Canceled: true}},
		{name: "a deadline that passes", make: func(h *handBack) {
			h.ctx = func(ctx context.Context) (context.Context, context.CancelFunc) { return context.WithTimeout(ctx, 1) }
		}, say: func(u, _ *rawPeer) {}, want: []string{
			"HEADERS 1 END :status=200 content-type=application/grpc grpc-status=4 grpc-message=the caller's deadline has passed",
		}, call: h2.Call{Status: 200, GRPCStatus: "4", Local: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHandBack()
			if c.make != nil {
				c.make(h)
			}
			u := newRawUpstream(t)
			f := newFront(t, u.address(), nil)
			f.decide = func(*h2.Head) h2.Action { return h2.Action{Handler: h} }
			client := rawClient(t, f)
			client.request(1, false, "content-type", "application/grpc")
			client.must(client.WriteData(1, true, []byte("as it came")))
			var up *rawPeer
			if c.make == nil {
				up = u.accept()
				up.expect(sent, "DATA 1 END changed")
			}
			c.say(up, client)
			client.expect(c.want...)
			if !<-h.ok {
				t.Error("the call was not given back")
			}
			got := <-h.ended
			got.Start, got.Duration, got.Tag = c.call.Start, 0, nil
			if got != c.call {
				t.Errorf("the handler was told %+v", got)
			}
			// The connection goes on.
			client.must(client.WritePing(false, [8]byte{1}))
			for {
				frame, err := client.ReadFrame()
				client.must(err)
				if ping, ok := frame.(*http2.PingFrame); ok && ping.IsAck() {
					break
				}
			}
		})
	}
}

// TestCallsThatAreNotReadAreNotGivenBack: what the client still sends has no place in what was made of the request.
func TestCallsThatAreNotReadAreNotGivenBack(t *testing.T) {
	t.Parallel()
	h := newHandBack()
	h.unread = true
	u := newRawUpstream(t)
	f := newFront(t, u.address(), nil)
	f.decide = func(*h2.Head) h2.Action { return h2.Action{Handler: h} }
	client := rawClient(t, f)
	client.request(1, false, "content-type", "application/grpc")
	if <-h.ok {
		t.Error("the call was given back")
	}
	client.expect("HEADERS 1 END :status=418 content-length=0", "RST 1 NO_ERROR")
}
