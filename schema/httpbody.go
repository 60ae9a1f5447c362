package schema

import (
	"errors"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/execgate/execgate/schema/transcode"
)

// google.api.HttpBody is not sent as JSON: its data is the HTTP body. The content
// type stands in a header, which is not ours to read or to change here, so the
// field is left unset.
const httpBodyName protoreflect.FullName = "google.api.HttpBody"

// isRawBody reports whether md is sent as it is.
func isRawBody(md protoreflect.MessageDescriptor) bool {
	return md.FullName() == httpBodyName && dataField(md) != nil
}

func isRawField(fd protoreflect.FieldDescriptor) bool {
	return fd.Message() != nil && fd.Cardinality() != protoreflect.Repeated && isRawBody(fd.Message())
}

func dataField(md protoreflect.MessageDescriptor) protoreflect.FieldDescriptor {
	fd := md.Fields().ByNumber(2)
	if fd == nil || fd.Kind() != protoreflect.BytesKind || fd.IsList() {
		return nil
	}
	return fd
}

func setRawBody(m transcode.Node, body []byte) {
	m.Set(dataField(m.Descriptor()), protoreflect.ValueOfBytes(body))
}

// rawBody returns the data of after. Anything else has no place in the body.
func rawBody(before, after transcode.Node) ([]byte, error) {
	data := dataField(after.Descriptor())
	for fd := range after.Fields() {
		if fd.Number() != data.Number() && !after.Same(before, fd) {
			return nil, errors.New("only the data of a google.api.HttpBody can be changed")
		}
	}
	return after.Get(data).Scalar().Bytes(), nil
}
