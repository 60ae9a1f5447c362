package proxy

import (
	"net/http"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
)

// Observer is told what the proxy does, for metrics. Its methods are called on the path of every request: they must be
// quick and safe for concurrent use.
type Observer interface {
	// RequestDone is called once per request, when it has been answered. protocol is "grpc", "grpc_web", "connect",
	// "rest" or "http"; method is a full method name that the schema knows, or "other"; code is the name of the gRPC
	// code ("OK") for the four RPC protocols and the three-digit status for "http" (D-61).
	RequestDone(protocol, method, code string, d time.Duration)
	// Overhead is called once per matched call with the time that the gateway itself took: from the moment the request
	// message had been read until the answer was written, less the time spent waiting for targets and for the upstream.
	Overhead(d time.Duration)
	// Unevaluated is called for each phase ("request", "response") of a matched call whose message could not be shown to
	// the targets; reason is "no_schema", "too_large", "undecodable" or "encoding" (D-60).
	Unevaluated(phase, reason string)
}

// RequestCounter is what an Observer may be besides: something that looks labels up once for many requests.
type RequestCounter interface {
	// RequestsDone returns what counts requests with these labels as RequestDone does. It is kept and may be called at any
	// time, concurrently.
	RequestsDone(protocol, method, code string) func(d time.Duration)
}

// noObserver is what a nil Observer stands for.
type noObserver struct{}

func (noObserver) RequestDone(_, _, _ string, _ time.Duration) {}
func (noObserver) Overhead(time.Duration)                      {}
func (noObserver) Unevaluated(_, _ string)                     {}

// otherMethod is the label of every method that the schema does not know.
const otherMethod = "other"

// codeNames saves codes.Code.String its formatting for what an upstream may send.
var codeNames = func() (names [codes.Unauthenticated + 1]string) {
	for c := range names {
		names[c] = codes.Code(c).String()
	}
	return names
}()

// grpcCodeName returns the label for the value of a grpc-status header. What is no known code is UNKNOWN, as the gRPC
// protocol says.
func grpcCodeName(status string) string {
	n, err := strconv.ParseUint(status, 10, 32)
	if err != nil || n >= uint64(len(codeNames)) {
		return codeNames[codes.Unknown]
	}
	return codeNames[n]
}

var statusNames = func() (names [600]string) {
	for s := range names {
		names[s] = strconv.Itoa(s)
	}
	return names
}()

// httpCodeName returns the label for an HTTP status.
func httpCodeName(status int) string {
	if status < http.StatusContinue || status >= len(statusNames) {
		return strconv.Itoa(status)
	}
	return statusNames[status]
}

// httpToCode is how a gRPC client reads an answer without grpc-status (the gRPC protocol's HTTP mapping).
func httpToCode(status int) codes.Code {
	switch status {
	case http.StatusBadRequest:
		return codes.Internal
	case http.StatusUnauthorized:
		return codes.Unauthenticated
	case http.StatusForbidden:
		return codes.PermissionDenied
	case http.StatusNotFound:
		return codes.Unimplemented
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return codes.Unavailable
	default:
		return codes.Unknown
	}
}
