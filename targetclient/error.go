package targetclient

import (
	"errors"
	"fmt"
	"strconv"
)

// Reason says why a call failed: a closed set. Its String is also the label of
// the metric.
type Reason uint8

// The reasons. The zero value is none.
const (
	// ReasonTransport: no (complete, acceptable) answer came: DNS, TLS,
	// connection, refused redirect, answer cut off or too large.
	ReasonTransport Reason = iota + 1
	// ReasonTimeout: the target's own timeout or the chain's passed.
	ReasonTimeout
	// ReasonFailed: the target answered with a status other than 2xx.
	ReasonFailed
	// ReasonForwarded: the target asks for a 4xx status to be given to the
	// client: Error.ForwardedStatus and Error.Message.
	ReasonForwarded
	// ReasonPrecondition: the target asks for an error without such a status:
	// Error.Message.
	ReasonPrecondition
	// ReasonNotApplicable: the body of the answer cannot be applied to the
	// message. Never made here: for the dispatcher.
	ReasonNotApplicable
	// ReasonBreakerOpen: the target's breaker refused the call; nothing was sent.
	ReasonBreakerOpen
	// ReasonOverConcurrency: as many calls as allowed are running; nothing was
	// sent.
	ReasonOverConcurrency
	// ReasonDeniedAddress: the deny list, or the target's allowed hosts, refused
	// the address.
	ReasonDeniedAddress
	// ReasonCancelled: the caller cancelled, or its own deadline passed.
	ReasonCancelled
)

var reasonNames = [...]string{
	ReasonTransport:       "transport",
	ReasonTimeout:         "timeout",
	ReasonFailed:          "failed",
	ReasonForwarded:       "forwarded",
	ReasonPrecondition:    "precondition",
	ReasonNotApplicable:   "not_applicable",
	ReasonBreakerOpen:     "breaker_open",
	ReasonOverConcurrency: "over_concurrency",
	ReasonDeniedAddress:   "denied_address",
	ReasonCancelled:       "cancelled",
}

// String returns the word for the reason, e.g. "breaker_open".
func (r Reason) String() string {
	if r == 0 || int(r) >= len(reasonNames) {
		return fmt.Sprintf("reason(%d)", uint8(r))
	}
	return reasonNames[r]
}

// Error is the only type of error that Do returns. Its text holds neither the
// URL's user info or query, nor payload, nor header values, nor what the target
// asked to forward.
type Error struct {
	Reason Reason
	// StatusCode is the HTTP status of the target's answer; 0 if none came.
	StatusCode int
	// ForwardedStatus is what the target asked for: 400 to 499 with
	// ReasonForwarded, any number with ReasonPrecondition.
	ForwardedStatus int
	// Message is the forwarded message as received, perhaps empty. It is meant
	// for the client of the API, not for logs.
	Message string
	// Err is the cause, nil if the answer itself says it all. Its text is as
	// clean as that of the Error; what it wraps need not be.
	Err error
}

// Error returns the reason and what is known about the cause.
func (e *Error) Error() string {
	s := "call target: " + e.Reason.String()
	if e.StatusCode != 0 {
		s += " (status " + strconv.Itoa(e.StatusCode) + ")"
	}
	if e.ForwardedStatus != 0 {
		s += " (forwarded status " + strconv.Itoa(e.ForwardedStatus) + ")"
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

var (
	// ErrChainTimeout is the cause (see [context.WithTimeoutCause]) by which the
	// caller of Do marks the end of a chain's budget. A call that it ends fails
	// as its own timeout would; every other end of the context counts as the
	// caller's going away.
	ErrChainTimeout = errors.New("chain timeout")
	// ErrTargetTimeout is the cause when the target's own timeout passed.
	ErrTargetTimeout = errors.New("target timeout")
	// ErrPayloadType says that the target's payload type cannot be sent.
	ErrPayloadType = errors.New("payload type is not supported")
	// ErrDenied says that the deny list, or a target's allowed hosts, refuse an
	// address.
	ErrDenied = errors.New("address is denied")
)
