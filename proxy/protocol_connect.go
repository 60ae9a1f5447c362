package proxy

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/execgate/execgate/schema"
)

const (
	headerConnectTimeout  = "Connect-Timeout-Ms"
	headerConnectVersion  = "Connect-Protocol-Version"
	headerContentEncoding = "Content-Encoding"
	headerAcceptCodings   = "Accept-Encoding"

	contentTypeJSON  = "application/json"
	contentTypeProto = "application/proto"
)

// connectEdge speaks unary Connect: the message is the body (POST), or a query parameter (GET).
type connectEdge struct{}

var (
	_ edge  = connectEdge{}
	_ codec = connectEdge{}
)

// recognizeConnect notes that a request is a Connect call. Without a schema, or for a method that it does not know, only
// those are taken for one that say so.
func recognizeConnect(op *operation, known *schema.Schema) {
	r := op.r
	var m *schema.Method
	if known != nil {
		m = known.Method(r.URL.Path)
	}
	switch r.Method {
	case http.MethodPost:
		if op.kind == contentConnectStream {
			op.edge = connectStreamEdge{}
			break
		}
		if m == nil && len(r.Header[headerConnectVersion]) == 0 ||
			!oneOf(mediaType(r.Header[headerContentType]), contentTypeJSON, contentTypeProto) {
			return
		}
		op.edge = connectEdge{}
	case http.MethodGet:
		if m != nil && !m.NoSideEffects || m == nil && known != nil || op.upgrade != "" || r.URL.RawQuery == "" {
			return
		}
		version, _ := queryValue(r.URL.RawQuery, "connect")
		if _, ok := queryValue(r.URL.RawQuery, "encoding"); !ok || m == nil && version != "v1" {
			return
		}
		op.edge = connectEdge{}
	default:
		return
	}
	op.protocol, op.method, op.fullMethod = protocolConnect, m, r.URL.Path
}

func (e connectEdge) serve(p *Proxy, op *operation) { p.serveMatched(op, e) }

func (connectEdge) timeout(r *http.Request) (time.Duration, bool) {
	values := r.Header[headerConnectTimeout]
	if len(values) == 0 || len(values[0]) > 10 {
		return 0, false
	}
	ms, err := strconv.ParseUint(values[0], 10, 63)
	if err != nil {
		return 0, false
	}
	return time.Duration(ms) * time.Millisecond, true
}

func (connectEdge) setTimeout(out *http.Request, left time.Duration) bool {
	ms := left.Milliseconds()
	if ms <= 0 {
		return false
	}
	out.Header[headerConnectTimeout] = []string{strconv.FormatInt(ms, 10)}
	return true
}

// connectCall is what a unary Connect request says of its message.
type connectCall struct {
	json   bool
	coding string
	get    bool
	base64 bool
}

func connectCallOf(r *http.Request) connectCall {
	if r.Method != http.MethodGet {
		return connectCall{json: mediaType(r.Header[headerContentType]) == contentTypeJSON, coding: contentCoding(r.Header)}
	}
	c := connectCall{get: true}
	encoding, _ := queryValue(r.URL.RawQuery, "encoding")
	c.json = encoding == "json"
	c.coding, _ = queryValue(r.URL.RawQuery, "compression")
	if c.coding == encodingIdentity {
		c.coding = ""
	}
	b64, _ := queryValue(r.URL.RawQuery, "base64")
	c.base64 = b64 == "1"
	return c
}

func (connectEdge) readRequest(op *operation, limit int64) (*unevaluable, error) {
	call := connectCallOf(op.r)
	var data []byte
	var err error
	if call.get {
		op.whole = op.r.ContentLength == 0
		data, err = call.queryMessage(op.r.URL.RawQuery, limit)
	} else {
		data, err = readWhole(op.r.Body, limit)
		op.head, op.whole = data, err == nil
	}
	return decodeBody(op, err, call.coding, limit, func(input *schema.MessageType, data []byte) (*schema.Message, error) {
		if call.json {
			return input.DecodeJSON(data)
		}
		return input.Decode(data)
	}, data)
}

// decodeBody makes data, or the error that reading it ended with, the request message.
func decodeBody(
	op *operation, err error, coding string, limit int64,
	decode func(*schema.MessageType, []byte) (*schema.Message, error), data []byte,
) (*unevaluable, error) {
	input := op.method.Input()
	if err == nil {
		data, err = decodeContent(coding, data, limit)
	}
	if err != nil {
		return frameProblem(err, coding, input.Name(), undecodableRequest)
	}
	op.body = data
	if op.in, err = decode(input, data); err != nil {
		return undecodableRequest(input.Name(), err), nil
	}
	return nil, nil
}

// queryMessage reads the message of a GET.
func (c connectCall) queryMessage(rawQuery string, limit int64) ([]byte, error) {
	value, ok := queryValue(rawQuery, "message")
	switch {
	case !ok:
		return nil, errNoMessage
	case int64(len(value)) > limit*2:
		return nil, errMessageTooLarge
	case !c.base64:
		return []byte(value), nil
	}
	data, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(value, "="))
	if err != nil {
		return nil, errCorrupt
	}
	return data, nil
}

