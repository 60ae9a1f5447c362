package config

import (
	"fmt"
	"io"
	"log/slog"
)

const redacted = "REDACTED"

// Secret is a value that must not be seen. However it is printed, marshalled
// or logged, it shows "REDACTED", or nothing when it is empty; only
// [Secret.Reveal] gives it away. The zero value is the empty secret.
type Secret struct{ value string }

// NewSecret hides value.
func NewSecret(value string) Secret { return Secret{value} }

// Reveal returns the hidden value, for the one place that needs it.
func (s Secret) Reveal() string { return s.value }

// Empty says whether nothing is hidden.
func (s Secret) Empty() bool { return s.value == "" }

// String returns "REDACTED", or "" for the empty secret.
func (s Secret) String() string {
	if s.value == "" {
		return ""
	}
	return redacted
}

// Format writes [Secret.String] whatever the verb, so that %x, %#v and %+v of
// an enclosing struct show no more than %s.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalText makes encoding/json, and whatever else asks for text, show
// [Secret.String].
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalYAML does the same for YAML.
func (s Secret) MarshalYAML() (any, error) { return s.String(), nil }

// LogValue does the same for log/slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
