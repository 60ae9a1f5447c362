package proxy

import (
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/execgate/execgate/dispatcher"
	"github.com/execgate/execgate/proxy/h2"
	"github.com/execgate/execgate/schema"
)

// director decides for the HTTP/2 engine. It relays what certainly matches nothing: gRPC calls of methods that the
// schema knows, on which no plan fires. Everything else is the Proxy's, which decides as it always does.
type director struct{ p *Proxy }

// onlyTheProxy are fields that ask for something that only the Proxy does.
const onlyTheProxy = h2.NotableOrigin | h2.NotableExpect | h2.NotableTrailer | h2.NotableContentTypes

// Decide looks at a request's headers.
func (d director) Decide(h *h2.Head) h2.Action {
	p := d.p
	if h.Method() != http.MethodPost || kindOf(h.ContentType()) != contentGRPC || h.Authority() == "" {
		return h2.Action{Handler: p}
	}
	if h.Notable()&onlyTheProxy != 0 {
		return h2.Action{Handler: p}
	}
	snapshot, known := p.snapshot(), p.schema()
	if snapshot == nil || known == nil {
		return h2.Action{Handler: p}
	}
	c := p.trust.relayClient(h)
	decided := p.decided.of(snapshot, known)
	slot := c.slot(h.Path())
	m := *slot
	if m == nil || m.decided != decided || m.path != h.Path() {
		var relayable bool
		if m, relayable = relayedCalls(h.Path(), snapshot, known); m == nil {
			return h2.Action{Handler: p, Relayable: relayable}
		}
		m.decided = decided
		*slot = m
	}
	c.forward(h, c.host(h.Authority()))
	p.inFlight.Add(1)
	return h2.Action{Tag: m}
}

// relayedMethod is a method whose calls are relayed.
type relayedMethod struct {
	path, label string
	decided     uint64 // by which snapshot and schema; see generations
	// succeeded counts calls that are OK, where the observer has something quicker than RequestDone; nil until the first.
	succeeded atomic.Pointer[func(time.Duration)]
}

// relayedCalls returns what is known of a path's calls if they are relayed, and nil if the Proxy has to look at each.
// relayable says that it may give them back then.
func relayedCalls(path string, snapshot *dispatcher.Snapshot, known *schema.Schema) (m *relayedMethod, relayable bool) {
	if !plainMethod(path) || held(snapshot, known) != nil {
		return nil, false
	}
	method := known.Method(path)
	if method == nil { // To the upstream it may be something else, a REST route for one.
		return nil, false
	}
	request, response := snapshot.Call(method.FullMethod)
	if (request != nil || response != nil) && !exempt(method.FullMethod) {
		if request, response = streamPlans(method, request, response); request != nil || response != nil {
			return nil, response == nil
		}
	}
	return &relayedMethod{path: strings.Clone(path), label: strings.Clone(method.FullMethod)}, false
}

// generations numbers the pairs of a snapshot and a schema that decisions were taken by, so that what is remembered of one
// does not keep the two in memory.
type generations struct{ current atomic.Pointer[generation] }

type generation struct {
	snapshot *dispatcher.Snapshot
	known    *schema.Schema
	number   uint64
}

// of returns the number of a pair, which no other pair had or will have.
func (g *generations) of(snapshot *dispatcher.Snapshot, known *schema.Schema) uint64 {
	for {
		now := g.current.Load()
		if now != nil && now.snapshot == snapshot && now.known == known {
			return now.number
		}
		next := &generation{snapshot: snapshot, known: known, number: 1}
		if now != nil {
			next.number = now.number + 1
		}
		if g.current.CompareAndSwap(now, next) {
			return next.number
		}
	}
}

// Done records a relayed call.
func (d director) Done(c *h2.Call) {
	if m, ok := c.Tag.(*relayedMethod); ok {
		d.p.relayed(m, c)
	} else {
		d.p.observer.RequestDone(protocolNames[protocolGRPC], otherMethod, relayedCode(c), c.Duration)
	}
	d.p.inFlight.Add(-1)
}

