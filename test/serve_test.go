package test

import (
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	demopb "github.com/execgate/execgate/gen/execgate/demo/v1"
	userpb "github.com/execgate/execgate/gen/zitadel/user/v2"
	"github.com/execgate/execgate/internal/testkit"
)

const addHumanUser = "/zitadel.user.v2.UserService/AddHumanUser"

func human(name string) *userpb.AddHumanUserRequest {
	return &userpb.AddHumanUserRequest{
		Username: &name,
		Profile:  &userpb.SetHumanProfile{GivenName: name, FamilyName: "Example"},
		Email:    &userpb.SetHumanEmail{Email: name + "@example.com"},
	}
}

// execute puts targets of the test behind AddHumanUser: one that is waited for
// and one that is not.
func (p *process) execute(target *testkit.Target) {
	p.t.Helper()
	sync := p.post("/targets", `{"name":"sync","restWebhook":{"url":"`+target.URL+`/sync?key=hush"},"timeout":"20s","interruptOnError":true}`)
	async := p.post("/targets", `{"name":"async","restWebhook":{"url":"`+target.URL+`/async"},"timeout":"20s","isAsync":true}`)
	p.post("/executions", `{"condition":{"request":{"method":"`+addHumanUser+`"}},"targets":["`+async+`","`+sync+`"]}`)
}

