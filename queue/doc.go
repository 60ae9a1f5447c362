// Package queue keeps deliveries that outlive the call that made them.
//
// A [Delivery] is one payload on its way to one target. [Memory] holds a bounded
// number of them in this process and delivers each once, soon after it was
// accepted; what is still there when the process ends is lost. Nothing that is
// enqueued ever makes the enqueuing call wait: a queue that cannot take a
// delivery says so at once ([ErrFull], [ErrTargetFull], [ErrStopped]).
//
// The package knows targets only as data, and nothing of executions but their
// names.
package queue
