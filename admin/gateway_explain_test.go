package admin_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/execgate/execgate/admin"
	demopb "github.com/execgate/execgate/gen/execgate/demo/v1"
	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	actionv3 "github.com/execgate/execgate/gen/zitadel/resources/action/v3alpha"
	userpb "github.com/execgate/execgate/gen/zitadel/user/v2"
	"github.com/execgate/execgate/internal/jsondiff"
	"github.com/execgate/execgate/schema"
	"github.com/execgate/execgate/targetclient"
)

// upstreamSchema has the user service and the streams of the demo API.
func upstreamSchema(t testing.TB) *schema.Schema {
	t.Helper()
	set := new(descriptorpb.FileDescriptorSet)
	seen := map[string]bool{}
	var add func(protoreflect.FileDescriptor)
	add = func(f protoreflect.FileDescriptor) {
		if seen[f.Path()] {
			return
		}
		seen[f.Path()] = true
		for i := range f.Imports().Len() {
			add(f.Imports().Get(i).FileDescriptor)
		}
		set.File = append(set.File, protodesc.ToFileDescriptorProto(f))
	}
	add(userpb.File_zitadel_user_v2_user_service_proto)
	add(demopb.File_execgate_demo_v1_stream_proto)
	raw, err := proto.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	s, err := schema.FromDescriptorSet(raw)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// explained writes an explanation line by line.
func explained(r *gatewaypb.ExplainResponse) string {
	var b strings.Builder
	for _, p := range r.GetPhases() {
		fmt.Fprintf(&b, "%s: %s", p.GetPhase(), p.GetExecution())
		if p.GetExecution() != "" {
			fmt.Fprintf(&b, " (%s)", strings.ToLower(strings.TrimPrefix(p.GetMode().String(), "EXECUTION_MODE_")))
		}
		for _, t := range p.GetTargets() {
			fmt.Fprintf(&b, "\n  %s %s %s %s", t.GetName(), t.GetKind(), t.GetTimeout().AsDuration(), t.GetBreaker())
			if t.GetInterruptOnError() {
				b.WriteString(" interrupts")
			}
			if !t.GetEnabled() {
				b.WriteString(" disabled")
			}
			if t.GetIncludedFrom() != "" {
				b.WriteString(" from " + t.GetIncludedFrom())
			}
		}
		for _, h := range p.GetHidden() {
			fmt.Fprintf(&b, "\n  hides %s: %s", h.GetExecution(), h.GetReason())
		}
		b.WriteString("\n")
	}
	for _, n := range r.GetNotes() {
		b.WriteString("note: " + n + "\n")
	}
	return b.String()
}

func TestExplain(t *testing.T) {
	t.Parallel()
	upstream := upstreamSchema(t)
	known := true
	f := start(t, func(o *admin.Options) {
		o.Schema = nil // any method may be named
		o.Gateway.Upstream = func() *schema.Schema {
			if known {
				return upstream
			}
			return nil
		}
		o.Gateway.ProtectedMethods = []string{"/zitadel.user.v2.UserService/ListUsers"}
		o.Gateway.Breaker = func(id string) targetclient.BreakerState {
			return targetclient.BreakerOpen
		}
	})
	const service = "zitadel.user.v2.UserService"
	one, two := f.target("one"), f.target("two")
	guard := newTarget("guard")
	guard.Target.ExecutionType = &actionv3.Target_InterruptOnError{InterruptOnError: true}
	interrupting := f.must(guard).(*actionv3.CreateTargetResponse).GetDetails().GetId()
	f.put(requestAll(), []string{one})
	f.put(requestService(service), []string{two, interrupting})
	f.put(requestMethod(addHumanUser), nil, "request/"+service, "request")
	f.put(responseAll(), []string{one})
	f.put(event("user.human.added"), []string{one})
	f.put(group("user.human"), []string{two})
	f.put(eventAll(), []string{one})
	f.put(function("preuserinfo"), []string{one})
	disable := func(target string) {
		f.must(&gatewaypb.UpdateTargetPolicyRequest{Id: target, Policy: &gatewaypb.TargetPolicy{Enabled: new(false)}})
	}
	const unknown = ": a call that has an execution gets UNAVAILABLE if a target may interrupt, and otherwise passes untouched\n"
	want := func(r *gatewaypb.ExplainRequest, want string) {
		t.Helper()
		if got := explained(f.must(r).(*gatewaypb.ExplainResponse)); got != want {
			t.Errorf("%v\n got %s\nwant %s", r, got, want)
		}
	}
	method := func(m string) *gatewaypb.ExplainRequest { return &gatewaypb.ExplainRequest{Method: m} }

	byInclude := "request: " + addHumanUserE + " (enforce)" +
		"\n  two webhook 10s open from request/" + service +
		"\n  guard webhook 10s open interrupts from request/" + service +
		"\n  one webhook 10s open from request" +
		"\n  hides request/" + service + ": less specific\n  hides request: less specific" +
		"\nresponse: response (enforce)\n  one webhook 10s open\n"
	want(method(addHumanUser), byInclude)
	want(method(addHumanUser[1:]), byInclude)
	want(method("/zitadel.user.v2.UserService/ListUsers"), "request: request/"+service+" (enforce)\n  two webhook 10s open\n  guard webhook 10s open interrupts"+
		"\n  hides request: less specific\nresponse: response (enforce)\n  one webhook 10s open\n"+
		"note: the method is protected: no execution may interrupt it\n")
	want(method("/other.v1.Service/Do"), "request: request (enforce)\n  one webhook 10s open\nresponse: response (enforce)\n  one webhook 10s open\n"+
		"note: the schema of the upstream does not have the method"+unknown)
	want(method("/grpc.health.v1.Health/Check"), "request: \n  hides request: never fires\nresponse: \n  hides response: never fires\n"+
		"note: health checks and reflection never fire executions\n")

	const streamed = "note: the server streams messages: the request phase fires on the one request message, the response phase on each " +
		"message of the answer, and only if the policy of the execution says so (per_message)\n"
	server, client := streaming(t, upstream)
	want(method(server), "request: request (enforce)\n  one webhook 10s open\nresponse: \n  hides response: streaming\n"+
		streamed)
	perMessage := func(on bool) {
		f.must(&gatewaypb.UpdateExecutionPolicyRequest{Id: "response", Policy: &gatewaypb.ExecutionPolicy{PerMessage: &on}})
	}
	perMessage(true)
	want(method(server), "request: request (enforce)\n  one webhook 10s open\nresponse: response (enforce)\n  one webhook 10s open\n"+streamed)
	streamService := strings.TrimPrefix(server[:strings.LastIndexByte(server, '/')], "/")
	ofService := responseCondition(&actionv3.ResponseExecution{Condition: &actionv3.ResponseExecution_Service{Service: streamService}})
	f.put(ofService, []string{two})
	want(method(server), "request: request (enforce)\n  one webhook 10s open\nresponse: "+
		"\n  hides response/"+streamService+": streaming\n  hides response: less specific\n"+streamed)
	f.must(&actionv3.DeleteExecutionRequest{Id: "response/" + streamService})
	perMessage(false)
	want(method(client), "request: \n  hides request: streaming\nresponse: \n  hides response: streaming\n"+
		"note: the client streams messages: no execution fires\n")

	want(&gatewaypb.ExplainRequest{Event: "user.human.added"}, "event: event/user.human.added (enforce)\n  one webhook 10s open"+
		"\n  hides event/user.human.*: less specific\n  hides event: less specific\n")
	want(&gatewaypb.ExplainRequest{Event: "user.removed"}, "event: event (enforce)\n  one webhook 10s open\n")
	want(&gatewaypb.ExplainRequest{Function: "preuserinfo"}, "function: function/preuserinfo (enforce)\n  one webhook 10s open\n")
	want(&gatewaypb.ExplainRequest{Function: "preaccesstoken"}, "function: \n")
	want(&gatewaypb.ExplainRequest{Function: "Action.Flow.Type.CustomiseToken.Action.TriggerType.PreUserinfoCreation"},
		"function: function/preuserinfo (enforce)\n  one webhook 10s open\n")
	want(&gatewaypb.ExplainRequest{Function: "preuser"},
		"function: \nnote: there is no function of this name; there are preaccesstoken, presamlresponse, preuserinfo\n")

	// A disabled execution contributes nothing where it is included, a disabled target is shown in its place.
	f.must(&gatewaypb.UpdateExecutionPolicyRequest{Id: "request/" + service, Policy: &gatewaypb.ExecutionPolicy{Enabled: new(false)}})
	f.must(&gatewaypb.UpdateExecutionPolicyRequest{Id: "response", Policy: &gatewaypb.ExecutionPolicy{Mode: gatewaypb.ExecutionMode_EXECUTION_MODE_SHADOW}})
	want(method(addHumanUser), "request: "+addHumanUserE+" (enforce)\n  one webhook 10s open from request"+
		"\n  hides request/"+service+": disabled\n  hides request: less specific\nresponse: response (shadow)\n  one webhook 10s open\n")
	disable(one)
	f.must(&gatewaypb.ResetExecutionPolicyRequest{Id: "request/" + service})
	want(method("/zitadel.user.v2.UserService/GetUserByID"), "request: request/"+service+" (enforce)\n  two webhook 10s open\n  guard webhook 10s open interrupts"+
		"\n  hides request: targets disabled\nresponse: \n  hides response: targets disabled\n")
	f.put(requestMethod(addHumanUser), []string{one, two})
	want(&gatewaypb.ExplainRequest{Method: addHumanUser}, "request: "+addHumanUserE+" (enforce)\n  one webhook 10s open disabled\n  two webhook 10s open"+
		"\n  hides request/"+service+": less specific\n  hides request: targets disabled\nresponse: \n  hides response: targets disabled\n")
	f.must(&actionv3.DeleteTargetRequest{Id: one})
	known = false
	f.must(&gatewaypb.SetSwitchesRequest{Switches: &gatewaypb.Switches{Dispatch: new(false)}})
	want(method("/other.v1.Service/Do"), "request: \n  hides request: no targets\nresponse: \n  hides response: no targets\n"+
		"note: dispatch is switched off: nothing fires on any gateway\nnote: the schema of the upstream is not known"+unknown)

	for _, bad := range []*gatewaypb.ExplainRequest{
		{}, {Method: addHumanUser, Event: "a"}, {Function: "f", Event: "e"}, {Method: "nonsense"}, {Method: "/a/b/c"}, {Event: strings.Repeat("e", 1001)},
	} {
		_, out := f.call(overREST, bad)
		wantError(t, overREST, out, codes.InvalidArgument, "", "")
	}
	if out := f.rest("GET", "/v1/explain?method=zitadel.user.v2.UserService/AddHumanUser", ""); out.http != 200 || !strings.Contains(out.body, addHumanUserE) {
		t.Errorf("%+v", out)
	}
}

// streaming returns a method whose server alone streams, and one whose client does.
func streaming(t *testing.T, s *schema.Schema) (server, client string) {
	t.Helper()
	for _, name := range s.Methods() {
		switch m := s.Method(name); {
		case m.ClientStreaming:
			client = name
		case m.ServerStreaming:
			server = name
		}
	}
	if server == "" || client == "" {
		t.Fatal("the demo API has no streams")
	}
	return server, client
}

func TestExplainShowsTheLastRun(t *testing.T) {
	t.Parallel()
	run := admin.LastRun{Time: time.Unix(1000, 0), Outcome: "changed", Shadow: true, Diff: []jsondiff.Change{
		{Path: "profile.givenName", Op: jsondiff.Replace, Before: json.RawMessage(`"a"`), After: json.RawMessage(`{"b":[1,null]}`)},
		{Path: "x", Op: jsondiff.Add, After: json.RawMessage(`null`)},
	}}
	f := start(t, func(o *admin.Options) {
		o.Gateway.LastRun = func(execution string) (admin.LastRun, bool) { return run, execution == "request" }
	})
	f.put(requestAll(), []string{f.target("one")})
	f.put(responseAll(), []string{f.last})
	each(t, gatewayProtocols, func(t *testing.T, p protocol) {
		last := func(r *gatewaypb.ExplainRequest) string {
			t.Helper()
			r.Method = addHumanUser
			res, out := f.call(p, r)
			if out.code != codes.OK {
				t.Fatalf("%+v", out)
			}
			x := res.(*gatewaypb.ExplainResponse)
			if x.GetPhases()[1].GetLast() != nil {
				t.Error("a run of an execution that never ran")
			}
			run := x.GetPhases()[0].GetLast()
			s := fmt.Sprintf("%s %t", run.GetOutcome(), run.GetShadow())
			for _, d := range run.GetDiff() {
				before, _ := json.Marshal(d.GetBefore().AsInterface())
				after, _ := json.Marshal(d.GetAfter().AsInterface())
				s += fmt.Sprintf("; %s %s %t:%s %t:%s", d.GetPath(), d.GetOp(), d.GetBefore() != nil, before, d.GetAfter() != nil, after)
			}
			return s
		}
		for _, c := range []struct {
			r    *gatewaypb.ExplainRequest
			want string
		}{
			{&gatewaypb.ExplainRequest{WithValues: true}, " false"},
			{&gatewaypb.ExplainRequest{Last: true}, "changed true; profile.givenName replace false:null false:null; x add false:null false:null"},
			{&gatewaypb.ExplainRequest{Last: true, WithValues: true}, `changed true; profile.givenName replace true:"a" true:{"b":[1,null]}; x add false:null true:null`},
		} {
			if got := last(c.r); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		}
	})
}

func TestTestFireIsPassedOnAndShown(t *testing.T) {
	t.Parallel()
	var got admin.TestFire
	f := start(t, func(o *admin.Options) {
		o.Gateway.TestFire = func(_ context.Context, r admin.TestFire) (admin.TestFireResult, error) {
			got = r
			return admin.TestFireResult{
				Calls: []admin.TestFireCall{
					{Target: "one", Request: []byte(`{"a":1}`), Status: 200, Response: []byte(strings.Repeat("x", 70_000)), Outcome: "ok", Duration: time.Second},
					{Target: "two", Request: []byte(`not json`), Response: []byte("\xff"), Outcome: "timeout", Err: "why"},
				},
				Outcome: "changed", Message: []byte(`{"b":"2"}`),
			}, nil
		}
	})
	f.put(responseAll(), []string{f.target("one")})
	f.put(event("user.human.added"), []string{f.last})
	object, err := structpb.NewValue(map[string]any{"b": "1"})
	if err != nil {
		t.Fatal(err)
	}
	res := f.must(&gatewaypb.TestFireRequest{Id: "response", Method: addHumanUser, Response: object}).(*gatewaypb.TestFireResponse)
	if got.Execution != "response" || got.Method != addHumanUser || string(got.Request) != "{}" || strings.ReplaceAll(string(got.Response), " ", "") != `{"b":"1"}` {
		t.Errorf("asked for %+v", got)
	}
	calls := res.GetCalls()
	if len(calls) != 2 || len(calls[0].GetResponse()) != 64<<10 || calls[0].GetStatus() != 200 || calls[1].GetRequest() != nil ||
		calls[1].GetResponse() != "\uFFFD" || calls[1].GetError() != "why" || res.GetMessage().GetStructValue().AsMap()["b"] != "2" {
		t.Errorf("%v", res)
	}
	for _, c := range []struct {
		path, body string
		code       codes.Code
	}{
		{"/v1/executions/response/_test_fire", `{"method":"` + addHumanUser + `","request":[1]}`, codes.InvalidArgument},
		{"/v1/executions/response/_test_fire", `{"method":"` + addHumanUser + `","request":{"x":{"y":[1,"z"]}},"response":null}`, codes.OK},
		{"/v1/executions/response/_test_fire", `{}`, codes.InvalidArgument},
		{"/v1/executions/request/_test_fire", `{}`, codes.NotFound},
		{"/v1/executions/event%2Fuser.human.added/_test_fire", `{"request":{"event_type":"user.human.added"}}`, codes.OK},
		{"/v1/executions/event%2Fuser.human.added/_test_fire", `{"request":7}`, codes.InvalidArgument},
		{"/v1/executions/event%2Fuser.human.added/_test_fire", `{"method":"` + addHumanUser + `"}`, codes.InvalidArgument},
		{"/v1/executions/event%2Fuser.human.added/_test_fire", `{"response":{}}`, codes.InvalidArgument},
	} {
		if out := f.rest("POST", c.path, c.body); out.code != c.code {
			t.Errorf("%s %s: %+v", c.path, c.body, out)
		}
	}
	if out := start(t).rest("POST", "/v1/executions/request/_test_fire", `{}`); out.code != codes.Unimplemented {
		t.Errorf("without a client: %+v", out)
	}
}

func TestSwitches(t *testing.T) {
	t.Parallel()
	killed := false
	f := start(t, func(o *admin.Options) { o.Gateway.Killed = func() bool { return killed } })
	for _, step := range []struct {
		verb, body, want string
		revisions        uint64
	}{
		{"GET", "", `{"switches":{"dispatch":true}}`, 0},
		{"PATCH", `{}`, `{"switches":{"dispatch":true}}`, 0},
		{"PATCH", `{"dispatch":true}`, `{"switches":{"dispatch":true}}`, 0},
		{"PATCH", `{"dispatch":false,"killedLocally":true}`, `{"switches":{"dispatch":false},"revision":"1"}`, 1},
		{"PATCH", `{"dispatch":false}`, `{"switches":{"dispatch":false},"revision":"1"}`, 1},
		{"GET", "", `{"switches":{"dispatch":false}}`, 1},
		{"PATCH", `{"dispatch":true}`, `{"switches":{"dispatch":true},"revision":"2"}`, 2},
	} {
		out := f.rest(step.verb, "/v1/switches", step.body)
		if out.http != 200 || strings.ReplaceAll(out.body, " ", "") != step.want || f.replica.State().Revision() != step.revisions {
			t.Errorf("%s %s: %+v at revision %d, want %s", step.verb, step.body, out, f.replica.State().Revision(), step.want)
		}
	}
	killed = true
	if out := f.rest("GET", "/v1/switches", ""); !strings.Contains(strings.ReplaceAll(out.body, " ", ""), `{"dispatch":true,"killedLocally":true}`) {
		t.Errorf("%+v", out)
	}
}
