package admin_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/google/go-cmp/cmp"

	"github.com/execgate/execgate/admin"
	actionv3 "github.com/execgate/execgate/gen/zitadel/resources/action/v3alpha"
)

// putOn puts a condition with one target that exists.
func putOn(c *actionv3.Condition) func(*fixture) proto.Message {
	return func(f *fixture) proto.Message { return putRequest(c, []string{f.target("a")}) }
}

const (
	knownMethod  = "/zitadel.session.v2.SessionService/ListSessions"
	knownService = "zitadel.session.v2.SessionService"
)

func TestExecutionsThatAreRefused(t *testing.T) {
	t.Parallel()
	const (
		invalid  = codes.InvalidArgument
		notFound = codes.NotFound
		failed   = codes.FailedPrecondition
		badCond  = "Execution condition is invalid"
		badExec  = "Execution is invalid"
	)
	long := strings.Repeat("ü", 1001)
	noSchema := []func(*admin.Options){withoutSchema}
	events := []func(*admin.Options){withEvents}
	response := func(r *actionv3.ResponseExecution) func(*fixture) proto.Message { return putOn(responseCondition(r)) }
	runFailures(t, []failure{
		{name: "method of 1001 characters", given: putOn(requestMethod(long)), code: invalid, text: "method"},
		{name: "empty method", given: putOn(requestMethod("")), code: invalid, text: "method"},
		{name: "empty method of a response", given: response(&actionv3.ResponseExecution{Condition: &actionv3.ResponseExecution_Method{}}), code: invalid, text: "method"},
		{name: "service of 1001 characters", given: putOn(requestService(long)), code: invalid, text: "service"},
		{name: "empty service", given: putOn(requestService("")), code: invalid, text: "service"},
		{name: "event of 1001 characters", given: putOn(event(long)), code: invalid, text: "event"},
		{name: "empty event", given: putOn(event("")), code: invalid, text: "event"},
		{name: "group of 1001 characters", given: putOn(group(long)), code: invalid, text: "group"},
		{name: "empty group", given: putOn(group("")), code: invalid, text: "group"},
		{name: "all that is false", given: putOn(requestCondition(&actionv3.RequestExecution{Condition: &actionv3.RequestExecution_All{}})), code: invalid, text: "all"},
		{name: "all of responses that is false", given: response(&actionv3.ResponseExecution{Condition: &actionv3.ResponseExecution_All{}}), code: invalid, text: "all"},
		{name: "all of events that is false", given: putOn(eventCondition(&actionv3.EventExecution{Condition: &actionv3.EventExecution_All{}})), code: invalid, text: "all"},

		{name: "no execution", given: ask(&actionv3.PutExecutionRequest{}), code: invalid, id: "ACTION-5r5Ju", text: badCond},
		{name: "no condition", given: putOn(nil), code: invalid, id: "ACTION-5r5Ju", text: badCond},
		{name: "no condition type", given: putOn(&actionv3.Condition{}), code: invalid, id: "ACTION-5r5Ju", text: badCond},
		{name: "request without level", given: putOn(requestCondition(&actionv3.RequestExecution{})), code: invalid, id: "COMMAND-3tkej630e6", text: badExec},
		{name: "response without level", given: response(&actionv3.ResponseExecution{}), code: invalid, id: "COMMAND-3tkej630e6", text: badExec},
		{name: "event without level", given: putOn(eventCondition(&actionv3.EventExecution{})), code: invalid, id: "COMMAND-w5smb6v7qu", text: badExec},
		{name: "empty function", given: putOn(function("")), code: invalid, id: "COMMAND-5folwn5jws", text: badExec},

		{name: "unknown method", given: putOn(requestMethod("/zitadel.session.v2.SessionService/Nope")), code: notFound, id: "COMMAND-vysplsevt8", text: badCond},
		{name: "unknown method of a response", given: response(&actionv3.ResponseExecution{Condition: &actionv3.ResponseExecution_Method{Method: "/x.Y/Z"}}), code: notFound, id: "COMMAND-vysplsevt8", text: badCond},
		{name: "known method without its slash", given: putOn(requestMethod(knownMethod[1:])), code: notFound, id: "COMMAND-vysplsevt8", text: badCond},
		{name: "known method in other letter case", given: putOn(requestMethod(strings.ToLower(knownMethod))), code: notFound, id: "COMMAND-vysplsevt8", text: badCond},
		{name: "unknown service", given: putOn(requestService("zitadel.session.v2.Nope")), code: notFound, id: "COMMAND-qu6dfhiioq", text: badCond},
		{name: "known service with a slash", given: putOn(requestService("/" + knownService)), code: notFound, id: "COMMAND-qu6dfhiioq", text: badCond},
		{name: "a method given as a service", given: putOn(requestService(knownMethod[1:])), code: notFound, id: "COMMAND-qu6dfhiioq", text: badCond},
		{name: "unknown function", given: putOn(function("nope")), code: notFound, id: "COMMAND-cdy39t0ksr", text: badCond},
		{name: "function of the v1 login flow", given: putOn(function("Action.Flow.Type.ExternalAuthentication.Action.TriggerType.PostAuthentication")), code: notFound, id: "COMMAND-cdy39t0ksr", text: badCond},
		{name: "method without its slash and no schema", options: noSchema, given: putOn(requestMethod("x.Y/Z")), code: notFound, id: "COMMAND-vysplsevt8", text: badCond},
		{name: "method without a service and no schema", options: noSchema, given: putOn(requestMethod("/Z")), code: notFound, id: "COMMAND-vysplsevt8", text: badCond},
		{name: "method with three parts and no schema", options: noSchema, given: putOn(requestMethod("/a/b/c")), code: notFound, id: "COMMAND-vysplsevt8", text: badCond},
		{name: "service with a slash and no schema", options: noSchema, given: putOn(requestService("x.Y/Z")), code: notFound, id: "COMMAND-qu6dfhiioq", text: badCond},
		{name: "unknown event when the types are known", options: events, given: putOn(event("user.human.nope")), code: notFound, id: "COMMAND-74aaqj8fv9", text: badCond},
		{name: "group given as an event", options: events, given: putOn(event("user.human")), code: notFound, id: "COMMAND-74aaqj8fv9", text: badCond},
		{name: "unknown group when the types are known", options: events, given: putOn(group("org")), code: notFound, id: "COMMAND-er5oneb5lz", text: badCond},
		{name: "part of a segment as a group", options: events, given: putOn(group("user.hu")), code: notFound, id: "COMMAND-er5oneb5lz", text: badCond},

		{name: "neither targets nor includes", given: ask(putRequest(requestAll(), nil)), code: invalid, id: "COMMAND-56bteot2uj", text: "No targets defined"},
		{name: "targets and includes", given: func(f *fixture) proto.Message {
			f.put(requestAll(), []string{f.target("a")})
			return putRequest(requestService(knownService), []string{f.last}, "request")
		}, code: invalid, id: "COMMAND-5zleae34r1", text: badExec},
		{name: "an empty target id", given: func(f *fixture) proto.Message { return putRequest(requestAll(), []string{f.target("a"), ""}) }, code: invalid, id: "COMMAND-hdm4zl1hmd", text: badExec},
		{name: "an empty include id", given: ask(putRequest(requestAll(), nil, "")), code: invalid, id: "COMMAND-hdm4zl1hmd", text: badExec},
		{name: "an empty target id is found before an unknown method", given: ask(putRequest(requestMethod("/x.Y/Z"), []string{""})), code: invalid, id: "COMMAND-hdm4zl1hmd", text: badExec},
		{name: "an unknown method is found before a missing list", given: ask(putRequest(requestMethod("/x.Y/Z"), nil)), code: notFound, id: "COMMAND-vysplsevt8", text: badCond},
		{name: "an unknown target", given: ask(putRequest(requestAll(), []string{"123"})), code: notFound, id: "COMMAND-17e8fq1ggk", text: "Target not found"},
		{name: "a deleted target", given: func(f *fixture) proto.Message {
			f.must(&actionv3.DeleteTargetRequest{Id: f.target("a")})
			return putRequest(requestAll(), []string{f.last})
		}, code: notFound, id: "COMMAND-17e8fq1ggk", text: "Target not found"},
		{name: "a target listed twice", given: func(f *fixture) proto.Message {
			id := f.target("a")
			return putRequest(requestAll(), []string{id, f.target("b"), id})
		}, code: notFound, id: "COMMAND-17e8fq1ggk", text: "Target not found"},
		{name: "an unknown include", given: ask(putRequest(requestService(knownService), nil, "request")), code: notFound, id: "COMMAND-slgj0l4cdz", text: "Include not found"},
		{name: "an include that is no execution id", given: ask(putRequest(requestService(knownService), nil, "nonsense")), code: notFound, id: "COMMAND-slgj0l4cdz", text: "Include not found"},
		{name: "a deleted include", given: func(f *fixture) proto.Message {
			f.put(requestAll(), []string{f.target("a")})
			f.must(&actionv3.DeleteExecutionRequest{Id: "request"})
			return putRequest(requestService(knownService), nil, "request")
		}, code: notFound, id: "COMMAND-slgj0l4cdz", text: "Include not found"},
		{name: "an include listed twice, spelled differently", given: func(f *fixture) proto.Message {
			f.put(requestService(knownService), []string{f.target("a")})
			return putRequest(requestAll(), nil, "request/"+knownService, "request."+knownService)
		}, code: notFound, id: "COMMAND-slgj0l4cdz", text: "Include not found"},
		{name: "an execution that includes itself", given: func(f *fixture) proto.Message {
			f.put(requestAll(), []string{f.target("a")})
			return putRequest(requestAll(), nil, "request")
		}, code: failed, id: "COMMAND-mo1cmjp5k7", text: "Errors.Execution.CircularInclude"},
		{name: "an included execution that includes this one", given: func(f *fixture) proto.Message {
			f.put(requestAll(), []string{f.target("a")})
			f.put(requestService(knownService), nil, "request")
			return putRequest(requestAll(), nil, "request/"+knownService)
		}, code: failed, id: "COMMAND-819opvhgjv", text: "Errors.Execution.CircularInclude"},
		{name: "a circle over three executions", given: func(f *fixture) proto.Message {
			f.put(requestAll(), []string{f.target("a")})
			f.put(requestService(knownService), nil, "request")
			f.put(requestMethod(knownMethod), nil, "request/"+knownService)
			return putRequest(requestAll(), nil, "request"+knownMethod)
		}, code: failed, id: "COMMAND-819opvhgjv", text: "Errors.Execution.CircularInclude"},
		{name: "a chain of four executions", given: func(f *fixture) proto.Message {
			f.put(requestAll(), []string{f.target("a")})
			f.put(requestService(knownService), nil, "request")
			f.put(requestMethod(knownMethod), nil, "request/"+knownService)
			return putRequest(requestMethod(upstreamMethods[1]), nil, "request"+knownMethod)
		}, code: failed, id: "COMMAND-gbhd3g57oo", text: "Errors.Execution.MaxLevelsInclude"},
		{name: "an include of another condition type", given: func(f *fixture) proto.Message {
			f.put(responseAll(), []string{f.target("a")})
			return putRequest(requestAll(), nil, "response")
		}, code: invalid, text: badExec},

		{name: "delete without an id", given: ask(&actionv3.DeleteExecutionRequest{}), code: invalid, text: "id", only: []protocol{overGRPC}},
		{name: "delete with an id of 1021 characters", given: ask(&actionv3.DeleteExecutionRequest{Id: "request/" + strings.Repeat("a", 1013)}), code: invalid, text: "id"},
		{name: "delete of what was never set", given: ask(&actionv3.DeleteExecutionRequest{Id: "request/" + knownService}), code: notFound, id: "COMMAND-suq2upd3rt", text: "Execution not found"},
		{name: "delete of what is no execution id", given: ask(&actionv3.DeleteExecutionRequest{Id: "nonsense"}), code: notFound, id: "COMMAND-suq2upd3rt", text: "Execution not found"},
		{name: "delete of a deleted execution", given: func(f *fixture) proto.Message {
			f.put(requestAll(), []string{f.target("a")})
			f.must(&actionv3.DeleteExecutionRequest{Id: "request"})
			return &actionv3.DeleteExecutionRequest{Id: "request"}
		}, code: notFound, id: "COMMAND-suq2upd3rt", text: "Execution not found"},
	})
}

