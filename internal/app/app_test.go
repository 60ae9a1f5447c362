package app_test

import (
	"context"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	actionpb "github.com/execgate/execgate/gen/zitadel/resources/action/v3alpha"
	userpb "github.com/execgate/execgate/gen/zitadel/user/v2"
	zitadelpb "github.com/execgate/execgate/gen/zitadel/v1"
	"github.com/execgate/execgate/internal/app"
	"github.com/execgate/execgate/internal/config"
	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/internal/testkit/demoapi"
)

func TestACallIsMatchedRewrittenVetoedOrPassedThrough(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"embedded", "redis"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			api, addr := upstream(t, "127.0.0.1:0")
			c := configuration(t, addr)
			if driver == "redis" {
				onRedis(c, testkit.StartRedis(t, testkit.RedisOptions{}).URL)
			}
			g := start(t, c).learned()
			target := testkit.NewTarget(t, testkit.TargetOptions{})

			// Nothing matches: untouched.
			if _, err := g.users.AddHumanUser(t.Context(), human("before")); err != nil {
				t.Fatal(err)
			}
			if n := len(target.Requests()); n != 0 {
				t.Fatalf("the target got %d requests before there was an execution", n)
			}

			rewriter := g.createTarget(callTarget("rewriter", target.URL+"/rewrite"))
			auditor := g.createTarget(async(webhook("auditor", target.URL+"/audit")))
			g.onRequest(addHumanUser, rewriter, auditor)
			target.AnswerPath("/rewrite", testkit.Answer{
				Body: `{"username":"after","profile":{"givenName":"After","familyName":"Example"},"email":{"email":"after@example.com"}}`,
			})
			if _, err := g.users.AddHumanUser(t.Context(), human("ada")); err != nil {
				t.Fatal(err)
			}
			last, _ := api.Last(addHumanUser)
			if got := last.Message.(*userpb.AddHumanUserRequest).GetUsername(); got != "after" {
				t.Errorf("the upstream got the user %q", got)
			}
			for _, r := range target.Wait(2, 10*time.Second) {
				body := r.JSON()
				if body["fullMethod"] != addHumanUser || body["instanceID"] != "default" {
					t.Errorf("%s got %s", r.Path, r.Body)
				}
				want := map[string]string{"/rewrite": "ada", "/audit": "after"}[r.Path]
				if got := body["request"].(map[string]any)["username"]; got != want {
					t.Errorf("%s saw the user %v, want %s", r.Path, got, want)
				}
				if r.Header.Get("ZITADEL-Signature") == "" {
					t.Errorf("%s was not signed", r.Path)
				}
			}

			// A veto: the upstream is not called, the caller gets what the target said.
			calls := api.Count(addHumanUser)
			guard := g.createTarget(interrupting(webhook("guard", target.URL+"/guard")))
			g.onRequest(addHumanUser, guard)
			target.AnswerPath("/guard", testkit.Answer{Body: `{"forwardedStatusCode":403,"forwardedErrorMessage":"not today"}`})
			_, err := g.users.AddHumanUser(t.Context(), human("ada"))
			s := status.Convert(err)
			if s.Code() != codes.PermissionDenied || s.Message() != "not today (EXEC-reUaUZCzCp)" {
				t.Errorf("the veto arrives as %v", err)
			}
			if len(s.Details()) != 1 || s.Details()[0].(*zitadelpb.ErrorDetail).GetId() != "EXEC-reUaUZCzCp" {
				t.Errorf("the details are %v", s.Details())
			}
			if n := api.Count(addHumanUser); n != calls {
				t.Errorf("the upstream was called in spite of the veto")
			}

			// Another method of the same service passes through.
			if _, err := g.users.ListUsers(t.Context(), &userpb.ListUsersRequest{}); err != nil {
				t.Error(err)
			}

			for series, want := range map[string]string{
				`execgate_requests_total{code="OK",method="` + addHumanUser + `",protocol="grpc"}`:               "2",
				`execgate_requests_total{code="PermissionDenied",method="` + addHumanUser + `",protocol="grpc"}`: "1",
				`execgate_executions_matched_total{execution="request` + addHumanUser + `",phase="request"}`:     "2",
				`execgate_target_calls_total{outcome="ok",target="rewriter"}`:                                    "1",
				`execgate_target_calls_total{outcome="ok",target="auditor"}`:                                     "1",
				`execgate_target_calls_total{outcome="forwarded",target="guard"}`:                                "1",
				`execgate_breaker_state{target="guard"}`:                                                         "0",
				`execgate_store_up`:                                                                              "1",
				`execgate_overhead_seconds_count`:                                                                "2",
			} {
				until(t, series+" is "+want, func() bool { return g.metric(series) == want })
			}
			if status, r := g.ready(); status != 200 || !r.Ready || len(r.Reasons)+len(r.Warnings) != 0 {
				t.Errorf("/readyz says %d %+v", status, r)
			}
			if status, body := g.get("/healthz"); status != 200 || body != "{\"status\":\"ok\"}\n" {
				t.Errorf("/healthz says %d %s", status, body)
			}
		})
	}
}

