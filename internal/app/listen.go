package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"github.com/execgate/execgate/internal/config"
)

// server serves what comes through a listener, until it is closed.
type server interface {
	Serve(ln net.Listener) error
	Close() error
}

// door is one listener of the gateway. What serves it comes later: all
// listeners are opened before anything else.
type door struct {
	key      string // the key of the configuration, "proxy.listen"
	listener net.Listener
	server   server // nil until it is served
}

// openDoor listens on an address. The error says what to do.
func openDoor(ctx context.Context, key, address string) (*door, error) {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s: cannot listen on %s: %w", key, address, listenHint(key, err))
	}
	return &door{key: key, listener: listener}, nil
}

// listenHint puts what an operator can do behind what the system says.
func listenHint(key string, err error) error {
	variable := config.EnvName(key)
	var dns *net.DNSError
	var call *os.SyscallError
	if errors.As(err, &call) {
		err = call.Err // without the address, which the caller names
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%w; stop the other process, or choose another port in %s (%s)", err, key, variable)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%w; ports below 1024 need privileges: choose a higher one in %s (%s)", err, key, variable)
	case errors.Is(err, syscall.EADDRNOTAVAIL), errors.As(err, &dns):
		return fmt.Errorf("%w; this machine has no such address: choose another in %s (%s)", err, key, variable)
	default:
		return err
	}
}

// httpServer serves the admin API or ops.
type httpServer struct{ *http.Server }

// newServer returns a server for HTTP/1.1 and HTTP/2, in the clear or with TLS.
// It bounds what a client can hold without sending anything.
func newServer(handler http.Handler, certificate *tls.Config, logger *slog.Logger) *httpServer {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(certificate != nil)
	protocols.SetUnencryptedHTTP2(certificate == nil)
	return &httpServer{&http.Server{
		Handler:           handler,
		TLSConfig:         certificate,
		Protocols:         protocols,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       5 * time.Minute,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}}
}

// Serve blocks until the server is shut down or closed, and returns nil then.
func (s *httpServer) Serve(ln net.Listener) error {
	var err error
	if s.TLSConfig != nil {
		err = s.ServeTLS(ln, "", "")
	} else {
		err = s.Server.Serve(ln)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func (d *door) address() string { return d.listener.Addr().String() }

// close stops listening and cuts what is connected.
func (d *door) close() {
	if d.server != nil {
		_ = d.server.Close()
	}
	_ = d.listener.Close() // a server that never served knows no listener
}
