package schema

import (
	"fmt"
	"net/url"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/execgate/execgate/schema/transcode"
)

// RESTRequest is a request message that came in as an HTTP call. Its Message can
// be replaced; Encode gives the HTTP call that says it then.
type RESTRequest struct {
	*Message

	match    RouteMatch
	rawQuery string
	pairs    []queryPair
	body     []byte
	// encoded is what Replace found the call to be for encodedAs.
	encoded   restCall
	encodedAs *transcode.Tree
}

// restCall is the part of an HTTP call that a message decides.
type restCall struct {
	path, rawQuery string
	body           []byte
}

// DecodeRequest reads the request message of the call that was matched: from the
// path, the query (without "?") and the body, as the rule says. It keeps body and
// does not change it.
//
// What the rule does not speak of is ignored, as the upstream ignores it: query
// parameters that are no fields, unknown keys of the body, a body that the rule
// does not have. All of it survives in Encode. The error is a *DecodeError.
func (m RouteMatch) DecodeRequest(rawQuery string, body []byte) (*RESTRequest, error) {
	r, t := m.rule, m.rule.method.input
	req := &RESTRequest{match: m, rawQuery: rawQuery, body: body}
	msg := &Message{typ: t, body: body}
	tree, err := m.populateBody(msg, body)
	if err != nil {
		return nil, t.undecodable(err)
	}
	content := tree.Root()
	if err := m.populatePath(content); err != nil {
		return nil, t.undecodable(err)
	}
	if !r.bodyAll {
		pairs, err := parseQuery(rawQuery)
		if err != nil {
			return nil, t.undecodable(err)
		}
		if err := r.populateQuery(content, pairs); err != nil {
			return nil, t.undecodable(err)
		}
		req.pairs = pairs
	}
	msg.before, msg.after = tree, tree
	req.Message = msg
	req.adapt = func(next *transcode.Tree) error { return r.adapt(content, next.Root()) }
	req.fits = func(after *transcode.Tree) error {
		var err error
		req.encoded, err = req.encode(after)
		req.encodedAs = after
		return err
	}
	return req, nil
}

// populateBody reads what the body says of the message.
func (m RouteMatch) populateBody(msg *Message, body []byte) (*transcode.Tree, error) {
	r, t := m.rule, m.rule.method.input
	if len(body) == 0 || !r.bodyAll && r.body == nil {
		return t.table.New(), nil
	}
	switch {
	case r.bodyAll && isRawBody(t.desc):
		content := t.table.New()
		setRawBody(content.Root(), body)
		return content, nil
	case r.body != nil && isRawField(r.body):
		content := t.table.New()
		setRawBody(content.Root().Mutable(r.body), body)
		return content, nil
	case firstByte(body) == 0: // blanks
		return t.table.New(), nil
	case r.bodyAll:
		return t.table.ReadJSON(body, t.bodyOptions(&msg.seen))
	}
	return t.table.ReadJSONField(body, r.body, t.bodyOptions(&msg.seen))
}

// Encode returns the HTTP call that says the current content: path
// (percent-encoded), query (without "?") and body, of the same rule. What the
// content did not change is as it was sent; an unchanged message gives back all
// three as they were. The body is shared and must not be changed.
func (r *RESTRequest) Encode() (path, rawQuery string, body []byte, err error) {
	switch {
	case !r.Changed():
		return r.match.sent, r.rawQuery, r.body, nil
	case r.encodedAs != r.after:
		if r.encoded, err = r.encode(r.after); err != nil {
			return "", "", nil, err
		}
		r.encodedAs = r.after
	}
	return r.encoded.path, r.encoded.rawQuery, r.encoded.body, nil
}

func (r *RESTRequest) encode(after *transcode.Tree) (c restCall, err error) {
	rule, t := r.match.rule, r.typ
	was, is := r.before.Root(), after.Root()
	if c.path, err = r.match.encodePath(was, is); err != nil {
		return restCall{}, err
	}
	if c.rawQuery, err = rule.encodeQuery(r.rawQuery, r.pairs, was, is); err != nil {
		return restCall{}, err
	}
	c.body = r.body
	switch {
	case rule.bodyAll && isRawBody(t.desc):
		c.body, err = rawBody(was, is)
	case rule.body != nil && isRawField(rule.body):
		c.body, err = rawBody(was.Get(rule.body).Message(), is.Get(rule.body).Message())
	case rule.bodyAll:
		c.body, err = r.patch(after, rule.bound)
	case rule.body != nil && !is.Same(was, rule.body):
		c.body, err = r.patchField(rule.body, after)
	}
	return c, err
}

// segments splits the matched path, without its verb.
func (m RouteMatch) segments() []string {
	path := m.path
	if m.rule.verb != "" {
		path = path[:len(path)-len(m.rule.verb)-1]
	}
	return strings.Split(path[1:], "/")
}

