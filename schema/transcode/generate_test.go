package transcode_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// generator makes random schemas and random messages of them.
type generator struct {
	r     *rand.Rand
	ref   *reference
	names []string
}

func newGenerator(seed uint64) *generator {
	return &generator{r: rand.New(rand.NewPCG(seed, 1))}
}

func (g *generator) one(in int) bool { return g.r.IntN(in) == 0 }

var known = []protoreflect.FileDescriptor{
	anypb.File_google_protobuf_any_proto, durationpb.File_google_protobuf_duration_proto, emptypb.File_google_protobuf_empty_proto,
	fieldmaskpb.File_google_protobuf_field_mask_proto, structpb.File_google_protobuf_struct_proto,
	timestamppb.File_google_protobuf_timestamp_proto, wrapperspb.File_google_protobuf_wrappers_proto,
}

var knownNames = []string{
	"Any", "Any", "Duration", "Empty", "FieldMask", "Struct", "Value", "Value", "ListValue", "Timestamp",
	"BoolValue", "Int32Value", "Int64Value", "UInt32Value", "UInt64Value", "FloatValue", "DoubleValue", "StringValue", "BytesValue",
}

const (
	typeGroup   = descriptorpb.FieldDescriptorProto_TYPE_GROUP
	typeMessage = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE
	typeEnum    = descriptorpb.FieldDescriptorProto_TYPE_ENUM
)

// schema makes three files, of proto2, proto3 and edition 2023. Every message of
// a file can hold those of the files before it.
func (g *generator) schema(tb testing.TB) (*protoregistry.Files, []string) {
	tb.Helper()
	files := &protoregistry.Files{}
	for _, fd := range known {
		if err := files.RegisterFile(fd); err != nil {
			tb.Fatal(err)
		}
	}
	b := &schemaBuilder{g: g}
	for i, syntax := range []string{"proto2", "proto3", "editions"} {
		p := b.file(fmt.Sprintf("f%d", i), syntax)
		fd, err := protodesc.NewFile(p, files)
		if err != nil {
			tb.Fatal(err)
		}
		if err := files.RegisterFile(fd); err != nil {
			tb.Fatal(err)
		}
	}
	return files, b.names
}

type schemaBuilder struct {
	g          *generator
	syntax     string
	names      []string // of messages
	enums      []string
	closed     map[string]bool
	first      map[string]bool // enums whose first value is not zero
	extendable []string
	done       []string
	fields     int
}

