package app_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	actionpb "github.com/execgate/execgate/gen/zitadel/resources/action/v3alpha"
	"github.com/execgate/execgate/internal/testkit"
)

const failedFunction = `{"forwardedStatusCode":400,"forwardedErrorMessage":"Execution failed"}`

func timed(t *actionpb.Target, timeout time.Duration) *actionpb.Target {
	t.Timeout = durationpb.New(timeout)
	return t
}

// run calls a function and returns the answer, which must be a 200.
func (g *gateway) run(function, body string) string {
	g.t.Helper()
	code, answer := g.post("/functions/"+function, body)
	if code != http.StatusOK {
		g.t.Errorf("%s: %d %s", function, code, answer)
	}
	return answer
}

func TestWhichFunctionsThereAre(t *testing.T) {
	t.Parallel()
	_, addr := upstream(t, "127.0.0.1:0")
	c := withHooks(configuration(t, addr))
	c.Hooks.Functions = []string{"acme.onboard"}
	g := start(t, c)
	id := g.createTarget(webhook("told", "http://127.0.0.1:1/"))
	list, err := g.admin.ListAvailableExecutionFunctions(t.Context(), &actionpb.ListAvailableExecutionFunctionsRequest{})
	if err != nil || !strings.Contains(strings.Join(list.GetFunctions(), " "), "acme.onboard") || len(list.GetFunctions()) != 4 {
		t.Errorf("%v, %v", list.GetFunctions(), err)
	}
	const flow = "Action.Flow.Type."
	for name, want := range map[string]struct {
		put  codes.Code
		call int
	}{
		"preuserinfo":     {codes.OK, 200},
		"preaccesstoken":  {codes.OK, 200},
		"presamlresponse": {codes.OK, 200},
		"acme.onboard":    {codes.OK, 200},
		flow + "CustomizeSAMLResponse.Action.TriggerType.PreSAMLResponseCreation": {codes.OK, 200},
		flow + "ExternalAuthentication.Action.TriggerType.PreCreation":            {codes.NotFound, 404},
		flow + "InternalAuthentication.Action.TriggerType.PostAuthentication":     {codes.NotFound, 404},
		"acme":        {codes.NotFound, 404},
		"PreUserinfo": {codes.NotFound, 404},
	} {
		_, err := g.admin.PutExecution(t.Context(), &actionpb.PutExecutionRequest{Execution: &actionpb.Execution{Condition: onFunction(name), Targets: []string{id}}})
		if status.Code(err) != want.put {
			t.Errorf("put %s: %v", name, err)
		}
		if code, answer := g.post("/functions/"+name, `{}`); code != want.call {
			t.Errorf("call %s: %d %s", name, code, answer)
		}
	}
}

