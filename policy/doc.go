// Package policy holds what an operator can say of a target, an execution or the whole gateway beyond what ZITADEL's
// Actions API has words for: the stored form, how a partial change is merged into it, what is valid, and what is in
// force where nothing was said.
//
// A policy lives in the store beside what it qualifies: a [Target] under the target's id, an [Execution] under the
// execution's id, a [Switch] under its name. The JSON names are a stable format, and fields that this version does not
// know survive being read and written.
//
// It is data and rules only: no I/O, no clock, nothing of ours imported.
package policy
