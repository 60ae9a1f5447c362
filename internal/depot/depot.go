package depot

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/execgate/execgate/admin"
	"github.com/execgate/execgate/targetclient"
)

// Options configure a [Depot].
type Options struct {
	// Dir is the directory that files are kept below. Empty: files are refused.
	Dir string
	// Dial makes connections, and refuses some with an error that wraps targetclient.ErrDenied. Required.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// GCSEmulator is the URL of a server that takes the place of Google Cloud Storage, for every caller and without
	// credentials. It is the operator's word: Dial is not asked. Empty: none.
	GCSEmulator string
	// TLS is for connections to S3 and GCS. Nil: the system's certificates.
	TLS *tls.Config
}

// Depot writes and reads documents. Safe for concurrent use.
type Depot struct{ o Options }

var _ admin.Places = (*Depot)(nil)

// New returns a depot. It touches nothing.
func New(o Options) *Depot { return &Depot{o} }

// Write stores a document as a whole, or not at all. What was there before is replaced.
func (d *Depot) Write(ctx context.Context, p admin.Place, document []byte) error {
	switch {
	case p.Local != nil:
		return d.writeFile(p.Local.GetPath(), document)
	case p.S3 != nil:
		return d.writeS3(ctx, p.S3, document)
	case p.GCS != nil:
		return d.writeGCS(ctx, p.GCS, document)
	}
	return refuse(codes.InvalidArgument, "no place is given")
}

// Read returns the document at a place, if it is not longer than limit.
func (d *Depot) Read(ctx context.Context, p admin.Place, limit int64) ([]byte, error) {
	switch {
	case p.Local != nil:
		return d.readFile(p.Local.GetPath(), limit)
	case p.S3 != nil:
		return d.readS3(ctx, p.S3, limit)
	case p.GCS != nil:
		return d.readGCS(ctx, p.GCS, limit)
	}
	return nil, refuse(codes.InvalidArgument, "no place is given")
}

// refuse is what a caller is told.
func refuse(code codes.Code, format string, args ...any) error {
	return &admin.Error{Code: code, Text: fmt.Sprintf(format, args...)}
}

// exchange is one write or read over the network.
type exchange struct {
	what string // "s3" or "gcs"
	*http.Transport
	// denied is set when a connection was refused: not every library hands the error on.
	denied atomic.Bool
}

func (d *Depot) exchange(what string, dial func(ctx context.Context, network, address string) (net.Conn, error)) *exchange {
	x := &exchange{what: what}
	x.Transport = &http.Transport{
		Proxy: nil, // it would connect in our place, unasked
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dial(ctx, network, address)
			if errors.Is(err, targetclient.ErrDenied) {
				x.denied.Store(true)
			}
			return conn, err
		},
		TLSClientConfig:        d.o.TLS.Clone(),
		TLSHandshakeTimeout:    10 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		ForceAttemptHTTP2:      true,
	}
	return x
}

// failure says why an exchange failed, in words of ours. Answers of the server are judged before.
func (x *exchange) failure(ctx context.Context, err error) error {
	what := x.what
	var timeout net.Error
	var certificate *tls.CertificateVerificationError
	switch {
	case x.denied.Load():
		return refuse(codes.PermissionDenied, "%s: targetclient.deny_list of the gateway covers the address", what)
	case errors.Is(err, errTooLarge):
		return refuse(codes.FailedPrecondition, "%s: the document is larger than an import may be", what)
	case errors.Is(err, errInsecureRedirect):
		return refuse(codes.FailedPrecondition, "%s: it redirects from https to http", what)
	case errors.Is(context.Cause(ctx), context.Canceled):
		return context.Canceled
	case ctx.Err() != nil, errors.As(err, &timeout) && timeout.Timeout():
		return refuse(codes.DeadlineExceeded, "%s: no answer within the timeout", what)
	case errors.As(err, &certificate):
		return refuse(codes.Unavailable, "%s: its certificate cannot be verified", what)
	}
	return refuse(codes.Unavailable, "%s: cannot be reached, or does not answer as it should", what)
}

var (
	errTooLarge         = errors.New("too large")
	errInsecureRedirect = errors.New("redirect from https to http")
)

// readAll reads at most limit bytes.
func readAll(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		return nil, errTooLarge
	}
	return b, err
}
