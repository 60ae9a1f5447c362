package app_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	userpb "github.com/execgate/execgate/gen/zitadel/user/v2"
	"github.com/execgate/execgate/internal/testkit"
)

const (
	requestExecution = "request" + addHumanUser
	veto             = `{"forwardedStatusCode":403,"forwardedErrorMessage":"not today"}`
)

// policyOfTarget sets the policy of a target, by id or name.
func (g *gateway) policyOfTarget(id string, p *gatewaypb.TargetPolicy) {
	g.t.Helper()
	if _, err := g.own.UpdateTargetPolicy(g.t.Context(), &gatewaypb.UpdateTargetPolicyRequest{Id: id, Policy: p}); err != nil {
		g.t.Fatal(err)
	}
}

// policyOfExecution sets the policy of an execution.
func (g *gateway) policyOfExecution(id string, p *gatewaypb.ExecutionPolicy) {
	g.t.Helper()
	if _, err := g.own.UpdateExecutionPolicy(g.t.Context(), &gatewaypb.UpdateExecutionPolicyRequest{Id: id, Policy: p}); err != nil {
		g.t.Fatal(err)
	}
}

func (g *gateway) switchDispatch(on bool) {
	g.t.Helper()
	if _, err := g.own.SetSwitches(g.t.Context(), &gatewaypb.SetSwitchesRequest{Switches: &gatewaypb.Switches{Dispatch: &on}}); err != nil {
		g.t.Fatal(err)
	}
}

func (g *gateway) explain(r *gatewaypb.ExplainRequest) *gatewaypb.ExplainResponse {
	g.t.Helper()
	res, err := g.own.Explain(g.t.Context(), r)
	if err != nil {
		g.t.Fatal(err)
	}
	return res
}

var users atomic.Int64

// add adds a user of a new name that begins with the given one, and returns the code of the answer.
func (g *gateway) add(name string) codes.Code {
	_, err := g.users.AddHumanUser(g.t.Context(), human(fmt.Sprint(name, users.Add(1))))
	return status.Code(err)
}

func shadow() *gatewaypb.ExecutionPolicy {
	return &gatewaypb.ExecutionPolicy{Mode: gatewaypb.ExecutionMode_EXECUTION_MODE_SHADOW}
}

