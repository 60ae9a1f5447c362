//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/execgate/execgate/internal/testkit/demoapi"
)

const configuredAnyway = 10 // executions that match nothing, where the scenario says no number

// buildGateway builds the gateway of the tree that this program is run in, with symbols, so that it can be profiled.
func (b *bench) buildGateway(ctx context.Context) error {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return fmt.Errorf("find the module (run this in the tree, or name a binary with -gateway): %w", err)
	}
	b.version = "of the tree"
	if commit, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty").Output(); err == nil {
		b.version = string(bytes.TrimSpace(commit))
	}
	b.gateway = filepath.Join(b.dir, "execgate-built")
	build := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-trimpath", "-o", b.gateway, "./cmd/execgate") //nolint:gosec // G204: our own command.
	build.Dir = string(bytes.TrimSpace(root))
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the gateway: %w\n%s", err, out)
	}
	return nil
}

func gatewayWith(engine string, executions int) func(context.Context, *bench, *scenario) (*running, error) {
	return func(ctx context.Context, b *bench, s *scenario) (*running, error) {
		return b.startGateway(ctx, s, b.gateway, engine, executions)
	}
}

// otherGateway starts a second build of the gateway, so that the two are compared in one run.
func otherGateway(ctx context.Context, b *bench, s *scenario) (*running, error) {
	return b.startGateway(ctx, s, b.against, "h2", configuredAnyway)
}

func (b *bench) startGateway(ctx context.Context, s *scenario, binary, engine string, executions int) (*running, error) {
	name := fmt.Sprintf("%s-%s-%d", filepath.Base(binary), engine, executions)
	v, err := b.settings(name, s)
	if err != nil {
		return nil, err
	}
	v.Engine, v.Token, v.Set = engine, "of-the-bench", filepath.Join(v.Dir, "schema.binpb")
	if err := os.WriteFile(v.Set, schemaWith(executions), 0o600); err != nil {
		return nil, err
	}
	file, err := v.write("execgate.yaml")
	if err != nil {
		return nil, err
	}
	for first := 0; ; first += mostAtOnce {
		rules := filepath.Join(v.Dir, "rules.yaml")
		last := min(first+mostAtOnce, executions)
		if err := os.WriteFile(rules, rulesWith(first, last, s.callout, b.port), 0o600); err != nil {
			return nil, err
		}
		p, err := startProcess(name, nil, binary, "serve", "--config", file, "--apply", rules)
		if err != nil {
			return nil, err
		}
		if err := p.wait(ctx, func() bool { return isReady(ctx, local(v.REST)) }); err != nil {
			p.stop()
			return nil, err
		}
		if last == executions {
			return &running{process: p, address: local(v.GRPC)}, nil
		}
		p.stop() // The store keeps them.
	}
}

// mostAtOnce is how many executions a document has: a revision holds 100,000 items.
const mostAtOnce = 50_000

func isReady(ctx context.Context, ops string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+ops+"/readyz", http.NoBody)
	if err != nil {
		return false
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// How many methods each of the services has that nobody calls, and how many executions each target.
const (
	methodsPerService   = 100
	executionsPerTarget = 1000
)

// unused names the condition of the i-th execution that matches nothing: a request or a response of a method of its own.
func unused(i int) string {
	phase := [2]string{"request", "response"}[i%2]
	i /= 2
	return fmt.Sprintf("%s/bench.v1.Service%d/Method%d", phase, i/methodsPerService, i%methodsPerService)
}

// schemaWith is the demo API's descriptor set, with methods enough for as many executions that match nothing.
func schemaWith(executions int) []byte {
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(demoapi.DescriptorSet(), set); err != nil {
		panic(err) // It is compiled in.
	}
	file := &descriptorpb.FileDescriptorProto{
		Name: proto.String("bench/v1/bench.proto"), Package: proto.String("bench.v1"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("Nothing")}},
	}
	for i := range (executions + 1) / 2 {
		if i%methodsPerService == 0 {
			file.Service = append(file.Service, &descriptorpb.ServiceDescriptorProto{Name: proto.String(fmt.Sprintf("Service%d", i/methodsPerService))})
		}
		s := file.Service[len(file.Service)-1]
		s.Method = append(s.Method, &descriptorpb.MethodDescriptorProto{
			Name: proto.String(fmt.Sprintf("Method%d", i%methodsPerService)), InputType: proto.String(".bench.v1.Nothing"), OutputType: proto.String(".bench.v1.Nothing"),
		})
	}
	set.File = append(set.File, file)
	raw, err := proto.Marshal(set)
	if err != nil {
		panic(err)
	}
	return raw
}

// rulesWith are executions that match nothing, from first to before last, and one for the call-out if there is one.
func rulesWith(first, last int, callout string, port int) []byte {
	var out bytes.Buffer
	if callout != "" {
		kind := "webhook"
		if callout == rewritePath {
			kind = "request_response"
		}
		fmt.Fprintf(&out, "---\nkind: Target\nname: callout\n%s: {url: http://127.0.0.1:%d%s}\ntimeout: 5s\ninterrupt_on_error: true\n", kind, port, callout)
		fmt.Fprintf(&out, "---\nkind: Execution\ncondition: request%s\ntargets: [callout]\n", unaryMethod)
	}
	for i := first; i < last; i++ {
		if i%executionsPerTarget == 0 {
			fmt.Fprintf(&out, "---\nkind: Target\nname: nobody%d\nwebhook: {url: http://127.0.0.1:%d/nobody}\ntimeout: 5s\ninterrupt_on_error: true\n", i/executionsPerTarget, port)
		}
		fmt.Fprintf(&out, "---\nkind: Execution\ncondition: %s\ntargets: [nobody%d]\n", unused(i), i/executionsPerTarget)
	}
	return out.Bytes()
}
