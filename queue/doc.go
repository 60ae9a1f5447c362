// Package queue keeps deliveries that outlive the call that made them.
//
// A [Delivery] is one payload on its way to one target. There are two queues, with
// the same methods. [Memory] holds a bounded number of deliveries in this process
// and delivers each once, soon after it was accepted; what is still there when the
// process ends is lost. [Durable] puts them into a [Backend], which is a local file
// ([Embedded]) or a Redis that several gateways share ([Redis]), and delivers them
// out of it at least once: again and again as the target's [Schedule] says, until
// the target has it or it becomes a dead letter.
//
// # What is promised
//
// When Enqueue of a Durable returns nil, the delivery is in the file, in Redis, or,
// while Redis is away, in the [Spool] on disk. It reaches its target though gateways
// crash, Redis restarts (with AOF), or the target is down. It can reach it more than
// once: a crash repeats at most the calls that were under way, which are at most
// Concurrency for each target and gateway, because a place becomes free only when
// the outcome is written down. The receiver tells repetitions by webhook-id, which
// all attempts and replays share; execgate-attempt counts the attempts.
//
// # The life of a delivery
//
//	            2xx
//	pending ------------------------> delivered (in the ledger, without payload)
//	 |  ^  \
//	 |  |   `-- last attempt, 410 or other 4xx --> dead --- replay --> pending
//	 |  |
//	 |  breaker closes, target is enabled
//	 v  |
//	parked    breaker is open, target is disabled or unknown: no attempt is used up
//
// A target has a lane of its own in every backend, and a cap on the calls under way,
// so a slow target delays only its own deliveries. The lanes share the gateway's
// places in turn.
//
// An operator lists, replays and drops deliveries through [Desk].
//
// The package knows targets only as data, and nothing of executions but their
// names. The tests that every backend and queue must pass are in queuetest.
package queue
