package demo

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	demopb "github.com/execgate/execgate/gen/execgate/demo/v1"
	sessionpb "github.com/execgate/execgate/gen/zitadel/session/v2"
	userpb "github.com/execgate/execgate/gen/zitadel/user/v2"
	"github.com/execgate/execgate/internal/echotarget"
	"github.com/execgate/execgate/internal/testkit/demoapi"
)

// Methods that the tour calls.
const (
	addHumanUser  = "/zitadel.user.v2.UserService/AddHumanUser"
	deleteUser    = "/zitadel.user.v2.UserService/DeleteUser"
	createSession = "/zitadel.session.v2.SessionService/CreateSession"
)

// Paths of the example target.
const (
	stampPath = "/stamp"
	guardPath = "/guard"
	auditPath = "/audit"
)

// stamp is what the first target merges into new users.
const stamp = `{"profile":{"nickName":"stamped"},"metadata":[{"key":"source","value":"ZXhlY2dhdGU="}]}`

// countTime is how long the metrics are waited for.
const countTime = 3 * time.Second

const guardMessage = "users are not deleted here"

// tour is one walk through the house.
type tour struct {
	*house
	*printer
	before metricSet
	userID string // of the user whom the gRPC step adds
}

// take walks through every step and returns what failed.
func take(ctx context.Context, h *house, p *printer) error {
	t := &tour{house: h, printer: p}
	var failed []error
	for i, step := range []struct {
		title string
		do    func(context.Context) error
	}{
		{"A call that nothing matches passes through untouched", t.passThrough},
		{"A target and an execution, made through the admin API", t.configure},
		{"gRPC: the target rewrites the request on its way", t.rewriteGRPC},
		{"REST: the same call, the same rule", t.rewriteREST},
		{"A veto: the target ends the call before the identity API sees it", t.veto},
		{"An asynchronous delivery: the caller does not wait for the target", t.async},
		{"The metrics moved", t.metrics},
	} {
		p.line("")
		p.title(fmt.Sprintf("%d. %s", i+1, step.title))
		ctx, cancel := context.WithTimeout(ctx, stepTime)
		err := step.do(ctx)
		cancel()
		if err != nil {
			p.say("FAILED: %v", err)
			failed = append(failed, fmt.Errorf("step %d of the demo: %w", i+1, err))
			continue
		}
		p.say("ok")
	}
	p.line("")
	if len(failed) == 0 {
		p.title("Every step did what it says.")
	} else {
		p.title(fmt.Sprintf("%d steps did not do what they say.", len(failed)))
	}
	return errors.Join(failed...)
}

// newUser is the request that the tour sends again and again.
func newUser(username string) *userpb.AddHumanUserRequest {
	return &userpb.AddHumanUserRequest{
		Username: new(username),
		Profile:  &userpb.SetHumanProfile{GivenName: "Ada", FamilyName: "Lovelace"},
		Email: &userpb.SetHumanEmail{
			Email:        username + "@example.com",
			Verification: &userpb.SetHumanEmail_IsVerified{IsVerified: true},
		},
	}
}

// arrived returns the last message of a method that the identity API got.
func (t *tour) arrived(method, protocol string) (proto.Message, error) {
	r, ok := t.api.Last(method)
	if !ok {
		return nil, fmt.Errorf("the identity API never got %s", method)
	}
	if r.Protocol != protocol {
		return nil, fmt.Errorf("the identity API got the call as %s, want %s", r.Protocol, protocol)
	}
	return r.Message, nil
}

func (t *tour) passThrough(ctx context.Context) (err error) {
	if t.before, err = t.scrape(ctx); err != nil {
		return err
	}
	sent := newUser("ada.before")
	t.show("client sends", sent)
	if _, err := userpb.NewUserServiceClient(t.conn).AddHumanUser(ctx, sent); err != nil {
		return fmt.Errorf("add a user: %w", err)
	}
	got, err := t.arrived(addHumanUser, demoapi.ProtocolGRPC)
	if err != nil {
		return err
	}
	t.show("API receives", got)
	if !proto.Equal(sent, got) {
		return errors.New("the identity API received another message than was sent")
	}
	counting, err := demopb.NewStreamServiceClient(t.conn).Count(ctx, &demopb.CountRequest{To: 3})
	if err != nil {
		return fmt.Errorf("open a stream: %w", err)
	}
	var numbers []string
	for range 3 {
		m, err := counting.Recv()
		if err != nil {
			return fmt.Errorf("read the stream: %w", err)
		}
		numbers = append(numbers, fmt.Sprint(m.GetNumber()))
	}
	code, page, err := t.get(ctx, "http://"+t.gateway.ProxyAddr()+"/ui/login")
	if err != nil {
		return fmt.Errorf("read the login page: %w", err)
	}
	t.say("so do streams (%s) and web pages (/ui/login: %d, %d bytes)", strings.Join(numbers, ", "), code, len(page))
	if code != http.StatusOK || !strings.Contains(string(page), "<form") {
		return errors.New("the login page did not come through")
	}
	return nil
}

