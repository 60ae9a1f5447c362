package echotarget_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/execgate/execgate/internal/echotarget"
	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/targetclient"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const (
	inRequest  = `{"fullMethod":"/x.Y/Z","request":{"a":"1","n":18446744073709551615,"deep":{"x":1,"y":2}}}`
	inResponse = `{"fullMethod":"/x.Y/Z","request":{"a":"1"},"response":{"b":"2"}}`
	aFunction  = `{"function":"function/preuserinfo","userinfo":{"sub":"1"}}`
	anEvent    = `{"event_type":"user.human.added","aggregateID":"1"}`
)

// syncBuffer is a buffer that a server and a test may use at once.
type syncBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

// Write appends.
func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

// String returns everything so far.
func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func send(t *testing.T, url, body string, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(all)
}

func TestModes(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		o      echotarget.Options
		in     string
		status int
		want   string
	}{
		"the default accepts":        {echotarget.Options{}, inRequest, 200, ""},
		"echo of a request":          {echotarget.Options{Mode: echotarget.Echo}, inRequest, 200, `{"a":"1","n":18446744073709551615,"deep":{"x":1,"y":2}}`},
		"echo of a response":         {echotarget.Options{Mode: echotarget.Echo}, inResponse, 200, `{"b":"2"}`},
		"echo of an event":           {echotarget.Options{Mode: echotarget.Echo}, anEvent, 200, ""},
		"merge keeps what it leaves": {echotarget.Options{Mode: echotarget.Merge, Merge: `{"a":null,"c":[1],"deep":{"y":3}}`}, inRequest, 200, `{"c":[1],"deep":{"x":1,"y":3},"n":18446744073709551615}`},
		"echo of a function":         {echotarget.Options{Mode: echotarget.Echo}, aFunction, 200, `{}`},
		"merge into a function":      {echotarget.Options{Mode: echotarget.Merge, Merge: `{"append_log_claims":["a"]}`}, aFunction, 200, `{"append_log_claims":["a"]}`},
		"merge into an event":        {echotarget.Options{Mode: echotarget.Merge, Merge: `{"a":1}`}, anEvent, 200, ""},
		"veto":                       {echotarget.Options{Mode: echotarget.Veto}, inRequest, 200, `{"forwardedErrorMessage":"refused by echo-target","forwardedStatusCode":403}`},
		"veto in other words":        {echotarget.Options{Mode: echotarget.Veto, Status: 409, Message: "taken"}, inRequest, 200, `{"forwardedErrorMessage":"taken","forwardedStatusCode":409}`},
		"fail":                       {echotarget.Options{Mode: echotarget.Fail}, inRequest, 500, ""},
		"fail otherwise":             {echotarget.Options{Mode: echotarget.Fail, Status: 429}, inRequest, 429, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, err := echotarget.NewHandler(test.o, io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			srv := httptest.NewServer(h)
			t.Cleanup(srv.Close)
			if status, body := send(t, srv.URL, test.in); status != test.status || body != test.want {
				t.Errorf("%d %s, want %d %s", status, body, test.status, test.want)
			}
		})
	}
}

func TestOptionsThatMakeNoSense(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]echotarget.Options{
		"unknown mode":          {Mode: "dance"},
		"merge without a patch": {Mode: echotarget.Merge},
		"a patch without merge": {Merge: "{}"},
		"a patch, no object":    {Mode: echotarget.Merge, Merge: "[]"},
		"a patch, null":         {Mode: echotarget.Merge, Merge: "null"},
		"a status without use":  {Mode: echotarget.Echo, Status: 403},
		"a message without use": {Message: "no"},
		"a status that is none": {Mode: echotarget.Fail, Status: 99},
		"a delay into the past": {Delay: -time.Second},
	} {
		if err := o.Validate(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for _, m := range echotarget.Modes() {
		o := echotarget.Options{Mode: m}
		if m == echotarget.Merge {
			o.Merge = "{}"
		}
		if err := o.Validate(); err != nil {
			t.Errorf("%s: %v", m, err)
		}
	}
}

func TestSignatureIsChecked(t *testing.T) {
	t.Parallel()
	var got []echotarget.Request
	var mu sync.Mutex
	h, err := echotarget.NewHandler(echotarget.Options{SigningKey: "secret", OnRequest: func(r echotarget.Request) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, r)
	}}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	header := targetclient.SignatureHeader([]string{"secret"}, time.Now(), []byte(inRequest))
	if status, _ := send(t, srv.URL, inRequest, targetclient.SignatureHeaderName, header); status != 200 {
		t.Errorf("right signature: %d", status)
	}
	if status, _ := send(t, srv.URL, inResponse, targetclient.SignatureHeaderName, header); status != 401 {
		t.Errorf("signature of another body: %d", status)
	}
	if status, _ := send(t, srv.URL, inRequest); status != 401 {
		t.Errorf("no signature: %d", status)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(got) != 3 || got[0].Signature != echotarget.Valid || got[1].Signature == echotarget.Valid {
		t.Errorf("requests are %+v", got)
	}
}

func TestRun(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	addr := testkit.FreeAddr(t)
	out := &syncBuffer{}
	ended := make(chan error, 1)
	go func() {
		ended <- echotarget.Run(ctx, echotarget.Options{Listen: addr, Mode: echotarget.Echo}, out)
	}()
	var status int
	for deadline := time.Now().Add(10 * time.Second); ; {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+"/hook", strings.NewReader(inRequest))
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = resp.Body.Close()
			status = resp.StatusCode
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	if status != 200 {
		t.Errorf("status is %d", status)
	}
	resp, err := http.Get("http://" + addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET gives %d", resp.StatusCode)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	http.DefaultClient.CloseIdleConnections()
	for _, want := range []string{"listening on http://" + addr, "#1 POST /hook  /x.Y/Z", `"deep": {`, "-> 200 {"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("output lacks %q:\n%s", want, out)
		}
	}
	if err := echotarget.Run(t.Context(), echotarget.Options{Listen: "nonsense"}, io.Discard); err == nil {
		t.Error("listened on nonsense")
	}
}

func TestDelayEndsWhenTheCallerGoes(t *testing.T) {
	t.Parallel()
	out := &syncBuffer{}
	h, err := echotarget.NewHandler(echotarget.Options{Delay: time.Hour}, out)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(h)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, srv.URL, strings.NewReader(inRequest))
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := http.DefaultClient.Do(req); err == nil {
		_ = resp.Body.Close()
		t.Error("answered after an hour")
	}
	srv.Close() // waits for the handler
	if !strings.Contains(out.String(), "went away") {
		t.Errorf("output is %s", out)
	}
}
