// Package store keeps the configuration of a gateway: targets, executions, their policies, switches, and what is
// remembered of deleted ones. It stores data and knows no rules: what may be written is decided by its callers.
//
// The words: an [Item] is one JSON value under a kind and an id. A [Commit] replaces several items at once, on top of
// one revision, or not at all. A [Revision] is a commit as the log remembers it. A [Store] is a backend (an embedded
// file, [OpenEmbedded], or Redis, [OpenRedis]); storetest holds the tests that every backend passes. A [State] is the
// immutable, typed view of one revision.
//
// Start with [Replica]: it keeps the current [State] of a [Store], goes on serving the last known one while the store
// is away, and is the way to change it.
package store
