package demoapi

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	adminpb "github.com/execgate/execgate/gen/zitadel/admin/v1"
	managementpb "github.com/execgate/execgate/gen/zitadel/management/v1"
	userpbv1 "github.com/execgate/execgate/gen/zitadel/user/v1"
	userpb "github.com/execgate/execgate/gen/zitadel/user/v2"
	datapb "github.com/execgate/execgate/gen/zitadel/v1/v1"
)

// org is a stored organization.
type org struct {
	id, name string
	// imported is what the organization was brought in with, without its users.
	imported *adminpb.DataOrg
	actions  map[string]*managementpb.CreateActionRequest
	triggers []*managementpb.SetTriggerActionsRequest
}

// admin is the admin service. Its event methods are in events.go.
type admin struct {
	adminpb.UnimplementedAdminServiceServer
	state *state
}

// Healthz succeeds.
func (s *admin) Healthz(context.Context, *adminpb.HealthzRequest) (*adminpb.HealthzResponse, error) {
	return &adminpb.HealthzResponse{}, nil
}

// ImportData brings organizations in. What cannot be imported is reported, the
// rest is imported, all in one transaction.
func (s *admin) ImportData(ctx context.Context, req *adminpb.ImportDataRequest) (*adminpb.ImportDataResponse, error) {
	var orgs []*adminpb.DataOrg
	switch d := req.GetData().(type) {
	case *adminpb.ImportDataRequest_DataOrgs:
		orgs = d.DataOrgs.GetOrgs()
	case *adminpb.ImportDataRequest_DataOrgsv1:
		for _, o := range d.DataOrgsv1.GetOrgs() {
			orgs = append(orgs, currentFormat(o))
		}
	case nil:
		return nil, invalid("ImportDataRequest.Data", "value is required")
	default:
		return nil, failure(codes.Unimplemented, "The demo API imports from the request only", "DEMO-0import")
	}
	st := s.state
	st.mu.Lock()
	defer st.mu.Unlock()
	t := st.begin(callOf(ctx))
	resp := &adminpb.ImportDataResponse{Success: &adminpb.ImportDataSuccess{}}
	for _, o := range orgs {
		t.importOrg(o, resp)
	}
	return resp, nil
}

// currentFormat turns an organization of the first format into the current one,
// which differs in how triggers are named.
func currentFormat(o *datapb.DataOrg) *adminpb.DataOrg {
	next := &adminpb.DataOrg{
		OrgId: o.GetOrgId(), Org: o.GetOrg(), HumanUsers: o.GetHumanUsers(),
		MachineUsers: o.GetMachineUsers(), Actions: o.GetActions(),
	}
	for _, t := range o.GetTriggerActions() {
		next.TriggerActions = append(next.TriggerActions, &managementpb.SetTriggerActionsRequest{
			FlowType: t.GetFlowType().String(), TriggerType: t.GetTriggerType().String(), ActionIds: t.GetActionIds(),
		})
	}
	next.ProtoReflect().SetUnknown(o.ProtoReflect().GetUnknown())
	return next
}

func (t *tx) importOrg(data *adminpb.DataOrg, resp *adminpb.ImportDataResponse) {
	st := t.s
	bad := func(kind, id, text string) {
		resp.Errors = append(resp.Errors, &adminpb.ImportDataError{Type: kind, Id: id, Message: text})
	}
	id := data.GetOrgId()
	if id == "" {
		bad("org", id, "organization has no id")
		return
	}
	o := st.orgs[id]
	if o == nil {
		o = &org{id: id, name: data.GetOrg().GetName()}
		st.orgs[id] = o
		t.emit(aggregate{aggregateOrg, id}, id, "org.added", map[string]any{"name": o.name})
	}
	// Users and actions are kept on their own; what is left is kept as it came.
	rest := &adminpb.DataOrg{OrgId: id, Org: data.GetOrg()}
	rest.ProtoReflect().SetUnknown(slices.Clone(data.ProtoReflect().GetUnknown()))
	o.imported = rest
	done := &adminpb.ImportDataSuccessOrg{OrgId: id}
	resp.Success.Orgs = append(resp.Success.Orgs, done)

	for _, h := range data.GetHumanUsers() {
		if err := t.importHuman(id, h); err != nil {
			bad("human_user", h.GetUserId(), err.Error())
			continue
		}
		done.HumanUserIds = append(done.HumanUserIds, h.GetUserId())
	}
	for _, m := range data.GetMachineUsers() {
		if err := t.importMachine(id, m); err != nil {
			bad("machine_user", m.GetUserId(), err.Error())
			continue
		}
		done.MachineUserIds = append(done.MachineUserIds, m.GetUserId())
	}
	for _, a := range data.GetActions() {
		if o.actions == nil {
			o.actions = map[string]*managementpb.CreateActionRequest{}
		}
		if o.actions[a.GetActionId()] != nil {
			bad("action", a.GetActionId(), "action already exists")
			continue
		}
		o.actions[a.GetActionId()] = a.GetAction()
		t.emit(aggregate{aggregateAction, a.GetActionId()}, id, "action.added", map[string]any{"name": a.GetAction().GetName()})
		done.ActionIds = append(done.ActionIds, a.GetActionId())
	}
	for _, tr := range data.GetTriggerActions() {
		o.triggers = append(o.triggers, tr)
		ids := make([]any, 0, len(tr.GetActionIds()))
		for _, a := range tr.GetActionIds() {
			ids = append(ids, a)
		}
		t.emit(aggregate{aggregateOrg, id}, id, "org.flow.trigger_actions.set", map[string]any{
			"flowType": tr.GetFlowType(), "triggerType": tr.GetTriggerType(), "actionIDs": ids})
		done.TriggerActions = append(done.TriggerActions, tr)
	}
}