// render returns a message in the form of the call.
func (c connectCall) render(m *schema.Message) ([]byte, error) {
	data, err := m.Wire()
	if c.json {
		data, err = m.Body()
	}
	if err != nil {
		return nil, err
	}
	return encodeContent(c.coding, data)
}

func (connectEdge) writeRequest(op *operation, out *http.Request) error {
	call := connectCallOf(op.r)
	data, err := call.render(op.in)
	if err != nil {
		return err
	}
	if !call.get {
		setRequestBody(out, data)
		return nil
	}
	value := string(data)
	if call.base64 {
		value = base64.RawURLEncoding.EncodeToString(data)
	}
	path, query, _ := strings.Cut(requestTarget(op.r), "?")
	setTarget(out, path+"?"+replaceQueryValue(query, "message", value))
	return nil
}

func (connectEdge) limitAnswer(out *http.Request) { limitCodings(out.Header) }

func (connectEdge) readResponse(op *operation, res *http.Response, limit int64) (bool, *unevaluable, error) {
	call := connectCallOf(op.r)
	want := contentTypeProto
	if call.json {
		want = contentTypeJSON
	}
	if res.StatusCode != http.StatusOK || mediaType(res.Header[headerContentType]) != want {
		return false, nil, nil
	}
	return decodeAnswer(op, res, limit, func(data []byte) (*schema.Message, error) {
		if call.json {
			return op.method.Output().DecodeJSON(data)
		}
		return op.method.Output().Decode(data)
	})
}

// decodeAnswer reads the body of a successful answer and decodes it.
func decodeAnswer(
	op *operation, res *http.Response, limit int64, decode func([]byte) (*schema.Message, error),
) (bool, *unevaluable, error) {
	output := op.method.Output()
	op.coding = contentCoding(res.Header)
	data, err := readBody(res, limit)
	if err == nil {
		data, err = decodeContent(op.coding, data, limit)
	}
	if err != nil {
		problem, err := frameProblem(err, op.coding, output.Name(), undecodableResponse)
		return false, problem, err
	}
	if op.out, err = decode(data); err != nil {
		return false, undecodableResponse(output.Name(), err), nil
	}
	return true, nil, nil
}

func (connectEdge) writeResponse(op *operation, res *http.Response) error {
	call := connectCallOf(op.r)
	call.coding = op.coding
	data, err := call.render(op.out)
	if err != nil {
		return err
	}
	setResponseBody(res, data)
	return nil
}

func (connectEdge) watch(_ *operation, res *http.Response) watcher {
	if res.StatusCode == http.StatusOK {
		return nil
	}
	return &bodyStatus{}
}

func (connectEdge) answerCode(op *operation, res *http.Response) string {
	if res.StatusCode == http.StatusOK {
		return codeNames[codes.OK]
	}
	if seen, ok := op.watch.(*bodyStatus); ok {
		var e connectError
		body, err := decodeContent(contentCoding(res.Header), seen.body, maxErrorBody)
		if err == nil && json.Unmarshal(body, &e) == nil {
			if code, ok := connectCodes[e.Code]; ok {
				return codeNames[code]
			}
		}
	}
	return codeNames[httpToCode(res.StatusCode)]
}

// connectError is an error of the Connect protocol.
type connectError struct {
	Code    string          `json:"code"`
	Message string          `json:"message,omitempty"`
	Details []connectDetail `json:"details,omitempty"`
}

type connectDetail struct {
	Type  string `json:"type"`
	Value string `json:"value"`
}

func (e *callError) connect() connectError {
	out := connectError{Code: connectCodeNames[e.code], Message: e.message}
	if e.id != "" {
		out.Details = []connectDetail{{Type: errorDetailType, Value: base64.RawStdEncoding.EncodeToString(e.errorDetail())}}
	}
	return out
}

// connectCodeNames are the codes as Connect spells them.
var connectCodeNames = map[codes.Code]string{
	codes.Canceled: "canceled", codes.Unknown: "unknown", codes.InvalidArgument: "invalid_argument",
	codes.DeadlineExceeded: "deadline_exceeded", codes.NotFound: "not_found", codes.AlreadyExists: "already_exists",
	codes.PermissionDenied: "permission_denied", codes.ResourceExhausted: "resource_exhausted",
	codes.FailedPrecondition: "failed_precondition", codes.Aborted: "aborted", codes.OutOfRange: "out_of_range",
	codes.Unimplemented: "unimplemented", codes.Internal: "internal", codes.Unavailable: "unavailable",
	codes.DataLoss: "data_loss", codes.Unauthenticated: "unauthenticated",
}

var connectCodes = func() map[string]codes.Code {
	m := make(map[string]codes.Code, len(connectCodeNames))
	for code, name := range connectCodeNames {
		m[name] = code
	}
	return m
}()

