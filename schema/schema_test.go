package schema_test

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/execgate/execgate/schema"
)

func TestMethodsAreKnownByTheirFullName(t *testing.T) {
	t.Parallel()
	s := kitchen(t)
	want := []string{"edition.v1.ModernService", "kitchen.v1.Kitchen", "legacy.v1.LegacyService"}
	if !slices.Equal(s.Services(), want) {
		t.Errorf("services %q, want %q", s.Services(), want)
	}
	if !slices.IsSorted(s.Methods()) || len(s.Methods()) != 11 {
		t.Errorf("methods %q", s.Methods())
	}
	m := s.Method("/kitchen.v1.Kitchen/Get")
	if m == nil || m.Service != "kitchen.v1.Kitchen" || !m.NoSideEffects || m.ClientStreaming || m.ServerStreaming {
		t.Fatalf("Get: %+v", m)
	}
	if m.Input().Name() != "kitchen.v1.GetRequest" || m.Output().Name() != "kitchen.v1.Everything" {
		t.Errorf("Get takes %s, gives %s", m.Input().Name(), m.Output().Name())
	}
	for name, want := range map[string][2]bool{"Watch": {false, true}, "Feed": {true, false}, "Chat": {true, true}} {
		m := s.Method("/kitchen.v1.Kitchen/" + name)
		if m == nil || m.ClientStreaming != want[0] || m.ServerStreaming != want[1] || m.NoSideEffects {
			t.Errorf("%s: %+v", name, m)
		}
	}
	for _, name := range []string{"", "/", "kitchen.v1.Kitchen/Get", "/kitchen.v1.Kitchen/Nope"} {
		if s.Method(name) != nil {
			t.Errorf("%q is no method", name)
		}
	}
}

// parse returns the standard set as a message, to take it apart.
func parse(t *testing.T) *descriptorpb.FileDescriptorSet {
	t.Helper()
	b, err := standardSet()
	if err != nil {
		t.Fatal(err)
	}
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(b, set); err != nil {
		t.Fatal(err)
	}
	return set
}

