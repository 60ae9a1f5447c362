//go:build linux

package main

import (
	"fmt"
	"path"
	"strings"
)

// scenario is one kind of load.
type scenario struct {
	name, title string
	conns       int
	streams     int
	size        int // of a message, both ways
	stream      bool
	rest        bool
	tls         bool
	callout     string // path at the target that the gateway, or nginx with Lua, calls for each call
	executions  []int  // the gateway is measured with each of these numbers of executions, of which none matches
	idle        int    // connections whose memory is measured instead
	open        bool   // fixed rates instead
}

// scenarios are all there are, in the order of the table.
func scenarios() []*scenario {
	return []*scenario{
		{name: "unary-1x1", title: "unary 200 B, 1 connection x 1 stream", conns: 1, streams: 1, size: 200},
		{name: "unary-64x1", title: "unary 200 B, 64x1", conns: 64, streams: 1, size: 200},
		{name: "unary-4x16", title: "unary 200 B, 4x16", conns: 4, streams: 16, size: 200},
		{name: "unary-32x16", title: "unary 200 B, 32x16", conns: 32, streams: 16, size: 200},
		{name: "16k-4x16", title: "unary 16 KiB, 4x16", conns: 4, streams: 16, size: 16 << 10},
		{name: "16k-4x2", title: "unary 16 KiB, 4x2", conns: 4, streams: 2, size: 16 << 10},
		{name: "1m-4x16", title: "unary 1 MiB, 4x16", conns: 4, streams: 16, size: 1 << 20},
		{name: "1m-4x2", title: "unary 1 MiB, 4x2", conns: 4, streams: 2, size: 1 << 20},
		{name: "stream", title: "server stream, 1000 messages of 200 B, 4x4", conns: 4, streams: 4, stream: true},
		{name: "rest-1", title: "REST over HTTP/1.1, 200 B, 1 connection", conns: 1, streams: 1, size: 200, rest: true},
		{name: "rest-64", title: "REST over HTTP/1.1, 200 B, 64 connections", conns: 64, streams: 1, size: 200, rest: true},
		{name: "tls-4x16", title: "unary 200 B, 4x16, TLS in front", conns: 4, streams: 16, size: 200, tls: true},
		{name: "webhook", title: "unary 200 B, 4x16, one rest_webhook per call", conns: 4, streams: 16, size: 200, callout: webhookPath},
		{name: "rewrite", title: "unary 200 B, 4x16, one rest_request_response per call", conns: 4, streams: 16, size: 200, callout: rewritePath},
		{name: "idle", title: "memory per idle HTTP/2 connection, 1000 open", conns: 1000, streams: 1, size: 200, idle: 1000},
		{name: "open-4x16", title: "unary 200 B, 4 connections, open loop", conns: 4, streams: 16, size: 200, open: true},
		{name: "executions", title: "unary 200 B, 4x16, by the number of executions, none matching", conns: 4, streams: 16, size: 200, executions: []int{10, 1000, 100_000}},
	}
}

// choose returns the scenarios whose names match one of the patterns, all for none.
func choose(patterns string) ([]*scenario, error) {
	all := scenarios()
	if patterns == "" {
		return all, nil
	}
	var chosen []*scenario
	for _, pattern := range strings.Split(patterns, ",") {
		found := false
		for _, s := range all {
			ok, err := path.Match(pattern, s.name)
			if err != nil {
				return nil, fmt.Errorf("pattern %q: %w", pattern, err)
			}
			if ok {
				chosen, found = append(chosen, s), true
			}
		}
		if !found {
			return nil, fmt.Errorf("no scenario %q (see -list)", pattern)
		}
	}
	return chosen, nil
}

// load is what the load generator does to r.
func (s *scenario) load(b *bench, r *running) loadSpec {
	l := loadSpec{address: r.address, conns: s.conns, streams: s.streams, rest: s.rest, threads: b.threads, method: blobMethod, callout: s.callout != "", want: 5 + s.size}
	switch {
	case s.rest:
		l.method, l.want = restPath, len(restBody)
	case s.stream:
		l.method, l.message, l.want = streamMethod, streamRequest[:], streamMessages*(5+streamMessage)
	case s.size == 200:
		l.method, l.message = unaryMethod, newUserMessage()
	default:
		l.message = filler(s.size)
	}
	if s.tls {
		l.tls = b.cert.client
	}
	return l
}
