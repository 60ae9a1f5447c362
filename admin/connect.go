package admin

import (
	"context"
	"errors"
	"net/http"

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

// connectFront lets nobody who may not call hear what is wrong with a body: connect decodes it before the interceptor.
func (s *Server) connectFront(next http.Handler) http.Handler {
	refusals := connect.NewErrorWriter()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := withHost(r.Context(), r.Host)
		if _, known := rules[r.URL.Path]; known && r.Method == http.MethodPost && refusals.IsSupported(r) {
			var err error
			ctx, err = s.guard.front(ctx, incoming{
				method:        r.URL.Path,
				authorization: r.Header.Get("Authorization"),
				address:       r.RemoteAddr,
				origin:        r.Header.Get("Origin"),
				host:          r.Host,
			})
			if err != nil {
				_ = refusals.Write(w, r, connectError(err)) // the client is gone
				return
			}
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
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
