package proxy

import (
	"io"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"
)

// passThrough sends the request upstream and the answer back, both as they come. What was read of the request body
// before goes first.
func (p *Proxy) passThrough(op *operation) {
	out := p.outgoing(op)
	res, in, failure := p.roundTrip(op, out)
	if in != nil {
		defer p.endRequestBody(op, in)
	}
	if failure != nil {
		p.fail(op, failure)
		return
	}
	p.deliver(op, res)
}

// outgoing makes the request that goes upstream: the client's, less what belongs to its connection, plus what the
// gateway knows of the client. Its body is still the client's; see newInbound.
func (p *Proxy) outgoing(op *operation) *http.Request {
	r := op.r
	out := r.WithContext(op.ctx)
	out.URL = p.upstream.url(r)
	out.RequestURI = ""
	out.TLS = nil
	out.Close = false
	out.Body = nil
	if p.upstream.authority != "" {
		out.Host = p.upstream.authority
	}

	header := withoutHopByHop(r.Header, 4)
	if hasToken(r.Header["Te"], "trailers") {
		header["Te"] = []string{"trailers"}
	}
	if op.upgrade != "" {
		header["Connection"] = []string{"Upgrade"}
		header["Upgrade"] = []string{op.upgrade}
	}
	if _, ok := header["User-Agent"]; !ok {
		header["User-Agent"] = nil // Otherwise the transport adds its own.
	}
	p.trust.forward(header, r)
	out.Header = header
	out.Trailer = announcedTrailers(r)
	return out
}

// roundTrip sends out and returns the answer's headers. in is the request's body, nil when it has none; the caller must
// end it, whatever the result.
func (p *Proxy) roundTrip(op *operation, out *http.Request) (*http.Response, *inbound, *callError) {
	var in *inbound
	switch {
	case out.Body != nil: // A message that the gateway made.
	case len(op.head) > 0 || op.r.ContentLength != 0:
		in = newInbound(op.r, out, op.head, op.whole)
	}
	if op.r.ProtoMajor == 1 && in != nil {
		// The answer may come, and must be passed on, before the request has ended.
		_ = http.NewResponseController(op.w).EnableFullDuplex()
	}
	var informational *informationalRelay
	if !op.needsHTTP2 {
		informational = &informationalRelay{w: op.w, asks: op.r.ProtoMajor == 1 && in != nil && hasToken(op.r.Header["Expect"], "100-continue")}
		out = out.WithContext(httptrace.WithClientTrace(out.Context(), &httptrace.ClientTrace{
			Got1xxResponse: informational.relay,
		}))
		if in != nil {
			in.informational = informational
		}
	}
	res, err := p.upstream.transport(op).RoundTrip(out)
	informational.stop()
	if err != nil {
		return nil, in, op.upstreamError(err, in.err())
	}
	op.announced = nil
	for name := range res.Trailer {
		op.announced = append(op.announced, name)
	}
	return res, in, nil
}

// lingerTimeout is how long a client on HTTP/1.1 may go on sending a request that was answered already, before its
// connection is given up.
const lingerTimeout = 500 * time.Millisecond

// endRequestBody stops the transport's reading of the client's body.
func (p *Proxy) endRequestBody(op *operation, in *inbound) {
	in.finish()
	if op.r.ProtoMajor == 1 && !in.ended.Load() && op.upgrade == "" {
		_ = http.NewResponseController(op.w).SetReadDeadline(time.Now().Add(lingerTimeout))
	}
}

// deliver hands the upstream's answer to the client.
func (p *Proxy) deliver(op *operation, res *http.Response) {
	defer res.Body.Close()
	if res.StatusCode == http.StatusSwitchingProtocols {
		p.tunnel(op, res)
		return
	}
	if op.lateTrailers && !statusCanFollow(op, res) {
		if op.webWriter == nil {
			p.fail(op, upstreamError(op.ctx, errNotGRPC, nil))
			return
		}
		op.bypassWrapper()
	}
	if op.edge != nil {
		op.watch = op.edge.watch(op, res)
	}
	p.writeHeader(op, res)
	if err := p.copyBody(op, res); err != nil {
		p.cut(op, err)
		return
	}
	_ = res.Body.Close() // Some bodies fill in the trailers only now.
	p.writeTrailer(op, res)
	op.code = p.answerCode(op, res)
}

