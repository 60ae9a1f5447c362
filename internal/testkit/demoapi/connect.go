package demoapi

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	demopb "github.com/execgate/execgate/gen/execgate/demo/v1"
	"github.com/execgate/execgate/gen/execgate/demo/v1/demopbconnect"
	"github.com/execgate/execgate/gen/zitadel/session/v2/sessionpbconnect"
	"github.com/execgate/execgate/gen/zitadel/user/v2/userpbconnect"
)

// newConnect serves the v2 services, and our own, over Connect. As on the real
// thing, the admin service is not among them.
func (s *Server) newConnect() (http.Handler, []string) {
	options := []connect.HandlerOption{
		connect.WithInterceptors(&connectInterceptor{server: s}),
		connect.WithReadMaxBytes(s.opts.MaxMessageBytes),
		connect.WithSendMaxBytes(s.opts.MaxMessageBytes),
	}
	mux := http.NewServeMux()
	var paths []string
	mount := func(path string, h http.Handler) {
		mux.Handle(path, h)
		paths = append(paths, path)
	}
	mount(userpbconnect.NewUserServiceHandler(&users{state: s.state}, options...))
	mount(sessionpbconnect.NewSessionServiceHandler(&sessions{state: s.state}, options...))
	mount(demopbconnect.NewStreamServiceHandler(&connectStreams{}, options...))
	mount(demopbconnect.NewRouteServiceHandler(&routes{}, options...))
	return mux, paths
}

// connectInterceptor does for Connect what the gRPC interceptors do, and turns
// the services' status errors into Connect's.
type connectInterceptor struct {
	server *Server
}

// WrapUnary lets a call in, and shows it.
func (i *connectInterceptor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		c := connectCall(ctx, req.Header())
		procedure := req.Spec().Procedure
		i.server.saw(c.request(procedure, req.Any()))
		ctx, err := i.server.admit(ctx, procedure, c)
		if err != nil {
			return nil, connectError(err)
		}
		resp, err := next(ctx, req)
		if err != nil {
			return nil, connectError(err)
		}
		return resp, nil
	}
}

// WrapStreamingClient does nothing: nobody is called from here.
func (i *connectInterceptor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler lets a stream in, and shows its messages.
func (i *connectInterceptor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		c := connectCall(ctx, conn.RequestHeader())
		procedure := conn.Spec().Procedure
		ctx, err := i.server.admit(ctx, procedure, c)
		if err != nil {
			return connectError(err)
		}
		err = next(ctx, &watchedConn{StreamingHandlerConn: conn, saw: func(msg any) {
			i.server.saw(c.request(procedure, msg))
		}})
		if err != nil {
			return connectError(err)
		}
		return nil
	}
}

// watchedConn shows every message that comes in.
type watchedConn struct {
	connect.StreamingHandlerConn
	saw func(msg any)
}

// Receive reads one message.
func (w *watchedConn) Receive(m any) error {
	if err := w.StreamingHandlerConn.Receive(m); err != nil {
		return err
	}
	w.saw(m)
	return nil
}

func connectCall(ctx context.Context, header http.Header) *call {
	c := &call{md: metadata.MD{}}
	for k, values := range header {
		k = strings.ToLower(k)
		for _, v := range values {
			if strings.HasSuffix(k, "-bin") {
				raw, err := connect.DecodeBinaryHeader(v)
				if err != nil {
					continue
				}
				v = string(raw)
			}
			c.md[k] = append(c.md[k], v)
		}
	}
	c.door = doorOf(ctx, c.md)
	set := func(pick func(connect.CallInfo) http.Header) func(k, v string) {
		return func(k, v string) {
			info, ok := connect.CallInfoForHandlerContext(ctx)
			if !ok {
				return
			}
			if strings.HasSuffix(k, "-bin") {
				v = connect.EncodeBinaryHeader([]byte(v))
			}
			pick(info).Add(k, v)
		}
	}
	c.setHeader = set(connect.CallInfo.ResponseHeader)
	c.setTrailer = set(connect.CallInfo.ResponseTrailer)
	return c
}

// connectError carries a status over, details included. Errors that Connect
// itself made stay as they are.
func connectError(err error) error {
	if ce := new(connect.Error); errors.As(err, &ce) {
		return err
	}
	st := status.Convert(err)
	ce := connect.NewError(connect.Code(st.Code()), errors.New(st.Message()))
	for _, d := range st.Proto().GetDetails() {
		if detail, err := connect.NewErrorDetail(d); err == nil {
			ce.AddDetail(detail)
		}
	}
	return ce
}

// connectStreams serves StreamService over Connect, whose streams have other
// types than gRPC's.
type connectStreams struct {
	streams
}

// Count counts, one message per number.
func (c *connectStreams) Count(ctx context.Context, req *demopb.CountRequest, out *connect.ServerStream[demopb.CountResponse]) error {
	return c.count(ctx, req, out.Send)
}

// Sum adds up what it is sent.
func (c *connectStreams) Sum(ctx context.Context, in *connect.ClientStream[demopb.SumRequest]) (*demopb.SumResponse, error) {
	return c.sum(ctx, func() (*demopb.SumRequest, error) {
		if in.Receive() {
			return in.Msg(), nil
		}
		if err := in.Err(); err != nil {
			return nil, err
		}
		return nil, io.EOF
	})
}

// Chat answers every message as it comes.
func (c *connectStreams) Chat(ctx context.Context, both *connect.BidiStream[demopb.ChatRequest, demopb.ChatResponse]) error {
	return c.chat(ctx, both.Receive, both.Send)
}
