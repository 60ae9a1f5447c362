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
// The handlers are written against net/http types only, so that whatever accepts the connection can drive them.
package proxy
