package configfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	"github.com/execgate/execgate/internal/strictyaml"
)

// ParseOptions change how a document is read. The zero value is usable.
type ParseOptions struct {
	// File names the document in faults.
	File string
	// ReadFile reads what signing_key_file names. Nil: the key is a fault, because the reader is not on the machine of
	// whoever wrote the document.
	ReadFile func(name string) ([]byte, error)
}

// Parse reads a document. Its error is [Faults] with everything that was found; the document is there all the same, for
// a check that wants to find more.
func Parse(text []byte, o ParseOptions) (*Document, error) {
	p := &parser{o: o, doc: new(Document)}
	p.faults = &Faults{}
	text = bytes.TrimPrefix(text, []byte("\uFEFF"))
	if !utf8.Valid(text) {
		p.fault(0, "", "not UTF-8 text", "save the file as UTF-8")
		p.doc.Truncated = true
		return p.doc, p.faults.Err()
	}
	nodes, fault, ok := jsonNodes(text)
	if ok {
		for _, node := range nodes {
			p.document(node)
		}
		return p.doc, p.faults.Err()
	}
	if p.yaml(text); p.doc.Truncated && fault != nil {
		fault.File = p.o.File
		p.doc, p.faults = &Document{Truncated: true}, &Faults{*fault}
	}
	return p.doc, p.faults.Err()
}

type parser struct {
	o      ParseOptions
	doc    *Document
	faults *Faults
}

func (p *parser) fault(line int, path, text, hint string) {
	*p.faults = append(*p.faults, Fault{File: p.o.File, Line: line, Path: path, Text: text, Hint: hint})
}

// yaml reads a stream of YAML documents.
func (p *parser) yaml(text []byte) {
	in := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var doc yaml.Node
		err := in.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			d := strictyaml.Decoder{File: p.o.File, Faults: p.faults}
			d.Syntax(err)
			p.doc.Truncated = true
			return
		}
		if len(doc.Content) == 1 {
			p.document(doc.Content[0])
		}
	}
}

const kinds = "write kind: Target or kind: Execution"

// document reads one document: an item, or a list of them.
func (p *parser) document(node *yaml.Node) {
	switch {
	case node.Kind == yaml.SequenceNode:
		for _, element := range node.Content {
			p.item(element)
		}
	case node.Kind == yaml.ScalarNode && node.Tag == "!!null": // nothing between two "---"
	default:
		p.item(node)
	}
}

func (p *parser) item(node *yaml.Node) {
	if node.Kind != yaml.MappingNode {
		p.fault(node.Line, "", fmt.Sprintf("expected a target or an execution, found %s", strictyaml.KindName(node)), kinds)
		return
	}
	kind := field(node, "kind")
	if kind == nil {
		p.fault(node.Line, "", "the document has no kind", kinds)
		return
	}
	switch kind.Value {
	case "Target":
		p.target(node)
	case "Execution":
		p.execution(node)
	case "Export":
		p.export(node)
	default:
		hint := kinds
		if near := strictyaml.Closest(kind.Value, []string{"Target", "Execution", "Export"}); near != "" {
			hint = fmt.Sprintf("did you mean %s?", near)
		}
		p.fault(kind.Line, "kind", fmt.Sprintf("%q is not known", short(kind.Value)), hint)
	}
}

// field returns the scalar value of a key, nil if there is none.
func field(node *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(node.Content); i += 2 {
		if v := node.Content[i+1]; node.Content[i].Value == key && v.Kind == yaml.ScalarNode {
			return v
		}
	}
	return nil
}

// short bounds what a fault repeats.
func short(s string) string {
	const limit = 100
	if utf8.RuneCountInString(s) <= limit {
		return s
	}
	return string([]rune(s)[:limit]) + "..."
}

