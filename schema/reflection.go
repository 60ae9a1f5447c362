package schema

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

// Reflection is how the upstream's reflection service is reached.
type Reflection struct {
	// Target is a grpc.NewClient target, such as "passthrough:///127.0.0.1:9080".
	Target string
	// DialOptions must hold transport credentials (insecure ones for h2c), and may
	// hold grpc.WithAuthority, per-RPC credentials and the like.
	DialOptions []grpc.DialOption
	// Timeout bounds one look. 0 is 20 s.
	Timeout time.Duration
}

// Bounds of what one look takes from a server.
const (
	maxReflectionMessage = 64 << 20
	maxReflectionBytes   = 256 << 20
	maxReflectionFiles   = 20000
)

// The two versions of the protocol have the same messages.
const (
	reflectionV1      = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
	reflectionV1Alpha = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
)

// learned is what a reflection server told.
type learned struct {
	set      []byte   // serialized FileDescriptorSet, files sorted by name
	problems []string // what did not resolve
	missing  []string // services that are listed and did not resolve
}

// learn asks the reflection service for all it has, over a connection of its own.
func (r *Reflection) learn(ctx context.Context) (*learned, error) {
	timeout := r.Timeout
	if timeout <= 0 {
		timeout = 20 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	options := []grpc.DialOption{
		grpc.WithNoProxy(), // the upstream is the neighbour, not the internet
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: 3 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxReflectionMessage)),
	}
	conn, err := grpc.NewClient(r.Target, append(options, r.DialOptions...)...)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return learnFrom(ctx, conn)
}

// learnFrom asks with v1, and with v1alpha where v1 is not to be had.
func learnFrom(ctx context.Context, conn grpc.ClientConnInterface) (*learned, error) {
	l, err := learnWith(ctx, conn, reflectionV1)
	if err == nil || ctx.Err() != nil {
		return l, err
	}
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return nil, err
	}
	l, errAlpha := learnWith(ctx, conn, reflectionV1Alpha)
	switch {
	case errAlpha == nil:
		return l, nil
	case status.Code(err) == codes.Unimplemented && status.Code(errAlpha) == codes.Unimplemented:
		return nil, errors.New("the upstream offers no server reflection, neither v1 nor v1alpha")
	case status.Code(err) == codes.Unimplemented:
		return nil, fmt.Errorf("server reflection v1alpha: %w", errAlpha)
	}
	return nil, fmt.Errorf("server reflection v1: %w", err)
}

// reflectionStream asks one question after the other on one stream.
type reflectionStream struct {
	stream grpc.ClientStream
	files  map[string][]byte                            // serialized, by name
	protos map[string]*descriptorpb.FileDescriptorProto // parsed, by name
	bytes  int
}

func learnWith(ctx context.Context, conn grpc.ClientConnInterface, method string) (*learned, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream, whatever state it is in
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
	if err != nil {
		return nil, err
	}
	s := &reflectionStream{stream: stream, files: map[string][]byte{}, protos: map[string]*descriptorpb.FileDescriptorProto{}}
	l, err := s.collect()
	if err != nil {
		return nil, err
	}
	// A clean end, so that the server sees no cancelled call.
	if stream.CloseSend() == nil {
		_ = stream.RecvMsg(new(reflectionpb.ServerReflectionResponse))
	}
	return l, nil
}

func (s *reflectionStream) collect() (*learned, error) {
	services, err := s.services()
	if err != nil {
		return nil, err
	}
	l := &learned{}
	for _, service := range services {
		err := s.addFiles(&reflectionpb.ServerReflectionRequest{
			MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: service},
		})
		if refused := (*refusedError)(nil); errors.As(err, &refused) {
			l.missing = append(l.missing, service)
			l.problems = append(l.problems, fmt.Sprintf("service %s: %s", service, refused))
		} else if err != nil {
			return nil, err
		}
	}
	if err := s.addImports(l); err != nil {
		return nil, err
	}
	if err := s.addExtensions(l); err != nil {
		return nil, err
	}
	if len(s.files) == 0 {
		if len(l.problems) > 0 {
			return nil, fmt.Errorf("nothing resolved: %s", l.problems[0])
		}
		return nil, errors.New("the upstream lists no services")
	}
	names := make([]string, 0, len(s.files))
	for name := range s.files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		l.set = protowire.AppendTag(l.set, 1, protowire.BytesType)
		l.set = protowire.AppendBytes(l.set, s.files[name])
	}
	slices.Sort(l.problems)
	return l, nil
}

