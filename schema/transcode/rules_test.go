package transcode_test

import (
	"bytes"
	"context"
	"errors"
	"math"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/execgate/execgate/schema/transcode"
)

const everything = "kitchen.v1.Everything"

var kitchenFiles = sync.OnceValues(func() (*protoregistry.Files, error) {
	c := protocompile.Compiler{Resolver: protocompile.WithStandardImports(
		&protocompile.SourceResolver{ImportPaths: []string{filepath.Join("..", "testdata", "proto"), filepath.Join("..", "..", "proto")}})}
	compiled, err := c.Compile(context.Background(), "kitchen.proto", "legacy.proto", "edition.proto")
	if err != nil {
		return nil, err
	}
	files := &protoregistry.Files{}
	var add func(fd protoreflect.FileDescriptor) error
	add = func(fd protoreflect.FileDescriptor) error {
		if _, err := files.FindFileByPath(fd.Path()); err == nil {
			return nil
		}
		for i := range fd.Imports().Len() {
			if err := add(fd.Imports().Get(i).FileDescriptor); err != nil {
				return err
			}
		}
		return files.RegisterFile(fd)
	}
	for _, fd := range compiled {
		if err := add(fd); err != nil {
			return nil, err
		}
	}
	return files, nil
})

func kitchen(tb testing.TB) pair {
	tb.Helper()
	files, err := kitchenFiles()
	if err != nil {
		tb.Fatal(err)
	}
	return pair{newReference(files), transcode.NewTypes(files)}
}

func wire(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func str(n protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(nil, n, protowire.BytesType), s)
}

func msg(n protowire.Number, parts ...[]byte) []byte { return str(n, string(wire(parts...))) }

func num(n protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.VarintType), v)
}

func group(n protowire.Number, parts ...[]byte) []byte {
	return wire(protowire.AppendTag(nil, n, protowire.StartGroupType), wire(parts...), protowire.AppendTag(nil, n, protowire.EndGroupType))
}

