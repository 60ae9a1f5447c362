package admin_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/execgate/execgate/admin"
	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	actionv2 "github.com/execgate/execgate/gen/zitadel/action/v2"
	actionv3 "github.com/execgate/execgate/gen/zitadel/resources/action/v3alpha"
	"github.com/execgate/execgate/store"
)

// startWithHistory starts a fixture on an embedded store whose log keeps some revisions.
func startWithHistory(t *testing.T, keep int, change ...func(*admin.Options)) *fixture {
	t.Helper()
	s, err := store.OpenEmbedded(store.EmbeddedOptions{Path: filepath.Join(t.TempDir(), "store.db"), MaxRevisions: keep})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return startOn(t, s, append(change, func(o *admin.Options) {
		o.Gateway.History = s
		o.Tokens = append(o.Tokens, admin.Token{Name: "second", SHA256: admin.HashToken("second"), Permissions: []string{"*"}})
	})...)
}

// describe writes changes line by line.
func describe(changes []*gatewaypb.ItemChange) string {
	var b strings.Builder
	for _, c := range changes {
		fmt.Fprintf(&b, "%s %s %s %q", strings.TrimPrefix(c.GetChange().String(), "CHANGE_KIND_"), c.GetKind(), c.GetId(), c.GetName())
		for _, f := range c.GetFields() {
			fmt.Fprintf(&b, " %s:%s>%s", f.GetField(), f.GetBefore(), f.GetAfter())
		}
		b.WriteString("\n")
	}
	return b.String()
}

func (f *fixture) audit(r *gatewaypb.ListAuditRequest) []*gatewaypb.AuditEntry {
	f.t.Helper()
	return f.must(r).(*gatewaypb.ListAuditResponse).GetEntries()
}

