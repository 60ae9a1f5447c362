package conditions_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/execgate/execgate/conditions"
)

const (
	sessionService = "zitadel.session.v2.SessionService"
	listSessions   = "/zitadel.session.v2.SessionService/ListSessions"
)

func TestConditionIDs(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		c    conditions.Condition
		want string
	}{
		{"request all", conditions.Condition{Kind: conditions.Request, Level: conditions.All}, "request"},
		{"request service", conditions.Condition{Kind: conditions.Request, Level: conditions.Service, Value: sessionService}, "request/" + sessionService},
		{"request method", conditions.Condition{Kind: conditions.Request, Level: conditions.Method, Value: listSessions}, "request" + listSessions},
		{"response all", conditions.Condition{Kind: conditions.Response, Level: conditions.All}, "response"},
		{"response service", conditions.Condition{Kind: conditions.Response, Level: conditions.Service, Value: sessionService}, "response/" + sessionService},
		{"response method", conditions.Condition{Kind: conditions.Response, Level: conditions.Method, Value: listSessions}, "response" + listSessions},
		{"event type", conditions.Condition{Kind: conditions.Event, Level: conditions.EventType, Value: "user.human.added"}, "event/user.human.added"},
		{"event group", conditions.Condition{Kind: conditions.Event, Level: conditions.Group, Value: "user.human"}, "event/user.human.*"},
		{"event all", conditions.Condition{Kind: conditions.Event, Level: conditions.All}, "event"},
		{"function", conditions.Condition{Kind: conditions.Function, Level: conditions.Name, Value: "preuserinfo"}, "function/preuserinfo"},
		{"function of a legacy name", conditions.Condition{Kind: conditions.Function, Level: conditions.Name, Value: "Action.Flow.Type.CustomiseToken"}, "function/Action.Flow.Type.CustomiseToken"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := test.c.ID(); got != test.want {
				t.Errorf("ID() = %q, want %q", got, test.want)
			}
			if got := test.c.String(); got != test.want {
				t.Errorf("String() = %q, want %q", got, test.want)
			}
			got, err := conditions.Parse(test.want)
			if err != nil || got != test.c {
				t.Errorf("Parse(%q) = %#v, %v; want %#v", test.want, got, err, test.c)
			}
		})
	}
}

func TestConditionIDTakesTheSpellingsOfTheAPI(t *testing.T) {
	t.Parallel()
	group := conditions.Condition{Kind: conditions.Event, Level: conditions.Group, Value: "user.human.*"}
	if got, want := group.ID(), "event/user.human.*"; got != want {
		t.Errorf("group with its suffix: ID() = %q, want %q", got, want)
	}
	method := conditions.Condition{Kind: conditions.Request, Level: conditions.Method, Value: "pkg.Svc/M"}
	if got, want := method.ID(), "request/pkg.Svc/M"; got != want {
		t.Errorf("method without its slash: ID() = %q, want %q", got, want)
	}
}

