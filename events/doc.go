// Package events knows events: what they look like to targets, how they are read
// from what others send, and how they get into the queue.
//
// Start with [Decode], which reads ZITADEL's event payload and CloudEvents, and
// [Sink], which matches an [Event] against the configuration and hands it to the
// queue: one delivery for all targets of the event, in order.
package events
