package schema

import "google.golang.org/protobuf/reflect/protoreflect"

func (t *types) keepUnknown(before, after protoreflect.Message) {}
