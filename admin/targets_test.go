package admin_test

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/google/go-cmp/cmp"

	"github.com/execgate/execgate/admin"
	objectv3 "github.com/execgate/execgate/gen/zitadel/object/v3alpha"
	actionv3 "github.com/execgate/execgate/gen/zitadel/resources/action/v3alpha"
	resourcev3 "github.com/execgate/execgate/gen/zitadel/resources/object/v3alpha"
)

// createWith is a valid request to create a target, changed.
func createWith(change func(*actionv3.Target)) func(*fixture) proto.Message {
	return func(*fixture) proto.Message {
		req := newTarget("a target")
		change(req.GetTarget())
		return req
	}
}

func withURL(url string) func(*fixture) proto.Message {
	return createWith(func(t *actionv3.Target) {
		t.TargetType = &actionv3.Target_RestRequestResponse{RestRequestResponse: &actionv3.SetRESTRequestResponse{Url: url}}
	})
}

// patchWith patches an existing target.
func patchWith(patch *actionv3.PatchTarget) func(*fixture) proto.Message {
	return func(f *fixture) proto.Message {
		return &actionv3.PatchTargetRequest{Id: f.target("a target"), Target: patch}
	}
}

func patchURL(url string) func(*fixture) proto.Message {
	return patchWith(&actionv3.PatchTarget{TargetType: &actionv3.PatchTarget_RestWebhook{RestWebhook: &actionv3.SetRESTWebhook{Url: url}}})
}

func denyAll(o *admin.Options) {
	o.CheckURL = func(context.Context, string) error { return errors.New("denied") }
}

