package schema_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/execgate/execgate/schema"
)

// compile compiles .proto sources, by file name, into a serialized
// FileDescriptorSet with all imports. Sources may import the files of
// testdata/proto and of the repository's own proto directory.
func compile(tb testing.TB, sources map[string]string) []byte {
	tb.Helper()
	set, err := compileSet(sources)
	if err != nil {
		tb.Fatal(err)
	}
	b, err := proto.Marshal(set)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func compileSet(sources map[string]string) (*descriptorpb.FileDescriptorSet, error) {
	c := protocompile.Compiler{Resolver: protocompile.WithStandardImports(protocompile.CompositeResolver{
		&protocompile.SourceResolver{Accessor: protocompile.SourceAccessorFromMap(sources)},
		&protocompile.SourceResolver{ImportPaths: []string{filepath.Join("testdata", "proto"), filepath.Join("..", "proto")}},
	})}
	names := make([]string, 0, len(sources))
	for name := range sources {
		names = append(names, name)
	}
	files, err := c.Compile(context.Background(), names...)
	if err != nil {
		return nil, err
	}
	set := &descriptorpb.FileDescriptorSet{}
	seen := map[string]bool{}
	var add func(protoreflect.FileDescriptor)
	add = func(fd protoreflect.FileDescriptor) {
		if seen[fd.Path()] {
			return
		}
		seen[fd.Path()] = true
		for i := range fd.Imports().Len() {
			add(fd.Imports().Get(i).FileDescriptor)
		}
		set.File = append(set.File, protodesc.ToFileDescriptorProto(fd))
	}
	for _, f := range files {
		add(f)
	}
	return set, nil
}

// standardSet is the compiled testdata/proto.
var standardSet = sync.OnceValues(func() ([]byte, error) {
	sources := map[string]string{}
	for _, name := range []string{"kitchen.proto", "legacy.proto", "edition.proto"} {
		b, err := os.ReadFile(filepath.Join("testdata", "proto", name))
		if err != nil {
			return nil, err
		}
		sources[name] = string(b)
	}
	set, err := compileSet(sources)
	if err != nil {
		return nil, err
	}
	return proto.Marshal(set)
})

// kitchen returns the schema of testdata/proto.
func kitchen(tb testing.TB) *schema.Schema {
	tb.Helper()
	set, err := standardSet()
	if err != nil {
		tb.Fatal(err)
	}
	s, err := schema.FromDescriptorSet(set)
	if err != nil {
		tb.Fatal(err)
	}
	if len(s.Problems()) > 0 {
		tb.Fatal(strings.Join(s.Problems(), "\n"))
	}
	return s
}

// inline returns the schema of one proto3 file, given its content behind the
// package clause (package t).
func inline(tb testing.TB, content string, options ...schema.Option) *schema.Schema {
	tb.Helper()
	source := "syntax = \"proto3\";\npackage t;\nimport \"google/api/annotations.proto\";\n" + content
	s, err := schema.FromDescriptorSet(compile(tb, map[string]string{"t.proto": source}), options...)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// messageType returns a type of s, which must have it.
func messageType(tb testing.TB, s *schema.Schema, name string) *schema.MessageType {
	tb.Helper()
	t := s.MessageType(name)
	if t == nil {
		tb.Fatalf("no type %s", name)
	}
	return t
}

// fromJSON makes a message in wire form out of its JSON.
func fromJSON(tb testing.TB, t *schema.MessageType, json string) []byte {
	tb.Helper()
	m, err := t.Decode(nil)
	if err != nil {
		tb.Fatal(err)
	}
	if err := m.Replace([]byte(json)); err != nil {
		tb.Fatal(err)
	}
	b, err := m.Wire()
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// jsonOf returns the JSON of a message.
func jsonOf(tb testing.TB, m interface{ JSON() ([]byte, error) }) string {
	tb.Helper()
	b, err := m.JSON()
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}
