package schema

import (
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/execgate/execgate/schema/transcode"
)

// types are the message types of one schema, and of nothing else.
type types struct {
	files    *protoregistry.Files
	tables   *transcode.Types
	messages map[protoreflect.FullName]*MessageType
}

func (t *types) messageType(name string) *MessageType {
	return t.messages[protoreflect.FullName(name)]
}

// newTypes collects the message types of files.
func newTypes(files *protoregistry.Files) *types {
	t := &types{files: files, tables: transcode.NewTypes(files), messages: map[protoreflect.FullName]*MessageType{}}
	files.RangeFiles(func(fd protoreflect.FileDescriptor) bool {
		t.add(fd.Messages())
		return true
	})
	inspect := reachable{}
	for _, m := range t.messages {
		m.inspect = inspect.from(m.desc, needsInspection)
	}
	return t
}

func (t *types) add(messages protoreflect.MessageDescriptors) {
	for i := range messages.Len() {
		md := messages.Get(i)
		t.messages[md.FullName()] = &MessageType{types: t, desc: md, table: t.tables.Message(md.FullName())}
		t.add(md.Messages())
	}
}

// needsInspection reports whether md is an Any, can hold an extension, or is a
// message whose type is missing.
func needsInspection(md protoreflect.MessageDescriptor) bool {
	return transcode.IsMissing(md) || md.FullName() == anyName || md.ExtensionRanges().Len() > 0
}

// reachable remembers for message types whether they, or a type that they can
// hold at any depth, are of some kind.
type reachable map[protoreflect.FullName]bool

func (r reachable) from(md protoreflect.MessageDescriptor, is func(protoreflect.MessageDescriptor) bool) bool {
	seen := map[protoreflect.FullName]bool{}
	var visit func(protoreflect.MessageDescriptor) bool
	visit = func(md protoreflect.MessageDescriptor) bool {
		name := md.FullName()
		if answer, ok := r[name]; ok {
			return answer
		}
		if seen[name] {
			return false
		}
		seen[name] = true
		if is(md) {
			r[name] = true
			return true
		}
		fields := md.Fields()
		for i := range fields.Len() {
			if sub := fields.Get(i).Message(); sub != nil && visit(sub) {
				r[name] = true
				return true
			}
		}
		return false
	}
	if visit(md) {
		return true
	}
	// Everything reachable was visited.
	for name := range seen {
		r[name] = false
	}
	return false
}
