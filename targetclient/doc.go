// Package targetclient makes one bounded, signed, breaker-guarded HTTP call to
// one target and says what came back.
//
// Start with [Client.Do]. A [Target] is where to call, a [Call] one delivery to
// it, a [Result] what came back, and an [Error] why nothing useful did, by one
// of a closed set of reasons.
//
// The package knows nothing of conditions, of the order of targets, of what an
// answer does to a message, of retries or of gRPC: one call in, one answer out.
// HTTP/1.1 is spoken by the package itself: a call needs no goroutine, and an
// idle connection neither. HTTP/2, which a host may choose in its TLS handshake,
// is net/http's. What an answer may be is what net/http takes, except that an
// answer that can be read in two ways is refused, or ends its connection.
//
// It uses no proxy, the environment's (HTTP_PROXY and the like) included: the
// deny list is checked against the address that is dialled, and behind a proxy
// that would be the proxy's.
package targetclient
