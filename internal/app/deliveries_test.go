package app_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	"github.com/execgate/execgate/internal/cli"
	"github.com/execgate/execgate/internal/config"
	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/targetclient"
)

// impatient is a policy under which a delivery is given up at once.
func impatient(attempts uint32) *gatewaypb.TargetPolicy {
	return &gatewaypb.TargetPolicy{Retry: &gatewaypb.Retry{MaxAttempts: &attempts, FirstDelay: durationpb.New(time.Millisecond)}}
}

// deliveries lists those in a state.
func (g *gateway) deliveries(state string) []*gatewaypb.Delivery {
	g.t.Helper()
	res, err := g.own.ListDeliveries(g.t.Context(), &gatewaypb.ListDeliveriesRequest{State: state})
	if err != nil {
		g.t.Fatal(err)
	}
	return res.GetDeliveries()
}

// rest asks the admin API over REST and returns the status and the body.
func (g *gateway) rest(method, path, body string) (int, map[string]any) {
	g.t.Helper()
	req, err := http.NewRequestWithContext(g.t.Context(), method, "http://"+g.Addresses().Admin.String()+path, strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	object := map[string]any{}
	if err := json.Unmarshal(text, &object); err != nil {
		g.t.Fatalf("%s %s: %s", method, path, text)
	}
	return res.StatusCode, object
}

// command runs a command of the command line against the gateway.
func (g *gateway) command(args ...string) string {
	g.t.Helper()
	root := &cobra.Command{Use: "execgate"}
	root.AddGroup(cli.Group)
	root.AddCommand(cli.Commands([]string{"EXECGATE_ADMIN_URL=http://" + g.Addresses().Admin.String()})...)
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetArgs(args)
	if err := root.ExecuteContext(g.t.Context()); err != nil {
		g.t.Fatalf("execgate %s: %v", strings.Join(args, " "), err)
	}
	return out.String()
}

// onEveryQueue runs a test with each driver that keeps deliveries.
func onEveryQueue(t *testing.T, run func(t *testing.T, c func(upstream string) *config.Config)) {
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		run(t, func(upstream string) *config.Config { return configuration(t, upstream) })
	})
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		redis := testkit.StartRedis(t, testkit.RedisOptions{})
		run(t, func(upstream string) *config.Config { return onRedis(configuration(t, upstream), redis.URL) })
	})
}

