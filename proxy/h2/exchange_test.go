package h2_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/execgate/execgate/proxy/h2"
)

// wholeBody is a body in memory.
type wholeBody struct {
	*bytes.Reader

	p []byte
}

func whole(p []byte) *wholeBody { return &wholeBody{bytes.NewReader(p), p} }

func (b *wholeBody) Bytes() ([]byte, bool) { return b.p[len(b.p)-b.Len():], true }
func (b *wholeBody) Close() error          { return nil }

// transports are the engine's and net/http's, to the same upstream.
func transports(t *testing.T, upstream string) map[string]http.RoundTripper {
	t.Helper()
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: &p, DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return map[string]http.RoundTripper{"h2": newFront(t, upstream, nil).engine, "net/http": tr}
}

func request(t *testing.T, method, url string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(testContext(t), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header["User-Agent"] = nil
	return r
}

// TestExchangesAreWhatTheyAreWithNetHTTP sends the same requests with the engine and with net/http's transport: the
// server sees the same, and the answer is the same.
func TestExchangesAreWhatTheyAreWithNetHTTP(t *testing.T) {
	t.Parallel()
	upstream := startWeb(t, nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		w.Header()["Date"] = nil
		switch r.URL.Path {
		case "/status":
			w.WriteHeader(http.StatusTeapot)
		case "/nothing":
			w.WriteHeader(http.StatusNoContent)
		case "/long":
			_, _ = w.Write(bytes.Repeat([]byte("0123456789"), 100_000))
		case "/trailers":
			w.Header().Set("Trailer", "X-Announced, X-Never")
			_, _ = io.WriteString(w, "body")
			w.Header().Set("X-Announced", "1")
			w.Header().Add(http.TrailerPrefix+"X-Late", "2")
			w.Header().Add(http.TrailerPrefix+"X-Late", "3")
		case "/only-trailers":
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
		case "/early":
			w.WriteHeader(http.StatusEarlyHints)
			_, _ = io.WriteString(w, "after hints")
		case "/abort":
			_, _ = io.WriteString(w, "some")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		case "/abort-at-once":
			panic(http.ErrAbortHandler)
		default:
			fmt.Fprintf(w, "%s %s %s %v %d %v %v %v", r.Method, r.RequestURI, r.Host, r.Header, r.ContentLength, r.Trailer, err, string(body))
		}
	}))
	base := "http://" + upstream
	for name, make := range map[string]func() *http.Request{
		"a GET": func() *http.Request {
			r := request(t, "GET", base+"/a%2Fb?c=d&e", nil)
			r.Host = "tenant.example:88"
			r.Header.Add("X-Two", "1")
			r.Header.Add("X-Two", "2")
			r.Header.Set("Connection", "keep-alive")
			r.Header.Set("Te", "trailers")
			return r
		},
		"an opaque target": func() *http.Request {
			r := request(t, "GET", base, nil)
			r.URL.Opaque = "/a//b;c|d?%zz"
			return r
		},
		"a POST without body":  func() *http.Request { return request(t, "POST", base, nil) },
		"a POST with a length": func() *http.Request { return request(t, "POST", base, strings.NewReader("hello")) },
		"a POST from memory":   func() *http.Request { return request(t, "POST", base, whole([]byte("hello"))) },
		"a long POST from memory": func() *http.Request {
			return request(t, "POST", base, whole(bytes.Repeat([]byte("a"), 300_000)))
		},
		"a long POST": func() *http.Request {
			return request(t, "POST", base, io.MultiReader(strings.NewReader("x"), bytes.NewReader(bytes.Repeat([]byte("a"), 300_000))))
		},
		"request trailers": func() *http.Request {
			r := request(t, "POST", base, io.MultiReader(strings.NewReader("body")))
			r.Trailer = http.Header{"X-Trailing": {"1", "2"}}
			return r
		},
		"a status":          func() *http.Request { return request(t, "GET", base+"/status", nil) },
		"no content":        func() *http.Request { return request(t, "GET", base+"/nothing", nil) },
		"a long answer":     func() *http.Request { return request(t, "GET", base+"/long", nil) },
		"HEAD":              func() *http.Request { return request(t, "HEAD", base+"/long", nil) },
		"trailers":          func() *http.Request { return request(t, "GET", base+"/trailers", nil) },
		"nothing but those": func() *http.Request { return request(t, "GET", base+"/only-trailers", nil) },
		"early hints": func() *http.Request {
			r := request(t, "GET", base+"/early", nil)
			return r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
				Got1xxResponse: func(code int, _ textproto.MIMEHeader) error {
					if code != http.StatusEarlyHints {
						t.Errorf("got %d", code)
					}
					r.Header.Set("Seen", "yes")
					return nil
				},
			}))
		},
		"refused hints": func() *http.Request {
			r := request(t, "GET", base+"/early", nil)
			return r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
				Got1xxResponse: func(int, textproto.MIMEHeader) error { return errors.New("no hints") },
			}))
		},
		"an answer that is cut": func() *http.Request { return request(t, "GET", base+"/abort", nil) },
		"no answer":             func() *http.Request { return request(t, "GET", base+"/abort-at-once", nil) },
		"a body that fails": func() *http.Request {
			return request(t, "POST", base, io.MultiReader(strings.NewReader("x"), failing{}))
		},
		"a bad header": func() *http.Request {
			r := request(t, "GET", base, nil)
			r.Header["X-Bad"] = []string{"a\nb"}
			return r
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			type answer struct {
				status          int
				length          int64
				header, trailer http.Header
				body            string
				failed          bool
				hints           string
			}
			got := map[string]answer{}
			for which, tr := range transports(t, upstream) {
				r := make()
				res, err := tr.RoundTrip(r)
				if err != nil {
					got[which] = answer{failed: true}
					continue
				}
				body, err := io.ReadAll(res.Body)
				_ = res.Body.Close()
				got[which] = answer{
					status: res.StatusCode, length: res.ContentLength, header: res.Header, trailer: res.Trailer, body: string(body),
					failed: err != nil, hints: r.Header.Get("Seen"),
				}
			}
			if !reflect.DeepEqual(got["h2"], got["net/http"]) {
				t.Errorf("h2:       %.600v\nnet/http: %.600v", got["h2"], got["net/http"])
			}
		})
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("the body fails") }