func TestWireRules(t *testing.T) {
	t.Parallel()
	p := kitchen(t)
	for _, c := range []struct {
		name, typ string
		b         []byte
		json      string
	}{
		{"the last scalar wins", everything, wire(str(1, "a"), num(3, 1), str(1, "b"), num(3, 2)), `{"text":"b","i32":2}`},
		{"a last zero unsets", everything, wire(num(3, 1), num(3, 0)), `{}`},
		{"a last zero is a value with presence", everything, wire(num(25, 1), num(25, 0)), `{"maybeNumber":0}`},
		{"messages merge", everything, wire(msg(17, str(1, "a"), num(2, 1)), str(1, "x"), msg(17, num(2, 2), str(4, "t")), msg(17, str(4, "u"))), `{"text":"x","sub":{"name":"a","size":"2","tags":["t","u"]}}`},
		{"messages merge at depth", everything, wire(msg(17, msg(3, str(1, "a"))), msg(17, msg(3, num(2, 5)), str(1, "b"))), `{"sub":{"name":"b","child":{"name":"a","size":"5"}}}`},
		{"list elements do not merge", everything, wire(msg(18, str(1, "a")), msg(18, num(2, 1))), `{"subList":[{"name":"a"},{"size":"1"}]}`},
		{"the last member of a oneof wins", everything, wire(str(26, "a"), num(28, 5)), `{"choiceNumber":"5"}`},
		{"a member that comes back begins anew", everything, wire(msg(27, str(1, "a")), str(26, "x"), msg(27, num(2, 1))), `{"choiceSub":{"size":"1"}}`},
		{"a member that stays merges", everything, wire(msg(27, str(1, "a")), msg(27, num(2, 1))), `{"choiceSub":{"name":"a","size":"1"}}`},
		{"a oneof cleared within a merged message", "kitchen.v1.GetRequest", wire(msg(16, str(26, "a")), msg(16, num(28, 1))), `{"body":{"choiceNumber":"1"}}`},
		{"packed, unpacked, mixed", everything, wire(num(22, 1), msg(22, []byte{2, 3}), num(22, 4), msg(22), msg(22, []byte{0x85, 0})), `{"manyNumbers":["1","2","3","4","5"]}`},
		{"lists that take turns", everything, wire(num(22, 1), num(23, 1), num(22, 2), num(23, 2), num(22, 3)), `{"manyNumbers":["1","2","3"],"manyColors":["COLOR_RED","COLOR_BLUE"]}`},
		{"fields against their order", everything, wire(num(46, 1), num(25, 2), str(24, "m"), num(6, 5), str(1, "a")), `{"text":"a","u64":"5","maybeText":"m","maybeNumber":2,"nullValue":null}`},
		{"the last value of a key wins, whole", everything, wire(msg(19, str(1, "k"), msg(2, str(1, "a"))), msg(19, str(1, "j")), msg(19, str(1, "k"), msg(2, num(2, 1)))), `{"subMap":{"j":{},"k":{"size":"1"}}}`},
		{"a value twice in one entry merges", everything, msg(19, msg(2, str(1, "a")), str(1, "k"), msg(2, num(2, 1))), `{"subMap":{"k":{"name":"a","size":"1"}}}`},
		{"an entry without key and value", everything, wire(msg(20), msg(21), msg(19)), `{"subMap":{"":{}},"numberMap":{"0":""},"colorMap":{"false":"COLOR_UNSPECIFIED"}}`},
		{"keys in order", everything, wire(msg(20, num(1, 10)), msg(20, num(1, math.MaxUint64)), msg(20, num(1, 9))), `{"numberMap":{"-1":"","9":"","10":""}}`},
		{"a field in the wrong form is unknown", everything, wire(num(1, 5), str(3, "x"), num(17, 1)), `{}`},
		{"unknown enum numbers", everything, wire(num(16, 77), num(23, 1<<32+1)), `{"favouriteColor":77,"manyColors":["COLOR_RED"]}`},
		{"truncated integers", everything, wire(num(3, 1<<32+7), num(5, 1<<40+8), num(7, 1<<35+3), num(2, 9)), `{"flag":true,"i32":7,"u32":8,"s32":-2}`},
		{"groups", "legacy.v1.Old", wire(group(3, str(1, "k")), group(4, str(1, "a")), group(3, num(2, 1)), group(4, group(9, num(1, 1)))), `{"entry":[{"key":"k"},{"value":"1"}],"single":{"text":"a"}}`},
		{"a delimited field", "edition.v1.Modern", group(3, str(1, "a")), `{"delimited":{"text":"a"}}`},
		{"a delimited field with a length is unknown", "edition.v1.Modern", msg(3, str(1, "a")), `{}`},
		{"extensions", "legacy.v1.Old", wire(num(102, 1), msg(101, str(1, "w")), str(100, "n"), num(102, 2)), `{"[legacy.v1.extra]":{"what":"w"},"[legacy.v1.nickname]":"n","[legacy.v1.numbers]":["1","2"]}`},
		{"a closed enum keeps what it does not know", "legacy.v1.Old", num(2, 9), `{"level":9}`},
		{"UTF-8 that nobody checks", "edition.v1.Modern", str(6, "\xff"), `{"anything":"/w=="}`},
		{"an Any in parts", everything, wire(msg(36, str(2, string(str(1, "a")))), msg(36, str(1, "x/kitchen.v1.Sub"))), `{"packed":{"@type":"x/kitchen.v1.Sub","name":"a"}}`},
		{"long tags and lengths", everything, []byte{0x8a, 0x80, 0, 0x81, 0, 'a'}, `{"text":"a"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, _ := p.wire(t, c.typ, c.b)
			if got == nil {
				t.Fatal("refused")
			}
			if b, err := got.AppendJSON(nil, transcode.Style{}); err != nil || string(b) != c.json {
				t.Errorf("got %s, error %v, want %s", b, err, c.json)
			}
		})
	}
}

func TestWireThatIsRefused(t *testing.T) {
	t.Parallel()
	p := kitchen(t)
	deep := func(n int) []byte {
		var b []byte
		for range n {
			b = msg(3, b)
		}
		return b
	}
	for name, c := range map[string]struct {
		typ string
		b   []byte
	}{
		"cut":                           {everything, []byte{0x0a, 5, 'x'}},
		"cut in a cleared message":      {everything, wire(msg(27, []byte{0x0a}), str(26, "x"))},
		"cut in a packed list":          {everything, msg(22, []byte{0x80})},
		"cut in a map":                  {everything, msg(20, []byte{0x08})},
		"reserved wire type":            {everything, []byte{0x0e}},
		"field number 0":                {everything, []byte{2, 0}},
		"field number too large":        {everything, protowire.AppendVarint(nil, 1<<32)},
		"a varint too long":             {everything, append([]byte{0x18}, bytes.Repeat([]byte{0x80}, 10)...)},
		"a length beyond all":           {everything, append([]byte{0x0a}, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1)},
		"the end of no group":           {"legacy.v1.Old", protowire.AppendTag(nil, 4, protowire.EndGroupType)},
		"the end of another group":      {"legacy.v1.Old", wire(protowire.AppendTag(nil, 4, protowire.StartGroupType), protowire.AppendTag(nil, 3, protowire.EndGroupType))},
		"no end of a group":             {"legacy.v1.Old", protowire.AppendTag(nil, 4, protowire.StartGroupType)},
		"invalid UTF-8":                 {everything, str(1, "\xff")},
		"invalid UTF-8 in a key":        {everything, msg(19, str(1, "\xff"))},
		"invalid UTF-8, unset later":    {everything, wire(str(1, "\xff"), str(1, "a"))},
		"too deep":                      {"kitchen.v1.Sub", deep(testDepth)},
		"an Any of nothing known":       {everything, msg(36, str(1, "x/nope.Nope"))},
		"an Any without a type":         {everything, msg(36, str(2, "x"))},
		"broken content of an Any":      {everything, msg(36, str(1, "x/kitchen.v1.Sub"), str(2, "\xff"))},
		"content nested too deep":       {everything, msg(36, str(1, "x/kitchen.v1.Sub"), str(2, string(deep(100))))},
		"unknown groups without an end": {everything, bytes.Repeat(protowire.AppendTag(nil, 99, protowire.StartGroupType), 10002)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, _ := p.wire(t, c.typ, c.b); got != nil {
				t.Error("taken")
			}
		})
	}
	if got, _ := p.wire(t, "kitchen.v1.Sub", deep(testDepth-1)); got == nil {
		t.Error("refused, but just not too deep")
	}
}

func TestJSONRules(t *testing.T) {
	t.Parallel()
	p := kitchen(t)
	for _, c := range []struct {
		field       string // of Everything
		take, leave string // values that are taken and not, by bars
	}{
		{"i32", `1|-1|1e3|1.0|100e-2|0.5e1|-0|0e5|1e|"1"|"1e3"|"-0.0"|2147483647|-2147483648|null|"\u0031"`, `2147483648|-2147483649|1.5|0.5|1e10|"x"|""|" 1"|"1 "|"1\n"|true|[]|{}|+1|01|.5|1.|-|1e+|0x1|NaN|"NaN"|1e-1|1e99999999999`},
		{"i64", `9223372036854775807|"-9223372036854775808"|1e18|922337203685477580.7e1`, `9223372036854775808|1e19|"9223372036854775808"|12345678901234567890123|1e-1`},
		{"u32", `0|4294967295|"4294967295"|-0`, `-1|4294967296|"-1"`},
		{"u64", `18446744073709551615|"18446744073709551615"|1e19`, `18446744073709551616|1e20|-1`},
		{"smallFloat", `1|1.5|"1.5"|1e38|"NaN"|"Infinity"|"-Infinity"|-0|1e-50`, `1e39|"1e39"|NaN|Infinity|"nan"|"inf"|" 1"|""|true`},
		{"bigFloat", `1e308|1e-400|"-1e308"`, `1e309|"1e309"|1e|"0x1p3"|"1_0"`},
		{"flag", `true|false|null`, `"true"|1|0|tru|truex|"x"`},
		{"text", `""|"a"|"\u00e9"|"\ud83d\ude00"|"\/\"\\\b\f\n\r\t"|"\u0000"|"` + "\x7f" + `"`, `"\ud800"|"\ude00\ud83d"|"\ud83d\u0041"|"\ud83d"|"\x"|"\u12"|"\u12g4"|"` + "\x01" + `"|"` + "\xff" + `"|"` + "\xc3" + `"|5|true|'a'|"a`},
		{"rawBytes", `""|"AA=="|"AA"|"_-8"|"_-8="|"/+8="|"/+8"|"AAAA\n\n\n\n"|"AB"`, `"A"|"A\nA=="|"/-8="|"AA="|"A==="|"!"|1|[1]`},
		{"favouriteColor", `"COLOR_RED"|1|0|-5|77|1e0`, `"COLOR_NONE"|"color_red"|"1"|1.5|2147483648|true`},
		{"choiceNull", `null|"NULL_VALUE"|0|5`, `"null"|true|{}`},
		{"sub", `{}|null|{"name":"a"}|{"child":{"child":null}}`, `[]|"x"|{"name":1}|{"nope":1}|{"name":"a",}|{,}|{"name"}|{"name":}|{name:1}`},
		{"subList", `[]|[{}]|null`, `{}|[null]|[1]|[{},]|[,]|[{} {}]`},
		{"manyNumbers", `[1,"2",3e0]|[]`, `[null]|1|["x"]|[1 2]|[1,]`},
		{"subMap", `{}|{"a":{}}|{"":{},"b":{}}|null`, `{"a":null}|{"a":{},"a":{}}|{"a":{},"\u0061":{}}|[]|{"a":1}`},
		{"numberMap", `{"1":"a","-2":"b"}|{"+5":"x"}|{"007":"x"}`, `{"x":"a"}|{"1":"a","01":"b"}|{"1.0":"a"}|{"9223372036854775808":""}|{"":"a"}|{"1":null}`},
		{"colorMap", `{"true":1,"false":"COLOR_RED"}`, `{"1":1}|{"TRUE":1}|{"true":"NEW"}`},
		{"createdAt", `"1970-01-01T00:00:00Z"|"0001-01-01T00:00:00Z"|"9999-12-31T23:59:59.999999999Z"|"2026-01-02T03:04:05+01:00"|"2026-01-02T03:04:05.1-23:59"|null`, `"2026-01-02"|"2026-02-30T00:00:00Z"|"2026-01-02T03:04:05.1234567890Z"|"0000-12-31T23:59:59Z"|"9999-12-31T23:59:59-00:01"|"2026-01-02 03:04:05Z"|"2026-01-02T24:00:00Z"|"2026-01-02T03:04:60Z"|5|""|"2026-01-02T03:04:05z"`},
		{"timeLeft", `"1s"|"-1.5s"|"+1s"|".5s"|"1.s"|"0.000000001s"|"315576000000s"|"-0s"|null`, `"1"|"s"|"1.0000000001s"|"315576000001s"|"01s"|"1m"|5|"- 1s"|"1e3s"|"-s"|""`},
		{"fieldMask", `""|"a"|"a,fooBar.baz"|" a "`, `"foo_bar"|"a,,b"|"a b"|"1a"|"a."|5|"a, b"`},
		{"freeForm", `{}|{"a":null,"b":[1,{}],"c":"x"}`, `[]|"x"|{"a":1,"a":2}|{"a":1e400}|{"a":}`},
		{"anyValue", `null|1|"x"|true|[]|{}|[null,[1]]|-1e5`, `1e400|nul|tru|-|1e`},
		{"valueList", `[]|[null]|[[],{}]`, `{}|[,]|5`},
		{"packed", `{}|{"@type":"x/kitchen.v1.Sub"}|{"name":"a","@type":"kitchen.v1.Sub"}|{"@type":"x/google.protobuf.Duration","value":"1s"}|{"@type":"x/google.protobuf.Empty"}|{"@type":"x/google.protobuf.Empty","value":{}}|{"@type":"x/google.protobuf.Value","value":null}|{"@type":"x/google.protobuf.Any","value":{}}|{"@\u0074ype":"x/kitchen.v1.Sub"}`,
			`{"@type":"x/nope.Nope"}|{"@type":""}|{"@type":5}|{"name":"a"}|{"@type":"x/kitchen.v1.Sub","@type":"x/kitchen.v1.Sub"}|{"@type":"x/kitchen.v1.Sub","value":{}}|{"@type":"x/google.protobuf.Duration"}|{"@type":"x/google.protobuf.Duration","value":"1s","value":"1s"}|{"@type":"x/google.protobuf.Duration","value":"1s","x":1}|{"@type":"kitchen.v1.Color"}|[]|"x"`},
		{"wrappedNumber", `"5"|5|null|0`, `{}|{"value":5}|"x"|1.5`},
		{"wrappedText", `""|"a"`, `5|{"value":"a"}`},
		{"nothing", `{}|null`, `{"a":1}|[]|5`},
		{"@custom", `"x"`, `5`},
		{"custom", `"x"`, `5`},
		{"small_float", `1`, `"x"`},
		{"smallfloat", ``, `1|null`},
		{"[legacy.v1.extra]", ``, `{}|null`},
		{"[kitchen.v1.Sub]", ``, `{}`},
		{"[]", ``, `1`},
	} {
		for _, v := range strings.Split(c.take, "|") {
			if got, _ := p.json(t, everything, []byte(`{"`+c.field+`":`+v+`}`)); got == nil && v != "" {
				t.Errorf("%s: %s is refused", c.field, v)
			}
		}
		for _, v := range strings.Split(c.leave, "|") {
			if got, _ := p.json(t, everything, []byte(`{"`+c.field+`":`+v+`}`)); got != nil {
				t.Errorf("%s: %s is taken", c.field, v)
			}
		}
	}
	for json, taken := range map[string]bool{
		` {"text" : "a" , "i32" : 1 } ` + "\n": true, `{}`: true, ``: false, ` `: false, `null`: false, `[]`: false, `5`: false, `{} {}`: false, `{}x`: false, `{`: false,
		`{"text":"a","text":"b"}`: false, `{"text":null,"text":"b"}`: false, `{"smallFloat":1,"small_float":1}`: false,
		`{"choiceText":"a","choiceNumber":1}`: false, `{"choiceText":null,"choiceNumber":1}`: true, `{"choiceNull":null,"choiceNumber":1}`: false,
		"\ufeff{}": false, `{"text":"a"}` + "\x00": false, `{"text":"a" "i32":1}`: false, `{"text":"a",,"i32":1}`: false, `{"te\u0078t":"a"}`: true,
		strings.Repeat(`{"sub":`, 1) + strings.Repeat(`{"child":`, testDepth-2) + `{}` + strings.Repeat(`}`, testDepth-1): true,
		strings.Repeat(`{"sub":`, 1) + strings.Repeat(`{"child":`, testDepth-1) + `{}` + strings.Repeat(`}`, testDepth):   false,
		`{"anyValue":` + strings.Repeat(`[`, 5000) + strings.Repeat(`]`, 5000) + `}`:                                      false,
		`{"nope":` + strings.Repeat(`[`, 5000) + strings.Repeat(`]`, 5000) + `}`:                                          false,
	} {
		if got, _ := p.json(t, everything, []byte(json)); (got != nil) != taken {
			t.Errorf("%.60s: taken %v", json, got != nil)
		}
	}
}

// Where the package differs on purpose: see the package comment.
func TestDeviations(t *testing.T) {
	t.Parallel()
	p := kitchen(t)
	typ := p.types.Message(everything)

	t.Run("what follows the first value, leniently", func(t *testing.T) {
		t.Parallel()
		got, err := typ.ReadJSON([]byte(`{"text":"a"} ]x`), transcode.JSONOptions{Depth: testDepth, Lenient: true})
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := got.AppendJSON(nil, transcode.Style{}); string(b) != `{"text":"a"}` {
			t.Errorf("got %s", b)
		}
	})
	t.Run("a key again in another form", func(t *testing.T) {
		t.Parallel()
		b := msg(20, num(1, 5), str(1, "x"), str(2, "v"))
		if _, err := p.ref.readWire(everything, b, testDepth); !errors.Is(err, errPanic) {
			t.Errorf("the oracle does not panic any more: %v", err)
		}
		got, err := typ.ReadWire(b, testDepth, true)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := got.AppendJSON(nil, transcode.Style{}); string(b) != `{"numberMap":{"5":"v"}}` {
			t.Errorf("got %s", b)
		}
	})
	t.Run("the payload of a NaN", func(t *testing.T) {
		t.Parallel()
		b := protowire.AppendFixed32(protowire.AppendTag(nil, 13, protowire.Fixed32Type), 0x7f800001)
		got, err := typ.ReadWire(b, testDepth, true)
		if err != nil || !bytes.Equal(got.AppendWire(nil), b) {
			t.Errorf("got %x, error %v", got.AppendWire(nil), err)
		}
	})
}

func TestPatternsThatCouldBeSlow(t *testing.T) {
	t.Parallel()
	p := kitchen(t)
	const n = 200000
	var turns, merges, keys, clears, anys []byte
	for i := range uint64(n) {
		turns = append(turns, wire(num(6, i), num(3, i))...)
		merges = append(merges, msg(17, num(2, i), num(1, 0))...)
		keys = append(keys, msg(20, num(1, n-i))...)
		clears = append(clears, wire(num(28, i), str(26, "x"), msg(27))...)
		anys = append(anys, msg(37)...)
	}
	for name, b := range map[string][]byte{
		"two fields in turns": turns, "one message again and again": merges, "keys backwards": keys, "members of a oneof in turns": clears, "many empty messages": anys,
		"a list in pieces":    bytes.Repeat(wire(num(22, 1), num(23, 1)), n),
		"an unknown field":    bytes.Repeat(wire(num(1999, 1), num(3, 1)), n),
		"groups, deep enough": bytes.Repeat(group(99, group(98, group(97))), n/3),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := p.types.Message(everything).ReadWire(b, 1000, true)
			if err != nil {
				t.Fatal(err)
			}
			json, err := got.AppendJSON(nil, transcode.Style{})
			if err != nil {
				t.Fatal(err)
			}
			again, err := p.types.Message(everything).ReadJSON(json, transcode.JSONOptions{Depth: 1000, Inspect: true})
			if err != nil {
				t.Fatal(err)
			}
			transcode.KeepUnknown(got, again)
			if !transcode.Equal(got, again) {
				t.Error("not equal to its own JSON")
			}
			again.AppendWire(nil)
		})
	}
}