// begin decodes an item into v. The faults of its fields begin with the item's name.
func (p *parser) begin(node *yaml.Node, name string, v any) (place, *strictyaml.Decoder) {
	at := place{file: p.o.File, line: node.Line, name: name}
	own := Faults{}
	d := &strictyaml.Decoder{File: p.o.File, Faults: &own}
	d.Mark = func(path string, line int) { at.marks = append(at.marks, mark{path, line}) }
	d.Custom = func(n *yaml.Node, line int, v reflect.Value, path string) bool { return custom(d, n, line, v, path) }
	d.Value(node, node.Line, reflect.ValueOf(v).Elem(), "")
	return at, d
}

// end takes the faults of an item over.
func (p *parser) end(at *place, d *strictyaml.Decoder) {
	at.broken = len(*d.Faults) > 0
	for _, f := range *d.Faults {
		if f.Path == "" {
			f.Path = at.name
		} else {
			f.Path = at.name + ": " + f.Path
		}
		*p.faults = append(*p.faults, f)
	}
}

type rawCall struct {
	URL string `key:"url"`
}

type rawKey struct {
	ID      string `key:"id"`
	PEM     string `key:"pem"`
	Active  bool   `key:"active"`
	Expires string `key:"expires"`
}

type rawTarget struct {
	Kind             string                  `key:"kind"`
	Name             string                  `key:"name"`
	Webhook          *rawCall                `key:"webhook"`
	RequestResponse  *rawCall                `key:"request_response"`
	Timeout          *time.Duration          `key:"timeout"`
	Async            bool                    `key:"async"`
	InterruptOnError bool                    `key:"interrupt_on_error"`
	PayloadType      string                  `key:"payload_type"`
	SigningKey       *string                 `key:"signing_key"`
	SigningKeyFile   *string                 `key:"signing_key_file"`
	PublicKeys       *[]rawKey               `key:"public_keys"`
	Policy           *gatewaypb.TargetPolicy `key:"policy"`
}

func (p *parser) target(node *yaml.Node) {
	raw, name := rawTarget{}, "Target"
	if n := field(node, "name"); n != nil && n.Value != "" {
		name = "Target " + short(n.Value)
	}
	at, d := p.begin(node, name, &raw)
	t := &Target{
		Name: raw.Name, Async: raw.Async, InterruptOnError: raw.InterruptOnError, PayloadType: raw.PayloadType,
		Policy: raw.Policy,
	}
	if raw.Name == "" {
		d.Fault(node.Line, "name", "missing", "name the target: executions refer to it by its name")
	}
	p.targetType(node, d, &raw, t)
	if raw.Timeout == nil {
		if field(node, "timeout") == nil {
			d.Fault(node.Line, "timeout", "missing", "write how long an answer may take, like timeout: 10s")
		}
	} else {
		t.Timeout = *raw.Timeout
	}
	p.signingKey(at, d, &raw, t)
	if raw.PublicKeys != nil {
		t.PublicKeys = publicKeys(at, d, *raw.PublicKeys)
	}
	p.end(&at, d)
	t.place = at
	p.doc.Targets = append(p.doc.Targets, t)
}

func (p *parser) targetType(node *yaml.Node, d *strictyaml.Decoder, raw *rawTarget, t *Target) {
	const choose = "write webhook: {url: ...} (the answer counts only when it fails) or request_response: {url: ...} (the answer becomes the message)"
	call := raw.Webhook
	switch {
	case raw.Webhook != nil && raw.RequestResponse != nil:
		d.Fault(node.Line, "", "both webhook and request_response are given", "keep one of them")
		return
	case raw.Webhook != nil:
		t.Type = Webhook
	case raw.RequestResponse != nil:
		t.Type, call = RequestResponse, raw.RequestResponse
	default:
		if len(*d.Faults) == 0 {
			d.Fault(node.Line, "", "neither webhook nor request_response is given", choose)
		}
		return
	}
	if t.URL = call.URL; t.URL == "" {
		d.Fault(node.Line, string(t.Type)+".url", "missing", "write an absolute http or https URL")
	}
}

