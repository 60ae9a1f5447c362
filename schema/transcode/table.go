package transcode

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// Types are the message types and extensions of one set of files. It is safe for
// concurrent use.
type Types struct {
	files      *protoregistry.Files
	messages   map[protoreflect.FullName]*Type
	extensions map[protoreflect.FullName]map[protoreflect.FieldNumber]protoreflect.FieldDescriptor
	others     sync.Map // protoreflect.MessageDescriptor to *Type: types that no file declares
	enums      sync.Map // protoreflect.EnumDescriptor to *enumTable
}

// NewTypes returns the types of files. Nothing is compiled yet.
func NewTypes(files *protoregistry.Files) *Types {
	t := &Types{
		files:      files,
		messages:   map[protoreflect.FullName]*Type{},
		extensions: map[protoreflect.FullName]map[protoreflect.FieldNumber]protoreflect.FieldDescriptor{},
	}
	files.RangeFiles(func(fd protoreflect.FileDescriptor) bool {
		t.addExtensions(fd.Extensions())
		t.addMessages(fd.Messages())
		return true
	})
	return t
}

func (t *Types) addMessages(messages protoreflect.MessageDescriptors) {
	for i := range messages.Len() {
		md := messages.Get(i)
		t.messages[md.FullName()] = &Type{types: t, desc: md}
		t.addExtensions(md.Extensions())
		t.addMessages(md.Messages())
	}
}

func (t *Types) addExtensions(extensions protoreflect.ExtensionDescriptors) {
	for i := range extensions.Len() {
		xd := extensions.Get(i)
		name := xd.ContainingMessage().FullName()
		byNumber := t.extensions[name]
		if byNumber == nil {
			byNumber = map[protoreflect.FieldNumber]protoreflect.FieldDescriptor{}
			t.extensions[name] = byNumber
		}
		// Two extensions of one number are a mistake; which one wins must not be chance.
		if other := byNumber[xd.Number()]; other == nil || other.FullName() < xd.FullName() {
			byNumber[xd.Number()] = xd
		}
	}
}

// Message returns the type with the given full name, nil if there is none.
func (t *Types) Message(name protoreflect.FullName) *Type { return t.messages[name] }

// Of returns the type of md, which may be one that no file declares.
func (t *Types) Of(md protoreflect.MessageDescriptor) *Type {
	if m := t.messages[md.FullName()]; m != nil && m.desc == md {
		return m
	}
	m, _ := t.others.LoadOrStore(md, &Type{types: t, desc: md})
	return m.(*Type)
}

// byURL returns the type that the URL of an Any names, nil if there is none.
func (t *Types) byURL(url []byte) *Type {
	for i := len(url) - 1; i >= 0; i-- {
		if url[i] == '/' {
			url = url[i+1:]
			break
		}
	}
	return t.messages[protoreflect.FullName(url)]
}

// Type is the table of one message type. It is immutable and safe for concurrent
// use; its fields are compiled when it is first used.
type Type struct {
	types *Types
	desc  protoreflect.MessageDescriptor
	once  sync.Once

	fields  []Field // by their index, then extensions by their full name
	regular int     // how many of them are no extensions
	dense   []int32 // field number to slot + 1, for small numbers
	sparse  map[protowire.Number]int32
	byKey   map[string]int32 // JSON key to slot
	oneofs  [][]int32        // slots of the members of each oneof
	// ordered says that the order of slots is the order in which fields are written.
	ordered bool
	form    form
	missing bool // see IsMissing
	first   int32
	second  int32 // slots of the fields numbered 1 and 2, of types with a form of their own
	// spellable are the slots that an author who spells out defaults would write.
	spellable []int32
	usual     atomic.Uint32 // see note
}

// Field is one field of a message type, or the key or the value of a map.
type Field struct {
	desc     protoreflect.FieldDescriptor
	slot     int32
	rank     int32 // place in the order of writing
	number   protowire.Number
	kind     protoreflect.Kind
	list     bool
	isMap    bool
	packed   bool
	implicit bool // zero is unset
	ext      bool
	utf8     bool
	isNull   bool  // google.protobuf.NullValue
	isValue  bool  // google.protobuf.Value
	oneof    int32 // -1 if none
	message  *Type
	enum     *enumTable
	key, val *Field
	zero     uint64 // value when unset
	own      bool   // the JSON name means this field and no other
	json     string // JSON name
	text     string // name in the schema
	jsonKey  []byte // as written, with quotes and colon
	textKey  []byte
	tag      []byte // of one value
	packTag  []byte // of a packed list
	end      []byte // of a group
}

