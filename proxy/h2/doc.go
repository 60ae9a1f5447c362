// Package h2 serves HTTP/2 and relays it frame by frame: the front door of the gateway for calls that match nothing.
//
// An [Engine] takes clients' connections, h2c with prior knowledge or TLS with ALPN. On a request's headers alone a
// [Director] decides: the call is relayed over one of a few connections that all clients share to the upstream, without
// a goroutine, an http.Request or a header map of its own; or it is handed to an http.Handler, which sees what it would
// see from net/http's server. Start with [New] and [Engine.Serve].
//
// Words: a stream is one of HTTP/2's, on one connection; a call is a relayed request, two streams, its halves; the limbo
// is where a call's upstream half is while it waits for a connection.
//
// How memory is bounded: what cannot be sent on waits in its stream's queue, and its source gets window back only as
// the queue empties. A stream's window is 64 KiB, and doubles up to 1 MiB as long as what comes goes straight on; all
// windows of one client's calls together grow by no more than Options.MaxBuffered. Request bodies beyond MaxBuffered stop the
// client's connection. Output that a socket does not take stops at 256 KiB of DATA, and at 1 MiB of anything the peer is
// not read from any more. What is written at once is written from the input that it came in; what has to wait, in either
// place, is a copy, since a few bytes would otherwise keep a whole input. Input that is not worked on yet is 64 KiB at most, and 256 KiB on a connection to the upstream.
package h2
