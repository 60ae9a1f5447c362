package admin

import (
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/execgate/execgate/conditions"
)

// condition is a condition as a caller wrote it. Both APIs have a message for it, of the same shape except for the
// function, which is why it is read and written by field names.
type condition struct {
	conditions.Condition
	// field is the name of the field that was set within the kind, such as "method"; empty if none was.
	field protoreflect.Name
	// all is the value of the field of that name.
	all bool
}

var conditionKinds = map[protoreflect.Name]conditions.Kind{
	"request":  conditions.Request,
	"response": conditions.Response,
	"function": conditions.Function,
	"event":    conditions.Event,
}

var conditionLevels = map[protoreflect.Name]conditions.Level{
	"all":     conditions.All,
	"service": conditions.Service,
	"method":  conditions.Method,
	"event":   conditions.EventType,
	"group":   conditions.Group,
	"name":    conditions.Name,
}

// readCondition reads the Condition message of either API. The kind is 0 if the message is absent or names none, the
// level is 0 if the kind was given without one.
func readCondition(m protoreflect.Message) condition {
	var c condition
	if !m.IsValid() {
		return c
	}
	kind := m.WhichOneof(m.Descriptor().Oneofs().ByName("condition_type"))
	if kind == nil {
		return c
	}
	c.Kind = conditionKinds[kind.Name()]
	if kind.Kind() == protoreflect.StringKind {
		c.Level, c.field, c.Value = conditions.Name, "name", m.Get(kind).String()
		return c
	}
	inner := m.Get(kind).Message()
	var level protoreflect.FieldDescriptor
	if oneof := inner.Descriptor().Oneofs().ByName("condition"); oneof != nil {
		level = inner.WhichOneof(oneof)
	} else {
		level = inner.Descriptor().Fields().ByName("name")
	}
	if level == nil {
		return c
	}
	c.field, c.Level = level.Name(), conditionLevels[level.Name()]
	if level.Kind() == protoreflect.BoolKind {
		c.all = inner.Get(level).Bool()
	} else {
		c.Value = inner.Get(level).String()
	}
	return c
}

// writeCondition fills the empty Condition message of either API.
func writeCondition(m protoreflect.Message, c conditions.Condition) {
	for name, kind := range conditionKinds {
		if kind != c.Kind {
			continue
		}
		field := m.Descriptor().Fields().ByName(name)
		if field.Kind() == protoreflect.StringKind {
			m.Set(field, protoreflect.ValueOfString(c.Value))
			return
		}
		inner := m.Mutable(field).Message()
		for name, level := range conditionLevels {
			if level != c.Level {
				continue
			}
			if field := inner.Descriptor().Fields().ByName(name); field.Kind() == protoreflect.BoolKind {
				inner.Set(field, protoreflect.ValueOfBool(true))
			} else {
				inner.Set(field, protoreflect.ValueOfString(c.Value))
			}
		}
	}
}

// stored returns the condition in the one form that is stored, and whether it is well formed: whether its id leads back
// to it.
func (c condition) stored() (conditions.Condition, bool) {
	cond := withoutAlias(c.Condition)
	if cond.Level == conditions.Group {
		cond.Value = strings.TrimSuffix(cond.Value, ".*")
	}
	parsed, err := conditions.Parse(cond.ID())
	if err != nil {
		return cond, false
	}
	if cond.Level == conditions.EventType && parsed.Level == conditions.Group {
		return parsed, true // "user.*" as an event is the group by another name
	}
	return cond, parsed == cond
}
