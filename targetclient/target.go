package targetclient

import (
	"fmt"
	"net/http"
	"time"
)

// Kind says how a target's answer counts.
type Kind uint8

// The kinds of target. The zero value is no kind.
const (
	// KindWebhook is told: its status counts, its body is not applied.
	KindWebhook Kind = iota + 1
	// KindCall answers with a body that may replace the message.
	KindCall
	// KindAsync is told in the background: its status is only logged.
	KindAsync
)

// String returns "webhook", "call" or "async".
func (k Kind) String() string {
	switch k {
	case KindWebhook:
		return "webhook"
	case KindCall:
		return "call"
	case KindAsync:
		return "async"
	default:
		return fmt.Sprintf("kind(%d)", uint8(k))
	}
}

// PayloadType says in which form the body travels.
type PayloadType uint8

// The payload types. Only JSON can be sent yet: a call to a target of another
// type fails before anything is sent, with [ErrPayloadType] in its chain.
const (
	// JSON sends the body as it is.
	JSON PayloadType = iota
	// JWT sends the body as a compact JWS.
	JWT
	// JWE sends that JWS encrypted.
	JWE
)

// String returns "json", "jwt" or "jwe".
func (p PayloadType) String() string {
	switch p {
	case JSON:
		return "json"
	case JWT:
		return "jwt"
	case JWE:
		return "jwe"
	default:
		return fmt.Sprintf("payload(%d)", uint8(p))
	}
}

// Target is where we call, and how the call is made. The client never changes
// a Target, and expects nobody to change one that it was given: a new
// configuration brings new values.
type Target struct {
	// ID names the target for the breaker and the concurrency cap: all calls
	// with one ID share them, whatever value they were made with.
	ID string
	// Name is what logs and metrics call the target.
	Name string
	// URL is absolute, http or https. Its user info and query may be secrets
	// and never appear in an error.
	URL string
	// Kind is for the caller: the client makes the same call for all three.
	Kind Kind
	// Timeout covers connecting, redirects and reading the answer. Nothing else
	// shortens it. Zero or less means [DefaultTimeout].
	Timeout time.Duration
	// InterruptOnError is for the caller; the client does not look at it.
	InterruptOnError bool
	// SigningKeys sign the body, one v1 part per key in this order. Empty: the
	// call is not signed. Secret.
	SigningKeys []string
	// PayloadType is the form of the body.
	PayloadType PayloadType
	// MaxConcurrency is how many calls may run at once; one more fails at once
	// and does not wait. Zero: the client's default.
	MaxConcurrency int
	// Breaker replaces the client's default settings as a whole. Nil: the
	// client's default.
	Breaker *BreakerSettings
	// AllowedHosts, if not empty, are the only hosts ("name", "address", or
	// either with ":port") that the call and its redirects may go to. The deny
	// list applies none the less.
	AllowedHosts []string
	// Headers are sent with every request to the target's own host. They cannot
	// replace what the client sets itself (see [Client.Do]). Secret: they may be
	// credentials.
	Headers map[string]string
	// BlocksCall is for the caller: a call whose delivery to this asynchronous
	// target cannot be taken must not go on.
	BlocksCall bool
	// Disabled is for the caller; the client does not look at it.
	Disabled bool
	// StandardWebhooks signs every call as that specification says, beside
	// SigningKeys. Nil: it does not. Secret.
	StandardWebhooks *StandardWebhooks
}

// DefaultTimeout is the timeout of a target that names none.
const DefaultTimeout = 10 * time.Second

// BreakerSettings say when a target's breaker opens and how it closes again. In
// a settings value that is used, a zero field stands for its default.
type BreakerSettings struct {
	// ConsecutiveFailures opens the breaker, however long they took. Default 10.
	ConsecutiveFailures int
	// Window is the time over which FailureRatio is measured. Default 30 s.
	Window time.Duration
	// MinCalls is how many calls the window must hold before FailureRatio
	// counts. Default 20.
	MinCalls int
	// FailureRatio of the calls in the window opens the breaker. Default 0.5.
	FailureRatio float64
	// OpenFor is how long the breaker refuses calls before it tries again.
	// Default 10 s.
	OpenFor time.Duration
	// HalfOpenCalls are then let through at once. All succeed: closed. One
	// fails: open again. Default 3.
	HalfOpenCalls int
}

// BreakerState is the state of a target's breaker. The numbers are those of the
// metric.
type BreakerState int

// The states of a breaker.
const (
	// BreakerClosed lets calls through.
	BreakerClosed BreakerState = iota
	// BreakerHalfOpen lets a few calls through, to see whether the target is
	// back.
	BreakerHalfOpen
	// BreakerOpen refuses calls.
	BreakerOpen
)

// String returns "closed", "half_open" or "open".
func (s BreakerState) String() string {
	switch s {
	case BreakerClosed:
		return "closed"
	case BreakerHalfOpen:
		return "half_open"
	case BreakerOpen:
		return "open"
	default:
		return fmt.Sprintf("breaker(%d)", int(s))
	}
}

// Call is one delivery to one target.
type Call struct {
	// Target is called. Not nil.
	Target *Target
	// Body is the payload. The client reads it until Do returns and neither
	// changes nor keeps it.
	Body []byte
	// Header holds headers of this call alone; nil is fine. They win over
	// Target.Headers, and can replace no more than those.
	Header http.Header
	// ID names the delivery that the call is an attempt of: it is sent as
	// webhook-id, together with webhook-timestamp. Empty: neither is sent, unless
	// the target wants signatures that need them; then the call gets a name of
	// its own.
	ID string
	// Attempt is sent as execgate-attempt with an ID. Zero: it is not sent.
	Attempt int
	// ChainEnd is when the budget of the chain that the call is a part of is
	// spent: the call then fails with ReasonTimeout and ErrChainTimeout. Zero:
	// there is none. It costs less than a context.
	ChainEnd time.Time
	// Now is the time, if the caller has just looked at the clock. Zero: Do does.
	Now time.Time
}

// Result is what came back from a call.
type Result struct {
	// StatusCode is the HTTP status of the last answer; 0 if there was none.
	StatusCode int
	// Body is the body of a 2xx answer, also of one that asks for an error; it
	// belongs to the caller.
	Body []byte
	// Duration is the time that Do took.
	Duration time.Duration
	// RetryAfter is how long an answer other than 2xx asks to wait before the
	// next call; zero if it does not.
	RetryAfter time.Duration
}
