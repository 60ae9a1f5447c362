package admin_test

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/execgate/execgate/admin"
	actionv2 "github.com/execgate/execgate/gen/zitadel/action/v2"
	actionv3 "github.com/execgate/execgate/gen/zitadel/resources/action/v3alpha"
	"github.com/execgate/execgate/store"
)

const (
	instance  = "inst-1"
	rootToken = "root-token"
)

// The API behind the gateway, as far as the admin API knows it.
var (
	upstreamMethods = []string{
		"/zitadel.session.v2.SessionService/ListSessions",
		"/zitadel.session.v2.SessionService/CreateSession",
		"/zitadel.user.v2.UserService/AddHumanUser",
	}
	upstreamServices = []string{"zitadel.user.v2.UserService", "zitadel.session.v2.SessionService"}
	upstreamEvents   = []string{"user.human.added", "user.human.changed", "user.removed", "session.added"}
)

// fixture is an admin server on a real socket, on a real embedded store.
type fixture struct {
	t       testing.TB
	replica *store.Replica
	server  *admin.Server
	address string
	conn    *grpc.ClientConn
	http    *http.Client
	token   string
	last    string // id of the target made last
}

// start starts one with a token for everything, and with what the upstream knows. Options may be changed.
func start(t testing.TB, change ...func(*admin.Options)) *fixture {
	t.Helper()
	embedded, err := store.OpenEmbedded(store.EmbeddedOptions{Path: filepath.Join(t.TempDir(), "store.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = embedded.Close() })
	return startOn(t, embedded, change...)
}

func startOn(t testing.TB, s store.Store, change ...func(*admin.Options)) *fixture {
	t.Helper()
	f := &fixture{t: t, token: rootToken, replica: store.NewReplica(s, store.ReplicaOptions{})}
	if err := f.replica.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.replica.Stop(context.Background()) })
	options := admin.Options{
		Store:      f.replica,
		InstanceID: instance,
		Schema: func() (methods, services []string, known bool) {
			return upstreamMethods, upstreamServices, true
		},
		Tokens: []admin.Token{{Name: "root", SHA256: admin.HashToken(rootToken), Permissions: []string{"*"}}},
	}
	for _, c := range change {
		c(&options)
	}
	var err error
	if f.server, err = admin.New(options); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.address = listener.Addr().String()
	httpServer := &http.Server{Handler: f.server.Handler(), Protocols: new(http.Protocols)}
	httpServer.Protocols.SetHTTP1(true)
	httpServer.Protocols.SetUnencryptedHTTP2(true)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = httpServer.Serve(listener)
	}()
	f.http = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	if f.conn, err = grpc.NewClient(f.address, grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = f.conn.Close()
		f.http.CloseIdleConnections()
		f.server.Close()
		_ = httpServer.Close()
		<-served
	})
	return f
}

// must calls over gRPC and fails the test on an error.
func (f *fixture) must(req proto.Message) proto.Message {
	f.t.Helper()
	res, out := f.call(overGRPC, req)
	if out.code != codes.OK {
		f.t.Fatalf("%T: %v %s", req, out.code, out.message)
	}
	return res
}

// target makes a target and returns its id.
func (f *fixture) target(name string) string {
	f.t.Helper()
	res := f.must(newTarget(name)).(*actionv3.CreateTargetResponse)
	f.last = res.GetDetails().GetId()
	return f.last
}

// put puts an execution and returns its id.
func (f *fixture) put(c *actionv3.Condition, targets []string, includes ...string) string {
	f.t.Helper()
	res := f.must(putRequest(c, targets, includes...)).(*actionv3.PutExecutionResponse)
	return res.GetDetails().GetId()
}

// getV3 reads a target through v3alpha.
func (f *fixture) getV3(id string) *actionv3.GetTarget {
	f.t.Helper()
	return f.must(&actionv3.GetTargetRequest{Id: id}).(*actionv3.GetTargetResponse).GetTarget()
}

// getV2 reads a target through v2.
func (f *fixture) getV2(id string) *actionv2.Target {
	f.t.Helper()
	return f.must(&actionv2.GetTargetRequest{Id: id}).(*actionv2.GetTargetResponse).GetTarget()
}

// executionV3 reads an execution through v3alpha; nil if there is none.
func (f *fixture) executionV3(c *actionv3.Condition) *actionv3.GetExecution {
	f.t.Helper()
	res := f.must(&actionv3.SearchExecutionsRequest{Filters: []*actionv3.ExecutionSearchFilter{inConditions(c)}}).(*actionv3.SearchExecutionsResponse)
	if len(res.GetResult()) == 0 {
		return nil
	}
	return res.GetResult()[0]
}

