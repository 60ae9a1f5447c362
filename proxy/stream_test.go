package proxy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/execgate/execgate/conditions"
	"github.com/execgate/execgate/dispatcher"
	demopb "github.com/execgate/execgate/gen/execgate/demo/v1"
	"github.com/execgate/execgate/gen/execgate/demo/v1/demopbconnect"
	"github.com/execgate/execgate/proxy"
	"github.com/execgate/execgate/schema"
	"github.com/execgate/execgate/targetclient"
)

// perMessageGateway is a demoGateway whose executions ask for every message of a stream.
func perMessageGateway(
	t *testing.T, upstream string, limit int64, targets []*targetclient.Target, executions ...conditions.Execution,
) *gateway {
	t.Helper()
	policies := make(map[string]dispatcher.ExecutionPolicy)
	for _, e := range executions {
		policies[e.Condition.ID()] = dispatcher.ExecutionPolicy{PerMessage: true}
	}
	return policyGateway(t, upstream, limit, policies, targets, executions...)
}

func policyGateway(
	t *testing.T, upstream string, limit int64, policies map[string]dispatcher.ExecutionPolicy,
	targets []*targetclient.Target, executions ...conditions.Execution,
) *gateway {
	t.Helper()
	s, problems := dispatcher.NewSnapshot(1, executions, targets, dispatcher.SnapshotOptions{Policies: policies})
	if len(problems) > 0 {
		t.Fatalf("snapshot: %v", problems)
	}
	return startGateway(t, upstream, func(o *proxy.Options) {
		o.Snapshot = func() *dispatcher.Snapshot { return s }
		o.Schema = func() *schema.Schema { return demoSchema() }
		o.MaxMessageBytes = limit
	})
}

// counted is what a client got of a stream: the numbers, and how it ended.
type counted struct {
	numbers []uint32
	err     error
}

func (c counted) String() string {
	if c.err == nil {
		return fmt.Sprint(c.numbers)
	}
	return fmt.Sprint(c.numbers, " ", c.err)
}

// counters are clients that call Count, by every door there is. got is called with each number as it comes.
var counters = map[string]func(ctx context.Context, t *testing.T, g *gateway, to uint32, got func(uint32)) error{
	"grpc":         connectCounter(connect.WithGRPC()),
	"grpc gzip":    connectCounter(connect.WithGRPC(), connect.WithSendGzip()),
	"grpc-web":     connectCounter(connect.WithGRPCWeb()),
	"connect":      connectCounter(),
	"connect json": connectCounter(connect.WithProtoJSON(), connect.WithSendGzip()),
	"rest":         restCount,
}

func connectCounter(o ...connect.ClientOption) func(context.Context, *testing.T, *gateway, uint32, func(uint32)) error {
	return func(ctx context.Context, t *testing.T, g *gateway, to uint32, got func(uint32)) error {
		t.Helper()
		s, err := demopbconnect.NewStreamServiceClient(h2cClient(t), g.url(), o...).Count(ctx, &demopb.CountRequest{To: to})
		if err != nil {
			return err
		}
		defer func() { _ = s.Close() }()
		for s.Receive() {
			got(s.Msg().GetNumber())
		}
		return s.Err()
	}
}

// restCount reads a stream as grpc-gateway writes it. Its errors are made to look as connect's.
func restCount(ctx context.Context, t *testing.T, g *gateway, to uint32, got func(uint32)) error {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, g.url()+fmt.Sprintf("/demo/v1/count/%d", to), nil)
	if err != nil {
		return err
	}
	res, err := h2cClient(t).Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	for d := json.NewDecoder(res.Body); ; {
		var line struct {
			Result json.RawMessage
			Error  *struct {
				Code    uint32
				Message string
				Details []struct{ ID string }
			}
		}
		switch err := d.Decode(&line); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case line.Error != nil:
			e := connect.NewError(connect.Code(line.Error.Code), errors.New(line.Error.Message))
			for _, detail := range line.Error.Details {
				e.Meta().Set("Id", detail.ID)
			}
			return e
		}
		m := new(demopb.CountResponse)
		if err := protojson.Unmarshal(line.Result, m); err != nil {
			return err
		}
		got(m.GetNumber())
	}
}

