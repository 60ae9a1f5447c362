package h1

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// readHead is what a connection does with what it has read.
func readHead(b []byte) (h *Head, rest []byte, err error) {
	end, _, err := headEnd(b, 0)
	if err != nil {
		return nil, nil, err
	}
	if end == 0 {
		return nil, nil, io.ErrUnexpectedEOF
	}
	h = &Head{}
	if err := h.parse(b[:end]); err != nil {
		return nil, nil, err
	}
	return h, b[end:], nil
}

func TestHead(t *testing.T) {
	t.Parallel()
	h, rest, err := readHead([]byte("POST /a?b=%20 HTTP/1.1\r\nhost: h:1\r\ncontent-LENGTH: 12 \r\nX-YY:\t a b\t\r\nConnection: keep-alive\r\nTE: trailers\r\n" +
		"Keep-Alive: 5\r\nProxy-Authorization: secret\r\nempty:\r\n\r\nrest"))
	if err != nil {
		t.Fatal(err)
	}
	if h.Method() != "POST" || h.Target() != "/a?b=%20" || h.Host() != "h:1" || h.ContentLength() != 12 || h.closes || h.odd || !h.trailersOK {
		t.Errorf("%+v", h)
	}
	if want := []Field{{"X-Yy", "a b"}, {"Empty", ""}}; !slices.Equal(h.Fields(), want) {
		t.Errorf("fields %q", h.Fields())
	}
	if string(rest) != "rest" {
		t.Errorf("rest %q", rest)
	}
}

func TestWhatOnlyNetHTTPServes(t *testing.T) {
	t.Parallel()
	for _, head := range []string{
		"GET / HTTP/1.0\r\n\r\n",
		"GET http://a/b HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET //a HTTP/1.1\r\nHost: a\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
		"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
		"GET / HTTP/1.1\r\nHost:\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Listed\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTrailer: X\r\nTransfer-Encoding: chunked\r\n\r\n",
	} {
		h, _, err := readHead([]byte(head))
		if err != nil || !h.odd {
			t.Errorf("%q: %v", head, err)
		}
	}
}

// FuzzHead: what the parser accepts, net/http reads as the same request.
func FuzzHead(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /x?y HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc",
		"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"PUT /%zz HTTP/1.0\r\nX-a: b\r\nx-A: \tc \r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nhost: [::1]:80\r\ncookie: \xff\r\n\r\n",
		"GET /\r HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\rHost: a\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		sent := bytes.Clone(b)
		h, _, err := readHead(b)
		if err != nil {
			return
		}
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(sent)))
		if err != nil {
			// Targets are parsed when a request is relayed; those that are no URLs go to net/http.
			if strings.Contains(err.Error(), "URL") || strings.Contains(err.Error(), "URI") || strings.Contains(err.Error(), "parse ") {
				return
			}
			t.Fatalf("net/http refuses %q: %v", sent, err)
		}
		if r.Method != h.method || r.RequestURI != h.target || min(r.ProtoMinor, 1) != h.minor { // A higher one is served as 1.1.
			t.Fatalf("%q is %s %s 1.%d, not %s %s 1.%d", sent, r.Method, r.RequestURI, r.ProtoMinor, h.method, h.target, h.minor)
		}
		if r.ContentLength != h.length {
			t.Fatalf("%q has length %d, not %d", sent, r.ContentLength, h.length)
		}
		if !h.odd && (r.Host != h.host || r.Close != h.closes) {
			t.Fatalf("%q: host %q, not %q; close %v, not %v", sent, r.Host, h.host, r.Close, h.closes)
		}
		got := make(http.Header)
		for _, f := range h.fields {
			got[f.Name] = append(got[f.Name], f.Value)
		}
		for name, values := range r.Header {
			switch name {
			case "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Upgrade",
				"Http2-Settings", "Content-Length", "Host", "Expect":
				if len(got[name]) > 0 {
					t.Fatalf("%q: %s travels", sent, name)
				}
				continue
			case "Cache-Control": // net/http adds it to Pragma: no-cache.
				if len(got[name]) == 0 && len(r.Header["Pragma"]) > 0 {
					continue
				}
			}
			if !slices.Equal(got[name], values) {
				t.Fatalf("%q: %s is %q, not %q", sent, name, values, got[name])
			}
			delete(got, name)
		}
		if len(got) > 0 {
			t.Fatalf("%q: %v is too much", sent, got)
		}
	})
}

// FuzzChunks: what is taken for a whole body, net/http's reader takes for the same.
func FuzzChunks(f *testing.F) {
	for _, s := range []string{
		"0\r\n\r\n", "3\r\nabc\r\n0\r\n\r\n", "3;x=y\r\nabc\r\n0\r\nX: y\r\n\r\nrest", "00003\r\nabc\r\n0\r\n\r\n", "3\r\nabcd\r\n", "fffffffffffffff0\r\n", "3\nabc",
	} {
		f.Add([]byte(s), uint8(1))
	}
	f.Fuzz(func(t *testing.T, b []byte, step uint8) {
		// In pieces, as they may come.
		var d chunks
		var data []byte
		used, size := 0, int(step)+1
		for used < len(b) && !d.ended() {
			piece, n, err := d.next(b[used:min(len(b), used+size)])
			if err != nil {
				return
			}
			if n == 0 {
				t.Fatal("no progress")
			}
			data = append(data, piece...)
			used += n
		}
		if !d.ended() {
			return
		}
		head := "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
		r := bufio.NewReader(io.MultiReader(strings.NewReader(head), bytes.NewReader(b)))
		req, err := http.ReadRequest(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.appendTrailer(nil); err != nil {
			return
		}
		want, err := io.ReadAll(req.Body)
		if err != nil {
			t.Fatalf("net/http refuses %q: %v", b, err)
		}
		rest, _ := io.ReadAll(r)
		if !bytes.Equal(data, want) || !bytes.Equal(rest, b[used:]) {
			t.Fatalf("%q is %q and then %q, not %q and then %q", b, want, rest, data, b[used:])
		}
	})
}
