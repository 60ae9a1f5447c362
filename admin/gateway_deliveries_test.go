package admin_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/execgate/execgate/admin"
	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	"github.com/execgate/execgate/queue"
	"github.com/execgate/execgate/store"
)

// a symmetric secret and a private key of Standard Webhooks.
const (
	symmetricSecret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
	privateSecret   = "whsk_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
)

func TestWhatAPolicySaysOfDeliveries(t *testing.T) {
	t.Parallel()
	each(t, gatewayProtocols, func(t *testing.T, p protocol) {
		f := startWithHistory(t, 100, withDefaults)
		id := f.target("crm")
		update := func(change *gatewaypb.TargetPolicy) (*gatewaypb.TargetPolicy, outcome) {
			t.Helper()
			res, out := f.call(p, &gatewaypb.UpdateTargetPolicyRequest{Id: id, Policy: change})
			if out.code != codes.OK {
				return nil, out
			}
			return res.(*gatewaypb.UpdateTargetPolicyResponse).GetPolicy(), out
		}
		got, out := update(&gatewaypb.TargetPolicy{
			Retry:      &gatewaypb.Retry{MaxAttempts: new(uint32(3)), FirstDelay: durationpb.New(time.Second)},
			Signatures: []string{"standard_v1", "zitadel"}, SigningSecrets: []string{symmetricSecret, privateSecret},
			OrderBy: new("user_id"), OnFull: new("block_call"),
		})
		if out.code != codes.OK {
			t.Fatalf("%+v", out)
		}
		want := &gatewaypb.TargetPolicy{
			Retry:      &gatewaypb.Retry{MaxAttempts: new(uint32(3)), FirstDelay: durationpb.New(time.Second)},
			Signatures: []string{"standard_v1", "zitadel"}, SigningSecrets: []string{"***", "***"},
			OrderBy: new("user_id"), OnFull: new("block_call"),
		}
		wantMessage(t, got, want)

		// What was read can be written back, and one secret replaced.
		if _, out = update(&gatewaypb.TargetPolicy{SigningSecrets: []string{"***", privateSecret}, Signatures: []string{"standard_v1a"}}); out.code != codes.OK {
			t.Fatalf("%+v", out)
		}
		value, _ := f.replica.State().Item(store.KindTargetPolicy, id)
		if !strings.Contains(string(value), symmetricSecret) {
			t.Error("the secret is gone")
		}
		res, _ := f.call(p, &gatewaypb.GetTargetPolicyRequest{Id: id})
		effective := effectiveDefaults()
		effective.Retry.MaxAttempts, effective.Retry.FirstDelay = new(uint32(3)), durationpb.New(time.Second)
		effective.Signatures, effective.SigningSecrets = []string{"standard_v1a"}, []string{"***", "***"}
		effective.OrderBy, effective.OnFull = new("user_id"), new("block_call")
		wantMessage(t, res.(*gatewaypb.GetTargetPolicyResponse).GetEffective(), effective)

		for text, bad := range map[string]*gatewaypb.TargetPolicy{
			"retry.max_attempts":       {Retry: &gatewaypb.Retry{MaxAttempts: new(uint32(0))}},
			"retry.max_age":            {Retry: &gatewaypb.Retry{MaxAge: durationpb.New(-time.Second)}},
			"signatures[0]":            {Signatures: []string{"md5"}},
			"signing_secrets[2]":       {SigningSecrets: []string{"***", "***", "***"}},
			"signing secret 1":         {SigningSecrets: []string{"whsec_!"}},
			"needs a signing secret":   {SigningSecrets: []string{symmetricSecret}},
			"order_by: must be one of": {OrderBy: new("mail")},
			"on_full: must be one of":  {OnFull: new("explode")},
			"longer than max_delay":    {Retry: &gatewaypb.Retry{FirstDelay: durationpb.New(time.Minute), MaxDelay: durationpb.New(time.Second)}},
		} {
			if _, out := update(bad); out.code != codes.InvalidArgument || !strings.Contains(out.message, text) {
				t.Errorf("%s: %+v", text, out)
			}
		}
		audit, out := f.call(p, &gatewaypb.ListAuditRequest{})
		if out.code != codes.OK || strings.Contains(audit.(*gatewaypb.ListAuditResponse).String(), "whsec_") {
			t.Errorf("the audit log tells secrets: %+v %v", out, audit)
		}
	})
}

