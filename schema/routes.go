package schema

import (
	"fmt"
	"net/url"
	pathpkg "path"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/execgate/execgate/schema/transcode"
)

// rule is one HTTP binding of one method.
type rule struct {
	*template
	method     *Method
	httpMethod string // upper case; "*" is any
	pattern    string // as declared, behind the base path
	vars       []boundVariable
	bound      map[string]bool // paths of the variables' fields, dotted schema names
	bodyAll    bool            // body: "*"
	body       protoreflect.FieldDescriptor
	response   protoreflect.FieldDescriptor
}

// boundVariable is a variable of the path and the field that it names.
type boundVariable struct {
	variable
	fields []protoreflect.FieldDescriptor
}

func (v boundVariable) field() protoreflect.FieldDescriptor { return v.fields[len(v.fields)-1] }

// name returns the dotted schema names of the field.
func (v boundVariable) name() string { return fieldPath(v.fields) }

func fieldPath(fields []protoreflect.FieldDescriptor) string {
	names := make([]string, len(fields))
	for i, fd := range fields {
		names[i] = string(fd.Name())
	}
	return strings.Join(names, ".")
}

// routeTable finds the rule of a path: a trie of path segments per HTTP method.
type routeTable struct {
	roots    map[string]*routeNode
	rules    []*rule
	problems []string
}

type routeNode struct {
	literals map[string]*routeNode
	star     *routeNode
	deep     *routeNode
	leaves   []*rule // at most one per verb
}

func newRouteTable() *routeTable { return &routeTable{roots: map[string]*routeNode{}} }

// add compiles the HTTP rules of a method.
func (t *routeTable) add(m *Method, base string, options *descriptorpb.MethodOptions) {
	declared, err := httpRule(options)
	if err != nil {
		t.problems = append(t.problems, fmt.Sprintf("%s: %s", m.FullMethod, err))
		return
	}
	if declared == nil {
		return
	}
	for _, r := range append([]*annotations.HttpRule{declared}, declared.GetAdditionalBindings()...) {
		compiled, err := compileRule(m, base, r)
		if err != nil {
			t.problems = append(t.problems, fmt.Sprintf("%s: HTTP rule: %s", m.FullMethod, err))
			continue
		}
		t.insert(compiled)
	}
}

func compileRule(m *Method, base string, r *annotations.HttpRule) (*rule, error) {
	httpMethod, pattern := rulePattern(r)
	if httpMethod == "" {
		return nil, fmt.Errorf("no HTTP method")
	}
	parsed, err := parseTemplate(pattern)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", pattern, err)
	}
	if err := parsed.mount(base); err != nil {
		return nil, err
	}
	c := &rule{template: parsed, method: m, httpMethod: httpMethod, pattern: pattern, bound: map[string]bool{}}
	input := m.input.desc
	for _, v := range parsed.variables {
		fields, err := resolvePath(input, v.path)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", pattern, err)
		}
		if last := fields[len(fields)-1]; last.IsMap() || last.Message() != nil && !transcode.HasOwnForm(last.Message()) {
			return nil, fmt.Errorf("%q: field %q has no text form", pattern, v.path)
		}
		bound := boundVariable{variable: v, fields: fields}
		c.vars = append(c.vars, bound)
		c.bound[bound.name()] = true
	}
	switch body := r.GetBody(); body {
	case "":
	case "*":
		c.bodyAll = true
	default:
		if c.body = fieldByName(input, body); c.body == nil {
			return nil, fmt.Errorf("%q: no field %q for the body", pattern, body)
		}
	}
	if name := r.GetResponseBody(); name != "" {
		if c.response = fieldByName(m.output.desc, name); c.response == nil {
			return nil, fmt.Errorf("%q: no field %q for the response body", pattern, name)
		}
	}
	return c, nil
}

func rulePattern(r *annotations.HttpRule) (httpMethod, pattern string) {
	switch p := r.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		return "GET", p.Get
	case *annotations.HttpRule_Put:
		return "PUT", p.Put
	case *annotations.HttpRule_Post:
		return "POST", p.Post
	case *annotations.HttpRule_Delete:
		return "DELETE", p.Delete
	case *annotations.HttpRule_Patch:
		return "PATCH", p.Patch
	case *annotations.HttpRule_Custom:
		return strings.ToUpper(p.Custom.GetKind()), p.Custom.GetPath()
	default:
		return "", ""
	}
}

