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

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/execgate/execgate/schema/transcode"
)

// The text form that single values have in a path or a query.

var errText = errors.New("malformed value")

// parseMessageText reads a message, which must be empty, from its text form.
func parseMessageText(m transcode.Node, s string) error {
	md := m.Descriptor()
	if transcode.IsMissing(md) {
		return errText
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
	case durationName:
		d, err := time.ParseDuration(s)
		if err != nil {
			// Seconds beyond what Go can count have a form too.
			return m.ReadJSON(quoteJSON(s), maxDepthAny)
		}
		setInts(m, int64(d/time.Second), int32(d%time.Second))
		return nil
	case "google.protobuf.FieldMask":
		for _, path := range strings.Split(s, ",") {
			if path != "" {
				m.Append(fields.ByNumber(1), protoreflect.ValueOfString(snakeCase(path)))
			}
		}
		return nil
	case valueName, structName, listName:
		return m.ReadJSON([]byte(s), maxDepthAny)
	case anyName:
		return errText
	}
	if !transcode.HasOwnForm(md) {
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
func setInts(m transcode.Node, seconds int64, nanos int32) {
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
func formatText(fd protoreflect.FieldDescriptor, v transcode.Value) (string, error) {
	if fd.Message() != nil {
		return formatMessageText(v.Message())
	}
	return formatScalar(fd, v.Scalar()), nil
}

func formatMessageText(m transcode.Node) (string, error) {
	md := m.Descriptor()
	fields := md.Fields()
	switch md.FullName() {
	case "google.protobuf.Empty":
		return "", nil
	case "google.protobuf.FieldMask":
		paths := make([]string, 0, m.Len(fields.ByNumber(1)))
		for path := range m.Elements(fields.ByNumber(1)) {
			paths = append(paths, path.Scalar().String())
		}
		return strings.Join(paths, ","), nil
	case anyName:
		return "", errNoText(md)
	}
	if !transcode.HasOwnForm(md) {
		return "", errNoText(md)
	}
	switch md.FullName() {
	case valueName, structName, listName:
	case "google.protobuf.Timestamp", durationName:
	default: // a wrapper
		return formatScalar(fields.ByNumber(1), m.Get(fields.ByNumber(1)).Scalar()), nil
	}
	b, err := m.AppendJSON(nil, transcode.Style{})
	if err != nil {
		return "", errText
	}
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
