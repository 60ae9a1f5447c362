package targetclient

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

// DefaultMaxResponseBytes is the size of an answer that passes by default.
const DefaultMaxResponseBytes = 20 << 20

// Options configure a Client.
type Options struct {
	// DenyList holds CIDRs, addresses and host names (exact, no wildcards) that
	// are not connected to. Empty denies nothing; see [DefaultDenyList].
	DenyList []string
	// AllowList holds exceptions from DenyList, in the same notation.
	AllowList []string
	// MaxResponseBytes is the largest body of an answer, after decompression.
	// Zero: [DefaultMaxResponseBytes].
	MaxResponseBytes int64
	// Breaker is for targets that bring no settings. Zero fields: defaults.
	Breaker BreakerSettings
	// MaxConcurrency is for targets that bring none. Zero: no limit.
	MaxConcurrency int
	// TLSConfig is for connections to targets. Nil: the system's roots.
	TLSConfig *tls.Config
	// Resolver resolves host names. Nil: [net.DefaultResolver].
	Resolver *net.Resolver
	// Logger hears of breakers that change. Nil: nobody does.
	Logger *slog.Logger
	// OnBreakerChange, if not nil, is called when a target's breaker changes, in
	// order for one target. It must be quick and must not call the client. That
	// a breaker is half open shows only when it is next asked: at a call, or by
	// BreakerState.
	OnBreakerChange func(targetID, targetName string, s BreakerState)
}

// Client calls targets. It is safe for concurrent use.
type Client struct {
	policy           addressPolicy
	transport        *transport
	maxResponseBytes int64
	breaker          BreakerSettings
	maxConcurrency   int
	logger           *slog.Logger
	onBreakerChange  func(targetID, targetName string, s BreakerState)

	mu     sync.RWMutex
	guards map[string]*guard // by target id
}

