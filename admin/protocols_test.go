package admin_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/execgate/execgate/admin"
	actionv2 "github.com/execgate/execgate/gen/zitadel/action/v2"
	actionv3 "github.com/execgate/execgate/gen/zitadel/resources/action/v3alpha"
)

func TestEveryProtocolTellsTheSameErrors(t *testing.T) {
	t.Parallel()
	each(t, allProtocols, func(t *testing.T, p protocol) {
		f := start(t)
		f.target("taken")
		for _, row := range []struct {
			req      proto.Message
			code     codes.Code
			id, text string
		}{
			{createWith(func(t *actionv3.Target) { t.TargetType = nil })(f), codes.InvalidArgument, "", "target_type"},
			{createWith(func(t *actionv3.Target) { t.Name = "" })(f), codes.InvalidArgument, "COMMAND-ddqbm9us5p", "Target is invalid"},
			{newTarget("taken"), codes.AlreadyExists, "V3-DKcYh", "Errors.Target.AlreadyExists"},
			{&actionv3.GetTargetRequest{Id: "ü"}, codes.NotFound, "QUERY-hj5oaniyrz", "Target not found"},
			{&actionv3.DeleteExecutionRequest{Id: "request/a.B/c"}, codes.NotFound, "COMMAND-suq2upd3rt", "Execution not found"},
			{putRequest(requestMethod("/x.Y/Z"), []string{"1"}), codes.NotFound, "COMMAND-vysplsevt8", "Execution condition is invalid"},
			{&actionv2.UpdateTargetRequest{Id: "1"}, codes.NotFound, "COMMAND-xj14f2cccn", "Target not found"},
			{&actionv2.ActivatePublicKeyRequest{TargetId: "1", KeyId: "1"}, codes.FailedPrecondition, "", "target"},
			{v2Set(v2Request(&actionv2.RequestExecution{})), codes.InvalidArgument, "", "condition"},
		} {
			_, out := f.call(p, row.req)
			wantError(t, p, out, row.code, row.id, row.text)
		}
	})
}

func TestReflectionNeedsNoTokenAndKnowsTheServices(t *testing.T) {
	t.Parallel()
	f := start(t)
	want := []string{
		"execgate.v1.GatewayService",
		"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
		"zitadel.action.v2.ActionService", "zitadel.resources.action.v3alpha.ZITADELActions",
	}
	v1, err := reflectionv1.NewServerReflectionClient(f.conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := v1.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	res, err := v1.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range res.GetListServicesResponse().GetService() {
		got = append(got, s.GetName())
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("v1: %q", got)
	}
	for _, symbol := range []string{"execgate.v1.GatewayService", "zitadel.action.v2.ActionService", "zitadel.resources.action.v3alpha.ZITADELActions", "zitadel.v1.ErrorDetail"} {
		if err := v1.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: symbol}}); err != nil {
			t.Fatal(err)
		}
		res, err := v1.Recv()
		if err != nil || len(res.GetFileDescriptorResponse().GetFileDescriptorProto()) == 0 {
			t.Errorf("%s: %v %v", symbol, res, err)
		}
	}
	alpha, err := reflectionv1alpha.NewServerReflectionClient(f.conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	//nolint:staticcheck // v1alpha is deprecated, and what older tools ask for
	if err := alpha.Send(&reflectionv1alpha.ServerReflectionRequest{MessageRequest: &reflectionv1alpha.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	//nolint:staticcheck // as above
	if res, err := alpha.Recv(); err != nil || len(res.GetListServicesResponse().GetService()) != len(want) {
		t.Errorf("v1alpha: %v %v", res, err)
	}
}

func TestHealthNeedsNoTokenAndSaysWhatItIsTold(t *testing.T) {
	t.Parallel()
	f := start(t)
	client := healthpb.NewHealthClient(f.conn)
	check := func(service string) healthpb.HealthCheckResponse_ServingStatus {
		t.Helper()
		res, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
		if err != nil {
			t.Fatal(err)
		}
		return res.GetStatus()
	}
	for _, service := range []string{"", "zitadel.action.v2.ActionService", "zitadel.resources.action.v3alpha.ZITADELActions"} {
		if got := check(service); got != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("%q: %v", service, got)
		}
	}
	if _, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "nope"}); status.Code(err) != codes.NotFound {
		t.Errorf("an unknown service: %v", err)
	}
	f.server.SetServing(false)
	if got := check(""); got != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("not serving: %v", got)
	}
	f.server.SetServing(true)
	if got := check(""); got != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("serving again: %v", got)
	}
}

