package app_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	demopb "github.com/execgate/execgate/gen/execgate/demo/v1"
	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	actionpb "github.com/execgate/execgate/gen/zitadel/resources/action/v3alpha"
	userpb "github.com/execgate/execgate/gen/zitadel/user/v2"
	"github.com/execgate/execgate/internal/app"
	"github.com/execgate/execgate/internal/config"
	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/internal/testkit/demoapi"
)

func TestMain(m *testing.M) {
	// The thread that redis-server's life hangs on.
	testkit.Main(m, goleak.IgnoreAnyFunction("github.com/execgate/execgate/internal/testkit.startWithParent.func1.1"),
		// It looks once a second whether its client was closed.
		goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

// addHumanUser is the method that most tests match.
const addHumanUser = "/zitadel.user.v2.UserService/AddHumanUser"

// upstream starts a demo identity API on addr.
func upstream(t *testing.T, addr string) (*demoapi.Server, string) {
	t.Helper()
	api := demoapi.New(demoapi.Options{Logger: testkit.Logger(t)})
	addr, err := api.Start(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = api.Stop(ctx) // streams that a test left open are cut
	})
	return api, addr
}

// configuration is one for a test: every port chosen by the system, every file
// in a directory of its own, targets on loopback allowed.
func configuration(t *testing.T, upstreamAddr string) *config.Config {
	t.Helper()
	dir := t.TempDir()
	c := config.Default()
	c.Proxy.Listen, c.Admin.Listen, c.Ops.Listen = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	c.Proxy.DrainTimeout = 5 * time.Second
	c.Proxy.KillFile = filepath.Join(dir, "execgate.kill")
	c.Upstream.URL = "http://" + upstreamAddr
	c.Upstream.Schema.CachePath = filepath.Join(dir, "schema.binpb")
	c.Store.Embedded.Path = filepath.Join(dir, "execgate.db")
	c.Store.Redis.CopyPath = filepath.Join(dir, "copy.db")
	c.TargetClient.DenyList = nil
	return c
}

// onRedis makes the configuration keep its store in a Redis.
func onRedis(c *config.Config, url string) *config.Config {
	c.Store.Driver = "redis"
	c.Store.Redis.URL = config.NewSecret(url)
	return c
}

// gateway is a running gateway with clients of its ports.
type gateway struct {
	*app.App
	t       *testing.T
	users   userpb.UserServiceClient
	streams demopb.StreamServiceClient
	admin   actionpb.ZITADELActionsClient
	own     gatewaypb.GatewayServiceClient
}

// start runs a gateway until the test ends or stop is called.
func start(t *testing.T, c *config.Config) *gateway {
	t.Helper()
	a, err := app.New(app.Options{Config: c, Logger: testkit.Logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	g := &gateway{App: a, t: t}
	t.Cleanup(func() { _ = a.Stop(context.Background()) })
	proxyConn, adminConn := dial(t, a.Addresses().Proxy.String()), dial(t, a.Addresses().Admin.String())
	g.users = userpb.NewUserServiceClient(proxyConn)
	g.streams = demopb.NewStreamServiceClient(proxyConn)
	g.admin = actionpb.NewZITADELActionsClient(adminConn)
	g.own = gatewaypb.NewGatewayServiceClient(adminConn)
	return g
}

func dial(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// until waits for something that happens by itself, and fails the test when it
// does not within ten seconds.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-deadline:
			t.Fatalf("%s: not within 10 s", what)
		case <-tick.C:
		}
	}
}

// learned waits until the gateway knows the schema.
func (g *gateway) learned() *gateway {
	g.t.Helper()
	until(g.t, "the schema is learned", func() bool { return g.metric("execgate_schema_loaded") == "1" })
	return g
}

// createTarget makes a target and returns its id.
func (g *gateway) createTarget(target *actionpb.Target) string {
	g.t.Helper()
	if target.Timeout == nil {
		target.Timeout = durationpb.New(10 * time.Second)
	}
	res, err := g.admin.CreateTarget(g.t.Context(), &actionpb.CreateTargetRequest{Target: target})
	if err != nil {
		g.t.Fatalf("create target: %v", err)
	}
	return res.GetDetails().GetId()
}

func webhook(name, url string) *actionpb.Target {
	return &actionpb.Target{Name: name, TargetType: &actionpb.Target_RestWebhook{RestWebhook: &actionpb.SetRESTWebhook{Url: url}}}
}

func callTarget(name, url string) *actionpb.Target {
	return &actionpb.Target{Name: name, TargetType: &actionpb.Target_RestRequestResponse{
		RestRequestResponse: &actionpb.SetRESTRequestResponse{Url: url},
	}}
}

func interrupting(t *actionpb.Target) *actionpb.Target {
	t.ExecutionType = &actionpb.Target_InterruptOnError{InterruptOnError: true}
	return t
}

func async(t *actionpb.Target) *actionpb.Target {
	t.ExecutionType = &actionpb.Target_IsAsync{IsAsync: true}
	return t
}

// onRequest puts an execution on the request phase of a method.
func (g *gateway) onRequest(method string, targets ...string) {
	g.t.Helper()
	g.put(&actionpb.Condition{ConditionType: &actionpb.Condition_Request{Request: &actionpb.RequestExecution{
		Condition: &actionpb.RequestExecution_Method{Method: method},
	}}}, targets)
}

// onResponse puts an execution on the response phase of a method.
func (g *gateway) onResponse(method string, targets ...string) {
	g.t.Helper()
	g.put(&actionpb.Condition{ConditionType: &actionpb.Condition_Response{Response: &actionpb.ResponseExecution{
		Condition: &actionpb.ResponseExecution_Method{Method: method},
	}}}, targets)
}

// onService is the request phase of a whole service, onAll that of every method.
func onService(service string) *actionpb.Condition {
	return &actionpb.Condition{ConditionType: &actionpb.Condition_Request{Request: &actionpb.RequestExecution{
		Condition: &actionpb.RequestExecution_Service{Service: service},
	}}}
}

func onAll() *actionpb.Condition {
	return &actionpb.Condition{ConditionType: &actionpb.Condition_Request{Request: &actionpb.RequestExecution{
		Condition: &actionpb.RequestExecution_All{All: true},
	}}}
}

func (g *gateway) put(condition *actionpb.Condition, targets []string) {
	g.t.Helper()
	_, err := g.admin.PutExecution(g.t.Context(), &actionpb.PutExecutionRequest{
		Execution: &actionpb.Execution{Condition: condition, Targets: targets},
	})
	if err != nil {
		g.t.Fatalf("put execution: %v", err)
	}
}

// human is a user to add, with a given name.
func human(name string) *userpb.AddHumanUserRequest {
	return &userpb.AddHumanUserRequest{
		Username: &name,
		Profile:  &userpb.SetHumanProfile{GivenName: name, FamilyName: "Example"},
		Email:    &userpb.SetHumanEmail{Email: name + "@example.com"},
	}
}

// get asks the ops listener.
func (g *gateway) get(path string) (status int, body string) {
	g.t.Helper()
	res, err := http.Get("http://" + g.Addresses().Ops.String() + path)
	if err != nil {
		g.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

// metric returns the value of a series, "" when it is not there.
func (g *gateway) metric(series string) string {
	g.t.Helper()
	_, text := g.get("/metrics")
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), series+" "); ok {
			return value
		}
	}
	return ""
}

// ready asks /readyz.
func (g *gateway) ready() (status int, r app.Readiness) {
	g.t.Helper()
	status, body := g.get("/readyz")
	if err := json.Unmarshal([]byte(body), &r); err != nil {
		g.t.Fatalf("%s: %v", body, err)
	}
	return status, r
}
