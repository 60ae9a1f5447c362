package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// Addresses that everything listens on where they are free.
const (
	DefaultProxy    = "127.0.0.1:8080"
	DefaultAdmin    = "127.0.0.1:8081"
	DefaultOps      = "127.0.0.1:8082"
	DefaultUpstream = "127.0.0.1:9080"
	DefaultTarget   = "127.0.0.1:9090"
)

// Gateway is a running gateway.
type Gateway interface {
	// ProxyAddr, AdminAddr and OpsAddr are the host:port it listens on.
	ProxyAddr() string
	AdminAddr() string
	OpsAddr() string
	// Stop ends it. It is called once.
	Stop(ctx context.Context) error
}

// Settings are how the demo wants its gateway.
type Settings struct {
	// Proxy, Admin and Ops are the addresses to listen on.
	Proxy, Admin, Ops string
	// UpstreamURL is the demo identity API.
	UpstreamURL string
	// Token is the bearer token that the admin API accepts for everything.
	Token string
	// TargetHost has to be allowed although it is a loopback address.
	TargetHost string
	// Dir is where the gateway keeps its files.
	Dir string
}

// Options of a demo.
type Options struct {
	// Once ends after the tour.
	Once bool
	// Out gets the tour. Required.
	Out io.Writer
	// Start starts the gateway. Required.
	Start func(context.Context, Settings) (Gateway, error)
	// Dir is where files are kept; empty is a directory that goes with the demo.
	Dir string
	// Ephemeral listens on free ports, without looking for the usual ones.
	Ephemeral bool
}

// stepTime is what one step of the tour may take.
const stepTime = 20 * time.Second

// Run starts everything, takes the tour, and unless Once is set stays up until
// ctx ends. It returns an error that names every step that did not do what it
// says, or what kept the demo from starting.
func Run(ctx context.Context, o Options) (err error) {
	if o.Out == nil || o.Start == nil {
		return errors.New("demo needs an output and a gateway")
	}
	if o.Dir == "" {
		dir, failure := os.MkdirTemp("", "execgate-demo-")
		if failure != nil {
			return fmt.Errorf("make a directory for the demo: %w", failure)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		o.Dir = dir
	}
	p := newPrinter(o.Out)
	p.title("execgate demo: an identity API, a target, and the gateway between them")
	h, err := open(ctx, o, p)
	if err != nil {
		return err
	}
	defer func() {
		// The stop must not end with the Ctrl-C that caused it.
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stepTime)
		defer cancel()
		err = errors.Join(err, h.close(stop))
	}()
	failed := take(ctx, h, p)
	if ctx.Err() != nil {
		return fmt.Errorf("the tour was cut short: %w", context.Cause(ctx))
	}
	if o.Once {
		return failed
	}
	h.invite(p)
	h.echo.to(o.Out)
	<-ctx.Done()
	p.line("")
	p.line("stopping")
	return failed
}
