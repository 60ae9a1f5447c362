package admin

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
)

// ClientCertificate is a caller who is known by the certificate of its TLS connection. The server must have verified the
// certificate; one of the four marks is set.
type ClientCertificate struct {
	// Name stands in the audit log.
	Name string
	// CommonName is that of the subject, DNSName and URI are among the alternative names. Names are compared as a whole;
	// a wildcard in a certificate means nothing here.
	CommonName, DNSName, URI string
	// SHA256 is the digest of the whole certificate.
	SHA256 [sha256.Size]byte
	// Permissions as in [Caller].
	Permissions []string
}

func (c *ClientCertificate) check() error {
	marks := 0
	for _, set := range []bool{c.CommonName != "", c.DNSName != "", c.URI != "", c.SHA256 != [sha256.Size]byte{}} {
		if set {
			marks++
		}
	}
	if c.Name == "" || marks != 1 {
		return fmt.Errorf("admin: client certificate %q: a name and exactly one mark are required", c.Name)
	}
	return nil
}

func (c *ClientCertificate) matches(cert *x509.Certificate) bool {
	switch {
	case c.CommonName != "":
		return cert.Subject.CommonName == c.CommonName
	case c.DNSName != "":
		return slices.ContainsFunc(cert.DNSNames, func(name string) bool { return strings.EqualFold(name, c.DNSName) })
	case c.URI != "":
		return slices.ContainsFunc(cert.URIs, func(u *url.URL) bool { return u.String() == c.URI })
	default:
		return sha256.Sum256(cert.Raw) == c.SHA256
	}
}

var (
	errUnknownCertificate     = &Error{codes.Unauthenticated, "", "the client certificate is not that of a known caller"}
	errForeignSiteCertificate = &Error{codes.PermissionDenied, "", "requests of other web sites are refused while a client certificate says who calls"}
)

type clientCertificateKey struct{}

// withClientCertificate keeps the certificate of the connection, when it was verified, in the context of the request:
// from there every protocol finds it.
func withClientCertificate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 && len(r.TLS.PeerCertificates) > 0 {
			r = r.WithContext(context.WithValue(r.Context(), clientCertificateKey{}, r.TLS.PeerCertificates[0]))
		}
		next.ServeHTTP(w, r)
	})
}

// ClientCertificateFrom returns the verified certificate of the connection that a call came through, nil if there is
// none. An [Authenticator] may ask for it.
func ClientCertificateFrom(ctx context.Context) *x509.Certificate {
	cert, _ := ctx.Value(clientCertificateKey{}).(*x509.Certificate)
	return cert
}

// certificateCaller returns who the certificate of the connection says the caller is.
func (a *authentication) certificateCaller(ctx context.Context) (Caller, error) {
	cert := ClientCertificateFrom(ctx)
	if cert == nil {
		return Caller{}, errNoAuthHeader
	}
	if a.failures.now().After(cert.NotAfter) {
		return Caller{}, errUnknownCertificate // the connection is older
	}
	for i := range a.certificates {
		if c := &a.certificates[i]; c.matches(cert) {
			return Caller{Name: c.Name, Permissions: c.Permissions}, nil
		}
	}
	return Caller{}, errUnknownCertificate
}

// identify returns who makes a call. A token says so before a certificate does: it was sent on purpose.
func (a *authentication) identify(ctx context.Context, in incoming) (Caller, error) {
	if len(a.certificates) == 0 || strings.TrimSpace(in.authorization) != "" {
		return a.caller(ctx, in.authorization, in.address)
	}
	caller, err := a.certificateCaller(ctx)
	if err == nil && in.origin != "" && !sameSite(in) {
		// A browser presents the certificate to whatever page asks.
		return Caller{}, errForeignSiteCertificate
	}
	if errors.Is(err, errUnknownCertificate) && len(a.authenticators) > 0 {
		return Caller{}, errNoAuthHeader // the certificate may be for the connection only
	}
	return caller, err
}

func sameSite(in incoming) bool {
	origin, err := url.Parse(in.origin)
	return err == nil && origin.Host != "" && strings.EqualFold(origin.Host, in.host)
}
