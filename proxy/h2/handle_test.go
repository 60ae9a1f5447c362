package h2_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/execgate/execgate/proxy/h2"
)

// newHandling starts an engine that gives every request to handler.
func newHandling(t *testing.T, handler http.Handler, change func(o *h2.Options)) *front {
	t.Helper()
	d := newDirector()
	d.decide = func(*h2.Head) h2.Action { return h2.Action{Handler: handler} }
	f := newFront(t, "127.0.0.1:1", func(o *h2.Options) {
		o.Director, o.Observer = d, d
		if change != nil {
			change(o)
		}
	})
	f.director = d
	return f
}

// TestHandlersSeeAndSayWhatTheyWouldWithNetHTTP runs handlers under the engine and under net/http's own HTTP/2 server and
// compares what comes out, on both sides.
func TestHandlersSeeAndSayWhatTheyWouldWithNetHTTP(t *testing.T) {
	t.Parallel()
	post := func(path, body string, header ...string) func(base string) *http.Request {
		return func(base string) *http.Request {
			r, _ := http.NewRequest(http.MethodPost, base+path, strings.NewReader(body))
			for i := 0; i < len(header); i += 2 {
				r.Header.Add(header[i], header[i+1])
			}
			return r
		}
	}
	get := func(method, path string) func(base string) *http.Request {
		return func(base string) *http.Request {
			r, _ := http.NewRequest(method, base+path, nil)
			return r
		}
	}
	for _, c := range []struct {
		name    string
		request func(base string) *http.Request
		handler http.HandlerFunc
	}{
		{"nothing is said", get("GET", "/"), func(http.ResponseWriter, *http.Request) {}},
		{"a short body gets a length and a type", get("GET", "/a?b=c"), func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "<html>%s %s %s %s %v %d</html>", r.Method, r.URL, r.RequestURI, r.Proto, r.ContentLength, len(r.Header))
		}},
		{"a long body does not", get("GET", "/"), func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(bytes.Repeat([]byte("x"), 100_000))
		}},
		{"a status", get("GET", "/"), func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusTeapot) }},
		{"204", get("GET", "/"), func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNoContent)
			if _, err := w.Write([]byte("x")); !errors.Is(err, http.ErrBodyNotAllowed) {
				panic(err)
			}
		}},
		{"304", get("GET", "/"), func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Etag", `"x"`)
			w.WriteHeader(http.StatusNotModified)
		}},
		{"HEAD", get("HEAD", "/"), func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hidden") }},
		{"HEAD with a length", get("HEAD", "/"), func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "77") }},
		{"HEAD, flushed", get("HEAD", "/"), func(w http.ResponseWriter, _ *http.Request) {
			w.(http.Flusher).Flush()
			_, _ = io.WriteString(w, "hidden")
		}},
		{"OPTIONS with a star", get("OPTIONS", "/*"), func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.RequestURI) }},
		{"announced trailers", get("GET", "/"), func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Add("Trailer", "X-One, X-Two")
			w.Header().Add("Trailer", "X-Three")
			_, _ = io.WriteString(w, "body")
			w.Header().Set("X-One", "1")
			w.Header()["X-Two"] = []string{"2", "22"}
		}},
		{"trailers by prefix", get("GET", "/"), func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(200)
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
			w.Header().Set(http.TrailerPrefix+"grpc-message", "fine")
		}},
		{"headers that are not sent", get("GET", "/"), func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Connection", "keep-alive")
			w.Header().Set("Transfer-Encoding", "chunked")
			w.Header().Set("Bad Name", "x")
			w.Header().Set("X-Bad-Value", "a\nb")
			w.Header()["Date"] = nil
			w.Header()["Content-Type"] = nil
			_, _ = io.WriteString(w, "body")
		}},
		{"content encoding is not sniffed", get("GET", "/"), func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "br")
			_, _ = io.WriteString(w, "body")
		}},
		{"a request body", post("/", "hello", "X-A", "1", "X-A", "2", "Cookie", "a=b", "Cookie", "c=d"), func(w http.ResponseWriter, r *http.Request) {
			b, err := io.ReadAll(r.Body)
			fmt.Fprint(w, string(b), err, r.ContentLength, r.Header["X-A"], r.Header["Cookie"], r.Header["Content-Length"], r.Trailer)
		}},
		{"an unread body", post("/", strings.Repeat("x", 300_000)), func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "early") }},
		{"request trailers", func(base string) *http.Request {
			r, _ := http.NewRequest(http.MethodPost, base, io.NopCloser(strings.NewReader("body")))
			r.Trailer = http.Header{"X-Sum": {"42"}, "X-More": {"a", "b"}}
			return r
		}, func(w http.ResponseWriter, r *http.Request) {
			before := len(r.Trailer["X-Sum"])
			b, err := io.ReadAll(r.Body)
			fmt.Fprint(w, string(b), err, before, r.Trailer["X-Sum"], r.Trailer["X-More"], r.Header["Trailer"])
		}},
		{"expect 100", post("/", "hello", "Expect", "100-continue"), func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			fmt.Fprint(w, string(b), r.Header["Expect"])
		}},
		{"read after close", post("/", "hello"), func(w http.ResponseWriter, r *http.Request) {
			_ = r.Body.Close()
			_, err := r.Body.Read(make([]byte, 1))
			fmt.Fprint(w, err != nil)
		}},
		{"the address of the connection", get("GET", "/"), func(w http.ResponseWriter, r *http.Request) {
			host, _, _ := net.SplitHostPort(r.RemoteAddr)
			_, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
			fmt.Fprint(w, host, ok, r.TLS == nil, r.Host != "")
		}},
		{"early hints", get("GET", "/"), func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", "</style>")
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Set("X-Later", "1")
			_, _ = io.WriteString(w, "body")
		}},
		{"a panic", get("GET", "/"), func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
		{"a panic in the middle", get("GET", "/"), func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "some")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}},
		{"a header changed too late", get("GET", "/"), func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-A", "in time")
			w.WriteHeader(201)
			w.Header().Set("X-A", "late")
			w.WriteHeader(202)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newHandling(t, c.handler, nil)
			peer := &front{address: startWeb(t, nil, c.handler)}
			got, want := exchange(t, f, c.request), exchange(t, peer, c.request)
			if got != want {
				t.Errorf("the engine:\n%s\nnet/http:\n%s", got, want)
			}
		})
	}
}

