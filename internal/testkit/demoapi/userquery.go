package demoapi

import (
	"cmp"
	"context"
	"slices"
	"strings"

	objectpb "github.com/execgate/execgate/gen/zitadel/object/v2"
	userpb "github.com/execgate/execgate/gen/zitadel/user/v2"
)

// ListUsers finds users.
func (s *users) ListUsers(_ context.Context, req *userpb.ListUsersRequest) (*userpb.ListUsersResponse, error) {
	if err := checkUserQueries(req.GetQueries(), 0); err != nil {
		return nil, err
	}
	st := s.state
	st.mu.Lock()
	defer st.mu.Unlock()
	var found []*user
	for _, u := range st.users {
		if all(req.GetQueries(), func(q *userpb.SearchQuery) bool { return u.matches(q) }) {
			found = append(found, u)
		}
	}
	slices.SortFunc(found, func(a, b *user) int {
		c := compareUsers(a, b, req.GetSortingColumn())
		if c == 0 {
			c = cmp.Compare(a.public.GetUserId(), b.public.GetUserId())
		}
		if !req.GetQuery().GetAsc() {
			c = -c
		}
		return c
	})
	resp := &userpb.ListUsersResponse{
		Details:       st.listDetails(len(found)),
		SortingColumn: req.GetSortingColumn(),
	}
	part, err := page(found, req.GetQuery())
	if err != nil {
		return nil, err
	}
	for _, u := range part {
		resp.Result = append(resp.Result, u.public)
	}
	return resp, nil
}

// maxQueryDepth is how deep or, and and not may be nested.
const maxQueryDepth = 20

