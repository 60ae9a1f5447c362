package proxy

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/improbable-eng/grpc-web/go/grpcweb"
	"google.golang.org/grpc/codes"
)

const (
	grpcWebContentType     = "application/grpc-web"
	grpcWebTextContentType = "application/grpc-web-text"
)

// grpcWebEdge speaks gRPC-Web, binary and text. What matches nothing passes as it is, to an upstream that speaks it
// itself. A matched call becomes gRPC by grpcweb's wrapper, and its answer gRPC-Web again.
type grpcWebEdge struct{ grpcEdge }

var (
	_ edge  = grpcWebEdge{}
	_ codec = grpcWebEdge{}
)

func isWebText(r *http.Request) bool {
	return hasFoldPrefix(r.Header.Get(headerContentType), grpcWebTextContentType)
}

func (e grpcWebEdge) readRequest(op *operation, limit int64) (*unevaluable, error) {
	source := io.Reader(op.r.Body)
	var text *textReader
	if isWebText(op.r) {
		text = &textReader{source: source}
		source = text
	}
	f, read, err := readSingleFrame(source, limit)
	bad, _ := errors.AsType[frameError](err)
	op.frame, op.head, op.whole = f, read, err == nil || bad.ends()
	if text != nil {
		op.head, op.whole = text.raw, errors.Is(text.err, io.EOF) || errors.Is(text.err, errTruncated)
	}
	return decodeFrame(op, err, op.r.Header.Get(headerEncoding), limit)
}

// webOperation is the key of the operation in a request that is on its way through the wrapper.
type webOperation struct{}

// newWebWrapper returns what turns a gRPC-Web exchange into one of gRPC. Its CORS is not used: the gateway has its own.
func (p *Proxy) newWebWrapper() *grpcweb.WrappedGrpcServer {
	return grpcweb.WrapHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		op := r.Context().Value(webOperation{}).(*operation)
		if e, ok := op.edge.(grpcWebSocketEdge); ok {
			e.inner(p, op, w, r)
			return
		}
		op.w, op.r = w, r
		op.needsHTTP2, op.lateTrailers = true, true
		op.head, op.whole = op.frame.raw, true
		p.proceed(op, grpcEdge{})
	}))
}

func (e grpcWebEdge) serve(p *Proxy, op *operation) {
	cancel := limitPatience(op, e)
	defer cancel()
	if !p.admit(op, e) {
		return
	}
	op.webWriter = &webWriter{ResponseWriter: op.w, p: p, op: op}
	in := op.r.Clone(context.WithValue(op.ctx, webOperation{}, op))
	in.Body, in.ContentLength, in.TransferEncoding, in.Trailer = http.NoBody, -1, nil, nil
	in.Header[headerContentType] = []string{strings.ToLower(in.Header.Get(headerContentType))}
	in.Header["Te"] = []string{"trailers"}
	for _, name := range [...]string{"X-Grpc-Web", "Accept", "Accept-Encoding"} {
		delete(in.Header, name) // Of the browser's exchange, not of the call.
	}
	p.web.HandleGrpcWebRequest(op.webWriter, in)
}

// webWriter is what grpcweb's wrapper writes to.
type webWriter struct {
	http.ResponseWriter
	p      *Proxy
	op     *operation
	closed bool // the answer was made without the wrapper: what it adds is dropped
}