// exchange makes a request and returns all that came back as text.
func exchange(t *testing.T, f *front, request func(base string) *http.Request) string {
	t.Helper()
	var out strings.Builder
	ctx := httptrace.WithClientTrace(testContext(t), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			fmt.Fprintln(&out, "informational:", code, h)
			return nil
		},
	})
	res, err := f.web(t).Do(request("http://" + f.address).WithContext(ctx))
	if err != nil {
		fmt.Fprintln(&out, "error:", strings.ReplaceAll(err.Error(), f.address, "ADDRESS"))
		return out.String()
	}
	defer res.Body.Close()
	if res.Header["Date"] != nil {
		res.Header["Date"] = []string{"some date"}
	}
	fmt.Fprintln(&out, res.StatusCode, res.ContentLength, res.Header)
	body, err := io.ReadAll(res.Body)
	fmt.Fprintln(&out, len(body), string(body[:min(len(body), 300)]), err)
	fmt.Fprintln(&out, res.Trailer)
	return out.String()
}

func TestHandlerStreamsBothWaysAtOnce(t *testing.T) {
	t.Parallel()
	f := newHandling(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			t.Error(err)
		}
		lines := bufio.NewScanner(r.Body)
		for lines.Scan() {
			fmt.Fprintln(w, "got", lines.Text())
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
		}
	}), nil)
	body, send := io.Pipe()
	r, _ := http.NewRequestWithContext(testContext(t), http.MethodPost, f.url("/"), body)
	go func() { _, _ = io.WriteString(send, "first\n") }()
	res, err := f.web(t).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	answers := bufio.NewReader(res.Body)
	for i := range 100 {
		want := "got first\n"
		if i > 0 {
			fmt.Fprintln(send, "line", i)
			want = fmt.Sprintln("got line", i)
		}
		if line, err := answers.ReadString('\n'); err != nil || line != want {
			t.Fatalf("got %q, %v", line, err)
		}
	}
	_ = send.Close()
	if rest, err := io.ReadAll(answers); err != nil || len(rest) > 0 {
		t.Errorf("ended with %q, %v", rest, err)
	}
}

