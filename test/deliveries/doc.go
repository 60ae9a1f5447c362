// Package deliveries has the tests and the figures of deliveries that need real
// gateways: processes that are killed, on a Redis that is killed as well, in the
// middle of calls that come in by gRPC.
//
// `make crash` runs the tests with 100,000 deliveries each, `make
// bench-deliveries` takes the figures.
package deliveries
