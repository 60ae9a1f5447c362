package policy

import (
	"fmt"
	"time"
)

// Mode says what an execution's targets can do to a call.
type Mode string

// The modes. The empty one is the default, ModeEnforce.
const (
	// ModeEnforce: answers are applied and may interrupt.
	ModeEnforce Mode = "enforce"
	// ModeShadow: the targets are called, nothing that they say is applied or can interrupt.
	ModeShadow Mode = "shadow"
)

// Execution is what is said of one execution. A field that is absent has the default.
type Execution struct {
	// Enabled false: the execution is as if it were not there.
	Enabled *bool `json:"enabled,omitempty"`
	Mode    Mode  `json:"mode,omitempty"`
	// PerMessage: a response condition fires on every message of a method that
	// answers with a stream; false, the default: it does not fire on streams.
	PerMessage *bool `json:"per_message,omitempty"`

	// Revision of the configuration, and time, of the last change of the policy.
	Revision  uint64    `json:"revision"`
	ChangedAt time.Time `json:"changed_at"`

	extra unknown
}

// DecodeExecution reads a stored policy. One of a mode that this version does not know is refused: to enforce it, or
// not to, would be a guess.
func DecodeExecution(value []byte) (*Execution, error) {
	e := new(Execution)
	var err error
	if e.extra, err = decode(value, e); err != nil {
		return nil, err
	}
	if err := e.Validate(); err != nil {
		return nil, err
	}
	return e, nil
}

// Encode is the stored form.
func (e *Execution) Encode() ([]byte, error) { return encode(e, e.extra) }

// Clone returns a copy that can be changed.
func (e *Execution) Clone() *Execution { c := *e; return &c }

// Merge changes the fields that change names.
func (e *Execution) Merge(change *Execution) {
	override(&e.Enabled, change.Enabled)
	if change.Mode != "" {
		e.Mode = change.Mode
	}
	override(&e.PerMessage, change.PerMessage)
}

var executionFields = map[string]func(*Execution){
	"enabled":     func(e *Execution) { e.Enabled = nil },
	"mode":        func(e *Execution) { e.Mode = "" },
	"per_message": func(e *Execution) { e.PerMessage = nil },
}

// CheckExecutionFields says which of the names [Execution.Reset] does not know.
func CheckExecutionFields(names []string) error { return reset(new(Execution), executionFields, names) }

// Reset makes the named fields absent, without names all of them; see [Target.Reset].
func (e *Execution) Reset(names ...string) error {
	if len(names) == 0 {
		*e = Execution{Revision: e.Revision, ChangedAt: e.ChangedAt}
		return nil
	}
	return reset(e, executionFields, names)
}

// Same says whether two policies say the same, whenever they were changed.
func (e *Execution) Same(other *Execution) bool { return sameRecord(e.said, other.said) }

// Empty says that everything is as by default.
func (e *Execution) Empty() bool { return e.Same(new(Execution)) }

func (e *Execution) said() ([]byte, error) {
	c := e.Clone()
	c.Revision, c.ChangedAt = 0, time.Time{}
	return c.Encode()
}

// Validate says what cannot be stored.
func (e *Execution) Validate() error {
	switch e.Mode {
	case "", ModeEnforce, ModeShadow:
		return nil
	}
	return fmt.Errorf("mode: %q is not known", e.Mode)
}

// IsEnabled says whether the execution counts. A nil policy says nothing.
func (e *Execution) IsEnabled() bool { return e == nil || or(e.Enabled, true) }

// IsPerMessage says whether it fires on the messages of a stream. A nil policy
// says nothing.
func (e *Execution) IsPerMessage() bool { return e != nil && or(e.PerMessage, false) }

// EffectiveMode is the mode in force. A nil policy says nothing.
func (e *Execution) EffectiveMode() Mode {
	if e == nil || e.Mode == "" {
		return ModeEnforce
	}
	return e.Mode
}
