package proxy

import (
	"errors"
	"net/http"
	"net/textproto"
	"sync"
)

// errTooManyInformational ends an exchange in which the upstream sends 1xx answers without end.
var errTooManyInformational = errors.New("upstream sends too many informational answers")

// maxInformational bounds how many 1xx answers one request may bring.
const maxInformational = 32

// informationalRelay passes 1xx answers on while the final one has not come.
type informationalRelay struct {
	w http.ResponseWriter
	// asks: a client on HTTP/1.1 waits for 100. Go's server would say it when the body is first read, on the transport's
	// goroutine, and without regard to another 1xx that is being written. So it is said here, under the mutex.
	asks bool

	mu        sync.Mutex
	done      bool
	continued bool
	n         int
}

func (i *informationalRelay) relay(code int, header textproto.MIMEHeader) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.n++; i.n > maxInformational {
		return errTooManyInformational
	}
	switch {
	case i.done:
	case code == http.StatusContinue:
		i.sayContinue()
	default:
		h := i.w.Header()
		for name, values := range header {
			if !hopByHop(name) {
				h[name] = values
			}
		}
		i.w.WriteHeader(code)
		clear(h)
	}
	return nil
}

// proceed is called before the client's body is first read.
func (i *informationalRelay) proceed() {
	if i == nil || !i.asks {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.done {
		i.sayContinue()
	}
}

func (i *informationalRelay) sayContinue() {
	if i.asks && !i.continued {
		i.continued = true
		i.w.WriteHeader(http.StatusContinue)
	}
}

func (i *informationalRelay) stop() {
	if i == nil {
		return
	}
	i.mu.Lock()
	i.done = true
	i.mu.Unlock()
}
