// Package h1 serves HTTP/1.1 and relays it: the front door of the gateway for requests that match nothing.
//
// An [Engine] takes clients' connections (TLS done, if there is any). The head of a request is parsed strictly and where it
// lies; on it alone a [Director] decides. The request is relayed over one of a pool of keep-alive connections to the
// upstream, without an http.Request or a header map of its own; or it is handed to net/http's server, on the same
// connection and for this one request, so that handlers see what they always saw. Start with [New] and
// [Engine.ServeConn].
//
// Words: an exchange is one request and its answer; a loan is a client's connection as net/http sees it, for the time of
// one request; the side of a connection is the goroutine that reads from the client while the answer is on its way.
//
// Who does the work: each connection has a goroutine, which serves one exchange after the other. When many connections are
// busy (Options.LoopFrom), and on Linux, goroutines hand theirs to event loops, one for each processor, with epoll sets
// of their own, which cost less for each exchange when there is always something to do. A loop relays what is simple: a
// request that was whole when it was read, a connection to the upstream that is free, an answer with a length, or
// without a body, that comes whole. It never waits for one connection. Whatever else comes, it gives the connection back
// to its goroutine, in the middle of an exchange if need be, so that every rule is written once: in the goroutine's code.
//
// How requests are kept apart: what is not certainly one request is refused, and the connection closed. That is both
// Content-Length and Transfer-Encoding, either of them twice, a transfer coding other than chunked, a length that is not
// digits alone, folded lines, lines that do not end in CRLF, control characters, names that are no tokens. Chunked
// bodies are taken apart and put together anew, without extensions, and heads are written anew, so that nothing the
// client framed reaches the upstream in the client's framing.
//
// How requests are retried: one that was certainly not sent, always; one that was sent on a connection that the upstream
// ended without a byte of an answer, once, if its method is safe and its body (if any) is still here.
//
// How memory is bounded: a connection that waits for its next request holds no buffer. One in an exchange holds what its
// head needs (up to Options.MaxHeaderBytes) and a buffer for each direction; nothing is read before what was read
// has been sent on.
package h1
