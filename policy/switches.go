package policy

import "time"

// SwitchDispatch is the name of the switch that turns all executions off.
const SwitchDispatch = "dispatch"

// Switch is one switch of the whole gateway. One that is not stored is on.
type Switch struct {
	On bool `json:"on"`
	// ChangedAt is when it was last turned.
	ChangedAt time.Time `json:"changed_at"`

	extra unknown
}

// DecodeSwitch reads a stored switch.
func DecodeSwitch(value []byte) (*Switch, error) {
	s := new(Switch)
	var err error
	if s.extra, err = decode(value, s); err != nil {
		return nil, err
	}
	return s, nil
}

// Encode is the stored form.
func (s *Switch) Encode() ([]byte, error) { return encode(s, s.extra) }

// IsOn says whether the switch is on. Nil is one that is not stored.
func (s *Switch) IsOn() bool { return s == nil || s.On }
