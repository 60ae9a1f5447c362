//go:build browser

package browser

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	actionpb "github.com/execgate/execgate/gen/zitadel/resources/action/v3alpha"
	"github.com/execgate/execgate/internal/app"
	"github.com/execgate/execgate/internal/config"
	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/internal/testkit/demoapi"
)

const (
	streamService = "/execgate.demo.v1.StreamService/"
	userService   = "/zitadel.user.v2.UserService/"
)

// visit is one page that calls one gateway.
type visit struct {
	Name    string `json:"name"`
	Page    string `json:"page"`
	Gateway string `json:"gateway"`
	// Refused: the page's origin may not call.
	Refused bool `json:"refused"`
}

// TestBrowser: the clients of npm see through the gateway what they are to see: answers, rewritten ones, vetoes with
// code and details, errors of the upstream, streams. Every page is of another origin than the gateway.
func TestBrowser(t *testing.T) {
	origin := servePage(t)
	other := strings.Replace(origin, "127.0.0.1", "localhost", 1)
	var asked atomic.Int64
	// This upstream allows one origin by itself; the other one leaves that to the gateway.
	allowing := upstream(t, func(from string) bool { asked.Add(1); return from == origin })
	refusing := upstream(t, func(string) bool { return false })
	passing := gateway(t, allowing, nil)
	answering := gateway(t, refusing, []string{origin})

	run(t, []visit{
		{Name: "preflights of the upstream", Page: origin, Gateway: passing},
		{Name: "preflights of the upstream", Page: other, Gateway: passing, Refused: true},
		{Name: "preflights of the gateway", Page: origin, Gateway: answering},
		{Name: "preflights of the gateway", Page: other, Gateway: answering, Refused: true},
	})
	if asked.Load() == 0 {
		t.Error("the upstream was not asked for origins")
	}
}

// run opens the pages in the browser.
func run(t *testing.T, visits []visit) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	list, err := json.Marshal(visits)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, "node", "run.mjs", string(list))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatalf("start node: %v", err)
	}
	passed := 0
	for lines := bufio.NewScanner(out); lines.Scan(); {
		t.Log(lines.Text())
		if strings.HasPrefix(lines.Text(), "ok ") {
			passed++
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the browser saw something else: %v", err)
	}
	// 4 clients of 8 checks and one of 4 on two pages, 4 refusals on the other two.
	if want := 2*(4*8+4) + 2*4; passed != want {
		t.Errorf("%d of %d checks passed", passed, want)
	}
}

// servePage serves the page and returns its origin.
func servePage(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/page.js" {
			http.ServeFile(w, r, filepath.Join("dist", "page.js"))
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte(`<!doctype html><title>execgate</title><script src="/page.js"></script>`))
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func upstream(t *testing.T, allow func(origin string) bool) string {
	t.Helper()
	api := demoapi.New(demoapi.Options{AllowOrigin: allow, Logger: testkit.Logger(t)})
	addr, err := api.Start(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = api.Stop(ctx)
	})
	return "http://" + addr
}

// gateway starts a gateway with the executions that the page knows of, and returns its URL.
func gateway(t *testing.T, upstream string, origins []string) string {
	t.Helper()
	dir := t.TempDir()
	c := config.Default()
	c.Proxy.Listen, c.Admin.Listen, c.Ops.Listen = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	c.Proxy.KillFile = filepath.Join(dir, "execgate.kill")
	c.Proxy.CORS.AllowedOrigins = origins
	c.Upstream.URL = upstream
	c.Upstream.Schema.CachePath = filepath.Join(dir, "schema.binpb")
	c.Store.Embedded.Path = filepath.Join(dir, "execgate.db")
	c.TargetClient.DenyList = nil
	a, err := app.New(app.Options{Config: c, Logger: testkit.Logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Stop(context.Background()) })
	conn, err := grpc.NewClient("passthrough:///"+a.Addresses().Admin.String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	execute(t, conn)
	ready(t, "http://"+a.Addresses().Ops.String()+"/readyz")
	return "http://" + a.Addresses().Proxy.String()
}

// ready waits until traffic is let through: something may veto, so not before the schema is learned.
func ready(t *testing.T, url string) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		res, err := http.Get(url)
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("the gateway does not let traffic through")
		}
	}
}

// execute sets up what fires.
func execute(t *testing.T, conn *grpc.ClientConn) {
	t.Helper()
	actions := actionpb.NewZITADELActionsClient(conn)
	put := func(condition *actionpb.Condition, answer func(envelope) string) string {
		t.Helper()
		name := fmt.Sprint(condition)
		target, err := actions.CreateTarget(t.Context(), &actionpb.CreateTargetRequest{Target: &actionpb.Target{
			Name:          name,
			TargetType:    &actionpb.Target_RestRequestResponse{RestRequestResponse: &actionpb.SetRESTRequestResponse{Url: serveTarget(t, answer)}},
			Timeout:       durationpb.New(10 * time.Second),
			ExecutionType: &actionpb.Target_InterruptOnError{InterruptOnError: true},
		}})
		if err != nil {
			t.Fatal(err)
		}
		res, err := actions.PutExecution(t.Context(), &actionpb.PutExecutionRequest{
			Execution: &actionpb.Execution{Condition: condition, Targets: []string{target.GetDetails().GetId()}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return res.GetDetails().GetId()
	}
	const no = `{"forwardedStatusCode":403,"forwardedErrorMessage":"not from a browser"}`
	ask := func(e envelope) string {
		e.Request["text"] = fmt.Sprint(e.Request["text"], ", asked")
		return text(e.Request)
	}
	put(onRequest(streamService+"Echo"), ask)
	put(onRequest(streamService+"Peek"), ask)
	put(onResponse(streamService+"Echo"), func(e envelope) string {
		e.Response["echo"].(map[string]any)["words"] = []string{"answered"}
		return text(e.Response)
	})
	put(onRequest(userService+"AddHumanUser"), func(envelope) string { return no })
	put(onRequest(userService+"GetUserByID"), func(envelope) string { return "" })
	put(onResponse(userService+"GetUserByID"), func(envelope) string { return "" })
	count := put(onResponse(streamService+"Count"), func(e envelope) string {
		number := e.Response["number"].(float64)
		if e.Request["to"] == 13.0 && number == 3 {
			return no
		}
		return text(map[string]any{"number": 10 * number})
	})
	_, err := gatewaypb.NewGatewayServiceClient(conn).UpdateExecutionPolicy(t.Context(), &gatewaypb.UpdateExecutionPolicyRequest{
		Id: count, Policy: &gatewaypb.ExecutionPolicy{PerMessage: new(true)},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func onRequest(method string) *actionpb.Condition {
	return &actionpb.Condition{ConditionType: &actionpb.Condition_Request{Request: &actionpb.RequestExecution{
		Condition: &actionpb.RequestExecution_Method{Method: method},
	}}}
}

func onResponse(method string) *actionpb.Condition {
	return &actionpb.Condition{ConditionType: &actionpb.Condition_Response{Response: &actionpb.ResponseExecution{
		Condition: &actionpb.ResponseExecution_Method{Method: method},
	}}}
}

// envelope is what a target gets.
type envelope struct{ Request, Response map[string]any }

func serveTarget(t *testing.T, answer func(envelope) string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var e envelope
		if err := json.NewDecoder(r.Body).Decode(&e); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_, _ = w.Write([]byte(answer(e)))
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func text(m map[string]any) string {
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return string(b)
}
