package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/improbable-eng/grpc-web/go/grpcweb"
	"google.golang.org/grpc/codes"

	"github.com/execgate/execgate/dispatcher"
	"github.com/execgate/execgate/schema"
)

// Dispatcher runs the targets of one phase of a call.
type Dispatcher interface {
	// Dispatch calls the targets of the invocation's plan in order. inv, with all that it holds, is used again once
	// Dispatch has returned: it must not be kept. The error is a *dispatcher.InterruptError when a
	// target ended the call, or that of ctx.
	Dispatch(ctx context.Context, inv *dispatcher.Invocation) (dispatcher.Outcome, error)
}

// DefaultMaxMessageBytes is the limit on a matched message where Options sets none.
const DefaultMaxMessageBytes = 20 << 20

// Options are what a Proxy needs.
type Options struct {
	Upstream UpstreamOptions
	// Schema returns what is known of the upstream's API, nil while nothing is. It is called once per request.
	Schema func() *schema.Schema
	// Snapshot returns the current configuration, nil while there is none. It is called once per request.
	Snapshot func() *dispatcher.Snapshot
	// Dispatcher runs the targets.
	Dispatcher Dispatcher
	// InstanceID is the instance that calls belong to.
	InstanceID string
	// MaxMessageBytes bounds a matched message, compressed and not. Zero: DefaultMaxMessageBytes. Calls that match
	// nothing have no limit.
	MaxMessageBytes int64
	// MethodMaxMessageBytes replaces MaxMessageBytes for single methods ("/pkg.Service/Method").
	MethodMaxMessageBytes map[string]int64
	// TrustedProxies are the addresses and CIDRs whose X-Forwarded and Forwarded headers are believed.
	TrustedProxies []string
	CORS           CORSOptions
	// GRPCWebSockets makes the gateway serve gRPC-Web over WebSocket (the subprotocol "grpc-websockets"). Otherwise such
	// upgrades pass to the upstream, except to methods on which something may veto: there they are refused.
	GRPCWebSockets bool
	// Observer is told about requests; nil: nobody is.
	Observer Observer
	// Logger gets one line per matched call; nil: nothing is logged.
	Logger *slog.Logger
}

// Proxy is the http.Handler of the proxy port. It is safe for concurrent use.
type Proxy struct {
	upstream   *upstream
	schema     func() *schema.Schema
	snapshot   func() *dispatcher.Snapshot
	dispatcher Dispatcher
	instanceID string
	limit      int64
	limits     map[string]int64
	trust      trust
	cors       cors
	webSockets bool
	observer   Observer
	logger     *slog.Logger

	counts   RequestCounter // nil: the observer is none
	decided  generations
	inFlight atomic.Int64
	tunnels  tunnels
	unknown  loggedOnce
	web      *grpcweb.WrappedGrpcServer
	origins  origins
}

// New returns a Proxy. The error names the option that cannot be used.
func New(o Options) (*Proxy, error) {
	if o.Schema == nil || o.Snapshot == nil || o.Dispatcher == nil {
		return nil, errors.New("proxy needs Schema, Snapshot and Dispatcher")
	}
	up, err := newUpstream(o.Upstream)
	if err != nil {
		return nil, err
	}
	trusted, err := newTrust(o.TrustedProxies)
	if err != nil {
		return nil, err
	}
	p := &Proxy{
		upstream:   up,
		schema:     o.Schema,
		snapshot:   o.Snapshot,
		dispatcher: o.Dispatcher,
		instanceID: o.InstanceID,
		limit:      o.MaxMessageBytes,
		limits:     o.MethodMaxMessageBytes,
		trust:      trusted,
		cors:       newCORS(o.CORS),
		webSockets: o.GRPCWebSockets,
		observer:   o.Observer,
		logger:     o.Logger,
	}
	if p.limit <= 0 {
		p.limit = DefaultMaxMessageBytes
	}
	if p.observer == nil {
		p.observer = noObserver{}
	}
	p.counts, _ = p.observer.(RequestCounter)
	if p.logger == nil {
		p.logger = slog.New(slog.DiscardHandler)
	}
	p.web = p.newWebWrapper()
	return p, nil
}

// Ready returns nil when traffic is let through, and otherwise why all of it is held: no configuration yet (D-63), or
// no schema while some execution may veto (D-38).
func (p *Proxy) Ready() error {
	if e := held(p.snapshot(), p.schema()); e != nil {
		return errors.New(e.message)
	}
	return nil
}

