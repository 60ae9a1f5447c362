package h2

import (
	"sync"
	"sync/atomic"
)

// inputBuffer holds what was read and not yet worked on. It is small until a connection shows that it has more to say.
type inputBuffer struct {
	buf    *block // nil while there is nothing in it
	r, w   int
	size   inputSize // of the next buffer
	limit  inputSize // the largest that it may have
	sparse int       // reads in a row that a buffer of the next smaller size would have held
}

type inputSize uint8

const (
	smallInput inputSize = iota
	largeInput
	// bulkInput is for the upstream's few connections: the answers to many clients share one, and the more of it a read
	// brings, the more goes to each client at once.
	bulkInput
)

var inputSizes = [...]int{smallInput: 4 << 10, largeInput: 64 << 10, bulkInput: 256 << 10}

// sparseReads is after how many small reads a larger buffer is given back.
const sparseReads = 64

// block is the memory of an input buffer. What the reader forwards may be written from where it stands: then the block is
// shared with the output of other connections, and used again when all have let go of it.
type block struct {
	buf  []byte
	refs atomic.Int32
}

// span is a part of a block: whole frames.
type span struct {
	block    *block
	from, to int
}

func (s span) bytes() []byte { return s.block.buf[s.from:s.to] }

// size is how much payload the only frame has, 0 if there is none.
func (s span) size() int {
	if s.block == nil {
		return 0
	}
	return s.to - s.from - frameHeaderLen
}

// payload is that of the only frame.
func (s span) payload() []byte { return s.block.buf[s.from+frameHeaderLen : s.to] }

var inputs = [len(inputSizes)]sync.Pool{
	smallInput: {New: func() any { return newInput(smallInput) }},
	largeInput: {New: func() any { return newInput(largeInput) }},
	bulkInput:  {New: func() any { return newInput(bulkInput) }},
}

func newInput(size inputSize) *block {
	return &block{buf: make([]byte, inputSizes[size])}
}

func getInput(size inputSize) *block {
	b := inputs[size].Get().(*block) //nolint:forcetypeassert // The pools make nothing else.
	b.refs.Store(1)
	return b
}

// shared reports whether anybody but the reader has some of it. The reader alone can say that nobody has.
func (b *block) shared() bool { return b.refs.Load() > 1 }

// release lets go of the block. It must not be used by who called this.
func (b *block) release() {
	if b.refs.Add(-1) > 0 {
		return
	}
	for size := range inputs {
		if len(b.buf) == inputSizes[size] {
			inputs[size].Put(b)
			return
		}
	}
}

// next returns the first whole frame, if there is one. An error means that the peer broke the rules.
func (b *inputBuffer) next() (h frameHeader, payload []byte, ok bool, err error) {
	have := b.w - b.r
	if have < frameHeaderLen {
		return h, nil, false, nil
	}
	h = parseFrameHeader(b.buf.buf[b.r:])
	if h.length > maxFrameSize {
		return h, nil, false, frameSizeError("frame is larger than allowed")
	}
	if have < frameHeaderLen+h.length {
		return h, nil, false, nil
	}
	start := b.r + frameHeaderLen
	b.r = start + h.length
	return h, b.buf.buf[start:b.r:b.r], true, nil
}

// last is the frame, of n bytes, that was just taken.
func (b *inputBuffer) last(n int) span {
	return span{block: b.buf, from: b.r - n - frameHeaderLen, to: b.r}
}

// peek returns the next frame, if it is whole, without taking it.
func (b *inputBuffer) peek() (h frameHeader, ok bool) {
	have := b.w - b.r
	if have < frameHeaderLen {
		return h, false
	}
	h = parseFrameHeader(b.buf.buf[b.r:])
	return h, have >= frameHeaderLen+h.length
}

// peekAfter is peek for the frame behind that which peek returned.
func (b *inputBuffer) peekAfter(first frameHeader) (h frameHeader, ok bool) {
	ahead := inputBuffer{buf: b.buf, r: b.r + frameHeaderLen + first.length, w: b.w}
	return ahead.peek()
}

// room returns where the next read may go: at least as much as the frame needs that has begun.
func (b *inputBuffer) room() []byte {
	if b.r == b.w {
		if b.buf != nil && b.buf.shared() {
			b.free()
		}
		b.r, b.w = 0, 0
		if b.size > smallInput && b.sparse >= sparseReads {
			b.size--
			b.sparse = 0
			b.free()
		}
	}
	if b.buf == nil {
		b.buf = getInput(b.size)
	}
	need := frameHeaderLen
	if b.w-b.r >= frameHeaderLen {
		need += parseFrameHeader(b.buf.buf[b.r:]).length
	}
	if need > len(b.buf.buf) {
		b.enlarge()
	}
	if b.r > 0 && (len(b.buf.buf)-b.r < need || b.w == len(b.buf.buf)) {
		from := b.buf
		if from.shared() {
			b.buf = getInput(b.size)
		}
		b.w = copy(b.buf.buf, from.buf[b.r:b.w])
		b.r = 0
		if b.buf != from {
			from.release()
		}
	}
	return b.buf.buf[b.w:]
}

// filled says that n bytes were read into room.
func (b *inputBuffer) filled(n int) {
	full := b.w+n == len(b.buf.buf)
	b.w += n
	switch {
	case full && b.size < max(b.limit, largeInput):
		b.enlarge()
	case b.size == smallInput:
	case n <= inputSizes[b.size-1]/2:
		b.sparse++
	default:
		b.sparse = 0
	}
}

func (b *inputBuffer) enlarge() {
	b.size++
	next := getInput(b.size)
	b.w = copy(next.buf, b.buf.buf[b.r:b.w])
	b.r = 0
	b.buf.release()
	b.buf, b.sparse = next, 0
}

// free gives the memory back, with what is in it.
func (b *inputBuffer) free() {
	if b.buf != nil {
		b.buf.release()
		b.buf, b.r, b.w = nil, 0, 0
	}
}

// rest gives the memory back if there is nothing in it.
func (b *inputBuffer) rest() {
	if b.r == b.w {
		b.free()
	}
}
