package schema

import "google.golang.org/protobuf/reflect/protoreflect"

func firstJSONValue(b []byte) ([]byte, error) { return b, nil }

func compact(b []byte) []byte { return b }

func (t *MessageType) patch(body []byte, before, after protoreflect.Message, skip any) ([]byte, error) {
	return nil, nil
}
