package demoapi

import (
	"context"
	"slices"
	"sort"
	"strings"
	"time"

	eventpb "github.com/execgate/execgate/gen/zitadel/event/v1"
	zitadelpb "github.com/execgate/execgate/gen/zitadel/v1"

	adminpb "github.com/execgate/execgate/gen/zitadel/admin/v1"
)

// Limits of ListEvents.
const (
	maxEvents         = 1000
	maxEventTypes     = 30
	maxAggregateTypes = 10
)

// ListEvents reads the event log.
func (s *admin) ListEvents(_ context.Context, req *adminpb.ListEventsRequest) (*adminpb.ListEventsResponse, error) {
	const m = "ListEventsRequest."
	if n := len(req.GetEventTypes()); n > maxEventTypes {
		return nil, invalid(m+"EventTypes", "value must contain no more than %d item(s)", maxEventTypes)
	}
	if n := len(req.GetAggregateTypes()); n > maxAggregateTypes {
		return nil, invalid(m+"AggregateTypes", "value must contain no more than %d item(s)", maxAggregateTypes)
	}
	limit := int(req.GetLimit())
	if limit == 0 || limit > maxEvents {
		limit = maxEvents
	}
	after, before := eventWindow(req)

	st := s.state
	st.mu.Lock()
	defer st.mu.Unlock()
	log := st.log
	// The log is in order of time, so both ends of the window can be looked up.
	if !before.IsZero() {
		log = log[:sort.Search(len(log), func(i int) bool { return !log[i].GetCreationDate().AsTime().Before(before) })]
	}
	if !after.IsZero() {
		log = log[sort.Search(len(log), func(i int) bool { return log[i].GetCreationDate().AsTime().After(after) }):]
	}
	resp := &adminpb.ListEventsResponse{}
	take := func(e *eventpb.Event) bool {
		if eventMatches(e, req) {
			resp.Events = append(resp.Events, e)
		}
		return len(resp.Events) < limit
	}
	if req.GetAsc() {
		for _, e := range log {
			if !take(e) {
				break
			}
		}
	} else {
		for _, e := range slices.Backward(log) {
			if !take(e) {
				break
			}
		}
	}
	return resp, nil
}

// eventWindow returns the open interval of time that a request asks for; a zero
// end is no limit.
func eventWindow(req *adminpb.ListEventsRequest) (after, before time.Time) {
	if r := req.GetRange(); r != nil {
		if r.GetSince() != nil {
			after = r.GetSince().AsTime()
		}
		if r.GetUntil() != nil {
			before = r.GetUntil().AsTime()
		}
		return after, before
	}
	from := req.GetFrom()
	if from == nil {
		from = req.GetCreationDate() //nolint:staticcheck // the older name of the same limit
	}
	switch {
	case from == nil:
	case req.GetAsc():
		after = from.AsTime()
	default:
		before = from.AsTime()
	}
	return after, before
}

func eventMatches(e *eventpb.Event, req *adminpb.ListEventsRequest) bool {
	if seq := req.GetSequence(); seq != 0 {
		if req.GetAsc() && e.GetSequence() <= seq || !req.GetAsc() && e.GetSequence() >= seq {
			return false
		}
	}
	is := func(want, have string) bool { return want == "" || want == have }
	in := func(want []string, have string) bool { return len(want) == 0 || slices.Contains(want, have) }
	return is(req.GetEditorUserId(), e.GetEditor().GetUserId()) &&
		is(req.GetAggregateId(), e.GetAggregate().GetId()) &&
		is(req.GetResourceOwner(), e.GetAggregate().GetResourceOwner()) &&
		in(req.GetEventTypes(), e.GetType().GetType()) &&
		in(req.GetAggregateTypes(), e.GetAggregate().GetType().GetType())
}

// ListEventTypes lists every type an event may have, sorted.
func (s *admin) ListEventTypes(context.Context, *adminpb.ListEventTypesRequest) (*adminpb.ListEventTypesResponse, error) {
	resp := &adminpb.ListEventTypesResponse{}
	for _, t := range knownEventTypes {
		resp.EventTypes = append(resp.EventTypes, eventTypeOf(t))
	}
	return resp, nil
}

// ListAggregateTypes lists every type of thing that events happen to, sorted.
func (s *admin) ListAggregateTypes(context.Context, *adminpb.ListAggregateTypesRequest) (*adminpb.ListAggregateTypesResponse, error) {
	resp := &adminpb.ListAggregateTypesResponse{}
	for _, t := range knownAggregateTypes {
		resp.AggregateTypes = append(resp.AggregateTypes, aggregateType(t))
	}
	return resp, nil
}

// Event is one that AppendEvents writes.
type Event struct {
	AggregateType, AggregateID, Type string
	// Payload may be nil. Values are those that structpb.NewValue takes.
	Payload map[string]any
}