func TestShadowModeOnlyLooks(t *testing.T) {
	t.Parallel()
	_, addr := upstream(t, "127.0.0.1:0")
	g := start(t, configuration(t, addr)).learned()
	target := testkit.NewTarget(t, testkit.TargetOptions{})
	target.AnswerPath("/rewrite", testkit.Answer{Body: `{"username":"grace","profile":{"givenName":"ada","familyName":"Hopper"},"email":{"email":"ada@example.com"}}`})
	rewrite := g.createTarget(callTarget("rewriter", target.URL+"/rewrite"))
	guard := g.createTarget(interrupting(webhook("guard", target.URL+"/guard")))
	audit := g.createTarget(webhook("auditor", target.URL+"/audit"))
	g.onRequest(addHumanUser, rewrite, guard)
	g.onResponse(addHumanUser, audit)
	g.policyOfExecution(requestExecution, shadow())

	last := func(values bool) *gatewaypb.LastRun {
		t.Helper()
		phase := g.explain(&gatewaypb.ExplainRequest{Method: addHumanUser, Last: true, WithValues: values}).GetPhases()[0]
		if phase.GetMode() != gatewaypb.ExecutionMode_EXECUTION_MODE_SHADOW {
			t.Errorf("mode %v", phase.GetMode())
		}
		return phase.GetLast()
	}
	if last(true) != nil {
		t.Error("a run before the first call")
	}

	if code := g.add("ada"); code != codes.OK {
		t.Fatalf("in shadow mode the call ends with %v", code)
	}
	for _, r := range target.Wait(3, 10*time.Second) {
		if name := r.JSON()["request"].(map[string]any)["username"]; !strings.HasPrefix(name.(string), "ada") {
			t.Errorf("%s saw the user %v", r.Path, name)
		}
	}
	run := last(false)
	if run.GetOutcome() != "changed" || !run.GetShadow() || len(run.GetDiff()) != 4 {
		t.Fatalf("last run %v", run)
	}
	for _, c := range run.GetDiff() {
		if c.GetBefore() != nil || c.GetAfter() != nil {
			t.Errorf("values were not asked for: %v", c)
		}
	}
	c := last(true).GetDiff()[1]
	if c.GetPath() != "profile.familyName" || c.GetOp() != "replace" || c.GetBefore().GetStringValue() != "Example" || c.GetAfter().GetStringValue() != "Hopper" {
		t.Errorf("diff %v", c)
	}

	target.AnswerPath("/guard", testkit.Answer{Body: veto})
	if code := g.add("bob"); code != codes.OK {
		t.Errorf("in shadow mode a veto ends the call with %v", code)
	}
	if run := last(true); run.GetOutcome() != "interrupted" || len(run.GetDiff()) != 0 {
		t.Errorf("last run %v", run)
	}
	target.AnswerPath("/guard", testkit.Answer{})
	target.AnswerPath("/rewrite", testkit.Answer{})
	g.add("eve")
	for outcome, want := range map[string]string{"changed": "1", "interrupted": "1", "unchanged": "1"} {
		if got := g.metric(`execgate_shadow_total{execution="` + requestExecution + `",outcome="` + outcome + `"}`); got != want {
			t.Errorf("%s %s, want %s", outcome, got, want)
		}
	}

	// Back to enforcing: the veto holds, and the values of the enforced run are not kept.
	target.AnswerPath("/rewrite", testkit.Answer{Body: `{"username":"grace","profile":{"givenName":"ada","familyName":"Hopper"},"email":{"email":"ada@example.com"}}`})
	if _, err := g.own.ResetExecutionPolicy(t.Context(), &gatewaypb.ResetExecutionPolicyRequest{Id: requestExecution}); err != nil {
		t.Fatal(err)
	}
	if code := g.add("joe"); code != codes.OK {
		t.Errorf("enforced: %v", code)
	}
	enforced := g.explain(&gatewaypb.ExplainRequest{Method: addHumanUser, Last: true, WithValues: true}).GetPhases()[0].GetLast()
	if enforced.GetShadow() || enforced.GetOutcome() != "changed" || len(enforced.GetDiff()) == 0 || enforced.GetDiff()[0].GetAfter() != nil {
		t.Errorf("last run %v", enforced)
	}
	target.AnswerPath("/guard", testkit.Answer{Body: veto})
	if code := g.add("kim"); code != codes.PermissionDenied {
		t.Errorf("enforced, the veto ends the call with %v", code)
	}
}

func TestDisabledIsAsIfItWereNotThere(t *testing.T) {
	t.Parallel()
	_, addr := upstream(t, "127.0.0.1:0")
	g := start(t, configuration(t, addr)).learned()
	target := testkit.NewTarget(t, testkit.TargetOptions{})
	target.AnswerPath("/guard", testkit.Answer{Body: veto})
	guard := g.createTarget(interrupting(webhook("guard", target.URL+"/guard")))
	wide := g.createTarget(webhook("wide", target.URL+"/wide"))
	g.onRequest(addHumanUser, guard)
	g.put(onService("zitadel.user.v2.UserService"), []string{wide})
	seen := func() (paths string) {
		for _, r := range target.Requests() {
			paths += r.Path
		}
		target.Forget()
		return paths
	}
	want := func(when string, code codes.Code, paths string) {
		t.Helper()
		if got := g.add("ada"); got != code {
			t.Errorf("%s the call ends with %v, want %v", when, got, code)
		}
		if got := seen(); got != paths {
			t.Errorf("%s called %q, want %q", when, got, paths)
		}
	}
	want("at first", codes.PermissionDenied, "/guard")
	g.policyOfExecution(requestExecution, &gatewaypb.ExecutionPolicy{Enabled: new(false)})
	want("with the execution disabled", codes.OK, "/wide")
	g.policyOfExecution(requestExecution, &gatewaypb.ExecutionPolicy{Enabled: new(true)})
	g.policyOfTarget("guard", &gatewaypb.TargetPolicy{Enabled: new(false)})
	want("with the target disabled", codes.OK, "/wide")
	g.onRequest(addHumanUser, guard, wide)
	want("with one of two targets disabled", codes.OK, "/wide")
	g.policyOfTarget(guard, &gatewaypb.TargetPolicy{Enabled: new(true)})
	want("at last", codes.PermissionDenied, "/guard")
}

