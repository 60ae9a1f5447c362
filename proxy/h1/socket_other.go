//go:build !unix

package h1

import "net"

// plainSocket is not there: connections are read and written through package net.
type plainSocket struct{}

func newPlainSocket(net.Conn) *plainSocket { return nil }

func (*plainSocket) fill(*input) error { return nil }

func (*plainSocket) send([]byte, *input, bool) (int, error) { return 0, nil }

func (*plainSocket) write([]byte) error { return nil }

// pollConn does not poll here.
type pollConn struct {
	net.Conn
	polling bool
}

func newPollConn(nc net.Conn) net.Conn { return nc }

type nothingYet struct{ error }
