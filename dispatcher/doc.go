// Package dispatcher turns one invocation, a phase of a proxied call that has an
// execution, into ordered calls of targets, and what they answer into one
// outcome.
//
// A [Snapshot] is one generation of configuration; it finds the [Plan] of a
// call. [Dispatcher.Dispatch] walks the targets of the plan: a webhook is told, a
// call's answer becomes the message, an async target gets a delivery in the
// queue. It ends with an [Outcome], with an [InterruptError] when a target said
// no and may, or with a [CallerGoneError].
//
// The package speaks JSON bytes and [Message]; it knows no protobuf, no client
// protocol and no status code of one.
package dispatcher