// populatePath sets the fields that the path's variables name.
func (m RouteMatch) populatePath(content transcode.Node) error {
	segments := m.segments()
	for _, v := range m.rule.vars {
		first, end := m.rule.span(v.first, v.end, len(segments))
		s := strings.Join(segments[first:end], "/")
		if !m.decoded {
			var err error
			if s, err = unescapePath(s, m.rule.multi(v.variable)); err != nil {
				return err
			}
		}
		if err := m.rule.setVariable(content, v, s); err != nil {
			return fmt.Errorf("path variable %q: %w", v.name(), err)
		}
	}
	return nil
}

// setVariable sets a field from the path. What the body said of it is
// overwritten.
func (r *rule) setVariable(m transcode.Node, v boundVariable, s string) error {
	if fd := v.field(); fd.IsList() {
		clearPath(m, v.fields)
		for _, part := range strings.Split(s, ",") {
			if err := populate(m, queryTarget{fields: v.fields}, part, false); err != nil {
				return err
			}
		}
		return nil
	}
	return populate(m, queryTarget{fields: v.fields}, s, false)
}

// adapt makes present in next what a path always says: the messages that hold a
// variable's field, and the field itself where the path says an empty value.
func (r *rule) adapt(before, next transcode.Node) error {
	for _, v := range r.vars {
		b, n := before, next
		for i, fd := range v.fields {
			if of := fd.ContainingOneof(); of != nil {
				if set := n.WhichOneof(of); set != nil && set.Number() != fd.Number() {
					return fmt.Errorf("path variable %q: another field of its oneof is set", v.name())
				}
			}
			if i < len(v.fields)-1 {
				b, n = b.Get(fd).Message(), n.Mutable(fd)
			} else if fd.HasPresence() && b.Has(fd) && !n.Has(fd) {
				if s, err := r.variableText(before, v); err != nil || s != "" {
					continue
				}
				if fd.Message() != nil {
					n.Mutable(fd)
				} else {
					n.Set(fd, b.Get(fd).Scalar())
				}
			}
		}
	}
	return nil
}

// clearPath clears a field, wherever it is.
func clearPath(m transcode.Node, fields []protoreflect.FieldDescriptor) {
	for _, fd := range fields[:len(fields)-1] {
		if !m.Has(fd) {
			return
		}
		m = m.Mutable(fd)
	}
	m.Clear(fields[len(fields)-1])
}

