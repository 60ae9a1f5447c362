package demo

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// printer writes the tour: numbered steps, what belongs to a step indented.
type printer struct {
	out  io.Writer
	bold bool
}

// newPrinter prints bold titles on a terminal, unless NO_COLOR is set.
func newPrinter(out io.Writer) *printer {
	p := &printer{out: out}
	if f, ok := out.(*os.File); ok && os.Getenv("NO_COLOR") == "" {
		if info, err := f.Stat(); err == nil {
			p.bold = info.Mode()&os.ModeCharDevice != 0
		}
	}
	return p
}

func (p *printer) title(text string) {
	if p.bold {
		text = "\x1b[1m" + text + "\x1b[0m"
	}
	p.line(text)
}

func (p *printer) line(text string) { fmt.Fprintln(p.out, text) }

// say writes one indented line.
func (p *printer) say(format string, args ...any) {
	p.line("   " + fmt.Sprintf(format, args...))
}

// show writes a labelled piece of JSON on one line, so that two of them can be
// compared by eye.
func (p *printer) show(label string, value any) {
	p.say("%-14s %s", label, compact(value))
}

// compact is the JSON of a message, of JSON, or of anything else.
func compact(value any) string {
	var raw []byte
	switch v := value.(type) {
	case proto.Message:
		raw, _ = protojson.Marshal(v)
	case []byte:
		raw = v
	case string:
		raw = []byte(v)
	default:
		raw, _ = json.Marshal(v)
	}
	var out bytes.Buffer
	if json.Compact(&out, raw) != nil {
		return strings.TrimSpace(string(raw))
	}
	return out.String()
}

// valve is a writer that is shut until it is given somewhere to write.
type valve struct {
	mu  sync.Mutex
	out io.Writer
}

// Write drops what comes while the valve is shut.
func (v *valve) Write(b []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.out == nil {
		return len(b), nil
	}
	return v.out.Write(b)
}

func (v *valve) to(out io.Writer) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.out = out
}
