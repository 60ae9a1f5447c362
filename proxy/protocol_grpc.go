package proxy

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/execgate/execgate/proxy/h2"
)

// Headers of the gRPC protocol, in canonical form.
const (
	headerContentType    = "Content-Type"
	headerContentLength  = "Content-Length"
	headerTimeout        = "Grpc-Timeout"
	headerEncoding       = "Grpc-Encoding"
	headerAcceptEncoding = "Grpc-Accept-Encoding"
	headerStatus         = "Grpc-Status"
	headerMessage        = "Grpc-Message"
	headerDetails        = "Grpc-Status-Details-Bin"
)

// grpcEdge speaks gRPC over HTTP/2.
type grpcEdge struct{}

var (
	_ edge  = grpcEdge{}
	_ codec = grpcEdge{}
)

func (g grpcEdge) serve(p *Proxy, op *operation) { p.serveMatched(op, g) }

func (grpcEdge) timeout(r *http.Request) (time.Duration, bool) {
	values := r.Header[headerTimeout]
	if len(values) == 0 {
		return 0, false
	}
	return h2.ParseTimeout(values[0])
}

func (grpcEdge) setTimeout(out *http.Request, left time.Duration) bool {
	if left <= 0 {
		return false
	}
	out.Header[headerTimeout] = []string{formatGRPCTimeout(left)}
	return true
}

func (grpcEdge) readRequest(op *operation, limit int64) (*unevaluable, error) {
	f, read, err := readSingleFrame(op.r.Body, limit)
	bad, _ := errors.AsType[frameError](err)
	op.frame, op.head, op.whole = f, read, err == nil || bad.ends()
	return decodeFrame(op, err, op.r.Header.Get(headerEncoding), limit)
}

// decodeFrame makes op.frame, or the error that reading it ended with, the request message.
func decodeFrame(op *operation, err error, encoding string, limit int64) (*unevaluable, error) {
	input := op.method.Input()
	var message []byte
	if err == nil {
		message, err = op.frame.decode(encoding, limit)
	}
	if err != nil {
		return frameProblem(err, encoding, input.Name(), undecodableRequest)
	}
	if op.in, err = input.Decode(message); err != nil {
		return undecodableRequest(input.Name(), err), nil
	}
	return nil, nil
}

// frameProblem sorts an error of frame.go: what says that the message cannot be evaluated, and what is the stream's own.
func frameProblem(
	err error, encoding, messageType string, undecodable func(string, error) *unevaluable,
) (*unevaluable, error) {
	bad, ok := errors.AsType[frameError](err)
	switch {
	case !ok:
		return nil, err
	case bad == errMessageTooLarge:
		return tooLarge(messageType), nil
	case bad == errEncoding:
		return unknownEncoding(encoding), nil
	default:
		return undecodable(messageType, err), nil
	}
}

// requestFrame frames the request message, which has changed.
func requestFrame(op *operation) (frame, error) {
	message, err := op.in.Wire()
	if err != nil {
		return frame{}, err
	}
	return newFrame(message, op.frame.compressed()) // Then the encoding is gzip: nothing else was decoded.
}

func (grpcEdge) writeRequest(op *operation, out *http.Request) error {
	f, err := requestFrame(op)
	if err != nil {
		return err
	}
	out.Body, out.GetBody = replayable(f.raw)
	if out.ContentLength >= 0 { // Stated by the client; HTTP/2 needs none.
		out.ContentLength = int64(len(f.raw))
	}
	return nil
}

// replayable returns body in the form that lets a transport send it again.
func replayable(body []byte) (io.ReadCloser, func() (io.ReadCloser, error)) {
	return newMessage(body), func() (io.ReadCloser, error) { return newMessage(body), nil }
}

func (grpcEdge) limitAnswer(out *http.Request) {
	if len(out.Header[headerAcceptEncoding]) > 0 {
		keepEncodings(out.Header, headerAcceptEncoding)
	}
}

// keepEncodings keeps of a list of message encodings what the gateway can read, and never nothing.
func keepEncodings(h http.Header, name string) {
	var kept []string
	for _, list := range h[name] {
		for token := range strings.SplitSeq(list, ",") {
			token = strings.TrimSpace(token)
			if token == encodingIdentity || token == encodingGzip {
				kept = append(kept, token)
			}
		}
	}
	if len(kept) == 0 {
		kept = []string{encodingIdentity}
	}
	h[name] = []string{strings.Join(kept, ",")}
}

