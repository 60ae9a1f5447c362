package proxy

import (
	"net/http"
	"slices"
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
	if origin == "" || !c.allows(origin) {
		return
	}
	h["Access-Control-Allow-Origin"] = []string{origin}
	h["Access-Control-Allow-Credentials"] = []string{"true"}
	h["Access-Control-Expose-Headers"] = []string{statusHeaders}
	h["Vary"] = append(h["Vary"], "Origin")
}

// onAnswer lets an allowed origin read an answer of the upstream, which never saw the preflight. What the upstream says
// itself stands.
func (c cors) onAnswer(h http.Header, r *http.Request) {
	if !c.configured() {
		return
	}
	if _, ok := h["Access-Control-Allow-Origin"]; !ok {
		c.onError(h, r)
	}
}
