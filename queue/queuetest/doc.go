// Package queuetest holds the tests that every [queue.Backend] must pass, and
// those that every queue in front of targets must pass.
package queuetest
