package demoapi

import (
	"context"
	"net"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// door is how a request came in.
type door struct {
	protocol string
	host     string
}

type doorKey struct{}

func withDoor(ctx context.Context, d door) context.Context {
	return context.WithValue(ctx, doorKey{}, d)
}

// Metadata by which the REST door tells the server behind it where a call came
// in. It is believed on the in-memory connection only.
const (
	mdDoorProtocol = "demo-door-protocol"
	mdDoorHost     = "demo-door-host"
)

// doorOf finds the door in the request's context or, for calls that the REST
// door made, in their metadata.
func doorOf(ctx context.Context, md metadata.MD) door {
	if d, ok := ctx.Value(doorKey{}).(door); ok {
		return d
	}
	d := door{protocol: ProtocolGRPC}
	if p, ok := peer.FromContext(ctx); ok && p.Addr.Network() == "bufconn" {
		d.protocol = first(md.Get(mdDoorProtocol))
		d.host = first(md.Get(mdDoorHost))
		delete(md, mdDoorProtocol)
		delete(md, mdDoorHost)
	}
	return d
}

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// call is what a service may know about the call it serves.
type call struct {
	door
	md     metadata.MD
	userID string
	orgID  string
	// setHeader and setTrailer add to what the caller gets beside the message.
	setHeader, setTrailer func(key, value string)
}

type callKey struct{}

func callOf(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	if c == nil {
		c = &call{userID: DefaultUserID, orgID: DefaultOrgID}
	}
	return c
}

// admit lets a call in, or says why not. It returns the context that the
// services expect.
func (s *Server) admit(ctx context.Context, method string, c *call) (context.Context, error) {
	c.userID, c.orgID = DefaultUserID, DefaultOrgID
	if org := first(c.md.Get("x-zitadel-orgid")); org != "" {
		c.orgID = org
	}
	if !strings.HasPrefix(method, "/grpc.") {
		if !s.knowsHost(c.host) {
			return nil, failure(codes.NotFound, "Instance not found", "QUERY-1kIjX")
		}
		if err := s.authenticate(method, c); err != nil {
			return nil, err
		}
	}
	return context.WithValue(ctx, callKey{}, c), nil
}

func (s *Server) knowsHost(host string) bool {
	if len(s.opts.Hosts) == 0 {
		return true
	}
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return slices.ContainsFunc(s.opts.Hosts, func(known string) bool {
		return strings.EqualFold(known, host)
	})
}

// healthz is the one method of the API that needs no token.
const healthz = "/zitadel.admin.v1.AdminService/Healthz"

func (s *Server) authenticate(method string, c *call) error {
	if len(s.opts.Tokens) == 0 || method == healthz {
		return nil
	}
	header := first(c.md.Get("authorization"))
	if header == "" {
		return status.Error(codes.Unauthenticated, "auth header missing")
	}
	scheme, token, _ := strings.Cut(header, " ")
	userID, ok := s.opts.Tokens[token]
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return failure(codes.Unauthenticated, "Token is invalid", "AUTH-7fs1e")
	}
	c.userID = userID
	return nil
}

func grpcCall(ctx context.Context) *call {
	md, _ := metadata.FromIncomingContext(ctx)
	c := &call{md: md}
	c.door = doorOf(ctx, md)
	return c
}

func (s *Server) interceptUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	c := grpcCall(ctx)
	c.setHeader = func(k, v string) { _ = grpc.SetHeader(ctx, metadata.Pairs(k, v)) }
	c.setTrailer = func(k, v string) { _ = grpc.SetTrailer(ctx, metadata.Pairs(k, v)) }
	s.saw(c.request(info.FullMethod, req))
	ctx, err := s.admit(ctx, info.FullMethod, c)
	if err != nil {
		return nil, err
	}
	return next(ctx, req)
}

func (s *Server) interceptStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	c := grpcCall(ss.Context())
	c.setHeader = func(k, v string) { _ = ss.SetHeader(metadata.Pairs(k, v)) }
	c.setTrailer = func(k, v string) { ss.SetTrailer(metadata.Pairs(k, v)) }
	ctx, err := s.admit(ss.Context(), info.FullMethod, c)
	if err != nil {
		return err
	}
	return next(srv, &watchedStream{ServerStream: ss, ctx: ctx, saw: func(msg any) {
		s.saw(c.request(info.FullMethod, msg))
	}})
}

func (c *call) request(method string, msg any) Request {
	m, _ := msg.(proto.Message)
	return Request{Protocol: c.protocol, Method: method, Host: c.host, Message: m, Metadata: c.md}
}

// watchedStream shows every message that comes in.
type watchedStream struct {
	grpc.ServerStream
	ctx context.Context
	saw func(msg any)
}

// Context is the one that the services expect.
func (w *watchedStream) Context() context.Context { return w.ctx }

// RecvMsg reads one message.
func (w *watchedStream) RecvMsg(m any) error {
	if err := w.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	w.saw(m)
	return nil
}
