package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/execgate/execgate/schema"
)

// streamCodec is a codec that can show the messages of an answer that is a stream, one by one (D-53).
type streamCodec interface {
	codec
	// limitStream is limitAnswer for a stream.
	limitStream(out *http.Request)
	// openStream returns what takes a stream apart, nil if res is an error, which passes. problem: what res is cannot be
	// taken apart.
	openStream(op *operation, res *http.Response) (s splitter, problem *unevaluable)
}

var (
	_ streamCodec = grpcEdge{}
	_ streamCodec = connectStreamEdge{}
	_ streamCodec = restEdge{}
)

// splitter takes a stream apart.
type splitter interface {
	// next reads the next part, of at most limit bytes. The error is io.EOF after the last one, or the source's own.
	next(src *bufio.Reader, limit int64) (part, error)
}

// part is a piece of a stream: one message with what is around it, or something that is no message.
type part struct {
	raw []byte // as it came
	// rest is how many bytes of the part follow raw in the source; allOfIt: everything does.
	rest int64
	// message is nil if the part is none, or one that cannot be shown to targets; problem says so of the latter.
	message *schema.Message
	problem *unevaluable
	// render returns the part with what has become of the message.
	render func() ([]byte, error)
}

const allOfIt = -1

// streams returns how to take the answer of op apart message by message, false if it is a single message.
func streams(op *operation, c codec) (streamCodec, bool) {
	if !op.method.ServerStreaming {
		return nil, false
	}
	s, ok := c.(streamCodec)
	return s, ok
}

// respondStream delivers a stream, each message as the targets leave it. It ends with the error of the first one that
// was vetoed; what came before has been delivered by then.
func (p *Proxy) respondStream(op *operation, c streamCodec, res *http.Response, asked time.Time) {
	before := op.targets
	defer func() { op.upstream = time.Since(asked) - (op.targets - before) }()
	s, problem := c.openStream(op, res)
	if problem != nil {
		p.unevaluated(problem, op.response)
		if interrupts(op.response) {
			p.fail(op, problem.err)
			return
		}
		op.outcome = problem.reason
	}
	if s != nil {
		res.Body = &joined{
			Reader: &messageStream{p: p, op: op, src: bufio.NewReader(res.Body), split: s, limit: p.limitFor(op.fullMethod)},
			Closer: res.Body,
		}
		res.ContentLength = -1
		delete(res.Header, headerContentLength)
		dropDigests(res.Header)
	}
	p.deliver(op, res)
}

// messageStream is a stream after its targets. It holds one message at a time: the upstream sends the next one when the
// client has taken this one.
type messageStream struct {
	p     *Proxy
	op    *operation
	src   *bufio.Reader
	split splitter
	limit int64

	ready []byte // to be read
	rest  int64  // of the source, to be read after that without a look at it
	err   error  // after that
}

// Read returns a *callError when the stream must not go on.
func (s *messageStream) Read(b []byte) (int, error) {
	for len(s.ready) == 0 {
		switch {
		case s.rest != 0:
			return s.readRest(b)
		case s.err != nil:
			return 0, s.err
		}
		s.ready, s.rest, s.err = s.next()
	}
	n := copy(b, s.ready)
	s.ready = s.ready[n:]
	return n, nil
}

func (s *messageStream) readRest(b []byte) (int, error) {
	if s.rest > 0 {
		b = b[:min(int64(len(b)), s.rest)]
	}
	n, err := s.src.Read(b)
	if s.rest > 0 {
		s.rest -= int64(n)
	}
	return n, err
}

// next reads one part, shows it to the targets if it is a message, and returns what is to be delivered.
func (s *messageStream) next() (ready []byte, rest int64, err error) {
	read, err := s.split.next(s.src, s.limit)
	if err != nil {
		return nil, 0, err
	}
	p, op := s.p, s.op
	if read.problem == nil && read.message != nil {
		read.problem = renderable(read.message, undecodableResponse)
	}
	switch {
	case read.problem != nil:
		p.unevaluated(read.problem, op.response)
		if interrupts(op.response) {
			return nil, 0, read.problem.err
		}
		op.outcome = read.problem.reason
		return read.raw, read.rest, nil
	case read.message == nil:
		return read.raw, read.rest, nil
	}
	op.out = read.message
	if _, failure := p.dispatch(op, op.response); failure != nil {
		return nil, 0, failure
	}
	if failure := callerError(op.ctx); failure != nil {
		return nil, 0, failure
	}
	if !op.out.Changed() {
		return read.raw, 0, nil
	}
	if ready, err = read.render(); err != nil {
		return nil, 0, internalError(err)
	}
	return ready, 0, nil
}

