package h2_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/execgate/execgate/proxy/h2"
)

// handBack is a handler that reads the request, gives the call back with another body, and tells what became of it.
type handBack struct {
	unread   bool          // the request is not read
	patience time.Duration // 0: there is no deadline
	change   func(*h2.Head)
	ended    chan h2.Call
	ok       chan bool
}

func newHandBack() *handBack {
	return &handBack{ended: make(chan h2.Call, 2), ok: make(chan bool, 2)}
}

func (h *handBack) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !h.unread {
		_, _ = io.Copy(io.Discard, r.Body)
	}
	o := h2.Handback{Body: []byte("changed"), Ended: func(c *h2.Call) { h.ended <- *c }}
	if h.patience != 0 {
		o.Deadline = time.Now().Add(h.patience)
	}
	relayer := w.(h2.Relayer)
	if head := relayer.Head(); head != nil && h.change != nil {
		h.change(head)
	}
	ok := relayer.Relay(o)
	if !ok {
		w.WriteHeader(http.StatusTeapot)
	}
	h.ok <- ok
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
			h.patience = 1
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
			f.decide = func(*h2.Head) h2.Action { return h2.Action{Handler: h, Relayable: true} }
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
	for name, action := range map[string]h2.Action{
		"the request goes on":          {Relayable: true},
		"the action does not allow it": {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHandBack()
			h.unread = action.Relayable
			u := newRawUpstream(t)
			f := newFront(t, u.address(), nil)
			action.Handler = h
			f.decide = func(*h2.Head) h2.Action { return action }
			client := rawClient(t, f)
			client.request(1, false, "content-type", "application/grpc")
			want := []string{"HEADERS 1 END :status=418 content-length=0", "RST 1 NO_ERROR"}
			if !h.unread {
				client.must(client.WriteData(1, true, []byte("as it came")))
				want = want[:1]
			}
			if <-h.ok {
				t.Error("the call was given back")
			}
			client.expect(want...)
		})
	}
}

// TestHeadOfACallThatIsGivenBackCanBeChanged: it is what goes upstream; the handler's request stays what the client sent.
func TestHeadOfACallThatIsGivenBackCanBeChanged(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x-many ", 40)
	for name, c := range map[string]struct {
		change func(*h2.Head)
		want   string
	}{
		"a field is set":      {func(h *h2.Head) { h.Set("b", "3") }, " content-type=application/grpc a=1 b=3"},
		"a field is added":    {func(h *h2.Head) { h.Add("c", "4") }, " content-type=application/grpc a=1 b=2 c=4"},
		"fields are removed":  {func(h *h2.Head) { h.Remove(func(name string) bool { return name != "a" }) }, " a=1"},
		"no field is left":    {func(h *h2.Head) { h.Remove(func(string) bool { return true }) }, ""},
		"the tenant is other": {func(h *h2.Head) { h.SetAuthority("b.test") }, " content-type=application/grpc a=1 b=2"},
		"there are many more": {func(h *h2.Head) {
			for name := range strings.FieldsSeq(long) {
				h.Add(name, "5")
			}
		}, " content-type=application/grpc a=1 b=2" + strings.Repeat(" x-many=5", 40)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHandBack()
			h.change = c.change
			u := newRawUpstream(t)
			f := newFront(t, u.address(), nil)
			f.decide = func(head *h2.Head) h2.Action {
				head.SetMemo(7)
				return h2.Action{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					head := w.(h2.Relayer).Head()
					if head.Memo() != 7 || head.Path() != r.URL.Path || head.Authority() != r.Host || head.RemoteAddr() != r.RemoteAddr {
						t.Errorf("the head is %+v", head)
					}
					head.SetMemo(8)
					h.ServeHTTP(w, r)
					if w.(h2.Relayer).Head() != nil {
						t.Error("a call that was given back has a head")
					}
					if r.Header.Get("a") != "1" || r.Header.Get("b") != "2" || len(r.Header) != 3 {
						t.Errorf("the handler's request has %v", r.Header)
					}
				}), Relayable: true}
			}
			client := rawClient(t, f)
			client.request(1, true, "content-type", "application/grpc", "a", "1", "b", "2")
			up := u.accept()
			authority := "a.test"
			if name == "the tenant is other" {
				authority = "b.test"
			}
			up.expect("HEADERS 1 :method=POST :scheme=http :path=/pkg.Service/Method :authority="+authority+c.want, "DATA 1 END changed")
			up.headers(1, true, ":status", "200", "grpc-status", "0")
			client.expect("HEADERS 1 END :status=200 grpc-status=0")
			if got := <-h.ended; got.GRPCStatus != "0" {
				t.Errorf("ended with %+v", got)
			}
		})
	}
}

// TestCallsEndAfterTheirHandlers: who gave a call back hears of its end only when the handler has returned.
func TestCallsEndAfterTheirHandlers(t *testing.T) {
	t.Parallel()
	h := newHandBack()
	hold := make(chan struct{})
	u := newRawUpstream(t)
	f := newFront(t, u.address(), nil)
	f.decide = func(*h2.Head) h2.Action {
		return h2.Action{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(w, r)
			<-hold
		}), Relayable: true}
	}
	client := rawClient(t, f)
	client.request(1, true, "content-type", "application/grpc")
	up := u.accept()
	up.expect("HEADERS 1 :method=POST :scheme=http :path=/pkg.Service/Method :authority=a.test content-type=application/grpc", "DATA 1 END changed")
	up.headers(1, true, ":status", "200", "grpc-status", "0")
	client.expect("HEADERS 1 END :status=200 grpc-status=0")
	select {
	case <-h.ended:
		t.Error("the end was told to a handler that runs")
	default:
	}
	close(hold)
	<-h.ended
}

// TestDistantDeadlinesOfCallsThatAreGivenBack: a deadline that gets its timer only when it is near passes when it should.
func TestDistantDeadlinesOfCallsThatAreGivenBack(t *testing.T) {
	t.Parallel()
	h := newHandBack()
	h.patience = 1500 * time.Millisecond
	u := newRawUpstream(t)
	f := newFront(t, u.address(), func(o *h2.Options) { o.PingTimeout = 400 * time.Millisecond }) // So often it is looked at.
	f.decide = func(*h2.Head) h2.Action { return h2.Action{Handler: h, Relayable: true} }
	client := rawClient(t, f)
	began := time.Now()
	client.request(1, true, "content-type", "application/grpc")
	up := u.accept()
	up.expect("HEADERS 1 :method=POST :scheme=http :path=/pkg.Service/Method :authority=a.test content-type=application/grpc", "DATA 1 END changed")
	client.request(3, true, "content-type", "application/grpc")
	up.expect("HEADERS 3 :method=POST :scheme=http :path=/pkg.Service/Method :authority=a.test content-type=application/grpc", "DATA 3 END changed")
	up.headers(1, true, ":status", "200", "grpc-status", "0")
	client.expect("HEADERS 1 END :status=200 grpc-status=0",
		"HEADERS 3 END :status=200 content-type=application/grpc grpc-status=4 grpc-message=the caller's deadline has passed")
	if took := time.Since(began); took < h.patience {
		t.Errorf("the deadline passed after %v", took)
	}
	if a, b := <-h.ended, <-h.ended; a.Local || !b.Local || b.GRPCStatus != "4" {
		t.Errorf("ended as %+v and %+v", a, b)
	}
}
