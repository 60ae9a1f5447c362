package hooks_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/execgate/execgate/conditions"
	"github.com/execgate/execgate/dispatcher"
	"github.com/execgate/execgate/events"
	"github.com/execgate/execgate/internal/hooks"
	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/queue"
	"github.com/execgate/execgate/targetclient"
)

// kept is a queue that keeps what it takes, until it is full.
type kept struct {
	fault      error
	deliveries []queue.Delivery
}

func (k *kept) Enqueue(_ context.Context, d queue.Delivery) error {
	if k.fault != nil {
		return k.fault
	}
	k.deliveries = append(k.deliveries, d)
	return nil
}

// snapshot has one execution for all events, with two targets.
func snapshot(t *testing.T) *dispatcher.Snapshot {
	t.Helper()
	all, err := conditions.Parse("event")
	if err != nil {
		t.Fatal(err)
	}
	s, _ := dispatcher.NewSnapshot(1, []conditions.Execution{{Condition: all, Targets: []string{"a", "b"}}},
		[]*targetclient.Target{{ID: "a"}, {ID: "b"}}, dispatcher.SnapshotOptions{})
	return s
}

// serve starts a hooks listener and returns what sends to it.
func serve(t *testing.T, o hooks.Options, q *kept) func(path, body string, headers ...string) (int, string) {
	t.Helper()
	o.Logger = testkit.Logger(t)
	o.Sink = events.NewSink(events.SinkOptions{Snapshot: o.Snapshot, Queue: q})
	server := httptest.NewServer(hooks.New(o))
	t.Cleanup(server.Close)
	return func(path, body string, headers ...string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		res, err := server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(text)
	}
}

func TestWhoMaySend(t *testing.T) {
	t.Parallel()
	const body = `{"event_type":"a"}`
	signature := func(key, body string, at time.Time) []string {
		return []string{targetclient.SignatureHeaderName, targetclient.SignatureHeader([]string{key}, at, []byte(body))}
	}
	now := time.Now()
	keys, tokens := []string{"old", "new"}, []string{"t1", "t2"}
	for _, tc := range []struct {
		name         string
		keys, tokens []string
		headers      []string
		want         int
	}{
		{"nobody is asked", nil, nil, nil, 202},
		{"the first key", keys, nil, signature("old", body, now), 202},
		{"the second key", keys, nil, signature("new", body, now), 202},
		{"another key", keys, nil, signature("other", body, now), 401},
		{"another body", keys, nil, signature("new", body+" ", now), 401},
		{"four minutes old", keys, nil, signature("new", body, now.Add(-4*time.Minute)), 202},
		{"six minutes old", keys, nil, signature("new", body, now.Add(-6*time.Minute)), 401},
		{"no signature", keys, nil, nil, 401},
		{"a header that is none", keys, nil, []string{targetclient.SignatureHeaderName, "x"}, 401},
		{"a token where only keys are known", keys, nil, []string{"Authorization", "Bearer new"}, 401},
		{"a token", nil, tokens, []string{"Authorization", "Bearer t2"}, 202},
		{"the scheme in lower case", nil, tokens, []string{"Authorization", "bearer t1"}, 202},
		{"another token", nil, tokens, []string{"Authorization", "Bearer t3"}, 401},
		{"another scheme", nil, tokens, []string{"Authorization", "Basic t1"}, 401},
		{"no token", nil, tokens, []string{"Authorization", "Bearer"}, 401},
		{"a signature where only tokens are known", nil, tokens, signature("t1", body, now), 401},
		{"both are known, a token comes", keys, tokens, []string{"Authorization", "Bearer t1"}, 202},
		{"both are known, a signature comes", keys, tokens, signature("new", body, now), 202},
		{"both are known, none comes", keys, tokens, nil, 401},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			q, s := &kept{}, snapshot(t)
			post := serve(t, hooks.Options{Snapshot: func() *dispatcher.Snapshot { return s }, SigningKeys: tc.keys, Tokens: tc.tokens}, q)
			status, answer := post("/events", body, tc.headers...)
			if status != tc.want || len(q.deliveries) != map[int]int{202: 1}[tc.want] {
				t.Errorf("%d %s, %d queued", status, answer, len(q.deliveries))
			}
		})
	}
}

