// Package conditions says which execution, if any, a trigger runs: a phase of a
// proxied call, a function, or an event.
//
// A [Condition] is when, and its id is how it is stored and spelled. An
// [Execution] binds one condition to an ordered list of targets. An [Index] is
// compiled once from all executions of one configuration, with includes
// resolved and fallbacks filled in, and answers with a [Match]. Start with
// [NewIndex] and [Index.Call].
//
// The package is pure data and lookup: no I/O, no clock, no logger, no
// protobuf. What it cannot resolve it reports as a [Problem] and goes on.
package conditions
