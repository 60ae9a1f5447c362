package proxy

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/execgate/execgate/conditions"
	"github.com/execgate/execgate/dispatcher"
	"github.com/execgate/execgate/internal/testkit/demoapi"
	"github.com/execgate/execgate/schema"
	"github.com/execgate/execgate/targetclient"
)

// restProxy knows the demo API, and an execution for another of its methods.
func restProxy(tb testing.TB) *Proxy {
	tb.Helper()
	known, err := schema.FromDescriptorSet(demoapi.DescriptorSet())
	if err != nil {
		tb.Fatal(err)
	}
	c, err := conditions.Parse("request/zitadel.user.v2.UserService/AddHumanUser")
	if err != nil {
		tb.Fatal(err)
	}
	snapshot, _ := dispatcher.NewSnapshot(1, []conditions.Execution{{Condition: c, Targets: []string{"t"}}},
		[]*targetclient.Target{{ID: "t", Kind: targetclient.KindWebhook, InterruptOnError: true}}, dispatcher.SnapshotOptions{})
	p, err := New(Options{
		Upstream: UpstreamOptions{URL: "http://127.0.0.1:1"}, Dispatcher: unusedDispatcher{},
		Schema: func() *schema.Schema { return known }, Snapshot: func() *dispatcher.Snapshot { return snapshot },
	})
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func restRequest(method, target, contentType string) *http.Request {
	path, query, _ := strings.Cut(target, "?")
	r := &http.Request{
		Method: method, ProtoMajor: 1, RequestURI: target, URL: &url.URL{Path: path, RawQuery: query},
		Header: http.Header{"User-Agent": {"curl/8"}, "Accept": {"*/*"}},
	}
	if contentType != "" {
		r.Header["Content-Type"] = []string{contentType}
	}
	return r
}

// restRequests are calls that nothing matches, and what is no call.
func restRequests() map[string]*http.Request {
	return map[string]*http.Request{
		"GET":          restRequest("GET", "/v2/users/217456118543000004?x=1", ""),
		"POST JSON":    restRequest("POST", "/v2/sessions", contentTypeJSON),
		"POST curl -d": restRequest("POST", "/v2/sessions", contentTypeForm),
		"DELETE":       restRequest("DELETE", "/v2/users/217456118543000004", ""),
		"no route":     restRequest("GET", "/ui/login?authRequest=217456118543000004", ""),
	}
}

func decideREST(p *Proxy, r *http.Request) (passes bool) {
	op := newOperation(noResponse{}, r)
	passes = p.decide(op) == nil && op.request == nil && op.response == nil
	op.code = "OK"
	p.inFlight.Add(1)
	p.finish(op, 0)
	return passes
}

// Not parallel: allocations are counted for the whole process.
func TestRESTDecisionAllocatesNothing(t *testing.T) { //nolint:paralleltest // see above
	p := restProxy(t)
	for name, r := range restRequests() {
		if !decideREST(p, r) {
			t.Fatalf("%s does not pass through", name)
		}
		if n := testing.AllocsPerRun(1000, func() { decideREST(p, r) }); n >= 1 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// BenchmarkDecideREST is all that the gateway adds to an unmatched REST call before and after its bytes stream through.
func BenchmarkDecideREST(b *testing.B) {
	p := restProxy(b)
	for name, r := range restRequests() {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !decideREST(p, r) {
					b.Fatal("the call does not pass through")
				}
			}
		})
	}
}
