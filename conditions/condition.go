package conditions

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Kind is the sort of trigger that a condition waits for.
type Kind uint8

// The kinds of condition. The zero value is no kind.
const (
	// Request is the request phase of a proxied call.
	Request Kind = iota + 1
	// Response is the response phase of a proxied call.
	Response
	// Function is a named function that the identity provider asks for.
	Function
	// Event is something that has happened.
	Event
)

// kindWords are the type words that begin an id.
var kindWords = [...]string{Request: "request", Response: "response", Function: "function", Event: "event"}

// String returns the type word that begins an id: "request", "response",
// "function" or "event".
func (k Kind) String() string {
	if k == 0 || int(k) >= len(kindWords) {
		return fmt.Sprintf("kind(%d)", uint8(k))
	}
	return kindWords[k]
}

// parseKind is the reverse of String for the four kinds.
func parseKind(word string) (Kind, bool) {
	for k := Request; int(k) < len(kindWords); k++ {
		if kindWords[k] == word {
			return k, true
		}
	}
	return 0, false
}

// Level is how much a condition covers.
type Level uint8

// The levels of condition. The zero value is no level.
const (
	// All covers every call or every event.
	All Level = iota + 1
	// Service covers every method of one service.
	Service
	// Method covers one method.
	Method
	// Name covers one function.
	Name
	// EventType covers one event type.
	EventType
	// Group covers the event type of the group's own name and all below it.
	Group
)

var levelWords = [...]string{
	All: "all", Service: "service", Method: "method", Name: "name", EventType: "event", Group: "group",
}

// String returns "all", "service", "method", "name", "event" or "group".
func (l Level) String() string {
	if l == 0 || int(l) >= len(levelWords) {
		return fmt.Sprintf("level(%d)", uint8(l))
	}
	return levelWords[l]
}

// groupSuffix marks an event group in an id.
const groupSuffix = ".*"

// Condition says when an execution runs. Conditions are compared with ==;
// equal ids are equal conditions when both came from [Parse].
type Condition struct {
	Kind  Kind
	Level Level
	// Value is empty for All, otherwise "pkg.Svc" (Service), "/pkg.Svc/M"
	// (Method), the function's name, the event type, or the event group without
	// its ".*".
	Value string
}

// ID returns the id under which the execution of this condition is stored,
// such as "request", "request/pkg.Svc", "request/pkg.Svc/M",
// "function/preuserinfo" or "event/user.human.*". A method without its leading
// slash and a group with its ".*" give the same id as the usual spelling.
func (c Condition) ID() string {
	if c.Level == All {
		return c.Kind.String()
	}
	id := c.Kind.String() + "/" + strings.TrimPrefix(c.Value, "/")
	if c.Level == Group && !strings.HasSuffix(id, groupSuffix) {
		id += groupSuffix
	}
	return id
}

// String returns the id.
func (c Condition) String() string { return c.ID() }

// escapedSlash undoes the percent-encoding of slashes.
var escapedSlash = strings.NewReplacer("%2F", "/", "%2f", "/")

// Parse returns the condition that has the given id. Besides the form that
// [Condition.ID] writes it accepts the older dot after the type word
// ("request.pkg.Svc", "request./pkg.Svc/M") and, in an id without any slash,
// percent-encoded slashes. Everything else is refused.
//
// The id is the identity: for every id that Parse accepts, the id of the
// result parses to the same result again.
func Parse(id string) (Condition, error) {
	c, fault := parse(id)
	if fault != "" {
		return Condition{}, fmt.Errorf("condition id %q: %s", id, fault)
	}
	return c, nil
}

func parse(id string) (c Condition, fault string) {
	if !utf8.ValidString(id) {
		return c, "not valid UTF-8"
	}
	if !strings.Contains(id, "/") {
		id = escapedSlash.Replace(id)
	}
	word, value, separated := id, "", false
	if i := strings.IndexAny(id, "/."); i >= 0 {
		word, value, separated = id[:i], id[i+1:], true
		if id[i] == '.' {
			value = strings.TrimPrefix(value, "/")
		}
	}
	kind, known := parseKind(word)
	switch {
	case !known:
		return c, "does not begin with request, response, function or event"
	case !separated && kind == Function:
		return c, "names no function"
	case !separated:
		return Condition{Kind: kind, Level: All}, ""
	case value == "":
		return c, "nothing follows the separator"
	case value[0] == '/':
		return c, "a slash too many after the type word"
	}
	switch kind {
	case Function:
		return Condition{Kind: kind, Level: Name, Value: value}, ""
	case Event:
		return parseEvent(value)
	default:
		return parseCall(kind, value)
	}
}

// parseCall reads what follows "request/" and "response/".
func parseCall(kind Kind, value string) (c Condition, fault string) {
	_, method, isMethod := strings.Cut(value, "/")
	switch {
	case !isMethod:
		return Condition{Kind: kind, Level: Service, Value: value}, ""
	case method == "":
		return c, "no method after the service"
	case strings.Contains(method, "/"):
		return c, "more than service and method"
	}
	return Condition{Kind: kind, Level: Method, Value: "/" + value}, ""
}

// parseEvent reads what follows "event/".
func parseEvent(value string) (c Condition, fault string) {
	group, isGroup := strings.CutSuffix(value, groupSuffix)
	switch {
	case strings.Contains(value, "/"):
		return c, "a slash in the event type"
	case !isGroup:
		return Condition{Kind: Event, Level: EventType, Value: value}, ""
	case group == "" || strings.HasSuffix(group, groupSuffix):
		return c, "not the name of a group"
	}
	return Condition{Kind: Event, Level: Group, Value: group}, ""
}

// Candidates returns the ids of the executions that the trigger could run,
// most specific first; the first of them that is stored and has targets is the
// one that runs. The name is the full method ("/pkg.Svc/M") for Request and
// Response, otherwise the function or the event type. It is meant for
// explaining; [Index] answers without building this list.
func Candidates(kind Kind, name string) []string {
	switch kind {
	case Request, Response:
		ids := make([]string, 0, 3)
		if service, ok := serviceOf(name); ok {
			ids = append(ids, Condition{kind, Method, name}.ID(), Condition{kind, Service, service}.ID())
		}
		return append(ids, kind.String())
	case Function:
		return []string{Condition{kind, Name, name}.ID()}
	case Event:
		ids := []string{Condition{kind, EventType, name}.ID()}
		for group := name; group != ""; group = parentGroup(group) {
			ids = append(ids, Condition{kind, Group, group}.ID())
		}
		return append(ids, kind.String())
	default:
		return nil
	}
}

// serviceOf returns "pkg.Svc" of "/pkg.Svc/M". Like gRPC servers it takes
// everything up to the last slash for the service.
func serviceOf(fullMethod string) (service string, ok bool) {
	i := strings.LastIndexByte(fullMethod, '/')
	if i < 2 || fullMethod[0] != '/' {
		return "", false
	}
	return fullMethod[1:i], true
}

// parentGroup cuts the last segment of a dotted name; empty when there is none
// above.
func parentGroup(name string) string {
	return name[:max(strings.LastIndexByte(name, '.'), 0)]
}