func checkUserQueries(queries []*userpb.SearchQuery, depth int) error {
	invalidQuery := failure(invalidArgument, "List query is invalid", "USER-Bt4pq")
	if depth > maxQueryDepth {
		return invalidQuery
	}
	for _, q := range queries {
		var err error
		switch v := q.GetQuery().(type) {
		case nil:
			err = invalidQuery
		case *userpb.SearchQuery_OrQuery:
			err = checkUserQueries(v.OrQuery.GetQueries(), depth+1)
		case *userpb.SearchQuery_AndQuery:
			err = checkUserQueries(v.AndQuery.GetQueries(), depth+1)
		case *userpb.SearchQuery_NotQuery:
			err = checkUserQueries([]*userpb.SearchQuery{v.NotQuery.GetQuery()}, depth+1)
		case *userpb.SearchQuery_StateQuery:
			if userpb.UserState_name[int32(v.StateQuery.GetState())] == "" {
				err = invalid("StateQuery.State", "value must be one of the defined enum values")
			}
		case *userpb.SearchQuery_TypeQuery:
			if userpb.Type_name[int32(v.TypeQuery.GetType())] == "" {
				err = invalid("TypeQuery.Type", "value must be one of the defined enum values")
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (u *user) matches(q *userpb.SearchQuery) bool {
	human := u.public.GetHuman()
	switch v := q.GetQuery().(type) {
	case *userpb.SearchQuery_UserNameQuery:
		return textMatches(u.public.GetUsername(), v.UserNameQuery.GetUserName(), v.UserNameQuery.GetMethod())
	case *userpb.SearchQuery_FirstNameQuery:
		return textMatches(human.GetProfile().GetGivenName(), v.FirstNameQuery.GetFirstName(), v.FirstNameQuery.GetMethod())
	case *userpb.SearchQuery_LastNameQuery:
		return textMatches(human.GetProfile().GetFamilyName(), v.LastNameQuery.GetLastName(), v.LastNameQuery.GetMethod())
	case *userpb.SearchQuery_NickNameQuery:
		return textMatches(human.GetProfile().GetNickName(), v.NickNameQuery.GetNickName(), v.NickNameQuery.GetMethod())
	case *userpb.SearchQuery_DisplayNameQuery:
		return textMatches(human.GetProfile().GetDisplayName(), v.DisplayNameQuery.GetDisplayName(), v.DisplayNameQuery.GetMethod())
	case *userpb.SearchQuery_EmailQuery:
		return textMatches(human.GetEmail().GetEmail(), v.EmailQuery.GetEmailAddress(), v.EmailQuery.GetMethod())
	case *userpb.SearchQuery_PhoneQuery:
		return textMatches(human.GetPhone().GetPhone(), v.PhoneQuery.GetNumber(), v.PhoneQuery.GetMethod())
	case *userpb.SearchQuery_StateQuery:
		return u.public.GetState() == v.StateQuery.GetState()
	case *userpb.SearchQuery_TypeQuery:
		return u.kind() == v.TypeQuery.GetType()
	case *userpb.SearchQuery_LoginNameQuery:
		return slices.ContainsFunc(u.public.GetLoginNames(), func(n string) bool {
			return textMatches(n, v.LoginNameQuery.GetLoginName(), v.LoginNameQuery.GetMethod())
		})
	case *userpb.SearchQuery_InUserIdsQuery:
		return slices.Contains(v.InUserIdsQuery.GetUserIds(), u.public.GetUserId())
	case *userpb.SearchQuery_InUserEmailsQuery:
		return human != nil && slices.Contains(v.InUserEmailsQuery.GetUserEmails(), human.GetEmail().GetEmail())
	case *userpb.SearchQuery_OrganizationIdQuery:
		return u.owner == v.OrganizationIdQuery.GetOrganizationId()
	case *userpb.SearchQuery_OrQuery:
		return slices.ContainsFunc(v.OrQuery.GetQueries(), u.matches)
	case *userpb.SearchQuery_AndQuery:
		return all(v.AndQuery.GetQueries(), u.matches)
	case *userpb.SearchQuery_NotQuery:
		return !u.matches(v.NotQuery.GetQuery())
	}
	return false
}

func (u *user) kind() userpb.Type {
	if u.public.GetMachine() != nil {
		return userpb.Type_TYPE_MACHINE
	}
	return userpb.Type_TYPE_HUMAN
}

func compareUsers(a, b *user, column userpb.UserFieldName) int {
	pa, pb := a.public.GetHuman().GetProfile(), b.public.GetHuman().GetProfile()
	switch column {
	case userpb.UserFieldName_USER_FIELD_NAME_USER_NAME:
		return strings.Compare(a.public.GetUsername(), b.public.GetUsername())
	case userpb.UserFieldName_USER_FIELD_NAME_FIRST_NAME:
		return strings.Compare(pa.GetGivenName(), pb.GetGivenName())
	case userpb.UserFieldName_USER_FIELD_NAME_LAST_NAME:
		return strings.Compare(pa.GetFamilyName(), pb.GetFamilyName())
	case userpb.UserFieldName_USER_FIELD_NAME_NICK_NAME:
		return strings.Compare(pa.GetNickName(), pb.GetNickName())
	case userpb.UserFieldName_USER_FIELD_NAME_DISPLAY_NAME:
		return strings.Compare(pa.GetDisplayName(), pb.GetDisplayName())
	case userpb.UserFieldName_USER_FIELD_NAME_EMAIL:
		return strings.Compare(a.public.GetHuman().GetEmail().GetEmail(), b.public.GetHuman().GetEmail().GetEmail())
	case userpb.UserFieldName_USER_FIELD_NAME_STATE:
		return cmp.Compare(a.public.GetState(), b.public.GetState())
	case userpb.UserFieldName_USER_FIELD_NAME_TYPE:
		return cmp.Compare(a.kind(), b.kind())
	default:
		return cmp.Compare(a.created, b.created)
	}
}

func all[T any](list []T, holds func(T) bool) bool {
	return !slices.ContainsFunc(list, func(x T) bool { return !holds(x) })
}

// textMatches compares a stored text with the one of a query.
func textMatches(have, want string, method objectpb.TextQueryMethod) bool {
	lowHave, lowWant := strings.ToLower(have), strings.ToLower(want)
	switch method {
	case objectpb.TextQueryMethod_TEXT_QUERY_METHOD_EQUALS:
		return have == want
	case objectpb.TextQueryMethod_TEXT_QUERY_METHOD_EQUALS_IGNORE_CASE:
		return lowHave == lowWant
	case objectpb.TextQueryMethod_TEXT_QUERY_METHOD_STARTS_WITH:
		return strings.HasPrefix(have, want)
	case objectpb.TextQueryMethod_TEXT_QUERY_METHOD_STARTS_WITH_IGNORE_CASE:
		return strings.HasPrefix(lowHave, lowWant)
	case objectpb.TextQueryMethod_TEXT_QUERY_METHOD_CONTAINS:
		return strings.Contains(have, want)
	case objectpb.TextQueryMethod_TEXT_QUERY_METHOD_CONTAINS_IGNORE_CASE:
		return strings.Contains(lowHave, lowWant)
	case objectpb.TextQueryMethod_TEXT_QUERY_METHOD_ENDS_WITH:
		return strings.HasSuffix(have, want)
	case objectpb.TextQueryMethod_TEXT_QUERY_METHOD_ENDS_WITH_IGNORE_CASE:
		return strings.HasSuffix(lowHave, lowWant)
	}
	return false
}