func TestADeadLetterIsListedAndReplayed(t *testing.T) {
	t.Parallel()
	onEveryQueue(t, func(t *testing.T, configured func(string) *config.Config) {
		_, addr := upstream(t, "127.0.0.1:0")
		g := start(t, configured(addr)).learned()
		target := testkit.NewTarget(t, testkit.TargetOptions{})
		target.Answer(testkit.Answer{Status: 503})
		id := g.createTarget(async(webhook("crm", target.URL)))
		g.policyOfTarget(id, impatient(2))
		g.onRequest(addHumanUser, id)
		if code := g.add("ada"); code != codes.OK {
			t.Fatal(code)
		}
		until(t, "it is given up", func() bool { return len(g.deliveries("dead")) == 1 })
		tries := target.Requests()
		if len(tries) != 2 || tries[0].Header.Get("webhook-id") == "" || tries[0].Header.Get("webhook-id") != tries[1].Header.Get("webhook-id") ||
			tries[0].Header.Get("execgate-attempt") != "1" || tries[1].Header.Get("execgate-attempt") != "2" || tries[1].Header.Get("webhook-timestamp") == "" {
			t.Errorf("attempts %+v", tries)
		}
		dead := g.deliveries("dead")[0]
		if dead.GetId() != tries[0].Header.Get("webhook-id") || dead.GetTargetName() != "crm" || dead.GetReason() != "max_attempts" ||
			dead.GetAttempts() != 2 || dead.GetHistory()[1].GetStatus() != 503 || dead.GetExecution() != requestExecution {
			t.Errorf("dead letter %v", dead)
		}
		if g.metric(`execgate_delivery_attempts_total{outcome="max_attempts",target="crm"}`) != "1" || g.metric(`execgate_deliveries{state="dead",target="crm"}`) != "1" {
			t.Error("the metrics do not tell")
		}

		// REST and the command line show the same.
		code, page := g.rest(http.MethodGet, "/v1/deliveries?state=dead&target=crm&limit=1", "")
		if list, _ := page["deliveries"].([]any); code != 200 || len(list) != 1 || list[0].(map[string]any)["id"] != dead.GetId() {
			t.Errorf("%d %v", code, page)
		}
		code, one := g.rest(http.MethodGet, "/v1/deliveries/"+dead.GetId(), "")
		if d, _ := one["delivery"].(map[string]any); code != 200 || d["state"] != "dead" || d["payload"] != string(tries[0].Body) {
			t.Errorf("%d %v", code, one)
		}
		if out := g.command("deliveries", "list", "--state", "dead"); !strings.Contains(out, dead.GetId()) || !strings.Contains(out, "max_attempts: failed 503") {
			t.Errorf("listed as %s", out)
		}
		if out := g.command("deliveries", "show", dead.GetId()); !strings.Contains(out, "failed 503") || !strings.Contains(out, addHumanUser) {
			t.Errorf("shown as %s", out)
		}

		target.Answer(testkit.Answer{})
		if code, out := g.rest(http.MethodPost, "/v1/deliveries/"+dead.GetId()+"/_replay", "{}"); code != 200 {
			t.Fatalf("%d %v", code, out)
		}
		again := target.Wait(3, 10*time.Second)[2]
		if again.Header.Get("webhook-id") != dead.GetId() || again.Header.Get("execgate-attempt") != "3" || !bytes.Equal(again.Body, tries[0].Body) {
			t.Errorf("replayed as %v %s", again.Header, again.Body)
		}
		until(t, "it is in the ledger", func() bool { d := g.deliveries("delivered"); return len(d) == 1 && d[0].GetAttempts() == 3 })

		// All of a target at once, and dropping.
		target.Answer(testkit.Answer{Status: 400})
		g.add("bob")
		g.add("eve")
		until(t, "both are refused", func() bool { return len(g.deliveries("dead")) == 2 })
		if out := g.command("deliveries", "drop", g.deliveries("dead")[0].GetId()); !strings.Contains(out, "dropped") {
			t.Error(out)
		}
		target.Answer(testkit.Answer{})
		if code, out := g.rest(http.MethodPost, "/v1/deliveries/_replay", `{"state":"dead","target":"crm"}`); code != 200 || out["replayed"] != 1.0 {
			t.Errorf("%d %v", code, out)
		}
		until(t, "the other one arrives", func() bool { return len(g.deliveries("delivered")) == 2 && len(g.deliveries("dead")) == 0 })
		if out := g.command("deliveries", "replay", "--all"); out != "0 replayed\n" {
			t.Error(out)
		}
		left := g.deliveries("delivered")[0].GetId()
		if code, _ := g.rest(http.MethodDelete, "/v1/deliveries/"+left, ""); code != 200 {
			t.Error(code)
		}
		if code, _ := g.rest(http.MethodGet, "/v1/deliveries/"+left, ""); code != 404 {
			t.Error(code)
		}
	})
}