func TestTargetPoliciesAreInForce(t *testing.T) {
	t.Parallel()
	_, addr := upstream(t, "127.0.0.1:0")
	c := configuration(t, addr)
	c.TargetClient.MaxConcurrency = 1
	c.TargetClient.Breaker.OpenFor = time.Hour
	g := start(t, c).learned()
	target := testkit.NewTarget(t, testkit.TargetOptions{})
	id := g.createTarget(interrupting(webhook("guard", target.URL)))
	g.onRequest(addHumanUser, id)

	g.policyOfTarget(id, &gatewaypb.TargetPolicy{Headers: &gatewaypb.HeaderMap{Values: map[string]string{"x-api-key": "s3cret"}}})
	if code := g.add("ada"); code != codes.OK {
		t.Fatal(code)
	}
	if got := target.Wait(1, 10*time.Second)[0].Header.Get("X-Api-Key"); got != "s3cret" {
		t.Errorf("the header is %q", got)
	}

	g.policyOfTarget(id, &gatewaypb.TargetPolicy{AllowedHosts: &gatewaypb.HostList{Hosts: []string{"hooks.example.com"}}})
	if code := g.add("bob"); code != codes.FailedPrecondition {
		t.Errorf("a host that is not allowed: %v", code)
	}
	if got := g.metric(`execgate_target_calls_total{outcome="denied_address",target="guard"}`); got != "1" {
		t.Errorf("denied %s", got)
	}
	g.policyOfTarget(id, &gatewaypb.TargetPolicy{AllowedHosts: &gatewaypb.HostList{Hosts: []string{"127.0.0.1"}}})
	if code := g.add("eve"); code != codes.OK {
		t.Errorf("an allowed host: %v", code)
	}

	// One call at a time is the default of the file, the policy lifts it.
	target.Forget()
	target.Answer(testkit.Answer{Hang: true})
	together := func() (first, second codes.Code) {
		done := make(chan codes.Code, 2)
		for range 2 {
			go func() { done <- g.add("joe") }()
		}
		select {
		case first = <-done: // refused at once
		case <-waitFor(target, 2):
		}
		target.Wait(1, 10*time.Second)
		target.Release()
		if first == codes.OK {
			first = <-done
		}
		return first, <-done
	}
	if first, second := together(); first != codes.FailedPrecondition || second != codes.OK {
		t.Errorf("with a cap of one: %v, %v", first, second)
	}
	target.Forget()
	g.policyOfTarget(id, &gatewaypb.TargetPolicy{MaxConcurrency: new(uint32(0))})
	if first, second := together(); first != codes.OK || second != codes.OK {
		t.Errorf("without a cap: %v, %v", first, second)
	}

	// The breaker of the policy opens early; explain and the metric say so.
	g.policyOfTarget(id, &gatewaypb.TargetPolicy{Breaker: &gatewaypb.Breaker{ConsecutiveFailures: new(uint32(2))}})
	target.Forget()
	target.Answer(testkit.Answer{Status: 503})
	for range 3 {
		g.add("kim")
	}
	if n := len(target.Requests()); n != 2 {
		t.Errorf("%d calls before the breaker opened, want 2", n)
	}
	if got := g.metric(`execgate_breaker_state{target="guard"}`); got != "2" {
		t.Errorf("breaker state %s", got)
	}
	if x := g.explain(&gatewaypb.ExplainRequest{Method: addHumanUser}).GetPhases()[0].GetTargets()[0]; x.GetBreaker() != "open" {
		t.Errorf("explained as %v", x)
	}
	if res, err := g.own.TestFire(t.Context(), &gatewaypb.TestFireRequest{Id: requestExecution}); err != nil || res.GetCalls()[0].GetOutcome() != "breaker_open" {
		t.Errorf("test-fire: %v %v", res, err)
	}
}

