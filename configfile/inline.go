package configfile

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Inline returns the text with every "signing_key_file: NAME" of a target replaced by "signing_key: KEY", for a client
// that sends a document to a gateway on another machine. Everything else stays as it is, also the lines, so that the
// gateway's faults fit the file. Files that cannot be read, and names that stand on several lines, are [Faults]; what
// else is wrong with the text is left for [Parse] to say.
//
// The result holds secrets.
func Inline(doc []byte, file string, read func(name string) ([]byte, error)) ([]byte, error) {
	if !bytes.Contains(doc, []byte("signing_key_file")) {
		return doc, nil
	}
	var faults Faults
	var edits []edit
	starts := lineStarts(doc)
	in := yaml.NewDecoder(bytes.NewReader(doc))
	for {
		var node yaml.Node
		if err := in.Decode(&node); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return doc, nil //nolint:nilerr // Parse says what is wrong, with all the rest
		}
		for _, item := range items(&node) {
			for i := 0; i+1 < len(item.Content); i += 2 {
				key, value := item.Content[i], item.Content[i+1]
				if key.Value != "signing_key_file" || value.Kind != yaml.ScalarNode {
					continue
				}
				secret, err := readKey(value.Value, read)
				from, to, found := span(doc, starts, value)
				keyFrom, keyTo, keyFound := span(doc, starts, key)
				switch {
				case err != nil:
					faults = append(faults, Fault{File: file, Line: value.Line, Path: "signing_key_file", Text: err.Error(), Hint: "correct the path, or write the key into the file"})
				case !found || !keyFound:
					faults = append(faults, Fault{File: file, Line: value.Line, Path: "signing_key_file", Text: "not on one line", Hint: "write signing_key_file: NAME on one line"})
				default:
					name := "signing_key"
					if doc[keyFrom] == '"' {
						name = `"signing_key"`
					}
					edits = append(edits, edit{keyFrom, keyTo, name}, edit{from, to, quote(secret)})
				}
			}
		}
	}
	if err := faults.Err(); err != nil {
		return nil, err
	}
	return apply(doc, edits), nil
}

// quote is a string as both YAML and JSON read it.
func quote(s string) string {
	t := text(s)
	if strings.HasPrefix(t, `"`) {
		return t
	}
	return `"` + t + `"`
}

// items are the mappings of a document: itself, or the elements of its list.
func items(doc *yaml.Node) []*yaml.Node {
	if len(doc.Content) != 1 {
		return nil
	}
	switch top := doc.Content[0]; top.Kind {
	case yaml.MappingNode:
		return doc.Content
	case yaml.SequenceNode:
		return slices.DeleteFunc(slices.Clone(top.Content), func(n *yaml.Node) bool { return n.Kind != yaml.MappingNode })
	}
	return nil
}

type edit struct {
	from, to int
	text     string
}

func apply(doc []byte, edits []edit) []byte {
	slices.SortFunc(edits, func(a, b edit) int { return a.from - b.from })
	var out []byte
	done := 0
	for _, e := range edits {
		out = append(append(out, doc[done:e.from]...), e.text...)
		done = e.to
	}
	return append(out, doc[done:]...)
}

func lineStarts(doc []byte) []int {
	starts := []int{0}
	for i, b := range doc {
		if b == '\n' {
			starts = append(starts, i+1)
		}
	}
	return starts
}

// span finds the bytes of a scalar that stands on one line.
func span(doc []byte, starts []int, node *yaml.Node) (from, to int, ok bool) {
	if node.Line < 1 || node.Line > len(starts) {
		return 0, 0, false
	}
	from = starts[node.Line-1]
	if node.Line == 1 && bytes.HasPrefix(doc, []byte("\uFEFF")) {
		from += len("\uFEFF")
	}
	for range node.Column - 1 {
		if from >= len(doc) {
			return 0, 0, false
		}
		_, size := utf8.DecodeRune(doc[from:])
		from += size
	}
	end := bytes.IndexByte(doc[from:], '\n')
	if end < 0 {
		end = len(doc) - from
	}
	rest := string(doc[from : from+end])
	switch {
	case node.Style&yaml.DoubleQuotedStyle != 0, node.Style&yaml.SingleQuotedStyle != 0:
		mark := rest[:min(1, len(rest))]
		// The value has no quotes or escapes, or it is not found.
		if rest == "" || !strings.HasPrefix(rest[1:], node.Value+mark) {
			return 0, 0, false
		}
		return from, from + len(node.Value) + 2, true
	case node.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0, !strings.HasPrefix(rest, node.Value):
		return 0, 0, false
	}
	return from, from + len(node.Value), true
}