func TestCloseEndsOpenStreams(t *testing.T) {
	t.Parallel()
	f := start(t)
	watch, err := healthpb.NewHealthClient(f.conn).Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	reflection, err := reflectionv1.NewServerReflectionClient(f.conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := reflection.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	if _, err := reflection.Recv(); err != nil {
		t.Fatal(err)
	}
	f.server.Close()
	for {
		if _, err := watch.Recv(); err != nil {
			break // after a last message: not serving
		}
	}
	if _, err := reflection.Recv(); err == nil {
		t.Error("reflection goes on")
	}
}

func TestUnknownMethodsOfEachProtocol(t *testing.T) {
	t.Parallel()
	f := start(t)
	for _, method := range []string{"/zitadel.action.v2.ActionService/Nope", "/zitadel.action.v2beta.ActionService/GetTarget"} {
		err := f.conn.Invoke(t.Context(), method, &actionv2.GetTargetRequest{}, &actionv2.GetTargetResponse{})
		if status.Code(err) != codes.Unimplemented {
			t.Errorf("%s over gRPC: %v", method, err)
		}
		if res, body := f.do("POST", method, "application/json", []byte("{}"), "Connect-Protocol-Version", "1"); res.StatusCode != 404 {
			t.Errorf("%s over Connect: %d %s", method, res.StatusCode, body)
		}
	}
	if res, _ := f.do("GET", "/zitadel.action.v2.ActionService/GetTarget", "", nil); res.StatusCode != 405 {
		t.Errorf("GET of a method over Connect: %d", res.StatusCode)
	}
	if res, _ := f.do("POST", "/zitadel.action.v2.ActionService/GetTarget", "text/plain", []byte("{}")); res.StatusCode != 415 {
		t.Errorf("an unknown content type over Connect: %d", res.StatusCode)
	}
	if res, _ := f.do("GET", "/zitadel.action.v2.ActionService/GetTarget", "application/grpc-web", nil); res.StatusCode != 405 {
		t.Errorf("GET of a method over gRPC-Web: %d", res.StatusCode)
	}
	if res, _ := f.do("POST", "/zitadel.action.v2.ActionService/GetTarget", "application/grpc", nil); res.StatusCode < 400 {
		t.Errorf("gRPC over HTTP/1.1: %d", res.StatusCode)
	}
}

// observed collects what an observer is told.
type observed struct {
	mu    sync.Mutex
	calls map[string]int
}

func (o *observed) AdminCall(method string, code codes.Code, _ time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.calls == nil {
		o.calls = make(map[string]int)
	}
	o.calls[method[strings.LastIndex(method, "/")+1:]+" "+code.String()]++
}

func TestTheObserverIsToldOfEveryCall(t *testing.T) {
	t.Parallel()
	o := new(observed)
	f := start(t, func(options *admin.Options) { options.Observer = o })
	for _, p := range allProtocols {
		f.call(p, targets())
		f.call(p, &actionv3.GetTargetRequest{Id: "1"})
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.calls["SearchTargets OK"] != len(allProtocols) || o.calls["GetTarget NotFound"] != len(allProtocols) {
		t.Errorf("%v", o.calls)
	}
}

func TestAnUnexpectedErrorIsNotTold(t *testing.T) {
	t.Parallel()
	each(t, allProtocols, func(t *testing.T, p protocol) {
		f := start(t, func(o *admin.Options) {
			o.Schema = func() (methods, services []string, known bool) { panic("secret") }
			o.Authenticators = []admin.Authenticator{brokenAuthenticator{}}
		})
		_, out := f.call(p, &actionv2.ListExecutionMethodsRequest{})
		wantError(t, p, out, codes.Internal, "", "internal error")
		f.token = "unknown"
		_, out = f.call(p, targets())
		wantError(t, p, out, codes.Internal, "", "internal error")
		if strings.Contains(out.body+out.message, "secret") {
			t.Errorf("%+v", out)
		}
	})
}

type brokenAuthenticator struct{}

func (brokenAuthenticator) Authenticate(context.Context, string) (admin.Caller, error) {
	return admin.Caller{}, errors.New("secret cause")
}

// knownNames is an authenticator of tokens that are names.
type knownNames map[string][]string

func (k knownNames) Authenticate(_ context.Context, token string) (admin.Caller, error) {
	permissions, ok := k[token]
	if !ok {
		return admin.Caller{}, admin.ErrUnknownToken
	}
	return admin.Caller{Name: token, Permissions: permissions}, nil
}

func TestFurtherAuthenticatorsAreAskedInOrder(t *testing.T) {
	t.Parallel()
	f := start(t, func(o *admin.Options) {
		o.Authenticators = []admin.Authenticator{knownNames{"one": {"action.*"}}, knownNames{"two": {"action.target.read"}}}
	})
	for tok, want := range map[string]codes.Code{rootToken: codes.OK, "one": codes.OK, "two": codes.OK, "three": codes.Unauthenticated} {
		f.token = tok
		if _, out := f.call(overREST, targets()); out.code != want {
			t.Errorf("%s: %+v", tok, out)
		}
	}
}

func TestABrokenClientDoesNotHoldTheServer(t *testing.T) {
	t.Parallel()
	f := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := f.conn.Invoke(ctx, actionv2.ActionService_ListTargets_FullMethodName, &actionv2.ListTargetsRequest{}, &actionv2.ListTargetsResponse{}, grpc.WaitForReady(true))
	if status.Code(err) != codes.Canceled {
		t.Errorf("%v", err)
	}
	if out := f.rest(http.MethodGet, "/v2/actions/executions/functions", ""); out.http != 200 {
		t.Errorf("%+v", out)
	}
}
