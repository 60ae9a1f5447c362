package schema_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/execgate/execgate/schema"
)

// wire builds wire bytes from protowire calls.
func wire(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func str(n protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(nil, n, protowire.BytesType), s)
}

func msg(n protowire.Number, parts ...[]byte) []byte { return str(n, string(wire(parts...))) }

func num(n protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.VarintType), v)
}

// unknown is a field that no type of testdata/proto declares.
func unknown(s string) []byte { return str(1999, s) }

func TestJSONFollowsProtojson(t *testing.T) {
	t.Parallel()
	s := kitchen(t)
	for _, c := range []struct{ name, typ, json string }{
		{"empty", "kitchen.v1.Everything", `{}`},
		{"names", "kitchen.v1.Everything", `{"smallFloat":1.5,"@custom":"x"}`},
		{"no HTML escapes, no blanks", "kitchen.v1.Everything", `{"text":"<a href=\"b & c\"> : , \\","flag":true}`},
		{"64 bit as strings", "kitchen.v1.Everything", `{"i64":"-9007199254740993","u64":"18446744073709551615"}`},
		{"enum names", "kitchen.v1.Everything", `{"favouriteColor":"COLOR_RED","manyColors":["COLOR_BLUE",7]}`},
		{"presence", "kitchen.v1.Everything", `{"maybeText":"","maybeNumber":0}`},
		{"oneof", "kitchen.v1.Everything", `{"choiceSub":{}}`},
		{"null in oneof", "kitchen.v1.Everything", `{"choiceNull":null}`},
		{"maps", "kitchen.v1.Everything", `{"subMap":{"a":{"name":"x"}},"numberMap":{"-5":"x"},"colorMap":{"true":"COLOR_RED"}}`},
		{"floats", "kitchen.v1.Everything", `{"smallFloat":"NaN","bigFloat":"-Infinity"}`},
		{"minus zero", "kitchen.v1.Everything", `{"bigFloat":-0}`},
		{"bytes", "kitchen.v1.Everything", `{"rawBytes":"/+8="}`},
		{"well-known", "kitchen.v1.Everything", `{"createdAt":"2026-01-02T03:04:05.600Z","timeLeft":"1.500s","fieldMask":"a,fooBar.baz","freeForm":{"a":[1,null,{"b":true}]},"anyValue":null,"valueList":[1,"x"],"wrappedText":"","wrappedNumber":"7","wrappedFlag":false,"nothing":{}}`},
		{"Any", "kitchen.v1.Everything", `{"packed":{"@type":"type.googleapis.com/kitchen.v1.Sub","name":"x"},"packedList":[{"@type":"x/google.protobuf.Duration","value":"3s"}]}`},
		{"empty Any", "kitchen.v1.Everything", `{"packed":{}}`},
		{"proto2", "legacy.v1.Old", `{"name":"n","level":"LEVEL_LOW","entry":[{"key":"k","value":"1"}],"single":{"text":"t"},"blob":"","packed":[1,2]}`},
		{"extensions", "legacy.v1.Old", `{"name":"n","[legacy.v1.extra]":{"what":"w"},"[legacy.v1.nickname]":"nick","[legacy.v1.numbers]":["1","2"]}`},
		{"missing required", "legacy.v1.Old", `{"level":"LEVEL_HIGH"}`},
		{"edition", "edition.v1.Modern", `{"explicit":"","implicit":"i","delimited":{"text":"t"},"expanded":[1,2],"closed":"CLOSED_TWO"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			typ := messageType(t, s, c.typ)
			b := fromJSON(t, typ, c.json)
			m, err := typ.Decode(b)
			if err != nil {
				t.Fatal(err)
			}
			if got := jsonOf(t, m); got != c.json {
				t.Errorf("JSON\n got %s\nwant %s", got, c.json)
			}
			if err := m.Replace([]byte(c.json)); err != nil || m.Changed() {
				t.Errorf("the same content: changed %v, error %v", m.Changed(), err)
			}
		})
	}
}

func TestReplaceIsStrict(t *testing.T) {
	t.Parallel()
	s := kitchen(t)
	typ := messageType(t, s, "kitchen.v1.Everything")
	b := fromJSON(t, typ, `{"text":"before","i64":"5"}`)
	for name, json := range map[string]string{
		"empty": ``, "null": `null`, "array": `[]`, "string": `"x"`, "number": `5`, "true": `true`,
		"text": `hello`, "cut": `{"text":"a"`, "two values": `{} {}`, "trailing": `{}x`,
		"unknown field":        `{"text":"after","nope":1}`,
		"unknown field within": `{"text":"after","sub":{"nope":1}}`,
		"the envelope":         `{"fullMethod":"/a/B","request":{}}`,
		"wrong type":           `{"text":5}`,
		"bad enum":             `{"favouriteColor":"COLOR_NONE"}`,
		"out of range":         `{"i32":2147483648}`,
		"twice":                `{"text":"a","text":"b"}`,
		"two of a oneof":       `{"choiceText":"a","choiceNumber":"1"}`,
		"invalid UTF-8":        "{\"text\":\"\xff\"}",
		"unknown extension":    `{"[nope.ext]":1}`,
		"unknown Any":          `{"packed":{"@type":"x/nope.Nope"}}`,
		"too deep":             strings.Repeat(`{"sub":`, 1) + strings.Repeat(`{"child":`, 2000) + "{}" + strings.Repeat("}", 2001),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, err := typ.Decode(b)
			if err != nil {
				t.Fatal(err)
			}
			err = m.Replace([]byte(json))
			if err == nil {
				t.Fatalf("taken: %s", jsonOf(t, m))
			}
			if re := (*schema.ReplaceError)(nil); !errors.As(err, &re) || re.Type != "kitchen.v1.Everything" || re.Reason == "" {
				t.Errorf("error %v", err)
			}
			if m.Changed() {
				t.Error("changed by a refused replacement")
			}
			if got, _ := m.Wire(); !bytes.Equal(got, b) {
				t.Error("other bytes after a refused replacement")
			}
		})
	}
}

func TestErrorsNameFieldsAndNoValues(t *testing.T) {
	t.Parallel()
	typ := messageType(t, kitchen(t), "kitchen.v1.Everything")
	m, err := typ.Decode(nil)
	if err != nil {
		t.Fatal(err)
	}
	for json, want := range map[string]string{
		`{"nope":1}`:                       `(line 1:2) unknown field "nope"`,
		`{"i32":"secret"}`:                 `(line 1:8) invalid value for int32 field i32`,
		`{"favouriteColor":"secret"}`:      `(line 1:19) invalid value for enum field favouriteColor`,
		`{"text":secret}`:                  `(line 1:9) not the JSON that the type takes: text`,
		`secret`:                           `(line 1:1) not the JSON that the type takes`,
		`"secret"`:                         `(line 1:1) not the JSON that the type takes`,
		`{"createdAt":"secret"}`:           `(line 1:14) not the JSON that the type takes: createdAt`,
		`{"packed":{"@type":"secret/of"}}`: `(line 1:20) a type that is not in the schema: packed`,
		`{"text":"secret`:                  `not valid JSON: text`,
		``:                                 `(line 1:1) not the JSON that the type takes`,
		`{"text":"a","text":"secret"}`:     `(line 1:13) duplicate field "text"`,
		`{"rawBytes":"sécret"}`:            `(line 1:13) invalid value for bytes field rawBytes`,
		`{"subList":[{},{"child":{"size":"secret"}}]}`: `(line 1:33) invalid value for int64 field subList[1].child.size`,
		`{"sub":{"secret":1}}`:                         `(line 1:9) unknown field "secret": sub`,
		`{"subMap":{"secret":{"size":{}}}}`:            `(line 1:29) invalid value for int64 field subMap[*].size`,
		`{"numberMap":{"secret":""}}`:                  `(line 1:15) invalid key for int64 keys: numberMap`,
		`{"freeForm":{"a":[1,secret]}}`:                `(line 1:21) not the JSON that the type takes: freeForm[*][1]`,
		`{"choiceText":"secret","choiceNumber":1}`:     `(line 1:24) another field of its oneof is set: choiceNumber`,
		`{"fieldMask":"se_cret"}`:                      `(line 1:14) invalid path of a google.protobuf.FieldMask: fieldMask`,
	} {
		err := m.Replace([]byte(json))
		if err == nil || err.Error() != "replace kitchen.v1.Everything: "+want {
			t.Errorf("%s: %v", json, err)
		}
	}
}

func TestReplaceReplacesTheWholeMessage(t *testing.T) {
	t.Parallel()
	s := kitchen(t)
	typ := messageType(t, s, "kitchen.v1.Everything")
	for _, c := range []struct{ name, before, replace, after string }{
		{"a field left out is cleared", `{"text":"a","flag":true}`, `{"text":"a"}`, `{"text":"a"}`},
		{"an empty object clears all", `{"text":"a","sub":{"name":"x"}}`, `{}`, `{}`},
		{"names of the schema", `{}`, `{"small_float":1.5,"sub_list":[{"name":"x"}]}`, `{"smallFloat":1.5,"subList":[{"name":"x"}]}`},
		{"mixed names and blanks", `{}`, " {\n\t\"smallFloat\" : 1.5 , \"raw_bytes\": \"AA==\" } \n", `{"smallFloat":1.5,"rawBytes":"AA=="}`},
		{"enum by number, integers as numbers", `{}`, `{"favouriteColor":2,"i64":5,"i32":"6","u64":1e3}`, `{"i32":6,"i64":"5","u64":"1000","favouriteColor":"COLOR_BLUE"}`},
		{"null is unset", `{"text":"a","sub":{}}`, `{"text":null,"sub":null}`, `{}`},
		{"URL-safe base64", `{}`, `{"rawBytes":"_-8"}`, `{"rawBytes":"/+8="}`},
		{"escapes", `{}`, `{"text":"\u003ca\u003e"}`, `{"text":"<a>"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m, err := typ.Decode(fromJSON(t, typ, c.before))
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Replace([]byte(c.replace)); err != nil {
				t.Fatal(err)
			}
			if got := jsonOf(t, m); got != c.after {
				t.Errorf("got %s, want %s", got, c.after)
			}
			if m.Changed() != (c.before != c.after) {
				t.Errorf("changed: %v", m.Changed())
			}
			b, err := m.Wire()
			if err != nil {
				t.Fatal(err)
			}
			again, err := typ.Decode(b)
			if err != nil {
				t.Fatal(err)
			}
			if got := jsonOf(t, again); got != c.after {
				t.Errorf("on the wire %s, want %s", got, c.after)
			}
		})
	}
}

func TestUnchangedContentKeepsItsBytes(t *testing.T) {
	t.Parallel()
	s := kitchen(t)
	typ := messageType(t, s, "kitchen.v1.Everything")
	// Fields out of order, a scalar twice, an unpacked list, a default spelled out.
	b := wire(num(4, 9), str(1, "x"), num(22, 1), num(22, 2), str(1, "y"), num(3, 0), unknown("u"))
	m, err := typ.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	for _, json := range []string{`{"text":"y","i64":"9","manyNumbers":["1","2"]}`, `{ "many_numbers":[1,2], "i64":9, "text":"y" }`} {
		if err := m.Replace([]byte(json)); err != nil {
			t.Fatal(err)
		}
		if got, _ := m.Wire(); m.Changed() || !bytes.Equal(got, b) {
			t.Errorf("%s counts as a change", json)
		}
	}
	// There and back again is no change either.
	for _, json := range []string{`{"text":"z"}`, `{"text":"y","i64":"9","manyNumbers":["1","2"]}`} {
		if err := m.Replace([]byte(json)); err != nil {
			t.Fatal(err)
		}
	}
	if got, _ := m.Wire(); m.Changed() || !bytes.Equal(got, b) {
		t.Error("a change that was taken back counts as one")
	}
	if err := m.Replace([]byte(`{}`)); err != nil || !m.Changed() {
		t.Fatal(err)
	}
	m.Reset()
	if got, _ := m.Wire(); m.Changed() || !bytes.Equal(got, b) || jsonOf(t, m) != `{"text":"y","i64":"9","manyNumbers":["1","2"]}` {
		t.Error("Reset does not bring back what was decoded")
	}
}

func TestUnknownFieldsSurviveAReplacement(t *testing.T) {
	t.Parallel()
	s := kitchen(t)
	any := func(parts ...[]byte) []byte {
		return wire(str(1, "type.googleapis.com/kitchen.v1.Sub"), msg(2, parts...))
	}
	for _, c := range []struct {
		name, typ string
		before    []byte
		json      string
		after     []byte
	}{
		{"at the top level", "kitchen.v1.Everything", wire(str(1, "a"), unknown("u"), num(1998, 3)), `{"text":"b"}`, wire(str(1, "b"), unknown("u"), num(1998, 3))},
		{"at the top level of an emptied message", "kitchen.v1.Everything", wire(str(1, "a"), unknown("u")), `{}`, unknown("u")},
		{"in a sub-message that stays", "kitchen.v1.Everything", msg(17, str(1, "a"), unknown("u")), `{"sub":{"name":"b"}}`, msg(17, str(1, "b"), unknown("u"))},
		{"in an emptied sub-message that stays", "kitchen.v1.Everything", msg(17, str(1, "a"), unknown("u")), `{"sub":{}}`, msg(17, unknown("u"))},
		{"two levels down", "kitchen.v1.Everything", msg(17, msg(3, str(1, "a"), unknown("u"))), `{"sub":{"child":{"name":"b"}}}`, msg(17, msg(3, str(1, "b"), unknown("u")))},
		{"not in a sub-message that goes", "kitchen.v1.Everything", wire(str(1, "a"), msg(17, unknown("u"))), `{"text":"a"}`, str(1, "a")},
		{"not in a sub-message that comes", "kitchen.v1.Everything", nil, `{"sub":{"name":"b"}}`, msg(17, str(1, "b"))},
		{"in a oneof that stays", "kitchen.v1.Everything", msg(27, str(1, "a"), unknown("u")), `{"choiceSub":{"name":"b"}}`, msg(27, str(1, "b"), unknown("u"))},
		{"not in a oneof that goes", "kitchen.v1.Everything", msg(27, unknown("u")), `{"choiceText":"b"}`, str(26, "b")},
		{
			"in map entries by key", "kitchen.v1.Everything",
			wire(msg(19, str(1, "a"), msg(2, unknown("ua"))), msg(19, str(1, "b"), msg(2, unknown("ub")))),
			`{"subMap":{"b":{"name":"x"},"c":{}}}`,
			wire(msg(19, str(1, "b"), msg(2, str(1, "x"), unknown("ub"))), msg(19, str(1, "c"), msg(2))),
		},
		{
			"in list elements by position", "kitchen.v1.Everything",
			wire(msg(18, str(1, "a"), unknown("u1")), msg(18, str(1, "b"), unknown("u2"))),
			`{"subList":[{"name":"b"},{"name":"a"}]}`,
			wire(msg(18, str(1, "b"), unknown("u1")), msg(18, str(1, "a"), unknown("u2"))),
		},
		{
			"not in a list that grows", "kitchen.v1.Everything",
			wire(msg(18, str(1, "a"), unknown("u1"))), `{"subList":[{"name":"a"},{}]}`, wire(msg(18, str(1, "a")), msg(18)),
		},
		{
			"not in a list that shrinks", "kitchen.v1.Everything",
			wire(msg(18, str(1, "a"), unknown("u1")), msg(18)), `{"subList":[{"name":"a"}]}`, msg(18, str(1, "a")),
		},
		{
			"within an Any of the same type", "kitchen.v1.Everything",
			msg(36, any(str(1, "a"), unknown("u"))), `{"packed":{"@type":"type.googleapis.com/kitchen.v1.Sub","name":"b"}}`,
			msg(36, any(str(1, "b"), unknown("u"))),
		},
		{
			"beside the type of an Any", "kitchen.v1.Everything",
			msg(36, any(str(1, "a")), unknown("u")), `{"packed":{"@type":"x/google.protobuf.Empty","value":{}}}`,
			msg(36, str(1, "x/google.protobuf.Empty"), unknown("u")),
		},
		{"in a Timestamp", "kitchen.v1.Everything", msg(30, num(1, 1), unknown("u")), `{"createdAt":"1970-01-01T00:00:02Z"}`, msg(30, num(1, 2), unknown("u"))},
		{"in a wrapper", "kitchen.v1.Everything", msg(39, num(1, 1), unknown("u")), `{"wrappedNumber":"2"}`, msg(39, num(1, 2), unknown("u"))},
		{"in an extension", "legacy.v1.Old", msg(101, str(1, "a"), unknown("u")), `{"[legacy.v1.extra]":{"what":"b"}}`, msg(101, str(1, "b"), unknown("u"))},
		{
			"in groups", "legacy.v1.Old",
			wire(protowire.AppendTag(nil, 4, protowire.StartGroupType), str(1, "a"), unknown("u"), protowire.AppendTag(nil, 4, protowire.EndGroupType)),
			`{"single":{"text":"b"}}`,
			wire(protowire.AppendTag(nil, 4, protowire.StartGroupType), str(1, "b"), unknown("u"), protowire.AppendTag(nil, 4, protowire.EndGroupType)),
		},
		{"an unknown group", "kitchen.v1.Everything", wire(protowire.AppendTag(nil, 99, protowire.StartGroupType), str(1, "a"), protowire.AppendTag(nil, 99, protowire.EndGroupType)), `{"text":"b"}`, wire(str(1, "b"), protowire.AppendTag(nil, 99, protowire.StartGroupType), str(1, "a"), protowire.AppendTag(nil, 99, protowire.EndGroupType))},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m, err := messageType(t, s, c.typ).Decode(c.before)
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Replace([]byte(c.json)); err != nil {
				t.Fatal(err)
			}
			got, err := m.Wire()
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, c.after) {
				t.Errorf("got  %q\nwant %q", got, c.after)
			}
		})
	}
}

func TestUnknownFieldsAloneAreNoChange(t *testing.T) {
	t.Parallel()
	s := kitchen(t)
	typ := messageType(t, s, "kitchen.v1.Everything")
	b := wire(unknown("top"), msg(17, unknown("sub")), msg(36, unknown("any"), str(1, "x/kitchen.v1.Sub"), msg(2, num(2, 1), str(1, "late"), unknown("in"))),
		msg(19, str(1, "k"), msg(2, unknown("map"))), num(46, 7), num(16, 99))
	m, err := typ.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	// Not the very bytes, which is a shorter way.
	if err := m.Replace(append([]byte(" "), jsonOf(t, m)...)); err != nil {
		t.Fatal(err)
	}
	if got, _ := m.Wire(); m.Changed() || !bytes.Equal(got, b) {
		t.Errorf("an echo is a change: %q", got)
	}
}

func TestWhatDoesNotDecode(t *testing.T) {
	t.Parallel()
	s := kitchen(t)
	// Any in Any in Any, as deep as it gets.
	deepAny := wire(str(1, "x/kitchen.v1.Sub"), msg(2))
	for range 200 {
		deepAny = wire(str(1, "x/google.protobuf.Any"), str(2, string(deepAny)))
	}
	deep := []byte{}
	for range 1500 {
		deep = msg(3, deep)
	}
	for name, c := range map[string]struct {
		typ string
		b   []byte
	}{
		"cut":                    {"kitchen.v1.Everything", []byte{0x0a, 5, 'x'}},
		"wrong wire type of tag": {"kitchen.v1.Everything", []byte{0x0f}},
		"field number 0":         {"kitchen.v1.Everything", []byte{0x02, 0}},
		"invalid UTF-8":          {"kitchen.v1.Everything", str(1, "\xff")},
		"invalid UTF-8 below":    {"kitchen.v1.Everything", msg(17, str(1, "\xff"))},
		"invalid UTF-8 in a map": {"kitchen.v1.Everything", msg(19, str(1, "\xff"))},
		"unclosed group":         {"legacy.v1.Old", protowire.AppendTag(nil, 4, protowire.StartGroupType)},
		"unknown Any":            {"kitchen.v1.Everything", msg(36, str(1, "x/nope.Nope"))},
		"broken Any":             {"kitchen.v1.Everything", msg(36, str(1, "x/kitchen.v1.Sub"), str(2, "\xff"))},
		"Any without a type":     {"kitchen.v1.Everything", msg(36, str(2, "x"))},
		"deep":                   {"kitchen.v1.Sub", deep},
		"deep Any":               {"kitchen.v1.Everything", msg(36, deepAny)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, err := messageType(t, s, c.typ).Decode(c.b)
			if err == nil {
				t.Fatalf("decodes: %s", jsonOf(t, m))
			}
			de := (*schema.DecodeError)(nil)
			if !errors.As(err, &de) || de.Type != c.typ || err.Error() != "decode "+c.typ {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestWhatHasNoJSON(t *testing.T) {
	t.Parallel()
	s := kitchen(t)
	for name, c := range map[string]struct {
		typ string
		b   []byte
	}{
		"Timestamp out of range":   {"kitchen.v1.Everything", msg(30, num(1, 1<<60))},
		"Duration of two minds":    {"kitchen.v1.Everything", msg(31, num(1, 1), num(2, 1<<64-1))},
		"FieldMask without a way":  {"kitchen.v1.Everything", msg(32, str(1, "fooBar"))},
		"Value of no kind":         {"kitchen.v1.Everything", msg(34)},
		"proto2 string, not UTF-8": {"legacy.v1.Old", str(1, "\xff")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, err := messageType(t, s, c.typ).Decode(c.b)
			if err != nil {
				t.Fatal(err)
			}
			de := (*schema.DecodeError)(nil)
			if b, err := m.JSON(); !errors.As(err, &de) {
				t.Errorf("JSON %s, error %v", b, err)
			}
			if got, _ := m.Wire(); !bytes.Equal(got, c.b) {
				t.Error("the bytes are gone")
			}
			// A target may still set things right.
			if err := m.Replace([]byte(`{}`)); err != nil || !m.Changed() {
				t.Errorf("changed %v, error %v", m.Changed(), err)
			}
		})
	}
}

func FuzzEchoIsNoChange(f *testing.F) {
	s := kitchen(f)
	types := []*schema.MessageType{
		messageType(f, s, "kitchen.v1.Everything"), messageType(f, s, "legacy.v1.Old"), messageType(f, s, "edition.v1.Modern"),
	}
	seeds := []string{
		`{"text":"a","i64":"5","favouriteColor":"COLOR_RED","sub":{"name":"x","child":{}},"subList":[{},{"name":"y"}],"subMap":{"k":{}},"manyNumbers":["1"]}`,
		`{"createdAt":"2026-01-02T03:04:05Z","timeLeft":"1.5s","freeForm":{"a":[1,null]},"anyValue":null,"packed":{"@type":"x/kitchen.v1.Sub","name":"n"}}`,
		`{"packed":{"@type":"x/google.protobuf.Any","value":{"@type":"x/kitchen.v1.Everything","anyValue":[1]}},"choiceNull":null}`,
	}
	for _, seed := range seeds {
		f.Add(uint8(0), fromJSON(f, types[0], seed))
	}
	f.Add(uint8(1), fromJSON(f, types[1], `{"name":"n","entry":[{"key":"k"}],"[legacy.v1.extra]":{"what":"w"},"[legacy.v1.numbers]":["1"]}`))
	f.Add(uint8(2), fromJSON(f, types[2], `{"explicit":"","delimited":{"text":"t"},"closed":"CLOSED_ONE"}`))
	f.Add(uint8(0), wire(unknown("u"), num(46, 9), num(29, 3), msg(34, num(1, 8)), msg(36, unknown("a"))))
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		original := bytes.Clone(b)
		m, err := types[int(which)%len(types)].Decode(b)
		if err != nil {
			return
		}
		json, err := m.JSON()
		if err != nil {
			return
		}
		if err := m.Replace(append([]byte(" "), json...)); err != nil {
			t.Fatalf("own JSON refused: %v\n%s", err, json)
		}
		got, err := m.Wire()
		if err != nil || m.Changed() || !bytes.Equal(got, original) {
			t.Fatalf("an echo changes the message: %v\n%s\n%q\n%q", err, json, original, got)
		}
	})
}