func (t *tx) importHuman(owner string, data *datapb.DataHumanUser) error {
	id, in := data.GetUserId(), data.GetUser()
	if err := (checks{
		length("DataHumanUser.UserId", id, 1, 200),
		length("ImportHumanUserRequest.UserName", in.GetUserName(), 1, 200),
	}).err(); err != nil {
		return err
	}
	if err := t.s.free(id, in.GetUserName()); err != nil {
		return err
	}
	p := in.GetProfile()
	human := &userpb.HumanUser{
		UserId: id, Username: in.GetUserName(), State: userpb.UserState_USER_STATE_ACTIVE,
		LoginNames: []string{in.GetUserName()}, PreferredLoginName: in.GetUserName(),
		Profile: profileOf(&userpb.SetHumanProfile{
			GivenName: p.GetFirstName(), FamilyName: p.GetLastName(), NickName: optional(p.GetNickName()),
			DisplayName: optional(p.GetDisplayName()), PreferredLanguage: optional(p.GetPreferredLanguage()),
			Gender: new(userpb.Gender(p.GetGender())),
		}, nil),
		Email:                  &userpb.HumanEmail{Email: in.GetEmail().GetEmail(), IsVerified: in.GetEmail().GetIsEmailVerified()},
		PasswordChangeRequired: in.GetPasswordChangeRequired(),
	}
	if in.GetPhone().GetPhone() != "" {
		human.Phone = &userpb.HumanPhone{Phone: in.GetPhone().GetPhone(), IsVerified: in.GetPhone().GetIsPhoneVerified()}
	}
	u := &user{owner: owner, created: len(t.s.log), otp: in.GetOtpCode(), metadata: map[string][]byte{}, hash: in.GetHashedPassword().GetValue()}
	if u.hash == "" && in.GetPassword() != "" {
		u.hash = hashPassword(in.GetPassword())
	}
	for _, l := range in.GetIdps() {
		u.links = append(u.links, &userpb.IDPLink{IdpId: l.GetConfigId(), UserId: l.GetExternalUserId(), UserName: l.GetDisplayName()})
	}
	t.s.put(u, human)
	payload := profilePayload(human.GetProfile())
	payload["userName"], payload["email"] = human.GetUsername(), human.GetEmail().GetEmail()
	t.emit(u.aggregate(), owner, "user.human.added", payload)
	if human.GetEmail().GetIsVerified() {
		t.emit(u.aggregate(), owner, "user.human.email.verified", nil)
	}
	t.touch(u)
	return nil
}

func (t *tx) importMachine(owner string, data *datapb.DataMachineUser) error {
	id, in := data.GetUserId(), data.GetUser()
	if err := (checks{
		length("DataMachineUser.UserId", id, 1, 200),
		length("AddMachineUserRequest.UserName", in.GetUserName(), 1, 200),
	}).err(); err != nil {
		return err
	}
	if err := t.s.free(id, in.GetUserName()); err != nil {
		return err
	}
	u := &user{owner: owner, created: len(t.s.log), metadata: map[string][]byte{}, public: &userpb.User{
		UserId: id, State: userpb.UserState_USER_STATE_ACTIVE, Username: in.GetUserName(),
		LoginNames: []string{in.GetUserName()}, PreferredLoginName: in.GetUserName(),
		Type: &userpb.User_Machine{Machine: &userpb.MachineUser{
			Name: in.GetName(), Description: in.GetDescription(),
			AccessTokenType: userpb.AccessTokenType(in.GetAccessTokenType()),
		}},
	}}
	t.s.users[id] = u
	t.s.logins[strings.ToLower(in.GetUserName())] = u
	t.emit(u.aggregate(), owner, "user.machine.added", map[string]any{"userName": in.GetUserName(), "name": in.GetName()})
	t.touch(u)
	return nil
}

