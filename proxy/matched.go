package proxy

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/execgate/execgate/dispatcher"
	"github.com/execgate/execgate/schema"
)

// serveMatched walks one matched call: request message, its targets, the upstream, response message, its targets. It is
// the same for every protocol; c knows how messages lie in this one.
func (p *Proxy) serveMatched(op *operation, c codec) {
	cancel := limitPatience(op, c)
	defer cancel()
	if p.admit(op, c) {
		p.proceed(op, c)
	}
}

// admit reads the request message. It reports false when the operation has been answered: with an error, or because
// what cannot be evaluated, and nobody may veto, has passed.
func (p *Proxy) admit(op *operation, c codec) bool {
	problem, err := c.readRequest(op, p.limitFor(op.fullMethod))
	op.received = op.now()
	if err != nil {
		p.fail(op, upstreamError(op.ctx, err, err))
		return false
	}
	if problem == nil {
		problem = renderable(op.in, undecodableRequest)
	}
	if problem == nil {
		return true
	}
	// The response phase shows the request as well: without it neither can run.
	p.unevaluated(problem, op.request, op.response)
	if interrupts(op.request) || interrupts(op.response) {
		p.fail(op, problem.err)
		return false
	}
	op.outcome, op.request, op.response = problem.reason, nil, nil
	asked := time.Now()
	defer func() { op.upstream = time.Since(asked) }()
	p.passThrough(op)
	return false
}

// proceed runs what follows the request message: targets, upstream, targets, answer.
func (p *Proxy) proceed(op *operation, c codec) {
	now, failure := p.dispatch(op, op.request)
	if failure != nil {
		p.fail(op, failure)
		return
	}
	if failure := callerErrorAt(op.ctx, now); failure != nil { // D-42: the upstream is not called.
		p.fail(op, failure)
		return
	}
	if op.response == nil {
		done, failure := p.handBack(op, now)
		if failure != nil {
			p.fail(op, failure)
		}
		if done || failure != nil {
			return
		}
	}
	out := p.outgoing(op)
	if op.in.Changed() {
		if err := c.writeRequest(op, out); err != nil {
			p.fail(op, internalError(err))
			return
		}
	}
	if !op.deadline.IsZero() && !c.setTimeout(out, time.Until(op.deadline)) {
		p.fail(op, deadlineError())
		return
	}
	if s, ok := streams(op, c); ok && op.response != nil {
		s.limitStream(out)
	} else if op.response != nil {
		c.limitAnswer(out)
	}
	asked := time.Now()
	res, in, failure := p.roundTrip(op, out)
	if in != nil {
		defer p.endRequestBody(op, in)
	}
	if failure != nil {
		op.upstream = time.Since(asked)
		p.fail(op, failure)
		return
	}
	if op.response == nil {
		defer func() { op.upstream = time.Since(asked) }()
		p.deliver(op, res)
		return
	}
	defer res.Body.Close()
	if s, ok := streams(op, c); ok {
		p.respondStream(op, s, res, asked)
		return
	}
	p.respond(op, c, res, in, asked)
}

// respond runs the response phase and delivers what comes of it.
func (p *Proxy) respond(op *operation, c codec, res *http.Response, in *inbound, asked time.Time) {
	ok, problem, err := c.readResponse(op, res, p.limitFor(op.fullMethod))
	op.upstream = time.Since(asked)
	switch {
	case err != nil:
		p.fail(op, op.upstreamError(err, in.err()))
		return
	case !ok && problem == nil: // The upstream's error passes.
		p.deliver(op, res)
		return
	}
	if problem == nil {
		problem = renderable(op.out, undecodableResponse)
	}
	if problem != nil {
		p.unevaluated(problem, op.response)
		if interrupts(op.response) {
			p.fail(op, problem.err)
			return
		}
		op.outcome = problem.reason
		p.deliver(op, res)
		return
	}
	now, failure := p.dispatch(op, op.response)
	if failure != nil {
		p.fail(op, failure)
		return
	}
	if failure := callerErrorAt(op.ctx, now); failure != nil {
		p.fail(op, failure)
		return
	}
	if op.out.Changed() {
		if err := c.writeResponse(op, res); err != nil {
			p.fail(op, internalError(err))
			return
		}
	}
	p.deliver(op, res)
}

