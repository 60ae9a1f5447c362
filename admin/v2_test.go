package admin_test

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/google/go-cmp/cmp"

	"github.com/execgate/execgate/admin"
	actionv2 "github.com/execgate/execgate/gen/zitadel/action/v2"
	filterv2 "github.com/execgate/execgate/gen/zitadel/filter/v2"
	actionv3 "github.com/execgate/execgate/gen/zitadel/resources/action/v3alpha"
)

func v2CreateWith(change func(*actionv2.CreateTargetRequest)) func(*fixture) proto.Message {
	return func(*fixture) proto.Message {
		req := newTargetV2("a target")
		change(req)
		return req
	}
}

func v2Update(change func(*actionv2.UpdateTargetRequest)) func(*fixture) proto.Message {
	return func(f *fixture) proto.Message {
		req := &actionv2.UpdateTargetRequest{Id: f.target("a target")}
		change(req)
		return req
	}
}

func v2Set(c *actionv2.Condition, targets ...string) *actionv2.SetExecutionRequest {
	return &actionv2.SetExecutionRequest{Condition: c, Targets: targets}
}

func v2SetOn(c *actionv2.Condition) func(*fixture) proto.Message {
	return func(f *fixture) proto.Message { return v2Set(c, f.target("a")) }
}

func TestV2RequestsThatAreRefused(t *testing.T) {
	t.Parallel()
	const invalid, notFound = codes.InvalidArgument, codes.NotFound
	const denied, badCond = "Errors.Target.DeniedURL", "Execution condition is invalid"
	long := func(n int) string { return strings.Repeat("ü", n) }
	grpcOnly := []protocol{overGRPC}
	endpoint := func(url string) func(*fixture) proto.Message {
		return v2CreateWith(func(r *actionv2.CreateTargetRequest) { r.Endpoint = url })
	}
	newEndpoint := func(url string) func(*fixture) proto.Message {
		return v2Update(func(r *actionv2.UpdateTargetRequest) { r.Endpoint = &url })
	}
	refuse := []func(*admin.Options){func(o *admin.Options) {
		o.CheckURL = func(_ context.Context, url string) error {
			if strings.Contains(url, "denied") {
				return errors.New("denied")
			}
			return nil
		}
	}}
	events := []func(*admin.Options){withEvents}
	page := &filterv2.PaginationRequest{Limit: 1001}
	filter := func(f *actionv2.TargetSearchFilter) *actionv2.ListTargetsRequest {
		return &actionv2.ListTargetsRequest{Filters: []*actionv2.TargetSearchFilter{f}}
	}
	executionFilter := func(f *actionv2.ExecutionSearchFilter) *actionv2.ListExecutionsRequest {
		return &actionv2.ListExecutionsRequest{Filters: []*actionv2.ExecutionSearchFilter{f}}
	}
	inConditions := func(c ...*actionv2.Condition) *actionv2.ListExecutionsRequest {
		return executionFilter(&actionv2.ExecutionSearchFilter{Filter: &actionv2.ExecutionSearchFilter_InConditionsFilter{InConditionsFilter: &actionv2.InConditionsFilter{Conditions: c}}})
	}
	runFailures(t, []failure{
		{name: "create without a name", given: v2CreateWith(func(r *actionv2.CreateTargetRequest) { r.Name = "" }), code: invalid, text: "name"},
		{name: "create with a name of 1001 characters", given: v2CreateWith(func(r *actionv2.CreateTargetRequest) { r.Name = long(1001) }), code: invalid, text: "name"},
		{name: "create without a type", given: v2CreateWith(func(r *actionv2.CreateTargetRequest) { r.TargetType = nil }), code: invalid, text: "target_type"},
		{name: "create without a timeout", given: v2CreateWith(func(r *actionv2.CreateTargetRequest) { r.Timeout = nil }), code: invalid, id: "COMMAND-39f35d8uri", text: "Target has no timeout"},
		{name: "create with a timeout of zero", given: v2CreateWith(func(r *actionv2.CreateTargetRequest) { r.Timeout = durationpb.New(0) }), code: invalid, id: "COMMAND-39f35d8uri", text: "Target has no timeout"},
		{name: "create with a negative timeout", given: v2CreateWith(func(r *actionv2.CreateTargetRequest) { r.Timeout = durationpb.New(-1) }), code: invalid, text: "timeout"},
		{name: "create with a timeout above 270 s", given: v2CreateWith(func(r *actionv2.CreateTargetRequest) { r.Timeout = durationpb.New(271 * time.Second) }), code: invalid, text: "timeout"},
		{name: "create without an endpoint", given: endpoint(""), code: invalid, text: "endpoint"},
		{name: "create with an endpoint of 2049 characters", given: endpoint("http://h/" + strings.Repeat("a", 2040)), code: invalid, text: "endpoint"},
		{name: "create with a relative endpoint", given: endpoint("/hook"), code: invalid, id: "COMMAND-NcJUKo", text: denied},
		{name: "create with an endpoint without a host", given: endpoint("http:///hook"), code: invalid, id: "COMMAND-NcJUKo", text: denied},
		{name: "create with an ftp endpoint", given: endpoint("ftp://h/hook"), code: invalid, id: "COMMAND-NcJUKo", text: denied},
		{name: "create with an endpoint that does not parse", given: endpoint("http://h/%zz"), code: invalid, id: "COMMAND-NcJUKo", text: denied},
		{name: "create with a denied endpoint", options: refuse, given: endpoint("http://denied/"), code: invalid, id: "COMMAND-NcJUKo", text: denied},
		{name: "create with an unknown payload type", given: v2CreateWith(func(r *actionv2.CreateTargetRequest) { r.PayloadType = 4 }), code: invalid, text: "payload_type"},
		{name: "create under a name in use", given: func(f *fixture) proto.Message { f.target("TAKEN"); return newTargetV2("taken") }, code: codes.AlreadyExists, id: "V3-DKcYh", text: "Errors.Target.AlreadyExists"},

		{name: "update without an id", given: ask(&actionv2.UpdateTargetRequest{}), code: invalid, text: "id", only: grpcOnly},
		{name: "update with an id of 201 characters", given: ask(&actionv2.UpdateTargetRequest{Id: long(201)}), code: invalid, text: "id"},
		{name: "update of an unknown id", given: ask(&actionv2.UpdateTargetRequest{Id: "1"}), code: notFound, id: "COMMAND-xj14f2cccn", text: "Target not found"},
		{name: "update to an empty name", given: v2Update(func(r *actionv2.UpdateTargetRequest) { r.Name = proto.String("") }), code: invalid, text: "name"},
		{name: "update to a timeout of zero", given: v2Update(func(r *actionv2.UpdateTargetRequest) { r.Timeout = durationpb.New(0) }), code: invalid, id: "COMMAND-08b39vdi57", text: "Target has no timeout"},
		{name: "update to a timeout above 270 s", given: v2Update(func(r *actionv2.UpdateTargetRequest) { r.Timeout = durationpb.New(300 * time.Second) }), code: invalid, text: "timeout"},
		{name: "update to an empty endpoint", given: newEndpoint(""), code: invalid, text: "endpoint"},
		{name: "update to a relative endpoint", given: newEndpoint("hook"), code: invalid, id: "COMMAND-jKbbu2", text: denied},
		{name: "update to a denied endpoint", options: refuse, given: newEndpoint("http://denied/"), code: invalid, id: "COMMAND-jKbbu2", text: denied},
		{name: "update with an expiration of the signing key in the future", given: v2Update(func(r *actionv2.UpdateTargetRequest) { r.ExpirationSigningKey = durationpb.New(time.Second) }), code: invalid, text: "expiration_signing_key"},
		{name: "update with an unknown payload type", given: v2Update(func(r *actionv2.UpdateTargetRequest) { r.PayloadType = 9 }), code: invalid, text: "payload_type"},
		{name: "update to a name in use", given: func(f *fixture) proto.Message {
			f.target("Other")
			return &actionv2.UpdateTargetRequest{Id: f.target("mine"), Name: proto.String("other")}
		}, code: codes.AlreadyExists, id: "V3-DKcYh", text: "Errors.Target.AlreadyExists"},

		{name: "delete without an id", given: ask(&actionv2.DeleteTargetRequest{}), code: invalid, text: "id", only: grpcOnly},
		{name: "get without an id", given: ask(&actionv2.GetTargetRequest{}), code: invalid, text: "id", only: grpcOnly},
		{name: "get of an unknown id", given: ask(&actionv2.GetTargetRequest{Id: "1"}), code: notFound, id: "QUERY-hj5oaniyrz", text: "Target not found"},

		{name: "list above the limit", given: ask(&actionv2.ListTargetsRequest{Pagination: page}), code: invalid, id: "QUERY-4M0fs", text: "Limit exceeded"},
		{name: "list of executions above the limit", given: ask(&actionv2.ListExecutionsRequest{Pagination: page}), code: invalid, id: "QUERY-4M0fs", text: "Limit exceeded"},
		{name: "list with an empty filter", given: ask(filter(&actionv2.TargetSearchFilter{})), code: invalid, text: "filter"},
		{name: "list with no ids", given: ask(filter(&actionv2.TargetSearchFilter{Filter: &actionv2.TargetSearchFilter_InTargetIdsFilter{InTargetIdsFilter: &actionv2.InTargetIDsFilter{}}})), code: invalid, text: "target_ids"},
		{name: "list with a name of 201 characters", given: ask(filter(v2ByName(long(201), 0))), code: invalid, text: "name"},
		{name: "list with an unknown method", given: ask(filter(v2ByName("a", 8))), code: invalid, text: "method"},
		{name: "list with an unknown column", given: ask(&actionv2.ListTargetsRequest{SortingColumn: actionv2.TargetFieldName(9).Enum()}), code: invalid, text: "sorting_column"},
		{name: "list of executions with an empty filter", given: ask(executionFilter(&actionv2.ExecutionSearchFilter{})), code: invalid, text: "filter"},
		{name: "list of executions with no conditions", given: ask(inConditions()), code: invalid, text: "conditions"},
		{name: "list of executions with a condition without level", given: ask(inConditions(v2Request(&actionv2.RequestExecution{}))), code: invalid, text: "condition"},
		{name: "list of executions with a function without name", given: ask(inConditions(v2Function(""))), code: invalid, text: "function"},
		{name: "list of executions with an empty target", given: ask(executionFilter(&actionv2.ExecutionSearchFilter{Filter: &actionv2.ExecutionSearchFilter_TargetFilter{TargetFilter: &actionv2.TargetFilter{}}})), code: invalid, text: "target_id"},

		{name: "set without a condition", given: v2SetOn(nil), code: invalid, text: "condition"},
		{name: "set with an empty condition", given: v2SetOn(&actionv2.Condition{}), code: invalid, text: "condition"},
		{name: "set of a request without level", given: v2SetOn(v2Request(&actionv2.RequestExecution{})), code: invalid, text: "condition"},
		{name: "set of an event without level", given: v2SetOn(v2Event(&actionv2.EventExecution{})), code: invalid, text: "condition"},
		{name: "set of all that is false", given: v2SetOn(v2Request(&actionv2.RequestExecution{Condition: &actionv2.RequestExecution_All{}})), code: invalid, text: "all"},
		{name: "set of a function without name", given: v2SetOn(v2Function("")), code: invalid, text: "function"},
		{name: "set of a function of 1001 characters", given: v2SetOn(v2Function(long(1001))), code: invalid, text: "function"},
		{name: "set of a method of 1001 characters", given: v2SetOn(v2RequestMethod(long(1001))), code: invalid, text: "method"},
		{name: "set of an unknown method", given: v2SetOn(v2RequestMethod("/x.Y/Z")), code: notFound, id: "COMMAND-vysplsevt8", text: badCond},
		{name: "set of an unknown service", given: v2SetOn(v2Request(&actionv2.RequestExecution{Condition: &actionv2.RequestExecution_Service{Service: "x.Y"}})), code: notFound, id: "COMMAND-qu6dfhiioq", text: badCond},
		{name: "set of an unknown function", given: v2SetOn(v2Function("x")), code: notFound, id: "COMMAND-cdy39t0ksr", text: badCond},
		{name: "set of an unknown event", options: events, given: v2SetOn(v2Event(&actionv2.EventExecution{Condition: &actionv2.EventExecution_Event{Event: "x"}})), code: notFound, id: "COMMAND-74aaqj8fv9", text: badCond},
		{name: "set of an unknown group", options: events, given: v2SetOn(v2Event(&actionv2.EventExecution{Condition: &actionv2.EventExecution_Group{Group: "use"}})), code: notFound, id: "COMMAND-er5oneb5lz", text: badCond},
		{name: "set with an empty target before an unknown method", given: ask(v2Set(v2RequestMethod("/x.Y/Z"), "")), code: invalid, id: "COMMAND-hdm4zl1hmd", text: "Execution is invalid"},
		{name: "set with an unknown target", given: ask(v2Set(v2RequestAll(), "1")), code: notFound, id: "COMMAND-17e8fq1ggk", text: "Target not found"},
		{name: "set with a target twice", given: func(f *fixture) proto.Message {
			f.target("a")
			return v2Set(v2RequestAll(), f.last, f.last)
		}, code: notFound, id: "COMMAND-17e8fq1ggk", text: "Target not found"},
		{name: "set of the same list after its target was deleted", given: func(f *fixture) proto.Message {
			f.must(v2Set(v2RequestAll(), f.target("a"), f.target("b")))
			f.must(&actionv2.DeleteTargetRequest{Id: f.last})
			return v2Set(v2RequestAll(), f.last)
		}, code: notFound, id: "COMMAND-17e8fq1ggk", text: "Target not found"},
	})
}