func eachCounter(t *testing.T, f func(t *testing.T, count func(g *gateway, to uint32) counted)) {
	t.Helper()
	for door, counter := range counters {
		t.Run(door, func(t *testing.T) {
			t.Parallel()
			f(t, func(g *gateway, to uint32) counted {
				var all counted
				all.err = counter(testContext(t), t, g, to, func(n uint32) { all.numbers = append(all.numbers, n) })
				return all
			})
		})
	}
}

func numberOf(e envelope) uint32 {
	m := new(demopb.CountResponse)
	if protojson.Unmarshal(e.Response, m) != nil {
		return 0
	}
	return m.GetNumber()
}

func TestEveryMessageOfAStreamIsShown(t *testing.T) {
	t.Parallel()
	upstream, _ := startDemo(t)
	eachCounter(t, func(t *testing.T, count func(*gateway, uint32) counted) {
		in := startTarget(t, "in", targetclient.KindCall, true, func(envelope) (int, string) { return 200, `{"to":4}` })
		out := startTarget(t, "out", targetclient.KindCall, true, func(e envelope) (int, string) {
			if n := numberOf(e); n != 2 { // The second stays as it came.
				return 200, fmt.Sprintf(`{"number":%d}`, 10*n)
			}
			return 200, ""
		})
		g := perMessageGateway(t, upstream, 0, targetsOf(in, out), on(t, "request", "in"), on(t, "response", "out"))
		if got, want := count(g, 9).String(), "[10 2 30 40]"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if label := g.observed.next(t); label.code != "OK" || label.method != countMethod {
			t.Errorf("label %v", label)
		}
		calls := out.received()
		if len(calls) != 4 {
			t.Fatalf("%d calls", len(calls))
		}
		for i, e := range calls {
			if e.FullMethod != countMethod || string(e.Request) != `{"to":4}` || string(e.Response) != fmt.Sprintf(`{"number":%d}`, i+1) {
				t.Errorf("call %d: %s %s %s", i, e.FullMethod, e.Request, e.Response)
			}
		}
	})
}

func TestAVetoEndsAStream(t *testing.T) {
	t.Parallel()
	upstream, _ := startDemo(t)
	eachCounter(t, func(t *testing.T, count func(*gateway, uint32) counted) {
		for _, at := range []uint32{1, 3} {
			guard := startTarget(t, "guard", targetclient.KindWebhook, true, func(e envelope) (int, string) {
				if numberOf(e) == at {
					return 200, `{"forwardedStatusCode":403,"forwardedErrorMessage":"no more"}`
				}
				return 200, ""
			})
			g := perMessageGateway(t, upstream, 0, targetsOf(guard), on(t, "response", "guard"))
			got := count(g, 1000)
			var e *connect.Error
			if len(got.numbers) != int(at)-1 || !errors.As(got.err, &e) ||
				e.Code() != connect.CodePermissionDenied || e.Message() != "no more (EXEC-reUaUZCzCp)" {
				t.Fatalf("veto at %d: %v", at, got)
			}
			if id := e.Meta().Get("Id"); id != "EXEC-reUaUZCzCp" {
				if len(e.Details()) != 1 || e.Details()[0].Type() != "zitadel.v1.ErrorDetail" {
					t.Errorf("details %v", e.Details())
				}
			}
			if label := g.observed.next(t); label.code != "PermissionDenied" {
				t.Errorf("label %v", label)
			}
			if n := len(guard.received()); n != int(at) {
				t.Errorf("%d calls, veto at %d", n, at)
			}
		}
	})
}