// waitFor is closed when the target has had n requests, or when it is clear that it will not.
func waitFor(target *testkit.Target, n int) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 200 {
			if len(target.Requests()) >= n {
				return
			}
			<-time.After(10 * time.Millisecond)
		}
	}()
	return done
}

func TestProtectedMethodsCannotBeInterrupted(t *testing.T) {
	t.Parallel()
	_, addr := upstream(t, "127.0.0.1:0")
	c := configuration(t, addr)
	c.ProtectedMethods = []string{addHumanUser}
	g := start(t, c).learned()
	target := testkit.NewTarget(t, testkit.TargetOptions{})
	target.Answer(testkit.Answer{Body: veto})
	g.onRequest(addHumanUser, g.createTarget(interrupting(webhook("guard", target.URL))))
	g.put(onService("zitadel.user.v2.UserService"), []string{g.createTarget(interrupting(webhook("wide", target.URL)))})
	if code := g.add("ada"); code != codes.OK {
		t.Errorf("a protected method ends with %v", code)
	}
	if _, err := g.users.ListUsers(t.Context(), &userpb.ListUsersRequest{}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("another method ends with %v", err)
	}
	if got := g.metric("execgate_interrupts_suppressed_total"); got != "1" {
		t.Errorf("suppressed %s", got)
	}
	if notes := strings.Join(g.explain(&gatewaypb.ExplainRequest{Method: addHumanUser}).GetNotes(), ";"); !strings.Contains(notes, "protected") {
		t.Errorf("notes %q", notes)
	}
	res, err := g.own.TestFire(t.Context(), &gatewaypb.TestFireRequest{Id: requestExecution})
	if err != nil || res.GetOutcome() != "unchanged" || res.GetCalls()[0].GetOutcome() != "forwarded" {
		t.Errorf("test-fire: %v %v", res, err)
	}
}

func TestTheSwitchOfTheStoreTurnsEveryGatewayOff(t *testing.T) {
	t.Parallel()
	_, addr := upstream(t, "127.0.0.1:0")
	redis := testkit.StartRedis(t, testkit.RedisOptions{})
	a := start(t, onRedis(configuration(t, addr), redis.URL)).learned()
	b := start(t, onRedis(configuration(t, addr), redis.URL)).learned()
	target := testkit.NewTarget(t, testkit.TargetOptions{})
	target.Answer(testkit.Answer{Body: veto})
	a.onRequest(addHumanUser, a.createTarget(interrupting(webhook("guard", target.URL))))
	until(t, "both refuse", func() bool {
		return a.add("ada") == codes.PermissionDenied && b.add("ada") == codes.PermissionDenied
	})

	a.switchDispatch(false)
	turned := time.Now()
	if code := a.add("ada"); code != codes.OK {
		t.Errorf("the gateway that was told: %v", code)
	}
	until(t, "the other one", func() bool { return b.add("bob") == codes.OK })
	if took := time.Since(turned); took > time.Second {
		t.Errorf("it took %v", took)
	}
	for _, g := range []*gateway{a, b} {
		if got := g.metric("execgate_dispatch_enabled"); got != "0" {
			t.Errorf("the gauge says %s", got)
		}
		x := g.explain(&gatewaypb.ExplainRequest{Method: addHumanUser})
		if notes := strings.Join(x.GetNotes(), ";"); !strings.Contains(notes, "dispatch is switched off") || x.GetPhases()[0].GetExecution() == "" {
			t.Errorf("explained as %v", x)
		}
		if code, r := g.ready(); code != http.StatusOK || !strings.Contains(strings.Join(r.Warnings, ";"), "dispatch is switched off") {
			t.Errorf("/readyz says %d %+v", code, r)
		}
	}
	// A rule can be tried before it is let loose again.
	res, err := b.own.TestFire(t.Context(), &gatewaypb.TestFireRequest{Id: requestExecution})
	if err != nil || res.GetOutcome() != "interrupted" {
		t.Errorf("test-fire: %v %v", res, err)
	}
	b.switchDispatch(true)
	until(t, "both refuse again", func() bool {
		return a.add("eve") == codes.PermissionDenied && b.add("eve") == codes.PermissionDenied
	})
	if got := a.metric("execgate_dispatch_enabled"); got != "1" {
		t.Errorf("the gauge says %s", got)
	}
}

