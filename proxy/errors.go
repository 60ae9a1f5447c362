package proxy

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/execgate/execgate/dispatcher"
	"github.com/execgate/execgate/internal/patience"
	"github.com/execgate/execgate/targetclient"
)

// callError is an error that the gateway itself answers with. This file is the only place that makes one; the edges
// render it in the client's protocol.
type callError struct {
	code    codes.Code
	message string // what the caller reads, including the id in brackets if there is one

	// The zitadel.v1.ErrorDetail that goes along; none without id.
	id     string
	detail string

	// acceptEncoding: the answer says which message encodings the gateway reads (D-41).
	acceptEncoding bool
	// httpStatus is what a client gets that speaks plain HTTP, where it is not the mapping of code.
	httpStatus int

	outcome string // one word for the log
	err     error  // the cause, for the log only; nil if the message says it all
}

func (e *callError) Error() string { return e.code.String() + ": " + e.message }
func (e *callError) Unwrap() error { return e.err }

// Ids and texts of ZITADEL that callers of its API know (spec 4.7).
const (
	idForwarded     = "EXEC-reUaUZCzCp"
	idPrecondition  = "EXEC-bmhNhpcqpF"
	idFailed        = "EXEC-dra6yamk98"
	idNotApplicable = "ACTION-4m9s2"
	idUnknownKind   = "EXEC-auqnansr2m"

	textFailed        = "Execution failed"
	textNotApplicable = "Response is not valid JSON"
	textUnknownKind   = "Errors.Execution.Unknown"
)

func withDetail(code codes.Code, text, id, outcome string, err error) *callError {
	return &callError{code: code, message: text + " (" + id + ")", id: id, detail: text, outcome: outcome, err: err}
}

// dispatchError turns the dispatcher's error into what the caller gets: spec 4.7, D-42, D-43, D-48. ctx is the
// caller's. Nil: the call goes on all the same.
func dispatchError(ctx context.Context, plan *dispatcher.Plan, err error) *callError {
	if gone := callerError(ctx); gone != nil {
		return gone
	}
	interrupt, ok := errors.AsType[*dispatcher.InterruptError](err)
	if !ok {
		// No target said no, and the caller still waits: a target could not be asked.
		if !plan.Interrupts {
			return nil
		}
		return withDetail(codes.FailedPrecondition, textFailed, idFailed, "failed", err)
	}
	outcome := interrupt.Reason.String()
	if errors.Is(err, dispatcher.ErrUnknownKind) {
		return withDetail(codes.Internal, textUnknownKind, idUnknownKind, outcome, err)
	}
	switch interrupt.Reason {
	case targetclient.ReasonForwarded:
		text := forwardedText(interrupt.Message, interrupt.ForwardedStatus)
		return withDetail(forwardedCode(interrupt.ForwardedStatus), text, idForwarded, outcome, err)
	case targetclient.ReasonPrecondition:
		text := forwardedText(interrupt.Message, interrupt.ForwardedStatus)
		return withDetail(codes.FailedPrecondition, text, idPrecondition, outcome, err)
	case targetclient.ReasonNotApplicable:
		return withDetail(codes.FailedPrecondition, textNotApplicable, idNotApplicable, outcome, err)
	default:
		// Transport, timeout, a bad status, breaker, concurrency, a denied address: what exactly is in the log (D-22).
		return withDetail(codes.FailedPrecondition, textFailed, idFailed, outcome, err)
	}
}

// forwardedCode maps a status that a target asked for (400 to 499).
func forwardedCode(status int) codes.Code {
	switch status {
	case http.StatusBadRequest:
		return codes.InvalidArgument
	case http.StatusUnauthorized:
		return codes.Unauthenticated
	case http.StatusForbidden:
		return codes.PermissionDenied
	case http.StatusNotFound:
		return codes.NotFound
	case http.StatusConflict:
		return codes.AlreadyExists
	case http.StatusTooManyRequests:
		return codes.ResourceExhausted
	default:
		return codes.Unknown
	}
}

// forwardedText is the target's message, or the status text where it sent none (section 11).
func forwardedText(message string, status int) string {
	if message != "" {
		return message
	}
	if text := http.StatusText(status); text != "" {
		return text
	}
	if status >= 400 && status <= 499 {
		return http.StatusText(http.StatusBadRequest) // RFC 9110 15: an unknown status is read as the x00 of its class.
	}
	return http.StatusText(http.StatusPreconditionFailed)
}

// callerError returns the error for a caller that cancelled or whose deadline passed (D-42); nil while it waits.
func callerError(ctx context.Context) *callError { return callerErrorAt(ctx, time.Now()) }