// variableText returns the text form of a variable's field.
func (r *rule) variableText(m transcode.Node, v boundVariable) (string, error) {
	for _, fd := range v.fields[:len(v.fields)-1] {
		m = m.Get(fd).Message()
	}
	fd := v.field()
	if !fd.IsList() {
		if fd.Message() != nil && !m.Has(fd) {
			return "", nil
		}
		return formatText(fd, m.Get(fd))
	}
	parts := make([]string, 0, m.Len(fd))
	for v := range m.Elements(fd) {
		s, err := formatText(fd, v)
		if err != nil {
			return "", err
		}
		if strings.Contains(s, ",") {
			return "", fmt.Errorf("a comma in an element")
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, ","), nil
}

// encodePath writes the path for after. Segments of variables that did not change
// stay as they were sent.
func (m RouteMatch) encodePath(before, after transcode.Node) (string, error) {
	segments := m.segments()
	out := make([]string, 0, len(segments))
	at := 0
	changed := false
	for _, v := range m.rule.vars {
		was, err := m.rule.variableText(before, v)
		if err != nil {
			return "", fmt.Errorf("path variable %q: %w", v.name(), err)
		}
		is, err := m.rule.variableText(after, v)
		if err != nil {
			return "", fmt.Errorf("path variable %q: %w", v.name(), err)
		}
		if was == is {
			continue
		}
		encoded, err := m.rule.escapeVariable(v, is)
		if err != nil {
			return "", fmt.Errorf("path variable %q: %w", v.name(), err)
		}
		first, end := m.rule.span(v.first, v.end, len(segments))
		out = append(out, m.sentSegments(segments[at:first])...)
		out = append(out, encoded)
		at, changed = end, true
	}
	if !changed {
		return m.sent, nil
	}
	out = append(out, m.sentSegments(segments[at:])...)
	path := "/" + strings.Join(out, "/")
	if m.rule.verb != "" {
		path += ":" + m.rule.verb
	}
	// The new value must not have made another call of it.
	again, ok := m.table.route(m.httpMethod, path)
	if !ok || again.rule != m.rule || again.Ambiguous && !m.Ambiguous {
		return "", fmt.Errorf("the path variables' values lead to another method")
	}
	return path, nil
}

// sentSegments returns segments in percent-encoded form.
func (m RouteMatch) sentSegments(segments []string) []string {
	if !m.decoded {
		return segments
	}
	encoded := make([]string, len(segments))
	for i, s := range segments {
		encoded[i] = escapeSegment(s)
	}
	return encoded
}

// escapeVariable writes a value as the path segments of a variable.
func (r *rule) escapeVariable(v boundVariable, value string) (string, error) {
	if !r.multi(v.variable) {
		if value == "" {
			return "", fmt.Errorf("is empty")
		}
		if s := r.template.segments[v.first]; s.kind == segmentLiteral && s.text != value {
			return "", fmt.Errorf("does not fit the pattern")
		}
		return escapeSegment(value), nil
	}
	parts := strings.Split(value, "/")
	sub := template{segments: r.template.segments[v.first:v.end], deep: -1}
	for i, s := range sub.segments {
		if s.kind == segmentDeep {
			sub.deep = i
		}
	}
	if value == "" && len(sub.segments) == 1 {
		parts = nil
	}
	if len(parts) < len(sub.segments)-1 || sub.deep < 0 && len(parts) != len(sub.segments) {
		return "", fmt.Errorf("does not fit the pattern")
	}
	for i, s := range sub.segments {
		first, _ := sub.span(i, i+1, len(parts))
		switch {
		case s.kind == segmentLiteral && parts[first] != s.text,
			s.kind == segmentStar && parts[first] == "":
			return "", fmt.Errorf("does not fit the pattern")
		}
	}
	for i := range parts {
		parts[i] = escapeSegment(parts[i])
	}
	return strings.Join(parts, "/"), nil
}

// escapeSegment percent-encodes all but RFC 3986's unreserved characters, and the
// dots of a segment that a server would take for a step in the path.
func escapeSegment(s string) string {
	if s == "." || s == ".." {
		return strings.ReplaceAll(s, ".", "%2E")
	}
	return strings.ReplaceAll(url.QueryEscape(s), "+", "%20")
}

// unescapePath decodes the text of a path variable. In one that can hold several
// segments an encoded slash stays encoded: it would not be told apart.
func unescapePath(s string, multi bool) (string, error) {
	if strings.IndexByte(s, '%') < 0 {
		return s, nil
	}
	if multi {
		s = strings.ReplaceAll(strings.ReplaceAll(s, "%2F", "%252F"), "%2f", "%252f")
	}
	s, err := url.PathUnescape(s)
	if err != nil {
		return "", errText
	}
	return s, nil
}

// RESTResponse is a response message that came back as an HTTP body.
type RESTResponse struct {
	*Message

	field protoreflect.FieldDescriptor
	body  []byte
}

// DecodeResponse reads the response message of the call that was matched, leniently
// as [MessageType.DecodeJSON] does. It keeps body and does not change it. The error is
// a *DecodeError.
func (m RouteMatch) DecodeResponse(body []byte) (*RESTResponse, error) {
	t, fd := m.rule.method.output, m.rule.response
	r := &RESTResponse{Message: &Message{typ: t, body: body}, field: fd, body: body}
	var content *transcode.Tree
	var err error
	switch {
	case fd == nil && isRawBody(t.desc):
		content = t.table.New()
		setRawBody(content.Root(), body)
	case fd == nil:
		content, err = t.table.ReadJSON(body, t.bodyOptions(&r.seen))
	case isRawField(fd):
		content = t.table.New()
		setRawBody(content.Root().Mutable(fd), body)
	default:
		content, err = t.table.ReadJSONField(body, fd, t.bodyOptions(&r.seen))
	}
	if err != nil {
		return nil, t.undecodable(err)
	}
	r.before, r.after = content, content
	r.fits = func(after *transcode.Tree) error {
		if fd != nil {
			if err := onlyField(fd, content.Root(), after.Root()); err != nil {
				return err
			}
		}
		_, err := r.encode(after)
		return err
	}
	return r, nil
}

// onlyField refuses a change of any field but fd: there is no place for it.
func onlyField(fd protoreflect.FieldDescriptor, before, after transcode.Node) error {
	for other := range after.Fields() {
		if other.Number() != fd.Number() && !after.Same(before, other) {
			return fmt.Errorf("field %q is not part of the response body", other.Name())
		}
	}
	return nil
}

// Encode returns the HTTP body that says the current content: the very bytes that
// came when it is unchanged, else as [Message.Body] describes. The bytes are shared
// and must not be changed.
func (r *RESTResponse) Encode() ([]byte, error) {
	if !r.Changed() {
		return r.body, nil
	}
	return r.encode(r.after)
}

func (r *RESTResponse) encode(after *transcode.Tree) ([]byte, error) {
	fd := r.field
	switch {
	case fd == nil && isRawBody(r.typ.desc):
		return rawBody(r.before.Root(), after.Root())
	case fd == nil:
		return r.patch(after, nil)
	case isRawField(fd):
		return rawBody(r.before.Root().Get(fd).Message(), after.Root().Get(fd).Message())
	}
	b, err := r.patchField(fd, after)
	if err == nil && b == nil {
		b = emptyField(fd)
	}
	return b, err
}

// emptyField is the JSON of an unset field that is a body of its own.
func emptyField(fd protoreflect.FieldDescriptor) []byte {
	switch {
	case fd.IsMap():
		return []byte("{}")
	case fd.IsList():
		return []byte("[]")
	case fd.Message() != nil, fd.HasPresence():
		return []byte("null")
	case fd.Kind() == protoreflect.StringKind, fd.Kind() == protoreflect.BytesKind:
		return []byte(`""`)
	case fd.Kind() == protoreflect.BoolKind:
		return []byte("false")
	default:
		return []byte("0")
	}
}