func TestKindsOfTargetsInAFunction(t *testing.T) {
	t.Parallel()
	_, addr := upstream(t, "127.0.0.1:0")
	g := start(t, withHooks(configuration(t, addr)))
	target := testkit.NewTarget(t, testkit.TargetOptions{})
	target.AnswerPath("/webhook", testkit.Answer{Body: `{"append_log_claims":["not applied"]}`})
	target.AnswerPath("/async", testkit.Answer{Body: `{"append_log_claims":["nor this"]}`})
	target.AnswerPath("/fails", testkit.Answer{Status: 500, Body: `{"append_log_claims":["nor this"]}`})
	target.AnswerPath("/empty", testkit.Answer{})
	target.AnswerPath("/call", testkit.Answer{Status: 201, Body: `{"append_log_claims":["applied"],"append_attribute":[]}`})
	g.put(onFunction("preaccesstoken"), []string{
		g.createTarget(interrupting(webhook("webhook", target.URL+"/webhook"))),
		g.createTarget(async(callTarget("async", target.URL+"/async"))),
		g.createTarget(callTarget("fails", target.URL+"/fails")),
		g.createTarget(interrupting(callTarget("call", target.URL+"/call"))),
		g.createTarget(interrupting(callTarget("empty", target.URL+"/empty"))),
	})
	if got, want := g.run("preaccesstoken", `{"userinfo":{"sub":"1"}}`), `{"append_log_claims":["applied"]}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	var order []string
	for _, r := range target.Wait(5, 20*time.Second) { // the asynchronous one is told when it is told
		if r.Path != "/async" {
			order = append(order, r.Path)
		}
		if r.JSON()["function"] != "function/preaccesstoken" {
			t.Errorf("%s got %s", r.Path, r.Body)
		}
	}
	if got := strings.Join(order, " "); got != "/webhook /fails /call /empty" {
		t.Errorf("called %s", got)
	}

	// A webhook may forbid, too, and what a target asks to forward that is no 4xx becomes one.
	target.AnswerPath("/webhook", testkit.Answer{Body: `{"forwardedStatusCode":409,"forwardedErrorMessage":"twice"}`})
	if got := g.run("preaccesstoken", `{}`); got != `{"forwardedStatusCode":409,"forwardedErrorMessage":"twice"}` {
		t.Error(got)
	}
	target.AnswerPath("/webhook", testkit.Answer{Body: `{"forwardedStatusCode":503,"forwardedErrorMessage":"later"}`})
	if got := g.run("preaccesstoken", `{}`); got != `{"forwardedStatusCode":400,"forwardedErrorMessage":"later"}` {
		t.Error(got)
	}
	target.AnswerPath("/webhook", testkit.Answer{Body: `{"forwardedStatusCode":503}`})
	if got := g.run("preaccesstoken", `{}`); got != failedFunction {
		t.Error(got)
	}
}

func TestDeadlinesOfAFunction(t *testing.T) {
	t.Parallel()
	_, addr := upstream(t, "127.0.0.1:0")
	c := withHooks(configuration(t, addr))
	c.Hooks.FunctionTimeout = time.Second
	g := start(t, c)
	target := testkit.NewTarget(t, testkit.TargetOptions{})
	target.AnswerPath("/hangs", testkit.Answer{Hang: true})
	target.AnswerPath("/says", testkit.Answer{Body: `{"append_log_claims":["said"]}`})
	impatient := g.createTarget(timed(callTarget("impatient", target.URL+"/hangs"), 100*time.Millisecond))
	patient := g.createTarget(timed(callTarget("patient", target.URL+"/hangs"), time.Minute))
	says := g.createTarget(callTarget("says", target.URL+"/says"))
	insists := g.createTarget(interrupting(callTarget("insists", target.URL+"/says")))

	// The target's own deadline passes: the others go on.
	g.put(onFunction("preuserinfo"), []string{impatient, says})
	if got := g.run("preuserinfo", `{}`); got != `{"append_log_claims":["said"]}` {
		t.Error(got)
	}
	// That of the function passes: who follows fails without a call, each by its own flag.
	target.Forget()
	late := g.createTarget(callTarget("late", target.URL+"/says"))
	g.put(onFunction("preuserinfo"), []string{says, patient, late})
	if got := g.run("preuserinfo", `{}`); got != `{"append_log_claims":["said"]}` {
		t.Error(got)
	}
	g.put(onFunction("preuserinfo"), []string{patient, insists})
	if got := g.run("preuserinfo", `{}`); got != failedFunction {
		t.Error(got)
	}
	if n := len(target.Requests()); n != 3 {
		t.Errorf("%d calls", n)
	}

	// The provider does not wait any longer: the target is not either.
	g.put(onFunction("preuserinfo"), []string{patient})
	target.Forget()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		target.Wait(1, 20*time.Second)
		cancel()
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+g.Addresses().Hooks.String()+"/functions/preuserinfo", strings.NewReader(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	if res, err := http.DefaultClient.Do(req); err == nil {
		res.Body.Close()
		t.Errorf("answered with %d", res.StatusCode)
	}
	target.WaitLeft(1, 5*time.Second)
}

func TestBreakerAndSwitchesInAFunction(t *testing.T) {
	t.Parallel()
	_, addr := upstream(t, "127.0.0.1:0")
	c := withHooks(configuration(t, addr))
	c.TargetClient.Breaker.ConsecutiveFailures, c.TargetClient.Breaker.OpenFor = 2, time.Hour
	g := start(t, c)
	broken, says := testkit.NewTarget(t, testkit.TargetOptions{}), testkit.NewTarget(t, testkit.TargetOptions{})
	broken.Answer(testkit.Answer{Status: 500})
	says.Answer(testkit.Answer{Body: `{"append_log_claims":["said"]}`})
	tolerated, insists := g.createTarget(callTarget("tolerated", broken.URL)), g.createTarget(interrupting(callTarget("insists", broken.URL)))
	other := g.createTarget(callTarget("says", says.URL))
	g.put(onFunction("preuserinfo"), []string{tolerated, other})
	g.put(onFunction("preaccesstoken"), []string{insists, other})
	for range 4 {
		if got := g.run("preuserinfo", `{}`); got != `{"append_log_claims":["said"]}` {
			t.Error(got)
		}
		if got := g.run("preaccesstoken", `{}`); got != failedFunction {
			t.Error(got)
		}
	}
	if n := len(broken.Requests()); n != 4 { // two for each breaker
		t.Errorf("%d calls of what is broken", n)
	}
	if got := g.metric(`execgate_target_calls_total{outcome="breaker_open",target="insists"}`); got != "2" {
		t.Errorf("breaker_open: %q", got)
	}

	// A disabled target is passed over; so is everything while dispatch is off.
	g.policyOfTarget(insists, &gatewaypb.TargetPolicy{Enabled: new(false)})
	if got := g.run("preaccesstoken", `{}`); got != `{"append_log_claims":["said"]}` {
		t.Error(got)
	}
	g.command("disable")
	if got := g.run("preaccesstoken", `{}`); got != `{}` {
		t.Error(got)
	}
}

func TestShadowedFunctionsAndEvents(t *testing.T) {
	t.Parallel()
	_, addr := upstream(t, "127.0.0.1:0")
	g := start(t, withHooks(configuration(t, addr)))
	target := testkit.NewTarget(t, testkit.TargetOptions{})
	target.Answer(testkit.Answer{Body: `{"forwardedStatusCode":403}`})
	target.AnswerPath("/says", testkit.Answer{Body: `{"append_log_claims":["said"]}`})
	refuses, says := g.createTarget(interrupting(callTarget("refuses", target.URL))), g.createTarget(callTarget("says", target.URL+"/says"))
	g.put(onFunction("preuserinfo"), []string{refuses, says})
	g.put(onEvent("crm.changed"), []string{refuses, says})
	g.policyOfExecution("function/preuserinfo", shadow())
	g.policyOfExecution("event/crm.changed", shadow())
	if got := g.run("preuserinfo", `{}`); got != `{}` {
		t.Errorf("answered %s", got)
	}
	if got := g.metric(`execgate_shadow_total{execution="function/preuserinfo",outcome="interrupted"}`); got != "1" {
		t.Errorf("shadow: %q", got)
	}
	target.Wait(2, 20*time.Second)
	target.Forget()
	g.sendEvents(cloudEvents("a"))
	target.Wait(2, 20*time.Second) // the first keeps nobody from being told
}
