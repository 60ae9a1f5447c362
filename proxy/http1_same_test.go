package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/execgate/execgate/proxy"
	"github.com/execgate/execgate/targetclient"
)

// TestBothEnginesDoTheSameOverHTTP1: what the upstream sees, what the client gets and what is recorded do not depend on
// the engine.
func TestBothEnginesDoTheSameOverHTTP1(t *testing.T) {
	t.Parallel()
	if *engine != "nethttp" { // Each gateway of the test would run on this one.
		return
	}
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Header.Set("Seen", fmt.Sprintf("%s %s %s %s %d %q %q", r.Method, r.RequestURI, r.Host, r.Proto, r.ContentLength, r.TransferEncoding, body))
		for name, values := range r.Header {
			w.Header()["Seen-"+name] = values
		}
		w.Header()["Date"] = nil
		status := http.StatusOK
		if s := r.URL.Query().Get("status"); s != "" {
			_, _ = fmt.Sscan(s, &status)
			w.Header().Set("Content-Type", "application/json")
		}
		w.WriteHeader(status)
		if status >= http.StatusBadRequest {
			_, _ = io.WriteString(w, r.URL.Query().Get("says"))
		}
	})
	const jsonBody = "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
	requests := []string{
		"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
		"GET /v2/users/5 HTTP/1.1\r\nHost: h:8\r\nAccept: */*\r\nUser-Agent: x\r\nX-A: 1\r\nX-A: 2\r\n\r\n",
		"GET /v2/users/5?status=404&says=%7B%22code%22%3A5%7D HTTP/1.1\r\nHost: h\r\n\r\n",
		"GET /v2/users/5?status=403&says=no HTTP/1.1\r\nHost: h\r\n\r\n",
		"GET /v2/users/a%40b HTTP/1.1\r\nHost: h\r\n\r\n",
		"GET /v2/users/%zz HTTP/1.1\r\nHost: h\r\n\r\n",
		"HEAD /v2/users/5 HTTP/1.1\r\nHost: h\r\n\r\n",
		"POST /v2/sessions HTTP/1.1\r\nHost: h\r\n" + jsonBody,
		"POST /v2/sessions?status=500 HTTP/1.1\r\nHost: h\r\n" + jsonBody,
		"POST /v2/users/human HTTP/1.1\r\nHost: h\r\n" + jsonBody, // This one is vetoed.
		"POST /v2/users/human?x#y HTTP/1.1\r\nHost: h\r\n" + jsonBody,
		"POST /zitadel.user.v2.UserService/AddHumanUser HTTP/1.1\r\nHost: h\r\n" + jsonBody,
		"POST /zitadel.session.v2.SessionService/ListSessions HTTP/1.1\r\nHost: h\r\n" + jsonBody,
		"POST /zitadel.session.v2.SessionService/ListSessions?status=404&says=%7B%22code%22%3A%22not_found%22%7D HTTP/1.1\r\nHost: h\r\n" + jsonBody,
		"POST /zitadel.session.v2.SessionService/ListSessions HTTP/1.1\r\nHost: h\r\nContent-Type: application/grpc-web+proto\r\nContent-Length: 5\r\n\r\n\x00\x00\x00\x00\x00",
		"POST /zitadel.user.v2.UserService/AddHumanUser HTTP/1.1\r\nHost: h\r\nContent-Type: application/grpc-web\r\nContent-Length: 5\r\n\r\n\x00\x00\x00\x00\x00",
		"POST /v2/users/5 HTTP/1.1\r\nHost: h\r\nX-HTTP-Method-Override: DELETE\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 3\r\n\r\na=b",
		"POST /x HTTP/1.1\r\nHost: h\r\n\r\n",
		"PUT /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"DELETE /x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc",
		"OPTIONS /x HTTP/1.1\r\nHost: h\r\nOrigin: https://a.example\r\nAccess-Control-Request-Method: POST\r\n\r\n",
		"GET /x HTTP/1.1\r\nHost: h\r\nOrigin: https://a.example\r\n\r\n",
		"GET /x HTTP/1.1\r\nHost: h\r\nTE: trailers, deflate\r\nKeep-Alive: 3\r\nProxy-Connection: close\r\nProxy-Authorization: s\r\nConnection: keep-alive, X-Mine\r\nX-Mine: 1\r\n\r\n",
		"GET /x HTTP/1.1\r\nHost: h\r\nTE: trailers, deflate\r\nKeep-Alive: 3\r\nProxy-Authenticate: s\r\n\r\n",
		"GET /x HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: 5.6.7.8\r\nX-Forwarded-Host: a\r\nX-Forwarded-Port: 1\r\nForwarded: for=1.2.3.4\r\n\r\n",
		"GET /x HTTP/1.1\r\nHost: h\r\nX-Forwarded-Proto: https\r\nForwarded: for=1\r\nForwarded: for=2\r\n\r\n",
		"GET /x HTTP/1.1\r\nHost: h\r\nContent-Type: a/b\r\nContent-Type: application/grpc\r\n\r\n",
		"GET http://other/x HTTP/1.1\r\nHost: h\r\n\r\n",
		"GET //x/../y?z HTTP/1.1\r\nHost: h\r\n\r\n",
	}
	for name, change := range map[string]func(*proxy.Options){
		"plain":         func(*proxy.Options) {},
		"trusted":       func(o *proxy.Options) { o.TrustedProxies = []string{"127.0.0.1"} },
		"own authority": func(o *proxy.Options) { o.Upstream.Authority = "tenant.example" },
		"CORS":          func(o *proxy.Options) { o.CORS.AllowedOrigins = []string{"https://b.example"} },
		"CORS of all":   func(o *proxy.Options) { o.CORS.AllowedOrigins = []string{"*"} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			upstream := startHTTP1(t, false, h)
			veto := startTarget(t, "veto", targetclient.KindWebhook, true, func(envelope) (int, string) { return 500, "" })
			matched := withExecutions(t, targetsOf(veto), on(t, "request"+addUser, "veto"))
			var gateways [2]*gateway
			for i := range gateways {
				gateways[i] = startGatewayServer(t, upstream, func(o *proxy.Options) { matched(o); o.Schema = demoSchema; change(o) }, proxy.ServerOptions{Relay: i == 1})
			}
			for _, r := range requests {
				var got [2]string
				for i, g := range gateways {
					got[i] = exchange(t, g, r)
				}
				if got[0] != got[1] {
					t.Errorf("%.60q\nnet/http: %s\nh1:       %s", r, got[0], got[1])
				}
			}
		})
	}
}

// exchange sends a request and returns in words what came of it.
func exchange(t *testing.T, g *gateway, sent string) string {
	t.Helper()
	c := dialHTTP1(t, g)
	c.send(sent)
	method, _, _ := strings.Cut(sent, " ")
	res, err := http.ReadResponse(bufio.NewReader(c.conn), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%.60q: %v", sent, err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	delete(res.Header, "Date")
	recorded := request{}
	if !strings.Contains(sent, "%zz") { // net/http's server refuses it.
		recorded = g.observed.next(t)
	}
	if len(res.TransferEncoding) > 0 {
		res.Header["Transfer-Encoding"] = res.TransferEncoding
	}
	return fmt.Sprint(res.StatusCode, " ", res.Header, " ", string(body), " ", recorded)
}
