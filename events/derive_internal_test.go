package events

import (
	"testing"

	"github.com/execgate/execgate/dispatcher"
)

// jsonMessage is a message that is known as JSON.
type jsonMessage string

// JSON returns it.
func (m jsonMessage) JSON() ([]byte, error) { return []byte(m), nil }

// Replace is not called: nothing is dispatched.
func (jsonMessage) Replace([]byte) error { return nil }

func TestPathsOfARule(t *testing.T) {
	t.Parallel()
	inv := &dispatcher.Invocation{
		UserID: "u", OrgID: "o",
		Request:  jsonMessage(`{"userName":"mini","profile":{"givenName":"M"},"emails":[{"email":"a@b"},{"email":"c@d"}],"snake_case":1}`),
		Response: jsonMessage(`{"userId":"12","count":18446744073709551615,"ok":true,"list":[]}`),
	}
	for path, want := range map[string]string{
		"response.userId": "12", "response.user_id": "12", "request.user_name": "mini", "request.profile.given_name": "M",
		"request.emails.1.email": "c@d", "request.snake_case": "1", "response.count": "18446744073709551615", "response.ok": "true",
		"request.emails.2.email": "", "request.emails.x": "", "request.nothing": "", "request.userName.deeper": "", "response.list": "",
		"user": "user", "": "",
	} {
		e, err := derive(Rule{EventType: "t", AggregateID: path}, inv, "i")
		if err != nil || e.AggregateID != want {
			t.Errorf("%q is %q, want %q (%v)", path, e.AggregateID, want, err)
		}
	}
	e, err := derive(Rule{EventType: "t", AggregateType: "user", Payload: map[string]string{
		"a": "request.profile", "n": "response.count", "none": "response.none",
	}}, inv, "i")
	if err != nil || string(e.Payload) != `{"a":{"givenName":"M"},"n":18446744073709551615}` || e.UserID != "u" || e.ResourceOwner != "o" ||
		e.InstanceID != "i" || e.Type != "t" || e.AggregateType != "user" || e.CreatedAt == "" {
		t.Errorf("%+v with %s (%v)", e, e.Payload, err)
	}
}
