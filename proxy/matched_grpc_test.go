package proxy_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/execgate/execgate/conditions"
	"github.com/execgate/execgate/dispatcher"
	"github.com/execgate/execgate/proxy"
	"github.com/execgate/execgate/targetclient"
)

// withExecutions makes a gateway's configuration.
func withExecutions(t testing.TB, targets []*targetclient.Target, executions ...conditions.Execution) func(*proxy.Options) {
	t.Helper()
	s := snapshotOf(t, targets, executions...)
	return func(o *proxy.Options) { o.Snapshot = func() *dispatcher.Snapshot { return s } }
}

func jsonOf(t *testing.T, m proto.Message) string {
	t.Helper()
	b, err := protojson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestRequestIsRewritten(t *testing.T) {
	t.Parallel()
	for _, compress := range []bool{false, true} {
		target := startTarget(t, "rewrite", targetclient.KindCall, true, func(e envelope) (int, string) {
			if e.FullMethod != unaryMethod || e.InstanceID != "instance-1" || e.Response != nil || e.UserID+e.OrgID+e.ProjectID != "" {
				t.Errorf("envelope %+v", e)
			}
			return 200, `{"payload":{"body":"` + base64.StdEncoding.EncodeToString([]byte("rewritten")) + `"}}`
		})
		g := startGateway(t, startGRPC(t, false, echo()), withExecutions(t, targetsOf(target), on(t, "request"+unaryMethod, "rewrite")))
		c := dialGRPC(t, g, grpc.WithAuthority("tenant.example.com"))
		ctx := metadata.AppendToOutgoingContext(testContext(t), "x-echo-a", "1", "origin", "https://app.example.com", "x-forwarded-for", "9.9.9.9",
			"authorization", "Bearer secret")
		var o []grpc.CallOption
		if compress {
			o = append(o, grpc.UseCompressor("gzip"))
		}
		var header, trailer metadata.MD
		res, err := c.UnaryCall(ctx, &testpb.SimpleRequest{Payload: payload(strings.Repeat("original", 100))}, append(o, grpc.Header(&header), grpc.Trailer(&trailer))...)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(res.GetPayload().GetBody()); got != "rewritten" {
			t.Errorf("compressed %v: payload %q", compress, got)
		}
		if !slices.Equal(header.Get("x-echo-a"), []string{"1"}) || !slices.Equal(trailer.Get("trailing-x-echo-a"), []string{"1"}) {
			t.Errorf("metadata %v, %v", header, trailer)
		}
		calls := target.received()
		if len(calls) != 1 {
			t.Fatalf("%d calls", len(calls))
		}
		want := map[string][]string{
			"Content-Type": {"application/grpc"}, "Host": {"tenant.example.com"}, "Origin": {"https://app.example.com"}, "X-Forwarded-For": {"9.9.9.9"},
		}
		if got := calls[0].Headers; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("headers %v, want %v", got, want)
		}
		if got := g.observed.next(t); got != (request{"grpc", unaryMethod, "OK"}) {
			t.Errorf("observed %v", got)
		}
		if n := len(g.observed.overheads); n != 1 {
			t.Errorf("%d overheads", n)
		}
	}
}

func TestResponseIsRewritten(t *testing.T) {
	t.Parallel()
	for _, compress := range []bool{false, true} {
		first := startTarget(t, "first", targetclient.KindCall, true, func(envelope) (int, string) {
			return 200, `{"payload":{"body":"` + base64.StdEncoding.EncodeToString([]byte("from the request phase")) + `"}}`
		})
		second := startTarget(t, "second", targetclient.KindCall, true, func(e envelope) (int, string) {
			var m testpb.SimpleResponse
			if err := protojson.Unmarshal(e.Response, &m); err != nil {
				t.Error(err)
			}
			m.Username += " and me"
			var in testpb.SimpleRequest
			if err := protojson.Unmarshal(e.Request, &in); err != nil || string(in.GetPayload().GetBody()) != "from the request phase" {
				t.Errorf("request in the response phase: %s, %v", e.Request, err)
			}
			return 200, jsonOf(t, &m)
		})
		g := startGateway(t, startGRPC(t, false, echo()), withExecutions(t, targetsOf(first, second),
			on(t, "request"+unaryMethod, "first"), on(t, "response/grpc.testing.TestService", "second")))
		c := dialGRPC(t, g)
		var o []grpc.CallOption
		if compress {
			o = append(o, grpc.UseCompressor("gzip"))
		}
		var header, trailer metadata.MD
		res, err := c.UnaryCall(metadata.AppendToOutgoingContext(testContext(t), "x-echo-a", "1"), &testpb.SimpleRequest{},
			append(o, grpc.Header(&header), grpc.Trailer(&trailer))...)
		if err != nil {
			t.Fatal(err)
		}
		if res.GetUsername() != "user and me" || string(res.GetPayload().GetBody()) != "from the request phase" {
			t.Errorf("response %v", res)
		}
		if !slices.Equal(header.Get("x-echo-a"), []string{"1"}) || !slices.Equal(trailer.Get("trailing-x-echo-a"), []string{"1"}) {
			t.Errorf("metadata %v, %v", header, trailer)
		}
	}
}

