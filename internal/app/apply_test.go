package app_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/execgate/execgate/configfile"
	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	"github.com/execgate/execgate/internal/app"
	"github.com/execgate/execgate/internal/config"
	"github.com/execgate/execgate/internal/testkit"
)

// document writes a document that calls url on each AddHumanUser.
func document(t *testing.T, url string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "key.txt"), []byte("from-a-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return rewrite(t, filepath.Join(dir, "rules.yaml"), `
kind: Target
name: guard
webhook: {url: `+url+`}
timeout: 10s
interrupt_on_error: true
signing_key_file: key.txt
---
kind: Execution
condition: request`+addHumanUser+`
targets: [guard]
`)
}

func rewrite(t *testing.T, file, text string) string {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// startApplying starts a gateway that applies a document.
func startApplying(t *testing.T, c *config.Config, file string) (*gateway, error) {
	t.Helper()
	a, err := app.New(app.Options{Config: c, Logger: testkit.Logger(t), Apply: file})
	if err != nil {
		return nil, err
	}
	if err := a.Start(t.Context()); err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = a.Stop(context.Background()) })
	return &gateway{App: a, t: t}, nil
}

// exported is what the gateway holds.
func (g *gateway) exported() *gatewaypb.ExportResponse {
	g.t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+g.Addresses().Admin.String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		g.t.Fatal(err)
	}
	defer conn.Close()
	res, err := gatewaypb.NewGatewayServiceClient(conn).Export(g.t.Context(), &gatewaypb.ExportRequest{WithSigningKeys: true})
	if err != nil {
		g.t.Fatal(err)
	}
	return res
}

func TestADocumentIsAppliedBeforeTheFirstCall(t *testing.T) {
	t.Parallel()
	_, addr := upstream(t, "127.0.0.1:0")
	c := configuration(t, addr)
	file := document(t, "http://127.0.0.1:9/guard")
	g, err := startApplying(t, c, file)
	if err != nil {
		t.Fatal(err)
	}
	first := g.exported()
	if first.GetRevision() != 1 || first.GetTargets() != 1 || !strings.Contains(first.GetDocument(), "signing_key: from-a-file") {
		t.Fatalf("%v", first)
	}
	if err := g.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	again, err := startApplying(t, c, file)
	if err != nil {
		t.Fatal(err)
	}
	if got := again.exported(); got.GetRevision() != 1 || got.GetDocument() != first.GetDocument() {
		t.Errorf("applied again: %v", got)
	}
}

func TestAFaultyDocumentEndsTheStart(t *testing.T) {
	t.Parallel()
	_, addr := upstream(t, "127.0.0.1:0")
	file := document(t, "ftp://a.example")
	for text, want := range map[string][]string{
		"kind: Target\nnam: x\n---\nkind: Execution\n": {":2: Target: nam: unknown key; did you mean name?", ":4: Execution: condition: missing"},
		"kind: Target\nname: x\nwebhook: {url: ftp://a.example}\ntimeout: 10s\n---\n{kind: Execution, condition: request, targets: [y]}": {
			":3: Target x: webhook.url: neither http nor https", `:6: Execution request: targets[0]: there is no target "y"`,
		},
		"{kind: Target, name: x, webhook: {url: http://a.example}, timeout: 1s, signing_key_file: nothing}": {"signing_key_file: nothing: no such file"},
	} {
		c := configuration(t, addr)
		_, err := startApplying(t, c, rewrite(t, file, text))
		var faults configfile.Faults
		if !errors.As(err, &faults) {
			t.Fatalf("a %T: %v", err, err)
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), file+w) && !strings.Contains(err.Error(), w) {
				t.Errorf("%q:\n%v", w, err)
			}
		}
		g := start(t, c) // it let go of everything, and wrote nothing
		if got := g.exported(); got.GetRevision() != 0 {
			t.Errorf("%v", got)
		}
		if err := g.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}
	if _, err := startApplying(t, configuration(t, addr), file+".missing"); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Error(err)
	}
}

func TestADocumentWaitsForRedis(t *testing.T) {
	t.Parallel()
	_, addr := upstream(t, "127.0.0.1:0")
	redis := testkit.StartRedis(t, testkit.RedisOptions{})
	redis.Kill()
	g, err := startApplying(t, onRedis(configuration(t, addr), redis.URL), document(t, "http://127.0.0.1:9/guard"))
	if err != nil {
		t.Fatal(err)
	}
	redis.Restart()
	until(t, "the document is applied", func() bool { return g.exportedTargets() == 1 })
}

// exportedTargets is 0 while the store is away.
func (g *gateway) exportedTargets() uint32 {
	conn, err := grpc.NewClient("passthrough:///"+g.Addresses().Admin.String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return 0
	}
	defer conn.Close()
	res, err := gatewaypb.NewGatewayServiceClient(conn).Export(g.t.Context(), &gatewaypb.ExportRequest{})
	if err != nil {
		return 0
	}
	return res.GetTargets()
}
