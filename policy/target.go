package policy

import (
	"bytes"
	"maps"
	"slices"
	"time"
)

// Target is what is said of one target. A field that is absent has the default.
type Target struct {
	// Enabled false: the target is not called.
	Enabled *bool `json:"enabled,omitempty"`
	// MaxConcurrency is how many calls may run at once, per gateway; 0 is no cap.
	MaxConcurrency *uint32  `json:"max_concurrency,omitempty"`
	Breaker        *Breaker `json:"breaker,omitempty"`
	// AllowedHosts are the only hosts that calls may go to; empty: any host.
	AllowedHosts []string `json:"allowed_hosts,omitempty"`
	// Headers are sent with every call, by canonical name. The values are secrets.
	Headers map[string]string `json:"headers,omitempty"`
	Retry   *Retry            `json:"retry,omitempty"`
	// Signatures say how calls are signed; empty: as ZITADEL does.
	Signatures []Signature `json:"signatures,omitempty"`
	// SigningSecrets are those of Standard Webhooks. They are secrets.
	SigningSecrets []string `json:"signing_secrets,omitempty"`
	// OrderBy says which deliveries keep their order.
	OrderBy *OrderBy `json:"order_by,omitempty"`
	// OnFull says what becomes of a call whose delivery cannot be taken.
	OnFull *OnFull `json:"on_full,omitempty"`

	// Revision of the configuration, and time, of the last change of the policy.
	Revision  uint64    `json:"revision"`
	ChangedAt time.Time `json:"changed_at"`

	extra unknown
}

// Breaker says when calls to a target are given up for a while. A field that is absent has the default.
type Breaker struct {
	ConsecutiveFailures *uint32        `json:"consecutive_failures,omitempty"`
	Window              *time.Duration `json:"window_ns,omitempty"`
	MinCalls            *uint32        `json:"min_calls,omitempty"`
	FailureRatio        *float64       `json:"failure_ratio,omitempty"`
	OpenFor             *time.Duration `json:"open_for_ns,omitempty"`
	HalfOpenCalls       *uint32        `json:"half_open_calls,omitempty"`

	extra unknown
}

// UnmarshalJSON keeps fields that it does not know.
func (b *Breaker) UnmarshalJSON(value []byte) (err error) {
	type plain Breaker
	b.extra, err = decode(value, (*plain)(b))
	return err
}

// MarshalJSON writes them again.
func (b *Breaker) MarshalJSON() ([]byte, error) {
	type plain Breaker
	return encode((*plain)(b), b.extra)
}

// DecodeTarget reads a stored policy.
func DecodeTarget(value []byte) (*Target, error) {
	t := new(Target)
	var err error
	t.extra, err = decode(value, t)
	if err != nil {
		return nil, err
	}
	return t, nil
}

// Encode is the stored form.
func (t *Target) Encode() ([]byte, error) { return encode(t, t.extra) }

// Clone returns a copy that can be changed.
func (t *Target) Clone() *Target {
	c := *t
	if t.Breaker != nil {
		b := *t.Breaker
		c.Breaker = &b
	}
	c.AllowedHosts = slices.Clone(t.AllowedHosts)
	c.Headers = maps.Clone(t.Headers)
	if t.Retry != nil {
		r := *t.Retry
		c.Retry = &r
	}
	c.Signatures, c.SigningSecrets = slices.Clone(t.Signatures), slices.Clone(t.SigningSecrets)
	return &c
}

// Merge changes the fields that change names: those that are not nil. A list or a map that is empty, and not nil, takes
// away what was set.
func (t *Target) Merge(change *Target) {
	override(&t.Enabled, change.Enabled)
	override(&t.MaxConcurrency, change.MaxConcurrency)
	if change.Breaker != nil {
		if t.Breaker == nil {
			t.Breaker = new(Breaker)
		}
		t.Breaker.merge(change.Breaker)
	}
	if change.AllowedHosts != nil {
		t.AllowedHosts = change.AllowedHosts
	}
	if change.Headers != nil {
		t.Headers = change.Headers
	}
	t.mergeDelivery(change)
	t.tidy()
}

func (b *Breaker) merge(change *Breaker) {
	override(&b.ConsecutiveFailures, change.ConsecutiveFailures)
	override(&b.Window, change.Window)
	override(&b.MinCalls, change.MinCalls)
	override(&b.FailureRatio, change.FailureRatio)
	override(&b.OpenFor, change.OpenFor)
	override(&b.HalfOpenCalls, change.HalfOpenCalls)
}

// tidy makes what says nothing absent, so that equal policies look equal.
func (t *Target) tidy() {
	if t.Breaker != nil && t.Breaker.empty() {
		t.Breaker = nil
	}
	if len(t.AllowedHosts) == 0 {
		t.AllowedHosts = nil
	}
	if len(t.Headers) == 0 {
		t.Headers = nil
	}
	t.tidyDelivery()
}

func (b *Breaker) empty() bool {
	return b.ConsecutiveFailures == nil && b.Window == nil && b.MinCalls == nil && b.FailureRatio == nil &&
		b.OpenFor == nil && b.HalfOpenCalls == nil && len(b.extra) == 0
}

