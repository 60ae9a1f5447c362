package admin

import (
	"net/http"
	"strings"

	"connectrpc.com/connect"
	"github.com/go-chi/chi/v5"

	"github.com/execgate/execgate/gen/execgate/v1/gatewaypbconnect"
	actionv2connect "github.com/execgate/execgate/gen/zitadel/action/v2/actionpbconnect"
	actionv3connect "github.com/execgate/execgate/gen/zitadel/resources/action/v3alpha/actionpbconnect"
)

// routes is the one place that decides which protocol a request speaks: gRPC and gRPC-Web by their content types, the
// rest by path.
func (s *Server) routes(rest http.Handler, v3 *v3alpha, v2 *v2, own *gateway) http.Handler {
	r := chi.NewRouter()
	r.NotFound(notFound)
	r.MethodNotAllowed(methodNotAllowed)

	for _, prefix := range []string{"/resources/v3alpha", "/v2/actions", "/v1"} {
		r.Handle(prefix+"/*", rest)
	}
	r.Get("/openapi.json", serveOpenAPI)
	r.Head("/openapi.json", serveOpenAPI)
	// An execution id takes the rest of its path, but static paths win.
	const executions = "/resources/v3alpha/executions"
	for _, static := range []string{"", "/_search", "/functions", "/methods", "/services"} {
		r.Delete(executions+static, methodNotAllowed)
	}

	options := []connect.HandlerOption{
		connect.WithInterceptors(s.connectInterceptor()),
		connect.WithReadMaxBytes(int(s.maxBody)),
	}
	mountConnect := func(path string, h http.Handler) {
		r.Handle(path+"*", s.connectFront(h))
	}
	mountConnect(actionv3connect.NewZITADELActionsHandler(v3, options...))
	mountConnect(actionv2connect.NewActionServiceHandler(v2, options...))
	mountConnect(gatewaypbconnect.NewGatewayServiceHandler(own, options...))

	grpcWeb := s.grpcWeb()
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		contentType := req.Header.Get("Content-Type")
		switch {
		case strings.HasPrefix(contentType, "application/grpc-web"):
			if req.Method != http.MethodPost {
				w.Header().Set("Allow", http.MethodPost)
				methodNotAllowed(w, req)
				return
			}
			grpcWeb(w, req)
		case strings.HasPrefix(contentType, "application/grpc"):
			s.grpc.ServeHTTP(w, req)
		default:
			r.ServeHTTP(w, req)
		}
	})
}
