package targetclient

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"sync"
)

// body reads the body of an answer to its end, as its header frames it.
type body struct {
	b       *reader
	chunked bool
	length  int64 // left of the body, or of the chunk; -1: until the connection ends

	inChunk bool
	excess  int64 // what was no content beyond the usual, as net/http counts it
	end     bool
}

// Read returns io.EOF at the end, all of the framing read.
func (d *body) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if d.end {
		return 0, io.EOF
	}
	if d.chunked && d.length == 0 {
		if err := d.nextChunk(); err != nil {
			return 0, err
		}
	}
	if d.length == 0 {
		d.end = true
		return 0, io.EOF
	}
	if d.length > 0 && int64(len(p)) > d.length {
		p = p[:d.length]
	}
	n, err := d.b.Read(p)
	if d.length < 0 {
		d.end = errors.Is(err, io.EOF)
		return n, err
	}
	d.length -= int64(n)
	switch {
	case n > 0:
		return n, nil
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// nextChunk reads up to the next chunk's content, or all of the end.
func (d *body) nextChunk() error {
	if d.inChunk {
		// The end of the last one.
		if line, crlf, err := d.b.line(2, malformed("chunk")); err != nil || !crlf || len(line) != 0 {
			return orMalformed(err, "chunk")
		}
	}
	d.inChunk = true
	line, crlf, err := d.b.line(maxChunkLine, malformed("chunk size"))
	if err != nil || !crlf || bytes.IndexByte(line, '\r') >= 0 {
		return orMalformed(err, "chunk size")
	}
	n, ok := chunkSize(line)
	if !ok {
		return malformed("chunk size")
	}
	d.excess = max(0, d.excess+int64(len(line))+2-16-2*min(n, maxChunkCredit))
	if d.excess > 16<<10 {
		return malformed("chunks with little content")
	}
	d.length = n
	if n == 0 {
		return d.trailer()
	}
	return nil
}

// maxChunkCredit keeps the arithmetic in range.
const maxChunkCredit = 1 << 40

// trailer reads the trailer section. Nobody asks what it says.
func (d *body) trailer() error {
	for left, first := int64(maxTrailer), true; ; first = false {
		line, crlf, err := d.b.line(left, malformed("long trailer"))
		if err != nil || !crlf {
			return orMalformed(err, "trailer")
		}
		if len(line) == 0 {
			return nil
		}
		left -= int64(len(line)) + 2
		if _, _, ok := splitLine(line, first); !ok {
			return malformed("trailer")
		}
	}
}

func orMalformed(err error, what string) error {
	if err != nil {
		return err
	}
	return malformed(what)
}

// chunkSize reads the size, without its extensions.
func chunkSize(line []byte) (n int64, ok bool) {
	line = bytes.TrimRight(line, " \t")
	if i := bytes.IndexByte(line, ';'); i >= 0 {
		line = line[:i]
	}
	if len(line) == 0 || len(line) > 15 {
		return 0, false
	}
	for _, c := range line {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		n = n<<4 | int64(c)
	}
	return n, true
}

// gzipReaders are reused: one costs 40 KiB.
var gzipReaders = sync.Pool{New: func() any { return new(gzip.Reader) }}

// readAnswerBody reads the body that the header announces, decompressed. It ends
// in an error one byte past the limit.
func readAnswerBody(b *reader, h *head, limit int64) ([]byte, error) {
	if !h.gzip && h.length > limit {
		return nil, errTooLarge
	}
	d := &b.body
	*d = body{b: b, chunked: h.chunked, length: h.length}
	if h.chunked {
		d.length = 0
	}
	if !h.gzip || h.length == 0 {
		return readUpTo(d, h.length, limit)
	}
	z, _ := gzipReaders.Get().(*gzip.Reader)
	defer gzipReaders.Put(z)
	if err := z.Reset(d); err != nil {
		if errors.Is(err, io.EOF) {
			return []byte{}, nil // no body at all
		}
		return nil, err
	}
	return readUpTo(z, -1, limit)
}

// readUpTo reads all of r, of which length bytes are announced (-1: none).
func readUpTo(r io.Reader, length, limit int64) ([]byte, error) {
	// The announced length is believed only so far before the bytes are there.
	// One more byte than announced: the end has to be seen, too.
	size := int64(512)
	if length >= 0 {
		size = min(length, 1<<20) + 1
	}
	all := make([]byte, 0, size)
	for {
		if len(all) == cap(all) {
			all = append(all, 0)[:len(all)]
		}
		n, err := r.Read(all[len(all):cap(all)])
		all = all[:len(all)+n]
		if int64(len(all)) > limit {
			return nil, errTooLarge
		}
		switch {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, err
		}
	}
}
