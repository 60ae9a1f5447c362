package dispatcher

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"testing"

	"github.com/execgate/execgate/conditions"
)

// fixed is a Message that never changes.
type fixed string

func (m fixed) JSON() ([]byte, error) { return []byte(m), nil }
func (m fixed) Replace([]byte) error  { panic("not replaced here") }

var (
	requestPlan  = &Plan{Phase: conditions.Request}
	responsePlan = &Plan{Phase: conditions.Response}
)

func TestEnvelope(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		inv  Invocation
		want string
	}{
		{
			"request phase with everything",
			Invocation{
				Plan: requestPlan, FullMethod: "/pkg.Svc/M", InstanceID: "i", OrgID: "o", ProjectID: "p", UserID: "u",
				Headers: map[string][]string{"Origin": {"https://a.example"}, "Content-Type": {"application/grpc"}, "X-Forwarded-For": {"1.2.3.4", "5.6.7.8"}},
				Request: fixed(`{"a":1}`), Response: fixed(`{"b":2}`),
			},
			`{"fullMethod":"/pkg.Svc/M","instanceID":"i","orgID":"o","projectID":"p","userID":"u","request":{"a":1},` +
				`"headers":{"Content-Type":["application/grpc"],"Origin":["https://a.example"],"X-Forwarded-For":["1.2.3.4","5.6.7.8"]}}`,
		},
		{
			"response phase",
			Invocation{Plan: responsePlan, FullMethod: "/pkg.Svc/M", Request: fixed(`{"a":1}`), Response: fixed(`{"b":2}`), Headers: map[string][]string{"Host": {"h"}}},
			`{"fullMethod":"/pkg.Svc/M","request":{"a":1},"response":{"b":2},"headers":{"Host":["h"]}}`,
		},
		{
			"empty messages stay, empty values go",
			Invocation{Plan: responsePlan, InstanceID: "i", Request: fixed(`{}`), Response: fixed(`{}`), Headers: map[string][]string{}},
			`{"instanceID":"i","request":{},"response":{}}`,
		},
		{
			"nothing at all",
			Invocation{Plan: requestPlan},
			`{}`,
		},
		{
			"HTML characters are escaped everywhere",
			Invocation{Plan: requestPlan, FullMethod: "/<p>/&", UserID: `"\` + "\n", Headers: map[string][]string{"<": {"a>b", ""}}, Request: fixed(`{"x<y":"<a href=\"&\">` + "\u2028" + `ö"}`)},
			`{"fullMethod":"/\u003cp\u003e/\u0026","userID":"\"\\\n","request":{"x\u003cy":"\u003ca href=\"\u0026\"\u003e\u2028ö"},"headers":{"\u003c":["a\u003eb",""]}}`,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := test.inv.appendEnvelope(nil)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != test.want {
				t.Errorf("envelope\n got: %s\nwant: %s", got, test.want)
			}
			got, err = test.inv.appendEnvelope([]byte("before"))
			if err != nil || string(got) != "before"+test.want {
				t.Errorf("appended\n got: %s, %v\nwant: %s", got, err, test.want)
			}
		})
	}
}

// FuzzEnvelope: what goes in is what a receiver parses, and no HTML character
// stands bare.
func FuzzEnvelope(f *testing.F) {
	f.Add("/pkg.Svc/M", "user", "Origin", "https://a.example", "text")
	f.Add("/<p>/&", "\xff\xfe", "\u2028", "\x00\x7f", `"}`)
	f.Fuzz(func(t *testing.T, method, user, header, value, text string) {
		message, err := json.Marshal(map[string]string{text: text})
		if err != nil {
			t.Fatal(err)
		}
		inv := Invocation{
			Plan: responsePlan, FullMethod: method, UserID: user, Request: fixed(message), Response: fixed(message),
			Headers: map[string][]string{header: {value, value}},
		}
		got, err := inv.appendEnvelope(nil)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.ContainsAny(got, "<>&\u2028\u2029") {
			t.Errorf("not escaped: %s", got)
		}
		var parsed struct {
			FullMethod string              `json:"fullMethod"`
			UserID     string              `json:"userID"`
			Request    map[string]string   `json:"request"`
			Response   map[string]string   `json:"response"`
			Headers    map[string][]string `json:"headers"`
		}
		if err := json.Unmarshal(got, &parsed); err != nil {
			t.Fatalf("%v: %s", err, got)
		}
		// JSON cannot carry invalid UTF-8: each bad byte arrives as U+FFFD.
		each := func(s string) string { return string([]rune(s)) }
		if parsed.FullMethod != each(method) || parsed.UserID != each(user) ||
			!reflect.DeepEqual(slices.Collect(maps.Values(parsed.Headers)), [][]string{{each(value), each(value)}}) ||
			parsed.Request[each(text)] != each(text) || parsed.Response[each(text)] != each(text) {
			t.Errorf("parsed %+v of %s", parsed, got)
		}
	})
}

// FuzzEscaping: what encoding/json escapes in JSON text is escaped, alike.
func FuzzEscaping(f *testing.F) {
	f.Add([]byte("{\"<a>\":\"&\u2028\u2029\u2030\xe2\x80\"}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var want bytes.Buffer
		json.HTMLEscape(&want, text)
		if got := appendEscaped([]byte("x"), text); string(got) != "x"+want.String() {
			t.Errorf("%q, want %q", got[1:], want.Bytes())
		}
	})
}

func BenchmarkEnvelope(b *testing.B) {
	inv := Invocation{
		Plan: requestPlan, FullMethod: "/zitadel.user.v2.UserService/AddHumanUser", InstanceID: "default",
		Headers: map[string][]string{"Content-Type": {"application/grpc"}, "Host": {"localhost:8080"}},
		Request: fixed(`{"profile":{"givenName":"Minnie","familyName":"Mouse"},"email":{"email":"minnie@example.com"}}`),
	}
	b.ReportAllocs()
	var payload []byte
	for b.Loop() {
		var err error
		if payload, err = inv.appendEnvelope(payload[:0]); err != nil {
			b.Fatal(err)
		}
	}
}