func (p *Proxy) relayed(m *relayedMethod, c *h2.Call) {
	if c.GRPCStatus != "0" || p.counts == nil {
		p.observer.RequestDone(protocolNames[protocolGRPC], m.label, relayedCode(c), c.Duration)
		return
	}
	count := m.succeeded.Load()
	if count == nil {
		count = new(p.counts.RequestsDone(protocolNames[protocolGRPC], m.label, codeNames[codes.OK]))
		m.succeeded.Store(count)
	}
	(*count)(c.Duration)
}

// handBack gives a call whose request has passed back to the engine, which relays the answer frame by frame. It reports
// false if that cannot be: the call did not come through the engine as gRPC, or the answer is not only relayed. After true,
// op is not the handler's any more.
func (p *Proxy) handBack(op *operation, now time.Time) (done bool, failure *callError) {
	relayer, ok := op.w.(h2.Relayer)
	if !ok || p.upstream.relay == nil || op.protocol != protocolGRPC || op.lateTrailers || !op.whole || len(op.r.Trailer) > 0 {
		return false, nil
	}
	h := relayer.Head()
	if h == nil {
		return false, nil
	}
	if h.Notable()&onlyTheProxy != 0 {
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
		left := op.deadline.Sub(now)
		if left <= 0 {
			return false, deadlineError()
		}
		h.Set("grpc-timeout", formatGRPCTimeout(left))
	}
	p.trust.relayClient(h).forward(h, h2.Field{Name: "x-forwarded-host", Value: h.Authority()})
	op.handedBack = true // Once Relay was called, it cannot be said any more.
	if relayer.Relay(h2.Handback{Body: body, Deadline: op.deadline, Ended: func(c *h2.Call) { p.relayEnded(op, c, now) }}) {
		return true, nil
	}
	op.handedBack = false
	return false, nil
}

// relayEnded is told that a call which was given back has ended.
func (p *Proxy) relayEnded(op *operation, c *h2.Call, asked time.Time) {
	took := time.Since(op.start)
	op.upstream = took - asked.Sub(op.start)
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
		go p.finish(op, took) // A log may block, and this may be the goroutine that reads the upstream's connection.
		return
	}
	p.finish(op, took)
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

func forwardedName(name string) bool {
	return name == "forwarded" || strings.HasPrefix(name, "x-forwarded-")
}

// ownHop reports whether a field of a relayed call stays on its connection; see hopByHop.
func ownHop(name string) bool {
	return name == "proxy-authenticate" || name == "proxy-authorization" || name == "http2-settings"
}

// relayClient is what all calls of one connection have in common, and what is remembered of those before.
type relayClient struct {
	ip, proto string
	trusted   bool
	fields    [2]h2.Field // x-forwarded-for, x-forwarded-proto

	// Decide's only: handlers that give calls back have the rest at the same time.
	lastHost h2.Field // x-forwarded-host
	methods  [8]*relayedMethod
}

// slot is where a path's calls are remembered.
func (c *relayClient) slot(path string) **relayedMethod {
	n := len(path)
	if n == 0 {
		return &c.methods[0]
	}
	return &c.methods[(n+5*int(path[n-1])+3*int(path[n/2]))%len(c.methods)]
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
	c.fields = [2]h2.Field{h2.NewField("x-forwarded-for", c.ip), h2.NewField("x-forwarded-proto", c.proto)}
	h.SetMemo(c)
	return c
}

// host is x-forwarded-host for an authority.
func (c *relayClient) host(authority string) h2.Field {
	if c.lastHost.Value != authority {
		c.lastHost = h2.NewField("x-forwarded-host", strings.Clone(authority))
	}
	return c.lastHost
}

// forward does to a relayed call's fields what outgoing and trust.forward do to a request's. host is added unless a proxy
// that is trusted said another.
func (c *relayClient) forward(h *h2.Head, host h2.Field) {
	notable := h.Notable()
	if notable&h2.NotableOwnHop != 0 {
		h.Remove(ownHop)
	}
	if notable&h2.NotableTE != 0 { // The engine lets only "trailers" in, in any case.
		h.Set("te", "trailers")
	}
	if notable&h2.NotableForwarded != 0 {
		if c.trusted {
			c.extend(h)
			return
		}
		h.Remove(forwardedName)
	}
	if c.ip != "" {
		h.AddField(c.fields[0])
	}
	h.AddField(host)
	h.AddField(c.fields[1])
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
