package proxy

import (
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/execgate/execgate/proxy/h1"
)

// director1 decides for the HTTP/1.1 engine, with the same functions as ServeHTTP. It relays what certainly matches
// nothing; everything else is the Proxy's, which decides as it always does.
type director1 struct{ p *Proxy }

// Decide looks at a request's head.
func (d director1) Decide(h *h1.Head) h1.Exchange {
	p := d.p
	x, ok := h.Memo().(*relayed)
	if !ok {
		x = newRelayed(p, h)
		h.SetMemo(x)
	}
	if !x.read(h) {
		return nil
	}
	op := newOperation(nil, &x.r)
	if !p.passes(op) {
		op.release()
		return nil
	}
	x.op = op
	x.forward(h)
	p.inFlight.Add(1)
	return x
}

// passes reports whether a request certainly matches nothing, and needs nothing but being passed on.
func (p *Proxy) passes(op *operation) bool {
	if p.recognize(op) != nil || op.needsHTTP2 || op.upgrade != "" {
		return false
	}
	if p.cors.configured() && len(op.r.Header["Origin"]) > 0 {
		return false
	}
	snapshot, known := p.snapshot(), p.schema()
	p.identify(op, known)
	if held(snapshot, known) != nil || len(op.others) > 0 && matchOthers(op, snapshot) != nil {
		return false
	}
	if op.fullMethod == "" {
		return true
	}
	request, response := snapshot.Call(op.fullMethod)
	if request == nil && response == nil || exempt(op.fullMethod) {
		return true
	}
	if op.method == nil {
		return false
	}
	request, response = streamPlans(op.method, request, response)
	return request == nil && response == nil
}

// relayed is a relayed request of a connection, and what all requests of the connection have in common.
type relayed struct {
	p  *Proxy
	op *operation

	// r is the request as far as it takes part in decisions. Its strings are valid until Done.
	r      http.Request
	url    url.URL
	header http.Header
	values []string
	answer http.Response

	ip, proto string
	trusted   bool
}

func newRelayed(p *Proxy, h *h1.Head) *relayed {
	x := &relayed{p: p, ip: clientIP(h.RemoteAddr()), proto: "http", header: make(http.Header)}
	if h.TLS() != nil {
		x.proto = "https"
	}
	x.trusted = p.trust.trusts(x.ip)
	x.r = http.Request{Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: x.header, URL: &x.url, TLS: h.TLS(), RemoteAddr: h.RemoteAddr()}
	return x
}

// decisive reports whether a header takes part in decisions, or in how errors are told.
func decisive(name string) bool {
	switch name {
	case headerContentType, headerConnectVersion, headerMethodOverride, "Origin":
		return true
	}
	return false
}

// read makes x.r what h says. It reports false if the target cannot be parsed.
func (x *relayed) read(h *h1.Head) bool {
	r := &x.r
	r.Method, r.RequestURI, r.Host, r.ContentLength = h.Method(), h.Target(), h.Host(), h.ContentLength()
	if plainTarget(r.RequestURI) {
		path, query, _ := strings.Cut(r.RequestURI, "?")
		x.url = url.URL{Path: path, RawQuery: query}
	} else {
		u, err := url.ParseRequestURI(r.RequestURI)
		if err != nil {
			return false
		}
		x.url = *u
	}
	clear(x.header)
	fields := h.Fields()
	x.values = x.values[:0]
	for i := range fields {
		if !decisive(fields[i].Name) {
			continue
		}
		x.values = append(x.values, fields[i].Value)
		if prior, ok := x.header[fields[i].Name]; ok {
			x.header[fields[i].Name] = append(prior, fields[i].Value)
			continue
		}
		n := len(x.values)
		x.header[fields[i].Name] = x.values[n-1 : n : n]
	}
	return true
}

// plainTarget reports whether the path of a target means what it says, in every character.
func plainTarget(target string) bool {
	for i := range len(target) {
		c := target[i]
		if c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' {
			continue
		}
		switch c {
		case '/', '.', '_', '-', '~', ':', ',', '@', '=', '+', '$', '&':
		case '?':
			return true
		default:
			return false
		}
	}
	return true
}

// forward does to a relayed request's fields what trust.forward does to headers.
func (x *relayed) forward(h *h1.Head) {
	claimed := false
	fields := h.Fields()
	for i := range fields {
		if forwarded1(fields[i].Name) {
			claimed = true
			break
		}
	}
	if claimed && x.trusted {
		x.extend(h)
		return
	}
	if claimed {
		h.Remove(forwarded1)
	}
	if x.ip != "" {
		h.Add("X-Forwarded-For", x.ip)
	}
	h.Add("X-Forwarded-Host", h.Host())
	h.Add("X-Forwarded-Proto", x.proto)
}

func forwarded1(name string) bool {
	return name == "Forwarded" || strings.HasPrefix(name, "X-Forwarded-")
}

// extend continues what a trusted proxy said.
func (x *relayed) extend(h *h1.Head) {
	said := make(http.Header)
	for _, f := range h.Fields() {
		if forwarded1(f.Name) {
			said[f.Name] = append(said[f.Name], f.Value)
		}
	}
	x.p.trust.forward(said, &x.r)
	h.Remove(forwarded1)
	for name, values := range said {
		for _, v := range values {
			h.Add(name, v)
		}
	}
}

// Answered notes the answer.
func (x *relayed) Answered(status int, header func() http.Header) h1.Watcher {
	op := x.op
	op.started = true
	x.answer = http.Response{StatusCode: status}
	if op.edge == nil {
		return nil
	}
	if status != http.StatusOK || op.kind != contentOther {
		x.answer.Header = header()
	}
	if op.watch = op.edge.watch(op, &x.answer); op.watch == nil {
		return nil
	}
	return op.watch.write
}

// Failed renders what went wrong as it is rendered everywhere.
func (x *relayed) Failed(w http.ResponseWriter, err error) (complete bool) {
	var failure *callError
	switch client, ok := errors.AsType[*h1.ClientError](err); {
	case !ok:
		failure = upstreamError(x.op.ctx, err, nil)
	case client.Gone:
		failure = canceledError(err)
	default:
		failure = malformedError(err)
	}
	x.op.w = w
	defer func() {
		if fault := recover(); fault != nil && fault != http.ErrAbortHandler { //nolint:errorlint // As in ServeHTTP.
			panic(fault)
		}
	}()
	x.p.fail(x.op, failure)
	return true
}

// Done records the request.
func (x *relayed) Done() {
	op := x.op
	if op.code == "" {
		op.code = x.p.answerCode(op, &x.answer)
	}
	x.op = nil
	x.p.finish(op, time.Since(op.start))
	x.url, x.answer = url.URL{}, http.Response{}
	clear(x.header)
	clear(x.values)
}

// newEngine1 returns the engine that serves HTTP/1.1 for p. other takes connections for net/http's server.
func newEngine1(p *Proxy, o ServerOptions, other func(net.Conn)) (*h1.Engine, error) {
	up := h1.UpstreamOptions{
		Address:     p.upstream.address(),
		TLS:         p.upstream.tls,
		Authority:   p.upstream.authority,
		DialTimeout: p.upstream.dialTimeout,
	}
	return h1.New(h1.Options{
		Director:          director1{p},
		Upstream:          up,
		Other:             other,
		ReadHeaderTimeout: o.ReadHeaderTimeout,
		IdleTimeout:       o.IdleTimeout,
		MaxHeaderBytes:    o.MaxHeaderBytes,
		Refused:           o.Refused,
		Logger:            o.Logger,
	})
}
