package schema

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// The text form that single values have in a path or a query.

var errText = errors.New("malformed value")

// parseText reads a value of fd (of one element, if fd is a list) into m, the
// message that holds the field.
func (t *types) parseText(m protoreflect.Message, fd protoreflect.FieldDescriptor, s string) (protoreflect.Value, error) {
	md := fd.Message()
	if md == nil {
		return parseScalar(fd, s)
	}
	v := t.newValue(m, fd)
	return v, t.parseMessageText(v.Message(), s)
}

func (t *types) newValue(m protoreflect.Message, fd protoreflect.FieldDescriptor) protoreflect.Value {
	if fd.IsList() {
		return m.NewField(fd).List().NewElement()
	}
	return m.NewField(fd)
}

func (t *types) parseMessageText(m protoreflect.Message, s string) error {
	md := m.Descriptor()
	if isMissing(md) {
		return errIncomplete
	}
	fields := md.Fields()
	switch md.FullName() {
	case "google.protobuf.Empty":
		if s != "" && s != "{}" {
			return errText
		}
		return nil
	case "google.protobuf.Timestamp":
		at, err := time.Parse(time.RFC3339Nano, s)
		if err != nil || at.Year() < 1 || at.UTC().Year() > 9999 {
			return errText
		}
		setInts(m, at.Unix(), int32(at.Nanosecond()))
		return nil
	case "google.protobuf.Duration":
		d, err := time.ParseDuration(s)
		if err != nil {
			// Seconds beyond what Go can count have a form too.
			o := protojson.UnmarshalOptions{AllowPartial: true, Resolver: t}
			return o.Unmarshal(quoteJSON(s), m.Interface())
		}
		setInts(m, int64(d/time.Second), int32(d%time.Second))
		return nil
	case "google.protobuf.FieldMask":
		list := m.Mutable(fields.ByNumber(1)).List()
		for _, path := range strings.Split(s, ",") {
			if path == "" {
				continue
			}
			list.Append(protoreflect.ValueOfString(snakeCase(path)))
		}
		return nil
	case valueName, structName, listName:
		o := protojson.UnmarshalOptions{AllowPartial: true, Resolver: t, RecursionLimit: maxDepthAny}
		return o.Unmarshal([]byte(s), m.Interface())
	case anyName:
		return errText
	}
	if !hasOwnForm(md) {
		return errText
	}
	fd := fields.ByNumber(1)
	v, err := parseScalar(fd, s)
	if err == nil {
		m.Set(fd, v)
	}
	return err
}

// setInts sets the seconds and nanos of a Timestamp or Duration.
func setInts(m protoreflect.Message, seconds int64, nanos int32) {
	fields := m.Descriptor().Fields()
	m.Set(fields.ByNumber(1), protoreflect.ValueOfInt64(seconds))
	m.Set(fields.ByNumber(2), protoreflect.ValueOfInt32(nanos))
}

// snakeCase turns a lowerCamel path of a FieldMask into the names of the schema.
func snakeCase(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c >= 'A' && c <= 'Z' {
			b.WriteByte('_')
			c += 'a' - 'A'
		}
		b.WriteByte(c)
	}
	return b.String()
}