func TestTargetRequestsThatAreRefused(t *testing.T) {
	t.Parallel()
	const invalid = codes.InvalidArgument
	long := func(n int) string { return strings.Repeat("ü", n) }
	longURL := func(n int) string {
		return "https://h.example.com/" + strings.Repeat("a", n-len("https://h.example.com/"))
	}
	grpcOnly := []protocol{overGRPC}
	runFailures(t, []failure{
		{name: "create without a target", given: ask(&actionv3.CreateTargetRequest{}), code: invalid},
		{name: "create without a type", given: createWith(func(t *actionv3.Target) { t.TargetType = nil }), code: invalid, text: "target_type"},
		{name: "create without a name", given: createWith(func(t *actionv3.Target) { t.Name = "" }), code: invalid, id: "COMMAND-ddqbm9us5p", text: "Target is invalid"},
		{name: "create with a name of 1001 characters", given: createWith(func(t *actionv3.Target) { t.Name = long(1001) }), code: invalid, id: "COMMAND-ddqbm9us5p", text: "Target is invalid"},
		{name: "create with an empty url", given: withURL(""), code: invalid, text: "url"},
		{name: "create with a url of 1001 characters", given: withURL(longURL(1001)), code: invalid, text: "url"},
		{name: "create with a relative url", given: withURL("/hook"), code: invalid, text: "url"},
		{name: "create with a url without a scheme", given: withURL("example.com/hook"), code: invalid, text: "url"},
		{name: "create with an ftp url", given: withURL("ftp://example.com/hook"), code: invalid, text: "url"},
		{name: "create with a url without a host", given: withURL("https:///hook"), code: invalid, text: "url"},
		{name: "create with a url that does not parse", given: withURL("https://exa mple.com/%zz"), code: invalid, text: "url"},
		{name: "create without a timeout", given: createWith(func(t *actionv3.Target) { t.Timeout = nil }), code: invalid, id: "COMMAND-39f35d8uri", text: "Target has no timeout"},
		{name: "create with a timeout of zero", given: createWith(func(t *actionv3.Target) { t.Timeout = durationpb.New(0) }), code: invalid, id: "COMMAND-39f35d8uri", text: "Target has no timeout"},
		{name: "create with a negative timeout", given: createWith(func(t *actionv3.Target) { t.Timeout = durationpb.New(-time.Second) }), code: invalid, text: "timeout"},
		{name: "create with a timeout above 270 s", given: createWith(func(t *actionv3.Target) { t.Timeout = durationpb.New(270*time.Second + 1) }), code: invalid, text: "timeout"},
		{name: "create with a timeout that is no duration", given: createWith(func(t *actionv3.Target) { t.Timeout = &durationpb.Duration{Seconds: 1, Nanos: -1} }), code: invalid, text: "timeout", only: grpcOnly},
		{name: "create at a denied url", options: []func(*admin.Options){denyAll}, given: withURL("https://10.0.0.1/"), code: invalid, id: "COMMAND-NcJUKo", text: "Errors.Target.DeniedURL"},
		{name: "create under a name in use", given: func(f *fixture) proto.Message { f.target("Taken"); return newTarget("Taken") }, code: codes.AlreadyExists, id: "V3-DKcYh", text: "Errors.Target.AlreadyExists"},
		{name: "create under a name in use in other letter case", given: func(f *fixture) proto.Message { f.target("TÄKEN"); return newTarget("täken") }, code: codes.AlreadyExists, id: "V3-DKcYh", text: "Errors.Target.AlreadyExists"},

		{name: "patch without an id", given: ask(&actionv3.PatchTargetRequest{Target: &actionv3.PatchTarget{}}), code: invalid, text: "id", only: grpcOnly},
		{name: "patch with an id of 201 characters", given: ask(&actionv3.PatchTargetRequest{Id: long(201), Target: &actionv3.PatchTarget{}}), code: invalid, text: "id"},
		{name: "patch without a target message", given: func(f *fixture) proto.Message { return &actionv3.PatchTargetRequest{Id: f.target("a")} }, code: invalid, text: "target", only: grpcOnly},
		{name: "patch of an unknown id", given: ask(&actionv3.PatchTargetRequest{Id: "unknown", Target: &actionv3.PatchTarget{Name: proto.String("x")}}), code: codes.NotFound, id: "COMMAND-xj14f2cccn", text: "Target not found"},
		{name: "patch of a deleted id", given: func(f *fixture) proto.Message {
			id := f.target("a")
			f.must(&actionv3.DeleteTargetRequest{Id: id})
			return &actionv3.PatchTargetRequest{Id: id, Target: &actionv3.PatchTarget{}}
		}, code: codes.NotFound, id: "COMMAND-xj14f2cccn", text: "Target not found"},
		{name: "patch to an empty name", given: patchWith(&actionv3.PatchTarget{Name: proto.String("")}), code: invalid, id: "COMMAND-d1wx4lm0zr", text: "Target is invalid"},
		{name: "patch to a timeout of zero", given: patchWith(&actionv3.PatchTarget{Timeout: durationpb.New(0)}), code: invalid, id: "COMMAND-08b39vdi57", text: "Target has no timeout"},
		{name: "patch to a negative timeout", given: patchWith(&actionv3.PatchTarget{Timeout: durationpb.New(-1)}), code: invalid, text: "timeout"},
		{name: "patch to a timeout above 270 s", given: patchWith(&actionv3.PatchTarget{Timeout: durationpb.New(271 * time.Second)}), code: invalid, text: "timeout"},
		{name: "patch to an empty url", given: patchURL(""), code: invalid, text: "url"},
		{name: "patch to a relative url", given: patchURL("hook"), code: invalid, text: "url"},
		{name: "patch to a ws url", given: patchURL("ws://example.com/"), code: invalid, text: "url"},
		{name: "patch to a name of another target", given: func(f *fixture) proto.Message {
			f.target("Other")
			return &actionv3.PatchTargetRequest{Id: f.target("mine"), Target: &actionv3.PatchTarget{Name: proto.String("oTHER")}}
		}, code: codes.AlreadyExists, id: "V3-DKcYh", text: "Errors.Target.AlreadyExists"},
		{name: "patch to a denied url", options: []func(*admin.Options){denyThird}, given: patchURL("https://third.example.com/"), code: invalid, id: "COMMAND-jKbbu2", text: "Errors.Target.DeniedURL"},

		{name: "delete without an id", given: ask(&actionv3.DeleteTargetRequest{}), code: invalid, text: "id", only: grpcOnly},
		{name: "delete with an id of 201 characters", given: ask(&actionv3.DeleteTargetRequest{Id: long(201)}), code: invalid, text: "id"},
		{name: "delete of an unknown id", given: ask(&actionv3.DeleteTargetRequest{Id: long(200)}), code: codes.NotFound, id: "COMMAND-k4s7ucu0ax", text: "Target not found"},
		{name: "delete of a deleted id", given: func(f *fixture) proto.Message {
			id := f.target("a")
			f.must(&actionv3.DeleteTargetRequest{Id: id})
			return &actionv3.DeleteTargetRequest{Id: id}
		}, code: codes.NotFound, id: "COMMAND-k4s7ucu0ax", text: "Target not found"},
		{name: "get without an id", given: ask(&actionv3.GetTargetRequest{}), code: invalid, text: "id", only: grpcOnly},
		{name: "get of an unknown id", given: ask(&actionv3.GetTargetRequest{Id: "unknown"}), code: codes.NotFound, id: "QUERY-hj5oaniyrz", text: "Target not found"},
		{name: "get of a deleted id", given: func(f *fixture) proto.Message {
			id := f.target("a")
			f.must(&actionv3.DeleteTargetRequest{Id: id})
			return &actionv3.GetTargetRequest{Id: id}
		}, code: codes.NotFound, id: "QUERY-hj5oaniyrz", text: "Target not found"},
	})
}

