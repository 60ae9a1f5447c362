package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Events are those that nobody sends.
type Events struct {
	// Poll reads them from an upstream that has ZITADEL's event API.
	Poll EventPoll `key:"poll"`
	// Derive makes events of successful calls.
	Derive []DeriveRule `key:"derive"`
}

// EventPoll reads events from the upstream.
type EventPoll struct {
	Enabled bool `key:"enabled"`
	// TokenFile holds the bearer token; it is read again for every call.
	TokenFile string        `key:"token_file"`
	Interval  time.Duration `key:"interval"`
	// Overlap is how far each look reads back.
	Overlap time.Duration `key:"overlap"`
}

// PollPath returns the file that keeps how far events were polled.
func (c *Config) PollPath() string { return beside("", c.Store.Embedded.Path, "", "-events") }

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
	poll := c.config.Events.Poll
	c.positiveTime("events.poll.interval", poll.Interval)
	c.positiveTime("events.poll.overlap", poll.Overlap)
	if poll.Enabled {
		c.readable("events.poll.token_file", poll.TokenFile)
	}
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
