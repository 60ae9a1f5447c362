package app_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	actionpb "github.com/execgate/execgate/gen/zitadel/resources/action/v3alpha"
	"github.com/execgate/execgate/internal/app"
	"github.com/execgate/execgate/internal/config"
	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/targetclient"
)

func onFunction(name string) *actionpb.Condition {
	return &actionpb.Condition{ConditionType: &actionpb.Condition_Function{Function: name}}
}

func onEvent(eventType string) *actionpb.Condition {
	return &actionpb.Condition{ConditionType: &actionpb.Condition_Event{Event: &actionpb.EventExecution{
		Condition: &actionpb.EventExecution_Event{Event: eventType},
	}}}
}

// withHooks makes the configuration listen for hooks.
func withHooks(c *config.Config) *config.Config {
	c.Hooks.Listen = "127.0.0.1:0"
	return c
}

// send makes a request, of JSON if it has a body and no header says otherwise,
// with headers as pairs.
func send(t *testing.T, method, url, body string, headers ...string) (status int, answer string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

// post sends to the hooks listener.
func (g *gateway) post(path, body string, headers ...string) (status int, answer string) {
	g.t.Helper()
	return send(g.t, http.MethodPost, "http://"+g.Addresses().Hooks.String()+path, body, headers...)
}

func signed(key, body string) []string {
	return []string{targetclient.SignatureHeaderName, targetclient.SignatureHeader([]string{key}, time.Now(), []byte(body))}
}

func TestFunctionOverTwoTargets(t *testing.T) {
	t.Parallel()
	onEveryQueue(t, func(t *testing.T, configured func(string) *config.Config) {
		_, addr := upstream(t, "127.0.0.1:0")
		c := withHooks(configured(addr))
		c.Hooks.SigningKeys = []config.Secret{config.NewSecret("old"), config.NewSecret("key")}
		c.Hooks.Functions = []string{"mine"}
		g := start(t, c)
		claims, logs := testkit.NewTarget(t, testkit.TargetOptions{}), testkit.NewTarget(t, testkit.TargetOptions{})
		claims.Answer(testkit.Answer{Body: `{"append_claims":[{"key":"department","value":"sales"}]}`})
		logs.Answer(testkit.Answer{Body: `{"append_log_claims":["seen"],"more":1}`})
		one := g.createTarget(interrupting(callTarget("claims", claims.URL)))
		two := g.createTarget(callTarget("logs", logs.URL))
		// The name that earlier generations used is stored as ZITADEL's.
		g.put(onFunction("Action.Flow.Type.CustomiseToken.Action.TriggerType.PreUserinfoCreation"), []string{one, two})
		g.put(onFunction("mine"), []string{one})

		const input = `{"function":"function/preuserinfo","userinfo":{"sub":"1"}}`
		const merged = `{"append_claims":[{"key":"department","value":"sales"}],"append_log_claims":["seen"]}`
		for _, path := range []string{"/functions/preuserinfo", "/functions/Action.Flow.Type.CustomiseToken.Action.TriggerType.PreUserinfoCreation"} {
			if status, answer := g.post(path, input, signed("key", input)...); status != http.StatusOK || answer != merged {
				t.Errorf("%s: %d %s", path, status, answer)
			}
		}
		if got, want := string(logs.Requests()[0].Body), `{"function":"function/preuserinfo","userinfo":{"sub":"1"},"response":{"append_claims":[{"key":"department","value":"sales"}]}}`; got != want {
			t.Errorf("the second target got %s\nwant %s", got, want)
		}
		if status, answer := g.post("/functions/mine", `{}`, signed("key", `{}`)...); status != http.StatusOK || !strings.Contains(answer, "department") {
			t.Errorf("mine: %d %s", status, answer)
		}
		if status, answer := g.post("/functions/preaccesstoken", `{}`, signed("key", `{}`)...); status != http.StatusOK || answer != `{}` {
			t.Errorf("without an execution: %d %s", status, answer)
		}
		if status, _ := g.post("/functions/other", `{}`, signed("key", `{}`)...); status != http.StatusNotFound {
			t.Errorf("unknown function: %d", status)
		}
		if got := g.metric(`execgate_executions_matched_total{execution="function/preuserinfo",phase="function"}`); got != "2" {
			t.Errorf("matched: %q", got)
		}
		if got := g.metric(`execgate_hook_requests_total{code="200",endpoint="functions"}`); got != "4" {
			t.Errorf("hook requests: %q", got)
		}

		for name, headers := range map[string][]string{
			"no signature":    nil,
			"another key":     signed("other", input),
			"another body":    signed("key", input+" "),
			"too old":         {targetclient.SignatureHeaderName, targetclient.SignatureHeader([]string{"key"}, time.Now().Add(-time.Hour), []byte(input))},
			"an empty bearer": {"Authorization", "Bearer "},
		} {
			if status, _ := g.post("/functions/preuserinfo", input, headers...); status != http.StatusUnauthorized {
				t.Errorf("%s: %d", name, status)
			}
		}

		for _, tc := range []struct{ name, body, want string }{
			{"forwarded", `{"forwardedStatusCode":403,"forwardedErrorMessage":"not today"}`, `{"forwardedStatusCode":403,"forwardedErrorMessage":"not today"}`},
			{"forwarded without a text", `{"forwardedStatusCode":403}`, `{"forwardedStatusCode":403,"forwardedErrorMessage":"Forbidden"}`},
			{"a text alone", `{"forwardedErrorMessage":"not today"}`, `{"forwardedStatusCode":400,"forwardedErrorMessage":"not today"}`},
			{"no JSON", `hello`, `{"forwardedStatusCode":400,"forwardedErrorMessage":"Execution failed"}`},
			{"a bad list", `{"append_claims":1}`, `{"forwardedStatusCode":400,"forwardedErrorMessage":"Execution failed"}`},
		} {
			claims.Answer(testkit.Answer{Body: tc.body})
			if status, answer := g.post("/functions/preuserinfo", input, signed("old", input)...); status != http.StatusOK || answer != tc.want {
				t.Errorf("%s: %d %s", tc.name, status, answer)
			}
		}
		claims.Answer(testkit.Answer{Status: http.StatusInternalServerError})
		if status, answer := g.post("/functions/preuserinfo", input, signed("key", input)...); status != http.StatusOK || answer != `{"forwardedStatusCode":400,"forwardedErrorMessage":"Execution failed"}` {
			t.Errorf("a target that fails: %d %s", status, answer)
		}
	})
}

func TestFunctionTimeout(t *testing.T) {
	t.Parallel()
	onEveryQueue(t, func(t *testing.T, configured func(string) *config.Config) {
		_, addr := upstream(t, "127.0.0.1:0")
		c := withHooks(configured(addr))
		c.Hooks.FunctionTimeout = 200 * time.Millisecond
		c.Hooks.MaxBodyBytes = 1000
		g := start(t, c)
		slow := testkit.NewTarget(t, testkit.TargetOptions{})
		slow.Answer(testkit.Answer{Hang: true})
		g.put(onFunction("presamlresponse"), []string{g.createTarget(interrupting(callTarget("slow", slow.URL)))})
		if status, answer := g.post("/functions/presamlresponse", `{}`); status != http.StatusOK || answer != `{"forwardedStatusCode":400,"forwardedErrorMessage":"Execution failed"}` {
			t.Errorf("%d %s", status, answer)
		}
		if status, _ := g.post("/functions/presamlresponse", `[]`); status != http.StatusBadRequest {
			t.Errorf("no object: %d", status)
		}
		if status, _ := g.post("/functions/presamlresponse", `{"a":"`+strings.Repeat("x", 1000)+`"}`); status != http.StatusRequestEntityTooLarge {
			t.Errorf("too large: %d", status)
		}
	})
}

func TestEventsAreToldInOrderAndOnce(t *testing.T) {
	t.Parallel()
	onEveryQueue(t, func(t *testing.T, configured func(string) *config.Config) {
		_, addr := upstream(t, "127.0.0.1:0")
		c := withHooks(configured(addr))
		c.Hooks.Tokens = []config.HookToken{{Token: config.NewSecret("token")}}
		g := start(t, c)
		target := testkit.NewTarget(t, testkit.TargetOptions{})
		// The first target fails once; the second is told only after the first was.
		failed := false
		target.AnswerWith(func(r testkit.TargetRequest) testkit.Answer {
			if r.Path == "/first" && !failed {
				failed = true
				return testkit.Answer{Status: http.StatusServiceUnavailable, Header: http.Header{"Retry-After": {"0"}}}
			}
			return testkit.Answer{}
		})
		first := g.createTarget(interrupting(webhook("first", target.URL+"/first")))
		second := g.createTarget(callTarget("second", target.URL+"/second"))
		g.put(onEvent("user.human.added"), []string{first, second})
		g.put(&actionpb.Condition{ConditionType: &actionpb.Condition_Event{Event: &actionpb.EventExecution{
			Condition: &actionpb.EventExecution_Group{Group: "org"},
		}}}, []string{second})

		event := `{"aggregateID":"1","aggregateType":"user","resourceOwner":"2","instanceID":"3","version":"v2","sequence":7,` +
			`"event_type":"user.human.added","created_at":"` + time.Now().Format(time.RFC3339Nano) + `","userID":"4","event_payload":{"userName":"<mini>"}}`
		if status, _ := g.post("/events", event); status != http.StatusUnauthorized {
			t.Errorf("without a token: %d", status)
		}
		for range 3 {
			if status, answer := g.post("/events", event, "Authorization", "Bearer token"); status != http.StatusAccepted {
				t.Fatalf("%d %s", status, answer)
			}
		}
		requests := target.Wait(3, 20*time.Second)
		for i, path := range []string{"/first", "/first", "/second"} {
			if requests[i].Path != path {
				t.Errorf("call %d is to %s, not %s", i, requests[i].Path, path)
			}
			want := strings.NewReplacer("<", `\u003c`, ">", `\u003e`).Replace(event)
			if !bytes.Equal(requests[i].Body, []byte(want)) {
				t.Errorf("got  %s\nwant %s", requests[i].Body, want)
			}
		}

		target.Forget()
		status, answer := g.post("/events", `{"event_type":"organisation.added"}`, "Authorization", "Bearer token")
		if status != http.StatusAccepted {
			t.Errorf("what nobody wants: %d %s", status, answer)
		}
		batch := `[{"specversion":"1.0","id":"a","source":"/crm","type":"org.added","subject":"9","time":"2026-01-02T03:04:05Z","aggregatetype":"org","datacontenttype":"application/json","data":{"name":"Acme"}},` +
			`{"specversion":"1.0","id":"b","source":"/crm","type":"org.removed"}]`
		for range 2 {
			if status, answer := g.post("/events", batch, "Authorization", "Bearer token", "Content-Type", "application/cloudevents-batch+json"); status != http.StatusAccepted {
				t.Fatalf("batch: %d %s", status, answer)
			}
		}
		seen := map[string]bool{}
		for _, r := range target.Wait(2, 20*time.Second) {
			seen[string(r.Body)] = true
		}
		if len(target.Requests()) != 2 ||
			!seen[`{"aggregateID":"9","aggregateType":"org","instanceID":"default","event_type":"org.added","created_at":"2026-01-02T03:04:05Z","event_payload":{"name":"Acme"}}`] ||
			!seen[`{"aggregateType":"/crm","instanceID":"default","event_type":"org.removed"}`] {
			t.Errorf("got %v", seen)
		}
		if got := g.metric(`execgate_events_total{outcome="unmatched",source="ingest"}`); got != "1" {
			t.Errorf("unmatched: %q", got)
		}
	})
}

func TestHooksAreOffByDefault(t *testing.T) {
	t.Parallel()
	_, addr := upstream(t, "127.0.0.1:0")
	g := start(t, configuration(t, addr))
	if g.Addresses().Hooks != (app.Addresses{}).Hooks {
		t.Errorf("listens on %v", g.Addresses().Hooks)
	}
}

func TestDerivedEvents(t *testing.T) {
	t.Parallel()
	onEveryQueue(t, func(t *testing.T, configured func(string) *config.Config) {
		_, addr := upstream(t, "127.0.0.1:0")
		c := configured(addr)
		c.Events.Derive = []config.DeriveRule{{
			Method: addHumanUser, EventType: "user.human.added", AggregateType: "user", AggregateID: "response.user_id",
			Payload: map[string]string{"userName": "request.username", "email": "request.email.email", "none": "request.nothing"},
		}}
		g := start(t, c).learned()
		target := testkit.NewTarget(t, testkit.TargetOptions{})
		g.put(onEvent("user.human.added"), []string{g.createTarget(webhook("told", target.URL))})
		res, err := g.users.AddHumanUser(t.Context(), human("mini"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := g.users.AddHumanUser(t.Context(), human("mini")); err == nil {
			t.Fatal("the same user twice")
		}
		event := target.Wait(1, 20*time.Second)[0].JSON()
		payload, _ := event["event_payload"].(map[string]any)
		if event["event_type"] != "user.human.added" || event["aggregateType"] != "user" || event["aggregateID"] != res.GetUserId() ||
			len(payload) != 2 || payload["userName"] != "mini" || payload["email"] != "mini@example.com" {
			t.Errorf("got %v", event)
		}
		if got := g.metric(`execgate_events_total{outcome="queued",source="derive"}`); got != "1" {
			t.Errorf("derived: %q", got)
		}
	})
}
