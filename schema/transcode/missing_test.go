package transcode_test

import (
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/execgate/execgate/schema/transcode"
)

// impostors are a Timestamp and an Empty of somebody's own, and a message that
// holds them and one that nobody declares.
const impostors = `
name: "impostors.proto" syntax: "proto2" package: "google.protobuf" dependency: "nowhere.proto"
message_type {
  name: "Timestamp" field {name: "seconds" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL}
}
message_type {
  name: "Empty" field {name: "not_quite" number: 1 type: TYPE_INT32 label: LABEL_OPTIONAL}
}
message_type {
  name: "Holder"
  field {name: "time" number: 1 type: TYPE_MESSAGE type_name: ".google.protobuf.Timestamp" label: LABEL_OPTIONAL}
  field {name: "gone" number: 2 type: TYPE_MESSAGE type_name: ".nowhere.Gone" label: LABEL_OPTIONAL}
  field {name: "empty" number: 3 type: TYPE_MESSAGE type_name: ".google.protobuf.Empty" label: LABEL_OPTIONAL}
  field {name: "text" number: 5 type: TYPE_STRING label: LABEL_OPTIONAL}
}`

func TestTypesThatAreMissing(t *testing.T) {
	t.Parallel()
	var p descriptorpb.FileDescriptorProto
	if err := prototext.Unmarshal([]byte(impostors), &p); err != nil {
		t.Fatal(err)
	}
	files := &protoregistry.Files{}
	fd, err := protodesc.FileOptions{AllowUnresolvable: true}.New(&p, files)
	if err != nil {
		t.Fatal(err)
	}
	if err := files.RegisterFile(fd); err != nil {
		t.Fatal(err)
	}
	holder := pair{newReference(files), transcode.NewTypes(files)}
	const name = "google.protobuf.Holder"
	for field, b := range map[string][]byte{
		"a Timestamp that is none": msg(1), "a message that nobody declares": msg(2), "both": wire(str(5, "a"), msg(2, num(1, 1))),
	} {
		if got, _ := holder.wire(t, name, b); got != nil {
			t.Errorf("%s is taken", field)
		}
	}
	for _, json := range []string{`{"time":"2026-01-02T03:04:05Z"}`, `{"time":{}}`, `{"gone":{}}`, `{"empty":{"notQuite":1}}`} {
		if got, _ := holder.json(t, name, []byte(json)); got != nil {
			t.Errorf("%s is taken", json)
		}
	}
	for _, b := range [][]byte{nil, str(5, "a"), msg(3), num(2, 1)} {
		if got, _ := holder.wire(t, name, b); got == nil {
			t.Errorf("%x is refused", b)
		}
	}
	for _, json := range []string{`{}`, `{"text":"a","time":null,"gone":null}`, `{"empty":{}}`} {
		if got, _ := holder.json(t, name, []byte(json)); got == nil {
			t.Errorf("%s is refused", json)
		}
	}
}
