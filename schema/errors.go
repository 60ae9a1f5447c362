package schema

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

// Unwrap returns the parser's own error.
func (e *ReplaceError) Unwrap() error { return e.err }
