package targetclient_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/execgate/execgate/targetclient"
)

// newClient makes a client that may call this machine, unless o says otherwise.
func newClient(tb testing.TB, o targetclient.Options) *targetclient.Client {
	tb.Helper()
	c, err := targetclient.New(o)
	if err != nil {
		tb.Fatalf("New: %v", err)
	}
	tb.Cleanup(c.Close)
	return c
}

// serve starts a target. It and its connections are gone when the test ends.
func serve(tb testing.TB, h http.HandlerFunc) *httptest.Server {
	tb.Helper()
	s := httptest.NewServer(h)
	tb.Cleanup(s.Close)
	return s
}

func target(url string) *targetclient.Target {
	return &targetclient.Target{ID: "id", Name: "name", URL: url, Kind: targetclient.KindCall, Timeout: 10 * time.Second}
}

func do(tb testing.TB, c *targetclient.Client, tgt *targetclient.Target, body string) (targetclient.Result, *targetclient.Error) {
	tb.Helper()
	res, err := c.Do(tb.Context(), targetclient.Call{Target: tgt, Body: []byte(body)})
	return res, asError(tb, err)
}

func asError(tb testing.TB, err error) *targetclient.Error {
	tb.Helper()
	if err == nil {
		return nil
	}
	var e *targetclient.Error
	if !errors.As(err, &e) {
		tb.Fatalf("error is %T, want *Error: %v", err, err)
	}
	return e
}

func wantReason(tb testing.TB, err *targetclient.Error, want targetclient.Reason) {
	tb.Helper()
	if err == nil {
		tb.Fatalf("no error, want %v", want)
	}
	if err.Reason != want {
		tb.Fatalf("reason %v, want %v (%v)", err.Reason, want, err)
	}
}

// hang waits until the client has gone or the test ends.
func hang(tb testing.TB) http.HandlerFunc {
	tb.Helper()
	return func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-r.Context().Done():
		case <-tb.Context().Done():
		}
	}
}

// raw serves each connection with what it writes after the request's header has
// come; then the connection is closed.
func raw(tb testing.TB, answer string) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
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
				_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
				var got []byte
				buf := make([]byte, 4096)
				for !bytes.Contains(got, []byte("\r\n\r\n")) {
					n, err := conn.Read(buf)
					if err != nil {
						return
					}
					got = append(got, buf[:n]...)
				}
				_, _ = io.WriteString(conn, answer)
			})
		}
	})
	tb.Cleanup(func() { l.Close(); wg.Wait() })
	return "http://" + l.Addr().String()
}

