package admin_test

import (
	"bytes"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"
	"google.golang.org/genproto/googleapis/api/annotations"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/execgate/execgate/admin"
	"github.com/execgate/execgate/store"
)

// openAPI gets the document as anybody would: without a token.
func (f *fixture) openAPI() *openapi3.T {
	f.t.Helper()
	res, err := f.http.Get("http://" + f.address + "/openapi.json")
	if err != nil {
		f.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "application/json" {
		f.t.Fatalf("GET /openapi.json: %v, %s, %s", err, res.Status, res.Header.Get("Content-Type"))
	}
	doc, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		f.t.Fatal(err)
	}
	return doc
}

// documented lists "VERB /path" with the names of the parameters taken out.
func documented(doc *openapi3.T) []string {
	var routes []string
	for path, item := range doc.Paths.Map() {
		for verb := range item.Operations() {
			routes = append(routes, verb+" "+withoutNames(path))
		}
	}
	slices.Sort(routes)
	return routes
}

func withoutNames(path string) string {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		if strings.HasPrefix(s, "{") {
			segments[i] = "{}"
		}
	}
	return strings.Join(segments, "/")
}

func TestOpenAPINamesTheRoutesOfAllServices(t *testing.T) {
	t.Parallel()
	f := start(t)
	stream, err := reflectionpb.NewServerReflectionClient(f.conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = stream.Send(&reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{},
	})
	if err != nil {
		t.Fatal(err)
	}
	listed, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, s := range listed.GetListServicesResponse().GetService() {
		if strings.HasPrefix(s.GetName(), "grpc.") {
			continue
		}
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(s.GetName()))
		if err != nil {
			t.Fatal(err)
		}
		methods := d.(protoreflect.ServiceDescriptor).Methods()
		for i := range methods.Len() {
			rule := proto.GetExtension(methods.Get(i).Options(), annotations.E_Http).(*annotations.HttpRule)
			for _, r := range append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...) {
				for verb, path := range map[string]string{
					"GET": r.GetGet(), "PUT": r.GetPut(), "POST": r.GetPost(), "DELETE": r.GetDelete(), "PATCH": r.GetPatch(),
				} {
					if path != "" {
						want = append(want, verb+" "+withoutNames(path))
					}
				}
			}
		}
	}
	slices.Sort(want)
	if got := documented(f.openAPI()); !slices.Equal(got, want) {
		t.Errorf("the document has\n%s\nthe services have\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestOpenAPIIsWhatTheServerServes(t *testing.T) {
	t.Parallel()
	// Without a token, a route that is there answers 401 whatever it is about.
	f := start(t, func(o *admin.Options) { o.Tokens[0].Permissions = nil })
	doc := f.openAPI()
	for path, item := range doc.Paths.Map() {
		for _, verb := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
			req, err := http.NewRequestWithContext(t.Context(), verb, "http://"+f.address+sample(path), nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := f.http.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			switch {
			case item.GetOperation(verb) != nil && res.StatusCode != http.StatusUnauthorized:
				t.Errorf("%s %s is documented and answers %s", verb, path, res.Status)
			case item.GetOperation(verb) == nil && !hasTemplate(doc, verb, sample(path)) &&
				res.StatusCode != http.StatusMethodNotAllowed && res.StatusCode != http.StatusNotFound:
				t.Errorf("%s %s is not documented and answers %s", verb, path, res.Status)
			}
		}
	}
}

// hasTemplate says whether a path with parameters covers this one.
func hasTemplate(doc *openapi3.T, verb, path string) bool {
	segments := strings.Split(path, "/")
	for template, item := range doc.Paths.Map() {
		pattern := strings.Split(template, "/")
		fits := len(pattern) == len(segments) && item.GetOperation(verb) != nil
		for i := 0; fits && i < len(pattern); i++ {
			fits = strings.HasPrefix(pattern[i], "{") || pattern[i] == segments[i]
		}
		if fits {
			return true
		}
	}
	return false
}

// sample fills in the parameters of a path.
func sample(path string) string {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		if strings.HasPrefix(s, "{") {
			segments[i] = "7"
		}
	}
	return strings.Join(segments, "/")
}

