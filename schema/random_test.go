package schema_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

// generator makes random messages of the standard set, with protobuf's own
// packages: they are the oracle of the tests below.
type generator struct {
	r     *rand.Rand
	types *dynamicpb.Types
	fill  float64 // how likely a field is set
}

func newGenerator(t *testing.T, seed uint64) *generator {
	t.Helper()
	files, err := protodesc.NewFiles(parse(t))
	if err != nil {
		t.Fatal(err)
	}
	return &generator{r: rand.New(rand.NewPCG(seed, 0)), types: dynamicpb.NewTypes(files), fill: 0.3}
}

func (g *generator) message(name string) protoreflect.Message {
	mt, err := g.types.FindMessageByName(protoreflect.FullName(name))
	if err != nil {
		panic(err)
	}
	return g.fillMessage(mt.New(), 0)
}

func (g *generator) fillMessage(m protoreflect.Message, depth int) protoreflect.Message {
	md := m.Descriptor()
	fields := md.Fields()
	switch md.FullName() {
	case "google.protobuf.Timestamp", "google.protobuf.Duration":
		m.Set(fields.ByNumber(1), protoreflect.ValueOfInt64(g.r.Int64N(1<<30)))
		m.Set(fields.ByNumber(2), protoreflect.ValueOfInt32(g.r.Int32N(1000)*1000000))
		return m
	case "google.protobuf.FieldMask":
		list := m.Mutable(fields.ByNumber(1)).List()
		for _, path := range []string{"a", "foo_bar", "x.y_z"}[:g.r.IntN(4)] {
			list.Append(protoreflect.ValueOfString(path))
		}
		return m
	case "google.protobuf.Any":
		inner := g.message([]string{"kitchen.v1.Sub", "kitchen.v1.GetRequest", "google.protobuf.Duration"}[g.r.IntN(3)])
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(inner.Interface())
		if err != nil {
			panic(err)
		}
		m.Set(fields.ByNumber(1), protoreflect.ValueOfString("type.googleapis.com/"+string(inner.Descriptor().FullName())))
		m.Set(fields.ByNumber(2), protoreflect.ValueOfBytes(b))
		return m
	case "google.protobuf.Value":
		n := 1 + g.r.IntN(4)
		if depth < 4 {
			n = 1 + g.r.IntN(6)
		}
		fd := fields.ByNumber(protoreflect.FieldNumber(n))
		if fd.Message() == nil {
			v := g.scalar(fd)
			if fd.Kind() == protoreflect.DoubleKind && (math.IsNaN(v.Float()) || math.IsInf(v.Float(), 0)) {
				v = protoreflect.ValueOfFloat64(1.5)
			}
			if fd.Enum() != nil {
				v = protoreflect.ValueOfEnum(0)
			}
			m.Set(fd, v)
		} else {
			g.fillMessage(m.Mutable(fd).Message(), depth+1)
		}
		return m
	}
	for i := range fields.Len() {
		fd := fields.Get(i)
		if g.r.Float64() > g.fill || depth > 4 || fd.Message() != nil && g.r.Float64() > math.Pow(0.7, float64(depth)) {
			continue
		}
		switch {
		case fd.IsMap():
			for range g.r.IntN(4) {
				v := m.Mutable(fd).Map().NewValue()
				if fd.MapValue().Message() != nil {
					g.fillMessage(v.Message(), depth+1)
				} else {
					v = g.scalar(fd.MapValue())
				}
				m.Mutable(fd).Map().Set(g.scalar(fd.MapKey()).MapKey(), v)
			}
		case fd.IsList():
			for range g.r.IntN(4) {
				v := m.Mutable(fd).List().NewElement()
				if fd.Message() != nil {
					g.fillMessage(v.Message(), depth+1)
				} else {
					v = g.scalar(fd)
				}
				m.Mutable(fd).List().Append(v)
			}
		case fd.Message() != nil:
			g.fillMessage(m.Mutable(fd).Message(), depth+1)
		default:
			m.Set(fd, g.scalar(fd))
		}
	}
	return m
}

