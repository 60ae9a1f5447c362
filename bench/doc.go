// Command bench measures the gateway beside the proxies that people would otherwise use, in front of the same upstream:
// nginx, HAProxy and nghttpx, as far as they are installed, each with a configuration made for speed (templates/).
//
//	bench                             the whole table
//	bench -scenario unary-4x16        one scenario, or several by pattern
//	bench -list                       what there is
//
// Start with README.md, which says what the columns mean. In the code: a [scenario] is a kind of load; a [contender] is
// what it is put on, in processes of its own; a round measures every contender once, and rounds follow one another, so
// that what disturbs the machine disturbs all of them. The load generator (load*.go) and the upstream (upstream*.go) are
// event loops on epoll, which take far less CPU than any of the proxies.
//
// It runs on Linux alone: what processes took is read from /proc.
package main
