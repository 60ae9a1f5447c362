package transcode_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/execgate/execgate/schema/transcode"
)

const testDepth = 100

// pair is the package and its oracle over the same files.
type pair struct {
	ref   *reference
	types *transcode.Types
}

var styles = []transcode.Style{
	{}, {ProtoNames: true}, {EnumNumbers: true}, {Defaults: true}, {Defaults: true, Nulls: true, ProtoNames: true},
}

// wire holds what is read from wire bytes against the oracle.
func (p pair) wire(t *testing.T, name string, b []byte) (*transcode.Tree, protoreflect.Message) {
	t.Helper()
	want, refused := p.ref.readWire(name, b, testDepth)
	got, err := p.types.Message(protoreflect.FullName(name)).ReadWire(b, testDepth, true)
	if errors.Is(refused, errPanic) {
		return nil, nil
	}
	if (err == nil) != (refused == nil) {
		t.Fatalf("%s: %x\nread %v, oracle %v", name, b, err, refused)
	}
	if err != nil {
		return nil, nil
	}
	p.same(t, name, got, want)
	p.echo(t, name, got)
	return got, want
}

// same holds both forms of a message against the oracle.
func (p pair) same(t *testing.T, name string, got *transcode.Tree, want protoreflect.Message) {
	t.Helper()
	have, expected := got.AppendWire(nil), p.ref.wire(want)
	if again, err := p.ref.readWire(name, have, testDepth); err == nil && len(have) == len(expected) && strings.Contains(fmt.Sprint(want), "nan") {
		have = p.ref.wire(again) // the oracle loses the payload of a NaN
	}
	if !bytes.Equal(have, expected) {
		t.Fatalf("%s: wire form of %v\n got %x\nwant %x", name, want, have, expected)
	}
	for _, s := range styles {
		have, err := got.AppendJSON(nil, s)
		expected, refused := p.ref.json(want, s)
		if (err == nil) != (refused == nil) {
			t.Fatalf("%s: JSON of %v: %v, oracle %v", name, want, err, refused)
		}
		if err == nil && !bytes.Equal(have, expected) {
			t.Fatalf("%s: JSON with %+v\n got %s\nwant %s", name, s, have, expected)
		}
	}
}

// json holds what is read from JSON against the oracle, and returns what was read
// strictly.
func (p pair) json(t *testing.T, name string, b []byte) (*transcode.Tree, protoreflect.Message) {
	t.Helper()
	var tree *transcode.Tree
	var m protoreflect.Message
	for _, lenient := range []bool{true, false} {
		tree, m = nil, nil
		want, refused := p.ref.readJSON(name, b, testDepth, lenient)
		got, err := p.types.Message(protoreflect.FullName(name)).ReadJSON(b, transcode.JSONOptions{Depth: testDepth, Inspect: true, Lenient: lenient})
		if lenient && err == nil && refused != nil {
			// What follows the first value is ignored.
			continue
		}
		if (err == nil) != (refused == nil) {
			t.Fatalf("%s, lenient %v: %s\nread %v, oracle %v", name, lenient, b, err, refused)
		}
		if err != nil {
			if pe := (*transcode.ParseError)(nil); errors.As(err, &pe) && pe.Line > 1+bytes.Count(b, []byte("\n")) {
				t.Fatalf("%s: place of %v", b, err)
			}
			continue
		}
		p.same(t, name, got, want)
		tree, m = got, want
	}
	return tree, m
}

// echo asks that the JSON of a message says the message.
func (p pair) echo(t *testing.T, name string, tree *transcode.Tree) {
	t.Helper()
	b, err := tree.AppendJSON(nil, transcode.Style{})
	if err != nil {
		return
	}
	again, err := p.types.Message(protoreflect.FullName(name)).ReadJSON(b, transcode.JSONOptions{Depth: testDepth + 16, Inspect: true})
	if err != nil {
		t.Fatalf("%s: own JSON is refused: %v\n%s", name, err, b)
	}
	transcode.KeepUnknown(tree, again)
	if !transcode.Equal(tree, again) && !tree.Lossy() {
		t.Fatalf("%s: an echo is a change\n%s\n%x\n%x", name, b, tree.AppendWire(nil), again.AppendWire(nil))
	}
}

// replace holds a replacement against the oracle.
func (p pair) replace(t *testing.T, name string, before, after []byte) {
	t.Helper()
	gotBefore, wantBefore := p.wire(t, name, before)
	gotAfter, wantAfter := p.json(t, name, after)
	if gotBefore == nil || gotAfter == nil {
		return
	}
	transcode.KeepUnknown(gotBefore, gotAfter)
	p.ref.keepUnknown(wantBefore, wantAfter)
	p.same(t, name, gotAfter, wantAfter)
	if got, want := transcode.Equal(gotBefore, gotAfter), proto.Equal(wantBefore.Interface(), wantAfter.Interface()); got != want {
		t.Fatalf("%s: equal %v, oracle %v\n%v\n%v", name, got, want, wantBefore, wantAfter)
	}
}

// mutated returns b with some bytes changed, cut, doubled or moved.
func mutated(g *generator, b []byte) []byte {
	b = bytes.Clone(b)
	for range 1 + g.r.IntN(3) {
		if len(b) == 0 {
			return b
		}
		i := g.r.IntN(len(b))
		j := min(len(b), i+1+g.r.IntN(12))
		switch g.r.IntN(6) {
		case 0:
			b[i] = byte(g.r.Uint32())
		case 1:
			b[i] ^= 1 << g.r.IntN(8)
		case 2:
			b = append(b[:i:i], b[j:]...)
		case 3:
			b = append(b[:j:j], b[i:]...)
		case 4:
			b = b[:i]
		case 5:
			k := g.r.IntN(len(b) + 1)
			b = append(b[:k:k], append(bytes.Clone(b[i:j]), b[k:]...)...)
		}
	}
	return b
}