// install makes a target and an execution on one condition with it, and puts
// the example target behind it, with the key that the gateway signs with.
func (t *tour) install(ctx context.Context, name, flags, condition string, mount func(key string) error) error {
	target := fmt.Sprintf(`{"name":%q,%s,"timeout":"5s"}`, name, flags)
	t.say("POST /resources/v3alpha/targets  %s", target)
	created, err := t.admin(ctx, http.MethodPost, "/resources/v3alpha/targets", target)
	if err != nil {
		return err
	}
	id := dig(created, "details", "id")
	if id == "" {
		return fmt.Errorf("the new target has no id: %s", compact(created))
	}
	// The v3alpha API does not tell signing keys; v2 does.
	read, err := t.admin(ctx, http.MethodGet, "/v2/actions/targets/"+id, "")
	if err != nil {
		return err
	}
	key := dig(read, "target", "signingKey")
	if key == "" {
		return errors.New("the new target has no signing key")
	}
	if err := mount(key); err != nil {
		return err
	}
	execution := fmt.Sprintf(`{"condition":%s,"targets":[%q]}`, condition, id)
	t.say("POST /resources/v3alpha/executions  %s", execution)
	put, err := t.admin(ctx, http.MethodPost, "/resources/v3alpha/executions", execution)
	if err != nil {
		return err
	}
	if dig(put, "details", "id") == "" {
		return fmt.Errorf("the new execution has no id: %s", compact(put))
	}
	return nil
}

func (t *tour) url(path string) string { return "http://" + t.targetAddr + path }

func onMethod(phase, method string) string {
	return fmt.Sprintf(`{%q:{"method":%q}}`, phase, method)
}

func (t *tour) configure(ctx context.Context) error {
	flags := fmt.Sprintf(`"restRequestResponse":{"url":%q},"interruptOnError":true`, t.url(stampPath))
	if err := t.install(ctx, "stamp", flags, onMethod("request", addHumanUser), func(key string) error {
		return t.targets.mount(stampPath, echotarget.Options{Mode: echotarget.Merge, Merge: stamp, SigningKey: key}, t.echo)
	}); err != nil {
		return err
	}
	code, _, err := t.send(ctx, http.MethodPost, "http://"+t.gateway.AdminAddr()+"/resources/v3alpha/targets/_search", "", "[]")
	if err != nil {
		return err
	}
	t.say("the same without a token: %d", code)
	if code != http.StatusUnauthorized {
		return errors.New("the admin API answers callers without a token")
	}
	return nil
}

// checkStamped says whether a message is newUser as the target rewrites it, and
// whether the target got the call properly.
func (t *tour) checkStamped(ctx context.Context, sent *userpb.AddHumanUserRequest, protocol string) error {
	delivery, err := t.targets.next(ctx, stampPath)
	if err != nil {
		return err
	}
	t.show("target gets", delivery.Body)
	t.say("%-14s %s", "signature", delivery.Signature)
	got, err := t.arrived(addHumanUser, protocol)
	if err != nil {
		return err
	}
	t.show("API receives", got)
	want := proto.CloneOf(sent)
	want.Profile.NickName = new("stamped")
	want.Metadata = []*userpb.SetMetadataEntry{{Key: "source", Value: []byte("execgate")}}
	switch {
	case delivery.Signature != echotarget.Valid:
		return fmt.Errorf("the target could not verify the signature: %s", delivery.Signature)
	case !strings.Contains(string(delivery.Body), addHumanUser):
		return errors.New("the target was not told the method")
	case !proto.Equal(got, want):
		return errors.New("what the identity API received is not what the target made of it")
	}
	return nil
}

func (t *tour) rewriteGRPC(ctx context.Context) error {
	sent := newUser("ada.grpc")
	t.show("client sends", sent)
	resp, err := userpb.NewUserServiceClient(t.conn).AddHumanUser(ctx, sent)
	if err != nil {
		return fmt.Errorf("add a user: %w", err)
	}
	t.userID = resp.GetUserId()
	if err := t.checkStamped(ctx, sent, demoapi.ProtocolGRPC); err != nil {
		return err
	}
	read, err := userpb.NewUserServiceClient(t.conn).GetUserByID(ctx, &userpb.GetUserByIDRequest{UserId: t.userID})
	if err != nil {
		return fmt.Errorf("read the user: %w", err)
	}
	nick := read.GetUser().GetHuman().GetProfile().GetNickName()
	t.say("%-14s nickName %q", "client reads", nick)
	if nick != "stamped" {
		return errors.New("the rewritten field was not stored")
	}
	return nil
}

