package hooks

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/execgate/execgate/dispatcher"
	"github.com/execgate/execgate/events"
	"github.com/execgate/execgate/targetclient"
)

// Observer is told about requests, for metrics. Safe for concurrent use.
type Observer interface {
	// HookCall reports an answered request: "functions" or "events", the status,
	// and how long it took.
	HookCall(endpoint string, status int, d time.Duration)
}

// Dispatcher runs plans. [*dispatcher.Dispatcher] is one.
type Dispatcher interface {
	Dispatch(ctx context.Context, inv *dispatcher.Invocation) (dispatcher.Outcome, error)
}

// Sink takes events. [*events.Sink] is one.
type Sink interface {
	Accept(ctx context.Context, source string, e *events.Event) error
}

// Options configure [New]. Snapshot, Dispatcher and Sink are required.
type Options struct {
	// Snapshot returns the configuration that functions go by, nil while there is
	// none.
	Snapshot func() *dispatcher.Snapshot
	// Dispatcher runs functions; it bounds the time that they take.
	Dispatcher Dispatcher
	// Sink takes events.
	Sink Sink
	// SigningKeys verify ZITADEL-Signature, Tokens bearer tokens. A request needs
	// one of them; with neither set, nobody is asked for anything.
	SigningKeys, Tokens []string
	// Functions are the names that may be called beside ZITADEL's.
	Functions []string
	// InstanceID is that of events that do not name one.
	InstanceID string
	// MaxBodyBytes bounds a request. Default 20 MiB.
	MaxBodyBytes int64
	// Observer may be nil.
	Observer Observer
	// Logger gets what senders are not told. Nil: slog.Default().
	Logger *slog.Logger
}

// handler answers the requests.
type handler struct {
	o     Options
	guard guard
}

// New returns the handler of the hooks listener: POST /functions/{name} and
// POST /events.
func New(o Options) http.Handler {
	if o.MaxBodyBytes <= 0 {
		o.MaxBodyBytes = 20 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	h := &handler{o: o, guard: newGuard(o.SigningKeys, o.Tokens)}
	mux := http.NewServeMux()
	mux.Handle("POST /functions/{name}", h.endpoint("functions", h.function))
	mux.Handle("POST /events", h.endpoint("events", h.events))
	return mux
}

// endpoint reads a bounded body of a sender who may send it, and counts.
func (h *handler) endpoint(name string, answer func(w http.ResponseWriter, r *http.Request, body []byte)) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		start, w := time.Now(), &statusWriter{ResponseWriter: rw, status: http.StatusOK}
		defer func() {
			if h.o.Observer != nil {
				h.o.Observer.HookCall(name, w.status, time.Since(start))
			}
		}()
		if encoding := r.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
			fault(w, http.StatusUnsupportedMediaType, "send the body as it is, without a Content-Encoding")
			return
		}
		// Without a body of a sender who is known already, nothing is read.
		if !h.guard.mayBecome(r.Header) {
			h.refuse(w, name, "no credentials")
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, h.o.MaxBodyBytes))
		if err != nil {
			if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
				fault(w, http.StatusRequestEntityTooLarge, "the body is larger than hooks.max_body_bytes")
				return
			}
			fault(w, http.StatusBadRequest, "the body cannot be read")
			return
		}
		if err := h.guard.check(r.Header, body, time.Now()); err != nil {
			h.refuse(w, name, err.Error())
			return
		}
		answer(w, r, body)
	})
}

// refuse answers a sender who is not known. Why exactly is for the log only.
func (h *handler) refuse(w http.ResponseWriter, endpoint, why string) {
	h.o.Logger.Warn("hook refused", "endpoint", endpoint, "reason", why)
	w.Header().Set("WWW-Authenticate", "Bearer")
	fault(w, http.StatusUnauthorized, "a valid "+targetclient.SignatureHeaderName+" or bearer token is required")
}

// fault answers with an error.
func fault(w http.ResponseWriter, status int, message string) {
	reply(w, status, struct {
		Message string `json:"message"`
	}{message})
}

func reply(w http.ResponseWriter, status int, body any) {
	text, _ := json.Marshal(body) // only what always marshals
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(text)
}

// statusWriter remembers the status.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader remembers the status and passes it on.
func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for [http.ResponseController].
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
