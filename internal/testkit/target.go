package testkit

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/execgate/execgate/targetclient"
)

// TargetOptions of a Target. The zero value is a plain HTTP endpoint.
type TargetOptions struct {
	// SigningKey is the key by which signatures are checked; see
	// TargetRequest.SignatureErr. Empty: they are not.
	SigningKey string
	// Certificates turn the endpoint into HTTPS.
	Certificates *Certificates
}

// Answer is what a Target does with one request. The zero value is an empty 200.
type Answer struct {
	// Status is 200 when 0, or 302 when Redirect is set.
	Status int
	Body   string
	Header http.Header
	// Redirect is sent as Location.
	Redirect string
	// Delay passes before anything is sent, unless the caller goes first.
	Delay time.Duration
	// Hang sends nothing until Release is called or the caller goes.
	Hang bool
	// Cut closes the connection without an answer. With a body, the header and
	// the body are sent before, under a length that promises more.
	Cut bool
}

// TargetRequest is what a Target was sent.
type TargetRequest struct {
	Method, Path string
	Header       http.Header
	Body         []byte
	At           time.Time
	// SignatureErr is nil when TargetOptions.SigningKey is set and the signature
	// is right, and targetclient's error when it is wrong or missing. Without a
	// key it is nil.
	SignatureErr error
}

// JSON returns the body as an object, and nil when it is none.
func (r TargetRequest) JSON() map[string]any {
	var object map[string]any
	if json.Unmarshal(r.Body, &object) != nil {
		return nil
	}
	return object
}

// Target is a scripted HTTP endpoint that records what it is sent. Safe for
// concurrent use.
type Target struct {
	// URL is where it listens, without a path.
	URL string

	tb     testing.TB
	key    string
	server *httptest.Server

	mu       sync.Mutex // guards what follows
	changed  *sync.Cond // signalled whenever requests or left grow
	scripts  map[string][]Answer
	decide   func(TargetRequest) Answer
	requests []TargetRequest
	left     int
	release  chan struct{}
}

// NewTarget starts a target on a free loopback port. It answers every request
// with an empty 200 until it is told otherwise.
func NewTarget(tb testing.TB, o TargetOptions) *Target {
	tb.Helper()
	target := &Target{tb: tb, key: o.SigningKey, scripts: map[string][]Answer{}, release: make(chan struct{})}
	target.changed = sync.NewCond(&target.mu)
	target.server = httptest.NewUnstartedServer(http.HandlerFunc(target.serve))
	if o.Certificates != nil {
		target.server.TLS = o.Certificates.Server.Clone()
		target.server.StartTLS()
	} else {
		target.server.Start()
	}
	target.URL = target.server.URL
	tb.Cleanup(func() {
		target.Release()
		target.server.CloseClientConnections()
		target.server.Close()
	})
	return target
}

// Answer scripts every path that has no script of its own: the answers are
// given in turn, the last one for ever.
func (t *Target) Answer(answers ...Answer) { t.AnswerPath("", answers...) }

// AnswerPath scripts one path, as Answer does.
func (t *Target) AnswerPath(path string, answers ...Answer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.scripts[path] = answers
}

// AnswerWith lets a function decide, ahead of every script. Nil gives the
// decision back to the scripts.
func (t *Target) AnswerWith(decide func(TargetRequest) Answer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.decide = decide
}

// Release lets everything go on that hangs now. Later requests hang again.
func (t *Target) Release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	close(t.release)
	t.release = make(chan struct{})
}

// Close stops listening and cuts what is open, as an endpoint that is down.
func (t *Target) Close() {
	t.Release()
	t.server.CloseClientConnections()
	t.server.Close()
}

// Requests returns what was received so far, in order of arrival.
func (t *Target) Requests() []TargetRequest {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]TargetRequest(nil), t.requests...)
}

// Forget drops what was received so far.
func (t *Target) Forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.requests, t.left = nil, 0
}

// Wait returns the requests as soon as there are n. When they do not come in
// time, the test fails.
func (t *Target) Wait(n int, timeout time.Duration) []TargetRequest {
	t.tb.Helper()
	if !t.wait(timeout, func() bool { return len(t.requests) >= n }) {
		t.tb.Fatalf("target got %d requests within %v, want %d", len(t.Requests()), timeout, n)
	}
	return t.Requests()
}

// WaitLeft waits until n callers went away while their request was delayed or
// hung. When they do not in time, the test fails.
func (t *Target) WaitLeft(n int, timeout time.Duration) {
	t.tb.Helper()
	if !t.wait(timeout, func() bool { return t.left >= n }) {
		t.tb.Fatalf("not %d callers of the target went away within %v", n, timeout)
	}
}

func (t *Target) wait(timeout time.Duration, done func() bool) bool {
	over := false
	timer := time.AfterFunc(timeout, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		over = true
		t.changed.Broadcast()
	})
	defer timer.Stop()
	t.mu.Lock()
	defer t.mu.Unlock()
	for !done() {
		if over {
			return false
		}
		t.changed.Wait()
	}
	return true
}

func (t *Target) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	req := TargetRequest{Method: r.Method, Path: r.URL.Path, Header: r.Header.Clone(), Body: body, At: time.Now()}
	if t.key != "" {
		header := r.Header.Get(targetclient.SignatureHeaderName)
		req.SignatureErr = targetclient.Verify(header, t.key, body, time.Now(), targetclient.DefaultTolerance)
	}
	answer, release := t.received(req)
	if !t.hold(r, answer, release) {
		return
	}
	t.send(w, answer)
}

// received records a request and returns what to do with it.
func (t *Target) received(req TargetRequest) (Answer, <-chan struct{}) {
	t.mu.Lock()
	t.requests = append(t.requests, req)
	t.changed.Broadcast()
	decide, release := t.decide, t.release
	if decide != nil {
		t.mu.Unlock()
		return decide(req), release
	}
	defer t.mu.Unlock()
	path := req.Path
	if _, ok := t.scripts[path]; !ok {
		path = ""
	}
	script := t.scripts[path]
	switch len(script) {
	case 0:
		return Answer{}, release
	case 1:
		return script[0], release
	}
	t.scripts[path] = script[1:]
	return script[0], release
}

// hold waits as the answer wants, and says false when the caller went away.
func (t *Target) hold(r *http.Request, a Answer, release <-chan struct{}) bool {
	var delay <-chan time.Time
	switch {
	case a.Hang:
	case a.Delay > 0:
		timer := time.NewTimer(a.Delay)
		defer timer.Stop()
		delay, release = timer.C, nil
	default:
		return true
	}
	select {
	case <-delay:
	case <-release:
	case <-r.Context().Done():
		t.mu.Lock()
		defer t.mu.Unlock()
		t.left++
		t.changed.Broadcast()
		return false
	}
	return true
}

func (t *Target) send(w http.ResponseWriter, a Answer) {
	for k, values := range a.Header {
		w.Header()[k] = values
	}
	status := a.Status
	if status == 0 {
		status = http.StatusOK
		if a.Redirect != "" {
			status = http.StatusFound
		}
	}
	if a.Redirect != "" {
		w.Header().Set("Location", a.Redirect)
	}
	if a.Cut {
		cut(w, status, a.Body)
		return
	}
	w.WriteHeader(status)
	_, _ = io.Copy(w, bytes.NewReader([]byte(a.Body)))
}

func cut(w http.ResponseWriter, status int, body string) {
	if body != "" {
		w.Header().Set("Content-Length", "1000000000")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
		_ = http.NewResponseController(w).Flush()
	}
	panic(http.ErrAbortHandler)
}
