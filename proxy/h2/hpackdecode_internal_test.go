package h2

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"
)

// oracle is x/net's decoder as this package used it.
type oracle struct {
	dec         *hpack.Decoder
	limit, size int
	over        bool
	fields      []Field
}

func newOracle(limit int) *oracle {
	o := &oracle{limit: limit}
	o.dec = hpack.NewDecoder(headerTableSize, func(f hpack.HeaderField) {
		if o.size += int(f.Size()); o.size > o.limit {
			o.over = true
			o.dec.SetEmitEnabled(false)
			return
		}
		o.fields = append(o.fields, Field{Name: f.Name, Value: f.Value, Sensitive: f.Sensitive})
	})
	return o
}

func (o *oracle) decode(block []byte) error {
	o.fields, o.size, o.over = nil, 0, false
	o.dec.SetEmitEnabled(true)
	if _, err := o.dec.Write(block); err != nil {
		return err
	}
	return o.dec.Close()
}

// compare decodes block with both, and reports whether they go on.
func compare(t *testing.T, o *oracle, r *headerReader, block []byte) bool {
	t.Helper()
	wantErr, err := o.decode(block), r.decode(block)
	if (wantErr == nil) != (err == nil) {
		t.Fatalf("block %x: error %v, not %v", block, err, wantErr)
	}
	if err != nil {
		return false
	}
	got := make([]Field, len(r.fields))
	for i, f := range r.fields {
		got[i] = Field{Name: f.Name, Value: f.Value, Sensitive: f.Sensitive}
		looked := got[i]
		if looked.classify(); looked.known != f.known || looked.flaws != f.flaws {
			t.Fatalf("block %x: %+v is taken for %d with flaws %b, and is %d with %b", block, got[i], f.known, f.flaws, looked.known, looked.flaws)
		}
		if looked.workOut(); f.hash != 0 && (looked.hash != f.hash || looked.static != f.static) {
			t.Fatalf("block %x: the hash of %+v is wrong", block, got[i])
		}
	}
	if !slices.Equal(got, o.fields) || r.over != o.over {
		t.Fatalf("block %x: %+v (over: %v), not %+v (over: %v)", block, got, r.over, o.fields, o.over)
	}
	// The tables must be the same: every entry, and no more.
	for i := 1; ; i++ {
		index := appendInt(nil, 0x80, 7, i)
		if (o.decode(index) == nil) != (r.decode(index) == nil) {
			t.Fatalf("block %x: the tables differ in length, %d", block, i)
		}
		if i > len(staticTable) && r.table.at(i) == nil {
			break
		}
		if !o.over && (len(o.fields) != 1 || r.fields[0].Name != o.fields[0].Name || r.fields[0].Value != o.fields[0].Value) {
			t.Fatalf("block %x: entry %d is %+v, not %+v", block, i, r.fields, o.fields)
		}
	}
	_ = o.dec.Close() // After the error that the walk ends with.
	return true
}

var decoderBlocks = []string{
	"",
	"\x82\x86\x84\x41\x0fwww.example.com", // RFC 7541 C.3.1
	"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff", // C.4.1
	"\x40\x0acustom-key\x0dcustom-header\xbe",                              // C.2.1, and again
	"\x04\x0c/sample/path\x10\x08password\x06secret",                       // C.2.2, C.2.3
	"\x80", "\xbe", "\xff\x00", "\xff\x80\x80\x80\x00", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
	"\xff\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", "\xff", "\xff\x80", "\x7f\x80\x80\x80\x80\x80\x80\x80\x80\x7f\x00\x00",
	"\x3f\xe1\x1f", "\x3f\xe2\x1f", "\x20", "\x20\x3f\xe1\x1f", "\x40\x01a\x01b\x20", "\x82\x20", "\x3f", "\x20\x40\x01a\x01b\xbe",
	"\x40\x01a\x01b\x3e\x3f\xe1\x1f\xbe", "\x3e\x3f\xe1\x1f",
	"\x00", "\x00\x01", "\x00\x01a", "\x00\x01a\x01", "\x00\x7f\x00a", "\x00\x00\x00", "\x00\xff\xff\xff\xff\xff\x7f",
	"\x00\x81\xff\x00", "\x00\x82\xff\xff\x00", "\x00\x84\xff\xff\xff\xff\x00", "\x00\x84\xff\xff\xff\xfc\x00", "\x00\x81\x1f\x00", "\x00\x81\x1e\x00",
	"\x00\x80\x80", "\x00\x82\x1c\x7f\x00", "\x00\x85\xff\xff\xff\xff\xff\x00", "\x00\x83\xff\xc7\x00",
	"\x40\x02te\x08trailers\x40\x02te\x01x\xbe\xbf\x0f\x2f\x08Trailers", "\x40\x0aconnection\x00\x0f\x2f\x01x",
	"\x40\x05:path\x01\x00\xbe\x0f\x2f\x01a", "\x40\x01A\x01b\xbe", "\x40\x0fx-forwarded-for\x011\xbe", "\x00\x0fx-forwarded-for\x011",
	"\x40\x00\x00\xbe", "\x50\x01*", "\x0f\x04\x0242\x0f\x05\x00",
}

