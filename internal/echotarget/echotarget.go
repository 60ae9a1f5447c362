package echotarget

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/execgate/execgate/targetclient"
)

// Mode is a way to answer.
type Mode string

// The modes. All of them answer after Options.Delay.
const (
	// Accept answers 200 without a body: nothing changes.
	Accept Mode = "accept"
	// Echo answers with the message that came: the response if the envelope has
	// one, otherwise the request, or the empty answer of a function. Events are
	// accepted.
	Echo Mode = "echo"
	// Merge answers as Echo does, with Options.Merge merged into the message.
	Merge Mode = "merge"
	// Veto answers with a forwarded status and message, which end the call when
	// the target may interrupt.
	Veto Mode = "veto"
	// Fail answers with an HTTP error.
	Fail Mode = "fail"
)

// Modes returns every mode, in the order in which help should list them.
func Modes() []Mode { return []Mode{Accept, Echo, Merge, Veto, Fail} }

// Defaults of Options.
const (
	DefaultListen      = "127.0.0.1:9090"
	DefaultVetoStatus  = http.StatusForbidden
	DefaultVetoMessage = "refused by echo-target"
	DefaultFailStatus  = http.StatusInternalServerError
	// maxBody is what is read of a request at most.
	maxBody = 256 << 20
)

// Options of a target. The zero value accepts everything.
type Options struct {
	// Listen is where Run listens; empty is DefaultListen.
	Listen string
	// Mode is how it answers; empty is Accept.
	Mode Mode
	// Merge is the JSON object that mode Merge merges into the message, by the
	// rules of JSON merge patch (RFC 7396): null takes a field away.
	Merge string
	// Status is the forwarded status of mode Veto, or the HTTP status of mode
	// Fail; 0 is the mode's default.
	Status int
	// Message is the forwarded message of mode Veto; empty is
	// DefaultVetoMessage.
	Message string
	// Delay passes before the answer.
	Delay time.Duration
	// SigningKey is the target's key. When it is set, every request says whether
	// its signature is right, and one that is not is answered with 401.
	SigningKey string
	// Quiet leaves the bodies out of what is written.
	Quiet bool
	// OnRequest is called with every request after it was answered. May be nil.
	OnRequest func(Request)
}

// Request is one request and how it was answered.
type Request struct {
	Path      string
	Header    http.Header
	Body      []byte
	Signature Signature
	Status    int
	Answer    []byte
}

// Signature says what is known about a request's signature.
type Signature string

// The values of Signature.
const (
	Unchecked Signature = "not checked"
	Valid     Signature = "valid"
	// Any other value is the reason why the signature is not valid.
)

// Validate says what is wrong with the options.
func (o Options) Validate() error {
	_, err := o.prepare()
	return err
}

// settings are checked Options with the defaults filled in.
type settings struct {
	Options
	patch map[string]any
}

func (o Options) prepare() (settings, error) {
	s := settings{Options: o}
	switch s.Mode {
	case "":
		s.Mode = Accept
	case Accept, Echo, Merge, Veto, Fail:
	default:
		names := make([]string, 0, 5)
		for _, m := range Modes() {
			names = append(names, string(m))
		}
		return s, fmt.Errorf("mode %q is none of %s", o.Mode, strings.Join(names, ", "))
	}
	if s.Listen == "" {
		s.Listen = DefaultListen
	}
	if s.Delay < 0 {
		return s, errors.New("delay is negative")
	}
	if (s.Merge != "") != (s.Mode == Merge) {
		return s, errors.New("mode merge and what is to be merged go together")
	}
	if s.Merge != "" {
		if err := json.Unmarshal([]byte(s.Merge), &s.patch); err != nil || s.patch == nil {
			return s, errors.New("what is to be merged is no JSON object")
		}
	}
	if s.Status == 0 {
		s.Status = map[Mode]int{Veto: DefaultVetoStatus, Fail: DefaultFailStatus}[s.Mode]
	} else if s.Mode != Veto && s.Mode != Fail {
		return s, fmt.Errorf("mode %s has no status", s.Mode)
	}
	if s.Mode == Fail && (s.Status < 200 || s.Status > 599) {
		return s, fmt.Errorf("%d is no final HTTP status", s.Status)
	}
	if s.Message == "" {
		s.Message = DefaultVetoMessage
	} else if s.Mode != Veto {
		return s, fmt.Errorf("mode %s has no message", s.Mode)
	}
	return s, nil
}

