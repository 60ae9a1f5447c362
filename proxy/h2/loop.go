package h2

import (
	"errors"
	"io"
	"net"
	"time"

	"golang.org/x/net/http2"
)

var (
	errBogusPreface = errors.New("not an HTTP/2 connection preface")
	errEnded        = errors.New("connection was ended")
)

// read reads frames and acts on them until the connection ends. The error is a *connError if the peer is to be told.
func (c *conn) read() error {
	preface := c.side == clientSide
	for {
		for {
			if preface {
				if c.in.w-c.in.r < len(http2.ClientPreface) {
					break
				}
				got := c.in.buf.buf[c.in.r : c.in.r+len(http2.ClientPreface)]
				if string(got) != http2.ClientPreface {
					return &connError{code: http2.ErrCodeProtocol, text: errBogusPreface.Error()}
				}
				c.in.r += len(http2.ClientPreface)
				preface = false
			}
			h, payload, ok, err := c.in.next()
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			if err := c.onFrame(h, payload); err != nil {
				return err
			}
		}
		if err := c.pause(); err != nil {
			return err
		}
		c.noteWaiting(preface)
		if c.headers.box != nil { // While it waits, a connection needs no list of fields.
			c.head = Head{conn: c}
			c.headers.rest()
		}
		n, err := c.readSome()
		if n > 0 {
			c.now = c.eng.clock()
			c.wakes.now = c.now
			c.lastRead.Store(c.now)
			c.in.filled(n)
			if preface && !prefacePossible(c.in.buf.buf[c.in.r:c.in.w]) {
				return &connError{code: http2.ErrCodeProtocol, text: errBogusPreface.Error()}
			}
			continue
		}
		if err != nil {
			return err
		}
	}
}

// readSome waits for input. While there is none, a plain socket needs no buffer.
func (c *conn) readSome() (int, error) {
	if c.direct != nil {
		return c.direct.read(&c.in)
	}
	return c.nc.Read(c.in.room())
}

func prefacePossible(b []byte) bool {
	n := min(len(b), len(http2.ClientPreface))
	return string(b[:n]) == http2.ClientPreface[:n]
}

// pause wakes the writers of what the input brought, and waits while the peer does not read what it caused.
func (c *conn) pause() error {
	c.wakes.flush()
	c.wakes.giveBack()
	c.wakes.now = 0
	c.mu.Lock()
	for c.side == clientSide && c.out.size+c.outBusy > gateLimit && !c.dead {
		c.gateWaits = true
		c.gate.Wait()
	}
	dead := c.dead
	c.mu.Unlock()
	if dead {
		return errEnded
	}
	return nil
}

// noteWaiting tells the janitor whether the peer owes us the rest of something that must not take long.
func (c *conn) noteWaiting(preface bool) {
	waits := preface || !c.settled || c.block.id != 0
	if !waits && c.in.w > c.in.r {
		waits = c.in.w-c.in.r < frameHeaderLen || parseFrameHeader(c.in.buf.buf[c.in.r:]).kind != http2.FrameData
	}
	switch {
	case !waits:
		if c.waitsSince.Load() != 0 {
			c.waitsSince.Store(0)
		}
	case c.waitsSince.Load() == 0:
		c.waitsSince.Store(c.now)
	}
}

// writeRound is how much is written before progress is noted.
const writeRound = 128 << 10

// write is the writer: it writes the output until there is none. c.writing was set for it.
func (c *conn) write() {
	var (
		w      waker
		pieces [][]byte
	)
	c.mu.Lock()
	for c.mustWrite() {
		if c.out.size == 0 {
			c.saidGoodbye = true
			c.mu.Unlock()
			c.sayGoodbye()
			c.mu.Lock()
			continue
		}
		if !c.slow && c.mayTry() {
			c.try()
			continue
		}
		var batch chunkQueue
		c.out.cut(&batch, writeRound)
		c.outBusy = batch.size
		c.unlock(&w)
		w.flush()

		c.writeSince.Store(c.eng.clock())
		n, err := c.writeBatch(&batch, &pieces)
		c.writeSince.Store(0)
		batch.clear()

		c.mu.Lock()
		c.written(n, err)
	}
	c.writing, c.slow = false, false
	c.openGate()
	c.unlock(&w)
	w.flush()
}

