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
	// JobTimeout bounds the calls of the targets of one event together; a
	// repetition has it anew.
	JobTimeout time.Duration `key:"job_timeout"`
	// JobTTL is when the delivery of an event is given up at the latest; 0: only
	// queue.retry.max_age and the target's policy say.
	JobTTL time.Duration `key:"job_ttl"`
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
	// MaxAge is how old an event may be to be told; 0: as old as it likes.
	MaxAge time.Duration `key:"max_age"`
}

// PollPath returns the file that keeps how far events were polled.
func (c *Config) PollPath() string { return beside("", c.Store.Embedded.Path, "", "-events") }

// PollCopyPath returns the file that keeps a copy of it when the store is Redis.
func (c *Config) PollCopyPath() string { return beside("", c.Store.Redis.CopyPath, "", "-events") }

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
	c.notNegativeTime("events.poll.max_age", poll.MaxAge)
	c.positiveTime("events.job_timeout", c.config.Events.JobTimeout)
	c.notNegativeTime("events.job_ttl", c.config.Events.JobTTL)
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