// Run serves until ctx ends, and writes what happens to out: first the address,
// then every request and its answer.
func Run(ctx context.Context, o Options, out io.Writer) error {
	s, err := o.prepare()
	if err != nil {
		return fmt.Errorf("echo-target: %w", err)
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", s.Listen)
	if err != nil {
		return fmt.Errorf("echo-target: %w", err)
	}
	h := newHandler(s, out)
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 30 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	h.printf("listening on http://%s, mode %s\n", ln.Addr(), s.Mode)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	select {
	case err := <-served:
		return fmt.Errorf("echo-target: %w", err)
	case <-ctx.Done():
	}
	// Answers that are being delayed end with ctx, so this does not wait long.
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := srv.Shutdown(stop); err != nil {
		_ = srv.Close()
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("echo-target: %w", err)
	}
	return nil
}

// NewHandler returns a target without a listener. What it writes to out is one
// block per request; the handler serialises its own writes.
func NewHandler(o Options, out io.Writer) (http.Handler, error) {
	s, err := o.prepare()
	if err != nil {
		return nil, fmt.Errorf("echo-target: %w", err)
	}
	return newHandler(s, out), nil
}

type handler struct {
	settings

	mu  sync.Mutex // guards out
	out io.Writer
	n   int
}

func newHandler(s settings, out io.Writer) *handler {
	return &handler{settings: s, out: out}
}

// ServeHTTP answers one delivery.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "a target takes POST", http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, "cannot read the body", http.StatusBadRequest)
		return
	}
	req := Request{Path: r.URL.Path, Header: r.Header.Clone(), Body: body, Signature: h.verify(r, body)}
	req.Status, req.Answer = h.answer(req)
	if !h.pause(r.Context()) {
		h.log(req, "caller went away before the answer")
		return
	}
	if len(req.Answer) > 0 {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(req.Status)
	_, _ = w.Write(req.Answer)
	h.log(req, "")
	if h.OnRequest != nil {
		h.OnRequest(req)
	}
}

func (h *handler) verify(r *http.Request, body []byte) Signature {
	if h.SigningKey == "" {
		return Unchecked
	}
	header := r.Header.Get(targetclient.SignatureHeaderName)
	if err := targetclient.Verify(header, h.SigningKey, body, time.Now(), targetclient.DefaultTolerance); err != nil {
		return Signature(err.Error())
	}
	return Valid
}

func (h *handler) pause(ctx context.Context) bool {
	if h.Delay == 0 {
		return true
	}
	timer := time.NewTimer(h.Delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (h *handler) answer(req Request) (status int, body []byte) {
	if req.Signature != Valid && req.Signature != Unchecked {
		return http.StatusUnauthorized, nil
	}
	switch h.Mode {
	case Echo:
		message, _ := messageOf(req.Body)
		return http.StatusOK, message
	case Merge:
		message, ok := messageOf(req.Body)
		if !ok {
			return http.StatusOK, nil
		}
		merged, err := mergeInto(message, h.patch)
		if err != nil {
			return http.StatusBadRequest, nil
		}
		return http.StatusOK, merged
	case Veto:
		veto, err := json.Marshal(map[string]any{
			"forwardedStatusCode":   h.Status,
			"forwardedErrorMessage": h.Message,
		})
		if err != nil {
			return http.StatusInternalServerError, nil
		}
		return http.StatusOK, veto
	case Fail:
		return h.Status, nil
	default:
		return http.StatusOK, nil
	}
}

// messageOf returns the message in an envelope: the response when there is one.
// That of a function begins empty.
func messageOf(envelope []byte) (json.RawMessage, bool) {
	var e struct {
		Function          string
		Request, Response json.RawMessage
	}
	if json.Unmarshal(envelope, &e) != nil {
		return nil, false
	}
	switch {
	case e.Response != nil:
		return e.Response, true
	case e.Request == nil && e.Function != "":
		return json.RawMessage("{}"), true
	default:
		return e.Request, e.Request != nil
	}
}

// mergeInto applies a JSON merge patch. Numbers keep their digits.
func mergeInto(message []byte, patch map[string]any) ([]byte, error) {
	var target map[string]any
	d := json.NewDecoder(bytes.NewReader(message))
	d.UseNumber()
	if err := d.Decode(&target); err != nil {
		return nil, fmt.Errorf("message is no object: %w", err)
	}
	merged, err := json.Marshal(merge(target, patch))
	if err != nil {
		return nil, fmt.Errorf("encode the merged message: %w", err)
	}
	return merged, nil
}

func merge(target, patch map[string]any) map[string]any {
	if target == nil {
		target = map[string]any{}
	}
	for k, v := range patch {
		switch v := v.(type) {
		case nil:
			delete(target, k)
		case map[string]any:
			inner, _ := target[k].(map[string]any)
			target[k] = merge(inner, v)
		default:
			target[k] = v
		}
	}
	return target
}

// log writes one block: what came, what went, and a note if there is one.
func (h *handler) log(req Request, note string) {
	var name struct {
		FullMethod, Function string
		EventType            string `json:"event_type"`
	}
	_ = json.Unmarshal(req.Body, &name)
	what := "no envelope"
	for _, n := range []string{name.EventType, name.Function, name.FullMethod} {
		if n != "" {
			what = n
		}
	}
	answer := fmt.Sprintf("%d %s", req.Status, req.Answer)
	if note != "" {
		answer = note
	}
	var b strings.Builder
	fmt.Fprintf(&b, "POST %s  %s  (%d bytes, signature %s)\n", req.Path, what, len(req.Body), req.Signature)
	if !h.Quiet {
		var pretty bytes.Buffer
		if json.Indent(&pretty, req.Body, "    ", "  ") == nil {
			fmt.Fprintf(&b, "    %s\n", pretty.String())
		}
		fmt.Fprintf(&b, "    -> %s\n", strings.TrimSpace(answer))
	} else {
		fmt.Fprintf(&b, "    -> %d\n", req.Status)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.n++
	_, _ = fmt.Fprintf(h.out, "#%d %s", h.n, b.String())
}

func (h *handler) printf(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, _ = fmt.Fprintf(h.out, format, args...)
}
