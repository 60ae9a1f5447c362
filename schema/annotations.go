package schema

import (
	"errors"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
)

// Extension numbers of the two options that describe an API's HTTP form.
const (
	httpRuleNumber  protowire.Number = 72295728 // google.api.http
	openAPINumber   protowire.Number = 1042     // openapiv2_swagger
	openAPIBasePath protowire.Number = 4        // Swagger.base_path
)

// optionBytes returns the content of every occurrence of a message-typed
// extension of options, joined as protobuf merges them. Nil means absent.
func optionBytes(options proto.Message, number protowire.Number) []byte {
	if !options.ProtoReflect().IsValid() {
		return nil
	}
	return fieldBytes(options.ProtoReflect().GetUnknown(), number)
}

// fieldBytes joins every length-delimited field number of a message.
func fieldBytes(b []byte, number protowire.Number) []byte {
	var joined []byte
	for len(b) > 0 {
		n, typ, size := protowire.ConsumeTag(b)
		if size < 0 {
			break
		}
		b = b[size:]
		size = protowire.ConsumeFieldValue(n, typ, b)
		if size < 0 {
			break
		}
		if n == number && typ == protowire.BytesType {
			content, _ := protowire.ConsumeBytes(b)
			joined = append(joined, content...)
			if joined == nil {
				joined = []byte{}
			}
		}
		b = b[size:]
	}
	return joined
}

// httpRule returns the google.api.http option of a method, nil if it has none.
func httpRule(options *descriptorpb.MethodOptions) (*annotations.HttpRule, error) {
	b := optionBytes(options, httpRuleNumber)
	if b == nil {
		return nil, nil
	}
	rule := &annotations.HttpRule{}
	if err := proto.Unmarshal(b, rule); err != nil {
		return nil, errors.New("unreadable google.api.http option")
	}
	return rule, nil
}

// basePath returns the base_path of a file's openapiv2_swagger option.
func basePath(options *descriptorpb.FileOptions) string {
	swagger := optionBytes(options, openAPINumber)
	var path string
	for b := swagger; len(b) > 0; {
		n, typ, size := protowire.ConsumeTag(b)
		if size < 0 {
			break
		}
		b = b[size:]
		size = protowire.ConsumeFieldValue(n, typ, b)
		if size < 0 {
			break
		}
		if n == openAPIBasePath && typ == protowire.BytesType {
			content, _ := protowire.ConsumeBytes(b)
			path = string(content) // the last one wins, as in any message
		}
		b = b[size:]
	}
	return path
}