func TestAuditSaysWhoChangedWhat(t *testing.T) {
	t.Parallel()
	f := startWithHistory(t, 0)
	id := f.must(&actionv3.CreateTargetRequest{Target: &actionv3.Target{
		Name:       "Guard",
		TargetType: &actionv3.Target_RestWebhook{RestWebhook: &actionv3.SetRESTWebhook{Url: "https://me:pass@hooks.example.com/x?token=s3cret#f"}},
		Timeout:    durationpb.New(90 * time.Second),
	}}).(*actionv3.CreateTargetResponse).GetDetails().GetId()
	f.token = "second"
	f.must(&actionv3.PatchTargetRequest{Id: id, Target: &actionv3.PatchTarget{Timeout: durationpb.New(1500 * time.Millisecond)}})
	f.must(&actionv2.UpdateTargetRequest{Id: id, ExpirationSigningKey: durationpb.New(0)})
	f.put(requestAll(), []string{id})
	f.token = rootToken
	f.must(&gatewaypb.UpdateTargetPolicyRequest{Id: id, Policy: &gatewaypb.TargetPolicy{
		Enabled: new(false), Breaker: &gatewaypb.Breaker{OpenFor: durationpb.New(time.Second)},
		Headers: &gatewaypb.HeaderMap{Values: map[string]string{"x-api-key": "s3cret"}}, AllowedHosts: &gatewaypb.HostList{Hosts: []string{"a.example"}},
	}})
	f.must(&gatewaypb.UpdateTargetPolicyRequest{Id: id, Policy: &gatewaypb.TargetPolicy{
		Headers: &gatewaypb.HeaderMap{Values: map[string]string{"x-api-key": "0ther"}},
	}})
	f.must(&gatewaypb.UpdateExecutionPolicyRequest{Id: "request", Policy: &gatewaypb.ExecutionPolicy{Mode: gatewaypb.ExecutionMode_EXECUTION_MODE_SHADOW}})
	f.must(&gatewaypb.SetSwitchesRequest{Switches: &gatewaypb.Switches{Dispatch: new(false)}})
	f.must(&actionv3.DeleteTargetRequest{Id: id})

	entries := f.audit(&gatewaypb.ListAuditRequest{})
	wants := []string{ // newest first
		fmt.Sprintf("root DeleteTarget\n"+
			"DELETE target %[1]s \"Guard\" endpoint:\"https://***@hooks.example.com/x?***\"> name:\"Guard\"> signing_key:\"***\"> timeout:\"1.500s\"> type:\"webhook\">\n"+
			"DELETE target_policy %[1]s \"Guard\" allowed_hosts:[\"a.example\"]> breaker.open_for:\"1s\"> enabled:false> headers.X-Api-Key:\"***\">\n"+
			"UPDATE execution request \"\" targets:[\"%[1]s\"]>\n", id),
		"root SetSwitches\nCREATE switch dispatch \"\" on:>false\n",
		"root UpdateExecutionPolicy\nCREATE execution_policy request \"\" mode:>\"shadow\"\n",
		fmt.Sprintf("root UpdateTargetPolicy\nUPDATE target_policy %s \"\" headers.X-Api-Key:\"***\">\"***\"\n", id),
		fmt.Sprintf("root UpdateTargetPolicy\nCREATE target_policy %s \"\" allowed_hosts:>[\"a.example\"] breaker.open_for:>\"1s\" enabled:>false headers.X-Api-Key:>\"***\"\n", id),
		fmt.Sprintf("second PutExecution\nCREATE execution request \"\" targets:>[\"%s\"]\n", id),
		fmt.Sprintf("second UpdateTarget\nUPDATE target %s \"Guard\" signing_key:\"***\">\"***\"\n", id),
		fmt.Sprintf("second PatchTarget\nUPDATE target %s \"Guard\" timeout:\"90s\">\"1.500s\"\n", id),
		fmt.Sprintf("root CreateTarget\nCREATE target %s \"Guard\" endpoint:>\"https://***@hooks.example.com/x?***\" name:>\"Guard\" signing_key:>\"***\" timeout:>\"90s\" type:>\"webhook\"\n", id),
	}
	if len(entries) != len(wants) {
		t.Fatalf("%d entries, want %d", len(entries), len(wants))
	}
	for i, e := range entries {
		got := e.GetActor() + " " + e.GetAction() + "\n" + describe(e.GetChanges())
		if got != wants[i] {
			t.Errorf("entry %d:\n%s\nwant\n%s", i, got, wants[i])
		}
		if e.GetRevision() != uint64(len(wants)-i) || e.GetTime() == nil {
			t.Errorf("entry %d is revision %d", i, e.GetRevision())
		}
		if s := e.String(); strings.Contains(s, "s3cret") || strings.Contains(s, "0ther") || strings.Contains(s, "pass@") {
			t.Errorf("a secret in %s", s)
		}
	}

	revisions := func(r *gatewaypb.ListAuditRequest) (numbers []uint64) {
		for _, e := range f.audit(r) {
			numbers = append(numbers, e.GetRevision())
		}
		return numbers
	}
	for _, c := range []struct {
		r    *gatewaypb.ListAuditRequest
		want string
	}{
		{&gatewaypb.ListAuditRequest{Resource: "guard"}, "[9 6 5 3 2 1]"}, // by the name of a target that is gone
		{&gatewaypb.ListAuditRequest{Resource: id}, "[9 6 5 3 2 1]"},
		{&gatewaypb.ListAuditRequest{Resource: "request"}, "[9 7 4]"},
		{&gatewaypb.ListAuditRequest{Resource: "dispatch"}, "[8]"},
		{&gatewaypb.ListAuditRequest{Resource: "nobody"}, "[]"},
		{&gatewaypb.ListAuditRequest{Actor: "second"}, "[4 3 2]"},
		{&gatewaypb.ListAuditRequest{Actor: "second", Resource: "guard"}, "[3 2]"},
		{&gatewaypb.ListAuditRequest{Limit: 2}, "[9 8]"},
		{&gatewaypb.ListAuditRequest{Limit: 2, Before: 8}, "[7 6]"},
		{&gatewaypb.ListAuditRequest{Limit: 2, Before: 2}, "[1]"},
		{&gatewaypb.ListAuditRequest{Limit: 2, Before: 1}, "[]"},
		{&gatewaypb.ListAuditRequest{Before: 99, Limit: 1}, "[9]"},
	} {
		if got := fmt.Sprint(revisions(c.r)); got != c.want {
			t.Errorf("%v: %s, want %s", c.r, got, c.want)
		}
	}
	_, out := f.call(overREST, &gatewaypb.ListAuditRequest{Limit: 1001})
	wantError(t, overREST, out, codes.InvalidArgument, "QUERY-4M0fs", "Limit exceeded")
	if out := f.rest("GET", "/v1/audit?resource=guard&limit=1", ""); out.http != 200 || !strings.Contains(out.body, `"revision":"9"`) {
		t.Errorf("%+v", out)
	}
}

