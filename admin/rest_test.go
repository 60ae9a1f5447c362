package admin_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/google/go-cmp/cmp"

	"github.com/execgate/execgate/admin"
)

func newRequest(t testing.TB, method, url, body string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	return req
}

// jsonBody parses and compacts an answer.
func jsonBody(t testing.TB, body string) map[string]any {
	t.Helper()
	m := make(map[string]any)
	if err := json.Unmarshal([]byte(body), &m); err != nil {
		t.Fatalf("body %q: %v", body, err)
	}
	return m
}

const v3, v2path = "/resources/v3alpha", "/v2/actions"

func TestTheJSONOfATargetIsCamelCasedWithoutZeroValues(t *testing.T) {
	t.Parallel()
	f := start(t)
	out := f.rest("POST", v3+"/targets", `{
		"name": "a", "rest_request_response": {"url": "http://h/x"}, "timeout": "1.5s", "isAsync": true, "unknown": {"x": [1]}
	}`)
	if out.http != 201 {
		t.Fatalf("%+v", out)
	}
	details := jsonBody(t, out.body)["details"].(map[string]any)
	id, date := details["id"].(string), details["changeDate"].(string)
	want := map[string]any{
		"id": id, "sequence": "1", "changeDate": date,
		"resourceOwner": map[string]any{"type": "OWNER_TYPE_INSTANCE", "id": instance},
	}
	if diff := cmp.Diff(want, details); diff != "" {
		t.Error(diff)
	}
	if !regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$`).MatchString(date) {
		t.Errorf("date %q", date)
	}
	got := jsonBody(t, f.rest("GET", v3+"/targets/"+id, "").body)
	wantTarget := map[string]any{"target": map[string]any{
		"details": details,
		"target":  map[string]any{"name": "a", "restRequestResponse": map[string]any{"url": "http://h/x"}, "timeout": "1.500s", "isAsync": true},
	}}
	if diff := cmp.Diff(wantTarget, got); diff != "" {
		t.Error(diff)
	}

	empty := jsonBody(t, f.rest("POST", v3+"/executions/_search", "").body)
	wantEmpty := map[string]any{"details": map[string]any{
		"appliedLimit": 100.0, "endOfList": true, "processedSequence": "1", "timestamp": empty["details"].(map[string]any)["timestamp"],
	}}
	if diff := cmp.Diff(wantEmpty, empty); diff != "" {
		t.Errorf("an empty search: %s", diff)
	}
}

func TestTheErrorBodyIsAStatusWithItsDetail(t *testing.T) {
	t.Parallel()
	f := start(t)
	for path, want := range map[string]map[string]any{
		"/targets/x": {"code": 5.0, "message": "Target not found (QUERY-hj5oaniyrz)", "details": []any{map[string]any{
			"@type": "type.googleapis.com/zitadel.v1.ErrorDetail", "id": "QUERY-hj5oaniyrz", "message": "Target not found",
		}}},
		"/nope": {"code": 5.0, "message": "Not Found"},
	} {
		res, body := f.do("GET", v3+path, "", nil)
		if diff := cmp.Diff(want, jsonBody(t, string(body))); diff != "" || res.StatusCode != 404 {
			t.Errorf("%s: %d %s", path, res.StatusCode, diff)
		}
		if got := res.Header.Get("Content-Type"); got != "application/json" {
			t.Errorf("%s: content type %q", path, got)
		}
	}
}

func TestVerbsAndPaths(t *testing.T) {
	t.Parallel()
	f := start(t)
	const notAllowed, notFound = 405, 404
	for _, row := range []struct {
		verb, path string
		want       int
	}{
		{"PUT", v3 + "/targets", notAllowed},
		{"GET", v3 + "/targets", notAllowed},
		{"DELETE", v3 + "/targets", notAllowed},
		{"POST", v3 + "/targets/1", notAllowed},
		{"PUT", v3 + "/targets/1", notAllowed},
		{"PROPFIND", v3 + "/targets/1", notAllowed},
		{"OPTIONS", v3 + "/targets/1", notAllowed},
		{"GET", v3 + "/executions", notAllowed},
		{"PUT", v3 + "/executions", notAllowed},
		{"DELETE", v3 + "/executions", notAllowed},
		{"GET", v3 + "/executions/request", notAllowed},
		{"POST", v3 + "/executions/request/pkg.Svc/M", notAllowed},
		{"GET", v3 + "/executions/_search", notAllowed},
		{"POST", v3 + "/executions/functions", notAllowed},
		{"DELETE", v3 + "/executions/_search", notAllowed},
		{"DELETE", v3 + "/executions/functions", notAllowed},
		{"DELETE", v3 + "/executions/methods", notAllowed},
		{"DELETE", v3 + "/executions/services", notAllowed},
		{"POST", v2path + "/executions", notAllowed},
		{"GET", v2path + "/targets", notAllowed},
		{"PUT", v2path + "/targets/1", notAllowed},
		{"PATCH", v2path + "/targets/1", notAllowed},
		{"PUT", v2path + "/targets/1/publickeys/2/activate", notAllowed},
		{"GET", v2path + "/targets/1/publickeys", notAllowed},

		{"DELETE", v3 + "/executions/", notFound},
		{"DELETE", v3 + "/executions/request/", notFound},
		{"GET", v3 + "/targets/", notFound},
		{"GET", v3 + "/targets/1/2", notFound},
		{"GET", v3, notFound},
		{"GET", v3 + "/", notFound},
		{"GET", v3 + "/actions/targets", notFound},
		{"GET", "/", notFound},
		{"POST", "/targets", notFound},
		{"GET", "/v2/actions", notFound},
		{"GET", "/v2beta/actions/executions/functions", notFound},
		{"GET", "/favicon.ico", notFound},
		{"DELETE", v3 + "/executions/nonsense", notFound},

		{"GET", v3 + "/executions/functions", 200},
		{"GET", v3 + "/executions/methods", 200},
		{"GET", v3 + "/executions/services", 200},
		{"POST", v3 + "/executions/_search", 200},
		{"GET", v2path + "/executions/functions", 200},
		{"POST", v2path + "/executions/search", 200},
		{"POST", v2path + "/targets/search", 200},
		{"POST", v2path + "/targets/1/publickeys/search", 200},
		{"DELETE", v2path + "/targets/1", 200},
	} {
		out := f.rest(row.verb, row.path, "")
		if out.http != row.want {
			t.Errorf("%s %s: %+v, want HTTP %d", row.verb, row.path, out, row.want)
		}
		if row.want == notAllowed && out.code != codes.Unimplemented || row.want == notFound && out.code != codes.NotFound {
			t.Errorf("%s %s: code %v in the body", row.verb, row.path, out.code)
		}
	}
	if res, _ := f.do("HEAD", v3+"/targets/1", "", nil); res.StatusCode != notAllowed {
		t.Errorf("HEAD: %d", res.StatusCode)
	}
	res, _ := f.do("POST", v3+"/executions/functions", "application/x-www-form-urlencoded", []byte("a=b"), "X-HTTP-Method-Override", "GET")
	if res.StatusCode != notAllowed {
		t.Errorf("a form with an override: %d", res.StatusCode)
	}
}

func TestBodiesThatAreNotWhatTheyShouldBe(t *testing.T) {
	t.Parallel()
	f := start(t)
	id := f.target("a")
	for name, row := range map[string]struct{ verb, path, body string }{
		"no JSON":                     {"POST", "/targets", `{`},
		"garbage behind the object":   {"POST", "/targets", `{"name":"b","restWebhook":{"url":"http://h/"},"timeout":"1s"} {}`},
		"an array":                    {"POST", "/targets", `[]`},
		"null":                        {"POST", "/targets", `null`},
		"a string":                    {"POST", "/targets", `"x"`},
		"no body":                     {"POST", "/targets", ``},
		"an empty object":             {"POST", "/targets", `{}`},
		"a name that is a number":     {"POST", "/targets", `{"name":1}`},
		"a timeout that is a number":  {"POST", "/targets", `{"name":"b","restWebhook":{"url":"http://h/"},"timeout":1}`},
		"a timeout without a unit":    {"POST", "/targets", `{"name":"b","restWebhook":{"url":"http://h/"},"timeout":"1"}`},
		"both types":                  {"POST", "/targets", `{"name":"b","restWebhook":{"url":"http://h/"},"restRequestResponse":{"url":"http://h/"},"timeout":"1s"}`},
		"both flags":                  {"POST", "/targets", `{"name":"b","restWebhook":{"url":"http://h/"},"timeout":"1s","isAsync":true,"interruptOnError":true}`},
		"a field twice":               {"POST", "/targets", `{"name":"b","name":"c","restWebhook":{"url":"http://h/"},"timeout":"1s"}`},
		"the target in a wrapper":     {"POST", "/targets", `{"target":{"name":"b","restWebhook":{"url":"http://h/"},"timeout":"1s"}}`},
		"a patch that is no JSON":     {"PATCH", "/targets/" + id, `{"name":}`},
		"an execution of two kinds":   {"POST", "/executions", `{"condition":{"request":{"all":true},"response":{"all":true}},"targets":["` + id + `"]}`},
		"targets that are no strings": {"POST", "/executions", `{"condition":{"request":{"all":true}},"targets":[1]}`},
	} {
		if out := f.rest(row.verb, v3+row.path, row.body); out.http != 400 || out.code != codes.InvalidArgument || out.message == "" {
			t.Errorf("%s: %+v", name, out)
		}
	}
}

func TestAnEmptyPatchOverRESTIsNoChange(t *testing.T) {
	t.Parallel()
	f := start(t)
	id := f.target("a")
	for _, body := range []string{"{}", "", `{"unknown":1}`} {
		out := f.rest("PATCH", v3+"/targets/"+id, body)
		details, _ := jsonBody(t, out.body)["details"].(map[string]any)
		if out.http != 200 || details["sequence"] != "1" {
			t.Errorf("%q: %+v", body, out)
		}
	}
}

func TestBodiesOverTheLimitAreRefused(t *testing.T) {
	t.Parallel()
	f := start(t, func(o *admin.Options) { o.MaxBodyBytes = 1 << 10 })
	for size, want := range map[int]int{1000: 201, 1100: 413, 5 << 20: 413} {
		body := `{"name":"n` + fmt.Sprint(size) + `","restWebhook":{"url":"http://h/"},"timeout":"1s","unknown":"`
		body += strings.Repeat("x", size-len(body)-2) + `"}`
		out := f.rest("POST", v3+"/targets", body)
		if out.http != want || want == 413 && out.code != codes.ResourceExhausted {
			t.Errorf("%d bytes: %+v", size, out)
		}
	}
	big := putRequest(requestAll(), []string{strings.Repeat("x", 2000)})
	for _, p := range []protocol{overGRPC, overGRPCWeb, overConnect, overConnectJSON} {
		if _, out := f.call(p, big); out.code != codes.ResourceExhausted {
			t.Errorf("%s: %+v", p, out)
		}
	}
}

func TestAnyContentTypeOfARESTBodyIsReadAsJSON(t *testing.T) {
	t.Parallel()
	f := start(t)
	for i, contentType := range []string{"", "application/json", "application/json; charset=utf-8", "text/plain", "application/octet-stream"} {
		body := fmt.Sprintf(`{"name":"n%d","restWebhook":{"url":"http://h/"},"timeout":"1s"}`, i)
		res, answer := f.do("POST", v3+"/targets", contentType, []byte(body))
		if res.StatusCode != 201 || res.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%q: %d %s", contentType, res.StatusCode, answer)
		}
	}
}