func (grpcEdge) readResponse(op *operation, res *http.Response, limit int64) (bool, *unevaluable, error) {
	if res.StatusCode != http.StatusOK || kindOf(res.Header.Get(headerContentType)) != contentGRPC {
		return false, nil, nil
	}
	if status, ok := res.Header[headerStatus]; ok && !slices.Equal(status, []string{"0"}) {
		return false, nil, nil
	}
	output := op.method.Output()
	encoding := res.Header.Get(headerEncoding)
	body := res.Body
	f, read, err := readSingleFrame(body, limit)
	bad, isFrame := errors.AsType[frameError](err)
	if isFrame && !bad.ends() {
		// The rest is not read: it follows what was. Whether the call succeeded is not known, nor needed.
		res.Body = &joined{Reader: io.MultiReader(bytes.NewReader(read), body), Closer: body}
		problem, _ := frameProblem(err, encoding, output.Name(), undecodableResponse)
		return false, problem, nil
	}
	res.Body = &joined{Reader: bytes.NewReader(read), Closer: body}
	if err != nil && !isFrame {
		return false, nil, err
	}
	if statusOf(res) != "0" {
		return false, nil, nil
	}
	var message []byte
	if err == nil {
		message, err = f.decode(encoding, limit)
	}
	if err == nil {
		if op.out, err = output.Decode(message); err != nil {
			return false, undecodableResponse(output.Name(), err), nil
		}
		op.compressed = f.compressed()
		return true, nil, nil
	}
	problem, err := frameProblem(err, encoding, output.Name(), undecodableResponse)
	return false, problem, err
}

// joined is a body that is read from one place and closed in another.
type joined struct {
	io.Reader
	io.Closer
}

func (grpcEdge) writeResponse(op *operation, res *http.Response) error {
	message, err := op.out.Wire()
	if err != nil {
		return err
	}
	f, err := newFrame(message, op.compressed)
	if err != nil {
		return err
	}
	res.Body = &joined{Reader: bytes.NewReader(f.raw), Closer: res.Body}
	if res.ContentLength >= 0 {
		res.ContentLength = int64(len(f.raw))
		if _, ok := res.Header[headerContentLength]; ok {
			res.Header[headerContentLength] = []string{strconv.Itoa(len(f.raw))}
		}
	}
	return nil
}

// statusOf is the grpc-status of an answer whose body has been read, "" if it has none.
func statusOf(res *http.Response) string {
	if values := res.Trailer[headerStatus]; len(values) > 0 {
		return values[0]
	}
	if values := res.Header[headerStatus]; len(values) > 0 {
		return values[0]
	}
	return ""
}

func (grpcEdge) watch(*operation, *http.Response) watcher { return nil } // The status is in the trailers.

func (grpcEdge) answerCode(_ *operation, res *http.Response) string {
	if status := statusOf(res); status != "" {
		return grpcCodeName(status)
	}
	if res.StatusCode != http.StatusOK {
		return codeNames[httpToCode(res.StatusCode)]
	}
	return codeNames[codes.Unknown]
}

// writeError answers trailers-only, or ends the stream with a status when it has begun.
func (grpcEdge) writeError(op *operation, e *callError) bool {
	h := op.w.Header()
	prefix := ""
	switch {
	case op.started:
		prefix = http.TrailerPrefix
		for _, name := range op.announced {
			delete(h, name)
		}
		h.Del("Trailer")
	case op.lateTrailers:
		prefix = http.TrailerPrefix
		fallthrough
	default:
		h[headerContentType] = []string{responseContentType(op.r)}
		leaveOut(h, "Date")
		leaveOut(h, headerContentLength)
		if e.acceptEncoding {
			h[headerAcceptEncoding] = []string{acceptedEncodings}
		}
	}
	status := func() {
		h[prefix+headerStatus] = []string{strconv.Itoa(int(e.code))}
		h[prefix+headerMessage] = []string{encodeGRPCMessage(e.message)}
		if details := e.status(); details != nil {
			h[prefix+headerDetails] = []string{base64.RawStdEncoding.EncodeToString(details)}
		}
	}
	if op.started {
		if op.r.ProtoMajor == 1 {
			_ = http.NewResponseController(op.w).Flush()
		}
		status()
		return true
	}
	op.started = true
	if prefix == "" {
		status()
		op.w.WriteHeader(http.StatusOK)
		return true
	}
	op.w.WriteHeader(http.StatusOK)
	status()
	return true
}

// responseContentType answers in the subtype of the request, which is what clients expect back.
func responseContentType(r *http.Request) string {
	contentType := r.Header.Get(headerContentType)
	if kindOf(contentType) != contentGRPC {
		return grpcContentType
	}
	if i := strings.IndexAny(contentType, "; \t"); i >= 0 {
		contentType = contentType[:i]
	}
	return strings.ToLower(contentType)
}

// encodeGRPCMessage percent-encodes a status message as the gRPC protocol asks: what is not printable ASCII, and '%'.
func encodeGRPCMessage(message string) string {
	plain := true
	for i := range len(message) {
		if c := message[i]; c < ' ' || c > '~' || c == '%' {
			plain = false
			break
		}
	}
	if plain {
		return message
	}
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	b.Grow(len(message) + len(message)/2)
	for i := range len(message) {
		c := message[i]
		if c < ' ' || c > '~' || c == '%' {
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}
