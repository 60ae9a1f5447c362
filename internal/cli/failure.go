package cli

import (
	"fmt"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/execgate/execgate/admin"
)

// Failure is an error of a command that was called rightly.
type Failure struct {
	Err  error
	Hint string // what to try, lines or empty
}

// Error returns the fault and, on a line of its own, the hint.
func (f *Failure) Error() string {
	if f.Hint == "" {
		return plainText(f.Err.Error())
	}
	return plainText(f.Err.Error()) + "\n" + f.Hint
}

// suggest adds a line to the hint.
func (f *Failure) suggest(line string) {
	if f.Hint != "" {
		f.Hint += "\n"
	}
	f.Hint += line
}

// Unwrap returns Err.
func (f *Failure) Unwrap() error { return f.Err }

// remoteError is what a call of the admin API came to, told to a person. It
// still carries its status.
type remoteError struct {
	text string
	st   *status.Status
}

func (e *remoteError) Error() string              { return e.text }
func (e *remoteError) GRPCStatus() *status.Status { return e.st }

// describe makes an error of a call a failure. transport is the last fault of
// the connection itself, nil when there was none; answered says that the
// gateway said it, and not we.
func (c *client) describe(method string, err, transport error, answered bool) error {
	st := status.Convert(err)
	said := strings.TrimSpace(st.Message())
	for _, detail := range st.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetReason() != "" {
			said += " [" + info.GetReason() + "]"
		}
	}
	f := &Failure{Err: &remoteError{said, st}}
	tell := func(format string, args ...any) { f.Err = &remoteError{fmt.Sprintf(format, args...), st} }
	switch st.Code() {
	case codes.Unavailable:
		switch {
		case answered:
		case transport != nil:
			tell("no admin API answers at %s: %v", c.url, transport)
			f.Hint = c.unreachableHint(transport)
		case c.wanting.Load():
			tell("%s does not let the caller in: %s", c.url, said)
			f.Hint = "it asks for a client certificate; give one with --cert-file FILE and --key-file FILE"
		}
	case codes.DeadlineExceeded:
		tell("no answer from %s within %v", c.url, c.timeout)
		f.Hint = "give it more time with --request-timeout"
	case codes.Canceled:
		tell("interrupted")
	case codes.Unauthenticated:
		tell("%s does not accept the caller: %s", c.url, said)
		f.Hint = "the token was " + c.tokenFrom + "; give one with --token-file FILE, EXECGATE_ADMIN_TOKEN or --config FILE"
		if c.tokenFrom == "" {
			f.Hint = "no token was given; give one with --token-file FILE, EXECGATE_ADMIN_TOKEN or --config FILE"
		}
	case codes.PermissionDenied:
		if permission := admin.Permission(method); permission != "" {
			f.Hint = fmt.Sprintf("the token needs the permission %s (admin.tokens in the gateway's configuration)", permission)
		}
	case codes.Unimplemented:
		tell("the gateway at %s does not know this call: %s", c.url, method)
		f.Hint = "is it of the same version as this command? compare execgate version"
	case codes.InvalidArgument:
		if strings.Contains(said, "Errors.Target.DeniedURL") {
			f.Hint = "its host is on the gateway's targetclient.deny_list or cannot be resolved; targetclient.allow_list takes exceptions"
		}
	case codes.FailedPrecondition:
		if strings.Contains(said, "ACTION-8o6pvqfjhs") {
			f.Hint = "the gateway refuses executions to be managed this way: set admin.actions_enabled to true"
		}
	}
	return f
}
