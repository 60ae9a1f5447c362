package events

import (
	"context"
	"errors"
	"log/slog"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/execgate/execgate/queue"
)

// How a look of a [Poller] ends: a closed set, which is also the label of the
// metric.
const (
	PollOK              = "ok"
	PollStandby         = "standby"           // another gateway polls
	PollWaiting         = "waiting"           // the schema or the configuration is not known yet
	PollNoAPI           = "no_api"            // the upstream has no event API
	PollUnauthenticated = "unauthenticated"   // it does not know the token
	PollDenied          = "permission_denied" // the token may not read events
	PollWrongInstance   = "wrong_instance"    // it has no tenant of that name
	PollUnavailable     = "unavailable"       // it cannot be reached
	PollRefused         = "refused"           // it answered with another error
	PollUnreadable      = "unreadable"        // its answer has an unknown form
	PollCursor          = "cursor"            // the position cannot be read or kept
	PollQueue           = "queue"             // the queue does not take an event
)

var (
	// errNoSchema says that nothing is known of the upstream yet.
	errNoSchema = errors.New("the schema of the upstream is not known")
	// errNoMethod says that the upstream has no event API.
	errNoMethod = errors.New("the upstream's schema has no " + listEvents)
	// errToken says that the token cannot be read.
	errToken = errors.New("read the token")
)

// stageError says in which part of a look something failed.
type stageError struct {
	outcome string
	err     error
}

// Error is that of the part.
func (e *stageError) Error() string { return e.err.Error() }

// Unwrap returns it.
func (e *stageError) Unwrap() error { return e.err }

func ofCursor(err error) error {
	if err == nil || errors.Is(err, ErrNotHolder) {
		return err
	}
	return &stageError{PollCursor, err}
}

func ofSink(err error) error {
	if err == nil || errors.Is(err, ErrNotLoaded) {
		return err
	}
	return &stageError{PollQueue, err}
}

// failure is what a look ended with, as it is logged.
type failure struct {
	outcome, text string
	level         slog.Level
	err           error
	ofUpstream    bool
}

// failureOf tells the failures apart. Texts of the upstream are not repeated: they
// may quote what they were given.
func failureOf(err error) failure {
	const away = "events cannot be polled, it is tried again"
	f := failure{outcome: PollOK, text: away, level: slog.LevelWarn, err: err}
	stage, staged := errors.AsType[*stageError](err)
	s, answered := status.FromError(err)
	switch {
	case err == nil:
	case errors.Is(err, ErrNotHolder):
		f.outcome = PollStandby
	case errors.Is(err, errNoSchema), errors.Is(err, ErrNotLoaded):
		f.outcome, f.text, f.level = PollWaiting, "events will be polled when the gateway knows the upstream and its own configuration", slog.LevelInfo
	case staged:
		f.outcome = stage.outcome
		if stage.outcome == PollQueue {
			f.err = errors.New(queue.DropReason(err))
			f.text = "a polled event cannot be queued, later ones wait for it"
		}
	case errors.Is(err, errNoMethod), answered && s.Code() == codes.Unimplemented:
		f.outcome, f.err = PollNoAPI, errNoMethod
		f.text = "the upstream has no event API; set events.poll.enabled to false, or derive events from calls"
	case errors.Is(err, errToken):
		f.outcome, f.text = PollUnauthenticated, "events cannot be polled without a token; see events.poll.token_file"
	case answered:
		f.outcome, f.text = ofStatus(s.Code())
		f.err, f.ofUpstream = errors.New("the upstream answered "+s.Code().String()), true
	case errors.Is(err, context.DeadlineExceeded):
		f.outcome, f.ofUpstream = PollUnavailable, true
	default:
		f.outcome, f.ofUpstream = PollUnreadable, true
	}
	return f
}

func ofStatus(code codes.Code) (outcome, text string) {
	switch code {
	case codes.Unauthenticated:
		return PollUnauthenticated, "the upstream does not accept the token of events.poll.token_file"
	case codes.PermissionDenied:
		return PollDenied, "the user of events.poll.token_file may not read events: it needs the permission events.read"
	case codes.NotFound:
		return PollWrongInstance, "the upstream has no instance of this name; set upstream.authority to one of its domains"
	case codes.Unavailable, codes.DeadlineExceeded:
		return PollUnavailable, "events cannot be polled while the upstream is away"
	default:
		return PollRefused, "the upstream refuses to list events, it is tried again"
	}
}
