package proxy

import (
	"net/http"
	"strings"
	"sync"

	"google.golang.org/grpc/codes"

	"github.com/execgate/execgate/dispatcher"
	"github.com/execgate/execgate/schema"
)

// protocol is what the client speaks.
type protocol uint8

// The protocols. The zero value is everything that is no call of the upstream's API.
const (
	protocolHTTP protocol = iota
	protocolGRPC
	protocolGRPCWeb
	protocolConnect
	protocolREST
)

var protocolNames = [...]string{
	protocolHTTP:    "http",
	protocolGRPC:    "grpc",
	protocolGRPCWeb: "grpc_web",
	protocolConnect: "connect",
	protocolREST:    "rest",
}

// String returns the metric label: "grpc", "grpc_web", "connect", "rest", "http".
func (p protocol) String() string { return protocolNames[p] }

const grpcContentType = "application/grpc"

// contentKind tells what a Content-Type says about the protocol, without regard to case: a server that is lenient must
// not see a call where the gateway saw none.
type contentKind uint8

const (
	contentOther contentKind = iota
	contentGRPC
	contentGRPCWeb
	contentConnectStream // application/connect+proto, application/connect+json
)

func kindOf(contentType string) contentKind {
	if contentType == grpcContentType {
		return contentGRPC
	}
	if hasFoldPrefix(contentType, grpcContentType) {
		rest := contentType[len(grpcContentType):]
		switch {
		case rest == "", rest[0] == '+', rest[0] == ';', rest[0] == ' ', rest[0] == '\t':
			return contentGRPC
		case hasFoldPrefix(rest, "-web"):
			return contentGRPCWeb
		}
		return contentOther
	}
	if hasFoldPrefix(contentType, "application/connect+") {
		return contentConnectStream
	}
	return contentOther
}

