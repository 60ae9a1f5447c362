package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"github.com/execgate/execgate/admin"
	"github.com/execgate/execgate/admin/oidcauth"
	"github.com/execgate/execgate/internal/certs"
	"github.com/execgate/execgate/internal/config"
)

// tokens are the static bearer tokens of the admin API.
func tokens(cfg config.Admin) []admin.Token {
	var list []admin.Token
	for _, t := range cfg.Tokens {
		list = append(list, admin.Token{
			Name:        t.Name,
			SHA256:      admin.HashToken(t.Token.Reveal()),
			Permissions: t.Permissions,
		})
	}
	return list
}

// clientCertificates are the callers of the admin API that show one.
func clientCertificates(cfg config.Admin) []admin.ClientCertificate {
	var list []admin.ClientCertificate
	for _, c := range cfg.ClientCertificates {
		digest, _ := c.Fingerprint() // checked with the configuration
		list = append(list, admin.ClientCertificate{
			Name:        c.Name,
			CommonName:  c.SubjectCN,
			DNSName:     c.SANDNS,
			URI:         c.SANURI,
			SHA256:      digest,
			Permissions: c.Permissions,
		})
	}
	return list
}

// authenticators are those that know tokens of others: the OIDC provider's.
func (a *App) authenticators() ([]admin.Authenticator, error) {
	cfg := a.config.Admin.OIDC
	if cfg.Issuer == "" {
		return nil, nil
	}
	o := oidcauth.Options{
		Issuer:           cfg.Issuer,
		Audience:         cfg.Audience,
		JWKSURL:          cfg.JWKSURL,
		AllowHTTP:        cfg.AllowHTTP,
		Algorithms:       cfg.Algorithms,
		ClockSkew:        cfg.ClockSkew,
		RequireATJWT:     cfg.RequireATJWT,
		RolesClaim:       cfg.RolesClaim,
		Roles:            cfg.Roles,
		PermissionsClaim: cfg.PermissionsClaim,
		Logger:           a.logger,
	}
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("oidc: read ca_file: %w", err)
		}
		o.RootCAs = x509.NewCertPool()
		if !o.RootCAs.AppendCertsFromPEM(pem) {
			return nil, errors.New("oidc: ca_file holds no PEM certificate")
		}
	}
	provider, err := oidcauth.New(o)
	if err != nil {
		return nil, err
	}
	a.watched = append(a.watched, provider.Run)
	return []admin.Authenticator{provider}, nil
}

// clientAuth is what the configuration calls them.
var clientAuth = map[string]certs.ClientAuth{
	"none":     certs.NoClientCert,
	"optional": certs.OptionalClientCert,
	"required": certs.RequiredClientCert,
}

// certificate reads the certificate of a listener, and has its files watched
// from the start on; nil when there is none.
func (a *App) certificate(o certs.Options) (*tls.Config, error) {
	if o.CertFile == "" {
		return nil, nil
	}
	o.Logger = a.logger
	files, err := certs.Load(o)
	if err != nil {
		return nil, err
	}
	a.watched = append(a.watched, files.Watch)
	return files.Config(), nil
}

// watch runs what follows others: certificate files, the keys of the OIDC
// provider. All of it ends with ctx.
func (a *App) watch(ctx context.Context) {
	for _, run := range a.watched {
		a.background.Go(func() { run(ctx) })
	}
}
