package h2

// busyStreams is from how many streams on it is worth while to let what several readers bring come together before it
// is written.
const busyStreams = 8

// hurried reports whether output should be written by who brings it.
func (c *conn) hurried() bool {
	return c.direct != nil && (c.side == clientSide || c.openStreams.Load() < busyStreams)
}

// startWriting has the output written: here and now, if it is in one piece and somebody waits for it, and by a writer
// otherwise, or as far as the socket does not take it. w gets what the writing leads to.
func (c *conn) startWriting(w *waker) {
	c.mu.Lock()
	c.wakeOwed = false
	if c.writing || !c.mustWrite() {
		c.mu.Unlock()
		return
	}
	c.writing = true
	if !c.hurried() || c.out.size == 0 || c.out.head.next != nil {
		c.mu.Unlock()
		go c.write()
		return
	}
	piece, size := c.out.head, c.out.size
	c.out = chunkQueue{}
	c.outBusy = size
	c.mu.Unlock()

	n, err := c.direct.write(piece.buf[piece.r:piece.w])

	c.mu.Lock()
	if err == nil && n < size {
		piece.r += n
		rest := chunkQueue{head: piece, tail: piece, size: size - n}
		c.out.prepend(&rest)
	} else {
		piece.free()
	}
	c.written(int64(n), err)
	more := c.mustWrite() // What is left, or came meanwhile.
	c.writing = more
	if !more {
		c.openGate()
	}
	c.unlock(w)
	if more {
		go c.write()
	}
}
