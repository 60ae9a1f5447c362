package config

import (
	"strings"

	"github.com/execgate/execgate/internal/strictyaml"
)

// Fault is one thing that is wrong with a configuration.
type Fault = strictyaml.Fault

// Faults is the error of [Load] and [Config.Check]: every fault, in the order
// of the lines, those of the environment last.
type Faults = strictyaml.Faults

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
