package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	actionv2 "github.com/execgate/execgate/gen/zitadel/action/v2"
	actionv3 "github.com/execgate/execgate/gen/zitadel/resources/action/v3alpha"
)

// DefaultMaxBodyBytes bounds a request message of any protocol.
const DefaultMaxBodyBytes = 4 << 20

// Options configures a [Server]. Store and InstanceID are required.
type Options struct {
	Store Store
	// InstanceID is the owner of all resources.
	InstanceID string
	// Schema returns the methods ("/pkg.Service/Method") and services of the upstream; known is false as long as they
	// were not learned, and then any well-formed name is accepted. Nil: never known.
	Schema func() (methods, services []string, known bool)
	// EventTypes returns the event types of the upstream in the same manner.
	EventTypes func() (types []string, known bool)
	// Functions are those that conditions may name beside ZITADEL's.
	Functions []string
	// CheckURL refuses URLs that targets may not have; it may resolve names. Nil: none is refused.
	CheckURL func(ctx context.Context, url string) error
	// Tokens are the static bearer tokens. Without these, Authenticators and ClientCertificates everybody may do
	// everything: the listener must then be on loopback only, and calls that a browser makes for another site are refused.
	Tokens []Token
	// Authenticators are asked, in order, after Tokens.
	Authenticators []Authenticator
	// ClientCertificates are callers that need no token: who sends none is the first of them that the certificate of the
	// connection matches. The listener has to verify certificates.
	ClientCertificates []ClientCertificate
	// ActionsDisabled is the feature flag of v3alpha turned off: its methods are refused. Executions keep running.
	ActionsDisabled bool
	// Gateway is what execgate.v1.GatewayService needs beside the store.
	Gateway GatewayOptions
	// Limits of lists; zero: 100 and 1000.
	Limits Limits
	// MaxBodyBytes bounds a request message; 0: [DefaultMaxBodyBytes].
	MaxBodyBytes int64
	// Observer is told about every call. May be nil.
	Observer Observer
	// Logger gets what callers are not told. Nil: nothing is logged.
	Logger *slog.Logger
	// Now is the clock. Nil: time.Now.
	Now func() time.Time
}

// Observer is told about calls, for metrics.
type Observer interface {
	// AdminCall is called after each call of a known or unknown method of the services. Safe for concurrent use.
	AdminCall(method string, code codes.Code, d time.Duration)
}

// Server is the admin API. Make one with [New].
type Server struct {
	guard   *guard
	gateway *gateway
	grpc    *grpc.Server
	health  *health.Server
	handler http.Handler
	maxBody int64
	// closing ends streams that would otherwise go on as long as their clients like.
	closing context.Context
	close   context.CancelFunc
}

// New returns a server that serves [Server.Handler]. It starts nothing.
func New(o Options) (*Server, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	c := &core{
		store:      o.Store,
		ids:        newIDGenerator(o.Now),
		now:        o.Now,
		schema:     o.Schema,
		eventTypes: o.EventTypes,
		functions:  o.Functions,
		checkURL:   o.CheckURL,
		limits:     o.Limits.withDefaults(),
		logger:     o.Logger,
	}
	auth := &authentication{failures: newFailureLimit(o.Now), certificates: o.ClientCertificates}
	if len(o.Tokens) > 0 {
		auth.authenticators = append(auth.authenticators, staticTokens(o.Tokens))
	}
	auth.authenticators = append(auth.authenticators, o.Authenticators...)

	s := &Server{
		guard:   &guard{auth: auth, featureOff: o.ActionsDisabled, observer: o.Observer, logger: o.Logger},
		health:  health.NewServer(),
		maxBody: o.MaxBodyBytes,
	}
	s.closing, s.close = context.WithCancel(context.Background())
	s.grpc = grpc.NewServer(
		grpc.UnaryInterceptor(s.unary),
		grpc.StreamInterceptor(s.stream),
		grpc.MaxRecvMsgSize(int(o.MaxBodyBytes)),
	)
	v3, v2, own := &v3alpha{core: c, instance: o.InstanceID}, &v2{core: c}, newGateway(c, o.InstanceID, o.Gateway)
	s.gateway = own
	local := newLoopback(s.unary)
	for _, registrar := range []grpc.ServiceRegistrar{s.grpc, local} {
		actionv3.RegisterZITADELActionsServer(registrar, v3)
		actionv2.RegisterActionServiceServer(registrar, v2)
		gatewaypb.RegisterGatewayServiceServer(registrar, own)
	}
	healthpb.RegisterHealthServer(s.grpc, s.health)
	reflection.Register(s.grpc)
	for name := range s.grpc.GetServiceInfo() {
		s.health.SetServingStatus(name, healthpb.HealthCheckResponse_SERVING)
	}

	rest, err := s.restHandler(local)
	if err != nil {
		return nil, err
	}
	s.handler = withClientCertificate(s.routes(rest, v3, v2, own))
	return s, nil
}

// complete checks the options and fills in defaults.
func (o *Options) complete() error {
	if o.Store == nil {
		return errors.New("admin: no store")
	}
	if o.InstanceID == "" {
		return errors.New("admin: no instance id")
	}
	for _, t := range o.Tokens {
		if t.Name == "" || t.SHA256 == [len(t.SHA256)]byte{} || t.SHA256 == HashToken("") {
			return fmt.Errorf("admin: token %q: name and token are required", t.Name)
		}
	}
	for i := range o.ClientCertificates {
		if err := o.ClientCertificates[i].check(); err != nil {
			return err
		}
	}
	if o.Schema == nil {
		o.Schema = func() (methods, services []string, known bool) { return nil, nil, false }
	}
	if o.EventTypes == nil {
		o.EventTypes = func() (types []string, known bool) { return nil, false }
	}
	if o.MaxBodyBytes <= 0 {
		o.MaxBodyBytes = DefaultMaxBodyBytes
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return nil
}

// Handler serves the admin port: gRPC (the server must speak HTTP/2, in the clear or with TLS), gRPC-Web, Connect and
// REST.
func (s *Server) Handler() http.Handler { return s.handler }

// SetServing says what grpc.health.v1 answers from now on, for the server as a whole and for each service. It begins
// as serving.
func (s *Server) SetServing(serving bool) {
	if serving {
		s.health.Resume()
	} else {
		s.health.Shutdown()
	}
}

// Close ends the streams that are open (health watches and reflection), so that an HTTP server can drain. Unary calls
// are not touched. Safe to call twice.
func (s *Server) Close() {
	s.health.Shutdown()
	s.close()
}
