package proxy_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	demopb "github.com/execgate/execgate/gen/execgate/demo/v1"
	"github.com/execgate/execgate/gen/execgate/demo/v1/demopbconnect"
	"github.com/execgate/execgate/targetclient"
)

// curl runs the real thing, and returns the status and the body.
func curl(t *testing.T, args ...string) (status, body string) {
	t.Helper()
	cmd := exec.CommandContext(testContext(t), "curl", append([]string{"-sS", "--noproxy", "*", "-w", "\n%{http_code}"}, args...)...)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("curl: %v: %s", err, stderr.String())
	}
	text := out.String()
	end := strings.LastIndexByte(text, '\n')
	return text[end+1:], text[:end]
}

func TestCurl(t *testing.T) {
	t.Parallel()
	upstream, _ := startDemo(t)
	asked := rewriting(t, "asked", func(m jsonObject) { m["text"] = fmt.Sprint(m["text"], ", asked") })
	answered := rewriting(t, "answered", func(m jsonObject) { m["host"] = "hidden" })
	guard := startTarget(t, "guard", targetclient.KindWebhook, true, func(envelope) (int, string) {
		return 200, `{"forwardedStatusCode":409,"forwardedErrorMessage":"taken"}`
	})
	tenfold := startTarget(t, "tenfold", targetclient.KindCall, true, func(e envelope) (int, string) {
		return 200, fmt.Sprintf(`{"number":%d}`, 10*numberOf(e))
	})
	g := perMessageGateway(t, upstream, 0, targetsOf(asked, answered, guard, tenfold),
		on(t, "request"+echoMethod, "asked"), on(t, "request"+peekMethod, "asked"), on(t, "response"+peekMethod, "answered"),
		on(t, "request"+addUser, "guard"), on(t, "response"+countMethod, "tenfold"))
	u := g.url()
	for _, test := range []struct {
		name, status string
		args         []string
		want         []string // parts of the body
	}{
		{"a body", "200", []string{"-H", "Content-Type: application/json", "-d", `{"text":"ada","number":"7"}`, u + "/demo/v1/echo"}, []string{`"text":"ada, asked"`, `"number":"7"`}},
		{"a body beyond what is sent unasked", "200", []string{"-H", "Content-Type: application/json", "-H", "Expect: 100-continue", "-d", `{"text":"ada"}`, u + "/demo/v1/echo"}, []string{`"text":"ada, asked"`}},
		{"path and query", "200", []string{"-G", "--data-urlencode", "nested.name=a&b", "-d", "words=x", "-d", "words=y", "-d", "colour=COLOUR_RED", u + "/demo/v1/echo/ada%20l"}, []string{`"text":"ada l, asked"`, `"name":"a&b"`, `"words":["x","y"]`, `COLOUR_RED`, `"host":"hidden"`}},
		{"HTTP/2", "200", []string{"--http2-prior-knowledge", "--compressed", u + "/demo/v1/echo/ada"}, []string{`"text":"ada, asked"`, `"host":"hidden"`}},
		{"a veto", "409", []string{"-H", "Content-Type: application/json", "-d", `{"username":"ada"}`, u + "/v2/users/human"}, []string{`{"code":6,"message":"taken (EXEC-reUaUZCzCp)","details":[{"@type":"type.googleapis.com/zitadel.v1.ErrorDetail","id":"EXEC-reUaUZCzCp","message":"taken"}]}`}},
		{"an error of the upstream", "404", []string{u + "/v2/users/404"}, []string{`"code":5`, `"details":[`}},
		{"a stream", "200", []string{"-N", u + "/demo/v1/count/3"}, []string{`{"result":{"number":10}}` + "\n" + `{"result":{"number":20}}` + "\n" + `{"result":{"number":30}}` + "\n"}},
		{"no API call", "200", []string{u + "/debug/healthz"}, []string{"ok\n"}},
		{"a call of nothing", "404", []string{u + "/v2/nothing"}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			status, body := curl(t, test.args...)
			if status != test.status {
				t.Errorf("status %s, want %s: %s", status, test.status, body)
			}
			compact := body
			var b bytes.Buffer
			if json.Compact(&b, []byte(body)) == nil {
				compact = b.String() // protojson puts spaces where it likes.
			}
			for _, want := range test.want {
				if !strings.Contains(body, want) && !strings.Contains(compact, want) {
					t.Errorf("got %s, want %s", body, want)
				}
			}
		})
	}
}

// TestConnectGoSpeaksAllThree: one client library, three protocols, one outcome.
func TestConnectGoSpeaksAllThree(t *testing.T) {
	t.Parallel()
	upstream, _ := startDemo(t)
	marks := addTexts(t)
	guard := startTarget(t, "guard", targetclient.KindWebhook, true, func(envelope) (int, string) {
		return 200, `{"forwardedStatusCode":403,"forwardedErrorMessage":"no"}`
	})
	g := demoGateway(t, upstream, append(targetsOf(marks...), guard.Target),
		on(t, "request"+echoMethod, "in"), on(t, "response"+echoMethod, "out"), on(t, "request"+demoService+"Wait", "guard"))
	for protocol, o := range map[string]connect.ClientOption{
		"grpc": connect.WithGRPC(), "grpc_web": connect.WithGRPCWeb(), "connect": connect.WithProtoJSON(),
	} {
		client := demopbconnect.NewStreamServiceClient(h2cClient(t), g.url(), o, connect.WithSendGzip())
		res, err := client.Echo(testContext(t), &demopb.EchoRequest{Text: "a"})
		if err != nil || res.GetEcho().GetText() != "a+in+out" {
			t.Errorf("%s: %v, %v", protocol, res, err)
		}
		_, err = client.Wait(testContext(t), &demopb.WaitRequest{Duration: durationpb.New(0)})
		var e *connect.Error
		if !errors.As(err, &e) || e.Code() != connect.CodePermissionDenied || e.Message() != "no (EXEC-reUaUZCzCp)" || len(e.Details()) != 1 {
			t.Errorf("%s: %v", protocol, err)
		}
		_, err = client.Fail(testContext(t), &demopb.FailRequest{Code: 9, Message: "ü"})
		if !errors.As(err, &e) || e.Code() != connect.CodeFailedPrecondition || e.Message() != "ü" {
			t.Errorf("%s: %v", protocol, err)
		}
		sum, err := client.Sum(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		for n := range int64(3) {
			if err := sum.Send(&demopb.SumRequest{Value: n}); err != nil {
				t.Fatal(err)
			}
		}
		if m, err := sum.CloseAndReceive(); err != nil || m.GetSum() != 3 {
			t.Errorf("%s: %v, %v", protocol, m, err)
		}
	}
}