// addImports asks for the files that others import and that did not come along.
func (s *reflectionStream) addImports(l *learned) error {
	asked := map[string]bool{}
	for {
		var wanted []string
		for _, p := range s.protos {
			for _, name := range p.GetDependency() {
				if s.protos[name] == nil && !asked[name] {
					asked[name] = true
					wanted = append(wanted, name)
				}
			}
		}
		if len(wanted) == 0 {
			return nil
		}
		slices.Sort(wanted)
		for _, name := range wanted {
			if s.protos[name] != nil {
				continue
			}
			err := s.addFiles(&reflectionpb.ServerReflectionRequest{
				MessageRequest: &reflectionpb.ServerReflectionRequest_FileByFilename{FileByFilename: name},
			})
			if refused := (*refusedError)(nil); errors.As(err, &refused) {
				if !isOptionFile(name) && wellKnownFile(name) == nil {
					l.problems = append(l.problems, fmt.Sprintf("file %q: %s", name, refused))
				}
			} else if err != nil {
				return err
			}
		}
	}
}

// addExtensions asks for the extensions of messages that can be extended: they
// may be declared in files that no service leads to.
func (s *reflectionStream) addExtensions(l *learned) error {
	var extendable []string
	for _, p := range s.protos {
		if p.GetName() == "google/protobuf/descriptor.proto" {
			continue
		}
		prefix := ""
		if p.GetPackage() != "" {
			prefix = p.GetPackage() + "."
		}
		extendable = appendExtendable(extendable, prefix, p.GetMessageType())
	}
	slices.Sort(extendable)
	for _, name := range extendable {
		resp, err := s.ask(&reflectionpb.ServerReflectionRequest{
			MessageRequest: &reflectionpb.ServerReflectionRequest_AllExtensionNumbersOfType{AllExtensionNumbersOfType: name},
		})
		if refused := (*refusedError)(nil); errors.As(err, &refused) {
			continue // servers need not know
		} else if err != nil {
			return err
		}
		for _, number := range resp.GetAllExtensionNumbersResponse().GetExtensionNumber() {
			err := s.addFiles(&reflectionpb.ServerReflectionRequest{
				MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingExtension{
					FileContainingExtension: &reflectionpb.ExtensionRequest{ContainingType: name, ExtensionNumber: number},
				},
			})
			if refused := (*refusedError)(nil); err != nil && !errors.As(err, &refused) {
				return err
			}
		}
	}
	if len(extendable) > 0 {
		return s.addImports(l)
	}
	return nil
}

func appendExtendable(names []string, prefix string, messages []*descriptorpb.DescriptorProto) []string {
	for _, m := range messages {
		if len(m.GetExtensionRange()) > 0 {
			names = append(names, prefix+m.GetName())
		}
		names = appendExtendable(names, prefix+m.GetName()+".", m.GetNestedType())
	}
	return names
}

func (s *reflectionStream) services() ([]string, error) {
	resp, err := s.ask(&reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{ListServices: "*"},
	})
	if err != nil {
		return nil, err
	}
	list := resp.GetListServicesResponse()
	if list == nil {
		return nil, errors.New("unexpected answer to list_services")
	}
	var names []string
	for _, service := range list.GetService() {
		names = append(names, service.GetName())
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// addFiles asks a question that is answered with files, and keeps those that are
// new.
func (s *reflectionStream) addFiles(req *reflectionpb.ServerReflectionRequest) error {
	resp, err := s.ask(req)
	if err != nil {
		return err
	}
	files := resp.GetFileDescriptorResponse()
	if files == nil {
		return &refusedError{text: "unexpected answer"}
	}
	for _, b := range files.GetFileDescriptorProto() {
		p := &descriptorpb.FileDescriptorProto{}
		o := proto.UnmarshalOptions{AllowPartial: true, Resolver: &protoregistry.Types{}}
		if err := o.Unmarshal(b, p); err != nil || p.GetName() == "" {
			return &refusedError{text: "unreadable file descriptor"}
		}
		if s.protos[p.GetName()] != nil {
			continue
		}
		s.bytes += len(b)
		if s.bytes > maxReflectionBytes || len(s.files) >= maxReflectionFiles {
			return errors.New("the upstream's descriptors are too large")
		}
		s.files[p.GetName()], s.protos[p.GetName()] = b, p
	}
	return nil
}

// refusedError is an answer that says no to one question; the stream goes on.
type refusedError struct{ text string }

func (e *refusedError) Error() string { return e.text }

func (s *reflectionStream) ask(req *reflectionpb.ServerReflectionRequest) (*reflectionpb.ServerReflectionResponse, error) {
	resp := new(reflectionpb.ServerReflectionResponse)
	// SendMsg fails with io.EOF when the server has ended the stream: RecvMsg says
	// why.
	_ = s.stream.SendMsg(req)
	if err := s.stream.RecvMsg(resp); err != nil {
		return nil, err
	}
	if e := resp.GetErrorResponse(); e != nil {
		return nil, &refusedError{text: codes.Code(e.GetErrorCode()).String()}
	}
	return resp, nil
}
