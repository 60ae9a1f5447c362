package openapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// created are the methods that answer 201 over REST, and whether they answer
// 200 as well.
var created = map[protoreflect.FullName][]string{
	"zitadel.resources.action.v3alpha.ZITADELActions.CreateTarget": {"201"},
	"zitadel.resources.action.v3alpha.ZITADELActions.PutExecution": {"200", "201"},
}

// bodyOptional begin the names of methods that do with an empty body what they
// do with {} or with an empty list.
var bodyOptional = []string{"Search", "List", "Export", "Rollback", "TestFire"}

const about = `Manages targets and executions of a gateway, over two of ZITADEL's APIs and one of our own. The same methods are
there over gRPC, gRPC-Web and Connect on the same port.

Messages are in protojson's form: lowerCamelCase names (the proto names are understood as well), fields without a value
left out of answers, 64-bit integers as strings. Fields that are not known are ignored. Without admin.tokens in the
gateway's configuration no token is needed.`

// Document returns the OpenAPI 3.1 document of services, indented and with a
// newline at its end. The same services give the same bytes.
func Document(services []protoreflect.ServiceDescriptor) ([]byte, error) {
	d := &document{schemas: &schemas{seen: map[protoreflect.FullName]bool{}}}
	for _, s := range services {
		d.tags = append(d.tags, object{{"name", string(s.Name())}}.with("description", comment(s)))
		for i := range s.Methods().Len() {
			if err := d.method(s.Methods().Get(i)); err != nil {
				return nil, err
			}
		}
	}
	if err := d.schemas.finish(); err != nil {
		return nil, err
	}
	text, err := json.Marshal(object{
		{"openapi", "3.1.0"},
		{"info", object{{"title", "execgate admin API"}, {"version", "1"}, {"description", about}}},
		{"servers", []object{{{"url", "/"}}}},
		{"security", []object{{{"token", []string{}}}}},
		{"tags", d.tags},
		{"paths", d.paths.sort()},
		{"components", object{
			{"securitySchemes", object{{"token", object{
				{"type", "http"}, {"scheme", "bearer"},
				{"description", "A token of admin.tokens, or an access token of the OIDC issuer that the gateway trusts."},
			}}}},
			{"responses", object{{"Error", object{
				{"description", "The call failed."},
				{"content", jsonContent(ref("#/components/schemas/Error"))},
			}}}},
			{"schemas", d.schemas.all.sort()},
		}},
	})
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, text, "", "  "); err != nil {
		return nil, err
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

type document struct {
	tags    []object
	paths   object
	schemas *schemas
}

func jsonContent(schema any) object {
	return object{{"application/json", object{{"schema", schema}}}}
}

// rule returns the HTTP rule of a method, nil when it has none. The compiler
// keeps options in types of its own, which the wire format brings into ours.
func rule(m protoreflect.MethodDescriptor) (*annotations.HttpRule, error) {
	wire, err := proto.Marshal(m.Options())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.FullName(), err)
	}
	options := &descriptorpb.MethodOptions{}
	if err := proto.Unmarshal(wire, options); err != nil {
		return nil, fmt.Errorf("%s: %w", m.FullName(), err)
	}
	r, _ := proto.GetExtension(options, annotations.E_Http).(*annotations.HttpRule)
	return r, nil
}

// verb returns the verb and the path of a rule.
func verb(r *annotations.HttpRule) (verb, path string) {
	switch p := r.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		return "get", p.Get
	case *annotations.HttpRule_Put:
		return "put", p.Put
	case *annotations.HttpRule_Post:
		return "post", p.Post
	case *annotations.HttpRule_Delete:
		return "delete", p.Delete
	case *annotations.HttpRule_Patch:
		return "patch", p.Patch
	}
	return "", ""
}

func (d *document) method(m protoreflect.MethodDescriptor) error {
	r, err := rule(m)
	if err != nil {
		return err
	}
	if r == nil {
		return fmt.Errorf("%s has no HTTP rule", m.FullName())
	}
	for i, one := range append([]*annotations.HttpRule{r}, r.GetAdditionalBindings()...) {
		if err := d.binding(m, one, i); err != nil {
			return fmt.Errorf("%s: %w", m.FullName(), err)
		}
	}
	return nil
}

