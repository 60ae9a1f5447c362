package configfile

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"google.golang.org/protobuf/proto"
)

// Print writes a document as YAML: first what it is an export of, then the targets by name, then the executions by id.
// The document is not changed. Parsing the text again gives the same document.
func Print(d *Document) []byte {
	w := new(writer)
	if e := d.Export; e != nil {
		w.begin("Export")
		w.line("format: " + strconv.Itoa(e.Format))
		w.optional("instance", e.Instance)
		w.line("revision: " + strconv.FormatUint(e.Revision, 10))
		if !e.Changed.IsZero() {
			w.line("changed: " + text(e.Changed.UTC().Format(time.RFC3339Nano)))
		}
		w.line("signing_keys: " + strconv.FormatBool(e.SigningKeys))
	}
	for _, t := range slices.SortedStableFunc(slices.Values(d.Targets), func(a, b *Target) int {
		return cmp.Or(strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name)), strings.Compare(a.Name, b.Name))
	}) {
		w.target(t)
	}
	for _, e := range slices.SortedStableFunc(slices.Values(d.Executions), func(a, b *Execution) int {
		return strings.Compare(a.Condition.ID(), b.Condition.ID())
	}) {
		w.execution(e)
	}
	return w.out.Bytes()
}

type writer struct {
	out   bytes.Buffer
	depth int
}

func (w *writer) line(s string) {
	for range w.depth {
		w.out.WriteString("  ")
	}
	w.out.WriteString(s)
	w.out.WriteByte('\n')
}

func (w *writer) begin(kind string) {
	if w.out.Len() > 0 {
		w.out.WriteString("---\n")
	}
	w.line("kind: " + kind)
}

func (w *writer) optional(key, value string) {
	if value != "" {
		w.line(key + ": " + text(value))
	}
}

func (w *writer) flag(key string, value bool) {
	if value {
		w.line(key + ": true")
	}
}

func (w *writer) target(t *Target) {
	w.begin("Target")
	w.line("name: " + text(t.Name))
	if t.Type != "" {
		w.line(string(t.Type) + ":")
		w.depth++
		w.line("url: " + text(t.URL))
		w.depth--
	}
	w.line("timeout: " + t.Timeout.String())
	w.flag("async", t.Async)
	w.flag("interrupt_on_error", t.InterruptOnError)
	w.optional("payload_type", t.PayloadType)
	w.optional("signing_key", t.SigningKey)
	w.publicKeys(t.PublicKeys)
	w.policy(t.Policy)
}

func (w *writer) publicKeys(keys []PublicKey) {
	if keys == nil {
		return
	}
	if len(keys) == 0 {
		w.line("public_keys: []")
		return
	}
	w.line("public_keys:")
	w.depth++
	for _, k := range keys {
		if isBlock(k.PEM) {
			w.line("- pem: |")
			w.depth += 2
			for line := range strings.SplitSeq(strings.TrimSuffix(k.PEM, "\n"), "\n") {
				w.line(line)
			}
			w.depth -= 2
		} else {
			w.line("- pem: " + text(k.PEM))
		}
		w.depth++
		w.optional("id", k.ID)
		w.flag("active", k.Active)
		if !k.Expires.IsZero() {
			w.line("expires: " + text(k.Expires.UTC().Format(time.RFC3339Nano)))
		}
		w.depth--
	}
	w.depth--
}

// block matches what a literal block can hold as it is: lines of visible ASCII, not indented, with one end of line each.
var block = regexp.MustCompile(`^([!-~]([ -~]*[!-~])?\n)+$`)

func isBlock(s string) bool { return block.MatchString(s) }

func (w *writer) execution(e *Execution) {
	w.begin("Execution")
	w.line("condition: " + text(e.Condition.ID()))
	includes := make([]string, len(e.Includes))
	for i, c := range e.Includes {
		includes[i] = c.ID()
	}
	switch {
	case len(includes) > 0:
		w.list("includes", includes)
		if len(e.Targets) > 0 {
			w.list("targets", e.Targets)
		}
	case len(e.Targets) > 0:
		w.list("targets", e.Targets)
	default:
		w.line("targets: []")
	}
	w.policy(e.Policy)
}

func (w *writer) list(key string, values []string) {
	w.line(key + ":")
	w.depth++
	for _, v := range values {
		w.line("- " + text(v))
	}
	w.depth--
}

func (w *writer) policy(p proto.Message) {
	if m := p.ProtoReflect(); m.IsValid() {
		w.message("policy", m)
	}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

var (
	// plain matches strings that are themselves without quotes, words aside.
	plain = regexp.MustCompile(`^[A-Za-z/][A-Za-z0-9_./@?=&%+~:*-]*$`)
	words = map[string]bool{
		"true": true, "false": true, "yes": true, "no": true, "on": true, "off": true, "y": true, "n": true, "null": true,
	}
)

// text is a string as one word of YAML.
func text(s string) string {
	if plain.MatchString(s) && !words[strings.ToLower(s)] && !strings.HasSuffix(s, ":") {
		return s
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r >= ' ' && r <= '~', r > 0xA0 && unicode.IsPrint(r):
			b.WriteRune(r)
		case r <= 0xFF:
			fmt.Fprintf(&b, `\x%02X`, r)
		case r <= 0xFFFF:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			fmt.Fprintf(&b, `\U%08X`, r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
