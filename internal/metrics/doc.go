// Package metrics counts what the gateway does, for Prometheus.
//
// [Metrics] implements the Observer interfaces that the other packages
// declare: they tell it what happened and know nothing of Prometheus. What is a
// state and not an event (breakers, the snapshot, the store) is read from
// [Sources] when it is scraped. The names are those of the specification
// (D-58, D-60, D-61).
//
// On the path of a call nothing is allocated and no lock is taken: the series
// of a label combination is looked up in an immutable map.
package metrics