func TestRequestIsASignedPost(t *testing.T) {
	t.Parallel()
	type seen struct {
		method, uri, host, body string
		header                  http.Header
	}
	got := make(chan seen, 1)
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- seen{r.Method, r.RequestURI, r.Host, string(body), r.Header}
		_, _ = io.WriteString(w, `{"a":1}`)
	})
	tgt := target(strings.Replace(s.URL, "http://", "http://user:pass@", 1) + "/path?q=1#fragment")
	tgt.SigningKeys = []string{"old", "new"}
	tgt.Headers = map[string]string{
		"x-fixed": "1", "X-Both": "target", "content-type": "text/plain", "HOST": "evil", "zitadel-signature": "t=1,v1=00",
		"Transfer-Encoding": "chunked", "Content-Length": "1", "Connection": "close", "Accept-Encoding": "br",
	}
	c := newClient(t, targetclient.Options{})
	before := time.Now()
	res, err := c.Do(t.Context(), targetclient.Call{Target: tgt, Body: []byte(`{"fullMethod":"/x.Y/Z"}`), Header: http.Header{
		"X-Both": {"call"}, "Webhook-Id": {"msg_1"}, "Content-Type": {"text/html"}, "Host": {"evil"},
		"ZITADEL-Signature": {"t=1,v1=00"}, "Expect": {"100-continue"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != 200 || string(res.Body) != `{"a":1}` || res.Duration <= 0 || res.Duration > time.Since(before) {
		t.Errorf("result %+v", res)
	}
	r := <-got
	if r.method != "POST" || r.uri != "/path?q=1" || r.host != s.Listener.Addr().String() || r.body != `{"fullMethod":"/x.Y/Z"}` {
		t.Errorf("request %+v", r)
	}
	sig := r.header.Get(targetclient.SignatureHeaderName)
	if strings.Count(sig, "v1=") != 2 || len(r.header.Values(targetclient.SignatureHeaderName)) != 1 {
		t.Errorf("signature %q, want one header with two v1 parts", sig)
	}
	for _, key := range tgt.SigningKeys {
		if err := targetclient.Verify(sig, key, []byte(r.body), time.Now(), targetclient.DefaultTolerance); err != nil {
			t.Errorf("Verify with key %q: %v", key, err)
		}
	}
	r.header.Del(targetclient.SignatureHeaderName)
	want := http.Header{
		"Content-Type": {"application/json"}, "Content-Length": {"23"}, "Accept-Encoding": {"gzip"}, "User-Agent": {"execgate"},
		"Authorization": {"Basic dXNlcjpwYXNz"}, "X-Fixed": {"1"}, "X-Both": {"call"}, "Webhook-Id": {"msg_1"},
	}
	if fmt.Sprint(r.header) != fmt.Sprint(want) {
		t.Errorf("header\n got %v\nwant %v", r.header, want)
	}
}

func TestWithoutKeysNothingIsSigned(t *testing.T) {
	t.Parallel()
	got := make(chan http.Header, 1)
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) { got <- r.Header })
	res, err := do(t, newClient(t, targetclient.Options{}), target(s.URL), "")
	if err != nil || len(res.Body) != 0 {
		t.Fatalf("%+v, %v", res, err)
	}
	h := <-got
	if _, ok := h["Zitadel-Signature"]; ok || h.Get("Content-Length") != "0" {
		t.Errorf("header %v", h)
	}
}

func TestPayloadTypesThatCannotBeSentFailClearly(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	s := serve(t, func(http.ResponseWriter, *http.Request) { calls.Add(1) })
	c := newClient(t, targetclient.Options{})
	for _, p := range []targetclient.PayloadType{targetclient.JWT, targetclient.JWE, 77} {
		tgt := target(s.URL)
		tgt.PayloadType = p
		_, err := do(t, c, tgt, "{}")
		if !errors.Is(err, targetclient.ErrPayloadType) || !strings.Contains(err.Error(), p.String()) {
			t.Errorf("%v: error %v", p, err)
		}
	}
	if calls.Load() != 0 {
		t.Error("something was sent")
	}
}

func TestUnusableURLIsAnErrorWithoutTheURL(t *testing.T) {
	t.Parallel()
	c := newClient(t, targetclient.Options{})
	for _, u := range []string{"", "/relative?secret", "ftp://host/?secret", "http://?secret", "http://[::1?secret", "http://h\x7f/?secret", "http:opaque?secret"} {
		_, err := do(t, c, target(u), "{}")
		wantReason(t, err, targetclient.ReasonTransport)
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: error text shows the url: %v", u, err)
		}
	}
}

func TestSizeOfTheAnswerIsLimited(t *testing.T) {
	t.Parallel()
	const limit = 100_000
	tests := map[string]struct {
		size    int
		chunked bool
		gzip    bool
		ok      bool
	}{
		"exactly the limit":                 {size: limit, ok: true},
		"one more":                          {size: limit + 1},
		"exactly the limit, chunked":        {size: limit, chunked: true, ok: true},
		"one more, chunked":                 {size: limit + 1, chunked: true},
		"exactly the limit, compressed":     {size: limit, gzip: true, ok: true},
		"one more, compressed":              {size: limit + 1, gzip: true},
		"a bomb":                            {size: 50_000_000, gzip: true},
		"far more, announced":               {size: 300_000_000},
		"nothing":                           {size: 0, ok: true},
		"nothing, chunked":                  {size: 0, chunked: true, ok: true},
		"more than the first buffer":        {size: 513, chunked: true, ok: true},
		"exactly the first buffer, chunked": {size: 512, chunked: true, ok: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				var out io.Writer = w
				switch {
				case tt.gzip:
					w.Header().Set("Content-Encoding", "gzip")
					z := gzip.NewWriter(w)
					defer z.Close()
					out = z
				case tt.chunked:
					w.(http.Flusher).Flush()
				default:
					w.Header().Set("Content-Length", fmt.Sprint(tt.size))
				}
				piece := bytes.Repeat([]byte("x"), 8192)
				for left := tt.size; left > 0; {
					n, err := out.Write(piece[:min(left, len(piece))])
					if err != nil {
						return
					}
					left -= n
				}
			})
			res, err := do(t, newClient(t, targetclient.Options{MaxResponseBytes: limit}), target(s.URL), "{}")
			if tt.ok {
				if err != nil || len(res.Body) != tt.size {
					t.Fatalf("%d bytes, %v", len(res.Body), err)
				}
				return
			}
			wantReason(t, err, targetclient.ReasonTransport)
			if res.Body != nil {
				t.Error("a body came with the error")
			}
		})
	}
}

