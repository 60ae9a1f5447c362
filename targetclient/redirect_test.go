package targetclient_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/execgate/execgate/targetclient"
)

// hop is a request as a target on the way saw it.
type hop struct {
	Method, Path, Body string
	Header             http.Header
}

// trail records hops.
type trail struct {
	mu   sync.Mutex
	hops []hop
}

func (tr *trail) add(r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.hops = append(tr.hops, hop{r.Method, r.URL.Path, string(body), r.Header})
}

func (tr *trail) all() []hop {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.hops
}

// chain redirects /5 to /4 ... to /0, which answers.
func (tr *trail) chain(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		tr.add(r)
		n, _ := strconv.Atoi(r.URL.Path[1:])
		if n == 0 {
			_, _ = io.WriteString(w, `{"end":true}`)
			return
		}
		w.Header().Set("Location", fmt.Sprint("/", n-1))
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "moved")
	}
}

func TestFourRedirectsAreFollowedTheFifthIsAnError(t *testing.T) {
	t.Parallel()
	for _, status := range []int{301, 302, 303, 307, 308} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			t.Parallel()
			var tr trail
			s := serve(t, tr.chain(status))
			c := newClient(t, targetclient.Options{})
			if res, err := do(t, c, target(s.URL+"/4"), "{}"); err != nil || string(res.Body) != `{"end":true}` {
				t.Errorf("four: %q, %v", res.Body, err)
			}
			if n := len(tr.all()); n != 5 {
				t.Errorf("four: %d requests", n)
			}
			_, err := do(t, c, target(s.URL+"/5"), "{}")
			wantReason(t, err, targetclient.ReasonTransport)
			if n := len(tr.all()); n != 10 {
				t.Errorf("five: %d requests", n-5)
			}
		})
	}
}

func TestWhatARedirectCarries(t *testing.T) {
	t.Parallel()
	for status, repeats := range map[int]bool{301: false, 302: false, 303: false, 307: true, 308: true} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			t.Parallel()
			var tr trail
			s := serve(t, tr.chain(status))
			tgt := target(s.URL + "/1")
			tgt.SigningKeys = []string{"k"}
			tgt.Headers = map[string]string{"X-Fixed": "1", "Authorization": "Bearer x"}
			c := newClient(t, targetclient.Options{})
			if _, err := c.Do(t.Context(), targetclient.Call{Target: tgt, Body: []byte(`{"a":1}`), Header: http.Header{"Webhook-Id": {"1"}}}); err != nil {
				t.Fatal(err)
			}
			hops := tr.all()
			first, second := hops[0], hops[1]
			if second.Header.Get("Referer") != "" {
				t.Error("a Referer tells of the first url")
			}
			if repeats {
				if second.Method != "POST" || second.Body != `{"a":1}` || fmt.Sprint(second.Header) != fmt.Sprint(first.Header) {
					t.Errorf("second request %+v, want the first again: %+v", second, first)
				}
				return
			}
			want := http.Header{"User-Agent": {"execgate"}, "Accept-Encoding": {"gzip"}, "X-Fixed": {"1"}, "Authorization": {"Bearer x"}}
			if second.Method != "GET" || second.Body != "" || fmt.Sprint(second.Header) != fmt.Sprint(want) {
				t.Errorf("second request %+v, want a bare GET", second)
			}
		})
	}
}

func TestAGetStaysAGet(t *testing.T) {
	t.Parallel()
	var tr trail
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		tr.add(r)
		switch r.URL.Path {
		case "/":
			http.Redirect(w, r, "/two", http.StatusSeeOther)
		case "/two":
			http.Redirect(w, r, "/three", http.StatusTemporaryRedirect)
		}
	})
	if _, err := do(t, newClient(t, targetclient.Options{}), target(s.URL), "{}"); err != nil {
		t.Fatal(err)
	}
	if last := tr.all()[2]; last.Method != "GET" || last.Body != "" {
		t.Errorf("%+v", last)
	}
}

func TestAnotherHostGetsBodyAndSignatureButNoFixedHeaders(t *testing.T) {
	t.Parallel()
	var tr trail
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		tr.add(r)
		if r.URL.Path == "/" {
			http.Redirect(w, r, strings.Replace("http://"+r.Host, "127.0.0.1", "localhost", 1)+"/there", http.StatusPermanentRedirect)
		}
	})
	tgt := target(strings.Replace(s.URL, "http://", "http://user:pass@", 1) + "/")
	tgt.SigningKeys = []string{"k"}
	tgt.Headers = map[string]string{"X-Api-Key": "secret"}
	if _, err := do(t, newClient(t, targetclient.Options{}), tgt, `{"a":1}`); err != nil {
		t.Fatal(err)
	}
	hops := tr.all()
	if h := hops[0].Header; h.Get("X-Api-Key") != "secret" || h.Get("Authorization") == "" {
		t.Errorf("first request %v", h)
	}
	second := hops[1]
	if h := second.Header; h.Get("X-Api-Key") != "" || h.Get("Authorization") != "" || h.Get("ZITADEL-Signature") == "" || second.Body != `{"a":1}` {
		t.Errorf("second request %+v", second)
	}
}

