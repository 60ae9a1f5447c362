package demoapi

import (
	"context"
	"encoding/base64"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	objectpb "github.com/execgate/execgate/gen/zitadel/object/v2"
	userpb "github.com/execgate/execgate/gen/zitadel/user/v2"
)

const invalidArgument = codes.InvalidArgument

// user is a stored user. public is what reads return, always replaced as a
// whole and never changed in place.
type user struct {
	public   *userpb.User
	created  int // position of its first event
	owner    string
	hash     string // of the password, in modular crypt format
	otp      string
	metadata map[string][]byte
	links    []*userpb.IDPLink
	// Codes that were handed out, by what they verify.
	emailCode, phoneCode string
}

func (u *user) aggregate() aggregate { return aggregate{aggregateUser, u.public.GetUserId()} }

// users is the user service.
type users struct {
	userpb.UnimplementedUserServiceServer
	state *state
}

// AddHumanUser creates a person.
func (s *users) AddHumanUser(ctx context.Context, req *userpb.AddHumanUserRequest) (*userpb.AddHumanUserResponse, error) {
	if err := checkAddHumanUser(req); err != nil {
		return nil, err
	}
	c := callOf(ctx)
	st := s.state
	st.mu.Lock()
	defer st.mu.Unlock()

	owner, err := st.owner(c, req.GetOrganization())
	if err != nil {
		return nil, err
	}
	id := req.GetUserId()
	if id == "" {
		id = st.nextID()
	}
	username := req.GetUsername()
	if username == "" {
		username = req.GetEmail().GetEmail()
	}
	if err := st.free(id, username); err != nil {
		return nil, err
	}
	p := req.GetProfile()
	human := &userpb.HumanUser{
		UserId: id, Username: username, State: userpb.UserState_USER_STATE_ACTIVE,
		LoginNames: []string{username}, PreferredLoginName: username,
		Profile: profileOf(p, nil),
		Email:   &userpb.HumanEmail{Email: req.GetEmail().GetEmail()},
	}
	u := &user{owner: owner, created: len(st.log), otp: req.GetTotpSecret(), links: req.GetIdpLinks(), metadata: map[string][]byte{}}
	t := st.begin(c)
	added := profilePayload(human.GetProfile())
	added["userName"], added["email"] = username, human.GetEmail().GetEmail()
	if phone := req.GetPhone().GetPhone(); phone != "" {
		human.Phone = &userpb.HumanPhone{Phone: phone}
		added["phone"] = phone
	}
	switch {
	case req.GetPassword() != nil:
		u.hash = hashPassword(req.GetPassword().GetPassword())
		human.PasswordChangeRequired = req.GetPassword().GetChangeRequired()
	case req.GetHashedPassword() != nil:
		u.hash = req.GetHashedPassword().GetHash()
		human.PasswordChangeRequired = req.GetHashedPassword().GetChangeRequired()
	}
	if u.hash != "" {
		human.PasswordChanged = t.timestamp()
		added["encodedHash"] = u.hash
		added["changeRequired"] = human.GetPasswordChangeRequired()
	}
	st.put(u, human)
	a := u.aggregate()
	t.emit(a, owner, "user.human.added", added)

	resp := &userpb.AddHumanUserResponse{UserId: id}
	resp.EmailCode = t.verifyEmail(u, req.GetEmail())
	if human.GetPhone() != nil {
		resp.PhoneCode = t.verifyPhone(u, req.GetPhone())
	}
	for _, m := range req.GetMetadata() {
		u.metadata[m.GetKey()] = m.GetValue()
		t.emit(a, owner, "user.metadata.set", map[string]any{"key": m.GetKey(), "value": base64.StdEncoding.EncodeToString(m.GetValue())})
	}
	for _, l := range req.GetIdpLinks() {
		t.emit(a, owner, "user.human.externalidp.added", map[string]any{
			"idpConfigId": l.GetIdpId(), "userId": l.GetUserId(), "displayName": l.GetUserName()})
	}
	if u.otp != "" {
		t.emit(a, owner, "user.human.mfa.otp.added", nil)
		t.emit(a, owner, "user.human.mfa.otp.verified", nil)
	}
	resp.Details = t.touch(u)
	return resp, nil
}

