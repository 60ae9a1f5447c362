package demoapi_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminpb "github.com/execgate/execgate/gen/zitadel/admin/v1"
	managementpb "github.com/execgate/execgate/gen/zitadel/management/v1"
	userpb "github.com/execgate/execgate/gen/zitadel/user/v2"
	datapb "github.com/execgate/execgate/gen/zitadel/v1/v1"
	"github.com/execgate/execgate/internal/testkit/demoapi"
)

func eventTypes(t *testing.T, b *bundle) []string {
	t.Helper()
	resp, err := adminpb.NewAdminServiceClient(b.conn).ListEvents(t.Context(), &adminpb.ListEventsRequest{Asc: true})
	if err != nil {
		t.Fatal(err)
	}
	var types []string
	for _, e := range resp.GetEvents() {
		types = append(types, e.GetType().GetType())
	}
	return types
}

func TestListEvents(t *testing.T) {
	t.Parallel()
	b := setup(t, demoapi.Options{})
	c := adminpb.NewAdminServiceClient(b.conn)
	event := func(kind, id, name string) demoapi.Event {
		return demoapi.Event{AggregateType: kind, AggregateID: id, Type: name}
	}
	var at [4]*timestamppb.Timestamp
	for i, events := range [][]demoapi.Event{
		{event("user", "u1", "user.human.added"), event("user", "u1", "user.human.email.verified")},
		{event("org", "o1", "org.added")},
		{event("user", "u1", "user.locked"), event("session", "s1", "session.added")},
		{event("user", "u2", "user.human.added")},
	} {
		at[i] = timestamppb.New(b.AppendEvents(events...))
	}
	from := func(ts *timestamppb.Timestamp) *adminpb.ListEventsRequest_From {
		return &adminpb.ListEventsRequest_From{From: ts}
	}
	span := func(since, until *timestamppb.Timestamp) *adminpb.ListEventsRequest_Range {
		return &adminpb.ListEventsRequest_Range{Range: &adminpb.ListEventsRequestCreationDateRange{Since: since, Until: until}}
	}
	for name, test := range map[string]struct {
		req  *adminpb.ListEventsRequest
		want string // aggregate id and sequence of each
	}{
		"newest first":              {&adminpb.ListEventsRequest{}, "u2/1 s1/1 u1/3 o1/1 u1/2 u1/1"},
		"oldest first":              {&adminpb.ListEventsRequest{Asc: true}, "u1/1 u1/2 o1/1 u1/3 s1/1 u2/1"},
		"limit":                     {&adminpb.ListEventsRequest{Asc: true, Limit: 2}, "u1/1 u1/2"},
		"from, ascending":           {&adminpb.ListEventsRequest{Asc: true, CreationDateFilter: from(at[1])}, "u1/3 s1/1 u2/1"},
		"from, descending":          {&adminpb.ListEventsRequest{CreationDateFilter: from(at[2])}, "o1/1 u1/2 u1/1"},
		"older name of from":        {&adminpb.ListEventsRequest{Asc: true, CreationDate: at[2]}, "u2/1"}, //nolint:staticcheck // still to be understood
		"range":                     {&adminpb.ListEventsRequest{Asc: true, CreationDateFilter: span(at[0], at[3])}, "o1/1 u1/3 s1/1"},
		"range, descending":         {&adminpb.ListEventsRequest{CreationDateFilter: span(at[0], at[3])}, "s1/1 u1/3 o1/1"},
		"range without end":         {&adminpb.ListEventsRequest{Asc: true, CreationDateFilter: span(at[2], nil)}, "u2/1"},
		"range without begin":       {&adminpb.ListEventsRequest{Asc: true, CreationDateFilter: span(nil, at[1])}, "u1/1 u1/2"},
		"sequence, ascending":       {&adminpb.ListEventsRequest{Asc: true, Sequence: 1}, "u1/2 u1/3"},
		"sequence, descending":      {&adminpb.ListEventsRequest{Sequence: 2}, "u2/1 s1/1 o1/1 u1/1"},
		"event types, exact and or": {&adminpb.ListEventsRequest{Asc: true, EventTypes: []string{"user.locked", "org.added", "user"}}, "o1/1 u1/3"},
		"aggregate":                 {&adminpb.ListEventsRequest{Asc: true, AggregateId: "u1"}, "u1/1 u1/2 u1/3"},
		"aggregate types":           {&adminpb.ListEventsRequest{Asc: true, AggregateTypes: []string{"session", "org"}}, "o1/1 s1/1"},
		"editor":                    {&adminpb.ListEventsRequest{EditorUserId: "nobody"}, ""},
		"owner":                     {&adminpb.ListEventsRequest{ResourceOwner: "nobody"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resp, err := c.ListEvents(t.Context(), test.req)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range resp.GetEvents() {
				got = append(got, fmt.Sprintf("%s/%d", e.GetAggregate().GetId(), e.GetSequence()))
			}
			if strings.Join(got, " ") != test.want {
				t.Errorf("got %v, want %s", got, test.want)
			}
		})
	}
	for name, req := range map[string]*adminpb.ListEventsRequest{
		"too many event types":     {EventTypes: make([]string, 31)},
		"too many aggregate types": {AggregateTypes: make([]string, 11)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := c.ListEvents(t.Context(), req)
			wantCode(t, err, codes.InvalidArgument)
		})
	}
}

