package proxy_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/execgate/execgate/dispatcher"
	"github.com/execgate/execgate/proxy"
	"github.com/execgate/execgate/schema"
	"github.com/execgate/execgate/targetclient"
)

// TestMessagesThatCannotBeEvaluated: D-38 to D-41, D-59, D-60.
func TestMessagesThatCannotBeEvaluated(t *testing.T) {
	t.Parallel()
	const limit = 1000
	big := frameOf(append([]byte{0x1a, 0xd2, 0x0f, 0x12, 0xcf, 0x0f}, make([]byte, 2000-1)...)) // payload.body of 1999 bytes
	bomb := compressed(t, big[5:])
	ok := frameOf(nil)
	for _, test := range []struct {
		name     string
		message  []byte
		encoding string
		reason   string
		code     codes.Code
		text     string
	}{
		{"too large", big, "", "too_large", codes.ResourceExhausted, "message grpc.testing.SimpleRequest is larger than the gateway's limit"},
		{"too large once decompressed", bomb, "gzip", "too_large", codes.ResourceExhausted, "message grpc.testing.SimpleRequest is larger than the gateway's limit"},
		{"unknown encoding", compressed(t, nil), "zstd", "encoding", codes.Unimplemented, `message encoding "zstd" is not supported`},
		{"undecodable", frameOf([]byte{0xff}), "", "undecodable", codes.InvalidArgument, "message grpc.testing.SimpleRequest cannot be decoded"},
		{"corrupt gzip", append([]byte{1, 0, 0, 0, 3}, "abc"...), "gzip", "undecodable", codes.InvalidArgument, "message grpc.testing.SimpleRequest cannot be decoded"},
		{"compressed without encoding", compressed(t, nil), "", "undecodable", codes.InvalidArgument, "message grpc.testing.SimpleRequest cannot be decoded"},
		{"two messages", append(slices.Clone(ok), ok...), "", "undecodable", codes.InvalidArgument, "message grpc.testing.SimpleRequest cannot be decoded"},
		{"no message", nil, "", "undecodable", codes.InvalidArgument, "message grpc.testing.SimpleRequest cannot be decoded"},
		{"half a header", []byte{0, 0}, "", "undecodable", codes.InvalidArgument, "message grpc.testing.SimpleRequest cannot be decoded"},
		{"half a message", []byte{0, 0, 0, 0, 9, 1}, "", "undecodable", codes.InvalidArgument, "message grpc.testing.SimpleRequest cannot be decoded"},
		{"unknown flags", []byte{2, 0, 0, 0, 0}, "", "undecodable", codes.InvalidArgument, "message grpc.testing.SimpleRequest cannot be decoded"},
	} {
		for _, interrupt := range []bool{false, true} {
			for _, phase := range []string{"request", "response"} {
				t.Run(fmt.Sprintf("%s, interrupt %v, %s phase", test.name, interrupt, phase), func(t *testing.T) {
					t.Parallel()
					target := startTarget(t, "target", targetclient.KindCall, interrupt, nil)
					var asked []byte
					var mu sync.Mutex
					upstream := startWebH2(t, func(w http.ResponseWriter, r *http.Request) {
						body, _ := io.ReadAll(r.Body)
						mu.Lock()
						asked = body
						mu.Unlock()
						if phase == "response" && test.encoding != "" {
							w.Header().Set("Grpc-Encoding", test.encoding)
						}
						if phase == "response" {
							grpcAnswer(w, test.message)
							return
						}
						grpcAnswer(w, ok)
					})
					g := startGateway(t, upstream, func(o *proxy.Options) {
						withExecutions(t, targetsOf(target), on(t, phase, "target"))(o)
						o.MaxMessageBytes = limit
						o.Logger = slog.New(slog.DiscardHandler)
					})
					c := newH2Client(t, dialTCP(t, g.addr, nil))
					sent := test.message
					var more []string
					if phase == "response" {
						sent = ok
					} else if test.encoding != "" {
						more = []string{"grpc-encoding", test.encoding}
					}
					got := c.read(c.grpc(unaryMethod, sent, more...))
					last := got[len(got)-1].fields
					wantCode, wantText := test.code, test.text
					if phase == "response" {
						wantText = strings.ReplaceAll(wantText, "SimpleRequest", "SimpleResponse")
						if wantCode == codes.InvalidArgument {
							wantCode = codes.Internal
						}
					}
					if interrupt {
						if last["grpc-status"] != fmt.Sprint(int(wantCode)) || last["grpc-message"] != wantText {
							t.Errorf("got %v", last)
						}
						if (last["grpc-accept-encoding"] == "identity,gzip") != (test.reason == "encoding") {
							t.Errorf("accept encoding %v", last)
						}
					} else {
						if last["grpc-status"] != "0" {
							t.Errorf("got %v", last)
						}
						var data []byte
						for _, e := range got {
							data = append(data, e.data...)
						}
						want := ok
						if phase == "response" {
							want = test.message
						}
						if !bytes.Equal(data, want) {
							t.Errorf("client got %x", data)
						}
					}
					mu.Lock()
					defer mu.Unlock()
					if called := !interrupt || phase == "response"; called && !bytes.Equal(asked, sent) || !called && asked != nil {
						t.Errorf("upstream got %x", asked)
					}
					if n := len(target.received()); n != 0 {
						t.Errorf("%d calls", n)
					}
					g.observed.next(t)
					if got := g.observed.unevaluated; !slices.Equal(got, []string{phase + " " + test.reason}) {
						t.Errorf("unevaluated %v", got)
					}
				})
			}
		}
	}
}