// UpdateHumanUser changes what the request names.
func (s *users) UpdateHumanUser(ctx context.Context, req *userpb.UpdateHumanUserRequest) (*userpb.UpdateHumanUserResponse, error) {
	if err := checkUpdateHumanUser(req); err != nil {
		return nil, err
	}
	st := s.state
	st.mu.Lock()
	defer st.mu.Unlock()
	u, err := st.user(req.GetUserId())
	if err != nil {
		return nil, err
	}
	if u.public.GetHuman() == nil {
		return nil, failure(codes.FailedPrecondition, "User must be human", "COMMAND-k2unb")
	}
	human := proto.CloneOf(u.public.GetHuman())
	a := u.aggregate()
	if name := req.Username; name != nil && *name != human.GetUsername() {
		if err := st.free("", *name); err != nil {
			return nil, err
		}
	}
	if err := u.mayChangePassword(req.GetPassword()); err != nil {
		return nil, err
	}

	t := st.begin(callOf(ctx))
	before := len(st.log)
	if name := req.Username; name != nil && *name != human.GetUsername() {
		human.Username, human.PreferredLoginName, human.LoginNames = *name, *name, []string{*name}
		t.emit(a, u.owner, "user.username.changed", map[string]any{"userName": *name})
	}
	if req.GetProfile() != nil {
		if changed := profileOf(req.GetProfile(), human.GetProfile()); !proto.Equal(changed, human.GetProfile()) {
			human.Profile = changed
			t.emit(a, u.owner, "user.human.profile.changed", profilePayload(changed))
		}
	}
	resp := &userpb.UpdateHumanUserResponse{}
	st.put(u, human)
	if email := req.GetEmail(); email != nil {
		human.Email = &userpb.HumanEmail{Email: email.GetEmail()}
		st.put(u, human)
		t.emit(a, u.owner, "user.human.email.changed", map[string]any{"email": email.GetEmail()})
		resp.EmailCode = t.verifyEmail(u, email)
	}
	if phone := req.GetPhone(); phone != nil {
		human = proto.CloneOf(u.public.GetHuman())
		human.Phone = &userpb.HumanPhone{Phone: phone.GetPhone()}
		st.put(u, human)
		t.emit(a, u.owner, "user.human.phone.changed", map[string]any{"phone": phone.GetPhone()})
		resp.PhoneCode = t.verifyPhone(u, phone)
	}
	if p := req.GetPassword(); p != nil {
		hash, change := p.GetHashedPassword().GetHash(), p.GetHashedPassword().GetChangeRequired()
		if p.GetPassword() != nil {
			hash, change = hashPassword(p.GetPassword().GetPassword()), p.GetPassword().GetChangeRequired()
		}
		t.changePassword(u, hash, change)
	}
	if len(st.log) == before {
		// Nothing changed: nothing is written, and the details stay.
		resp.Details = u.public.GetDetails()
		return resp, nil
	}
	resp.Details = t.touch(u)
	return resp, nil
}

// SetPassword gives a user a new password.
func (s *users) SetPassword(ctx context.Context, req *userpb.SetPasswordRequest) (*userpb.SetPasswordResponse, error) {
	if err := (checks{
		length("SetPasswordRequest.UserId", req.GetUserId(), 1, 200),
		present("SetPasswordRequest.NewPassword", req.GetNewPassword() != nil),
		length("Password.Password", req.GetNewPassword().GetPassword(), 1, 200),
	}).err(); err != nil {
		return nil, err
	}
	st := s.state
	st.mu.Lock()
	defer st.mu.Unlock()
	u, err := st.user(req.GetUserId())
	if err != nil {
		return nil, err
	}
	proof := &userpb.SetPassword{}
	switch v := req.GetVerification().(type) {
	case *userpb.SetPasswordRequest_CurrentPassword:
		proof.Verification = &userpb.SetPassword_CurrentPassword{CurrentPassword: v.CurrentPassword}
	case *userpb.SetPasswordRequest_VerificationCode:
		proof.Verification = &userpb.SetPassword_VerificationCode{VerificationCode: v.VerificationCode}
	}
	if err := u.mayChangePassword(proof); err != nil {
		return nil, err
	}
	t := st.begin(callOf(ctx))
	t.changePassword(u, hashPassword(req.GetNewPassword().GetPassword()), req.GetNewPassword().GetChangeRequired())
	return &userpb.SetPasswordResponse{Details: t.touch(u)}, nil
}