func newTarget(name string) *actionv3.CreateTargetRequest {
	return &actionv3.CreateTargetRequest{Target: &actionv3.Target{
		Name:       name,
		TargetType: &actionv3.Target_RestWebhook{RestWebhook: &actionv3.SetRESTWebhook{Url: "https://hooks.example.com/" + url.PathEscape(strings.ToLower(name))}},
		Timeout:    durationpb.New(10 * time.Second),
	}}
}

func newTargetV2(name string) *actionv2.CreateTargetRequest {
	return &actionv2.CreateTargetRequest{
		Name:       name,
		TargetType: &actionv2.CreateTargetRequest_RestWebhook{RestWebhook: &actionv2.RESTWebhook{}},
		Timeout:    durationpb.New(10 * time.Second),
		Endpoint:   "https://hooks.example.com/x",
	}
}

func putRequest(c *actionv3.Condition, targets []string, includes ...string) *actionv3.PutExecutionRequest {
	return &actionv3.PutExecutionRequest{Execution: &actionv3.Execution{Condition: c, Targets: targets, Includes: includes}}
}

func inConditions(c ...*actionv3.Condition) *actionv3.ExecutionSearchFilter {
	return &actionv3.ExecutionSearchFilter{Filter: &actionv3.ExecutionSearchFilter_InConditions{InConditions: &actionv3.InConditionsFilter{Conditions: c}}}
}

// Conditions of v3alpha.

func requestAll() *actionv3.Condition {
	return requestCondition(&actionv3.RequestExecution{Condition: &actionv3.RequestExecution_All{All: true}})
}

func requestService(s string) *actionv3.Condition {
	return requestCondition(&actionv3.RequestExecution{Condition: &actionv3.RequestExecution_Service{Service: s}})
}

func requestMethod(m string) *actionv3.Condition {
	return requestCondition(&actionv3.RequestExecution{Condition: &actionv3.RequestExecution_Method{Method: m}})
}

func requestCondition(r *actionv3.RequestExecution) *actionv3.Condition {
	return &actionv3.Condition{ConditionType: &actionv3.Condition_Request{Request: r}}
}

func responseCondition(r *actionv3.ResponseExecution) *actionv3.Condition {
	return &actionv3.Condition{ConditionType: &actionv3.Condition_Response{Response: r}}
}

func responseAll() *actionv3.Condition {
	return responseCondition(&actionv3.ResponseExecution{Condition: &actionv3.ResponseExecution_All{All: true}})
}

func function(name string) *actionv3.Condition {
	return &actionv3.Condition{ConditionType: &actionv3.Condition_Function{Function: name}}
}

func eventCondition(e *actionv3.EventExecution) *actionv3.Condition {
	return &actionv3.Condition{ConditionType: &actionv3.Condition_Event{Event: e}}
}

func event(e string) *actionv3.Condition {
	return eventCondition(&actionv3.EventExecution{Condition: &actionv3.EventExecution_Event{Event: e}})
}

func group(g string) *actionv3.Condition {
	return eventCondition(&actionv3.EventExecution{Condition: &actionv3.EventExecution_Group{Group: g}})
}

func eventAll() *actionv3.Condition {
	return eventCondition(&actionv3.EventExecution{Condition: &actionv3.EventExecution_All{All: true}})
}

// Conditions of v2.

func v2RequestAll() *actionv2.Condition {
	return v2Request(&actionv2.RequestExecution{Condition: &actionv2.RequestExecution_All{All: true}})
}

func v2RequestMethod(m string) *actionv2.Condition {
	return v2Request(&actionv2.RequestExecution{Condition: &actionv2.RequestExecution_Method{Method: m}})
}

func v2Request(r *actionv2.RequestExecution) *actionv2.Condition {
	return &actionv2.Condition{ConditionType: &actionv2.Condition_Request{Request: r}}
}

func v2Function(name string) *actionv2.Condition {
	return &actionv2.Condition{ConditionType: &actionv2.Condition_Function{Function: &actionv2.FunctionExecution{Name: name}}}
}

func v2Event(e *actionv2.EventExecution) *actionv2.Condition {
	return &actionv2.Condition{ConditionType: &actionv2.Condition_Event{Event: e}}
}

// withoutSchema makes the upstream unknown.
func withoutSchema(o *admin.Options) {
	o.Schema = func() (methods, services []string, known bool) { return nil, nil, false }
}

// withEvents makes the upstream's event types known.
func withEvents(o *admin.Options) {
	o.EventTypes = func() (types []string, known bool) { return slices.Clone(upstreamEvents), true }
}
