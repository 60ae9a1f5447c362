package admin

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	zitadelpb "github.com/execgate/execgate/gen/zitadel/v1"
	"github.com/execgate/execgate/store"
)

// Error is what a caller is told. With an ID the caller sees "Text (ID)" and a zitadel.v1.ErrorDetail; without one,
// only the text.
type Error struct {
	Code     codes.Code
	ID, Text string
}

// Error returns the message as the caller sees it.
func (e *Error) Error() string {
	if e.ID == "" {
		return e.Text
	}
	return e.Text + " (" + e.ID + ")"
}

// GRPCStatus returns the status with its detail.
func (e *Error) GRPCStatus() *status.Status {
	st := status.New(e.Code, e.Error())
	if e.ID == "" {
		return st
	}
	withDetail, err := st.WithDetails(&zitadelpb.ErrorDetail{Id: e.ID, Message: e.Text})
	if err != nil {
		return st
	}
	return withDetail
}

// Errors of the API. The ids and texts are ZITADEL's.
var (
	errNoAuthHeader = &Error{codes.Unauthenticated, "", "auth header missing"}
	errBadToken     = &Error{codes.Unauthenticated, "", "the token is not valid"}
	errManyFailures = &Error{codes.ResourceExhausted, "", "too many failed authentications from this address, try again in some seconds"}
	errNoPermission = &Error{codes.PermissionDenied, "AUTH-5mWD2", "No matching permissions found"}
	errForeignSite  = &Error{codes.PermissionDenied, "", "requests of other web sites are refused while no token is configured"}
	errFeatureOff   = &Error{codes.FailedPrecondition, "ACTION-8o6pvqfjhs", `Feature "Action" is not enabled`}
	errUnavailable  = &Error{codes.Unavailable, "", "the store cannot be reached, try again later; until then calls are served with the last known configuration"}
	errConflict     = &Error{codes.Aborted, "", "others changed the configuration at the same time; try again"}
	errInternal     = &Error{codes.Internal, "", "internal error"}

	errTargetName         = &Error{codes.InvalidArgument, "COMMAND-ddqbm9us5p", "Target is invalid"}
	errTargetNamePatch    = &Error{codes.InvalidArgument, "COMMAND-d1wx4lm0zr", "Target is invalid"}
	errTargetTimeout      = &Error{codes.InvalidArgument, "COMMAND-39f35d8uri", "Target has no timeout"}
	errTargetTimeoutPatch = &Error{codes.InvalidArgument, "COMMAND-08b39vdi57", "Target has no timeout"}
	errTargetURL          = &Error{codes.InvalidArgument, "COMMAND-NcJUKo", "Errors.Target.DeniedURL"}
	errTargetURLPatch     = &Error{codes.InvalidArgument, "COMMAND-jKbbu2", "Errors.Target.DeniedURL"}
	errTargetExists       = &Error{codes.AlreadyExists, "V3-DKcYh", "Errors.Target.AlreadyExists"}
	errTargetGonePatch    = &Error{codes.NotFound, "COMMAND-xj14f2cccn", "Target not found"}
	errTargetGoneDelete   = &Error{codes.NotFound, "COMMAND-k4s7ucu0ax", "Target not found"}
	errTargetGoneGet      = &Error{codes.NotFound, "QUERY-hj5oaniyrz", "Target not found"}

	errConditionMissing  = &Error{codes.InvalidArgument, "ACTION-5r5Ju", "Execution condition is invalid"}
	errLevelMissing      = &Error{codes.InvalidArgument, "COMMAND-3tkej630e6", "Execution is invalid"}
	errEventLevelMissing = &Error{codes.InvalidArgument, "COMMAND-w5smb6v7qu", "Execution is invalid"}
	errFunctionMissing   = &Error{codes.InvalidArgument, "COMMAND-5folwn5jws", "Execution is invalid"}
	errMethodUnknown     = &Error{codes.NotFound, "COMMAND-vysplsevt8", "Execution condition is invalid"}
	errServiceUnknown    = &Error{codes.NotFound, "COMMAND-qu6dfhiioq", "Execution condition is invalid"}
	errFunctionUnknown   = &Error{codes.NotFound, "COMMAND-cdy39t0ksr", "Execution condition is invalid"}
	errEventUnknown      = &Error{codes.NotFound, "COMMAND-74aaqj8fv9", "Execution condition is invalid"}
	errGroupUnknown      = &Error{codes.NotFound, "COMMAND-er5oneb5lz", "Execution condition is invalid"}
	errNothingToCall     = &Error{codes.InvalidArgument, "COMMAND-56bteot2uj", "No targets defined"}
	errBothLists         = &Error{codes.InvalidArgument, "COMMAND-5zleae34r1", "Execution is invalid"}
	errEmptyReference    = &Error{codes.InvalidArgument, "COMMAND-hdm4zl1hmd", "Execution is invalid"}
	errUnknownTarget     = &Error{codes.NotFound, "COMMAND-17e8fq1ggk", "Target not found"}
	errUnknownInclude    = &Error{codes.NotFound, "COMMAND-slgj0l4cdz", "Include not found"}
	errIncludesItself    = &Error{codes.FailedPrecondition, "COMMAND-mo1cmjp5k7", "Errors.Execution.CircularInclude"}
	errIncludedLoop      = &Error{codes.FailedPrecondition, "COMMAND-iuch02i656", "Errors.Execution.CircularInclude"}
	errIncludeCycle      = &Error{codes.FailedPrecondition, "COMMAND-819opvhgjv", "Errors.Execution.CircularInclude"}
	errIncludeDepth      = &Error{codes.FailedPrecondition, "COMMAND-gbhd3g57oo", "Errors.Execution.MaxLevelsInclude"}
	errIncludeType       = &Error{codes.InvalidArgument, "", "Execution is invalid: an included execution must have the same condition type"}
	errExecutionGone     = &Error{codes.NotFound, "COMMAND-suq2upd3rt", "Execution not found"}

	errFilterMissing = &Error{codes.InvalidArgument, "GRPC-vR9nC", "List.Query.Invalid"}
	errLimit         = &Error{codes.InvalidArgument, "QUERY-4M0fs", "Limit exceeded"}

	errKeyTargetUnknown = &Error{codes.FailedPrecondition, "", "target not found"}
	errKeyUnknown       = &Error{codes.FailedPrecondition, "", "public key not found"}
	errKeyExpired       = &Error{codes.FailedPrecondition, "", "public key is expired"}
	errKeyActive        = &Error{codes.FailedPrecondition, "", "public key is active"}
)

// invalid is a violation of a field rule: no id, a text of our own.
func invalid(format string, args ...any) error {
	return &Error{codes.InvalidArgument, "", "invalid " + fmt.Sprintf(format, args...)}
}

// toStatus is the only place where an error becomes a status. What the caller may not know is reported as an internal
// error; known says whether it was.
func toStatus(err error) (st *status.Status, known bool) {
	if own := (*Error)(nil); errors.As(err, &own) {
		return own.GRPCStatus(), true
	}
	switch {
	case errors.Is(err, context.Canceled):
		return status.New(codes.Canceled, "the caller gave up"), true
	case errors.Is(err, context.DeadlineExceeded):
		return status.New(codes.DeadlineExceeded, "the caller's deadline passed"), true
	case errors.Is(err, store.ErrUnavailable):
		return errUnavailable.GRPCStatus(), true
	case errors.Is(err, store.ErrConflict):
		return errConflict.GRPCStatus(), true
	}
	return errInternal.GRPCStatus(), false
}