// GetUserByID reads one user.
func (s *users) GetUserByID(_ context.Context, req *userpb.GetUserByIDRequest) (*userpb.GetUserByIDResponse, error) {
	if err := length("GetUserByIDRequest.UserId", req.GetUserId(), 1, 200); err != nil {
		return nil, err
	}
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	u, err := s.state.user(req.GetUserId())
	if err != nil {
		return nil, err
	}
	return &userpb.GetUserByIDResponse{Details: u.public.GetDetails(), User: u.public}, nil
}

// DeleteUser removes a user for good.
func (s *users) DeleteUser(ctx context.Context, req *userpb.DeleteUserRequest) (*userpb.DeleteUserResponse, error) {
	if err := length("DeleteUserRequest.UserId", req.GetUserId(), 1, 200); err != nil {
		return nil, err
	}
	st := s.state
	st.mu.Lock()
	defer st.mu.Unlock()
	u, err := st.user(req.GetUserId())
	if err != nil {
		return nil, err
	}
	t := st.begin(callOf(ctx))
	t.emit(u.aggregate(), u.owner, "user.removed", nil)
	delete(st.users, u.public.GetUserId())
	delete(st.logins, strings.ToLower(u.public.GetUsername()))
	return &userpb.DeleteUserResponse{Details: t.details(u.aggregate(), u.owner)}, nil
}

// LockUser keeps a user from logging in.
func (s *users) LockUser(ctx context.Context, req *userpb.LockUserRequest) (*userpb.LockUserResponse, error) {
	if err := length("LockUserRequest.UserId", req.GetUserId(), 1, 200); err != nil {
		return nil, err
	}
	st := s.state
	st.mu.Lock()
	defer st.mu.Unlock()
	u, err := st.user(req.GetUserId())
	if err != nil {
		return nil, err
	}
	if u.public.GetState() == userpb.UserState_USER_STATE_LOCKED {
		return nil, failure(codes.FailedPrecondition, "User is already locked", "COMMAND-lgws8wtsqf")
	}
	t := st.begin(callOf(ctx))
	t.emit(u.aggregate(), u.owner, "user.locked", nil)
	next := proto.CloneOf(u.public)
	next.State = userpb.UserState_USER_STATE_LOCKED
	if h := next.GetHuman(); h != nil {
		h.State = next.GetState()
	}
	u.public = next
	return &userpb.LockUserResponse{Details: t.touch(u)}, nil
}

// user finds a user. The caller holds s.mu.
func (s *state) user(id string) (*user, error) {
	if u := s.users[id]; u != nil {
		return u, nil
	}
	return nil, failure(codes.NotFound, "User could not be found", "COMMAND-ugjs0upun6")
}

func (s *state) userByLoginName(name string) *user {
	return s.logins[strings.ToLower(name)]
}

// free says whether an id and a name may still be taken. The caller holds s.mu.
func (s *state) free(id, username string) error {
	if id != "" && s.users[id] != nil {
		return failure(codes.AlreadyExists, "User already exists", "COMMAND-7yiox1isql")
	}
	if s.userByLoginName(username) != nil {
		return failure(codes.AlreadyExists, "Username already taken", "V3-DKcYh")
	}
	return nil
}

