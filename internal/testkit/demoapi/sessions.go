package demoapi

import (
	"context"
	"crypto/rand"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	sessionpb "github.com/execgate/execgate/gen/zitadel/session/v2"
	userpb "github.com/execgate/execgate/gen/zitadel/user/v2"
	zitadelpb "github.com/execgate/execgate/gen/zitadel/v1"
)

// session is a stored session. public is replaced as a whole and never changed
// in place.
type session struct {
	public  *sessionpb.Session
	owner   string
	creator string
	token   string
	// Codes of the open challenges.
	smsCode, emailCode string
}

func (s *session) aggregate() aggregate { return aggregate{aggregateSession, s.public.GetId()} }

// sessions is the session service.
type sessions struct {
	sessionpb.UnimplementedSessionServiceServer
	state *state
}

// CreateSession opens a session.
func (s *sessions) CreateSession(ctx context.Context, req *sessionpb.CreateSessionRequest) (*sessionpb.CreateSessionResponse, error) {
	if err := checkSession(req.GetChecks(), req.GetMetadata(), req.Lifetime); err != nil {
		return nil, err
	}
	c := callOf(ctx)
	st := s.state
	st.mu.Lock()
	defer st.mu.Unlock()
	t := st.begin(c)
	se := &session{owner: c.orgID, creator: c.userID, public: &sessionpb.Session{
		Id: st.nextID(), CreationDate: t.timestamp(), UserAgent: req.GetUserAgent(), Factors: &sessionpb.Factors{},
	}}
	draft, err := st.prove(t, se, req.GetChecks())
	if err != nil {
		return nil, err
	}
	var added map[string]any
	if ua := req.GetUserAgent(); ua != nil {
		added = map[string]any{"user_agent": map[string]any{
			"fingerprint_id": ua.GetFingerprintId(), "ip": ua.GetIp(), "description": ua.GetDescription()}}
	}
	t.emit(se.aggregate(), se.owner, "session.added", added)
	challenges := t.write(se, draft, req.GetMetadata(), req.GetChallenges(), req.Lifetime)
	st.sessions[se.public.GetId()] = se
	return &sessionpb.CreateSessionResponse{
		Details: t.details(se.aggregate(), se.owner), SessionId: se.public.GetId(),
		SessionToken: se.token, Challenges: challenges,
	}, nil
}

// SetSession adds to a session.
func (s *sessions) SetSession(ctx context.Context, req *sessionpb.SetSessionRequest) (*sessionpb.SetSessionResponse, error) {
	if err := (checks{
		length("SetSessionRequest.SessionId", req.GetSessionId(), 1, 200),
		length("SetSessionRequest.SessionToken", req.GetSessionToken(), 0, 200),
		checkSession(req.GetChecks(), req.GetMetadata(), req.Lifetime),
	}).err(); err != nil {
		return nil, err
	}
	st := s.state
	st.mu.Lock()
	defer st.mu.Unlock()
	se, err := st.session(req.GetSessionId(), optional(req.GetSessionToken()))
	if err != nil {
		return nil, err
	}
	t := st.begin(callOf(ctx))
	draft, err := st.prove(t, se, req.GetChecks())
	if err != nil {
		return nil, err
	}
	challenges := t.write(se, draft, req.GetMetadata(), req.GetChallenges(), req.Lifetime)
	return &sessionpb.SetSessionResponse{
		Details: t.details(se.aggregate(), se.owner), SessionToken: se.token, Challenges: challenges,
	}, nil
}

// GetSession reads one session.
func (s *sessions) GetSession(_ context.Context, req *sessionpb.GetSessionRequest) (*sessionpb.GetSessionResponse, error) {
	if err := length("GetSessionRequest.SessionId", req.GetSessionId(), 1, 200); err != nil {
		return nil, err
	}
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	se, err := s.state.session(req.GetSessionId(), req.SessionToken)
	if err != nil {
		return nil, err
	}
	return &sessionpb.GetSessionResponse{Session: se.public}, nil
}

