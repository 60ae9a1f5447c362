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
	"strings"
	"syscall"
	"time"

	"github.com/execgate/execgate/internal/config"
)

// door is one listener with the HTTP server behind it.
type door struct {
	key      string // the key of the configuration, "proxy.listen"
	listener net.Listener
	server   *http.Server
}

// openDoor listens on an address. The error says what to do.
func openDoor(ctx context.Context, key, address string, cert config.ServerTLS, logger *slog.Logger) (*door, error) {
	d := &door{key: key, server: newServer(logger)}
	if cert.Enabled() {
		pair, err := tls.LoadX509KeyPair(cert.CertFile, cert.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("%s: read the certificate: %w", key, err)
		}
		d.server.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
		d.server.Protocols.SetHTTP2(true)
		d.server.Protocols.SetUnencryptedHTTP2(false)
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s: cannot listen on %s: %w", key, address, listenHint(key, err))
	}
	d.listener = listener
	return d, nil
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

// newServer returns a server for HTTP/1.1 and h2c. It bounds what a client can
// hold without sending anything; a body may take as long as it takes.
func newServer(logger *slog.Logger) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Protocols:         protocols,
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       10 * time.Minute,
		ErrorLog:          slog.NewLogLogger(serverNoise{logger.Handler()}, slog.LevelDebug),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: 1000,
			// A connection that died silently must not hold its streams for ever.
			SendPingTimeout: time.Minute,
			PingTimeout:     20 * time.Second,
		},
	}
}

// serve blocks until the server is shut down.
func (d *door) serve(handler http.Handler) error {
	d.server.Handler = handler
	var err error
	if d.server.TLSConfig != nil {
		err = d.server.ServeTLS(d.listener, "", "")
	} else {
		err = d.server.Serve(d.listener)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("%s: %w", d.key, err)
}

func (d *door) address() string { return d.listener.Addr().String() }

// close cuts what is connected.
func (d *door) close() {
	_ = d.server.Close()
	_ = d.listener.Close() // a server that never served knows no listener
}

// serverNoise lets through what net/http's server says, but for the aborts that
// handlers ask for.
type serverNoise struct{ slog.Handler }

// Handle drops the record of an http.ErrAbortHandler panic.
func (h serverNoise) Handle(ctx context.Context, r slog.Record) error {
	if strings.Contains(r.Message, http.ErrAbortHandler.Error()) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}