// frames takes a stream of frames apart: gRPC's, and Connect's.
type frames struct {
	encoding string
	end      byte // flag of the last frame, which is no message; 0: there is none
	output   *schema.MessageType
	decode   func([]byte) (*schema.Message, error)
	encode   func(*schema.Message) ([]byte, error)
}

func (s *frames) next(src *bufio.Reader, limit int64) (part, error) {
	var header [frameHeaderSize]byte
	n, err := io.ReadFull(src, header[:])
	switch {
	case err == io.EOF:
		return part{}, io.EOF
	case errors.Is(err, io.ErrUnexpectedEOF):
		return part{raw: header[:n], problem: undecodableResponse(s.output.Name(), errTruncated)}, nil
	case err != nil:
		return part{}, err
	}
	size := frameSize(header)
	switch {
	case header[0]&s.end != 0:
		return part{raw: header[:], rest: size}, nil
	case header[0]&^flagCompressed != 0:
		return part{raw: header[:], rest: allOfIt, problem: undecodableResponse(s.output.Name(), errFrameFlags)}, nil
	case size > limit:
		return part{raw: header[:], rest: size, problem: tooLarge(s.output.Name())}, nil
	}
	var b bytes.Buffer // It grows with what really comes.
	b.Write(header[:])
	if _, err := io.CopyN(&b, src, size); errors.Is(err, io.EOF) {
		return part{raw: b.Bytes(), problem: undecodableResponse(s.output.Name(), errTruncated)}, nil
	} else if err != nil {
		return part{}, err
	}
	return s.part(frame{raw: b.Bytes()}, limit), nil
}

func frameSize(header [frameHeaderSize]byte) int64 {
	return int64(header[1])<<24 | int64(header[2])<<16 | int64(header[3])<<8 | int64(header[4])
}

// part decodes the message of f.
func (s *frames) part(f frame, limit int64) part {
	data, err := f.decode(s.encoding, limit)
	if err != nil {
		problem, _ := frameProblem(err, s.encoding, s.output.Name(), undecodableResponse)
		return part{raw: f.raw, problem: problem}
	}
	m, err := s.decode(data)
	if err != nil {
		return part{raw: f.raw, problem: undecodableResponse(s.output.Name(), err)}
	}
	return part{raw: f.raw, message: m, render: func() ([]byte, error) {
		data, err := s.encode(m)
		if err != nil {
			return nil, err
		}
		changed, err := newFrame(data, f.compressed())
		return changed.raw, err
	}}
}

func (g grpcEdge) limitStream(out *http.Request) { g.limitAnswer(out) }

func (grpcEdge) openStream(op *operation, res *http.Response) (splitter, *unevaluable) {
	if res.StatusCode != http.StatusOK || kindOf(res.Header.Get(headerContentType)) != contentGRPC {
		return nil, nil
	}
	if _, only := res.Header[headerStatus]; only {
		return nil, nil
	}
	output := op.method.Output()
	return &frames{
		encoding: res.Header.Get(headerEncoding), output: output,
		decode: output.Decode, encode: (*schema.Message).Wire,
	}, nil
}

const (
	headerConnectEncoding        = "Connect-Content-Encoding"
	headerConnectAcceptEncodings = "Connect-Accept-Encoding"
)

func (connectStreamEdge) limitStream(out *http.Request) {
	if len(out.Header[headerConnectAcceptEncodings]) > 0 {
		keepEncodings(out.Header, headerConnectAcceptEncodings)
	}
}

func (connectStreamEdge) openStream(op *operation, res *http.Response) (splitter, *unevaluable) {
	if res.StatusCode != http.StatusOK {
		return nil, nil
	}
	output := op.method.Output()
	if kindOf(res.Header.Get(headerContentType)) != contentConnectStream {
		return nil, undecodableResponse(output.Name(), nil)
	}
	s := &frames{
		encoding: res.Header.Get(headerConnectEncoding), end: flagEndStream, output: output,
		decode: output.Decode, encode: (*schema.Message).Wire,
	}
	if isConnectStreamJSON(op.r) {
		s.decode, s.encode = output.DecodeJSON, (*schema.Message).Body
	}
	return s, nil
}
