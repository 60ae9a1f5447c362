package proxy

import (
	"context"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"
)

// CORSOptions say how cross-origin requests are answered (D-50, D-64).
type CORSOptions struct {
	// AllowedOrigins are the origins that a browser may call from: exact values ("https://console.example.com"), or
	// "*" for any. Empty: preflights go to the upstream.
	AllowedOrigins []string
}

// cors is CORSOptions at work.
type cors struct {
	origins map[string]struct{}
	any     bool
}

func newCORS(o CORSOptions) cors {
	c := cors{any: slices.Contains(o.AllowedOrigins, "*")}
	if len(o.AllowedOrigins) > 0 {
		c.origins = make(map[string]struct{}, len(o.AllowedOrigins))
	}
	for _, origin := range o.AllowedOrigins {
		c.origins[origin] = struct{}{}
	}
	return c
}

// configured says that the gateway answers preflights itself.
func (c cors) configured() bool { return c.origins != nil }

func (c cors) allows(origin string) bool {
	if !c.configured() || c.any {
		return true
	}
	_, ok := c.origins[origin]
	return ok
}

// statusHeaders are those in which a status reaches a script.
const statusHeaders = "Grpc-Status, Grpc-Message, Grpc-Status-Details-Bin"

// preflight answers a CORS preflight if that is the gateway's task.
func (c cors) preflight(op *operation) bool {
	r := op.r
	if !c.configured() || r.Method != http.MethodOptions {
		return false
	}
	origin := r.Header.Get("Origin")
	method := r.Header.Get("Access-Control-Request-Method")
	if origin == "" || method == "" {
		return false
	}
	h := op.w.Header()
	h["Vary"] = []string{"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"}
	if c.allows(origin) {
		h["Access-Control-Allow-Origin"] = []string{origin}
		h["Access-Control-Allow-Credentials"] = []string{"true"}
		h["Access-Control-Allow-Methods"] = []string{method}
		if headers := r.Header["Access-Control-Request-Headers"]; len(headers) > 0 {
			h["Access-Control-Allow-Headers"] = headers
		}
		h["Access-Control-Max-Age"] = []string{"600"}
	}
	op.started = true
	op.w.WriteHeader(http.StatusNoContent)
	op.code = httpCodeName(http.StatusNoContent)
	return true
}

// onError puts what a script needs to read an error of the gateway into its headers.
func (c cors) onError(h http.Header, r *http.Request) {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return
	}
	h["Vary"] = append(h["Vary"], "Origin")
	if !c.allows(origin) {
		return
	}
	h["Access-Control-Allow-Origin"] = []string{origin}
	h["Access-Control-Allow-Credentials"] = []string{"true"}
	h["Access-Control-Expose-Headers"] = []string{statusHeaders}
}

// grants are the headers by which an answer lets a script of another origin read it.
var grants = [...]string{
	"Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "Access-Control-Expose-Headers",
	"Access-Control-Allow-Methods", "Access-Control-Allow-Headers", "Access-Control-Allow-Private-Network", "Access-Control-Max-Age",
}

// onAnswer lets an allowed origin read an answer of the upstream, which never saw the preflight, and no other (D-64). To
// an allowed origin, what the upstream says itself stands.
func (c cors) onAnswer(h http.Header, r *http.Request) {
	if !c.configured() {
		return
	}
	if origin := r.Header.Get("Origin"); origin != "" && !c.allows(origin) {
		for _, name := range grants {
			delete(h, name)
		}
		h["Vary"] = append(h["Vary"], "Origin")
		return
	}
	if _, ok := h["Access-Control-Allow-Origin"]; !ok {
		c.onError(h, r)
	}
}

// origins remembers what the upstream said of origins that asked for a path. It is bounded: origins come from clients.
type origins struct {
	mu    sync.Mutex
	known map[string]originAnswer
}

type originAnswer struct {
	allowed bool
	until   time.Time
}

const (
	maxOrigins   = 1024
	originMaxAge = 5 * time.Minute
)

// mayRead reports whether the script that sent r may read the answer to it. Without allowed_origins that is the
// upstream's to say; where the gateway answers in its place (a gRPC-Web call that it made a gRPC call), it asks the
// upstream as the browser has done, with a preflight.
func (p *Proxy) mayRead(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	if p.cors.configured() {
		return p.cors.allows(origin)
	}
	key := origin + " " + r.Host
	now := time.Now()
	p.origins.mu.Lock()
	answer, ok := p.origins.known[key]
	p.origins.mu.Unlock()
	if ok && now.Before(answer.until) {
		return answer.allowed
	}
	answer = originAnswer{allowed: p.askPreflight(r, origin), until: now.Add(originMaxAge)}
	p.origins.mu.Lock()
	defer p.origins.mu.Unlock()
	if p.origins.known == nil || len(p.origins.known) >= maxOrigins {
		p.origins.known = make(map[string]originAnswer)
	}
	p.origins.known[key] = answer
	return answer.allowed
}

// askPreflight asks the upstream whether origin may make the call of r.
func (p *Proxy) askPreflight(r *http.Request, origin string) bool {
	ctx, cancel := context.WithTimeout(r.Context(), preflightTimeout)
	defer cancel()
	out := (&http.Request{
		Method: http.MethodOptions, URL: p.upstream.url(r), Host: r.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{
			"Origin":                         {origin},
			"Access-Control-Request-Method":  {http.MethodPost},
			"Access-Control-Request-Headers": {"content-type,x-grpc-web"},
			"User-Agent":                     nil,
		},
	}).WithContext(ctx)
	if p.upstream.authority != "" {
		out.Host = p.upstream.authority
	}
	p.trust.forward(out.Header, r)
	res, err := p.upstream.web.RoundTrip(out)
	if err != nil {
		return false
	}
	defer res.Body.Close()
	_, _ = io.CopyN(io.Discard, res.Body, 64<<10)
	allowed := res.Header.Get("Access-Control-Allow-Origin")
	return res.StatusCode < http.StatusMultipleChoices && (allowed == "*" || allowed == origin)
}

// preflightTimeout bounds the gateway's own question to the upstream about an origin.
const preflightTimeout = 5 * time.Second
