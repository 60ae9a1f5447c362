package configfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxJSONDepth is far more than any item needs.
const maxJSONDepth = 64

// jsonNodes reads a text that is JSON, one value or several after one another, into the nodes that a YAML parser would
// make of them. YAML almost contains JSON: it lacks the escapes of characters beyond the first 65,536, and several values
// without a separator. ok is false for a text that is not JSON, which may be YAML all the same. If it looks like JSON, fault says
// what is wrong with it.
func jsonNodes(text []byte) (nodes []*yaml.Node, fault *Fault, ok bool) {
	if head := bytes.TrimLeft(text, " \t\r\n"); len(head) == 0 || head[0] != '{' && head[0] != '[' {
		return nil, nil, false
	}
	r := &jsonReader{text: text, in: json.NewDecoder(bytes.NewReader(text)), line: 1}
	r.in.UseNumber()
	for {
		token, err := r.next()
		if errors.Is(err, io.EOF) {
			return nodes, nil, true
		}
		var node *yaml.Node
		if err == nil {
			node, err = r.value(token, 0)
		}
		if err != nil {
			return nil, &Fault{Line: r.lineOf(err), Text: "not JSON: " + err.Error(), Hint: "mend the syntax"}, false
		}
		nodes = append(nodes, node)
	}
}

type jsonReader struct {
	text []byte
	in   *json.Decoder
	line int // of the last token
	seen int // offset behind it
}

// lineOf is the line of an error.
func (r *jsonReader) lineOf(err error) int {
	at := len(r.text)
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		at = min(int(syntax.Offset), at)
	}
	return 1 + bytes.Count(r.text[:at], []byte("\n"))
}

// next returns the next token. A token stands on one line.
func (r *jsonReader) next() (json.Token, error) {
	token, err := r.in.Token()
	if err == nil {
		end := int(r.in.InputOffset())
		r.line += bytes.Count(r.text[r.seen:end], []byte("\n"))
		r.seen = end
	}
	return token, err
}

func (r *jsonReader) value(token json.Token, depth int) (*yaml.Node, error) {
	if depth > maxJSONDepth {
		return nil, errors.New("nested too deeply")
	}
	scalar := func(tag, value string) (*yaml.Node, error) {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: value, Line: r.line}, nil
	}
	switch token := token.(type) {
	case string:
		return scalar("!!str", token)
	case bool:
		return scalar("!!bool", strconv.FormatBool(token))
	case json.Number:
		if strings.ContainsAny(token.String(), ".eE") {
			return scalar("!!float", token.String())
		}
		return scalar("!!int", token.String())
	case json.Delim:
		node := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: r.line}
		if token == '[' {
			node.Kind, node.Tag = yaml.SequenceNode, "!!seq"
		}
		for {
			inner, err := r.next()
			if errors.Is(err, io.EOF) {
				return nil, io.ErrUnexpectedEOF
			}
			if err != nil {
				return nil, err
			}
			if end, isDelim := inner.(json.Delim); isDelim && (end == '}' || end == ']') {
				return node, nil
			}
			child, err := r.value(inner, depth+1)
			if err != nil {
				return nil, err
			}
			node.Content = append(node.Content, child)
		}
	default:
		return scalar("!!null", "null")
	}
}
