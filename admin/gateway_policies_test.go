package admin_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/execgate/execgate/admin"
	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	actionv3 "github.com/execgate/execgate/gen/zitadel/resources/action/v3alpha"
	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/policy"
	"github.com/execgate/execgate/store"
)

const (
	addHumanUser  = "/zitadel.user.v2.UserService/AddHumanUser"
	listSessions  = "/zitadel.session.v2.SessionService/ListSessions"
	addHumanUserE = "request" + addHumanUser
)

var gatewayProtocols = []protocol{overGRPC, overREST, overGRPCWeb, overConnectJSON}

var policyDefaults = policy.TargetDefaults{MaxConcurrency: 7, Breaker: policy.BreakerSettings{
	ConsecutiveFailures: 10, Window: 30 * time.Second, MinCalls: 20, FailureRatio: .5, OpenFor: 10 * time.Second, HalfOpenCalls: 3,
}, Retry: policy.RetrySettings{MaxAttempts: 25, FirstDelay: 5 * time.Second, MaxDelay: 2 * time.Hour, MaxAge: 72 * time.Hour}}

func withDefaults(o *admin.Options) { o.Gateway.Defaults = policyDefaults }

// wantMessage compares two messages, the second one may leave out details' time.
func wantMessage(t *testing.T, got, want proto.Message) {
	t.Helper()
	if !proto.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func effectiveDefaults() *gatewaypb.TargetPolicy {
	return &gatewaypb.TargetPolicy{
		Enabled: new(true), MaxConcurrency: new(uint32(7)),
		Breaker: &gatewaypb.Breaker{
			ConsecutiveFailures: new(uint32(10)), Window: durationpb.New(30 * time.Second), MinCalls: new(uint32(20)),
			FailureRatio: new(.5), OpenFor: durationpb.New(10 * time.Second), HalfOpenCalls: new(uint32(3)),
		},
		Retry: &gatewaypb.Retry{
			MaxAttempts: new(uint32(25)), FirstDelay: durationpb.New(5 * time.Second), MaxDelay: durationpb.New(2 * time.Hour),
			MaxAge: durationpb.New(72 * time.Hour),
		},
		Signatures: []string{"zitadel"}, OrderBy: new("none"), OnFull: new("drop"),
	}
}

func TestTargetPolicyIsSetPartiallyAndReset(t *testing.T) {
	t.Parallel()
	each(t, gatewayProtocols, func(t *testing.T, p protocol) {
		f := start(t, withDefaults)
		id := f.target("Guard One")
		get := func() *gatewaypb.GetTargetPolicyResponse {
			t.Helper()
			res, out := f.call(p, &gatewaypb.GetTargetPolicyRequest{Id: "guard one"}) // by name, whatever the case
			if out.code != codes.OK {
				t.Fatalf("%+v", out)
			}
			return res.(*gatewaypb.GetTargetPolicyResponse)
		}
		update := func(change *gatewaypb.TargetPolicy) *gatewaypb.UpdateTargetPolicyResponse {
			t.Helper()
			res, out := f.call(p, &gatewaypb.UpdateTargetPolicyRequest{Id: id, Policy: change})
			if out.code != codes.OK {
				t.Fatalf("%+v", out)
			}
			return res.(*gatewaypb.UpdateTargetPolicyResponse)
		}

		first := get()
		wantMessage(t, first.GetPolicy(), &gatewaypb.TargetPolicy{})
		wantMessage(t, first.GetEffective(), effectiveDefaults())
		wantMessage(t, first.GetDetails(), &gatewaypb.PolicyDetails{})

		base := f.replica.State().Revision()
		res := update(&gatewaypb.TargetPolicy{
			Enabled: new(false), Breaker: &gatewaypb.Breaker{OpenFor: durationpb.New(time.Second)},
			AllowedHosts: &gatewaypb.HostList{Hosts: []string{"hooks.example.com"}},
			Headers:      &gatewaypb.HeaderMap{Values: map[string]string{"x-api-key": "s3cret"}},
		})
		if d := res.GetDetails(); d.GetRevision() != base+1 || d.GetChangeDate() == nil {
			t.Errorf("details %v", d)
		}
		want := &gatewaypb.TargetPolicy{
			Enabled: new(false), Breaker: &gatewaypb.Breaker{OpenFor: durationpb.New(time.Second)},
			AllowedHosts: &gatewaypb.HostList{Hosts: []string{"hooks.example.com"}},
			Headers:      &gatewaypb.HeaderMap{Values: map[string]string{"X-Api-Key": "***"}},
		}
		wantMessage(t, res.GetPolicy(), want)
		wantMessage(t, get().GetDetails(), res.GetDetails())

		// Only what is given changes, in the breaker too; what was read can be written back.
		res = update(&gatewaypb.TargetPolicy{
			MaxConcurrency: new(uint32(0)), Breaker: &gatewaypb.Breaker{MinCalls: new(uint32(2))}, Headers: want.GetHeaders(),
		})
		want.MaxConcurrency, want.Breaker.MinCalls = new(uint32(0)), new(uint32(2))
		wantMessage(t, res.GetPolicy(), want)
		effective := effectiveDefaults()
		effective.Enabled, effective.MaxConcurrency = new(false), new(uint32(0))
		effective.Breaker.OpenFor, effective.Breaker.MinCalls = durationpb.New(time.Second), new(uint32(2))
		effective.AllowedHosts, effective.Headers = want.GetAllowedHosts(), want.GetHeaders()
		wantMessage(t, get().GetEffective(), effective)
		value, _ := f.replica.State().Item(store.KindTargetPolicy, id)
		if !strings.Contains(string(value), "s3cret") {
			t.Errorf("the header is gone: %s", value)
		}

		// Nothing new is no revision.
		at := f.replica.State().Revision()
		again := update(&gatewaypb.TargetPolicy{Enabled: new(false)})
		wantMessage(t, again.GetDetails(), res.GetDetails())
		update(&gatewaypb.TargetPolicy{})
		if now := f.replica.State().Revision(); now != at {
			t.Errorf("revision %d, want %d", now, at)
		}

		reset := func(fields ...string) *gatewaypb.TargetPolicy {
			t.Helper()
			res, out := f.call(p, &gatewaypb.ResetTargetPolicyRequest{Id: id, Fields: fields})
			if out.code != codes.OK {
				t.Fatalf("%+v", out)
			}
			return res.(*gatewaypb.ResetTargetPolicyResponse).GetPolicy()
		}
		want.Enabled, want.Breaker.OpenFor, want.MaxConcurrency = nil, nil, nil
		wantMessage(t, reset("enabled", "breaker.openFor", "max_concurrency"), want)
		wantMessage(t, reset(), &gatewaypb.TargetPolicy{})
		if _, ok := f.replica.State().Item(store.KindTargetPolicy, id); ok {
			t.Error("an empty policy is stored")
		}
		at = f.replica.State().Revision()
		reset()
		if now := f.replica.State().Revision(); now != at {
			t.Errorf("a reset of nothing made revision %d", now)
		}
	})
}

func TestTargetPolicyRefusals(t *testing.T) {
	t.Parallel()
	each(t, gatewayProtocols, func(t *testing.T, p protocol) {
		f := start(t)
		id := f.target("guard")
		headers := func(name, value string) *gatewaypb.TargetPolicy {
			return &gatewaypb.TargetPolicy{Headers: &gatewaypb.HeaderMap{Values: map[string]string{name: value}}}
		}
		for _, c := range []struct {
			req  proto.Message
			code codes.Code
			text string
		}{
			{&gatewaypb.GetTargetPolicyRequest{Id: "nope"}, codes.NotFound, "no target"},
			{&gatewaypb.UpdateTargetPolicyRequest{Id: "nope", Policy: headers("X-A", "1")}, codes.NotFound, "no target"},
			{&gatewaypb.ResetTargetPolicyRequest{Id: "nope"}, codes.NotFound, "no target"},
			{&gatewaypb.GetTargetPolicyRequest{Id: strings.Repeat("x", 1001)}, codes.InvalidArgument, "id"},
			{&gatewaypb.UpdateTargetPolicyRequest{Id: id, Policy: headers("Content-Type", "text/plain")}, codes.InvalidArgument, "Content-Type"},
			{&gatewaypb.UpdateTargetPolicyRequest{Id: id, Policy: headers("X-A", "***")}, codes.InvalidArgument, "no stored value"},
			{&gatewaypb.UpdateTargetPolicyRequest{Id: id, Policy: &gatewaypb.TargetPolicy{AllowedHosts: &gatewaypb.HostList{Hosts: []string{"*.example"}}}}, codes.InvalidArgument, "allowed_hosts[0]"},
			{&gatewaypb.UpdateTargetPolicyRequest{Id: id, Policy: &gatewaypb.TargetPolicy{Breaker: &gatewaypb.Breaker{FailureRatio: new(2.0)}}}, codes.InvalidArgument, "failure_ratio"},
			{&gatewaypb.ResetTargetPolicyRequest{Id: id, Fields: []string{"enabled", "colour"}}, codes.InvalidArgument, "colour"},
			{&gatewaypb.GetExecutionPolicyRequest{Id: addHumanUserE}, codes.NotFound, "no execution"},
			{&gatewaypb.UpdateExecutionPolicyRequest{Id: "bogus/x", Policy: &gatewaypb.ExecutionPolicy{Enabled: new(true)}}, codes.NotFound, "no execution"},
			{&gatewaypb.ResetExecutionPolicyRequest{Id: addHumanUserE, Fields: []string{"breaker"}}, codes.InvalidArgument, "breaker"},
			{&gatewaypb.RollbackRequest{Revision: 0}, codes.InvalidArgument, "revision"},
		} {
			_, out := f.call(p, c.req)
			wantError(t, p, out, c.code, "", c.text)
		}
		// JSON cannot say an unknown enum number by name, nor leave a message out in every protocol.
		if p == overGRPC {
			_, out := f.call(p, &gatewaypb.UpdateExecutionPolicyRequest{Id: addHumanUserE, Policy: &gatewaypb.ExecutionPolicy{Mode: 9}})
			wantError(t, p, out, codes.InvalidArgument, "", "policy.mode")
			_, out = f.call(p, &gatewaypb.UpdateTargetPolicyRequest{Id: id})
			wantError(t, p, out, codes.InvalidArgument, "", "policy")
			_, out = f.call(p, &gatewaypb.SetSwitchesRequest{})
			wantError(t, p, out, codes.InvalidArgument, "", "switches")
		}
		if f.replica.State().Len(store.KindTargetPolicy) != 0 {
			t.Error("something was stored")
		}
	})
}

func TestExecutionPolicyBySpelling(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.put(requestMethod(addHumanUser), []string{f.target("one")})
	f.put(requestAll(), []string{f.target("two")})
	f.put(event("user.human.added"), []string{f.target("three")})
	const m = "zitadel.user.v2.UserService"
	for _, path := range []string{
		"request/" + m + "/AddHumanUser", "request%2F" + m + "%2FAddHumanUser", "request%2f" + m + "/AddHumanUser",
		"request." + m + "/AddHumanUser", "request." + m + "%2FAddHumanUser", "request./" + m + "/AddHumanUser",
		"request", "event/user.human.added", "event.user.human.added",
	} {
		out := f.rest("PATCH", "/v1/executions/"+path+"/policy", `{"mode":"EXECUTION_MODE_SHADOW"}`)
		if out.http != 200 || !strings.Contains(out.body, "EXECUTION_MODE_SHADOW") {
			t.Errorf("PATCH %s: %+v", path, out)
		}
		out = f.rest("GET", "/v1/executions/"+path+"/policy", "")
		if out.http != 200 || !strings.Contains(strings.ReplaceAll(out.body, " ", ""), `"effective":{"enabled":true,"mode":"EXECUTION_MODE_SHADOW","perMessage":false}`) {
			t.Errorf("GET %s: %+v", path, out)
		}
		out = f.rest("DELETE", "/v1/executions/"+path+"/policy?fields=mode", "")
		if out.http != 200 || strings.Contains(out.body, "SHADOW") {
			t.Errorf("DELETE %s: %+v", path, out)
		}
	}
	f.target("A/b c")
	for _, path := range []string{"A%2Fb%20c", "a/b%20c", f.last} {
		if out := f.rest("PATCH", "/v1/targets/"+path+"/policy", `{"allowedHosts":{"hosts":[]},"maxConcurrency":3}`); out.http != 200 {
			t.Errorf("PATCH %s: %+v", path, out)
		}
	}
	for path, want := range map[string]int{
		"/v1/executions/request/" + m + "/policy":             404, // no execution on the service
		"/v1/executions/request//policy":                      404,
		"/v1/executions//policy":                              400, // an empty id
		"/v1/executions/policy":                               400,
		"/v1/targets/policy":                                  400,
		"/v1/nothing":                                         404,
		"/v1/executions/request/" + m + "/AddHumanUser/other": 404,
	} {
		if out := f.rest("GET", path, ""); out.http != want {
			t.Errorf("GET %s: %d %s, want %d", path, out.http, out.body, want)
		}
	}
	res, _ := f.do("PUT", "/v1/executions/request/"+m+"/AddHumanUser/policy", "application/json", []byte(`{}`))
	if res.StatusCode != 405 || res.Header.Get("Allow") != "DELETE, GET, PATCH" {
		t.Errorf("PUT: %d, Allow %q", res.StatusCode, res.Header.Get("Allow"))
	}
}

func TestPoliciesGoWithWhatTheyQualify(t *testing.T) {
	t.Parallel()
	f := start(t)
	id := f.target("one")
	f.put(requestAll(), []string{id})
	f.must(&gatewaypb.UpdateTargetPolicyRequest{Id: id, Policy: &gatewaypb.TargetPolicy{Enabled: new(false)}})
	f.must(&gatewaypb.UpdateExecutionPolicyRequest{Id: "request", Policy: &gatewaypb.ExecutionPolicy{Enabled: new(false)}})
	before := f.replica.State().Revision()
	f.must(&actionv3.DeleteTargetRequest{Id: id})
	f.must(&actionv3.DeleteExecutionRequest{Id: "request"})
	s := f.replica.State()
	if s.Len(store.KindTargetPolicy)+s.Len(store.KindExecutionPolicy) != 0 || s.Revision() != before+2 {
		t.Errorf("policies left at revision %d of %d", s.Revision(), before)
	}
	// What is made again under the same id begins without one.
	f.put(requestAll(), []string{f.target("two")})
	res := f.must(&gatewaypb.GetExecutionPolicyRequest{Id: "request"}).(*gatewaypb.GetExecutionPolicyResponse)
	wantMessage(t, res.GetPolicy(), &gatewaypb.ExecutionPolicy{})
	wantMessage(t, res.GetEffective(), &gatewaypb.ExecutionPolicy{
		Enabled: new(true), Mode: gatewaypb.ExecutionMode_EXECUTION_MODE_ENFORCE, PerMessage: new(false),
	})
}

func TestConcurrentPolicyChangesAreNotLost(t *testing.T) {
	t.Parallel()
	f := start(t)
	id := f.target("one")
	var wg sync.WaitGroup
	for _, change := range []*gatewaypb.TargetPolicy{
		{Enabled: new(false)}, {MaxConcurrency: new(uint32(3))},
		{Breaker: &gatewaypb.Breaker{MinCalls: new(uint32(3))}}, {Breaker: &gatewaypb.Breaker{HalfOpenCalls: new(uint32(3))}},
		{AllowedHosts: &gatewaypb.HostList{Hosts: []string{"a.example"}}},
	} {
		wg.Go(func() { f.must(&gatewaypb.UpdateTargetPolicyRequest{Id: id, Policy: change}) })
	}
	wg.Wait()
	got := f.must(&gatewaypb.GetTargetPolicyRequest{Id: id}).(*gatewaypb.GetTargetPolicyResponse).GetPolicy()
	wantMessage(t, got, &gatewaypb.TargetPolicy{
		Enabled: new(false), MaxConcurrency: new(uint32(3)),
		Breaker:      &gatewaypb.Breaker{MinCalls: new(uint32(3)), HalfOpenCalls: new(uint32(3))},
		AllowedHosts: &gatewaypb.HostList{Hosts: []string{"a.example"}},
	})
}

func TestGatewayPermissions(t *testing.T) {
	t.Parallel()
	tokens := func(o *admin.Options) {
		o.Tokens = append(o.Tokens,
			admin.Token{Name: "reader", SHA256: admin.HashToken("reader"), Permissions: []string{"gateway.read"}},
			admin.Token{Name: "writer", SHA256: admin.HashToken("writer"), Permissions: []string{"gateway.write"}},
			admin.Token{Name: "all", SHA256: admin.HashToken("all"), Permissions: []string{"gateway.*"}},
			admin.Token{Name: "actions", SHA256: admin.HashToken("actions"), Permissions: []string{"action.*", "execution.*"}},
		)
	}
	reads := []proto.Message{
		&gatewaypb.GetTargetPolicyRequest{Id: "x"}, &gatewaypb.GetExecutionPolicyRequest{Id: "request"}, &gatewaypb.GetSwitchesRequest{},
		&gatewaypb.ListRevisionsRequest{}, &gatewaypb.ListAuditRequest{}, &gatewaypb.ExplainRequest{Method: addHumanUser},
	}
	writes := []proto.Message{
		&gatewaypb.UpdateTargetPolicyRequest{Id: "x", Policy: &gatewaypb.TargetPolicy{Enabled: new(true)}}, &gatewaypb.ResetTargetPolicyRequest{Id: "x"},
		&gatewaypb.UpdateExecutionPolicyRequest{Id: "request", Policy: &gatewaypb.ExecutionPolicy{Enabled: new(true)}}, &gatewaypb.ResetExecutionPolicyRequest{Id: "request"},
		&gatewaypb.SetSwitchesRequest{Switches: &gatewaypb.Switches{Dispatch: new(true)}}, &gatewaypb.RollbackRequest{Revision: 1}, &gatewaypb.TestFireRequest{Id: "request"},
	}
	each(t, []protocol{overGRPC, overREST, overConnect}, func(t *testing.T, p protocol) {
		f := start(t, tokens)
		may := func(token string, req proto.Message, want bool) {
			t.Helper()
			f.token = token
			_, out := f.call(p, req)
			if denied := out.code == codes.PermissionDenied; denied == want {
				t.Errorf("%s calls %T: %v", token, req, out.code)
			}
		}
		for _, req := range reads {
			may("reader", req, true)
			may("writer", req, false)
			may("all", req, true)
			may("actions", req, false)
		}
		for _, req := range writes {
			may("reader", req, false)
			may("writer", req, true)
			may("all", req, true)
			may("actions", req, false)
		}
		for _, token := range []string{"", "wrong"} {
			f.token = token
			_, out := f.call(p, &gatewaypb.GetSwitchesRequest{})
			if out.code != codes.Unauthenticated {
				t.Errorf("token %q: %v", token, out.code)
			}
		}
	})
}

func TestTwoGatewaysShareSwitchesPoliciesAndHistory(t *testing.T) {
	t.Parallel()
	redis := testkit.StartRedis(t, testkit.RedisOptions{})
	open := func() *fixture {
		s, err := store.OpenRedis(store.RedisOptions{URL: redis.URL})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return startOn(t, s, func(o *admin.Options) { o.Gateway.History = s })
	}
	a, b := open(), open()
	id := a.target("one")
	b.must(&gatewaypb.UpdateTargetPolicyRequest{Id: "ONE", Policy: &gatewaypb.TargetPolicy{Enabled: new(false)}})
	if p := a.must(&gatewaypb.GetTargetPolicyRequest{Id: id}).(*gatewaypb.GetTargetPolicyResponse).GetPolicy(); p.Enabled == nil || p.GetEnabled() {
		t.Errorf("the other gateway reads %v", p)
	}
	off := b.must(&gatewaypb.SetSwitchesRequest{Switches: &gatewaypb.Switches{Dispatch: new(false)}}).(*gatewaypb.SetSwitchesResponse)
	if a.must(&gatewaypb.GetSwitchesRequest{}).(*gatewaypb.GetSwitchesResponse).GetSwitches().GetDispatch() {
		t.Error("the switch did not arrive")
	}
	res := a.must(&gatewaypb.RollbackRequest{Revision: 1}).(*gatewaypb.RollbackResponse)
	if res.GetRevision() != off.GetRevision()+1 || len(res.GetChanges()) != 1 {
		t.Errorf("rollback: %v", res)
	}
	if p := b.must(&gatewaypb.GetTargetPolicyRequest{Id: id}).(*gatewaypb.GetTargetPolicyResponse).GetPolicy(); p.Enabled != nil {
		t.Errorf("after the rollback %v", p)
	}
	if b.must(&gatewaypb.GetSwitchesRequest{}).(*gatewaypb.GetSwitchesResponse).GetSwitches().GetDispatch() {
		t.Error("a rollback turned dispatch on")
	}

	// While Redis is away reads are answered from what is known, changes and history are refused.
	redis.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	a.must(&gatewaypb.GetSwitchesRequest{})
	explained := a.must(&gatewaypb.ExplainRequest{Method: addHumanUser}).(*gatewaypb.ExplainResponse)
	if notes := strings.Join(explained.GetNotes(), "; "); !strings.Contains(notes, "cannot be reached") || !strings.Contains(notes, "switched off") {
		t.Errorf("notes: %s", notes)
	}
	for _, req := range []proto.Message{
		&gatewaypb.SetSwitchesRequest{Switches: &gatewaypb.Switches{Dispatch: new(true)}},
		&gatewaypb.ListAuditRequest{}, &gatewaypb.ListRevisionsRequest{}, &gatewaypb.RollbackRequest{Revision: 1}, &gatewaypb.RollbackRequest{Revision: 1, DryRun: true},
	} {
		if _, out := a.call(overGRPC, req); out.code != codes.Unavailable || ctx.Err() != nil {
			t.Errorf("%T: %+v", req, out)
		}
	}
}
