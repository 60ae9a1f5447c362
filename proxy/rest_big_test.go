package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/execgate/execgate/conditions"
	"github.com/execgate/execgate/dispatcher"
	adminpb "github.com/execgate/execgate/gen/zitadel/admin/v1"
	managementpb "github.com/execgate/execgate/gen/zitadel/management/v1"
	datapb "github.com/execgate/execgate/gen/zitadel/v1/v1"
	"github.com/execgate/execgate/internal/testkit/demoapi"
	"github.com/execgate/execgate/proxy"
	"github.com/execgate/execgate/queue"
	"github.com/execgate/execgate/schema"
	"github.com/execgate/execgate/targetclient"
)

// What a matched import of any size takes of time and memory is asked for:
//
//	go test ./proxy -run TestBig -v -big.matched 100 -big.unmatched 2000
var (
	bigMatched   = flag.Int("big.matched", 1, "megabytes of an ImportData that is rewritten")
	bigUnmatched = flag.Int("big.unmatched", 200, "megabytes of one that nothing matches")
)

const (
	importMethod = "/zitadel.admin.v1.AdminService/ImportData"
	// smallGateway is more memory than a gateway needs that only passes bytes on, with the race detector, and less than
	// the message.
	smallGateway = 160 << 20
)

// bigGateway is what the gateway of TestBigImports is told, in a process of its own.
type bigGateway struct {
	Upstream, Target string // no target: nothing matches
	Limit            int64
}

const bigGatewayVariable = "EXECGATE_TEST_BIG_GATEWAY"

// TestBigGateway is no test but that process: its memory can be measured. It ends with its standard input.
func TestBigGateway(t *testing.T) { //nolint:paralleltest // see above
	var c bigGateway
	if json.Unmarshal([]byte(os.Getenv(bigGatewayVariable)), &c) != nil {
		return
	}
	client, err := targetclient.New(targetclient.Options{MaxResponseBytes: c.Limit})
	if err != nil {
		t.Fatal(err)
	}
	var targets []*targetclient.Target
	var executions []conditions.Execution
	if c.Target != "" {
		targets = append(targets, &targetclient.Target{
			ID: "t", Name: "t", URL: c.Target, Kind: targetclient.KindCall, Timeout: time.Minute, InterruptOnError: true,
		})
		executions = append(executions, on(t, "request"+importMethod, "t"))
	}
	snapshot := snapshotOf(t, targets, executions...)
	logger := slog.New(slog.DiscardHandler)
	p, err := proxy.New(proxy.Options{
		Upstream: proxy.UpstreamOptions{URL: c.Upstream},
		Schema:   func() *schema.Schema { return demoSchema() }, Snapshot: func() *dispatcher.Snapshot { return snapshot },
		Dispatcher: dispatcher.New(dispatcher.Options{
			Caller: client, Queue: queue.NewMemory(queue.Options{Logger: logger}), Logger: logger, ChainTimeout: time.Minute,
		}),
		MethodMaxMessageBytes: map[string]int64{importMethod: c.Limit},
	})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("listening on %s\n", ln.Addr())
	s, err := proxy.NewServer(p, proxy.ServerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Serve(ln) }()
	_, _ = io.Copy(io.Discard, os.Stdin)
	_ = s.Close()
}

// startBigGateway starts the process. stop ends it and returns the most memory that it ever had.
func startBigGateway(t *testing.T, c bigGateway) (addr string, stop func() int64) {
	t.Helper()
	config, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestBigGateway$")
	cmd.Env = append(os.Environ(), bigGatewayVariable+"="+string(config))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close() })
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if _, err := fmt.Sscanf(lines.Text(), "listening on %s", &addr); err == nil {
			return addr, func() int64 {
				peak := peakMemory(t, cmd.Process.Pid)
				_ = in.Close()
				_, _ = io.Copy(io.Discard, out)
				_ = cmd.Wait()
				return peak
			}
		}
	}
	t.Fatal("the gateway does not start")
	return "", nil
}

// peakMemory is the most memory that a process ever had. What the kernel tells of a process that ended would include
// that of its parent.
func peakMemory(t *testing.T, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(b), "VmHWM:")
	var kb int64
	if _, err := fmt.Sscan(after, &kb); !ok || err != nil {
		t.Fatalf("no peak: %v", err)
	}
	return kb << 10
}

// bigImport is an import of about so many megabytes, of users of about a kilobyte.
func bigImport(id string, megabytes int) *adminpb.ImportDataRequest {
	org := &adminpb.DataOrg{OrgId: "org-" + id, Org: &managementpb.AddOrgRequest{Name: "org " + id}}
	text := strings.Repeat("0123456789abcde ", 60)
	for i := range megabytes << 10 {
		org.MachineUsers = append(org.MachineUsers, &datapb.DataMachineUser{
			UserId: fmt.Sprintf("%s-%d", id, i),
			User:   &managementpb.AddMachineUserRequest{UserName: fmt.Sprintf("user-%s-%d", id, i), Name: "before", Description: text},
		})
	}
	return &adminpb.ImportDataRequest{Data: &adminpb.ImportDataRequest_DataOrgs{
		DataOrgs: &adminpb.ImportDataOrg{Orgs: []*adminpb.DataOrg{org}},
	}}
}