func TestDeliveriesAreListedShownReplayedAndDropped(t *testing.T) {
	t.Parallel()
	each(t, gatewayProtocols, func(t *testing.T, p protocol) {
		backend, err := queue.OpenEmbedded(queue.EmbeddedOptions{Path: filepath.Join(t.TempDir(), "queue.db")})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = backend.Close() })
		f := start(t, func(o *admin.Options) { o.Gateway.Deliveries = backend })
		crm := f.target("crm")
		put := func(id, target string) {
			t.Helper()
			if err := backend.Put(t.Context(), &queue.Record{ID: id, Target: target, Execution: "request", Body: []byte(`{"a":1}`)}); err != nil {
				t.Fatal(err)
			}
		}
		bury := func(target string) {
			t.Helper()
			leases, err := backend.Lease(t.Context(), target, 10)
			if err != nil || len(leases) == 0 {
				t.Fatal(leases, err)
			}
			for _, l := range leases {
				l.Record.Reason = queue.DeadRefused
				l.Record.Attempts = 1
				l.Record.History = []queue.Attempt{{Number: 1, At: time.Now(), Outcome: "failed", Status: 400, Latency: time.Millisecond}}
				if err := backend.Settle(t.Context(), l, queue.Verdict{Action: queue.Dead}); err != nil {
					t.Fatal(err)
				}
			}
		}
		first, second, other := queue.NewID(time.Now().Add(-time.Hour)), queue.NewID(time.Now()), queue.NewID(time.Now())
		put(first, crm)
		put(second, crm)
		put(other, "gone")
		bury(crm)
		list := func(r *gatewaypb.ListDeliveriesRequest) *gatewaypb.ListDeliveriesResponse {
			t.Helper()
			res, out := f.call(p, r)
			if out.code != codes.OK {
				t.Fatalf("%+v", out)
			}
			return res.(*gatewaypb.ListDeliveriesResponse)
		}
		page := list(&gatewaypb.ListDeliveriesRequest{State: "dead", Target: "CRM", Limit: 1})
		if d := page.GetDeliveries(); len(d) != 1 || d[0].GetId() != second || d[0].GetTargetName() != "crm" || d[0].GetReason() != "refused" ||
			d[0].GetState() != "dead" || d[0].GetAttempts() != 1 || d[0].GetHistory()[0].GetStatus() != 400 || d[0].GetPayload() != "" {
			t.Errorf("%v", page)
		}
		if next := list(&gatewaypb.ListDeliveriesRequest{State: "dead", Limit: 1, Cursor: page.GetNextCursor()}); next.GetDeliveries()[0].GetId() != first {
			t.Errorf("%v", next)
		}
		if all := list(&gatewaypb.ListDeliveriesRequest{}); len(all.GetDeliveries()) != 3 || all.GetNextCursor() != "" {
			t.Errorf("%v", all)
		}
		if pending := list(&gatewaypb.ListDeliveriesRequest{State: "pending", Target: "gone"}); len(pending.GetDeliveries()) != 1 || pending.GetDeliveries()[0].GetTargetName() != "" {
			t.Errorf("%v", pending)
		}
		res, out := f.call(p, &gatewaypb.GetDeliveryRequest{Id: first})
		if d := res.(*gatewaypb.GetDeliveryResponse).GetDelivery(); out.code != codes.OK || d.GetPayload() != `{"a":1}` || d.GetSize() != 7 {
			t.Errorf("%+v %v", out, d)
		}

		if _, out := f.call(p, &gatewaypb.ReplayDeliveryRequest{Id: other}); out.code != codes.FailedPrecondition {
			t.Errorf("replay of what is not dead: %+v", out)
		}
		if _, out := f.call(p, &gatewaypb.ReplayDeliveryRequest{Id: first}); out.code != codes.OK {
			t.Errorf("%+v", out)
		}
		res, out = f.call(p, &gatewaypb.ReplayDeliveriesRequest{State: "dead", Target: "crm"})
		if out.code != codes.OK || res.(*gatewaypb.ReplayDeliveriesResponse).GetReplayed() != 1 {
			t.Errorf("%+v %v", out, res)
		}
		if _, out := f.call(p, &gatewaypb.ReplayDeliveriesRequest{State: "pending"}); out.code != codes.InvalidArgument {
			t.Errorf("%+v", out)
		}
		if _, out := f.call(p, &gatewaypb.DropDeliveryRequest{Id: other}); out.code != codes.OK {
			t.Errorf("%+v", out)
		}
		for _, missing := range []proto.Message{&gatewaypb.DropDeliveryRequest{Id: other}, &gatewaypb.GetDeliveryRequest{Id: other}, &gatewaypb.ReplayDeliveryRequest{Id: other}} {
			if _, out := f.call(p, missing); out.code != codes.NotFound {
				t.Errorf("%T: %+v", missing, out)
			}
		}
		for _, bad := range []*gatewaypb.ListDeliveriesRequest{{State: "lost"}, {Limit: 1001}, {Cursor: "no cursor"}, {Cursor: "zzz"}} {
			if _, out := f.call(p, bad); out.code != codes.InvalidArgument {
				t.Errorf("%v: %+v", bad, out)
			}
		}
		if got := list(&gatewaypb.ListDeliveriesRequest{State: "pending"}); len(got.GetDeliveries()) != 2 {
			t.Errorf("%v", got)
		}

		put(queue.NewID(time.Now()), "gone")
		for _, drop := range []struct {
			request *gatewaypb.DropDeliveriesRequest
			dropped uint32
		}{
			{&gatewaypb.DropDeliveriesRequest{State: "dead"}, 0},
			{&gatewaypb.DropDeliveriesRequest{State: "dead", Target: "crm"}, 0},
			{&gatewaypb.DropDeliveriesRequest{Target: "gone"}, 1},
			{&gatewaypb.DropDeliveriesRequest{State: "pending", Target: "crm"}, 2},
		} {
			res, out := f.call(p, drop.request)
			if out.code != codes.OK || res.(*gatewaypb.DropDeliveriesResponse).GetDropped() != drop.dropped {
				t.Errorf("%v: %+v %v", drop.request, out, res)
			}
		}
		for _, bad := range []*gatewaypb.DropDeliveriesRequest{{}, {State: "lost"}, {Target: strings.Repeat("x", 1001)}} {
			if _, out := f.call(p, bad); out.code != codes.InvalidArgument {
				t.Errorf("%v: %+v", bad, out)
			}
		}
		if all := list(&gatewaypb.ListDeliveriesRequest{}); len(all.GetDeliveries()) != 0 {
			t.Errorf("%v", all)
		}
	})
}