func TestErrorOfTheUpstreamSkipsTheResponsePhase(t *testing.T) {
	t.Parallel()
	target := startTarget(t, "never", targetclient.KindWebhook, true, nil)
	g := startGateway(t, startGRPC(t, false, echo()), withExecutions(t, targetsOf(target), on(t, "response", "never")))
	_, err := dialGRPC(t, g).UnaryCall(testContext(t), &testpb.SimpleRequest{
		ResponseStatus: &testpb.EchoStatus{Code: int32(codes.NotFound), Message: "nobody"},
	})
	st := status.Convert(err)
	if st.Code() != codes.NotFound || st.Message() != "nobody" || len(st.Details()) != 1 {
		t.Errorf("got %v, %v", st, st.Details())
	}
	if n := len(target.received()); n != 0 {
		t.Errorf("%d calls", n)
	}
}

// detailOf is the only detail of a status: what the bytes of a zitadel.v1.ErrorDetail say.
func detailOf(t *testing.T, st *status.Status) (id, message string) {
	t.Helper()
	details := st.Proto().GetDetails()
	if len(details) != 1 {
		t.Fatalf("%d details in %v", len(details), st)
	}
	if url := details[0].GetTypeUrl(); url != "type.googleapis.com/zitadel.v1.ErrorDetail" {
		t.Errorf("detail %q", url)
	}
	for b := details[0].GetValue(); len(b) > 0; {
		num, _, n := protowire.ConsumeTag(b)
		if n < 0 {
			t.Fatalf("detail %x", details[0].GetValue())
		}
		v, m := protowire.ConsumeString(b[n:])
		if m < 0 {
			t.Fatalf("detail %x", details[0].GetValue())
		}
		switch num {
		case 1:
			id = v
		case 2:
			message = v
		}
		b = b[n+m:]
	}
	return id, message
}

