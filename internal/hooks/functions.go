package hooks

import (
	"errors"
	"net/http"
	"slices"

	"github.com/execgate/execgate/dispatcher"
	"github.com/execgate/execgate/targetclient"
)

// functions are those that ZITADEL runs, by each name that they have had.
var functions = map[string]string{
	"preuserinfo":     "preuserinfo",
	"preaccesstoken":  "preaccesstoken",
	"presamlresponse": "presamlresponse",
	"Action.Flow.Type.CustomiseToken.Action.TriggerType.PreUserinfoCreation":            "preuserinfo",
	"Action.Flow.Type.CustomiseToken.Action.TriggerType.PreAccessTokenCreation":         "preaccesstoken",
	"Action.Flow.Type.CustomizeSAMLResponse.Action.TriggerType.PreSAMLResponseCreation": "presamlresponse",
}

// Interruption is how a target, and so the gateway, tells the provider to end what
// it does.
type Interruption struct {
	Status  int    `json:"forwardedStatusCode"`
	Message string `json:"forwardedErrorMessage"`
}

// function runs a function over its targets and answers as one target would.
func (h *handler) function(w http.ResponseWriter, r *http.Request, body []byte) {
	name, known := functions[r.PathValue("name")]
	if !known {
		name = r.PathValue("name")
		if !slices.Contains(h.o.Functions, name) {
			fault(w, http.StatusNotFound, "there is no such function")
			return
		}
	}
	run, err := dispatcher.NewFunctionRun(name, body)
	if err != nil {
		fault(w, http.StatusBadRequest, "the body is not a JSON object")
		return
	}
	snapshot := h.o.Snapshot()
	if snapshot == nil {
		fault(w, http.StatusServiceUnavailable, "configuration of the gateway is not loaded")
		return
	}
	if plan := snapshot.Function(name); plan != nil {
		_, err = h.o.Dispatcher.Dispatch(r.Context(), &dispatcher.Invocation{Plan: plan, Function: run})
	}
	if err != nil {
		h.interrupted(w, name, err)
		return
	}
	answer, _ := run.JSON() // never fails
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(answer) //nolint:gosec // JSON for a program, and labelled so
}

// interrupted answers a run that came to no good end.
func (h *handler) interrupted(w http.ResponseWriter, function string, err error) {
	interrupt, ok := errors.AsType[*dispatcher.InterruptError](err)
	if !ok { // the provider does not wait any more
		fault(w, http.StatusServiceUnavailable, "the run was not completed")
		return
	}
	h.o.Logger.Warn("function interrupted", "function", function, "execution", interrupt.Execution,
		"target", interrupt.Target, "reason", interrupt.Reason.String(), "error", interrupt.Err)
	reply(w, http.StatusOK, Forwarded(interrupt))
}

// Forwarded is what the provider is to forward: what the target wants, or that
// the execution failed.
func Forwarded(e *dispatcher.InterruptError) Interruption {
	answer := Interruption{http.StatusBadRequest, "Execution failed"}
	if e.Reason == targetclient.ReasonForwarded {
		answer.Status = e.ForwardedStatus
		if text := http.StatusText(answer.Status); text != "" {
			answer.Message = text
		}
	}
	if e.Message != "" && (e.Reason == targetclient.ReasonForwarded || e.Reason == targetclient.ReasonPrecondition) {
		answer.Message = e.Message
	}
	return answer
}
