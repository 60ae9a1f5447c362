package h2

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"
)

// decodeAll decodes a block with x/net's decoder.
func decodeAll(t *testing.T, d *hpack.Decoder, block []byte) []Field {
	t.Helper()
	got, err := d.DecodeFull(block)
	if err != nil {
		t.Fatalf("decode %x: %v", block, err)
	}
	fields := make([]Field, len(got))
	for i, f := range got {
		fields[i] = Field{Name: f.Name, Value: f.Value, Sensitive: f.Sensitive}
	}
	return fields
}

func TestEncodedFieldsAreDecoded(t *testing.T) {
	t.Parallel()
	e, d := newHPACKEncoder(), hpack.NewDecoder(headerTableSize, nil)
	var sizes []int
	for i := range 500 {
		fields := []Field{
			{Name: ":method", Value: "POST"}, {Name: ":path", Value: fmt.Sprint("/method/", i%7)},
			{Name: "grpc-timeout", Value: fmt.Sprint(i, "u")}, {Name: "authorization", Value: "secret", Sensitive: true},
			{Name: "x-same", Value: "always"}, {Name: "x-long", Value: strings.Repeat("v", i%900)}, {Name: "te", Value: "trailers"},
			{Name: "x-empty"}, {Name: ":status", Value: "200"}, {Name: ":status", Value: "201"},
		}
		e.out = e.out[:0]
		for j := range fields {
			e.encode(&fields[j])
		}
		sizes = append(sizes, len(e.out)-i%900)
		if got := decodeAll(t, d, e.out); !slices.Equal(got, fields) {
			t.Fatalf("block %d: %v", i, got)
		}
	}
	if sizes[400] > 70 {
		t.Errorf("blocks stay %d bytes long", sizes[400])
	}
}

// FuzzEncoder compares what x/net's decoder reads with what was written, while the table's size changes.
func FuzzEncoder(f *testing.F) {
	f.Add([]byte("\x01a\x01b\x01a\x01b"))
	f.Add([]byte("\x05abcde\xff0123456789\x00\x00\xfe\x10\x01a\x02bc"))
	f.Fuzz(func(t *testing.T, in []byte) {
		e, d := newHPACKEncoder(), hpack.NewDecoder(headerTableSize, nil)
		take := func() string {
			if len(in) == 0 {
				return ""
			}
			n := int(in[0] & 0x7f)
			times := 1 + int(in[0]>>7)*30
			in = in[1:]
			s := string(in[:min(n, len(in))])
			in = in[len(s):]
			return strings.Repeat(s, times)
		}
		for len(in) > 0 {
			if in[0] == 0xfe && len(in) > 1 {
				n := int(in[1]) * 17
				in = in[2:]
				e.setMax(n)
			}
			var fields []Field
			e.out = e.out[:0]
			for range 3 {
				f := Field{Name: take(), Value: take(), Sensitive: len(in)%5 == 4}
				e.encode(&f)
				fields = append(fields, f)
			}
			if got := decodeAll(t, d, e.out); !slices.Equal(got, fields) {
				t.Fatalf("wrote %+v, read %+v", fields, got)
			}
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	fields := []Field{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: "/zitadel.user.v2.UserService/GetUserByID"},
		{Name: ":authority", Value: "auth.example.com"}, {Name: "content-type", Value: "application/grpc"}, {Name: "user-agent", Value: "grpc-go/1.85.0"},
		{Name: "te", Value: "trailers"}, {Name: "authorization", Value: "Bearer dG9rZW4tdG9rZW4tdG9rZW4tdG9rZW4tdG9rZW4tdG9rZW4"}, {Name: "grpc-timeout", Value: "4999u"},
	}
	b.Run("own", func(b *testing.B) {
		e := newHPACKEncoder()
		b.ReportAllocs()
		for b.Loop() {
			e.out = e.out[:0]
			for i := range fields {
				e.encode(&fields[i])
			}
		}
	})
	b.Run("x/net", func(b *testing.B) {
		var out bytes.Buffer
		e := hpack.NewEncoder(&out)
		b.ReportAllocs()
		for b.Loop() {
			out.Reset()
			for i := range fields {
				_ = e.WriteField(hpack.HeaderField{Name: fields[i].Name, Value: fields[i].Value})
			}
		}
	})
}
