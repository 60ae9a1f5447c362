package demoapi

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/encoding/protojson"

	demopb "github.com/execgate/execgate/gen/execgate/demo/v1"
	adminpb "github.com/execgate/execgate/gen/zitadel/admin/v1"
	sessionpb "github.com/execgate/execgate/gen/zitadel/session/v2"
	userpb "github.com/execgate/execgate/gen/zitadel/user/v2"
)

// Path prefixes of the REST door. The HTTP rules of the v2 services bear theirs;
// the others are mounted under the base path of their file.
const (
	adminBase = "/admin/v1"
	demoBase  = "/demo/v1"
)

var restPrefixes = []string{"/v2/", adminBase + "/", demoBase + "/"}

func dialLoop(pipe *bufconn.Listener, maxMessageBytes int) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("passthrough:///demo-api",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return pipe.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes), grpc.MaxCallSendMsgSize(maxMessageBytes)))
	if err != nil {
		return nil, fmt.Errorf("connect the REST door: %w", err)
	}
	return conn, nil
}

// newREST serves the HTTP rules of every service by calling it over conn.
func newREST(conn *grpc.ClientConn) (http.Handler, error) {
	root, admin, demo := newRESTMux(), newRESTMux(), newRESTMux()
	ctx := context.Background()
	for _, r := range []struct {
		mux      *runtime.ServeMux
		register func(context.Context, *runtime.ServeMux, *grpc.ClientConn) error
	}{
		{root, userpb.RegisterUserServiceHandler},
		{root, sessionpb.RegisterSessionServiceHandler},
		{admin, adminpb.RegisterAdminServiceHandler},
		{demo, demopb.RegisterStreamServiceHandler},
		{demo, demopb.RegisterRouteServiceHandler},
	} {
		if err := r.register(ctx, r.mux, conn); err != nil {
			return nil, fmt.Errorf("register the REST routes: %w", err)
		}
	}
	mux := http.NewServeMux()
	mux.Handle("/", root)
	mux.Handle(adminBase+"/", http.StripPrefix(adminBase, admin))
	mux.Handle(demoBase+"/", http.StripPrefix(demoBase, demo))
	return mux, nil
}

// newRESTMux reads and writes JSON as the identity API does: unset fields are
// left out, unknown ones ignored, names in lowerCamelCase.
func newRESTMux() *runtime.ServeMux {
	return runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, &runtime.JSONPb{
			MarshalOptions:   protojson.MarshalOptions{},
			UnmarshalOptions: protojson.UnmarshalOptions{DiscardUnknown: true},
		}),
		runtime.WithIncomingHeaderMatcher(func(key string) (string, bool) {
			if lower := strings.ToLower(key); strings.HasPrefix(lower, "x-") {
				return lower, true
			}
			return runtime.DefaultHeaderMatcher(key)
		}),
		runtime.WithMetadata(func(_ context.Context, r *http.Request) metadata.MD {
			return metadata.Pairs(mdDoorProtocol, ProtocolREST, mdDoorHost, r.Host)
		}),
		runtime.WithRoutingErrorHandler(func(ctx context.Context, mux *runtime.ServeMux, m runtime.Marshaler, w http.ResponseWriter, r *http.Request, code int) {
			if code == http.StatusMethodNotAllowed {
				err := &runtime.HTTPStatusError{
					HTTPStatus: code,
					Err:        status.Error(codes.Unimplemented, http.StatusText(code)),
				}
				runtime.DefaultHTTPErrorHandler(ctx, mux, m, w, r, err)
				return
			}
			runtime.DefaultRoutingErrorHandler(ctx, mux, m, w, r, code)
		}),
	)
}
