package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Events are those that nobody sends.
type Events struct {
	// Derive makes events of successful calls.
	Derive []DeriveRule `key:"derive"`
}

// DeriveRule makes an event of every successful call of Method. Values that begin
// with "request." or "response." are paths of fields.
type DeriveRule struct {
	Method        string            `key:"method"`
	EventType     string            `key:"event_type"`
	AggregateType string            `key:"aggregate_type"`
	AggregateID   string            `key:"aggregate_id"`
	Payload       map[string]string `key:"payload"`
}

func (c *checker) events() {
	for i, r := range c.config.Events.Derive {
		at := fmt.Sprintf("events.derive[%d]", i)
		c.method(at+".method", r.Method)
		if c.notEmpty(at+".event_type", r.EventType, "name the event, like user.human.added") && strings.ContainsAny(r.EventType, "* /") {
			c.fault(at+".event_type", fmt.Sprintf("%q is not the type of an event", r.EventType), "write a name like user.human.added")
		}
		for _, name := range slices.Sorted(maps.Keys(r.Payload)) {
			if path := r.Payload[name]; !strings.HasPrefix(path, "request.") && !strings.HasPrefix(path, "response.") {
				c.fault(fmt.Sprintf("%s.payload[%s]", at, name), fmt.Sprintf("%q is not the path of a field", path), "begin with request. or response.")
			}
		}
	}
}