// TestExchangesThatAreGivenUp: the upstream is told, whoever gave up and when.
func TestExchangesThatAreGivenUp(t *testing.T) {
	t.Parallel()
	for _, begun := range []bool{false, true} {
		for _, closed := range []bool{false, true} {
			if closed && !begun {
				continue // There is nothing to close.
			}
			u := newRawUpstream(t)
			f := newFront(t, u.address(), nil)
			r := request(t, "GET", "http://a.test/", nil)
			ctx, cancel := context.WithCancel(r.Context())
			ended := make(chan error, 1)
			answered := make(chan *http.Response, 1)
			go func() {
				res, err := f.engine.RoundTrip(r.WithContext(ctx))
				if err == nil {
					answered <- res
					if _, err = io.Copy(io.Discard, res.Body); closed {
						err = context.Canceled
					}
				}
				ended <- err
			}()
			up := u.accept()
			up.expect("HEADERS 1 END :method=GET :scheme=http :path=/ :authority=a.test")
			if begun {
				up.headers(1, false, ":status", "200")
				res := <-answered
				if closed {
					_ = res.Body.Close()
				}
			}
			if !closed {
				cancel()
			}
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("begun %v: %v", begun, err)
			}
			up.expect("RST 1 CANCEL")
			cancel()
		}
	}
}

// TestExchangesAreSentAgainOnlyIfTheyWereNotSeen.
func TestExchangesAreSentAgainOnlyIfTheyWereNotSeen(t *testing.T) {
	t.Parallel()
	const head = " :method=POST :scheme=http :path=/ :authority=a.test content-length=5"
	for _, c := range []struct {
		code  http2.ErrCode
		again bool
	}{{http2.ErrCodeRefusedStream, true}, {http2.ErrCodeCancel, false}, {http2.ErrCodeEnhanceYourCalm, false}} {
		u := newRawUpstream(t)
		f := newFront(t, u.address(), nil)
		ended := make(chan error, 1)
		go func() {
			res, err := f.engine.RoundTrip(request(t, "POST", "http://a.test/", strings.NewReader("hello")))
			if err == nil {
				err = res.Body.Close()
			}
			ended <- err
		}()
		up := u.accept()
		up.expect("HEADERS 1" + head)
		for { // Whether the end comes with the data depends on when it was read.
			frame, err := up.next()
			up.must(err)
			if strings.HasPrefix(frame, "DATA 1 END") {
				break
			}
		}
		up.must(up.WriteRSTStream(1, c.code))
		if !c.again {
			err := <-ended
			if reset, ok := errors.AsType[http2.StreamError](err); !ok || reset.Code != c.code {
				t.Errorf("%v: %v", c.code, err)
			}
			continue
		}
		for {
			frame, err := up.next()
			up.must(err)
			if strings.HasPrefix(frame, "DATA 3 END") {
				break
			}
		}
		up.headers(3, true, ":status", "200")
		if err := <-ended; err != nil {
			t.Errorf("%v: %v", c.code, err)
		}
	}
}