func hasFoldPrefix(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

// contentTypeOf returns the request's content kind. ok is false when several Content-Type fields disagree: the gateway
// and the upstream could then pick different ones.
func contentTypeOf(r *http.Request) (kind contentKind, ok bool) {
	values := r.Header["Content-Type"]
	if len(values) == 0 {
		return contentOther, true
	}
	kind = kindOf(values[0])
	for _, v := range values[1:] {
		if kindOf(v) != kind {
			return kind, false
		}
	}
	return kind, true
}

// websocketUpgrade returns the protocol that a request may switch to: WebSocket, or "". Other upgrades are not passed
// on; h2c above all would open a way around the gateway. A server is free to ignore them (RFC 9110 7.8).
func websocketUpgrade(r *http.Request) string {
	if r.ProtoMajor != 1 || r.Method != http.MethodGet {
		return ""
	}
	upgrade := r.Header["Upgrade"]
	if len(upgrade) != 1 || !strings.EqualFold(upgrade[0], "websocket") || !hasToken(r.Header["Connection"], "upgrade") {
		return ""
	}
	return upgrade[0]
}

// recognize refuses what cannot be forwarded as it is, and notes what the headers say of the protocol.
func (p *Proxy) recognize(op *operation) *callError {
	r := op.r
	if r.Method == http.MethodConnect {
		return &callError{
			code: codes.Unimplemented, message: "CONNECT is not supported",
			httpStatus: http.StatusMethodNotAllowed, outcome: outcomeRefused,
		}
	}
	if !cleanTarget(r.RequestURI) {
		return badRequest("request target has characters that it must not have")
	}
	kind, ok := contentTypeOf(r)
	if !ok {
		return badRequest("request has contradicting Content-Type headers")
	}
	op.kind = kind
	op.upgrade = websocketUpgrade(r)
	if isWebSocketCall(op) {
		op.fullMethod = r.URL.Path
		if p.webSockets {
			op.protocol, op.edge = protocolGRPCWeb, grpcWebSocketEdge{}
		}
		return nil
	}
	switch kind {
	case contentGRPC:
		op.needsHTTP2 = true
		if r.Method == http.MethodPost {
			op.protocol, op.edge, op.fullMethod = protocolGRPC, grpcEdge{}, r.URL.Path
		}
	case contentGRPCWeb:
		if r.Method == http.MethodPost {
			op.protocol, op.edge, op.fullMethod = protocolGRPCWeb, grpcWebEdge{}, r.URL.Path
		}
	case contentConnectStream:
		// Over HTTP/1.1 an upstream would refuse what needs both directions at once.
		op.needsHTTP2 = r.ProtoMajor >= 2
	default:
	}
	return nil
}

// outcomeRefused is the log's word for requests that are not forwarded at all.
const outcomeRefused = "refused"

func badRequest(message string) *callError {
	return &callError{code: codes.InvalidArgument, message: message, httpStatus: http.StatusBadRequest, outcome: outcomeRefused}
}

// identify names the method that is called, with the schema's help (nil while there is none).
func (p *Proxy) identify(op *operation, known *schema.Schema) {
	if op.protocol == protocolHTTP && op.fullMethod == "" {
		recognizeConnect(op, known)
		if op.method == nil && known != nil {
			recognizeREST(op, known)
		}
		return
	}
	if known == nil {
		return
	}
	op.method = known.Method(op.fullMethod)
	if op.method == nil && op.protocol == protocolGRPCWeb {
		// Some servers take the last two segments only, so that they can be mounted anywhere.
		if m := known.Method(lastSegments(op.fullMethod)); m != nil {
			op.method, op.fullMethod = m, m.FullMethod
		}
	}
	if op.method == nil {
		noteREST(op, known)
	}
}

// lastSegments returns the last two segments of a path, with the slash before them.
func lastSegments(path string) string {
	path = strings.TrimRight(path, "/")
	last := strings.LastIndexByte(path, '/')
	if last < 0 {
		return path
	}
	return path[max(0, strings.LastIndexByte(path[:last], '/')):]
}

// exempt reports whether a method never triggers: health checks and reflection, which anybody's probes depend on
// (spec 4.11).
func exempt(fullMethod string) bool {
	return strings.HasPrefix(fullMethod, "/grpc.health.v1.Health/") || strings.HasPrefix(fullMethod, "/grpc.reflection.")
}

// match looks up what fires for an identified call. The error refuses the call (D-38).
func (p *Proxy) match(op *operation, snapshot *dispatcher.Snapshot) *callError {
	request, response := snapshot.Call(op.fullMethod)
	if request == nil && response == nil || exempt(op.fullMethod) {
		return nil
	}
	m := op.method
	if m != nil {
		if request, response = streamPlans(m, request, response); request == nil && response == nil {
			return nil
		}
	}
	if op.protocol == protocolREST && m != nil && !m.ServerStreaming && !m.ClientStreaming {
		op.upgrade = "" // A single answer needs no other protocol.
	}
	if op.upgrade != "" && !op.ended() {
		return p.matchWebSocket(op, request, response)
	}
	if m == nil {
		return p.matchUnknown(op, request, response)
	}
	op.request, op.response = request, response
	op.fire(request, response)
	return nil
}

// streamPlans returns which of two plans fire on the methods that stream (D-53): none where the requests are a stream,
// and a response plan on a stream of responses only if its execution's policy asks for every message.
func streamPlans(m *schema.Method, request, response *dispatcher.Plan) (*dispatcher.Plan, *dispatcher.Plan) {
	switch {
	case m.ClientStreaming:
		return nil, nil
	case m.ServerStreaming && response != nil && !response.PerMessage:
		return request, nil
	}
	return request, response
}

// fire notes for the log which executions matched.
func (op *operation) fire(request, response *dispatcher.Plan) {
	if request != nil {
		op.matched, op.firedRequest = true, request.Execution
	}
	if response != nil {
		op.matched, op.firedResponse = true, response.Execution
	}
}

// matchUnknown decides on a call that matches but that the schema has no descriptor for: D-38.
func (p *Proxy) matchUnknown(op *operation, request, response *dispatcher.Plan) *callError {
	op.fire(request, response)
	op.outcome = reasonNoSchema
	p.unevaluated(&unevaluable{reason: reasonNoSchema}, request, response)
	if p.unknown.first(op.fullMethod) {
		p.logger.Warn("a method with an execution is not in the upstream's schema",
			"method", op.fullMethod, "protocol", op.protocol.String())
	}
	if interrupts(request) || interrupts(response) {
		return noSchemaError()
	}
	return nil
}

// matchWebSocket decides on an upgrade to gRPC-Web over WebSocket, for which the message cannot be seen.
func (p *Proxy) matchWebSocket(op *operation, request, response *dispatcher.Plan) *callError {
	op.fire(request, response)
	op.outcome = reasonEncoding
	p.unevaluated(&unevaluable{reason: reasonEncoding}, request, response)
	if interrupts(request) || interrupts(response) {
		return webSocketError()
	}
	return nil
}

func interrupts(plan *dispatcher.Plan) bool { return plan != nil && plan.Interrupts }

// loggedOnce remembers what was logged already. It is bounded: names come from clients.
type loggedOnce struct {
	mu   sync.Mutex
	seen map[string]struct{}
}

const maxLoggedOnce = 256

func (l *loggedOnce) first(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.seen[name]; ok || len(l.seen) >= maxLoggedOnce {
		return false
	}
	if l.seen == nil {
		l.seen = make(map[string]struct{})
	}
	l.seen[strings.Clone(name)] = struct{}{}
	return true
}
