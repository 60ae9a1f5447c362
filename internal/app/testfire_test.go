package app_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	actionpb "github.com/execgate/execgate/gen/zitadel/resources/action/v3alpha"
	"github.com/execgate/execgate/internal/config"
	"github.com/execgate/execgate/internal/testkit"
)

// fire test-fires an execution with a payload of JSON.
func (g *gateway) fire(execution, payload string) (*gatewaypb.TestFireResponse, error) {
	g.t.Helper()
	v := &structpb.Value{}
	if err := v.UnmarshalJSON([]byte(payload)); err != nil {
		g.t.Fatal(err)
	}
	return g.own.TestFire(g.t.Context(), &gatewaypb.TestFireRequest{Id: execution, Request: v})
}

// sameJSON says whether both are the same JSON.
func sameJSON(t *testing.T, v *structpb.Value, text string) bool {
	t.Helper()
	var want any
	if err := json.Unmarshal([]byte(text), &want); err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(v.AsInterface())
	if err != nil {
		t.Fatal(err)
	}
	wanted, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	return string(got) == string(wanted)
}

func TestTestFireOfAFunctionMergesWhatTargetsAnswer(t *testing.T) {
	t.Parallel()
	_, addr := upstream(t, "127.0.0.1:0")
	c := withHooks(configuration(t, addr))
	c.Hooks.SigningKeys = []config.Secret{config.NewSecret("key")}
	g := start(t, c)
	target := testkit.NewTarget(t, testkit.TargetOptions{})
	target.AnswerPath("/claims", testkit.Answer{Body: `{"append_claims":[{"key":"a","value":1}],"append_log_claims":["one"]}`})
	target.AnswerPath("/bad", testkit.Answer{Body: `{"append_claims":1}`})
	target.AnswerPath("/more", testkit.Answer{Body: `{"append_claims":[{"key":"b","value":2}],"userinfo":{}}`})
	claims := g.createTarget(callTarget("claims", target.URL+"/claims"))
	off := g.createTarget(callTarget("off", target.URL+"/off"))
	bad := g.createTarget(callTarget("bad", target.URL+"/bad"))
	told := g.createTarget(async(webhook("told", target.URL+"/told")))
	more := g.createTarget(interrupting(callTarget("more", target.URL+"/more")))
	g.policyOfTarget(off, &gatewaypb.TargetPolicy{Enabled: new(false)})
	g.put(onFunction("preuserinfo"), []string{claims, off, bad, told, more})

	// That nothing else runs it does not matter, as for methods.
	const execution = "function/preuserinfo"
	g.policyOfExecution(execution, &gatewaypb.ExecutionPolicy{Enabled: new(false), Mode: gatewaypb.ExecutionMode_EXECUTION_MODE_SHADOW})
	res, err := g.fire(execution, `{"function":"function/other","userinfo":{"sub":"1"}}`)
	if err != nil {
		t.Fatal(err)
	}
	if res.GetOutcome() != "changed" || res.GetError() != "" || len(res.GetCalls()) != 4 ||
		!sameJSON(t, res.GetMessage(), `{"append_claims":[{"key":"b","value":2}],"append_log_claims":["one"]}`) {
		t.Fatalf("result %v", res)
	}
	const first = `{"function":"function/preuserinfo","userinfo":{"sub":"1"}}`
	const later = `{"function":"function/preuserinfo","userinfo":{"sub":"1"},"response":{"append_claims":[{"key":"a","value":1}],"append_log_claims":["one"]}}`
	for i, want := range []struct{ target, outcome, request, err string }{
		{"claims", "ok", first, ""}, {"bad", "not_applicable", later, "append_claims"}, {"told", "ok", later, ""}, {"more", "ok", later, ""},
	} {
		c := res.GetCalls()[i]
		if c.GetTarget() != want.target || c.GetOutcome() != want.outcome || c.GetStatus() != 200 ||
			!sameJSON(t, c.GetRequest(), want.request) || !strings.Contains(c.GetError(), want.err) || (want.err == "") != (c.GetError() == "") {
			t.Errorf("call %d: %v, want %v", i, c, want)
		}
	}
	if _, err := g.fire(execution, `[]`); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a list: %v", err)
	}

	// What is shown of an interruption is what the provider gets.
	g.policyOfExecution(execution, &gatewaypb.ExecutionPolicy{Enabled: new(true), Mode: gatewaypb.ExecutionMode_EXECUTION_MODE_ENFORCE})
	for _, answer := range []testkit.Answer{
		{Body: `{"forwardedStatusCode":403,"forwardedErrorMessage":"not <today>"}`}, {Body: `{"forwardedStatusCode":403}`},
		{Body: `{"forwardedStatusCode":499}`}, {Body: `{"forwardedErrorMessage":"not today"}`},
		{Body: `no JSON`}, {Body: `{"append_claims":1}`}, {Status: http.StatusBadRequest},
	} {
		target.AnswerPath("/more", answer)
		_, told := g.post("/functions/preuserinfo", `{}`, signed("key", `{}`)...)
		res, err := g.fire(execution, `{}`)
		if err != nil || res.GetOutcome() != "interrupted" || res.GetMessage() != nil ||
			strings.TrimSpace(told) != res.GetError() || !strings.Contains(told, "forwardedStatusCode") {
			t.Errorf("%+v: the provider is told %s, shown is %v %v", answer, told, res, err)
		}
	}
}

