package schema_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/execgate/execgate/schema"
)

// sized makes a message of about n bytes in wire form, and a target's answer that
// changes one field of it.
func sized(b *testing.B, typ *schema.MessageType, n int) (wire, answer []byte) {
	b.Helper()
	var json strings.Builder
	json.WriteString(`{"text":"before","favouriteColor":"COLOR_RED","createdAt":"2026-01-02T03:04:05Z","subList":[`)
	for i := 0; json.Len() < n*2+40; i++ {
		if i > 0 {
			json.WriteByte(',')
		}
		fmt.Fprintf(&json, `{"name":"name %d","size":"%d","tags":["one","two"]}`, i, i*1000)
	}
	json.WriteString(`]}`)
	return fromJSON(b, typ, json.String()), []byte(strings.Replace(json.String(), "before", "after", 1))
}

// BenchmarkRewrite is what a matched call costs beside the call-out: the message
// becomes JSON, the answer becomes the message.
func BenchmarkRewrite(b *testing.B) {
	typ := messageType(b, kitchen(b), "kitchen.v1.Everything")
	for _, n := range []int{200, 64 << 10} {
		wire, answer := sized(b, typ, n)
		for name, changed := range map[string]bool{"changed": true, "echo": false} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(len(wire)))
				for b.Loop() {
					m, err := typ.Decode(wire)
					if err != nil {
						b.Fatal(err)
					}
					reply := answer
					json, err := m.JSON()
					if err != nil {
						b.Fatal(err)
					}
					if !changed {
						reply = append([]byte(nil), json...)
					}
					if err := m.Replace(reply); err != nil {
						b.Fatal(err)
					}
					if _, err := m.Wire(); err != nil || m.Changed() != changed {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkRoute looks up paths among many routes.
func BenchmarkRoute(b *testing.B) {
	for _, n := range []int{100, 5000} {
		var rules strings.Builder
		for i := range n / 5 {
			fmt.Fprintf(&rules, "A%d: GET /v2/things%d/{a}\nB%d: POST /v2/things%d\nC%d: POST /v2/things%d/{a}/part/{b}\nD%d: DELETE /v2/things%d/{a}/part/{b}:now\nE%d: PUT /v2/groups/{a}/kind%d\n", i, i, i, i, i, i, i, i, i, i)
		}
		s := routesOf(b, rules.String())
		for name, c := range map[string][2]string{
			"fixed":    {"POST", fmt.Sprintf("/v2/things%d", n/10)},
			"variable": {"GET", fmt.Sprintf("/v2/things%d/285219374829347123", n/10)},
			"deep":     {"POST", fmt.Sprintf("/v2/things%d/285219374829347123/part/9", n/10)},
			"verb":     {"DELETE", fmt.Sprintf("/v2/things%d/285219374829347123/part/9:now", n/10)},
			"wildcard": {"PUT", fmt.Sprintf("/v2/groups/5/kind%d", n/10)},
			"miss":     {"GET", "/oauth/v2/keys"},
		} {
			b.Run(fmt.Sprintf("%d/%s", n, name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, ok := s.Route(c[0], c[1]); ok != (name != "miss") {
						b.Fatal("wrong")
					}
				}
			})
		}
	}
}

// BenchmarkMethod is the look-up of every call.
func BenchmarkMethod(b *testing.B) {
	s := kitchen(b)
	b.ReportAllocs()
	for b.Loop() {
		if s.Method("/kitchen.v1.Kitchen/Get") == nil {
			b.Fatal("unknown")
		}
	}
}

// BenchmarkREST is a REST call that a target changes.
func BenchmarkREST(b *testing.B) {
	s := kitchen(b)
	body := []byte(`{"id":"5","page_size":7,"filter":{"name":"x","tags":["a","b"]},"unheard of":{"a":[1,2,3]}}`)
	answer := []byte(`{"id":"6","pageSize":"7","filter":{"name":"y","tags":["a","b"]}}`)
	b.ReportAllocs()
	for b.Loop() {
		m, _ := s.Route("PUT", "/kitchen/v1/things/5")
		r, err := m.DecodeRequest("", body)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := r.JSON(); err != nil {
			b.Fatal(err)
		}
		if err := r.Replace(answer); err != nil {
			b.Fatal(err)
		}
		if _, _, _, err := r.Encode(); err != nil {
			b.Fatal(err)
		}
	}
}