func TestDefaultLimitIsTwentyMiB(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n := 20971520
		if r.URL.Path == "/more" {
			n++
		}
		_, _ = w.Write(make([]byte, n))
	})
	c := newClient(t, targetclient.Options{})
	if res, err := do(t, c, target(s.URL), "{}"); err != nil || len(res.Body) != 20971520 {
		t.Errorf("%d bytes, %v", len(res.Body), err)
	}
	_, err := do(t, c, target(s.URL+"/more"), "{}")
	wantReason(t, err, targetclient.ReasonTransport)
}

func TestAnswersThatAreNone(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		answer string
		reason targetclient.Reason
		status int
	}{
		"hung up":                         {"", targetclient.ReasonTransport, 0},
		"not HTTP":                        {"SSH-2.0-secret\r\n", targetclient.ReasonTransport, 0},
		"bad status line":                 {"HTTP/1.1 abc secret\r\n\r\n", targetclient.ReasonTransport, 0},
		"bad header line":                 {"HTTP/1.1 200 OK\r\nsecret\r\n\r\n", targetclient.ReasonTransport, 0},
		"bad header value":                {"HTTP/1.1 200 OK\r\nContent-Length: secret\r\n\r\n", targetclient.ReasonTransport, 0},
		"body cut off":                    {"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}", targetclient.ReasonTransport, 200},
		"chunks cut off":                  {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", targetclient.ReasonTransport, 200},
		"bad chunk":                       {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nsecret\r\n", targetclient.ReasonTransport, 200},
		"bad gzip":                        {"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 6\r\n\r\nsecret", targetclient.ReasonTransport, 200},
		"unasked switch of protocols":     {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", targetclient.ReasonFailed, 101},
		"an error whose body is cut":      {"HTTP/1.1 500 No\r\nContent-Length: 100\r\n\r\nx", targetclient.ReasonFailed, 500},
		"a header without end":            {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 2<<20), targetclient.ReasonTransport, 0},
		"a status that does not exist":    {"HTTP/1.1 799 x\r\n\r\n", targetclient.ReasonFailed, 799},
		"a redirect that is not one":      {"HTTP/1.1 304 x\r\nLocation: /\r\n\r\n", targetclient.ReasonFailed, 304},
		"a list of choices, not followed": {"HTTP/1.1 300 x\r\nLocation: /\r\n\r\n", targetclient.ReasonFailed, 300},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			res, err := do(t, newClient(t, targetclient.Options{}), target(raw(t, tt.answer)), "{}")
			wantReason(t, err, tt.reason)
			if err.StatusCode != tt.status || res.StatusCode != tt.status {
				t.Errorf("status %d, %d, want %d", err.StatusCode, res.StatusCode, tt.status)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error shows what the target sent: %v", err)
			}
		})
	}
}

func TestInformationalAnswersAreSkippedAndABodyMayEndWithTheConnection(t *testing.T) {
	t.Parallel()
	u := raw(t, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.0 200 OK\r\n\r\n{\"a\":1}")
	res, err := do(t, newClient(t, targetclient.Options{}), target(u), "{}")
	if err != nil || string(res.Body) != `{"a":1}` {
		t.Errorf("%q, %v", res.Body, err)
	}
}

func TestNobodyListens(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	_, e := do(t, newClient(t, targetclient.Options{}), target("http://user:secret@"+l.Addr().String()+"/?secret"), "{}")
	wantReason(t, e, targetclient.ReasonTransport)
	if strings.Contains(e.Error(), "secret") {
		t.Errorf("the error shows the url: %v", e)
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("http2 %v", h2), func(t *testing.T) {
			t.Parallel()
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.WriteString(w, r.Proto)
			}))
			s.EnableHTTP2 = h2
			s.Config.ErrorLog = quiet
			s.StartTLS()
			t.Cleanup(s.Close)
			trusting := newClient(t, targetclient.Options{TLSConfig: s.Client().Transport.(*http.Transport).TLSClientConfig})
			for range 2 {
				res, err := do(t, trusting, target(s.URL), "{}")
				if err != nil {
					t.Fatal(err)
				}
				if want := map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[h2]; string(res.Body) != want {
					t.Errorf("spoke %s, want %s", res.Body, want)
				}
			}
			_, err := do(t, newClient(t, targetclient.Options{}), target(s.URL), "{}")
			wantReason(t, err, targetclient.ReasonTransport)
		})
	}
}

