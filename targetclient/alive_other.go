//go:build !unix

package targetclient

import "time"

// aliveWait is how long an idle connection gets to show that it is not what it
// was. There is no way to ask without waiting here.
const aliveWait = time.Millisecond

// aliveCheck looks whether an idle connection is still what it was.
type aliveCheck struct{ conn *conn }

func (a *aliveCheck) init(c *conn) { a.conn = c }

func (a *aliveCheck) alive() bool { return a.conn.quiet(time.Now().Add(aliveWait)) }
