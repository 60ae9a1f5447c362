package proxy

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http/httptest"
	"testing"
	"testing/iotest"

	"github.com/execgate/execgate/conditions"
	"github.com/execgate/execgate/dispatcher"
	"github.com/execgate/execgate/internal/testkit/demoapi"
	"github.com/execgate/execgate/schema"
)

// silent is a Dispatcher whose targets say nothing.
type silent struct{}

func (silent) Dispatch(context.Context, *dispatcher.Invocation) (dispatcher.Outcome, error) {
	return dispatcher.Outcome{}, nil
}

// FuzzStreamsPassByteForByte: whatever the upstream sends, and however it comes, where nothing is changed and nobody may
// veto the client gets the very same bytes.
func FuzzStreamsPassByteForByte(f *testing.F) {
	for _, seed := range []string{
		"", "\x00\x00\x00\x00\x02\x08\x01", "\x00\x00\x00\x00\x02\x08\x01\x00\x00\x00\x00\x00", "\x01\x00\x00\x00\x01x",
		"\x02\x00\x00\x00\x02{}\x00", "\x00\xff\xff\xff\xff123", "\x00\x00", "{\"result\":{\"number\":1}}\n{\"error\":{}}\n",
		" {\"result\" : {} } \n\n7\n", "{\"result\":1,\"result\":2}",
	} {
		f.Add([]byte(seed), uint16(100))
	}
	known, err := schema.FromDescriptorSet(demoapi.DescriptorSet())
	if err != nil {
		f.Fatal(err)
	}
	route, ok := known.Route("GET", "/demo/v1/count/1")
	if !ok {
		f.Fatal("no route")
	}
	method := route.Method()
	in, err := method.Input().Decode(nil)
	if err != nil {
		f.Fatal(err)
	}
	output := method.Output()
	f.Fuzz(func(t *testing.T, sent []byte, limit uint16) {
		for name, s := range map[string]splitter{
			"grpc":    &frames{encoding: "gzip", output: output, decode: output.Decode, encode: (*schema.Message).Wire},
			"connect": &frames{end: flagEndStream, output: output, decode: output.DecodeJSON, encode: (*schema.Message).Body},
			"rest":    &lines{route: route, output: output},
		} {
			r := httptest.NewRequest("POST", method.FullMethod, nil)
			op := newOperation(httptest.NewRecorder(), r)
			op.method, op.fullMethod, op.in = method, method.FullMethod, in
			op.response = &dispatcher.Plan{Execution: "response", Phase: conditions.Response, PerMessage: true}
			stream := &messageStream{
				p: &Proxy{dispatcher: silent{}, observer: noObserver{}}, op: op,
				src: bufio.NewReader(iotest.HalfReader(bytes.NewReader(sent))), split: s, limit: int64(limit),
			}
			got, err := io.ReadAll(stream)
			if err != nil || !bytes.Equal(got, sent) {
				t.Errorf("%s: %q became %q, %v", name, sent, got, err)
			}
		}
	})
}
