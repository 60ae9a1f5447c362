package targetclient

import (
	"sync"
	"time"
)

// hostKey names what a connection leads to.
type hostKey struct {
	tls  bool
	addr string // host:port as dialled
}

const (
	// idlePerHost is generous because a connection that is not kept costs more
	// than one that is.
	idlePerHost = 128
	// idleOverall bounds what all hosts keep together. It is the host with the
	// most that gives one up, so that a busy target cannot push out the others'.
	idleOverall = 2048
	idleTimeout = 90 * time.Second
	// maxKnownHTTP2 bounds what is remembered about hosts that redirects name.
	maxKnownHTTP2 = 4096
)

// pool keeps idle connections. A timer runs while there are any, and no
// goroutine.
type pool struct {
	mu    sync.Mutex
	idle  map[hostKey][]*conn // the one used last at the end; empty lists go with the next sweep
	count int
	timer *time.Timer // nil: not running
	http2 map[hostKey]struct{}
}

// take returns the connection that was used last, nil if there is none. It may
// be dead.
func (p *pool) take(key hostKey) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.idle[key]
	if len(list) == 0 {
		return nil
	}
	c := list[len(list)-1]
	list[len(list)-1] = nil
	p.idle[key] = list[:len(list)-1]
	p.count--
	return c
}

// put keeps a connection on which nothing is going on any more since now.
func (p *pool) put(c *conn, now time.Time) {
	c.idleSince = now
	if surplus := p.add(c); surplus != nil {
		surplus.retire()
	}
}

// add returns the connection that has to go, if one has to.
func (p *pool) add(c *conn) (surplus *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.idle == nil {
		p.idle = make(map[hostKey][]*conn)
	}
	list := p.idle[c.key]
	switch {
	case len(list) >= idlePerHost:
		surplus = p.oldest(c.key)
	case p.count >= idleOverall:
		surplus = p.oldest(p.largest())
	}
	p.idle[c.key] = append(p.idle[c.key], c)
	p.count++
	if p.timer == nil {
		p.timer = time.AfterFunc(idleTimeout, p.sweep)
	}
	return surplus
}

// oldest takes out the connection of a host that was not used for the longest
// time.
func (p *pool) oldest(key hostKey) *conn {
	list := p.idle[key]
	c := list[0]
	copy(list, list[1:])
	list[len(list)-1] = nil
	p.idle[key] = list[:len(list)-1]
	p.count--
	return c
}

func (p *pool) largest() (key hostKey) {
	most := 0
	for k, list := range p.idle {
		if len(list) > most {
			key, most = k, len(list)
		}
	}
	return key
}

// sweep closes what was idle for too long.
func (p *pool) sweep() {
	now := time.Now()
	p.mu.Lock()
	var old []*conn
	next := idleTimeout
	for key, list := range p.idle {
		for len(list) > 0 && now.Sub(list[0].idleSince) >= idleTimeout {
			old = append(old, p.oldest(key))
			list = p.idle[key]
		}
		if len(list) == 0 {
			delete(p.idle, key)
		} else {
			next = min(next, idleTimeout-now.Sub(list[0].idleSince))
		}
	}
	p.timer = nil
	if p.count > 0 {
		p.timer = time.AfterFunc(next, p.sweep)
	}
	p.mu.Unlock()
	for _, c := range old {
		c.retire()
	}
}

// closeIdle closes all that are idle.
func (p *pool) closeIdle() {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.count = nil, 0
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
	p.mu.Unlock()
	for _, list := range idle {
		for _, c := range list {
			c.retire()
		}
	}
}

// speaksHTTP2 says whether the host chose HTTP/2 when it was last asked.
func (p *pool) speaksHTTP2(key hostKey) bool {
	if !key.tls {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.http2[key]
	return ok
}

// learnHTTP2 remembers what the host chose.
func (p *pool) learnHTTP2(key hostKey, chosen bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !chosen {
		delete(p.http2, key)
		return
	}
	if p.http2 == nil || len(p.http2) >= maxKnownHTTP2 {
		p.http2 = make(map[hostKey]struct{})
	}
	p.http2[key] = struct{}{}
}