func TestATargetThatIsGoneIsDisabledAndItsDeliveriesAreParked(t *testing.T) {
	t.Parallel()
	onEveryQueue(t, func(t *testing.T, configured func(string) *config.Config) {
		_, addr := upstream(t, "127.0.0.1:0")
		g := start(t, configured(addr)).learned()
		target := testkit.NewTarget(t, testkit.TargetOptions{})
		target.Answer(testkit.Answer{Status: 410})
		id := g.createTarget(async(webhook("crm", target.URL)))
		g.onRequest(addHumanUser, id)
		g.add("ada")
		until(t, "the target is disabled", func() bool {
			res, err := g.own.GetTargetPolicy(t.Context(), &gatewaypb.GetTargetPolicyRequest{Id: id})
			return err == nil && res.GetPolicy().Enabled != nil && !res.GetPolicy().GetEnabled()
		})
		if dead := g.deliveries("dead"); len(dead) != 1 || dead[0].GetReason() != "gone" {
			t.Errorf("dead %v", dead)
		}
		g.add("bob")
		until(t, "the next is parked", func() bool { return len(g.deliveries("parked")) == 1 })
		if n := len(target.Requests()); n != 1 {
			t.Errorf("%d calls", n)
		}
		if phase := g.explain(&gatewaypb.ExplainRequest{Method: addHumanUser}).GetPhases()[0]; phase.GetExecution() != requestExecution || phase.GetTargets()[0].GetEnabled() {
			t.Errorf("explained as %v", phase)
		}
		target.Answer(testkit.Answer{})
		g.command("target", "enable", "crm")
		until(t, "it arrives once the target is enabled", func() bool { return len(g.deliveries("delivered")) == 1 })
		if got := target.Requests()[1].Header.Get("execgate-attempt"); got != "1" {
			t.Errorf("parking used up attempts: this is the %s.", got)
		}
	})
}

func TestWhatWasTakenOutlivesTheGateway(t *testing.T) {
	t.Parallel()
	onEveryQueue(t, func(t *testing.T, configured func(string) *config.Config) {
		_, addr := upstream(t, "127.0.0.1:0")
		c := configured(addr)
		g := start(t, c).learned()
		target := testkit.NewTarget(t, testkit.TargetOptions{})
		target.Answer(testkit.Answer{Hang: true})
		id := g.createTarget(async(webhook("crm", target.URL)))
		g.onRequest(addHumanUser, id)
		g.add("ada")
		target.Wait(1, 10*time.Second)
		if n := g.metric("execgate_async_pending"); n != "1" {
			t.Errorf("execgate_async_pending is %q while the delivery is under way", n)
		}
		c.Proxy.DrainTimeout = 100 * time.Millisecond
		if err := g.Stop(t.Context()); err != nil {
			t.Fatalf("the stop says that something was lost: %v", err)
		}
		target.Answer(testkit.Answer{})
		again := start(t, c)
		got := target.Wait(2, 10*time.Second)
		if got[1].Header.Get("webhook-id") != got[0].Header.Get("webhook-id") {
			t.Error("it is another delivery")
		}
		until(t, "it is delivered", func() bool { return len(again.deliveries("delivered")) == 1 })
	})
}

func TestTheSpoolTakesDeliveriesWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	_, addr := upstream(t, "127.0.0.1:0")
	redis := testkit.StartRedis(t, testkit.RedisOptions{AOF: true})
	c := onRedis(configuration(t, addr), redis.URL)
	g := start(t, c).learned()
	target := testkit.NewTarget(t, testkit.TargetOptions{})
	g.onRequest(addHumanUser, g.createTarget(async(webhook("crm", target.URL))))
	redis.Kill()
	if code := g.add("ada"); code != codes.OK {
		t.Fatal(code)
	}
	if n := g.metric("execgate_spool_deliveries"); n != "1" {
		t.Errorf("%s in the spool", n)
	}
	if err := g.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}

	again := start(t, c).learned() // without Redis
	if code := again.add("bob"); code != codes.OK {
		t.Fatal(code)
	}
	if n := again.metric("execgate_spool_deliveries"); n != "2" {
		t.Errorf("%s in the spool", n)
	}
	if len(target.Requests()) != 0 {
		t.Error("delivered without Redis")
	}
	redis.Restart()
	target.Wait(2, 20*time.Second)
	if got := again.metric("execgate_spool_deliveries"); got != "0" {
		t.Errorf("%s left in the spool", got)
	}
}