// callerErrorAt is callerError for who has just looked at the clock.
func callerErrorAt(ctx context.Context, now time.Time) *callError {
	var err error
	if own, ok := ctx.(*patience.Context); ok {
		err = own.ErrAt(now)
	} else {
		err = ctx.Err()
	}
	if err == nil {
		// The clock may be ahead of the context's timer: a connection's own timer fires on its own.
		if deadline, ok := ctx.Deadline(); !ok || now.Before(deadline) {
			return nil
		}
		return deadlineError()
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return deadlineError()
	}
	return canceledError(err)
}

func deadlineError() *callError {
	return &callError{code: codes.DeadlineExceeded, message: "the caller's deadline has passed", outcome: "deadline"}
}

func canceledError(err error) *callError {
	return &callError{code: codes.Canceled, message: "the caller cancelled the call", outcome: "cancelled", err: err}
}

// malformedError is for a request whose body is not framed as it should be.
func malformedError(err error) *callError {
	return &callError{
		code: codes.InvalidArgument, message: "the body of the request is malformed", httpStatus: http.StatusBadRequest,
		outcome: outcomeRefused, err: err,
	}
}

// malformedBody reports whether reading a request's body failed by what came, and not because nothing came any more.
// net/http has no names for the errors of chunked bodies.
func malformedBody(err error) bool {
	return err != nil && strings.Contains(err.Error(), "chunk")
}

// noSnapshotError: there is no configuration at all, so nobody knows what may veto (D-63).
func noSnapshotError() *callError {
	return &callError{code: codes.Unavailable, message: "configuration of the gateway is not loaded", outcome: "no_snapshot"}
}

// noSchemaError: something may veto, and the message cannot be shown to it (D-38).
func noSchemaError() *callError {
	return &callError{code: codes.Unavailable, message: "schema of the upstream is not known", outcome: reasonNoSchema}
}

// ambiguousError: the request means one method to some servers and another to others, and something may veto it.
func ambiguousError() *callError {
	return &callError{
		code: codes.InvalidArgument, message: "request can be read as a call of more than one method", outcome: outcomeRefused,
	}
}

// Reasons why a matched message was not evaluated: D-60.
const (
	reasonNoSchema    = "no_schema"
	reasonTooLarge    = "too_large"
	reasonUndecodable = "undecodable"
	reasonEncoding    = "encoding"
)

// unevaluable says that a matched message cannot be shown to targets, and what the caller gets if one of them could
// have interrupted.
type unevaluable struct {
	reason string
	err    *callError
}

func tooLarge(messageType string) *unevaluable {
	return &unevaluable{reason: reasonTooLarge, err: &callError{
		code:    codes.ResourceExhausted,
		message: "message " + messageType + " is larger than the gateway's limit",
		outcome: reasonTooLarge,
	}}
}

// undecodableRequest and undecodableResponse differ in who is at fault: D-40, D-59.
func undecodableRequest(messageType string, err error) *unevaluable {
	return undecodable(codes.InvalidArgument, messageType, err)
}

func undecodableResponse(messageType string, err error) *unevaluable {
	return undecodable(codes.Internal, messageType, err)
}

func undecodable(code codes.Code, messageType string, err error) *unevaluable {
	return &unevaluable{reason: reasonUndecodable, err: &callError{
		code: code, message: "message " + messageType + " cannot be decoded", outcome: reasonUndecodable, err: err,
	}}
}

func unknownEncoding(encoding string) *unevaluable {
	return &unevaluable{reason: reasonEncoding, err: &callError{
		code:           codes.Unimplemented,
		message:        "message encoding " + printable(encoding) + " is not supported",
		acceptEncoding: true,
		outcome:        reasonEncoding,
	}}
}

// printable keeps a header value of the client's short in a message that goes back to it.
func printable(s string) string {
	const most = 32
	if len(s) > most {
		s = s[:most]
	}
	return `"` + s + `"`
}

// internalError: the gateway itself is at fault.
func internalError(err error) *callError {
	return &callError{code: codes.Internal, message: "gateway error", outcome: "internal", err: err}
}

// errBodyConsumed stops a retry for which the request body is no longer whole.
var errBodyConsumed = errors.New("request body was already read")

// upstreamError turns a failed exchange with the upstream into what the caller gets. ctx is the caller's; clientErr is
// what reading the caller's request body ended with, if it failed.
func upstreamError(ctx context.Context, err, clientErr error) *callError {
	if malformedBody(clientErr) {
		return malformedError(clientErr)
	}
	if gone := callerError(ctx); gone != nil {
		return gone
	}
	if clientErr != nil {
		e := canceledError(clientErr)
		e.httpStatus = http.StatusBadRequest
		return e
	}
	var reset http2.StreamError
	if errors.As(err, &reset) {
		return &callError{
			code: resetCode(reset.Code), message: "upstream reset the stream: " + reset.Code.String(),
			httpStatus: http.StatusBadGateway, outcome: outcomeUpstream, err: err,
		}
	}
	return &callError{
		code: codes.Unavailable, message: "upstream is not available",
		httpStatus: http.StatusBadGateway, outcome: outcomeUpstream, err: err,
	}
}

