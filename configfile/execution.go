package configfile

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/execgate/execgate/conditions"
	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	"github.com/execgate/execgate/internal/strictyaml"
)

type rawExecution struct {
	Kind      string                     `key:"kind"`
	Condition *rawCondition              `key:"condition"`
	Targets   *[]string                  `key:"targets"`
	Includes  *[]*rawCondition           `key:"includes"`
	Policy    *gatewaypb.ExecutionPolicy `key:"policy"`
}

// rawCondition is a condition, decoded by [condition].
type rawCondition struct {
	value conditions.Condition
	ok    bool
}

func (p *parser) execution(node *yaml.Node) {
	raw, name := rawExecution{}, "Execution"
	if c := field(node, "condition"); c != nil && c.Value != "" {
		name = "Execution " + short(c.Value)
	}
	at, d := p.begin(node, name, &raw)
	e := &Execution{Policy: raw.Policy}
	switch {
	case raw.Condition == nil:
		d.Fault(node.Line, "condition", "missing", "write when it fires, like condition: request/package.Service/Method")
	case raw.Condition.ok:
		e.Condition = raw.Condition.value
		at.name = "Execution " + short(e.Condition.ID())
	}
	if raw.Targets != nil {
		e.Targets = *raw.Targets
	}
	if raw.Includes != nil {
		for _, c := range *raw.Includes {
			if c != nil && c.ok {
				e.Includes = append(e.Includes, c.value)
			}
		}
	}
	switch {
	case raw.Targets == nil && raw.Includes == nil:
		d.Fault(node.Line, "", "neither targets nor includes are given", "list the names of targets, or the conditions of executions to include; an empty list (targets: []) does nothing when it fires")
	case len(e.Targets) > 0 && len(e.Includes) > 0:
		d.Fault(at.lineOf("includes"), "includes", "given together with targets", "keep one of them: two lists have no common order")
	}
	p.end(&at, d)
	e.place = at
	p.doc.Executions = append(p.doc.Executions, e)
}

const conditionHint = "write an id like request/package.Service/Method, or keys like {request: {method: /package.Service/Method}}"

// condition decodes an id, or the keys of the admin API's Condition.
func condition(d *strictyaml.Decoder, node *yaml.Node, path string) (conditions.Condition, bool) {
	if node.Kind == yaml.ScalarNode {
		c, err := conditions.Parse(node.Value)
		if err != nil {
			d.Fault(node.Line, path, err.Error(), conditionHint)
		}
		return c, err == nil
	}
	kind, value, ok := one(d, node, path, conditionHint, "request", "response", "function", "event")
	if !ok {
		return conditions.Condition{}, false
	}
	c := conditions.Condition{Kind: conditionKinds[kind]}
	path = strictyaml.Join(path, kind)
	if c.Kind == conditions.Function {
		c.Level = conditions.Name
		if c.Value, ok = d.Scalar(value, path, "the name of a function"); !ok {
			return c, false
		}
		return wellFormed(d, c, value, path)
	}
	levels := callLevels
	if c.Kind == conditions.Event {
		levels = eventLevels
	}
	names := slices.Sorted(maps.Keys(levels))
	level, value, ok := one(d, value, path, "write one of: "+strings.Join(names, ", "), names...)
	if !ok {
		return c, false
	}
	c.Level, path = levels[level], strictyaml.Join(path, level)
	if c.Level == conditions.All {
		if value.Kind == yaml.ScalarNode && value.Tag == "!!bool" && strings.EqualFold(value.Value, "true") {
			return c, true
		}
		d.Fault(value.Line, path, "not true", "write true")
		return c, false
	}
	if c.Value, ok = d.Scalar(value, path, "a name"); !ok {
		return c, false
	}
	if c.Level == conditions.Group {
		c.Value = strings.TrimSuffix(c.Value, ".*")
	}
	return wellFormed(d, c, value, path)
}

var (
	conditionKinds = map[string]conditions.Kind{
		"request": conditions.Request, "response": conditions.Response, "function": conditions.Function, "event": conditions.Event,
	}
	callLevels  = map[string]conditions.Level{"method": conditions.Method, "service": conditions.Service, "all": conditions.All}
	eventLevels = map[string]conditions.Level{"event": conditions.EventType, "group": conditions.Group, "all": conditions.All}
)

// wellFormed wants a condition whose id leads back to it.
func wellFormed(d *strictyaml.Decoder, c conditions.Condition, node *yaml.Node, path string) (conditions.Condition, bool) {
	if parsed, err := conditions.Parse(c.ID()); err != nil || parsed != c {
		hints := map[conditions.Level]string{
			conditions.Method: "write /package.Service/Method", conditions.Service: "write package.Service",
			conditions.EventType: "write it like user.human.added", conditions.Group: "write it like user.human",
		}
		d.Fault(node.Line, path, fmt.Sprintf("%q is not a %s", short(c.Value), c.Level), hints[c.Level])
		return c, false
	}
	return c, true
}

// one reads a mapping of exactly one of the keys.
func one(d *strictyaml.Decoder, node *yaml.Node, path, hint string, keys ...string) (string, *yaml.Node, bool) {
	if node.Kind != yaml.MappingNode || len(node.Content) != 2 {
		d.Fault(node.Line, path, fmt.Sprintf("expected one of the keys %s", strings.Join(keys, ", ")), hint)
		return "", nil, false
	}
	key, value := node.Content[0], node.Content[1]
	if !slices.Contains(keys, key.Value) {
		if near := strictyaml.Closest(key.Value, keys); near != "" {
			hint = fmt.Sprintf("did you mean %s?", near)
		}
		d.Fault(key.Line, strictyaml.Join(path, short(key.Value)), "unknown key", hint)
		return "", nil, false
	}
	return key.Value, value, true
}