func TestAPageOfEventsEndsAtAThousand(t *testing.T) {
	t.Parallel()
	b := setup(t, demoapi.Options{})
	events := make([]demoapi.Event, 1500)
	for i := range events {
		events[i] = demoapi.Event{AggregateType: "user", AggregateID: fmt.Sprint(i), Type: "user.locked"}
	}
	b.AppendEvents(events...)
	for _, limit := range []uint32{0, 1001, 4000} {
		resp, err := adminpb.NewAdminServiceClient(b.conn).ListEvents(t.Context(), &adminpb.ListEventsRequest{Asc: true, Limit: limit})
		if err != nil || len(resp.GetEvents()) != 1000 {
			t.Errorf("limit %d: %d events, %v", limit, len(resp.GetEvents()), err)
		}
		// A full page of one transaction bears a single time.
		first, last := resp.GetEvents()[0], resp.GetEvents()[999]
		if !first.GetCreationDate().AsTime().Equal(last.GetCreationDate().AsTime()) {
			t.Error("events of one transaction differ in time")
		}
	}
}

func TestTimeNeverStandsStill(t *testing.T) {
	t.Parallel()
	still := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	b := setup(t, demoapi.Options{Now: func() time.Time { return still }})
	one := b.AppendEvents(demoapi.Event{AggregateType: "user", AggregateID: "1", Type: "user.locked"})
	two := b.AppendEvents(demoapi.Event{AggregateType: "user", AggregateID: "1", Type: "user.unlocked"})
	if !two.After(one) {
		t.Errorf("two transactions at %v and %v", one, two)
	}
}