// parseScalar reads a scalar or an enum.
func parseScalar(fd protoreflect.FieldDescriptor, s string) (protoreflect.Value, error) {
	switch fd.Kind() {
	case protoreflect.BoolKind:
		v, err := strconv.ParseBool(s)
		return protoreflect.ValueOfBool(v), plain(err)
	case protoreflect.EnumKind:
		values := fd.Enum().Values()
		if v := values.ByName(protoreflect.Name(s)); v != nil {
			return protoreflect.ValueOfEnum(v.Number()), nil
		}
		n, err := strconv.ParseInt(s, 10, 32)
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(n)), plain(err)
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		v, err := strconv.ParseInt(s, 10, 32)
		return protoreflect.ValueOfInt32(int32(v)), plain(err)
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		v, err := strconv.ParseInt(s, 10, 64)
		return protoreflect.ValueOfInt64(v), plain(err)
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		v, err := strconv.ParseUint(s, 10, 32)
		return protoreflect.ValueOfUint32(uint32(v)), plain(err)
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		v, err := strconv.ParseUint(s, 10, 64)
		return protoreflect.ValueOfUint64(v), plain(err)
	case protoreflect.FloatKind:
		v, err := strconv.ParseFloat(s, 32)
		return protoreflect.ValueOfFloat32(float32(v)), plain(err)
	case protoreflect.DoubleKind:
		v, err := strconv.ParseFloat(s, 64)
		return protoreflect.ValueOfFloat64(v), plain(err)
	case protoreflect.StringKind:
		if !utf8.ValidString(s) {
			return protoreflect.Value{}, errText
		}
		return protoreflect.ValueOfString(s), nil
	case protoreflect.BytesKind:
		v, err := parseBase64(s)
		return protoreflect.ValueOfBytes(v), err
	default:
		return protoreflect.Value{}, errText
	}
}

// plain replaces an error of strconv, which quotes the value.
func plain(err error) error {
	if err != nil {
		return errText
	}
	return nil
}

// parseBase64 reads base64 in either alphabet, padded or not.
func parseBase64(s string) ([]byte, error) {
	enc := base64.StdEncoding
	if strings.ContainsAny(s, "-_") {
		enc = base64.URLEncoding
	}
	if len(s)%4 != 0 {
		enc = enc.WithPadding(base64.NoPadding)
	}
	b, err := enc.DecodeString(s)
	return b, plain(err)
}

// formatText writes a value of fd (one element, if fd is a list).
func (t *types) formatText(fd protoreflect.FieldDescriptor, v protoreflect.Value) (string, error) {
	if fd.Message() != nil {
		return t.formatMessageText(v.Message())
	}
	return formatScalar(fd, v), nil
}

func (t *types) formatMessageText(m protoreflect.Message) (string, error) {
	md := m.Descriptor()
	fields := md.Fields()
	switch md.FullName() {
	case "google.protobuf.Empty":
		return "", nil
	case "google.protobuf.FieldMask":
		list := m.Get(fields.ByNumber(1)).List()
		paths := make([]string, list.Len())
		for i := range paths {
			paths[i] = list.Get(i).String()
		}
		return strings.Join(paths, ","), nil
	case anyName:
		return "", errNoText(md)
	}
	if !hasOwnForm(md) {
		return "", errNoText(md)
	}
	if len(wellKnownFields[md.FullName()]) == 1 && fields.ByNumber(1).Message() == nil { // a wrapper
		return formatScalar(fields.ByNumber(1), m.Get(fields.ByNumber(1))), nil
	}
	b, err := protojson.MarshalOptions{AllowPartial: true, Resolver: t}.Marshal(m.Interface())
	if err != nil {
		return "", errText // the error quotes the value
	}
	b = compact(b)
	switch md.FullName() {
	case valueName, structName, listName:
		return string(b), nil
	}
	return strings.Trim(string(b), `"`), nil
}

func errNoText(md protoreflect.MessageDescriptor) error {
	return fmt.Errorf("%s has no text form", md.FullName())
}

func formatScalar(fd protoreflect.FieldDescriptor, v protoreflect.Value) string {
	switch fd.Kind() {
	case protoreflect.EnumKind:
		if name := fd.Enum().Values().ByNumber(v.Enum()); name != nil {
			return string(name.Name())
		}
		return strconv.Itoa(int(v.Enum()))
	case protoreflect.FloatKind:
		return formatFloat(v.Float(), 32)
	case protoreflect.DoubleKind:
		return formatFloat(v.Float(), 64)
	case protoreflect.BytesKind:
		return base64.URLEncoding.EncodeToString(v.Bytes())
	default:
		return v.String()
	}
}

func formatFloat(f float64, bits int) string {
	switch {
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	}
	return strconv.FormatFloat(f, 'g', -1, bits)
}
