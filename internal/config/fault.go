package config

import (
	"fmt"
	"slices"
	"strings"
)

// Fault is one thing that is wrong with a configuration.
type Fault struct {
	File string // the file, or "" when the fault is in an environment variable
	Line int    // 0: the file as a whole
	Env  string // the environment variable, or ""
	Path string // the key, "proxy.listen"; "" for the file as a whole
	Text string // what is wrong; never the value of a secret
	Hint string // what to do
}

// String returns "file:line: path: fault; what to do".
func (f Fault) String() string {
	var b strings.Builder
	switch {
	case f.Env != "":
		b.WriteString(f.Env + ": ")
	case f.File != "" && f.Line > 0:
		fmt.Fprintf(&b, "%s:%d: ", f.File, f.Line)
	case f.File != "":
		b.WriteString(f.File + ": ")
	}
	if f.Path != "" {
		b.WriteString(f.Path + ": ")
	}
	b.WriteString(f.Text)
	if f.Hint != "" {
		b.WriteString("; " + f.Hint)
	}
	return b.String()
}

// Faults is the error of [Load] and [Config.Check]: every fault, in the order
// of the lines, those of the environment last.
type Faults []Fault

// Error returns one line for each fault.
func (fs Faults) Error() string {
	lines := make([]string, len(fs))
	for i, f := range fs {
		lines[i] = f.String()
	}
	return strings.Join(lines, "\n")
}

// err sorts the faults and returns them as an error, nil when there are none.
func (fs Faults) err() error {
	if len(fs) == 0 {
		return nil
	}
	slices.SortStableFunc(fs, func(a, b Fault) int {
		if (a.Env == "") != (b.Env == "") {
			if a.Env == "" {
				return -1
			}
			return 1
		}
		return a.Line - b.Line
	})
	return fs
}

// origin says where the value of a key came from.
type origin struct {
	file string
	line int
	env  string
}

// origins maps the path of a key to where it was set. Keys that were left to
// their default are absent.
type origins map[string]origin

// has says whether somebody set the key.
func (o origins) has(path string) bool {
	_, ok := o[path]
	return ok
}

// find returns the origin of path, or that of the nearest section around it.
func (o origins) find(path string) origin {
	for {
		if at, ok := o[path]; ok {
			return at
		}
		cut := strings.LastIndexAny(path, ".[")
		if cut < 0 {
			return o[""]
		}
		path = path[:cut]
	}
}