// New returns a client. The error names every bad entry of the lists and every
// bad setting. No goroutine runs until the first call.
func New(o Options) (*Client, error) {
	deny, denyErr := parseAddressList(o.DenyList)
	allow, allowErr := parseAddressList(o.AllowList)
	errs := []error{
		wrap("deny_list", denyErr), wrap("allow_list", allowErr), wrap("breaker", o.Breaker.Validate()),
	}
	if o.MaxResponseBytes < 0 {
		errs = append(errs, errors.New("max_response_bytes is negative"))
	}
	if o.MaxConcurrency < 0 {
		errs = append(errs, errors.New("max_concurrency is negative"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	c := &Client{
		policy:           addressPolicy{deny: deny, allow: allow, resolver: o.Resolver},
		maxResponseBytes: o.MaxResponseBytes,
		breaker:          o.Breaker.or(DefaultBreakerSettings()),
		maxConcurrency:   o.MaxConcurrency,
		logger:           o.Logger,
		onBreakerChange:  o.OnBreakerChange,
		guards:           make(map[string]*guard),
	}
	if c.maxResponseBytes == 0 {
		c.maxResponseBytes = DefaultMaxResponseBytes
	}
	if c.logger == nil {
		c.logger = slog.New(slog.DiscardHandler)
	}
	c.use(c.policy.dialer(dialTimeout), o.TLSConfig)
	return c, nil
}

// use sets the transport: the seam for tests that bring their own connections.
func (c *Client) use(dial dialFunc, config *tls.Config) {
	c.transport = newTransport(dial, config)
}

// Dial connects to an address as a call to a target would: what the deny list covers is refused with an error that wraps
// ErrDenied, judged by the actual address.
func (c *Client) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return c.policy.dialer(dialTimeout)(ctx, network, address)
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// Do makes one call: POST, "Content-Type: application/json", a signature if the
// target has keys, and redirects as they come. It returns when the answer is
// read, the target's timeout has passed or ctx ends. The error is always an
// *[Error]; with one, the Result still tells status and duration.
//
// A call that goes out counts for the target's breaker: no answer and a status
// of 500 or more as failures, every other answer as a success, and a call that
// the caller gave up (ReasonCancelled) as neither. When the cause of ctx's end
// is ErrChainTimeout, the call fails with ReasonTimeout and counts.
//
// These fail before anything is sent and do not count: ctx has ended, the
// target cannot be called (url, payload type), as many calls as allowed are
// running (there is no queue: who waits holds up its own caller), or the
// breaker is open. A denied address does count: it is where the connection
// would have been made.
//
// Headers of the call and of the target cannot replace what frames or describes
// the message: Content-*, Host, Connection and its like, Accept-Encoding, and
// the signature; nor, where the call has them, webhook-id and what goes with it.
func (c *Client) Do(ctx context.Context, call Call) (Result, error) {
	if call.Now.IsZero() {
		call.Now = time.Now()
	}
	res, err := c.do(ctx, call)
	if res.Duration == 0 {
		res.Duration = time.Since(call.Now)
	}
	if err != nil {
		return res, err
	}
	return res, nil
}

// do makes the call. It sets the duration if that is known without another look at the clock.
func (c *Client) do(ctx context.Context, call Call) (Result, *Error) {
	g := c.guard(call.Target.ID)
	p := g.planFor(c, call.Target)
	if p.urlErr != nil {
		return Result{}, &Error{Reason: ReasonTransport, Err: p.urlErr}
	}
	payload, err := encode(p.target.PayloadType, call.Body)
	if err != nil {
		return Result{}, &Error{Reason: ReasonTransport, Err: err}
	}
	now := call.Now
	if errAt(ctx, now) != nil {
		return Result{}, ended(ctx)
	}
	end := bound{now.Add(p.timeout), ErrTargetTimeout}
	if !call.ChainEnd.IsZero() && call.ChainEnd.Before(end.at) {
		end = bound{call.ChainEnd, ErrChainTimeout}
		if !now.Before(end.at) {
			return Result{}, &Error{Reason: ReasonTimeout, Err: end.cause}
		}
	}
	if !g.enter(p.limit) {
		return Result{}, &Error{Reason: ReasonOverConcurrency}
	}
	defer g.leave()
	permit := p.breaker.allow()
	if !permit.given {
		return Result{}, &Error{Reason: ReasonBreakerOpen}
	}
	v, over := neutral, now // a panic below says nothing about the target
	defer func() { p.breaker.done(permit, v, over) }()

	x, _ := exchanges.Get().(*exchange)
	defer x.release()
	x.began, x.took = now, 0
	r := &x.request
	*r = request{
		plan: p, payload: payload, header: call.Header,
		signature: appendSignature(r.signature[:0], p.signers, now, payload),
		delivery:  deliveryOf(p.target, &call, now, payload),
	}
	status, body, err := c.fetch(ctx, end, r, x)
	var failure *Error
	if err != nil {
		failure = failed(ctx, end, status, err)
	} else {
		failure = classify(status, body)
	}
	if x.took == 0 {
		x.took = time.Since(now)
	}
	v, over = verdictOf(failure), now.Add(x.took)
	if failure != nil {
		return Result{StatusCode: status, Body: body, Duration: x.took, RetryAfter: r.retryAfter}, failure
	}
	return Result{StatusCode: status, Body: body, Duration: x.took}, nil
}

// errAt is ctx's error, without a look at the clock if ctx can do without.
func errAt(ctx context.Context, now time.Time) error {
	if punctual, ok := ctx.(interface{ ErrAt(now time.Time) error }); ok {
		return punctual.ErrAt(now)
	}
	return ctx.Err()
}

// failed says why no complete answer came.
func failed(ctx context.Context, end bound, status int, err error) *Error {
	var timeout net.Error
	switch {
	case errors.Is(err, ErrDenied):
		return &Error{Reason: ReasonDeniedAddress, StatusCode: status, Err: clean(err)}
	case ctx.Err() != nil:
		e := ended(ctx)
		e.StatusCode = status
		return e
	case !time.Now().Before(end.at):
		return &Error{Reason: ReasonTimeout, StatusCode: status, Err: end.cause}
	case errors.As(err, &timeout) && timeout.Timeout():
		// The connection's own bound, within the target's timeout.
		return &Error{Reason: ReasonTimeout, StatusCode: status, Err: clean(err)}
	default:
		return &Error{Reason: ReasonTransport, StatusCode: status, Err: clean(err)}
	}
}

// ended says whose end it was.
func ended(ctx context.Context) *Error {
	cause := context.Cause(ctx)
	if errors.Is(cause, ErrTargetTimeout) || errors.Is(cause, ErrChainTimeout) {
		return &Error{Reason: ReasonTimeout, Err: cause}
	}
	return &Error{Reason: ReasonCancelled, Err: cause}
}

func (c *Client) guard(id string) *guard {
	c.mu.RLock()
	g := c.guards[id]
	c.mu.RUnlock()
	if g != nil {
		return g
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if g = c.guards[id]; g == nil {
		g = &guard{id: id}
		c.guards[id] = g
	}
	return g
}

// BreakerState returns the state of the breaker that the target's last call
// asked; closed if the target was never called.
func (c *Client) BreakerState(targetID string) BreakerState {
	c.mu.RLock()
	g := c.guards[targetID]
	c.mu.RUnlock()
	if g == nil {
		return BreakerClosed
	}
	if p := g.last.Load(); p != nil {
		return p.breaker.current()
	}
	return BreakerClosed
}

// Retain forgets the targets whose ids are not given. Calls to them that are
// running end as they would have.
func (c *Client) Retain(ids map[string]struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, g := range c.guards {
		if _, ok := ids[id]; !ok {
			g.gone.Store(true)
			delete(c.guards, id)
		}
	}
}

// CheckURL says whether a target may have the url, as far as can be told before
// calling it. Unless the deny list is empty the host is resolved, and one that
// cannot be resolved is refused; of several addresses a denied one is enough.
// The error wraps [ErrDenied] if the lists refuse it. Each call checks again the
// address that it really connects to.
func (c *Client) CheckURL(ctx context.Context, rawURL string) error {
	u, err := parseTargetURL(rawURL)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return c.policy.check(ctx, u.Hostname())
}

// Close gives up the kept connections. The calls must have ended.
func (c *Client) Close() { c.transport.closeIdle() }
