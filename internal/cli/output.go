package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// format is how a result is written.
type format uint8

const (
	table format = iota
	asJSON
	asYAML
)

var formatNames = [...]string{table: "table", asJSON: "json", asYAML: "yaml"}

// String implements pflag.Value.
func (f *format) String() string { return formatNames[*f] }

// Set implements pflag.Value.
func (f *format) Set(name string) error {
	for i, n := range formatNames {
		if n == name {
			*f = format(i)
			return nil
		}
	}
	return fmt.Errorf("write table, json or yaml")
}

// Type implements pflag.Value.
func (f *format) Type() string { return "FORMAT" }

func outputFlag(cmd *cobra.Command, f *format) {
	cmd.Flags().VarP(f, "output", "o", "how to write the result: table, json or yaml")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formatNames[:], cobra.ShellCompDirectiveNoFileComp))
}

// member is one field of an object that is put together here.
type member struct {
	name  string
	value any // proto.Message, []proto.Message, []members, members, or what encoding/json takes
}

// members is a JSON object that keeps the order of its fields.
type members []member

// MarshalJSON implements json.Marshaler.
func (m members) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, field := range m {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(field.name)
		if err != nil {
			return nil, err
		}
		value, err := marshal(field.value)
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// marshal writes compact JSON. In messages, fields without a value of their own
// are written too (an empty list as []), so that programs need not guess.
func marshal(value any) ([]byte, error) {
	message, ok := value.(proto.Message)
	if !ok {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		if err := e.Encode(value); err != nil {
			return nil, err
		}
		return bytes.TrimSpace(b.Bytes()), nil
	}
	text, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(message)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer // protojson spaces at random, so that nobody compares its text
	if err := json.Compact(&b, text); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// fieldsOf returns the fields of a message as members, in the order of the
// message.
func fieldsOf(message proto.Message) (members, error) {
	text, err := marshal(message)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if _, err := d.Token(); err != nil { // {
		return nil, err
	}
	var m members
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, err
		}
		m = append(m, member{fmt.Sprint(name), value})
	}
	return m, nil
}

// without returns the members but for one.
func (m members) without(name string) members {
	var out members
	for _, field := range m {
		if field.name != name {
			out = append(out, field)
		}
	}
	return out
}

// show writes the value with -o json or yaml, and otherwise lets people do the
// writing.
func (s *session) show(value any, people func(w io.Writer)) error {
	if s.format == table {
		var b bytes.Buffer
		people(&b)
		_, err := s.out().Write(b.Bytes())
		return err
	}
	text, err := marshal(value)
	if err != nil {
		return err
	}
	if s.format == asYAML {
		return writeYAML(s.out(), text)
	}
	var b bytes.Buffer
	if err := json.Indent(&b, text, "", "  "); err != nil {
		return err
	}
	b.WriteByte('\n')
	_, err = s.out().Write(b.Bytes())
	return err
}

// writeYAML writes JSON as YAML, in the same order.
func writeYAML(w io.Writer, text []byte) error {
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return err
	}
	var block func(n *yaml.Node)
	block = func(n *yaml.Node) {
		n.Style = 0
		for _, child := range n.Content {
			block(child)
		}
	}
	block(&document)
	e := yaml.NewEncoder(w)
	e.SetIndent(2)
	if err := e.Encode(&document); err != nil {
		return err
	}
	return e.Close()
}

// grid collects the rows of a table.
type grid struct {
	head []string
	rows [][]string
}

func (g *grid) row(cells ...string) { g.rows = append(g.rows, cells) }

// write aligns the columns. Without rows it says so instead.
func (g *grid) write(w io.Writer, none string) {
	if len(g.rows) == 0 && none != "" {
		_, _ = fmt.Fprintln(w, none)
		return
	}
	var b bytes.Buffer
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	if g.head != nil {
		_, _ = fmt.Fprintln(t, strings.Join(g.head, "\t"))
	}
	for _, row := range g.rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			if cells[i] = cellText(cell); g.head == nil && cell == "" {
				cells[i] = "" // a dash says which column it is of
			}
		}
		_, _ = fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	_ = t.Flush() // into memory
	for line := range strings.Lines(b.String()) {
		_, _ = fmt.Fprintln(w, strings.TrimRight(line, " \n"))
	}
}

// cellText is text on one line; an empty cell is a dash.
func cellText(s string) string {
	if s == "" {
		return "-"
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, plainText(s))
}

// plainText takes out what would steer a terminal: names and messages come from
// others.
func plainText(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}