func TestVetoesBecomeStatuses(t *testing.T) {
	t.Parallel()
	type want struct {
		code     codes.Code
		text, id string
	}
	const forwarded, precondition, failed, notApplicable = "EXEC-reUaUZCzCp", "EXEC-bmhNhpcqpF", "EXEC-dra6yamk98", "ACTION-4m9s2"
	for _, test := range []struct {
		name   string
		status int
		body   string
		want   want
	}{
		{"400", 200, `{"forwardedStatusCode":400,"forwardedErrorMessage":"bad"}`, want{codes.InvalidArgument, "bad", forwarded}},
		{"401", 200, `{"forwardedStatusCode":401,"forwardedErrorMessage":"who"}`, want{codes.Unauthenticated, "who", forwarded}},
		{"403", 200, `{"forwardedStatusCode":403,"forwardedErrorMessage":"ünter\n100%"}`, want{codes.PermissionDenied, "ünter\n100%", forwarded}},
		{"404", 200, `{"forwardedStatusCode":404,"forwardedErrorMessage":"gone"}`, want{codes.NotFound, "gone", forwarded}},
		{"409", 200, `{"forwardedStatusCode":409,"forwardedErrorMessage":"dup"}`, want{codes.AlreadyExists, "dup", forwarded}},
		{"429", 200, `{"forwardedStatusCode":429,"forwardedErrorMessage":"slow"}`, want{codes.ResourceExhausted, "slow", forwarded}},
		{"412", 200, `{"forwardedStatusCode":412,"forwardedErrorMessage":"pre"}`, want{codes.Unknown, "pre", forwarded}},
		{"418", 200, `{"forwardedStatusCode":418,"forwardedErrorMessage":"tea"}`, want{codes.Unknown, "tea", forwarded}},
		{"without message", 200, `{"forwardedStatusCode":403}`, want{codes.PermissionDenied, "Forbidden", forwarded}},
		{"without message nor text", 200, `{"forwardedStatusCode":499}`, want{codes.Unknown, "Bad Request", forwarded}},
		{"500", 200, `{"forwardedStatusCode":500,"forwardedErrorMessage":"x"}`, want{codes.FailedPrecondition, "x", precondition}},
		{"500 without message", 200, `{"forwardedStatusCode":500}`, want{codes.FailedPrecondition, "Internal Server Error", precondition}},
		{"only a message", 200, `{"forwardedErrorMessage":"just so"}`, want{codes.FailedPrecondition, "just so", precondition}},
		{"failed", 500, `{"forwardedStatusCode":403}`, want{codes.FailedPrecondition, "Execution failed", failed}},
		{"not JSON", 200, `nonsense`, want{codes.FailedPrecondition, "Response is not valid JSON", notApplicable}},
		{"unknown field", 200, `{"fullMethod":"x"}`, want{codes.FailedPrecondition, "Response is not valid JSON", notApplicable}},
	} {
		for _, phase := range []string{"request", "response"} {
			t.Run(test.name+" in the "+phase+" phase", func(t *testing.T) {
				t.Parallel()
				target := startTarget(t, "veto", targetclient.KindCall, true, func(envelope) (int, string) { return test.status, test.body })
				service := &echoService{began: make(chan context.Context, 1)}
				g := startGateway(t, startGRPC(t, false, service), withExecutions(t, targetsOf(target), on(t, phase+unaryMethod, "veto")))
				_, err := dialGRPC(t, g).UnaryCall(testContext(t), &testpb.SimpleRequest{})
				st := status.Convert(err)
				if wanted := test.want.text + " (" + test.want.id + ")"; st.Code() != test.want.code || st.Message() != wanted {
					t.Errorf("got %v %q, want %v %q", st.Code(), st.Message(), test.want.code, wanted)
				}
				if id, text := detailOf(t, st); id != test.want.id || text != test.want.text {
					t.Errorf("detail %q %q", id, text)
				}
				if called := len(service.began) == 1; called != (phase == "response") {
					t.Errorf("upstream called: %v", called)
				}
			})
		}
	}
}

func TestVetoIsTrailersOnlyOnTheWire(t *testing.T) {
	t.Parallel()
	target := startTarget(t, "veto", targetclient.KindWebhook, true, func(envelope) (int, string) {
		return 200, `{"forwardedStatusCode":403,"forwardedErrorMessage":"nö"}`
	})
	g := startGateway(t, startGRPC(t, false, echo()), withExecutions(t, targetsOf(target), on(t, "request", "veto")))
	c := newH2Client(t, dialTCP(t, g.addr, nil))
	got := c.read(c.grpc(unaryMethod, emptyMessage, "content-type", "application/grpc", "origin", "https://app.example.com"))
	if len(got) != 1 || !got[0].end {
		t.Fatalf("frames %+v", got)
	}
	details := got[0].fields["grpc-status-details-bin"]
	delete(got[0].fields, "grpc-status-details-bin")
	want := map[string]string{
		":status": "200", "content-type": "application/grpc", "grpc-status": "7", "grpc-message": "n%C3%B6 (EXEC-reUaUZCzCp)", "vary": "Origin",
		"access-control-allow-origin": "https://app.example.com", "access-control-allow-credentials": "true",
		"access-control-expose-headers": "Grpc-Status, Grpc-Message, Grpc-Status-Details-Bin",
	}
	if fmt.Sprint(got[0].fields) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", got[0].fields, want)
	}
	if _, err := base64.RawStdEncoding.DecodeString(details); err != nil {
		t.Errorf("details %q: %v", details, err)
	}
}

