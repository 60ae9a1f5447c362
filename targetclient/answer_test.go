package targetclient_test

import (
	"io"
	"net/http"
	"strconv"
	"testing"

	"github.com/execgate/execgate/targetclient"
)

func TestStatusOfTheAnswer(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		status, _ := strconv.Atoi(r.URL.Path[1:])
		w.WriteHeader(status)
		if status != 204 && status != 304 {
			_, _ = io.WriteString(w, `{"forwardedStatusCode":403}`)
		}
	})
	c := newClient(t, targetclient.Options{})
	for _, status := range []int{204, 300, 304, 305, 306, 399, 400, 401, 403, 404, 409, 410, 429, 499, 500, 502, 503, 599, 600, 999} {
		// A target each: failures must not open a breaker here.
		tgt := target(s.URL + "/" + strconv.Itoa(status))
		tgt.ID = tgt.URL
		_, err := do(t, c, tgt, "{}")
		if status == 204 {
			if err != nil {
				t.Errorf("204: %v", err)
			}
			continue
		}
		wantReason(t, err, targetclient.ReasonFailed)
		if err.StatusCode != status || err.ForwardedStatus != 0 {
			t.Errorf("%d: %+v", status, err)
		}
	}
	for _, status := range []int{200, 201, 202, 226, 299} {
		_, err := do(t, c, target(s.URL+"/"+strconv.Itoa(status)), "{}")
		wantReason(t, err, targetclient.ReasonForwarded)
		if err.StatusCode != status || err.ForwardedStatus != 403 {
			t.Errorf("%d: %+v", status, err)
		}
	}
}

func TestBodyOfTheAnswer(t *testing.T) {
	t.Parallel()
	const (
		ok           = targetclient.Reason(0)
		forwarded    = targetclient.ReasonForwarded
		precondition = targetclient.ReasonPrecondition
	)
	tests := []struct {
		body    string
		reason  targetclient.Reason
		status  int
		message string
	}{
		{body: ``},
		{body: ` `},
		{body: `{}`},
		{body: `{"name":"x"}`},
		{body: `not JSON`},
		{body: `null`},
		{body: `[]`},
		{body: `"forwardedStatusCode"`},
		{body: `403`},
		{body: `{"forwardedStatusCode":403`},
		{body: `{"forwardedStatusCode":403}x`},
		{body: `{"forwardedStatusCode":403}{}`},
		{body: `[{"forwardedStatusCode":403}]`},
		{body: `{"a":{"forwardedStatusCode":403}}`},
		{body: "\ufeff" + `{"forwardedStatusCode":403}`},

		{`{"forwardedStatusCode":400}`, forwarded, 400, ""},
		{`{"forwardedStatusCode":403,"forwardedErrorMessage":"no"}`, forwarded, 403, "no"},
		{`{"forwardedStatusCode":499,"forwardedErrorMessage":"no"}`, forwarded, 499, "no"},
		{`{"forwardedStatusCode":418,"name":"x"}`, forwarded, 418, ""},
		{" \t\r\n{ \"forwardedStatusCode\" : 404 } \n", forwarded, 404, ""},
		{`{"forwardedErrorMessage":"a \"b\" \u00e9 \ud83d\ude00","forwardedStatusCode":403}`, forwarded, 403, "a \"b\" é 😀"},

		{`{"forwardedStatusCode":399}`, precondition, 399, ""},
		{`{"forwardedStatusCode":500,"forwardedErrorMessage":"no"}`, precondition, 500, "no"},
		{`{"forwardedStatusCode":200,"forwardedErrorMessage":"no"}`, precondition, 200, "no"},
		{`{"forwardedStatusCode":1}`, precondition, 1, ""},
		{`{"forwardedStatusCode":-403}`, precondition, -403, ""},
		{`{"forwardedErrorMessage":"no"}`, precondition, 0, "no"},
		{`{"forwardedErrorMessage":" "}`, precondition, 0, " "},
		{`{"forwardedStatusCode":0,"forwardedErrorMessage":"no"}`, precondition, 0, "no"},

		{body: `{"forwardedStatusCode":0}`},
		{body: `{"forwardedStatusCode":-0}`},
		{body: `{"forwardedStatusCode":0,"forwardedErrorMessage":""}`},
		{body: `{"forwardedStatusCode":null,"forwardedErrorMessage":null}`},

		// Wrong types: nothing counts, not even the other key.
		{body: `{"forwardedStatusCode":403.0}`},
		{body: `{"forwardedStatusCode":4.03e2}`},
		{body: `{"forwardedStatusCode":403.5}`},
		{body: `{"forwardedStatusCode":"403"}`},
		{body: `{"forwardedStatusCode":true}`},
		{body: `{"forwardedStatusCode":{}}`},
		{body: `{"forwardedStatusCode":[403]}`},
		{body: `{"forwardedStatusCode":99999999999999999999}`},
		{body: `{"forwardedStatusCode":"403","forwardedErrorMessage":"no"}`},
		{body: `{"forwardedStatusCode":403,"forwardedErrorMessage":1}`},
		{body: `{"forwardedStatusCode":403,"forwardedErrorMessage":{"text":"no"}}`},

		// Keys: any case, also escaped; the last counts; null leaves the first.
		{`{"FORWARDEDSTATUSCODE":403}`, forwarded, 403, ""},
		{`{"forwardedstatuscode":403,"ForwardedErrorMessage":"no"}`, forwarded, 403, "no"},
		{`{"\u0066orwardedStatusCode":403}`, forwarded, 403, ""},
		{`{"for\u0077arded\u0053tatusCode":403}`, forwarded, 403, ""},
		{"{\"forwardedſtatusCode\":403}", forwarded, 403, ""},
		{body: `{"forwarded_status_code":403}`},
		{body: `{"forwardedStatus":403}`},
		{body: `{"xforwardedStatusCode":403}`},
		{`{"forwardedStatusCode":403,"forwardedStatusCode":404}`, forwarded, 404, ""},
		{`{"forwardedStatusCode":403,"FORWARDEDSTATUSCODE":500}`, precondition, 500, ""},
		{body: `{"forwardedStatusCode":403,"forwardedStatusCode":0}`},
		{`{"forwardedStatusCode":403,"forwardedStatusCode":null}`, forwarded, 403, ""},
	}
	s := serve(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	c := newClient(t, targetclient.Options{})
	for _, kind := range []targetclient.Kind{targetclient.KindWebhook, targetclient.KindCall, targetclient.KindAsync} {
		for _, tt := range tests {
			tgt := target(s.URL)
			tgt.Kind = kind
			res, err := do(t, c, tgt, tt.body)
			if tt.reason == ok {
				if err != nil || string(res.Body) != tt.body {
					t.Errorf("%v %s: %q, %v; want success with the body", kind, tt.body, res.Body, err)
				}
				continue
			}
			if err == nil || err.Reason != tt.reason || err.ForwardedStatus != tt.status || err.Message != tt.message || err.StatusCode != 200 {
				t.Errorf("%v %s: %+v", kind, tt.body, err)
			}
			if string(res.Body) != tt.body {
				t.Errorf("%v %s: the body is %q", kind, tt.body, res.Body)
			}
		}
	}
}
