//go:build !linux

package h1

// loops are not there: every connection has a goroutine of its own.
type loops struct{ e *Engine }

type loop struct{}

type member struct{}

func (*loops) get() *loop      { return nil }
func (*loops) giveUp()         {}
func (*loops) expire(int64)    {}
func (*loops) close()          {}
func (*loop) serve(*conn) bool { return false }

func (s *socket) restore() error { return nil }

func closeFD(int) {}

func shutDownFD(int) {}
