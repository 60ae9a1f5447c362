//go:build linux

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// certificate is for every proxy that speaks TLS: ECDSA on P-256, for an hour.
type certificate struct {
	CertFile, KeyFile, BothFile string
	client                      *tls.Config
}

func newCertificate(dir string) (certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return certificate{}, err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: authority}, DNSNames: []string{authority},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, leaf, &key.PublicKey, key)
	if err != nil {
		return certificate{}, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return certificate{}, err
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	secret := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	c := certificate{CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem"), BothFile: filepath.Join(dir, "both.pem")}
	for name, text := range map[string][]byte{c.CertFile: cert, c.KeyFile: secret, c.BothFile: append(append([]byte{}, cert...), secret...)} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			return certificate{}, err
		}
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cert)
	c.client = &tls.Config{
		RootCAs: roots, ServerName: authority, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13,
	}
	return c, nil
}