func (d *document) binding(m protoreflect.MethodDescriptor, r *annotations.HttpRule, number int) error {
	verb, template := verb(r)
	if verb == "" {
		return fmt.Errorf("its HTTP rule has no verb that OpenAPI knows")
	}
	if r.GetResponseBody() != "" {
		return fmt.Errorf("response_body is not supported")
	}
	path, parameters, taken, err := pathParameters(m.Input(), template)
	if err != nil {
		return err
	}
	id := string(m.Parent().Name()) + "_" + string(m.Name())
	if number > 0 {
		id += fmt.Sprint("_", number)
	}
	op := object{
		{"tags", []string{string(m.Parent().Name())}},
		{"operationId", id},
		{"summary", words(string(m.Name()))},
	}.with("description", comment(m))

	var body object
	switch field := r.GetBody(); field {
	case "":
	case "*":
		body, err = d.schemas.rest(m.Input(), taken)
		if err != nil {
			return err
		}
		for i := range m.Input().Fields().Len() {
			taken[m.Input().Fields().Get(i).Name()] = true
		}
	default:
		f := m.Input().Fields().ByName(protoreflect.Name(field))
		if f == nil {
			return fmt.Errorf("the body %q is no field", field)
		}
		body = d.schemas.field(f)
		taken[f.Name()] = true
	}
	parameters = append(parameters, d.schemas.query(m.Input(), taken)...)
	if len(parameters) > 0 {
		op.set("parameters", parameters)
	}
	if body != nil {
		required := !slices.ContainsFunc(bodyOptional, func(p string) bool { return strings.HasPrefix(string(m.Name()), p) })
		op.set("requestBody", object{{"required", required}, {"content", jsonContent(body)}})
	}
	codes := created[m.FullName()]
	if codes == nil {
		codes = []string{"200"}
	}
	responses := object{}
	for _, code := range codes {
		text := "Done."
		if code == "201" {
			text = "Created."
		}
		responses.set(code, object{{"description", text}, {"content", jsonContent(d.schemas.message(m.Output()))}})
	}
	responses.set("default", ref("#/components/responses/Error"))
	op.set("responses", responses)

	for i := range d.paths {
		if d.paths[i].name == path {
			item := d.paths[i].value.(object)
			for _, m := range item {
				if m.name == verb {
					return fmt.Errorf("%s %s is taken", verb, path)
				}
			}
			d.paths[i].value = append(item, member{verb, op})
			return nil
		}
	}
	d.paths = append(d.paths, member{path, object{{verb, op}}})
	return nil
}

// pathParameters turns a path of an HTTP rule into one of OpenAPI, and says
// which fields are in it.
func pathParameters(in protoreflect.MessageDescriptor, template string) (path string, parameters []object, taken map[protoreflect.Name]bool, err error) {
	taken = map[protoreflect.Name]bool{}
	var b strings.Builder
	for {
		before, after, found := strings.Cut(template, "{")
		b.WriteString(before)
		if !found {
			return b.String(), parameters, taken, nil
		}
		variable, rest, closed := strings.Cut(after, "}")
		name, pattern, _ := strings.Cut(variable, "=")
		f := in.Fields().ByName(protoreflect.Name(name))
		switch {
		case !closed || f == nil:
			return "", nil, nil, fmt.Errorf("%q in the path is no field", variable)
		case pattern != "" && pattern != "*" && pattern != "**":
			return "", nil, nil, fmt.Errorf("the pattern %q in the path is not supported", pattern)
		}
		taken[f.Name()] = true
		b.WriteString("{" + f.JSONName() + "}")
		text := comment(f)
		if pattern == "**" {
			text = strings.TrimSpace(text + " Its slashes may stand percent-encoded or as they are.")
		}
		parameters = append(parameters, object{{"name", f.JSONName()}, {"in", "path"}, {"required", true}}.
			with("description", text))
		parameters[len(parameters)-1].set("schema", scalar(f))
		template = rest
	}
}

// comment returns what stands above a declaration, its lines joined.
func comment(d protoreflect.Descriptor) string {
	location := d.ParentFile().SourceLocations().ByDescriptor(d)
	paragraphs := strings.Split(strings.TrimSpace(location.LeadingComments), "\n\n")
	for i, p := range paragraphs {
		paragraphs[i] = strings.Join(strings.Fields(p), " ")
	}
	return strings.Join(paragraphs, "\n\n")
}

// words makes "Create target" of "CreateTarget".
func words(name string) string {
	var b strings.Builder
	for i, r := range name {
		if i > 0 && unicode.IsUpper(r) {
			b.WriteByte(' ')
			r = unicode.ToLower(r)
		}
		b.WriteRune(r)
	}
	return b.String()
}