// DeleteSession ends a session.
func (s *sessions) DeleteSession(ctx context.Context, req *sessionpb.DeleteSessionRequest) (*sessionpb.DeleteSessionResponse, error) {
	if err := length("DeleteSessionRequest.SessionId", req.GetSessionId(), 1, 200); err != nil {
		return nil, err
	}
	st := s.state
	st.mu.Lock()
	defer st.mu.Unlock()
	se, err := st.session(req.GetSessionId(), req.SessionToken)
	if err != nil {
		return nil, err
	}
	t := st.begin(callOf(ctx))
	t.emit(se.aggregate(), se.owner, "session.terminated", nil)
	delete(st.sessions, se.public.GetId())
	return &sessionpb.DeleteSessionResponse{Details: t.details(se.aggregate(), se.owner)}, nil
}

// ListSessions finds sessions.
func (s *sessions) ListSessions(ctx context.Context, req *sessionpb.ListSessionsRequest) (*sessionpb.ListSessionsResponse, error) {
	for _, q := range req.GetQueries() {
		if q.GetQuery() == nil {
			return nil, failure(invalidArgument, "List query is invalid", "GRPC-Sfefs")
		}
	}
	c := callOf(ctx)
	st := s.state
	st.mu.Lock()
	defer st.mu.Unlock()
	var found []*session
	for _, se := range st.sessions {
		if st.expired(se) {
			continue
		}
		if all(req.GetQueries(), func(q *sessionpb.SearchQuery) bool { return se.matches(q, c) }) {
			found = append(found, se)
		}
	}
	slices.SortFunc(found, func(a, b *session) int {
		c := a.public.GetCreationDate().AsTime().Compare(b.public.GetCreationDate().AsTime())
		if !req.GetQuery().GetAsc() {
			c = -c
		}
		return c
	})
	part, err := page(found, req.GetQuery())
	if err != nil {
		return nil, err
	}
	resp := &sessionpb.ListSessionsResponse{Details: st.listDetails(len(found))}
	for _, se := range part {
		resp.Sessions = append(resp.Sessions, se.public)
	}
	return resp, nil
}

func (s *session) matches(q *sessionpb.SearchQuery, c *call) bool {
	switch v := q.GetQuery().(type) {
	case *sessionpb.SearchQuery_IdsQuery:
		return slices.Contains(v.IdsQuery.GetIds(), s.public.GetId())
	case *sessionpb.SearchQuery_UserIdQuery:
		return s.public.GetFactors().GetUser().GetId() == v.UserIdQuery.GetId()
	case *sessionpb.SearchQuery_CreationDateQuery:
		order := s.public.GetCreationDate().AsTime().Compare(v.CreationDateQuery.GetCreationDate().AsTime())
		switch v.CreationDateQuery.GetMethod() {
		case zitadelpb.TimestampQueryMethod_TIMESTAMP_QUERY_METHOD_EQUALS:
			return order == 0
		case zitadelpb.TimestampQueryMethod_TIMESTAMP_QUERY_METHOD_GREATER:
			return order > 0
		case zitadelpb.TimestampQueryMethod_TIMESTAMP_QUERY_METHOD_GREATER_OR_EQUALS:
			return order >= 0
		case zitadelpb.TimestampQueryMethod_TIMESTAMP_QUERY_METHOD_LESS:
			return order < 0
		case zitadelpb.TimestampQueryMethod_TIMESTAMP_QUERY_METHOD_LESS_OR_EQUALS:
			return order <= 0
		}
	case *sessionpb.SearchQuery_CreatorQuery:
		if v.CreatorQuery.Id == nil {
			return s.creator == c.userID
		}
		return s.creator == v.CreatorQuery.GetId()
	case *sessionpb.SearchQuery_UserAgentQuery:
		if v.UserAgentQuery.FingerprintId == nil {
			return false
		}
		return s.public.GetUserAgent().GetFingerprintId() == v.UserAgentQuery.GetFingerprintId()
	}
	return false
}