// TestMessagesOfAStreamAreNotHeldBack: the client has the first message while the targets still have the second.
func TestMessagesOfAStreamAreNotHeldBack(t *testing.T) {
	t.Parallel()
	upstream, _ := startDemo(t)
	for door, counter := range counters {
		t.Run(door, func(t *testing.T) {
			t.Parallel()
			arrived := make(chan uint32, 3)
			slow := startTarget(t, "slow", targetclient.KindWebhook, true, func(e envelope) (int, string) {
				if numberOf(e) == 1 {
					return 200, ""
				}
				select {
				case n := <-arrived:
					if n == numberOf(e)-1 {
						return 200, ""
					}
				case <-time.After(testTimeout / 2):
				}
				return 500, ""
			})
			g := perMessageGateway(t, upstream, 0, targetsOf(slow), on(t, "response", "slow"))
			if err := counter(testContext(t), t, g, 3, func(n uint32) { arrived <- n }); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestStreamsThatTheirExecutionDoesNotAskFor(t *testing.T) {
	t.Parallel()
	upstream, _ := startDemo(t)
	never := startTarget(t, "never", targetclient.KindWebhook, true, func(envelope) (int, string) { return 500, "" })
	// The more specific execution hides the one that asks.
	g := policyGateway(t, upstream, 0, map[string]dispatcher.ExecutionPolicy{"response": {PerMessage: true}}, targetsOf(never),
		on(t, "response", "never"), on(t, "response/execgate.demo.v1.StreamService", "never"))
	// Streams of the client never trigger, whatever a policy says.
	all := perMessageGateway(t, upstream, 0, targetsOf(never), on(t, "request", "never"), on(t, "response", "never"))
	for name, o := range map[string]connect.ClientOption{"grpc": connect.WithGRPC(), "connect": connect.WithProtoJSON()} {
		var got counted
		got.err = connectCounter(o)(testContext(t), t, g, 2, func(n uint32) { got.numbers = append(got.numbers, n) })
		if got.String() != "[1 2]" {
			t.Errorf("%s: %v", name, got)
		}
		client := demopbconnect.NewStreamServiceClient(h2cClient(t), all.url(), o)
		sum, err := client.Sum(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := sum.Send(&demopb.SumRequest{Value: 3}); err != nil {
			t.Fatal(err)
		}
		if m, err := sum.CloseAndReceive(); err != nil || m.GetSum() != 3 {
			t.Errorf("%s: %v, %v", name, m, err)
		}
		chat, err := client.Chat(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := chat.Send(&demopb.ChatRequest{Text: "x"}); err != nil {
			t.Fatal(err)
		}
		if m, err := chat.Receive(); err != nil || m.GetText() != "x" {
			t.Errorf("%s: %v, %v", name, m, err)
		}
		_, _ = chat.CloseRequest(), chat.CloseResponse()
	}
	if n := len(never.received()); n != 0 {
		t.Errorf("%d calls", n)
	}
}

// TestTheUpstreamsEndOfAStreamPasses: with its trailers, and with its error.
func TestTheUpstreamsEndOfAStreamPasses(t *testing.T) {
	t.Parallel()
	upstream, _ := startDemo(t)
	out := startTarget(t, "out", targetclient.KindCall, true, func(envelope) (int, string) { return 200, `{"number":7}` })
	g := perMessageGateway(t, upstream, 0, targetsOf(out), on(t, "response", "out"))
	for name, o := range map[string]connect.ClientOption{
		"grpc": connect.WithGRPC(), "grpc-web": connect.WithGRPCWeb(), "connect": connect.WithProtoJSON(),
	} {
		client := demopbconnect.NewStreamServiceClient(h2cClient(t), g.url(), o)
		ctx, info := connect.NewClientContext(testContext(t))
		info.RequestHeader().Set("X-Send-Header-X-Head", "h")
		info.RequestHeader().Set("X-Send-Trailer-X-Tail", "t")
		s, err := client.Count(ctx, &demopb.CountRequest{To: 2, Code: 5})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for s.Receive() {
			n += int(s.Msg().GetNumber())
		}
		if e := s.Err(); n != 14 || connect.CodeOf(e) != connect.CodeNotFound || !strings.Contains(e.Error(), "counted to 2") {
			t.Errorf("%s: %d, %v", name, n, e)
		}
		if name == "connect" {
			continue // The demo API sends neither there.
		}
		if s.ResponseHeader().Get("X-Head") != "h" || s.ResponseTrailer().Get("X-Tail") != "t" {
			t.Errorf("%s: %v, %v", name, s.ResponseHeader(), s.ResponseTrailer())
		}
	}
}

func TestTheCallersDeadlineEndsAStream(t *testing.T) {
	t.Parallel()
	upstream, _ := startDemo(t)
	release := make(chan struct{})
	slow := startTarget(t, "slow", targetclient.KindWebhook, false, func(e envelope) (int, string) {
		if numberOf(e) == 2 {
			<-release
		}
		return 200, ""
	})
	t.Cleanup(func() { close(release) }) // Before the target's server waits for its calls.
	g := perMessageGateway(t, upstream, 0, targetsOf(slow), on(t, "response", "slow"))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	var got counted
	got.err = connectCounter(connect.WithGRPC())(ctx, t, g, 5, func(n uint32) { got.numbers = append(got.numbers, n) })
	if connect.CodeOf(got.err) != connect.CodeDeadlineExceeded || !slices.Equal(got.numbers, []uint32{1}) {
		t.Errorf("got %v", got)
	}
	if label := g.observed.next(t); label.code != "DeadlineExceeded" && label.code != "Canceled" {
		t.Errorf("label %v", label)
	}
}

// TestMessagesOfAStreamThatCannotBeEvaluated: each by itself, as D-39, D-41 and D-59 say.
func TestMessagesOfAStreamThatCannotBeEvaluated(t *testing.T) {
	t.Parallel()
	message := func(n uint32) []byte {
		b, err := proto.Marshal(&demopb.CountResponse{Number: n})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	one := string(frameOf(message(1)))
	ten := string(frameOf(message(10)))
	flagged := func(flag byte, s string) string { return string([]byte{flag}) + s[1:] }
	line := func(s string) string { return `{"result":` + s + "}\n" }
	for _, test := range []struct {
		name, contentType, encoding string
		sent                        string // 'one', the trouble, 'one'
		want                        string // where nobody interrupts
		before                      string // where somebody does
		code, reason                string
	}{
		{"undecodable", "application/grpc", "", one + string(frameOf([]byte("\xff"))) + one, ten + string(frameOf([]byte("\xff"))) + ten, ten, "Internal", "undecodable"},
		{"too large", "application/grpc", "", one + string(frameOf(make([]byte, 2000))) + one, ten + string(frameOf(make([]byte, 2000))) + ten, ten, "ResourceExhausted", "too_large"},
		{"too large once decompressed", "application/grpc", "gzip", one + string(compressed(t, make([]byte, 2000))) + one, ten + string(compressed(t, make([]byte, 2000))) + ten, ten, "ResourceExhausted", "too_large"},
		{"encoding", "application/grpc", "zstd", one + flagged(1, one) + one, ten + flagged(1, one) + ten, ten, "Unimplemented", "encoding"},
		{"compressed without encoding", "application/grpc", "", one + flagged(1, one) + one, ten + flagged(1, one) + ten, ten, "Internal", "undecodable"},
		{"unknown flags", "application/grpc", "", one + flagged(4, one) + one, ten + flagged(4, one) + one, ten, "Internal", "undecodable"},
		{"cut in the header", "application/grpc", "", one + "\x00\x00", ten + "\x00\x00", ten, "Internal", "undecodable"},
		{"cut in the message", "application/grpc", "", one + one[:6], ten + one[:6], ten, "Internal", "undecodable"},
		{"not an object", "application/json", "", line(`{"number":1}`) + "7\n" + line(`{"number":1}`), line(`{"number":10}`) + "7\n" + line(`{"number":10}`), line(`{"number":10}`), "Internal", "undecodable"},
		{"two results", "application/json", "", `{"result":{},"result":{"number":1}}` + "\n", `{"result":{},"result":{"number":1}}` + "\n", "", "Internal", "undecodable"},
		{"another key", "application/json", "", `{"result":{"number":1},"error":null}` + "\n", `{"result":{"number":1},"error":null}` + "\n", "", "Internal", "undecodable"},
		{"wrong type", "application/json", "", line(`{"number":1}`) + line(`{"number":{}}`), line(`{"number":10}`) + line(`{"number":{}}`), line(`{"number":10}`), "Internal", "undecodable"},
		{"two on a line", "application/json", "", line(`{"number":1}`) + `{"result":{}}{"result":{}}` + "\n", line(`{"number":10}`) + `{"result":{}}{"result":{}}` + "\n", line(`{"number":10}`), "Internal", "undecodable"},
		{"large short line", "application/json", "", line(`{"x":"`+strings.Repeat("x", 1000)+`"}`) + line(`{"number":1}`), line(`{"x":"`+strings.Repeat("x", 1000)+`"}`) + line(`{"number":10}`), "", "ResourceExhausted", "too_large"},
		{"large line", "application/json", "", line(`{"number":1}`) + line(`{"x":"`+strings.Repeat("x", 9000)+`"}`) + line(`{"number":1}`), line(`{"number":10}`) + line(`{"x":"`+strings.Repeat("x", 9000)+`"}`) + line(`{"number":1}`), line(`{"number":10}`), "ResourceExhausted", "too_large"},
		{"events", "text/event-stream", "", "data: {}\n\n", "data: {}\n\n", "", "Internal", "undecodable"},
		{"gzip lines", "application/json", "gzip", "zzz", "zzz", "", "Unimplemented", "encoding"},
	} {
		for _, interrupt := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, interrupt %v", test.name, interrupt), func(t *testing.T) {
				t.Parallel()
				upstream := "http://" + serveH2C(t, func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", test.contentType)
					if test.encoding != "" {
						w.Header().Set(map[bool]string{true: "Grpc-Encoding", false: "Content-Encoding"}[test.contentType == "application/grpc"], test.encoding)
					}
					_, _ = io.WriteString(w, test.sent)
					w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
				})
				target := startTarget(t, "target", targetclient.KindCall, interrupt, func(e envelope) (int, string) {
					return 200, fmt.Sprintf(`{"number":%d}`, 10*numberOf(e))
				})
				g := perMessageGateway(t, upstream, 1000, targetsOf(target), on(t, "response", "target"))
				var res *http.Response
				if test.contentType == "application/grpc" {
					res = get(t, h2cClient(t), "POST", g.url()+countMethod, strings.NewReader(string(frameOf(nil))), "Content-Type", "application/grpc", "Te", "trailers")
				} else {
					res = get(t, webClient(t), "GET", g.url()+"/demo/v1/count/1", nil)
				}
				body := readAll(t, res.Body)
				label := g.observed.next(t)
				if g.observed.unevaluated[0] != "response "+test.reason {
					t.Errorf("unevaluated %v", g.observed.unevaluated)
				}
				if !interrupt {
					if body != test.want || label.code != "OK" {
						t.Errorf("%v: got %q, want %q", label, body, test.want)
					}
					return
				}
				if label.code != test.code {
					t.Errorf("label %v, want %s", label, test.code)
				}
				if rest, ok := strings.CutPrefix(body, test.before); !ok || test.contentType == "application/grpc" && rest != "" {
					t.Errorf("got %q", body)
				}
			})
		}
	}
}

// serveH2C serves HTTP/1.1 and HTTP/2 without TLS until the test ends.
func serveH2C(t *testing.T, h http.HandlerFunc) (addr string) {
	t.Helper()
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return serveHTTP(t, &http.Server{Protocols: &protocols, ReadHeaderTimeout: testTimeout, Handler: h})
}