// conditionRows has every kind and level with its id.
var conditionRows = []struct {
	id        string
	condition *actionv3.Condition
	// read is the condition that comes back, when it is another.
	read *actionv3.Condition
}{
	{id: "request", condition: requestAll()},
	{id: "request/" + knownService, condition: requestService(knownService)},
	{id: "request" + knownMethod, condition: requestMethod(knownMethod)},
	{id: "response", condition: responseAll()},
	{id: "response/" + knownService, condition: responseCondition(&actionv3.ResponseExecution{Condition: &actionv3.ResponseExecution_Service{Service: knownService}})},
	{id: "response" + knownMethod, condition: responseCondition(&actionv3.ResponseExecution{Condition: &actionv3.ResponseExecution_Method{Method: knownMethod}})},
	{id: "function/preuserinfo", condition: function("preuserinfo")},
	{id: "function/preaccesstoken", condition: function("preaccesstoken")},
	{id: "function/presamlresponse", condition: function("presamlresponse")},
	{id: "function/preuserinfo", condition: function("Action.Flow.Type.CustomiseToken.Action.TriggerType.PreUserinfoCreation"), read: function("preuserinfo")},
	{id: "function/preaccesstoken", condition: function("Action.Flow.Type.CustomiseToken.Action.TriggerType.PreAccessTokenCreation"), read: function("preaccesstoken")},
	{id: "function/presamlresponse", condition: function("Action.Flow.Type.CustomizeSAMLResponse.Action.TriggerType.PreSAMLResponseCreation"), read: function("presamlresponse")},
	{id: "event", condition: eventAll()},
	{id: "event/user.human.added", condition: event("user.human.added")},
	{id: "event/user.human.*", condition: group("user.human")},
	{id: "event/user.human.*", condition: group("user.human.*"), read: group("user.human")},
}