func (p *parser) signingKey(at place, d *strictyaml.Decoder, raw *rawTarget, t *Target) {
	switch {
	case raw.SigningKey != nil && raw.SigningKeyFile != nil:
		d.Fault(at.lineOf("signing_key_file"), "signing_key_file", "given together with signing_key", "keep one of them")
	case raw.SigningKey != nil:
		if t.SigningKey = *raw.SigningKey; t.SigningKey == "" {
			d.Fault(at.lineOf("signing_key"), "signing_key", "empty", "leave the key out: the gateway keeps the one it has, or makes one")
		}
	case raw.SigningKeyFile != nil && p.o.ReadFile == nil:
		d.Fault(at.lineOf("signing_key_file"), "signing_key_file", "files are not read here", "give the key itself as signing_key, or leave it out")
	case raw.SigningKeyFile != nil:
		key, err := readKey(*raw.SigningKeyFile, p.o.ReadFile)
		if err != nil {
			d.Fault(at.lineOf("signing_key_file"), "signing_key_file", err.Error(), "correct the path, or write the key into the file")
		}
		t.SigningKey = key
	}
}

// readKey reads a file that holds one line.
func readKey(name string, read func(string) ([]byte, error)) (string, error) {
	text, err := read(name)
	if err != nil {
		return "", fmt.Errorf("%s: %w", short(name), err)
	}
	key := strings.TrimRight(string(text), "\r\n")
	switch {
	case key == "":
		return "", fmt.Errorf("%s: the file is empty", short(name))
	case strings.ContainsAny(key, "\r\n"):
		return "", fmt.Errorf("%s: the file has more than one line", short(name))
	}
	return key, nil
}

func publicKeys(at place, d *strictyaml.Decoder, raw []rawKey) []PublicKey {
	keys := make([]PublicKey, len(raw))
	for i, r := range raw {
		path := fmt.Sprintf("public_keys[%d]", i)
		keys[i] = PublicKey{ID: r.ID, PEM: r.PEM, Active: r.Active}
		if r.PEM == "" {
			d.Fault(at.lineOf(path), path+".pem", "missing", "write the public key in PEM form")
		}
		if r.Expires != "" {
			var err error
			if keys[i].Expires, err = time.Parse(time.RFC3339Nano, r.Expires); err != nil {
				d.Fault(at.lineOf(path+".expires"), path+".expires", "not a time", "write it like 2030-01-31T12:00:00Z")
			}
		}
	}
	return keys
}

type rawExport struct {
	Kind        string `key:"kind"`
	Format      int64  `key:"format"`
	Instance    string `key:"instance"`
	Revision    int64  `key:"revision"`
	Changed     string `key:"changed"`
	SigningKeys bool   `key:"signing_keys"`
}

func (p *parser) export(node *yaml.Node) {
	var raw rawExport
	at, d := p.begin(node, "Export", &raw)
	e := &Export{Format: int(raw.Format), Instance: raw.Instance, SigningKeys: raw.SigningKeys, Revision: uint64(max(raw.Revision, 0))}
	if raw.Revision < 0 {
		d.Fault(at.lineOf("revision"), "revision", "negative", "leave the document as Export wrote it")
	}
	if raw.Format != Format {
		d.Fault(at.lineOf("format"), "format", fmt.Sprintf("%d is not known", raw.Format), fmt.Sprintf("this version reads format %d; use the version that wrote the document, or a newer one", Format))
	}
	if raw.Changed != "" {
		var err error
		if e.Changed, err = time.Parse(time.RFC3339Nano, raw.Changed); err != nil {
			d.Fault(at.lineOf("changed"), "changed", "not a time", "leave the document as Export wrote it")
		}
	}
	if p.doc.Export != nil {
		d.Fault(node.Line, "", "a second document of this kind", "keep one")
	}
	p.end(&at, d)
	p.doc.Export = e
}
