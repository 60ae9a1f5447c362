package oidcserver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	example "github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// storage is the example's, with keys that rotate, and with clients that get JWTs.
type storage struct {
	*example.Storage
	clients map[string]Client
	web     map[string]*example.Client

	mu   sync.Mutex
	keys []*key // the first one signs
	made int
}

var (
	_ op.Storage                  = (*storage)(nil)
	_ op.ClientCredentialsStorage = (*storage)(nil)
)

func newStorage(issuer string, clients []Client) *storage {
	s := &storage{clients: map[string]Client{}, web: map[string]*example.Client{}}
	for _, c := range clients {
		s.clients[c.ID] = c
		s.web[c.ID] = example.WebClient(c.ID, secret, "http://127.0.0.1/callback")
	}
	s.Storage = example.NewStorageWithClients(example.NewUserStore(issuer), s.web)
	s.rotate(false)
	return s
}

// key signs, or is published.
type key struct {
	id      string
	private *ecdsa.PrivateKey
}

func (k *key) ID() string                                  { return k.id }
func (k *key) SignatureAlgorithm() jose.SignatureAlgorithm { return jose.ES256 }
func (k *key) Key() any                                    { return k.private }

type publicKey struct{ *key }

func (k publicKey) Algorithm() jose.SignatureAlgorithm { return jose.ES256 }
func (k publicKey) Use() string                        { return "sig" }
func (k publicKey) Key() any                           { return &k.private.PublicKey }

func (s *storage) rotate(keepOld bool) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made++
	fresh := &key{id: fmt.Sprintf("key-%d", s.made), private: private}
	if keepOld {
		s.keys = append([]*key{fresh}, s.keys...)
	} else {
		s.keys = []*key{fresh}
	}
}

func (s *storage) current() *key {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys[0]
}

// SigningKey implements op.Storage.
func (s *storage) SigningKey(context.Context) (op.SigningKey, error) { return s.current(), nil }

// SignatureAlgorithms implements op.Storage.
func (s *storage) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{jose.ES256}, nil
}

// KeySet implements op.Storage.
func (s *storage) KeySet(context.Context) ([]op.Key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var published []op.Key
	for _, k := range s.keys {
		published = append(published, publicKey{k})
	}
	return published, nil
}

// GetClientByClientID implements op.Storage.
func (s *storage) GetClientByClientID(_ context.Context, id string) (op.Client, error) {
	c, ok := s.web[id]
	if !ok {
		return nil, errors.New("no such client")
	}
	return jwtClient{c}, nil
}

// jwtClient gets JWTs as access tokens, also by client credentials.
type jwtClient struct{ *example.Client }

func (jwtClient) AccessTokenType() op.AccessTokenType { return op.AccessTokenTypeJWT }
func (jwtClient) GrantTypes() []oidc.GrantType {
	return []oidc.GrantType{oidc.GrantTypeCode, oidc.GrantTypeClientCredentials}
}

// ClientCredentials implements op.ClientCredentialsStorage.
func (s *storage) ClientCredentials(ctx context.Context, id, given string) (op.Client, error) {
	if given != secret {
		return nil, errors.New("wrong secret")
	}
	return s.GetClientByClientID(ctx, id)
}

// ClientCredentialsTokenRequest implements op.ClientCredentialsStorage.
func (s *storage) ClientCredentialsTokenRequest(_ context.Context, id string, scopes []string) (op.TokenRequest, error) {
	return &oidc.JWTTokenRequest{Subject: id, Audience: append([]string{id}, s.clients[id].Audience...), Scopes: scopes}, nil
}

// CreateAccessToken implements op.Storage.
func (s *storage) CreateAccessToken(ctx context.Context, request op.TokenRequest) (id string, expires time.Time, err error) {
	id, expires, err = s.Storage.CreateAccessToken(ctx, request)
	if lifetime := s.clients[request.GetSubject()].Lifetime; lifetime != 0 {
		expires = time.Now().Add(lifetime)
	}
	return id, expires, err
}

// GetPrivateClaimsFromScopes implements op.Storage.
func (s *storage) GetPrivateClaimsFromScopes(_ context.Context, _, client string, _ []string) (map[string]any, error) {
	return s.clients[client].Claims, nil
}
