package proxy

import (
	"encoding/base64"
	"errors"
	"io"
)

// textDecoder decodes the base64 of gRPC-Web text, in which padding may stand wherever a sender flushed.
type textDecoder struct {
	quad [4]byte
	n    int
	bad  bool
}

// decode appends what text decodes to, as far as it goes, to dst.
func (d *textDecoder) decode(dst, text []byte) []byte {
	for _, c := range text {
		if d.bad {
			break
		}
		d.quad[d.n] = c
		if d.n++; d.n < len(d.quad) {
			continue
		}
		d.n = 0
		var out [3]byte
		n, err := base64.StdEncoding.Decode(out[:], d.quad[:])
		dst = append(dst, out[:n]...)
		d.bad = err != nil
	}
	return dst
}

// clean reports whether what was decoded so far is whole.
func (d *textDecoder) clean() bool { return d.n == 0 && !d.bad }

// textReader reads gRPC-Web text as bytes. What was taken from the source is kept in raw.
type textReader struct {
	source io.Reader
	raw    []byte
	dec    textDecoder
	ready  []byte
	err    error
	buf    [4 << 10]byte
}

func (r *textReader) Read(p []byte) (int, error) {
	for len(r.ready) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		var n int
		n, r.err = r.source.Read(r.buf[:])
		r.raw = append(r.raw, r.buf[:n]...)
		r.ready = r.dec.decode(nil, r.buf[:n])
		switch {
		case r.dec.bad:
			r.err = errCorrupt
		case errors.Is(r.err, io.EOF) && !r.dec.clean():
			r.err = errTruncated
		}
	}
	n := copy(p, r.ready)
	r.ready = r.ready[n:]
	return n, nil
}
