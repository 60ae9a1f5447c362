package proxy

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"google.golang.org/grpc/codes"
)

// grpcWebSocketEdge speaks gRPC-Web over WebSocket, where that is enabled. grpcweb's wrapper ends the WebSocket, so that
// every such call becomes gRPC, whether it matches or not.
type grpcWebSocketEdge struct{ grpcEdge }

var _ edge = grpcWebSocketEdge{}

// isWebSocketCall reports whether an upgrade would carry gRPC-Web calls.
func isWebSocketCall(op *operation) bool {
	return op.upgrade != "" && hasToken(op.r.Header["Sec-Websocket-Protocol"], "grpc-websockets")
}

// ended reports whether the gateway itself is the end of the WebSocket.
func (op *operation) ended() bool {
	_, ok := op.edge.(grpcWebSocketEdge)
	return ok
}

// webSocketError is for such an upgrade where it is not enabled, to a method on which something may veto.
func webSocketError() *callError {
	return &callError{
		code: codes.Unimplemented, message: "gRPC-Web over WebSocket is not enabled",
		httpStatus: http.StatusForbidden, outcome: outcomeRefused,
	}
}

// serve answers any such call, matched or not.
func (e grpcWebSocketEdge) serve(p *Proxy, op *operation) {
	if !p.sameSite(op.r) {
		refusal := badRequest("origin is not allowed")
		refusal.httpStatus = http.StatusForbidden
		op.edge = nil // Nothing was upgraded: the answer is plain HTTP.
		p.fail(op, refusal)
		return
	}
	ctx, cancel := context.WithCancel(op.ctx)
	defer cancel()
	t := &tunnel{cut: cancel}
	if !p.tunnels.add(t) {
		return
	}
	defer p.tunnels.remove(t)
	op.ctx = ctx
	p.web.HandleGrpcWebsocketRequest(op.w, op.r.WithContext(context.WithValue(ctx, webOperation{}, op)))
	if op.code == "" { // It ended before a call began.
		op.code = codeNames[codes.Canceled]
	}
}

// inner goes on with the call that a WebSocket carries. Its headers came as the first message.
func (e grpcWebSocketEdge) inner(p *Proxy, op *operation, w http.ResponseWriter, r *http.Request) {
	defer func() { _ = r.Body.Close() }() // The wrapper sends the trailers now.
	op.w, op.r, op.client, op.ctx = w, r, r, r.Context()
	op.upgrade, op.needsHTTP2, op.lateTrailers = "", true, true
	r.ContentLength, r.TransferEncoding = -1, nil
	if kindOf(r.Header.Get(headerContentType)) != contentGRPC {
		r.Header[headerContentType] = []string{grpcContentType + "+proto"}
	}
	r.Header["Te"] = []string{"trailers"}
	delete(r.Header, "X-Grpc-Web")
	if op.request == nil && op.response == nil {
		p.passThrough(op)
		return
	}
	p.serveMatched(op, grpcEdge{})
}

// sameSite reports whether the page that opens a WebSocket may: it is of an allowed origin or, where none are
// configured, of the host that it calls. Browsers leave this to the server.
func (p *Proxy) sameSite(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true // No browser.
	}
	if p.cors.configured() {
		return p.cors.allows(origin)
	}
	u, err := url.Parse(origin)
	return err == nil && strings.EqualFold(u.Host, r.Host)
}

// errNotGRPC is for an upstream that answers a gRPC call with something else.
var errNotGRPC = errors.New("upstream does not answer in gRPC")