func TestSIGTERMLosesNoCall(t *testing.T) {
	t.Parallel()
	_, addr := demoAPI(t)
	p := startProcess(t, t.TempDir(), addr, `proxy: {listen: "127.0.0.1:0", drain_delay: 300ms}`).learned()
	target := testkit.NewTarget(t, testkit.TargetOptions{})
	p.execute(target)
	target.Answer(testkit.Answer{Hang: true})

	conn := dial(t, p.proxy)
	call := make(chan error, 1)
	go func() {
		_, err := userpb.NewUserServiceClient(conn).AddHumanUser(t.Context(), human("ada"))
		call <- err
	}()
	stream, err := demopb.NewStreamServiceClient(conn).Chat(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	chat := func() error {
		if err := stream.Send(&demopb.ChatRequest{}); err != nil {
			return err
		}
		_, err := stream.Recv()
		return err
	}
	if err := chat(); err != nil {
		t.Fatal(err)
	}
	target.Wait(2, 10*time.Second)

	p.signal(syscall.SIGTERM)
	until(t, "/readyz says 503", func() bool { return p.ready() == 503 })
	// Within drain_delay whoever has not heard of it yet is still served.
	if _, err := userpb.NewUserServiceClient(dial(t, p.proxy)).ListUsers(t.Context(), &userpb.ListUsersRequest{}); err != nil {
		t.Errorf("a call within drain_delay: %v", err)
	}
	until(t, "new connections are refused", func() bool {
		c, err := net.Dial("tcp", p.proxy)
		if err == nil {
			_ = c.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	if p.ready() != 503 {
		t.Error("/readyz does not say 503 while calls are drained")
	}
	if err := chat(); err != nil {
		t.Errorf("an open stream is cut: %v", err)
	}
	select {
	case <-p.exited:
		t.Fatal("the gateway ended with calls in flight")
	default:
	}

	target.Release()
	if err := <-call; err != nil {
		t.Errorf("the call in flight: %v", err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Error(err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the stream ends with %v", err)
	}
	if code := p.wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if p.line("stopped") == nil {
		t.Error("the log does not say that it stopped")
	}
}

func TestAsyncDeliveriesAreMadeBeforeTheEnd(t *testing.T) {
	t.Parallel()
	_, addr := demoAPI(t)
	p := startProcess(t, t.TempDir(), addr, `proxy: {listen: "127.0.0.1:0"}`).learned()
	target := testkit.NewTarget(t, testkit.TargetOptions{})
	p.execute(target)
	target.AnswerPath("/async", testkit.Answer{Hang: true})
	if _, err := userpb.NewUserServiceClient(dial(t, p.proxy)).AddHumanUser(t.Context(), human("ada")); err != nil {
		t.Fatal(err)
	}
	target.Wait(2, 10*time.Second)
	p.signal(syscall.SIGTERM)
	until(t, "new connections are refused", func() bool {
		c, err := net.Dial("tcp", p.proxy)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	target.Release()
	if code := p.wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestWhatOutlastsTheDrainIsCutAndCounted(t *testing.T) {
	t.Parallel()
	api, addr := demoAPI(t)
	p := startProcess(t, t.TempDir(), addr, "proxy: {listen: \"127.0.0.1:0\", drain_timeout: 300ms}\nqueue: {driver: memory}").learned()
	target := testkit.NewTarget(t, testkit.TargetOptions{})
	p.execute(target)
	target.Answer(testkit.Answer{Hang: true})
	users := userpb.NewUserServiceClient(dial(t, p.proxy))
	call := make(chan error, 1)
	go func() {
		_, err := users.AddHumanUser(t.Context(), human("ada"))
		call <- err
	}()
	waiting := make(chan error, 1)
	go func() {
		_, err := demopb.NewStreamServiceClient(dial(t, p.proxy)).Wait(t.Context(), &demopb.WaitRequest{})
		waiting <- err
	}()
	target.Wait(2, 10*time.Second)
	until(t, "both calls are in flight", func() bool { return api.Count("/execgate.demo.v1.StreamService/Wait") == 1 })

	p.signal(syscall.SIGTERM)
	if code := p.wait(); code != 1 {
		t.Errorf("exit code %d", code)
	}
	for _, c := range []chan error{call, waiting} {
		if err := <-c; status.Code(err) == codes.OK {
			t.Error("a call was not cut")
		}
	}
	line := p.line("drain_timeout passed")
	if line == nil || line["calls_cut"] != 2.0 || line["deliveries_lost"] != 1.0 {
		t.Errorf("the log says %v", line)
	}
	if !strings.Contains(p.logged(), "execgate: drain_timeout passed: 2 calls and 1 asynchronous deliveries were cut") {
		t.Error("the last line does not say what was cut")
	}
}

func TestASecondSignalEndsItAtOnce(t *testing.T) {
	t.Parallel()
	_, addr := demoAPI(t)
	p := startProcess(t, t.TempDir(), addr, `proxy: {listen: "127.0.0.1:0", drain_delay: 1m}`)
	p.signal(syscall.SIGTERM)
	until(t, "it stops", func() bool { return p.line("stopping") != nil })
	p.signal(syscall.SIGTERM)
	if code := p.wait(); code != -1 {
		t.Errorf("exit code %d", code)
	}
}

func TestTheConfigurationSurvivesKill9(t *testing.T) {
	t.Parallel()
	api, addr := demoAPI(t)
	dir := t.TempDir()
	p := startProcess(t, dir, addr, `proxy: {listen: "127.0.0.1:0"}`).learned()
	target := testkit.NewTarget(t, testkit.TargetOptions{})
	target.Answer(testkit.Answer{Status: 500})
	p.execute(target)
	p.signal(syscall.SIGKILL)
	p.wait()

	p = startProcess(t, dir, addr, `proxy: {listen: "127.0.0.1:0"}`)
	_, err := userpb.NewUserServiceClient(dial(t, p.proxy)).AddHumanUser(t.Context(), human("ada"))
	if status.Code(err) != codes.FailedPrecondition {
		t.Errorf("after kill -9 the call ends with %v", err)
	}
	if n := api.Count(addHumanUser); n != 0 {
		t.Errorf("%d calls got through", n)
	}
}

func TestTheLogShowsNoSecret(t *testing.T) {
	t.Parallel()
	_, addr := demoAPI(t)
	p := startProcess(t, t.TempDir(), addr, "proxy: {listen: \"127.0.0.1:0\"}\nlog: {level: debug}").learned()
	target := testkit.NewTarget(t, testkit.TargetOptions{})
	p.execute(target)
	users := userpb.NewUserServiceClient(dial(t, p.proxy))
	secret := human("ada-payload")
	secret.PasswordType = &userpb.AddHumanUserRequest_Password{Password: &userpb.Password{Password: "Pass-word-hush-1"}}
	if _, err := users.AddHumanUser(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	target.AnswerPath("/sync", testkit.Answer{Status: 500, Body: "body-hush"}, testkit.Answer{Cut: true}, testkit.Answer{Body: `{"forwardedStatusCode":400,"forwardedErrorMessage":"message-hush"}`})
	for range 3 {
		_, _ = users.AddHumanUser(t.Context(), human("ada-payload"))
	}
	target.Close()
	_, _ = users.AddHumanUser(t.Context(), human("ada-payload"))
	p.signal(syscall.SIGTERM)
	p.wait()
	for _, word := range []string{"hush", "ada-payload", token} {
		if i := strings.Index(p.logged(), word); i >= 0 {
			t.Errorf("the log shows %q", word)
		}
	}
	if p.line("call matched") == nil && !strings.Contains(p.logged(), addHumanUser) {
		t.Error("there is no line for the matched call")
	}
}
