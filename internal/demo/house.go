package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/execgate/execgate/internal/echotarget"
	"github.com/execgate/execgate/internal/testkit/demoapi"
)

// house is everything that runs during a demo.
type house struct {
	api     *demoapi.Server
	gateway Gateway
	token   string
	logPath string // of the gateway
	echo    *valve // what the targets say

	apiAddr, targetAddr string

	targets  *targets
	serving  sync.WaitGroup
	client   *http.Client
	conn     *grpc.ClientConn // to the proxy
	closings []func(context.Context) error
}

// open starts the identity API, the target and the gateway, and waits until the
// gateway has learned the API's schema.
func open(ctx context.Context, o Options, p *printer) (_ *house, err error) {
	h := &house{
		api: demoapi.New(demoapi.Options{}), token: "demo-" + rand.Text(),
		echo: &valve{}, targets: newTargets(),
		client: &http.Client{Transport: &http.Transport{}, Timeout: stepTime},
	}
	defer func() {
		if err != nil {
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stepTime)
			defer cancel()
			err = errors.Join(err, h.close(stop))
		}
	}()
	listen := func(what, addr string) string {
		got := freeAddr(ctx, addr, o.Ephemeral)
		if got != addr && !o.Ephemeral {
			p.say("%s is taken: the %s listens on a free port instead", addr, what)
		}
		return got
	}

	if h.apiAddr, err = h.api.Start(ctx, listen("identity API", DefaultUpstream)); err != nil {
		return nil, err
	}
	h.closings = append(h.closings, h.api.Stop)
	if err := h.startTarget(ctx, listen("target", DefaultTarget)); err != nil {
		return nil, err
	}
	h.gateway, err = o.Start(ctx, Settings{
		Proxy: listen("proxy", DefaultProxy), Admin: listen("admin API", DefaultAdmin), Ops: listen("ops port", DefaultOps),
		UpstreamURL: "http://" + h.apiAddr, Token: h.token, TargetHost: "127.0.0.1", Dir: o.Dir,
	})
	if err != nil {
		return nil, fmt.Errorf("start the gateway: %w", err)
	}
	h.closings = append(h.closings, h.gateway.Stop)
	h.logPath = filepath.Join(o.Dir, logFile)
	h.conn, err = grpc.NewClient("passthrough:///"+h.gateway.ProxyAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("connect to the proxy: %w", err)
	}
	h.closings = append(h.closings, func(context.Context) error { return h.conn.Close() })

	p.say("clients -> proxy %s -> identity API %s", h.gateway.ProxyAddr(), h.apiAddr)
	p.say("             |-> target %s      admin API %s, metrics %s", h.targetAddr, h.gateway.AdminAddr(), h.gateway.OpsAddr())
	return h, h.ready(ctx)
}

// freeAddr returns addr when it can be listened on, and otherwise the same host
// with a port that the system chooses.
func freeAddr(ctx context.Context, addr string, ephemeral bool) string {
	if !ephemeral {
		ln, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
		if err == nil {
			_ = ln.Close()
			return addr
		}
	}
	return "127.0.0.1:0"
}

// ready waits until the gateway serves and knows the schema.
func (h *house) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	var last error
	for {
		code, _, err := h.get(ctx, "http://"+h.gateway.OpsAddr()+"/readyz")
		var m metricSet
		if err == nil && code == http.StatusOK {
			if m, err = h.scrape(ctx); err == nil && m.sum("execgate_schema_loaded") == 1 {
				return nil
			}
		}
		last = err
		select {
		case <-ctx.Done():
			return errors.Join(errors.New("the gateway did not become ready"), last)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// close stops everything, the last started first.
func (h *house) close(ctx context.Context) error {
	var errs []error
	h.targets.openGates()
	for i := len(h.closings) - 1; i >= 0; i-- {
		errs = append(errs, h.closings[i](ctx))
	}
	h.closings = nil
	h.client.CloseIdleConnections()
	return errors.Join(errs...)
}

func (h *house) startTarget(ctx context.Context, addr string) error {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("listen for the target: %w", err)
	}
	h.targetAddr = ln.Addr().String()
	srv := &http.Server{Handler: h.targets, ReadHeaderTimeout: stepTime}
	h.serving.Go(func() { _ = srv.Serve(ln) })
	h.closings = append(h.closings, func(ctx context.Context) error {
		err := srv.Shutdown(ctx)
		if err != nil {
			_ = srv.Close()
		}
		h.serving.Wait()
		return err
	})
	return nil
}

// targets is the example target: one echotarget per path.
type targets struct {
	mu      sync.Mutex // guards what follows
	mounted map[string]http.Handler
	inboxes map[string]chan echotarget.Request
	gates   []chan struct{}
}

func newTargets() *targets {
	return &targets{mounted: map[string]http.Handler{}, inboxes: map[string]chan echotarget.Request{}}
}

// inboxSize is how many deliveries of a path are kept for the tour; what comes
// later is for the reader of the output only.
const inboxSize = 16

// mount puts a target at a path.
func (t *targets) mount(path string, o echotarget.Options, out *valve) error {
	inbox := make(chan echotarget.Request, inboxSize)
	o.OnRequest = func(r echotarget.Request) {
		select {
		case inbox <- r:
		default:
		}
	}
	handler, err := echotarget.NewHandler(o, out)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mounted[path], t.inboxes[path] = handler, inbox
	return nil
}

// mountGated is mount, but the target does not answer before open is called.
func (t *targets) mountGated(path string, o echotarget.Options, out *valve) (open func(), err error) {
	if err := t.mount(path, o, out); err != nil {
		return nil, err
	}
	gate := make(chan struct{})
	t.mu.Lock()
	defer t.mu.Unlock()
	inner := t.mounted[path]
	t.gates = append(t.gates, gate)
	t.mounted[path] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-gate:
			inner.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	})
	return t.openGates, nil
}

// openGates lets every gated target answer, now and later.
func (t *targets) openGates() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, gate := range t.gates {
		close(gate)
	}
	t.gates = nil
}

// ServeHTTP hands a delivery to the target of its path.
func (t *targets) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	t.mu.Lock()
	handler := t.mounted[r.URL.Path]
	t.mu.Unlock()
	if handler == nil {
		http.NotFound(w, r)
		return
	}
	handler.ServeHTTP(w, r)
}

// next returns the next delivery to a path.
func (t *targets) next(ctx context.Context, path string) (echotarget.Request, error) {
	t.mu.Lock()
	inbox := t.inboxes[path]
	t.mu.Unlock()
	select {
	case r := <-inbox:
		return r, nil
	case <-ctx.Done():
		return echotarget.Request{}, fmt.Errorf("nothing was delivered to %s: %w", path, context.Cause(ctx))
	}
}

// pending says how many deliveries to a path nobody has looked at.
func (t *targets) pending(path string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.inboxes[path])
}