func TestTheResponseIsRewritten(t *testing.T) {
	t.Parallel()
	_, addr := upstream(t, "127.0.0.1:0")
	g := start(t, configuration(t, addr)).learned()
	target := testkit.NewTarget(t, testkit.TargetOptions{})
	target.Answer(testkit.Answer{Body: `{"userId":"from the target"}`})
	g.onResponse(addHumanUser, g.createTarget(callTarget("rewriter", target.URL)))
	res, err := g.users.AddHumanUser(t.Context(), human("ada"))
	if err != nil {
		t.Fatal(err)
	}
	if res.GetUserId() != "from the target" {
		t.Errorf("the client got %v", res)
	}
	body := target.Wait(1, 10*time.Second)[0].JSON()
	if body["request"] == nil || body["response"] == nil {
		t.Errorf("the target saw %v", body)
	}
}

func TestItStartsWithUpstreamAndRedisDown(t *testing.T) {
	t.Parallel()
	redis := testkit.StartRedis(t, testkit.RedisOptions{})
	redis.Stop()
	upstreamAddr := testkit.FreeAddr(t)
	g := start(t, onRedis(configuration(t, upstreamAddr), redis.URL))

	if status, r := g.ready(); status != 503 || r.Ready || len(r.Reasons) != 1 || len(r.Warnings) != 2 {
		t.Errorf("/readyz says %d %+v", status, r)
	}
	if status, _ := g.get("/healthz"); status != 200 {
		t.Errorf("/healthz says %d", status)
	}
	if g.metric("execgate_store_up") != "0" || g.metric("execgate_snapshot_generation") != "0" {
		t.Error("the metrics should say that there is no store")
	}
	_, err := g.users.ListUsers(t.Context(), &userpb.ListUsersRequest{})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("without any configuration a call ends with %v", err)
	}

	redis.Restart()
	until(t, "it is ready once Redis is there", func() bool { status, _ := g.ready(); return status == 200 })
	_, err = g.users.ListUsers(t.Context(), &userpb.ListUsersRequest{})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("without the upstream a call ends with %v", err)
	}

	upstream(t, upstreamAddr)
	if _, err := g.users.ListUsers(t.Context(), &userpb.ListUsersRequest{}); err != nil {
		t.Errorf("with the upstream: %v", err)
	}
	g.learned()
}

func TestAnInterruptingExecutionHoldsTrafficUntilTheSchemaIsKnown(t *testing.T) {
	t.Parallel()
	api, upstreamAddr := upstream(t, "127.0.0.1:0")
	c := configuration(t, upstreamAddr)
	target := testkit.NewTarget(t, testkit.TargetOptions{})
	first := start(t, c).learned()
	first.onRequest(addHumanUser, first.createTarget(interrupting(webhook("guard", target.URL))))
	if err := first.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := api.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}

	t.Run("the schema on disk is enough", func(t *testing.T) {
		g := start(t, c).learned()
		defer func() { _ = g.Stop(context.Background()) }()
		if status, r := g.ready(); status != 200 {
			t.Errorf("/readyz says %d %+v", status, r)
		}
	})
	c.Upstream.Schema.CachePath = ""
	g := start(t, c)
	if status, r := g.ready(); status != 503 || !strings.Contains(strings.Join(r.Reasons, ""), "schema of the upstream is not known") {
		t.Errorf("/readyz says %d %+v", status, r)
	}
	_, err := g.users.ListUsers(t.Context(), &userpb.ListUsersRequest{})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("a call ends with %v", err)
	}
	if _, err := api.Start(t.Context(), upstreamAddr); err != nil {
		t.Fatal(err)
	}
	until(t, "it is ready once the schema is learned", func() bool { status, _ := g.ready(); return status == 200 })
}