// renderable reports a message that decodes but has no JSON form, which is what targets get.
func renderable(m *schema.Message, problem func(string, error) *unevaluable) *unevaluable {
	if _, err := m.JSON(); err != nil {
		return problem(m.Type().Name(), err)
	}
	return nil
}

// limitFor is the size limit for matched messages of a method.
func (p *Proxy) limitFor(fullMethod string) int64 {
	if limit, ok := p.limits[fullMethod]; ok && limit > 0 {
		return limit
	}
	return p.limit
}

// unevaluated counts what could not be shown to the targets of plans (D-60).
func (p *Proxy) unevaluated(problem *unevaluable, plans ...*dispatcher.Plan) {
	for _, plan := range plans {
		if plan != nil {
			p.observer.Unevaluated(plan.Phase.String(), problem.reason)
		}
	}
}

// dispatch runs the targets of one phase, if there are any. It returns the time.
func (p *Proxy) dispatch(op *operation, plan *dispatcher.Plan) (time.Time, *callError) {
	began := op.now()
	if plan == nil {
		return began, nil
	}
	op.inv = dispatcher.Invocation{
		Plan:       plan,
		FullMethod: op.method.FullMethod,
		InstanceID: p.instanceID,
		Headers:    op.envelopeHeaders(),
		Request:    op.in,
		Now:        began,
	}
	inv := &op.inv
	if plan == op.response {
		inv.Response = op.out
	}
	_, err := p.dispatcher.Dispatch(op.ctx, inv)
	took := time.Since(began)
	op.targets += took
	if err != nil {
		return time.Time{}, dispatchError(op.ctx, plan, err)
	}
	return began.Add(took), nil
}

// envelopeHeaders are the headers that targets see, as the client sent them (D-46).
func (op *operation) envelopeHeaders() map[string][]string {
	r := op.client
	if op.headers == nil {
		op.headers = make(map[string][]string, 5)
	}
	headers := op.headers
	clear(headers)
	for _, name := range [...]string{"Content-Type", "X-Forwarded-For", "X-Forwarded-Host", "Origin"} {
		if values := r.Header[name]; len(values) > 0 {
			headers[name] = values
		}
	}
	if r.Host != "" {
		op.host[0] = r.Host
		headers["Host"] = op.host[:]
	}
	return headers
}

// finishMatched writes the one log line of a matched call, and its overhead.
func (p *Proxy) finishMatched(op *operation, took time.Duration) {
	if !op.received.IsZero() {
		p.observer.Overhead(max(0, took-op.received.Sub(op.start)-op.targets-op.upstream))
	}
	ctx := op.ctx
	if !p.logger.Enabled(ctx, slog.LevelInfo) {
		return
	}
	outcome := op.outcome
	if outcome == "" {
		outcome = "ok"
	}
	attrs := make([]slog.Attr, 0, 10)
	attrs = append(attrs, slog.String("method", op.label()), slog.String("protocol", op.protocol.String()))
	if op.firedRequest != "" {
		attrs = append(attrs, slog.String("request_execution", op.firedRequest))
	}
	if op.firedResponse != "" {
		attrs = append(attrs, slog.String("response_execution", op.firedResponse))
	}
	attrs = append(attrs,
		slog.String("outcome", outcome), slog.String("code", op.code), slog.Duration("duration", took),
		slog.Duration("targets", op.targets), slog.Duration("upstream", op.upstream))
	if op.err != nil {
		attrs = append(attrs, slog.String("error", op.err.Error()))
	}
	p.logger.LogAttrs(ctx, slog.LevelInfo, "call", attrs...)
}
