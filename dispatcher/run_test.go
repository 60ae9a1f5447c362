package dispatcher_test

import (
	"context"
	"testing"

	"github.com/execgate/execgate/conditions"
	"github.com/execgate/execgate/targetclient"
)

func TestShadowRuns(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answers map[string]string
		want    string
	}{
		"nothing said":  {nil, `{"a":"request"} ->  changed false`},
		"the same said": {map[string]string{"ask": ` {"a": "request"}`}, `{"a":"request"} -> {"a":"request"} changed false`},
		"an echo of what came takes nothing back": {map[string]string{"ask": `{"a":"1"}`, "other": `{"a":"request"}`}, `{"a":"request"} -> {"a":"1"} changed true`},
		"the last one wins":                       {map[string]string{"ask": `{"a":"1"}`, "other": `{"a":"2"}`}, `{"a":"request"} -> {"a":"2"} changed true`},
		"what follows an interruption does not count": {
			map[string]string{"ask": `{"a":"1"}`, "bad": `{"b":1}`, "other": `{"a":"2"}`},
			`{"a":"request"} -> {"a":"1"} changed true, interrupted by bad: not_applicable`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(conditions.Request,
				target("ask", targetclient.KindCall), target("bad", targetclient.KindCall, interrupts), target("other", targetclient.KindCall))
			b.inv.Plan.Shadow = true
			for _, name := range []string{"ask", "bad", "other"} {
				b.caller.answers[name] = answers(c.answers[name])
			}
			_, err := b.dispatch(t.Context(), 0)
			equal(t, "error", err, nil)
			equal(t, "recorded", b.recorded(), []string{c.want})
			equal(t, "request", b.request.json, `{"a":"request"}`)
		})
	}
}

func TestEnforcedRunsAreRecordedWhenWanted(t *testing.T) {
	t.Parallel()
	b := setup(conditions.Response, target("ask", targetclient.KindCall), target("veto", targetclient.KindWebhook, interrupts))
	b.caller.answers["ask"] = answers(`{"a":"asked"}`)
	b.caller.answers["veto"] = answers(``)
	dispatch := func() {
		b.response.json = `{"a":"response"}`
		_, _ = b.dispatch(t.Context(), 0)
	}
	dispatch()
	equal(t, "recorded unasked", b.recorded(), nil)
	b.wants = true
	dispatch()
	b.caller.answers["veto"] = fails(targetclient.Error{Reason: targetclient.ReasonFailed, StatusCode: 500})
	dispatch()
	b.caller.answers["ask"] = answers(``)
	b.caller.answers["veto"] = answers(``)
	dispatch()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, _ = b.dispatch(gone, 0)
	equal(t, "recorded", b.recorded(), []string{
		`{"a":"response"} -> {"a":"asked"} changed true`,
		`{"a":"response"} ->  changed false, interrupted by veto: failed`,
		`{"a":"response"} ->  changed false`,
	})
}
