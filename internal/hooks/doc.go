// Package hooks is the face to those who call the gateway about what happens in
// the identity provider: the provider itself, which has the gateway run a
// function, and senders of events.
//
// Start with [New], which returns the handler of the hooks listener.
package hooks
