package events

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cloudevents/sdk-go/v2/binding"
	cloudevents "github.com/cloudevents/sdk-go/v2/event"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
)

// FormatError says that a body holds no events that can be read. Its text is for
// the sender and repeats nothing of the body.
type FormatError struct {
	text string
	err  error // may hold payload
}

// ErrMediaType is what a *[FormatError] wraps when the content type is none that
// is read.
var ErrMediaType = errors.New("content type is not supported")

// Error says what is wrong.
func (e *FormatError) Error() string { return e.text }

// Unwrap returns the parser's error.
func (e *FormatError) Unwrap() error { return e.err }

// Media types of CloudEvents.
const (
	structured = "application/cloudevents+json"
	batch      = "application/cloudevents-batch+json"
)

// Decode reads the events of an HTTP request: a CloudEvent 1.0 in structured or
// binary mode or a batch of them, and otherwise ZITADEL's event payload, which is
// JSON and may come without a content type. The
// instance is that of events that do not name one. The error is a *[FormatError];
// a batch is read whole or not at all.
func Decode(header http.Header, body []byte, instance string) ([]Event, error) {
	contentType, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	binary := header.Get("Ce-Specversion") != ""
	switch {
	case contentType == batch:
		return decodeBatch(header, body, instance)
	case strings.HasPrefix(contentType, "application/cloudevents") && contentType != structured,
		!binary && header.Get("Content-Type") != "" && (err != nil || !isJSON(contentType)):
		return nil, &FormatError{"send application/json, " + structured + " or " + batch + ", or a CloudEvent in ce- headers", ErrMediaType}
	case contentType == structured, binary:
		ce, err := binding.ToEvent(context.Background(), message(header, body))
		if err != nil {
			return nil, &FormatError{"the body is no CloudEvent 1.0", err}
		}
		e, err := fromCloudEvent(ce, instance)
		if err != nil {
			return nil, err
		}
		return []Event{e}, nil
	default:
		e, err := fromZITADEL(body, instance)
		if err != nil {
			return nil, err
		}
		return []Event{e}, nil
	}
}

func message(header http.Header, body []byte) *cehttp.Message {
	return cehttp.NewMessage(plainAttributes(header), io.NopCloser(bytes.NewReader(body)))
}

// plainAttributes undoes what attributes go through to be header values: quotes and percent-encoding (CloudEvents HTTP
// binding 3.1.3.2). The SDK leaves both as they are. What is not encoded right is kept.
func plainAttributes(header http.Header) http.Header {
	plain := header.Clone()
	for name, values := range header {
		if !strings.HasPrefix(name, "Ce-") || len(values) != 1 {
			continue
		}
		value := unquote(values[0])
		if decoded, err := url.PathUnescape(value); err == nil && utf8.ValidString(decoded) {
			value = decoded
		}
		plain.Set(name, value)
	}
	return plain
}

// unquote returns what a quoted string (RFC 9110 5.6.4) says, and anything else as it is.
func unquote(s string) string {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return s
	}
	var b strings.Builder
	for s = s[1 : len(s)-1]; s != ""; s = s[1:] {
		if s[0] == '\\' && len(s) > 1 {
			s = s[1:]
		}
		b.WriteByte(s[0])
	}
	return b.String()
}

func decodeBatch(header http.Header, body []byte, instance string) ([]Event, error) {
	if !json.Valid(body) {
		return nil, &FormatError{"the body is not JSON", nil}
	}
	ces, err := binding.ToEvents(context.Background(), message(header, body), bytes.NewReader(body))
	if err != nil {
		return nil, &FormatError{"the body is no batch of CloudEvents 1.0", err}
	}
	events := make([]Event, len(ces))
	for i := range ces {
		if events[i], err = fromCloudEvent(&ces[i], instance); err != nil {
			return nil, &FormatError{fmt.Sprintf("event %d: %v", i, err), err}
		}
	}
	return events, nil
}

// fromCloudEvent maps a CloudEvent to what targets of events know.
func fromCloudEvent(ce *cloudevents.Event, instance string) (Event, error) {
	if ce.SpecVersion() != cloudevents.CloudEventsVersionV1 {
		return Event{}, &FormatError{"only CloudEvents 1.0 are taken", nil}
	}
	if err := ce.Validate(); err != nil {
		return Event{}, &FormatError{"the CloudEvent lacks an attribute that is required, or one is invalid", err}
	}
	e := Event{
		AggregateID: ce.Subject(), AggregateType: ce.Source(), InstanceID: instance, Type: ce.Type(),
		Source: ce.Source(), ID: ce.ID(),
	}
	if aggregateType, ok := ce.Extensions()["aggregatetype"].(string); ok && aggregateType != "" {
		e.AggregateType = aggregateType
	}
	if at := ce.Time(); !at.IsZero() {
		e.CreatedAt = at.Format(time.RFC3339Nano)
	}
	var err error
	e.Payload, err = payload(ce)
	return e, err
}

// payload returns the data of a CloudEvent as JSON: as it is if it is JSON,
// otherwise as a string, in base64 if it is not text.
func payload(ce *cloudevents.Event) (json.RawMessage, error) {
	data := ce.Data()
	if len(data) == 0 {
		return nil, nil
	}
	unsaid := ce.DataBase64 && ce.DataContentType() == "" // It may be JSON.
	if isJSON(ce.DataMediaType()) && (!unsaid || json.Valid(data)) {
		if !json.Valid(data) {
			return nil, &FormatError{"the data of the CloudEvent is not JSON", nil}
		}
		return data, nil
	}
	text := string(data)
	if unsaid || !utf8.Valid(data) {
		text = base64.StdEncoding.EncodeToString(data)
	}
	return json.Marshal(text)
}

// isJSON says whether data of the media type is JSON; without one it is.
func isJSON(mediaType string) bool {
	return mediaType == "" || mediaType == "application/json" || mediaType == "text/json" || strings.HasSuffix(mediaType, "+json")
}

// fromZITADEL reads ZITADEL's event payload. Keys that it does not know are
// ignored.
func fromZITADEL(body []byte, instance string) (Event, error) {
	var w wire
	if err := json.Unmarshal(body, &w); err != nil {
		return Event{}, &FormatError{"the body is no event: neither ZITADEL's payload nor a CloudEvent", err}
	}
	if w.Type == "" {
		return Event{}, &FormatError{"the event has no event_type", nil}
	}
	if w.InstanceID == "" {
		w.InstanceID = instance
	}
	return Event{
		AggregateID: w.AggregateID, AggregateType: w.AggregateType, ResourceOwner: w.ResourceOwner,
		InstanceID: w.InstanceID, Version: w.Version, Sequence: w.Sequence, Type: w.Type,
		CreatedAt: w.CreatedAt, UserID: w.UserID, Payload: w.Payload,
	}, nil
}

// AsFormatError returns the *[FormatError] in the chain of err, nil without one.
func AsFormatError(err error) *FormatError {
	format, _ := errors.AsType[*FormatError](err)
	return format
}
