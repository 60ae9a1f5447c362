package admin_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/api/annotations"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	zitadelpb "github.com/execgate/execgate/gen/zitadel/v1"
)

// protocol is how a test client speaks.
type protocol string

const (
	overGRPC        protocol = "gRPC"
	overREST        protocol = "REST"
	overGRPCWeb     protocol = "gRPC-Web"
	overGRPCWebText protocol = "gRPC-Web text"
	overConnectJSON protocol = "Connect JSON"
	overConnect     protocol = "Connect proto"
)

var allProtocols = []protocol{overGRPC, overREST, overGRPCWeb, overGRPCWebText, overConnectJSON, overConnect}

// outcome is what a client saw besides the message.
type outcome struct {
	code    codes.Code
	http    int // 0 over gRPC
	message string
	detail  *zitadelpb.ErrorDetail
	body    string // over HTTP
}

// each runs a test once per protocol, in parallel.
func each(t *testing.T, protocols []protocol, test func(t *testing.T, p protocol)) {
	t.Helper()
	for _, p := range protocols {
		t.Run(string(p), func(t *testing.T) {
			t.Parallel()
			test(t, p)
		})
	}
}

// methodOf finds the RPC that takes the message.
func methodOf(t testing.TB, req proto.Message) protoreflect.MethodDescriptor {
	t.Helper()
	for _, service := range []protoreflect.FullName{"zitadel.resources.action.v3alpha.ZITADELActions", "zitadel.action.v2.ActionService", "execgate.v1.GatewayService"} {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(service)
		if err != nil {
			t.Fatal(err)
		}
		methods := d.(protoreflect.ServiceDescriptor).Methods()
		for i := range methods.Len() {
			if methods.Get(i).Input() == req.ProtoReflect().Descriptor() {
				return methods.Get(i)
			}
		}
	}
	t.Fatalf("no RPC takes a %T", req)
	return nil
}

func fullMethod(m protoreflect.MethodDescriptor) string {
	return fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name())
}

func newOutput(t testing.TB, m protoreflect.MethodDescriptor) proto.Message {
	t.Helper()
	mt, err := protoregistry.GlobalTypes.FindMessageByName(m.Output().FullName())
	if err != nil {
		t.Fatal(err)
	}
	return mt.New().Interface()
}

// call makes one RPC with the token of the fixture.
func (f *fixture) call(p protocol, req proto.Message) (proto.Message, outcome) {
	f.t.Helper()
	method := methodOf(f.t, req)
	res := newOutput(f.t, method)
	switch p {
	case overGRPC:
		ctx := f.t.Context()
		if f.token != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+f.token)
		}
		return res, statusOutcome(f.t, f.conn.Invoke(ctx, fullMethod(method), req, res))
	case overREST:
		return res, f.callREST(method, req, res)
	case overConnect, overConnectJSON:
		return res, f.callConnect(p, fullMethod(method), req, res)
	default:
		return res, f.callGRPCWeb(p, fullMethod(method), req, res)
	}
}

func statusOutcome(t testing.TB, err error) outcome {
	t.Helper()
	st := status.Convert(err)
	return withDetails(t, outcome{code: st.Code(), message: st.Message()}, st.Proto())
}

func withDetails(t testing.TB, out outcome, st *spb.Status) outcome {
	t.Helper()
	for _, d := range st.GetDetails() {
		detail := new(zitadelpb.ErrorDetail)
		if err := d.UnmarshalTo(detail); err != nil {
			t.Fatal(err)
		}
		out.detail = detail
	}
	return out
}

