package admin_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/execgate/execgate/admin"
	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	actionv2 "github.com/execgate/execgate/gen/zitadel/action/v2"
	"github.com/execgate/execgate/store"
)

var update = flag.Bool("update", false, "write the golden files anew")

// base is what most tests begin with.
const base = `
kind: Target
name: check
request_response: {url: "https://hooks.example.com/check"}
timeout: 10s
interrupt_on_error: true
policy: {max_concurrency: 5, headers: {X-Api-Key: s3cret}}
---
kind: Target
name: Audit
webhook: {url: "https://hooks.example.com/audit"}
timeout: 1m
---
kind: Execution
condition: request/zitadel.user.v2.UserService/AddHumanUser
targets: [check, audit]
policy: {mode: shadow}
---
kind: Execution
condition: request/zitadel.user.v2.UserService
includes: [request/zitadel.user.v2.UserService/AddHumanUser]
`

func (f *fixture) plan(doc string, prune bool) *gatewaypb.PlanResponse {
	f.t.Helper()
	return f.must(&gatewaypb.PlanRequest{Document: doc, Prune: prune}).(*gatewaypb.PlanResponse)
}

func (f *fixture) apply(doc string, prune bool) *gatewaypb.ApplyResponse {
	f.t.Helper()
	return f.must(&gatewaypb.ApplyRequest{Document: doc, Prune: prune}).(*gatewaypb.ApplyResponse)
}

func (f *fixture) export(keys bool) string {
	f.t.Helper()
	return f.must(&gatewaypb.ExportRequest{WithSigningKeys: keys}).(*gatewaypb.ExportResponse).GetDocument()
}

// show is a list of changes for golden files: one line each, ids of targets left out.
func show(changes []*gatewaypb.ItemChange) string {
	var b strings.Builder
	for _, c := range changes {
		name := c.GetName()
		if name == "" {
			name = c.GetId()
		}
		fmt.Fprintf(&b, "%s %s %s\n", strings.ToLower(strings.TrimPrefix(c.GetChange().String(), "CHANGE_KIND_")), c.GetKind(), name)
		for _, f := range c.GetFields() {
			fmt.Fprintf(&b, "  %s: %s -> %s\n", f.GetField(), f.GetBefore(), f.GetAfter())
		}
	}
	return b.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	name = filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(name), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
	}
}

func TestPlanAndApply(t *testing.T) {
	t.Parallel()
	each(t, gatewayProtocols, func(t *testing.T, p protocol) {
		f := start(t)
		planned := f.plan(base, false)
		golden(t, "plan/create.golden", show(planned.GetChanges()))
		for _, c := range planned.GetChanges() {
			if c.GetKind() == "target" && c.GetId() != "" {
				t.Errorf("a plan made up the id %q", c.GetId())
			}
		}
		if f.replica.State().Revision() != planned.GetRevision() {
			t.Error("a plan changed something")
		}
		res, out := f.call(p, &gatewaypb.ApplyRequest{Document: base})
		if out.code != codes.OK {
			t.Fatal(out)
		}
		applied := res.(*gatewaypb.ApplyResponse)
		if show(applied.GetChanges()) != show(planned.GetChanges()) || applied.GetRevision() != planned.GetRevision()+1 {
			t.Errorf("applied in revision %d:\n%s", applied.GetRevision(), show(applied.GetChanges()))
		}

		again := f.apply(base, true)
		if len(again.GetChanges()) > 0 || again.GetRevision() != applied.GetRevision() {
			t.Errorf("again, revision %d:\n%s", again.GetRevision(), show(again.GetChanges()))
		}

		s := f.replica.State()
		check := s.TargetByName("check")
		if check == nil || len(check.SigningKey) < 20 || check.Sequence != 1 || check.Timeout != 10*time.Second || !check.InterruptOnError ||
			check.Type != store.TargetRequestResponse {
			t.Fatalf("%+v", check)
		}
		e := s.Execution(addHumanUserE)
		if e == nil || e.Sequence != 1 || len(e.Targets) != 2 || e.Targets[0] != check.ID || e.Targets[1] != s.TargetByName("audit").ID {
			t.Fatalf("%+v", e)
		}

		changed := strings.NewReplacer("timeout: 1m", "timeout: 30s", "[check, audit]", "[audit]", ", headers: {X-Api-Key: s3cret}", "").Replace(base)
		golden(t, "plan/update.golden", show(f.plan(changed, false).GetChanges()))
		f.apply(changed, false)
		s = f.replica.State()
		if now := s.TargetByName("check"); now.Sequence != 1 || now.SigningKey != check.SigningKey || !now.ChangedAt.Equal(check.ChangedAt) {
			t.Errorf("an untouched target: %+v", now)
		}
		if now := s.TargetByName("audit"); now.Sequence != 2 || !now.ChangedAt.After(now.CreatedAt) {
			t.Errorf("a changed target: %+v", now)
		}

		one := "kind: Target\nname: AUDIT\nwebhook: {url: https://hooks.example.com/audit}\ntimeout: 30s\n"
		golden(t, "plan/prune.golden", show(f.plan(one, true).GetChanges()))
		f.apply(one, true)
		s = f.replica.State()
		if len(s.Targets()) != 1 || len(s.Executions()) != 0 || s.Targets()[0].Name != "AUDIT" || s.ExecutionTombstone(addHumanUserE) == nil ||
			s.TargetTombstone(check.ID) == nil || s.Len(store.KindTargetPolicy)+s.Len(store.KindExecutionPolicy) != 0 {
			t.Errorf("%v", s.Kinds())
		}
		f.apply(base, false)
		if e := f.replica.State().Execution(addHumanUserE); e.Sequence != 4 { // created, changed, deleted, created
			t.Errorf("the sequence does not go on: %d", e.Sequence)
		}
	})
}