var tokens = []string{
	`null`, `"x"`, `1`, `-0`, `1e3`, `1.5`, `"1"`, `" 1"`, `1e`, `"1e5"`, `[]`, `{}`, `[null]`, `true`, `"NaN"`, `"Infinity"`, `"-Infinity"`, `1e400`, `2147483648`,
	`-2147483649`, `18446744073709551616`, `9223372036854775808`, `"9223372036854775807"`, `0.5e1`, `100e-2`, `"\ud800"`, `"\ud83d\ude00"`, `"\u0000"`, "\"\xff\"", `"_-8"`, `"/+8="`, `"AA"`,
	`"1970-01-01T00:00:00Z"`, `"2026-02-30T00:00:00Z"`, `"2026-01-02T03:04:05.123456789+01:00"`, `"2026-01-02T03:04:05.1234567890Z"`, `"0001-01-01T00:00:00Z"`, `"1.5s"`, `"-.5s"`, `"+1s"`, `"01s"`, `"315576000001s"`,
	`"a,fooBar.baz"`, `"foo_bar"`, `""`, ` `, `,`, `{"@type":"x/google.protobuf.Duration","value":"1s"}`, `{"@type":"x/google.protobuf.Empty","value":{}}`, `{"value":{},"@type":"google.protobuf.Empty"}`,
	`{"@type":"x/google.protobuf.Value","value":null}`, `{"@type":""}`, `{"a":[1,{"b":null}],"a":2}`, `{"a":1,"b":[true,"x"]}`, `"a":1`, `"nope":{"x":[1,"y"]}`, `nul`, `tru`, `-`, `01`, "\t", `"\x"`, `1E+2`, `1e+`, `3.0`, `"3.0"`, `1.0000000000000001`,
}

// retold returns JSON with some values replaced by tokens, or bytes mutated.
func retold(g *generator, b []byte) []byte {
	if g.r.IntN(3) == 0 {
		return mutated(g, b)
	}
	s := string(b)
	for range 1 + g.r.IntN(2) {
		if s == "" {
			break
		}
		i := g.r.IntN(len(s))
		token := tokens[g.r.IntN(len(tokens))]
		at := strings.IndexAny(s[i:], ":,[{")
		if at < 0 {
			s += token
			continue
		}
		i += at + 1
		end := i
		if g.r.IntN(4) > 0 { // replace the value
			for depth := 0; end < len(s); end++ {
				c := s[end]
				if c == '{' || c == '[' {
					depth++
				}
				if depth == 0 && (c == ',' || c == '}' || c == ']') {
					break
				}
				if c == '}' || c == ']' {
					if depth--; depth == 0 {
						end++
						break
					}
				}
			}
		}
		s = s[:i] + token + s[end:]
	}
	return []byte(s)
}

// exercise holds one random message of a type, and what becomes of it, against the
// oracle.
func (p pair) exercise(t *testing.T, g *generator, name string) {
	t.Helper()
	m := g.fillMessage(p.ref.new(name), 0)
	b, err := proto.MarshalOptions{AllowPartial: true}.Marshal(m.Interface())
	if err != nil {
		t.Fatal(err)
	}
	b = append(b, g.noise()...)
	p.wire(t, name, b)
	other, err := proto.MarshalOptions{AllowPartial: true}.Marshal(g.fillMessage(p.ref.new(name), 0).Interface())
	if err != nil {
		t.Fatal(err)
	}
	p.wire(t, name, append(bytes.Clone(b), other...))
	for range 3 {
		p.wire(t, name, mutated(g, b))
	}
	text, err := p.ref.json(m, styles[g.r.IntN(len(styles))])
	if err != nil {
		return
	}
	p.replace(t, name, b, text)
	for range 3 {
		p.replace(t, name, b, retold(g, text))
	}
	next, err := p.ref.json(g.fillMessage(p.ref.new(name), 0), styles[0])
	if err == nil {
		p.replace(t, name, b, next)
	}
}

func TestRandomSchemasAgreeWithProtojson(t *testing.T) {
	t.Parallel()
	for seed := range uint64(24) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			g := newGenerator(seed)
			files, names := g.schema(t)
			p := pair{newReference(files), transcode.NewTypes(files)}
			g.ref, g.names = p.ref, names
			for range 4 {
				for _, name := range names {
					p.exercise(t, g, name)
				}
			}
		})
	}
}

func TestTypesAreSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	files, names := newGenerator(3).schema(t)
	shared := pair{newReference(files), transcode.NewTypes(files)}
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			g := newGenerator(uint64(worker))
			g.ref, g.names = shared.ref, names
			for _, name := range names {
				b, err := proto.MarshalOptions{AllowPartial: true}.Marshal(g.fillMessage(shared.ref.new(name), 0).Interface())
				if err != nil {
					t.Error(err)
					continue
				}
				tree, err := shared.types.Message(protoreflect.FullName(name)).ReadWire(b, testDepth, false)
				if err != nil {
					t.Error(err)
					continue
				}
				tree.AppendWire(nil)
			}
		})
	}
	all.Wait()
}
