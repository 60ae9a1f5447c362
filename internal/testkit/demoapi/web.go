package demoapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// exposed lists the response headers that a script of another origin may read.
const exposed = "Content-Type, Date, ETag, Grpc-Status, Grpc-Message, Grpc-Status-Details-Bin, Grpc-Encoding, Connect-Content-Encoding"

// cors answers browsers of other origins, for every door but gRPC-Web, whose
// wrapper does so itself.
func (s *Server) cors(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		origin := r.Header.Get("Origin")
		if origin == "" {
			next.ServeHTTP(w, r)
			return
		}
		h := w.Header()
		h.Add("Vary", "Origin")
		if s.opts.AllowOrigin(origin) {
			h.Set("Access-Control-Allow-Origin", origin)
			h.Set("Access-Control-Allow-Credentials", "true")
			h.Set("Access-Control-Expose-Headers", exposed)
		}
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			if s.opts.AllowOrigin(origin) {
				h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
				if wanted := r.Header.Get("Access-Control-Request-Headers"); wanted != "" {
					h.Set("Access-Control-Allow-Headers", wanted)
				}
				h.Set("Access-Control-Max-Age", "600")
			}
			w.WriteHeader(http.StatusNoContent)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// newWeb serves what is no API: discovery, pages, server-sent events.
func (s *Server) newWeb(stopped <-chan struct{}) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", discovery)
	mux.HandleFunc("GET /ui/login", loginPage)
	mux.HandleFunc("GET /debug/healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /events/stream", s.tick(stopped))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		md := map[string][]string{}
		for k, v := range r.Header {
			md[strings.ToLower(k)] = v
		}
		s.saw(Request{Protocol: ProtocolHTTP, Method: r.Method + " " + r.URL.Path, Host: r.Host, Metadata: md})
		if !s.knowsHost(r.Host) && r.URL.Path != "/debug/healthz" {
			http.Error(w, "Instance not found", http.StatusNotFound)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// discovery tells OpenID clients where things are; nothing but the document
// itself exists.
func discovery(w http.ResponseWriter, r *http.Request) {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	issuer := scheme + "://" + r.Host
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "max-age=300")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"issuer":                                issuer,
		"authorization_endpoint":                issuer + "/oauth/v2/authorize",
		"token_endpoint":                        issuer + "/oauth/v2/token",
		"userinfo_endpoint":                     issuer + "/oidc/v1/userinfo",
		"jwks_uri":                              issuer + "/oauth/v2/keys",
		"response_types_supported":              []string{"code"},
		"subject_types_supported":               []string{"public"},
		"id_token_signing_alg_values_supported": []string{"RS256"},
	})
}

const loginHTML = `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Login</title></head>
<body>
<h1>Login</h1>
<form method="post" action="/ui/login">
<label>Login name <input name="loginName" autocomplete="username"></label>
<button>Next</button>
</form>
</body>
</html>
`

func loginPage(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	http.SetCookie(w, &http.Cookie{Name: "demo.csrf", Value: "1", Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode})
	http.SetCookie(w, &http.Cookie{Name: "demo.useragent", Value: "2", Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode})
	_, _ = w.Write([]byte(loginHTML))
}

// tick sends numbered server-sent events until the client or the server goes.
func (s *Server) tick(stopped <-chan struct{}) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Cache-Control", "no-store")
		rc := http.NewResponseController(w)
		ticker := time.NewTicker(s.opts.Tick)
		defer ticker.Stop()
		for n := 1; ; n++ {
			if _, err := fmt.Fprintf(w, "id: %d\nevent: tick\ndata: {\"n\":%d}\n\n", n, n); err != nil {
				return
			}
			if err := rc.Flush(); err != nil {
				return
			}
			select {
			case <-ticker.C:
			case <-stopped:
				return
			case <-r.Context().Done():
				return
			}
		}
	}
}
