package configfile

import (
	"strings"
	"time"

	"github.com/execgate/execgate/conditions"
	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	"github.com/execgate/execgate/internal/strictyaml"
)

// Fault is one thing that is wrong with a document.
type Fault = strictyaml.Fault

// Faults is the error of [Parse]: every fault, in the order of the lines.
type Faults = strictyaml.Faults

// Format is the number of the format that [Print] writes.
const Format = 1

// Document is what a file says.
type Document struct {
	// Export is present in what Export wrote.
	Export     *Export
	Targets    []*Target
	Executions []*Execution
	// Truncated says that the rest could not be read at all, so that what is missing says nothing.
	Truncated bool
}

// Empty says that the document names nothing, not even that it is an export of nothing.
func (d *Document) Empty() bool {
	return d.Export == nil && len(d.Targets) == 0 && len(d.Executions) == 0
}

// Export says where an exported document came from. It is for the reader: nothing is done with it.
type Export struct {
	Format   int
	Instance string
	Revision uint64
	// Changed is when the configuration was last changed; zero if it never was.
	Changed time.Time
	// SigningKeys says that the document holds the secrets too.
	SigningKeys bool
}

// Type is the type of a target.
type Type string

// The types.
const (
	Webhook         Type = "webhook"
	RequestResponse Type = "request_response"
)

// Target is a target as a document wants it.
type Target struct {
	Name             string
	Type             Type
	URL              string
	Timeout          time.Duration
	Async            bool
	InterruptOnError bool
	// PayloadType is "json", "jwt", "jwe", or empty for the default.
	PayloadType string
	// SigningKey is a secret. Empty: the one that is stored, or a new one.
	SigningKey string
	// PublicKeys are all that the target shall have. Nil: those that are stored.
	PublicKeys []PublicKey
	// Policy is all that is said of the target; nil is nothing.
	Policy *gatewaypb.TargetPolicy

	place
}

// PublicKey is a key that payloads for a target are encrypted with.
type PublicKey struct {
	// ID is chosen by the gateway when it is empty.
	ID      string
	PEM     string
	Active  bool
	Expires time.Time // zero: never
}

// Execution is an execution as a document wants it.
type Execution struct {
	Condition conditions.Condition
	// Targets are names.
	Targets []string
	// Includes are the conditions of other executions.
	Includes []conditions.Condition
	// Policy is all that is said of the execution; nil is nothing.
	Policy *gatewaypb.ExecutionPolicy

	place
}

// place is where an item stands.
type place struct {
	file   string
	line   int
	name   string // "Target notify"
	marks  []mark
	broken bool
}

type mark struct {
	path string
	line int
}

// Line is the line that the item begins on; 0 if it was not read from a file.
func (p *place) Line() int { return p.line }

// Broken says that something in the item could not be read: it is there, but what it says is not to be relied on.
func (p *place) Broken() bool { return p.broken }

// Fault is what is wrong with a field of the item ("webhook.url", "targets[1]"), or with the item as a whole ("").
func (p *place) Fault(path, text, hint string) Fault {
	f := Fault{File: p.file, Line: p.lineOf(path), Path: p.name, Text: text, Hint: hint}
	if path != "" {
		f.Path += ": " + path
	}
	return f
}

// lineOf finds the line of a path, or of the nearest that stands around it.
func (p *place) lineOf(path string) int {
	for path != "" {
		for _, m := range p.marks {
			if m.path == path {
				return m.line
			}
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return p.line
}
