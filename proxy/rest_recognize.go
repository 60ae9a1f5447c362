package proxy

import (
	"net/http"
	"slices"
	"strings"

	"github.com/execgate/execgate/dispatcher"
	"github.com/execgate/execgate/schema"
)

const (
	headerMethodOverride = "X-Http-Method-Override"
	contentTypeForm      = "application/x-www-form-urlencoded"
)

func isForm(r *http.Request) bool { return mediaType(r.Header[headerContentType]) == contentTypeForm }

// recognizeREST notes that a request is a REST call: its method and path are a route of the schema.
//
// The path is looked up as it was sent. Methods that it would mean to servers that read it otherwise are in op.others.
func recognizeREST(op *operation, known *schema.Schema) {
	r := op.r
	path, _ := splitTarget(r)
	route, ok := known.Route(r.Method, path)
	switch r.Method {
	case http.MethodPost:
		if values := r.Header[headerMethodOverride]; len(values) > 0 && values[0] != "" {
			route, ok = override(op, known, route, ok, strings.ToUpper(values[0]))
			break
		}
		fallthrough
	case http.MethodPut, http.MethodPatch:
		if !isForm(r) {
			break
		}
		if !ok && r.Method == http.MethodPost {
			// grpc-gateway serves a GET whose query was too long for a URL as a POST with a form.
			if route, ok = known.Route(http.MethodGet, path); ok {
				op.formQuery = true
			}
		} else if ok {
			op.formQuery = !route.HasBody()
		}
	}
	noteFragment(op, known, path)
	if !ok {
		return
	}
	op.protocol, op.edge = protocolREST, restEdge{}
	op.route, op.method, op.fullMethod = route, route.Method(), route.Method().FullMethod
	op.others = append(op.others, route.Others()...)
}

// noteFragment notes what a path means to servers that cut a fragment off, which no client sends (RFC 9112 3.2).
func noteFragment(op *operation, known *schema.Schema, path string) {
	i := strings.IndexByte(path, '#')
	if i < 0 {
		return
	}
	if route, ok := known.Route(op.r.Method, path[:i]); ok {
		op.others = append(op.others, route.Method())
	}
}

// override decides on a POST that asks to be taken for another HTTP method. grpc-gateway does so with forms only, and
// takes the form for a query; other servers always or never do. post is the route of the POST itself.
func override(op *operation, known *schema.Schema, post schema.RouteMatch, ok bool, method string) (schema.RouteMatch, bool) {
	path, _ := splitTarget(op.r)
	other, overridden := known.Route(method, path)
	if !overridden {
		return post, ok
	}
	if !isForm(op.r) {
		if !ok || other.Method() != post.Method() {
			op.others = append(op.others, other.Method())
		}
		return post, ok
	}
	if ok {
		op.others = append(op.others, post.Method())
	}
	op.formQuery = true
	return other, true
}

// noteREST notes what a call of an unknown method would mean to an upstream that went by the path.
func noteREST(op *operation, known *schema.Schema) {
	path, _ := splitTarget(op.r)
	if route, ok := known.Route(op.r.Method, path); ok {
		op.others = append(op.others, route.Method())
		op.others = append(op.others, route.Others()...)
	}
}

// matchOthers refuses a request that servers read differently, if a target may interrupt any of the readings: the
// upstream's own might be one that was not checked.
func matchOthers(op *operation, snapshot *dispatcher.Snapshot) *callError {
	methods := op.others
	if op.method != nil {
		methods = append(slices.Clip(methods), op.method)
	}
	for _, m := range methods {
		request, response := snapshot.Call(m.FullMethod)
		if (interrupts(request) || interrupts(response)) && !exempt(m.FullMethod) {
			if op.edge == nil {
				op.protocol, op.edge, op.method = protocolREST, restEdge{}, m
			}
			return ambiguousError()
		}
	}
	return nil
}