func TestAnEventIsOneDeliveryForAllItsTargets(t *testing.T) {
	t.Parallel()
	q, s := &kept{}, snapshot(t)
	post := serve(t, hooks.Options{Snapshot: func() *dispatcher.Snapshot { return s }, InstanceID: "here"}, q)
	if status, answer := post("/events", `{"event_type":"a.b","aggregateID":"1","sequence":2,"userID":"u"}`); status != http.StatusAccepted {
		t.Fatalf("%d %s", status, answer)
	}
	d := q.deliveries[0]
	if d.Execution != "event" || d.Kind != queue.KindEvent || d.ID == "" || d.AggregateID != "1" || d.UserID != "u" ||
		d.Target.ID != "a" || len(d.Then) != 1 || d.Then[0].ID != "b" {
		t.Errorf("%+v", d)
	}

	for fault, want := range map[error]int{
		queue.ErrFull: 503, queue.ErrTargetFull: 503, queue.ErrUnavailable: 503, queue.ErrSpoolFull: 503, queue.ErrStopped: 503,
		queue.ErrBlocked: 503, queue.ErrTooLarge: 413,
	} {
		q.fault = fault
		status, answer := post("/events", `{"event_type":"a"}`)
		if status != want || strings.Contains(answer, "queue: ") {
			t.Errorf("%v: %d %s", fault, status, answer)
		}
	}
}

func TestWhatCannotBeReadIsRefused(t *testing.T) {
	t.Parallel()
	q, s := &kept{}, snapshot(t)
	post := serve(t, hooks.Options{Snapshot: func() *dispatcher.Snapshot { return s }, MaxBodyBytes: 200}, q)
	const event, cloudEvent = `{"event_type":"a"}`, `{"specversion":"1.0","id":"1","source":"/crm","type":"t"}`
	for _, tc := range []struct {
		name, body string
		headers    []string
		want       int
	}{
		{"JSON", event, []string{"Content-Type", "application/json"}, 202},
		{"JSON with a charset", event, []string{"Content-Type", "Application/JSON; charset=utf-8"}, 202},
		{"JSON of another name", event, []string{"Content-Type", "application/vnd.acme+json"}, 202},
		{"no content type", event, nil, 202},
		{"a form, which any web page could send", event, []string{"Content-Type", "application/x-www-form-urlencoded"}, 415},
		{"text, likewise", event, []string{"Content-Type", "text/plain"}, 415},
		{"XML", `<a/>`, []string{"Content-Type", "application/xml"}, 415},
		{"a content type that is none", event, []string{"Content-Type", "a/b/c;"}, 415},
		{"a CloudEvent in XML", `<a/>`, []string{"Content-Type", "application/cloudevents+xml"}, 415},
		{"a batch in protobuf", `x`, []string{"Content-Type", "application/cloudevents-batch+protobuf"}, 415},
		{"compressed", event, []string{"Content-Type", "application/json", "Content-Encoding", "gzip"}, 415},
		{"a binary CloudEvent of any type", `<a/>`, []string{"Content-Type", "application/xml", "Ce-Specversion", "1.0", "Ce-Id", "1", "Ce-Source", "/a", "Ce-Type", "t"}, 202},
		{"a structured CloudEvent", cloudEvent, []string{"Content-Type", "application/cloudevents+json"}, 202},
		{"an empty batch", `[]`, []string{"Content-Type", "application/cloudevents-batch+json"}, 202},
		{"not JSON", `event`, nil, 400},
		{"no event type", `{}`, nil, 400},
		{"an empty body", ``, nil, 400},
		{"two events", event + event, nil, 400},
		{"a CloudEvent that is not whole", cloudEvent[:20], []string{"Content-Type", "application/cloudevents+json"}, 400},
		{"too large", `{"event_type":"` + strings.Repeat("a", 200) + `"}`, nil, 413},
	} {
		q.deliveries = nil
		status, answer := post("/events", tc.body, tc.headers...)
		if status != tc.want || status != 202 && len(q.deliveries) > 0 {
			t.Errorf("%s: %d %s, %d queued", tc.name, status, answer, len(q.deliveries))
		}
		if status != 202 && (!strings.HasPrefix(answer, `{"message":"`) || strings.Contains(answer, "specversion")) {
			t.Errorf("%s: %s", tc.name, answer)
		}
	}
}

// broken is a dispatcher whose runs come to no end.
type broken struct{}

func (broken) Dispatch(context.Context, *dispatcher.Invocation) (dispatcher.Outcome, error) {
	return dispatcher.Outcome{}, errors.New("the caller is gone")
}

func TestWithoutConfigurationNothingIsPromised(t *testing.T) {
	t.Parallel()
	post := serve(t, hooks.Options{Snapshot: func() *dispatcher.Snapshot { return nil }, Dispatcher: broken{}}, &kept{})
	for _, path := range []string{"/events", "/functions/preuserinfo"} {
		if status, answer := post(path, `{"event_type":"a"}`); status != http.StatusServiceUnavailable {
			t.Errorf("%s: %d %s", path, status, answer)
		}
	}
	for path, want := range map[string]int{"/functions/other": 404, "/functions/": 404, "/other": 404, "/events/": 404} {
		if status, _ := post(path, `{}`); status != want {
			t.Errorf("%s: %d", path, status)
		}
	}
}
