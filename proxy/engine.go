package proxy

import (
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/execgate/execgate/proxy/h2"
	"github.com/execgate/execgate/schema"
)

// director decides for the HTTP/2 engine. It relays what certainly matches nothing: gRPC calls of methods that the
// schema knows, on which no plan fires. Everything else is the Proxy's, which decides as it always does.
type director struct{ p *Proxy }

// Decide looks at a request's headers.
func (d director) Decide(h *h2.Head) h2.Action {
	p := d.p
	if h.Method() != http.MethodPost || kindOf(h.ContentType()) != contentGRPC || h.Authority() == "" || !plainMethod(h.Path()) {
		return h2.Action{Handler: p}
	}
	found := lookAt(h.Fields())
	if found.odd || found.contentTypes != 1 {
		return h2.Action{Handler: p}
	}
	snapshot, known := p.snapshot(), p.schema()
	if held(snapshot, known) != nil || known == nil {
		return h2.Action{Handler: p}
	}
	m := known.Method(h.Path())
	if m == nil { // To the upstream it may be something else, a REST route for one.
		return h2.Action{Handler: p}
	}
	request, response := snapshot.Call(m.FullMethod)
	if (request != nil || response != nil) && !exempt(m.FullMethod) {
		if request, response = streamPlans(m, request, response); request != nil || response != nil {
			p.trust.relayClient(h) // So that it is there when the call is given back.
			return h2.Action{Handler: p, Relayable: response == nil}
		}
	}
	p.trust.forwardRelayed(h, found)
	p.inFlight.Add(1)
	return h2.Action{Tag: m}
}

// Done records a relayed call.
func (d director) Done(c *h2.Call) {
	label := otherMethod
	if m, ok := c.Tag.(*schema.Method); ok {
		label = m.FullMethod
	}
	d.p.observer.RequestDone(protocolNames[protocolGRPC], label, relayedCode(c), c.Duration)
	d.p.inFlight.Add(-1)
}

// handBack gives a call whose request has passed back to the engine, which relays the answer frame by frame. It reports
// false if that cannot be: the call did not come through the engine as gRPC, or the answer is not only relayed. After true,
// op is not the handler's any more.
func (p *Proxy) handBack(op *operation) (done bool, failure *callError) {
	relayer, ok := op.w.(h2.Relayer)
	if !ok || p.upstream.relay == nil || op.protocol != protocolGRPC || op.lateTrailers || !op.whole || len(op.r.Trailer) > 0 {
		return false, nil
	}
	h := relayer.Head()
	if h == nil {
		return false, nil
	}
	found := lookAt(h.Fields())
	if found.odd {
		return false, nil
	}
	body := op.head
	if op.in.Changed() {
		f, err := requestFrame(op)
		if err != nil {
			return false, internalError(err)
		}
		body = f.raw
		if h.ContentLength() >= 0 { // HTTP/2 needs none.
			h.Set("content-length", strconv.Itoa(len(body)))
		}
	}
	if !op.deadline.IsZero() {
		left := time.Until(op.deadline)
		if left <= 0 {
			return false, deadlineError()
		}
		h.Set("grpc-timeout", formatGRPCTimeout(left))
	}
	p.trust.forwardRelayed(h, found)
	asked := time.Now()
	op.handedBack = true // Once Relay was called, it cannot be said any more.
	if relayer.Relay(h2.Handback{Body: body, Deadline: op.deadline, Ended: func(c *h2.Call) { p.relayEnded(op, c, asked) }}) {
		return true, nil
	}
	op.handedBack = false
	return false, nil
}

// relayEnded is told that a call which was given back has ended.
func (p *Proxy) relayEnded(op *operation, c *h2.Call, asked time.Time) {
	op.upstream = time.Since(asked)
	op.started = true
	op.code = relayedCode(c)
	switch {
	case c.Canceled:
		op.outcome = "cancelled"
	case c.Local && c.GRPCStatus == "4":
		op.outcome = "deadline"
	case c.Local:
		op.outcome = outcomeUpstream
	}
	if p.logger.Enabled(op.ctx, slog.LevelInfo) {
		go p.finish(op) // A log may block, and this may be the goroutine that reads the upstream's connection.
		return
	}
	p.finish(op)
}

// relayedCode is the metric's code for a relayed call.
func relayedCode(c *h2.Call) string {
	switch {
	case c.GRPCStatus != "":
		return grpcCodeName(c.GRPCStatus)
	case c.Canceled:
		return codeNames[codes.Canceled]
	case c.Status != 0 && c.Status != http.StatusOK:
		return codeNames[httpToCode(c.Status)]
	}
	return codeNames[codes.Unknown]
}