func TestAnExecutionIDIsDecodedOnce(t *testing.T) {
	t.Parallel()
	f := start(t, withoutSchema)
	f.put(requestService("a%2Fb.C d"), []string{f.target("a")})
	if out := f.rest("DELETE", v3+"/executions/request/a%252Fb.C%20d", ""); out.http != 200 {
		t.Errorf("%+v", out)
	}
}

func TestAnswersCarryNoGRPCMetadata(t *testing.T) {
	t.Parallel()
	f := start(t)
	res, _ := f.do("GET", v3+"/executions/functions", "", nil)
	for name := range res.Header {
		if bytes.HasPrefix([]byte(strings.ToLower(name)), []byte("grpc")) {
			t.Errorf("header %s", name)
		}
	}
}

func TestARefusedVerbIsAnsweredWithThoseThatThePathHas(t *testing.T) {
	t.Parallel()
	f := start(t)
	for path, want := range map[string]string{
		v3 + "/targets":                      "POST",
		v3 + "/targets/1":                    "DELETE, GET, PATCH",
		v3 + "/targets/_search":              "DELETE, GET, PATCH, POST",
		v3 + "/executions":                   "POST",
		v3 + "/executions/request/a.B/C":     "DELETE",
		v2path + "/executions":               "",
		v2path + "/targets/1":                "DELETE, GET, POST",
		v2path + "/targets/1/publickeys/2":   "DELETE",
		v2path + "/executions/functions":     "GET",
		"/zitadel.action.v2.ActionService/x": "",
	} {
		res, _ := f.do("PUT", path, "", nil)
		if got := res.Header.Get("Allow"); got != want && res.StatusCode == 405 {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	if res, _ := f.do("DELETE", v3+"/executions/functions", "", nil); res.Header.Get("Allow") != "GET" {
		t.Errorf("a static path: %q", res.Header.Get("Allow"))
	}
}

func TestWhoMayNotCallHearsThatBeforeTheFaultsOfTheBody(t *testing.T) {
	t.Parallel()
	f := start(t, withTokens(token("reader", "action.target.read")))
	for tok, want := range map[string]int{"": 401, "wrong": 401, "reader": 403, rootToken: 400} {
		f.token = tok
		for _, row := range [][2]string{{"/targets", "{"}, {"/executions", "[]"}, {"/targets", `{"name":1}`}} {
			if out := f.rest("POST", v3+row[0], row[1]); out.http != want {
				t.Errorf("token %q, %s: %+v, want %d", tok, row[1], out, want)
			}
		}
	}
}

func FuzzRESTBodiesNeverFailTheServer(f *testing.F) {
	for _, seed := range []string{
		``, `{}`, `[]`, `null`, `[{}]`, `{"name":"a","restWebhook":{"url":"http://h/"},"timeout":"1s"}`,
		`{"condition":{"request":{"all":true}},"targets":["1"]}`, `[{"name":{"name":"x","method":3}}]`, `{"timeout":"1e9s"}`,
		`{"publicKey":"LS0t","expirationDate":"2030-01-01T00:00:00Z"}`, "\x00", `{"name":"\ud800"}`,
	} {
		f.Add(0, seed)
	}
	routes := [][2]string{
		{"POST", v3 + "/targets"}, {"PATCH", v3 + "/targets/1"}, {"POST", v3 + "/targets/_search"},
		{"POST", v3 + "/executions"}, {"POST", v3 + "/executions/_search"}, {"POST", v2path + "/targets"},
		{"POST", v2path + "/targets/1"}, {"POST", v2path + "/targets/search"}, {"PUT", v2path + "/executions"},
		{"POST", v2path + "/executions/search"}, {"POST", v2path + "/targets/1/publickeys"},
		{"POST", v2path + "/targets/1/publickeys/search"},
	}
	server := start(f)
	f.Fuzz(func(t *testing.T, route int, body string) {
		r := routes[uint(route)%uint(len(routes))]
		req := httptest.NewRequest(r[0], r[1], strings.NewReader(body))
		req.Header.Set("Authorization", "Bearer "+rootToken)
		res := httptest.NewRecorder()
		server.server.Handler().ServeHTTP(res, req)
		if res.Code >= 500 || !json.Valid(res.Body.Bytes()) {
			t.Errorf("%s %s: %d %s", r[0], r[1], res.Code, res.Body)
		}
	})
}