func (g *generator) scalar(fd protoreflect.FieldDescriptor) protoreflect.Value {
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(g.r.IntN(2) == 0)
	case protoreflect.EnumKind:
		if fd.Enum().FullName() == "google.protobuf.NullValue" {
			return protoreflect.ValueOfEnum(0)
		}
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(g.r.IntN(5)))
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(int32(g.r.Uint32()) >> g.r.IntN(31))
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return protoreflect.ValueOfInt64(int64(g.r.Uint64()) >> g.r.IntN(63))
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(g.r.Uint32() >> g.r.IntN(32))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(g.r.Uint64() >> g.r.IntN(64))
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(float32(g.float()))
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(g.float())
	case protoreflect.BytesKind:
		b := make([]byte, g.r.IntN(6))
		for i := range b {
			b[i] = byte(g.r.Uint32())
		}
		return protoreflect.ValueOfBytes(b)
	default:
		return protoreflect.ValueOfString(g.text())
	}
}

func (g *generator) float() float64 {
	return []float64{0, 1, -1.5, 1e30, 1e-30, math.NaN(), math.Inf(1), math.Inf(-1), math.Copysign(0, -1)}[g.r.IntN(9)]
}

func (g *generator) text() string {
	parts := []string{"", "a", "b/c", "ü", " ", "%2F", "?x=1&y", `"\`, "\n", "<>", "+", ":v", ".", "..", "é\u2028", ",", "{}", "null", "5"}
	var b strings.Builder
	for range g.r.IntN(4) {
		b.WriteString(parts[g.r.IntN(len(parts))])
	}
	return b.String()
}

func (g *generator) wire(t *testing.T, m protoreflect.Message) []byte {
	t.Helper()
	b, err := proto.MarshalOptions{AllowPartial: true}.Marshal(m.Interface())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (g *generator) json(t *testing.T, m protoreflect.Message, o protojson.MarshalOptions) string {
	t.Helper()
	o.AllowPartial, o.Resolver = true, g.types
	b, err := o.Marshal(m.Interface())
	if err != nil {
		t.Fatal(err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, b); err != nil {
		t.Fatal(err)
	}
	return compact.String()
}

var randomTypes = []string{"kitchen.v1.Everything", "kitchen.v1.GetRequest", "legacy.v1.Old", "edition.v1.Modern"}

func TestRandomMessagesAgreeWithProtojson(t *testing.T) {
	t.Parallel()
	s := kitchen(t)
	for seed := range uint64(200) {
		g := newGenerator(t, seed)
		for _, name := range randomTypes {
			m := g.message(name)
			b, want := g.wire(t, m), g.json(t, m, protojson.MarshalOptions{})
			got, err := messageType(t, s, name).Decode(b)
			if err != nil {
				t.Fatalf("seed %d: %v", seed, errors.Unwrap(err))
			}
			if have := jsonOf(t, got); have != want {
				t.Fatalf("seed %d: JSON\n got %s\nwant %s", seed, have, want)
			}
			if err := got.Replace([]byte(" " + want)); err != nil || got.Changed() {
				t.Fatalf("seed %d: an echo: changed %v, error %v\n%s", seed, got.Changed(), err, want)
			}
			next := g.message(name)
			if err := got.Replace([]byte(g.json(t, next, protojson.MarshalOptions{UseProtoNames: seed%2 == 0}))); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			out, err := got.Wire()
			if err != nil {
				t.Fatal(err)
			}
			again := next.New()
			if err := (proto.UnmarshalOptions{AllowPartial: true, Resolver: g.types}).Unmarshal(out, again.Interface()); err != nil {
				t.Fatal(err)
			}
			if !proto.Equal(next.Interface(), again.Interface()) {
				t.Fatalf("seed %d: replaced by %v, sent as %v", seed, next, again)
			}
		}
	}
}

// withNoise adds unknown keys to every object of a JSON text that is one of a
// message (an approximation: it is for lenient readers).
func withNoise(s string) string {
	if !strings.HasPrefix(s, "{") {
		return s
	}
	if s == "{}" {
		return `{"unheard of":[1,{"a":"}"}]}`
	}
	return `{"unheard of":[1,{"a":"}"}],` + s[1:]
}

func TestRandomBodiesReadAsWhatReplacedThem(t *testing.T) {
	t.Parallel()
	s := kitchen(t)
	for seed := range uint64(200) {
		g := newGenerator(t, seed)
		for _, name := range randomTypes {
			o := protojson.MarshalOptions{
				UseProtoNames: g.r.IntN(2) == 0, UseEnumNumbers: g.r.IntN(2) == 0,
				EmitUnpopulated: g.r.IntN(3) == 0, EmitDefaultValues: g.r.IntN(3) == 0,
			}
			if g.r.IntN(2) == 0 {
				o.Multiline = true
			}
			body := withNoise(g.json(t, g.message(name), o))
			typ := messageType(t, s, name)
			m, err := typ.DecodeJSON([]byte(body))
			if err != nil {
				t.Fatalf("seed %d: %v\n%s", seed, errors.Unwrap(err), body)
			}
			want := g.json(t, g.message(name), protojson.MarshalOptions{})
			if err := m.Replace([]byte(want)); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			got, err := m.Body()
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if !json.Valid(got) || !bytes.Contains(got, []byte("unheard of")) {
				t.Fatalf("seed %d: body %s", seed, got)
			}
			again, err := typ.DecodeJSON(got)
			if err != nil {
				t.Fatalf("seed %d: %v\n%s", seed, errors.Unwrap(err), got)
			}
			if have := jsonOf(t, again); have != want {
				t.Fatalf("seed %d: body\n%s\nreplaced by\n%s\nreads as\n%s\nin\n%s", seed, body, want, have, got)
			}
		}
	}
}

func TestRandomRequestsReadAsWhatReplacedThem(t *testing.T) {
	t.Parallel()
	s := kitchen(t)
	calls := []string{
		"GET /kitchen/v1/things/5?tags=a&page_size=0",
		"GET /kitchen/v1/things/5?parentName=a&filter.name=x&labels[a]=b&by_sub.note=",
		"GET /kitchen/v1/rooms/1/shelves/2/things/3",
		"GET /kitchen/v1/files/a/b",
		`POST /kitchen/v1/things/search {"id":"5","unheard of":1}`,
		`PATCH /kitchen/v1/things/5?tags=x {"text":"a","unheard of":1}`,
		`PUT /kitchen/v1/things/5 {"id":"7","unheard of":1}`,
		`POST /kitchen/v1/things/5:cancel`,
		"HEAD /kitchen/v1/things/x/7?tags=1",
	}
	sent, refused := 0, 0
	for seed := range uint64(200) {
		g := newGenerator(t, seed)
		g.fill = []float64{0.1, 0.3}[seed%2]
		for _, c := range calls {
			in := parseCall(c)
			r, err := decodeCall(t, s, in)
			if err != nil {
				t.Fatal(errors.Unwrap(err))
			}
			next := g.message("kitchen.v1.GetRequest")
			fields := next.Descriptor().Fields()
			next.Set(fields.ByName("id"), protoreflect.ValueOfString("x"+g.text()))
			if strings.Contains(c, "/rooms/") {
				next.Set(fields.ByName("parent_name"), protoreflect.ValueOfString(fmt.Sprintf("rooms/%s/shelves/%d", "r"+strings.ReplaceAll(g.text(), "/", ""), seed)))
			}
			if err := r.Replace([]byte(g.json(t, next, protojson.MarshalOptions{}))); err != nil {
				refused++
				continue
			}
			sent++
			got := encodeCall(t, in.method, r)
			path, query, body, err := r.Encode()
			if err != nil {
				t.Fatal(err)
			}
			m, ok := s.Route(in.method, path)
			if !ok {
				t.Fatalf("seed %d: %s leads nowhere", seed, got)
			}
			again, err := m.DecodeRequest(query, body)
			if err != nil {
				t.Fatalf("seed %d: %s: %v", seed, got, errors.Unwrap(err))
			}
			if have, want := jsonOf(t, again), jsonOf(t, r); have != want {
				t.Fatalf("seed %d: %s\nreads as %s\nnot      %s", seed, got, have, want)
			}
		}
	}
	if sent < refused {
		t.Errorf("%d sent, %d refused: the test says too little", sent, refused)
	}
}
