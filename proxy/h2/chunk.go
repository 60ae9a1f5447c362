package h2

import "sync"

// Output waits in chunks of fixed size: a buffer that grows would copy everything it holds each time, and would stay
// as large as its worst moment.
const (
	smallChunk = 4 << 10
	largeChunk = 32 << 10
)

type chunk struct {
	buf  []byte
	r, w int // buf[r:w] is what the chunk holds
	next *chunk
	from *block // what it holds is borrowed: buf ends at w
}

var smallChunks = sync.Pool{New: func() any { return &chunk{buf: make([]byte, smallChunk)} }}

var largeChunks = sync.Pool{New: func() any { return &chunk{buf: make([]byte, largeChunk)} }}

var borrowedChunks = sync.Pool{New: func() any { return new(chunk) }}

func newChunk(size int) *chunk {
	if size <= smallChunk {
		return smallChunks.Get().(*chunk) //nolint:forcetypeassert // The pool makes nothing else.
	}
	return largeChunks.Get().(*chunk) //nolint:forcetypeassert // As above.
}

func (c *chunk) free() {
	if c.from != nil {
		c.from.release()
		*c = chunk{}
		borrowedChunks.Put(c)
		return
	}
	c.r, c.w, c.next = 0, 0, nil
	if len(c.buf) == smallChunk {
		smallChunks.Put(c)
	} else {
		largeChunks.Put(c)
	}
}

// chunkQueue is a queue of bytes.
type chunkQueue struct {
	head, tail *chunk
	size       int
}

func (q *chunkQueue) empty() bool { return q.size == 0 }

// grow appends a chunk that has room for at least n bytes, if n is no more than largeChunk.
func (q *chunkQueue) grow(n int) *chunk {
	if q.tail != nil && q.tail.from == nil {
		n = largeChunk // Where one was filled, more will come.
	}
	c := newChunk(n)
	q.push(c)
	return c
}

func (q *chunkQueue) push(c *chunk) {
	if q.tail == nil {
		q.head = c
	} else {
		q.tail.next = c
	}
	q.tail = c
}

// reserve appends n bytes (at most smallChunk) in one piece and returns them for the caller to fill.
func (q *chunkQueue) reserve(n int) []byte {
	t := q.tail
	if t == nil || len(t.buf)-t.w < n {
		t = q.grow(n)
	}
	b := t.buf[t.w : t.w+n]
	t.w += n
	q.size += n
	return b
}

// append copies p to the end.
func (q *chunkQueue) append(p []byte) {
	q.size += len(p)
	for len(p) > 0 {
		t := q.tail
		if t == nil || t.w == len(t.buf) {
			t = q.grow(len(p))
		}
		n := copy(t.buf[t.w:], p)
		t.w += n
		p = p[n:]
	}
}

// worthBorrowing is from how many bytes on a chunk of their own costs less than copying them.
const worthBorrowing = 2 << 10

// borrow is append for bytes that may stay where they are, until they are written or keep is called. Nobody may change
// them any more.
func (q *chunkQueue) borrow(s span) {
	n := s.to - s.from
	t := q.tail
	switch {
	case t != nil && t.from == s.block && t.w == s.from:
		t.buf, t.w = s.block.buf[:s.to], s.to
	case n < worthBorrowing:
		q.append(s.bytes())
		return
	default:
		c := borrowedChunks.Get().(*chunk) //nolint:forcetypeassert // The pool makes nothing else.
		s.block.refs.Add(1)
		c.from, c.buf, c.r, c.w = s.block, s.block.buf[:s.to], s.from, s.to
		q.push(c)
	}
	q.size += n
}

// keep copies what is borrowed: to wait with it could keep much more memory than it is.
func (q *chunkQueue) keep() {
	c := q.head
	for c != nil && c.from == nil {
		c = c.next
	}
	if c == nil {
		return
	}
	c = q.head
	*q = chunkQueue{}
	for c != nil {
		next := c.next
		if c.next = nil; c.from == nil {
			q.push(c)
			q.size += c.w - c.r
		} else {
			q.append(c.buf[c.r:c.w])
			c.free()
		}
		c = next
	}
}

// front is the first piece of at most max bytes.
func (q *chunkQueue) front(max int) []byte {
	if q.head == nil {
		return nil
	}
	b := q.head.buf[q.head.r:q.head.w]
	if len(b) > max {
		b = b[:max]
	}
	return b
}

// discard takes n bytes off the front. n is no more than front returned.
func (q *chunkQueue) discard(n int) {
	c := q.head
	c.r += n
	q.size -= n
	if c.r < c.w {
		return
	}
	if c.next == nil && q.size == 0 {
		q.head, q.tail = nil, nil
	} else {
		q.head = c.next
	}
	c.free()
}

// drop takes n bytes off the front, however many pieces that are.
func (q *chunkQueue) drop(n int) {
	for n > 0 {
		piece := len(q.front(n))
		q.discard(piece)
		n -= piece
	}
}

// prepend puts what other holds in front, and leaves other empty.
func (q *chunkQueue) prepend(other *chunkQueue) {
	if other.head == nil {
		return
	}
	other.tail.next = q.head
	if q.tail == nil {
		q.tail = other.tail
	}
	q.head = other.head
	q.size += other.size
	*other = chunkQueue{}
}

// clear drops everything.
func (q *chunkQueue) clear() {
	for c := q.head; c != nil; {
		next := c.next
		c.free()
		c = next
	}
	*q = chunkQueue{}
}

// cut moves whole chunks from the front to dst, which is empty, until those are n bytes or more.
func (q *chunkQueue) cut(dst *chunkQueue, n int) {
	if q.size <= n {
		*dst = *q
		*q = chunkQueue{}
		return
	}
	for c := q.head; c != nil && dst.size < n; c = q.head {
		q.head = c.next
		if dst.head == nil {
			dst.head = c
		}
		dst.tail = c
		dst.size += c.w - c.r
	}
	dst.tail.next = nil
	q.size -= dst.size
	if q.head == nil {
		q.tail = nil
	}
}