// do sends an HTTP request with the token of the fixture and reads the answer.
func (f *fixture) do(method, path, contentType string, body []byte, headers ...string) (*http.Response, []byte) {
	f.t.Helper()
	req, err := http.NewRequestWithContext(f.t.Context(), method, "http://"+f.address+path, bytes.NewReader(body))
	if err != nil {
		f.t.Fatal(err)
	}
	if f.token != "" {
		req.Header.Set("Authorization", "Bearer "+f.token)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := f.http.Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return res, answer
}

// rest sends a REST request and reads the error of the answer, if it is one.
func (f *fixture) rest(method, path, body string) outcome {
	f.t.Helper()
	contentType := ""
	if body != "" {
		contentType = "application/json"
	}
	res, answer := f.do(method, path, contentType, []byte(body))
	out := outcome{http: res.StatusCode, body: string(answer)}
	if res.StatusCode < 400 {
		return out
	}
	st := new(spb.Status)
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(answer, st); err != nil && len(answer) > 0 {
		f.t.Fatalf("%s %s: error body %q: %v", method, path, answer, err)
	}
	out.code, out.message = codes.Code(st.GetCode()), st.GetMessage()
	return withDetails(f.t, out, st)
}

// callREST follows the HTTP rule of the method.
func (f *fixture) callREST(m protoreflect.MethodDescriptor, req, res proto.Message) outcome {
	f.t.Helper()
	verb, path, body := transcode(f.t, m, req)
	out := f.rest(verb, path, body)
	if out.http < 300 {
		if err := protojson.Unmarshal([]byte(out.body), res); err != nil {
			f.t.Fatalf("%s %s: body %q: %v", verb, path, out.body, err)
		}
	}
	return out
}

// transcode turns a message into what its HTTP rule says. It knows the rules of this API, not all there can be.
func transcode(t testing.TB, m protoreflect.MethodDescriptor, req proto.Message) (verb, path, body string) {
	t.Helper()
	rule := proto.GetExtension(m.Options(), annotations.E_Http).(*annotations.HttpRule)
	switch p := rule.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		verb, path = "GET", p.Get
	case *annotations.HttpRule_Put:
		verb, path = "PUT", p.Put
	case *annotations.HttpRule_Post:
		verb, path = "POST", p.Post
	case *annotations.HttpRule_Delete:
		verb, path = "DELETE", p.Delete
	case *annotations.HttpRule_Patch:
		verb, path = "PATCH", p.Patch
	}
	raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	fields := make(map[string]json.RawMessage)
	if err := json.Unmarshal(raw, &fields); err != nil {
		t.Fatal(err)
	}
	all := req.ProtoReflect().Descriptor().Fields()
	for i := range all.Len() {
		name := string(all.Get(i).Name())
		for _, variable := range []string{"{" + name + "}", "{" + name + "=**}"} {
			if strings.Contains(path, variable) {
				path = strings.Replace(path, variable, url.PathEscape(req.ProtoReflect().Get(all.Get(i)).String()), 1)
				delete(fields, name)
			}
		}
	}
	switch rule.GetBody() {
	case "":
	case "*":
		b, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		return verb, path, string(b)
	default:
		body = string(fields[rule.GetBody()])
		delete(fields, rule.GetBody())
	}
	query := make(url.Values)
	addQuery(t, query, "", fields)
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return verb, path, body
}

func addQuery(t testing.TB, query url.Values, prefix string, fields map[string]json.RawMessage) {
	t.Helper()
	for name, raw := range fields {
		nested := make(map[string]json.RawMessage)
		if json.Unmarshal(raw, &nested) == nil {
			addQuery(t, query, prefix+name+".", nested)
			continue
		}
		var value any
		if err := json.Unmarshal(raw, &value); err != nil {
			t.Fatal(err)
		}
		if list, ok := value.([]any); ok {
			for _, v := range list {
				query.Add(prefix+name, fmt.Sprint(v))
			}
			continue
		}
		query.Add(prefix+name, fmt.Sprint(value))
	}
}

func (f *fixture) callConnect(p protocol, method string, req, res proto.Message) outcome {
	f.t.Helper()
	contentType, marshal, unmarshal := "application/proto", proto.Marshal, proto.Unmarshal
	if p == overConnectJSON {
		contentType, marshal, unmarshal = "application/json", protojson.Marshal, protojson.Unmarshal
	}
	body, err := marshal(req)
	if err != nil {
		f.t.Fatal(err)
	}
	response, answer := f.do("POST", method, contentType, body, "Connect-Protocol-Version", "1")
	out := outcome{http: response.StatusCode, body: string(answer)}
	if response.StatusCode == 200 {
		if err := unmarshal(answer, res); err != nil {
			f.t.Fatal(err)
		}
		return out
	}
	var failure struct {
		Code    string `json:"code"`
		Message string `json:"message"`
		Details []struct{ Type, Value string }
	}
	if err := json.Unmarshal(answer, &failure); err != nil {
		f.t.Fatalf("%s: error body %q: %v", method, answer, err)
	}
	if err := out.code.UnmarshalJSON([]byte(strconv.Quote(strings.ToUpper(failure.Code)))); err != nil {
		f.t.Fatal(err)
	}
	out.message = failure.Message
	for _, d := range failure.Details {
		value, err := base64.RawStdEncoding.DecodeString(d.Value)
		if err != nil || d.Type != "zitadel.v1.ErrorDetail" {
			f.t.Fatalf("detail %s: %v", d.Type, err)
		}
		out.detail = new(zitadelpb.ErrorDetail)
		if err := proto.Unmarshal(value, out.detail); err != nil {
			f.t.Fatal(err)
		}
	}
	return out
}

