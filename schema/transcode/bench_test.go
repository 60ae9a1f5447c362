package transcode_test

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/execgate/execgate/schema/transcode"
)

// sized makes a message of about n bytes in wire form, and its JSON.
func sized(b *testing.B, p pair, n int) (wire, json []byte) {
	b.Helper()
	var text strings.Builder
	text.WriteString(`{"text":"before","favouriteColor":"COLOR_RED","createdAt":"2026-01-02T03:04:05Z","subList":[`)
	for i := 0; text.Len() < n*2-20; i++ {
		if i > 0 {
			text.WriteByte(',')
		}
		fmt.Fprintf(&text, `{"name":"name %d","size":"%d","tags":["one","two"]}`, i, i*1000)
	}
	text.WriteString(`]}`)
	tree, err := p.types.Message(everything).ReadJSON([]byte(text.String()), transcode.JSONOptions{Depth: testDepth})
	if err != nil {
		b.Fatal(err)
	}
	return tree.AppendWire(nil), []byte(text.String())
}

// BenchmarkTranscode is wire bytes to JSON and JSON to wire bytes, by the tables and
// by protojson over dynamic messages.
func BenchmarkTranscode(b *testing.B) {
	p := kitchen(b)
	typ := p.types.Message(everything)
	for _, n := range []int{200, 64 << 10} {
		wire, json := sized(b, p, n)
		var buf []byte
		for _, c := range []struct {
			name string
			run  func() error
		}{
			{"out/tables", func() error {
				tree, err := typ.ReadWire(wire, testDepth, true)
				if err == nil {
					buf, err = tree.AppendJSON(buf[:0], transcode.Style{})
				}
				return err
			}},
			{"out/protojson", func() error {
				m := p.ref.new(everything)
				err := proto.UnmarshalOptions{AllowPartial: true, Resolver: p.ref}.Unmarshal(wire, m.Interface())
				if err == nil {
					buf, err = protojson.MarshalOptions{AllowPartial: true, Resolver: p.ref}.MarshalAppend(buf[:0], m.Interface())
				}
				return err
			}},
			{"in/tables", func() error {
				tree, err := typ.ReadJSON(json, transcode.JSONOptions{Depth: testDepth, Inspect: true})
				if err == nil {
					buf = tree.AppendWire(buf[:0])
				}
				return err
			}},
			{"in/protojson", func() error {
				m := p.ref.new(everything)
				err := protojson.UnmarshalOptions{AllowPartial: true, Resolver: p.ref}.Unmarshal(json, m.Interface())
				if err == nil {
					buf, err = proto.MarshalOptions{AllowPartial: true, Deterministic: true}.MarshalAppend(buf[:0], m.Interface())
				}
				return err
			}},
		} {
			b.Run(fmt.Sprintf("%d/%s", n, c.name), func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(len(wire)))
				for b.Loop() {
					if err := c.run(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
