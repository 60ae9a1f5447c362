// Package certs keeps the TLS certificate of a listener, and the authorities of its clients' certificates, as they are
// in their files: who renews a certificate replaces the files, and new connections get it within seconds.
package certs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultInterval is how often files are looked at.
const DefaultInterval = 2 * time.Second

// Options name the files. CertFile and KeyFile are required.
type Options struct {
	// Listener is the key of the configuration, for the log: "admin.tls".
	Listener string
	// CertFile holds the chain, KeyFile the key of its first certificate, in PEM.
	CertFile, KeyFile string
	// ClientAuth says whether clients have to show a certificate; what they show is always verified. The zero value asks
	// for none.
	ClientAuth ClientAuth
	// ClientCAFile holds the authorities of clients' certificates, in PEM. Required unless ClientAuth is NoClientCert.
	ClientCAFile string
	// Interval between looks; 0: [DefaultInterval].
	Interval time.Duration
	// Logger is told about every change. Nil: nothing is logged.
	Logger *slog.Logger
}

// ClientAuth says what a listener asks of its clients.
type ClientAuth uint8

// What a listener may ask.
const (
	NoClientCert ClientAuth = iota
	OptionalClientCert
	RequiredClientCert
)

// tls returns what the TLS library calls it. A certificate that cannot be verified ends the handshake.
func (c ClientAuth) tls() tls.ClientAuthType {
	switch c {
	case OptionalClientCert:
		return tls.VerifyClientCertIfGiven
	case RequiredClientCert:
		return tls.RequireAndVerifyClientCert
	default:
		return tls.NoClientCert
	}
}

// Files is a certificate that follows its files. Make one with [Load]; safe for concurrent use.
type Files struct {
	options Options
	config  atomic.Pointer[tls.Config] // of the connections to come

	mu   sync.Mutex        // held while files are read
	seen [sha256.Size]byte // what was read last, good or bad
}

// Load reads the files.
func Load(o Options) (*Files, error) {
	if o.Interval <= 0 {
		o.Interval = DefaultInterval
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	f := &Files{options: o}
	if _, err := f.Reload(); err != nil {
		return nil, err
	}
	return f, nil
}

// Config returns the configuration for a listener. It stays the same while what it hands out changes.
func (f *Files) Config() *tls.Config {
	c := f.config.Load().Clone()
	c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return &f.config.Load().Certificates[0], nil
	}
	if f.options.ClientAuth != NoClientCert {
		// The authorities change too, and those are no function of the configuration.
		c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return f.config.Load(), nil }
	}
	c.Certificates = nil
	return c
}

// Watch looks at the files until ctx ends. Files that cannot be used are logged once, and what was loaded last stays.
func (f *Files) Watch(ctx context.Context) {
	tick := time.NewTicker(f.options.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		changed, err := f.Reload()
		switch {
		case err != nil:
			f.options.Logger.Error("the new certificate cannot be used, the one before it stays", "listener", f.options.Listener, "error", err)
		case changed:
			f.options.Logger.Info("the certificate was read again", "listener", f.options.Listener, "valid_until", f.Expiry())
		}
	}
}

// Expiry is until when the certificate is valid.
func (f *Files) Expiry() time.Time { return f.config.Load().Certificates[0].Leaf.NotAfter }

// Reload reads the files again. It says whether there is something new that is in use now; on an error nothing changes,
// and the same files make no second error.
func (f *Files) Reload() (changed bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	o := f.options
	cert, errCert := os.ReadFile(o.CertFile)
	key, errKey := os.ReadFile(o.KeyFile)
	var authorities []byte
	var errCA error
	if o.ClientAuth != NoClientCert {
		authorities, errCA = os.ReadFile(o.ClientCAFile)
	}
	err = errors.Join(errCert, errKey, errCA)
	seen := digest(cert, key, authorities, fmt.Append(nil, err))
	if seen == f.seen {
		return false, nil
	}
	f.seen = seen
	if err != nil {
		return false, fmt.Errorf("%s: %w", o.Listener, err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return false, fmt.Errorf("%s: the certificate and its key: %w", o.Listener, err)
	}
	c := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{pair},
		NextProtos:   []string{"h2", "http/1.1"},
	}
	if o.ClientAuth != NoClientCert {
		c.ClientAuth, c.ClientCAs = o.ClientAuth.tls(), x509.NewCertPool()
		if !c.ClientCAs.AppendCertsFromPEM(authorities) {
			return false, fmt.Errorf("%s: the file of authorities holds no PEM certificate", o.Listener)
		}
		// A resumed session would not be verified against authorities that changed since.
		c.SessionTicketsDisabled = true
	}
	f.config.Store(c)
	return true, nil
}

// digest tells contents apart, without keeping a key.
func digest(parts ...[]byte) [sha256.Size]byte {
	var all bytes.Buffer
	for _, p := range parts {
		sum := sha256.Sum256(p)
		all.Write(sum[:])
	}
	return sha256.Sum256(all.Bytes())
}