func TestRedirectsThatAreNotFollowed(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		location string
		reason   targetclient.Reason
	}{
		"no location":         {"", targetclient.ReasonFailed},
		"no url":              {"http://[::1", targetclient.ReasonFailed},
		"no host":             {"http:///path", targetclient.ReasonFailed},
		"another scheme":      {"ftp://127.0.0.1/secret", targetclient.ReasonTransport},
		"a file":              {"file:///etc/passwd", targetclient.ReasonTransport},
		"script":              {"javascript:alert(1)", targetclient.ReasonTransport},
		"a port out of range": {"http://127.0.0.1:99999/?secret", targetclient.ReasonTransport},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, status := range []int{301, 302, 303, 307, 308} {
				s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
					if tt.location != "" {
						w.Header().Set("Location", tt.location)
					}
					w.WriteHeader(status)
				})
				_, err := do(t, newClient(t, targetclient.Options{}), target(s.URL), "{}")
				wantReason(t, err, tt.reason)
				if err.StatusCode != status || strings.Contains(err.Error(), "secret") {
					t.Errorf("%d: %v", status, err)
				}
			}
		})
	}
}

func TestRelativeRedirects(t *testing.T) {
	t.Parallel()
	for location, want := range map[string]string{"b": "/dir/b", "/b": "/b", "../b?x=1": "/b", "?x=1": "/dir/a", "//HOST/b": "/b", "HTTP://HOST/b": "/b", "#f": ""} {
		t.Run(location, func(t *testing.T) {
			t.Parallel()
			var tr trail
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				tr.add(r)
				if len(tr.all()) == 1 {
					w.Header().Set("Location", strings.Replace(location, "HOST", r.Host, 1))
					w.WriteHeader(http.StatusTemporaryRedirect)
				}
			})
			if _, err := do(t, newClient(t, targetclient.Options{}), target(s.URL+"/dir/a"), "{}"); err != nil {
				t.Fatal(err)
			}
			if got := tr.all()[1].Path; want != "" && got != want {
				t.Errorf("went to %s, want %s", got, want)
			}
		})
	}
}

func TestHTTPSToHTTPIsRefusedTheOtherWayIsNot(t *testing.T) {
	t.Parallel()
	var tr trail
	plain := serve(t, func(w http.ResponseWriter, r *http.Request) {
		tr.add(r)
		if to := r.Header.Get("X-To"); to != "" {
			http.Redirect(w, r, to, http.StatusTemporaryRedirect)
		}
	})
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/down" {
			http.Redirect(w, r, plain.URL, http.StatusTemporaryRedirect)
		}
	}))
	t.Cleanup(secure.Close)
	c := newClient(t, targetclient.Options{TLSConfig: secure.Client().Transport.(*http.Transport).TLSClientConfig})

	_, err := do(t, c, target(secure.URL+"/down"), "{}")
	wantReason(t, err, targetclient.ReasonTransport)
	if len(tr.all()) != 0 {
		t.Error("the plain target was called")
	}
	up := target(plain.URL)
	up.Headers = map[string]string{"X-To": secure.URL + "/"}
	if _, err := do(t, c, up, "{}"); err != nil {
		t.Errorf("http to https: %v", err)
	}
	up.Headers = map[string]string{"X-To": secure.URL + "/down"}
	_, err = do(t, c, &targetclient.Target{ID: "other", URL: up.URL, Headers: up.Headers}, "{}")
	wantReason(t, err, targetclient.ReasonTransport)
}

func TestEveryHopPassesDenyListAndAllowedHosts(t *testing.T) {
	t.Parallel()
	var end trail
	there := serve(t, func(_ http.ResponseWriter, r *http.Request) { end.add(r) })
	elsewhere := strings.Replace(there.URL, "127.0.0.1", "localhost", 1)
	here := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, r.URL.Query().Get("to"), http.StatusTemporaryRedirect)
	})
	tests := map[string]struct {
		options targetclient.Options
		to      string
		hosts   []string
		denied  bool
	}{
		"nothing in the way":         {to: there.URL},
		"denied name":                {options: targetclient.Options{DenyList: []string{"localhost"}}, to: elsewhere, denied: true},
		"only the name is denied":    {options: targetclient.Options{DenyList: []string{"localhost"}}, to: there.URL},
		"the name is an exception":   {options: targetclient.Options{DenyList: []string{"127.0.0.2", "::1", "localhost"}, AllowList: []string{"LOCALHOST"}}, to: elsewhere},
		"allowed host":               {to: there.URL, hosts: []string{"127.0.0.1"}},
		"allowed host, both":         {to: elsewhere, hosts: []string{"127.0.0.1", "LocalHost."}},
		"not an allowed host":        {to: elsewhere, hosts: []string{"127.0.0.1"}, denied: true},
		"allowed host, written long": {to: there.URL, hosts: []string{"::ffff:127.0.0.1"}},
		"allowed with port": {to: there.URL, hosts: []string{
			strings.TrimPrefix(here.URL, "http://"), strings.TrimPrefix(there.URL, "http://"),
		}},
		"allowed with another port": {to: there.URL, hosts: []string{strings.TrimPrefix(here.URL, "http://")}, denied: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tgt := target(here.URL + "?to=" + tt.to)
			tgt.AllowedHosts = tt.hosts
			_, err := do(t, newClient(t, tt.options), tgt, "{}")
			if !tt.denied {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantReason(t, err, targetclient.ReasonDeniedAddress)
		})
	}
}