func TestToleratedFailuresLeaveTheBytesAlone(t *testing.T) {
	t.Parallel()
	target := startTarget(t, "broken", targetclient.KindCall, false, func(envelope) (int, string) { return 500, "" })
	seen := make(chan []byte, 1)
	upstream := startWebH2(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		seen <- body
		grpcAnswer(w, body)
	})
	g := startGateway(t, upstream, withExecutions(t, targetsOf(target), on(t, "request", "broken"), on(t, "response", "broken")))
	c := newH2Client(t, dialTCP(t, g.addr, nil))
	// Fields out of order, a non-minimal varint and an unknown field: bytes that no encoder would write again.
	message := frameOf([]byte{0x10, 0x85, 0x00, 0x08, 0x00, 0xf8, 0x3f, 0x01})
	got := c.read(c.grpc(unaryMethod, message))
	if b := <-seen; !bytes.Equal(b, message) {
		t.Errorf("upstream got %x, want %x", b, message)
	}
	var data []byte
	for _, e := range got {
		data = append(data, e.data...)
	}
	if !bytes.Equal(data, message) {
		t.Errorf("client got %x, want %x", data, message)
	}
	if n := len(target.received()); n != 2 {
		t.Errorf("%d calls", n)
	}
}

// startWebH2 is an upstream on Go's HTTP/2 server that answers as a handler says.
func startWebH2(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	addr := serveHTTP(t, &http.Server{Handler: h, Protocols: &protocols, ReadHeaderTimeout: testTimeout})
	return "http://" + addr
}

func grpcAnswer(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Type", "application/grpc")
	w.WriteHeader(200)
	_, _ = w.Write(body)
	w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
}

func frameOf(message []byte) []byte {
	b := make([]byte, 5, 5+len(message))
	binary.BigEndian.PutUint32(b[1:], uint32(len(message)))
	return append(b, message...)
}

func compressed(t *testing.T, message []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(message); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	f := frameOf(b.Bytes())
	f[0] = 1
	return f
}