func TestApplyIsRefusedWhenTheRevisionMovedOn(t *testing.T) {
	t.Parallel()
	f := start(t)
	revision := f.plan(base, false).GetRevision() + 1
	f.apply(base, false)
	f.target("somebody else")
	_, out := f.call(overREST, &gatewaypb.ApplyRequest{Document: base, Prune: true, ExpectRevision: revision})
	if out.code != codes.Aborted || out.http != http.StatusConflict || !strings.Contains(out.message, "plan again") {
		t.Errorf("%+v", out)
	}
	if f.replica.State().TargetByName("somebody else") == nil {
		t.Error("it was applied")
	}
	f.must(&gatewaypb.ApplyRequest{Document: base, Prune: true, ExpectRevision: revision + 1})
}

func TestFaultsAgainstWhatIsStored(t *testing.T) {
	t.Parallel()
	names, err := filepath.Glob("testdata/refused/*.yaml")
	if err != nil || len(names) == 0 {
		t.Fatal("no files", err)
	}
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			f := start(t, withEvents, func(o *admin.Options) {
				o.CheckURL = func(_ context.Context, url string) error {
					if strings.Contains(url, "denied") {
						return errors.New("denied")
					}
					return nil
				}
			})
			f.apply(base, false)
			prune := strings.Contains(name, "prune")
			_, planned := f.call(overGRPC, &gatewaypb.PlanRequest{Document: string(text), Prune: prune})
			_, applied := f.call(overGRPC, &gatewaypb.ApplyRequest{Document: string(text), Prune: prune})
			if planned.code != codes.InvalidArgument || planned != applied {
				t.Errorf("plan: %+v\napply: %+v", planned, applied)
			}
			if strings.Contains(planned.message, "s3cret") {
				t.Error("a fault repeats a secret")
			}
			golden(t, strings.TrimPrefix(name, "testdata/")+".golden", planned.message+"\n")
			if f.replica.State().Revision() != 1 {
				t.Error("something was written")
			}
		})
	}
}

func TestAllFaultsHaveABound(t *testing.T) {
	t.Parallel()
	f := start(t)
	doc := strings.Repeat("- {kind: Execution, condition: request, targets: [x]}\n", 1000)
	_, out := f.call(overREST, &gatewaypb.PlanRequest{Document: doc})
	if out.http != 400 || len(out.message) > 8<<10 || !strings.Contains(out.message, "more") {
		t.Errorf("%d bytes: %.300s", len(out.message), out.message)
	}
}

func TestWithoutASchemaEveryMethodIsAccepted(t *testing.T) {
	t.Parallel()
	f := start(t, withoutSchema)
	f.apply("[{kind: Execution, condition: request/a.B/C, targets: []}, {kind: Execution, condition: event/some.thing, targets: []}]", false)
}

func TestWhatIsStoredStaysValidWhenTheUpstreamChanges(t *testing.T) {
	t.Parallel()
	known := false
	f := start(t, func(o *admin.Options) {
		o.Schema = func() (methods, services []string, ok bool) { return upstreamMethods, upstreamServices, known }
	})
	doc := "kind: Execution\ncondition: request/gone.Service/Method\ntargets: []\n"
	f.apply(doc, false)
	known = true
	if p := f.plan(doc, true); len(p.GetChanges()) > 0 {
		t.Error(show(p.GetChanges()))
	}
	_, out := f.call(overGRPC, &gatewaypb.PlanRequest{Document: doc, Prune: true})
	if out.code != codes.OK {
		t.Errorf("%+v", out)
	}
}

