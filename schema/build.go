package schema

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

// builder turns file descriptors into a Schema, file by file, so that one bad
// file costs no more than itself.
type builder struct {
	o        buildOptions
	protos   map[string]*descriptorpb.FileDescriptorProto
	state    map[string]fileState
	files    *protoregistry.Files
	problems []string
}

type fileState uint8

const (
	fileVisiting fileState = iota + 1
	fileDone
)

func build(set []byte, o buildOptions) (*Schema, error) {
	protos, err := parseSet(set)
	if err != nil {
		return nil, err
	}
	b := &builder{
		o:      o,
		protos: map[string]*descriptorpb.FileDescriptorProto{},
		state:  map[string]fileState{},
		files:  &protoregistry.Files{},
	}
	b.problems = append(b.problems, o.problems...)
	for _, p := range protos {
		if known := b.protos[p.GetName()]; known != nil {
			if !proto.Equal(known, p) {
				b.problem("file %q appears twice with different content", p.GetName())
			}
			continue
		}
		b.protos[p.GetName()] = p
	}
	names := make([]string, 0, len(b.protos))
	for name := range b.protos {
		names = append(names, name)
	}
	slices.Sort(names)

	registered := 0
	for _, name := range names {
		b.register(name)
		if _, err := b.files.FindFileByPath(name); err == nil {
			registered++
		}
	}
	if registered == 0 {
		if len(b.problems) > 0 {
			return nil, fmt.Errorf("no usable file in the descriptor set: %s", b.problems[0])
		}
		return nil, errors.New("the descriptor set is empty")
	}
	b.addWellKnown()

	canonical := &descriptorpb.FileDescriptorSet{}
	for _, name := range names {
		canonical.File = append(canonical.File, b.protos[name])
	}
	s := &Schema{methods: map[string]*Method{}, types: newTypes(b.files), problems: b.problems}
	if s.set, err = (proto.MarshalOptions{Deterministic: true, AllowPartial: true}).Marshal(canonical); err != nil {
		return nil, fmt.Errorf("encode descriptor set: %w", err)
	}
	table := newRouteTable()
	for _, name := range names {
		if fd, err := b.files.FindFileByPath(name); err == nil {
			b.addServices(s, table, fd)
		}
	}
	s.routes = table
	slices.Sort(s.methodNames)
	slices.Sort(s.services)
	s.problems = append(b.problems, table.problems...)
	return s, nil
}

func (b *builder) problem(format string, args ...any) {
	b.problems = append(b.problems, fmt.Sprintf(format, args...))
}

// parseSet reads a FileDescriptorSet. No extension of an option is resolved: they
// all stay in the options as bytes, where optionBytes finds them whichever
// version of their schema the upstream was built with.
func parseSet(set []byte) ([]*descriptorpb.FileDescriptorProto, error) {
	var parsed descriptorpb.FileDescriptorSet
	o := proto.UnmarshalOptions{AllowPartial: true, Resolver: &protoregistry.Types{}}
	if err := o.Unmarshal(set, &parsed); err != nil {
		return nil, errors.New("not a serialized FileDescriptorSet")
	}
	for _, f := range parsed.GetFile() {
		f.SourceCodeInfo = nil
	}
	return parsed.GetFile(), nil
}

// register makes the named file known, after the files that it imports.
func (b *builder) register(name string) {
	p := b.protos[name]
	switch {
	case b.state[name] == fileVisiting:
		b.problem("file %q imports itself", name)
		return
	case b.state[name] == fileDone:
		return
	case p == nil:
		b.state[name] = fileDone
		if fd := wellKnownFile(name); fd != nil {
			b.registerFile(fd)
		} else if !isOptionFile(name) {
			b.problem("file %q is imported but missing", name)
		}
		return
	}
	b.state[name] = fileVisiting
	for _, dependency := range p.GetDependency() {
		b.register(dependency)
	}
	b.state[name] = fileDone
	fd, err := protodesc.FileOptions{AllowUnresolvable: true}.New(p, b.files)
	if err != nil {
		b.problem("file %q: %s", name, cleanError(err))
		return
	}
	b.registerFile(fd)
}

func (b *builder) registerFile(fd protoreflect.FileDescriptor) {
	if err := b.files.RegisterFile(fd); err != nil {
		b.problem("file %q: %s", fd.Path(), cleanError(err))
	}
}

// cleanError makes the text of a protobuf error comparable: the module inserts a
// non-breaking space into some of its texts, at random per build.
func cleanError(err error) string {
	return strings.TrimPrefix(strings.ReplaceAll(err.Error(), "\u00a0", " "), "proto: ")
}

// isOptionFile reports whether the named file only declares options: servers
// often leave it out, and nothing here needs it.
func isOptionFile(name string) bool {
	for _, prefix := range []string{"google/api/", "protoc-gen-openapiv2/", "validate/", "buf/validate/", "gogoproto/"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// addServices adds the services of fd, their methods and their REST routes.
func (b *builder) addServices(s *Schema, table *routeTable, fd protoreflect.FileDescriptor) {
	p := b.protos[fd.Path()]
	declared := basePath(p.GetOptions())
	for i := range fd.Services().Len() {
		sd := fd.Services().Get(i)
		service := string(sd.FullName())
		base := declared
		if override, ok := b.o.basePaths[service]; ok {
			base = override
		}
		s.services = append(s.services, service)
		for j := range sd.Methods().Len() {
			md := sd.Methods().Get(j)
			options := p.GetService()[i].GetMethod()[j].GetOptions()
			m := &Method{
				FullMethod:      "/" + service + "/" + string(md.Name()),
				Service:         service,
				ClientStreaming: md.IsStreamingClient(),
				ServerStreaming: md.IsStreamingServer(),
				NoSideEffects:   options.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS,
				input:           s.types.forDescriptor(md.Input()),
				output:          s.types.forDescriptor(md.Output()),
			}
			s.methods[m.FullMethod] = m
			s.methodNames = append(s.methodNames, m.FullMethod)
			table.add(m, base, options)
		}
	}
}

// forDescriptor returns the type of md. A type that is missing gets one that
// decodes nothing.
func (t *types) forDescriptor(md protoreflect.MessageDescriptor) *MessageType {
	if m := t.messages[md.FullName()]; m != nil {
		return m
	}
	return &MessageType{types: t, desc: md, table: t.tables.Of(md), inspect: true}
}
