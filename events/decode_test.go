package events_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/execgate/execgate/events"
)

func TestDecode(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		headers string // "Name: value" lines
		body    string
		want    string // envelopes, one per line; "": refused
	}{
		{"ZITADEL", "Content-Type: application/json",
			`{"aggregateID":"1","aggregateType":"user","resourceOwner":"2","instanceID":"3","version":"v2","sequence":7,"event_type":"user.human.added",` +
				`"created_at":"2026-01-02T03:04:05.678901Z","userID":"4","event_payload":{"gender":1,"big":12345678901234567890},"new":true}`,
			`{"aggregateID":"1","aggregateType":"user","resourceOwner":"2","instanceID":"3","version":"v2","sequence":7,"event_type":"user.human.added",` +
				`"created_at":"2026-01-02T03:04:05.678901Z","userID":"4","event_payload":{"gender":1,"big":12345678901234567890}}`},
		{"ZITADEL without a content type, little in it", "", `{"event_type":"a","event_payload":null}`, `{"instanceID":"here","event_type":"a"}`},
		{"ZITADEL without a type", "", `{"aggregateID":"1"}`, ``},
		{"no JSON", "", `hello`, ``},
		{"a list", "", `[]`, ``},
		{"a sequence that is no number", "", `{"event_type":"a","sequence":"7"}`, ``},
		{"structured", "Content-Type: application/cloudevents+json; charset=utf-8",
			`{"specversion":"1.0","id":"1","source":"/crm","type":"crm.added","subject":"9","time":"2026-01-02T03:04:05.6+01:00","aggregatetype":"crm","data":{"a":"<b>"}}`,
			`{"aggregateID":"9","aggregateType":"crm","instanceID":"here","event_type":"crm.added","created_at":"2026-01-02T03:04:05.6+01:00","event_payload":{"a":"\u003cb\u003e"}}`},
		{"structured, source for the aggregate type, text", "Content-Type: application/cloudevents+json",
			`{"specversion":"1.0","id":"1","source":"/crm","type":"t","datacontenttype":"text/plain","data":"x"}`,
			`{"aggregateType":"/crm","instanceID":"here","event_type":"t","event_payload":"x"}`},
		{"structured, binary data", "Content-Type: application/cloudevents+json",
			`{"specversion":"1.0","id":"1","source":"/crm","type":"t","datacontenttype":"image/png","data_base64":"/+8="}`,
			`{"aggregateType":"/crm","instanceID":"here","event_type":"t","event_payload":"/+8="}`},
		{"structured, binary data of no content type", "Content-Type: application/cloudevents+json",
			`{"specversion":"1.0","id":"1","source":"/crm","type":"t","data_base64":"/+8="}`,
			`{"aggregateType":"/crm","instanceID":"here","event_type":"t","event_payload":"/+8="}`},
		{"structured, JSON in base64", "Content-Type: application/cloudevents+json",
			`{"specversion":"1.0","id":"1","source":"/crm","type":"t","data_base64":"eyJhIjoxfQ=="}`,
			`{"aggregateType":"/crm","instanceID":"here","event_type":"t","event_payload":{"a":1}}`},
		{"structured, no data", "Content-Type: application/cloudevents+json",
			`{"specversion":"1.0","id":"1","source":"/crm","type":"t"}`, `{"aggregateType":"/crm","instanceID":"here","event_type":"t"}`},
		{"structured without an id", "Content-Type: application/cloudevents+json", `{"specversion":"1.0","source":"/crm","type":"t"}`, ``},
		{"structured without a type", "Content-Type: application/cloudevents+json", `{"specversion":"1.0","id":"1","source":"/crm"}`, ``},
		{"an older version", "Content-Type: application/cloudevents+json", `{"specversion":"0.3","id":"1","source":"/crm","type":"t"}`, ``},
		{"structured, cut off", "Content-Type: application/cloudevents+json", `{"specversion":"1.0"`, ``},
		{"binary", "Content-Type: application/json\nCe-Specversion: 1.0\nCe-Id: 1\nCe-Source: /crm\nCe-Type: t\nCe-Subject: 9\nCe-Time: 2026-01-02T03:04:05Z\nCe-Aggregatetype: crm",
			`{"a": 1}`,
			`{"aggregateID":"9","aggregateType":"crm","instanceID":"here","event_type":"t","created_at":"2026-01-02T03:04:05Z","event_payload":{"a":1}}`},
		{"binary, encoded attributes", "Content-Type: application/json\nCe-Specversion: 1.0\nCe-Id: 1\nCe-Source: /crm\nCe-Type: t\nCe-Subject: s%20%C3%A9%\nCe-Aggregatetype: \"a%20\\\"b\"",
			``, `{"aggregateID":"s%20%C3%A9%","aggregateType":"a \"b","instanceID":"here","event_type":"t"}`},
		{"binary, an encoded subject", "Content-Type: application/json\nCe-Specversion: 1.0\nCe-Id: 1\nCe-Source: /crm\nCe-Type: t\nCe-Subject: s%20%C3%A9",
			``, `{"aggregateID":"s é","aggregateType":"/crm","instanceID":"here","event_type":"t"}`},
		{"binary, data that is not the JSON it says", "Content-Type: application/json\nCe-Specversion: 1.0\nCe-Id: 1\nCe-Source: /crm\nCe-Type: t", `{`, ``},
		{"binary without a source", "Content-Type: application/json\nCe-Specversion: 1.0\nCe-Id: 1\nCe-Type: t", `{}`, ``},
		{"a batch", "Content-Type: application/cloudevents-batch+json",
			`[{"specversion":"1.0","id":"1","source":"/a","type":"t"},{"specversion":"1.0","id":"2","source":"/b","type":"u","data":7}]`,
			`{"aggregateType":"/a","instanceID":"here","event_type":"t"}` + "\n" + `{"aggregateType":"/b","instanceID":"here","event_type":"u","event_payload":7}`},
		{"a batch of which one is broken", "Content-Type: application/cloudevents-batch+json",
			`[{"specversion":"1.0","id":"1","source":"/a","type":"t"},{"specversion":"1.0","id":"2","source":"/b"}]`, ``},
		{"a batch that is none", "Content-Type: application/cloudevents-batch+json", `{}`, ``},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			header := http.Header{}
			for line := range strings.Lines(tc.headers) {
				name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
				header.Set(name, value)
			}
			list, err := events.Decode(header, []byte(tc.body), "here")
			if tc.want == "" {
				if events.AsFormatError(err) == nil {
					t.Fatalf("got %v, %v", list, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for i := range list {
				text, err := list[i].Envelope()
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, string(text))
			}
			if got := strings.Join(got, "\n"); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestDeliveryID(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	zitadel := events.Event{InstanceID: "i", AggregateType: "user", AggregateID: "1", Sequence: 7, Type: "a", CreatedAt: "2026-01-02T11:59:59.123456Z"}
	cloud := events.Event{Source: "/crm", ID: "1", Type: "a"}
	old := zitadel
	old.CreatedAt = "2020-01-01T00:00:00Z"
	for name, e := range map[string]events.Event{"of ZITADEL": zitadel, "of others": cloud, "of long ago": old} {
		id := e.DeliveryID(now)
		if id == "" || id != e.DeliveryID(now.Add(time.Hour)) {
			t.Errorf("an event %s: %q, later %q", name, id, e.DeliveryID(now.Add(time.Hour)))
		}
		other := e
		other.Sequence, other.ID = 8, map[bool]string{true: "2"}[e.ID != ""]
		if other.DeliveryID(now) == id {
			t.Errorf("an event %s has the id of another", name)
		}
	}
	if id := (&events.Event{Type: "a"}).DeliveryID(now); id != "" {
		t.Errorf("nothing tells it from others, but it has the id %q", id)
	}
}