// targetFields are the fields that can be reset one by one.
var targetFields = map[string]func(*Target){
	"enabled":         func(t *Target) { t.Enabled = nil },
	"max_concurrency": func(t *Target) { t.MaxConcurrency = nil },
	"breaker":         func(t *Target) { t.Breaker = nil },
	"allowed_hosts":   func(t *Target) { t.AllowedHosts = nil },
	"headers":         func(t *Target) { t.Headers = nil },
	"retry":           func(t *Target) { t.Retry = nil },
	"signatures":      func(t *Target) { t.Signatures = nil },
	"signing_secrets": func(t *Target) { t.SigningSecrets = nil },
	"order_by":        func(t *Target) { t.OrderBy = nil },
	"on_full":         func(t *Target) { t.OnFull = nil },

	"retry.max_attempts": inRetry(func(r *Retry) { r.MaxAttempts = nil }),
	"retry.first_delay":  inRetry(func(r *Retry) { r.FirstDelay = nil }),
	"retry.max_delay":    inRetry(func(r *Retry) { r.MaxDelay = nil }),
	"retry.max_age":      inRetry(func(r *Retry) { r.MaxAge = nil }),

	"breaker.consecutive_failures": inBreaker(func(b *Breaker) { b.ConsecutiveFailures = nil }),
	"breaker.window":               inBreaker(func(b *Breaker) { b.Window = nil }),
	"breaker.min_calls":            inBreaker(func(b *Breaker) { b.MinCalls = nil }),
	"breaker.failure_ratio":        inBreaker(func(b *Breaker) { b.FailureRatio = nil }),
	"breaker.open_for":             inBreaker(func(b *Breaker) { b.OpenFor = nil }),
	"breaker.half_open_calls":      inBreaker(func(b *Breaker) { b.HalfOpenCalls = nil }),
}

func inBreaker(clear func(*Breaker)) func(*Target) {
	return func(t *Target) {
		if t.Breaker != nil {
			clear(t.Breaker)
		}
	}
}

// CheckTargetFields says which of the names [Target.Reset] does not know.
func CheckTargetFields(names []string) error { return reset(new(Target), targetFields, names) }

// Reset makes the named fields absent; without names all of them, also those that this version does not know. Names are
// those of the proto or of its JSON, with a dot into the breaker. The error names one that does not exist.
func (t *Target) Reset(names ...string) error {
	if len(names) == 0 {
		*t = Target{Revision: t.Revision, ChangedAt: t.ChangedAt}
		return nil
	}
	err := reset(t, targetFields, names)
	t.tidy()
	return err
}

// Same says whether two policies say the same, whenever they were changed.
func (t *Target) Same(other *Target) bool {
	return sameRecord(t.said, other.said)
}

// Empty says that everything is as by default.
func (t *Target) Empty() bool { return t.Same(new(Target)) }

func (t *Target) said() ([]byte, error) {
	c := t.Clone()
	c.tidy()
	c.Revision, c.ChangedAt = 0, time.Time{}
	return c.Encode()
}

func sameRecord(a, b func() ([]byte, error)) bool {
	x, errX := a()
	y, errY := b()
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// BreakerSettings are those of a breaker, all of them known.
type BreakerSettings struct {
	ConsecutiveFailures int
	Window              time.Duration
	MinCalls            int
	FailureRatio        float64
	OpenFor             time.Duration
	HalfOpenCalls       int
}

// TargetDefaults are in force where a policy says nothing; the configuration file has them.
type TargetDefaults struct {
	// MaxConcurrency of 0 is no cap.
	MaxConcurrency int
	Breaker        BreakerSettings
	Retry          RetrySettings
}

// IsEnabled says whether the target is called. A nil policy says nothing.
func (t *Target) IsEnabled() bool { return t == nil || or(t.Enabled, true) }

// Concurrency is the cap in force; 0 is none. A nil policy says nothing.
func (t *Target) Concurrency(d TargetDefaults) int {
	if t == nil || t.MaxConcurrency == nil {
		return d.MaxConcurrency
	}
	return int(*t.MaxConcurrency)
}

// BreakerSettings are those in force. A nil policy says nothing.
func (t *Target) BreakerSettings(d TargetDefaults) BreakerSettings {
	if t == nil || t.Breaker == nil {
		return d.Breaker
	}
	b := t.Breaker
	return BreakerSettings{
		ConsecutiveFailures: int(or(b.ConsecutiveFailures, uint32(max(d.Breaker.ConsecutiveFailures, 0)))),
		Window:              or(b.Window, d.Breaker.Window),
		MinCalls:            int(or(b.MinCalls, uint32(max(d.Breaker.MinCalls, 0)))),
		FailureRatio:        or(b.FailureRatio, d.Breaker.FailureRatio),
		OpenFor:             or(b.OpenFor, d.Breaker.OpenFor),
		HalfOpenCalls:       int(or(b.HalfOpenCalls, uint32(max(d.Breaker.HalfOpenCalls, 0)))),
	}
}