func checkSession(c *sessionpb.Checks, metadata map[string][]byte, lifetime *durationpb.Duration) error {
	list := checks{}
	if c.GetUser() != nil {
		list = append(list, present("CheckUser.Search", c.GetUser().GetSearch() != nil))
		switch v := c.GetUser().GetSearch().(type) {
		case *sessionpb.CheckUser_UserId:
			list = append(list, length("CheckUser.UserId", v.UserId, 1, 200))
		case *sessionpb.CheckUser_LoginName:
			list = append(list, length("CheckUser.LoginName", v.LoginName, 1, 200))
		}
	}
	if c.GetPassword() != nil {
		list = append(list, length("CheckPassword.Password", c.GetPassword().GetPassword(), 1, 200))
	}
	for k, v := range metadata {
		list = append(list, length("Metadata.Key", k, 1, 200))
		if len(v) > 500_000 {
			list = append(list, invalid("Metadata.Value", "value length must be at most 500000 bytes"))
		}
	}
	if lifetime != nil && lifetime.AsDuration() <= 0 {
		list = append(list, invalid("Lifetime", "value must be greater than 0s"))
	}
	return list.err()
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// session finds a session and, if a token was given, checks that it is the
// session's. The caller holds s.mu.
func (s *state) session(id string, token *string) (*session, error) {
	se := s.sessions[id]
	if se == nil || s.expired(se) {
		return nil, failure(codes.NotFound, "Session does not exist", "QUERY-SFeaa")
	}
	if token != nil && *token != se.token {
		return nil, failure(codes.PermissionDenied, "Session token is invalid", "COMMAND-sGr42")
	}
	return se, nil
}

func (s *state) expired(se *session) bool {
	end := se.public.ExpirationDate
	return end != nil && s.now().After(end.AsTime())
}

// draft is what a write will make of a session, and the events that say so.
type draft struct {
	factors *sessionpb.Factors
	owner   string
	events  []string
	user    *user
}

// prove runs the checks. A password that does not fit leaves an event behind,
// although the call fails.
func (s *state) prove(t *tx, se *session, c *sessionpb.Checks) (*draft, error) {
	d := &draft{factors: proto.CloneOf(se.public.GetFactors()), owner: se.owner}
	if c.GetUser() != nil {
		var u *user
		if name := c.GetUser().GetLoginName(); name != "" {
			u = s.userByLoginName(name)
		} else {
			u = s.users[c.GetUser().GetUserId()]
		}
		if u == nil {
			return nil, failure(codes.NotFound, "User could not be found", "QUERY-Dfbg2")
		}
		if u.public.GetState() != userpb.UserState_USER_STATE_ACTIVE {
			return nil, failure(codes.FailedPrecondition, "User is locked", "COMMAND-SFA3t")
		}
		d.owner = u.owner
		d.factors.User = &sessionpb.UserFactor{
			VerifiedAt: t.timestamp(), Id: u.public.GetUserId(), LoginName: u.public.GetPreferredLoginName(),
			DisplayName:    u.public.GetHuman().GetProfile().GetDisplayName(),
			OrganizationId: u.owner,
		}
		d.events = append(d.events, "session.user.checked")
	}
	d.user = s.users[d.factors.GetUser().GetId()]
	if c.GetPassword() == nil && c.GetOtpSms() == nil && c.GetOtpEmail() == nil && c.GetTotp() == nil &&
		c.GetWebAuthN() == nil && c.GetIdpIntent() == nil {
		return d, nil
	}
	if d.user == nil {
		return nil, failure(codes.FailedPrecondition, "User ID missing", "COMMAND-Sfw3f")
	}
	a := d.user.aggregate()
	if p := c.GetPassword(); p != nil {
		if !checkPassword(d.user.hash, p.GetPassword()) {
			t.emit(a, d.user.owner, "user.human.password.check.failed", nil)
			return nil, failure(codes.InvalidArgument, "Password is invalid", "COMMAND-3M0fs")
		}
		t.emit(a, d.user.owner, "user.human.password.check.succeeded", nil)
		d.factors.Password = &sessionpb.PasswordFactor{VerifiedAt: t.timestamp()}
		d.events = append(d.events, "session.password.checked")
	}
	for _, otp := range []struct {
		check  *sessionpb.CheckOTP
		code   *string
		factor **sessionpb.OTPFactor
		event  string
	}{
		{c.GetOtpSms(), &se.smsCode, &d.factors.OtpSms, "session.otp.sms.checked"},
		{c.GetOtpEmail(), &se.emailCode, &d.factors.OtpEmail, "session.otp.email.checked"},
	} {
		if otp.check == nil {
			continue
		}
		if *otp.code == "" || otp.check.GetCode() != *otp.code {
			return nil, failure(codes.InvalidArgument, "Code is invalid", "CODE-woT0xc")
		}
		*otp.code = ""
		*otp.factor = &sessionpb.OTPFactor{VerifiedAt: t.timestamp()}
		d.events = append(d.events, otp.event)
	}
	if c.GetTotp() != nil || c.GetWebAuthN() != nil || c.GetIdpIntent() != nil {
		return nil, failure(codes.Unimplemented, "The demo API does not check this factor", "DEMO-0factor")
	}
	return d, nil
}

// write makes a proven draft the session, with metadata, lifetime and a new
// token, and returns the challenges that were asked for.
func (t *tx) write(se *session, d *draft, metadata map[string][]byte, rc *sessionpb.RequestChallenges, lifetime *durationpb.Duration) *sessionpb.Challenges {
	a := se.aggregate()
	se.owner = d.owner
	for _, e := range d.events {
		payload := map[string]any{"checkedAt": t.at.Format(time.RFC3339Nano)}
		if strings.HasPrefix(e, "session.user") {
			payload["userID"] = d.factors.GetUser().GetId()
		}
		t.emit(a, se.owner, e, payload)
	}
	next := proto.CloneOf(se.public)
	next.Factors = d.factors
	if len(metadata) > 0 {
		if next.Metadata == nil {
			next.Metadata = map[string][]byte{}
		}
		maps.Copy(next.Metadata, metadata)
		// An empty value takes the entry away.
		maps.DeleteFunc(next.Metadata, func(_ string, v []byte) bool { return len(v) == 0 })
		t.emit(a, se.owner, "session.metadata.set", nil)
	}
	if lifetime != nil {
		next.ExpirationDate = timestamppb.New(t.at.Add(lifetime.AsDuration()))
		t.emit(a, se.owner, "session.lifetime.set", map[string]any{"lifetime": float64(lifetime.AsDuration())})
	}
	var challenges *sessionpb.Challenges
	if rc.GetOtpSms() != nil || rc.GetOtpEmail() != nil {
		challenges = &sessionpb.Challenges{}
	}
	if rc.GetOtpSms() != nil {
		se.smsCode = newCode()
		if rc.GetOtpSms().GetReturnCode() {
			challenges.OtpSms = new(se.smsCode)
		}
		t.emit(a, se.owner, "session.otp.sms.challenged", nil)
	}
	if rc.GetOtpEmail() != nil {
		se.emailCode = newCode()
		if rc.GetOtpEmail().GetReturnCode() != nil {
			challenges.OtpEmail = new(se.emailCode)
		}
		t.emit(a, se.owner, "session.otp.email.challenged", nil)
	}
	se.token = rand.Text() + rand.Text()
	t.emit(a, se.owner, "session.token.set", map[string]any{"tokenID": rand.Text()})
	next.ChangeDate, next.Sequence = t.timestamp(), t.s.versions[a]
	se.public = next
	return challenges
}