type enumTable struct {
	names   map[string]int32
	dense   [][]byte         // quoted names of small numbers
	numbers map[int32][]byte // of the others
}

func (e *enumTable) quoted(n int32) []byte {
	if n >= 0 && int(n) < len(e.dense) {
		return e.dense[n]
	}
	return e.numbers[n]
}

// Descriptor returns the descriptor of the type.
func (t *Type) Descriptor() protoreflect.MessageDescriptor { return t.desc }

func (t *Type) compiled() *Type {
	t.once.Do(t.compile)
	return t
}

func (t *Type) compile() {
	t.missing = IsMissing(t.desc)
	t.form = formOf(t.desc)
	fields := t.desc.Fields()
	t.regular = fields.Len()
	descs := make([]protoreflect.FieldDescriptor, 0, fields.Len())
	for i := range fields.Len() {
		descs = append(descs, fields.Get(i))
	}
	ranges := t.desc.ExtensionRanges()
	for number, xd := range t.types.extensions[t.desc.FullName()] {
		if ranges.Has(number) && fields.ByNumber(number) == nil {
			descs = append(descs, xd)
		}
	}
	slices.SortFunc(descs[t.regular:], func(a, b protoreflect.FieldDescriptor) int {
		return strings.Compare(string(a.FullName()), string(b.FullName()))
	})
	t.oneofs = make([][]int32, t.desc.Oneofs().Len())
	t.fields = make([]Field, len(descs))
	t.byKey = make(map[string]int32, 2*len(descs))
	t.sparse = map[protowire.Number]int32{}
	t.dense = make([]int32, min(2*len(descs)+16, 1024))
	for i, fd := range descs {
		t.types.compileField(&t.fields[i], fd)
		t.addField(i)
	}
	for i := range t.fields {
		f := &t.fields[i]
		slot, ok := t.byKey[f.json]
		f.own = ok && slot == f.slot
	}
	t.rank()
	t.first, t.second = -1, -1
	if fd := fields.ByNumber(1); fd != nil {
		t.first = int32(fd.Index())
	}
	if fd := fields.ByNumber(2); fd != nil {
		t.second = int32(fd.Index())
	}
}

func (t *Type) addField(i int) {
	f := &t.fields[i]
	f.slot = int32(i)
	if f.ext {
		f.oneof = -1
		t.byKey["["+string(f.desc.FullName())+"]"] = f.slot
	} else {
		if f.oneof >= 0 {
			t.oneofs[f.oneof] = append(t.oneofs[f.oneof], f.slot)
		}
		if f.oneof < 0 && (f.list || f.isMap || !f.desc.HasPresence()) {
			t.spellable = append(t.spellable, f.slot)
		}
		// What the descriptors themselves answer decides, clashes of names included.
		fields := t.desc.Fields()
		for _, key := range []string{f.json, f.text, string(f.desc.Name()), strings.ToLower(f.json), strings.ToLower(f.text)} {
			fd := fields.ByJSONName(key)
			if fd == nil {
				fd = fields.ByTextName(key)
			}
			if fd != nil && !isBracketed(key) {
				t.byKey[key] = int32(fd.Index())
			}
		}
	}
	if other, ok := t.slotOf(f.number); ok && other < f.slot {
		return
	}
	if int(f.number) < len(t.dense) {
		t.dense[f.number] = f.slot + 1
	} else {
		t.sparse[f.number] = f.slot
	}
}

func isBracketed(key string) bool {
	return strings.HasPrefix(key, "[") && strings.HasSuffix(key, "]")
}

func (t *Type) slotOf(n protowire.Number) (int32, bool) {
	if int(n) < len(t.dense) {
		s := t.dense[n]
		return s - 1, s > 0
	}
	s, ok := t.sparse[n]
	return s, ok
}

