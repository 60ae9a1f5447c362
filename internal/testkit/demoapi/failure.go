package demoapi

import (
	"fmt"
	"net/mail"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	zitadelpb "github.com/execgate/execgate/gen/zitadel/v1"
)

// failure is an error as the identity API tells it: a sentence, the id of the
// place in the code, and both again as a detail.
func failure(code codes.Code, text, id string) error {
	st := status.New(code, fmt.Sprintf("%s (%s)", text, id))
	if detailed, err := st.WithDetails(&zitadelpb.ErrorDetail{Id: id, Message: text}); err == nil {
		st = detailed
	}
	return st.Err()
}

// invalid is what field validation says: a text, no id and no detail.
func invalid(field, format string, args ...any) error {
	return status.Errorf(codes.InvalidArgument, "invalid %s: %s", field, fmt.Sprintf(format, args...))
}

// checks is a list of field checks of which the first that fails counts.
type checks []error

func (c checks) err() error {
	for _, err := range c {
		if err != nil {
			return err
		}
	}
	return nil
}

// length says whether a text has between low and high runes.
func length(field, value string, low, high int) error {
	if n := utf8.RuneCountInString(value); n < low || n > high {
		return invalid(field, "value length must be between %d and %d runes, inclusive", low, high)
	}
	return nil
}

// optionalLength is length for a field that may be absent.
func optionalLength(field string, value *string, low, high int) error {
	if value == nil {
		return nil
	}
	return length(field, *value, low, high)
}

// present says whether a message that must be there is.
func present(field string, ok bool) error {
	if ok {
		return nil
	}
	return invalid(field, "value is required")
}

func emailAddress(field, value string) error {
	if err := length(field, value, 1, 200); err != nil {
		return err
	}
	if a, err := mail.ParseAddress(value); err != nil || a.Address != value {
		return invalid(field, "value must be a valid email address")
	}
	return nil
}
