// Package strictyaml decodes YAML nodes into structs for files that people
// write: unknown keys are faults, every fault is found in one pass, and each
// names its line, its path and what to do. [Decoder.Value] is where to start;
// fields are named by their `key` tag.
//
// It reads nodes and nothing else: no files, no defaults, no meaning. It imports
// none of ours.
package strictyaml
