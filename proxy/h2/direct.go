package h2

// busyStreams is from how many streams on it is worth while to let what several readers bring come together before it
// is written.
const busyStreams = 8

// hurried reports whether output should be written by who brings it.
func (c *conn) hurried() bool {
	return c.direct != nil && (c.side == clientSide || c.openStreams.Load() < busyStreams)
}

// writeNow writes the output of an idle writer in its place, if it is in one piece. It reports false when the writer
// must be woken.
func (c *conn) writeNow(w *waker) bool {
	c.mu.Lock()
	if c.writingNow {
		c.mu.Unlock()
		return true // Who writes looks again afterwards.
	}
	if !c.writerIdle || c.dead || c.out.size == 0 || c.out.head.next != nil {
		c.mu.Unlock()
		return false
	}
	piece := c.out.head
	size := c.out.size
	c.out = chunkQueue{}
	c.outBusy = size
	c.writingNow, c.wakeOwed = true, false
	c.mu.Unlock()

	n, err := c.direct.write(piece.buf[piece.r:piece.w])

	c.mu.Lock()
	c.writingNow = false
	c.outBusy = 0
	c.outWritten += uint64(n)
	switch {
	case err != nil:
		piece.free()
		c.killLocked()
	case n < size:
		piece.r += n
		rest := chunkQueue{head: piece, tail: piece, size: size - n}
		c.out.prepend(&rest)
	default:
		piece.free()
		c.pump()
	}
	// What is left, or came meanwhile, is the writer's.
	wake := c.out.size > 0 || c.closing || c.dead
	c.wakeOwed = wake
	c.unlock(w)
	return !wake
}