// TestBigImports rewrites every user of an import on its way, over REST and gRPC.
func TestBigImports(t *testing.T) { //nolint:paralleltest // It measures.
	arrived := make(chan *adminpb.ImportDataRequest, 1)
	api := demoapi.New(demoapi.Options{MaxMessageBytes: 1 << 30, OnRequest: func(r demoapi.Request) {
		if m, ok := r.Message.(*adminpb.ImportDataRequest); ok {
			arrived <- m
		}
	}})
	upstream, err := api.Start(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = api.Stop(context.Background()) }()
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var e struct{ Request json.RawMessage }
		if json.NewDecoder(r.Body).Decode(&e) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		_, _ = w.Write(bytes.ReplaceAll(e.Request, []byte(`"before"`), []byte(`"after"`)))
	}))
	defer target.Close()

	calls := map[string]func(t *testing.T, addr string, m *adminpb.ImportDataRequest){
		"REST": func(t *testing.T, addr string, m *adminpb.ImportDataRequest) {
			t.Helper()
			b, err := protojson.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			c := webClient(t)
			c.Timeout = 0
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+"/admin/v1/import", bytes.NewReader(b))
			if err != nil {
				t.Fatal(err)
			}
			res, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = res.Body.Close() }()
			if body := readAll(t, res.Body); res.StatusCode != http.StatusOK || strings.Contains(body, `"errors"`) {
				t.Fatalf("%d %.200s", res.StatusCode, body)
			}
		},
		"gRPC": func(t *testing.T, addr string, m *adminpb.ImportDataRequest) {
			t.Helper()
			conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(1<<30), grpc.MaxCallRecvMsgSize(1<<30)))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			res, err := adminpb.NewAdminServiceClient(conn).ImportData(t.Context(), m)
			if err != nil || len(res.GetErrors()) > 0 {
				t.Fatalf("%v, %d errors", err, len(res.GetErrors()))
			}
		},
	}
	for _, name := range []string{"REST", "gRPC"} {
		t.Run(name, func(t *testing.T) {
			m := bigImport(name, *bigMatched)
			addr, stop := startBigGateway(t, bigGateway{Upstream: "http://" + upstream, Target: target.URL, Limit: 1 << 30})
			start := time.Now()
			calls[name](t, addr, m)
			took := time.Since(start)
			peak := stop()
			for _, u := range m.GetDataOrgs().GetOrgs()[0].GetMachineUsers() {
				u.User.Name = "after"
			}
			if !proto.Equal(<-arrived, m) {
				t.Error("the upstream got another message")
			}
			t.Logf("%d MB rewritten over %s in %v, gateway's peak %d MB", *bigMatched, name, took.Round(time.Millisecond), peak>>20)
		})
	}
}

// endless gives out the same text for ever.
type endless struct{ text []byte }

func (e endless) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		n += copy(p[n:], e.text)
	}
	return n, nil
}

// TestBigMessagesPassInBoundedMemory when nothing matches them: nobody waits for their end.
func TestBigMessagesPassInBoundedMemory(t *testing.T) { //nolint:paralleltest // It measures.
	size := int64(*bigUnmatched) << 20
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	upstream := serveHTTP(t, &http.Server{Protocols: &protocols, ReadHeaderTimeout: testTimeout, Handler: http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			n, _ := io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
			w.Header().Set("Received", strconv.FormatInt(n, 10))
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
			_, _ = io.CopyN(w, endless{[]byte("0123456789abcdef")}, n)
		})})
	for name, c := range map[string]struct {
		client            *http.Client
		path, contentType string
	}{
		"REST": {webClient(t), "/admin/v1/import", "application/json"},
		"gRPC": {h2cClient(t), importMethod, "application/grpc"},
	} {
		t.Run(name, func(t *testing.T) {
			addr, stop := startBigGateway(t, bigGateway{Upstream: "http://" + upstream})
			c.client.Timeout = 0
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+c.path, io.LimitReader(endless{[]byte("0123456789abcdef")}, size))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", c.contentType)
			start := time.Now()
			res, err := c.client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = res.Body.Close() }()
			n, err := io.Copy(io.Discard, res.Body)
			if err != nil || n != size || res.Header.Get("Received") != strconv.FormatInt(size, 10) {
				t.Errorf("%s bytes received, %d sent back: %v", res.Header.Get("Received"), n, err)
			}
			took := time.Since(start)
			peak := stop()
			if peak > smallGateway {
				t.Errorf("the gateway took %d MB", peak>>20)
			}
			t.Logf("%d MB each way over %s in %v, gateway's peak %d MB", *bigUnmatched, name, took.Round(time.Millisecond), peak>>20)
		})
	}
}
