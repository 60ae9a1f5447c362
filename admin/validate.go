package admin

import (
	"fmt"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/execgate/execgate/conditions"
)

// What the fields of both APIs have in common. A violation has a text of ours and no id.
const (
	maxIDRunes       = 200
	maxNameRunes     = 1000
	maxFilterRunes   = 200
	maxValueRunes    = 1000
	maxURLRunes      = 1000
	maxEndpointRunes = 2048
	maxTimeout       = 270 * time.Second
	maxPublicKey     = 8192
)

// checkRunes wants between 1 and limit characters.
func checkRunes(field, value string, limit int) error {
	if n := utf8.RuneCountInString(value); n < 1 || n > limit {
		return invalid("%s: value length must be between 1 and %d characters", field, limit)
	}
	return nil
}

// checkTimeout leaves a missing and a zero timeout to the command, which has an id for it.
func checkTimeout(d *durationpb.Duration) error {
	if d == nil {
		return nil
	}
	if err := d.CheckValid(); err != nil {
		return invalid("timeout: not a valid duration")
	}
	if t := d.AsDuration(); t < 0 || t > maxTimeout {
		return invalid("timeout: value must be greater than 0s and less than or equal to %s", maxTimeout)
	}
	return nil
}

// enum is a generated enum.
type enum interface {
	Descriptor() protoreflect.EnumDescriptor
	Number() protoreflect.EnumNumber
}

// checkEnum wants a value that is defined.
func checkEnum(field string, value enum) error {
	if value.Descriptor().Values().ByNumber(value.Number()) == nil {
		return invalid("%s: value must be one of the defined enum values", field)
	}
	return nil
}

// checkConditionFields checks what is there, not what is missing.
func checkConditionFields(field string, c condition) error {
	switch c.Level {
	case 0:
		return nil
	case conditions.All:
		if !c.all {
			return invalid("%s.all: value must be true", field)
		}
		return nil
	case conditions.Name:
		return nil // the APIs differ
	}
	return checkRunes(fmt.Sprintf("%s.%s", field, c.field), c.Value, maxValueRunes)
}

// checkWholeCondition checks what is there and that nothing is missing.
func checkWholeCondition(field string, c condition) error {
	switch {
	case c.Kind == 0:
		return invalid("%s.condition_type: value is required", field)
	case c.Level == 0:
		return invalid("%s.%s.condition: value is required", field, c.Kind)
	case c.Level == conditions.Name:
		return checkRunes(field+".function", c.Value, maxValueRunes)
	}
	return checkConditionFields(field, c)
}

// checkConditionList checks the conditions of a filter.
func checkConditionList(field string, conds []condition) error {
	if len(conds) == 0 {
		return invalid("%s: value must contain at least 1 item", field)
	}
	for i, c := range conds {
		if err := checkWholeCondition(fmt.Sprintf("%s[%d]", field, i), c); err != nil {
			return err
		}
	}
	return nil
}

// checkList wants at least one item.
func checkList(field string, n int) error {
	if n == 0 {
		return invalid("%s: value must contain at least 1 item", field)
	}
	return nil
}

// checkNameFilter checks the value and the method of a filter on names.
func checkNameFilter(field, value string, method enum) error {
	if utf8.RuneCountInString(value) > maxFilterRunes {
		return invalid("%s.name: value length must be at most %d characters", field, maxFilterRunes)
	}
	return checkEnum(field+".method", method)
}
