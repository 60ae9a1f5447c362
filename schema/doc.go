// Package schema knows what the upstream's API looks like, and turns its
// messages into JSON and back.
//
// A [Schema] is immutable: the methods, messages and REST routes of one set of
// descriptors. A [Learner] keeps the newest one, learned by server reflection
// or read from a descriptor set file. [Schema.Method] gives a [Method], whose
// [MessageType] decodes wire bytes or a JSON body into a [Message]; a Message
// says what it holds as JSON, takes a replacement, and gives the bytes to send
// on: the very bytes that came in as long as nothing changed.
// [Schema.Route] does the same for HTTP calls that google.api.http describes.
//
// Nothing of the upstream's API is compiled in and the global protobuf registry
// is never asked for the upstream's types, so its version of a type always wins.
package schema