func TestRevisionsAreListedAsFarAsTheLogReaches(t *testing.T) {
	t.Parallel()
	f := startWithHistory(t, 3)
	empty := f.must(&gatewaypb.ListRevisionsRequest{}).(*gatewaypb.ListRevisionsResponse)
	if len(empty.GetRevisions()) != 0 || empty.GetCurrent() != 0 || empty.GetOldest() != 0 {
		t.Errorf("of nothing: %v", empty)
	}
	for i := range 5 {
		f.target(fmt.Sprint("t", i))
	}
	each(t, gatewayProtocols, func(t *testing.T, p protocol) {
		res, out := f.call(p, &gatewaypb.ListRevisionsRequest{Limit: 2})
		if out.code != codes.OK {
			t.Fatal(out)
		}
		list := res.(*gatewaypb.ListRevisionsResponse)
		if len(list.GetRevisions()) != 2 || list.GetRevisions()[0].GetNumber() != 5 || list.GetCurrent() != 5 || list.GetOldest() != 2 {
			t.Errorf("%v", list)
		}
		if r := list.GetRevisions()[0]; r.GetActor() != "root" || r.GetAction() != "CreateTarget" || r.GetItems() != 1 || r.GetTime() == nil {
			t.Errorf("%v", r)
		}
		res, _ = f.call(p, &gatewaypb.ListRevisionsRequest{Before: 4})
		if list := res.(*gatewaypb.ListRevisionsResponse); len(list.GetRevisions()) != 1 || list.GetRevisions()[0].GetNumber() != 3 {
			t.Errorf("%v", list)
		}
		for revision, code := range map[uint64]codes.Code{1: codes.FailedPrecondition, 2: codes.OK, 5: codes.OK, 6: codes.NotFound} {
			if _, out := f.call(p, &gatewaypb.RollbackRequest{Revision: revision, DryRun: true}); out.code != code {
				t.Errorf("to %d: %+v", revision, out)
			}
		}
	})
	without := start(t)
	if _, out := without.call(overGRPC, &gatewaypb.ListRevisionsRequest{}); out.code != codes.Unimplemented {
		t.Errorf("without a log: %+v", out)
	}
}

func TestRollbackIsOneNewRevision(t *testing.T) {
	t.Parallel()
	each(t, []protocol{overGRPC, overREST}, func(t *testing.T, p protocol) {
		f := startWithHistory(t, 0)
		kept, changed, gone := f.target("kept"), f.target("changed"), f.target("gone")
		f.put(requestAll(), []string{gone, kept})
		f.put(requestMethod(addHumanUser), []string{changed})
		f.must(&gatewaypb.UpdateTargetPolicyRequest{Id: gone, Policy: &gatewaypb.TargetPolicy{MaxConcurrency: new(uint32(3)), Headers: &gatewaypb.HeaderMap{Values: map[string]string{"X-A": "s3cret"}}}})
		key := f.getV2(gone).GetSigningKey()
		before := f.replica.State()
		at := before.Revision()

		// What follows is undone: a change, a deletion, a creation, a policy, and a renaming that frees a name.
		f.must(&actionv3.PatchTargetRequest{Id: changed, Target: &actionv3.PatchTarget{Name: new("renamed")}})
		f.must(&actionv3.DeleteTargetRequest{Id: gone})
		made := f.target("changed")
		f.put(responseAll(), []string{made, kept})
		f.must(&actionv3.DeleteExecutionRequest{Id: addHumanUserE})
		f.must(&gatewaypb.UpdateTargetPolicyRequest{Id: kept, Policy: &gatewaypb.TargetPolicy{Enabled: new(false)}})
		f.must(&gatewaypb.UpdateExecutionPolicyRequest{Id: "request", Policy: &gatewaypb.ExecutionPolicy{Enabled: new(false)}})
		f.must(&gatewaypb.SetSwitchesRequest{Switches: &gatewaypb.Switches{Dispatch: new(false)}})
		newest := f.replica.State()

		dry, out := f.call(p, &gatewaypb.RollbackRequest{Revision: at, DryRun: true})
		if out.code != codes.OK || dry.(*gatewaypb.RollbackResponse).GetRevision() != newest.Revision() || f.replica.State() != newest {
			t.Fatalf("dry run: %+v %v", out, dry)
		}
		res, out := f.call(p, &gatewaypb.RollbackRequest{Revision: at})
		if out.code != codes.OK {
			t.Fatalf("%+v", out)
		}
		rolled := res.(*gatewaypb.RollbackResponse)
		if rolled.GetRevision() != newest.Revision()+1 || f.replica.State().Revision() != rolled.GetRevision() {
			t.Errorf("revision %d after %d", rolled.GetRevision(), newest.Revision())
		}
		if a, b := describe(dry.(*gatewaypb.RollbackResponse).GetChanges()), describe(rolled.GetChanges()); a != b || strings.Count(a, "\n") != 9 || strings.Contains(a, "s3cret") {
			t.Errorf("dry run:\n%s\nthe run:\n%s", a, b)
		}

		s := f.replica.State()
		for _, want := range before.Targets() {
			got := s.Target(want.ID)
			if got == nil || got.Name != want.Name || got.Endpoint != want.Endpoint || got.SigningKey != want.SigningKey || !got.CreatedAt.Equal(want.CreatedAt) {
				t.Errorf("target %v, want %v", got, want)
			}
		}
		if f.getV2(gone).GetSigningKey() != key {
			t.Error("another signing key")
		}
		if n := len(s.Targets()); n != 3 || s.Target(made) != nil || s.TargetTombstone(made) == nil || s.TargetTombstone(gone) != nil {
			t.Errorf("%d targets", n)
		}
		if n := len(s.Executions()); n != 2 || s.Execution("response") != nil || s.ExecutionTombstone(addHumanUserE) != nil {
			t.Errorf("%d executions", n)
		}
		if got := fmt.Sprint(s.Execution("request").Targets); got != fmt.Sprint([]string{gone, kept}) {
			t.Errorf("targets %v", got)
		}
		// 1 create, 2 change, 3 rollback; deleted at 2, back at 3; put at 1, changed by the deletion 2, back 3.
		for id, want := range map[string]uint64{changed: 3, gone: 3, kept: 1} {
			if got := s.Target(id).Sequence; got != want {
				t.Errorf("target %s has the sequence %d, want %d", s.Target(id).Name, got, want)
			}
		}
		for id, want := range map[string]uint64{"request": 3, addHumanUserE: 3} {
			if got := s.Execution(id).Sequence; got != want {
				t.Errorf("execution %s has the sequence %d, want %d", id, got, want)
			}
		}
		if s.Target(changed).ChangedAt.Before(newest.Target(changed).ChangedAt) {
			t.Error("the change date went back")
		}
		back := f.must(&gatewaypb.GetTargetPolicyRequest{Id: gone}).(*gatewaypb.GetTargetPolicyResponse)
		if back.GetPolicy().GetMaxConcurrency() != 3 || back.GetDetails().GetRevision() != rolled.GetRevision() {
			t.Errorf("policy %v", back)
		}
		if s.Len(store.KindTargetPolicy) != 1 || s.Len(store.KindExecutionPolicy) != 0 {
			t.Error("policies that were made later are still there")
		}
		if f.must(&gatewaypb.GetSwitchesRequest{}).(*gatewaypb.GetSwitchesResponse).GetSwitches().GetDispatch() {
			t.Error("the rollback turned dispatch on")
		}
		entry := f.audit(&gatewaypb.ListAuditRequest{Limit: 1})[0]
		if entry.GetAction() != fmt.Sprintf("Rollback to %d", at) || describe(entry.GetChanges()) == "" {
			t.Errorf("audit %v", entry)
		}

		// Again is nothing; to where it was before the rollback is the way back.
		again := f.must(&gatewaypb.RollbackRequest{Revision: at}).(*gatewaypb.RollbackResponse)
		if again.GetRevision() != rolled.GetRevision() || len(again.GetChanges()) != 0 {
			t.Errorf("again: %v", again)
		}
		f.must(&gatewaypb.RollbackRequest{Revision: newest.Revision()})
		s = f.replica.State()
		if s.Target(gone) != nil || s.Target(made) == nil || s.Target(changed).Name != "renamed" || s.Execution("response") == nil {
			t.Error("the way back")
		}
	})
}

