//go:build !unix

package targetclient

import (
	"net"
	"time"
)

// aliveWait is how long an idle connection gets to show that it is not what it
// was. There is no way to ask without waiting here.
const aliveWait = time.Millisecond

// socket is what a connection's own methods do not offer: nothing on this system.
type socket struct{}

func newSocket(net.Conn, net.Conn) *socket { return &socket{} }

func (*socket) alive() (alive, ok bool) { return false, false }

func (*socket) direct() bool { return false }

func (*socket) send([]byte, *reader, bool) (int, error) { return 0, errStale }
