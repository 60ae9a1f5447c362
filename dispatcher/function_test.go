package dispatcher_test

import (
	"testing"
	"time"

	"github.com/execgate/execgate/conditions"
	"github.com/execgate/execgate/dispatcher"
	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/queue"
	"github.com/execgate/execgate/targetclient"
)

func TestAnswersOfAFunctionAccumulate(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, function string
		answers        []string
		want           string // of the run; "!" as an answer's prefix: it is refused
	}{
		{"nothing answered", "preuserinfo", nil, `{}`},
		{"a key that is absent keeps the list", "preuserinfo",
			[]string{`{"append_claims":[{"key":"a","value":1}]}`, `{"append_log_claims":["x"]}`},
			`{"append_claims":[{"key":"a","value":1}],"append_log_claims":["x"]}`},
		{"a key that is present replaces the list", "preuserinfo",
			[]string{`{"append_claims":[{"key":"a","value":1},{"key":"b","value":2}]}`, `{"append_claims":[{"key":"c","value":{"d":[null]}}]}`},
			`{"append_claims":[{"key":"c","value":{"d":[null]}}]}`},
		{"nothing of a replaced element survives", "presamlresponse",
			[]string{`{"append_attribute":[{"name":"a","name_format":"f","value":["1"]}]}`, `{"append_attribute":[{"name":"b","value":["2"]}]}`},
			`{"append_attribute":[{"name":"b","value":["2"]}]}`},
		{"an empty list and null replace too", "preuserinfo",
			[]string{`{"append_claims":[{"key":"a","value":1}],"append_log_claims":["x"]}`, `{"append_claims":[],"append_log_claims":null}`},
			`{"append_claims":[],"append_log_claims":[]}`},
		{"unknown keys are ignored", "preuserinfo",
			[]string{`{"function":"function/preuserinfo","userinfo":{"sub":"1"},"append_log_claims":["x"],"more":1}`},
			`{"append_log_claims":["x"]}`},
		{"keys of the other functions are ignored, whatever they hold", "preuserinfo",
			[]string{`{"append_attribute":7,"set_user_metadata":[{"key":"k","value":"dg=="}]}`},
			`{"set_user_metadata":[{"key":"k","value":"dg=="}]}`},
		{"claims are not for SAML", "presamlresponse", []string{`{"append_claims":[{"key":"a","value":1}]}`}, `{}`},
		{"a custom function may use all", "mine",
			[]string{`{"append_claims":[{"key":"a","value":1}],"append_attribute":[{"name":"b","value":["2"]}]}`},
			`{"append_claims":[{"key":"a","value":1}],"append_attribute":[{"name":"b","value":["2"]}]}`},
		{"the case of a key does not matter", "preuserinfo", []string{`{"Append_Log_Claims":["x"]}`}, `{"append_log_claims":["x"]}`},
		{"large numbers stay as they are", "preuserinfo",
			[]string{`{"append_claims":[{"key":"n","value":12345678901234567890}]}`}, `{"append_claims":[{"key":"n","value":12345678901234567890}]}`},
		{"null changes nothing", "preuserinfo", []string{`{"append_log_claims":["x"]}`, `null`}, `{"append_log_claims":["x"]}`},
		{"what is refused changes nothing", "preuserinfo",
			[]string{`{"append_log_claims":["x"]}`, `!no JSON`, `![]`, `!"text"`, `!{"append_log_claims":["y"],"append_claims":"z"}`,
				`!{"set_user_metadata":[{"key":"k","value":"%"}]}`},
			`{"append_log_claims":["x"]}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			run, err := dispatcher.NewFunctionRun(tc.function, []byte(`{}`))
			if err != nil {
				t.Fatal(err)
			}
			for _, answer := range tc.answers {
				refused := answer[0] == '!'
				if refused {
					answer = answer[1:]
				}
				preview, previewErr := run.Preview([]byte(answer))
				if err := run.Replace([]byte(answer)); (err != nil) != refused || (previewErr != nil) != refused {
					t.Fatalf("%s: %v, preview %v", answer, err, previewErr)
				}
				if now, _ := run.JSON(); !refused && string(now) != string(preview) {
					t.Errorf("preview %s, then %s", preview, now)
				}
			}
			if got, _ := run.JSON(); string(got) != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestInputOfAFunctionIsAnObject(t *testing.T) {
	t.Parallel()
	for _, input := range []string{``, `x`, `[]`, `null`, `7`, `{"a":1} {}`, `{"a":}`} {
		if _, err := dispatcher.NewFunctionRun("preuserinfo", []byte(input)); err == nil {
			t.Errorf("%q is taken", input)
		}
	}
}

func TestFunctionOverRealTargets(t *testing.T) {
	t.Parallel()
	first, second, told := testkit.NewTarget(t, testkit.TargetOptions{}), testkit.NewTarget(t, testkit.TargetOptions{}), testkit.NewTarget(t, testkit.TargetOptions{})
	first.Answer(testkit.Answer{Body: `{"append_claims":[{"key":"a","value":1}],"append_log_claims":["one"]}`})
	second.Answer(testkit.Answer{Body: `{"append_claims":[{"key":"b","value":2}]}`})
	told.Answer(testkit.Answer{Body: `{"append_claims":[]}`}) // a webhook's answer is not applied

	client, err := targetclient.New(targetclient.Options{Logger: testkit.Logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	deliveries := queue.NewMemory(queue.Options{Caller: client, Logger: testkit.Logger(t)})
	d := dispatcher.New(dispatcher.Options{Caller: client, Queue: deliveries, ChainTimeout: 10 * time.Second, Logger: testkit.Logger(t)})
	target := func(id string, kind targetclient.Kind, on *testkit.Target) *targetclient.Target {
		return &targetclient.Target{ID: id, Name: id, URL: on.URL, Kind: kind, Timeout: 5 * time.Second}
	}
	plan := &dispatcher.Plan{Execution: "function/preuserinfo", Phase: conditions.Function, Targets: []*targetclient.Target{
		target("first", targetclient.KindCall, first), target("told", targetclient.KindWebhook, told), target("second", targetclient.KindCall, second),
	}}
	run, err := dispatcher.NewFunctionRun("preuserinfo", []byte(`{ "function": "function/preuserinfo", "userinfo": {"sub": "<1>"}, "response": {"append_log_claims": ["zero"]} }`))
	if err != nil {
		t.Fatal(err)
	}
	out, err := d.Dispatch(t.Context(), &dispatcher.Invocation{Plan: plan, Function: run})
	if err != nil || !out.Changed {
		t.Fatalf("%+v, %v", out, err)
	}
	if got, _ := run.JSON(); string(got) != `{"append_claims":[{"key":"b","value":2}],"append_log_claims":["one"]}` {
		t.Errorf("answer %s", got)
	}
	if got, want := string(first.Requests()[0].Body), `{"function":"function/preuserinfo","userinfo":{"sub":"\u003c1\u003e"},"response":{"append_log_claims":["zero"]}}`; got != want {
		t.Errorf("first target got %s\nwant %s", got, want)
	}
	if got, want := string(second.Requests()[0].Body), `{"function":"function/preuserinfo","userinfo":{"sub":"\u003c1\u003e"},"response":{"append_log_claims":["one"],"append_claims":[{"key":"a","value":1}]}}`; got != want {
		t.Errorf("second target got %s\nwant %s", got, want)
	}
}