func (b *schemaBuilder) file(pkg, syntax string) *descriptorpb.FileDescriptorProto {
	g := b.g
	b.syntax = syntax
	if b.closed == nil {
		b.closed, b.first = map[string]bool{}, map[string]bool{}
	}
	p := &descriptorpb.FileDescriptorProto{Name: proto.String(pkg + ".proto"), Package: proto.String(pkg), Syntax: proto.String(syntax)}
	if syntax == "editions" {
		p.Edition = descriptorpb.Edition_EDITION_2023.Enum()
		if g.one(2) {
			p.Options = &descriptorpb.FileOptions{Features: &descriptorpb.FeatureSet{FieldPresence: descriptorpb.FeatureSet_IMPLICIT.Enum()}}
		}
	}
	for _, fd := range known {
		p.Dependency = append(p.Dependency, fd.Path())
	}
	p.Dependency = append(p.Dependency, b.done...)
	b.done = append(b.done, p.GetName())
	for i := range 2 {
		e := &descriptorpb.EnumDescriptorProto{Name: proto.String(fmt.Sprintf("E%d", i))}
		first := int32(0)
		isClosed := syntax == "proto2" || syntax == "editions" && i == 1
		if isClosed && g.one(2) {
			first = 1 + g.r.Int32N(3)
		}
		if syntax == "editions" && isClosed {
			e.Options = &descriptorpb.EnumOptions{Features: &descriptorpb.FeatureSet{EnumType: descriptorpb.FeatureSet_CLOSED.Enum()}}
		}
		for j, n := range []int32{first, first + 1, 300, -5} {
			e.Value = append(e.Value, &descriptorpb.EnumValueDescriptorProto{Name: proto.String(fmt.Sprintf("%s_E%d_V%d", pkg, i, j)), Number: proto.Int32(n)})
		}
		p.EnumType = append(p.EnumType, e)
		name := pkg + "." + e.GetName()
		b.enums = append(b.enums, name)
		b.closed[name], b.first["."+name] = isClosed, first != 0
	}
	for i := range 3 {
		name := fmt.Sprintf("M%d", i)
		b.names = append(b.names, pkg+"."+name)
		if syntax != "proto3" {
			b.extendable = append(b.extendable, pkg+"."+name)
		}
	}
	for i := range 3 {
		m := &descriptorpb.DescriptorProto{Name: proto.String(fmt.Sprintf("M%d", i))}
		if syntax != "proto3" {
			m.ExtensionRange = []*descriptorpb.DescriptorProto_ExtensionRange{{Start: proto.Int32(10000), End: proto.Int32(20000)}}
		}
		b.message(m, pkg+"."+m.GetName())
		p.MessageType = append(p.MessageType, m)
	}
	for i := range 4 {
		if len(b.extendable) == 0 || syntax == "proto3" {
			break
		}
		f := b.field(fmt.Sprintf("x%d", i), pkg, nil)
		if f.GetType() == typeGroup || f.GetLabel() == descriptorpb.FieldDescriptorProto_LABEL_REQUIRED {
			continue
		}
		if f.Options.GetFeatures() != nil {
			f.Options = nil
		}
		b.fields++
		f.Number = proto.Int32(10000 + int32(b.fields))
		f.Extendee = proto.String("." + b.extendable[g.r.IntN(len(b.extendable))])
		f.Proto3Optional = nil
		f.JsonName = nil
		p.Extension = append(p.Extension, f)
	}
	return p
}

func (b *schemaBuilder) message(m *descriptorpb.DescriptorProto, full string) {
	g := b.g
	numbers := g.r.Perm(40)
	var optional []*descriptorpb.FieldDescriptorProto
	for i := range 4 + g.r.IntN(12) {
		f := b.field(fmt.Sprintf("f_%d", i), full, m)
		f.Number = proto.Int32(int32(numbers[i]) + 1)
		if g.one(10) {
			f.Number = proto.Int32(5000 + int32(i))
		}
		switch {
		case f.GetLabel() == descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL && g.one(4) && f.GetType() != typeGroup && f.Options.GetFeatures() == nil:
			f.OneofIndex = proto.Int32(int32(g.r.IntN(2)))
		case b.syntax == "proto3" && f.GetLabel() == descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL && g.one(4):
			f.Proto3Optional = proto.Bool(true)
			optional = append(optional, f)
		}
		m.Field = append(m.Field, f)
	}
	slices.SortStableFunc(m.Field, func(a, b *descriptorpb.FieldDescriptorProto) int { // members of a oneof stand together
		group := func(f *descriptorpb.FieldDescriptorProto) int32 {
			if f.OneofIndex == nil {
				return -1
			}
			return f.GetOneofIndex()
		}
		return int(group(a) - group(b))
	})
	used := map[int32]int32{}
	for _, f := range m.GetField() {
		if f.OneofIndex == nil {
			continue
		}
		if _, ok := used[f.GetOneofIndex()]; !ok {
			used[f.GetOneofIndex()] = int32(len(m.OneofDecl))
			m.OneofDecl = append(m.OneofDecl, &descriptorpb.OneofDescriptorProto{Name: proto.String(fmt.Sprintf("o%d", len(m.OneofDecl)))})
		}
		f.OneofIndex = proto.Int32(used[f.GetOneofIndex()])
	}
	for _, f := range optional {
		f.OneofIndex = proto.Int32(int32(len(m.OneofDecl)))
		m.OneofDecl = append(m.OneofDecl, &descriptorpb.OneofDescriptorProto{Name: proto.String("_" + f.GetName())})
	}
	seen := map[int32]bool{}
	for _, f := range m.GetField() {
		for seen[f.GetNumber()] {
			f.Number = proto.Int32(f.GetNumber() + 41)
		}
		seen[f.GetNumber()] = true
	}
}

