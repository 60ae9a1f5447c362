package admin_test

import (
	"testing"

	"google.golang.org/protobuf/testing/protocmp"

	"github.com/google/go-cmp/cmp"

	actionv2 "github.com/execgate/execgate/gen/zitadel/action/v2"
	actionv3 "github.com/execgate/execgate/gen/zitadel/resources/action/v3alpha"
)

func TestATargetOfOneAPIIsReadThroughTheOther(t *testing.T) {
	t.Parallel()
	const url = "http://h/x"
	webhook := &actionv3.Target_RestWebhook{RestWebhook: &actionv3.SetRESTWebhook{Url: url}}
	call := &actionv3.Target_RestRequestResponse{RestRequestResponse: &actionv3.SetRESTRequestResponse{Url: url}}
	async, interrupt := &actionv3.Target_IsAsync{IsAsync: true}, &actionv3.Target_InterruptOnError{InterruptOnError: true}
	v2Webhook := func(i bool) *actionv2.Target_RestWebhook {
		return &actionv2.Target_RestWebhook{RestWebhook: &actionv2.RESTWebhook{InterruptOnError: i}}
	}
	v2Call := func(i bool) *actionv2.Target_RestCall {
		return &actionv2.Target_RestCall{RestCall: &actionv2.RESTCall{InterruptOnError: i}}
	}
	v2Async := &actionv2.Target_RestAsync{RestAsync: &actionv2.RESTAsync{}}

	for name, row := range map[string]struct {
		v3 *actionv3.Target // type and flags
		v2 *actionv2.Target // type
	}{
		"webhook":                 {&actionv3.Target{TargetType: webhook}, &actionv2.Target{TargetType: v2Webhook(false)}},
		"interrupting webhook":    {&actionv3.Target{TargetType: webhook, ExecutionType: interrupt}, &actionv2.Target{TargetType: v2Webhook(true)}},
		"call":                    {&actionv3.Target{TargetType: call}, &actionv2.Target{TargetType: v2Call(false)}},
		"interrupting call":       {&actionv3.Target{TargetType: call, ExecutionType: interrupt}, &actionv2.Target{TargetType: v2Call(true)}},
		"asynchronous webhook":    {&actionv3.Target{TargetType: webhook, ExecutionType: async}, &actionv2.Target{TargetType: v2Async}},
		"asynchronous, of a call": {&actionv3.Target{TargetType: call, ExecutionType: async}, &actionv2.Target{TargetType: v2Async}},
	} {
		f := start(t)
		req := newTarget("a")
		req.Target.TargetType, req.Target.ExecutionType = row.v3.GetTargetType(), row.v3.GetExecutionType()
		id := f.must(req).(*actionv3.CreateTargetResponse).GetDetails().GetId()

		got := f.getV2(id)
		if len(got.GetSigningKey()) != 36 {
			t.Errorf("%s: signing key %q", name, got.GetSigningKey())
		}
		want := &actionv2.Target{
			Id: id, Name: "a", Endpoint: url, Timeout: req.GetTarget().GetTimeout(), TargetType: row.v2.GetTargetType(),
			CreationDate: got.GetCreationDate(), ChangeDate: f.getV3(id).GetDetails().GetChangeDate(), SigningKey: got.GetSigningKey(),
		}
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Errorf("%s through v2: %s", name, diff)
		}

		// Saying through v2 what it is already changes nothing, nor what v3alpha shows.
		update := &actionv2.UpdateTargetRequest{Id: id}
		switch k := row.v2.GetTargetType().(type) {
		case *actionv2.Target_RestWebhook:
			update.TargetType = &actionv2.UpdateTargetRequest_RestWebhook{RestWebhook: k.RestWebhook}
		case *actionv2.Target_RestCall:
			update.TargetType = &actionv2.UpdateTargetRequest_RestCall{RestCall: k.RestCall}
		case *actionv2.Target_RestAsync:
			update.TargetType = &actionv2.UpdateTargetRequest_RestAsync{RestAsync: k.RestAsync}
		}
		f.must(update)
		after := f.getV3(id)
		if after.GetDetails().GetSequence() != 1 {
			t.Errorf("%s: sequence %d after an update without change", name, after.GetDetails().GetSequence())
		}
		if diff := cmp.Diff(req.GetTarget(), after.GetTarget(), protocmp.Transform()); diff != "" {
			t.Errorf("%s through v3alpha: %s", name, diff)
		}
	}
}

func TestAnAsynchronousTargetOfV2IsAWebhookOfV3alpha(t *testing.T) {
	t.Parallel()
	f := start(t)
	req := newTargetV2("a")
	req.TargetType = &actionv2.CreateTargetRequest_RestAsync{RestAsync: &actionv2.RESTAsync{}}
	id := f.must(req).(*actionv2.CreateTargetResponse).GetId()
	want := &actionv3.Target{
		Name: "a", Timeout: req.GetTimeout(),
		TargetType:    &actionv3.Target_RestWebhook{RestWebhook: &actionv3.SetRESTWebhook{Url: req.GetEndpoint()}},
		ExecutionType: &actionv3.Target_IsAsync{IsAsync: true},
	}
	if diff := cmp.Diff(want, f.getV3(id).GetTarget(), protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

func TestADeletionThroughV3alphaIsSeenByV2(t *testing.T) {
	t.Parallel()
	f := start(t)
	id := f.target("a")
	deleted := f.must(&actionv3.DeleteTargetRequest{Id: id}).(*actionv3.DeleteTargetResponse).GetDetails()
	got := f.must(&actionv2.DeleteTargetRequest{Id: id}).(*actionv2.DeleteTargetResponse)
	if diff := cmp.Diff(deleted.GetChangeDate(), got.GetDeletionDate(), protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

func TestExecutionsWithIncludesThroughV2(t *testing.T) {
	t.Parallel()
	f := start(t)
	a := f.target("a")
	f.put(requestService(knownService), []string{a})
	f.put(requestAll(), nil, "request/"+knownService)
	listed := func() map[string][]string {
		t.Helper()
		all := make(map[string][]string)
		for _, e := range f.must(&actionv2.ListExecutionsRequest{}).(*actionv2.ListExecutionsResponse).GetExecutions() {
			all[e.GetCondition().String()] = e.GetTargets()
		}
		return all
	}
	all := v2RequestAll().String()
	if targets, ok := listed()[all]; !ok || len(targets) != 0 {
		t.Errorf("an execution with includes only: shown %t, targets %v", ok, targets)
	}
	f.must(v2Set(v2RequestAll(), a))
	want := &actionv3.Execution{Condition: requestAll(), Targets: []string{a}}
	if diff := cmp.Diff(want, f.executionV3(requestAll()).GetExecution(), protocmp.Transform()); diff != "" {
		t.Errorf("set through v2: %s", diff)
	}
	f.put(requestAll(), nil, "request/"+knownService)
	before := f.executionV3(requestAll()).GetDetails().GetSequence()
	f.must(v2Set(v2RequestAll()))
	got := f.executionV3(requestAll())
	if len(got.GetExecution().GetIncludes()) != 0 || got.GetDetails().GetSequence() != before+1 {
		t.Errorf("an empty list through v2: %v", got)
	}
	if _, ok := listed()[all]; ok {
		t.Error("an execution with neither targets nor includes is shown")
	}
}