func (t *tour) rewriteREST(ctx context.Context) error {
	sent := newUser("ada.rest")
	body, err := protojson.Marshal(sent)
	if err != nil {
		return fmt.Errorf("encode the request: %w", err)
	}
	t.say("curl http://%s/v2/users/human -d '%s'", t.gateway.ProxyAddr(), compact(body))
	code, answer, err := t.send(ctx, http.MethodPost, "http://"+t.gateway.ProxyAddr()+"/v2/users/human", "", string(body))
	if err != nil {
		return err
	}
	t.say("%-14s %d %s", "client gets", code, compact(answer))
	if code != http.StatusOK {
		return errors.New("the call failed")
	}
	// A delivery comes before the answer, so there is no use in waiting for one.
	if t.targets.pending(stampPath) == 0 {
		got, err := t.arrived(addHumanUser, demoapi.ProtocolREST)
		if err != nil {
			return err
		}
		t.show("API receives", got)
		return errors.New("the call came through, but the target was not asked")
	}
	return t.checkStamped(ctx, sent, demoapi.ProtocolREST)
}

func (t *tour) veto(ctx context.Context) error {
	flags := fmt.Sprintf(`"restWebhook":{"url":%q},"interruptOnError":true`, t.url(guardPath))
	if err := t.install(ctx, "guard", flags, onMethod("request", deleteUser), func(key string) error {
		return t.targets.mount(guardPath, echotarget.Options{Mode: echotarget.Veto, Message: guardMessage, SigningKey: key}, t.echo)
	}); err != nil {
		return err
	}
	if t.userID == "" {
		return errors.New("there is no user to delete, since adding one failed")
	}
	_, err := userpb.NewUserServiceClient(t.conn).DeleteUser(ctx, &userpb.DeleteUserRequest{UserId: t.userID})
	st := status.Convert(err)
	delivery, nextErr := t.targets.next(ctx, guardPath)
	if nextErr != nil {
		return errors.Join(fmt.Errorf("delete a user: %w", err), nextErr)
	}
	t.show("target answers", delivery.Answer)
	t.say("%-14s %s: %s", "gRPC client", st.Code(), st.Message())
	if st.Code() != codes.PermissionDenied || !strings.HasPrefix(st.Message(), guardMessage) {
		return errors.New("the client did not get the target's refusal over gRPC")
	}
	code, answer, err := t.send(ctx, http.MethodDelete, "http://"+t.gateway.ProxyAddr()+"/v2/users/"+t.userID, "", "")
	if err != nil {
		return err
	}
	t.say("%-14s %d %s", "REST client", code, compact(answer))
	if code != http.StatusForbidden || !strings.Contains(string(answer), guardMessage) {
		return errors.New("the client did not get the target's refusal over REST")
	}
	if n := t.api.Count(deleteUser); n != 0 {
		return fmt.Errorf("the identity API got %d calls that were refused", n)
	}
	t.say("the identity API saw neither; the user is still there")
	if _, err := userpb.NewUserServiceClient(t.conn).GetUserByID(ctx, &userpb.GetUserByIDRequest{UserId: t.userID}); err != nil {
		return fmt.Errorf("read the user: %w", err)
	}
	return nil
}

func (t *tour) async(ctx context.Context) error {
	var open func()
	flags := fmt.Sprintf(`"restWebhook":{"url":%q},"isAsync":true`, t.url(auditPath))
	if err := t.install(ctx, "audit", flags, onMethod("response", createSession), func(key string) (err error) {
		// The target keeps its answer back until the client has its own.
		open, err = t.targets.mountGated(auditPath, echotarget.Options{SigningKey: key}, t.echo)
		return err
	}); err != nil {
		return err
	}
	began := time.Now()
	resp, err := sessionpb.NewSessionServiceClient(t.conn).CreateSession(ctx, &sessionpb.CreateSessionRequest{
		Checks: &sessionpb.Checks{User: &sessionpb.CheckUser{Search: &sessionpb.CheckUser_LoginName{LoginName: "ada.before"}}},
	})
	if err != nil {
		return fmt.Errorf("create a session: %w", err)
	}
	t.say("%-14s session %s after %v, while the target keeps its answer back", "client has",
		resp.GetSessionId(), time.Since(began).Round(time.Microsecond))
	if t.targets.pending(auditPath) != 0 {
		return errors.New("the target answered before it was allowed to")
	}
	open()
	delivery, err := t.targets.next(ctx, auditPath)
	if err != nil {
		return err
	}
	t.show("target got", masked(delivery.Body, resp.GetSessionToken()))
	if !strings.Contains(string(delivery.Body), resp.GetSessionId()) || !strings.Contains(string(delivery.Body), createSession) {
		return errors.New("the delivery is not about the call")
	}
	if delivery.Signature != echotarget.Valid {
		return fmt.Errorf("the target could not verify the signature: %s", delivery.Signature)
	}
	return nil
}