// upstreamError is upstreamError for op. A server that keeps the caller's deadline resets the stream when it has passed,
// with CANCEL.
func (op *operation) upstreamError(err, clientErr error) *callError {
	e := upstreamError(op.ctx, err, clientErr)
	if c, ok := op.edge.(codec); ok && clientErr == nil && e.code == codes.Canceled && e.outcome == outcomeUpstream {
		if d, ok := c.timeout(op.r); ok && time.Since(op.start) >= d {
			return deadlineError()
		}
	}
	return e
}

// outcomeUpstream is the log's word for an upstream that could not be reached or went away.
const outcomeUpstream = "upstream"

// resetCode is the gRPC status for an HTTP/2 error code, as the gRPC protocol over HTTP/2 maps them.
func resetCode(code http2.ErrCode) codes.Code {
	switch code {
	case http2.ErrCodeRefusedStream:
		return codes.Unavailable
	case http2.ErrCodeCancel:
		return codes.Canceled
	case http2.ErrCodeEnhanceYourCalm:
		return codes.ResourceExhausted
	case http2.ErrCodeInadequateSecurity:
		return codes.PermissionDenied
	default:
		return codes.Internal
	}
}

// httpStatus is the HTTP status for a gRPC code (spec 2.1).
func httpStatus(code codes.Code) int {
	switch code {
	case codes.OK:
		return http.StatusOK
	case codes.InvalidArgument, codes.FailedPrecondition, codes.OutOfRange:
		return http.StatusBadRequest
	case codes.Unauthenticated:
		return http.StatusUnauthorized
	case codes.PermissionDenied:
		return http.StatusForbidden
	case codes.NotFound:
		return http.StatusNotFound
	case codes.AlreadyExists, codes.Aborted:
		return http.StatusConflict
	case codes.ResourceExhausted:
		return http.StatusTooManyRequests
	case codes.Canceled:
		return statusClientClosedRequest
	case codes.Unimplemented:
		return http.StatusNotImplemented
	case codes.Unavailable:
		return http.StatusServiceUnavailable
	case codes.DeadlineExceeded:
		return http.StatusGatewayTimeout
	default:
		return http.StatusInternalServerError
	}
}

// statusToCode is how an answer over HTTP is read that does not say its gRPC code: httpStatus the other way round.
func statusToCode(status int) codes.Code {
	switch status {
	case http.StatusBadRequest:
		return codes.InvalidArgument
	case http.StatusUnauthorized:
		return codes.Unauthenticated
	case http.StatusForbidden:
		return codes.PermissionDenied
	case http.StatusNotFound:
		return codes.NotFound
	case http.StatusConflict:
		return codes.AlreadyExists
	case http.StatusTooManyRequests:
		return codes.ResourceExhausted
	case statusClientClosedRequest:
		return codes.Canceled
	case http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return codes.Unimplemented
	case http.StatusBadGateway, http.StatusServiceUnavailable:
		return codes.Unavailable
	case http.StatusGatewayTimeout:
		return codes.DeadlineExceeded
	default:
		return codes.Unknown
	}
}

// statusClientClosedRequest is nginx's status for a client that went away before the answer.
const statusClientClosedRequest = 499

// errorDetailType is the message that carries the id of an error.
const errorDetailType = "zitadel.v1.ErrorDetail"

// errorDetail returns the wire form of zitadel.v1.ErrorDetail (id = 1, message = 2).
func (e *callError) errorDetail() []byte {
	b := protowire.AppendTag(nil, 1, protowire.BytesType)
	b = protowire.AppendString(b, e.id)
	if e.detail != "" {
		b = protowire.AppendTag(b, 2, protowire.BytesType)
		b = protowire.AppendString(b, e.detail)
	}
	return b
}

// status returns the wire form of google.rpc.Status (code = 1, message = 2, details = 3), nil without a detail.
func (e *callError) status() []byte {
	if e.id == "" {
		return nil
	}
	anyDetail := protowire.AppendTag(nil, 1, protowire.BytesType)
	anyDetail = protowire.AppendString(anyDetail, "type.googleapis.com/"+errorDetailType)
	anyDetail = protowire.AppendTag(anyDetail, 2, protowire.BytesType)
	anyDetail = protowire.AppendBytes(anyDetail, e.errorDetail())

	b := protowire.AppendTag(nil, 1, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(e.code))
	b = protowire.AppendTag(b, 2, protowire.BytesType)
	b = protowire.AppendString(b, e.message)
	b = protowire.AppendTag(b, 3, protowire.BytesType)
	return protowire.AppendBytes(b, anyDetail)
}