func denyThird(o *admin.Options) {
	o.CheckURL = func(_ context.Context, url string) error {
		if strings.Contains(url, "third") {
			return errors.New("denied")
		}
		return nil
	}
}

func TestTheLimitsOfTargetFieldsAreIncluded(t *testing.T) {
	t.Parallel()
	each(t, tableProtocols, func(t *testing.T, p protocol) {
		f := start(t)
		for name, change := range map[string]func(*actionv3.Target){
			"timeout of 270 s":        func(t *actionv3.Target) { t.Timeout = durationpb.New(270 * time.Second) },
			"timeout of 1 ns":         func(t *actionv3.Target) { t.Timeout = durationpb.New(1) },
			"name of 1000 characters": func(t *actionv3.Target) { t.Name = strings.Repeat("ü", 1000) },
			"url of 1000 characters": func(t *actionv3.Target) {
				t.TargetType = &actionv3.Target_RestWebhook{RestWebhook: &actionv3.SetRESTWebhook{Url: "http://h/" + strings.Repeat("a", 991)}}
			},
		} {
			req := newTarget(name)
			change(req.GetTarget())
			res, out := f.call(p, req)
			if out.code != codes.OK {
				t.Errorf("%s: %v %s", name, out.code, out.message)
				continue
			}
			got := f.getV3(res.(*actionv3.CreateTargetResponse).GetDetails().GetId()).GetTarget()
			if diff := cmp.Diff(req.GetTarget(), got, protocmp.Transform()); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
		}
	})
}

func TestACreatedTargetIsReadAsItWasGiven(t *testing.T) {
	t.Parallel()
	call := &actionv3.Target_RestRequestResponse{RestRequestResponse: &actionv3.SetRESTRequestResponse{Url: "http://h/c"}}
	each(t, tableProtocols, func(t *testing.T, p protocol) {
		for name, row := range map[string]struct{ give, want func(*actionv3.Target) }{
			"webhook":            {},
			"request_response":   {give: func(t *actionv3.Target) { t.TargetType = call }},
			"is_async":           {give: func(t *actionv3.Target) { t.ExecutionType = &actionv3.Target_IsAsync{IsAsync: true} }},
			"interrupt":          {give: func(t *actionv3.Target) { t.ExecutionType = &actionv3.Target_InterruptOnError{InterruptOnError: true} }},
			"is_async false":     {give: func(t *actionv3.Target) { t.ExecutionType = &actionv3.Target_IsAsync{} }, want: func(t *actionv3.Target) { t.ExecutionType = nil }},
			"interrupt false":    {give: func(t *actionv3.Target) { t.ExecutionType = &actionv3.Target_InterruptOnError{} }, want: func(t *actionv3.Target) { t.ExecutionType = nil }},
			"name with wildcard": {give: func(t *actionv3.Target) { t.Name = "100%_ <&> \"x\" ü" }},
		} {
			f := start(t)
			req := newTarget("a")
			if row.give != nil {
				row.give(req.GetTarget())
			}
			begin := time.Now()
			res, out := f.call(p, req)
			if out.code != codes.OK || p == overREST && out.http != 201 {
				t.Fatalf("%s: %+v", name, out)
			}
			details := res.(*actionv3.CreateTargetResponse).GetDetails()
			if !regexp.MustCompile(`^[0-9]{17,19}$`).MatchString(details.GetId()) || details.GetSequence() != 1 {
				t.Errorf("%s: details %v", name, details)
			}
			if age := details.GetChangeDate().AsTime().Sub(begin); age < 0 || age > time.Minute {
				t.Errorf("%s: change date is off by %s", name, age)
			}
			owner := &objectv3.Owner{Type: objectv3.OwnerType_OWNER_TYPE_INSTANCE, Id: instance}
			if diff := cmp.Diff(owner, details.GetResourceOwner(), protocmp.Transform()); diff != "" {
				t.Errorf("%s: owner %s", name, diff)
			}
			if row.want != nil {
				row.want(req.GetTarget())
			}
			got, _ := f.call(p, &actionv3.GetTargetRequest{Id: details.GetId()})
			want := &actionv3.GetTargetResponse{Target: &actionv3.GetTarget{Details: details, Target: req.GetTarget()}}
			if diff := cmp.Diff(proto.Message(want), got, protocmp.Transform()); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
		}
	})
}