// masked takes a secret out of what is printed.
func masked(body []byte, secret string) string {
	if secret == "" {
		return string(body)
	}
	return strings.ReplaceAll(string(body), secret, "...")
}

func (t *tour) metrics(ctx context.Context) error {
	type series struct {
		name   string
		labels []string
		want   float64
	}
	method := func(m string) string { return fmt.Sprintf("method=%q", m) }
	list := []series{
		{"execgate_requests_total", []string{`protocol="grpc"`, method(addHumanUser), `code="OK"`}, 2},
		{"execgate_requests_total", []string{`protocol="rest"`, method(addHumanUser), `code="OK"`}, 1},
		{"execgate_requests_total", []string{`protocol="grpc"`, method(deleteUser), `code="PermissionDenied"`}, 1},
		{"execgate_requests_total", []string{`protocol="rest"`, method(deleteUser), `code="PermissionDenied"`}, 1},
		{"execgate_executions_matched_total", []string{`phase="request"`}, 4},
		{"execgate_executions_matched_total", []string{`phase="response"`}, 1},
		{"execgate_target_calls_total", []string{`target="stamp"`, `outcome="ok"`}, 2},
		{"execgate_target_calls_total", []string{`target="guard"`, `outcome="forwarded"`}, 2},
		{"execgate_target_calls_total", []string{`target="audit"`, `outcome="ok"`}, 1},
		{"execgate_target_call_duration_seconds_count", []string{`target="stamp"`}, 2},
	}
	var now metricSet
	moved := func(s series) float64 { return now.sum(s.name, s.labels...) - t.before.sum(s.name, s.labels...) }
	// A counter may move a moment after the answer that it counts.
	ctx, cancel := context.WithTimeout(ctx, countTime)
	defer cancel()
	for {
		var err error
		if now, err = t.scrape(context.WithoutCancel(ctx)); err != nil {
			return err
		}
		done := !slices.ContainsFunc(list, func(s series) bool { return moved(s) < s.want })
		if done {
			break
		}
		wait := time.NewTimer(20 * time.Millisecond)
		select {
		case <-wait.C:
			continue
		case <-ctx.Done():
		}
		break
	}
	var wrong int
	for _, s := range list {
		got, note := moved(s), ""
		if got != s.want {
			note = fmt.Sprintf("   want +%v", s.want)
			wrong++
		}
		t.say("+%v  %s{%s}%s", got, s.name, strings.Join(s.labels, ","), note)
	}
	if wrong > 0 {
		return fmt.Errorf("%d of %d series did not move as they should", wrong, len(list))
	}
	return nil
}

// invite prints how to go on by hand.
func (h *house) invite(p *printer) {
	proxy, admin, ops := h.gateway.ProxyAddr(), h.gateway.AdminAddr(), h.gateway.OpsAddr()
	p.line("")
	p.title("Now by hand. Everything stays up until Ctrl-C; what the targets get is printed below.")
	p.line(fmt.Sprintf(`
   proxy      http://%s     (gRPC, gRPC-Web, Connect, REST; also /ui/login)
   admin API  http://%s     (gRPC, gRPC-Web, Connect, REST)
   metrics    http://%s/metrics, /healthz, /readyz
   targets    http://%s%s, %s, %s
   identity API without the gateway: http://%s

   TOKEN=%s

   # a call that is rewritten, over gRPC and over REST
   grpcurl -plaintext -d '%s' %s %s
   curl http://%s/v2/users/human -d '%s'
   # a call that is refused
   grpcurl -plaintext -d '{"userId":"1"}' %s %s
   curl -X DELETE http://%s/v2/users/1
   # what is configured
   curl -H "Authorization: Bearer $TOKEN" http://%s/resources/v3alpha/targets/_search -d '[]'
   curl -H "Authorization: Bearer $TOKEN" http://%s/resources/v3alpha/executions/_search -d '[]'
   # take the veto away
   curl -X DELETE -H "Authorization: Bearer $TOKEN" http://%s/resources/v3alpha/executions/request%s
   # what it counted
   curl -s http://%s/metrics | grep ^execgate_
`,
		proxy, admin, ops, h.targetAddr, stampPath, guardPath, auditPath, h.apiAddr, h.token,
		compact(newUser("ada.one")), proxy, strings.TrimPrefix(addHumanUser, "/"),
		proxy, compact(newUser("ada.two")),
		proxy, strings.TrimPrefix(deleteUser, "/"), proxy,
		admin, admin, admin, deleteUser, ops))
	if h.logPath != "" {
		p.say("# the gateway's log")
		p.say("tail -f %s", filepath.Clean(h.logPath))
	}
}