func TestTestFireOfAnEventTellsEachTargetOnce(t *testing.T) {
	t.Parallel()
	_, addr := upstream(t, "127.0.0.1:0")
	c := configuration(t, addr)
	g := start(t, c)
	target := testkit.NewTarget(t, testkit.TargetOptions{})
	target.AnswerPath("/down", testkit.Answer{Status: http.StatusServiceUnavailable})
	target.AnswerPath("/says", testkit.Answer{Body: `{"event_type":"other"}`})
	down := g.createTarget(webhook("down", target.URL+"/down"))
	off := g.createTarget(webhook("off", target.URL+"/off"))
	says := g.createTarget(interrupting(callTarget("says", target.URL+"/says")))
	told := g.createTarget(async(webhook("told", target.URL+"/told")))
	g.policyOfTarget(off, &gatewaypb.TargetPolicy{Enabled: new(false)})
	g.put(&actionpb.Condition{ConditionType: &actionpb.Condition_Event{Event: &actionpb.EventExecution{
		Condition: &actionpb.EventExecution_Group{Group: "user.human"},
	}}}, []string{down, off, says, told})
	g.put(onEvent("org.added"), []string{told})

	const execution = "event/user.human.*"
	const event = `{"aggregateID":"1","aggregateType":"user","resourceOwner":"2","instanceID":"3","version":"v2","sequence":7,` +
		`"event_type":"user.human.added","created_at":"2026-01-02T03:04:05.678901Z","userID":"4","event_payload":{"gender":1}}`
	g.policyOfExecution(execution, &gatewaypb.ExecutionPolicy{Enabled: new(false), Mode: gatewaypb.ExecutionMode_EXECUTION_MODE_SHADOW})
	outcomes := func(res *gatewaypb.TestFireResponse) string {
		var got []string
		for _, c := range res.GetCalls() {
			got = append(got, c.GetTarget()+" "+c.GetOutcome())
			if !sameJSON(t, c.GetRequest(), event) {
				t.Errorf("%s got %v", c.GetTarget(), c.GetRequest())
			}
		}
		return strings.Join(got, ", ")
	}
	res, err := g.fire(execution, event)
	if err != nil || outcomes(res) != "down failed, says ok, told ok" || res.GetOutcome() != "unchanged" || res.GetMessage() != nil || res.GetError() != "" {
		t.Errorf("%v %v", res, err)
	}
	if c := res.GetCalls(); len(c) == 3 && (c[0].GetStatus() != 503 || c[0].GetError() == "" || c[1].GetResponse() != `{"event_type":"other"}`) {
		t.Errorf("calls %v", c)
	}
	if n := len(target.Requests()); n != 3 {
		t.Errorf("%d requests", n)
	}

	for _, answer := range []testkit.Answer{{Status: http.StatusInternalServerError}, {Body: veto}} {
		target.Forget()
		target.AnswerPath("/says", answer)
		res, err = g.fire(execution, event)
		if err != nil || !strings.HasPrefix(outcomes(res), "down failed, says f") || len(res.GetCalls()) != 2 || res.GetOutcome() != "interrupted" {
			t.Errorf("%v %v", res, err)
		}
		if n := len(target.Requests()); n != 2 {
			t.Errorf("%d requests", n)
		}
	}
	if pending := g.metric("execgate_async_pending"); pending != "0" {
		t.Errorf("queued: %s", pending)
	}

	target.Forget()
	for _, payload := range []string{`{}`, `[]`, `{"event_type":"org.added"}`, `{"event_type":"user.humanoid"}`, `{"event_type":"user.human.added","sequence":"7"}`} {
		if _, err := g.fire(execution, payload); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", payload, err)
		}
	}
	if n := len(target.Requests()); n != 0 {
		t.Errorf("%d requests", n)
	}
	if res, err := g.fire("event/org.added", `{"event_type":"org.added"}`); err != nil || len(res.GetCalls()) != 1 ||
		res.GetCalls()[0].GetRequest().GetStructValue().AsMap()["instanceID"] != c.InstanceID {
		t.Errorf("%v %v", res, err)
	}
}