func TestRESTSpeaksAsOpenAPISays(t *testing.T) {
	t.Parallel()
	embedded, err := store.OpenEmbedded(store.EmbeddedOptions{Path: filepath.Join(t.TempDir(), "store.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = embedded.Close() })
	f := startOn(t, embedded, func(o *admin.Options) { o.Gateway.History = embedded })
	router, err := legacy.NewRouter(f.openAPI())
	if err != nil {
		t.Fatal(err)
	}
	id := f.target("crm")
	for _, c := range []struct {
		verb, path, body string
		status           int
	}{
		{"POST", "/resources/v3alpha/targets", `{"name":"a","restWebhook":{"url":"https://a.example"},"timeout":"10s","isAsync":true}`, 201},
		{"POST", "/resources/v3alpha/targets", `{"name":"a","restWebhook":{"url":"https://a.example"},"timeout":"10s"}`, 409},
		{"PATCH", "/resources/v3alpha/targets/" + id, `{"restRequestResponse":{"url":"https://b.example"}}`, 200},
		{"GET", "/resources/v3alpha/targets/" + id, ``, 200},
		{"GET", "/resources/v3alpha/targets/1", ``, 404},
		{"POST", "/resources/v3alpha/targets/_search?query.limit=5&query.offset=0&query.asc=true&sortingColumn=TARGET_FIELD_NAME_NAME", `[{"name":{"name":"a","method":"TEXT_FILTER_METHOD_CONTAINS"}}]`, 200},
		{"POST", "/resources/v3alpha/targets/_search", ``, 200},
		{"POST", "/resources/v3alpha/executions", `{"condition":{"request":{"service":"zitadel.user.v2.UserService"}},"targets":["` + id + `"]}`, 201},
		{"POST", "/resources/v3alpha/executions", `{"condition":{"request":{"service":"zitadel.user.v2.UserService"}},"targets":["` + id + `"]}`, 200},
		{"POST", "/resources/v3alpha/executions/_search", `[{"executionType":{"type":"EXECUTION_TYPE_REQUEST"}}]`, 200},
		{"GET", "/resources/v3alpha/executions/methods", ``, 200},
		{"POST", "/v2/actions/targets", `{"name":"b","restCall":{"interruptOnError":true},"timeout":"1.5s","endpoint":"https://b.example"}`, 200},
		{"POST", "/v2/actions/targets/" + id, `{"timeout":"2s"}`, 200},
		{"POST", "/v2/actions/targets/search", `{"pagination":{"limit":2,"asc":true},"sortingColumn":"TARGET_FIELD_NAME_NAME"}`, 200},
		{"PUT", "/v2/actions/executions", `{"condition":{"event":{"group":"user"}},"targets":["` + id + `"]}`, 200},
		{"POST", "/v2/actions/executions/search", `{}`, 200},
		{"PATCH", "/v1/targets/" + id + "/policy", `{"maxConcurrency":4,"breaker":{"openFor":"3s"},"headers":{"values":{"X-A":"b"}}}`, 200},
		{"GET", "/v1/targets/" + id + "/policy", ``, 200},
		{"PATCH", "/v1/executions/request%2Fzitadel.user.v2.UserService/policy", `{"mode":"EXECUTION_MODE_SHADOW"}`, 200},
		{"PATCH", "/v1/switches", `{"dispatch":true}`, 200},
		{"GET", "/v1/revisions?limit=3", ``, 200},
		{"GET", "/v1/audit?limit=3&resource=crm", ``, 200},
		{"GET", "/v1/explain?method=/zitadel.user.v2.UserService/AddHumanUser&last=true", ``, 200},
		{"POST", "/v1/revisions/2/_rollback", `{"dryRun":true}`, 200},
		{"DELETE", "/v2/actions/targets/" + id, ``, 200},
	} {
		checkCall(t, f, router, c.verb, c.path, c.body, c.status)
	}
}

// checkCall calls the server, and holds request and answer against the
// document.
func checkCall(t *testing.T, f *fixture, router routers.Router, verb, path, body string, status int) {
	t.Helper()
	newRequest := func(base string) *http.Request {
		req, err := http.NewRequestWithContext(t.Context(), verb, base+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+rootToken)
		if body != "" {
			req.Header.Set("Content-Type", "application/json")
		}
		return req
	}
	input := &openapi3filter.RequestValidationInput{
		Request: newRequest(""),
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc},
	}
	var err error
	if input.Route, input.PathParams, err = router.FindRoute(input.Request); err != nil {
		t.Fatalf("%s %s: %v", verb, path, err)
	}
	if err := openapi3filter.ValidateRequest(t.Context(), input); err != nil {
		t.Errorf("%s %s: %v", verb, path, err)
	}
	res, err := f.http.Do(newRequest("http://" + f.address))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if err != nil || res.StatusCode != status {
		t.Fatalf("%s %s: %v %s %s, want %d", verb, path, err, res.Status, answer, status)
	}
	err = openapi3filter.ValidateResponse(t.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: input,
		Status:                 res.StatusCode,
		Header:                 res.Header,
		Body:                   io.NopCloser(bytes.NewReader(answer)),
		Options:                &openapi3filter.Options{IncludeResponseStatus: true},
	})
	if err != nil {
		t.Errorf("%s %s: %v", verb, path, err)
	}
}
