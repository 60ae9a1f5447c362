package events

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/execgate/execgate/conditions"
	"github.com/execgate/execgate/dispatcher"
	"github.com/execgate/execgate/queue"
)

// Rule makes an event of every successful call of a method, for upstreams that
// tell of none.
//
// A value that begins with "request." or "response." is the path of a field in
// that message, with names as in JSON or in the proto file, and numbers for the
// elements of lists.
type Rule struct {
	// Method is a full method ("/pkg.Svc/M") that does not stream.
	Method string
	// EventType is taken as it is.
	EventType string
	// AggregateType and AggregateID are paths, or taken as they are.
	AggregateType, AggregateID string
	// Payload holds paths by the name that the value gets in event_payload. What a
	// path does not find is left out.
	Payload map[string]string
}

// Deriver derives events from calls, in front of a dispatcher. It is safe for
// concurrent use.
type Deriver struct {
	next     Dispatcher
	rules    map[string][]Rule
	sink     *Sink
	instance string
	logger   *slog.Logger
}

// Dispatcher runs plans. [*dispatcher.Dispatcher] is one.
type Dispatcher interface {
	Dispatch(ctx context.Context, inv *dispatcher.Invocation) (dispatcher.Outcome, error)
}

// NewDeriver returns a dispatcher that derives events by the rules and leaves
// everything else to next. The snapshot must observe the methods of the rules:
// see [dispatcher.SnapshotOptions].
func NewDeriver(next Dispatcher, rules []Rule, sink *Sink, instance string, logger *slog.Logger) *Deriver {
	d := &Deriver{next: next, rules: map[string][]Rule{}, sink: sink, instance: instance, logger: logger}
	for _, r := range rules {
		d.rules[r.Method] = append(d.rules[r.Method], r)
	}
	return d
}

// Dispatch derives the events of a call that the upstream has answered, as it was
// answered, and queues them. Only then it runs the plan, if that has targets. An
// event that cannot be queued is counted and logged; the call goes on, since it
// has happened.
func (d *Deriver) Dispatch(ctx context.Context, inv *dispatcher.Invocation) (dispatcher.Outcome, error) {
	if inv.Plan.Phase == conditions.Response {
		for _, rule := range d.rules[inv.FullMethod] {
			e, err := derive(rule, inv, d.instance)
			if err == nil {
				err = d.sink.Accept(ctx, "derive", e)
			}
			if err != nil {
				d.logger.Error("event of a call is lost", "method", inv.FullMethod, "event_type", rule.EventType, "reason", lossOf(err))
			}
		}
	}
	if len(inv.Plan.Targets) == 0 {
		return dispatcher.Outcome{}, nil
	}
	return d.next.Dispatch(ctx, inv)
}

// lossOf names the reason for which an event is lost.
func lossOf(err error) string {
	switch {
	case errors.Is(err, errNoMessages), AsFormatError(err) != nil:
		return "unreadable"
	case errors.Is(err, ErrNotLoaded):
		return "not_loaded"
	default:
		return queue.DropReason(err)
	}
}

var errNoMessages = errors.New("the messages have no JSON form")

func derive(rule Rule, inv *dispatcher.Invocation, instance string) (*Event, error) {
	messages := map[string]any{}
	for name, message := range map[string]dispatcher.Message{"request": inv.Request, "response": inv.Response} {
		if message == nil {
			continue
		}
		text, err := message.JSON()
		if err != nil {
			return nil, errNoMessages
		}
		decoder := json.NewDecoder(bytes.NewReader(text))
		decoder.UseNumber()
		var value any
		if decoder.Decode(&value) != nil {
			return nil, errNoMessages
		}
		messages[name] = value
	}
	payload := map[string]any{}
	for name, path := range rule.Payload {
		if value, ok := lookUp(messages, path); ok {
			payload[name] = value
		}
	}
	e := &Event{
		Type: rule.EventType, InstanceID: instance,
		AggregateType: text(messages, rule.AggregateType), AggregateID: text(messages, rule.AggregateID),
		ResourceOwner: inv.OrgID, UserID: inv.UserID, CreatedAt: time.Now().UTC().Format(time.RFC3339Nano),
	}
	if len(payload) > 0 {
		e.Payload, _ = json.Marshal(payload) // came from JSON
	}
	return e, nil
}

// IsPath says whether the value of a rule is the path of a field.
func IsPath(value string) bool {
	return strings.HasPrefix(value, "request.") || strings.HasPrefix(value, "response.")
}

// text returns what the value of a rule stands for.
func text(messages map[string]any, value string) string {
	if !IsPath(value) {
		return value
	}
	switch v, _ := lookUp(messages, value); v := v.(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	case bool:
		return strconv.FormatBool(v)
	default:
		return ""
	}
}

// lookUp follows a path.
func lookUp(messages map[string]any, path string) (any, bool) {
	var at any = messages
	for segment := range strings.SplitSeq(path, ".") {
		var ok bool
		switch parent := at.(type) {
		case map[string]any:
			if at, ok = parent[segment]; !ok {
				at, ok = parent[camel(segment)]
			}
		case []any:
			if i, err := strconv.Atoi(segment); err == nil && i >= 0 && i < len(parent) {
				at, ok = parent[i], true
			}
		}
		if !ok {
			return nil, false
		}
	}
	return at, true
}

// camel turns a name of the proto file into that of its JSON.
func camel(name string) string {
	var b strings.Builder
	upper := false
	for i := range len(name) {
		c := name[i]
		switch {
		case c == '_':
			upper = true
			continue
		case upper && c >= 'a' && c <= 'z':
			c -= 'a' - 'A'
		}
		upper = false
		b.WriteByte(c)
	}
	return b.String()
}
