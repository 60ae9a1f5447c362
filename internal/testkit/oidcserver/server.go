// Package oidcserver is a real OpenID Connect provider for tests: the one of github.com/zitadel/oidc, over a real
// socket, with clients of the test's choice, keys that can be rotated, and a switch to take it away and bring it back.
package oidcserver

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// Client is an application of the provider. It gets tokens by client credentials, and for its user by the
// authorization code flow.
type Client struct {
	// ID is also the subject and an audience of its tokens.
	ID string
	// Audience are further audiences.
	Audience []string
	// Claims are put into its access tokens.
	Claims map[string]any
	// Lifetime of its access tokens, 5 minutes if 0. A negative one makes tokens that have expired.
	Lifetime time.Duration
}

const secret = "a-client-secret"

// Server is a provider. Make one with [Start].
type Server struct {
	tb      testing.TB
	address string
	storage *storage
	handler http.Handler
	http    *http.Client
	reads   atomic.Int64

	mu     sync.Mutex
	server *http.Server // nil while it is away
	served chan struct{}
}

// New returns a provider that has an address and is away until [Server.Up].
func New(tb testing.TB, clients ...Client) *Server {
	tb.Helper()
	// Its own loopback address, so that nobody takes the port while it is away; where the system has only one, that.
	ln, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.%d:0", 1+rand.N(250), rand.N(250), 1+rand.N(250)))
	if err != nil {
		ln, err = net.Listen("tcp", "127.0.0.1:0")
	}
	if err != nil {
		tb.Fatal(err)
	}
	s := &Server{tb: tb, address: ln.Addr().String(), http: &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	_ = ln.Close() // it is taken again by Up
	s.storage = newStorage(s.Issuer(), clients)
	// Not exampleop.SetupServer: it changes the library's global endpoints, which other providers read.
	provider, err := op.NewProvider(&op.Config{CryptoKey: sha256.Sum256([]byte("test"))}, s.storage, op.StaticIssuer(s.Issuer()),
		op.WithAllowInsecure(), op.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		tb.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/", provider)
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, r *http.Request) {
		s.reads.Add(1)
		provider.ServeHTTP(w, r)
	})
	login, next := op.NewIssuerInterceptor(provider.IssuerFromRequest), op.AuthCallbackURL(provider)
	mux.HandleFunc("POST /login/username", login.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.FormValue("id")
		if err := s.storage.CheckUsernamePassword(r.FormValue("username"), r.FormValue("password"), id); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		http.Redirect(w, r, next(r.Context(), id), http.StatusFound)
	}))
	s.handler = mux
	tb.Cleanup(s.Down)
	return s
}

// Start returns a provider that runs until the test ends.
func Start(tb testing.TB, clients ...Client) *Server {
	tb.Helper()
	s := New(tb, clients...)
	s.Up()
	return s
}

// Up serves, at the same address as ever.
func (s *Server) Up() {
	s.tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server != nil {
		return
	}
	ln, err := net.Listen("tcp", s.address)
	if err != nil {
		s.tb.Fatalf("the provider comes back: %v", err)
	}
	server, served := &http.Server{Handler: s.handler, ReadHeaderTimeout: time.Second}, make(chan struct{})
	s.server, s.served = server, served
	go func() {
		defer close(served)
		_ = server.Serve(ln)
	}()
}

// Down takes the provider away.
func (s *Server) Down() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server == nil {
		return
	}
	_ = s.server.Close()
	<-s.served
	s.server = nil
}

// Issuer is the provider's name and URL.
func (s *Server) Issuer() string { return "http://" + s.address }

// KeysURL is where the provider's keys are.
func (s *Server) KeysURL() string { return s.Issuer() + "/keys" }

// KeyReads counts the requests for keys.
func (s *Server) KeyReads() int { return int(s.reads.Load()) }

// Rotate makes the provider sign with a new key. It goes on to publish the old one only if it is told to.
func (s *Server) Rotate(keepOld bool) { s.storage.rotate(keepOld) }

// Token gets an access token by client credentials.
func (s *Server) Token(client string) string {
	s.tb.Helper()
	answer := s.post("/oauth/token", client, url.Values{"grant_type": {"client_credentials"}, "scope": {"openid"}})
	return answer.AccessToken
}

// Login gets an access token and an ID token for a user, as a web application does.
func (s *Server) Login(client string) (access, id string) {
	s.tb.Helper()
	const callback = "http://127.0.0.1/callback"
	next := s.redirect(http.NewRequest(http.MethodGet, s.Issuer()+"/authorize?"+url.Values{
		"client_id": {client}, "redirect_uri": {callback}, "response_type": {"code"}, "scope": {"openid profile"},
	}.Encode(), nil))
	form := url.Values{"username": {"test-user@" + strings.Split(s.address, ":")[0]}, "password": {"verysecure"}, "id": {next.Query().Get("authRequestID")}}
	login, err := http.NewRequest(http.MethodPost, s.Issuer()+"/login/username", strings.NewReader(form.Encode()))
	if err == nil {
		login.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	next = s.redirect(login, err)
	next = s.redirect(http.NewRequest(http.MethodGet, s.Issuer()+next.RequestURI(), nil))
	answer := s.post("/oauth/token", client, url.Values{
		"grant_type": {"authorization_code"}, "code": {next.Query().Get("code")}, "redirect_uri": {callback},
	})
	return answer.AccessToken, answer.IDToken
}

// Sign signs claims with the provider's current key, for tokens that it would not make. The header's type is typ.
func (s *Server) Sign(typ string, claims map[string]any) string {
	s.tb.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		s.tb.Fatal(err)
	}
	key := s.storage.current()
	options := &jose.SignerOptions{}
	if typ != "" {
		options = options.WithType(jose.ContentType(typ))
	}
	signer, err := jose.NewSigner(jose.SigningKey{
		Algorithm: key.SignatureAlgorithm(),
		Key:       jose.JSONWebKey{Key: key.Key(), KeyID: key.ID()},
	}, options)
	if err != nil {
		s.tb.Fatal(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		s.tb.Fatal(err)
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		s.tb.Fatal(err)
	}
	return token
}

// Claims are those of a token that is valid for an audience now.
func (s *Server) Claims(audience string) map[string]any {
	now := time.Now()
	return map[string]any{
		"iss": s.Issuer(), "sub": "someone", "aud": audience,
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Minute).Unix(),
	}
}

type tokens struct {
	AccessToken string `json:"access_token"`
	IDToken     string `json:"id_token"`
}

func (s *Server) post(path, client string, form url.Values) (answer tokens) {
	s.tb.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, s.Issuer()+path, strings.NewReader(form.Encode()))
	if err != nil {
		s.tb.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(client, secret)
	res, err := s.http.Do(req)
	if err != nil {
		s.tb.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK || json.Unmarshal(text, &answer) != nil || answer.AccessToken == "" {
		s.tb.Fatalf("the provider answers %s: %s (%v)", res.Status, text, err)
	}
	return answer
}

func (s *Server) redirect(req *http.Request, err error) *url.URL {
	s.tb.Helper()
	if err != nil {
		s.tb.Fatal(err)
	}
	res, err := s.http.Do(req)
	if err != nil {
		s.tb.Fatal(err)
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	next, err := url.Parse(res.Header.Get("Location"))
	if res.StatusCode != http.StatusFound && res.StatusCode != http.StatusSeeOther {
		err = errors.Join(err, fmt.Errorf("%s: %s", res.Status, text))
	}
	if err != nil {
		s.tb.Fatalf("the provider does not lead on: %v", err)
	}
	return next
}