// InFlight is the number of requests and tunnels that are being served.
func (p *Proxy) InFlight() int { return int(p.inFlight.Load()) }

// Close cuts the tunnels and gives up idle connections to the upstream.
func (p *Proxy) Close() {
	p.tunnels.cut()
	p.upstream.close()
}

// ServeHTTP answers one request.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.inFlight.Add(1)
	op := newOperation(w, r)
	defer func() {
		fault := recover()
		if fault != nil && fault != http.ErrAbortHandler { //nolint:errorlint // A panic's value, compared as net/http does.
			// The value may quote what the client sent.
			p.logger.Error("panic", "type", fmt.Sprintf("%T", fault), "stack", string(debug.Stack()))
			fault = http.ErrAbortHandler
		}
		if !op.handedBack { // Otherwise relayEnded does, once this has returned.
			p.finish(op, time.Since(op.start))
		}
		if fault != nil {
			panic(fault)
		}
	}()
	if refusal := p.decide(op); refusal != nil {
		p.fail(op, refusal)
		return
	}
	switch {
	case op.started: // Answered already: a preflight.
	case op.request == nil && op.response == nil && !op.ended():
		p.passThrough(op)
	default:
		op.edge.serve(p, op)
	}
}

// decide finds out what a request is and what fires, on its headers alone. The error refuses it.
func (p *Proxy) decide(op *operation) *callError {
	if refusal := p.recognize(op); refusal != nil {
		return refusal
	}
	if p.cors.preflight(op) {
		return nil
	}
	snapshot, known := p.snapshot(), p.schema()
	p.identify(op, known)
	if refusal := held(snapshot, known); refusal != nil {
		p.countHeld(op, snapshot)
		return refusal
	}
	if len(op.others) > 0 {
		if refusal := matchOthers(op, snapshot); refusal != nil {
			return refusal
		}
	}
	if op.fullMethod == "" {
		return nil
	}
	return p.match(op, snapshot)
}

// held returns why no traffic may pass at present, nil if it may: D-63, D-38.
func held(snapshot *dispatcher.Snapshot, known *schema.Schema) *callError {
	switch {
	case snapshot == nil:
		return noSnapshotError()
	case known == nil && snapshot.Interrupting():
		return noSchemaError()
	}
	return nil
}

// countHeld counts a call that is held although it matches: its message cannot be shown to the targets (D-60). What may
// or may not be a call of a REST route matches nothing that is known yet.
func (p *Proxy) countHeld(op *operation, snapshot *dispatcher.Snapshot) {
	if snapshot == nil || op.fullMethod == "" || exempt(op.fullMethod) {
		return
	}
	request, response := snapshot.Call(op.fullMethod)
	op.fire(request, response)
	p.unevaluated(&unevaluable{reason: reasonNoSchema}, request, response)
}

// finish records the request, once it has been answered, and how long that took.
func (p *Proxy) finish(op *operation, took time.Duration) {
	if op.code == "" { // A panic is on its way up.
		op.code = httpCodeName(http.StatusInternalServerError)
		if op.edge != nil {
			op.code = codes.Internal.String()
		}
	}
	p.observer.RequestDone(op.protocol.String(), op.label(), op.code, took)
	if op.matched {
		p.finishMatched(op, took)
	}
	p.inFlight.Add(-1)
	op.release()
}

// fail ends the operation with an error of the gateway, in the client's protocol. Once the answer has begun, what can
// still be said depends on the protocol; otherwise the connection (HTTP/1.1) or the stream (HTTP/2) is cut, so that the
// client does not take what it has for the whole.
func (p *Proxy) fail(op *operation, e *callError) {
	op.outcome, op.err = e.outcome, e.err
	if op.edge != nil {
		op.code = e.code.String()
		if !op.started {
			p.cors.onError(op.errorHeader(), op.client)
		}
		if op.edge.writeError(op, e) {
			return
		}
		panic(http.ErrAbortHandler)
	}
	status := e.httpStatus
	if status == 0 {
		status = httpStatus(e.code)
	}
	op.code = httpCodeName(status)
	if op.started {
		panic(http.ErrAbortHandler)
	}
	op.started = true
	h := op.w.Header()
	p.cors.onError(h, op.client)
	h["Content-Type"] = []string{"text/plain; charset=utf-8"}
	h["X-Content-Type-Options"] = []string{"nosniff"}
	op.w.WriteHeader(status)
	_, _ = op.w.Write([]byte(e.message + "\n")) //nolint:gosec // G705: plain text, and said to be.
}