func TestParseNormalises(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		"request." + sessionService:           "request/" + sessionService,
		"request." + listSessions:             "request" + listSessions,
		"request." + listSessions[1:]:         "request" + listSessions,
		"response.pkg.Svc":                    "response/pkg.Svc",
		"response./pkg.Svc":                   "response/pkg.Svc",
		"event.user.human.added":              "event/user.human.added",
		"event.user.human.*":                  "event/user.human.*",
		"function.preuserinfo":                "function/preuserinfo",
		"function.Action.Flow.Type.X":         "function/Action.Flow.Type.X",
		"request%2Fpkg.Svc%2FM":               "request/pkg.Svc/M",
		"request%2fpkg.Svc":                   "request/pkg.Svc",
		"request.%2Fpkg.Svc%2FM":              "request/pkg.Svc/M",
		"event%2Fuser.*":                      "event/user.*",
		"function/a/b":                        "function/a/b",
		"request/Svc":                         "request/Svc",
		"event/user":                          "event/user",
		"event/" + strings.Repeat("x", 1<<10): "event/" + strings.Repeat("x", 1<<10),
	}
	for id, want := range tests {
		t.Run(id, func(t *testing.T) {
			t.Parallel()
			c, err := conditions.Parse(id)
			if err != nil {
				t.Fatalf("Parse(%q): %v", id, err)
			}
			if got := c.ID(); got != want {
				t.Errorf("Parse(%q).ID() = %q, want %q", id, got, want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for _, id := range []string{
		"", " ", "/", ".", "requests", "Request", "REQUEST/pkg.Svc", "request ", " request", "target/x",
		"request/", "request.", "request./", "request//pkg.Svc/M", "request//", "request/pkg.Svc/", "request/pkg.Svc//M",
		"request/pkg.Svc/M/", "request/pkg.Svc/M/N", "request.//pkg.Svc/M",
		"response/", "response/a/b/c",
		"function", "function/", "function.", "function//x",
		"event/", "event/.*", "event/a/b", "event/a/.*", "event/a.*.*", "event//a", "event.",
		"123456789012345678", "request/\xff",
	} {
		t.Run(id, func(t *testing.T) {
			t.Parallel()
			if c, err := conditions.Parse(id); err == nil {
				t.Errorf("Parse(%q) = %#v, want an error", id, c)
			} else if c != (conditions.Condition{}) {
				t.Errorf("Parse(%q) = %#v beside the error, want nothing", id, c)
			}
		})
	}
}

func TestCandidates(t *testing.T) {
	t.Parallel()
	tests := []struct {
		kind conditions.Kind
		name string
		want []string
	}{
		{conditions.Request, "/pkg.Svc/M", []string{"request/pkg.Svc/M", "request/pkg.Svc", "request"}},
		{conditions.Response, "/pkg.Svc/M", []string{"response/pkg.Svc/M", "response/pkg.Svc", "response"}},
		{conditions.Request, "nonsense", []string{"request"}},
		{conditions.Function, "f", []string{"function/f"}},
		{conditions.Event, "a.b.c", []string{"event/a.b.c", "event/a.b.c.*", "event/a.b.*", "event/a.*", "event"}},
		{conditions.Event, "a", []string{"event/a", "event/a.*", "event"}},
		{0, "a", nil},
	}
	for _, test := range tests {
		t.Run(test.kind.String()+" "+test.name, func(t *testing.T) {
			t.Parallel()
			if got := conditions.Candidates(test.kind, test.name); !slices.Equal(got, test.want) {
				t.Errorf("Candidates = %q, want %q", got, test.want)
			}
		})
	}
}

func TestWords(t *testing.T) {
	t.Parallel()
	kinds := []string{"kind(0)", "request", "response", "function", "event", "kind(5)"}
	for k, want := range kinds {
		if got := conditions.Kind(k).String(); got != want {
			t.Errorf("Kind(%d).String() = %q, want %q", k, got, want)
		}
	}
	levels := []string{"level(0)", "all", "service", "method", "name", "event", "group", "level(7)"}
	for l, want := range levels {
		if got := conditions.Level(l).String(); got != want {
			t.Errorf("Level(%d).String() = %q, want %q", l, got, want)
		}
	}
}

// FuzzParse: an id is either refused, or its normal form is a fixed point.
func FuzzParse(f *testing.F) {
	for _, id := range []string{
		"request", "request/a.B", "request/a.B/C", "response.a.B", "response./a.B/C", "event", "event/a.b", "event/a.*", "event/a.*.*",
		"function/f", "function/a/b", "function//a", "request%2Fa%2Fb", "event/a%2Fb", "event%2Fa%252Fb", "request.%2f/a",
	} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		c, err := conditions.Parse(id)
		if err != nil {
			return
		}
		normal := c.ID()
		again, err := conditions.Parse(normal)
		if err != nil {
			t.Fatalf("Parse(%q) gives %q, which is refused: %v", id, normal, err)
		}
		if again != c {
			t.Fatalf("Parse(%q) = %#v, but Parse(%q) = %#v", id, c, normal, again)
		}
		if again.ID() != normal {
			t.Fatalf("%q is not a fixed point: %q", normal, again.ID())
		}
	})
}
