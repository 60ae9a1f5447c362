package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Retry says when deliveries to a target are tried. A field that is absent has the default.
type Retry struct {
	MaxAttempts *uint32        `json:"max_attempts,omitempty"`
	FirstDelay  *time.Duration `json:"first_delay_ns,omitempty"`
	MaxDelay    *time.Duration `json:"max_delay_ns,omitempty"`
	MaxAge      *time.Duration `json:"max_age_ns,omitempty"`

	extra unknown
}

// UnmarshalJSON keeps fields that it does not know.
func (r *Retry) UnmarshalJSON(value []byte) (err error) {
	type plain Retry
	r.extra, err = decode(value, (*plain)(r))
	return err
}

// MarshalJSON writes them again.
func (r *Retry) MarshalJSON() ([]byte, error) {
	type plain Retry
	return encode((*plain)(r), r.extra)
}

// Signature is a way to sign a call.
type Signature string

// The ways to sign.
const (
	SignatureZITADEL     Signature = "zitadel"      // ZITADEL-Signature, with the signing key of the target
	SignatureStandardV1  Signature = "standard_v1"  // Standard Webhooks, HMAC-SHA256
	SignatureStandardV1a Signature = "standard_v1a" // Standard Webhooks, ed25519
)

// OrderBy says which deliveries to a target keep their order.
type OrderBy string

// The orders.
const (
	OrderByNone      OrderBy = "none"
	OrderByUser      OrderBy = "user_id"
	OrderByAggregate OrderBy = "aggregate_id"
)

// OnFull says what becomes of a call whose delivery cannot be taken.
type OnFull string

// What can become of it.
const (
	OnFullDrop      OnFull = "drop"
	OnFullBlockCall OnFull = "block_call"
)

var (
	signatures = []Signature{SignatureZITADEL, SignatureStandardV1, SignatureStandardV1a}
	orders     = []OrderBy{OrderByNone, OrderByUser, OrderByAggregate}
	onFulls    = []OnFull{OnFullDrop, OnFullBlockCall}
)

func (t *Target) mergeDelivery(change *Target) {
	if r := change.Retry; r != nil {
		if t.Retry == nil {
			t.Retry = new(Retry)
		}
		override(&t.Retry.MaxAttempts, r.MaxAttempts)
		override(&t.Retry.FirstDelay, r.FirstDelay)
		override(&t.Retry.MaxDelay, r.MaxDelay)
		override(&t.Retry.MaxAge, r.MaxAge)
	}
	if change.Signatures != nil {
		t.Signatures = change.Signatures
	}
	if change.SigningSecrets != nil {
		t.SigningSecrets = change.SigningSecrets
	}
	override(&t.OrderBy, change.OrderBy)
	override(&t.OnFull, change.OnFull)
}

func (t *Target) tidyDelivery() {
	if r := t.Retry; r != nil && r.MaxAttempts == nil && r.FirstDelay == nil && r.MaxDelay == nil && r.MaxAge == nil && len(r.extra) == 0 {
		t.Retry = nil
	}
	if len(t.Signatures) == 0 {
		t.Signatures = nil
	}
	if len(t.SigningSecrets) == 0 {
		t.SigningSecrets = nil
	}
}

func inRetry(clear func(*Retry)) func(*Target) {
	return func(t *Target) {
		if t.Retry != nil {
			clear(t.Retry)
		}
	}
}

// The bounds of what is said of deliveries.
const (
	maxAttempts    = 1000
	maxRetrySpan   = 30 * 24 * time.Hour
	maxSecrets     = 10
	maxSecretBytes = 200
)

// validateDelivery checks the form of secrets, not what is in them: they are made use of elsewhere.
func (t *Target) validateDelivery() (errs []error) {
	errs = append(errs, t.Retry.validate())
	for i, s := range t.Signatures {
		if !slices.Contains(signatures, s) {
			errs = append(errs, fmt.Errorf("signatures[%d]: must be one of %s", i, listed(signatures)))
		}
		if slices.Contains(t.Signatures[:i], s) {
			errs = append(errs, fmt.Errorf("signatures[%d]: is given twice", i))
		}
	}
	if len(t.SigningSecrets) > maxSecrets {
		errs = append(errs, fmt.Errorf("signing_secrets: at most %d are possible", maxSecrets))
	}
	for i, secret := range t.SigningSecrets {
		if len(secret) > maxSecretBytes {
			errs = append(errs, fmt.Errorf("signing_secrets[%d]: at most %d characters are possible", i, maxSecretBytes))
		}
	}
	if t.OrderBy != nil && !slices.Contains(orders, *t.OrderBy) {
		errs = append(errs, fmt.Errorf("order_by: must be one of %s", listed(orders)))
	}
	if t.OnFull != nil && !slices.Contains(onFulls, *t.OnFull) {
		errs = append(errs, fmt.Errorf("on_full: must be one of %s", listed(onFulls)))
	}
	return errs
}

func listed[S ~string](values []S) string {
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = string(v)
	}
	return strings.Join(texts, ", ")
}

func (r *Retry) validate() error {
	if r == nil {
		return nil
	}
	var errs []error
	if n := r.MaxAttempts; n != nil && (*n < 1 || *n > maxAttempts) {
		errs = append(errs, fmt.Errorf("retry.max_attempts: must be between 1 and %d", maxAttempts))
	}
	for _, span := range []struct {
		name string
		d    *time.Duration
	}{{"first_delay", r.FirstDelay}, {"max_delay", r.MaxDelay}, {"max_age", r.MaxAge}} {
		if span.d != nil && (*span.d < time.Millisecond || *span.d > maxRetrySpan) {
			errs = append(errs, fmt.Errorf("retry.%s: must be between 1ms and 720h", span.name))
		}
	}
	if r.FirstDelay != nil && r.MaxDelay != nil && *r.FirstDelay > *r.MaxDelay {
		errs = append(errs, errors.New("retry.first_delay: must not be longer than max_delay"))
	}
	return errors.Join(errs...)
}

// RetrySettings are those of retries, all of them known.
type RetrySettings struct {
	MaxAttempts                  int
	FirstDelay, MaxDelay, MaxAge time.Duration
}

// RetrySettings are those in force. A nil policy says nothing.
func (t *Target) RetrySettings(d TargetDefaults) RetrySettings {
	if t == nil || t.Retry == nil {
		return d.Retry
	}
	r := t.Retry
	return RetrySettings{
		MaxAttempts: int(or(r.MaxAttempts, uint32(max(d.Retry.MaxAttempts, 0)))),
		FirstDelay:  or(r.FirstDelay, d.Retry.FirstDelay),
		MaxDelay:    or(r.MaxDelay, d.Retry.MaxDelay),
		MaxAge:      or(r.MaxAge, d.Retry.MaxAge),
	}
}

// EffectiveSignatures are those in force. A nil policy says nothing.
func (t *Target) EffectiveSignatures() []Signature {
	if t == nil || len(t.Signatures) == 0 {
		return []Signature{SignatureZITADEL}
	}
	return t.Signatures
}

// EffectiveOrderBy is the order in force. A nil policy says nothing.
func (t *Target) EffectiveOrderBy() OrderBy {
	if t == nil {
		return OrderByNone
	}
	return or(t.OrderBy, OrderByNone)
}

// EffectiveOnFull is what is in force. A nil policy says nothing.
func (t *Target) EffectiveOnFull() OnFull {
	if t == nil {
		return OnFullDrop
	}
	return or(t.OnFull, OnFullDrop)
}