// fieldByName finds a field by its name in the schema or in JSON.
func fieldByName(md protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	if fd := md.Fields().ByTextName(name); fd != nil {
		return fd
	}
	return md.Fields().ByJSONName(name)
}

// resolvePath finds the fields of a dotted path: singular messages, and at the
// end any field.
func resolvePath(md protoreflect.MessageDescriptor, path string) ([]protoreflect.FieldDescriptor, error) {
	var fields []protoreflect.FieldDescriptor
	for _, name := range strings.Split(path, ".") {
		if md == nil {
			return nil, fmt.Errorf("field path %q goes through no message", path)
		}
		fd := fieldByName(md, name)
		if fd == nil {
			return nil, fmt.Errorf("no field %q", path)
		}
		fields = append(fields, fd)
		md = nil
		if fd.Cardinality() != protoreflect.Repeated {
			md = fd.Message()
		}
	}
	return fields, nil
}

// insert adds a rule. Of two rules of one shape the later takes the calls, as it
// does in the servers that these rules are written for.
func (t *routeTable) insert(r *rule) {
	n := t.roots[r.httpMethod]
	if n == nil {
		n = &routeNode{}
		t.roots[r.httpMethod] = n
	}
	for _, s := range r.segments {
		n = n.child(s)
	}
	t.rules = append(t.rules, r)
	for i, known := range n.leaves {
		if known.verb == r.verb {
			t.problems = append(t.problems, fmt.Sprintf("%s: %s %q takes the calls of %s",
				r.method.FullMethod, r.httpMethod, r.pattern, known.method.FullMethod))
			n.leaves[i] = r
			return
		}
	}
	n.leaves = append(n.leaves, r)
}

func (n *routeNode) child(s segment) *routeNode {
	slot := &n.star
	switch s.kind {
	case segmentDeep:
		slot = &n.deep
	case segmentLiteral:
		if n.literals == nil {
			n.literals = map[string]*routeNode{}
		}
		c := n.literals[s.text]
		if c == nil {
			c = &routeNode{}
			n.literals[s.text] = c
		}
		return c
	}
	if *slot == nil {
		*slot = &routeNode{}
	}
	return *slot
}

func (n *routeNode) leaf(verb string) *rule {
	for _, r := range n.leaves {
		if r.verb == verb {
			return r
		}
	}
	return nil
}

// find returns the rule for what is left of path from pos: a fixed segment
// before "*", that before "**".
func (n *routeNode) find(path string, pos int, verb string, decoded bool) *rule {
	if pos > len(path) {
		if r := n.leaf(verb); r != nil {
			return r
		}
		if n.deep != nil {
			return n.deep.find(path, pos, verb, decoded)
		}
		return nil
	}
	end := pos
	escaped := false
	for end < len(path) && path[end] != '/' {
		escaped = escaped || path[end] == '%'
		end++
	}
	if n.literals != nil {
		var c *routeNode
		if escaped && !decoded {
			c = n.escapedLiteral(path[pos:end])
		} else {
			c = n.literals[path[pos:end]]
		}
		if c != nil {
			if r := c.find(path, end+1, verb, decoded); r != nil {
				return r
			}
		}
	}
	if n.star != nil {
		if r := n.star.find(path, end+1, verb, decoded); r != nil {
			return r
		}
	}
	if n.deep == nil {
		return nil
	}
	if n.deep.literals != nil || n.deep.star != nil {
		for at := pos; at <= len(path); at++ {
			if at == pos || path[at-1] == '/' {
				if r := n.deep.find(path, at, verb, decoded); r != nil {
					return r
				}
			}
		}
	}
	return n.deep.leaf(verb)
}

// escapedLiteral finds the child of a percent-encoded segment.
func (n *routeNode) escapedLiteral(s string) *routeNode {
	var buffer [256]byte
	out := buffer[:0]
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '%' {
			if i+2 >= len(s) {
				return nil
			}
			high, ok1 := unhex(s[i+1])
			low, ok2 := unhex(s[i+2])
			if !ok1 || !ok2 {
				return nil
			}
			c = high<<4 | low
			i += 2
		}
		if len(out) == len(buffer) {
			return nil // no literal is that long
		}
		out = append(out, c)
	}
	return n.literals[string(out)]
}

