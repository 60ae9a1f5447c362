package targetclient_test

import (
	"strings"
	"testing"

	"github.com/execgate/execgate/targetclient"
)

func TestWordsOfTheEnums(t *testing.T) {
	t.Parallel()
	words := func(n int, str func(int) string) string {
		var out []string
		for i := range n {
			out = append(out, str(i))
		}
		return strings.Join(out, " ")
	}
	for _, tt := range []struct{ got, want string }{
		{words(5, func(i int) string { return targetclient.Kind(i).String() }), "kind(0) webhook call async kind(4)"},
		{words(4, func(i int) string { return targetclient.PayloadType(i).String() }), "json jwt jwe payload(3)"},
		{words(4, func(i int) string { return targetclient.BreakerState(i).String() }), "closed half_open open breaker(3)"},
		{
			words(12, func(i int) string { return targetclient.Reason(i).String() }),
			"reason(0) transport timeout failed forwarded precondition not_applicable breaker_open over_concurrency denied_address cancelled reason(11)",
		},
	} {
		if tt.got != tt.want {
			t.Errorf("got  %s\nwant %s", tt.got, tt.want)
		}
	}
}

func TestErrorTextHasNoForwardedMessage(t *testing.T) {
	t.Parallel()
	e := &targetclient.Error{Reason: targetclient.ReasonForwarded, StatusCode: 200, ForwardedStatus: 403, Message: "private"}
	if got := e.Error(); got != "call target: forwarded (status 200) (forwarded status 403)" {
		t.Error(got)
	}
}
