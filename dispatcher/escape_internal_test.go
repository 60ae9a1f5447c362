package dispatcher

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// TestEscapedAsTheStandardLibraryDoes puts what has to be escaped, and what nearly has, at every place among others.
func TestEscapedAsTheStandardLibraryDoes(t *testing.T) {
	t.Parallel()
	for _, special := range []string{"<", ">", "&", "\u2028", "\u2029", "\u202a", "\u2030", "é", "=", "?", "'", "\xe2", "\xe2\x80", "<>&\u2028", ""} {
		for before := range 20 {
			for after := range 20 {
				text := []byte(strings.Repeat("a", before) + special + strings.Repeat("z", after) + special)
				var want bytes.Buffer
				json.HTMLEscape(&want, text)
				if got := appendEscaped([]byte("x"), text); string(got) != "x"+want.String() {
					t.Fatalf("%q became %q", text, got)
				}
			}
		}
	}
}

func BenchmarkEscaped(b *testing.B) {
	text := []byte(`{"profile":{"givenName":"` + strings.Repeat("Minnie ", 24) + `"},"email":{"email":"minnie@example.com"}}`)
	var out []byte
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		out = appendEscaped(out[:0], text)
	}
}
