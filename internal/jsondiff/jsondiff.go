// Package jsondiff says what differs between two JSON documents, place by place. It is pure: documents in, changes out.
// Start with [Diff].
package jsondiff

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Op says what happened to a place.
type Op string

// The operations.
const (
	Add     Op = "add"
	Remove  Op = "remove"
	Replace Op = "replace"
)

// Change is one place that differs. Before is nil for Add, After for Remove.
type Change struct {
	// Path is "profile.givenName" or "metadata[0].key"; a key that is no plain word stands as labels["a.b"]. Empty is
	// the document itself.
	Path          string
	Op            Op
	Before, After json.RawMessage
}

// errNotJSON keeps the document out of the text of the error.
var errNotJSON = errors.New("not a JSON document")

// Diff returns the changes that lead from one document to the other, by path: objects by key (sorted), lists by
// position. Numbers are the same when they are spelled the same. At most limit changes are returned (0: all); more says
// that there were others.
func Diff(before, after []byte, limit int) (changes []Change, more bool, err error) {
	a, err := parse(before)
	if err != nil {
		return nil, false, err
	}
	b, err := parse(after)
	if err != nil {
		return nil, false, err
	}
	d := differ{limit: limit}
	d.value("", a, b)
	return d.changes, d.more, nil
}

func parse(text []byte) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, errNotJSON
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errNotJSON
	}
	return v, nil
}

type differ struct {
	limit   int
	changes []Change
	more    bool
}

func (d *differ) add(path string, op Op, before, after any) {
	if d.limit > 0 && len(d.changes) >= d.limit {
		d.more = true
		return
	}
	c := Change{Path: path, Op: op}
	if op != Add {
		c.Before = text(before)
	}
	if op != Remove {
		c.After = text(after)
	}
	d.changes = append(d.changes, c)
}

func text(v any) json.RawMessage {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if enc.Encode(v) != nil {
		return json.RawMessage("null") // cannot be: it was parsed from JSON
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

func (d *differ) value(path string, a, b any) {
	if d.more {
		return
	}
	switch x := a.(type) {
	case map[string]any:
		if y, ok := b.(map[string]any); ok {
			d.object(path, x, y)
			return
		}
	case []any:
		if y, ok := b.([]any); ok {
			d.list(path, x, y)
			return
		}
	default:
		switch b.(type) {
		case map[string]any, []any:
		default:
			if a == b {
				return
			}
		}
	}
	d.add(path, Replace, a, b)
}

func (d *differ) object(path string, a, b map[string]any) {
	keys := maps.Clone(a)
	maps.Copy(keys, b)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		x, inA := a[key]
		y, inB := b[key]
		at := member(path, key)
		switch {
		case !inB:
			d.add(at, Remove, x, nil)
		case !inA:
			d.add(at, Add, nil, y)
		default:
			d.value(at, x, y)
		}
	}
}

func (d *differ) list(path string, a, b []any) {
	for i := range max(len(a), len(b)) {
		at := path + "[" + strconv.Itoa(i) + "]"
		switch {
		case i >= len(b):
			d.add(at, Remove, a[i], nil)
		case i >= len(a):
			d.add(at, Add, nil, b[i])
		default:
			d.value(at, a[i], b[i])
		}
	}
}

func member(path, key string) string {
	plain := key != "" && !strings.ContainsFunc(key, func(r rune) bool {
		return r != '_' && r != '-' && r != '@' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
	switch {
	case !plain:
		return path + "[" + strconv.Quote(key) + "]"
	case path == "":
		return key
	default:
		return path + "." + key
	}
}
