package store_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/execgate/execgate/store"
)

var day = time.Date(2026, 7, 1, 12, 0, 0, 123, time.UTC)

func fullTarget() *store.Target {
	return &store.Target{
		ID: "301", Name: "Audit <1>", Endpoint: "https://example.com/hook?a=1&b=2", Type: store.TargetRequestResponse,
		Async: true, InterruptOnError: true, Timeout: 1500 * time.Millisecond, SigningKey: "key", PayloadType: "jwt",
		PublicKeys: []store.PublicKey{
			{ID: "k1", PEM: []byte("-----BEGIN"), Active: true, ExpiresAt: day, CreatedAt: day, ChangedAt: day},
			{ID: "k2", PEM: []byte("x"), CreatedAt: day, ChangedAt: day},
		},
		Sequence: 3, CreatedAt: day, ChangedAt: day.Add(time.Hour),
	}
}

// The format of the records is stable: data written by one version is read by the next.
func TestRecordFormat(t *testing.T) {
	t.Parallel()
	minimal := &store.Target{
		ID: "1", Name: "n", Endpoint: "http://h", Type: store.TargetWebhook, Timeout: time.Second, Sequence: 1, CreatedAt: day, ChangedAt: day,
	}
	execution := &store.Execution{
		ID: "request/pkg.Svc/M", Targets: []string{"2", "1"}, Includes: []string{"request"}, Sequence: 2, CreatedAt: day, ChangedAt: day,
	}
	empty := &store.Execution{ID: "event", Sequence: 1, CreatedAt: day, ChangedAt: day}
	tombstone := &store.Tombstone{ID: "event", Sequence: 4, DeletedAt: day}
	const at = `"2026-07-01T12:00:00.000000123Z"`
	for name, tt := range map[string]struct {
		item func() (store.Item, error)
		kind store.Kind
		id   string
		want string
	}{
		"full target": {fullTarget().Item, store.KindTarget, "301",
			`{"id":"301","name":"Audit \u003c1\u003e","endpoint":"https://example.com/hook?a=1\u0026b=2","type":"request_response",` +
				`"async":true,"interrupt_on_error":true,"timeout_ns":1500000000,"signing_key":"key","payload_type":"jwt",` +
				`"public_keys":[{"id":"k1","pem":"LS0tLS1CRUdJTg==","active":true,"expires_at":` + at + `,"created_at":` + at +
				`,"changed_at":` + at + `},{"id":"k2","pem":"eA==","created_at":` + at + `,"changed_at":` + at + `}],` +
				`"sequence":3,"created_at":` + at + `,"changed_at":"2026-07-01T13:00:00.000000123Z"}`},
		"minimal target": {minimal.Item, store.KindTarget, "1",
			`{"id":"1","name":"n","endpoint":"http://h","type":"webhook","timeout_ns":1000000000,"sequence":1,"created_at":` + at +
				`,"changed_at":` + at + `}`},
		"execution": {execution.Item, store.KindExecution, "request/pkg.Svc/M",
			`{"id":"request/pkg.Svc/M","targets":["2","1"],"includes":["request"],"sequence":2,"created_at":` + at + `,"changed_at":` + at + `}`},
		"empty execution": {empty.Item, store.KindExecution, "event",
			`{"id":"event","sequence":1,"created_at":` + at + `,"changed_at":` + at + `}`},
		"target tombstone": {tombstone.TargetItem, store.KindTargetTombstone, "event",
			`{"id":"event","sequence":4,"deleted_at":` + at + `}`},
		"execution tombstone": {tombstone.ExecutionItem, store.KindExecutionTombstone, "event",
			`{"id":"event","sequence":4,"deleted_at":` + at + `}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := tt.item()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(store.Item{Kind: tt.kind, ID: tt.id, Value: []byte(tt.want)}, got); diff != "" {
				t.Fatal(diff)
			}
		})
	}
	item, err := fullTarget().Item()
	if err != nil {
		t.Fatal(err)
	}
	back, err := store.DecodeTarget(item.Value)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(fullTarget(), back, cmpopts.IgnoreUnexported(store.Target{})); diff != "" {
		t.Fatal(diff)
	}
}

func TestRecordsKeepUnknownFields(t *testing.T) {
	t.Parallel()
	const known = `{"id":"e","sequence":1,"created_at":"2026-07-01T12:00:00Z","changed_at":"2026-07-01T12:00:00Z"`
	e, err := store.DecodeExecution([]byte(known + `,"z \"new\"":{"a":[1, 2]},"b":null}`))
	if err != nil {
		t.Fatal(err)
	}
	changed := *e
	changed.Sequence = 2
	item, err := changed.Item()
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Replace(known, `"sequence":1`, `"sequence":2`, 1) + `,"b":null,"z \"new\"":{"a":[1, 2]}}`
	if got := string(item.Value); got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
	again, err := store.DecodeExecution(item.Value)
	if err != nil {
		t.Fatal(err)
	}
	if item, err = again.Item(); err != nil || string(item.Value) != want {
		t.Fatalf("second round: got %s, %v", item.Value, err)
	}
}

func TestBrokenRecordsAreErrorsWithoutTheirText(t *testing.T) {
	t.Parallel()
	item, err := fullTarget().Item()
	if err != nil {
		t.Fatal(err)
	}
	good := string(item.Value)
	for name, value := range map[string]string{
		"not JSON":        "hunter2",
		"cut":             good[:len(good)-1],
		"trailing":        good + "hunter2",
		"array":           `["hunter2"]`,
		"null":            `null`,
		"string":          `"hunter2"`,
		"wrong type":      strings.Replace(good, `"timeout_ns":1500000000`, `"timeout_ns":"hunter2"`, 1),
		"no id":           strings.Replace(good, `"301"`, `""`, 1),
		"no endpoint":     strings.Replace(good, `"endpoint"`, `"hunter2"`, 1),
		"no timeout":      strings.Replace(good, `"timeout_ns"`, `"hunter2"`, 1),
		"unknown type":    strings.Replace(good, `request_response`, `x`, 1),
		"time not a time": strings.Replace(good, `2026-07-01T13`, `hunter2`, 1),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := store.DecodeTarget([]byte(value)); err == nil || strings.Contains(err.Error(), "hunter2") {
				t.Fatalf("got error %v", err)
			}
		})
	}
}

func FuzzDecodeTarget(f *testing.F) {
	item, err := fullTarget().Item()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(item.Value))
	f.Add(`{"id":"1","name":"n","endpoint":"h","type":"webhook","timeout_ns":1,"x":{"y":[]},"ID":"2","":1}`)
	// What decodes can be encoded, and means the same then.
	f.Fuzz(func(t *testing.T, value string) {
		first, err := store.DecodeTarget([]byte(value))
		if err != nil {
			return
		}
		one, err := first.Item()
		if err != nil {
			return // a time out of range: the only thing that decodes and does not encode
		}
		second, err := store.DecodeTarget(one.Value)
		if err != nil {
			t.Fatalf("%s: %v", one.Value, err)
		}
		two, err := second.Item()
		if err != nil || string(one.Value) != string(two.Value) {
			t.Fatalf("%s became %s (%v)", one.Value, two.Value, err)
		}
	})
}