func (connectEdge) writeError(op *operation, e *callError) bool {
	if op.started {
		return false
	}
	return writeJSON(op, e, httpStatus(e.code), e.connect())
}

// writeJSON answers with an error in JSON.
func writeJSON(op *operation, e *callError, status int, body any) bool {
	b, err := json.Marshal(body)
	if err != nil {
		return false
	}
	op.started = true
	h := op.w.Header()
	h[headerContentType] = []string{contentTypeJSON}
	h[headerContentLength] = []string{strconv.Itoa(len(b))}
	if e.acceptEncoding {
		h[headerAcceptCodings] = []string{acceptedCodings}
	}
	op.w.WriteHeader(status)
	_, _ = op.w.Write(b)
	return true
}

// connectStreamEdge speaks Connect streams: messages in frames, and a last frame with the end. What it adds to
// connectEdge is the request phase of server streams (D-53); everything else passes.
type connectStreamEdge struct{ connectEdge }

var (
	_ edge  = connectStreamEdge{}
	_ codec = connectStreamEdge{}
)

func (e connectStreamEdge) serve(p *Proxy, op *operation) { p.serveMatched(op, e) }

func isConnectStreamJSON(r *http.Request) bool {
	return strings.HasSuffix(mediaType(r.Header[headerContentType]), "+json")
}

func (connectStreamEdge) readRequest(op *operation, limit int64) (*unevaluable, error) {
	f, read, err := readSingleFrame(op.r.Body, limit)
	bad, _ := errors.AsType[frameError](err)
	op.frame, op.head, op.whole = f, read, err == nil || bad.ends()
	encoding := op.r.Header.Get(headerConnectEncoding)
	input := op.method.Input()
	var message []byte
	if err == nil {
		message, err = f.decode(encoding, limit)
	}
	if err != nil {
		return frameProblem(err, encoding, input.Name(), undecodableRequest)
	}
	if isConnectStreamJSON(op.r) {
		op.in, err = input.DecodeJSON(message)
	} else {
		op.in, err = input.Decode(message)
	}
	if err != nil {
		return undecodableRequest(input.Name(), err), nil
	}
	return nil, nil
}

func (connectStreamEdge) writeRequest(op *operation, out *http.Request) error {
	message, err := op.in.Wire()
	if isConnectStreamJSON(op.r) {
		message, err = op.in.Body()
	}
	if err != nil {
		return err
	}
	f, err := newFrame(message, op.frame.compressed())
	if err != nil {
		return err
	}
	setRequestBody(out, f.raw)
	return nil
}

func (connectStreamEdge) limitAnswer(*http.Request) {}

// readResponse is asked only for a unary method that was called as a stream, which no server answers.
func (connectStreamEdge) readResponse(op *operation, res *http.Response, _ int64) (bool, *unevaluable, error) {
	if res.StatusCode != http.StatusOK {
		return false, nil, nil
	}
	return false, undecodableResponse(op.method.Output().Name(), nil), nil
}

func (connectStreamEdge) watch(_ *operation, res *http.Response) watcher {
	if res.StatusCode != http.StatusOK {
		return nil
	}
	return &frameStatus{flag: flagEndStream}
}

// connectEnd is the JSON of the last frame.
type connectEnd struct {
	Error *connectError `json:"error,omitempty"`
}

func (connectStreamEdge) answerCode(op *operation, res *http.Response) string {
	if res.StatusCode != http.StatusOK {
		return codeNames[httpToCode(res.StatusCode)]
	}
	seen, ok := op.watch.(*frameStatus)
	if !ok || !seen.final {
		return codeNames[codes.Unknown]
	}
	last := seen.last
	if seen.header[0]&flagCompressed != 0 {
		var err error
		if last, err = gunzip(last, maxLastFrame); err != nil {
			return codeNames[codes.Unknown]
		}
	}
	var end connectEnd
	if json.Unmarshal(last, &end) != nil {
		return codeNames[codes.Unknown]
	}
	if end.Error == nil {
		return codeNames[codes.OK]
	}
	if code, ok := connectCodes[end.Error.Code]; ok {
		return codeNames[code]
	}
	return codeNames[codes.Unknown]
}

func (connectStreamEdge) writeError(op *operation, e *callError) bool {
	h := op.w.Header()
	if op.started {
		seen, ok := op.watch.(*frameStatus)
		if !ok || !seen.between() || h.Get(headerContentLength) != "" {
			return false
		}
	}
	connect := e.connect()
	b, err := json.Marshal(connectEnd{Error: &connect})
	if err != nil {
		return false
	}
	f, err := newFrame(b, false)
	if err != nil {
		return false
	}
	f.raw[0] = flagEndStream
	if !op.started {
		op.started = true
		h[headerContentType] = []string{mediaType(op.r.Header[headerContentType])}
		if e.acceptEncoding {
			h[headerConnectAcceptEncodings] = []string{encodingGzip}
		}
		op.w.WriteHeader(http.StatusOK)
	}
	_, _ = op.w.Write(f.raw)
	return true
}
