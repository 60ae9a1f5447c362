package h2

// busyStreams is from how many streams on it is worth while to let what several readers bring come together before it
// is written.
const busyStreams = 8

// muchOutput is how much is worth writing by itself.
const muchOutput = 32 << 10

// hurried reports whether output should be written by who brings it, whose waker w is: on a busy connection to the
// upstream by its own reader, which has used up its input, and not by the clients'. The lock is held.
func (c *conn) hurried(w *waker) bool {
	return c.direct != nil &&
		(c.side == clientSide || w == &c.wakes || c.openStreams.Load() < busyStreams || c.out.size >= muchOutput)
}

// startWriting has the output written: here and now, if somebody waits for it, and by a writer otherwise, or as far as
// the socket does not take it. w gets what the writing leads to.
func (c *conn) startWriting(w *waker) {
	c.mu.Lock()
	c.wakeOwed = false
	if c.writing || !c.mustWrite() {
		c.mu.Unlock()
		return
	}
	c.writing = true
	if !c.hurried(w) || !c.mayTry() {
		c.mu.Unlock()
		go c.write()
		return
	}
	c.try()
	more := c.mustWrite() // What is left, or came meanwhile.
	c.writing = more
	if !more {
		c.slow = false
		c.openGate()
	}
	c.unlock(w)
	if more {
		go c.write()
	}
}

// mayTry reports whether the output can be written without waiting. The lock is held.
func (c *conn) mayTry() bool {
	return c.direct != nil && c.out.size > 0 && (canGather || c.out.head.next == nil)
}

// try writes what the socket takes without waiting. What it does not take is slow's from then on. The lock is held, and
// released meanwhile.
func (c *conn) try() {
	batch := c.out
	c.out = chunkQueue{}
	c.outBusy = batch.size
	c.mu.Unlock()

	n, err := c.direct.write(&batch)
	if err != nil {
		batch.clear()
	} else {
		batch.drop(n)
		batch.keep()
	}

	c.mu.Lock()
	if !batch.empty() {
		c.slow = true
		c.out.keep()
		c.out.prepend(&batch)
	}
	c.written(int64(n), err)
}

// mayBorrow reports whether output may be left where it was read. The lock is held.
func (c *conn) mayBorrow() bool { return c.direct != nil && canGather && !c.slow }