func unhex(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// RouteMatch is what [Schema.Route] found: a method, and where in the HTTP call
// its message is.
type RouteMatch struct {
	// Ambiguous says that the path matches another method when it is first decoded
	// ("%2F" is a slash) or cleaned ("//", "/../") or both, as some servers do before
	// they route. Who decides by the method must not rely on any of them.
	Ambiguous bool

	table  *routeTable
	rule   *rule
	others []*Method
	// sent is the path as it was sent, path the one that the rule matched, verb
	// included. They differ when decoded: then path is percent-decoded.
	sent, path string
	decoded    bool
	httpMethod string
}

// Method returns the method that the path belongs to.
func (m RouteMatch) Method() *Method { return m.rule.method }

// Others returns the methods that the path means to other servers: none, unless it
// is Ambiguous.
func (m RouteMatch) Others() []*Method { return m.others }

// HTTPMethod returns the HTTP method that was looked up.
func (m RouteMatch) HTTPMethod() string { return m.httpMethod }

// HasBody reports whether the body is part of the request message.
func (m RouteMatch) HasBody() bool { return m.rule.bodyAll || m.rule.body != nil }

// RawResponse reports whether the response's body is not JSON but data of any
// type: google.api.HttpBody.
func (m RouteMatch) RawResponse() bool {
	if m.rule.response != nil {
		return isRawField(m.rule.response)
	}
	return isRawBody(m.rule.method.output.desc)
}

// Pattern returns the path template that matched, as it is declared.
func (m RouteMatch) Pattern() string { return m.rule.pattern }

// Route finds the method that an HTTP call means, by its HTTP method and its path
// as it was sent: percent-encoded, without the query. It does not allocate, unless
// the path has percent-encoded characters.
//
// Fixed segments go before wildcards. An empty segment matches "*", as it does in
// the servers that translate such calls. A path that matches nothing as it was sent
// is looked up decoded, cleaned, and both, for servers that route by that.
func (s *Schema) Route(httpMethod, path string) (RouteMatch, bool) {
	return s.routes.route(httpMethod, path)
}

func (t *routeTable) route(httpMethod, path string) (RouteMatch, bool) {
	if len(path) == 0 || path[0] != '/' || len(t.roots) == 0 {
		return RouteMatch{}, false
	}
	m := RouteMatch{table: t, rule: t.find(httpMethod, path, false), sent: path, path: path, httpMethod: httpMethod}
	escaped := strings.IndexByte(path, '%') >= 0
	if !escaped && !unclean(path) {
		return m, m.rule != nil
	}
	plain := path
	if escaped {
		var err error
		if plain, err = url.PathUnescape(path); err != nil {
			return RouteMatch{}, false
		}
		m.read(plain, true)
	}
	if unclean(path) {
		m.read(cleanPath(path), false)
	}
	if escaped && unclean(plain) {
		m.read(cleanPath(plain), true)
	}
	return m, m.rule != nil
}

// read looks at the call as a server does for which its path is another.
func (m *RouteMatch) read(path string, decoded bool) {
	found := m.table.find(m.httpMethod, path, decoded)
	switch {
	case found == nil:
	case m.rule == nil:
		m.rule, m.path, m.decoded = found, path, decoded
	case found.method != m.rule.method && !slices.Contains(m.others, found.method):
		m.Ambiguous = true
		m.others = append(m.others, found.method)
	}
}

// unclean reports whether some servers would rewrite a path before they route.
func unclean(path string) bool { return strings.Contains(path, "//") || strings.Contains(path, "/.") }

// cleanPath resolves dot segments and doubled slashes, as some servers do.
func cleanPath(s string) string {
	cleaned := pathpkg.Clean(s)
	if strings.HasSuffix(s, "/") && cleaned != "/" {
		cleaned += "/"
	}
	return cleaned
}

func (t *routeTable) find(httpMethod, path string, decoded bool) *rule {
	if root := t.roots[httpMethod]; root != nil {
		if r := root.route(path, decoded); r != nil {
			return r
		}
	}
	if root := t.roots["*"]; root != nil {
		return root.route(path, decoded)
	}
	return nil
}

func (n *routeNode) route(path string, decoded bool) *rule {
	if colon := verbIndex(path); colon > 0 {
		if r := n.find(path[:colon], 1, path[colon+1:], decoded); r != nil {
			return r
		}
	}
	return n.find(path, 1, "", decoded)
}

// verbIndex returns the index of the colon that starts the verb of path, 0 if
// there is none.
func verbIndex(path string) int {
	for i := len(path) - 1; i > 0; i-- {
		switch path[i] {
		case '/':
			return 0
		case ':':
			if path[i-1] == '/' || i == len(path)-1 {
				return 0
			}
			return i
		}
	}
	return 0
}
