//go:build linux

package main

import (
	"bytes"
	"fmt"
	"time"
)

// h1Client makes REST requests on one connection, one after the other.
type h1Client struct {
	client
	c       *conn
	begun   time.Duration
	busy    bool
	request []byte
}

func (c *h1Client) open(cn *conn) {
	c.c = cn
	c.request = fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: curl/8.14.1\r\nAccept: application/json\r\nAuthorization: %s\r\n\r\n",
		c.g.spec.method, authority, bearer)
	if c.pace.every > 0 {
		c.pace.idle = append(c.pace.idle, c)
		return
	}
	c.call(c.now())
}

func (c *h1Client) call(due time.Duration) bool {
	c.begun, c.busy = due, true
	c.c.out = append(c.c.out, c.request...)
	c.c.touch()
	return false
}

func (c *h1Client) input(_ *conn, p []byte) (int, error) {
	head, n, err := h1Message(p)
	if err != nil || n == 0 {
		return 0, err
	}
	if n != len(p) {
		return 0, fmt.Errorf("%w: %d bytes after the answer", errStatus, len(p)-n)
	}
	now := c.now()
	switch {
	case !bytes.HasPrefix(head, []byte("HTTP/1.1 200 ")):
		line, _, _ := bytes.Cut(head, []byte("\r"))
		err = fmt.Errorf("%w: %s", errStatus, line)
	case n-len(head)-2 != c.g.spec.want:
		err = fmt.Errorf("%w: %d bytes and not %d", errStatus, n-len(head)-2, c.g.spec.want)
	}
	c.record(c.begun, now, err)
	c.busy = false
	switch {
	case c.g.spec.once, !c.mayCall(false):
	case c.pace.every == 0:
		c.call(now)
	default:
		c.pace.idle = append(c.pace.idle, c)
	}
	return n, nil
}

// drain is called when no more calls are to be made.
func (c *h1Client) drain() { c.mayCall(c.busy) }

func (c *h1Client) writable(*conn)            {}
func (c *h1Client) closed(_ *conn, err error) { c.lost(err) }