func TestNamesAreSwappedInOneRevision(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.apply(base, false)
	swapped := strings.NewReplacer("name: check", "name: audit", "name: Audit", "name: Check").Replace(base)
	res := f.apply(swapped, false)
	s := f.replica.State()
	if s.Revision() != res.GetRevision() || s.TargetByName("audit").Type != store.TargetRequestResponse || s.TargetByName("check").Name != "Check" {
		t.Errorf("%+v", s.TargetByName("audit"))
	}
}

func TestSigningKeysAreKeptGivenAndNeverShown(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.apply(base, false)
	key := f.replica.State().TargetByName("audit").SigningKey
	if doc := f.export(false); strings.Contains(doc, key) || strings.Contains(doc, "s3cret") {
		t.Errorf("secrets were exported:\n%s", doc)
	}
	with := f.export(true)
	if !strings.Contains(with, key) || !strings.Contains(with, "X-Api-Key: s3cret") {
		t.Errorf("secrets were not exported:\n%s", with)
	}
	rotated := strings.Replace(base, "timeout: 1m", "timeout: 1m\nsigning_key: another-key", 1)
	p := show(f.plan(rotated, false).GetChanges())
	if p != "update target Audit\n  signing_key: \"***\" -> \"***\"\n" {
		t.Error(p)
	}
	f.apply(rotated, false)
	if now := f.replica.State().TargetByName("audit").SigningKey; now != "another-key" {
		t.Error(now)
	}
	other := start(t)
	res := other.must(&gatewaypb.ImportRequest{Document: with}).(*gatewaypb.ImportResponse)
	if !res.GetApplied() || other.replica.State().TargetByName("audit").SigningKey != key {
		t.Errorf("%v", res)
	}
	if got := other.export(true); body(got) != body(with) {
		t.Errorf("exported again:\n%s\nwant\n%s", got, with)
	}
}

// body is an exported document without what it is an export of.
func body(doc string) string {
	_, rest, _ := strings.Cut(doc, "---\n")
	return rest
}

func TestPublicKeysRoundTrip(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.apply(base, false)
	id := f.replica.State().TargetByName("audit").ID
	added := f.must(&actionv2.AddPublicKeyRequest{TargetId: id, PublicKey: testKeys().ec}).(*actionv2.AddPublicKeyResponse)
	f.must(&actionv2.ActivatePublicKeyRequest{TargetId: id, KeyId: added.GetKeyId()})
	doc := f.export(false)
	if p := f.plan(doc, true); len(p.GetChanges()) > 0 {
		t.Error(show(p.GetChanges()))
	}
	if p := f.plan(base, true); len(p.GetChanges()) > 0 {
		t.Errorf("keys that are not named stay: %s", show(p.GetChanges()))
	}
	inactive := strings.Replace(doc, "    active: true\n", "", 1)
	f.apply(inactive, false)
	keys := f.replica.State().TargetByName("audit").PublicKeys
	if len(keys) != 1 || keys[0].Active || keys[0].ID != added.GetKeyId() || !keys[0].ChangedAt.After(keys[0].CreatedAt) {
		t.Errorf("%+v", keys)
	}
	other := start(t)
	if res := other.must(&gatewaypb.ImportRequest{Document: strings.ReplaceAll(doc, `"***"`, "new")}).(*gatewaypb.ImportResponse); !res.GetApplied() {
		t.Errorf("%v", res)
	}
	if keys := other.replica.State().TargetByName("audit").PublicKeys; len(keys) != 1 || !keys[0].Active || keys[0].ID != added.GetKeyId() {
		t.Errorf("%+v", keys)
	}
}