// Unwrap is for http.ResponseController.
func (w *webWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *webWriter) WriteHeader(status int) {
	if w.closed {
		return
	}
	h := w.Header()
	// The wrapper exposes every header to whoever asks.
	exposed := h["Access-Control-Expose-Headers"]
	delete(h, "Access-Control-Expose-Headers")
	if w.p.mayRead(w.op.client) {
		w.p.cors.onError(h, w.op.client)
		h["Access-Control-Expose-Headers"] = exposed
	}
	// The trailers follow in the body.
	h[headerContentLength] = nil
	if w.op.client.ProtoMajor == 1 {
		delete(h, headerContentLength)
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *webWriter) Write(b []byte) (int, error) {
	if w.closed {
		return len(b), nil
	}
	return w.ResponseWriter.Write(b)
}

// Flush implements http.Flusher for the wrapper, which knows no other way.
func (w *webWriter) Flush() {
	if !w.closed {
		_ = http.NewResponseController(w.ResponseWriter).Flush()
	}
}

// statusCanFollow makes sure that the status of a gRPC answer follows as trailers: sent as headers only, the wrapper
// would turn it into an empty trailer frame. It reports false for an answer that is not gRPC.
func statusCanFollow(_ *operation, res *http.Response) bool {
	if kindOf(res.Header.Get(headerContentType)) != contentGRPC {
		return false
	}
	if _, ok := res.Header[headerStatus]; !ok {
		return true
	}
	trailer := make(http.Header, len(res.Trailer)+3)
	for name, values := range res.Trailer {
		trailer[name] = values
	}
	for _, name := range [...]string{headerStatus, headerMessage, headerDetails} {
		if values, ok := res.Header[name]; ok {
			trailer[name] = values
			delete(res.Header, name)
		}
	}
	res.Trailer = trailer
	return true
}

// bypassWrapper answers without grpcweb's wrapper, which would append trailers.
func (op *operation) bypassWrapper() {
	op.w, op.lateTrailers = op.webWriter.ResponseWriter, false
	op.r = op.client
	op.webWriter.closed = true
	op.webWriter = nil
}

func (grpcWebEdge) watch(op *operation, res *http.Response) watcher {
	if op.lateTrailers {
		return nil
	}
	return &frameStatus{flag: flagTrailer, text: hasFoldPrefix(res.Header.Get(headerContentType), grpcWebTextContentType)}
}

func (grpcWebEdge) answerCode(op *operation, res *http.Response) string {
	if op.lateTrailers {
		return grpcEdge{}.answerCode(op, res)
	}
	if status := statusOf(res); status != "" {
		return grpcCodeName(status)
	}
	if seen, ok := op.watch.(*frameStatus); ok {
		if status, ok := trailerStatus(seen.last); ok {
			return grpcCodeName(status)
		}
	}
	if res.StatusCode != http.StatusOK {
		return codeNames[httpToCode(res.StatusCode)]
	}
	return codeNames[codes.Unknown]
}

// trailerStatus finds grpc-status in the payload of a trailer frame.
func trailerStatus(trailer []byte) (string, bool) {
	for line := range bytes.SplitSeq(trailer, []byte("\n")) {
		name, value, ok := bytes.Cut(line, []byte(":"))
		if ok && strings.EqualFold(string(bytes.TrimSpace(name)), headerStatus) {
			return string(bytes.TrimSpace(value)), true
		}
	}
	return "", false
}

// writeError answers with a trailer frame. In an answer that has begun one can follow if the last frame was whole.
func (grpcWebEdge) writeError(op *operation, e *callError) bool {
	if op.started && op.lateTrailers {
		return grpcEdge{}.writeError(op, e) // The wrapper makes the frame.
	}
	w := op.w
	if op.webWriter != nil {
		w, op.webWriter.closed = op.webWriter.ResponseWriter, true
	}
	text := isWebText(op.client)
	if op.started {
		seen, ok := op.watch.(*frameStatus)
		if !ok || !seen.between() || w.Header().Get(headerContentLength) != "" {
			return false
		}
		_, _ = w.Write(webTrailer(e, text))
		return true
	}
	op.started = true
	h := w.Header()
	h[headerContentType] = []string{responseWebContentType(op.client)}
	if e.acceptEncoding {
		h[headerAcceptEncoding] = []string{acceptedEncodings}
	}
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(webTrailer(e, text))
	return true
}

// webTrailer is the frame that says e.
func webTrailer(e *callError, text bool) []byte {
	var b bytes.Buffer
	b.Write([]byte{flagTrailer, 0, 0, 0, 0})
	b.WriteString("grpc-status: " + strconv.Itoa(int(e.code)) + "\r\ngrpc-message: " + encodeGRPCMessage(e.message) + "\r\n")
	if details := e.status(); details != nil {
		b.WriteString("grpc-status-details-bin: " + base64.RawStdEncoding.EncodeToString(details) + "\r\n")
	}
	frame := b.Bytes()
	binary.BigEndian.PutUint32(frame[1:], uint32(len(frame)-frameHeaderSize))
	if text {
		return base64.StdEncoding.AppendEncode(nil, frame)
	}
	return frame
}

// responseWebContentType answers in the form and subtype of the request.
func responseWebContentType(r *http.Request) string {
	contentType := r.Header.Get(headerContentType)
	if kindOf(contentType) != contentGRPCWeb {
		return grpcWebContentType
	}
	if i := strings.IndexAny(contentType, "; \t"); i >= 0 {
		contentType = contentType[:i]
	}
	return strings.ToLower(contentType)
}
