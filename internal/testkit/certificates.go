package testkit

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Certificates are a certificate authority and a server certificate that it
// signed, in memory and as PEM files.
type Certificates struct {
	// CAFile has the authority's certificate, CertFile and KeyFile the server's.
	CAFile, CertFile, KeyFile string
	// Server presents the server's certificate; Client trusts the authority.
	// Both may be changed before they are used.
	Server, Client *tls.Config

	ca     *x509.Certificate
	caKey  *ecdsa.PrivateKey
	serial int64
}

// Issue makes another certificate of the same authority, for clients and for
// localhost, and returns it as it is and as PEM files. change may be nil.
func (c *Certificates) Issue(tb testing.TB, change func(*x509.Certificate)) (cert tls.Certificate, certFile, keyFile string) {
	tb.Helper()
	c.serial++
	now := time.Now()
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(c.serial), Subject: pkix.Name{CommonName: "another"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	if change != nil {
		change(leaf)
	}
	key := newKey(tb)
	der := sign(tb, leaf, c.ca, key, c.caKey)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		tb.Fatalf("encode key: %v", err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatalf("parse certificate: %v", err)
	}
	dir := tb.TempDir()
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: parsed},
		writePEM(tb, dir, "cert.pem", "CERTIFICATE", der), writePEM(tb, dir, "key.pem", "PRIVATE KEY", keyDER)
}

// NewCertificates makes certificates for the given host names and addresses;
// for localhost and the loopback addresses if there are none. They are valid
// for an hour and go with the test.
func NewCertificates(tb testing.TB, hosts ...string) *Certificates {
	tb.Helper()
	if len(hosts) == 0 {
		hosts = []string{"localhost", "127.0.0.1", "::1"}
	}
	now := time.Now()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "execgate test authority"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caKey := newKey(tb)
	caDER := sign(tb, ca, ca, caKey, caKey)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: hosts[0]},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			leaf.IPAddresses = append(leaf.IPAddresses, ip)
		} else {
			leaf.DNSNames = append(leaf.DNSNames, h)
		}
	}
	key := newKey(tb)
	der := sign(tb, leaf, ca, key, caKey)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		tb.Fatalf("encode key: %v", err)
	}
	pool := x509.NewCertPool()
	parsed, err := x509.ParseCertificate(caDER)
	if err != nil {
		tb.Fatalf("parse certificate: %v", err)
	}
	pool.AddCert(parsed)

	dir := tb.TempDir()
	return &Certificates{
		CAFile:   writePEM(tb, dir, "ca.pem", "CERTIFICATE", caDER),
		CertFile: writePEM(tb, dir, "server.pem", "CERTIFICATE", der),
		KeyFile:  writePEM(tb, dir, "server.key", "PRIVATE KEY", keyDER),
		Server:   &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
		Client:   &tls.Config{RootCAs: pool},
		ca:       parsed, caKey: caKey, serial: 2,
	}
}

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatalf("make key: %v", err)
	}
	return key
}

func sign(tb testing.TB, cert, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) []byte {
	tb.Helper()
	der, err := x509.CreateCertificate(rand.Reader, cert, parent, &key.PublicKey, parentKey)
	if err != nil {
		tb.Fatalf("sign certificate: %v", err)
	}
	return der
}

func writePEM(tb testing.TB, dir, name, kind string, der []byte) string {
	tb.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		tb.Fatalf("write certificate: %v", err)
	}
	return path
}