// field makes a field; m, if not nil, takes the types that it needs.
func (b *schemaBuilder) field(name, scope string, m *descriptorpb.DescriptorProto) *descriptorpb.FieldDescriptorProto {
	g := b.g
	f := &descriptorpb.FieldDescriptorProto{Name: proto.String(name), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()}
	switch g.r.IntN(6) {
	case 0, 1:
		f.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
	case 2:
		if b.syntax == "proto2" {
			f.Label = descriptorpb.FieldDescriptorProto_LABEL_REQUIRED.Enum()
		}
	}
	if m != nil && g.one(5) {
		b.mapField(f, scope, m)
		return f
	}
	b.typed(f)
	if m != nil && b.syntax == "proto2" && g.one(8) {
		group := &descriptorpb.DescriptorProto{Name: proto.String("G" + strings.TrimPrefix(name, "f"))}
		for i := range 3 {
			part := b.field(fmt.Sprintf("g_%d", i), scope, nil)
			part.Number = proto.Int32(int32(i) + 1)
			group.Field = append(group.Field, part)
		}
		m.NestedType = append(m.NestedType, group)
		f.Name = proto.String(strings.ToLower(group.GetName()))
		f.Type, f.TypeName = typeGroup.Enum(), proto.String("."+scope+"."+group.GetName())
		return f
	}
	if g.one(8) {
		f.JsonName = proto.String([]string{"@" + name, "Ü" + name, name + `"x`, name}[g.r.IntN(4)])
	}
	repeated := f.GetLabel() == descriptorpb.FieldDescriptorProto_LABEL_REPEATED
	scalar := f.GetType() != typeMessage && f.GetType() != descriptorpb.FieldDescriptorProto_TYPE_STRING && f.GetType() != descriptorpb.FieldDescriptorProto_TYPE_BYTES
	if b.syntax != "editions" {
		if repeated && scalar && g.one(2) {
			f.Options = &descriptorpb.FieldOptions{Packed: proto.Bool(g.one(2))}
		}
		return f
	}
	features := &descriptorpb.FeatureSet{}
	switch {
	case repeated && scalar && g.one(2):
		features.RepeatedFieldEncoding = descriptorpb.FeatureSet_EXPANDED.Enum()
	case f.GetType() == typeMessage && g.one(2):
		features.MessageEncoding = descriptorpb.FeatureSet_DELIMITED.Enum()
	case f.GetType() == descriptorpb.FieldDescriptorProto_TYPE_STRING && g.one(2):
		features.Utf8Validation = descriptorpb.FeatureSet_NONE.Enum()
	case !repeated && scalar && f.GetType() != typeEnum && g.one(2):
		features.FieldPresence = descriptorpb.FeatureSet_IMPLICIT.Enum()
	case !repeated && g.one(4):
		features.FieldPresence = descriptorpb.FeatureSet_LEGACY_REQUIRED.Enum()
	default:
		features.FieldPresence = descriptorpb.FeatureSet_EXPLICIT.Enum()
		if repeated {
			return f
		}
	}
	f.Options = &descriptorpb.FieldOptions{Features: features}
	return f
}

func (b *schemaBuilder) typed(f *descriptorpb.FieldDescriptorProto) {
	g := b.g
	kind := descriptorpb.FieldDescriptorProto_Type(1 + g.r.IntN(22))
	switch {
	case kind > 18:
		f.Type, f.TypeName = typeMessage.Enum(), proto.String(".google.protobuf."+knownNames[g.r.IntN(len(knownNames))])
	case kind == typeGroup || kind == typeMessage:
		f.Type, f.TypeName = typeMessage.Enum(), proto.String("."+b.names[g.r.IntN(len(b.names))])
	case kind == typeEnum:
		name := b.enums[g.r.IntN(len(b.enums))]
		if b.syntax == "proto3" || b.syntax == "editions" {
			// Only open enums may be fields of proto3, or have no presence.
			for b.closed[name] {
				name = b.enums[g.r.IntN(len(b.enums))]
			}
		}
		if g.one(4) {
			name = "google.protobuf.NullValue"
		}
		f.Type, f.TypeName = typeEnum.Enum(), proto.String("."+name)
	default:
		f.Type = kind.Enum()
	}
}

