package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	_ "net/http/pprof" //nolint:gosec // G108: only with -pprof, on loopback.
	"net/url"
	"os"

	"github.com/execgate/execgate/proxy/h2"
)

// announce prints the address for the process that started this one.
func announce(ln net.Listener) {
	_ = json.NewEncoder(os.Stdout).Encode(map[string]string{"address": ln.Addr().String()})
}

func listen() (net.Listener, error) {
	var lc net.ListenConfig
	return lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
}

type relayAll struct{}

func (relayAll) Decide(*h2.Head) h2.Action { return h2.Action{} }
func (relayAll) Done(*h2.Call)             {}

func engine(address string) error {
	ln, err := listen()
	if err != nil {
		return err
	}
	e, err := h2.New(h2.Options{Director: relayAll{}, Upstream: h2.UpstreamOptions{Address: address}})
	if err != nil {
		return err
	}
	profile()
	announce(ln)
	return e.Serve(ln, func(nc net.Conn) { _ = nc.Close() })
}

func reverse(address string) error {
	ln, err := listen()
	if err != nil {
		return err
	}
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	p := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: address})
			r.Out.Host = r.In.Host
		},
		Transport:     &http.Transport{Protocols: &protocols, DisableCompression: true},
		FlushInterval: -1,
	}
	s := &http.Server{Handler: p, Protocols: &protocols} //nolint:gosec // G112: loopback, minutes.
	profile()
	announce(ln)
	return s.Serve(ln)
}

// profile serves net/http/pprof where H2BENCH_PPROF says.
func profile() {
	if address := os.Getenv("H2BENCH_PPROF"); address != "" {
		go func() { fmt.Fprintln(os.Stderr, http.ListenAndServe(address, nil)) }() //nolint:gosec // G114: as above.
	}
}