// written accounts for a write. The lock is held.
func (c *conn) written(n int64, err error) {
	c.outBusy = 0
	c.outWritten += uint64(n)
	if err != nil {
		c.killLocked()
		return
	}
	c.pump()
	if c.out.size <= gateLimit/2 {
		c.openGate()
	}
}

// openGate lets those go on who wait for the output. The lock is held.
func (c *conn) openGate() {
	if c.gateWaits {
		c.gateWaits = false
		c.gate.Broadcast()
	}
}

// writeBatch writes one batch to the socket.
func (c *conn) writeBatch(batch *chunkQueue, pieces *[][]byte) (int64, error) {
	if batch.head.next == nil {
		n, err := c.nc.Write(batch.head.buf[batch.head.r:batch.head.w])
		return int64(n), err
	}
	if c.tlsState != nil {
		var total int64
		for p := batch.head; p != nil; p = p.next {
			n, err := c.nc.Write(p.buf[p.r:p.w])
			total += int64(n)
			if err != nil {
				return total, err
			}
		}
		return total, nil
	}
	list := (*pieces)[:0]
	for p := batch.head; p != nil; p = p.next {
		list = append(list, p.buf[p.r:p.w])
	}
	*pieces = list
	buffers := net.Buffers(list)
	n, err := buffers.WriteTo(c.nc)
	clear(*pieces)
	return n, err
}

// lingerTime is how long a connection that we end is still read, so that the peer gets to see why: closing with input
// unread would make the system throw away what we sent.
const lingerTime = time.Second

// sayGoodbye ends our half of the connection.
func (c *conn) sayGoodbye() {
	_ = c.nc.SetDeadline(time.Now().Add(lingerTime))
	if half, ok := c.nc.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	if half, ok := netConn(c.nc).(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}

func netConn(nc net.Conn) net.Conn {
	if t, ok := nc.(interface{ NetConn() net.Conn }); ok {
		return t.NetConn()
	}
	return nc
}

// linger reads on, for nothing, until the peer has seen that we ended, or time is up.
func (c *conn) linger() {
	_ = c.nc.SetReadDeadline(time.Now().Add(lingerTime))
	buf := getInput(smallInput)
	defer buf.release()
	for {
		if _, err := c.nc.Read(buf.buf); err != nil {
			return
		}
	}
}

// run serves the connection until it ends, and returns when nothing of it is left.
func (c *conn) run() {
	err := c.read()
	var fault *connError
	told := errors.As(err, &fault)
	if c.side == upstreamSide {
		c.eng.pool.leave(c, &c.wakes)
	}
	if told {
		if fault.reason != 0 {
			c.eng.o.Observer.Limited(fault.reason)
		}
		c.eng.o.Logger.Debug("ended an HTTP/2 connection", "upstream", c.side == upstreamSide, "error", fault.Error())
	}
	c.mu.Lock()
	switch {
	case told && !c.dead:
		c.writeGoAway(c.lastID, fault.code)
		c.closing = true
	case errors.Is(err, io.EOF) && c.closing && !c.dead:
		// The peer ended as well; what is left to be written may still reach it.
	case errors.Is(err, errEnded) && !c.dead:
	default:
		c.killLocked()
	}
	c.goingAway, c.final = true, true
	lost := c.abandon()
	c.unlock(&c.wakes)
	c.wakes.flush()
	c.eng.lost(lost, &c.wakes)
	c.wakes.flush()
	if told {
		c.linger()
	}
	c.end()
	_ = c.nc.Close()
	c.in.free()
}

// end waits until what is left was written, or cannot be.
func (c *conn) end() {
	_ = c.nc.SetWriteDeadline(time.Now().Add(lingerTime))
	c.mu.Lock()
	c.closing = true
	c.unlock(&c.wakes)
	c.wakes.flush()
	c.mu.Lock()
	for c.writing || c.mustWrite() {
		c.gateWaits = true
		c.gate.Wait()
	}
	c.dead = true
	c.out.clear()
	c.mu.Unlock()
}
