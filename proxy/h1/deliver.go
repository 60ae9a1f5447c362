package h1

import (
	"errors"
	"io"
	"net/http"
	"strconv"
)

// maxInformational bounds how many 1xx answers one request may bring.
const maxInformational = 32

var (
	errTooManyInformational = errors.New("upstream sends too many informational answers")
	errSwitched             = errors.New("upstream switched to a protocol that nobody asked for")
)

// deliver hands the answer to the client, from what roundTrip has read on.
func (x *exchange) deliver() error {
	for n := 0; ; n++ {
		if err := x.readAnswer(); err != nil {
			return err
		}
		switch {
		case x.answer.status >= http.StatusOK:
			return x.deliverFinal()
		case x.answer.status == http.StatusSwitchingProtocols:
			return errSwitched
		case n == maxInformational:
			return errTooManyInformational
		case x.answer.status != http.StatusContinue: // Nobody waits for that.
			x.answer.travels()
			x.out = appendStatus(x.out[:0], x.answer.status, x.answer.reason)
			x.out = appendFields(x.out, x.answer.fields)
			x.out = append(x.out, '\r', '\n')
			if err := x.write(); err != nil {
				return err
			}
		}
	}
}

// readAnswer reads the head of an answer.
func (x *exchange) readAnswer() error {
	in := &x.u.in
	limit := x.c.e.o.Upstream.MaxHeaderBytes
	for from := 0; ; {
		var end int
		end, from = answerEnd(in.bytes(), from)
		if end > 0 {
			err := x.answer.parse(in.bytes()[:end])
			in.r += end
			return err
		}
		if len(in.bytes()) >= limit {
			return errAnswer
		}
		if err := x.more(limit); err != nil {
			return err
		}
	}
}

// more reads more of the answer, and makes room for it up to limit.
func (x *exchange) more(limit int) error {
	in := &x.u.in
	if len(in.room()) == 0 {
		in.grow(limit)
	}
	err := x.u.fill(in)
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// deliverFinal hands over the final answer, whose head was read.
func (x *exchange) deliverFinal() error {
	x.composeFinal()
	switch {
	case x.framing == withoutBody:
		return x.write()
	case x.framing == withLength:
		return x.deliverLength()
	case x.answer.chunked:
		return x.deliverChunks()
	}
	return x.deliverRest()
}

// composeFinal writes the head of the final answer into x.out.
func (x *exchange) composeFinal() {
	a := &x.answer
	x.watcher = x.told.Answered(a.status, x.header)
	x.keep = x.keep && !x.c.e.draining.Load()
	a.travels()
	out := appendStatus(x.out[:0], a.status, a.reason)
	for i := range a.fields {
		if f := &a.fields[i]; f.Name != "Trailer" || a.chunked {
			out = appendField(out, f.Name, f.Value)
		}
	}
	if !x.keep {
		out = append(out, "Connection: close\r\n"...)
	}
	empty := bodiless(a.status) || x.head.method == http.MethodHead
	if a.length >= 0 && a.status != http.StatusNoContent {
		out = append(out, "Content-Length: "...)
		out = strconv.AppendInt(out, a.length, 10)
		out = append(out, '\r', '\n')
	}
	switch {
	case empty:
		x.framing = withoutBody
	case a.length >= 0:
		x.framing = withLength
	default:
		x.framing = inChunks
		out = append(out, "Transfer-Encoding: chunked\r\n"...)
	}
	x.out = append(out, '\r', '\n')
	x.begun = true
}

// write sends x.out to the client.
func (x *exchange) write() error {
	if err := x.c.write(x.out); err != nil {
		return &ClientError{Gone: true, err: err}
	}
	x.out = x.out[:0]
	return nil
}

// watch shows a piece of the body to whoever wants to see it.
func (x *exchange) watch(p []byte) {
	if x.watcher != nil && len(p) > 0 {
		x.watcher(p)
	}
}

// smallBody is the length up to which a body is waited for before anything of it is sent: it comes with its head.
const smallBody = 32 << 10

// deliverLength delivers a body with a length.
func (x *exchange) deliverLength() error {
	in, left := &x.u.in, x.answer.length
	for {
		piece := in.bytes()
		piece = piece[:min(left, int64(len(piece)))]
		x.watch(piece)
		x.out = append(x.out, piece...)
		in.r += len(piece)
		left -= int64(len(piece))
		if left == 0 || left > smallBody {
			break
		}
		if err := x.more(streamSize); err != nil { // A short body comes with its head.
			return x.flushed(err)
		}
	}
	if err := x.write(); err != nil || left == 0 {
		return err
	}
	buf := streams.Get().(*[]byte) //nolint:forcetypeassert // The pool makes nothing else.
	defer streams.Put(buf)
	for left > 0 {
		n, err := x.u.Read((*buf)[:min(left, streamSize)])
		x.watch((*buf)[:n])
		left -= int64(n)
		if n > 0 {
			if err := x.c.write((*buf)[:n]); err != nil {
				return &ClientError{Gone: true, err: err}
			}
		}
		if err != nil && left > 0 {
			return err
		}
	}
	return nil
}

// flushed sends what was held back, before an error that ends the answer.
func (x *exchange) flushed(err error) error {
	if failed := x.write(); failed != nil {
		return failed
	}
	return err
}

// deliverChunks delivers a body in chunks.
func (x *exchange) deliverChunks() error {
	in := &x.u.in
	d := &x.theirs
	d.lenient = true
	for {
		data, n, err := d.next(in.bytes())
		if err != nil {
			return x.flushed(errAnswer)
		}
		x.watch(data)
		in.r += n
		x.out = appendChunk(x.out, data)
		if d.ended() {
			x.out = append(x.out, "0\r\n"...)
			if x.out, err = d.appendTrailer(x.out); err != nil {
				return errAnswer
			}
			return x.write()
		}
		if n > 0 {
			continue
		}
		if len(x.out) > 0 {
			if err := x.write(); err != nil {
				return err
			}
		}
		if err := x.more(streamSize); err != nil {
			return err
		}
	}
}

// deliverRest delivers a body that ends with the connection.
func (x *exchange) deliverRest() error {
	in := &x.u.in
	for {
		piece := in.bytes()
		x.watch(piece)
		x.out = appendChunk(x.out, piece)
		in.r += len(piece)
		if len(x.out) > 0 {
			if err := x.write(); err != nil {
				return err
			}
		}
		switch err := x.more(streamSize); {
		case errors.Is(err, io.ErrUnexpectedEOF):
			x.out = append(x.out[:0], "0\r\n\r\n"...)
			return x.write()
		case err != nil:
			return err
		}
	}
}