func v2ByName(name string, method filterv2.TextFilterMethod) *actionv2.TargetSearchFilter {
	return &actionv2.TargetSearchFilter{Filter: &actionv2.TargetSearchFilter_TargetNameFilter{TargetNameFilter: &actionv2.TargetNameFilter{TargetName: name, Method: method}}}
}

func TestAV2TargetIsReadAsItWasGiven(t *testing.T) {
	t.Parallel()
	each(t, tableProtocols, func(t *testing.T, p protocol) {
		for name, row := range map[string]struct {
			give func(*actionv2.CreateTargetRequest)
			want func(*actionv2.Target)
		}{
			"webhook": {func(r *actionv2.CreateTargetRequest) {}, func(o *actionv2.Target) {
				o.TargetType = &actionv2.Target_RestWebhook{RestWebhook: &actionv2.RESTWebhook{}}
			}},
			"interrupting webhook": {func(r *actionv2.CreateTargetRequest) { r.GetRestWebhook().InterruptOnError = true }, func(o *actionv2.Target) {
				o.TargetType = &actionv2.Target_RestWebhook{RestWebhook: &actionv2.RESTWebhook{InterruptOnError: true}}
			}},
			"call": {func(r *actionv2.CreateTargetRequest) {
				r.TargetType = &actionv2.CreateTargetRequest_RestCall{RestCall: &actionv2.RESTCall{InterruptOnError: true}}
			},
				func(o *actionv2.Target) {
					o.TargetType = &actionv2.Target_RestCall{RestCall: &actionv2.RESTCall{InterruptOnError: true}}
				}},
			"async and jwe": {func(r *actionv2.CreateTargetRequest) {
				r.TargetType = &actionv2.CreateTargetRequest_RestAsync{RestAsync: &actionv2.RESTAsync{}}
				r.PayloadType = actionv2.PayloadType_PAYLOAD_TYPE_JWE
			}, func(o *actionv2.Target) {
				o.TargetType, o.PayloadType = &actionv2.Target_RestAsync{RestAsync: &actionv2.RESTAsync{}}, actionv2.PayloadType_PAYLOAD_TYPE_JWE
			}},
			"endpoint of 2048 characters": {func(r *actionv2.CreateTargetRequest) { r.Endpoint = "http://h/" + strings.Repeat("a", 2039) },
				func(o *actionv2.Target) {
					o.TargetType = &actionv2.Target_RestWebhook{RestWebhook: &actionv2.RESTWebhook{}}
					o.Endpoint = "http://h/" + strings.Repeat("a", 2039)
				}},
		} {
			f := start(t)
			req := newTargetV2("a")
			row.give(req)
			res, out := f.call(p, req)
			if out.code != codes.OK || p == overREST && out.http != 200 {
				t.Fatalf("%s: %+v", name, out)
			}
			created := res.(*actionv2.CreateTargetResponse)
			if !regexp.MustCompile(`^[a-zA-Z0-9]{36}$`).MatchString(created.GetSigningKey()) {
				t.Errorf("%s: signing key %q", name, created.GetSigningKey())
			}
			want := &actionv2.Target{
				Id: created.GetId(), CreationDate: created.GetCreationDate(), ChangeDate: created.GetCreationDate(), Name: "a",
				Timeout: req.GetTimeout(), Endpoint: req.GetEndpoint(), SigningKey: created.GetSigningKey(),
			}
			row.want(want)
			got, _ := f.call(p, &actionv2.GetTargetRequest{Id: created.GetId()})
			if diff := cmp.Diff(want, got.(*actionv2.GetTargetResponse).GetTarget(), protocmp.Transform()); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
			list, _ := f.call(p, &actionv2.ListTargetsRequest{})
			if diff := cmp.Diff([]*actionv2.Target{want}, list.(*actionv2.ListTargetsResponse).GetTargets(), protocmp.Transform()); diff != "" {
				t.Errorf("%s, listed: %s", name, diff)
			}
		}
	})
}

