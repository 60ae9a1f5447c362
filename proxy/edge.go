package proxy

import (
	"context"
	"net/http"
	"time"

	"github.com/execgate/execgate/internal/patience"
)

// edge is one client protocol. An edge has no state of its own: what is known of a request is in the operation.
type edge interface {
	// serve answers a matched call.
	serve(p *Proxy, op *operation)
	// writeError answers with an error of the gateway, or ends an answer that has begun. It reports false if the latter
	// cannot be said in the protocol; the connection is then cut.
	writeError(op *operation, e *callError) bool
	// watch returns what is to see the body of an answer pass, so that answerCode can tell; nil if nothing is.
	watch(op *operation, res *http.Response) watcher
	// answerCode is the gRPC code that an answer of the upstream carries, as codes.Code prints it. The body has been
	// read.
	answerCode(op *operation, res *http.Response) string
}

// watcher sees the bytes of an answer pass.
type watcher interface{ write(p []byte) }

// codec is how messages lie in the requests and answers of one protocol. serveMatched walks a call with it.
type codec interface {
	// timeout returns how long the caller waits at most; ok is false if it does not say.
	timeout(r *http.Request) (d time.Duration, ok bool)
	// setTimeout says in a request how long is left. It reports false if that is less than the protocol can say.
	setTimeout(out *http.Request, left time.Duration) bool
	// readRequest reads and decodes the request message into op.in. What was read is in op.head, whatever happened, and
	// op.whole says if it was all. problem: the message cannot be shown to targets. err: the client's body failed.
	readRequest(op *operation, limit int64) (problem *unevaluable, err error)
	// writeRequest makes op.in, which has changed, the message of out.
	writeRequest(op *operation, out *http.Request) error
	// limitAnswer asks the upstream for an answer that the gateway can read, among those that the client can.
	limitAnswer(out *http.Request)
	// readResponse reads and decodes the message of a successful answer into op.out. ok is false when the answer is an
	// error, which passes. In any case res can be delivered afterwards as it came. err: the upstream failed.
	readResponse(op *operation, res *http.Response, limit int64) (ok bool, problem *unevaluable, err error)
	// writeResponse makes op.out, which has changed, the message of res.
	writeResponse(op *operation, res *http.Response) error
}

// limitPatience puts the deadline that the caller gave, if any, on the operation. It counts from when the request came
// in.
func limitPatience(op *operation, c codec) (cancel context.CancelFunc) {
	d, ok := c.timeout(op.r)
	if !ok {
		return func() {}
	}
	op.deadline = op.start.Add(d)
	if own, ok := op.ctx.(*patience.Context); ok { // Made for this request.
		own.Limit(op.deadline)
		return func() {}
	}
	op.ctx, cancel = context.WithDeadline(op.ctx, op.deadline)
	return cancel
}
