package dispatcher

import (
	"errors"
	"fmt"

	"github.com/execgate/execgate/conditions"
	"github.com/execgate/execgate/targetclient"
)

// ErrUnknownKind is in the chain of an [InterruptError] when a target is of a
// kind that the dispatcher does not know: the gateway is at fault, not the
// target.
var ErrUnknownKind = errors.New("unknown kind of target")

// InterruptError says that a target failed, or said no, and that this ends the
// call. It may wrap the end of a context that was the target's own, so branch on
// the type and not on what it wraps.
type InterruptError struct {
	Execution string // its id
	Target    string // its name
	Reason    targetclient.Reason
	// ForwardedStatus and Message are what the target wants the client to get,
	// with ReasonForwarded and ReasonPrecondition.
	ForwardedStatus int
	Message         string
	// Err is the target's error. Its text holds no payload and no secret.
	Err error
}

// Error names the execution, the target and the reason.
func (e *InterruptError) Error() string {
	return fmt.Sprintf("execution %q: target %q interrupts: %v", e.Execution, e.Target, e.Err)
}

// Unwrap returns the target's error.
func (e *InterruptError) Unwrap() error { return e.Err }

// CallerGoneError says that the caller cancelled, or that its own deadline
// passed, before the targets were done. Nobody waits for the outcome any more.
type CallerGoneError struct {
	// Err is the error of the caller's context, [context.Canceled] or
	// [context.DeadlineExceeded].
	Err error
}

// Error says so.
func (e *CallerGoneError) Error() string { return "the caller is gone: " + e.Err.Error() }

// Unwrap returns the error of the caller's context.
func (e *CallerGoneError) Unwrap() error { return e.Err }

// MessageError says that a message has no JSON form, so that targets cannot be
// asked. What the caller gets depends on [Plan.Interrupts], as for a message that
// cannot be decoded.
type MessageError struct {
	Phase conditions.Kind // which message: Request or Response
	Err   error           // its text may hold payload
}

// Error says which message, and nothing about its content.
func (e *MessageError) Error() string { return e.Phase.String() + " message has no JSON form" }

// Unwrap returns the message's own error.
func (e *MessageError) Unwrap() error { return e.Err }

// misfitError says that an answer cannot be applied. What exactly does not fit
// is left out of the text: it may be payload.
type misfitError struct{ err error }

func (e *misfitError) Error() string { return "the answer does not fit the message" }
func (e *misfitError) Unwrap() error { return e.err }