// writeHeader hands over status and headers, and announces the trailers that the upstream announced.
func (p *Proxy) writeHeader(op *operation, res *http.Response) {
	removeHopByHop(res.Header)
	header := op.w.Header()
	for name, values := range res.Header {
		header[name] = values
	}
	if len(op.announced) > 0 {
		slices.Sort(op.announced)
		header["Trailer"] = []string{strings.Join(op.announced, ", ")}
		if op.r.ProtoMajor == 1 {
			delete(header, "Content-Length") // HTTP/1.1 has trailers in chunked coding only.
		}
	}
	if op.webWriter == nil {
		p.cors.onAnswer(header, op.r)
	}
	leaveOut(header, "Date")
	leaveOut(header, "Content-Type")
	if op.r.ProtoMajor >= 2 {
		// A true trailers-only answer has no content length, and Go's server would add one.
		leaveOut(header, "Content-Length")
	}
	op.started = true
	op.w.WriteHeader(res.StatusCode)
}

// leaveOut keeps the server from adding a header that the upstream did not send.
func leaveOut(header http.Header, name string) {
	if _, ok := header[name]; !ok {
		header[name] = nil
	}
}

// buffers are what bodies are copied through.
var buffers = sync.Pool{New: func() any {
	b := make([]byte, 32<<10)
	return &b
}}

// smallBody is the length up to which a body is waited for before anything is flushed: it comes with its headers.
const smallBody = 32 << 10

// clientGoneError says that it was the client's side of a copy that failed.
type clientGoneError struct{ err error }

func (e *clientGoneError) Error() string { return "write to the client: " + e.err.Error() }
func (e *clientGoneError) Unwrap() error { return e.err }

// copyBody streams the body. Whatever came is flushed before more is waited for, except where nobody could use it: the
// single message of a unary gRPC call, and the bytes of a short body of known length.
func (p *Proxy) copyBody(op *operation, res *http.Response) error {
	if res.ContentLength == 0 || op.r.Method == http.MethodHead {
		// Never flush: an answer that is only headers must stay so. The stream may still end with trailers.
		_, err := io.Copy(io.Discard, res.Body)
		return err
	}
	flush := http.NewResponseController(op.w).Flush
	eager := !op.unary()
	left := res.ContentLength
	if eager && (left < 0 || left > smallBody) {
		_ = flush()
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		n, err := res.Body.Read(*buf)
		if n > 0 {
			if op.watch != nil {
				op.watch.write((*buf)[:n])
			}
			if _, werr := op.w.Write((*buf)[:n]); werr != nil {
				return &clientGoneError{err: werr}
			}
			left -= int64(n)
			if eager && left != 0 && err == nil {
				if werr := flush(); werr != nil {
					return &clientGoneError{err: werr}
				}
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// unary reports whether the answer is known to be a single gRPC message.
func (op *operation) unary() bool {
	return (op.protocol == protocolGRPC || op.protocol == protocolGRPCWeb) && op.method != nil && !op.method.ServerStreaming
}

// writeTrailer hands over the trailers, announced or not.
func (p *Proxy) writeTrailer(op *operation, res *http.Response) {
	header := op.w.Header()
	for _, name := range op.announced {
		delete(header, name) // A header of that name was sent; it is not the trailer.
	}
	if len(res.Trailer) == 0 {
		return
	}
	if op.r.ProtoMajor == 1 {
		// Trailers need chunked coding, which the server would not choose for a short body.
		_ = http.NewResponseController(op.w).Flush()
	}
	for name, values := range res.Trailer {
		switch {
		case len(values) == 0, !httpguts.ValidTrailerHeader(name):
		case !op.lateTrailers && slices.Contains(op.announced, name):
			header[name] = values
		default:
			header[http.TrailerPrefix+name] = values
		}
	}
}

// cut ends an answer that cannot be completed.
func (p *Proxy) cut(op *operation, err error) {
	var failure *callError
	switch err := err.(type) { //nolint:errorlint // copyBody returns both bare.
	case *clientGoneError:
		failure = canceledError(err)
	case *callError: // A message of a stream did not pass.
		failure = err
	default:
		failure = op.upstreamError(err, nil)
	}
	p.fail(op, failure)
}

// answerCode is the metric's code for an answer of the upstream.
func (p *Proxy) answerCode(op *operation, res *http.Response) string {
	if op.edge != nil {
		return op.edge.answerCode(op, res)
	}
	return httpCodeName(res.StatusCode)
}
