package transcode

import (
	"fmt"
	"strings"
)

// ParseError is the error of JSON that is not a message of the type. Its text
// names the place, the field and what is wrong, but no values.
type ParseError struct {
	// Line and Column are the place, from 1; 0 if the text just ends.
	Line, Column int
	// path is the field that the error is about, innermost first.
	path []string
	err  error
}

// Path is the field that the error is about, as JSON names joined by dots, with
// the index of a list element in brackets. It is empty for the message itself.
func (e *ParseError) Path() string {
	var b strings.Builder
	for i := len(e.path) - 1; i >= 0; i-- {
		if b.Len() > 0 && e.path[i][0] != '[' {
			b.WriteByte('.')
		}
		b.WriteString(e.path[i])
	}
	return b.String()
}

// Error implements error.
func (e *ParseError) Error() string {
	text := e.err.Error()
	if bad, ok := e.err.(*valueError); ok { //nolint:errorlint // never wrapped
		text = "invalid value for " + bad.kind + " field " + e.Path()
	} else if path := e.Path(); path != "" {
		text += ": " + path
	}
	if e.Line == 0 {
		return text
	}
	return fmt.Sprintf("(line %d:%d) %s", e.Line, e.Column, text)
}

// Unwrap returns what is wrong.
func (e *ParseError) Unwrap() error { return e.err }

// valueError says that a value is none of a scalar field.
type valueError struct{ kind string }

func (e *valueError) Error() string { return "invalid value for " + e.kind }

// nameError is about a name that stands in the text.
type nameError struct{ what, name string }

func (e *nameError) Error() string {
	name := e.name
	if len(name) > 80 {
		name = strings.ToValidUTF8(name[:80], "") + `..."`
	}
	return e.what + " " + name
}

// within adds a segment to the path of an error.
func within(err error, segment string) error {
	if e, ok := err.(*ParseError); ok && len(e.path) < 100 { //nolint:errorlint // never wrapped
		e.path = append(e.path, segment)
	}
	return err
}