// rank orders the fields as protobuf writes them: extensions, then fields that
// are in no oneof, then the oneofs, each by number.
func (t *Type) rank() {
	order := make([]int32, len(t.fields))
	for i := range order {
		order[i] = int32(i)
	}
	group := func(f *Field) int {
		switch {
		case f.ext:
			return -1
		case f.oneof >= 0 && !f.desc.ContainingOneof().IsSynthetic():
			return 1 + int(f.oneof)
		default:
			return 0
		}
	}
	slices.SortFunc(order, func(a, b int32) int {
		x, y := &t.fields[a], &t.fields[b]
		if g, h := group(x), group(y); g != h {
			return g - h
		}
		return int(x.number) - int(y.number)
	})
	t.ordered = true
	for rank, slot := range order {
		t.fields[slot].rank = int32(rank)
		if int32(rank) != slot {
			t.ordered = false
		}
	}
}

// field returns the field of a descriptor, nil if the type does not have it.
func (t *Type) field(fd protoreflect.FieldDescriptor) *Field {
	slot, ok := t.compiled().slotOf(fd.Number())
	if !ok {
		return nil
	}
	return &t.fields[slot]
}

func (t *Types) compileField(f *Field, fd protoreflect.FieldDescriptor) {
	*f = Field{
		desc: fd, number: fd.Number(), kind: fd.Kind(), oneof: -1,
		list: fd.IsList(), isMap: fd.IsMap(), ext: fd.IsExtension(), packed: fd.IsPacked(),
		json: fd.JSONName(), text: fd.TextName(),
	}
	f.implicit = !f.list && !f.isMap && !f.ext && !fd.HasPresence()
	f.utf8 = fd.Syntax() == protoreflect.Proto3
	if strict, ok := fd.(interface{ EnforceUTF8() bool }); ok && !f.ext && fd.Syntax() == protoreflect.Editions {
		f.utf8 = strict.EnforceUTF8()
	}
	if of := fd.ContainingOneof(); of != nil && !f.ext {
		f.oneof = int32(of.Index())
	}
	f.jsonKey = append(quote(nil, f.json), ':')
	f.textKey = append(quote(nil, f.text), ':')
	switch {
	case f.isMap:
		f.key, f.val = &Field{}, &Field{}
		t.compileField(f.key, fd.MapKey())
		t.compileField(f.val, fd.MapValue())
		f.key.implicit, f.val.implicit = false, false
		f.tag = protowire.AppendTag(nil, f.number, protowire.BytesType)
		return
	case fd.Message() != nil:
		f.message = t.Of(fd.Message())
		f.isValue = fd.Message().FullName() == valueName
	case fd.Enum() != nil:
		f.isNull = fd.Enum().FullName() == "google.protobuf.NullValue"
		f.enum = t.enum(fd.Enum())
	}
	f.tag = protowire.AppendTag(nil, f.number, wireType(f.kind))
	f.packTag = protowire.AppendTag(nil, f.number, protowire.BytesType)
	if f.kind == protoreflect.GroupKind {
		f.end = protowire.AppendTag(nil, f.number, protowire.EndGroupType)
	}
	if !f.list && f.enum != nil {
		f.zero = uint64(int64(fd.Default().Enum()))
	}
}

// enum returns the table of an enum, which all its fields share.
func (t *Types) enum(ed protoreflect.EnumDescriptor) *enumTable {
	if e, ok := t.enums.Load(ed); ok {
		return e.(*enumTable)
	}
	values := ed.Values()
	e := &enumTable{names: make(map[string]int32, values.Len()), numbers: map[int32][]byte{}}
	for i := range values.Len() {
		v := values.Get(i)
		e.names[string(v.Name())] = int32(v.Number())
		if _, ok := e.numbers[int32(v.Number())]; !ok {
			e.numbers[int32(v.Number())] = quote(nil, string(values.ByNumber(v.Number()).Name()))
		}
	}
	for n := int32(0); n < 256; n++ {
		name, ok := e.numbers[n]
		if !ok {
			break
		}
		e.dense = append(e.dense, name)
		delete(e.numbers, n)
	}
	shared, _ := t.enums.LoadOrStore(ed, e)
	return shared.(*enumTable)
}

func quote(b []byte, s string) []byte {
	b, _ = appendString(b, []byte(s)) // names of a schema are valid
	return b
}

func wireType(k protoreflect.Kind) protowire.Type {
	switch k {
	case protoreflect.Fixed32Kind, protoreflect.Sfixed32Kind, protoreflect.FloatKind:
		return protowire.Fixed32Type
	case protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind, protoreflect.DoubleKind:
		return protowire.Fixed64Type
	case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.MessageKind:
		return protowire.BytesType
	case protoreflect.GroupKind:
		return protowire.StartGroupType
	default:
		return protowire.VarintType
	}
}