func TestIDsAreUniqueAndGrow(t *testing.T) {
	t.Parallel()
	f := start(t)
	first, second := f.target("a"), f.target("b")
	if len(first) != len(second) || second <= first {
		t.Errorf("ids %s and %s", first, second)
	}
}

func TestTwoTargetsMayHaveOneURL(t *testing.T) {
	t.Parallel()
	f := start(t)
	a, b := newTarget("a"), newTarget("b")
	b.Target.TargetType = a.GetTarget().GetTargetType()
	f.must(a)
	f.must(b)
}

// details of an answer to a patch.
func patched(res proto.Message) *resourcev3.Details {
	return res.(*actionv3.PatchTargetResponse).GetDetails()
}

func TestPatchChangesWhatIsGivenOnly(t *testing.T) {
	t.Parallel()
	webhook := func(url string) *actionv3.Target_RestWebhook {
		return &actionv3.Target_RestWebhook{RestWebhook: &actionv3.SetRESTWebhook{Url: url}}
	}
	async, interrupt := &actionv3.Target_IsAsync{IsAsync: true}, &actionv3.Target_InterruptOnError{InterruptOnError: true}
	rows := []struct {
		name  string
		given func(*actionv3.Target)
		patch *actionv3.PatchTarget
		want  func(*actionv3.Target) // nil: no change
	}{
		{name: "empty patch changes nothing", patch: &actionv3.PatchTarget{}},
		{name: "equal values change nothing", given: func(t *actionv3.Target) { t.ExecutionType = interrupt }, patch: &actionv3.PatchTarget{
			Name:          proto.String("Mine"),
			TargetType:    &actionv3.PatchTarget_RestWebhook{RestWebhook: &actionv3.SetRESTWebhook{Url: "http://h/1"}},
			Timeout:       durationpb.New(10 * time.Second),
			ExecutionType: &actionv3.PatchTarget_InterruptOnError{InterruptOnError: true},
		}},
		{name: "false flags of a synchronous target change nothing", patch: &actionv3.PatchTarget{ExecutionType: &actionv3.PatchTarget_IsAsync{}}},
		{name: "name", patch: &actionv3.PatchTarget{Name: proto.String("new")}, want: func(t *actionv3.Target) { t.Name = "new" }},
		{name: "own name in other letter case", patch: &actionv3.PatchTarget{Name: proto.String("mINE")}, want: func(t *actionv3.Target) { t.Name = "mINE" }},
		{name: "timeout", patch: &actionv3.PatchTarget{Timeout: durationpb.New(time.Second)}, want: func(t *actionv3.Target) { t.Timeout = durationpb.New(time.Second) }},
		{name: "type and url together", given: func(t *actionv3.Target) { t.ExecutionType = interrupt }, patch: &actionv3.PatchTarget{
			TargetType: &actionv3.PatchTarget_RestRequestResponse{RestRequestResponse: &actionv3.SetRESTRequestResponse{Url: "http://h/2"}},
		}, want: func(t *actionv3.Target) {
			t.TargetType = &actionv3.Target_RestRequestResponse{RestRequestResponse: &actionv3.SetRESTRequestResponse{Url: "http://h/2"}}
		}},
		{name: "url alone, with the same type", patch: &actionv3.PatchTarget{TargetType: &actionv3.PatchTarget_RestWebhook{RestWebhook: &actionv3.SetRESTWebhook{Url: "http://h/2"}}},
			want: func(t *actionv3.Target) { t.TargetType = webhook("http://h/2") }},
		{name: "is_async clears interrupt_on_error", given: func(t *actionv3.Target) { t.ExecutionType = interrupt }, patch: &actionv3.PatchTarget{ExecutionType: &actionv3.PatchTarget_IsAsync{IsAsync: true}},
			want: func(t *actionv3.Target) { t.ExecutionType = async }},
		{name: "interrupt_on_error clears is_async", given: func(t *actionv3.Target) { t.ExecutionType = async }, patch: &actionv3.PatchTarget{ExecutionType: &actionv3.PatchTarget_InterruptOnError{InterruptOnError: true}},
			want: func(t *actionv3.Target) { t.ExecutionType = interrupt }},
		{name: "interrupt_on_error from true to false", given: func(t *actionv3.Target) { t.ExecutionType = interrupt }, patch: &actionv3.PatchTarget{ExecutionType: &actionv3.PatchTarget_InterruptOnError{}},
			want: func(t *actionv3.Target) { t.ExecutionType = nil }},
		{name: "interrupt_on_error false clears is_async too", given: func(t *actionv3.Target) { t.ExecutionType = async }, patch: &actionv3.PatchTarget{ExecutionType: &actionv3.PatchTarget_InterruptOnError{}},
			want: func(t *actionv3.Target) { t.ExecutionType = nil }},
		{name: "is_async false clears interrupt_on_error too", given: func(t *actionv3.Target) { t.ExecutionType = interrupt }, patch: &actionv3.PatchTarget{ExecutionType: &actionv3.PatchTarget_IsAsync{}},
			want: func(t *actionv3.Target) { t.ExecutionType = nil }},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			each(t, tableProtocols, func(t *testing.T, p protocol) {
				f := start(t)
				req := newTarget("Mine")
				req.Target.TargetType = webhook("http://h/1")
				if row.given != nil {
					row.given(req.GetTarget())
				}
				created := f.must(req).(*actionv3.CreateTargetResponse).GetDetails()
				res, out := f.call(p, &actionv3.PatchTargetRequest{Id: created.GetId(), Target: row.patch})
				if out.code != codes.OK || p == overREST && out.http != 200 {
					t.Fatalf("%+v", out)
				}
				if row.want == nil {
					if diff := cmp.Diff(created, patched(res), protocmp.Transform()); diff != "" {
						t.Errorf("details moved: %s", diff)
					}
				} else {
					row.want(req.GetTarget())
					if d := patched(res); d.GetSequence() != 2 || !d.GetChangeDate().AsTime().After(created.GetChangeDate().AsTime()) {
						t.Errorf("details %v after %v", d, created)
					}
				}
				want := &actionv3.GetTarget{Details: patched(res), Target: req.GetTarget()}
				if diff := cmp.Diff(want, f.getV3(created.GetId()), protocmp.Transform()); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

func TestDeletingATargetFreesItsNameAndCountsForItsExecutions(t *testing.T) {
	t.Parallel()
	each(t, tableProtocols, func(t *testing.T, p protocol) {
		f := start(t)
		a, b := f.target("a"), f.target("b")
		f.put(requestAll(), []string{a, b})
		f.put(responseAll(), []string{a})
		f.put(eventAll(), []string{b})
		before := map[string]*actionv3.GetExecution{}
		for name, c := range map[string]*actionv3.Condition{"request": requestAll(), "response": responseAll(), "event": eventAll()} {
			before[name] = f.executionV3(c)
		}
		created := f.getV3(a).GetDetails()

		res, out := f.call(p, &actionv3.DeleteTargetRequest{Id: a})
		if out.code != codes.OK || p == overREST && out.http != 200 {
			t.Fatalf("%+v", out)
		}
		d := res.(*actionv3.DeleteTargetResponse).GetDetails()
		if d.GetId() != a || d.GetSequence() != 2 || !d.GetChangeDate().AsTime().After(created.GetChangeDate().AsTime()) {
			t.Errorf("details %v", d)
		}
		for name, want := range map[string]struct {
			c       *actionv3.Condition
			targets []string
			moved   bool
		}{
			"request":  {requestAll(), []string{b}, true},
			"response": {responseAll(), nil, true},
			"event":    {eventAll(), []string{b}, false},
		} {
			after := f.executionV3(want.c)
			if diff := cmp.Diff(want.targets, after.GetExecution().GetTargets()); diff != "" {
				t.Errorf("%s: targets %s", name, diff)
			}
			was, is := before[name].GetDetails(), after.GetDetails()
			if moved := is.GetSequence() == was.GetSequence()+1 && is.GetChangeDate().AsTime().After(was.GetChangeDate().AsTime()); moved != want.moved {
				t.Errorf("%s: details %v before, %v after", name, was, is)
			}
		}
		f.target("A")
	})
}

func TestAnExecutionFollowsAPatchedTarget(t *testing.T) {
	t.Parallel()
	f := start(t)
	id := f.target("a")
	f.put(requestAll(), []string{id})
	before := f.executionV3(requestAll())
	f.must(&actionv3.PatchTargetRequest{Id: id, Target: &actionv3.PatchTarget{Name: proto.String("b")}})
	if diff := cmp.Diff(before, f.executionV3(requestAll()), protocmp.Transform()); diff != "" {
		t.Errorf("the execution changed: %s", diff)
	}
}