func TestDeliveriesAreSignedAsThePolicySays(t *testing.T) {
	t.Parallel()
	_, addr := upstream(t, "127.0.0.1:0")
	g := start(t, configuration(t, addr)).learned()
	target := testkit.NewTarget(t, testkit.TargetOptions{})
	id := g.createTarget(async(webhook("crm", target.URL)))
	const secret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
	g.policyOfTarget(id, &gatewaypb.TargetPolicy{Signatures: []string{"standard_v1"}, SigningSecrets: []string{secret}})
	g.onRequest(addHumanUser, id)
	g.add("ada")
	h := target.Wait(1, 10*time.Second)[0].Header
	if !strings.HasPrefix(h.Get("webhook-signature"), "v1,") || h.Get(targetclient.SignatureHeaderName) != "" {
		t.Errorf("headers %v", h)
	}
}

func TestAFullQueueBlocksTheCallIfTheTargetSaysSo(t *testing.T) {
	t.Parallel()
	_, addr := upstream(t, "127.0.0.1:0")
	c := configuration(t, addr)
	c.Queue.MaxPending = 1
	c.Proxy.ChainTimeout = 300 * time.Millisecond
	g := start(t, c).learned()
	target := testkit.NewTarget(t, testkit.TargetOptions{})
	target.Answer(testkit.Answer{Hang: true})
	id := g.createTarget(async(webhook("crm", target.URL)))
	g.onRequest(addHumanUser, id)
	if code := g.add("ada"); code != codes.OK {
		t.Fatal(code)
	}
	if code := g.add("bob"); code != codes.OK {
		t.Errorf("by default a full queue ends the call with %v", code)
	}
	g.policyOfTarget(id, &gatewaypb.TargetPolicy{OnFull: new("block_call")})
	if code := g.add("eve"); code != codes.FailedPrecondition {
		t.Errorf("block_call: %v", code)
	}
	target.Release()
}

func TestAQueueInMemoryShowsNothing(t *testing.T) {
	t.Parallel()
	_, addr := upstream(t, "127.0.0.1:0")
	c := configuration(t, addr)
	c.Queue.Driver = "memory"
	g := start(t, c).learned()
	target := testkit.NewTarget(t, testkit.TargetOptions{})
	g.onRequest(addHumanUser, g.createTarget(async(webhook("crm", target.URL))))
	g.add("ada")
	target.Wait(1, 10*time.Second)
	if code, _ := g.rest(http.MethodGet, "/v1/deliveries", ""); code != 501 {
		t.Error(code)
	}
}

func TestPayloadsAreEncryptedWithTheKeyOfAFile(t *testing.T) {
	t.Parallel()
	_, addr := upstream(t, "127.0.0.1:0")
	c := configuration(t, addr)
	c.Queue.EncryptionKeyFile = filepath.Join(t.TempDir(), "keys")
	c.Queue.Retry.FirstDelay, c.Queue.Retry.MaxDelay = time.Hour, time.Hour
	if err := os.WriteFile(c.Queue.EncryptionKeyFile, []byte(strings.Repeat("ab", 32)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	g := start(t, c).learned()
	target := testkit.NewTarget(t, testkit.TargetOptions{})
	target.Answer(testkit.Answer{Status: 503})
	g.onRequest(addHumanUser, g.createTarget(async(webhook("crm", target.URL))))
	g.add("searched-for")
	target.Wait(1, 10*time.Second)
	id := g.deliveries("pending")[0].GetId()
	if _, one := g.rest(http.MethodGet, "/v1/deliveries/"+id, ""); !strings.Contains(fmt.Sprint(one), "searched-for") {
		t.Errorf("with the key it is shown as %v", one)
	}
	if err := g.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(c.QueuePath())
	if err != nil || bytes.Contains(file, []byte("searched-for")) {
		t.Errorf("the payload can be read in the file: %v", err)
	}

	if err := os.WriteFile(c.Queue.EncryptionKeyFile, []byte(strings.Repeat("cd", 32)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	again := start(t, c)
	_, one := again.rest(http.MethodGet, "/v1/deliveries/"+id, "")
	if d, _ := one["delivery"].(map[string]any); d["payloadSealed"] != true {
		t.Errorf("without the key it is shown as %v", one)
	}
}
