package targetclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// seen is a request as a server sees it.
type seen struct {
	method, uri, host, body string
	header                  string
	length                  int64
}

// Servers see the same of our own client and of net/http.
func TestBothClientsSendTheSame(t *testing.T) {
	t.Parallel()
	standard, err := NewStandardWebhooks(true, false, []string{"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"})
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		url    string
		target Target
		call   Call
		fails  bool
	}{
		"a bare url":             {url: "http://a.example"},
		"a path":                 {url: "http://a.example/a/b?c=d&e#f"},
		"a port":                 {url: "http://a.example:8080/"},
		"the default port":       {url: "http://a.example:80/"},
		"capitals":               {url: "http://A.Example/"},
		"blanks and escapes":     {url: "http://a.example/a%20b%2Fc?q=a+b%20c"},
		"not escaped":            {url: "http://a.example/ä?ö=ü"},
		"user info":              {url: "http://us%20er:p%40ss@a.example/"},
		"a user alone":           {url: "http://user@a.example/"},
		"an international host":  {url: "http://bücher.example:8080/"},
		"an address":             {url: "http://192.0.2.1:8080/"},
		"an IPv6 address":        {url: "http://[2001:db8::1]:8080/"},
		"an address with a zone": {url: "http://[fe80::1%25eth0]:8080/"},
		"a host with odd bytes":  {url: "http://a,b!.example/"},
		"no path, but a query":   {url: "http://a.example?x=y"},
		"a body":                 {url: "http://a.example", call: Call{Body: []byte(`{"a":"ä"}`)}},
		"a long body":            {url: "http://a.example", call: Call{Body: bytes.Repeat([]byte("x"), 1<<20)}},
		"fixed headers":          {url: "http://a.example", target: Target{Headers: map[string]string{"X-A": "1", "x-b": " 2 ", "User-Agent": "other", "authorization": "Bearer x"}}},
		"no user agent":          {url: "http://a.example", target: Target{Headers: map[string]string{"User-Agent": ""}}},
		"headers of the call": {
			url: "http://a.example", target: Target{Headers: map[string]string{"X-A": "1"}},
			call: Call{Header: http.Header{"X-A": {"2", "3"}, "x-c": {""}, "Content-Length": {"1"}}},
		},
		"signatures":              {url: "http://a.example", target: Target{SigningKeys: []string{"a", "b"}}, call: Call{Body: []byte("{}")}},
		"a delivery":              {url: "http://a.example", call: Call{ID: "id", Attempt: 3}},
		"a signed delivery":       {url: "http://a.example", target: Target{StandardWebhooks: standard}, call: Call{ID: "id", Body: []byte("{}")}},
		"a delivery, fixed names": {url: "http://a.example", target: Target{Headers: map[string]string{"Webhook-Id": "fixed", "Execgate-Attempt": "x"}}, call: Call{ID: "id"}},
		"fixed names alone":       {url: "http://a.example", target: Target{Headers: map[string]string{"Webhook-Id": "fixed"}}},
		"a bad fixed header":      {url: "http://a.example", target: Target{Headers: map[string]string{"X": "a\r\nY: secret"}}, fails: true},
		"a bad name":              {url: "http://a.example", target: Target{Headers: map[string]string{"X Y": "secret"}}, fails: true},
		"a bad header":            {url: "http://a.example", call: Call{Header: http.Header{"X": {"secret\n"}}}, fails: true},
		"a bad id":                {url: "http://a.example", call: Call{ID: "secret\r\nX: y"}, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []seen
			s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				for _, unlike := range []string{"Zitadel-Signature", "Webhook-Signature", "Webhook-Timestamp"} { // of two moments
					if v := r.Header.Get(unlike); v != "" {
						r.Header.Set(unlike, fmt.Sprint(len(v)))
					}
				}
				got = append(got, seen{r.Method, r.RequestURI, r.Host, string(body), fmt.Sprint(r.Header), r.ContentLength})
			}))
			defer s.Close()
			var dialled []string
			for _, allHTTP := range []bool{true, false} {
				c := newOwn(t)
				c.use(func(ctx context.Context, network, addr string) (net.Conn, error) {
					dialled = append(dialled, addr)
					return new(net.Dialer).DialContext(ctx, network, s.Listener.Addr().String())
				}, nil)
				c.transport.allHTTP = allHTTP
				target := tc.target
				target.ID, target.URL = "a", tc.url
				call := tc.call
				call.Target = &target
				_, err := c.Do(t.Context(), call)
				if (err != nil) != tc.fails || err != nil && strings.Contains(err.Error(), "secret") {
					t.Errorf("over net/http %t: %v", allHTTP, err)
				}
				c.Close()
			}
			if tc.fails {
				if len(got) != 0 {
					t.Errorf("a request came: %+v", got)
				}
				return
			}
			if len(got) != 2 || got[0] != got[1] {
				t.Errorf("net/http, then our own:\n%.500v\n%.500v", got[0], got[1])
			}
			if dialled[0] != dialled[1] {
				t.Errorf("dialled %q and %q", dialled[0], dialled[1])
			}
		})
	}
}

// Calls that are given up at any moment never leave a connection to others on
// which their answer is still to come.
func TestNobodyGetsAnothersAnswer(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Header.Get("X-Slow") != "" {
			select {
			case <-time.After(time.Duration(rand.IntN(2000)) * time.Microsecond):
			case <-r.Context().Done():
			}
		}
		_, _ = w.Write(body)
	}))
	t.Cleanup(s.Close)
	c := newOwn(t)
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range 150 {
				ctx, cancel := context.WithCancel(t.Context())
				call := Call{Target: &Target{ID: "a", URL: s.URL}, Body: []byte(fmt.Sprint(worker, " ", i, strings.Repeat("x", rand.IntN(3)*3000)))}
				if i%2 == 0 {
					call.Header = http.Header{"X-Slow": {"1"}}
					time.AfterFunc(time.Duration(rand.IntN(2000))*time.Microsecond, cancel)
				}
				res, err := c.Do(ctx, call)
				var e *Error
				switch {
				case err == nil && !bytes.Equal(res.Body, call.Body):
					t.Errorf("got %.40q for %.40q", res.Body, call.Body)
				case err != nil && (!errors.As(err, &e) || e.Reason != ReasonCancelled):
					t.Errorf("%v", err)
				}
				cancel()
			}
		})
	}
	wg.Wait()
}
