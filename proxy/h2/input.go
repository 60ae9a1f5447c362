package h2

import "sync"

// inputBuffer holds what was read and not yet worked on. It is small until a connection shows that it has more to say.
type inputBuffer struct {
	buf    *[]byte // nil while there is nothing in it
	r, w   int
	large  bool // the next buffer is a large one
	sparse int  // reads in a row that a small buffer would have held
}

const (
	smallInput = 4 << 10
	largeInput = 64 << 10
	// sparseReads is after how many small reads a large buffer is given back.
	sparseReads = 64
)

var smallInputs = sync.Pool{New: func() any {
	b := make([]byte, smallInput)
	return &b
}}

var largeInputs = sync.Pool{New: func() any {
	b := make([]byte, largeInput)
	return &b
}}

// next returns the first whole frame, if there is one. An error means that the peer broke the rules.
func (b *inputBuffer) next() (h frameHeader, payload []byte, ok bool, err error) {
	have := b.w - b.r
	if have < frameHeaderLen {
		return h, nil, false, nil
	}
	h = parseFrameHeader((*b.buf)[b.r:])
	if h.length > maxFrameSize {
		return h, nil, false, frameSizeError("frame is larger than allowed")
	}
	if have < frameHeaderLen+h.length {
		return h, nil, false, nil
	}
	start := b.r + frameHeaderLen
	b.r = start + h.length
	return h, (*b.buf)[start:b.r:b.r], true, nil
}

// peek returns the next frame, if it is whole, without taking it.
func (b *inputBuffer) peek() (h frameHeader, ok bool) {
	have := b.w - b.r
	if have < frameHeaderLen {
		return h, false
	}
	h = parseFrameHeader((*b.buf)[b.r:])
	return h, have >= frameHeaderLen+h.length
}

// room returns where the next read may go: at least as much as the frame needs that has begun.
func (b *inputBuffer) room() []byte {
	if b.r == b.w {
		b.r, b.w = 0, 0
		if b.large && b.sparse >= sparseReads {
			b.large = false
			b.free()
		}
	}
	if b.buf == nil {
		pool := &smallInputs
		if b.large {
			pool = &largeInputs
		}
		b.buf = pool.Get().(*[]byte) //nolint:forcetypeassert // The pools make nothing else.
	}
	need := frameHeaderLen
	if b.w-b.r >= frameHeaderLen {
		need += parseFrameHeader((*b.buf)[b.r:]).length
	}
	if need > len(*b.buf) {
		b.enlarge()
	}
	if b.r > 0 && (len(*b.buf)-b.r < need || b.w == len(*b.buf)) {
		b.w = copy(*b.buf, (*b.buf)[b.r:b.w])
		b.r = 0
	}
	return (*b.buf)[b.w:]
}

// filled says that n bytes were read into room.
func (b *inputBuffer) filled(n int) {
	full := b.w+n == len(*b.buf)
	b.w += n
	switch {
	case full && len(*b.buf) == smallInput:
		b.enlarge()
	case n <= smallInput/2:
		b.sparse++
	default:
		b.sparse = 0
	}
}

func (b *inputBuffer) enlarge() {
	large := largeInputs.Get().(*[]byte) //nolint:forcetypeassert // The pool makes nothing else.
	b.w = copy(*large, (*b.buf)[b.r:b.w])
	b.r = 0
	b.put()
	b.buf, b.large, b.sparse = large, true, 0
}

func (b *inputBuffer) put() {
	if len(*b.buf) == smallInput {
		smallInputs.Put(b.buf)
	} else {
		largeInputs.Put(b.buf)
	}
}

// free gives the memory back, with what is in it.
func (b *inputBuffer) free() {
	if b.buf != nil {
		b.put()
		b.buf, b.r, b.w = nil, 0, 0
	}
}

// rest gives the memory back if there is nothing in it.
func (b *inputBuffer) rest() {
	if b.r == b.w {
		b.free()
	}
}