func TestConnectionsAreKept(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]http.HandlerFunc{
		"small answer": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") },
		"no answer":    func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) },
		"chunked":      func(w http.ResponseWriter, _ *http.Request) { w.(http.Flusher).Flush(); _, _ = io.WriteString(w, "{}") },
		"an error with a body": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, strings.Repeat("no", 1000), http.StatusTeapot)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var conns atomic.Int64
			s := httptest.NewUnstartedServer(h)
			s.Config.ConnState = func(_ net.Conn, st http.ConnState) {
				if st == http.StateNew {
					conns.Add(1)
				}
			}
			s.Start()
			t.Cleanup(s.Close)
			c := newClient(t, targetclient.Options{})
			for range 20 {
				_, _ = do(t, c, target(s.URL), "{}")
			}
			if conns.Load() != 1 {
				t.Errorf("%d connections for 20 calls", conns.Load())
			}
		})
	}
}

func TestTimeoutCoversConnectingAnswerAndBody(t *testing.T) {
	t.Parallel()
	inHeader := serve(t, hang(t))
	inBody := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "{")
		w.(http.Flusher).Flush()
		hang(t)(w, r)
	})
	inRedirect := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, inHeader.URL, http.StatusTemporaryRedirect)
	})
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts by the kernel alone: no TLS handshake
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	for name, u := range map[string]string{
		"in the header": inHeader.URL, "in the body": inBody.URL, "after a redirect": inRedirect.URL,
		"in the TLS handshake": "https://" + silent.Addr().String(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tgt := target(u)
			tgt.Timeout = 100 * time.Millisecond
			res, err := do(t, newClient(t, targetclient.Options{}), tgt, "{}")
			wantReason(t, err, targetclient.ReasonTimeout)
			if !errors.Is(err, targetclient.ErrTargetTimeout) {
				t.Errorf("cause %v", err.Err)
			}
			if res.Duration < tgt.Timeout || res.Duration > 5*time.Second {
				t.Errorf("took %v", res.Duration)
			}
		})
	}
}

func TestAnErrorWithASlowBodyDoesNotWait(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusBadGateway)
		w.(http.Flusher).Flush()
		hang(t)(w, r)
	})
	res, err := do(t, newClient(t, targetclient.Options{}), target(s.URL), "{}")
	wantReason(t, err, targetclient.ReasonFailed)
	if res.StatusCode != 502 || res.Duration > 5*time.Second {
		t.Errorf("%+v", res)
	}
}

func TestWhoEndedTheCall(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		ctx    func(context.Context) (context.Context, context.CancelFunc)
		reason targetclient.Reason
		cause  error
	}{
		"the caller cancelled": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(50*time.Millisecond, cancel)
			return ctx, cancel
		}, targetclient.ReasonCancelled, context.Canceled},
		"the caller's deadline": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 50*time.Millisecond)
		}, targetclient.ReasonCancelled, context.DeadlineExceeded},
		"the chain's budget": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeoutCause(ctx, 50*time.Millisecond, targetclient.ErrChainTimeout)
		}, targetclient.ReasonTimeout, targetclient.ErrChainTimeout},
		"the caller's deadline within the chain's budget": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
			ctx, cancel2 := context.WithTimeoutCause(ctx, time.Minute, targetclient.ErrChainTimeout)
			return ctx, func() { cancel2(); cancel() }
		}, targetclient.ReasonCancelled, context.DeadlineExceeded},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, hang(t))
			c := newClient(t, targetclient.Options{})
			ctx, cancel := tt.ctx(t.Context())
			defer cancel()
			// The second call finds the context already at its end.
			for range 2 {
				_, err := c.Do(ctx, targetclient.Call{Target: target(s.URL), Body: []byte("{}")})
				wantReason(t, asError(t, err), tt.reason)
				if !errors.Is(err, tt.cause) {
					t.Errorf("cause %v, want %v", err, tt.cause)
				}
			}
		})
	}
}
