package h1

import (
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
)

// loops are the engine's event loops, one for each processor, made when the first connection is to be served by one.
type loops struct {
	e *Engine

	mu      sync.Mutex
	all     []*loop
	made    bool
	closed  bool
	expired int64 // when idle connections were looked after; the engine's clock
}

// get returns the loop that has the fewest clients, nil if there are none.
func (ls *loops) get() *loop {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if !ls.made && !ls.closed {
		ls.made = true
		for range runtime.GOMAXPROCS(0) {
			l, err := newLoop(ls.e)
			if err != nil {
				ls.e.o.Logger.Debug("connections are served without event loops", "error", err)
				break
			}
			ls.all = append(ls.all, l)
			ls.e.wg.Add(1)
			go l.run()
		}
	}
	var least *loop
	for _, l := range ls.all {
		if least == nil || l.clients.Load() < least.clients.Load() {
			least = l
		}
	}
	return least
}

// tell has every loop look at what f changes.
func (ls *loops) tell(f func(l *loop)) {
	for _, l := range ls.all {
		l.mu.Lock()
		if !l.ended {
			f(l)
			l.ring()
		}
		l.mu.Unlock()
	}
}

// giveUp has the loops give back the connections to the upstream that they do not use: somebody waits for one.
func (ls *loops) giveUp() {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.tell(func(l *loop) { l.release = true })
}

// expire has the loops close connections that were not used for long.
func (ls *loops) expire(now int64) {
	timeout := int64(ls.e.o.Upstream.IdleTimeout)
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if now-ls.expired > timeout/4 {
		ls.expired = now
		ls.tell(func(l *loop) { l.since = now - timeout })
	}
}

// close ends the loops when the last client has gone.
func (ls *loops) close() {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.closed = true
	ls.tell(func(l *loop) { l.ending = true })
}

// detach makes the connection a loop's: the runtime's poller does not watch it any more.
func (s *socket) detach() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	fd := noFD
	err := s.plain.raw.Control(func(from uintptr) {
		if n, _, errno := syscall.RawSyscall(syscall.SYS_FCNTL, from, syscall.F_DUPFD_CLOEXEC, 0); errno == 0 {
			fd = int(n)
		}
	})
	if err != nil || fd == noFD {
		return false
	}
	_ = s.Conn.Close()
	s.fd = fd
	return true
}

// restore undoes detach.
func (s *socket) restore() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd == noFD {
		return nil
	}
	f := os.NewFile(uintptr(s.fd), "socket")
	s.fd = noFD
	nc, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		return err
	}
	s.Conn, s.plain = nc, newPlainSocket(nc)
	return nil
}