// TestExchangesFailAtOnceWithoutUpstream.
func TestExchangesFailAtOnceWithoutUpstream(t *testing.T) {
	t.Parallel()
	ln := listen(t)
	_ = ln.Close()
	f := newFront(t, ln.Addr().String(), nil)
	for range 3 {
		if res, err := f.engine.RoundTrip(request(t, "GET", "http://a.test/", nil)); err == nil {
			_ = res.Body.Close()
			t.Error("there was an answer")
		}
	}
}

// TestExchangesHoldBackWhoIsFaster: memory stays bounded both ways.
func TestExchangesHoldBackWhoIsFaster(t *testing.T) {
	t.Parallel()
	const total = 64 << 20
	var wrote atomic.Int64 // of the answer, by the upstream
	release := make(chan struct{})
	f := newFront(t, startWeb(t, nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			<-release
			n, _ := io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, n)
			return
		}
		for range total >> 10 {
			n, err := w.Write(make([]byte, 1<<10))
			if wrote.Add(int64(n)); err != nil {
				return
			}
		}
	})), nil)
	res, err := f.engine.RoundTrip(request(t, "GET", "http://a.test/", nil))
	if err != nil {
		t.Fatal(err)
	}
	sent := &counted{r: io.LimitReader(zeros{}, total), reached: make(chan struct{}), mark: 256 << 10}
	answered := make(chan *http.Response, 1)
	go func() {
		res, err := f.engine.RoundTrip(request(t, "POST", "http://a.test/", sent))
		if err != nil {
			t.Error(err)
		}
		answered <- res
	}()
	<-sent.reached
	time.Sleep(100 * time.Millisecond) // What must not happen has no signal.
	if n := sent.count(); n > 4<<20 {
		t.Errorf("%d bytes were taken from a body that goes nowhere", n)
	}
	if n := wrote.Load(); n > 4<<20 {
		t.Errorf("%d bytes of an answer that nobody reads were taken", n)
	}
	close(release)
	post := <-answered
	if post != nil {
		body, _ := io.ReadAll(post.Body)
		if string(body) != fmt.Sprint(total) {
			t.Errorf("the upstream got %s bytes", body)
		}
	}
	if n, err := io.Copy(io.Discard, res.Body); n != total || err != nil {
		t.Errorf("got %d bytes, %v", n, err)
	}
}

// counted counts what is read.
type counted struct {
	r       io.Reader
	mark    int
	reached chan struct{}

	mu sync.Mutex
	n  int
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n < c.mark && c.n+n >= c.mark {
		close(c.reached)
	}
	c.n += n
	return n, err
}

func (c *counted) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// TestManyExchangesAtOnce, some of which are given up, leave nothing behind.
func TestManyExchangesAtOnce(t *testing.T) {
	t.Parallel()
	f := newFront(t, startWeb(t, nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			<-r.Context().Done()
			return
		}
		_, _ = io.Copy(w, r.Body)
	})), func(o *h2.Options) { o.Upstream.Conns = 3 })
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 50 {
				r := request(t, "POST", "http://a.test/", whole(bytes.Repeat([]byte{byte('a' + i)}, 1+j*997)))
				path := "/"
				if j%5 == 0 {
					path = "/wait"
					ctx, cancel := context.WithTimeout(r.Context(), time.Duration(j)*50*time.Microsecond)
					defer cancel()
					r = r.WithContext(ctx)
				}
				r.URL.Path = path
				res, err := f.engine.RoundTrip(r)
				if err != nil {
					if path == "/" || !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("%s: %v", path, err)
					}
					continue
				}
				body, err := io.ReadAll(res.Body)
				_ = res.Body.Close()
				if err != nil || len(body) != 1+j*997 || len(bytes.Trim(body, string(rune('a'+i)))) != 0 {
					t.Errorf("got %d bytes, %v", len(body), err)
				}
			}
		})
	}
	wg.Wait()
}