func TestEveryConditionIsPutReadAndDeletedByItsID(t *testing.T) {
	t.Parallel()
	for i, row := range conditionRows {
		t.Run(fmt.Sprintf("%d %s", i, row.id), func(t *testing.T) {
			t.Parallel()
			each(t, tableProtocols, func(t *testing.T, p protocol) {
				f := start(t, withEvents)
				target := f.target("a")
				res, out := f.call(p, putRequest(row.condition, []string{target}))
				if out.code != codes.OK || p == overREST && out.http != 201 {
					t.Fatalf("%+v", out)
				}
				details := res.(*actionv3.PutExecutionResponse).GetDetails()
				if details.GetId() != row.id || details.GetSequence() != 1 || details.GetResourceOwner().GetId() != instance {
					t.Errorf("details %v", details)
				}
				want := row.condition
				if row.read != nil {
					want = row.read
				}
				res, _ = f.call(p, &actionv3.SearchExecutionsRequest{Filters: []*actionv3.ExecutionSearchFilter{inConditions(row.condition)}})
				wantList := []*actionv3.GetExecution{{Details: details, Execution: &actionv3.Execution{Condition: want, Targets: []string{target}}}}
				if diff := cmp.Diff(wantList, res.(*actionv3.SearchExecutionsResponse).GetResult(), protocmp.Transform()); diff != "" {
					t.Error(diff)
				}
				res, out = f.call(p, &actionv3.DeleteExecutionRequest{Id: row.id})
				if out.code != codes.OK || p == overREST && out.http != 200 {
					t.Fatalf("%+v", out)
				}
				deleted := res.(*actionv3.DeleteExecutionResponse).GetDetails()
				if deleted.GetId() != row.id || deleted.GetSequence() != 2 || !deleted.GetChangeDate().AsTime().After(details.GetChangeDate().AsTime()) {
					t.Errorf("details of the deletion %v", deleted)
				}
				if f.executionV3(row.condition) != nil {
					t.Error("still there")
				}
			})
		})
	}
}