// ExportData hands organizations out: in the response when that is asked for.
// Nothing is ever written to a file or a bucket.
func (s *admin) ExportData(_ context.Context, req *adminpb.ExportDataRequest) (*adminpb.ExportDataResponse, error) {
	if req.GetLocalOutput() != nil || req.GetS3Output() != nil || req.GetGcsOutput() != nil {
		return nil, failure(codes.Unimplemented, "The demo API exports into the response only", "DEMO-0export")
	}
	if !req.GetResponseOutput() {
		return &adminpb.ExportDataResponse{}, nil
	}
	st := s.state
	st.mu.Lock()
	defer st.mu.Unlock()
	resp := &adminpb.ExportDataResponse{}
	index := map[string]*adminpb.DataOrg{}
	for _, id := range slices.Sorted(maps.Keys(st.orgs)) {
		if len(req.GetOrgIds()) > 0 && !slices.Contains(req.GetOrgIds(), id) || slices.Contains(req.GetExcludedOrgIds(), id) {
			continue
		}
		index[id] = st.orgs[id].export()
		resp.Orgs = append(resp.Orgs, index[id])
	}
	for _, u := range slices.SortedFunc(maps.Values(st.users), func(a, b *user) int {
		return cmp.Or(cmp.Compare(a.created, b.created), cmp.Compare(a.public.GetUserId(), b.public.GetUserId()))
	}) {
		if o := index[u.owner]; o != nil {
			u.export(o, req)
		}
	}
	return resp, nil
}

func (o *org) export() *adminpb.DataOrg {
	data := &adminpb.DataOrg{OrgId: o.id, Org: &managementpb.AddOrgRequest{Name: o.name}}
	if o.imported != nil {
		data = proto.CloneOf(o.imported)
	}
	data.TriggerActions = o.triggers
	for _, id := range slices.Sorted(maps.Keys(o.actions)) {
		data.Actions = append(data.Actions, &datapb.DataAction{ActionId: id, Action: o.actions[id]})
	}
	return data
}

func (u *user) export(o *adminpb.DataOrg, req *adminpb.ExportDataRequest) {
	id := u.public.GetUserId()
	if m := u.public.GetMachine(); m != nil {
		o.MachineUsers = append(o.MachineUsers, &datapb.DataMachineUser{UserId: id, User: &managementpb.AddMachineUserRequest{
			UserName: u.public.GetUsername(), Name: m.GetName(), Description: m.GetDescription(),
			AccessTokenType: userpbv1.AccessTokenType(m.GetAccessTokenType()),
		}})
		return
	}
	h := u.public.GetHuman()
	p := h.GetProfile()
	out := &managementpb.ImportHumanUserRequest{
		UserName: h.GetUsername(),
		Profile: &managementpb.ImportHumanUserRequest_Profile{
			FirstName: p.GetGivenName(), LastName: p.GetFamilyName(), NickName: p.GetNickName(),
			DisplayName: p.GetDisplayName(), PreferredLanguage: p.GetPreferredLanguage(),
			Gender: userpbv1.Gender(p.GetGender()),
		},
		Email: &managementpb.ImportHumanUserRequest_Email{
			Email: h.GetEmail().GetEmail(), IsEmailVerified: h.GetEmail().GetIsVerified(),
		},
		PasswordChangeRequired: h.GetPasswordChangeRequired(),
	}
	if h.GetPhone() != nil {
		out.Phone = &managementpb.ImportHumanUserRequest_Phone{
			Phone: h.GetPhone().GetPhone(), IsPhoneVerified: h.GetPhone().GetIsVerified(),
		}
	}
	if req.GetWithPasswords() && u.hash != "" {
		out.HashedPassword = &managementpb.ImportHumanUserRequest_HashedPassword{Value: u.hash}
	}
	if req.GetWithOtp() {
		out.OtpCode = u.otp
	}
	for _, l := range u.links {
		out.Idps = append(out.Idps, &managementpb.ImportHumanUserRequest_IDP{
			ConfigId: l.GetIdpId(), ExternalUserId: l.GetUserId(), DisplayName: l.GetUserName()})
	}
	o.HumanUsers = append(o.HumanUsers, &datapb.DataHumanUser{UserId: id, User: out})
}