func TestImportReportsEveryItem(t *testing.T) {
	t.Parallel()
	each(t, gatewayProtocols, func(t *testing.T, p protocol) {
		f := start(t)
		f.apply(base, false)
		doc := strings.Replace(base, "timeout: 1m", "timeout: 2m", 1) + "---\n{kind: Target, name: new, webhook: {url: https://a.example}, timeout: 1s}\n"
		want := map[string]string{
			"target Audit": "updated", "target check": "unchanged", "target new": "created",
			"execution " + addHumanUserE: "unchanged", "execution request/zitadel.user.v2.UserService": "unchanged",
		}
		do := func(doc string, dry bool) *gatewaypb.ImportResponse {
			t.Helper()
			res, out := f.call(p, &gatewaypb.ImportRequest{Document: doc, DryRun: dry})
			if out.code != codes.OK {
				t.Fatal(out)
			}
			return res.(*gatewaypb.ImportResponse)
		}
		results := func(res *gatewaypb.ImportResponse) map[string]string {
			got := make(map[string]string)
			for _, it := range res.GetItems() {
				got[it.GetKind()+" "+it.GetName()] = it.GetResult()
				if (it.GetResult() == "failed") != (it.GetError() != "") {
					t.Errorf("%v", it)
				}
			}
			return got
		}
		dry := do(doc, true)
		if got := results(dry); fmt.Sprint(got) != fmt.Sprint(want) || dry.GetApplied() || dry.GetRevision() != 1 {
			t.Errorf("%v, applied %v, revision %d", got, dry.GetApplied(), dry.GetRevision())
		}
		broken := doc + "---\n{kind: Execution, condition: response, targets: [nobody]}\n"
		refused := do(broken, false)
		got := results(refused)
		if got["execution response"] != "failed" || got["target new"] != "created" || refused.GetApplied() || refused.GetRevision() != 1 || f.replica.State().Revision() != 1 {
			t.Errorf("%v, applied %v, revision %d", got, refused.GetApplied(), refused.GetRevision())
		}
		done := do(doc, false)
		if got := results(done); fmt.Sprint(got) != fmt.Sprint(want) || !done.GetApplied() || done.GetRevision() != 2 {
			t.Errorf("%v, applied %v, revision %d", got, done.GetApplied(), done.GetRevision())
		}
		if _, out := f.call(p, &gatewaypb.ImportRequest{Document: "kind: Nonsense"}); out.code != codes.InvalidArgument {
			t.Errorf("%+v", out)
		}
	})
}

func TestASecretThatWasLeftOutIsNotMadeUp(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.apply(base, false)
	doc := f.export(false)
	other := start(t)
	res := other.must(&gatewaypb.ImportRequest{Document: doc}).(*gatewaypb.ImportResponse)
	if res.GetApplied() || other.replica.State().Revision() != 0 {
		t.Errorf("%v", res)
	}
	for _, it := range res.GetItems() {
		if failed := it.GetResult() == "failed"; failed != (it.GetName() == "check") {
			t.Errorf("%v", it)
		}
	}
}

func TestWhoMayPlanApplyExportImportAndSeeValues(t *testing.T) {
	t.Parallel()
	tokens := map[string][]string{
		"reader": {"gateway.read"}, "writer": {"gateway.write"}, "both": {"gateway.*"}, "other": {"action.*", "execution.*"},
	}
	f := start(t, func(o *admin.Options) {
		for name, permissions := range tokens {
			o.Tokens = append(o.Tokens, admin.Token{Name: name, SHA256: admin.HashToken(name), Permissions: permissions})
		}
		o.Gateway.Places = nowhere{}
	})
	f.apply(base, false)
	local := &gatewaypb.LocalOutput{Path: "a"}
	for _, c := range []struct {
		req     proto.Message
		allowed string
	}{
		{&gatewaypb.PlanRequest{Document: base}, "reader both"},
		{&gatewaypb.ApplyRequest{Document: base}, "writer both"},
		{&gatewaypb.ExportRequest{}, "reader both"},
		{&gatewaypb.ExportRequest{WithSigningKeys: true}, "both"},
		{&gatewaypb.ExplainRequest{Method: "/a.B/C", Last: true}, "reader both"},
		{&gatewaypb.ExplainRequest{Method: "/a.B/C", Last: true, WithValues: true}, "both"},
		{&gatewaypb.ExportRequest{LocalOutput: local}, "both"},
		{&gatewaypb.ExportRequest{GcsOutput: &gatewaypb.GCSLocation{Bucket: "b", Path: "p"}}, "both"},
		{&gatewaypb.ImportRequest{Document: base}, "writer both"},
		{&gatewaypb.ImportRequest{Document: base, DryRun: true}, "writer both"},
		{&gatewaypb.ImportRequest{LocalInput: local}, "writer both"},
	} {
		for name := range tokens {
			f.token = name
			want := codes.PermissionDenied
			if strings.Contains(c.allowed, name) {
				want = codes.OK
			}
			if _, out := f.call(overREST, c.req); out.code != want {
				t.Errorf("%T %v as %s: %+v", c.req, c.req, name, out)
			}
		}
	}
}

// nowhere takes every document and has an empty one.
type nowhere struct{}

func (nowhere) Write(context.Context, admin.Place, []byte) error         { return nil }
func (nowhere) Read(context.Context, admin.Place, int64) ([]byte, error) { return nil, nil }