// plainMethod reports whether a path is a full method in characters that no server reads in two ways.
func plainMethod(path string) bool {
	for i := range len(path) {
		c := path[i]
		if c < '0' || c > '9' && c < 'A' || c > 'Z' && c < 'a' || c > 'z' {
			switch c {
			case '/', '.', '_', '-':
			default:
				return false
			}
		}
	}
	return len(path) > 1 && path[0] == '/' && path[1] != '/'
}

// relayedFields is what a request's fields mean for its relay.
type relayedFields struct {
	contentTypes int
	odd          bool // something is asked for that only the Proxy does
	drop         bool // some may not travel on
	te           bool
	forwarded    bool // Forwarded or X-Forwarded
}

func lookAt(fields []h2.Field) (found relayedFields) {
	for i := range fields {
		switch name := fields[i].Name; name {
		case "content-type":
			found.contentTypes++
		case "origin", "expect", "trailer":
			found.odd = true
		case "proxy-authenticate", "proxy-authorization", "http2-settings":
			found.drop = true
		case "te":
			found.te = true
		default:
			if forwardedName(name) {
				found.forwarded = true
			}
		}
	}
	return found
}

func forwardedName(name string) bool {
	return name == "forwarded" || strings.HasPrefix(name, "x-forwarded-")
}

// ownHop reports whether a field of a relayed call stays on its connection; see hopByHop.
func ownHop(name string) bool {
	return name == "proxy-authenticate" || name == "proxy-authorization" || name == "http2-settings"
}

// relayClient is what all calls of one connection have in common.
type relayClient struct {
	ip, proto string
	trusted   bool
}

func (t trust) relayClient(h *h2.Head) *relayClient {
	if c, ok := h.Memo().(*relayClient); ok {
		return c
	}
	c := &relayClient{ip: clientIP(h.RemoteAddr()), proto: "http"}
	if h.TLS() != nil {
		c.proto = "https"
	}
	c.trusted = t.trusts(c.ip)
	h.SetMemo(c)
	return c
}

// forwardRelayed does to a relayed call's fields what outgoing and forward do to a request's.
func (t trust) forwardRelayed(h *h2.Head, found relayedFields) {
	if found.drop {
		h.Remove(ownHop)
	}
	if found.te { // The engine lets only "trailers" in, in any case.
		h.Set("te", "trailers")
	}
	c := t.relayClient(h)
	if c.trusted && found.forwarded {
		c.extend(h)
		return
	}
	if found.forwarded {
		h.Remove(forwardedName)
	}
	if c.ip != "" {
		h.Add("x-forwarded-for", c.ip)
	}
	h.Add("x-forwarded-host", h.Authority())
	h.Add("x-forwarded-proto", c.proto)
}

// extend continues what a trusted proxy said.
func (c *relayClient) extend(h *h2.Head) {
	var addresses, elements []string
	var host, proto bool
	for _, f := range h.Fields() {
		switch f.Name {
		case "x-forwarded-for":
			addresses = append(addresses, f.Value)
		case "forwarded":
			elements = append(elements, f.Value)
		case "x-forwarded-host":
			host = true
		case "x-forwarded-proto":
			proto = true
		}
	}
	h.Set("x-forwarded-for", strings.Join(append(addresses, c.ip), ", "))
	if !host {
		h.Add("x-forwarded-host", h.Authority())
	}
	if !proto {
		h.Add("x-forwarded-proto", c.proto)
	}
	if len(elements) > 0 {
		h.Set("forwarded", strings.Join(append(elements, forwardedElement(c.ip, h.Authority(), c.proto)), ", "))
	}
}

// newEngine returns the engine that serves HTTP/2 for p.
func newEngine(p *Proxy, o ServerOptions) (*h2.Engine, error) {
	up := h2.UpstreamOptions{
		Address:     p.upstream.address(),
		Authority:   p.upstream.authority,
		DialTimeout: p.upstream.dialTimeout,
	}
	if p.upstream.tls != nil {
		up.TLS = p.upstream.tls.Clone()
		if up.TLS.ServerName == "" {
			up.TLS.ServerName, _, _ = net.SplitHostPort(up.Address)
		}
	}
	return h2.New(h2.Options{
		Director:             director{p},
		Upstream:             up,
		TLS:                  o.TLS,
		MaxConcurrentStreams: o.MaxConcurrentStreams,
		MaxHeaderBytes:       o.MaxHeaderBytes,
		ReadHeaderTimeout:    o.ReadHeaderTimeout,
		IdleTimeout:          o.IdleTimeout,
		Observer:             o.RelayObserver,
		Logger:               o.Logger,
	})
}

// address is the upstream's host:port.
func (u *upstream) address() string {
	at := url.URL{Host: u.host}
	port := at.Port()
	switch {
	case port != "":
	case u.scheme == "https":
		port = "443"
	default:
		port = "80"
	}
	return net.JoinHostPort(at.Hostname(), port)
}
