package admin

import (
	"context"
	"errors"

	"connectrpc.com/connect"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// connectInterceptor leads Connect calls to the guard.
func (s *Server) connectInterceptor() connect.UnaryInterceptorFunc {
	return func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			in := incoming{
				method:        req.Spec().Procedure,
				authorization: req.Header().Get("Authorization"),
				address:       req.Peer().Addr,
				origin:        req.Header().Get("Origin"),
				host:          hostOf(ctx),
			}
			res, err := s.guard.call(ctx, in, req.Any(), func(ctx context.Context, _ any) (any, error) {
				return next(ctx, req)
			})
			if err != nil {
				return nil, connectError(err)
			}
			return res.(connect.AnyResponse), nil
		}
	}
}

// connectError carries the code, message and details of a status over.
func connectError(err error) error {
	st := status.Convert(err)
	out := connect.NewError(connect.Code(st.Code()), errors.New(st.Message()))
	for _, detail := range st.Details() {
		if message, ok := detail.(proto.Message); ok {
			if d, err := connect.NewErrorDetail(message); err == nil {
				out.AddDetail(d)
			}
		}
	}
	return out
}

type hostKey struct{}

// withHost keeps the Host of a request for the interceptor: connect has it in no header.
func withHost(ctx context.Context, host string) context.Context {
	return context.WithValue(ctx, hostKey{}, host)
}

func hostOf(ctx context.Context) string {
	host, _ := ctx.Value(hostKey{}).(string)
	return host
}