func TestWhatExportAndImportAskFor(t *testing.T) {
	t.Parallel()
	f := start(t)
	s3 := func(change func(*gatewaypb.S3Location)) *gatewaypb.S3Location {
		l := &gatewaypb.S3Location{Path: "p", Endpoint: "s3.example.com", AccessKeyId: "id", SecretAccessKey: "key", Bucket: "b", Ssl: true}
		change(l)
		return l
	}
	local := &gatewaypb.LocalOutput{Path: "a"}
	for _, c := range []struct {
		name string
		req  proto.Message
		code codes.Code
	}{
		{"two outputs", &gatewaypb.ExportRequest{ResponseOutput: true, LocalOutput: local}, codes.InvalidArgument},
		{"local without a path", &gatewaypb.ExportRequest{LocalOutput: &gatewaypb.LocalOutput{}}, codes.InvalidArgument},
		{"s3 without an endpoint", &gatewaypb.ExportRequest{S3Output: s3(func(l *gatewaypb.S3Location) { l.Endpoint = "" })}, codes.InvalidArgument},
		{"s3 without a bucket", &gatewaypb.ExportRequest{S3Output: s3(func(l *gatewaypb.S3Location) { l.Bucket = "" })}, codes.InvalidArgument},
		{"s3 without a key", &gatewaypb.ExportRequest{S3Output: s3(func(l *gatewaypb.S3Location) { l.SecretAccessKey = "" })}, codes.InvalidArgument},
		{"gcs without a path", &gatewaypb.ExportRequest{GcsOutput: &gatewaypb.GCSLocation{Bucket: "b"}}, codes.InvalidArgument},
		{"a timeout that is none", &gatewaypb.ExportRequest{Timeout: "soon"}, codes.InvalidArgument},
		{"a timeout of nothing", &gatewaypb.ExportRequest{Timeout: "0s"}, codes.InvalidArgument},
		{"a timeout of hours", &gatewaypb.ImportRequest{Document: base, Timeout: "2h"}, codes.InvalidArgument},
		{"no input", &gatewaypb.ImportRequest{}, codes.InvalidArgument},
		{"two inputs", &gatewaypb.ImportRequest{Document: base, LocalInput: local}, codes.InvalidArgument},
		{"no places", &gatewaypb.ExportRequest{LocalOutput: local}, codes.Unimplemented},
		{"no places to import from", &gatewaypb.ImportRequest{LocalInput: local}, codes.Unimplemented},
		{"the answer", &gatewaypb.ExportRequest{ResponseOutput: true, Timeout: "5s"}, codes.OK},
	} {
		if _, out := f.call(overREST, c.req); out.code != c.code {
			t.Errorf("%s: %+v", c.name, out)
		}
	}
}

func TestAnExportSaysWhereItIsFrom(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.apply(base, false)
	res := f.must(&gatewaypb.ExportRequest{}).(*gatewaypb.ExportResponse)
	if res.GetTargets() != 2 || res.GetExecutions() != 2 || res.GetRevision() != 1 {
		t.Errorf("%v", protojson.Format(res))
	}
	if !bytes.HasPrefix([]byte(res.GetDocument()), []byte("kind: Export\nformat: 1\ninstance: "+instance+"\nrevision: 1\n")) {
		t.Error(res.GetDocument())
	}
}

func TestManyApplyAtOnce(t *testing.T) {
	t.Parallel()
	embedded, err := store.OpenEmbedded(store.EmbeddedOptions{Path: filepath.Join(t.TempDir(), "store.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = embedded.Close() })
	gateways := []*fixture{startOn(t, embedded), startOn(t, embedded)}
	const each = 20
	var wg sync.WaitGroup
	for i := range 2 * each {
		wg.Go(func() {
			doc := fmt.Sprintf("- {kind: Target, name: shared, webhook: {url: https://a.example}, timeout: 1s}\n"+
				"- {kind: Target, name: own-%d, webhook: {url: https://a.example}, timeout: 1s}\n", i)
			if _, out := gateways[i%2].call(overGRPC, &gatewaypb.ApplyRequest{Document: doc}); out.code != codes.OK {
				t.Errorf("%+v", out)
			}
		})
	}
	wg.Wait()
	s, err := gateways[0].replica.Fresh(t.Context())
	if err != nil || len(s.Targets()) != 2*each+1 || s.TargetByName("shared").Sequence != 1 || s.Revision() != 2*each {
		t.Errorf("%d targets in revision %d, %v", len(s.Targets()), s.Revision(), err)
	}
}