func (b *schemaBuilder) mapField(f *descriptorpb.FieldDescriptorProto, scope string, m *descriptorpb.DescriptorProto) {
	g := b.g
	f.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
	camel := strings.ReplaceAll("F"+f.GetName()[1:], "_", "")
	entry := &descriptorpb.DescriptorProto{Name: proto.String(camel + "Entry"), Options: &descriptorpb.MessageOptions{MapEntry: proto.Bool(true)}}
	keys := []descriptorpb.FieldDescriptorProto_Type{3, 4, 5, 6, 7, 8, 9, 9, 9, 13, 15, 16, 17, 18}
	key := &descriptorpb.FieldDescriptorProto{
		Name: proto.String("key"), Number: proto.Int32(1), Type: keys[g.r.IntN(len(keys))].Enum(),
		Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
	}
	value := &descriptorpb.FieldDescriptorProto{Name: proto.String("value"), Number: proto.Int32(2), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()}
	for {
		value.TypeName = nil
		if b.typed(value); value.GetType() != typeEnum || !b.first[value.GetTypeName()] {
			break
		}
	}
	entry.Field = []*descriptorpb.FieldDescriptorProto{key, value}
	m.NestedType = append(m.NestedType, entry)
	f.Type, f.TypeName = typeMessage.Enum(), proto.String("."+scope+"."+entry.GetName())
}

// noise is some bytes of unknown fields.
func (g *generator) noise() []byte {
	var b []byte
	for range g.r.IntN(3) {
		n := protowire.Number(3000 + g.r.IntN(3))
		switch g.r.IntN(3) {
		case 0:
			b = protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), g.r.Uint64())
		case 1:
			b = protowire.AppendString(protowire.AppendTag(b, n, protowire.BytesType), g.text())
		default:
			b = protowire.AppendTag(b, n, protowire.StartGroupType)
			b = protowire.AppendVarint(protowire.AppendTag(b, 1, protowire.VarintType), 5)
			b = protowire.AppendTag(b, n, protowire.EndGroupType)
		}
	}
	return b
}

func (g *generator) fillMessage(m protoreflect.Message, depth int) protoreflect.Message {
	if depth > 0 && g.one(3) {
		m.SetUnknown(g.noise())
	}
	md := m.Descriptor()
	fields := md.Fields()
	switch md.FullName() {
	case "google.protobuf.Timestamp", "google.protobuf.Duration":
		m.Set(fields.ByNumber(1), protoreflect.ValueOfInt64(g.r.Int64N(1<<39)-1<<37))
		m.Set(fields.ByNumber(2), protoreflect.ValueOfInt32(g.r.Int32N(1000)*[]int32{0, 1, 1000, 1000000, -1}[g.r.IntN(5)]))
		return m
	case "google.protobuf.FieldMask":
		list := m.Mutable(fields.ByNumber(1)).List()
		paths := []string{"a", "foo_bar", "x.y_z", "a1_b", "_x"}
		if g.one(8) {
			paths = []string{"fooBar", "a__b", "a_1", "a_", "a..b", "", "1", "a b"}
		}
		for range g.r.IntN(4) {
			list.Append(protoreflect.ValueOfString(paths[g.r.IntN(len(paths))]))
		}
		return m
	case "google.protobuf.Any":
		g.fillAny(m, depth)
		return m
	case "google.protobuf.Value":
		if g.one(20) {
			return m
		}
		n := 1 + g.r.IntN(4)
		if depth < 4 {
			n = 1 + g.r.IntN(6)
		}
		fd := fields.ByNumber(protoreflect.FieldNumber(n))
		switch {
		case fd.Message() != nil:
			g.fillMessage(m.Mutable(fd).Message(), depth+1)
		case fd.Kind() == protoreflect.DoubleKind && !g.one(10):
			m.Set(fd, protoreflect.ValueOfFloat64(float64(g.r.IntN(1000))/8))
		default:
			m.Set(fd, g.scalar(fd))
		}
		return m
	}
	for i := range fields.Len() {
		fd := fields.Get(i)
		if g.r.Float64() > 0.4 || depth > 4 || fd.Message() != nil && g.r.Float64() > math.Pow(0.7, float64(depth)) {
			continue
		}
		g.fillField(m, fd, depth)
	}
	if depth < 3 {
		ranges := md.ExtensionRanges()
		for n := protoreflect.FieldNumber(10000); ranges.Has(n) && n < 10100; n++ {
			if xt, err := g.ref.FindExtensionByNumber(md.FullName(), n); err == nil && g.one(2) {
				g.fillField(m, xt.TypeDescriptor(), depth)
			}
		}
	}
	return m
}

