package schema

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// template is a parsed path template of google.api.http:
//
//	Template  = "/" Segments [ ":" LITERAL ]
//	Segments  = Segment { "/" Segment }
//	Segment   = "*" | "**" | LITERAL | "{" FieldPath [ "=" Segments ] "}"
type template struct {
	segments  []segment
	variables []variable
	verb      string
	// deep is the index of the "**" segment, -1 if there is none.
	deep int
}

type segmentKind uint8

const (
	segmentLiteral segmentKind = iota
	segmentStar                // "*": one segment
	segmentDeep                // "**": any number of segments
)

type segment struct {
	kind segmentKind
	text string // of a literal, percent-decoded
}

// variable is a part of the path that names a field. It covers the template's
// segments from first up to, not including, end.
type variable struct {
	path       string
	first, end int
}

// multi reports whether the variable can hold more than one path segment.
func (t *template) multi(v variable) bool {
	return v.end-v.first > 1 || t.segments[v.first].kind == segmentDeep
}

func parseTemplate(s string) (*template, error) {
	if !strings.HasPrefix(s, "/") {
		return nil, errors.New("a path template starts with a slash")
	}
	p := &templateParser{rest: s[1:], t: &template{deep: -1}}
	if s == "/" {
		p.t.segments = []segment{{}}
		return p.t, nil
	}
	if err := p.segments(false); err != nil {
		return nil, err
	}
	if verb, ok := strings.CutPrefix(p.rest, ":"); ok {
		if verb == "" || strings.ContainsAny(verb, "/{}*") {
			return nil, errors.New("malformed verb")
		}
		p.t.verb, p.rest = verb, ""
	}
	if p.rest != "" {
		return nil, fmt.Errorf("unexpected %q", p.rest)
	}
	return p.t, nil
}

type templateParser struct {
	rest string
	t    *template
}

func (p *templateParser) segments(inVariable bool) error {
	for {
		if err := p.segment(inVariable); err != nil {
			return err
		}
		if !strings.HasPrefix(p.rest, "/") {
			return nil
		}
		p.rest = p.rest[1:]
	}
}

func (p *templateParser) segment(inVariable bool) error {
	switch {
	case strings.HasPrefix(p.rest, "{"):
		if inVariable {
			return errors.New("a variable within a variable")
		}
		return p.variable()
	case strings.HasPrefix(p.rest, "**"):
		if p.t.deep >= 0 {
			return errors.New(`more than one "**"`)
		}
		p.rest = p.rest[2:]
		p.t.deep = len(p.t.segments)
		p.t.segments = append(p.t.segments, segment{kind: segmentDeep})
	case strings.HasPrefix(p.rest, "*"):
		p.rest = p.rest[1:]
		p.t.segments = append(p.t.segments, segment{kind: segmentStar})
	default:
		return p.literal(inVariable)
	}
	return p.boundary()
}

// boundary refuses a wildcard that is only a part of a segment.
func (p *templateParser) boundary() error {
	if p.rest != "" && !strings.ContainsRune("/:}", rune(p.rest[0])) {
		return errors.New("a wildcard is a whole segment")
	}
	return nil
}

func (p *templateParser) literal(inVariable bool) error {
	end := strings.IndexAny(p.rest, "/{}*")
	if end < 0 {
		end = len(p.rest)
	}
	text := p.rest[:end]
	// A colon in the last segment starts the verb. Elsewhere it is a character
	// like others.
	if i := strings.LastIndexByte(text, ':'); i >= 0 && !inVariable && end == len(p.rest) {
		end, text = i, text[:i]
	}
	if text == "" {
		return errors.New("empty segment")
	}
	decoded, err := url.PathUnescape(text)
	if err != nil {
		return errors.New("malformed percent-encoding")
	}
	p.rest = p.rest[end:]
	p.t.segments = append(p.t.segments, segment{text: decoded})
	return nil
}

func (p *templateParser) variable() error {
	p.rest = p.rest[1:]
	end := strings.IndexAny(p.rest, "=}")
	if end <= 0 {
		return errors.New("malformed variable")
	}
	v := variable{path: p.rest[:end], first: len(p.t.segments)}
	for _, known := range p.t.variables {
		if known.path == v.path {
			return fmt.Errorf("variable %q appears twice", v.path)
		}
	}
	if p.rest[end] == '=' {
		p.rest = p.rest[end+1:]
		if err := p.segments(true); err != nil {
			return err
		}
	} else {
		p.rest = p.rest[end:]
		p.t.segments = append(p.t.segments, segment{kind: segmentStar})
	}
	if !strings.HasPrefix(p.rest, "}") {
		return errors.New("unclosed variable")
	}
	p.rest = p.rest[1:]
	v.end = len(p.t.segments)
	p.t.variables = append(p.t.variables, v)
	return p.boundary()
}

// mount puts the segments of base before those of the template.
func (t *template) mount(base string) error {
	base = strings.Trim(base, "/")
	if base == "" {
		return nil
	}
	var prefix []segment
	for _, text := range strings.Split(base, "/") {
		decoded, err := url.PathUnescape(text)
		if err != nil || text == "" {
			return fmt.Errorf("malformed base path %q", base)
		}
		prefix = append(prefix, segment{text: decoded})
	}
	t.segments = append(prefix, t.segments...)
	if t.deep >= 0 {
		t.deep += len(prefix)
	}
	for i := range t.variables {
		t.variables[i].first += len(prefix)
		t.variables[i].end += len(prefix)
	}
	return nil
}

// span returns which of n path segments the template's segments from first to
// end cover.
func (t *template) span(first, end, n int) (int, int) {
	if t.deep < 0 {
		return first, end
	}
	extra := n - len(t.segments) // what "**" covers beyond one segment; -1 for none
	if first > t.deep {
		first += extra
	}
	if end > t.deep {
		end += extra
	}
	return first, end
}
