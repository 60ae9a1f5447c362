package demoapi_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	objectpb "github.com/execgate/execgate/gen/zitadel/object/v2"
	sessionpb "github.com/execgate/execgate/gen/zitadel/session/v2"
	userpb "github.com/execgate/execgate/gen/zitadel/user/v2"
	zitadelpb "github.com/execgate/execgate/gen/zitadel/v1"
	"github.com/execgate/execgate/internal/testkit/demoapi"
)

func person(name string) *userpb.AddHumanUserRequest {
	return &userpb.AddHumanUserRequest{
		Username: new(name),
		Profile:  &userpb.SetHumanProfile{GivenName: strings.ToUpper(name[:1]) + name[1:], FamilyName: "Lovelace"},
		Email:    &userpb.SetHumanEmail{Email: name + "@example.com", Verification: &userpb.SetHumanEmail_IsVerified{IsVerified: true}},
		PasswordType: &userpb.AddHumanUserRequest_Password{
			Password: &userpb.Password{Password: "Secret-" + name},
		},
	}
}

func TestUserLife(t *testing.T) {
	t.Parallel()
	b := setup(t, demoapi.Options{})
	c := userpb.NewUserServiceClient(b.conn)
	ctx := t.Context()

	added, err := c.AddHumanUser(ctx, person("ada"))
	if err != nil {
		t.Fatal(err)
	}
	id := added.GetUserId()
	if len(id) != 18 {
		t.Errorf("id %q has %d characters, want 18", id, len(id))
	}
	if got := added.GetDetails().GetResourceOwner(); got != demoapi.DefaultOrgID {
		t.Errorf("owner is %q", got)
	}
	if added.EmailCode != nil {
		t.Error("a code was returned that nobody asked for")
	}

	_, err = c.AddHumanUser(ctx, person("ada"))
	wantCode(t, err, codes.AlreadyExists)
	var detail *zitadelpb.ErrorDetail
	for _, d := range status.Convert(err).Details() {
		detail, _ = d.(*zitadelpb.ErrorDetail)
	}
	if detail.GetId() == "" || !strings.HasSuffix(status.Convert(err).Message(), "("+detail.GetId()+")") {
		t.Errorf("error %v has detail %v", err, detail)
	}

	updated, err := c.UpdateHumanUser(ctx, &userpb.UpdateHumanUserRequest{
		UserId:  id,
		Profile: &userpb.SetHumanProfile{GivenName: "Augusta", FamilyName: "King"},
		Email:   &userpb.SetHumanEmail{Email: "king@example.com", Verification: &userpb.SetHumanEmail_ReturnCode{ReturnCode: &userpb.ReturnEmailVerificationCode{}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if updated.EmailCode == nil {
		t.Error("the code that was asked for is missing")
	}
	if updated.GetDetails().GetSequence() <= added.GetDetails().GetSequence() {
		t.Error("the sequence did not grow")
	}
	same, err := c.UpdateHumanUser(ctx, &userpb.UpdateHumanUserRequest{
		UserId:  id,
		Profile: &userpb.SetHumanProfile{GivenName: "Augusta", FamilyName: "King"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if same.GetDetails().GetSequence() != updated.GetDetails().GetSequence() {
		t.Error("an update without a change was written")
	}

	got, err := c.GetUserByID(ctx, &userpb.GetUserByIDRequest{UserId: id})
	if err != nil {
		t.Fatal(err)
	}
	human := got.GetUser().GetHuman()
	if human.GetProfile().GetGivenName() != "Augusta" || human.GetEmail().GetEmail() != "king@example.com" || human.GetEmail().GetIsVerified() {
		t.Errorf("user is %v", human)
	}

	if _, err := c.SetPassword(ctx, &userpb.SetPasswordRequest{
		UserId: id, NewPassword: &userpb.Password{Password: "next"},
		Verification: &userpb.SetPasswordRequest_CurrentPassword{CurrentPassword: "wrong"},
	}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("wrong current password: %v", err)
	}
	if _, err := c.SetPassword(ctx, &userpb.SetPasswordRequest{
		UserId: id, NewPassword: &userpb.Password{Password: "next"},
		Verification: &userpb.SetPasswordRequest_CurrentPassword{CurrentPassword: "Secret-ada"},
	}); err != nil {
		t.Error(err)
	}

	if _, err := c.LockUser(ctx, &userpb.LockUserRequest{UserId: id}); err != nil {
		t.Error(err)
	}
	_, err = sessionpb.NewSessionServiceClient(b.conn).CreateSession(ctx, &sessionpb.CreateSessionRequest{
		Checks: &sessionpb.Checks{User: &sessionpb.CheckUser{Search: &sessionpb.CheckUser_UserId{UserId: id}}},
	})
	wantCode(t, err, codes.FailedPrecondition)

	if _, err := c.DeleteUser(ctx, &userpb.DeleteUserRequest{UserId: id}); err != nil {
		t.Error(err)
	}
	_, err = c.GetUserByID(ctx, &userpb.GetUserByIDRequest{UserId: id})
	wantCode(t, err, codes.NotFound)
	if _, err := c.AddHumanUser(ctx, person("ada")); err != nil {
		t.Errorf("the name of a deleted user is still taken: %v", err)
	}
}

func TestUserFieldsAreValidated(t *testing.T) {
	t.Parallel()
	b := setup(t, demoapi.Options{})
	c := userpb.NewUserServiceClient(b.conn)
	for name, broken := range map[string]func(*userpb.AddHumanUserRequest){
		"no profile":         func(r *userpb.AddHumanUserRequest) { r.Profile = nil },
		"no given name":      func(r *userpb.AddHumanUserRequest) { r.Profile.GivenName = "" },
		"long family name":   func(r *userpb.AddHumanUserRequest) { r.Profile.FamilyName = strings.Repeat("ä", 201) },
		"no email":           func(r *userpb.AddHumanUserRequest) { r.Email = nil },
		"no email address":   func(r *userpb.AddHumanUserRequest) { r.Email.Email = "ada" },
		"empty user id":      func(r *userpb.AddHumanUserRequest) { r.UserId = new("") },
		"metadata, no key":   func(r *userpb.AddHumanUserRequest) { r.Metadata = []*userpb.SetMetadataEntry{{Value: []byte("x")}} },
		"metadata, no value": func(r *userpb.AddHumanUserRequest) { r.Metadata = []*userpb.SetMetadataEntry{{Key: "k"}} },
		"empty password": func(r *userpb.AddHumanUserRequest) {
			r.PasswordType = &userpb.AddHumanUserRequest_Password{Password: &userpb.Password{}}
		},
		"link, no provider": func(r *userpb.AddHumanUserRequest) { r.IdpLinks = []*userpb.IDPLink{{UserId: "1", UserName: "a"}} },
	} {
		t.Run(name, func(t *testing.T) {
			req := person("ada")
			broken(req)
			_, err := c.AddHumanUser(t.Context(), req)
			wantCode(t, err, codes.InvalidArgument)
			if len(status.Convert(err).Details()) != 0 {
				t.Error("field validation has no details")
			}
		})
	}
	_, err := c.AddHumanUser(t.Context(), &userpb.AddHumanUserRequest{
		Profile: person("ada").GetProfile(), Email: person("ada").GetEmail(),
		Organization: &objectpb.Organization{Org: &objectpb.Organization_OrgId{OrgId: "nowhere"}},
	})
	wantCode(t, err, codes.NotFound)
}

func TestListUsers(t *testing.T) {
	t.Parallel()
	b := setup(t, demoapi.Options{})
	c := userpb.NewUserServiceClient(b.conn)
	names := []string{"ada", "bea", "cyd", "dot", "eve"}
	for _, n := range names {
		if _, err := c.AddHumanUser(t.Context(), person(n)); err != nil {
			t.Fatal(err)
		}
	}
	text := func(s string, m objectpb.TextQueryMethod) *userpb.SearchQuery {
		return &userpb.SearchQuery{Query: &userpb.SearchQuery_UserNameQuery{UserNameQuery: &userpb.UserNameQuery{UserName: s, Method: m}}}
	}
	const contains = objectpb.TextQueryMethod_TEXT_QUERY_METHOD_CONTAINS_IGNORE_CASE
	for name, test := range map[string]struct {
		req  *userpb.ListUsersRequest
		want string
	}{
		"newest first":   {&userpb.ListUsersRequest{}, "eve dot cyd bea ada"},
		"oldest first":   {&userpb.ListUsersRequest{Query: &objectpb.ListQuery{Asc: true}}, "ada bea cyd dot eve"},
		"a page":         {&userpb.ListUsersRequest{Query: &objectpb.ListQuery{Asc: true, Offset: 1, Limit: 2}}, "bea cyd"},
		"beyond the end": {&userpb.ListUsersRequest{Query: &objectpb.ListQuery{Offset: 9}}, ""},
		"by name": {&userpb.ListUsersRequest{
			SortingColumn: userpb.UserFieldName_USER_FIELD_NAME_USER_NAME,
			Queries:       []*userpb.SearchQuery{text("D", contains)},
		}, "dot cyd ada"},
		"either": {&userpb.ListUsersRequest{Queries: []*userpb.SearchQuery{{Query: &userpb.SearchQuery_OrQuery{
			OrQuery: &userpb.OrQuery{Queries: []*userpb.SearchQuery{text("ada", 0), text("eve", 0)}}}}}}, "eve ada"},
		"neither": {&userpb.ListUsersRequest{Queries: []*userpb.SearchQuery{{Query: &userpb.SearchQuery_NotQuery{
			NotQuery: &userpb.NotQuery{Query: text("e", contains)}}}}}, "dot cyd ada"},
		"both": {&userpb.ListUsersRequest{Queries: []*userpb.SearchQuery{text("e", contains), text("a", contains)}}, "bea"},
		"by address": {&userpb.ListUsersRequest{Queries: []*userpb.SearchQuery{{Query: &userpb.SearchQuery_InUserEmailsQuery{
			InUserEmailsQuery: &userpb.InUserEmailsQuery{UserEmails: []string{"cyd@example.com", "x"}}}}}}, "cyd"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resp, err := c.ListUsers(t.Context(), test.req)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, u := range resp.GetResult() {
				got = append(got, u.GetUsername())
			}
			if !slices.Equal(got, strings.Fields(test.want)) {
				t.Errorf("got %v, want %s", got, test.want)
			}
			if len(test.req.GetQueries()) == 0 && resp.GetDetails().GetTotalResult() != uint64(len(names)) {
				t.Errorf("total is %d", resp.GetDetails().GetTotalResult())
			}
		})
	}
	t.Run("limit", func(t *testing.T) {
		t.Parallel()
		_, err := c.ListUsers(t.Context(), &userpb.ListUsersRequest{Query: &objectpb.ListQuery{Limit: 1001}})
		wantCode(t, err, codes.InvalidArgument)
	})
	t.Run("empty query", func(t *testing.T) {
		t.Parallel()
		_, err := c.ListUsers(t.Context(), &userpb.ListUsersRequest{Queries: []*userpb.SearchQuery{{}}})
		wantCode(t, err, codes.InvalidArgument)
	})
}

func TestSessionLife(t *testing.T) {
	t.Parallel()
	b := setup(t, demoapi.Options{})
	ctx := t.Context()
	added, err := userpb.NewUserServiceClient(b.conn).AddHumanUser(ctx, person("ada"))
	if err != nil {
		t.Fatal(err)
	}
	c := sessionpb.NewSessionServiceClient(b.conn)
	byName := &sessionpb.CheckUser{Search: &sessionpb.CheckUser_LoginName{LoginName: "ADA"}}
	created, err := c.CreateSession(ctx, &sessionpb.CreateSessionRequest{
		Checks:     &sessionpb.Checks{User: byName},
		Metadata:   map[string][]byte{"where": []byte("here")},
		UserAgent:  &sessionpb.UserAgent{FingerprintId: new("f1"), Header: map[string]*sessionpb.UserAgent_HeaderValues{"A": {Values: []string{"b"}}}},
		Challenges: &sessionpb.RequestChallenges{OtpSms: &sessionpb.RequestChallenges_OTPSMS{ReturnCode: true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	id := created.GetSessionId()
	_, err = c.SetSession(ctx, &sessionpb.SetSessionRequest{SessionId: id, SessionToken: created.GetSessionToken(),
		Checks: &sessionpb.Checks{Password: &sessionpb.CheckPassword{Password: "guess"}}})
	wantCode(t, err, codes.InvalidArgument)
	_, err = c.SetSession(ctx, &sessionpb.SetSessionRequest{SessionId: id, SessionToken: "forged"})
	wantCode(t, err, codes.PermissionDenied)
	set, err := c.SetSession(ctx, &sessionpb.SetSessionRequest{SessionId: id, SessionToken: created.GetSessionToken(),
		Checks: &sessionpb.Checks{
			Password: &sessionpb.CheckPassword{Password: "Secret-ada"},
			OtpSms:   &sessionpb.CheckOTP{Code: created.GetChallenges().GetOtpSms()},
		}})
	if err != nil {
		t.Fatal(err)
	}
	if set.GetSessionToken() == created.GetSessionToken() {
		t.Error("the token was not renewed")
	}
	got, err := c.GetSession(ctx, &sessionpb.GetSessionRequest{SessionId: id, SessionToken: new(set.GetSessionToken())})
	if err != nil {
		t.Fatal(err)
	}
	f := got.GetSession().GetFactors()
	if f.GetUser().GetId() != added.GetUserId() || f.GetPassword() == nil || f.GetOtpSms() == nil || string(got.GetSession().GetMetadata()["where"]) != "here" {
		t.Errorf("session is %v", got)
	}
	listed, err := c.ListSessions(ctx, &sessionpb.ListSessionsRequest{Queries: []*sessionpb.SearchQuery{
		{Query: &sessionpb.SearchQuery_UserIdQuery{UserIdQuery: &sessionpb.UserIDQuery{Id: added.GetUserId()}}},
		{Query: &sessionpb.SearchQuery_UserAgentQuery{UserAgentQuery: &sessionpb.UserAgentQuery{FingerprintId: new("f1")}}},
	}})
	if err != nil || len(listed.GetSessions()) != 1 {
		t.Errorf("list: %v, %v", listed, err)
	}
	if _, err := c.DeleteSession(ctx, &sessionpb.DeleteSessionRequest{SessionId: id}); err != nil {
		t.Error(err)
	}
	_, err = c.GetSession(ctx, &sessionpb.GetSessionRequest{SessionId: id})
	wantCode(t, err, codes.NotFound)

	types := eventTypes(t, b)
	want := []string{
		"user.human.added", "user.human.email.verified",
		"session.added", "session.user.checked", "session.metadata.set", "session.otp.sms.challenged", "session.token.set",
		"user.human.password.check.failed",
		"user.human.password.check.succeeded", "session.password.checked", "session.otp.sms.checked", "session.token.set",
		"session.terminated",
	}
	if !slices.Equal(types, want) {
		t.Errorf("events are\n%s\nwant\n%s", fmt.Sprint(types), fmt.Sprint(want))
	}
}
