// Package configfile is the file format of configuration as code: targets and executions by name, as YAML or JSON, one
// document each. [Parse] reads it and finds every fault in one pass, with its line; [Print] writes it in one order, so
// that what was printed parses to the same and prints to the same.
//
// It knows the shape of a file and not what is stored: whether a name is taken, a reference leads anywhere or a URL may
// be called is for admin to say, with [Target.Fault] and [Execution.Fault] for the line. It reads no files.
package configfile