func (g *generator) fillField(m protoreflect.Message, fd protoreflect.FieldDescriptor, depth int) {
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

func (g *generator) fillAny(m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	if depth > 4 || g.one(10) {
		return
	}
	name := g.names[g.r.IntN(len(g.names))]
	if g.one(2) {
		name = "google.protobuf." + knownNames[g.r.IntN(len(knownNames))]
	}
	inner := g.fillMessage(g.ref.new(name), depth+1)
	b, err := proto.MarshalOptions{AllowPartial: true}.Marshal(inner.Interface())
	if err != nil {
		panic(err)
	}
	if g.one(20) {
		b = append(b, 0xff)
	}
	if g.one(20) {
		name = "no.such.Type"
	}
	m.Set(fields.ByNumber(1), protoreflect.ValueOfString([]string{"type.googleapis.com/", "x/", "a/b/", ""}[g.r.IntN(4)]+name))
	m.Set(fields.ByNumber(2), protoreflect.ValueOfBytes(b))
}

func (g *generator) scalar(fd protoreflect.FieldDescriptor) protoreflect.Value {
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(g.one(2))
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum([]protoreflect.EnumNumber{0, 1, 2, 3, 300, -5, 77}[g.r.IntN(7)])
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(int32(g.r.Uint32()) >> g.r.IntN(32))
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return protoreflect.ValueOfInt64(int64(g.r.Uint64()) >> g.r.IntN(64))
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(g.r.Uint32() >> g.r.IntN(33))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(g.r.Uint64() >> g.r.IntN(65))
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(float32(g.float()))
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(g.float())
	case protoreflect.BytesKind:
		b := make([]byte, g.r.IntN(8))
		for i := range b {
			b[i] = byte(g.r.Uint32())
		}
		return protoreflect.ValueOfBytes(b)
	default:
		s := g.text()
		strict, ok := fd.(interface{ EnforceUTF8() bool })
		if fd.Syntax() != protoreflect.Proto3 && (!ok || !strict.EnforceUTF8()) && g.one(20) {
			s += "\xff"
		}
		return protoreflect.ValueOfString(s)
	}
}

func (g *generator) float() float64 {
	all := []float64{0, 1, -1.5, 1e30, 1e-30, 1e20, 1e21, 1e-6, 9e-7, 123456789, math.NaN(), math.Inf(1), math.Inf(-1), math.Copysign(0, -1), math.Float64frombits(g.r.Uint64())}
	return all[g.r.IntN(len(all))]
}

func (g *generator) text() string {
	parts := []string{"", "a", "b/c", "ü", " ", `"\`, "\n", "\x00\x1f\x7f", "<>&", "é\u2028", "{}", "null", "\ufffd", "😀", "0123456789", "@type"}
	var b strings.Builder
	for range g.r.IntN(4) {
		b.WriteString(parts[g.r.IntN(len(parts))])
	}
	return b.String()
}