func TestRedisAwayKeepsTheLastKnownConfiguration(t *testing.T) {
	t.Parallel()
	api, addr := upstream(t, "127.0.0.1:0")
	redis := testkit.StartRedis(t, testkit.RedisOptions{AOF: true})
	c := onRedis(configuration(t, addr), redis.URL)
	target := testkit.NewTarget(t, testkit.TargetOptions{})
	target.Answer(testkit.Answer{Status: 500})

	g := start(t, c).learned()
	guard := g.createTarget(interrupting(webhook("guard", target.URL)))
	g.onRequest(addHumanUser, guard)
	refused := func(g *gateway, when string) {
		t.Helper()
		if _, err := g.users.AddHumanUser(t.Context(), human("ada")); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("%s the call ends with %v", when, err)
		}
	}
	refused(g, "with Redis")

	redis.Kill()
	until(t, "the gauge says that the store is away", func() bool { return g.metric("execgate_store_up") == "0" })
	refused(g, "without Redis")
	another := webhook("another", target.URL)
	another.Timeout = durationpb.New(time.Second)
	_, err := g.admin.CreateTarget(t.Context(), &actionpb.CreateTargetRequest{Target: another})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("a write ends with %v", err)
	}
	if status, r := g.ready(); status != 200 || len(r.Warnings) != 1 {
		t.Errorf("/readyz says %d %+v", status, r)
	}
	if err := g.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}

	again := start(t, c).learned()
	refused(again, "after a restart without Redis")
	redis.Restart()
	until(t, "it recovers by itself", func() bool { return again.metric("execgate_store_up") == "1" })
	again.createTarget(webhook("another", target.URL))
	if n := api.Count(addHumanUser); n != 0 {
		t.Errorf("%d calls got through to the upstream", n)
	}
}