func TestListEventTypes(t *testing.T) {
	t.Parallel()
	b := setup(t, demoapi.Options{})
	resp, err := adminpb.NewAdminServiceClient(b.conn).ListEventTypes(t.Context(), &adminpb.ListEventTypesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, e := range resp.GetEventTypes() {
		if known[e.GetType()] {
			t.Errorf("%s is listed twice", e.GetType())
		}
		known[e.GetType()] = true
	}
	for _, want := range []string{"user.human.added", "session.terminated", "user.human.mfa.otp.check.failed", "org.added", "user.grant.cascade.removed"} {
		if !known[want] {
			t.Errorf("%s is not listed", want)
		}
	}
}

func dataOrg(id string, users int) *adminpb.DataOrg {
	o := &adminpb.DataOrg{
		OrgId: id, Org: &managementpb.AddOrgRequest{Name: "Org " + id},
		MachineUsers: []*datapb.DataMachineUser{{UserId: id + "-m", User: &managementpb.AddMachineUserRequest{UserName: "machine-" + id, Name: "Machine"}}},
		Actions:      []*datapb.DataAction{{ActionId: id + "-a", Action: &managementpb.CreateActionRequest{Name: "log", Script: "function log() {}"}}},
		TriggerActions: []*managementpb.SetTriggerActionsRequest{
			{FlowType: "1", TriggerType: "2", ActionIds: []string{id + "-a"}},
		},
	}
	for i := range users {
		o.HumanUsers = append(o.HumanUsers, &datapb.DataHumanUser{
			UserId: fmt.Sprintf("%s-%d", id, i),
			User: &managementpb.ImportHumanUserRequest{
				UserName:       fmt.Sprintf("user-%s-%d", id, i),
				Profile:        &managementpb.ImportHumanUserRequest_Profile{FirstName: "Given", LastName: "Family"},
				Email:          &managementpb.ImportHumanUserRequest_Email{Email: fmt.Sprintf("%d@%s.example", i, id), IsEmailVerified: true},
				HashedPassword: &managementpb.ImportHumanUserRequest_HashedPassword{Value: "$2a$10$abc"},
				OtpCode:        "otp",
			},
		})
	}
	return o
}

func TestImportAndExport(t *testing.T) {
	t.Parallel()
	b := setup(t, demoapi.Options{})
	c := adminpb.NewAdminServiceClient(b.conn)
	ctx := t.Context()
	org := dataOrg("o1", 3)
	// A part of the format that the demo does not know survives.
	org.ProtoReflect().SetUnknown([]byte{0xb2, 0x02, 0x02, 0x0a, 0x00}) // field 38, two bytes
	org.HumanUsers = append(org.HumanUsers, &datapb.DataHumanUser{UserId: "o1-0", User: &managementpb.ImportHumanUserRequest{UserName: "again"}})
	resp, err := c.ImportData(ctx, &adminpb.ImportDataRequest{Data: &adminpb.ImportDataRequest_DataOrgs{
		DataOrgs: &adminpb.ImportDataOrg{Orgs: []*adminpb.DataOrg{org, dataOrg("o2", 1)}}}})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(resp.GetSuccess().GetOrgs()); n != 2 {
		t.Fatalf("%d organizations were imported", n)
	}
	done := resp.GetSuccess().GetOrgs()[0]
	if len(done.GetHumanUserIds()) != 3 || len(done.GetMachineUserIds()) != 1 || len(done.GetActionIds()) != 1 || len(done.GetTriggerActions()) != 1 {
		t.Errorf("imported %v", done)
	}
	if len(resp.GetErrors()) != 1 || resp.GetErrors()[0].GetId() != "o1-0" {
		t.Errorf("errors are %v", resp.GetErrors())
	}

	out, err := c.ExportData(ctx, &adminpb.ExportDataRequest{OrgIds: []string{"o1", "o2"}, ExcludedOrgIds: []string{"o2"}, ResponseOutput: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(out.GetOrgs()) != 1 || len(out.GetOrgs()[0].GetHumanUsers()) != 3 {
		t.Fatalf("exported %v", out)
	}
	first := out.GetOrgs()[0].GetHumanUsers()[0].GetUser()
	if first.GetHashedPassword() != nil || first.GetOtpCode() != "" {
		t.Error("secrets were exported that nobody asked for")
	}
	if len(out.GetOrgs()[0].ProtoReflect().GetUnknown()) == 0 {
		t.Error("unknown fields were lost")
	}
	out, err = c.ExportData(ctx, &adminpb.ExportDataRequest{OrgIds: []string{"o1"}, ResponseOutput: true, WithPasswords: true, WithOtp: true})
	if err != nil {
		t.Fatal(err)
	}
	first = out.GetOrgs()[0].GetHumanUsers()[0].GetUser()
	if first.GetHashedPassword().GetValue() != "$2a$10$abc" || first.GetOtpCode() != "otp" {
		t.Error("secrets are missing")
	}
	user, err := userpb.NewUserServiceClient(b.conn).GetUserByID(ctx, &userpb.GetUserByIDRequest{UserId: "o1-2"})
	if err != nil || user.GetUser().GetDetails().GetResourceOwner() != "o1" {
		t.Errorf("imported user: %v, %v", user, err)
	}
	_, err = c.ImportData(ctx, &adminpb.ImportDataRequest{})
	wantCode(t, err, codes.InvalidArgument)
}

func TestImportOfTheFirstFormat(t *testing.T) {
	t.Parallel()
	b := setup(t, demoapi.Options{})
	resp, err := adminpb.NewAdminServiceClient(b.conn).ImportData(t.Context(), &adminpb.ImportDataRequest{
		Data: &adminpb.ImportDataRequest_DataOrgsv1{DataOrgsv1: &datapb.ImportDataOrg{Orgs: []*datapb.DataOrg{{
			OrgId: "old",
			TriggerActions: []*datapb.SetTriggerActionsRequest{{
				FlowType:    datapb.FlowType_FLOW_TYPE_EXTERNAL_AUTHENTICATION,
				TriggerType: datapb.TriggerType_TRIGGER_TYPE_PRE_CREATION,
			}},
		}}}}})
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.GetSuccess().GetOrgs()[0].GetTriggerActions()[0].GetTriggerType(); got != "TRIGGER_TYPE_PRE_CREATION" {
		t.Errorf("trigger is %q", got)
	}
}

func TestBigImport(t *testing.T) {
	t.Parallel()
	b := setup(t, demoapi.Options{})
	org := dataOrg("big", 1)
	org.Actions[0].Action.Script = strings.Repeat("x", 32<<20)
	c := adminpb.NewAdminServiceClient(b.conn)
	if _, err := c.ImportData(t.Context(), &adminpb.ImportDataRequest{Data: &adminpb.ImportDataRequest_DataOrgs{
		DataOrgs: &adminpb.ImportDataOrg{Orgs: []*adminpb.DataOrg{org}}}}); err != nil {
		t.Fatal(err)
	}
	if r, ok := b.Last("/zitadel.admin.v1.AdminService/ImportData"); !ok || r.Message != nil {
		t.Error("a big message is kept")
	}
	// The way out goes over REST.
	code, body, _ := b.do(t, "POST", "/admin/v1/export", `{"responseOutput":true,"orgIds":["big"]}`)
	if code != 200 || len(body) < 32<<20 {
		t.Errorf("export: %d, %d bytes", code, len(body))
	}
}
