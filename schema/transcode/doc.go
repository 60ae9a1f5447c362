// Package transcode turns the wire form of protobuf messages into JSON and back,
// driven by tables that are compiled from descriptors, one message type at a time,
// when the type is first used.
//
// [NewTypes] knows the types of one set of files; a [Type] reads bytes
// ([Type.ReadWire]) or JSON ([Type.ReadJSON]) into a [Tree], and a Tree gives
// either form back ([Tree.AppendJSON], [Tree.AppendWire]). A Tree is one array
// without pointers beside the bytes that were read, which it refers to and does
// not copy. [KeepUnknown] and [Equal] are what a replacement needs, [Patch] writes
// a JSON body anew where it changed, and a [Node] reads and sets single fields.
//
// The rules are those of protojson over dynamicpb: the same output, blanks aside,
// the same inputs taken and refused, the same message read. The tests hold the two
// against each other. It differs on purpose in these points:
//
//   - The text of errors: place, path of the field and what is wrong, never a value.
//   - A replacement is one JSON value and an error otherwise; [JSONOptions.Lenient]
//     also stops behind the first value, as servers do that read from a stream.
//   - A message of a type whose declaration is missing, or that carries the name of
//     a well-known type without its shape, is an error and not a panic.
//   - An entry of a map whose key comes again in another wire type keeps the key:
//     protobuf panics. The payload of a NaN is kept on the wire.
//   - Wire bytes over 1 GiB and JSON over 512 MiB are refused.
package transcode