func TestAChangeReachesEveryGatewayOnOneRedis(t *testing.T) {
	t.Parallel()
	_, addr := upstream(t, "127.0.0.1:0")
	redis := testkit.StartRedis(t, testkit.RedisOptions{})
	one := start(t, onRedis(configuration(t, addr), redis.URL)).learned()
	two := start(t, onRedis(configuration(t, addr), redis.URL)).learned()
	target := testkit.NewTarget(t, testkit.TargetOptions{})
	target.Answer(testkit.Answer{Status: 500})
	one.onRequest(addHumanUser, one.createTarget(interrupting(webhook("guard", target.URL))))

	begin := time.Now()
	until(t, "the other gateway refuses the call", func() bool {
		_, err := two.users.AddHumanUser(t.Context(), human("ada"))
		return status.Code(err) == codes.FailedPrecondition
	})
	if took := time.Since(begin); took > time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestAProtectedMethodIsNeverInterrupted(t *testing.T) {
	t.Parallel()
	_, addr := upstream(t, "127.0.0.1:0")
	c := configuration(t, addr)
	c.ProtectedMethods = []string{addHumanUser}
	g := start(t, c).learned()
	target := testkit.NewTarget(t, testkit.TargetOptions{})
	target.Answer(testkit.Answer{Status: 500})
	g.onRequest(addHumanUser, g.createTarget(interrupting(webhook("guard", target.URL))))
	if _, err := g.users.AddHumanUser(t.Context(), human("ada")); err != nil {
		t.Error(err)
	}
	target.Wait(1, 10*time.Second)
}

func TestEveryListenerThatFailsIsNamed(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	c := configuration(t, "127.0.0.1:1")
	c.Proxy.Listen = taken.Addr().String()
	c.Ops.Listen = "203.0.113.7:0"
	a, err := app.New(app.Options{Config: c, Logger: testkit.Logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	err = a.Start(t.Context())
	if err == nil {
		t.Fatal("it starts")
	}
	want := "proxy.listen: cannot listen on " + c.Proxy.Listen + ": address already in use; stop the other process, or choose another port in proxy.listen (EXECGATE_PROXY_LISTEN)\n" +
		"ops.listen: cannot listen on 203.0.113.7:0: cannot assign requested address; this machine has no such address: choose another in ops.listen (EXECGATE_OPS_LISTEN)"
	if err.Error() != want {
		t.Errorf("got  %s\nwant %s", err, want)
	}
}

func TestAnOpenAdminPortNeedsATokenInCodeToo(t *testing.T) {
	t.Parallel()
	c := config.Default()
	c.Admin.Listen = "0.0.0.0:0"
	_, err := app.New(app.Options{Config: c})
	if err == nil || !strings.Contains(err.Error(), "admin.tokens is empty") {
		t.Errorf("got %v", err)
	}
}

func TestASecondGatewayOnTheSameFileIsRefused(t *testing.T) {
	t.Parallel()
	_, addr := upstream(t, "127.0.0.1:0")
	c := configuration(t, addr)
	start(t, c)
	a, err := app.New(app.Options{Config: c, Logger: testkit.Logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "another process holds the file") {
		t.Errorf("got %v", err)
	}
}

func TestTLSOnEverySide(t *testing.T) {
	t.Parallel()
	certs := testkit.NewCertificates(t, "127.0.0.1", "localhost")
	api := demoapi.New(demoapi.Options{TLS: certs.Server, Logger: testkit.Logger(t)})
	addr, err := api.Start(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = api.Stop(context.Background()) })

	c := configuration(t, addr)
	c.Upstream.URL = "https://" + addr
	c.Upstream.TLS.CAFile = certs.CAFile
	c.Upstream.TLS.ServerName = "localhost"
	c.Proxy.TLS = config.ServerTLS{CertFile: certs.CertFile, KeyFile: certs.KeyFile}
	c.Admin.TLS.CertFile, c.Admin.TLS.KeyFile = certs.CertFile, certs.KeyFile
	g := start(t, c).learned()

	client := certs.Client.Clone()
	secure := func(addr string) *grpc.ClientConn {
		conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(credentials.NewTLS(client)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	g.admin = actionpb.NewZITADELActionsClient(secure(g.Addresses().Admin.String()))
	g.users = userpb.NewUserServiceClient(secure(g.Addresses().Proxy.String()))
	target := testkit.NewTarget(t, testkit.TargetOptions{Certificates: certs})
	target.Answer(testkit.Answer{Status: 500})
	if _, err := g.users.ListUsers(t.Context(), &userpb.ListUsersRequest{}); err != nil {
		t.Errorf("pass through: %v", err)
	}
	g.onRequest(addHumanUser, g.createTarget(interrupting(webhook("guard", target.URL))))
	// The target's certificate is nobody's that the gateway knows.
	if _, err := g.users.AddHumanUser(t.Context(), human("ada")); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("a target with a strange certificate: %v", err)
	}
	until(t, "it counts as a transport error", func() bool {
		return g.metric(`execgate_target_calls_total{outcome="transport",target="guard"}`) == "1"
	})

	web := &http.Client{Transport: &http.Transport{TLSClientConfig: client}}
	defer web.CloseIdleConnections()
	res, err := web.Get("https://" + g.Addresses().Proxy.String() + "/ui/login")
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != 200 || res.ProtoMajor != 1 {
		t.Errorf("HTTP/1.1 over TLS: %s %s", res.Proto, res.Status)
	}
}

func TestTheEndOfTheContextDuringTheStartIsNoError(t *testing.T) {
	t.Parallel()
	a, err := app.New(app.Options{Config: configuration(t, "127.0.0.1:1"), Logger: testkit.Logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.Run(ctx); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestProbesMayAskWithHEAD(t *testing.T) {
	t.Parallel()
	g := start(t, configuration(t, "127.0.0.1:1"))
	for _, path := range []string{"/healthz", "/readyz"} {
		res, err := http.Head("http://" + g.Addresses().Ops.String() + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != 200 || res.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %s", path, res.Status)
		}
	}
}
