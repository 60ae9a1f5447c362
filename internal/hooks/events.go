package hooks

import (
	"errors"
	"net/http"

	"github.com/execgate/execgate/events"
)

// events takes events. It answers 202 when all of them are safely queued. When
// one is not, the sender has to repeat them all: those that are queued already
// are known then.
func (h *handler) events(w http.ResponseWriter, r *http.Request, body []byte) {
	list, err := events.Decode(r.Header, body, h.o.InstanceID)
	switch {
	case errors.Is(err, events.ErrMediaType):
		fault(w, http.StatusUnsupportedMediaType, err.Error())
		return
	case err != nil:
		fault(w, http.StatusBadRequest, err.Error())
		return
	}
	for i := range list {
		err := h.o.Sink.Accept(r.Context(), "ingest", &list[i])
		switch {
		case err == nil:
		case events.AsFormatError(err) != nil:
			fault(w, http.StatusBadRequest, events.AsFormatError(err).Error())
			return
		case events.Permanent(err):
			fault(w, http.StatusRequestEntityTooLarge, "the event is too large for the queue")
			return
		default:
			h.o.Logger.Error("event not queued", "event_type", list[i].Type, "error", err)
			w.Header().Set("Retry-After", "1")
			fault(w, http.StatusServiceUnavailable, "the event could not be queued")
			return
		}
	}
	w.WriteHeader(http.StatusAccepted)
}
