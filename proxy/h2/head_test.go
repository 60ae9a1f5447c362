package h2_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/execgate/execgate/proxy/h2"
)

func TestDirectorSeesAndChangesTheHead(t *testing.T) {
	t.Parallel()
	u := newRawUpstream(t)
	d := newDirector()
	memos := make(chan any, 2)
	d.decide = func(h *h2.Head) h2.Action {
		if h.Method() != "POST" || h.Path() != "/pkg.Service/Method" || h.Authority() != "a.test" || h.Scheme() != "http" ||
			h.ContentType() != "application/grpc+proto" || h.ContentLength() != -1 || h.TLS() != nil || h.LocalAddr() == nil ||
			h.Get("x-one") != "1" || h.Get("x-none") != "" || !strings.HasPrefix(h.RemoteAddr(), "127.0.0.1:") || !h.EndStream() {
			t.Errorf("the head is %+v", h.Fields())
		}
		memos <- h.Memo()
		h.SetMemo(h.RemoteAddr())
		h.Remove(func(name string) bool { return strings.HasPrefix(name, "x-forwarded-") })
		h.Set("x-one", "one")
		h.Set("x-two", "two")
		h.Add("x-forwarded-proto", h.Scheme())
		h.SetAuthority("b.test")
		return h2.Action{Tag: "tag"}
	}
	f := newFront(t, u.address(), func(o *h2.Options) { o.Director = d })
	client := rawClient(t, f)
	var up *rawPeer
	for _, id := range []uint32{1, 3} {
		client.request(id, true, "content-type", "application/grpc+proto", "x-one", "1", "x-forwarded-for", "6.6.6.6", "x-one", "11", "cookie", "a", "cookie", "b")
		if up == nil {
			up = u.accept()
		}
		got, err := up.next()
		up.must(err)
		want := "END :method=POST :scheme=http :path=/pkg.Service/Method :authority=b.test content-type=application/grpc+proto " +
			"x-one=one cookie=a cookie=b x-two=two x-forwarded-proto=http"
		if !strings.HasSuffix(got, want) {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		up.headers(id, true, ":status", "200", "grpc-status", "7")
		if got, err := client.next(); err != nil || !strings.Contains(got, "grpc-status=7") {
			t.Errorf("got %s, %v", got, err)
		}
	}
	if a, b := <-memos, <-memos; a != nil || b == nil {
		t.Errorf("memos are %v, %v", a, b)
	}
	d.waitFor(t, "the calls' ends", func() bool {
		return len(d.done) == 2 && d.done[0].Tag == "tag" && d.done[0].Status == http.StatusOK && d.done[0].GRPCStatus == "7"
	})
}

func TestUpstreamAuthority(t *testing.T) {
	t.Parallel()
	u := newRawUpstream(t)
	f := newFront(t, u.address(), func(o *h2.Options) { o.Upstream.Authority = "fixed.test" })
	client := rawClient(t, f)
	client.headers(1, true, ":method", "GET", ":scheme", "http", ":path", "/", "host", "only.host")
	up := u.accept()
	up.expect("HEADERS 1 END :method=GET :scheme=http :path=/ :authority=fixed.test")
}

func TestOptionsThatCannotBe(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]h2.Options{
		"no director":    {Upstream: h2.UpstreamOptions{Address: "a:1"}},
		"no address":     {Director: newDirector()},
		"half a address": {Director: newDirector(), Upstream: h2.UpstreamOptions{Address: "a"}},
	} {
		if _, err := h2.New(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	seen := map[string]bool{}
	for _, r := range h2.Reasons() {
		if seen[r.String()] || r.String() == "unknown" {
			t.Errorf("label %q of %d", r, r)
		}
		seen[r.String()] = true
	}
}