// AppendEvents writes events in one transaction, so that all of them have the
// same time, which it returns.
func (s *Server) AppendEvents(events ...Event) time.Time {
	st := s.state
	st.mu.Lock()
	defer st.mu.Unlock()
	t := st.begin(&call{userID: DefaultUserID})
	for _, e := range events {
		t.emit(aggregate{e.AggregateType, e.AggregateID}, DefaultOrgID, e.Type, e.Payload)
	}
	return t.at
}

func eventTypeOf(name string) *eventpb.EventType {
	return &eventpb.EventType{Type: name, Localized: localized("EventTypes.", name)}
}

func aggregateType(name string) *eventpb.AggregateType {
	return &eventpb.AggregateType{Type: name, Localized: localized("AggregateTypes.", name)}
}

// localized makes an English text of a name: "user.human.added" is "User human
// added".
func localized(prefix, name string) *zitadelpb.LocalizedMessage {
	text := strings.NewReplacer(".", " ", "_", " ").Replace(name)
	return &zitadelpb.LocalizedMessage{Key: prefix + name, LocalizedMessage: strings.ToUpper(text[:1]) + text[1:]}
}

var knownAggregateTypes = []string{
	"action", "auth_request", "device_auth", "execution", "feature", "group", "idpintent", "instance",
	"oidc_session", "org", "permission", "project", "quota", "saml_request", "saml_session", "session",
	"target", "user", "usergrant", "web_key",
}

// knownEventTypes is made of lines "prefix: ending ending".
var knownEventTypes = expandEventTypes(`
user: locked unlocked deactivated reactivated removed username.changed domain.claimed impersonated token.added token.removed added selfregistered
user.metadata: set removed removed.all
user.human: added selfregistered signed.out profile.changed address.changed avatar.added avatar.removed
user.human.email: changed verified verification.failed code.added code.sent
user.human.phone: changed verified removed verification.failed code.added code.sent
user.human.password: changed check.succeeded check.failed code.added code.sent change.sent hash.updated
user.human.initialization: code.added code.sent check.succeeded check.failed
user.human.invite: code.added code.sent check.succeeded check.failed
user.human.externalidp: added removed cascade.removed id.migrated username.changed
user.human.externallogin: check.succeeded
user.human.mfa: init.skipped otp.added otp.verified otp.removed otp.check.succeeded otp.check.failed
user.human.mfa.otp.sms: added removed code.added code.sent check.succeeded check.failed
user.human.mfa.otp.email: added removed code.added code.sent check.succeeded check.failed
user.human.mfa.u2f.token: added verified removed check.succeeded check.failed
user.human.mfa.recoverycode: added removed check.succeeded check.failed
user.human.passwordless.token: added verified removed check.succeeded check.failed
user.human.passwordless.initialization.code: added sent requested check.succeeded check.failed
user.human.refresh.token: added renewed removed
user.machine: added changed key.added key.removed secret.set secret.updated secret.removed
user.pat: added removed
user.grant: added changed removed deactivated reactivated cascade.changed cascade.removed
org: added changed deactivated reactivated removed
org.domain: added verified verification.added verification.failed primary.set removed
org.member: added changed removed cascade.removed
org.metadata: set removed removed.all
org.flow: trigger_actions.set trigger_actions.cascade.removed cleared
project: added changed deactivated reactivated removed
project.role: added changed removed
project.member: added changed removed cascade.removed
project.grant: added changed cascade.changed deactivated reactivated removed member.added member.changed member.removed member.cascade.removed
project.application: added changed deactivated reactivated removed config.oidc.added config.oidc.changed config.api.added config.api.changed
instance: added changed removed domain.added domain.primary.set domain.removed default.org.set default.language.set member.added member.changed member.removed
session: added user.checked password.checked intent.checked webAuthN.challenged webAuthN.checked totp.checked token.set metadata.set lifetime.set terminated
session.otp: sms.challenged sms.sent sms.checked email.challenged email.sent email.checked
auth_request: added session.linked code.added code.exchanged failed succeeded
oidc_session: added access_token.added access_token.revoked refresh_token.added refresh_token.renewed refresh_token.revoked
saml_session: added saml_response.added saml_response.revoked
saml_request: added session.linked failed succeeded
idpintent: started succeeded saml.requested saml.succeeded ldap.succeeded failed consumed
device.authorization: added approved canceled done
action: added changed deactivated reactivated removed
target: added changed removed key.added key.activated key.deactivated key.removed
execution: v2.set removed
`)

func expandEventTypes(table string) []string {
	var types []string
	for line := range strings.Lines(strings.TrimSpace(table)) {
		prefix, endings, _ := strings.Cut(strings.TrimSpace(line), ":")
		for _, ending := range strings.Fields(endings) {
			types = append(types, prefix+"."+ending)
		}
	}
	slices.Sort(types)
	return types
}