func TestAV2UpdateChangesWhatIsGivenOnly(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		update *actionv2.UpdateTargetRequest
		want   func(*actionv2.Target) // nil: no change
	}{
		"nothing": {&actionv2.UpdateTargetRequest{}, nil},
		"equal values": {&actionv2.UpdateTargetRequest{
			Name: proto.String("a"), Endpoint: proto.String("https://hooks.example.com/x"), Timeout: durationpb.New(10 * time.Second),
			TargetType: &actionv2.UpdateTargetRequest_RestWebhook{RestWebhook: &actionv2.RESTWebhook{InterruptOnError: true}},
		}, nil},
		"name":     {&actionv2.UpdateTargetRequest{Name: proto.String("A")}, func(o *actionv2.Target) { o.Name = "A" }},
		"timeout":  {&actionv2.UpdateTargetRequest{Timeout: durationpb.New(1)}, func(o *actionv2.Target) { o.Timeout = durationpb.New(1) }},
		"endpoint": {&actionv2.UpdateTargetRequest{Endpoint: proto.String("http://h/")}, func(o *actionv2.Target) { o.Endpoint = "http://h/" }},
		"type replaces the interrupt flag, the endpoint stays": {
			&actionv2.UpdateTargetRequest{TargetType: &actionv2.UpdateTargetRequest_RestCall{RestCall: &actionv2.RESTCall{}}},
			func(o *actionv2.Target) { o.TargetType = &actionv2.Target_RestCall{RestCall: &actionv2.RESTCall{}} },
		},
		"interrupt from true to false": {
			&actionv2.UpdateTargetRequest{TargetType: &actionv2.UpdateTargetRequest_RestWebhook{RestWebhook: &actionv2.RESTWebhook{}}},
			func(o *actionv2.Target) {
				o.TargetType = &actionv2.Target_RestWebhook{RestWebhook: &actionv2.RESTWebhook{}}
			},
		},
		"async": {
			&actionv2.UpdateTargetRequest{TargetType: &actionv2.UpdateTargetRequest_RestAsync{RestAsync: &actionv2.RESTAsync{}}},
			func(o *actionv2.Target) { o.TargetType = &actionv2.Target_RestAsync{RestAsync: &actionv2.RESTAsync{}} },
		},
		"payload type": {
			&actionv2.UpdateTargetRequest{PayloadType: actionv2.PayloadType_PAYLOAD_TYPE_JWT},
			func(o *actionv2.Target) { o.PayloadType = actionv2.PayloadType_PAYLOAD_TYPE_JWT },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			each(t, tableProtocols, func(t *testing.T, p protocol) {
				f := start(t)
				req := newTargetV2("a")
				req.GetRestWebhook().InterruptOnError = true
				id := f.must(req).(*actionv2.CreateTargetResponse).GetId()
				want := f.getV2(id)
				update := proto.CloneOf(row.update)
				update.Id = id
				res, out := f.call(p, update)
				if out.code != codes.OK || p == overREST && out.http != 200 {
					t.Fatalf("%+v", out)
				}
				answer := res.(*actionv2.UpdateTargetResponse)
				if moved := answer.GetChangeDate().AsTime().After(want.GetChangeDate().AsTime()); moved != (row.want != nil) || answer.SigningKey != nil {
					t.Errorf("answer %v, change date before %v", answer, want.GetChangeDate())
				}
				if row.want != nil {
					row.want(want)
					want.ChangeDate = answer.GetChangeDate()
				}
				if diff := cmp.Diff(want, f.getV2(id), protocmp.Transform()); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

func TestASigningKeyIsRotatedAtOnce(t *testing.T) {
	t.Parallel()
	each(t, tableProtocols, func(t *testing.T, p protocol) {
		f := start(t)
		id := f.target("a")
		before := f.getV2(id)
		res, out := f.call(p, &actionv2.UpdateTargetRequest{Id: id, ExpirationSigningKey: durationpb.New(0)})
		if out.code != codes.OK {
			t.Fatalf("%+v", out)
		}
		key, after := res.(*actionv2.UpdateTargetResponse).GetSigningKey(), f.getV2(id)
		if len(key) != 36 || key == before.GetSigningKey() || after.GetSigningKey() != key || !after.GetChangeDate().AsTime().After(before.GetChangeDate().AsTime()) {
			t.Errorf("key %q, before %v, after %v", key, before, after)
		}
		f.must(&actionv2.UpdateTargetRequest{Id: id, Name: proto.String("b")})
		if got := f.getV2(id).GetSigningKey(); got != key {
			t.Errorf("an update without rotation changed the key to %q", got)
		}
	})
}

func TestAV2DeleteOfWhatIsNotThereSucceeds(t *testing.T) {
	t.Parallel()
	each(t, tableProtocols, func(t *testing.T, p protocol) {
		f := start(t)
		remove := func(id string) *actionv2.DeleteTargetResponse {
			t.Helper()
			res, out := f.call(p, &actionv2.DeleteTargetRequest{Id: id})
			if out.code != codes.OK || p == overREST && out.http != 200 {
				t.Fatalf("%+v", out)
			}
			return res.(*actionv2.DeleteTargetResponse)
		}
		if res := remove("1"); res.GetDeletionDate() != nil {
			t.Errorf("of what never was: %v", res)
		}
		id := f.target("a")
		first, again := remove(id), remove(id)
		if first.GetDeletionDate() == nil || !proto.Equal(first, again) {
			t.Errorf("first %v, again %v", first, again)
		}
	})
}

func TestV2SetExecution(t *testing.T) {
	t.Parallel()
	each(t, tableProtocols, func(t *testing.T, p protocol) {
		f := start(t)
		a, b := f.target("a"), f.target("b")
		set := func(targets ...string) *actionv2.SetExecutionResponse {
			t.Helper()
			res, out := f.call(p, v2Set(v2RequestAll(), targets...))
			if out.code != codes.OK || p == overREST && out.http != 200 {
				t.Fatalf("%+v", out)
			}
			return res.(*actionv2.SetExecutionResponse)
		}
		listed := func() []*actionv2.Execution {
			t.Helper()
			return f.must(&actionv2.ListExecutionsRequest{}).(*actionv2.ListExecutionsResponse).GetExecutions()
		}
		revision := f.replica.State().Revision()
		if res := set(); res.GetSetDate() != nil || f.replica.State().Revision() != revision {
			t.Errorf("an empty list of what was never set: %v", res)
		}
		first := set(a, b)
		want := &actionv2.Execution{Condition: v2RequestAll(), CreationDate: first.GetSetDate(), ChangeDate: first.GetSetDate(), Targets: []string{a, b}}
		if diff := cmp.Diff([]*actionv2.Execution{want}, listed(), protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
		if again := set(a, b); !proto.Equal(first, again) {
			t.Errorf("the same list: %v, first %v", again, first)
		}
		other := set(b, a)
		if !other.GetSetDate().AsTime().After(first.GetSetDate().AsTime()) {
			t.Errorf("another order: %v, first %v", other, first)
		}
		empty := set()
		if !empty.GetSetDate().AsTime().After(other.GetSetDate().AsTime()) || len(listed()) != 0 {
			t.Errorf("an empty list: %v; listed %v", empty, listed())
		}
		if again := set(); !proto.Equal(empty, again) {
			t.Errorf("an empty list again: %v, before %v", again, empty)
		}
		if got := f.executionV3(requestAll()); got == nil || got.GetDetails().GetSequence() != 3 {
			t.Errorf("v3alpha shows %v", got)
		}
		f.must(&actionv3.DeleteExecutionRequest{Id: "request"})
		if res := set(); res.GetSetDate() == nil {
			t.Error("an empty list of a deleted execution has no date, although something was set")
		}
	})
}

func TestV2ListsExecutions(t *testing.T) {
	t.Parallel()
	each(t, tableProtocols, func(t *testing.T, p protocol) {
		f := start(t)
		a, b := f.target("a"), f.target("b")
		f.must(v2Set(v2RequestAll(), a))
		f.must(v2Set(v2RequestMethod(knownMethod), b, a))
		f.must(v2Set(v2Function("Action.Flow.Type.CustomiseToken.Action.TriggerType.PreUserinfoCreation"), b))
		f.must(v2Set(v2Event(&actionv2.EventExecution{Condition: &actionv2.EventExecution_Group{Group: "user.*"}}), a))
		f.must(v2Set(v2RequestAll(), b)) // changes last
		list := func(change func(*actionv2.ListExecutionsRequest)) (kinds string, res *actionv2.ListExecutionsResponse) {
			t.Helper()
			req := &actionv2.ListExecutionsRequest{Pagination: &filterv2.PaginationRequest{Asc: true}}
			change(req)
			message, out := f.call(p, req)
			if out.code != codes.OK {
				t.Fatalf("%+v", out)
			}
			res = message.(*actionv2.ListExecutionsResponse)
			for _, e := range res.GetExecutions() {
				switch c := e.GetCondition(); {
				case c.GetRequest().GetAll():
					kinds += "A"
				case c.GetRequest().GetMethod() == knownMethod:
					kinds += "M"
				case c.GetFunction().GetName() == "preuserinfo":
					kinds += "F"
				case c.GetEvent().GetGroup() == "user":
					kinds += "G"
				default:
					kinds += "?"
				}
			}
			return kinds, res
		}
		filter := func(f ...*actionv2.ExecutionSearchFilter) func(*actionv2.ListExecutionsRequest) {
			return func(r *actionv2.ListExecutionsRequest) { r.Filters = f }
		}
		sorted := func(column actionv2.ExecutionFieldName) func(*actionv2.ListExecutionsRequest) {
			return func(r *actionv2.ListExecutionsRequest) { r.SortingColumn = &column }
		}
		byTarget := func(id string) *actionv2.ExecutionSearchFilter {
			return &actionv2.ExecutionSearchFilter{Filter: &actionv2.ExecutionSearchFilter_TargetFilter{TargetFilter: &actionv2.TargetFilter{TargetId: id}}}
		}
		byType := func(t actionv2.ExecutionType) *actionv2.ExecutionSearchFilter {
			return &actionv2.ExecutionSearchFilter{Filter: &actionv2.ExecutionSearchFilter_ExecutionTypeFilter{ExecutionTypeFilter: &actionv2.ExecutionTypeFilter{ExecutionType: t}}}
		}
		byCondition := func(c ...*actionv2.Condition) *actionv2.ExecutionSearchFilter {
			return &actionv2.ExecutionSearchFilter{Filter: &actionv2.ExecutionSearchFilter_InConditionsFilter{InConditionsFilter: &actionv2.InConditionsFilter{Conditions: c}}}
		}
		for name, row := range map[string]struct {
			change func(*actionv2.ListExecutionsRequest)
			want   string
		}{
			"ascending by creation": {func(*actionv2.ListExecutionsRequest) {}, "AMFG"},
			"descending by default": {func(r *actionv2.ListExecutionsRequest) { r.Pagination = nil }, "GFMA"},
			"by creation date":      {sorted(actionv2.ExecutionFieldName_EXECUTION_FIELD_NAME_CREATED_DATE), "AMFG"},
			"unspecified column":    {sorted(0), "AMFG"},
			"by id":                 {sorted(actionv2.ExecutionFieldName_EXECUTION_FIELD_NAME_ID), "GFAM"},
			"by change date":        {sorted(actionv2.ExecutionFieldName_EXECUTION_FIELD_NAME_CHANGED_DATE), "MFGA"},
			"target":                {filter(byTarget(a)), "MG"},
			"type":                  {filter(byType(actionv2.ExecutionType_EXECUTION_TYPE_REQUEST)), "AM"},
			"type unspecified":      {filter(byType(0)), "AMFG"},
			"conditions":            {filter(byCondition(v2RequestAll(), v2Function("preuserinfo"))), "AF"},
			"type and target":       {filter(byType(actionv2.ExecutionType_EXECUTION_TYPE_REQUEST), byTarget(a)), "M"},
			"page":                  {func(r *actionv2.ListExecutionsRequest) { r.Pagination.Offset, r.Pagination.Limit = 1, 2 }, "MF"},
			"page that is past all": {func(r *actionv2.ListExecutionsRequest) { r.Pagination.Offset = 9 }, ""},
		} {
			got, res := list(row.change)
			if got != row.want {
				t.Errorf("%s: %s, want %s", name, got, row.want)
			}
			if strings.HasPrefix(name, "page") && res.GetPagination().GetTotalResult() != 4 {
				t.Errorf("%s: %v", name, res.GetPagination())
			}
		}
	})
}

func TestV2ListsTargets(t *testing.T) {
	t.Parallel()
	f := start(t)
	for _, row := range []struct {
		name string
		give func(*actionv2.CreateTargetRequest)
	}{
		{"d", func(r *actionv2.CreateTargetRequest) {
			r.TargetType = &actionv2.CreateTargetRequest_RestAsync{RestAsync: &actionv2.RESTAsync{}}
		}},
		{"a", func(r *actionv2.CreateTargetRequest) {
			r.TargetType = &actionv2.CreateTargetRequest_RestCall{RestCall: &actionv2.RESTCall{InterruptOnError: true}}
			r.Endpoint = "http://b/"
		}},
		{"C", func(r *actionv2.CreateTargetRequest) { r.Endpoint, r.Timeout = "http://a/", durationpb.New(1) }},
	} {
		req := newTargetV2(row.name)
		row.give(req)
		f.must(req)
	}
	list := func(p protocol, req *actionv2.ListTargetsRequest) (names string) {
		t.Helper()
		res, out := f.call(p, req)
		if out.code != codes.OK {
			t.Fatalf("%+v", out)
		}
		for _, target := range res.(*actionv2.ListTargetsResponse).GetTargets() {
			names += target.GetName()
		}
		return names
	}
	for column, want := range map[actionv2.TargetFieldName]string{
		actionv2.TargetFieldName_TARGET_FIELD_NAME_UNSPECIFIED:        "daC",
		actionv2.TargetFieldName_TARGET_FIELD_NAME_ID:                 "daC",
		actionv2.TargetFieldName_TARGET_FIELD_NAME_CREATED_DATE:       "daC",
		actionv2.TargetFieldName_TARGET_FIELD_NAME_CHANGED_DATE:       "daC",
		actionv2.TargetFieldName_TARGET_FIELD_NAME_NAME:               "Cad",
		actionv2.TargetFieldName_TARGET_FIELD_NAME_TARGET_TYPE:        "Cad",
		actionv2.TargetFieldName_TARGET_FIELD_NAME_URL:                "Cad",
		actionv2.TargetFieldName_TARGET_FIELD_NAME_TIMEOUT:            "Cda",
		actionv2.TargetFieldName_TARGET_FIELD_NAME_INTERRUPT_ON_ERROR: "dCa",
	} {
		for _, p := range tableProtocols {
			for _, asc := range []bool{true, false} {
				got := []byte(list(p, &actionv2.ListTargetsRequest{SortingColumn: column.Enum(), Pagination: &filterv2.PaginationRequest{Asc: asc}}))
				if !asc {
					slices.Reverse(got)
				}
				if string(got) != want {
					t.Errorf("%s %v asc %t: %s, want %s", p, column, asc, got, want)
				}
			}
		}
	}
	filtered := &actionv2.ListTargetsRequest{Filters: []*actionv2.TargetSearchFilter{v2ByName("c", filterv2.TextFilterMethod_TEXT_FILTER_METHOD_EQUALS_IGNORE_CASE)}}
	if got := list(overREST, filtered); got != "C" {
		t.Errorf("name filter: %s", got)
	}
	ids := &actionv2.InTargetIDsFilter{TargetIds: []string{"x", f.replica.State().TargetByName("a").ID}}
	if got := list(overREST, &actionv2.ListTargetsRequest{Filters: []*actionv2.TargetSearchFilter{{Filter: &actionv2.TargetSearchFilter_InTargetIdsFilter{InTargetIdsFilter: ids}}}}); got != "a" {
		t.Errorf("ids filter: %s", got)
	}
	res := f.must(&actionv2.ListTargetsRequest{Pagination: &filterv2.PaginationRequest{Limit: 2, Offset: 7}}).(*actionv2.ListTargetsResponse)
	if d := res.GetPagination(); d.GetTotalResult() != 3 || d.GetAppliedLimit() != 2 || len(res.GetTargets()) != 0 {
		t.Errorf("pagination %v", d)
	}
}

func TestTheListsOfWhatConditionsMayName(t *testing.T) {
	t.Parallel()
	methods := slices.Sorted(slices.Values(upstreamMethods))
	services := slices.Sorted(slices.Values(upstreamServices))
	functions := []string{"preaccesstoken", "presamlresponse", "preuserinfo"}
	each(t, allProtocols, func(t *testing.T, p protocol) {
		f := start(t)
		for _, row := range []struct{ req, want proto.Message }{
			{&actionv3.ListAvailableExecutionFunctionsRequest{}, &actionv3.ListAvailableExecutionFunctionsResponse{Functions: functions}},
			{&actionv3.ListAvailableExecutionMethodsRequest{}, &actionv3.ListAvailableExecutionMethodsResponse{Methods: methods}},
			{&actionv3.ListAvailableExecutionServicesRequest{}, &actionv3.ListAvailableExecutionServicesResponse{Services: services}},
			{&actionv2.ListExecutionFunctionsRequest{}, &actionv2.ListExecutionFunctionsResponse{Functions: functions}},
			{&actionv2.ListExecutionMethodsRequest{}, &actionv2.ListExecutionMethodsResponse{Methods: methods}},
			{&actionv2.ListExecutionServicesRequest{}, &actionv2.ListExecutionServicesResponse{Services: services}},
		} {
			got, out := f.call(p, row.req)
			if diff := cmp.Diff(row.want, got, protocmp.Transform()); diff != "" || out.code != codes.OK {
				t.Errorf("%T: %+v %s", row.req, out, diff)
			}
		}
	})
}