func TestDecoderSaysWhatXNetSays(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{1 << 20, 70} {
		for _, block := range decoderBlocks {
			compare(t, newOracle(limit), newHeaderReader(limit), []byte(block))
		}
	}
}

// TestDecoderAgainstEncoders decodes what encoders write over a long time: evictions, sizes that change, strings of all lengths.
func TestDecoderAgainstEncoders(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		random := rand.New(rand.NewPCG(seed, 1))
		var out bytes.Buffer
		enc := hpack.NewEncoder(&out)
		o, r := newOracle(8<<10), newHeaderReader(8<<10)
		for range 300 {
			out.Reset()
			if random.IntN(20) == 0 {
				enc.SetMaxDynamicTableSize(uint32(random.IntN(headerTableSize + 1)))
			}
			for range random.IntN(12) {
				value := make([]byte, random.IntN(40)*random.IntN(40)/8)
				for i := range value {
					value[i] = byte(random.IntN(256))
				}
				name := fmt.Sprint("x-", random.IntN(30))
				if known := namesOfFields[random.IntN(int(fieldNames))]; known != "" && random.IntN(2) == 0 {
					name = known
				}
				v := string(value)
				if random.IntN(2) == 0 {
					v = fmt.Sprint(random.IntN(5))
				}
				_ = enc.WriteField(hpack.HeaderField{Name: name, Value: v, Sensitive: random.IntN(9) == 0})
			}
			if !compare(t, o, r, out.Bytes()) {
				o, r = newOracle(8<<10), newHeaderReader(8<<10)
				enc = hpack.NewEncoder(&out)
			}
		}
	}
}

func TestHuffman(t *testing.T) {
	t.Parallel()
	for a := range 256 {
		for b := range 256 {
			s := string([]byte{byte(a), byte(b), byte(a)})
			coded := hpack.AppendHuffmanString(nil, s)
			if got, err := appendHuffman(nil, coded); err != nil || string(got) != s {
				t.Fatalf("%x is read as %q, not %q: %v", coded, got, s, err)
			}
		}
	}
	for a := range 1 << 16 { // Nearly all of them are malformed.
		for _, coded := range [][]byte{{byte(a >> 8), byte(a)}, {0xff, byte(a >> 8), byte(a)}, {0xff, 0xff, 0xff, byte(a >> 8), byte(a)}, {byte(a), 0xff}} {
			want, wantErr := hpack.HuffmanDecodeToString(coded)
			got, err := appendHuffman(nil, coded)
			if (err == nil) != (wantErr == nil) || err == nil && string(got) != want {
				t.Fatalf("%x is read as %q, %v, not %q, %v", coded, got, err, want, wantErr)
			}
		}
	}
}

// FuzzDecoder compares what both decoders read: several blocks, each after its length.
func FuzzDecoder(f *testing.F) {
	for _, block := range decoderBlocks {
		f.Add(append([]byte{0, byte(len(block))}, block...))
		f.Add(append(append([]byte{200, byte(len(block))}, block...), append([]byte{byte(len(block))}, block...)...))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) == 0 {
			return
		}
		limit := 1 << 20
		if in[0] != 0 {
			limit = int(in[0])
		}
		o, r := newOracle(limit), newHeaderReader(limit)
		for in = in[1:]; len(in) > 0; {
			n := min(int(in[0]), len(in)-1)
			if !compare(t, o, r, in[1:1+n]) {
				return
			}
			in = in[1+n:]
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	var out bytes.Buffer
	enc := hpack.NewEncoder(&out)
	write := func() []byte {
		out.Reset()
		for _, f := range steadyRequest {
			_ = enc.WriteField(hpack.HeaderField{Name: f.Name, Value: f.Value})
		}
		return append(bytes.Clone(out.Bytes()), "\x00\x0cgrpc-timeout\x084999000u"...)
	}
	first, block := write(), write()
	b.Run("own", func(b *testing.B) {
		r := newHeaderReader(1 << 20)
		_ = r.decode(first)
		b.ReportAllocs()
		for b.Loop() {
			_ = r.decode(block)
		}
	})
	b.Run("x/net", func(b *testing.B) {
		o := newOracle(1 << 20)
		_ = o.decode(first)
		b.ReportAllocs()
		for b.Loop() {
			o.fields = o.fields[:0]
			o.size = 0
			_, _ = o.dec.Write(block)
			_ = o.dec.Close()
		}
	})
	coded := hpack.AppendHuffmanString(nil, strings.Repeat("Bearer eyJhbGciOiJSUzI1NiIs", 8))
	b.Run("huffman", func(b *testing.B) {
		var out []byte
		b.SetBytes(int64(len(coded)))
		for b.Loop() {
			out, _ = appendHuffman(out[:0], coded)
		}
	})
	b.Run("huffman, x/net", func(b *testing.B) {
		b.SetBytes(int64(len(coded)))
		for b.Loop() {
			_, _ = hpack.HuffmanDecodeToString(coded)
		}
	})
}
