package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	actionv2 "github.com/execgate/execgate/gen/zitadel/action/v2"
	actionv3 "github.com/execgate/execgate/gen/zitadel/resources/action/v3alpha"
)

// restCall is what a REST request and the RPC that it becomes tell each other.
type restCall struct {
	authorization, origin, host, address string

	reached  bool // the guard
	created  bool // answer 201
	tooLarge bool // the body was
}

func (c *restCall) incoming(method string) incoming {
	return incoming{method: method, authorization: c.authorization, address: c.address, origin: c.origin, host: c.host}
}

type restKey struct{}

// answerCreated makes the answer over REST 201; other protocols have no such thing.
func answerCreated(ctx context.Context) {
	if call, ok := ctx.Value(restKey{}).(*restCall); ok {
		call.created = true
	}
}

// restHandler serves the HTTP rules of the services over a connection to them.
func (s *Server) restHandler(conn grpc.ClientConnInterface) (http.Handler, error) {
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, strictJSON{&runtime.JSONPb{
			MarshalOptions:   protojson.MarshalOptions{EmitUnpopulated: false},
			UnmarshalOptions: protojson.UnmarshalOptions{DiscardUnknown: true},
		}}),
		runtime.WithErrorHandler(s.writeRESTError),
		runtime.WithRoutingErrorHandler(writeRoutingError),
		runtime.WithForwardResponseOption(writeCreated),
		// Metadata is of no use to REST clients, and a form is no way to write.
		runtime.WithOutgoingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
	)
	err := errors.Join(
		actionv3.RegisterZITADELActionsHandlerClient(context.Background(), mux, actionv3.NewZITADELActionsClient(conn)),
		actionv2.RegisterActionServiceHandlerClient(context.Background(), mux, actionv2.NewActionServiceClient(conn)),
		gatewaypb.RegisterGatewayServiceHandlerClient(context.Background(), mux, gatewaypb.NewGatewayServiceClient(conn)),
	)
	if err != nil {
		return nil, err
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/") {
			notFound(w, r) // an empty last segment is no id
			return
		}
		call := &restCall{
			authorization: r.Header.Get("Authorization"),
			origin:        r.Header.Get("Origin"),
			host:          r.Host,
			address:       r.RemoteAddr,
		}
		r = r.WithContext(context.WithValue(r.Context(), restKey{}, call))
		if r.Body != nil {
			r.Body = &boundedBody{body: http.MaxBytesReader(w, r.Body, s.maxBody), call: call}
		}
		mux.ServeHTTP(w, r)
	}), nil
}

// boundedBody remembers that the limit of a body was passed: by the time an error handler sees the error, it has lost
// its type.
type boundedBody struct {
	body io.ReadCloser
	call *restCall
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		b.call.tooLarge = true
	}
	return n, err
}

func (b *boundedBody) Close() error { return b.body.Close() }

// strictJSON reads exactly one JSON value: garbage behind it is an error. An empty body is no value.
type strictJSON struct{ *runtime.JSONPb }

func (j strictJSON) NewDecoder(r io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(v any) error {
		body, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if body = bytes.TrimSpace(body); len(body) > 0 && !json.Valid(body) {
			return errors.New("body is not valid JSON")
		}
		return j.JSONPb.NewDecoder(bytes.NewReader(body)).Decode(v)
	})
}

func writeCreated(ctx context.Context, w http.ResponseWriter, _ proto.Message) error {
	if call, ok := ctx.Value(restKey{}).(*restCall); ok && call.created {
		w.WriteHeader(http.StatusCreated)
	}
	return nil
}

// writeRESTError also gets the errors of bodies and parameters that are no message, which the guard has not seen: whoever
// may not call hears that first.
func (s *Server) writeRESTError(ctx context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, _ *http.Request, err error) {
	call, _ := ctx.Value(restKey{}).(*restCall)
	if method, ok := runtime.RPCMethod(ctx); ok && call != nil && !call.reached {
		if _, refused := s.guard.admit(ctx, call.incoming(method)); refused != nil {
			st := s.guard.status(call.incoming(method), refused)
			writeStatus(w, runtime.HTTPStatusFromCode(st.Code()), st)
			return
		}
	}
	st := status.Convert(err)
	if routing := (*runtime.HTTPStatusError)(nil); errors.As(err, &routing) {
		writeStatus(w, routing.HTTPStatus, status.New(codes.InvalidArgument, routing.Err.Error()))
		return
	}
	if call != nil && call.tooLarge {
		writeStatus(w, http.StatusRequestEntityTooLarge, status.New(codes.ResourceExhausted, "request body is too large"))
		return
	}
	writeStatus(w, runtime.HTTPStatusFromCode(st.Code()), st)
}

func writeRoutingError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, httpStatus int) {
	switch httpStatus {
	case http.StatusMethodNotAllowed:
		methodNotAllowed(w, r)
	case http.StatusNotFound:
		notFound(w, r)
	default:
		writeStatus(w, httpStatus, status.New(codes.InvalidArgument, http.StatusText(httpStatus)))
	}
}

func notFound(w http.ResponseWriter, _ *http.Request) {
	writeStatus(w, http.StatusNotFound, status.New(codes.NotFound, http.StatusText(http.StatusNotFound)))
}

func methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	if verbs := allowedVerbs(r.URL.Path, r.Method); len(verbs) > 0 {
		w.Header().Set("Allow", strings.Join(verbs, ", "))
	}
	writeStatus(w, http.StatusMethodNotAllowed, status.New(codes.Unimplemented, http.StatusText(http.StatusMethodNotAllowed)))
}

// writeStatus writes a status as JSON, the form that every error of the HTTP API has.
func writeStatus(w http.ResponseWriter, httpStatus int, st *status.Status) {
	body, err := protojson.Marshal(st.Proto())
	if err != nil {
		httpStatus, body = http.StatusInternalServerError, []byte(`{"code":13,"message":"internal error"}`)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	if httpStatus == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	w.WriteHeader(httpStatus)
	_, _ = w.Write(body)
}
