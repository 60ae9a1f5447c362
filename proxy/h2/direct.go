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
	if !c.hurried(w) || c.out.size == 0 || c.out.head.next != nil && !canGather {
		c.mu.Unlock()
		go c.write()
		return
	}
	batch := c.out
	c.out = chunkQueue{}
	c.outBusy = batch.size
	c.mu.Unlock()

	n, err := c.direct.write(&batch)

	c.mu.Lock()
	if err != nil {
		batch.clear()
	} else {
		batch.drop(n)
		c.out.prepend(&batch)
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
