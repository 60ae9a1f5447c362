package schema

import (
	"regexp"
	"strings"
)

// DecodeError is the error of bytes that are not a message of the expected
// type. Its text names the type and nothing of the content.
type DecodeError struct {
	// Type is the full name of the expected message type.
	Type string

	err error
}

// Error implements error.
func (e *DecodeError) Error() string { return "decode " + e.Type }

// Unwrap returns the decoder's own error. Its text may quote the content: it is
// not for logs.
func (e *DecodeError) Unwrap() error { return e.err }

// ReplaceError is the error of JSON that cannot replace a message. Its text names
// the type, the place and the fields, but no values.
type ReplaceError struct {
	// Type is the full name of the message type.
	Type string
	// Reason says what is wrong.
	Reason string

	err error
}

// Error implements error.
func (e *ReplaceError) Error() string { return "replace " + e.Type + ": " + e.Reason }

// Unwrap returns the parser's own error. Its text may quote the content: it is not
// for logs.
func (e *ReplaceError) Unwrap() error { return e.err }

var parseErrorText = regexp.MustCompile(`^(?:syntax error )?(\(line \d+:\d+\)): (.*)$`)

// withoutValues is the text of a protojson error less what it quotes of values.
func withoutValues(err error) string {
	text := cleanError(err)
	parts := parseErrorText.FindStringSubmatch(text)
	if parts == nil {
		if strings.HasPrefix(text, "unexpected EOF") || strings.HasPrefix(text, "syntax error") {
			return "not valid JSON"
		}
		return "malformed content"
	}
	place, what := parts[1], parts[2]
	switch {
	case strings.HasPrefix(what, "unknown field"), strings.HasPrefix(what, "duplicate"):
		if len(what) > 100 {
			what = what[:100] + "..."
		}
	case strings.HasPrefix(what, "invalid value for"):
		what, _, _ = strings.Cut(what, ": ")
	case strings.HasPrefix(what, "exceeded"):
	case strings.HasPrefix(what, "unexpected token"), strings.HasPrefix(what, "invalid"), strings.HasPrefix(what, "unexpected EOF"):
		what = "not the JSON that the type takes"
	case strings.HasPrefix(what, "unable to resolve"):
		what = "a type that is not in the schema"
	default:
		what = "malformed content"
	}
	return place + " " + what
}