// TestUnknownMethods: D-38 for a method without descriptor.
func TestUnknownMethods(t *testing.T) {
	t.Parallel()
	for _, interrupt := range []bool{false, true} {
		target := startTarget(t, "target", targetclient.KindWebhook, interrupt, nil)
		up := startWebH2(t, func(w http.ResponseWriter, _ *http.Request) { grpcAnswer(w, emptyMessage) })
		g := startGateway(t, up, withExecutions(t, targetsOf(target), on(t, "request", "target"), on(t, "response", "target")))
		c := newH2Client(t, dialTCP(t, g.addr, nil))
		got := c.read(c.grpc("/made.up.Service/Name", emptyMessage))
		want := "0"
		if interrupt {
			want = "14"
		}
		if last := got[len(got)-1].fields; last["grpc-status"] != want || interrupt && last["grpc-message"] != "schema of the upstream is not known" {
			t.Errorf("interrupt %v: %v", interrupt, last)
		}
		g.observed.next(t)
		if got := g.observed.unevaluated; !slices.Equal(got, []string{"request no_schema", "response no_schema"}) {
			t.Errorf("unevaluated %v", got)
		}
		// The name of a known method, percent-encoded: some upstreams decode it, so it must not slip through.
		got = c.read(c.grpc("/grpc.testing.TestService/%55naryCall", emptyMessage))
		if last := got[len(got)-1].fields; last["grpc-status"] != "0" || len(target.received()) == 0 {
			t.Errorf("encoded name: %v, %d calls", last, len(target.received()))
		}
	}
}

// TestTrafficIsHeld: D-38 while no schema was ever learned, D-63 while there is no snapshot.
func TestTrafficIsHeld(t *testing.T) {
	t.Parallel()
	target := startTarget(t, "target", targetclient.KindWebhook, true, nil)
	tolerated := startTarget(t, "tolerated", targetclient.KindWebhook, false, nil)
	interrupting := snapshotOf(t, targetsOf(target), on(t, "response/some.Service/Method", "target"))
	harmless := snapshotOf(t, targetsOf(tolerated), on(t, "request", "tolerated"))
	for _, test := range []struct {
		name     string
		snapshot *dispatcher.Snapshot
		schema   *schema.Schema
		message  string
	}{
		{"no snapshot", nil, testSchema(), "configuration of the gateway is not loaded"},
		{"no schema, something interrupts", interrupting, nil, "schema of the upstream is not known"},
		{"no schema, nothing interrupts", harmless, nil, ""},
		{"all there", interrupting, testSchema(), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			seen := newObserved()
			g := startGateway(t, startGRPC(t, false, echo()), func(o *proxy.Options) {
				o.Snapshot = func() *dispatcher.Snapshot { return test.snapshot }
				o.Schema = func() *schema.Schema { return test.schema }
				o.Logger = slog.New(slog.DiscardHandler)
				o.Observer = seen
			})
			err := g.proxy.Ready()
			if (err == nil) != (test.message == "") || err != nil && err.Error() != test.message {
				t.Errorf("ready: %v", err)
			}
			_, err = dialGRPC(t, g).UnaryCall(testContext(t), &testpb.SimpleRequest{})
			if test.message == "" {
				if err != nil {
					t.Errorf("call: %v", err)
				}
				return
			}
			if st := status.Convert(err); st.Code() != codes.Unavailable || st.Message() != test.message {
				t.Errorf("call: %v", err)
			}
			res := get(t, webClient(t), "GET", g.url()+"/ui", nil)
			if res.StatusCode != 503 || readAll(t, res.Body) != test.message+"\n" {
				t.Errorf("page: %d", res.StatusCode)
			}
			if len(seen.unevaluated) != 0 {
				t.Errorf("calls that match nothing were counted: %q", seen.unevaluated)
			}
		})
	}
}

// TestHeldCallsThatMatchAreCounted: D-60 for calls that are held because no schema is known.
func TestHeldCallsThatMatchAreCounted(t *testing.T) {
	t.Parallel()
	target := startTarget(t, "target", targetclient.KindWebhook, true, nil)
	tolerated := startTarget(t, "tolerated", targetclient.KindWebhook, false, nil)
	seen := newObserved()
	g := startGateway(t, startGRPC(t, false, echo()), func(o *proxy.Options) {
		withExecutions(t, targetsOf(target, tolerated), on(t, "request"+unaryMethod, "target"), on(t, "response", "tolerated"))(o)
		o.Schema = func() *schema.Schema { return nil }
		o.Observer = seen
	})
	if _, err := dialGRPC(t, g).UnaryCall(testContext(t), &testpb.SimpleRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("call: %v", err)
	}
	if got := seen.next(t); got.code != "Unavailable" {
		t.Errorf("recorded as %v", got)
	}
	if got := strings.Join(seen.unevaluated, ", "); got != "request no_schema, response no_schema" {
		t.Errorf("counted %q", got)
	}
	_ = get(t, webClient(t), "GET", g.url()+"/ui", nil)
	seen.next(t)
	if len(seen.unevaluated) != 2 {
		t.Errorf("a page was counted: %q", seen.unevaluated)
	}
}