func TestWithoutASchemaWellFormedNamesAreAccepted(t *testing.T) {
	t.Parallel()
	each(t, tableProtocols, func(t *testing.T, p protocol) {
		f := start(t, withoutSchema)
		for _, c := range []*actionv3.Condition{
			requestMethod("/x.Y/Z"), requestService("x.Y"), event("anything.at.all"), group("some.group"), group("one"),
			responseCondition(&actionv3.ResponseExecution{Condition: &actionv3.ResponseExecution_Method{Method: "/x.Y/Z"}}),
		} {
			if _, out := f.call(p, putRequest(c, []string{f.target(c.String())})); out.code != codes.OK {
				t.Errorf("%v: %+v", c, out)
			}
		}
	})
}

func TestKnownEventTypesDecideBySegments(t *testing.T) {
	t.Parallel()
	f := start(t, withEvents)
	target := f.target("a")
	for _, c := range []*actionv3.Condition{group("user"), group("user.human"), group("user.human.added"), group("session.*"), event("user.removed")} {
		f.put(c, []string{target})
	}
}

func TestAPutReplacesTheListsAsAWhole(t *testing.T) {
	t.Parallel()
	each(t, tableProtocols, func(t *testing.T, p protocol) {
		f := start(t)
		a, b := f.target("a"), f.target("b")
		f.put(requestService(knownService), []string{a})
		put := func(targets []string, includes ...string) *actionv3.PutExecutionResponse {
			t.Helper()
			before := f.executionV3(requestAll())
			res, out := f.call(p, putRequest(requestAll(), targets, includes...))
			if out.code != codes.OK {
				t.Fatalf("%+v", out)
			}
			if want := map[bool]int{true: 201, false: 200}[before == nil]; p == overREST && out.http != want {
				t.Errorf("HTTP %d, want %d", out.http, want)
			}
			got := f.executionV3(requestAll()).GetExecution()
			want := &actionv3.Execution{Condition: requestAll(), Targets: targets, Includes: includes}
			if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
			return res.(*actionv3.PutExecutionResponse)
		}
		steps := []struct {
			targets  []string
			includes []string
			sequence uint64
		}{
			{targets: []string{a, b}, sequence: 1},
			{targets: []string{a, b}, sequence: 1},
			{targets: []string{b, a}, sequence: 2},
			{targets: []string{b}, sequence: 3},
			{includes: []string{"request/" + knownService}, sequence: 4},
			{includes: []string{"request/" + knownService}, sequence: 4},
			{targets: []string{a}, sequence: 5},
		}
		var last *actionv3.PutExecutionResponse
		for i, s := range steps {
			res := put(s.targets, s.includes...)
			if got := res.GetDetails().GetSequence(); got != s.sequence {
				t.Errorf("step %d: sequence %d, want %d", i, got, s.sequence)
			}
			if last.GetDetails().GetSequence() == s.sequence {
				if diff := cmp.Diff(last, res, protocmp.Transform()); diff != "" {
					t.Errorf("step %d changed nothing, but: %s", i, diff)
				}
			}
			last = res
		}
	})
}