func TestHandlerIsToldWhenTheClientGivesUp(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		wait func(w http.ResponseWriter, r *http.Request) error
	}{
		{"by its context", func(_ http.ResponseWriter, r *http.Request) error {
			<-r.Context().Done()
			return r.Context().Err()
		}},
		{"by the body", func(_ http.ResponseWriter, r *http.Request) error {
			_, err := io.Copy(io.Discard, r.Body)
			return err
		}},
		{"by writing", func(w http.ResponseWriter, _ *http.Request) error {
			for {
				if _, err := w.Write(make([]byte, 100_000)); err != nil {
					return err
				}
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			began, ended := make(chan struct{}), make(chan error, 1)
			f := newHandling(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				close(began)
				ended <- c.wait(w, r)
			}), nil)
			ctx, cancel := context.WithCancel(testContext(t))
			body, _ := io.Pipe()
			r, _ := http.NewRequestWithContext(ctx, http.MethodPost, f.url("/"), body)
			go func() {
				if res, err := f.web(t).Do(r); err == nil {
					_ = res.Body.Close()
				}
			}()
			<-began
			cancel()
			if err := <-ended; err == nil {
				t.Error("the handler was not told")
			}
		})
	}
}

func TestHandlerDeadlines(t *testing.T) {
	t.Parallel()
	t.Run("reading", func(t *testing.T) {
		t.Parallel()
		f := newHandling(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			_, err := io.ReadAll(r.Body)
			fmt.Fprint(w, errors.Is(err, os.ErrDeadlineExceeded))
		}), nil)
		body, send := io.Pipe()
		defer send.Close()
		r, _ := http.NewRequestWithContext(testContext(t), http.MethodPost, f.url("/"), body)
		res, err := f.web(t).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if got, _ := io.ReadAll(res.Body); string(got) != "true" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("writing", func(t *testing.T) {
		t.Parallel()
		ended := make(chan error, 1)
		f := newHandling(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
			for {
				if _, err := w.Write(make([]byte, 10_000)); err != nil {
					ended <- err
					return
				}
			}
		}), nil)
		res, err := f.web(t).Get(f.url("/"))
		if err == nil {
			<-ended
			_, err = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
		}
		if err == nil {
			t.Error("the stream was not reset")
		}
	})
}

// TestHandlersGetRealGRPC serves a gRPC server's own handler.
func TestHandlersGetRealGRPC(t *testing.T) {
	t.Parallel()
	server := grpc.NewServer(grpc.MaxRecvMsgSize(64 << 20))
	t.Cleanup(server.Stop)
	testpb.RegisterTestServiceServer(server, &service{})
	f := newHandling(t, server, nil)
	client := f.client(t)
	ctx := testContext(t)
	for _, n := range []int{0, 200, 1 << 20, 8 << 20} {
		out, err := client.UnaryCall(ctx, &testpb.SimpleRequest{Payload: payload(n)})
		if err != nil || len(out.GetPayload().GetBody()) != n {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
	stream, err := client.FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if err := stream.Send(&testpb.StreamingOutputCallRequest{Payload: payload(i * 100)}); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	_ = stream.CloseSend()
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

func TestOtherProtocolsAreHandedOn(t *testing.T) {
	t.Parallel()
	server, client := testTLS(t)
	for _, secure := range []bool{false, true} {
		f := newFront(t, "127.0.0.1:1", func(o *h2.Options) {
			if secure {
				o.TLS = server
			}
		})
		if secure {
			f.tls = client
		}
		tr := &http.Transport{TLSClientConfig: f.tls.Clone()}
		if f.tls == nil {
			tr.TLSClientConfig = nil
		} else {
			tr.TLSClientConfig.NextProtos = []string{"http/1.1"}
		}
		res, err := (&http.Client{Transport: tr}).Get(f.url("/"))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		tr.CloseIdleConnections()
		if string(body) != "over HTTP/1.1" {
			t.Errorf("got %q", body)
		}
	}
}
