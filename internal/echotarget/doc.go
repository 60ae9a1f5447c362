// Package echotarget is a target to try things with: it shows what it is sent
// and answers in one of a few ways.
//
// Run is the command "execgate echo-target". NewHandler is the same without the
// listener; the demo mounts several.
package echotarget
