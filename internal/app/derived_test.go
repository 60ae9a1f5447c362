package app_test

import (
	"encoding/json"
	"net/http"
	"reflect"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	userpb "github.com/execgate/execgate/gen/zitadel/user/v2"
	"github.com/execgate/execgate/internal/config"
	"github.com/execgate/execgate/internal/testkit"
)

// web sends a request to the proxy, as clients without gRPC do.
func (g *gateway) web(method, path, body string, headers ...string) (int, map[string]any) {
	g.t.Helper()
	code, text := send(g.t, method, "http://"+g.Addresses().Proxy.String()+path, body, headers...)
	object := map[string]any{}
	_ = json.Unmarshal([]byte(text), &object)
	return code, object
}

func TestEventsAreDerivedWhateverTheProtocol(t *testing.T) {
	t.Parallel()
	_, addr := upstream(t, "127.0.0.1:0")
	c := configuration(t, addr)
	const users = "/zitadel.user.v2.UserService/"
	c.Events.Derive = []config.DeriveRule{
		{Method: users + "AddHumanUser", EventType: "user.human.added", AggregateType: "user", AggregateID: "response.userId", Payload: map[string]string{
			"userName": "request.username", "profile": "request.profile", "resourceOwner": "response.details.resource_owner", "at": "response.details.changeDate",
		}},
		{Method: users + "AddHumanUser", EventType: "user.welcomed", AggregateType: "request.profile.given_name", AggregateID: "request.email.email"},
		{Method: users + "LockUser", EventType: "user.locked", AggregateType: "user", AggregateID: "request.user_id"},
		{Method: users + "DeleteUser", EventType: "user.removed", AggregateType: "user", AggregateID: "request.userId"},
		{Method: users + "ListUsers", EventType: "users.listed", AggregateType: "users", AggregateID: "response.result.0.userId",
			Payload: map[string]string{"total": "response.details.total_result", "first": "response.result.0.username", "hundredth": "response.result.99.username"}},
	}
	g := start(t, c).learned()
	target := testkit.NewTarget(t, testkit.TargetOptions{})
	id := g.createTarget(webhook("told", target.URL))
	for _, event := range []string{"user.human.added", "user.welcomed", "user.locked", "user.removed", "users.listed"} {
		g.put(onEvent(event), []string{id})
	}
	// told waits for one event of the type, and nothing else.
	told := func(eventType string) map[string]any {
		t.Helper()
		for _, r := range target.Wait(1, 20*time.Second) {
			if r.JSON()["event_type"] != eventType {
				t.Errorf("told of %s", r.Body)
			}
		}
		event := target.Requests()[0].JSON()
		target.Forget()
		return event
	}

	code, res := g.web(http.MethodPost, "/v2/users/human", `{"username":"rest","profile":{"givenName":"Re","familyName":"St"},"email":{"email":"rest@example.com"}}`)
	if code != http.StatusCreated && code != http.StatusOK {
		t.Fatal(code, res)
	}
	userID, _ := res["userId"].(string)
	byType := map[string]map[string]any{}
	for _, r := range target.Wait(2, 20*time.Second) {
		eventType, _ := r.JSON()["event_type"].(string)
		byType[eventType] = r.JSON()
	}
	target.Forget()
	details, _ := res["details"].(map[string]any)
	want := map[string]any{"userName": "rest", "profile": map[string]any{"givenName": "Re", "familyName": "St"},
		"resourceOwner": details["resourceOwner"], "at": details["changeDate"]}
	if e := byType["user.human.added"]; e["aggregateID"] != userID || !reflect.DeepEqual(e["event_payload"], want) {
		t.Errorf("got %v, want %v", e, want)
	}
	if e := byType["user.welcomed"]; e["aggregateID"] != "rest@example.com" || e["aggregateType"] != "Re" || e["event_payload"] != nil {
		t.Errorf("got %v", e)
	}

	// What REST has in the path, and Connect.
	if code, res := g.web(http.MethodPost, "/v2/users/"+userID+"/lock", `{}`); code != http.StatusOK {
		t.Fatal(code, res)
	}
	if e := told("user.locked"); e["aggregateID"] != userID {
		t.Errorf("got %v", e)
	}
	if code, res := g.web(http.MethodPost, users+"ListUsers", `{}`, "Connect-Protocol-Version", "1"); code != http.StatusOK {
		t.Fatal(code, res)
	}
	if e := told("users.listed"); e["aggregateID"] != userID || !reflect.DeepEqual(e["event_payload"], map[string]any{"total": "1", "first": "rest"}) {
		t.Errorf("got %v", e)
	}

	// What fails makes none.
	if code, _ := g.web(http.MethodDelete, "/v2/users/nobody", ""); code != http.StatusNotFound {
		t.Errorf("delete nobody: %d", code)
	}
	if code, _ := g.web(http.MethodPost, users+"LockUser", `{"userId":"nobody"}`, "Connect-Protocol-Version", "1"); code != http.StatusNotFound {
		t.Errorf("lock nobody: %d", code)
	}
	if _, err := g.users.LockUser(t.Context(), &userpb.LockUserRequest{UserId: "nobody"}); status.Code(err) != codes.NotFound {
		t.Errorf("lock nobody: %v", err)
	}
	if code, res := g.web(http.MethodDelete, "/v2/users/"+userID, ""); code != http.StatusOK {
		t.Fatal(code, res)
	}
	if e := told("user.removed"); e["aggregateID"] != userID {
		t.Errorf("got %v", e)
	}
}