// owner finds the organization that a new resource belongs to.
func (s *state) owner(c *call, o *objectpb.Organization) (string, error) {
	id := c.orgID
	switch v := o.GetOrg().(type) {
	case *objectpb.Organization_OrgId:
		id = v.OrgId
	case *objectpb.Organization_OrgDomain:
		id = ""
		for _, known := range s.orgs {
			if strings.EqualFold(known.name, v.OrgDomain) {
				id = known.id
			}
		}
	}
	if s.orgs[id] == nil {
		return "", failure(codes.NotFound, "Organisation not found", "COMMAND-QXPGs")
	}
	return id, nil
}

// put stores what reads of a person return.
func (s *state) put(u *user, human *userpb.HumanUser) {
	delete(s.logins, strings.ToLower(u.public.GetUsername()))
	s.logins[strings.ToLower(human.GetUsername())] = u
	u.public = &userpb.User{
		UserId: human.GetUserId(), State: human.GetState(), Username: human.GetUsername(),
		LoginNames: human.GetLoginNames(), PreferredLoginName: human.GetPreferredLoginName(),
		Details: u.public.GetDetails(),
		Type:    &userpb.User_Human{Human: proto.CloneOf(human)},
	}
	s.users[human.GetUserId()] = u
}

// touch brings a user's details up to the write, and returns them.
func (t *tx) touch(u *user) *objectpb.Details {
	next := proto.CloneOf(u.public)
	next.Details = t.details(u.aggregate(), u.owner)
	u.public = next
	return next.GetDetails()
}

func (t *tx) verifyEmail(u *user, e *userpb.SetHumanEmail) (code *string) {
	human := proto.CloneOf(u.public.GetHuman())
	switch v := e.GetVerification().(type) {
	case *userpb.SetHumanEmail_IsVerified:
		if v.IsVerified {
			human.Email.IsVerified = true
			t.s.put(u, human)
			t.emit(u.aggregate(), u.owner, "user.human.email.verified", nil)
			return nil
		}
	case *userpb.SetHumanEmail_ReturnCode:
		code = new(newCode())
	}
	u.emailCode = newCode()
	if code != nil {
		u.emailCode = *code
	}
	t.emit(u.aggregate(), u.owner, "user.human.email.code.added", map[string]any{"codeReturned": code != nil})
	return code
}

func (t *tx) verifyPhone(u *user, p *userpb.SetHumanPhone) (code *string) {
	human := proto.CloneOf(u.public.GetHuman())
	switch v := p.GetVerification().(type) {
	case *userpb.SetHumanPhone_IsVerified:
		if v.IsVerified {
			human.Phone.IsVerified = true
			t.s.put(u, human)
			t.emit(u.aggregate(), u.owner, "user.human.phone.verified", nil)
			return nil
		}
	case *userpb.SetHumanPhone_ReturnCode:
		code = new(newCode())
	}
	u.phoneCode = newCode()
	if code != nil {
		u.phoneCode = *code
	}
	t.emit(u.aggregate(), u.owner, "user.human.phone.code.added", map[string]any{"codeReturned": code != nil})
	return code
}

func (t *tx) changePassword(u *user, hash string, changeRequired bool) {
	u.hash = hash
	human := proto.CloneOf(u.public.GetHuman())
	if human == nil {
		return
	}
	human.PasswordChangeRequired, human.PasswordChanged = changeRequired, t.timestamp()
	t.s.put(u, human)
	t.emit(u.aggregate(), u.owner, "user.human.password.changed",
		map[string]any{"encodedHash": hash, "changeRequired": changeRequired})
}

// mayChangePassword checks the proof that came with a new password, if one did.
func (u *user) mayChangePassword(p *userpb.SetPassword) error {
	switch v := p.GetVerification().(type) {
	case *userpb.SetPassword_CurrentPassword:
		if !checkPassword(u.hash, v.CurrentPassword) {
			return failure(codes.InvalidArgument, "Password is invalid", "COMMAND-3M0fs")
		}
	case *userpb.SetPassword_VerificationCode:
		// Nothing here hands out such codes.
		return failure(codes.InvalidArgument, "Code is invalid", "CODE-woT0xc")
	}
	return nil
}
