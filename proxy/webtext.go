package proxy

import (
	"encoding/base64"
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
		case r.err == io.EOF && !r.dec.clean():
			r.err = errTruncated
		}
	}
	n := copy(p, r.ready)
	r.ready = r.ready[n:]
	return n, nil
}

// webStatus watches a gRPC-Web answer stream by, for the status in its last frame.
type webStatus struct {
	text bool
	dec  textDecoder
	tmp  []byte

	header  [frameHeaderSize]byte
	n       int    // of header
	left    uint32 // of the frame's payload
	trailer bool   // the frame is the last: trailers
	status  []byte // its payload, as far as it is kept
}

// maxWebTrailer is how much of a trailer frame is looked at.
const maxWebTrailer = 16 << 10

// flagTrailer marks the frame of a gRPC-Web answer that carries the trailers.
const flagTrailer = 0x80

func (s *webStatus) write(p []byte) {
	if s.text {
		s.tmp = s.dec.decode(s.tmp[:0], p)
		p = s.tmp
	}
	for len(p) > 0 {
		if s.left == 0 && s.n < frameHeaderSize {
			n := copy(s.header[s.n:], p)
			s.n, p = s.n+n, p[n:]
			if s.n < frameHeaderSize {
				return
			}
			s.left = uint32(s.header[1])<<24 | uint32(s.header[2])<<16 | uint32(s.header[3])<<8 | uint32(s.header[4])
			s.trailer = s.header[0]&flagTrailer != 0
			if s.left == 0 {
				s.n = 0
			}
			continue
		}
		n := min(uint64(s.left), uint64(len(p)))
		if s.trailer && len(s.status) < maxWebTrailer {
			s.status = append(s.status, p[:n]...)
		}
		s.left, p = s.left-uint32(n), p[n:]
		if s.left == 0 {
			s.n = 0
		}
	}
}

// between reports whether a frame may follow what was seen.
func (s *webStatus) between() bool { return s.n == 0 && s.left == 0 && !s.trailer && s.dec.clean() }
