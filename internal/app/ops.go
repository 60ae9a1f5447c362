package app

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/execgate/execgate/store"
)

// Readiness is the answer of /readyz.
type Readiness struct {
	// Ready says whether traffic should be sent here; the status is 200 then,
	// 503 otherwise.
	Ready bool `json:"ready"`
	// Reasons say why not; empty when ready.
	Reasons []string `json:"reasons"`
	// Warnings are what an operator should know although calls are served.
	Warnings []string `json:"warnings,omitempty"`
	// Generation is that of the configuration in use, 0 while there is none.
	Generation uint64 `json:"snapshot_generation"`
}

// Readiness says whether the gateway serves calls, and why not (D-38, D-54,
// D-63). The health of the upstream is no part of it.
func (a *App) Readiness() Readiness {
	r := Readiness{Reasons: []string{}}
	switch life(a.life.Load()) {
	case starting:
		r.Reasons = append(r.Reasons, "the gateway is starting")
	case stopping:
		r.Reasons = append(r.Reasons, "the gateway is stopping")
	case serving:
		r.Generation, _, _ = a.snapshotInUse()
		if err := a.proxy.Ready(); err != nil {
			r.Reasons = append(r.Reasons, err.Error())
		}
		switch {
		case errors.Is(a.replica.Err(), store.ErrRefused):
			r.Warnings = append(r.Warnings, "the newest configuration of the store is refused: the one before is served")
		case !a.replica.Up():
			r.Warnings = append(r.Warnings, "the store cannot be reached: the last known configuration is served, changes are refused")
		}
		if !a.configurator.dispatching() {
			r.Warnings = append(r.Warnings, "dispatch is switched off: no execution fires")
		}
		if a.learner.Current() == nil {
			r.Warnings = append(r.Warnings, "the schema of the upstream is not known")
		}
	}
	r.Ready = len(r.Reasons) == 0
	return r
}

// snapshotInUse says which configuration is in use.
func (a *App) snapshotInUse() (generation uint64, builtAt time.Time, ok bool) {
	s := a.configurator.loaded()
	if s == nil {
		return 0, time.Time{}, false
	}
	return s.Generation, s.BuiltAt, true
}

// opsHandler serves metrics and health. Nothing that it says is a secret.
func (a *App) opsHandler() http.Handler {
	r := chi.NewRouter()
	r.Get("/metrics", a.metrics.Handler().ServeHTTP)
	health := func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
	}
	ready := func(w http.ResponseWriter, _ *http.Request) {
		readiness := a.Readiness()
		status := http.StatusOK
		if !readiness.Ready {
			status = http.StatusServiceUnavailable
		}
		writeJSON(w, status, readiness)
	}
	for _, method := range []string{http.MethodGet, http.MethodHead} { // HEAD is what some probes send
		r.Method(method, "/healthz", http.HandlerFunc(health))
		r.Method(method, "/readyz", http.HandlerFunc(ready))
	}
	return r
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client has gone: nobody to tell
}
