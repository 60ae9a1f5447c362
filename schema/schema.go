package schema

import (
	"bytes"
	"slices"
)

// Schema is what one set of descriptors says about an API: its methods, message
// types and REST routes. It is immutable and safe for concurrent use.
type Schema struct {
	methods     map[string]*Method
	methodNames []string
	services    []string
	types       *types
	routes      *routeTable
	problems    []string
	set         []byte
}

// Option changes how a Schema is built.
type Option func(*buildOptions)

type buildOptions struct {
	basePaths map[string]string
	problems  []string
}

// WithBasePaths mounts the REST routes of the named services under a path of
// the caller's choice. It wins over the base_path that the service's file
// declares; an empty path mounts the service at the root.
func WithBasePaths(paths map[string]string) Option {
	return func(o *buildOptions) { o.basePaths = paths }
}

// withProblems adds what went wrong before the descriptors were complete.
func withProblems(problems []string) Option {
	return func(o *buildOptions) { o.problems = append(o.problems, problems...) }
}

// FromDescriptorSet builds a Schema from a serialized FileDescriptorSet.
//
// Files may come in any order. A file that cannot be used, or that is imported
// and missing, does not spoil the rest: what could not be resolved is told by
// [Schema.Problems]. The error is for bytes that are no descriptor set, and for
// a set in which no file is usable.
func FromDescriptorSet(set []byte, options ...Option) (*Schema, error) {
	var o buildOptions
	for _, option := range options {
		option(&o)
	}
	return build(set, o)
}

// Method returns the method with the given full name ("/pkg.Service/Method"),
// or nil if there is none. It does not allocate.
func (s *Schema) Method(fullMethod string) *Method {
	return s.methods[fullMethod]
}

// Methods returns the full names of all methods, sorted. The slice is shared
// and must not be changed.
func (s *Schema) Methods() []string { return s.methodNames }

// Services returns the full names of all services, sorted. The slice is shared
// and must not be changed.
func (s *Schema) Services() []string { return s.services }

// MessageType returns the message type with the given full name ("pkg.Message"),
// or nil if the schema does not have it.
func (s *Schema) MessageType(name string) *MessageType {
	return s.types.messageType(name)
}

// Problems says in sentences what could not be used: symbols that did not
// resolve, files that clash, HTTP rules that are malformed. The slice is shared
// and must not be changed.
func (s *Schema) Problems() []string { return s.problems }

// DescriptorSet returns the serialized FileDescriptorSet that the schema was
// built from, in a canonical form: files sorted by name, source comments left
// out. The bytes are shared and must not be changed.
func (s *Schema) DescriptorSet() []byte { return s.set }

// Equal reports whether both schemas were built from the same descriptors with the
// same problems. Base paths are not compared.
func (s *Schema) Equal(other *Schema) bool {
	if s == nil || other == nil {
		return s == other
	}
	return bytes.Equal(s.set, other.set) && slices.Equal(s.problems, other.problems)
}

// Method is one RPC of the upstream. It is immutable.
type Method struct {
	// FullMethod is the path of the RPC: "/pkg.Service/Method".
	FullMethod string
	// Service is the full name of its service: "pkg.Service".
	Service string
	// ClientStreaming says that the client sends a stream of messages.
	ClientStreaming bool
	// ServerStreaming says that the server sends a stream of messages.
	ServerStreaming bool
	// NoSideEffects says that the method is declared with idempotency_level =
	// NO_SIDE_EFFECTS, so that Connect may call it with GET.
	NoSideEffects bool

	input, output *MessageType
}

// Input returns the type of the request message, never nil.
func (m *Method) Input() *MessageType { return m.input }

// Output returns the type of the response message, never nil.
func (m *Method) Output() *MessageType { return m.output }
