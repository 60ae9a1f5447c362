package transcode_test

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	_ "github.com/execgate/execgate/gen/execgate/v1"
	_ "github.com/execgate/execgate/internal/testkit/demoapi" // registers all that it serves
	"github.com/execgate/execgate/schema/transcode"
)

// demo is every message of the demo identity API, and of the admin APIs.
func demo(tb testing.TB) (pair, []string) {
	tb.Helper()
	set := &descriptorpb.FileDescriptorSet{}
	seen := map[string]bool{}
	var add func(fd protoreflect.FileDescriptor)
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
	for _, fd := range known {
		add(fd)
	}
	protoregistry.GlobalFiles.RangeFiles(func(fd protoreflect.FileDescriptor) bool {
		if strings.HasPrefix(string(fd.Package()), "zitadel.") || strings.HasPrefix(string(fd.Package()), "execgate.") {
			add(fd)
		}
		return true
	})
	files, err := protodesc.NewFiles(set)
	if err != nil {
		tb.Fatal(err)
	}
	var names []string
	var list func(messages protoreflect.MessageDescriptors)
	list = func(messages protoreflect.MessageDescriptors) {
		for i := range messages.Len() {
			if md := messages.Get(i); !md.IsMapEntry() {
				names = append(names, string(md.FullName()))
				list(md.Messages())
			}
		}
	}
	files.RangeFiles(func(fd protoreflect.FileDescriptor) bool {
		list(fd.Messages())
		return true
	})
	slices.Sort(names)
	return pair{newReference(files), transcode.NewTypes(files)}, names
}

func TestTheDemoAPIAgreesWithProtojson(t *testing.T) {
	t.Parallel()
	p, names := demo(t)
	if len(names) < 150 {
		t.Fatalf("only %d messages", len(names))
	}
	g := newGenerator(7)
	g.ref, g.names = p.ref, names
	for _, name := range names {
		for range 2 {
			p.exercise(t, g, name)
		}
	}
}
