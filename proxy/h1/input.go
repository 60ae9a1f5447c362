package h1

import "sync"

// input holds what was read and not yet used up.
type input struct {
	buf   *[]byte // nil while there is nothing in it
	r, w  int
	large bool // much is expected
}

const (
	inputSize  = 8 << 10
	streamSize = 64 << 10
)

var inputs = sync.Pool{New: func() any {
	b := make([]byte, inputSize)
	return &b
}}

// streams are for bodies that do not fit into an input.
var streams = sync.Pool{New: func() any {
	b := make([]byte, streamSize)
	return &b
}}

// bytes is what is there.
func (b *input) bytes() []byte {
	if b.buf == nil {
		return nil
	}
	return (*b.buf)[b.r:b.w]
}

// room returns where the next read may go, without moving what is there; it is empty if the buffer is full.
func (b *input) room() []byte {
	switch {
	case b.buf != nil:
	case b.large:
		b.buf = streams.Get().(*[]byte) //nolint:forcetypeassert // The pool makes nothing else.
	default:
		b.buf = inputs.Get().(*[]byte) //nolint:forcetypeassert // As above.
	}
	if b.r == b.w {
		b.r, b.w = 0, 0
	}
	return (*b.buf)[b.w:]
}

// compact makes room by moving what is there to the front.
func (b *input) compact() {
	if b.r > 0 {
		b.w = copy(*b.buf, (*b.buf)[b.r:b.w])
		b.r = 0
	}
}

// grow makes room where the buffer is full, up to limit bytes in all. It reports whether there is any.
func (b *input) grow(limit int) bool {
	b.compact()
	have := len(*b.buf)
	if b.w < have {
		return true
	}
	if have >= limit {
		return false
	}
	larger := new([]byte)
	if have < streamSize {
		larger = streams.Get().(*[]byte) //nolint:forcetypeassert // The pool makes nothing else.
	} else {
		*larger = make([]byte, min(2*have, limit))
	}
	w := copy(*larger, (*b.buf)[:b.w])
	b.free()
	b.buf, b.w = larger, w
	return true
}

// detach gives the buffer away, because something in it is still used, and goes on with another that holds the rest.
func (b *input) detach() *[]byte {
	old, rest := b.buf, b.bytes()
	*b = input{}
	if len(rest) > 0 {
		if len(rest) > len(b.room()) {
			b.free()
			larger := make([]byte, len(rest))
			b.buf = &larger
		}
		b.w = copy(*b.buf, rest)
	}
	return old
}

// free gives the memory back, with what is in it.
func (b *input) free() {
	release(b.buf)
	*b = input{large: b.large}
}

// release gives a buffer back.
func release(buf *[]byte) {
	switch {
	case buf == nil:
	case len(*buf) == inputSize:
		inputs.Put(buf)
	case len(*buf) == streamSize:
		streams.Put(buf)
	}
}

// rest gives the memory back if there is nothing in it.
func (b *input) rest() {
	if b.buf != nil && b.r == b.w {
		b.free()
	}
}