func buildSet(t *testing.T, set *descriptorpb.FileDescriptorSet) *schema.Schema {
	t.Helper()
	b, err := proto.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	s, err := schema.FromDescriptorSet(b)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestOptionFilesAndWellKnownFilesMayBeMissing(t *testing.T) {
	t.Parallel()
	set := parse(t)
	set.File = slices.DeleteFunc(set.File, func(f *descriptorpb.FileDescriptorProto) bool {
		return strings.HasPrefix(f.GetName(), "google/") || strings.HasPrefix(f.GetName(), "protoc-gen-openapiv2/")
	})
	s := buildSet(t, set)
	if len(s.Problems()) > 0 {
		t.Errorf("problems: %q", s.Problems())
	}
	if m, ok := s.Route("GET", "/kitchen/v1/things/5"); !ok || m.Method().FullMethod != "/kitchen.v1.Kitchen/Get" {
		t.Error("the route is lost with the file that declares the option")
	}
	everything := messageType(t, s, "kitchen.v1.Everything")
	wire := fromJSON(t, everything, `{"createdAt":"2026-01-02T03:04:05Z","packed":{"@type":"type.googleapis.com/google.protobuf.Duration","value":"1s"}}`)
	if m, err := everything.Decode(wire); err != nil {
		t.Error(err)
	} else if got := jsonOf(t, m); !strings.Contains(got, `"createdAt":"2026-01-02T03:04:05Z"`) {
		t.Error(got)
	}
}

func TestFilesMayComeInAnyOrder(t *testing.T) {
	t.Parallel()
	set := parse(t)
	first := buildSet(t, set)
	slices.Reverse(set.File)
	second := buildSet(t, set)
	if !first.Equal(second) || len(second.Problems()) > 0 {
		t.Errorf("order matters: %q", second.Problems())
	}
	set.File = append(set.File, set.File[0])
	if third := buildSet(t, set); !first.Equal(third) {
		t.Error("a file given twice matters")
	}
}

func TestOneBadFileDoesNotSpoilTheRest(t *testing.T) {
	t.Parallel()
	set := parse(t)
	set.File = append(set.File,
		&descriptorpb.FileDescriptorProto{
			Name: new("bad.proto"), Syntax: new("proto3"), Package: new("bad"),
			MessageType: []*descriptorpb.DescriptorProto{{Name: new("1nvalid")}},
		},
		&descriptorpb.FileDescriptorProto{
			Name: new("user.proto"), Syntax: new("proto3"), Package: new("user"), Dependency: []string{"bad.proto", "gone.proto"},
			MessageType: []*descriptorpb.DescriptorProto{{Name: new("M"), Field: []*descriptorpb.FieldDescriptorProto{
				{
					Name: new("lost"), Number: new(int32(1)), TypeName: new(".gone.Lost"),
					Type:  descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(),
					Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
				},
				{
					Name: new("text"), Number: new(int32(2)),
					Type:  descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(),
					Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
				},
			}}},
			Service: []*descriptorpb.ServiceDescriptorProto{{Name: new("S"), Method: []*descriptorpb.MethodDescriptorProto{
				{Name: new("Fine"), InputType: new(".user.M"), OutputType: new(".gone.Lost")},
			}}},
		})
	s := buildSet(t, set)
	if len(s.Problems()) != 2 {
		t.Errorf("problems: %q", s.Problems())
	}
	m := s.Method("/user.S/Fine")
	if m == nil || s.Method("/kitchen.v1.Kitchen/Get") == nil {
		t.Fatal("methods are lost")
	}
	if _, err := m.Input().Decode([]byte{0x12, 1, 'x'}); err != nil {
		t.Errorf("a message without the lost field: %v", err)
	}
	// What cannot be shown to a target must not pass as if it had been.
	for name, decode := range map[string]func() (*schema.Message, error){
		"a lost field":     func() (*schema.Message, error) { return m.Input().Decode([]byte{0x0a, 0}) },
		"a lost message":   func() (*schema.Message, error) { return m.Output().Decode(nil) },
		"a lost JSON body": func() (*schema.Message, error) { return m.Output().DecodeJSON([]byte("{}")) },
	} {
		if _, err := decode(); err == nil {
			t.Errorf("%s decodes", name)
		}
	}
}

func TestWhatIsNoDescriptorSetIsAnError(t *testing.T) {
	t.Parallel()
	for name, b := range map[string][]byte{"empty": nil, "text": []byte("syntax"), "cut": {0x0a, 0x7f, 1}, "no file": {0x12, 0}} {
		if s, err := schema.FromDescriptorSet(b); err == nil {
			t.Errorf("%s: %v", name, s.Services())
		}
	}
}

func TestAFalseWellKnownTypeDoesNotDecode(t *testing.T) {
	t.Parallel()
	b := compile(t, map[string]string{
		"google/protobuf/timestamp.proto": `syntax="proto3"; package google.protobuf; message Timestamp { string iso = 1; }`,
		"t.proto":                         `syntax="proto3"; package t; import "google/protobuf/timestamp.proto"; message M { google.protobuf.Timestamp at = 1; }`,
	})
	s, err := schema.FromDescriptorSet(b)
	if err != nil {
		t.Fatal(err)
	}
	m := messageType(t, s, "t.M")
	if _, err := m.Decode([]byte{0x0a, 3, 0x0a, 1, 'x'}); err == nil {
		t.Error("decodes on the wire")
	}
	if _, err := m.DecodeJSON([]byte(`{"at":"2026-01-01T00:00:00Z"}`)); err == nil {
		t.Error("decodes as JSON")
	}
}

func TestTheUpstreamsOwnVersionOfATypeWins(t *testing.T) {
	t.Parallel()
	// The global registry has a google.rpc.Status with other fields, linked in by
	// grpc.
	b := compile(t, map[string]string{
		"google/rpc/status.proto": `syntax="proto3"; package google.rpc; message Status { string words = 7; }`,
		"t.proto":                 `syntax="proto3"; package t; import "google/rpc/status.proto"; import "google/protobuf/any.proto"; message M { google.rpc.Status s = 1; google.protobuf.Any a = 2; }`,
	})
	s, err := schema.FromDescriptorSet(b)
	if err != nil {
		t.Fatal(err)
	}
	m := messageType(t, s, "t.M")
	const json = `{"s":{"words":"x"},"a":{"@type":"type.googleapis.com/google.rpc.Status","words":"y"}}`
	got, err := m.Decode(fromJSON(t, m, json))
	if err != nil {
		t.Fatal(err)
	}
	if jsonOf(t, got) != json {
		t.Error(jsonOf(t, got))
	}
	// And what only the gateway has linked in is unknown.
	if err := got.Replace([]byte(`{"a":{"@type":"x/google.rpc.ErrorInfo"}}`)); err == nil {
		t.Error("a type that is not the upstream's is taken")
	}
}