func TestRollbackRefusesWhatWouldNotBeValid(t *testing.T) {
	t.Parallel()
	f := startWithHistory(t, 0)
	id := f.target("one")
	at := f.replica.State().Revision()
	// Another program wrote what this API would have refused.
	_, err := f.replica.Update(t.Context(), "", "", func(*store.State) ([]store.Item, error) {
		return []store.Item{{Kind: store.KindTarget, ID: id, Value: []byte(`{"id":"` + id + `","name":"one","endpoint":"no url",` +
			`"type":"webhook","timeout_ns":1,"sequence":2,"created_at":"2026-01-01T00:00:00Z","changed_at":"2026-01-01T00:00:00Z"}`)}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	broken := f.replica.State().Revision()
	f.must(&gatewaypb.RollbackRequest{Revision: at})
	for _, dry := range []bool{true, false} {
		_, out := f.call(overGRPC, &gatewaypb.RollbackRequest{Revision: broken, DryRun: dry})
		wantError(t, overGRPC, out, codes.FailedPrecondition, "", `target "one" would have an endpoint`)
	}
}

func TestRollbackRefusesWhatTheGatewayCannotUse(t *testing.T) {
	t.Parallel()
	s, err := store.OpenEmbedded(store.EmbeddedOptions{Path: filepath.Join(t.TempDir(), "store.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	refused := false
	replica := store.NewReplica(s, store.ReplicaOptions{Check: func(*store.State) error {
		if refused {
			return errors.New("not usable")
		}
		return nil
	}})
	if err := replica.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = replica.Stop(context.Background()) })
	f := startOn(t, s, func(o *admin.Options) { o.Store, o.Gateway.History = replica, s })
	f.target("one")
	f.target("two")
	refused = true
	_, out := f.call(overGRPC, &gatewaypb.RollbackRequest{Revision: 1})
	wantError(t, overGRPC, out, codes.FailedPrecondition, "", "cannot be used")
	if replica.State().Revision() != 2 {
		t.Error("something was written")
	}
}
