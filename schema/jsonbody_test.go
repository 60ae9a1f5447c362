package schema_test

import (
	"testing"
)

func TestBodyChangesOnlyWhatChanged(t *testing.T) {
	t.Parallel()
	s := kitchen(t)
	typ := messageType(t, s, "kitchen.v1.Everything")
	for _, c := range []struct{ name, body, replace, want string }{
		{"unknown keys at the top", `{"x":1,"text":"a","y":{"z":[null]}}`, `{"text":"b"}`, `{"x":1,"text":"b","y":{"z":[null]}}`},
		{"unknown keys of an emptied message", `{"x":1,"text":"a"}`, `{}`, `{"x":1}`},
		{"unknown keys below", `{"sub":{"x":1,"name":"a","child":{"y":2,"name":"c"}}}`, `{"sub":{"name":"b","child":{"name":"d"}}}`, `{"sub":{"x":1,"name":"b","child":{"y":2,"name":"d"}}}`},
		{"unknown keys of a message that goes", `{"sub":{"x":1},"text":"a"}`, `{"text":"a"}`, `{"text":"a"}`},
		{"unknown keys in a map", `{"subMap":{"a":{"x":1},"b":{"y":2}}}`, `{"subMap":{"b":{"name":"n"},"c":{}}}`, `{"subMap":{"b":{"y":2,"name":"n"},"c":{}}}`},
		{"unknown keys in a list", `{"subList":[{"x":1,"name":"a"},{"y":2}]}`, `{"subList":[{"name":"a"},{"name":"b"}]}`, `{"subList":[{"x":1,"name":"a"},{"y":2,"name":"b"}]}`},
		{"unknown keys in a list that grows", `{"subList":[{"x":1,"name":"a"}]}`, `{"subList":[{"name":"a"},{}]}`, `{"subList":[{"name":"a"},{}]}`},
		{"unknown keys in an Any", `{"packed":{"x":1,"@type":"x/kitchen.v1.Sub","name":"a"}}`, `{"packed":{"@type":"x/kitchen.v1.Sub","name":"b"}}`, `{"packed":{"x":1,"@type":"x/kitchen.v1.Sub","name":"b"}}`},
		{"another Any", `{"packed":{"x":1,"@type":"x/kitchen.v1.Sub","name":"a"}}`, `{"packed":{"@type":"x/google.protobuf.Duration","value":"1s"}}`, `{"packed":{"@type":"x/google.protobuf.Duration","value":"1s"}}`},

		{"order of keys", `{"i64":"1","text":"a","flag":true}`, `{"flag":true,"text":"b","i64":"1"}`, `{"i64":"1","text":"b","flag":true}`},
		{"new keys behind", `{"i64":"1"}`, `{"i64":"1","text":"b","flag":true}`, `{"i64":"1","text":"b","flag":true}`},
		{"names of the schema", `{"small_float":1.5,"text":"a"}`, `{"smallFloat":1.5,"text":"b","bigFloat":2,"subList":[{}]}`, `{"small_float":1.5,"text":"b","big_float":2,"sub_list":[{}]}`},
		{"spelling of numbers", `{"i64":5,"u64":"6","i32":"7","bigFloat":1e2,"manyNumbers":[1,"2"]}`, `{"i64":"8","u64":"9","i32":7,"bigFloat":100,"manyNumbers":["3","4"]}`, `{"i64":8,"u64":"9","i32":"7","bigFloat":1e2,"manyNumbers":[3,"4"]}`},
		{"spelling of strings", `{"text":"\u0061","rawBytes":"_-8"}`, `{"text":"a","rawBytes":"/+8=","flag":true}`, `{"text":"\u0061","rawBytes":"_-8","flag":true}`},
		{"enums by number", `{"favouriteColor":1,"manyColors":[1,"COLOR_BLUE"]}`, `{"favouriteColor":"COLOR_BLUE","manyColors":["COLOR_BLUE","COLOR_RED"]}`, `{"favouriteColor":2,"manyColors":[2,"COLOR_RED"]}`},
		{"new enums as the others", `{"favouriteColor":1}`, `{"favouriteColor":"COLOR_RED","manyColors":["COLOR_BLUE"]}`, `{"favouriteColor":1,"manyColors":[2]}`},
		{"timestamps", `{"createdAt":"2026-01-02T03:04:05+01:00","text":"a"}`, `{"createdAt":"2026-01-02T02:04:05Z","text":"b"}`, `{"createdAt":"2026-01-02T03:04:05+01:00","text":"b"}`},
		{"blanks of what stays", "{\n  \"sub\": {\n    \"name\": \"a\"\n  },\n  \"text\": \"a\"\n}\n", `{"sub":{"name":"a"},"text":"b"}`, "{\"sub\":{\n    \"name\": \"a\"\n  },\"text\":\"b\"}"},
		{"escaped keys", `{"te\u0078t":"a","\u0078":1}`, `{"text":"b"}`, `{"te\u0078t":"b","\u0078":1}`},

		{"a default that was spelled out", `{"text":"","flag":false,"i64":"0","sub":null,"subList":[],"subMap":{},"favouriteColor":"COLOR_UNSPECIFIED"}`, `{"i32":5}`, `{"text":"","flag":false,"i64":"0","sub":null,"subList":[],"subMap":{},"favouriteColor":"COLOR_UNSPECIFIED","i32":5}`},
		{"a default that becomes a value", `{"text":"","sub":null,"subList":[]}`, `{"text":"b","sub":{"name":"n"},"subList":[{}]}`, `{"text":"b","sub":{"name":"n"},"subList":[{}]}`},
		{"a oneof that switches", `{"choiceText":"a","text":"t"}`, `{"choiceNumber":"5","text":"t"}`, `{"text":"t","choiceNumber":"5"}`},
		{"presence", `{"maybeText":"","maybeNumber":0}`, `{"maybeNumber":0}`, `{"maybeNumber":0}`},
		{"a null value", `{"anyValue":null,"text":"a"}`, `{"anyValue":null,"text":"b"}`, `{"anyValue":null,"text":"b"}`},
		{"free form", `{"freeForm":{"z":1,"a":{"y":1.0,"b":[1.0,{"c":1}]}}}`, `{"freeForm":{"z":1,"a":{"y":1,"b":[1,{"c":2}],"n":null}}}`, `{"freeForm":{"z":1,"a":{"y":1.0,"b":[1.0,{"c":2}],"n":null}}}`},
		{"a value of another kind", `{"anyValue":5}`, `{"anyValue":"6"}`, `{"anyValue":"6"}`},
		{"map keys as they were", `{"numberMap":{"07":"a","2":"b"}}`, `{"numberMap":{"7":"c","2":"b","1":"d"}}`, `{"numberMap":{"07":"c","2":"b","1":"d"}}`},
		{"unknown enum names", `{"manyColors":["NEW","COLOR_RED"],"favouriteColor":"NEW"}`, `{"manyColors":["COLOR_RED"],"text":"a"}`, `{"manyColors":["NEW","COLOR_RED"],"favouriteColor":"NEW","text":"a"}`},
		{"what follows", `{"text":"a"} rest`, `{"text":"b"}`, `{"text":"b"}`},
		{"wrappers", `{"wrappedNumber":5,"wrappedText":"a","wrappedFlag":null}`, `{"wrappedNumber":"6","wrappedText":"b"}`, `{"wrappedNumber":6,"wrappedText":"b","wrappedFlag":null}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m, err := typ.DecodeJSON([]byte(c.body))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := m.Body(); err != nil || string(got) != c.body {
				t.Errorf("unchanged, but %s, error %v", got, err)
			}
			if err := m.Replace([]byte(c.replace)); err != nil {
				t.Fatal(err)
			}
			got, err := m.Body()
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestBodyStyleOfDefaults(t *testing.T) {
	t.Parallel()
	typ := messageType(t, inline(t, `
		message In { string a = 1; optional string b = 2; In in = 3; repeated In list = 4; int64 n = 5; }`), "t.In")
	for _, c := range []struct{ name, body, replace, want string }{
		{
			"all spelled out, a value goes", `{"a":"x","in":null,"list":[],"n":"5"}`, `{"n":"5"}`,
			`{"a":"","in":null,"list":[],"n":"5"}`,
		},
		{
			"all spelled out, a message comes", `{"a":"","in":null,"list":[],"n":"0"}`, `{"in":{"a":"x"}}`,
			`{"a":"","in":{"a":"x","in":null,"list":[],"n":"0"},"list":[],"n":"0"}`,
		},
		{
			"all but messages spelled out", `{"a":"x","list":[],"n":"0"}`, `{"in":{}}`,
			`{"a":"","list":[],"n":"0","in":{"a":"","list":[],"n":"0"}}`,
		},
		{"not all spelled out, a value goes", `{"a":"x","list":[]}`, `{}`, `{"list":[]}`},
		{"none spelled out, a value goes", `{"a":"x","n":"1"}`, `{"n":"1"}`, `{"n":"1"}`},
	} {
		m, err := typ.DecodeJSON([]byte(c.body))
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Replace([]byte(c.replace)); err != nil {
			t.Fatal(err)
		}
		if got, err := m.Body(); err != nil || string(got) != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s\nerror %v", c.name, got, c.want, err)
		}
	}
}

func TestJSONBodiesThatDoNotDecode(t *testing.T) {
	t.Parallel()
	typ := messageType(t, kitchen(t), "kitchen.v1.Everything")
	for _, body := range []string{``, ` `, `null`, `[]`, `5`, `{`, `{"text":5}`, `{"text":"a","text":"b"}`, `{"packed":{"@type":"x/nope.Nope"}}`, "{\"text\":\"\xff\"}"} {
		if m, err := typ.DecodeJSON([]byte(body)); err == nil {
			t.Errorf("%q decodes as %s", body, jsonOf(t, m))
		}
	}
}

func TestAJSONBodyHasAWireForm(t *testing.T) {
	t.Parallel()
	typ := messageType(t, kitchen(t), "kitchen.v1.Everything")
	m, err := typ.DecodeJSON([]byte(`{"text":"a","nope":1}`))
	if err != nil {
		t.Fatal(err)
	}
	b, err := m.Wire()
	if err != nil {
		t.Fatal(err)
	}
	m, err = typ.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := m.Body(); err != nil || string(got) != `{"text":"a"}` {
		t.Errorf("%s, error %v", got, err)
	}
}