func TestTheAuditLogTellsWhoReplayedAndDroppedDeliveries(t *testing.T) {
	t.Parallel()
	backend, err := queue.OpenEmbedded(queue.EmbeddedOptions{Path: filepath.Join(t.TempDir(), "queue.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = backend.Close() })
	f := startWithHistory(t, 100, func(o *admin.Options) { o.Gateway.Deliveries = backend })
	crm := f.target("crm")
	var ids []string
	for range 3 {
		ids = append(ids, queue.NewID(time.Now()))
		if err := backend.Put(t.Context(), &queue.Record{ID: ids[len(ids)-1], Target: crm, Body: []byte("payload")}); err != nil {
			t.Fatal(err)
		}
	}
	leases, err := backend.Lease(t.Context(), crm, 3)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range leases {
		if err := backend.Settle(t.Context(), l, queue.Verdict{Action: queue.Dead}); err != nil {
			t.Fatal(err)
		}
	}
	before := f.replica.State().Revision()
	for _, r := range []proto.Message{
		&gatewaypb.ReplayDeliveryRequest{Id: ids[0]}, &gatewaypb.DropDeliveryRequest{Id: ids[1]},
		&gatewaypb.ReplayDeliveriesRequest{Target: "crm"}, &gatewaypb.ReplayDeliveriesRequest{}, // the second one finds none
		&gatewaypb.DropDeliveriesRequest{State: "pending"},
	} {
		if _, out := f.call(overGRPC, r); out.code != codes.OK {
			t.Fatalf("%v: %+v", r, out)
		}
	}
	audit := func(resource string) (told []string) {
		t.Helper()
		res, out := f.call(overGRPC, &gatewaypb.ListAuditRequest{Resource: resource})
		if out.code != codes.OK {
			t.Fatalf("%+v", out)
		}
		for _, e := range res.(*gatewaypb.ListAuditResponse).GetEntries() {
			if e.GetRevision() <= before {
				continue
			}
			text := e.GetActor() + " " + e.GetAction()
			for _, c := range e.GetChanges() {
				text += " " + c.GetKind() + " " + c.GetName()
				for _, field := range c.GetFields() {
					text += " " + field.GetField() + "=" + field.GetBefore() + field.GetAfter()
				}
			}
			told = append(told, text)
		}
		return told
	}
	actor, _, _ := strings.Cut(audit("")[0], " ")
	replayed := actor + ` ReplayDeliveries deliveries crm count=1 state="dead" target="crm"`
	for resource, want := range map[string][]string{
		"": {
			actor + ` DropDeliveries deliveries  count=2 state="pending"`,
			replayed,
			actor + ` DropDelivery deliveries  count=1 delivery="` + ids[1] + `"`,
			actor + ` ReplayDelivery deliveries  count=1 delivery="` + ids[0] + `"`,
		},
		"crm":  {replayed},
		ids[1]: {actor + ` DropDelivery deliveries  count=1 delivery="` + ids[1] + `"`},
	} {
		if got := audit(resource); !slices.Equal(got, want) {
			t.Errorf("of %q the audit log tells\n%q, want\n%q", resource, got, want)
		}
	}
	if actor == "" {
		t.Error("nobody did it")
	}
	if n := f.replica.State().Len(store.KindDeliveries); n != 1 {
		t.Errorf("%d items stay in the store", n)
	}
	res, out := f.call(overGRPC, &gatewaypb.ListRevisionsRequest{Limit: 1})
	if out.code != codes.OK || res.(*gatewaypb.ListRevisionsResponse).GetRevisions()[0].GetItems() != 1 {
		t.Errorf("%+v %v", out, res)
	}
}

func TestWithoutADurableQueueThereAreNoDeliveries(t *testing.T) {
	t.Parallel()
	f := start(t)
	if _, out := f.call(overREST, &gatewaypb.ListDeliveriesRequest{}); out.code != codes.Unimplemented {
		t.Errorf("%+v", out)
	}
}