func TestTheKillFileNeedsNeitherStoreNorAdminAPI(t *testing.T) {
	t.Parallel()
	_, addr := upstream(t, "127.0.0.1:0")
	redis := testkit.StartRedis(t, testkit.RedisOptions{})
	c := onRedis(configuration(t, addr), redis.URL)
	g := start(t, c).learned()
	target := testkit.NewTarget(t, testkit.TargetOptions{})
	target.Answer(testkit.Answer{Body: veto})
	g.onRequest(addHumanUser, g.createTarget(interrupting(webhook("guard", target.URL))))
	if code := g.add("ada"); code != codes.PermissionDenied {
		t.Fatal(code)
	}
	redis.Kill()
	if err := os.WriteFile(c.Proxy.KillFile, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	written := time.Now()
	until(t, "nothing fires", func() bool { return g.add("ada") == codes.OK })
	if took := time.Since(written); took > time.Second {
		t.Errorf("it took %v", took)
	}
	if got := g.metric("execgate_dispatch_enabled"); got != "0" {
		t.Errorf("the gauge says %s", got)
	}
	if got := g.metric("execgate_snapshot_generation"); got == "0" {
		t.Error("the configuration is still in use, only switched off")
	}
	res, err := g.own.GetSwitches(t.Context(), &gatewaypb.GetSwitchesRequest{})
	if err != nil || !res.GetSwitches().GetKilledLocally() || !res.GetSwitches().GetDispatch() {
		t.Errorf("switches %v %v", res, err)
	}
	if notes := strings.Join(g.explain(&gatewaypb.ExplainRequest{Method: addHumanUser}).GetNotes(), ";"); !strings.Contains(notes, "kill file") {
		t.Errorf("notes %q", notes)
	}
	if err := os.Remove(c.Proxy.KillFile); err != nil {
		t.Fatal(err)
	}
	until(t, "it fires again", func() bool { return g.add("bob") == codes.PermissionDenied })
	if got := g.metric("execgate_dispatch_enabled"); got != "1" {
		t.Errorf("the gauge says %s", got)
	}
}

func TestTheKillFileLiftsTheHoldOfTraffic(t *testing.T) {
	t.Parallel()
	_, addr := upstream(t, "127.0.0.1:0")
	redis := testkit.StartRedis(t, testkit.RedisOptions{})
	redis.Stop()
	c := onRedis(configuration(t, addr), redis.URL)
	c.Proxy.KillFile = filepath.Join(t.TempDir(), "off")
	g := start(t, c)
	if code := g.add("ada"); code != codes.Unavailable {
		t.Fatalf("without a configuration: %v", code)
	}
	if err := os.WriteFile(c.Proxy.KillFile, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	until(t, "calls pass without a configuration", func() bool { return g.add("ada") == codes.OK })
	if code, r := g.ready(); code != http.StatusOK {
		t.Errorf("/readyz says %d %+v", code, r)
	}
	// One that starts with the file in place never holds anything.
	other := onRedis(configuration(t, addr), redis.URL)
	other.Proxy.KillFile = c.Proxy.KillFile
	again := start(t, other)
	if code := again.add("bob"); code != codes.OK {
		t.Errorf("started with the file: %v", code)
	}
}

func TestTheSwitchLiftsTheHoldOfTraffic(t *testing.T) {
	t.Parallel()
	c := configuration(t, testkit.FreeAddr(t)) // no upstream, so no schema
	c.Upstream.Schema.CachePath = ""
	g := start(t, c)
	g.onRequest(addHumanUser, g.createTarget(interrupting(webhook("guard", "http://127.0.0.1:1"))))
	if code, r := g.ready(); code != http.StatusServiceUnavailable {
		t.Fatalf("/readyz says %d %+v", code, r)
	}
	g.switchDispatch(false)
	if code, r := g.ready(); code != http.StatusOK {
		t.Errorf("with dispatch off /readyz says %d %+v", code, r)
	}
	g.switchDispatch(true)
	if code, r := g.ready(); code != http.StatusServiceUnavailable {
		t.Errorf("with dispatch on again /readyz says %d %+v", code, r)
	}
}

func TestTestFireShowsWhatWouldHappen(t *testing.T) {
	t.Parallel()
	api, addr := upstream(t, "127.0.0.1:0")
	g := start(t, configuration(t, addr)).learned()
	target := testkit.NewTarget(t, testkit.TargetOptions{})
	target.AnswerPath("/rewrite", testkit.Answer{Body: `{"username":"grace"}`})
	rewrite := g.createTarget(callTarget("rewriter", target.URL+"/rewrite"))
	bad := g.createTarget(callTarget("bad", target.URL+"/bad"))
	target.AnswerPath("/bad", testkit.Answer{Body: `{"colour":"blue"}`})
	told := g.createTarget(async(webhook("told", target.URL+"/told")))
	guard := g.createTarget(interrupting(webhook("guard", target.URL+"/guard")))
	off := g.createTarget(webhook("off", target.URL+"/off"))
	g.policyOfTarget(off, &gatewaypb.TargetPolicy{Enabled: new(false)})
	g.onRequest(addHumanUser, rewrite, off, bad, told, guard)
	g.policyOfExecution(requestExecution, &gatewaypb.ExecutionPolicy{Enabled: new(false), Mode: gatewaypb.ExecutionMode_EXECUTION_MODE_SHADOW})

	fire := func(request map[string]any) (*gatewaypb.TestFireResponse, error) {
		t.Helper()
		v, err := structpb.NewValue(request)
		if err != nil {
			t.Fatal(err)
		}
		return g.own.TestFire(t.Context(), &gatewaypb.TestFireRequest{Id: requestExecution, Request: v})
	}
	res, err := fire(map[string]any{"user_name": "x"})
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "user_name") {
		t.Errorf("a field that the message lacks: %v %v", res, err)
	}
	res, err = fire(map[string]any{"username": "ada", "profile": map[string]any{"given_name": "Ada"}})
	if err != nil {
		t.Fatal(err)
	}
	if res.GetOutcome() != "changed" || res.GetMessage().GetStructValue().AsMap()["username"] != "grace" || res.GetError() != "" {
		t.Errorf("result %v", res)
	}
	for i, want := range []struct{ target, outcome, user, answer, err string }{
		{"rewriter", "ok", "ada", `{"username":"grace"}`, ""},
		{"bad", "not_applicable", "grace", `{"colour":"blue"}`, "colour"},
		{"told", "ok", "grace", "", ""},
		{"guard", "ok", "grace", "", ""},
	} {
		c := res.GetCalls()[i]
		request := c.GetRequest().GetStructValue().AsMap()
		user := request["request"].(map[string]any)["username"]
		if c.GetTarget() != want.target || c.GetOutcome() != want.outcome || user != want.user || c.GetResponse() != want.answer ||
			!strings.Contains(c.GetError(), want.err) || c.GetStatus() != 200 || request["fullMethod"] != addHumanUser {
			t.Errorf("call %d: %v, want %v", i, c, want)
		}
	}
	if len(res.GetCalls()) != 4 {
		t.Errorf("%d calls", len(res.GetCalls()))
	}

	target.AnswerPath("/guard", testkit.Answer{Body: veto})
	res, err = fire(nil)
	if err != nil || res.GetOutcome() != "interrupted" || res.GetError() != "PermissionDenied: not today (EXEC-reUaUZCzCp)" || res.GetMessage() != nil {
		t.Errorf("interrupted: %v %v", res, err)
	}
	if c := res.GetCalls()[3]; c.GetOutcome() != "forwarded" || c.GetResponse() != veto {
		t.Errorf("the call that interrupts: %v", c)
	}
	if n := api.Count(addHumanUser); n != 0 {
		t.Errorf("the upstream was called %d times", n)
	}

	// The response phase shows both messages, and its message is the response.
	g.onResponse(addHumanUser, rewrite)
	target.AnswerPath("/rewrite", testkit.Answer{Body: `{"userId":"42"}`})
	response, err := structpb.NewValue(map[string]any{"userId": "1"})
	if err != nil {
		t.Fatal(err)
	}
	res, err = g.own.TestFire(t.Context(), &gatewaypb.TestFireRequest{Id: "response" + addHumanUser, Response: response})
	if err != nil || res.GetMessage().GetStructValue().AsMap()["userId"] != "42" {
		t.Errorf("response phase: %v %v", res, err)
	}

	// On a whole service the method has to be said.
	g.put(onService("zitadel.user.v2.UserService"), []string{guard})
	for method, code := range map[string]codes.Code{
		"": codes.InvalidArgument, "nonsense": codes.InvalidArgument, addHumanUser: codes.OK, addHumanUser[1:]: codes.OK,
		"/zitadel.user.v2.UserService/Nope":             codes.InvalidArgument,
		"/zitadel.session.v2.SessionService/SetSession": codes.InvalidArgument,
	} {
		_, err := g.own.TestFire(t.Context(), &gatewaypb.TestFireRequest{Id: "request/zitadel.user.v2.UserService", Method: method})
		if status.Code(err) != code {
			t.Errorf("method %q: %v, want %v", method, err, code)
		}
	}
	g.policyOfTarget("guard", &gatewaypb.TargetPolicy{Enabled: new(false)})
	_, err = g.own.TestFire(t.Context(), &gatewaypb.TestFireRequest{Id: "request/zitadel.user.v2.UserService", Method: addHumanUser})
	if status.Code(err) != codes.FailedPrecondition {
		t.Errorf("nothing enabled: %v", err)
	}
}

func TestTheAdminPlaneNeverRunsExecutions(t *testing.T) {
	t.Parallel()
	_, addr := upstream(t, "127.0.0.1:0")
	g := start(t, configuration(t, addr)).learned()
	target := testkit.NewTarget(t, testkit.TargetOptions{})
	target.Answer(testkit.Answer{Body: veto})
	g.put(onAll(), []string{g.createTarget(interrupting(webhook("guard", target.URL)))})
	if code := g.add("ada"); code != codes.PermissionDenied {
		t.Fatal(code)
	}
	target.Forget()
	g.explain(&gatewaypb.ExplainRequest{Method: addHumanUser})
	g.policyOfTarget("guard", &gatewaypb.TargetPolicy{Enabled: new(false)})
	if len(target.Requests()) != 0 {
		t.Error("a call of the admin API was matched")
	}
	if code := g.add("ada"); code != codes.OK {
		t.Errorf("after it was disabled: %v", code)
	}
}