func TestServerStreamingRunsTheRequestPhaseOnly(t *testing.T) {
	t.Parallel()
	target := startTarget(t, "rewrite", targetclient.KindCall, true, func(e envelope) (int, string) {
		var m testpb.StreamingOutputCallRequest
		if err := protojson.Unmarshal(e.Request, &m); err != nil {
			t.Error(err)
		}
		m.Payload = payload("R")
		return 200, jsonOf(t, &m)
	})
	never := startTarget(t, "never", targetclient.KindCall, true, nil)
	g := startGateway(t, startGRPC(t, false, echo()), withExecutions(t, targetsOf(target, never), on(t, "request", "rewrite"), on(t, "response", "never")))
	c := dialGRPC(t, g)
	s, err := c.StreamingOutputCall(testContext(t), &testpb.StreamingOutputCallRequest{
		ResponseParameters: []*testpb.ResponseParameters{{Size: 2}, {Size: 3}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(m.GetPayload().GetBody()))
	}
	if !slices.Equal(got, []string{"Ro", "Roo"}) {
		t.Errorf("got %q", got)
	}
	// Streams of the client never trigger.
	both, err := c.FullDuplexCall(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := both.Send(&testpb.StreamingOutputCallRequest{Payload: payload("x")}); err != nil {
		t.Fatal(err)
	}
	if m, err := both.Recv(); err != nil || string(m.GetPayload().GetBody()) != "x" {
		t.Errorf("%v, %v", m, err)
	}
	if n, m := len(target.received()), len(never.received()); n != 1 || m != 0 {
		t.Errorf("%d and %d calls", n, m)
	}
}

func TestCallersDeadlineEndsTheTargets(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	target := startTarget(t, "slow", targetclient.KindWebhook, false, func(envelope) (int, string) { <-release; return 200, "" })
	t.Cleanup(func() { close(release) })
	service := &echoService{began: make(chan context.Context, 1)}
	g := startGateway(t, startGRPC(t, false, service), withExecutions(t, targetsOf(target), on(t, "request", "slow")))
	// Raw, so that it is the gateway's answer that counts and not the client's own timer.
	c := newH2Client(t, dialTCP(t, g.addr, nil))
	got := c.read(c.grpc(unaryMethod, emptyMessage, "grpc-timeout", "50m"))
	if len(got) != 1 || got[0].fields["grpc-status"] != "4" || len(service.began) != 0 {
		t.Errorf("got %+v, upstream called %d times", got, len(service.began))
	}
	g.observed.next(t)

	ctx, cancel := context.WithCancel(testContext(t))
	failed := make(chan error, 1)
	go func() {
		_, err := dialGRPC(t, g).UnaryCall(ctx, &testpb.SimpleRequest{})
		failed <- err
	}()
	for len(target.received()) < 2 && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-failed; status.Code(err) != codes.Canceled {
		t.Errorf("client got %v", err)
	}
	if got := g.observed.next(t); got != (request{"grpc", unaryMethod, "Canceled"}) || len(service.began) != 0 {
		t.Errorf("observed %v, upstream called %d times", got, len(service.began))
	}
}

func TestUpstreamGetsTheTimeThatIsLeft(t *testing.T) {
	t.Parallel()
	target := startTarget(t, "slowish", targetclient.KindWebhook, true, func(envelope) (int, string) {
		time.Sleep(30 * time.Millisecond) // Time that must be missing upstream.
		return 200, ""
	})
	seen := make(chan string, 1)
	up := startWebH2(t, func(w http.ResponseWriter, r *http.Request) {
		seen <- r.Header.Get("Grpc-Timeout")
		grpcAnswer(w, emptyMessage)
	})
	g := startGateway(t, up, withExecutions(t, targetsOf(target), on(t, "request", "slowish")))
	c := newH2Client(t, dialTCP(t, g.addr, nil))
	c.read(c.grpc(unaryMethod, emptyMessage, "grpc-timeout", "10S"))
	got := <-seen
	d, err := time.ParseDuration(strings.NewReplacer("u", "us", "m", "ms", "S", "s").Replace(got))
	if err != nil || d > 10*time.Second-30*time.Millisecond || d < 5*time.Second {
		t.Errorf("grpc-timeout %q: %v, %v", got, d, err)
	}
}

func TestHealthAndReflectionNeverTrigger(t *testing.T) {
	t.Parallel()
	target := startTarget(t, "never", targetclient.KindWebhook, true, func(envelope) (int, string) { return 500, "" })
	asked := make(chan string, 8)
	up := startWebH2(t, func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Path
		grpcAnswer(w, emptyMessage)
	})
	g := startGateway(t, up, withExecutions(t, targetsOf(target), on(t, "request", "never")))
	c := newH2Client(t, dialTCP(t, g.addr, nil))
	for _, path := range []string{
		"/grpc.health.v1.Health/Check", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
	} {
		got := c.read(c.grpc(path, emptyMessage))
		if last := got[len(got)-1]; last.fields["grpc-status"] != "0" || <-asked != path {
			t.Errorf("%s: %+v", path, got)
		}
	}
}

func TestOneLogLinePerMatchedCallAndNoPayload(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var logged bytes.Buffer
	target := startTarget(t, "veto", targetclient.KindWebhook, true, func(envelope) (int, string) {
		return 200, `{"forwardedStatusCode":403,"forwardedErrorMessage":"secret-message"}`
	})
	g := startGateway(t, startGRPC(t, false, echo()), func(o *proxy.Options) {
		withExecutions(t, targetsOf(target), on(t, "request"+unaryMethod, "veto"))(o)
		o.Logger = slog.New(slog.NewJSONHandler(lockedWriter{&mu, &logged}, nil))
	})
	c := dialGRPC(t, g)
	_, _ = c.UnaryCall(testContext(t), &testpb.SimpleRequest{Payload: payload("secret-payload")})
	_, _ = c.EmptyCall(testContext(t), &testpb.Empty{}) // Passes through: no line.
	g.observed.next(t)
	g.observed.next(t)
	mu.Lock()
	defer mu.Unlock()
	lines := strings.Split(strings.TrimSpace(logged.String()), "\n")
	if len(lines) != 1 || strings.Contains(logged.String(), "secret") {
		t.Fatalf("logged %s", logged.String())
	}
	var line map[string]any
	if err := json.Unmarshal([]byte(lines[0]), &line); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"msg": "call", "method": unaryMethod, "protocol": "grpc", "request_execution": "request" + unaryMethod, "outcome": "forwarded", "code": "PermissionDenied",
	} {
		if line[name] != want {
			t.Errorf("%s: %v, want %q", name, line[name], want)
		}
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