func TestADerivedEventIsOfTheCallAsItWasMade(t *testing.T) {
	t.Parallel()
	_, addr := upstream(t, "127.0.0.1:0")
	c := configuration(t, addr)
	c.Events.Derive = []config.DeriveRule{{
		Method: addHumanUser, EventType: "user.human.added", AggregateType: "user", AggregateID: "response.userId",
		Payload: map[string]string{"userName": "request.username"},
	}}
	g := start(t, c).learned()
	slow, rewrites, refuses := testkit.NewTarget(t, testkit.TargetOptions{}), testkit.NewTarget(t, testkit.TargetOptions{}), testkit.NewTarget(t, testkit.TargetOptions{})
	slow.Answer(testkit.Answer{Hang: true})
	rewrites.Answer(testkit.Answer{Body: `{"username":"renamed","profile":{"givenName":"A","familyName":"B"},"email":{"email":"a@example.com"}}`})
	refuses.Answer(testkit.Answer{Body: `{"forwardedStatusCode":403,"forwardedErrorMessage":"no"}`})
	g.put(onEvent("user.human.added"), []string{g.createTarget(webhook("slow", slow.URL))})
	g.onRequest(addHumanUser, g.createTarget(callTarget("rewrites", rewrites.URL)))
	g.onResponse(addHumanUser, g.createTarget(interrupting(webhook("refuses", refuses.URL))))

	// The upstream has added the user, so it is told of, though the caller gets an error; and
	// the caller does not wait for who is told.
	began := time.Now()
	if code := g.add("ada"); code != codes.PermissionDenied {
		t.Fatal(code)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the call took %v", took)
	}
	event := slow.Wait(1, 20*time.Second)[0].JSON()
	if payload, _ := event["event_payload"].(map[string]any); payload["userName"] != "renamed" || event["aggregateID"] == nil {
		t.Errorf("got %v", event)
	}

	// A request that a target refuses never happened.
	slow.Release()
	slow.Forget()
	g.onRequest(addHumanUser, g.createTarget(interrupting(webhook("refuses too", refuses.URL))))
	if code := g.add("bob"); code != codes.PermissionDenied {
		t.Fatal(code)
	}
	if got := g.metric(`execgate_events_total{outcome="queued",source="derive"}`); got != "1" {
		t.Errorf("derived: %q", got)
	}
}
