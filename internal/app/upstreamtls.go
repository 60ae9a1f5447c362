package app

import (
	"cmp"
	"context"
	"crypto/tls"
	"net"

	"google.golang.org/grpc/credentials"
)

// upstreamCredentials verify the upstream's certificate as the proxy does: against
// server_name, or else the host of the URL, and never against the authority, which
// names a tenant and not the server.
type upstreamCredentials struct {
	credentials.TransportCredentials
	server string
}

func newUpstreamCredentials(t *tls.Config, host string) credentials.TransportCredentials {
	return upstreamCredentials{credentials.NewTLS(t), cmp.Or(t.ServerName, host)}
}

// ClientHandshake ignores the authority.
func (c upstreamCredentials) ClientHandshake(ctx context.Context, _ string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return c.TransportCredentials.ClientHandshake(ctx, c.server, conn)
}

// Info names no server: gRPC would want the authority to be the same.
func (c upstreamCredentials) Info() credentials.ProtocolInfo {
	info := c.TransportCredentials.Info()
	info.ServerName = "" //nolint:staticcheck // deprecated, but still compared
	return info
}

// Clone returns a copy.
func (c upstreamCredentials) Clone() credentials.TransportCredentials {
	return upstreamCredentials{c.TransportCredentials.Clone(), c.server}
}