func (f *fixture) callGRPCWeb(p protocol, method string, req, res proto.Message) outcome {
	f.t.Helper()
	message, err := proto.Marshal(req)
	if err != nil {
		f.t.Fatal(err)
	}
	body := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
	contentType := "application/grpc-web+proto"
	if p == overGRPCWebText {
		contentType = "application/grpc-web-text"
		body = []byte(base64.StdEncoding.EncodeToString(body))
	}
	response, answer := f.do("POST", method, contentType, body, "X-Grpc-Web", "1")
	out := outcome{http: response.StatusCode, code: codes.Unknown}
	trailers := response.Header.Clone()
	if p == overGRPCWebText {
		answer = decodeBase64Chunks(f.t, answer)
	}
	for len(answer) >= 5 {
		n := binary.BigEndian.Uint32(answer[1:5])
		flag, frame := answer[0], answer[5:5+n]
		answer = answer[5+n:]
		if flag&0x80 == 0 {
			if err := proto.Unmarshal(frame, res); err != nil {
				f.t.Fatal(err)
			}
			continue
		}
		for line := range strings.SplitSeq(strings.TrimSpace(string(frame)), "\r\n") {
			name, value, _ := strings.Cut(line, ":")
			trailers.Set(name, strings.TrimSpace(value))
		}
	}
	code, err := strconv.Atoi(trailers.Get("Grpc-Status"))
	if err != nil {
		f.t.Fatalf("%s: HTTP %d without a gRPC status: %v", method, response.StatusCode, trailers)
	}
	out.code = codes.Code(code)
	out.message, _ = url.PathUnescape(trailers.Get("Grpc-Message"))
	if bin := trailers.Get("Grpc-Status-Details-Bin"); bin != "" {
		raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(bin, "="))
		st := new(spb.Status)
		if err != nil || proto.Unmarshal(raw, st) != nil {
			f.t.Fatalf("status details %q", bin)
		}
		out = withDetails(f.t, out, st)
	}
	return out
}

// decodeBase64Chunks decodes a gRPC-Web text body, in which every flushed part may end with padding.
func decodeBase64Chunks(t testing.TB, body []byte) []byte {
	t.Helper()
	var out []byte
	for i := 0; i+4 <= len(body); i += 4 {
		part, err := base64.StdEncoding.DecodeString(string(body[i : i+4]))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, part...)
	}
	return out
}

// httpOf is the mapping of codes to HTTP of the REST API.
var httpOf = map[codes.Code]int{
	codes.OK: 200, codes.InvalidArgument: 400, codes.FailedPrecondition: 400, codes.OutOfRange: 400,
	codes.Unauthenticated: 401, codes.PermissionDenied: 403, codes.NotFound: 404, codes.AlreadyExists: 409,
	codes.Aborted: 409, codes.ResourceExhausted: 429, codes.Unimplemented: 501, codes.Unavailable: 503,
	codes.Internal: 500, codes.Unknown: 500, codes.DeadlineExceeded: 504,
}

// wantError fails unless the outcome is the error: with an id, message and detail are exact; without one there is a
// text and no detail.
func wantError(t *testing.T, p protocol, out outcome, code codes.Code, id, text string) {
	t.Helper()
	if out.code != code {
		t.Fatalf("code %v, want %v; message %q", out.code, code, out.message)
	}
	if p == overREST && out.http != httpOf[code] {
		t.Errorf("HTTP %d, want %d", out.http, httpOf[code])
	}
	if id == "" {
		if out.message == "" || out.detail != nil || strings.Contains(out.message, "(COMMAND-") {
			t.Errorf("message %q, detail %v, want a text without id and detail", out.message, out.detail)
		}
		if text != "" && !strings.Contains(out.message, text) {
			t.Errorf("message %q, want %q in it", out.message, text)
		}
		return
	}
	if want := text + " (" + id + ")"; out.message != want {
		t.Errorf("message %q, want %q", out.message, want)
	}
	if out.detail.GetId() != id || out.detail.GetMessage() != text {
		t.Errorf("detail %v, want %s %q", out.detail, id, text)
	}
}
