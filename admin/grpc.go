package admin

import (
	"context"
	"net/http"

	"github.com/improbable-eng/grpc-web/go/grpcweb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip" // requests may be compressed
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// unary leads gRPC and REST calls to the guard. Health checks pass.
func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if info.FullMethod == healthpb.Health_Check_FullMethodName || info.FullMethod == healthpb.Health_List_FullMethodName {
		return handler(ctx, req)
	}
	in := incoming{method: info.FullMethod}
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		in.authorization = first(md, "authorization")
		in.origin = first(md, "origin")
		in.host = first(md, ":authority")
	}
	if p, ok := peer.FromContext(ctx); ok && p.Addr != nil {
		in.address = p.Addr.String()
	}
	if call, ok := ctx.Value(restKey{}).(*restCall); ok {
		in, call.reached = call.incoming(info.FullMethod), true
	}
	return s.guard.call(ctx, in, req, handler)
}

func first(md metadata.MD, key string) string {
	if values := md.Get(key); len(values) > 0 {
		return values[0]
	}
	return ""
}

// stream lets health watches and reflection pass, until the server closes. The services have no streams.
func (s *Server) stream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(s.closing, cancel)()
	return handler(srv, endingStream{stream, ctx})
}

// endingStream is a stream that can be ended from this side: otherwise a handler that waits for the next message waits
// as long as its client likes.
type endingStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s endingStream) Context() context.Context { return s.ctx }

func (s endingStream) RecvMsg(m any) error {
	received := make(chan error, 1)
	go func() { received <- s.ServerStream.RecvMsg(m) }()
	select {
	case err := <-received:
		return err
	case <-s.ctx.Done():
		return status.Error(codes.Unavailable, "the stream is ending")
	}
}

// grpcWeb serves gRPC-Web through the gRPC server.
func (s *Server) grpcWeb() http.HandlerFunc {
	return grpcweb.WrapServer(s.grpc).HandleGrpcWebRequest
}

// loopback is a connection to services in this process: the REST handlers call through it, so that a REST call passes
// the same interceptor as a gRPC call, with the context and the peer of its HTTP request.
type loopback struct {
	interceptor grpc.UnaryServerInterceptor
	methods     map[string]loopbackMethod
}

type loopbackMethod struct {
	server  any
	handler grpc.MethodHandler
}

func newLoopback(interceptor grpc.UnaryServerInterceptor) *loopback {
	return &loopback{interceptor: interceptor, methods: make(map[string]loopbackMethod)}
}

// RegisterService implements grpc.ServiceRegistrar.
func (l *loopback) RegisterService(desc *grpc.ServiceDesc, server any) {
	for _, m := range desc.Methods {
		l.methods["/"+desc.ServiceName+"/"+m.MethodName] = loopbackMethod{server, m.Handler}
	}
}

// Invoke implements grpc.ClientConnInterface.
func (l *loopback) Invoke(ctx context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	m, ok := l.methods[method]
	if !ok {
		return status.Error(codes.Unimplemented, "unknown method "+method)
	}
	md, _ := metadata.FromOutgoingContext(ctx)
	ctx = metadata.NewIncomingContext(ctx, md)
	decode := func(into any) error {
		share(into.(proto.Message), args.(proto.Message))
		return nil
	}
	out, err := m.handler(m.server, ctx, decode, l.interceptor)
	if err != nil {
		return err
	}
	share(reply.(proto.Message), out.(proto.Message))
	return nil
}

// share fills the empty message with the fields of another: lists and messages in them are then of both.
func share(into, from proto.Message) {
	to := into.ProtoReflect()
	from.ProtoReflect().Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		to.Set(field, value)
		return true
	})
}

// NewStream implements grpc.ClientConnInterface.
func (l *loopback) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, status.Error(codes.Unimplemented, "no streams")
}
