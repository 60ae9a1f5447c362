// Package proxy is the gateway's face to clients and to the upstream.
//
// [Proxy] is the http.Handler on the proxy port. It recognises each request on its headers alone (protocol and
// method), takes the current snapshot once, and asks it which executions match. Nothing matches: the bytes stream
// through and nothing is decoded. Something matches: the message is read (bounded), decoded by the schema and handed to
// the dispatcher, once before and once after the upstream; what comes back is put into the client's own protocol.
//
// Words: an operation is everything known about one request; an edge is one client protocol (protocol_*.go, one file
// each); a callError is an error that the gateway itself answers with, and errors.go is the only place where something
// that went wrong becomes one. [Server] is the listener side: HTTP/1.1, h2c and TLS, limits and draining.
//
// REST calls are found by the routes of the schema. A request that servers could take for calls of different methods
// (encoded slashes, steps back, X-HTTP-Method-Override, a content type of another protocol) is refused where something
// may veto any of them. An answer whose body a target changed goes without what the upstream said of the bytes that it
// had made: ETag, Last-Modified, digests.
//
// The handlers are written against net/http types only, so that whatever accepts the connection can drive them.
package proxy