func TestTheSequenceGoesOnAfterADelete(t *testing.T) {
	t.Parallel()
	each(t, tableProtocols, func(t *testing.T, p protocol) {
		f := start(t)
		a := f.target("a")
		f.put(requestAll(), []string{a})
		f.must(&actionv3.DeleteExecutionRequest{Id: "request"})
		res, out := f.call(p, putRequest(requestAll(), []string{a}))
		if p == overREST && out.http != 201 {
			t.Errorf("HTTP %d of a new creation", out.http)
		}
		if got := res.(*actionv3.PutExecutionResponse).GetDetails().GetSequence(); got != 3 {
			t.Errorf("sequence %d, want 3", got)
		}
	})
}

func TestIncludesMayBeThreeLevelsDeepAndOutliveWhatTheyName(t *testing.T) {
	t.Parallel()
	each(t, tableProtocols, func(t *testing.T, p protocol) {
		f := start(t)
		f.put(requestAll(), []string{f.target("a")})
		f.put(requestService(knownService), nil, "request")
		// The dot is the older separator.
		res, out := f.call(p, putRequest(requestMethod(knownMethod), nil, "request."+knownService))
		if out.code != codes.OK {
			t.Fatalf("%+v", out)
		}
		includes := f.executionV3(requestMethod(knownMethod)).GetExecution().GetIncludes()
		if diff := cmp.Diff([]string{"request/" + knownService}, includes); diff != "" {
			t.Errorf("stored includes %s", diff)
		}
		if _, out := f.call(p, &actionv3.DeleteExecutionRequest{Id: "request/" + knownService}); out.code != codes.OK {
			t.Errorf("delete of an included execution: %+v", out)
		}
		again, out := f.call(p, putRequest(requestMethod(knownMethod), nil, "request/"+knownService))
		if out.code != codes.OK {
			t.Fatalf("the same list, although the include is gone: %+v", out)
		}
		if diff := cmp.Diff(res, again, protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestAnExecutionWithoutTargetsIsKeptShownAndDeleted(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.put(requestAll(), []string{f.target("a")})
	f.must(&actionv3.DeleteTargetRequest{Id: f.last})
	got := f.executionV3(requestAll())
	if got == nil || len(got.GetExecution().GetTargets()) != 0 || got.GetDetails().GetSequence() != 2 {
		t.Errorf("execution %v", got)
	}
	f.must(&actionv3.DeleteExecutionRequest{Id: "request"})
}

func TestTheLongestNameCanBePutAndDeleted(t *testing.T) {
	t.Parallel()
	each(t, tableProtocols, func(t *testing.T, p protocol) {
		f := start(t, withoutSchema)
		service := strings.Repeat("ü", 1000)
		c := responseCondition(&actionv3.ResponseExecution{Condition: &actionv3.ResponseExecution_Service{Service: service}})
		if _, out := f.call(p, putRequest(c, []string{f.target("a")})); out.code != codes.OK {
			t.Fatalf("%+v", out)
		}
		if _, out := f.call(p, &actionv3.DeleteExecutionRequest{Id: "response/" + service}); out.code != codes.OK {
			t.Fatalf("%+v", out)
		}
	})
}

func TestDeleteTakesEverySpellingOfAnExecutionID(t *testing.T) {
	t.Parallel()
	method := strings.TrimPrefix(knownMethod, "/")
	for name, row := range map[string]struct {
		condition *actionv3.Condition
		path      string
	}{
		"all":                              {requestAll(), "request"},
		"unencoded service":                {requestService(knownService), "request/" + knownService},
		"unencoded method":                 {requestMethod(knownMethod), "request/" + method},
		"encoded service":                  {requestService(knownService), "request%2F" + knownService},
		"encoded method":                   {requestMethod(knownMethod), "request%2F" + url.PathEscape(method)},
		"method encoded in lower case":     {requestMethod(knownMethod), "request%2f" + strings.ReplaceAll(method, "/", "%2f")},
		"method encoded in part":           {requestMethod(knownMethod), "request/" + url.PathEscape(method)},
		"dot before a service":             {requestService(knownService), "request." + knownService},
		"dot before a method":              {requestMethod(knownMethod), "request." + method},
		"dot before a method with a slash": {requestMethod(knownMethod), "request." + knownMethod},
		"dot before an encoded method":     {requestMethod(knownMethod), "request." + url.PathEscape(knownMethod)},
		"event":                            {event("user.human.added"), "event/user.human.added"},
		"event with a dot":                 {event("user.human.added"), "event.user.human.added"},
		"group":                            {group("user.human"), "event/user.human.*"},
		"encoded group":                    {group("user.human"), "event%2Fuser.human.%2A"},
		"group with a dot":                 {group("user.human"), "event.user.human.*"},
		"function":                         {function("preuserinfo"), "function/preuserinfo"},
		"function with a dot":              {function("preuserinfo"), "function.preuserinfo"},
		"function by its older name":       {function("preuserinfo"), "function/Action.Flow.Type.CustomiseToken.Action.TriggerType.PreUserinfoCreation"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := start(t)
			f.put(row.condition, []string{f.target("a")})
			if out := f.rest("DELETE", "/resources/v3alpha/executions/"+row.path, ""); out.http != 200 {
				t.Errorf("%+v", out)
			}
			if f.executionV3(row.condition) != nil {
				t.Error("still there")
			}
		})
	}
}
